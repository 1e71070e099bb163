/* A tokenizer learned from texts, against byte-pair encoding done the slow way. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "tok/bpe_train.h"
#include "tok/tok_impl.h"

#include <string.h>

enum { MAX_TEXT = 500, N_DOCS = 3, A = 'a' - '!', SPACE = 220 };

static struct runt_err err;

/* ---- the slow way ---- */

/* All texts as they stand, a token a place; word[i] tells which pre-token it is in. */
struct slow {
    int32_t ids[N_DOCS * MAX_TEXT], merges[BPE_MAX_VOCAB][2];
    size_t word[N_DOCS * MAX_TEXT], n, n_words, n_merges;
    uint32_t len[BPE_MAX_VOCAB];
};

static struct slow slow;

/* GPT-2's id of a byte: its place among the characters of the printable alphabet. */
static int32_t byte_id(uint8_t b)
{
    int32_t id = 0;
    for (int i = 0; i < 256; i++)
        id += tok_byte_to_char((uint8_t)i) < tok_byte_to_char(b);
    return id;
}

static void slow_begin(void)
{
    memset(&slow, 0, sizeof slow);
    for (int i = 0; i < 256; i++)
        slow.len[i] = 1;
}

static void slow_add(const char *text, size_t n)
{
    for (size_t at = 0, len; at < n; at += len) {
        len = tok_pre_next(text + at, n - at);
        for (size_t i = at; i < at + len; i++) {
            slow.ids[slow.n] = byte_id((uint8_t)text[i]);
            slow.word[slow.n++] = slow.n_words;
        }
        slow.n_words++;
    }
}

static bool is_pair(size_t i)
{
    return i + 1 < slow.n && slow.word[i] == slow.word[i + 1] &&
           slow.len[slow.ids[i]] + slow.len[slow.ids[i + 1]] <= BPE_MAX_TOKEN;
}

static bool equal(size_t i, size_t k)
{
    return slow.ids[i] == slow.ids[k] && slow.ids[i + 1] == slow.ids[k + 1];
}

/* Where the pair stands that merges next; false when none occurs often enough. */
static bool slow_best(uint64_t min_count, size_t *best)
{
    uint64_t most = 0;
    for (size_t i = 0; i < slow.n; i++) {
        uint64_t count = 0;
        if (!is_pair(i))
            continue;
        for (size_t k = 0; k < slow.n; k++)
            count += is_pair(k) && equal(i, k);
        if (count < min_count || count < most ||
            (count == most && slow.ids[i] > slow.ids[*best]) ||
            (count == most && slow.ids[i] == slow.ids[*best] &&
             slow.ids[i + 1] >= slow.ids[*best + 1]))
            continue;
        most = count;
        *best = i;
    }
    return most > 0;
}

static void slow_run(size_t n_vocab, uint64_t min_count)
{
    size_t best = 0;
    while (slow.n_merges < n_vocab - 257 && slow_best(min_count, &best)) {
        int32_t left = slow.ids[best], right = slow.ids[best + 1],
                id = 256 + (int32_t)slow.n_merges;
        size_t n = 0;
        for (size_t i = 0; i < slow.n; i++) {
            bool is = is_pair(i) && slow.ids[i] == left && slow.ids[i + 1] == right;
            slow.word[n] = slow.word[i];
            slow.ids[n++] = is ? id : slow.ids[i];
            i += is;
        }
        slow.n = n;
        slow.len[id] = slow.len[left] + slow.len[right];
        slow.merges[slow.n_merges][0] = left;
        slow.merges[slow.n_merges++][1] = right;
    }
}

/* ---- the real one ---- */

static int train(struct pool *pool, const char *const *texts, const size_t *lens,
                 size_t n_texts, const struct bpe_options *o, struct tok_vocab *v,
                 struct bpe_stats *s)
{
    struct bpe_train *t = NULL;
    int rc = bpe_train_new(pool, &t, &err);
    for (size_t i = 0; i < n_texts && !rc; i++)
        rc = bpe_train_add(t, texts[i], lens[i], &err);
    if (!rc)
        rc = bpe_train_run(t, o, v, s, &err);
    bpe_train_free(t);
    return rc;
}

