/* What the tests of the CUDA backend share: an emulated GPU (emu/emu.h), arrays on it,
 * and comparing what comes back. */
#ifndef TESTS_CUDA_FIXTURE_H
#define TESTS_CUDA_FIXTURE_H

#include "back/cuda.h"
#include "back/grad_ops.h"
#include "emu.h"

/* A device, and this processor's operations with the same type of products. */
struct gpu {
    enum gemm_type type;
    struct cuda *d;
    struct pool *pool;
    struct grad_cpu cpu;
    void *arrays[256];
    size_t n_arrays;
};
/* Skips where no library makes products. */
void gpu_open(struct gpu *g, enum gemm_type type);
/* Fails the test if anything was noticed or is still allocated. */
void gpu_close(struct gpu *g);

/* Random numbers about `mean`, the same in every run; as acts they are rounded first,
 * so that both sides have the same. */
float *numbers(struct gpu *g, size_t n, float mean, float deviation, bool acts);
/* Arrays of the device, gone with it: floats, acts, bytes, or not written yet. */
float *on_gpu(struct gpu *g, const float *x, size_t n);
void *acts_on_gpu(struct gpu *g, const float *x, size_t n);
void *bytes_on_gpu(struct gpu *g, const void *x, size_t n);
void *empty_on_gpu(struct gpu *g, size_t bytes);
/* What is there now, as floats; mem_free'd. */
float *from_gpu(struct gpu *g, const float *x, size_t n);
float *acts_from_gpu(struct gpu *g, const void *x, size_t n);

/* Every number within `tolerance` of the largest wanted one, and acts also within half
 * a unit of their last place.  Frees `got`. */
void same(const struct gpu *g, const char *what, float *got, const float *want,
          size_t n, double tolerance, bool acts);

/* Every case in both types and in every order of blocks and threads; what `fn` returns,
 * a checksum of all results, must not depend on the order. */
void in_every_order(uint64_t (*fn)(struct gpu *g, size_t index), size_t n);
uint64_t checksum(uint64_t h, const void *x, size_t bytes);

#endif
