/* What the tokenizer's own files share. */
#ifndef RUNT_TOK_IMPL_H
#define RUNT_TOK_IMPL_H

#include "base/js.h"
#include "base/strbuf.h"
#include "tok/tok.h"

enum {
    TOK_MAX_TOKENS = 4000000,  /* and as many merges */
    TOK_MAX_STRINGS = 1 << 28, /* bytes of all token strings together */
    TOK_MAX_SPECIAL = 256,     /* bytes of a control or user-defined token */
};

/* ---- tok_pre.c: characters ---- */

/* GPT-2's printable alphabet, one character for each byte; -1 outside of it. */
uint32_t tok_byte_to_char(uint8_t b);
int tok_char_to_byte(uint32_t code_point);
/* The bytes that a string in the printable alphabet stands for, at most n of them, in
 * `bytes`; false (contents unspecified) when a character is outside of it. */
bool tok_spell(const char *s, size_t n, char *bytes, size_t *n_bytes);
/* Length of the pre-token that a text of n > 0 bytes starts with, at least 1. */
size_t tok_pre_next(const char *p, size_t n);

/* ---- tok_map.c: string -> id ---- */

/* A hash map from strings to their indices in an array that the caller keeps. */
struct strmap {
    struct strmap_slot *slots;
    size_t mask;
};

int strmap_init(struct strmap *m, size_t n_max); /* 0 or RUNT_E_NOMEM */
void strmap_free(struct strmap *m);
/* Enter strs[id], unless an equal string is there; *found is that one's id, or `id`.
 * RUNT_E_FORMAT when too many strings hash alike to be an accident. */
int strmap_put(struct strmap *m, const struct tok_str *strs, int32_t id,
               int32_t *found);
/* The id of the string that is a followed by b, or -1. */
int32_t strmap_get(const struct strmap *m, const struct tok_str *strs, struct tok_str a,
                   struct tok_str b);
uint64_t tok_hash(const char *bytes, size_t n);

/* ---- tok_build.c: the tokenizer ---- */

struct tok_merge {
    int32_t right;
    uint32_t rank;
};

/* Immutable once built.  Merges are grouped by their left token (merge_row[left] to
 * merge_row[left + 1]) and ascend by the right one: a lookup is a binary search, which
 * no choice of tokens can slow down. */
struct tok {
    size_t n_tokens, n_merges, n_specials;
    struct tok_str *bytes; /* by id, into `blob`; empty for unused tokens */
    char *blob;
    uint8_t *kinds;
    int32_t bos, eos, unknown; /* or -1 */
    int32_t byte_id[256];      /* the token of one byte, `unknown`, or -1 */
    uint32_t *merge_row;
    struct tok_merge *merges;
    int32_t *merged;           /* by rank: the id that a merge makes */
    int32_t *specials;         /* control and user-defined ids, ascending by bytes */
    int32_t *special_parent;   /* by place in `specials`: that of the longest other one
                                  that it starts with, or -1 */
    uint32_t special_row[257]; /* by first byte, into `specials` */
};

/* Copy s to `to` and give the place behind it.  Most tokens are shorter than 8 bytes,
 * where a call of memcpy costs more than the copy: 8 at a time are copied, so both
 * blocks have TOK_SLACK bytes to spare at their ends. */
enum { TOK_SLACK = 7 };
static inline char *tok_append(char *to, struct tok_str s)
{
    for (size_t i = 0; i < s.len; i += 8) {
        uint64_t eight;
        __builtin_memcpy(&eight, s.data + i, 8);
        __builtin_memcpy(to + i, &eight, 8);
    }
    return to + s.len;
}

/* Where a vocabulary came from, for error lines. */
struct tok_origin {
    const char *tokens, *merges; /* file names */
    const uint32_t *lines;       /* by rank: line in the merges' file, or NULL */
};

/* tok_create with error lines that name the origin. */
int tok_create_from(const struct tok_vocab *v, const struct tok_origin *from,
                    struct tok **out, struct runt_err *err);

/* ---- tok_vocab.c: gathering a vocabulary ---- */

struct vocab_item {
    size_t pos, len; /* into text */
    int32_t number;  /* a token's id, a merge's line */
    int32_t kind;    /* of a token */
};

struct vocab_list {
    struct vocab_item *items;
    size_t n, cap;
};

struct vocab_builder {
    struct tok_origin from;
    struct strbuf text;
    struct vocab_list tokens, merges;
    bool has_lines;
};

/* Note a token under the id that JSON gives it.  The same string under the same id may
 * come again: the later kind holds. */
int vocab_add_token(struct vocab_builder *b, const char *s, size_t n, const json_t *id,
                    enum tok_kind kind, struct runt_err *err);
int vocab_add_merge(struct vocab_builder *b, const char *s, size_t n, size_t line,
                    struct runt_err *err);
/* Order, fill holes, find the end-of-text token, and check that a tokenizer builds.
 * `unknown` names the unknown token, or is NULL. */
int vocab_finish(struct vocab_builder *b, const char *unknown, struct tok_vocab *out,
                 struct runt_err *err);
void vocab_builder_free(struct vocab_builder *b);

#endif
