/* Products of tiles with VNNI in 256-bit registers.  Built twice: for AVX-VNNI (recent
 * processors without AVX-512) and for AVX-512 VL with VNNI, whose instruction does the
 * same in another encoding.
 *
 * VNNI multiplies unsigned by signed bytes and adds 4 neighbours to 32 bits, so a sum
 * is what the specification calls p.  Q8_0's codes become unsigned by adding 128, and
 * sums start from -128 times the sum of the vector. */
#include "kern/kern_impl.h"

#ifdef KERN_SIMDE
#include "kern/x86/avx512_simde.h"
#else
#include <immintrin.h>
#endif

#include "kern/x86/tile_256.h"

#ifdef KERN_AVX512VL
#define DPBUSD _mm256_dpbusd_epi32
enum { FEW = 5, MANY = 8, Q8_PLANES = 1 }; /* of 32 registers */
#else
#define DPBUSD _mm256_dpbusd_avx_epi32
enum { FEW = 5, MANY = 6, Q8_PLANES = 1 };
#endif

/* ---- sums ---- */

INLINE veci v_dot(veci sum, veci codes, veci x)
{
    return DPBUSD(sum, codes, x);
}

INLINE veci v_start(const int16_t *pair)
{
    return _mm256_madd_epi16(v_dword(pair), _mm256_set1_epi16(1));
}

INLINE veci v_start16(const int16_t *pair)
{
    return _mm256_slli_epi32(v_start(pair), 4);
}

INLINE vecf sum_float(veci sum)
{
    return _mm256_cvtepi32_ps(sum);
}

INLINE vecf sum_float2(veci high, veci low)
{
    return sum_float(_mm256_add_epi32(_mm256_slli_epi32(high, 4), low));
}

INLINE vecf r4_scale(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)));
}

/* The product of two floats is exact here, below 2^24. */
INLINE vecf r4_float(veci sum, vecf scale)
{
    return _mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale);
}

#include "kern/x86/tile_body.h"

/* On top of the AVX2 table (in tests: of the specification). */
#ifdef KERN_AVX512VL
void kern_fill_avx512vl(struct kern_table *t)
{
    fill_tiles(t);
    t->level = CPU_AVX512VL;
}
#else
void kern_fill_avxvnni(struct kern_table *t)
{
    fill_tiles(t);
    t->level = CPU_AVXVNNI;
}
#endif
