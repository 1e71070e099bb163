/* Rounding with feedback: GPTQ (Frantar et al. 2022), which is LDLQ (Chee et al. 2023).
 *
 * Columns are rounded one after another; what a column's rounding did to the outputs is
 * made good by the columns that are still floats, as well as the second moment H of the
 * inputs allows.  With inverse(H) = U^T U, U upper triangular, column j of a row has
 * the error e = (w_j - w'_j) / U_jj, and w_k -= e U_jk for k > j.  A group's scale is
 * chosen when its first column comes, from the weights as they are then, each weighted
 * with 1 / U_jj^2: what its error will cost when everything after it makes the best of
 * it. */
#ifndef RUNT_QUANT_GPTQ_H
#define RUNT_QUANT_GPTQ_H

#include "back/blas.h"
#include "quant/calib.h"
#include "quant/codec.h"

struct gptq {
    const struct blas *blas;
    const struct fmt_info *fmt; /* what codec.h serves, or floats */
    size_t n;                   /* columns */
    float *h;                   /* [n][n] H, both triangles */
    float *u;                   /* [n][n], upper triangle */
    float *weight;              /* [n] 1 / U_jj^2, relative to the largest */
};

/* For a matrix with these inputs.  damping, a share of the mean of H's diagonal, is
 * added to it.  The token table is looked up, too: what an error d of a row does there
 * reaches the logits as E d by the residual stream, so E^T E is added to its H, LOOKUPS
 * (3) times as large: of 0.1, 0.3, 1, 3, 8 the best on tiny-gpt2, R4, KL -12%.  Errors:
 * RUNT_E_NOMEM, RUNT_E_INVALID (not positive definite).  Free with gptq_free. */
int gptq_init(struct gptq *g, const struct blas *blas, const struct fmt_info *fmt,
              const struct calib *c, const struct calib_moment *m, double damping,
              struct runt_err *err);
void gptq_free(struct gptq *g);

/* Floats of room for gptq_round of n_rows. */
size_t gptq_room(const struct gptq *g, size_t n_rows);
/* Rows w [n_rows][n], a run that starts with a tile, into fmt_tensor_bytes at `bytes`.
 * The result for a run does not depend on other runs. */
void gptq_round(const struct gptq *g, size_t n_rows, const float *w, float *room,
                uint8_t *bytes);
/* Columns j0 to j0 + n - 1 of one row w [g->n], which share a grid where the type has
 * one (codec.h; a float type keeps the numbers): rounded, or made 0 where zero [n] (may
 * be NULL) says so, and stored into the tensor at `bytes`, zeroed before.  Their errors
 * go into e [n] and to the columns up to `end`; what is behind is the caller's: w -= e
 * U. */
void gptq_group(const struct gptq *g, size_t j0, size_t n, size_t end, size_t row,
                uint16_t row_scale, const uint8_t *zero, float *w, float *e,
                uint8_t *bytes);
/* tr(D H D^T) of rows d [n_rows][n]; room for as many floats. */
double gptq_cost(const struct gptq *g, size_t n_rows, const float *d, float *room);

#endif
