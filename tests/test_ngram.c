/* Counting repetition, against the definitions done the slow way. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rng.h"
#include "eval/ngram.h"
#include "eval/score.h"

#include <math.h>
#include <string.h>

enum { MAX = 400 };

static size_t below(struct rng *r, size_t n)
{
    return (size_t)(rng_unit(r) * (double)n);
}

/* Random tokens, or ones with a loop in them somewhere, now and then broken. */
static size_t make(struct rng *r, int32_t *t)
{
    size_t n = below(r, MAX), alphabet = 1 + below(r, 5), period = 1 + below(r, 70),
           from = below(r, n + 1), to = from + below(r, n + 1 - from);
    for (size_t i = 0; i < n; i++) {
        bool loop = i >= from + period && i < to;
        t[i] = loop ? t[i - period] : (int32_t)below(r, alphabet + (i % 7 ? 0 : 40));
    }
    if (n && below(r, 3) == 0)
        t[below(r, n)] = 99;
    return n;
}

/* The definition in ngram.h, word by word. */
static bool loop_by_definition(const int32_t *t, size_t n, size_t *begin,
                               size_t *period)
{
    for (size_t s = 0; s < n; s++)
        for (size_t p = 1; p <= 64; p++) {
            size_t len = 3 * p > 24 ? 3 * p : 24;
            bool is = s + len <= n;
            for (size_t i = s; is && i + p < s + len; i++)
                is = t[i] == t[i + p];
            if (is) {
                *begin = s;
                *period = p;
                return true;
            }
        }
    return false;
}

static void loops_are_found_where_the_definition_says(void **state)
{
    (void)state;
    struct rng r;
    int32_t t[MAX];
    size_t n_found = 0, n_tried = 4000;
    rng_seed(&r, 7);
    for (size_t k = 0; k < n_tried; k++) {
        size_t n = make(&r, t), a = 0, b = 0, pa = 0, pb = 0;
        bool want = loop_by_definition(t, n, &a, &pa), got = loop_find(t, n, &b, &pb);
        assert_int_equal(want, got);
        if (want) {
            assert_int_equal(a, b);
            assert_int_equal(pa, pb);
        }
        n_found += want;
    }
    assert_true(n_found > n_tried / 10 && n_found < n_tried * 9 / 10);
}

static void loops_at_the_border(void **state)
{
    (void)state;
    int32_t t[MAX];
    size_t begin = 1234, period = 1234;
    for (size_t i = 0; i < MAX; i++)
        t[i] = (int32_t)(i % 64);
    assert_false(loop_find(t, 191, &begin, &period)); /* 3 * 64 = 192 */
    assert_int_equal(begin, 1234);
    assert_true(loop_find(t, 192, &begin, &period));
    assert_int_equal(begin, 0);
    assert_int_equal(period, 64);
    for (size_t i = 0; i < MAX; i++)
        t[i] = (int32_t)(i % 65); /* too long a period */
    assert_false(loop_find(t, MAX, &begin, &period));
    for (size_t i = 0; i < MAX; i++)
        t[i] = i < 10 ? (int32_t)i : 5;
    assert_false(loop_find(t, 33, &begin, &period));
    assert_true(loop_find(t, 34, &begin, &period));
    assert_int_equal(begin, 10);
    assert_int_equal(period, 1);
    assert_false(loop_find(t, 0, &begin, &period));
}

static void counts_are_those_of_the_definition(void **state)
{
    (void)state;
    struct rng r;
    int32_t t[MAX];
    static struct ngram g[2 * MAX];
    rng_seed(&r, 8);
    for (size_t k = 0; k < 300; k++) {
        unsigned len = 1 + (unsigned)below(&r, NGRAM_MAX);
        size_t n = make(&r, t), n_groups = 3, only[3] = {0}, want_only[3] = {0},
               cut[4] = {0, n / 3, n / 2, n}, n_g = 0, distinct = 0;
        for (size_t i = 0; i < n_groups; i++)
            n_g +=
                ngram_list(t + cut[i], cut[i + 1] - cut[i], len, (uint32_t)i, g + n_g);
        size_t want_n = 0;
        for (size_t i = 0; i < n_groups; i++)
            for (size_t a = cut[i]; a + len <= cut[i + 1]; a++) {
                bool seen = false, elsewhere = false;
                for (size_t j = 0; j < n_groups; j++)
                    for (size_t b = cut[j]; b + len <= cut[j + 1]; b++) {
                        if (memcmp(t + a, t + b, len * sizeof *t))
                            continue;
                        seen = seen || b < a;
                        elsewhere = elsewhere || j != i;
                    }
                want_n++;
                distinct += !seen;
                want_only[i] += !seen && !elsewhere;
            }
        assert_int_equal(n_g, want_n);
        assert_int_equal(ngram_sort(g, n_g), distinct);
        ngram_only(g, n_g, only);
        assert_memory_equal(only, want_only, sizeof only);
    }
}

static void a_mean_has_its_usual_error(void **state)
{
    (void)state;
    const double x[] = {1, 0, 0, 1, 1, 0, 1, 1}, ones[] = {1, 1, 1, 1, 1, 1, 1, 1},
                 w[] = {3, 1, 0, 2, 5, 0, 1, 4};
    struct eval_mean m = score_ratio(x, ones, 8);
    assert_true(m.mean == 5.0 / 8);
    assert_true(fabs(m.se - sqrt(5.0 / 8 * 3 / 8 / 7)) < 1e-15);
    /* by hand: r = 5/16, residuals x - r w, six of them with a weight */
    double sq = 0;
    for (size_t i = 0; i < 8; i++)
        sq += w[i] > 0 ? pow(x[i] - 5.0 / 16 * w[i], 2) : 0;
    m = score_ratio(x, w, 8);
    assert_true(fabs(m.mean - 5.0 / 16) < 1e-15);
    assert_true(fabs(m.se - sqrt(6.0 / 5 * sq) / 16) < 1e-15);
    assert_true(isnan(score_ratio(x, ones, 1).se));
    assert_true(score_ratio(x, ones, 0).mean == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loops_are_found_where_the_definition_says),
        cmocka_unit_test(loops_at_the_border),
        cmocka_unit_test(counts_are_those_of_the_definition),
        cmocka_unit_test(a_mean_has_its_usual_error),
    };
    return cmocka_run_group_tests_name("ngram", tests, NULL, NULL);
}
