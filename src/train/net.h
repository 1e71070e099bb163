/* A GPT-2 that learns: its weights and gradients, what the forward pass keeps, and the
 * order of the backward pass.
 *
 * Weights lie in two runs of floats, first those that are trained, block by block, then
 * the frozen ones; gradients (and the optimizer's moments, elsewhere) have the first
 * run's layout.  A matrix is [out][in], as in the model file.
 *
 * With adapters (LoRA: Hu et al. 2021) the model's own weights are frozen, and matrices
 * (positions excepted) learn a product of low rank: y = x w^T + scale (x a^T) b^T, a
 * [rank][in], b [out][rank], scale = alpha / rank (net_lora.c). */
#ifndef RUNT_TRAIN_NET_H
#define RUNT_TRAIN_NET_H

#include "back/grad_ops.h"
#include "base/mem.h"
#include "fmt/shape.h"
#include "fmt/source.h"

struct net_param {
    struct tensor_desc desc; /* F32, the model file's or the adapter file's name */
    size_t at;               /* of net->w, and of net->g where trained */
    bool frozen;
    size_t lora; /* params[lora] is this matrix's a, the next its b; 0: not adapted */
};

struct net_lora {
    size_t rank; /* 0: no adapters, the weights themselves are trained */
    float alpha;
    const char *targets; /* which matrices, as `train`; NULL: all of the blocks */
    uint64_t seed;       /* of the first a; b begins as 0 */
};

struct net_device;

struct net_options {
    const struct gpt2_shape *shape;
    size_t n_seqs, seq_len; /* of a micro-batch, at most */
    bool recompute;         /* keep a block's input alone, and run it again */
    const char *train;      /* which weights: a POSIX extended expression, NULL: all */
    struct net_lora lora;   /* instead of `train` */
    enum gemm_type type;
    float dropout;
    struct pool *pool;
    struct net_device *device; /* net_device.h; NULL: this processor */
    bool forward;              /* on a device: no gradients will be wanted */
    bool profile;              /* on a device: take the time of each part */
};

/* What a run needs, in bytes. */
struct net_memory {
    size_t weights, narrow, gradients, moments, activations, work;
    size_t total;
};

/* The matrices of a block, which adapters may change. */
enum { NET_LORA_PARTS = 4 };

struct net_block_acts { /* what a block keeps, or one set for all when recomputed */
    float *stat1, *qkv, *attn, *lse, *mid, *stat2, *up;
    float *low[NET_LORA_PARTS]; /* [N][rank]: scale x a^T of what is adapted */
};

/* Where the time of a step goes, as its first thread sees it. */
enum net_part {
    NET_FORWARD, /* products: with weights, forward */
    NET_INPUTS,  /* for the gradients of activations */
    NET_WEIGHTS, /* for the gradients of weights */
    NET_ATTENTION,
    NET_ATTENTION_BACK,
    NET_NORMS,
    NET_GELU, /* of the backward pass; the others are done within the products */
    NET_BIASES,
    NET_LOSS,
    NET_DROPOUT,
    NET_EMBEDDINGS,
    NET_WAIT,    /* for the other threads */
    NET_OUTSIDE, /* between passes: data, the optimizer, the log */
    NET_N_PARTS
};
extern const char *const net_part_names[NET_N_PARTS];

struct net {
    struct net_options o;
    struct gpt2_shape shape;
    struct grad_cpu cpu;
    struct tensor_source source; /* the model, adapters merged into its matrices */
    size_t n_params, n_trained, n_weights;
    size_t n_own;              /* params of the model itself, which come first */
    struct net_param *params;  /* in the model file's order, then pairs of a and b */
    struct tensor_desc *descs; /* [n_own] */
    float scale;               /* of adapters */
    float *w, *g;              /* [n_weights], [n_trained] */
    uint16_t *h;               /* [n_weights]: w in bfloat16, or NULL */
    struct arena arena;
    float *x;                    /* [n_layer + 1][N][width]: the residual stream */
    struct net_block_acts *acts; /* [n_layer] */
    float *norm, *wide, *wide2, *dx, *dnorm; /* scratch [N][width or n_ff or 3 width] */
    float *low_embed, *low_head; /* [N][rank], [chunk][rank]: as net_block_acts.low */
    float *dlow;                 /* [N][rank] scratch of adapters */
    float *stat;                 /* of the last norm */
    float *logits;               /* [chunk][n_vocab] */
    size_t chunk;
    double *losses; /* [N] */
    double seconds[NET_N_PARTS], flops[NET_N_PARTS], mark;
    void *on_device; /* what a net_device keeps of it; then g, h and arena are not there
                      */
};

/* Errors: RUNT_E_INVALID (a pattern that is malformed or matches nothing, a rank that a
 * matrix cannot have), RUNT_E_NOMEM (the line states what was wanted).  Weights are not
 * filled yet. */
int net_create(const struct net_options *o, struct net **out, struct runt_err *err);
void net_free(struct net *n); /* NULL is fine */
int net_plan(const struct net_options *o, struct net_memory *out, struct runt_err *err);

/* Fill the model's weights from a source of the same shape, by name, and adapters as
 * they begin. */
int net_load(struct net *n, const struct tensor_source *src, struct runt_err *err);
/* After n->w changed between from and to: the same in bfloat16 (thread i's part). */
void net_narrow(struct net *n, unsigned i, size_t from, size_t to);
/* After all of n->w was filled, and before it is read: a device's copy, bfloat16. */
int net_filled(struct net *n, struct runt_err *err);
int net_fetch(const struct net *n, struct runt_err *err);
/* What products reach alone on all threads, or on the device; FLOP/s. */
double net_peak(const struct net *n);
/* Who makes them: "oneDNN on the processor". */
void net_describe(const struct net *n, char *out, size_t size);

/* One micro-batch.  Gradients of weight times the sum of its losses are added to
 * net->g where `learn`; the sum itself, in nats, over targets that are not -1, comes
 * back.  keys [n_seqs] decide dropout; NULL: none. */
struct net_batch {
    const int32_t *inputs, *targets; /* [n_seqs][seq_len] */
    size_t n_seqs, seq_len;
    const uint32_t *keys;
    float weight;
    bool learn;
    /* Called by one thread when g[from .. to) is complete; may be NULL. */
    void (*done)(void *ctx, size_t from, size_t to);
    /* Called by the same thread between operations; may be NULL. */
    void (*poll)(void *ctx);
    void *ctx;
};
double net_run(struct net *n, const struct net_batch *b);
/* A device's work may fail, and net_run is NAN then: RUNT_E_IO says why. */
int net_check(const struct net *n, struct runt_err *err);

/* Where the gradients of a block (n_layer: of all else) lie in net->g; false: it has
 * none. */
bool net_range(const struct net *n, uint32_t layer, size_t *from, size_t *to);

/* The adapter of parameter p; false: it has none. */
struct adapter_matrix;
bool net_lora_at(const struct net *n, size_t p, struct adapter_matrix *out);

/* Multiply-adds times two of a token's forward and backward pass. */
double net_flops(const struct net *n, size_t seq_len);

#endif
