/* The kernels in AVX-512 (F, BW, DQ, VL) and VNNI: the dot products, GELU, softmax and
 * axpy; the other rows are as fast as memory in AVX2 and stay there.  The 16 lanes of
 * the specification are one register, and so are two blocks of a row.
 *
 * Products of bytes: VNNI multiplies unsigned by signed bytes and sums 4 neighbours
 * without saturation, which is the specification's group.  Signs move from the weight
 * to the vector: |w| * (x, negated where w is negative).
 *
 * Tests build this file a second time, with KERN_SIMDE, for other processors. */
#include "kern/kern_impl.h"

#ifdef KERN_SIMDE
#include "kern/x86/avx512_simde.h"
#else
#include <immintrin.h>
#endif
#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { MANY = 8, FEW = 4 }; /* vectors at a time */

INLINE __m256 upper(__m512 v)
{
    return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1));
}

INLINE float lanes_sum(__m512 v)
{
    __m256 a8 = _mm256_add_ps(_mm512_castps512_ps256(v), upper(v));
    __m128 a4 = _mm_add_ps(_mm256_castps256_ps128(a8), _mm256_extractf128_ps(a8, 1));
    __m128 a2 = _mm_add_ps(a4, _mm_movehl_ps(a4, a4));
    return _mm_cvtss_f32(_mm_add_ss(a2, _mm_movehdup_ps(a2)));
}

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

/* ---- rows of blocks ---- */

/* Two blocks: an even one in the lower half of each register, the next one above. */
struct pair {
    __m512i abs_q;
    __mmask64 negative;
    __m512 scale, min;
};

INLINE size_t block_bytes(enum fmt_type type)
{
    return type == FMT_Q8_0   ? KERN_Q8_0_BYTES
           : type == FMT_Q4_0 ? KERN_Q4_0_BYTES
                              : KERN_Q4_1_BYTES;
}

INLINE __m512 scales(const uint8_t *even, const uint8_t *odd)
{
    uint16_t a, b;
    memcpy(&a, even, sizeof a);
    memcpy(&b, odd, sizeof b);
    return _mm512_cvtph_ps(
        _mm256_set_m128i(_mm_set1_epi16((short)b), _mm_set1_epi16((short)a)));
}

INLINE __m512i join(const void *even, const void *odd)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256(even)),
                              _mm256_loadu_si256(odd), 1);
}

/* 16 bytes of either block, twice; the second copy moved down by a nibble. */
INLINE __m512i nibbles(const uint8_t *even, const uint8_t *odd)
{
    __m256i v = _mm256_set_m128i(_mm_loadu_si128((const void *)odd),
                                 _mm_loadu_si128((const void *)even));
    __m512i twice = _mm512_permutexvar_epi64(_mm512_set_epi64(3, 2, 3, 2, 1, 0, 1, 0),
                                             _mm512_castsi256_si512(v));
    twice = _mm512_srlv_epi64(twice, _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0));
    return _mm512_and_si512(twice, _mm512_set1_epi8(15));
}

INLINE struct pair unpack(enum fmt_type type, const uint8_t *even, const uint8_t *odd)
{
    struct pair p = {.scale = scales(even, odd)};
    if (type == FMT_Q4_1) {
        p.min = scales(even + 2, odd + 2);
        p.abs_q = nibbles(even + 4, odd + 4);
        return p;
    }
    __m512i q = type == FMT_Q4_0
                    ? _mm512_sub_epi8(nibbles(even + 2, odd + 2), _mm512_set1_epi8(8))
                    : join(even + 2, odd + 2);
    p.abs_q = _mm512_abs_epi8(q);
    p.negative = _mm512_movepi8_mask(q);
    return p;
}

INLINE __m512 group_sums(__m512i u, __m512i s)
{
    return _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_setzero_si512(), u, s));
}

/* A pair of blocks against the same pair of n_v vectors; only the lanes of `mask`
 * change. x_odd is how far the vector's odd block is from its even one. */
