/* Training data: what a document is, which are held out, that every epoch has every
 * window once, mixtures, and token files that are damaged. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "train/data_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CONTEXT = 8 };

static char folder[] = "/tmp/runt-data-XXXXXX";
static struct tok *tok;
static struct runt_err err;

static const char *file(const char *name, const char *text, size_t n)
{
    static char path[4][128];
    static int turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    FILE *f = fopen(p, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    fclose(f);
    return p;
}

static struct data *open_data(const struct data_source *s, size_t n, double val,
                              uint64_t seed)
{
    struct data *d = NULL;
    struct data_options o = {.sources = s,
                             .n_sources = n,
                             .field = "text",
                             .val_share = val,
                             .tok = tok,
                             .context = CONTEXT,
                             .seed = seed,
                             .cache_dir = folder};
    assert_int_equal(data_open(&o, &d, &err), 0);
    return d;
}

/* ---- documents ---- */

static char found[512];

static int collect(void *ctx, const char *text, size_t n, struct runt_err *e)
{
    (void)ctx, (void)e;
    snprintf(found + strlen(found), sizeof found - strlen(found), "[%.*s]", (int)n,
             text);
    return 0;
}

static void what_a_document_is(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text, *want;
    } cases[] = {
        {"a", "one\n<|endoftext|>\ntwo\n", "[one][two]"},
        {"a", "<|endoftext|>\n<|endoftext|>\none", "[one]"},
        {"a", "one<|endoftext|>two<|endoftext|>", "[one][two]"},
        {"a", "one\n\n<|endoftext|>\n\ntwo", "[one\n][\ntwo]"},
        {"a", "one\n", "[one]"},
        {"a.jsonl",
         "{\"text\": \"one\\ntwo\", \"x\": 1}\n\n{\"text\": \"\"}\n{\"text\":\"b\"}",
         "[one\ntwo][b]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = file(cases[i].name, cases[i].text, strlen(cases[i].text));
        *found = 0;
        assert_int_equal(data_read_documents(path, "text", collect, NULL, &err), 0);
        assert_string_equal(found, cases[i].want);
    }
}

static void what_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text, *word;
        size_t n;
    } cases[] = {
        {"a", "", "empty", 0},
        {"a", "ab\0c", "byte 2", 4},
        {"a.jsonl", "{\"text\":\"a\"}\n{\"txt\":\"b\"}\n", "line 2", 25},
        {"a.jsonl", "{\"text\":1}\n", "line 1", 11},
        {"a.jsonl", "{\"text\":\"a\"}\n{", "line 2", 14},
        {"a.jsonl", "[1]\n", "line 1", 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = file(cases[i].name, cases[i].text, cases[i].n);
        assert_true(data_read_documents(path, "text", collect, NULL, &err) < 0);
        assert_non_null(strstr(err.msg, cases[i].word));
        assert_non_null(strstr(err.msg, path));
    }
}

static void pieces_have_the_same_tokens(void **state)
{
    (void)state;
    char text[4000];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] =
            "the goat ran off, and then it sang to us "[i * 7 % 41 == 3 ? 3 : i % 41];
    int32_t *whole, *part;
    size_t n_whole, n_part, at = 0;
    assert_int_equal(tok_encode(tok, text, sizeof text, false, &whole, &n_whole, &err),
                     0);
    for (size_t from = 0, len; from < sizeof text; from += len) {
        len = data_piece(text + from, sizeof text - from, 700);
        assert_in_range(len, 1, 700);
        assert_int_equal(tok_encode(tok, text + from, len, false, &part, &n_part, &err),
                         0);
        assert_true(at + n_part <= n_whole);
        assert_memory_equal(part, whole + at, n_part * sizeof *part);
        at += n_part;
        mem_free(part);
    }
    assert_int_equal(at, n_whole);
    mem_free(whole);
}

/* ---- samples ---- */

