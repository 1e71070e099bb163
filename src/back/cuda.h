/* A GPU's buffers, its forward and backward operations and its optimizer's step, by
 * NVIDIA's CUDA: products are cuBLAS's, the rest is ours.  A build has this with
 * -Dcuda=enabled; no header of CUDA is seen outside src/back.
 *
 * Operations are queued one behind another and return at once.  What goes wrong is
 * kept, nothing more is done then, and cuda_wait tells it: the first error, in one
 * line.
 *
 * Numbers: weights, their gradients and moments, the residual stream, logits and
 * statistics are floats.  What enters products ("acts", void *) is bfloat16 on a device
 * opened for GEMM_BF16, else float.  All pointers to arrays are to the device's memory
 * unless they say host; N is tokens of a micro-batch, sequences one behind another.
 *
 * Results depend on shapes alone, not on what runs when: every sum has a fixed order,
 * nothing is added up atomically.  One GPU gives the same bits again. */
#ifndef RUNT_CUDA_H
#define RUNT_CUDA_H

#include "back/gemm.h"
#include "kern/grad.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cuda;

/* The first GPU (CUDA_VISIBLE_DEVICES chooses).  RUNT_E_UNSUPPORTED: there is none, its
 * driver or cuBLAS is missing, or it is older than this program's code. */
int cuda_open(enum gemm_type type, struct cuda **out, struct runt_err *err);
void cuda_close(struct cuda *d);             /* its memory too; NULL is fine */
const char *cuda_name(const struct cuda *d); /* "NVIDIA H100 80GB HBM3" */
size_t cuda_free_bytes(struct cuda *d);
size_t cuda_act_bytes(const struct cuda *d); /* of a number */
/* FLOP/s that products reach alone: the best of some. */
double cuda_peak(struct cuda *d);

/* ---- memory ---- */

/* RUNT_E_NOMEM: the line has what was wanted, for `what`, and what is there. */
int cuda_alloc(struct cuda *d, size_t bytes, const char *what, void **out,
               struct runt_err *err);
void cuda_release(struct cuda *d, void *p); /* NULL is fine */
void cuda_upload(struct cuda *d, void *to, const void *host, size_t bytes);
/* Complete when it returns, unless something failed. */
void cuda_download(struct cuda *d, void *host, const void *from, size_t bytes);
void cuda_zero(struct cuda *d, void *p, size_t bytes);
/* RUNT_E_IO: what failed, by CUDA's name for it; it fails again and again. */
int cuda_wait(struct cuda *d, struct runt_err *err);

/* ---- time ---- */

/* What was queued since the last mark counts as `part`, small numbers. */
void cuda_mark(struct cuda *d, int part);
/* After cuda_wait: add the marks' seconds to theirs, and forget them. */
void cuda_take_marks(struct cuda *d, double *seconds);

/* ---- products ---- */

/* c = scale a b, or c += with `add`, in the form of gemm.h.  a and b are acts, or
 * weights in that form; c is float where `wide`, else acts.  Steps in numbers. */
struct cuda_out {
    void *p;
    size_t step;
    bool wide, add;
    float scale;
};
void cuda_product(struct cuda *d, enum gemm_form form, size_t m, size_t n, size_t k,
                  const void *a, size_t a_step, const void *b, size_t b_step,
                  const struct cuda_out *c);
/* y = x in acts' form */
void cuda_narrow(struct cuda *d, size_t n, const float *x, void *y);

/* ---- rows ---- */

/* As struct grad_drop (back/grad_ops.h): the same numbers become 0. */
struct cuda_drop {
    float share;          /* 0: none */
    const uint32_t *keys; /* [n_seqs] */
    uint32_t place;
    size_t seq_len;
};

/* x [N][n] = token rows + position rows, then dropout */
void cuda_embed(struct cuda *d, size_t n_rows, size_t n, const int32_t *tokens,
                const float *table, const float *positions,
                const struct cuda_drop *drop, float *x);
/* The rows of every token that occurs: of token ids[i], rows[starts[i] .. starts[i +
 * 1]) in ascending order. */
struct cuda_groups {
    size_t n;
    const int32_t *ids, *starts, *rows; /* [n], [n + 1], [N] */
};
/* dtable += and dpositions += of dx after dropout's zeros; either may be NULL. */
void cuda_embed_back(struct cuda *d, size_t n_rows, size_t n,
                     const struct cuda_groups *groups, const float *dx,
                     const struct cuda_drop *drop, float *dtable, float *dpositions);

