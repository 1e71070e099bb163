/* What gemm.c and gemm_onednn.c share. */
#ifndef RUNT_GEMM_IMPL_H
#define RUNT_GEMM_IMPL_H

#include "back/gemm.h"

/* oneDNN's C interface.  onednn_open answers NULL where the library is not. */
struct onednn;
const struct onednn *onednn_get(void);
bool onednn_has_bf16(const struct onednn *d);
void onednn_f32(const struct onednn *d, enum gemm_form form, size_t m, size_t n,
                size_t k, const float *a, size_t a_step, const float *b, size_t b_step,
                bool add, float *c, size_t c_step);
/* A thread's bfloat16 products: kept by shape. */
struct onednn_thread;
struct onednn_thread *onednn_thread_open(const struct onednn *d); /* NULL: no memory */
void onednn_thread_close(struct onednn_thread *t);                /* NULL is fine */
/* False when the library refuses: the caller does it another way. */
bool onednn_bf16(struct onednn_thread *t, enum gemm_form form, size_t m, size_t n,
                 size_t k, const void *a, size_t a_step, const void *b, size_t b_step,
                 bool add, float *c, size_t c_step);

#endif
