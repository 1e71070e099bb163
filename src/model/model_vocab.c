/* Owns the vocabulary's keys in a model file: both forms read, either written.
 *
 * It refuses a tokenizer that is not byte-level BPE, a file that has both forms, and
 * arrays whose lengths contradict each other; what the strings and pairs say is checked
 * by src/tok. */
#include "model/model_vocab.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"

#include <string.h>

#define KEY_BYTES "runt.tokenizer.bytes"
#define KEY_MERGES "runt.tokenizer.merges"
#define KEY_TAIL "runt.tokenizer.tail"
#define KEY_KINDS "runt.tokenizer.kinds"

static const char *const keys_of_arrays[] = {
    "tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges"};
static const char *const keys_of_pairs[] = {KEY_BYTES, KEY_MERGES, KEY_TAIL, KEY_KINDS};

_Static_assert(sizeof(struct gguf_str) == sizeof(struct tok_str),
               "both are a pointer and a length");

/* ---- reading ---- */

/* The strings of a key as the tokenizer's. */
static int get_strings(const struct gguf *g, const char *key, struct tok_str **out,
                       size_t *n, struct runt_err *err)
{
    struct gguf_str *s = NULL;
    int rc = gguf_get_strings(g, key, &s, n, err);
    struct tok_str *t = rc ? NULL : mem_array(*n, sizeof *t);
    if (!rc && !t)
        rc = err_nomem(err, "the vocabulary");
    for (size_t i = 0; !rc && i < *n; i++)
        t[i] = (struct tok_str){s[i].data, s[i].len};
    mem_free(s);
    if (!rc)
        *out = t;
    return rc;
}

static int read_arrays(const struct gguf *g, struct tok_vocab *v, struct runt_err *err)
{
    size_t n_kinds = 0;
    int rc = get_strings(g, "tokenizer.ggml.tokens", &v->tokens, &v->n_tokens, err);
    if (!rc)
        rc = get_strings(g, "tokenizer.ggml.merges", &v->merges, &v->n_merges, err);
    if (rc)
        return rc;
    if (!v->n_tokens || v->n_tokens > INT32_MAX)
        return err_set(err, RUNT_E_FORMAT, "%s: vocabulary of %zu tokens", g->path,
                       v->n_tokens);
    if (gguf_find(g, "tokenizer.ggml.token_type")) {
        rc = gguf_get_ints(g, "tokenizer.ggml.token_type", &v->kinds, &n_kinds, err);
        if (!rc && n_kinds != v->n_tokens)
            rc = err_set(err, RUNT_E_FORMAT, "%s: %zu token types for %zu tokens",
                         g->path, n_kinds, v->n_tokens);
        return rc;
    }
    v->kinds = mem_array(v->n_tokens, sizeof *v->kinds);
    if (!v->kinds)
        return err_nomem(err, "the vocabulary");
    for (size_t i = 0; i < v->n_tokens; i++)
        v->kinds[i] = TOK_NORMAL;
    return 0;
}

static int read_bytes(const struct gguf *g, uint8_t bytes[256], struct runt_err *err)
{
    int32_t *ints = NULL;
    size_t n;
    int rc = gguf_get_ints(g, KEY_BYTES, &ints, &n, err);
    if (rc)
        return rc;
    if (n != 256)
        rc = err_set(err, RUNT_E_FORMAT, "%s: key %s has %zu elements, not 256",
                     g->path, KEY_BYTES, n);
    for (size_t i = 0; !rc && i < n; i++) {
        bytes[i] = (uint8_t)ints[i];
        if (ints[i] != bytes[i])
            rc = err_set(err, RUNT_E_FORMAT, "%s: key %s: element %zu is %d, no byte",
                         g->path, KEY_BYTES, i, ints[i]);
    }
    mem_free(ints);
    return rc;
}

/* An array of pairs, [2 * *n]. */
static int read_pairs(const struct gguf *g, const char *key, int32_t (**out)[2],
                      size_t *n, struct runt_err *err)
{
    int32_t *ints = NULL;
    int rc = gguf_get_ints(g, key, &ints, n, err);
    if (rc)
        return rc;
    if (*n % 2) {
        mem_free(ints);
        return err_set(err, RUNT_E_FORMAT, "%s: key %s has %zu elements: no pairs",
                       g->path, key, *n);
    }
    *out = (int32_t(*)[2])(void *)ints;
    *n /= 2;
    return 0;
}

