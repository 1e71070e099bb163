/* What drafts come from, against the definitions done the slow way; and the clock that
 * says whether they pay. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "talk/draft.h"
#include "talk/pace.h"

#include <math.h>
#include <string.h>

enum { MAX = 300 };

static size_t below(struct rng *r, size_t n)
{
    return (size_t)(rng_unit(r) * (double)n);
}

/* Few enough tokens that long runs come back, and pieces that are copied. */
static void make(struct rng *r, int32_t *t)
{
    size_t alphabet = 2 + below(r, 40);
    for (size_t i = 0; i < MAX;) {
        size_t from = i ? below(r, i) : 0, n = below(r, 3) ? 0 : below(r, 45);
        for (size_t k = 0; k < n && i < MAX && i; k++)
            t[i++] = t[from + k];
        if (i < MAX)
            t[i++] = (int32_t)below(r, alphabet) - 3;
    }
}

/* ---- the index ---- */

static size_t common(const int32_t *t, size_t n, size_t end)
{
    size_t k = 0;
    while (k < end && k < DRAFT_LONGEST && t[end - 1 - k] == t[n - 1 - k])
        k++;
    return k;
}

/* The longest, and how many pairs like the last there are before it. */
static size_t longest(const int32_t *t, size_t n, size_t *n_pairs)
{
    size_t best = 0;
    *n_pairs = 0;
    for (size_t end = 2; end < n; end++) {
        size_t k = common(t, n, end);
        *n_pairs += k >= 2;
        best = k >= 2 && k > best ? k : best;
    }
    return best;
}

static void finds_the_longest_match(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 1);
    size_t n_matches = 0, n_exact = 0;
    for (size_t round = 0; round < 60; round++) {
        int32_t t[MAX];
        struct draft_index x;
        uint32_t next = 0;
        make(&r, t);
        assert_true(draft_index_init(&x, MAX));
        for (size_t n = 0; n < MAX; n++) {
            size_t got = draft_index_match(&x, &next), n_pairs,
                   want = longest(t, n, &n_pairs);
            if (got) { /* what it says is true */
                assert_in_range(next, 2, n - 1);
                assert_int_equal(got, common(t, n, next));
                n_matches++;
            }
            if (n_pairs <= 16) { /* and there is nothing better */
                assert_int_equal(got, want);
                for (size_t end = next + 1; got && got < DRAFT_LONGEST && end < n;
                     end++)
                    assert_true(common(t, n, end) < got);
                n_exact += got > 0;
            }
            draft_index_put(&x, t[n]);
        }
        draft_index_free(&x);
    }
    assert_true(n_exact > 1000 && n_matches > n_exact);
}

/* An index that tokens were taken out of is the one that never had them. */
static void cutting_leaves_no_trace(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 2);
    for (size_t round = 0; round < 60; round++) {
        int32_t t[MAX], other[MAX];
        struct draft_index x, y;
        make(&r, t);
        make(&r, other);
        assert_true(draft_index_init(&x, MAX) && draft_index_init(&y, MAX));
        for (size_t n = 0; n < MAX;) {
            uint32_t at = x.n, more = (uint32_t)below(&r, MAX - at);
            for (uint32_t i = 0; i < more; i++)
                draft_index_put(&x, other[i]);
            draft_index_cut(&x, at);
            draft_index_put(&x, t[n]);
            draft_index_put(&y, t[n++]);
            y.back = 0; /* cutting forgets that, too */
            x.back = 0;
            uint32_t a = 0, b = 0;
            assert_int_equal(draft_index_match(&x, &a), draft_index_match(&y, &b));
            assert_int_equal(a, b);
            assert_memory_equal(x.heads, y.heads, sizeof *x.heads << x.bits);
        }
        draft_index_cut(&x, 0);
        for (size_t i = 0; i < (size_t)1 << x.bits; i++)
            assert_int_equal(x.heads[i], 0);
        draft_index_free(&x);
        draft_index_free(&y);
    }
}

