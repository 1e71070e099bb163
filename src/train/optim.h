/* The optimizer: learning rate, clipping by the norm of all gradients, AdamW.
 *
 * Matrices (embeddings too) decay, vectors do not.  The norm is a sum of fixed parts in
 * a fixed order, so it does not depend on the number of threads. */
#ifndef RUNT_TRAIN_OPTIM_H
#define RUNT_TRAIN_OPTIM_H

#include "train/net.h"

enum optim_schedule { OPTIM_CONSTANT, OPTIM_LINEAR, OPTIM_COSINE };

struct optim_piece {
    size_t at, n; /* of net->w */
};

struct optim_options {
    double lr, min_lr; /* the schedule goes from one to the other */
    uint64_t warmup, steps;
    enum optim_schedule schedule;
    double weight_decay, beta1, beta2, eps;
    double clip;                      /* 0: none */
    const struct optim_piece *pieces; /* what is updated; NULL: all that is trained */
    size_t n_pieces;
};

/* The rate of step 0, 1, ...: up to lr in `warmup` steps of equal size (the first is
 * lr / warmup), then down to min_lr at the last step. */
double optim_rate(const struct optim_options *o, uint64_t step);

struct optim {
    struct optim_options o;
    struct net *net;
    float *m, *v;               /* [n_trained]; valid, and in memory, in the pieces */
    struct optim_piece *pieces; /* [n_pieces] */
    struct optim_piece *parts;  /* [n_parts]: the same in parts of the norm's sum */
    double *squares;            /* [n_parts] */
    size_t n_pieces, n_parts;
};

int optim_create(const struct optim_options *o, struct net *net, struct optim **out,
                 struct runt_err *err);
void optim_free(struct optim *o); /* NULL is fine */
/* After m and v were filled, and before they are read: a device's copy. */
int optim_filled(struct optim *o, struct runt_err *err);
int optim_fetch(const struct optim *o, struct runt_err *err);

/* The norm of net->g; its square over the pieces alone. */
double optim_squares(struct optim *o);
double optim_norm(struct optim *o);
/* Update the weights by step `step` (0, 1, ...) and clear the gradients. */
void optim_step(struct optim *o, uint64_t step, double norm);

#endif