INLINE void pair_step(enum fmt_type type, int n_v, const uint8_t *even,
                      const uint8_t *odd, const char *x, size_t x_odd, size_t x_stride,
                      __mmask16 mask, __m512 *acc)
{
    struct pair p = unpack(type, even, odd);
    for (int k = 0; k < n_v; k++) {
        const struct kern_act *a = (const void *)(x + k * x_stride);
        const struct kern_act *b = (const void *)(x + k * x_stride + x_odd);
        __m512i q = join(a->q, b->q), s = q;
        __m512 d =
            _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_broadcast_ss(&a->d)),
                               _mm256_broadcast_ss(&b->d), 1);
        if (type != FMT_Q4_1)
            s = _mm512_mask_sub_epi8(q, p.negative, _mm512_setzero_si512(), q);
        acc[k] = _mm512_mask3_fmadd_ps(_mm512_mul_ps(p.scale, d),
                                       group_sums(p.abs_q, s), acc[k], mask);
        if (type == FMT_Q4_1)
            acc[k] =
                _mm512_mask3_fmadd_ps(_mm512_mul_ps(p.min, d),
                                      group_sums(_mm512_set1_epi8(1), q), acc[k], mask);
    }
}

INLINE void block_vectors(enum fmt_type type, int n_v, size_t n_blocks,
                          const uint8_t *w, const char *x, size_t x_stride, float *out,
                          size_t out_stride)
{
    __m512 acc[MANY];
    size_t bytes = block_bytes(type), b = 0;
    for (int k = 0; k < n_v; k++)
        acc[k] = _mm512_setzero_ps();
    for (; b + 2 <= n_blocks; b += 2, w += 2 * bytes, x += 2 * sizeof(struct kern_act))
        pair_step(type, n_v, w, w + bytes, x, sizeof(struct kern_act), x_stride, 0xffff,
                  acc);
    if (b < n_blocks) /* the last block, twice; its second copy is masked out */
        pair_step(type, n_v, w, w, x, 0, x_stride, 0x00ff, acc);
    for (int k = 0; k < n_v; k++)
        out[k * out_stride] = lanes_sum(acc[k]);
}

INLINE void block_row(enum fmt_type type, size_t n, const void *w, const char *x,
                      size_t x_stride, size_t n_x, float *out, size_t out_stride)
{
    size_t n_blocks = n / KERN_BLOCK, k = 0;
    for (; k + MANY <= n_x; k += MANY)
        block_vectors(type, MANY, n_blocks, w, x + k * x_stride, x_stride,
                      out + k * out_stride, out_stride);
    for (; k + FEW <= n_x; k += FEW)
        block_vectors(type, FEW, n_blocks, w, x + k * x_stride, x_stride,
                      out + k * out_stride, out_stride);
    for (; k < n_x; k++)
        block_vectors(type, 1, n_blocks, w, x + k * x_stride, 0, out + k * out_stride,
                      0);
}

static void dot_q8_0(size_t n, const void *w, const void *x, size_t x_stride,
                     size_t n_x, float *out, size_t out_stride)
{
    block_row(FMT_Q8_0, n, w, x, x_stride, n_x, out, out_stride);
}

static void dot_q4_0(size_t n, const void *w, const void *x, size_t x_stride,
                     size_t n_x, float *out, size_t out_stride)
{
    block_row(FMT_Q4_0, n, w, x, x_stride, n_x, out, out_stride);
}

static void dot_q4_1(size_t n, const void *w, const void *x, size_t x_stride,
                     size_t n_x, float *out, size_t out_stride)
{
    block_row(FMT_Q4_1, n, w, x, x_stride, n_x, out, out_stride);
}

/* ---- rows that are changed in place ---- */

/* The elements i to i + 15 that are below n. */
INLINE __mmask16 below(size_t i, size_t n)
{
    unsigned mask = n - i < KERN_LANES ? (1u << (n - i)) - 1 : 0xffff;
    return (__mmask16)mask;
}