static int read_kinds(const struct gguf *g, struct tok_vocab *v, struct runt_err *err)
{
    int32_t(*pairs)[2] = NULL;
    size_t n = 0;
    int64_t before = -1;
    if (!gguf_find(g, KEY_KINDS))
        return 0;
    int rc = read_pairs(g, KEY_KINDS, &pairs, &n, err);
    for (size_t i = 0; !rc && i < n; i++) {
        int32_t id = pairs[i][0];
        if (id <= before || (size_t)id >= v->n_tokens)
            rc = err_set(err, RUNT_E_FORMAT,
                         "%s: key %s: token %d after %lld, of %zu tokens", g->path,
                         KEY_KINDS, id, (long long)before, v->n_tokens);
        else
            v->kinds[id] = pairs[i][1];
        before = id;
    }
    mem_free(pairs);
    return rc;
}

static int read_compact(const struct gguf *g, struct tok_vocab *v, struct runt_err *err)
{
    struct tok_compact c = {0};
    struct tok_str *tail = NULL;
    char *name = mem_printf("%s: key %s", g->path, KEY_MERGES);
    int rc = name ? 0 : err_nomem(err, "the vocabulary");
    for (size_t i = 0; !rc && i < sizeof keys_of_arrays / sizeof *keys_of_arrays; i++)
        if (gguf_find(g, keys_of_arrays[i]))
            rc = err_set(err, RUNT_E_FORMAT, "%s: has both keys %s and %s", g->path,
                         KEY_MERGES, keys_of_arrays[i]);
    if (!rc)
        rc = read_bytes(g, c.bytes, err);
    if (!rc)
        rc = read_pairs(g, KEY_MERGES, &c.pairs, &c.n_merges, err);
    if (!rc)
        rc = get_strings(g, KEY_TAIL, &tail, &c.n_tail, err);
    c.tail = tail;
    if (!rc)
        rc = tok_compact_expand(&c, name, v, err);
    if (!rc)
        rc = read_kinds(g, v, err);
    tok_compact_free(&c);
    mem_free(tail);
    mem_free(name);
    return rc;
}

static int token_id(const struct gguf *g, const char *key, size_t n_tokens,
                    int32_t *out, struct runt_err *err)
{
    uint64_t v;
    if (!gguf_find(g, key))
        return 0;
    int rc = gguf_get_uint(g, key, n_tokens - 1, &v, err);
    if (!rc)
        *out = (int32_t)v;
    return rc;
}

int model_read_vocab(const struct gguf *g, struct tok_vocab *out, struct runt_err *err)
{
    struct tok_vocab v = {.bos = -1, .eos = -1};
    struct gguf_str kind;
    int rc = gguf_get_str(g, "tokenizer.ggml.model", &kind, err);
    if (rc)
        return rc;
    if (kind.len != 4 || memcmp(kind.data, "gpt2", 4))
        return err_set(
            err, RUNT_E_UNSUPPORTED,
            "%s: tokenizer is '%.*s'; only gpt2 (byte-level BPE) is supported", g->path,
            (int)(kind.len < 40 ? kind.len : 40), kind.data);
    rc = gguf_find(g, KEY_MERGES) ? read_compact(g, &v, err) : read_arrays(g, &v, err);
    if (!rc)
        rc = token_id(g, "tokenizer.ggml.bos_token_id", v.n_tokens, &v.bos, err);
    if (!rc)
        rc = token_id(g, "tokenizer.ggml.eos_token_id", v.n_tokens, &v.eos, err);
    if (rc)
        tok_vocab_free(&v);
    else
        *out = v;
    return rc;
}

/* ---- writing ---- */

static void write_arrays(struct gguf_writer *w, const struct tok_vocab *v)
{
    gguf_set_strings(w, "tokenizer.ggml.tokens", (const struct gguf_str *)v->tokens,
                     v->n_tokens);
    gguf_set_i32s(w, "tokenizer.ggml.token_type", v->kinds, v->n_tokens);
    gguf_set_strings(w, "tokenizer.ggml.merges", (const struct gguf_str *)v->merges,
                     v->n_merges);
}

static void put(struct strbuf *b, int32_t v, unsigned n_bytes)
{
    for (unsigned i = 0; i < n_bytes; i++)
        sb_char(b, (char)((uint32_t)v >> (8 * i)));
}

/* Write and free an array of numbers. */
static int set_numbers(struct gguf_writer *w, const char *key, enum gguf_type elem,
                       unsigned n_bytes, struct strbuf *b, struct runt_err *err)
{
    int rc = b->failed ? err_nomem(err, key) : 0;
    if (!rc)
        gguf_set_kv(w, &(struct gguf_kv){.key = {key, strlen(key)},
                                         .type = GGUF_ARR,
                                         .elem = elem,
                                         .n = b->len / n_bytes,
                                         .value = (const uint8_t *)b->data,
                                         .bytes = b->len});
    sb_free(b);
    return rc;
}

