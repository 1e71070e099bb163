/* What must hold for any vocabulary that parses: it pads, it builds, and encoding any
 * bytes gives ids that spell these bytes. */
#ifndef TOK_CHECK_H
#define TOK_CHECK_H

#include "base/mem.h"
#include "tok/tok.h"

#include <stdlib.h>
#include <string.h>

static void check_encode(const struct tok *t, bool has_unknown, const char *text,
                         size_t n, bool special)
{
    struct runt_err err = {0};
    int32_t *ids;
    size_t n_ids, pos = 0, k;
    int rc = tok_encode(t, text, n, special, &ids, &n_ids, &err);
    if (rc) {
        if (rc != RUNT_E_UNSUPPORTED || has_unknown || !*err.msg)
            abort();
        return;
    }
    for (size_t i = 0; i < n_ids; i++) {
        const char *s = tok_bytes(t, ids[i], &k);
        if (ids[i] < 0 || (size_t)ids[i] >= tok_n_tokens(t))
            abort();
        if (!special && tok_is_control(t, ids[i]))
            abort();
        if (!has_unknown && (k == 0 || k > n - pos || memcmp(s, text + pos, k)))
            abort();
        pos += k;
    }
    if (!has_unknown && pos != n)
        abort();
    mem_free(ids);
}

/* Build a tokenizer and encode; true when it builds. */
static bool check_vocab(const struct tok_vocab *v, const char *text, size_t n)
{
    struct runt_err err = {0};
    struct tok *t;
    bool has_unknown = false;
    if (tok_create(v, "fuzz", &t, &err)) {
        if (!err.code || !*err.msg)
            abort();
        return false;
    }
    for (size_t i = 0; i < v->n_tokens; i++) {
        size_t k;
        const char *s = tok_bytes(t, (int32_t)i, &k);
        int32_t found = tok_find(t, s, k);
        has_unknown = has_unknown || v->kinds[i] == TOK_UNKNOWN;
        if (k && (found < 0 || found > (int32_t)i))
            abort();
    }
    check_encode(t, has_unknown, text, n, false);
    check_encode(t, has_unknown, text, n, true);
    tok_destroy(t);
    return true;
}

/* The same for a vocabulary that a parser made, which it frees. */
static inline void check_parsed(struct tok_vocab *v, const char *text, size_t n)
{
    struct runt_err err = {0};
    if (tok_vocab_pad(v, v->n_tokens + n % 7, &err) || !check_vocab(v, text, n))
        abort();
    tok_vocab_free(v);
}

/* The text after the next line "%%", whose part before it becomes *head. */
static inline const char *next_part(const char *p, const char *end, size_t *n_head)
{
    for (const char *s = p; end - s >= 4; s++)
        if (!memcmp(s, "\n%%\n", 4)) {
            *n_head = (size_t)(s - p);
            return s + 4;
        }
    *n_head = (size_t)(end - p);
    return end;
}

#endif
