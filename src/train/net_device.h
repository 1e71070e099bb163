/* Where a net works, if not on this processor: a GPU (net_cuda.c).
 *
 * Then its weights, gradients and moments live there.  net->w and the optimizer's m and
 * v are copies in this machine's memory, which files are read into and written from:
 * `put` and `get` bring them up to date. */
#ifndef RUNT_TRAIN_NET_DEVICE_H
#define RUNT_TRAIN_NET_DEVICE_H

#include "eval/eval.h"
#include "train/optim.h"

/* A net with adapters works on the processor: net_create refuses a device for it. */
struct net_device {
    const char *name; /* for people: "cuBLAS on NVIDIA H100 80GB HBM3" */
    enum gemm_type type;
    void (*close)(struct net_device *d);
    size_t (*free_bytes)(const struct net_device *d);
    double (*peak)(const struct net_device *d); /* of products, FLOP/s; 0: unknown */

    /* net_create, net_plan and net_free, after what all nets have in common. */
    int (*create)(struct net *n, struct runt_err *err);
    void (*measure)(const struct net *n, struct net_memory *m);
    void (*destroy)(struct net *n);

    int (*put)(struct net *n, struct runt_err *err); /* n->w to the device */
    int (*get)(const struct net *n, struct runt_err *err);
    /* net_run.  What fails is kept: NAN, and `check` says why. */
    double (*run)(struct net *n, const struct net_batch *b);
    int (*check)(const struct net *n, struct runt_err *err);
    /* Scores [n_seqs][seq_len] of the batch's targets; base, of the same vocabulary on
     * the same device, may be NULL. */
    int (*score)(struct net *n, struct net *base, const struct net_batch *b,
                 struct eval_score *scores, struct runt_err *err);

    int (*optim_create)(struct optim *o, struct runt_err *err);
    int (*optim_put)(struct optim *o, struct runt_err *err); /* moments */
    int (*optim_get)(const struct optim *o, struct runt_err *err);
    double (*squares)(struct optim *o);
    void (*update)(struct optim *o, const struct grad_adamw *matrix,
                   const struct grad_adamw *vector);
};

/* The first GPU.  RUNT_E_UNSUPPORTED: there is none that works, or this build knows of
 * none.  Free with d->close. */
bool net_cuda_built(void); /* does this build know of any? */
int net_cuda_open(enum gemm_type type, struct net_device **out, struct runt_err *err);
/* For tests: the gradients as they are, [n_trained]. */
int net_cuda_gradients(const struct net *n, float *g, struct runt_err *err);

#endif
