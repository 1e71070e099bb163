/* For tests only: the AVX-512 intrinsics that kern_avx512.c uses, emulated by SIMDe on
 * a processor with AVX2 and FMA (fused there, because SIMDe splits each operation into
 * two 256-bit instructions).  The few that SIMDe 0.7.4 lacks are put together here from
 * 256-bit halves.  The table filler gets another name, so that the emulated file can be
 * linked beside the real one. */
#ifndef RUNT_KERN_AVX512_SIMDE_H
#define RUNT_KERN_AVX512_SIMDE_H

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>

#define kern_fill_avx512 kern_fill_avx512_simde

static inline __m512i simde_join(__m256i lo, __m256i hi)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(lo), hi, 1);
}

static inline __m512 simde_join_ps(__m256 lo, __m256 hi)
{
    return _mm512_castsi512_ps(
        simde_join(_mm256_castps_si256(lo), _mm256_castps_si256(hi)));
}

static inline __m512 simde_cvtepi32_ps(__m512i v)
{
    return simde_join_ps(_mm256_cvtepi32_ps(_mm512_castsi512_si256(v)),
                         _mm256_cvtepi32_ps(_mm512_extracti64x4_epi64(v, 1)));
}

static inline __m512 simde_cvtph_ps(__m256i h)
{
    return simde_join_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(h)),
                         _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1)));
}

static inline __m512i simde_cvtepu16_epi32(__m256i h)
{
    return simde_join(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(h)),
                      _mm256_cvtepu16_epi32(_mm256_extracti128_si256(h, 1)));
}

static inline __m512 simde_mask3_fmadd_ps(__m512 a, __m512 b, __m512 c, uint16_t mask)
{
    return _mm512_mask_mov_ps(c, mask, _mm512_fmadd_ps(a, b, c));
}

static inline __m512 simde_maskz_loadu_ps(uint16_t mask, const float *p)
{
    float v[16];
    for (int i = 0; i < 16; i++)
        v[i] = mask >> i & 1 ? p[i] : 0;
    return _mm512_loadu_ps(v);
}

static inline void simde_mask_storeu_ps(float *p, uint16_t mask, __m512 x)
{
    float v[16];
    _mm512_storeu_ps(v, x);
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1)
            p[i] = v[i];
}

#define _mm512_cvtepi32_ps simde_cvtepi32_ps
#define _mm512_cvtph_ps simde_cvtph_ps
#define _mm512_cvtepu16_epi32 simde_cvtepu16_epi32
#define _mm512_mask3_fmadd_ps simde_mask3_fmadd_ps
#define _mm512_maskz_loadu_ps simde_maskz_loadu_ps
#define _mm512_mask_storeu_ps simde_mask_storeu_ps

#endif
