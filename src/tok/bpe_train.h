/* Byte-level BPE learned from texts (Sennrich et al. 2016; bytes as in GPT-2): the pair
 * of neighbouring tokens that occurs most often becomes a token, again and again.
 *
 * Pairs are counted within GPT-2's pre-tokens only, each as often as its pre-token
 * occurs; "aaa" holds the pair "a a" twice, though only one of them merges.  Of pairs
 * that occur equally often the one with the lower left id merges first, then that with
 * the lower right id.  No token becomes longer than BPE_MAX_TOKEN bytes.  The result is
 * a function of the texts and the options: neither their order nor the number of
 * threads changes it. */
#ifndef RUNT_TOK_BPE_TRAIN_H
#define RUNT_TOK_BPE_TRAIN_H

#include "base/pool.h"
#include "tok/tok.h"

enum {
    BPE_MIN_VOCAB = 257, /* the bytes and <|endoftext|> */
    BPE_MAX_VOCAB = 65536,
    BPE_MAX_TOKEN = 128,     /* bytes; as long as GPT-2's longest */
    BPE_MAX_WORDS = 1 << 30, /* bytes of all different pre-tokens together */
};

struct bpe_options {
    size_t n_vocab;     /* tokens wanted, BPE_MIN_VOCAB to BPE_MAX_VOCAB */
    uint64_t min_count; /* a pair that occurs less often never merges; 1 or more */
    runt_progress_fn progress; /* may be NULL */
    void *progress_ctx;
};

struct bpe_stats {
    uint64_t n_bytes, n_words; /* of all texts; words are pre-tokens */
    uint64_t n_distinct;       /* different words */
    uint64_t n_tokens;         /* what the texts become with the merges */
};

struct bpe_train;
/* The pool, which may be NULL, must outlive it. */
int bpe_train_new(struct pool *pool, struct bpe_train **out, struct runt_err *err);
/* Count a document's words.  Any bytes are a text.  Errors: RUNT_E_NOMEM;
 * RUNT_E_UNSUPPORTED: more than BPE_MAX_WORDS.  After a failure only
 * bpe_train_free is allowed. */
int bpe_train_add(struct bpe_train *t, const char *text, size_t n,
                  struct runt_err *err);
/* Once, at the end.  The vocabulary: 256 bytes in GPT-2's order, the tokens that merges
 * make in the order of the merges, and <|endoftext|>, which is bos and eos.  It is
 * smaller than asked for when no pair is left.  Errors: those of bpe_train_add,
 * RUNT_E_INVALID, RUNT_E_INTERRUPTED. */
int bpe_train_run(struct bpe_train *t, const struct bpe_options *o,
                  struct tok_vocab *out, struct bpe_stats *stats, struct runt_err *err);
void bpe_train_free(struct bpe_train *t); /* NULL is fine */

#endif
