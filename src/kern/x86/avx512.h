/* What the AVX-512 files share: the 16 lanes of the specification as one register,
 * parts of rows, exp.  For files compiled with AVX-512 F, BW, DQ, VL and VNNI only, or
 * for tests with KERN_SIMDE, where the instructions are emulated. */
#ifndef RUNT_KERN_AVX512_H
#define RUNT_KERN_AVX512_H

#include "kern/kern_impl.h"

#ifdef KERN_SIMDE
#include "kern/x86/avx512_simde.h"
#else
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

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

/* The elements i to i + 15 that are below n; i itself is at most n. */
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

#endif
