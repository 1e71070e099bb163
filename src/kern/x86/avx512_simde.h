/* For tests only: the AVX-512 and VNNI intrinsics that the files here use, emulated by
 * SIMDe on a processor with AVX2 and FMA (fused there, because SIMDe splits each
 * operation into two 256-bit instructions).  The few that SIMDe 0.7.4 lacks are put
 * together here from 256-bit halves.  The table fillers get other names, so that the
 * emulated files can be linked beside the real ones. */
#ifndef RUNT_KERN_AVX512_SIMDE_H
#define RUNT_KERN_AVX512_SIMDE_H

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <string.h>

#define kern_fill_avxvnni kern_fill_avxvnni_simde
#define kern_fill_avx512vl kern_fill_avx512vl_simde
#define kern_fill_avx512 kern_fill_avx512_simde
#define kern_fill_avx512_tile kern_fill_avx512_tile_simde
#define kern_fill_avx512_attn kern_fill_avx512_attn_simde

static inline __m512i simde_join(__m256i lo, __m256i hi)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(lo), hi, 1);
}

static inline __m512 simde_join_ps(__m256 lo, __m256 hi)
{
    return _mm512_castsi512_ps(
        simde_join(_mm256_castps_si256(lo), _mm256_castps_si256(hi)));
}

/* SIMDe's own dpbusd is scalar code, which at some thousand places takes minutes to
 * compile.  Products of 16-bit numbers are exact: 255 * -128 * 2 needs 17 bits of 32.
 */
static __attribute__((noinline, unused)) __m256i simde_dot8(__m256i sum, __m256i a,
                                                            __m256i b)
{
    __m256i lo = _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm256_castsi256_si128(a)),
                                   _mm256_cvtepi8_epi16(_mm256_castsi256_si128(b)));
    __m256i hi =
        _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm256_extracti128_si256(a, 1)),
                          _mm256_cvtepi8_epi16(_mm256_extracti128_si256(b, 1)));
    __m256i s = _mm256_permute4x64_epi64(_mm256_hadd_epi32(lo, hi), 0xd8);
    return _mm256_add_epi32(sum, s);
}

static __attribute__((noinline, unused)) __m512i simde_dot16(__m512i sum, __m512i a,
                                                             __m512i b)
{
    return simde_join(simde_dot8(_mm512_castsi512_si256(sum), _mm512_castsi512_si256(a),
                                 _mm512_castsi512_si256(b)),
                      simde_dot8(_mm512_extracti64x4_epi64(sum, 1),
                                 _mm512_extracti64x4_epi64(a, 1),
                                 _mm512_extracti64x4_epi64(b, 1)));
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

static inline __m512i simde_cvtepi8_epi32(__m128i b)
{
    return simde_join(_mm256_cvtepi8_epi32(b),
                      _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(b, b)));
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

static inline __m256i simde_maskz_loadu_epi16(uint16_t mask, const void *p)
{
    uint16_t v[16] = {0};
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1)
            memcpy(&v[i], (const char *)p + 2 * i, 2);
    return _mm256_loadu_si256((const void *)v);
}

static inline __m128i simde_maskz_loadu_epi8(uint16_t mask, const void *p)
{
    uint8_t v[16] = {0};
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1)
            memcpy(&v[i], (const char *)p + i, 1);
    return _mm_loadu_si128((const void *)v);
}

#undef _mm512_cvtepi8_epi32
#undef _mm256_dpbusd_epi32
#undef _mm512_dpbusd_epi32
#define _mm256_dpbusd_epi32 simde_dot8
#define _mm256_dpbusd_avx_epi32 simde_dot8
#define _mm512_dpbusd_epi32 simde_dot16
#define _mm512_cvtepi8_epi32 simde_cvtepi8_epi32
#define _mm512_cvtepi32_ps simde_cvtepi32_ps
#define _mm512_cvtph_ps simde_cvtph_ps
#define _mm512_cvtepu16_epi32 simde_cvtepu16_epi32
#define _mm512_mask3_fmadd_ps simde_mask3_fmadd_ps
#define _mm512_maskz_loadu_ps simde_maskz_loadu_ps
#define _mm512_mask_storeu_ps simde_mask_storeu_ps
#define _mm256_maskz_loadu_epi16 simde_maskz_loadu_epi16
#define _mm_maskz_loadu_epi8 simde_maskz_loadu_epi8

#endif
