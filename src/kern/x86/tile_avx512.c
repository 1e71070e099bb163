/* Products of tiles with VNNI in 512-bit registers: tile_vnni256.c with all 16 rows in
 * one register. */
#include "kern/kern_impl.h"

#ifdef KERN_SIMDE
#include "kern/x86/avx512_simde.h"
#else
#include <immintrin.h>
#endif
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef __m512i veci;
typedef __m512 vecf;

enum { N_REG = 1, FEW = 5, MANY = 8, Q8_PLANES = 1 };

INLINE veci v_load(const void *p)
{
    return _mm512_loadu_si512(p);
}

INLINE void v_store(void *p, veci v)
{
    _mm512_storeu_si512(p, v);
}

INLINE veci v_and(veci a, veci b)
{
    return _mm512_and_si512(a, b);
}

INLINE veci v_xor(veci a, veci b)
{
    return _mm512_xor_si512(a, b);
}

INLINE veci v_srl4(veci v)
{
    return _mm512_srli_epi16(v, 4);
}

INLINE veci v_bytes(int b)
{
    return _mm512_set1_epi8((char)b);
}

INLINE veci v_dword(const void *p)
{
    int32_t d;
    memcpy(&d, p, sizeof d);
    return _mm512_set1_epi32(d);
}

INLINE vecf f_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

INLINE void f_store(float *p, vecf v)
{
    _mm512_storeu_ps(p, v);
}

INLINE vecf f_set(float f)
{
    return _mm512_set1_ps(f);
}

INLINE vecf f_mul(vecf a, vecf b)
{
    return _mm512_mul_ps(a, b);
}

INLINE vecf f_fma(vecf a, vecf b, vecf c)
{
    return _mm512_fmadd_ps(a, b, c);
}

INLINE vecf f_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}

/* ---- sums ---- */

INLINE veci v_dot(veci sum, veci codes, veci x)
{
    return _mm512_dpbusd_epi32(sum, codes, x);
}

INLINE veci v_start(const int16_t *pair)
{
    return _mm512_set1_epi32(pair[0] + pair[1]);
}

INLINE veci v_start16(const int16_t *pair)
{
    return _mm512_set1_epi32(16 * (pair[0] + pair[1]));
}

INLINE vecf sum_float(veci sum)
{
    return _mm512_cvtepi32_ps(sum);
}

INLINE vecf sum_float2(veci high, veci low)
{
    return sum_float(_mm512_add_epi32(_mm512_slli_epi32(high, 4), low));
}

INLINE vecf r4_scale(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)));
}

/* The product of two floats is exact here, below 2^24. */
INLINE vecf r4_float(veci sum, vecf scale)
{
    return _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale);
}

#include "kern/x86/tile_body.h"

void kern_fill_avx512_tile(struct kern_table *t)
{
    fill_tiles(t);
}
