/* The kernels in AVX-512 (F, BW, DQ, VL): the dot products of rows of floats and GELU;
 * the other rows are as fast as memory in AVX2 and stay there.  The 16 lanes of the
 * specification are one register.
 *
 * Tests build this file a second time, with KERN_SIMDE, for other processors. */
#include "kern/x86/avx512.h"

#include <math.h>
#include <string.h>

enum { MANY = 8, FEW = 4 }; /* vectors at a time */

/* ---- rows of floats ---- */

INLINE size_t float_bytes(enum fmt_type type)
{
    return type == FMT_F32 ? 4 : 2;
}

INLINE __m512 load16(enum fmt_type type, const uint8_t *w)
{
    if (type == FMT_F32)
        return _mm512_loadu_ps(w);
    __m256i h = _mm256_loadu_si256((const void *)w);
    if (type == FMT_F16)
        return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

INLINE void float_vectors(enum fmt_type type, int n_v, size_t n, const uint8_t *w,
                          const char *x, size_t x_stride, float *out, size_t out_stride)
{
    __m512 acc[MANY];
    size_t size = float_bytes(type), i = 0;
    for (int k = 0; k < n_v; k++)
        acc[k] = _mm512_setzero_ps();
    for (; i + KERN_LANES <= n; i += KERN_LANES, w += KERN_LANES * size) {
        __m512 v = load16(type, w);
        for (int k = 0; k < n_v; k++) {
            const char *x_k = x + k * x_stride + i * sizeof(float);
            acc[k] = _mm512_fmadd_ps(v, _mm512_loadu_ps(x_k), acc[k]);
        }
    }
    if (i < n) {
        uint8_t w_tail[KERN_LANES * sizeof(float)] = {0};
        memcpy(w_tail, w, (n - i) * size);
        __m512 v = load16(type, w_tail);
        for (int k = 0; k < n_v; k++) {
            float x_tail[KERN_LANES] = {0};
            memcpy(x_tail, x + k * x_stride + i * sizeof(float),
                   (n - i) * sizeof(float));
            acc[k] = _mm512_fmadd_ps(v, _mm512_loadu_ps(x_tail), acc[k]);
        }
    }
    for (int k = 0; k < n_v; k++)
        out[k * out_stride] = lanes_sum(acc[k]);
}

INLINE void float_row(enum fmt_type type, size_t n, const void *w, const char *x,
                      size_t x_stride, size_t n_x, float *out, size_t out_stride)
{
    size_t k = 0;
    for (; k + MANY <= n_x; k += MANY)
        float_vectors(type, MANY, n, w, x + k * x_stride, x_stride,
                      out + k * out_stride, out_stride);
    for (; k < n_x; k++)
        float_vectors(type, 1, n, w, x + k * x_stride, 0, out + k * out_stride, 0);
}

static void dot_f32(size_t n, const void *w, const void *x, size_t x_stride, size_t n_x,
                    float *out, size_t out_stride)
{
    float_row(FMT_F32, n, w, x, x_stride, n_x, out, out_stride);
}

static void dot_f16(size_t n, const void *w, const void *x, size_t x_stride, size_t n_x,
                    float *out, size_t out_stride)
{
    float_row(FMT_F16, n, w, x, x_stride, n_x, out, out_stride);
}

static void dot_bf16(size_t n, const void *w, const void *x, size_t x_stride,
                     size_t n_x, float *out, size_t out_stride)
{
    float_row(FMT_BF16, n, w, x, x_stride, n_x, out, out_stride);
}

/* ---- rows that are changed in place ---- */

static void gelu(size_t n, float *x, const float *bias)
{
    const __m512 c1 = _mm512_set1_ps(KERN_GELU_C1), c3 = _mm512_set1_ps(KERN_GELU_C3);
    for (size_t i = 0; i < n; i += KERN_LANES) {
        __mmask16 m = below(i, n);
        __m512 y = _mm512_maskz_loadu_ps(m, x + i);
        if (bias)
            y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(m, bias + i));
        __m512 z = _mm512_mul_ps(y, _mm512_fmadd_ps(_mm512_mul_ps(y, y), c3, c1));
        y = _mm512_div_ps(y, _mm512_add_ps(_mm512_set1_ps(1), exp16(z)));
        _mm512_mask_storeu_ps(x + i, m, y);
    }
}

/* On top of the AVX2 table (in tests: of the specification). */
void kern_fill_avx512(struct kern_table *t)
{
    t->level = CPU_AVX512;
    t->dot_f32 = dot_f32;
    t->dot_f16 = dot_f16;
    t->dot_bf16 = dot_bf16;
    t->gelu = gelu;
    kern_fill_avx512_tile(t);
    kern_fill_avx512_attn(t);
    kern_fill_avx512_tile(t);
    /* kern_fill_avx512_attn(t); */
}
