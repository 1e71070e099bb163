/* The vocabulary's two forms in a model file: the same strings from both, metadata that
 * goes there and back unchanged, and pairs that lie. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "model/model_vocab.h"
#include "model_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct fmt_info *r4(void)
{
    return fmt_find(FMT_R4);
}

static struct gguf_writer *writer(void)
{
    struct gguf_writer *w = NULL;
    assert_int_equal(gguf_writer_create(&w, NULL), 0);
    return w;
}

/* Finish a file without tensors and open it. */
static struct gguf *finish(struct gguf_writer *w)
{
    char path[256];
    struct gguf *g = NULL;
    struct runt_err err;
    fixture_temporary(path, sizeof path);
    if (gguf_begin(w, path, &err) || gguf_finish(w, NULL, &err) ||
        gguf_open(path, &g, &err))
        fail_msg("%s", err.msg);
    gguf_writer_destroy(w);
    unlink(path); /* the map keeps it */
    return g;
}

static struct gguf *written(const struct tok_vocab *v, const struct fmt_info *fmt)
{
    struct gpt2_shape s = fixture_odd_shape();
    struct runt_err err;
    struct gguf_writer *w = writer();
    if (model_write_meta_for(w, &s, v, "test", fmt, &err))
        fail_msg("%s", err.msg);
    return finish(w);
}

static struct gguf *copied(const struct gguf *g, const struct fmt_info *fmt)
{
    struct runt_err err;
    struct gguf_writer *w = writer();
    if (model_copy_meta(w, g, fmt, &err))
        fail_msg("%s", err.msg);
    return finish(w);
}

static void expect_same_file(const struct gguf *a, const struct gguf *b)
{
    assert_int_equal(a->n_kv, b->n_kv);
    for (size_t i = 0; i < a->n_kv; i++) {
        const struct gguf_kv *x = &a->kv[i], *y = &b->kv[i];
        assert_int_equal(x->key.len, y->key.len);
        assert_memory_equal(x->key.data, y->key.data, x->key.len);
        assert_int_equal(x->type, y->type);
        assert_int_equal(x->elem, y->elem);
        assert_int_equal(x->bytes, y->bytes);
        assert_memory_equal(x->value, y->value, x->bytes);
    }
}

static void expect_strings(const struct tok_str *a, const struct tok_str *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(a[i].len, b[i].len);
        assert_memory_equal(a[i].data, b[i].data, a[i].len);
    }
}

