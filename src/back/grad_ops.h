/* Tensor operations of training, forward and backward, over the threads of a pool.
 *
 * Every function is called by all threads i of a pool run (base/pool.h) and does thread
 * i's part; where the next operation reads what other threads made, the caller puts
 * grad_sync between.  Work is cut in parts that do not depend on the number of threads,
 * so neither do results.  N is tokens of a micro-batch: sequences one behind another.
 */
#ifndef RUNT_GRAD_OPS_H
#define RUNT_GRAD_OPS_H

#include "back/gemm.h"
#include "base/pool.h"
#include "kern/grad.h"

#include <stddef.h>
#include <stdint.h>

struct grad_thread {
    struct gemm_thread *gemm;
    float *attn; /* [3][GRAD_ATTN_ROWS][seq_len] */
};

enum { GRAD_ATTN_ROWS = 64 }; /* queries at a time */

struct grad_cpu {
    struct pool *pool;
    const struct grad_kern *kern;
    struct gemm *gemm;
    enum gemm_type type;
    unsigned n_threads;
    struct grad_thread *threads;
    uint16_t *narrow[2]; /* [n_narrow]: operands of a product in bfloat16 */
    size_t n_narrow;
};

/* seq_len: the longest; n_operand: numbers of the largest activation that enters a
 * product. Free with grad_cpu_free. */
int grad_cpu_init(struct grad_cpu *cpu, struct pool *pool, enum gemm_type type,
                  size_t seq_len, size_t n_operand, struct runt_err *err);
void grad_cpu_free(struct grad_cpu *cpu);
size_t grad_cpu_bytes(unsigned n_threads, enum gemm_type type, size_t seq_len,
                      size_t n_operand);
/* What the products of all threads together reach, FLOP/s: the best of some tenths of a
 * second. */
double grad_cpu_peak(const struct grad_cpu *cpu);
void grad_sync(const struct grad_cpu *cpu, unsigned i);

/* Which numbers become 0: a hash of the sequence's key, the place in the model and the
 * position in the sequence; the same in any batch, on any number of machines. */
struct grad_drop {
    float share;          /* 0: none */
    const uint32_t *keys; /* [n_seqs] */
    uint32_t place;
    size_t seq_len;
};
/* x [row] of tokens' rows [n_cols], columns from.. of it. */
void grad_drop_row(const struct grad_cpu *cpu, const struct grad_drop *d, size_t row,
                   size_t n_cols, size_t from, size_t n, float *x);
/* y = x with the zeros of `d` */
void grad_drop_rows(const struct grad_cpu *cpu, unsigned i, const struct grad_drop *d,
                    size_t n_rows, size_t n_cols, const float *x, float *y);

/* An operand: floats, and the same in bfloat16 where that is kept. */
struct grad_matrix {
    const float *f;
    const uint16_t *h; /* or NULL: made for the product */
    size_t step;
};

/* What becomes of a product c [m][n] while it is in the cache. */
struct grad_then {
    struct grad_matrix more_a, more_b; /* c += more_a more_b, in the product's form, */
    size_t more_k;                     /* more_k products a number; 0: none */
    float scale;                       /* c *= it; 0: as it is; not with bias */
    const float *bias;                 /* [n], added; or NULL */
    const float *residual;             /* [m][n], added after dropout; or NULL */
    const struct grad_drop *drop;      /* with residual; or NULL */
    float *gelu;                       /* [m][n] = GELU(c); or NULL */
    const float *gelu_back;            /* [m][n]: c *= GELU'(it); or NULL */
};

/* c = or += a b in the form of back/gemm.h; c's rows are n apart.  `then` may be NULL.
 * Begins with a barrier where it makes operands for everyone.  In bfloat16 only one of
 * b and more_a, and not more_b, may be floats alone. */
void grad_product(const struct grad_cpu *cpu, unsigned i, enum gemm_form form, size_t m,
                  size_t n, size_t k, struct grad_matrix a, struct grad_matrix b,
                  bool add, float *c, const struct grad_then *then);

/* sum [n] += the rows of x [n_rows][n] */
void grad_sum_rows(const struct grad_cpu *cpu, unsigned i, size_t n_rows, size_t n,
                   const float *x, float *sum);

/* Layer norm of rows; stat [n_rows][2].  _again: from stat. */
void grad_norm(const struct grad_cpu *cpu, unsigned i, size_t n_rows, size_t n,
               const float *x, const float *gain, const float *bias, float eps,
               float *y, float *stat);
void grad_norm_again(const struct grad_cpu *cpu, unsigned i, size_t n_rows, size_t n,
                     const float *x, const float *gain, const float *bias,
                     const float *stat, float *y);
/* dx += ..., dgain += ..., dbias += ...; the latter two may be NULL */
void grad_norm_back(const struct grad_cpu *cpu, unsigned i, size_t n_rows, size_t n,
                    const float *x, const float *gain, const float *stat,
                    const float *dy, float *dx, float *dgain, float *dbias);

void grad_gelu(const struct grad_cpu *cpu, unsigned i, size_t n_rows, size_t n,
               const float *x, float *y);

/* Causal attention.  qkv [N][3 * width], out [N][width], lse [N][n_heads]: the log of
 * each row's softmax denominator.  No matrix of scores is kept (Dao et al. 2022): a
 * block of queries at a time, and again in the backward pass. */
struct grad_attention {
    size_t n_seqs, seq_len, n_heads, width;
    struct grad_drop drop;
};
void grad_attend(const struct grad_cpu *cpu, unsigned i, const struct grad_attention *a,
                 const float *qkv, float *out, float *lse);
void grad_attend_back(const struct grad_cpu *cpu, unsigned i,
                      const struct grad_attention *a, const float *qkv,
                      const float *out, const float *lse, const float *dout,
                      float *dqkv);

/* x [n_seqs * seq_len][n] = token rows + position rows */
void grad_embed(const struct grad_cpu *cpu, unsigned i, size_t n_seqs, size_t seq_len,
                size_t n, const int32_t *tokens, const float *table,
                const float *positions, float *x);
/* y [n_rows][n] = scale times rows of a table */
void grad_look_up(const struct grad_cpu *cpu, unsigned i, size_t n_rows, size_t n,
                  const int32_t *ids, const float *table, float scale, float *y);
/* dtable += and dpositions +=; either may be NULL */
void grad_embed_back(const struct grad_cpu *cpu, unsigned i, size_t n_seqs,
                     size_t seq_len, size_t n, const int32_t *tokens, const float *dx,
                     float *dtable, float *dpositions);

/* Cross entropy: losses[r] of logits [n_rows][n] against targets [n_rows] (-1: none,
 * 0), and the logits become their gradient times `weight`. */
void grad_loss(const struct grad_cpu *cpu, unsigned i, size_t n_rows, size_t n,
               float *logits, const int32_t *targets, float weight, double *losses);

#endif
