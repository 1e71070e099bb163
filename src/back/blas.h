/* Dense linear algebra from OpenBLAS, which is looked for when it is first needed, so
 * that a program that never calibrates starts without it.
 *
 * Every function works on one thread: callers cut their work in slices that do not
 * depend on the number of threads, so results do not either.  Matrices are row-major.
 */
#ifndef RUNT_BACK_BLAS_H
#define RUNT_BACK_BLAS_H

#include "runt/error.h"

#include <stddef.h>

struct blas;

/* RUNT_E_UNSUPPORTED when the library is not installed: the line says what to install.
 * The library stays loaded; *out is never freed. */
int blas_get(const struct blas **out, struct runt_err *err);

/* c [m][n] = c * beta + alpha * a^T b, a [k][m] with rows a_step apart, b [k][n], c's
 * rows c_step apart. */
void blas_gemm_tn(const struct blas *b, size_t m, size_t n, size_t k, float alpha,
                  const float *a, size_t a_step, const float *x, size_t x_step,
                  float beta, float *c, size_t c_step);
/* c [m][n] = c * beta + alpha * a b, a [m][k], b [k][n]. */
void blas_gemm_nn(const struct blas *b, size_t m, size_t n, size_t k, float alpha,
                  const float *a, size_t a_step, const float *x, size_t x_step,
                  float beta, float *c, size_t c_step);

/* c [m][n] = c * beta + a b^T, a [m][k], b [n][k]. */
void blas_gemm_nt(const struct blas *b, size_t m, size_t n, size_t k, const float *a,
                  size_t a_step, const float *x, size_t x_step, float beta, float *c,
                  size_t c_step);

/* h [n][n], symmetric and positive definite, its lower triangle read, becomes U, upper
 * triangular, with inverse(h) = U^T U; what lies below the diagonal is left over.
 * RUNT_E_INVALID when it is not positive definite. */
int blas_inverse_factor(const struct blas *b, size_t n, double *h,
                        struct runt_err *err);

#endif