static void expect_same_vocab(const struct gguf *g, const struct tok_vocab *want)
{
    struct tok_vocab v;
    struct runt_err err;
    if (model_read_vocab(g, &v, &err) || tok_vocab_spell_merges(&v, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(v.n_tokens, want->n_tokens);
    assert_int_equal(v.n_merges, want->n_merges);
    expect_strings(v.tokens, want->tokens, v.n_tokens);
    expect_strings(v.merges, want->merges, v.n_merges);
    assert_memory_equal(v.kinds, want->kinds, v.n_tokens * sizeof *v.kinds);
    assert_int_equal(v.bos, want->bos);
    assert_int_equal(v.eos, want->eos);
    tok_vocab_free(&v);
}

static struct tok *built(const struct gguf *g)
{
    struct tok_vocab v;
    struct tok *t = NULL;
    struct runt_err err;
    if (model_read_vocab(g, &v, &err) || tok_create(&v, g->path, &t, &err))
        fail_msg("%s", err.msg);
    tok_vocab_free(&v);
    return t;
}

/* Both forms build the same tokenizer. */
static void expect_same_tokenizer(const struct gguf *a, const struct gguf *b)
{
    static const char text[] = "the cat\n sat \xc3\xa9 abcdefgh zzzz 123 \x80\xff th";
    struct tok *t[2] = {built(a), built(b)};
    int32_t *ids[2];
    size_t n[2];
    assert_int_equal(tok_n_tokens(t[0]), tok_n_tokens(t[1]));
    for (size_t id = 0; id < tok_n_tokens(t[0]); id++) {
        const char *x = tok_bytes(t[0], (int32_t)id, &n[0]);
        const char *y = tok_bytes(t[1], (int32_t)id, &n[1]);
        assert_int_equal(n[0], n[1]);
        assert_memory_equal(x, y, n[0]);
    }
    for (int i = 0; i < 2; i++)
        assert_int_equal(
            tok_encode(t[i], text, sizeof text, true, &ids[i], &n[i], NULL), 0);
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(ids[0], ids[1], n[0] * sizeof **ids);
    for (int i = 0; i < 2; i++) {
        mem_free(ids[i]);
        tok_destroy(t[i]);
    }
}

/* Both forms hold the vocabulary, and each is made of the other. */
static void expect_both_forms(const struct tok_vocab *v)
{
    struct gguf *arrays = written(v, NULL), *pairs = written(v, r4());
    assert_non_null(gguf_find(arrays, "tokenizer.ggml.tokens"));
    assert_null(gguf_find(arrays, "runt.tokenizer.merges"));
    assert_non_null(gguf_find(pairs, "runt.tokenizer.merges"));
    assert_null(gguf_find(pairs, "tokenizer.ggml.tokens"));
    expect_same_vocab(arrays, v);
    expect_same_vocab(pairs, v);
    expect_same_tokenizer(arrays, pairs);
    struct gguf *g[] = {copied(arrays, r4()), copied(pairs, r4()),
                        copied(pairs, fmt_find(FMT_Q4_0)), copied(arrays, NULL)};
    for (int i = 0; i < 4; i++) {
        expect_same_file(g[i], i < 2 ? pairs : arrays);
        gguf_close(g[i]);
    }
    gguf_close(arrays);
    gguf_close(pairs);
}

/* ---- vocabularies ---- */

static void made_up_vocabularies(void **state)
{
    (void)state;
    static const size_t sizes[] = {257, 258, 1000, 50257};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct tok_vocab v;
        assert_int_equal(tok_vocab_synthetic(sizes[i], &v, NULL), 0);
        expect_both_forms(&v);
        assert_int_equal(tok_vocab_pad(&v, sizes[i] + 70, NULL), 0);
        v.kinds[3] = TOK_USER;
        v.bos = -1;
        expect_both_forms(&v);
        tok_vocab_free(&v);
    }
}

/* Ids beyond 16 bits, and a file of the size that was promised. */
static void large_and_small(void **state)
{
    (void)state;
    struct tok_vocab v;
    static const struct {
        size_t n_tokens;
        enum gguf_type elem;
        size_t bytes;
    } cases[] = {{50257, GGUF_U16, 200000},
                 {65280 + 257, GGUF_U32, 65280 * 8},
                 {65279 + 257, GGUF_U16, 65279 * 4}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(tok_vocab_synthetic(cases[i].n_tokens, &v, NULL), 0);
        struct gguf *g = written(&v, r4());
        const struct gguf_kv *kv = gguf_find(g, "runt.tokenizer.merges");
        assert_int_equal(kv->elem, cases[i].elem);
        assert_int_equal(kv->bytes, cases[i].bytes);
        assert_true(g->file_bytes < cases[i].bytes + 2000);
        expect_same_vocab(g, &v);
        gguf_close(g);
        tok_vocab_free(&v);
    }
}

static void real_vocabularies(void **state)
{
    (void)state;
    const char *data = getenv("RUNT_TEST_DATA");
    for (int i = 0; i < 2; i++) {
        char dir[512];
        struct tok_vocab v;
        struct runt_err err;
        if (i && !data)
            continue;
        snprintf(dir, sizeof dir, "%s/%s", i ? data : fixture_root(),
                 i ? "tokenizer/gpt2" : "tests/data/mini");
        if (tok_vocab_load(dir, &v, &err))
            fail_msg("%s", err.msg);
        expect_both_forms(&v);
        tok_vocab_free(&v);
    }
}

static void any_order_of_the_bytes(void **state)
{
    (void)state;
    struct tok_vocab v;
    assert_int_equal(tok_vocab_synthetic(400, &v, NULL), 0);
    for (size_t i = 0; i < 256; i++) {
        struct tok_str t = v.tokens[i];
        size_t k = i * 37 % 256;
        v.tokens[i] = v.tokens[k];
        v.tokens[k] = t;
    }
    expect_both_forms(&v);
    tok_vocab_free(&v);
}

/* What has no compact form is written, and copied, as arrays. */
static void other_shapes_stay_arrays(void **state)
{
    (void)state;
    static const size_t sizes[] = {200, 300, 300, 300, 300, 264, 300, 300};
    for (int c = 0; c < 8; c++) {
        struct tok_vocab v;
        assert_int_equal(tok_vocab_synthetic(sizes[c], &v, NULL), 0);
        struct tok_str t = {0}, m = {0};
        if (c) {
            t = v.tokens[260];
            m = v.merges[5];
        }
        switch (c) {
        case 1: /* results not in the order of the merges */
            v.tokens[260] = v.tokens[261];
            v.tokens[261] = t;
            break;
        case 2: /* a result that is no result */
            v.tokens[270] = (struct tok_str){"zz~", 3};
            break;
        case 3: /* a byte twice */
            v.tokens[7] = v.tokens[8];
            break;
        case 4: /* a token among the bytes that is none */
            v.tokens[7] = (struct tok_str){"ab", 2};
            break;
        case 5: /* a merge of a later token */
            v.merges[5] = (struct tok_str){"y zz", 4};
            v.tokens[261] = (struct tok_str){"yzz", 3};
            v.tokens[262] = (struct tok_str){"zz", 2};
            v.merges[6] = (struct tok_str){"z z", 3};
            break;
        case 6: /* no space, or two */
            v.merges[5] = (struct tok_str){"ab", 2};
            break;
        case 7:
            v.merges[5] = (struct tok_str){m.data, 0};
            break;
        }
        struct gguf *arrays = written(&v, NULL), *g = written(&v, r4());
        struct gguf *copy = copied(arrays, r4());
        expect_same_file(g, arrays);
        expect_same_file(copy, arrays);
        expect_same_vocab(g, &v);
        gguf_close(arrays);
        gguf_close(g);
        gguf_close(copy);
        tok_vocab_free(&v);
    }
}

/* A chain of doublings: the reader's limit is the writer's. */
static void long_tokens_stay_arrays(void **state)
{
    (void)state;
    static char as[2 << 11], pair[11][(2 << 11) + 1];
    memset(as, 'a', sizeof as);
    for (size_t n = 10; n <= 11; n++) {
        struct tok_vocab v;
        assert_int_equal(tok_vocab_synthetic(257 + n, &v, NULL), 0);
        for (size_t i = 0; i < n; i++) {
            memset(pair[i], 'a', sizeof pair[i]);
            pair[i][(size_t)1 << i] = ' ';
            v.tokens[256 + i] = (struct tok_str){as, (size_t)2 << i};
            v.merges[i] = (struct tok_str){pair[i], ((size_t)2 << i) + 1};
        }
        struct gguf *g = written(&v, r4());
        assert_int_equal(!!gguf_find(g, "runt.tokenizer.merges"), n == 10);
        expect_same_vocab(g, &v);
        gguf_close(g);
        tok_vocab_free(&v);
    }
}

/* Metadata without a vocabulary, or with one that is damaged, is copied as it is. */
static void what_cannot_be_read_is_copied(void **state)
{
    (void)state;
    for (int c = 0; c < 3; c++) {
        struct gguf_writer *w = writer();
        struct gguf_str tokens[2] = {{"a", 1}, {"b", 1}};
        int32_t kinds[1] = {1};
        gguf_set_u32(w, "first", 1);
        if (c)
            gguf_set_str(w, "tokenizer.ggml.model", c == 1 ? "gpt2" : "llama",
                         c == 1 ? 4 : 5);
        if (c)
            gguf_set_strings(w, "tokenizer.ggml.tokens", tokens, 2);
        if (c == 1)
            gguf_set_i32s(w, "tokenizer.ggml.token_type", kinds, 1);
        gguf_set_strings(w, "tokenizer.ggml.merges", NULL, 0);
        gguf_set_f32(w, "last", 1);
        struct gguf *g = finish(w), *copy = copied(g, r4());
        expect_same_file(copy, g);
        gguf_close(g);
        gguf_close(copy);
    }
}

/* ---- pairs that lie ---- */

static void set_numbers(struct gguf_writer *w, const char *key, enum gguf_type elem,
                        const int32_t *v, size_t n)
{
    size_t size = elem == GGUF_U8 ? 1 : elem == GGUF_U16 ? 2 : 4;
    uint8_t *bytes = mem_zalloc(n * size);
    for (size_t i = 0; i < n; i++)
        memcpy(bytes + i * size, &v[i], size); /* little-endian */
    struct gguf_kv kv = {{key, strlen(key)}, GGUF_ARR, elem, n, bytes, n * size};
    gguf_set_kv(w, &kv);
    mem_free(bytes);
}

struct lie {
    const char *says;
    int32_t pairs[12];
    size_t n_pairs; /* numbers */
    int32_t kinds[6];
    size_t n_kinds;
    int bytes;   /* 0: in order; 1: one short; 2: one twice; 3: one above 255 */
    bool tokens; /* has the arrays too */
    bool no_tail;
};

static struct gguf *lying(const struct lie *l, const int32_t *pairs, size_t n_pairs,
                          enum gguf_type elem)
{
    struct gguf_writer *w = writer();
    struct gguf_str tail = {"<|end|>", 7};
    int32_t bytes[256];
    for (int i = 0; i < 256; i++)
        bytes[i] = i;
    if (l->bytes == 2)
        bytes[200] = 3;
    if (l->bytes == 3)
        bytes[9] = 265;
    gguf_set_str(w, "tokenizer.ggml.model", "gpt2", 4);
    set_numbers(w, "runt.tokenizer.bytes", l->bytes == 3 ? GGUF_U16 : GGUF_U8, bytes,
                l->bytes == 1 ? 255 : 256);
    set_numbers(w, "runt.tokenizer.merges", elem, pairs, n_pairs);
    if (!l->no_tail)
        gguf_set_strings(w, "runt.tokenizer.tail", &tail, 1);
    if (l->n_kinds)
        set_numbers(w, "runt.tokenizer.kinds", GGUF_I32, l->kinds, l->n_kinds);
    if (l->tokens)
        gguf_set_strings(w, "tokenizer.ggml.tokens", &tail, 1);
    return finish(w);
}

/* The error line of reading and building; "" when there is none. */
static void read_and_build(const struct gguf *g, struct runt_err *err)
{
    struct tok_vocab v = {.n_tokens = 77};
    struct tok *t = NULL;
    *err = (struct runt_err){0};
    if (model_read_vocab(g, &v, err)) {
        assert_int_equal(v.n_tokens, 77); /* untouched */
        return;
    }
    tok_create(&v, g->path, &t, err);
    tok_destroy(t);
    tok_vocab_free(&v);
}

static void lies_are_refused(void **state)
{
    (void)state;
    static const struct lie lies[] = {
        {.says = "", .pairs = {97, 98, 256, 99}, .n_pairs = 4},
        {.says = "", .n_pairs = 0, .kinds = {256, 3}, .n_kinds = 2},
        {.says = "runt.tokenizer.bytes has 255 elements, not 256", .bytes = 1},
        {.says = "tokens 3 and 200 are both byte 3", .bytes = 2},
        {.says = "runt.tokenizer.bytes: element 9 is 265, no byte", .bytes = 3},
        {.says = "runt.tokenizer.merges has 3 elements: no pairs",
         .pairs = {97, 98, 256},
         .n_pairs = 3},
        {.says = "merge 0 of tokens 256 and 97: only 256 come before",
         .pairs = {256, 97},
         .n_pairs = 2},
        {.says = "merge 1 of tokens 97 and 258: only 257 come before",
         .pairs = {97, 98, 97, 258},
         .n_pairs = 4},
        {.says = "merge 0 of tokens -1 and 97: only", .pairs = {-1, 97}, .n_pairs = 2},
        {.says = "merge 0 of tokens 97 and -2147483648: only",
         .pairs = {97, INT32_MIN},
         .n_pairs = 2},
        {.says = "has no key runt.tokenizer.tail", .no_tail = true},
        {.says = "has both keys runt.tokenizer.merges and tokenizer.ggml.tokens",
         .tokens = true},
        {.says = "runt.tokenizer.kinds has 1 elements: no pairs",
         .kinds = {1},
         .n_kinds = 1},
        {.says = "runt.tokenizer.kinds: token 257 after -1, of 257 tokens",
         .kinds = {257, 3},
         .n_kinds = 2},
        {.says = "runt.tokenizer.kinds: token 5 after 5, of 257",
         .kinds = {5, 4, 5, 4},
         .n_kinds = 4},
        {.says = "runt.tokenizer.kinds: token -7 after -1",
         .kinds = {-7, 4},
         .n_kinds = 2},
        {.says = "token 256 is of unknown kind 9", .kinds = {256, 9}, .n_kinds = 2},
        {.says = "merge 0: \"a\" is a special token",
         .pairs = {97, 98},
         .n_pairs = 2,
         .kinds = {97, 3},
         .n_kinds = 2},
        {.says = "merge 0: its result \"ab\" is a special token",
         .pairs = {97, 98},
         .n_pairs = 2,
         .kinds = {256, 3},
         .n_kinds = 2},
        {.says = "merge 1: its result \"ab\" is a special token",
         .pairs = {99, 99, 97, 98},
         .n_pairs = 4,
         .kinds = {257, 5},
         .n_kinds = 2},
        {.says = "tokens 256 and 257 are both \"ab\"",
         .pairs = {97, 98, 97, 98},
         .n_pairs = 4},
        {.says = "tokens 258 and 259 are both \"abc\"",
         .pairs = {97, 98, 98, 99, 256, 99, 97, 257},
         .n_pairs = 8},
    };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct runt_err err;
        struct gguf *g = lying(&lies[i], lies[i].pairs, lies[i].n_pairs, GGUF_I32);
        read_and_build(g, &err);
        if (!*lies[i].says ? err.code
                           : !strstr(err.msg, lies[i].says) || err.msg[0] != '/')
            fail_msg("%zu: \"%s\" instead of \"%s\"", i, err.msg, lies[i].says);
        gguf_close(g);
    }
}