/* Documents whose tokens are all different: ids in order, one document a line. */
static const char *numbered(const char *name, size_t n_docs, size_t n_tokens)
{
    static char text[1 << 16];
    size_t n = 0;
    for (size_t d = 0; d < n_docs; d++) {
        for (size_t k = 0; k < n_tokens; k++)
            n += (size_t)snprintf(text + n, sizeof text - n, "%c%c",
                                  'a' + (int)(d % 26), 'a' + (int)((d / 26 + k) % 26));
        n += (size_t)snprintf(text + n, sizeof text - n, "\n<|endoftext|>\n");
    }
    return file(name, text, n);
}

static void an_epoch_has_every_window_once(void **state)
{
    (void)state;
    struct data_source s = {numbered("n.txt", 60, 5), 0};
    struct data *d = open_data(&s, 1, 0, 1);
    size_t n = (size_t)(data_get_stats(d)->tokens / CONTEXT), bad = 0;
    int32_t *in = mem_array(2 * n * CONTEXT, sizeof *in);
    int32_t *out = mem_array(2 * n * CONTEXT, sizeof *out);
    data_train(d, 0, 2 * n, in, out);
    /* inputs and targets are one text; no two windows of an epoch begin with the same
     * four pairs of letters, but for chance */
    for (size_t w = 0; w < 2 * n; w++)
        bad += memcmp(in + w * CONTEXT + 1, out + w * CONTEXT,
                      (CONTEXT - 1) * sizeof *in) != 0;
    assert_int_equal(bad, 0);
    for (size_t epoch = 0; epoch < 2; epoch++)
        for (size_t a = 0; a < n; a++)
            for (size_t b = a + 1; b < n; b++)
                bad += !memcmp(in + (epoch * n + a) * CONTEXT,
                               in + (epoch * n + b) * CONTEXT, CONTEXT * sizeof *in);
    assert_int_equal(bad, 0);
    assert_true(memcmp(in, in + n * CONTEXT, n * CONTEXT * sizeof *in) != 0);
    /* any sample by itself */
    for (size_t w = 0; w < 2 * n; w += 7) {
        int32_t i[CONTEXT], o[CONTEXT];
        data_train(d, w, 1, i, o);
        assert_memory_equal(i, in + w * CONTEXT, sizeof i);
        assert_memory_equal(o, out + w * CONTEXT, sizeof o);
    }
    struct data *other = open_data(&s, 1, 0, 2);
    int32_t i[CONTEXT], o[CONTEXT];
    data_train(other, 0, 1, i, o);
    assert_true(data_fingerprint(other) != data_fingerprint(d));
    data_close(other);
    data_close(d);
    mem_free(in);
    mem_free(out);
}

static bool has(const int32_t *tokens, size_t n, const int32_t *part, size_t k)
{
    for (size_t i = 0; i + k <= n; i++)
        if (!memcmp(tokens + i, part, k * sizeof *part))
            return true;
    return false;
}

static void held_out_is_never_trained_on(void **state)
{
    (void)state;
    enum { N = 400 };
    struct data_source s = {numbered("v.txt", 80, 12), 0};
    int32_t *in = mem_array(N * CONTEXT, sizeof *in),
            *out = mem_array(N * CONTEXT, sizeof *out);
    int32_t vi[CONTEXT], vo[CONTEXT];
    uint64_t held[2];
    for (uint64_t seed = 0; seed < 2; seed++) {
        struct data *d = open_data(&s, 1, 0.2, seed);
        held[seed] = data_get_stats(d)->val_documents;
        assert_in_range(held[seed], 6, 28); /* 16 of 80 expected, deviation 3.6 */
        data_train(d, 0, N, in, out);
        data_val(d, 0, 1, vi, vo);
        assert_false(has(in, N * CONTEXT, vi, CONTEXT - 2));
        data_close(d);
    }
    assert_int_equal(held[0], held[1]); /* by content, not by seed */
    mem_free(in);
    mem_free(out);
}

static void short_sources_are_padded(void **state)
{
    (void)state;
    int32_t in[CONTEXT], out[CONTEXT];
    struct data_source s = {file("s.txt", "ab", 2), 0};
    struct data *d = open_data(&s, 1, 0, 0);
    data_train(d, 5, 1, in, out);
    assert_true(out[0] >= 0);
    assert_int_equal(out[CONTEXT - 1], -1);
    assert_int_equal(data_n_val(d), 0);
    data_close(d);
}