/* ---- the counts ---- */

/* How often each of 8 tokens followed the last `order` ones. */
static size_t followers(const int32_t *t, size_t n, unsigned order, size_t count[8])
{
    size_t total = 0;
    memset(count, 0, 8 * sizeof *count);
    for (size_t i = order; i < n; i++)
        if (!memcmp(t + i - order, t + n - order, order * sizeof *t)) {
            count[t[i]]++;
            total++;
        }
    return total;
}

/* Three tokens: nothing is ever pushed out, nor halved in 250 places. */
static void counts_what_followed(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 3);
    for (size_t round = 0; round < 30; round++) {
        struct draft_cache c;
        int32_t t[250];
        assert_true(draft_cache_init(&c, 5000));
        for (size_t n = 0; n < 250; n++) {
            for (unsigned order = 1; order <= 3 && order <= n; order++) {
                size_t count[8], total = followers(t, n, order, count);
                int32_t token = -1;
                unsigned sure = 9;
                bool got = draft_cache_get(&c, t, n, order, &token, &sure);
                assert_int_equal(got, total > 0);
                if (!got)
                    continue;
                assert_in_range(token, 0, 2);
                size_t best = count[token];
                for (size_t i = 0; i < 8; i++)
                    assert_true(count[i] <= best);
                assert_int_equal(sure, total == 1         ? 0
                                       : 2 * best < total ? 1
                                       : best < total     ? 2
                                                          : 3);
            }
            t[n] = (int32_t)below(&r, 1 + round % 3);
            draft_cache_put(&c, t, n + 1);
        }
        draft_cache_free(&c);
    }
}

/* More contexts and followers than there is room for: answers stay tokens that were
 * seen, and what is frequent survives. */
static void frequent_ones_stay(void **state)
{
    (void)state;
    struct rng r;
    struct draft_cache c;
    int32_t t[20000], token;
    unsigned sure;
    rng_seed(&r, 4);
    assert_true(draft_cache_init(&c, 1));
    for (size_t n = 0; n < 20000; n++) {
        t[n] = n % 10 == 0   ? 1000001
               : n % 10 == 1 ? 1000002
                             : (int32_t)below(&r, 99999);
        draft_cache_put(&c, t, n + 1);
    }
    const int32_t one[] = {1000001}, unseen[] = {1000007};
    assert_true(draft_cache_get(&c, one, 1, 1, &token, &sure));
    assert_int_equal(token, 1000002);
    assert_int_equal(sure, 3);
    assert_false(draft_cache_get(&c, unseen, 1, 1, &token, &sure));
    assert_false(draft_cache_get(&c, one, 1, 2, &token, &sure));
    draft_cache_free(&c);
}

/* ---- the clock ---- */

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-12 * fabs(b);
}

static void a_spike_does_not_count(void **state)
{
    (void)state;
    struct pace p = {0};
    assert_true(pace_seconds(&p, 1) == 0 && pace_worth(&p, 1) == 0);
    pace_note(&p, 1, 0, 0, 7);
    assert_true(pace_worth(&p, 1) == 0);
    pace_note(&p, 1, 0, 0, 2);
    assert_true(near(pace_plain(&p, 1), 2) && pace_worth(&p, 1) == 1.05);
    for (size_t i = 0; i < 20; i++)
        pace_note(&p, 1, 0, 0, i % 5 == 4 ? 100 : 2);
    assert_true(near(pace_seconds(&p, 1), 2));
    assert_true(near(pace_seconds(&p, 11), 2 * 4)); /* a guess: 0.3 a token */
    double before = p.balance;
    pace_note(&p, 1, 4, 4, 600); /* nor as the first of its size, in both accounts */
    assert_true(near(pace_seconds(&p, 5), 4.4));
    assert_true(near(p.balance, before + 5 * 2 - 2 * 4.4 + 0.01 * 2 * 4.4));
    for (size_t i = 0; i < 4; i++)
        pace_note(&p, 1, 4, 4, 6);
    assert_true(near(pace_seconds(&p, 5), 6));
    assert_true(near(pace_seconds(&p, 3), 4)); /* between two measured ones */
    assert_true(near(pace_seconds(&p, 11), 6 * 4 / 2.2));
    for (size_t i = 0; i < 4; i++) /* four of seven is news */
        pace_note(&p, 1, 4, 4, 9);
    assert_true(near(pace_seconds(&p, 5), 9));
    pace_note(&p, 60, 9, 0, 1); /* too large to be kept */
    assert_true(near(pace_seconds(&p, 60), 9 * 18.7 / 2.2));
}