/* Each merge doubles a token: refused at a kilobyte, long before memory is.  And many
 * tokens of nearly that length are refused together. */
static void doubling_is_capped(void **state)
{
    (void)state;
    enum { N = 70000 };
    int32_t *pairs = mem_array(N, 2 * sizeof *pairs);
    struct runt_err err;
    struct lie l = {0};
    for (int i = 0; i < N; i++)
        pairs[2 * i] = pairs[2 * i + 1] = i ? 255 + i : 97;
    struct gguf *g = lying(&l, pairs, 2 * 9, GGUF_U32);
    read_and_build(g, &err);
    assert_int_equal(err.code, 0);
    gguf_close(g);
    g = lying(&l, pairs, 2 * N, GGUF_U32);
    read_and_build(g, &err);
    assert_int_equal(err.code, RUNT_E_FORMAT);
    assert_non_null(strstr(err.msg, "merge 10 makes a token of 2048 bytes"));
    gguf_close(g);
    for (int i = 10; i < N; i++) { /* 512 + 512: all alike, but read before compared */
        pairs[2 * i] = pairs[2 * i + 1] = 256 + 8;
    }
    g = lying(&l, pairs, 2 * N, GGUF_U32);
    read_and_build(g, &err);
    assert_int_equal(err.code, RUNT_E_FORMAT);
    assert_non_null(strstr(err.msg, "at most 1024 and 67108864"));
    gguf_close(g);
    mem_free(pairs);
}

