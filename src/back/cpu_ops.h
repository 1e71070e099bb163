/* The CPU's tensor operations: the row kernels spread over the threads of a pool.
 *
 * Work is split by output row (a product) or by token and head (the rest), so results
 * do not depend on the number of threads, nor on how many tokens share a pass. */
#ifndef RUNT_BACK_CPU_OPS_H
#define RUNT_BACK_CPU_OPS_H

#include "base/pool.h"
#include "fmt/fmt.h"
#include "kern/kern.h"

struct cpu {
    struct pool *pool; /* NULL: the calling thread alone */
    const struct kern_table *kern;
};

/* A matrix as the model file holds it: n_rows rows of n_cols numbers. */
struct cpu_matrix {
    const struct fmt_info *fmt;
    const uint8_t *data; /* [n_rows][row_bytes] */
    size_t n_rows, n_cols, row_bytes;
    kern_dot_fn *dot; /* NULL: rows are decoded, slowly */
    bool int8;        /* dot wants struct kern_act */
};

/* RUNT_E_FORMAT when a row is not whole blocks. */
int cpu_matrix_init(const struct cpu *c, const struct fmt_info *fmt,
                    const uint8_t *data, size_t n_rows, size_t n_cols,
                    struct cpu_matrix *out, struct runt_err *err);

/* out[t][r] = matrix row r . x[t] (+ bias[r] unless NULL).  x is [n_tokens][n_cols];
 * act is scratch of n_tokens * n_cols / 32 blocks, used when the matrix wants 8-bit
 * activations. */
void cpu_matmul(const struct cpu *c, const struct cpu_matrix *w, const float *x,
                size_t n_tokens, struct kern_act *act, const float *bias, float *out);

/* x[t] += add[t] (unless NULL), then out[t] = layer norm of x[t]; both [n_tokens][n].
 */
void cpu_add_norm(const struct cpu *c, size_t n_tokens, size_t n, float *x,
                  const float *add, const float *gain, const float *bias, float eps,
                  float *out);

/* x = GELU(x + bias), x [n_tokens][n]. */
void cpu_gelu(const struct cpu *c, size_t n_tokens, size_t n, float *x,
              const float *bias);

/* Causal self-attention.  Token t sits at position pos + t and sees positions 0..pos +
 * t of the cache, its own included.  qkv [n_tokens][3 * n_embd] gives the queries; the
 * keys and values [n_ctx][n_embd] are already in the cache.  scores is scratch of n_ctx
 * floats a thread.  out [n_tokens][n_embd]. */
struct cpu_attention {
    size_t n_tokens, pos, n_embd, n_head, n_ctx;
    const float *qkv, *keys, *values;
    float *scores; /* [n_threads][n_ctx] */
    float *out;
};
void cpu_attention(const struct cpu *c, const struct cpu_attention *a);

#endif