static struct tok_vocab learn(const char *const *texts, size_t n, size_t n_vocab,
                              uint64_t min_count)
{
    struct tok_vocab v;
    struct bpe_stats s;
    size_t lens[8];
    struct bpe_options o = {.n_vocab = n_vocab, .min_count = min_count};
    for (size_t i = 0; i < n; i++)
        lens[i] = strlen(texts[i]);
    if (train(NULL, texts, lens, n, &o, &v, &s))
        fail_msg("%s", err.msg);
    return v;
}

static void expect_merges(const struct tok_vocab *v, const int32_t (*want)[2], size_t n)
{
    assert_int_equal(v->n_merges, n);
    assert_int_equal(v->n_tokens, 257 + n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(v->pairs[i][0], want[i][0]);
        assert_int_equal(v->pairs[i][1], want[i][1]);
    }
}

/* Letters that repeat, runs of one letter, spaces, apostrophes, letters of two bytes,
 * and bytes that are no text. */
static size_t make_text(struct rng *r, char *text)
{
    static const char *const parts[] = {"a",  "b",        "aa",   " ",
                                        "ab", "\xc3\xa9", "'",    "bababab,",
                                        "1",  "\xff",     "cabb", "\n"};
    size_t n = 0, want = (size_t)(rng_unit(r) * (MAX_TEXT - 20)),
           n_parts = 2 + (size_t)(rng_unit(r) * 11);
    while (n < want) {
        const char *p = parts[(size_t)(rng_unit(r) * (double)n_parts)];
        memcpy(text + n, p, strlen(p));
        n += strlen(p);
    }
    return n;
}

static void merges_are_those_of_the_slow_way(void **state)
{
    (void)state;
    static char text[N_DOCS][MAX_TEXT];
    const char *texts[N_DOCS] = {text[0], text[1], text[2]};
    struct rng r;
    size_t lens[N_DOCS], n_merges = 0, n_ended = 0;
    rng_seed(&r, 3);
    for (size_t k = 0; k < 40; k++) {
        struct bpe_options o = {.n_vocab = 257 + (size_t)(rng_unit(&r) * 60),
                                .min_count = 1 + k % 3};
        struct bpe_stats s = {0};
        struct tok_vocab v;
        struct tok *t = NULL;
        slow_begin();
        for (size_t d = 0; d < N_DOCS; d++) {
            lens[d] = make_text(&r, text[d]);
            slow_add(text[d], lens[d]);
        }
        slow_run(o.n_vocab, o.min_count);
        assert_int_equal(train(NULL, texts, lens, N_DOCS, &o, &v, &s), 0);
        expect_merges(&v, (const int32_t(*)[2])slow.merges, slow.n_merges);
        assert_int_equal(s.n_words, slow.n_words);
        assert_int_equal(s.n_bytes, lens[0] + lens[1] + lens[2]);
        assert_int_equal(s.n_tokens, slow.n);
        /* and the encoder makes the same of the texts */
        assert_int_equal(tok_create(&v, "learned", &t, &err), 0);
        for (size_t d = 0, at = 0; d < N_DOCS; d++) {
            int32_t *ids = NULL;
            size_t n = 0;
            assert_int_equal(tok_encode(t, texts[d], lens[d], false, &ids, &n, &err),
                             0);
            assert_true(at + n <= slow.n);
            assert_memory_equal(ids, slow.ids + at, n * sizeof *ids);
            at += n;
            mem_free(ids);
        }
        n_merges += v.n_merges;
        n_ended += v.n_tokens < o.n_vocab;
        tok_destroy(t);
        tok_vocab_free(&v);
    }
    assert_true(n_merges > 700 && n_ended > 3 && n_ended < 37);
}

static void ties_go_to_the_lower_ids(void **state)
{
    (void)state;
    const char *const left[] = {"ab cd ab cd"};
    /* a space is byte 32, but token 220 as in GPT-2: "c d" comes before " c" */
    const int32_t want_left[][2] = {
        {A, A + 1}, {A + 2, A + 3}, {SPACE, 257}, {SPACE, 256}};
    struct tok_vocab v = learn(left, 1, 300, 2);
    expect_merges(&v, want_left, 3);
    tok_vocab_free(&v);
    v = learn(left, 1, 300, 1);
    expect_merges(&v, want_left, 4);
    tok_vocab_free(&v);
    const char *const right[] = {"ac", "ab", "ac", "ab", "xx", "xx"};
    const int32_t want_right[][2] = {{A, A + 1}, {A, A + 2}, {'x' - '!', 'x' - '!'}};
    v = learn(right, 6, 300, 2);
    expect_merges(&v, want_right, 3);
    tok_vocab_free(&v);
    v = learn(right, 6, 258, 2); /* no more than asked for */
    expect_merges(&v, want_right, 1);
    tok_vocab_free(&v);
}

