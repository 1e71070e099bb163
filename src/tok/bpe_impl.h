/* What bpe_count.c and bpe_train.c share: the different words of a text. */
#ifndef RUNT_TOK_BPE_IMPL_H
#define RUNT_TOK_BPE_IMPL_H

#include "base/strbuf.h"
#include "tok/bpe_train.h"

struct bpe_word {
    uint64_t count;
    size_t at; /* into text */
    uint32_t len, hash;
};

struct bpe_slot {
    uint32_t hash, number; /* of the word, from 1; 0: empty */
};

/* A hash table in insertion order: open addressing, at most half full. */
struct bpe_words {
    struct bpe_word *items;
    size_t n, room;
    struct bpe_slot *slots;
    size_t mask;
    struct strbuf text;
};

/* All words that were added, in one table that stays the trainer's; their bytes. */
int bpe_train_words(struct bpe_train *t, const struct bpe_words **out,
                    uint64_t *n_bytes, struct runt_err *err);

#endif
