/* A run's state on disk: a model file that every other verb reads, with the optimizer's
 * moments behind the weights (tensors m.NAME and v.NAME) and what the run needs to go
 * on under train.* keys.  Of a run that trains adapters it holds those alone, and a
 * checksum of the model that they are for.
 *
 * A checkpoint is folder/step-00000100.gguf.  It appears complete or not at all; a
 * checksum over its numbers finds damage. */
#ifndef RUNT_TRAIN_CHECKPOINT_H
#define RUNT_TRAIN_CHECKPOINT_H

#include "gguf/gguf.h"
#include "train/optim.h"

struct checkpoint_state {
    uint64_t step;    /* steps done */
    uint64_t samples; /* drawn from the data */
    uint64_t seed;
    uint64_t run;  /* fingerprint of what may not change between parts of a run */
    double smooth; /* the smoothed loss, NAN before the first step */
    double best;   /* the least validation loss, INFINITY before any */
};

/* What a file begins with: the metadata of a model file, or of an adapter's, train.*
 * left out. */
struct checkpoint_meta {
    int (*fn)(void *ctx, bool adapter, struct gguf_writer *w, struct runt_err *err);
    void *ctx;
};

/* The weights alone, F32: a model file, adapters merged into it; or the adapters. */
int checkpoint_write_model(const char *path, const struct net *net,
                           const struct checkpoint_meta *meta, struct runt_err *err);
int checkpoint_write_adapter(const char *path, const struct net *net,
                             const struct checkpoint_meta *meta, struct runt_err *err);
/* args: the command line, kept for `train --resume`. */
int checkpoint_write(const char *path, const struct optim *o,
                     const struct checkpoint_state *s,
                     const struct checkpoint_meta *meta, const char *const *args,
                     size_t n_args, struct runt_err *err);

/* A checkpoint's state and arguments (borrowed from g; args from mem_array); errors as
 * of gguf_get_*: not a checkpoint, or damaged. */
int checkpoint_read_state(const struct gguf *g, struct checkpoint_state *s,
                          struct gguf_str **args, size_t *n_args, struct runt_err *err);
/* Weights and moments; of adapters only theirs, the net has the model's weights.
 * RUNT_E_INVALID: of another shape, or frozen otherwise, adapters of other weights;
 * RUNT_E_FORMAT: damaged. */
int checkpoint_read(const struct gguf *g, struct optim *o, struct runt_err *err);

/* The path of a step's file; the steps there are, ascending (mem_array'd). */
char *checkpoint_path(const char *folder, uint64_t step);
int checkpoint_list(const char *folder, uint64_t **steps, size_t *n,
                    struct runt_err *err);

#endif