static void what_the_vocabulary_holds(void **state)
{
    (void)state;
    const char *const texts[] = {"\xc3\xa9 \xc3\xa9 \xc3\xa9", "", "a"};
    struct tok_vocab v = learn(texts, 3, 259, 1);
    assert_int_equal(v.n_tokens, 259);
    assert_memory_equal(v.tokens[0].data, "!", 1);
    assert_memory_equal(v.tokens[SPACE].data, "\xc4\xa0", 2);
    assert_memory_equal(v.merges[0].data, "\xc3\x83 \xc2\xa9", 5); /* Ã © */
    assert_int_equal(v.merges[0].len, 5);
    assert_memory_equal(v.tokens[258].data, "<|endoftext|>", 13);
    assert_int_equal(v.eos, 258);
    assert_int_equal(v.bos, 258);
    assert_int_equal(v.kinds[258], TOK_CONTROL);
    assert_int_equal(v.kinds[257], TOK_NORMAL);
    tok_vocab_free(&v);
}

static void little_text_gives_few_tokens(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "a", "a b", "<|", "a\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct tok_vocab v = learn(&texts[i], 1, 1000, 2);
        expect_merges(&v, NULL, 0);
        tok_vocab_free(&v);
    }
    struct tok_vocab v = learn(NULL, 0, 1000, 1);
    expect_merges(&v, NULL, 0);
    tok_vocab_free(&v);
}

static void tokens_have_a_longest(void **state)
{
    (void)state;
    /* runs of one letter, and what they end as */
    static const struct {
        size_t n, n_tokens, longest;
    } runs[] = {{127, 1, 127}, {128, 1, 128}, {129, 2, 65}, {1000, 8, 128}};
    static char text[1000];
    const char *p = text;
    struct bpe_options o = {.n_vocab = 400, .min_count = 1};
    struct bpe_stats s;
    struct tok_vocab v;
    memset(text, 'a', sizeof text);
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        size_t longest = 0;
        assert_int_equal(train(NULL, &p, &runs[i].n, 1, &o, &v, &s), 0);
        for (size_t k = 0; k + 1 < v.n_tokens; k++)
            longest = v.tokens[k].len > longest ? v.tokens[k].len : longest;
        assert_int_equal(longest, runs[i].longest);
        assert_int_equal(s.n_tokens, runs[i].n_tokens);
        tok_vocab_free(&v);
    }
}

/* ---- threads, order, cuts ---- */

static void expect_same(const struct tok_vocab *a, const struct bpe_stats *s,
                        const struct tok_vocab *b, const struct bpe_stats *t)
{
    expect_merges(b, (const int32_t(*)[2])a->pairs, a->n_merges);
    assert_int_equal(s->n_words, t->n_words);
    assert_int_equal(s->n_distinct, t->n_distinct);
    assert_int_equal(s->n_tokens, t->n_tokens);
    assert_int_equal(s->n_bytes, t->n_bytes);
}