static void sources_take_their_turns(void **state)
{
    (void)state;
    enum { N = 8192 };
    struct data_source s[2] = {{numbered("x.txt", 26, 5), 3},
                               {file("y.txt", "!?", 2), 1}};
    struct data *d = open_data(s, 2, 0, 4);
    int32_t *in = mem_array(N * CONTEXT, sizeof *in),
            *out = mem_array(N * CONTEXT, sizeof *out);
    int32_t *mark;
    size_t n_mark, seen = 0;
    assert_int_equal(tok_encode(tok, "a", 1, false, &mark, &n_mark, &err), 0);
    data_train(d, 0, N, in, out);
    for (size_t w = 0; w < N; w++) {
        size_t n;
        const char *t = tok_bytes(tok, in[w * CONTEXT], &n);
        seen += n && (*t == '!' || *t == '?' || *t == ' ');
    }
    assert_in_range(seen, N / 4 - N / 100, N / 4 + N / 100);
    mem_free(mark);
    mem_free(in);
    mem_free(out);
    data_close(d);
}

/* ---- kept tokens ---- */

static void damaged_files_are_made_again(void **state)
{
    (void)state;
    struct data_options o = {.field = "text", .tok = tok, .cache_dir = folder};
    const char *path = file("c.txt", "one two\n<|endoftext|>\nthree", 27);
    struct data_tokens t;
    char kept[256];
    bool cached;
    assert_int_equal(data_tokens_open(path, &o, &t, &cached, &err), 0);
    assert_false(cached);
    size_t size = t.map.size, n = (size_t)t.n_tokens;
    int32_t want[64];
    assert_in_range(n, 4, 64);
    for (size_t i = 0; i < n; i++)
        want[i] = data_token(&t, i);
    snprintf(kept, sizeof kept, "%s/%016llx%016llx", folder,
             (unsigned long long)t.key[0], (unsigned long long)t.key[1]);
    char *bytes = mem_alloc(size);
    memcpy(bytes, t.map.data, size);
    data_tokens_close(&t);
    for (size_t at = 0; at < 2 * size; at++) {
        FILE *f = fopen(kept, "wb");
        bytes[at % size] ^= 64;
        assert_int_equal(fwrite(bytes, 1, at < size ? size : at - size, f),
                         at < size ? size : at - size);
        fclose(f);
        bytes[at % size] ^= 64;
        assert_int_equal(data_tokens_open(path, &o, &t, &cached, &err), 0);
        assert_false(cached);
        assert_int_equal(t.n_tokens, n);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(data_token(&t, i), want[i]);
        data_tokens_close(&t);
    }
    assert_int_equal(data_tokens_open(path, &o, &t, &cached, &err), 0);
    assert_true(cached);
    data_tokens_close(&t);
    mem_free(bytes);
}

static int set_up(void **state)
{
    (void)state;
    struct tok_vocab v = {0};
    char dir[512];
    const char *root = getenv("RUNT_SOURCE_ROOT");
    snprintf(dir, sizeof dir, "%s/tests/data/mini", root ? root : ".");
    if (!mkdtemp(folder) || tok_vocab_load(dir, &v, &err) ||
        tok_create(&v, dir, &tok, &err))
        return -1;
    tok_vocab_free(&v);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[64];
    tok_destroy(tok);
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_document_is),
        cmocka_unit_test(what_is_refused),
        cmocka_unit_test(pieces_have_the_same_tokens),
        cmocka_unit_test(an_epoch_has_every_window_once),
        cmocka_unit_test(held_out_is_never_trained_on),
        cmocka_unit_test(short_sources_are_padded),
        cmocka_unit_test(sources_take_their_turns),
        cmocka_unit_test(damaged_files_are_made_again),
    };
    return cmocka_run_group_tests_name("data", tests, set_up, tear_down);
}
