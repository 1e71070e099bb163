#ifndef RUNT_TESTS_GPTQ_FIXTURE_H
#define RUNT_TESTS_GPTQ_FIXTURE_H

#include "back/blas.h"
#include "quant/calib.h"

/* OpenBLAS; where it is not installed the test is skipped. */
const struct blas *fixture_blas(void);
/* mem_array that does not fail. */
void *fixture_room(size_t n, size_t size);
/* The moment of n_tokens vectors that vary along few directions, and a little along
 * all. */
struct calib_moment fixture_moment(size_t n, size_t n_tokens, uint64_t seed);

#endif
