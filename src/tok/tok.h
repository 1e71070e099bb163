/* The tokenizer: GPT-2's byte-level byte-pair encoding.
 *
 * A vocabulary holds token strings in GPT-2's printable alphabet (each byte of the text
 * is one Unicode character, a space is U+0120) and merges "left right" by rank.  It
 * comes from a Hugging Face folder or from a model file's arrays; a tokenizer is built
 * from it. */
#ifndef RUNT_TOK_H
#define RUNT_TOK_H

#include "runt/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tok_kind {
    TOK_NORMAL = 1,
    TOK_UNKNOWN = 2,
    TOK_CONTROL = 3,
    TOK_USER = 4,
    TOK_UNUSED = 5,
    TOK_BYTE = 6
}; /* GGUF's token_type */

struct tok_str {
    const char *data; /* UTF-8, not NUL-terminated */
    size_t len;
};

struct tok_vocab {
    size_t n_tokens;
    struct tok_str *tokens; /* by id */
    int32_t *kinds;         /* by id, enum tok_kind */
    size_t n_merges;
    struct tok_str *merges; /* by rank, "left right"; may be NULL where pairs is not */
    int32_t bos, eos;       /* -1 when there is none */
    void *storage;          /* owns strings that are not borrowed */
    /* By rank, from tok_compact_expand: the two parts of a merge, which then makes
     * token 256 + rank.  NULL: to be found by their strings. */
    int32_t (*pairs)[2];
};

/* vocab.json + merges.txt (with added_tokens.json where present), or tokenizer.json,
 * whichever DIR has (the former first).  Errors: RUNT_E_NOTFOUND, RUNT_E_FORMAT,
 * RUNT_E_UNSUPPORTED (a tokenizer.json that is not byte-level BPE). */
int tok_vocab_load(const char *dir, struct tok_vocab *out, struct runt_err *err);
/* The parsers behind it, over memory (tests, fuzzing). */
int tok_vocab_parse(const char *vocab_json, size_t n_vocab, const char *merges_txt,
                    size_t n_merges, const char *name, struct tok_vocab *out,
                    struct runt_err *err);
int tok_vocab_parse_json(const char *tokenizer_json, size_t n, const char *name,
                         struct tok_vocab *out, struct runt_err *err);
/* Append unused "[PAD n]" tokens until there are n_tokens. */
int tok_vocab_pad(struct tok_vocab *v, size_t n_tokens, struct runt_err *err);
/* A made-up vocabulary of n_tokens: the 256 bytes, merged tokens as long on average as
 * GPT-2's, so that files have the size of real ones, and <|endoftext|>, which becomes
 * bos and eos.  Merge i makes token 256 + i. */
int tok_vocab_synthetic(size_t n_tokens, struct tok_vocab *out, struct runt_err *err);
/* Write vocab.json and merges.txt into an existing folder, as Hugging Face's programs
 * read them; and added_tokens.json where there are special tokens besides
 * <|endoftext|>. Unused tokens at the end, which tok_vocab_pad makes again, are left
 * out.  RUNT_E_UNSUPPORTED when a token is not valid UTF-8. */
int tok_vocab_save(const struct tok_vocab *v, const char *dir, struct runt_err *err);
/* tokenizer_config.json beside them.  `max_length` is the model's context;
 * chat_template may have no data. */
int tok_settings_save(const struct tok_vocab *v, uint32_t max_length,
                      struct tok_str chat_template, const char *dir,
                      struct runt_err *err);
void tok_vocab_free(struct tok_vocab *v);

/* A vocabulary without its strings (tok_compact.c): tokens 0 to 255 stand for bytes,
 * token 256 + i is the result of merge i, and others follow. */
struct tok_compact {
    uint8_t bytes[256]; /* by id */
    size_t n_merges;
    int32_t (*pairs)[2]; /* by rank: left, right, both below 256 + rank */
    size_t n_tail;
    const struct tok_str *tail; /* borrowed */
};

/* Errors: RUNT_E_UNSUPPORTED when the vocabulary does not have that shape.  Borrows
 * from `v`; free with tok_compact_free. */
int tok_compact_make(const struct tok_vocab *v, struct tok_compact *out,
                     struct runt_err *err);
/* The tokens again, byte for byte; every kind is TOK_NORMAL, bos and eos are -1.  On
 * success it has taken c->pairs, and leaves `merges` NULL: a tokenizer needs no more;
 * the tail's strings stay borrowed.  `name` (file and key) starts error lines:
 * RUNT_E_FORMAT, RUNT_E_NOMEM. */
int tok_compact_expand(struct tok_compact *c, const char *name, struct tok_vocab *out,
                       struct runt_err *err);
void tok_compact_free(struct tok_compact *c);
/* Make `merges` from pairs, where it is NULL. */
int tok_vocab_spell_merges(struct tok_vocab *v, struct runt_err *err);

struct tok;
/* Build a tokenizer; keeps nothing of `v`.  `name` starts error lines. */
int tok_create(const struct tok_vocab *v, const char *name, struct tok **out,
               struct runt_err *err);
void tok_destroy(struct tok *t); /* NULL is fine */

size_t tok_n_tokens(const struct tok *t);
int32_t tok_bos(const struct tok *t); /* -1 when there is none */
int32_t tok_eos(const struct tok *t);
/* The lowest id of a token given as plain bytes, or -1.  Looks at every token. */
int32_t tok_find(const struct tok *t, const char *bytes, size_t n);

/* Text -> ids.  With `special`, control and user-defined tokens that stand in the text
 * become their one id; without, they are spelled out like any text.  *ids from
 * mem_alloc, the caller frees it.  Time is O(n log n) at worst, whatever the text. */
int tok_encode(const struct tok *t, const char *text, size_t n, bool special,
               int32_t **ids, size_t *n_ids, struct runt_err *err);

/* The bytes of one id (borrowed; may be part of a UTF-8 sequence).  A control token
 * gives its name.  *n = 0 for an id outside the vocabulary and for unused tokens. */
const char *tok_bytes(const struct tok *t, int32_t id, size_t *n);
bool tok_is_control(const struct tok *t, int32_t id);

#endif
