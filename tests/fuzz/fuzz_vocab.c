/* Any bytes as a model file whose vocabulary is read: refused, or it builds, encodes,
 * and copies into either form without a change.  Seeds: corpus/vocab, made by
 * tools/gen_vocab_corpus.py; words: vocab.dict. */
#include "model/model_vocab.h"
#include "tok_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds)
        abort();
}

static bool same_strings(const struct tok_str *a, const struct tok_str *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (a[i].len != b[i].len ||
            (a[i].len && memcmp(a[i].data, b[i].data, a[i].len)))
            return false;
    return true;
}

/* Pairs and strings are one vocabulary, and build or fail alike. */
static void check_compact(const struct tok_vocab *v)
{
    struct tok_compact c;
    struct tok_vocab again, strings = *v;
    struct tok *t;
    struct runt_err err = {0};
    strings.pairs = NULL;
    if (!tok_compact_make(v, &c, &err)) {
        must(!tok_compact_expand(&c, "fuzz", &again, &err));
        must(!tok_vocab_spell_merges(&again, &err));
        must(again.n_tokens == v->n_tokens && again.n_merges == v->n_merges);
        must(same_strings(again.tokens, v->tokens, v->n_tokens));
        must(same_strings(again.merges, v->merges, v->n_merges));
        memcpy(again.kinds, v->kinds, v->n_tokens * sizeof *v->kinds);
        int a = tok_create(&again, "fuzz", &t, &err);
        if (!a)
            tok_destroy(t);
        int b = tok_create(&strings, "fuzz", &t, &err);
        if (!b)
            tok_destroy(t);
        must(a == b);
        tok_vocab_free(&again);
        tok_compact_free(&c);
    } else {
        must(err.code == RUNT_E_UNSUPPORTED && *err.msg && !v->pairs);
    }
}

static void check_copy(const struct gguf *g, bool reads)
{
    const struct fmt_info *types[] = {fmt_find(FMT_R4), fmt_find(FMT_F32)};
    for (int i = 0; i < 2; i++) {
        struct gguf_writer *w = NULL;
        struct runt_err err = {0};
        must(!gguf_writer_create(&w, &err));
        int rc = model_copy_meta(w, g, types[i], &err);
        must(!rc || (!reads && *err.msg));
        gguf_writer_destroy(w);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf *g = NULL;
    struct tok_vocab v;
    struct runt_err err = {0};
    long live = mem_live();
    if (gguf_parse(data, size, "fuzz.gguf", &g, NULL))
        return 0;
    int rc = model_read_vocab(g, &v, &err);
    check_copy(g, !rc);
    if (rc) {
        must(rc == err.code && !strncmp(err.msg, "fuzz.gguf: ", 11));
    } else {
        size_t n_text = size < 300 ? size : 300;
        check_vocab(&v, (const char *)data + size - n_text, n_text);
        must(!tok_vocab_spell_merges(&v, &err));
        check_compact(&v);
        tok_vocab_free(&v);
    }
    gguf_close(g);
    must(mem_live() == live);
    return 0;
}