/* Drafts that are always wrong cost about a hundredth of the time, however sure the one
 * who drafts is. */
static void losses_are_bounded(void **state)
{
    (void)state;
    struct pace p = {0};
    double spent = 0, tokens = 0;
    size_t n_debts = 0;
    for (size_t i = 0; i < 5000; i++) {
        double worth = pace_worth(&p, 1);
        bool draft = worth > 0;
        double x = draft ? 2.5 : 1;
        assert_true(!draft || (p.balance >= 0 ? worth == 1.05 : worth == 1.3));
        n_debts += draft && p.balance < 0;
        pace_note(&p, 1, draft ? 4 : 0, 0, x);
        spent += x;
        tokens += 1;
    }
    assert_true(n_debts && spent > tokens && spent < 1.012 * tokens + 8);
}

/* What they once saved is soon used up. */
static void savings_are_bounded(void **state)
{
    (void)state;
    struct pace p = {0};
    pace_note(&p, 1, 0, 0, 1);
    for (size_t i = 0; i < 40; i++)
        pace_note(&p, 1, 4, 4, 2);
    assert_true(near(p.balance, 16));
    size_t n = 0;
    for (; p.balance >= 0 && n < 100; n++)
        pace_note(&p, 1, 4, 0, 2);
    assert_in_range(n, 16, 17);
}

/* A baseline that is old is measured again; other sizes are guessed again. */
static void old_times_are_not_believed(void **state)
{
    (void)state;
    struct pace p = {0};
    pace_note(&p, 1, 0, 0, 1);
    for (size_t i = 0; i < 3; i++)
        pace_note(&p, 1, 4, 4, 50);
    for (size_t i = 0; i < 3; i++)
        pace_note(&p, 1, 0, 0, 1);
    p.balance = 1e9;
    assert_true(pace_worth(&p, 1) > 0);
    assert_true(pace_worth(&p, 2) == 0); /* another size was never measured */
    assert_true(near(pace_seconds(&p, 5), 50));
    size_t n = 0;
    while (pace_worth(&p, 1) > 0 && n < 200) {
        pace_note(&p, 1, 2, 2, 1.2);
        p.balance = 1e9;
        n++;
    }
    assert_int_equal(n, 64);
    assert_true(near(pace_seconds(&p, 5), 50));
    for (size_t i = 0; i < 130; i++)
        pace_note(&p, 1, 0, 0, 1);
    assert_true(near(pace_seconds(&p, 5), 2.2));
    for (size_t i = 0; i < 3; i++) /* and the old ones are gone */
        pace_note(&p, 1, 4, 4, 3);
    assert_true(near(pace_seconds(&p, 5), 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_longest_match),
        cmocka_unit_test(cutting_leaves_no_trace),
        cmocka_unit_test(counts_what_followed),
        cmocka_unit_test(frequent_ones_stay),
        cmocka_unit_test(a_spike_does_not_count),
        cmocka_unit_test(losses_are_bounded),
        cmocka_unit_test(savings_are_bounded),
        cmocka_unit_test(old_times_are_not_believed),
    };
    return cmocka_run_group_tests_name("draft", tests, NULL, NULL);
}