static int write_pairs(struct gguf_writer *w, const struct tok_compact *c,
                       struct runt_err *err)
{
    struct strbuf b = {0};
    /* the largest id is that of the last merge's result, or below */
    bool small = c->n_merges + 256 <= UINT16_MAX;
    for (size_t i = 0; i < c->n_merges; i++) {
        put(&b, c->pairs[i][0], small ? 2 : 4);
        put(&b, c->pairs[i][1], small ? 2 : 4);
    }
    return set_numbers(w, KEY_MERGES, small ? GGUF_U16 : GGUF_U32, small ? 2 : 4, &b,
                       err);
}

static int write_kinds(struct gguf_writer *w, const struct tok_vocab *v,
                       struct runt_err *err)
{
    struct strbuf b = {0};
    for (size_t id = 0; id < v->n_tokens; id++) {
        if (v->kinds[id] == TOK_NORMAL)
            continue;
        put(&b, (int32_t)id, 4);
        put(&b, v->kinds[id], 4);
    }
    return b.len || b.failed ? set_numbers(w, KEY_KINDS, GGUF_U32, 4, &b, err) : 0;
}

static int write_compact(struct gguf_writer *w, const struct tok_vocab *v,
                         const struct tok_compact *c, struct runt_err *err)
{
    struct strbuf b = {0};
    sb_put(&b, c->bytes, sizeof c->bytes);
    int rc = set_numbers(w, KEY_BYTES, GGUF_U8, 1, &b, err);
    if (!rc)
        rc = write_pairs(w, c, err);
    if (rc)
        return rc;
    gguf_set_strings(w, KEY_TAIL, (const struct gguf_str *)c->tail, c->n_tail);
    return write_kinds(w, v, err);
}

static bool is_compact_type(const struct fmt_info *fmt)
{
    return fmt && fmt->type == FMT_R4;
}

int model_write_vocab(struct gguf_writer *w, const struct tok_vocab *v,
                      const struct fmt_info *fmt, struct runt_err *err)
{
    struct tok_compact c = {0};
    int rc = is_compact_type(fmt) ? tok_compact_make(v, &c, err) : RUNT_E_UNSUPPORTED;
    if (rc == RUNT_E_UNSUPPORTED) {
        write_arrays(w, v);
        return 0;
    }
    if (!rc)
        rc = write_compact(w, v, &c, err);
    tok_compact_free(&c);
    return rc;
}

/* ---- copying ---- */

static bool is_key(struct gguf_str key, const char *const *keys, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (key.len == strlen(keys[i]) && !memcmp(key.data, keys[i], key.len))
            return true;
    return false;
}

/* Whether a pair belongs to the vocabulary, in the form that the file has. */
static bool of_vocab(const struct gguf_kv *kv, bool compact)
{
    return compact ? is_key(kv->key, keys_of_pairs,
                            sizeof keys_of_pairs / sizeof *keys_of_pairs)
                   : is_key(kv->key, keys_of_arrays,
                            sizeof keys_of_arrays / sizeof *keys_of_arrays);
}

static int read_whole(const struct gguf *g, struct tok_vocab *v, struct runt_err *err)
{
    int rc = model_read_vocab(g, v, err);
    return rc ? rc : tok_vocab_spell_merges(v, err);
}

/* Whether arrays have a compact form.  A vocabulary that cannot be read, whatever is
 * wrong with it, is for copying only. */
static int can_be_compact(const struct gguf *g, struct tok_vocab *v, bool *can,
                          struct runt_err *err)
{
    struct tok_compact c = {0};
    int rc = model_read_vocab(g, v, err);
    if (!rc)
        rc = tok_compact_make(v, &c, err);
    tok_compact_free(&c);
    *can = !rc;
    return rc == RUNT_E_NOMEM ? rc : 0;
}

int model_copy_meta(struct gguf_writer *w, const struct gguf *g,
                    const struct fmt_info *fmt, struct runt_err *err)
{
    struct tok_vocab v = {0};
    bool is_compact = gguf_find(g, KEY_MERGES), rewrite = is_compact, is_done = false;
    int rc = 0;
    if (is_compact == is_compact_type(fmt))
        rewrite = false;
    else if (is_compact)
        rc = read_whole(g, &v, err);
    else
        rc = can_be_compact(g, &v, &rewrite, err);
    for (size_t i = 0; !rc && i < g->n_kv; i++) {
        const struct gguf_kv *kv = &g->kv[i];
        if (kv->key.len > 6 && !memcmp(kv->key.data, "train.", 6))
            continue; /* a checkpoint's own (src/train/checkpoint.h) */
        if (!rewrite || !of_vocab(kv, is_compact))
            gguf_set_kv(w, kv);
        else if (!is_done)
            rc = model_write_vocab(w, &v, fmt, err);
        is_done = is_done || (rewrite && of_vocab(kv, is_compact));
    }
    tok_vocab_free(&v);
    return rc;
}
