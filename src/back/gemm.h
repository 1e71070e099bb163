/* Dense matrix products for training, from OpenBLAS and oneDNN, whichever is here:
 * looked for when a training run begins (dlopen), so that no other verb waits for them.
 *
 * Precision: GEMM_F32 takes floats, multiplied by OpenBLAS where it is.  GEMM_BF16
 * takes bfloat16 and sums in float32, which oneDNN does at twice to five times the
 * speed where the processor has it; elsewhere the same products are made of floats,
 * slowly, for tests.
 *
 * A product works on one thread.  Callers cut their work in tiles that do not depend on
 * the number of threads.  Matrices are row-major; a step is from row to row, in
 * numbers.
 */
#ifndef RUNT_GEMM_H
#define RUNT_GEMM_H

#include "runt/error.h"

#include <stdbool.h>
#include <stddef.h>

enum gemm_type { GEMM_F32, GEMM_BF16 };

/* c [m][n], with k products a number:
 * GEMM_NT a [m][k], b [n][k]; GEMM_NN a [m][k], b [k][n]; GEMM_TN a [k][m], b [k][n] */
enum gemm_form { GEMM_NT, GEMM_NN, GEMM_TN };

struct gemm;

/* Errors: RUNT_E_UNSUPPORTED when no library is installed (the line says which to
 * install), RUNT_E_INVALID when RUNT_GEMM in the environment is not onednn or
 * openblas. */
int gemm_open(struct gemm **out, struct runt_err *err);
void gemm_close(struct gemm *g); /* NULL is fine */
/* Of the library that makes products of a type: "oneDNN" */
const char *gemm_name(const struct gemm *g, enum gemm_type type);
bool gemm_has_bf16(const struct gemm *g); /* at speed */

/* What one thread needs: a product is called with the thread's own. */
struct gemm_thread;
int gemm_thread_open(const struct gemm *g, struct gemm_thread **out,
                     struct runt_err *err);
void gemm_thread_close(struct gemm_thread *t); /* NULL is fine */

/* c = a b, or c += a b with `add`; a and b are float * or uint16_t * (bfloat16). */
void gemm_run(struct gemm_thread *t, enum gemm_type type, enum gemm_form form, size_t m,
              size_t n, size_t k, const void *a, size_t a_step, const void *b,
              size_t b_step, bool add, float *c, size_t c_step);

#endif
