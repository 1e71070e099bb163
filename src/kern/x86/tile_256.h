/* The operations of tile_body.h that are the same for every product of bytes in 256-bit
 * registers. */
#ifndef RUNT_KERN_TILE_256_H
#define RUNT_KERN_TILE_256_H

#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef __m256i veci;
typedef __m256 vecf;

enum { N_REG = 2 };

INLINE veci v_load(const void *p)
{
    return _mm256_loadu_si256(p);
}

INLINE void v_store(void *p, veci v)
{
    _mm256_storeu_si256(p, v);
}

INLINE veci v_and(veci a, veci b)
{
    return _mm256_and_si256(a, b);
}

INLINE veci v_xor(veci a, veci b)
{
    return _mm256_xor_si256(a, b);
}

INLINE veci v_srl4(veci v)
{
    return _mm256_srli_epi16(v, 4);
}

INLINE veci v_bytes(int b)
{
    return _mm256_set1_epi8((char)b);
}

INLINE veci v_dword(const void *p)
{
    int32_t d;
    memcpy(&d, p, sizeof d);
    return _mm256_set1_epi32(d);
}

INLINE vecf f_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

INLINE void f_store(float *p, vecf v)
{
    _mm256_storeu_ps(p, v);
}

INLINE vecf f_set(float f)
{
    return _mm256_set1_ps(f);
}

INLINE vecf f_mul(vecf a, vecf b)
{
    return _mm256_mul_ps(a, b);
}

INLINE vecf f_fma(vecf a, vecf b, vecf c)
{
    return _mm256_fmadd_ps(a, b, c);
}

INLINE vecf f_f16(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128(p));
}

#endif