/* A layer norm's weights [n]. */
struct cuda_norm {
    const float *gain, *bias;
    float eps;
};
/* What was added to the residual stream: out = residual + dropout(y + bias). */
struct cuda_branch {
    const void *y;     /* acts [N][n], or NULL: nothing */
    const float *bias; /* [n] */
    struct cuda_drop drop;
    float *out; /* [N][n] */
};
/* The branch, then y [N][n] = the norm of what that gives; stat [N][2]. */
void cuda_add_norm(struct cuda *d, size_t n_rows, size_t n,
                   const struct cuda_branch *branch, const float *residual,
                   const struct cuda_norm *w, void *y, float *stat);
/* The same y again from x and stat. */
void cuda_norm_again(struct cuda *d, size_t n_rows, size_t n, const float *x,
                     const struct cuda_norm *w, const float *stat, void *y);
/* dx += ...; and `next`, where not NULL, gets the new dx with a dropout's zeros. */
void cuda_norm_back(struct cuda *d, size_t n_rows, size_t n, const float *x,
                    const float *gain, const float *stat, const void *dy, float *dx,
                    const struct cuda_drop *drop, void *next);

/* y = GELU(x + bias).  _back: dy *= GELU'(x + bias), and y again. */
void cuda_gelu(struct cuda *d, size_t n_rows, size_t n, const void *x,
               const float *bias, void *y);
void cuda_gelu_back(struct cuda *d, size_t n_rows, size_t n, const void *x,
                    const float *bias, void *dy, void *y);

/* sum [n] += the rows of dy; with x and stat also a norm's dgain += dy (x - mean) inv.
 * Either may be NULL.  partial: floats, cuda_sum_floats of them. */
size_t cuda_sum_floats(size_t n_rows, size_t n);
void cuda_sum_rows(struct cuda *d, size_t n_rows, size_t n, const void *dy,
                   const float *x, const float *stat, float *partial, float *dgain,
                   float *sum);

/* ---- attention ---- */

/* Causal; qkv [N][3 * width] without its bias [3 * width], out [N][width], lse and
 * delta [N][n_heads].  No matrix of scores is kept (Dao et al. 2022). */
struct cuda_attention {
    size_t n_seqs, seq_len, n_heads, width;
    const float *bias;
    struct cuda_drop drop;
};
void cuda_attend(struct cuda *d, const struct cuda_attention *a, const void *qkv,
                 void *out, float *lse);
void cuda_attend_back(struct cuda *d, const struct cuda_attention *a, const void *qkv,
                      const void *out, const float *lse, const void *dout, float *delta,
                      void *dqkv);

/* ---- the loss ---- */

/* Cross entropy of logits [n_rows][step], n of each row, against targets (-1: none, 0);
 * dlogits, where not NULL, gets the gradient times `weight` in acts' form; it may be
 * logits themselves where that is float. */
void cuda_loss(struct cuda *d, size_t n_rows, size_t n, size_t step,
               const float *logits, const int32_t *targets, float weight, void *dlogits,
               double *losses);
/* For evaluation, in double: of each row -log p of its target, and whether that is the
 * likeliest; and where there is a base, the same of it, KL(base || this), and whether
 * the two agree on the likeliest. */
struct cuda_score {
    double nll, base_nll, kl;
    int32_t best, base_best;
};
void cuda_score(struct cuda *d, size_t n_rows, size_t n, size_t step,
                const float *logits, const float *base, const int32_t *targets,
                struct cuda_score *scores);

/* ---- the optimizer ---- */

/* Weights are updated in pieces of one array, none longer than CUDA_PIECE. */
enum { CUDA_PIECE = 4096 };
struct cuda_piece {
    uint64_t at; /* a multiple of 4 */
    uint32_t n;
    uint32_t matrix; /* with decay? */
};
/* *sum = the square of g's norm over the pieces; partial [n_pieces]. */
void cuda_squares(struct cuda *d, size_t n_pieces, const struct cuda_piece *pieces,
                  const float *g, double *partial, double *sum);
/* One step of AdamW (kern/grad.h); g becomes 0, acts h (or NULL) the new w. */
void cuda_adamw(struct cuda *d, size_t n_pieces, const struct cuda_piece *pieces,
                const struct grad_adamw *matrix, const struct grad_adamw *vector,
                float *g, float *w, float *m, float *v, void *h);

#ifdef __cplusplus
}
#endif
#endif
