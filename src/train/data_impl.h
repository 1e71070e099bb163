/* What data.c, data_read.c and data_cache.c share. */
#ifndef RUNT_TRAIN_DATA_IMPL_H
#define RUNT_TRAIN_DATA_IMPL_H

#include "base/file.h"
#include "train/data.h"

/* A file's documents as tokens.  Token k of document i is number at[i] + k. */
struct data_tokens {
    uint64_t n_docs, n_tokens, text_bytes;
    const uint64_t *at;        /* [n_docs + 1] */
    const uint64_t *hashes;    /* [n_docs], of the text */
    const void *ids;           /* [n_tokens], uint16_t or uint32_t */
    const unsigned char *mask; /* a bit a token: it counts; NULL: all do */
    bool wide, messages;
    uint64_t n_counted, n_unanswered;
    uint64_t key[2]; /* of the file's content, the tokenizer and the masking */
    struct file_map map;
};

static inline int32_t data_token(const struct data_tokens *t, uint64_t i)
{
    return (int32_t)(t->wide ? ((const uint32_t *)t->ids)[i]
                             : ((const uint16_t *)t->ids)[i]);
}

static inline bool data_counts(const struct data_tokens *t, uint64_t i)
{
    return !t->mask || t->mask[i / 8] >> i % 8 & 1;
}

/* The tokens of a file, from the cache or by reading it; *cached says which. */
int data_tokens_open(const char *path, const struct data_options *o,
                     struct data_tokens *out, bool *cached, struct runt_err *err);
void data_tokens_close(struct data_tokens *t);

/* ---- data_read.c ---- */

/* data_read_documents, which also says whether a line held messages. */
int data_read_text(const char *path, const char *field,
                   int (*fn)(void *ctx, const char *text, size_t n,
                             struct runt_err *err),
                   void *ctx, bool *messages, struct runt_err *err);

/* Where to cut a text of more than `most` bytes so that its tokens stay what they are,
 * if it has any such place: before a space between a letter and a letter. */
size_t data_piece(const char *text, size_t n, size_t most);

#endif
