/* What net_cuda.c and net_cuda_run.c share: a net's arrays on the GPU. */
#ifndef RUNT_TRAIN_NET_CUDA_H
#define RUNT_TRAIN_NET_CUDA_H

#include "back/cuda.h"
#include "train/net_device.h"
#include "train/net_names.h"

struct net_cuda_device {
    struct net_device base; /* first */
    char name[300];
    struct cuda *cuda;
};

/* What a block keeps, or one set for all when nothing else is to be kept. */
struct net_cuda_acts {
    float *stat1, *lse, *mid, *stat2;
    void *qkv, *attn, *up; /* qkv and up without their biases */
};

/* float: the residual stream and its gradient, statistics, logits, weights; void: acts
 * (back/cuda.h).  N: tokens of a micro-batch, wide: the larger of n_ff and 3 width. */
struct net_cuda {
    struct cuda *cuda;
    float *w, *g, *m, *v;       /* [n_weights], [n_trained] */
    void *h;                    /* [n_weights]: w in bfloat16, or NULL: w itself */
    float *x;                   /* [n_layer + 1][N][width], or 2 where nothing learns */
    struct net_cuda_acts *acts; /* [n_layer] */
    float *stat;                /* of the last norm */
    void *norm, *wide, *wide2;  /* [N][width], [N][wide] */
    void *y;                    /* [N][width]: a branch's end, or a norm's gradient */
    float *dx;                  /* [N][width] */
    void *dy;                   /* [N][width]: dx as it enters products */
    float *delta, *partial;
    float *logits; /* [chunk][step] */
    void *dlogits; /* the same, or logits */
    size_t step;
    double *losses;            /* [N] */
    struct cuda_score *scores; /* [chunk] */
    int32_t *tokens, *targets; /* [N] */
    uint32_t *keys;            /* [n_seqs] */
    int32_t *groups;           /* ids [N], starts [N + 1], rows [N] */
    struct cuda_piece *pieces; /* [n_pieces], of the trained weights */
    double *squares;           /* [n_pieces + 1] */
    size_t n_pieces;
    /* in this machine's memory */
    double *host_losses;
    int32_t *host_groups, *counts; /* counts [n_vocab] */
    void **owned;                  /* all of the device's arrays */
    size_t n_owned, max_owned;
};

/* net_device.run and .score */
double net_cuda_run(struct net *n, const struct net_batch *b);
int net_cuda_score(struct net *n, struct net *base, const struct net_batch *b,
                   struct eval_score *scores, struct runt_err *err);

#endif