/* kern_ref_expf, step for step. */
INLINE __m512 exp16(__m512 x)
{
    const __m512 one = _mm512_set1_ps(1), round = _mm512_set1_ps(KERN_ROUND);
    x = _mm512_max_ps(_mm512_set1_ps(KERN_EXP_LO), x);
    x = _mm512_min_ps(_mm512_set1_ps(KERN_EXP_HI), x);
    __m512 t = _mm512_fmadd_ps(x, _mm512_set1_ps(KERN_LOG2E), round);
    __m512 n = _mm512_sub_ps(t, round);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-KERN_LN2_HI), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(-KERN_LN2_LO), r);
    __m512 p = _mm512_set1_ps(KERN_EXP_C6);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(KERN_EXP_C5));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(KERN_EXP_C4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(KERN_EXP_C3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(KERN_EXP_C2));
    p = _mm512_fmadd_ps(p, r, one);
    p = _mm512_fmadd_ps(p, r, one);
    __m512i u = _mm512_sub_epi32(_mm512_castps_si512(t),
                                 _mm512_set1_epi32(KERN_ROUND_BITS - 256));
    __m512i half = _mm512_srli_epi32(u, 1), e1 = _mm512_set1_epi32(1);
    __m512i f1 = _mm512_slli_epi32(_mm512_sub_epi32(half, e1), 23);
    __m512i f2 = _mm512_slli_epi32(_mm512_sub_epi32(_mm512_sub_epi32(u, half), e1), 23);
    p = _mm512_mul_ps(p, _mm512_castsi512_ps(f1));
    return _mm512_mul_ps(p, _mm512_castsi512_ps(f2));
}

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

static void softmax(size_t n, float *x, float scale)
{
    const __m512 s = _mm512_set1_ps(scale);
    __m512 max = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for (size_t i = 0; i < n; i += KERN_LANES) {
        __mmask16 m = below(i, n);
        __m512 y = _mm512_mul_ps(s, _mm512_maskz_loadu_ps(m, x + i));
        max = _mm512_mask_max_ps(max, m, max, y);
    }
    __m256 m8 = _mm256_max_ps(_mm512_castps512_ps256(max), upper(max));
    __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
    m4 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    m4 = _mm_max_ss(m4, _mm_movehdup_ps(m4));
    max = _mm512_set1_ps(_mm_cvtss_f32(m4));

    for (size_t i = 0; i < n; i += KERN_LANES) {
        __mmask16 m = below(i, n);
        __m512 y = _mm512_mul_ps(s, _mm512_maskz_loadu_ps(m, x + i));
        __m512 e = _mm512_maskz_mov_ps(m, exp16(_mm512_sub_ps(y, max)));
        _mm512_mask_storeu_ps(x + i, m, e);
        sum = _mm512_add_ps(sum, e);
    }
    const __m512 inv = _mm512_set1_ps(1 / lanes_sum(sum));
    for (size_t i = 0; i < n; i += KERN_LANES) {
        __mmask16 m = below(i, n);
        _mm512_mask_storeu_ps(x + i, m,
                              _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), inv));
    }
}

static void axpy(size_t n, float *y, float a, const float *x)
{
    const __m512 v = _mm512_set1_ps(a);
    for (size_t i = 0; i < n; i += KERN_LANES) {
        __mmask16 m = below(i, n);
        __m512 old = _mm512_maskz_loadu_ps(m, y + i);
        _mm512_mask_storeu_ps(y + i, m,
                              _mm512_fmadd_ps(v, _mm512_maskz_loadu_ps(m, x + i), old));
    }
}

/* On top of the AVX2 table (in tests: of the specification). */
void kern_fill_avx512(struct kern_table *t)
{
    t->level = CPU_AVX512;
    t->dot_f32 = dot_f32;
    t->dot_f16 = dot_f16;
    t->dot_bf16 = dot_bf16;
    t->dot_q8_0 = dot_q8_0;
    t->dot_q4_0 = dot_q4_0;
    t->dot_q4_1 = dot_q4_1;
    t->gelu = gelu;
    t->softmax = softmax;
    t->axpy = axpy;
}