/* ---- memory ---- */

static void every_allocation_may_fail(void **state)
{
    (void)state;
    struct tok_vocab v;
    assert_int_equal(tok_vocab_synthetic(300, &v, NULL), 0);
    struct gguf *from[2] = {written(&v, NULL), written(&v, r4())};
    const struct fmt_info *to[2] = {r4(), NULL};
    for (int i = 0; i < 2; i++) {
        int rc = -1;
        for (long n = 0; rc; n++) {
            struct gguf_writer *w = writer();
            struct runt_err err = {0};
            struct tok_vocab got = {0};
            long before = mem_live();
            mem_fail_after(n);
            rc = model_read_vocab(from[i], &got, &err);
            if (!rc)
                rc = model_copy_meta(w, from[i], to[i], &err);
            mem_fail_after(-1);
            if (rc)
                assert_int_equal(err.code, RUNT_E_NOMEM);
            tok_vocab_free(&got);
            gguf_writer_destroy(w);
            assert_true(mem_live() <= before);
            assert_true(n < 1000);
        }
        gguf_close(from[i]);
    }
    tok_vocab_free(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(made_up_vocabularies),
        cmocka_unit_test(large_and_small),
        cmocka_unit_test(real_vocabularies),
        cmocka_unit_test(any_order_of_the_bytes),
        cmocka_unit_test(other_shapes_stay_arrays),
        cmocka_unit_test(long_tokens_stay_arrays),
        cmocka_unit_test(what_cannot_be_read_is_copied),
        cmocka_unit_test(lies_are_refused),
        cmocka_unit_test(doubling_is_capped),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests_name("vocab", tests, NULL, NULL);
}
