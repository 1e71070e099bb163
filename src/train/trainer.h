/* A training run: steps over the data, a log, checkpoints, the best and the last model.
 *
 * The folder of a run holds step-N.gguf (checkpoints), best.gguf (least validation
 * loss), model.gguf (the weights at the end) and log.jsonl, a JSON object a line:
 * step, loss, lr, grad_norm, tokens_per_second, and val_loss where it was measured.
 * Where adapters are trained best.gguf and, instead of model.gguf, adapter.gguf hold
 * those alone.
 *
 * Everything follows from the options and the step: which samples, which dropout.  So a
 * run that was stopped anywhere goes on from its last checkpoint to the same bits. */
#ifndef RUNT_TRAIN_TRAINER_H
#define RUNT_TRAIN_TRAINER_H

#include "comm/comm.h"
#include "train/checkpoint.h"
#include "train/data.h"

struct trainer_step {
    uint64_t step, steps;               /* done, of */
    double loss, smooth, lr, grad_norm; /* loss NAN where no target counted */
    double val_loss;                    /* NAN where it was not measured */
    double tokens_per_second;           /* of this step */
    uint64_t tokens;                    /* inputs of a step */
    double val_best;                    /* INFINITY before any */
    bool saved;
};

struct trainer_options {
    struct net_options net; /* n_seqs: a micro-batch; seq_len: the context */
    struct optim_options optim;
    uint64_t accumulate, seed, save_every, keep, eval_every, eval_tokens;
    const struct data *data;
    /* All processes of a run open the same data and options.  A step's result does not
     * depend on their number but for rounding; process 0 alone writes files. */
    struct comm *comm;        /* NULL: one process */
    const char *folder, *log; /* log NULL: folder/log.jsonl */
    struct checkpoint_meta meta;
    const char *const *args; /* kept in checkpoints */
    size_t n_args;
    /* After every step (and once before the first, step 0 with its val_loss, where
     * there is validation).  Not 0: save and stop, RUNT_E_INTERRUPTED. */
    int (*watch)(void *ctx, const struct trainer_step *s);
    void *ctx;
};

struct trainer;

/* The memory of one process. */
int trainer_plan(const struct trainer_options *o, struct net_memory *out,
                 struct runt_err *err);

/* A new run: weights from a source.  RUNT_E_INVALID when the folder holds a run, when
 * the sizes do not fit together or when memory does not suffice (the line has both
 * numbers). */
int trainer_begin(const struct trainer_options *o, const struct tensor_source *weights,
                  struct trainer **out, struct runt_err *err);
/* The run that a checkpoint file is of; adapters want the weights that the run began
 * with, too, else NULL.  RUNT_E_INVALID: it is of another run. */
int trainer_resume(const struct trainer_options *o, const struct tensor_source *weights,
                   const struct gguf *checkpoint, struct trainer **out,
                   struct runt_err *err);
void trainer_free(struct trainer *t); /* NULL is fine */

/* The remaining steps.  RUNT_E_FORMAT when the loss or the gradient is not a number,
 * or the smoothed loss has become worse than guessing: the line names the last good
 * checkpoint.  RUNT_E_IO: a file could not be written; those before it are whole. */
int trainer_run(struct trainer *t, struct runt_err *err);

uint64_t trainer_done(const struct trainer *t); /* steps */
const struct net *trainer_net(const struct trainer *t);
/* What the run leaves: "model.gguf". */
const char *trainer_result(const struct trainer_options *o);
/* The weights as they are now, a model file, adapters merged. */
int trainer_write_model(const struct trainer *t, const char *path,
                        struct runt_err *err);

#endif
