/* Zeroing weights: a share of a matrix, or N of every M in a row.
 *
 * By magnitude, the smallest go.  With feedback (SparseGPT: Frantar and Alistarh 2023)
 * those go whose loss costs the outputs least when the weights behind them make the
 * best of it, w_j^2 / U_jj^2 in the terms of gptq.h, and they do; rounding may happen
 * on the same walk. */
#ifndef RUNT_QUANT_PRUNE_H
#define RUNT_QUANT_PRUNE_H

#include "base/pool.h"
#include "quant/gptq.h"

enum { PRUNE_MAX_PATTERN = 64 };

struct prune {
    double sparsity;     /* share of zeros, above 0 and below 1 */
    unsigned keep, of;   /* at most `keep` of every `of` in a row are not 0; of 0: a
                          * share of the whole matrix */
    bool feedback;       /* by magnitude without */
    const char *pattern; /* regular expression: the matrices */
};

/* Zero w [n_rows][n] in place.  By magnitude when g is NULL: the llround(sparsity *
 * n_rows * n) smallest, the first ones among equals.  With feedback: as many of every
 * PRUNE_COLUMNS columns or so; w becomes what is left, and where g->fmt has a codec
 * also its bytes (fmt_tensor_bytes at `bytes`).  n is a multiple of p->of.  The result
 * does not depend on the threads.  Errors: RUNT_E_NOMEM. */
int prune_matrix(const struct prune *p, const struct gptq *g, struct pool *pool,
                 size_t n_rows, size_t n, float *w, uint8_t *bytes,
                 struct runt_err *err);

#endif
