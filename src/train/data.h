/* Text as training wants it: documents of tokens, some held out, the rest in windows of
 * one context's length in a shuffled order.
 *
 * Sample k of a run is a function of the files, the options and k alone, so a run goes
 * on from a counter.  A source's documents lie in one stream, in an order made once
 * from the seed, each closed by the end-of-text token; every epoch cuts the stream anew
 * at an offset of its own and takes the windows in an order of its own.
 *
 * With mask_prompts only answers of dialogues (train/dialogue.h) are targets; documents
 * without any are left out.
 *
 * Tokens are kept in files that are mapped, named by what was in the text and by the
 * tokenizer (data_cache.c). */
#ifndef RUNT_TRAIN_DATA_H
#define RUNT_TRAIN_DATA_H

#include "runt/error.h"
#include "tok/tok.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct data_source {
    const char *path;
    double weight; /* of the samples; 0: not given */
};

struct data_options {
    const struct data_source *sources;
    size_t n_sources;
    const struct data_source
        *val_sources; /* none: val_share of the sources' documents */
    size_t n_val_sources;
    const char *field; /* of a .jsonl line */
    bool mask_prompts; /* tokens outside answers are inputs, but no targets */
    double val_share;  /* 0 <= x < 1; which documents is a matter of their content */
    const struct tok *tok;
    size_t context;
    uint64_t seed;
    const char *cache_dir; /* NULL: $XDG_CACHE_HOME/runt/tokens, ~/.cache/runt/tokens */
    runt_progress_fn progress; /* may be NULL */
    void *progress_ctx;
};

struct data_stats {
    uint64_t documents, tokens, text_bytes, val_documents, val_tokens;
    uint64_t long_documents;      /* longer than the context */
    uint64_t counted, unanswered; /* tokens that are targets; documents left out */
    bool messages;                /* a line of a .jsonl file held messages */
    bool cached;                  /* no text had to be read again */
};

struct data;

/* Weights: where any is given, they are shares of the samples, and a source without one
 * has 1; where none is, sources have shares as long as they are.  Errors:
 * RUNT_E_NOTFOUND, RUNT_E_IO, RUNT_E_FORMAT (empty, binary, a .jsonl line that has no
 * such text: file and line are named), RUNT_E_INVALID (nothing to train on; a file
 * without any answer under mask_prompts),
 * RUNT_E_INTERRUPTED. */
int data_open(const struct data_options *o, struct data **out, struct runt_err *err);
void data_close(struct data *d); /* NULL is fine */
const struct data_stats *data_get_stats(const struct data *d);
/* Of the contents and of all options that decide what a sample is. */
uint64_t data_fingerprint(const struct data *d);

/* Samples first .. first + n - 1, [n][context]: the tokens and the ones that follow, -1
 * where nothing does or what follows does not count. */
void data_train(const struct data *d, uint64_t first, size_t n, int32_t *inputs,
                int32_t *targets);

/* What is held out, in windows one behind another. */
size_t data_n_val(const struct data *d);
void data_val(const struct data *d, size_t first, size_t n, int32_t *inputs,
              int32_t *targets);

/* ---- documents of a file (data_read.c) ---- */

/* Calls fn for every document that is not empty, in order; a failure of fn ends it.
 * A .jsonl line may have messages instead of the field, or in it. */
int data_read_documents(const char *path, const char *field,
                        int (*fn)(void *ctx, const char *text, size_t n,
                                  struct runt_err *err),
                        void *ctx, struct runt_err *err);

#endif
