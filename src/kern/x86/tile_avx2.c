/* Products of tiles in AVX2: the operations of tile_body.h.
 *
 * AVX2 multiplies unsigned by signed bytes and adds pairs to 16 bits.  Codes of 4 bits
 * keep a row's two 16-bit parts of a sum exact over a whole group of 64: the -8 of the
 * codes is in the value that a sum starts from, so that on the way each column counts
 * as -8 q or (code - 8) q, and nothing leaves +-32512.  So 32 products cost two
 * instructions, and one multiplication by the pair (scale, scale) at the end makes 32
 * bits of the parts. Codes of 8 bits would not fit; they are two codes of 4 bits. */
#include "kern/kern_impl.h"

#include <immintrin.h>

#include "kern/x86/tile_256.h"

/* FEW: more vectors and codes would not fit the registers.  MANY: 6 loads for 8
 * products; 6 vectors take all 16 registers and measured 10 to 25% slower, 5 about the
 * same as 4. */
enum { FEW = 5, MANY = 4, Q8_PLANES = 2 };

/* ---- sums: two parts of 16 bits a row ---- */

/* The empty asm keeps the compiler from summing products in trees, which costs more
 * registers than there are. */
INLINE veci v_dot(veci sum, veci codes, veci x)
{
    sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, x));
    __asm__("" : "+x"(sum));
    return sum;
}

INLINE veci v_start(const int16_t *pair)
{
    return v_dword(pair);
}

INLINE veci v_start16(const int16_t *pair) /* 16 times that; not of use with 2 planes */
{
    return _mm256_slli_epi16(v_dword(pair), 4);
}

INLINE vecf sum_float(veci sum)
{
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(sum, _mm256_set1_epi16(1)));
}

INLINE vecf sum_float2(veci high, veci low)
{
    veci a = _mm256_madd_epi16(high, _mm256_set1_epi16(16));
    veci b = _mm256_madd_epi16(low, _mm256_set1_epi16(1));
    return _mm256_cvtepi32_ps(_mm256_add_epi32(a, b));
}

/* 8 bytes to the pairs (scale, scale) of 16 bits. */
INLINE vecf r4_scale(const uint8_t *p)
{
    __m128i b = _mm_loadl_epi64((const void *)p);
    return _mm256_castsi256_ps(_mm256_cvtepi8_epi16(_mm_unpacklo_epi8(b, b)));
}

INLINE vecf r4_float(veci sum, vecf scale)
{
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(sum, _mm256_castps_si256(scale)));
}

#include "kern/x86/tile_body.h"

void kern_fill_avx2_tile(struct kern_table *t)
{
    fill_tiles(t);
}