/* More than a batch, in documents much longer and shorter than a thread's piece. */
static void threads_and_order_change_nothing(void **state)
{
    (void)state;
    enum { N = 9 << 20, N_TEXTS = 6 };
    static const size_t at[N_TEXTS + 1] = {0,       10,      5000,     300000,
                                           1 << 20, 1200000, (size_t)N};
    char *text = mem_alloc(N);
    const char *texts[2][N_TEXTS];
    size_t lens[2][N_TEXTS], n_words = 0;
    struct rng r;
    struct bpe_options o = {.n_vocab = 400, .min_count = 2};
    assert_non_null(text);
    rng_seed(&r, 5);
    for (size_t i = 0; i < N; i++) /* some words are much more frequent than others */
        text[i] = " etaoin, shrd\nlu's e  "[(size_t)(rng_unit(&r) * 22)];
    memset(text + (1 << 20), 'e', 180000); /* nowhere to cut */
    for (size_t i = 0; i < N_TEXTS; i++) {
        texts[0][i] = texts[1][N_TEXTS - 1 - i] = text + at[i];
        lens[0][i] = lens[1][N_TEXTS - 1 - i] = at[i + 1] - at[i];
        for (size_t k = at[i]; k < at[i + 1]; n_words++)
            k += tok_pre_next(text + k, at[i + 1] - k);
    }
    struct tok_vocab first, v;
    struct bpe_stats s, s1;
    assert_int_equal(train(NULL, texts[0], lens[0], N_TEXTS, &o, &first, &s), 0);
    assert_int_equal(s.n_words, n_words);
    assert_int_equal(s.n_bytes, N);
    for (unsigned n = 1; n <= 5; n += 2) {
        struct pool *pool = NULL;
        assert_int_equal(pool_create(n, &pool, &err), 0);
        assert_int_equal(train(pool, texts[n == 5], lens[n == 5], N_TEXTS, &o, &v, &s1),
                         0);
        expect_same(&first, &s, &v, &s1);
        tok_vocab_free(&v);
        pool_destroy(pool);
    }
    tok_vocab_free(&first);
    mem_free(text);
}

/* ---- what goes wrong ---- */

static void memory_may_run_out(void **state)
{
    (void)state;
    static char text[60000];
    const char *p = text;
    size_t n = sizeof text;
    struct rng r;
    struct bpe_options o = {.n_vocab = 300, .min_count = 2};
    long live = mem_live();
    rng_seed(&r, 9);
    for (size_t i = 0; i < n; i++) /* tables grow */
        text[i] = i % 7 ? (char)(1 + rng_unit(&r) * 254) : ' ';
    for (long k = 0;; k++) {
        struct tok_vocab v = {.n_tokens = 77};
        struct bpe_stats s = {.n_words = 77};
        mem_fail_after(k);
        int rc = train(NULL, &p, &n, 1, &o, &v, &s);
        mem_fail_after(-1);
        if (!rc) {
            tok_vocab_free(&v);
            assert_int_equal(mem_live(), live);
            assert_true(k > 20);
            break;
        }
        assert_int_equal(rc, RUNT_E_NOMEM);
        assert_int_equal(v.n_tokens, 77);
        assert_int_equal(s.n_words, 77);
        assert_int_equal(mem_live(), live);
    }
}

static int stop(void *ctx, const char *what, unsigned long long done,
                unsigned long long total)
{
    (void)what;
    assert_int_equal(total, 43);
    return done == *(unsigned *)ctx;
}

static void options_and_interrupts(void **state)
{
    (void)state;
    const char *p = "ab ab abc abc";
    size_t n = strlen(p);
    unsigned at = 2;
    struct tok_vocab v = {.n_tokens = 77};
    struct bpe_stats s;
    const struct bpe_options bad[] = {{.n_vocab = 256, .min_count = 1},
                                      {.n_vocab = 65537, .min_count = 1},
                                      {.n_vocab = 300, .min_count = 0}};
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(train(NULL, &p, &n, 1, &bad[i], &v, &s), RUNT_E_INVALID);
    struct bpe_options o = {
        .n_vocab = 300, .min_count = 1, .progress = stop, .progress_ctx = &at};
    assert_int_equal(train(NULL, &p, &n, 1, &o, &v, &s), RUNT_E_INTERRUPTED);
    assert_int_equal(v.n_tokens, 77);
    at = 40; /* never comes */
    assert_int_equal(train(NULL, &p, &n, 1, &o, &v, &s), 0);
    tok_vocab_free(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_are_those_of_the_slow_way),
        cmocka_unit_test(ties_go_to_the_lower_ids),
        cmocka_unit_test(what_the_vocabulary_holds),
        cmocka_unit_test(little_text_gives_few_tokens),
        cmocka_unit_test(tokens_have_a_longest),
        cmocka_unit_test(threads_and_order_change_nothing),
        cmocka_unit_test(memory_may_run_out),
        cmocka_unit_test(options_and_interrupts),
    };
    return cmocka_run_group_tests_name("bpe_train", tests, NULL, NULL);
}
