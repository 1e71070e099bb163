/* A small vocabulary for the tokenizer's tests, built from lines of merges. */
#ifndef TOK_SMALL_H
#define TOK_SMALL_H

#include "base/mem.h"
#include "base/strbuf.h"
#include "tok/tok.h"
#include "tok/tok_impl.h"

#include <string.h>

/* vocab.json's text: the 256 bytes as ids 0-255 (but for the byte `without`, -1 for
 * none), then the result of each merge line, then `extra` members (",\"x\":300"). */
static inline struct strbuf small_vocab(const char *merges, int without,
                                        const char *extra)
{
    struct strbuf b = {0};
    unsigned id = 256;
    sb_str(&b, "{");
    for (int i = 0; i < 256; i++)
        if (i != without)
            sb_printf(&b, "%s\"\\u%04x\":%d", b.len > 1 ? "," : "",
                      tok_byte_to_char((uint8_t)i), i);
    for (const char *line = merges; *line;) {
        int left = (int)strcspn(line, " "), right = (int)strcspn(line + left + 1, "\n");
        sb_printf(&b, ",\"%.*s%.*s\":%u", left, line, right, line + left + 1, id++);
        line += left + right + 2;
    }
    sb_printf(&b, "%s}", extra);
    return b;
}

static inline struct tok *small_tok(const char *merges, const char *extra)
{
    struct strbuf vocab = small_vocab(merges, -1, extra);
    struct runt_err err = {0};
    struct tok_vocab v;
    struct tok *t = NULL;
    int rc = tok_vocab_parse(vocab.data, vocab.len, merges, strlen(merges), "small", &v,
                             &err);
    if (!rc) {
        rc = tok_create(&v, "small", &t, &err);
        tok_vocab_free(&v);
    }
    if (rc)
        fail_msg("%d %s", rc, err.msg);
    sb_free(&vocab);
    return t;
}

/* The encoding as the tokens' bytes, joined by '|'; the caller frees it. */
static inline char *small_pieces(const struct tok *t, const char *text, size_t n,
                                 bool special)
{
    struct strbuf b = {0};
    struct runt_err err = {0};
    int32_t *ids = NULL;
    size_t n_ids = 0, k;
    if (tok_encode(t, text, n, special, &ids, &n_ids, &err))
        fail_msg("%s", err.msg);
    sb_str(&b, "");
    for (size_t i = 0; i < n_ids; i++) {
        sb_str(&b, i ? "|" : "");
        const char *s = tok_bytes(t, ids[i], &k);
        sb_put(&b, s, k);
    }
    mem_free(ids);
    return b.data;
}

static inline void expect_pieces(const struct tok *t, const char *text, bool special,
                                 const char *want)
{
    char *got = small_pieces(t, text, strlen(text), special);
    assert_string_equal(got, want);
    mem_free(got);
}

#endif
