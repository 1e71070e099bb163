/* What the AVX2 files share: the 16 lanes of the specification as two registers, parts
 * of rows, exp.  For files compiled with AVX2, FMA and F16C only. */
#ifndef RUNT_KERN_AVX2_H
#define RUNT_KERN_AVX2_H

#include "kern/kern_impl.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

struct lanes {
    __m256 lo, hi; /* lanes 0 to 7, 8 to 15 */
};

INLINE float lanes_sum(struct lanes v)
{
    __m256 a8 = _mm256_add_ps(v.lo, v.hi);
    __m128 a4 = _mm_add_ps(_mm256_castps256_ps128(a8), _mm256_extractf128_ps(a8, 1));
    __m128 a2 = _mm_add_ps(a4, _mm_movehl_ps(a4, a4));
    return _mm_cvtss_f32(_mm_add_ss(a2, _mm_movehdup_ps(a2)));
}

/* The first n of 8 elements, n from 0 to 8. */
INLINE __m256i first(size_t n)
{
    static const int32_t table[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const void *)(table + 8 - n));
}

/* The elements i to i + 7 that are below n; +0 for the others. */
INLINE __m256 load_part(const float *x, size_t i, size_t n)
{
    if (i + 8 <= n)
        return _mm256_loadu_ps(x + i);
    return i < n ? _mm256_maskload_ps(x + i, first(n - i)) : _mm256_setzero_ps();
}

INLINE void store_part(float *x, size_t i, size_t n, __m256 v)
{
    if (i + 8 <= n)
        _mm256_storeu_ps(x + i, v);
    else if (i < n)
        _mm256_maskstore_ps(x + i, first(n - i), v);
}

/* v where the element i + its index is below n, +0 for the others. */
INLINE __m256 keep_part(__m256 v, size_t i, size_t n)
{
    if (i + 8 <= n)
        return v;
    return i < n ? _mm256_and_ps(v, _mm256_castsi256_ps(first(n - i)))
                 : _mm256_setzero_ps();
}

/* kern_ref_expf, step for step. */
INLINE __m256 exp8(__m256 x)
{
    const __m256 one = _mm256_set1_ps(1), round = _mm256_set1_ps(KERN_ROUND);
    x = _mm256_max_ps(_mm256_set1_ps(KERN_EXP_LO), x);
    x = _mm256_min_ps(_mm256_set1_ps(KERN_EXP_HI), x);
    __m256 t = _mm256_fmadd_ps(x, _mm256_set1_ps(KERN_LOG2E), round);
    __m256 n = _mm256_sub_ps(t, round);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-KERN_LN2_HI), x);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(-KERN_LN2_LO), r);
    __m256 p = _mm256_set1_ps(KERN_EXP_C6);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(KERN_EXP_C5));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(KERN_EXP_C4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(KERN_EXP_C3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(KERN_EXP_C2));
    p = _mm256_fmadd_ps(p, r, one);
    p = _mm256_fmadd_ps(p, r, one);
    __m256i u = _mm256_sub_epi32(_mm256_castps_si256(t),
                                 _mm256_set1_epi32(KERN_ROUND_BITS - 256));
    __m256i half = _mm256_srli_epi32(u, 1), e1 = _mm256_set1_epi32(1);
    __m256i f1 = _mm256_slli_epi32(_mm256_sub_epi32(half, e1), 23);
    __m256i f2 = _mm256_slli_epi32(_mm256_sub_epi32(_mm256_sub_epi32(u, half), e1), 23);
    p = _mm256_mul_ps(p, _mm256_castsi256_ps(f1));
    return _mm256_mul_ps(p, _mm256_castsi256_ps(f2));
}

#endif
