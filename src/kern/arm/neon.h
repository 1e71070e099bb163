/* What the NEON files share: the 16 lanes of the specification as four registers, parts
 * of rows, rounding to 8 bits, exp; and the functions by which the files fill a table.
 *
 * Two levels are built from these files.  kern_neon.c is compiled once, for any AArch64
 * processor.  tile_neon.c and attn_neon.c hold products of bytes (dot_neon.h) and are
 * compiled twice: as they are, for processors such as the Cortex-A72 of a Raspberry Pi
 * 4, and with the dot product instruction sdot (FEAT_DotProd: Cortex-A76, Neoverse N1,
 * Apple's, and what came after).
 *
 * Bit for bit the specification: vfmaq is one rounding, vcvtnq rounds ties to even, and
 * C starts a thread with a control register (FPCR) that flushes nothing to zero and
 * keeps NaN.  gcc writes vmulq as a * b, so that these files need -ffp-contract=off. */
#ifndef RUNT_KERN_NEON_H
#define RUNT_KERN_NEON_H

#include "kern/kern_impl.h"

#include <arm_neon.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

void kern_fill_neon_tile(struct kern_table *t);
void kern_fill_neon_attn(struct kern_table *t);
void kern_fill_neon_dot_tile(struct kern_table *t);
void kern_fill_neon_dot_attn(struct kern_table *t);

enum { REG = 4, N_REGS = KERN_LANES / REG }; /* floats of a register; of 16 lanes */

struct lanes {
    float32x4_t v[N_REGS]; /* lanes 0 to 3, 4 to 7, ... */
};

INLINE struct lanes lanes_zero(void)
{
    float32x4_t zero = vdupq_n_f32(0);
    return (struct lanes){{zero, zero, zero, zero}};
}

INLINE float lanes_sum(struct lanes s)
{
    float32x4_t a = vaddq_f32(vaddq_f32(s.v[0], s.v[2]), vaddq_f32(s.v[1], s.v[3]));
    float32x2_t b = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(b, 0) + vget_lane_f32(b, 1);
}

/* ---- parts of rows ---- */

/* The elements i to i + 3 that are below n; +0 for the others. */
INLINE float32x4_t load_part(const float *x, size_t i, size_t n)
{
    if (i + REG <= n)
        return vld1q_f32(x + i);
    float part[REG] = {0};
    if (i < n)
        memcpy(part, x + i, (n - i) * sizeof *part);
    return vld1q_f32(part);
}

INLINE void store_part(float *x, size_t i, size_t n, float32x4_t v)
{
    if (i + REG <= n) {
        vst1q_f32(x + i, v);
        return;
    }
    float part[REG];
    vst1q_f32(part, v);
    if (i < n)
        memcpy(x + i, part, (n - i) * sizeof *part);
}

/* All ones in the first n of 4 elements, n from 0 up. */
INLINE uint32x4_t first(size_t n)
{
    static const uint32_t index[REG] = {0, 1, 2, 3};
    return vcltq_u32(vld1q_u32(index), vdupq_n_u32(n < REG ? (uint32_t)n : REG));
}

/* v where the element i + its index is below n, zeros for the others. */
INLINE uint32x4_t keep_bits(uint32x4_t v, size_t i, size_t n)
{
    if (i + REG <= n)
        return v;
    return vandq_u32(v, first(i < n ? n - i : 0));
}

INLINE float32x4_t keep_part(float32x4_t v, size_t i, size_t n)
{
    return vreinterpretq_f32_u32(keep_bits(vreinterpretq_u32_f32(v), i, n));
}

/* 4 numbers in half precision, at any even address, as floats. */
INLINE float32x4_t load_f16x4(const void *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

/* ---- 8 bits ---- */

/* The bits of |v|: they are ordered as the numbers are, and NaN is above infinity. */
INLINE uint32x4_t abs_bits(float32x4_t v)
{
    return vreinterpretq_u32_f32(vabsq_f32(v));
}

/* v clamped to [-127, 127] and rounded to nearest even; NaN gives -127.  maxnm prefers
 * a number to a quiet NaN, as the specification's comparisons do; v is the result of a
 * multiplication, and no such NaN signals. */
INLINE int32x4_t round_q(float32x4_t v)
{
    v = vmaxnmq_f32(v, vdupq_n_f32(-KERN_ACT_MAX_Q));
    v = vminnmq_f32(v, vdupq_n_f32(KERN_ACT_MAX_Q));
    return vcvtnq_s32_f32(v);
}

/* ---- exp ---- */

/* kern_ref_expf, step for step. */
INLINE float32x4_t exp4(float32x4_t x)
{
    const float32x4_t one = vdupq_n_f32(1), round = vdupq_n_f32(KERN_ROUND),
                      lo = vdupq_n_f32(KERN_EXP_LO), hi = vdupq_n_f32(KERN_EXP_HI);
    x = vbslq_f32(vcgtq_f32(lo, x), lo, x);
    x = vbslq_f32(vcltq_f32(hi, x), hi, x);
    float32x4_t t = vfmaq_f32(round, x, vdupq_n_f32(KERN_LOG2E));
    float32x4_t n = vsubq_f32(t, round);
    float32x4_t r = vfmaq_f32(x, n, vdupq_n_f32(-KERN_LN2_HI));
    r = vfmaq_f32(r, n, vdupq_n_f32(-KERN_LN2_LO));
    float32x4_t p = vdupq_n_f32(KERN_EXP_C6);
    p = vfmaq_f32(vdupq_n_f32(KERN_EXP_C5), p, r);
    p = vfmaq_f32(vdupq_n_f32(KERN_EXP_C4), p, r);
    p = vfmaq_f32(vdupq_n_f32(KERN_EXP_C3), p, r);
    p = vfmaq_f32(vdupq_n_f32(KERN_EXP_C2), p, r);
    p = vfmaq_f32(one, p, r);
    p = vfmaq_f32(one, p, r);
    uint32x4_t u =
        vsubq_u32(vreinterpretq_u32_f32(t), vdupq_n_u32(KERN_ROUND_BITS - 256));
    uint32x4_t half = vshrq_n_u32(u, 1), e1 = vdupq_n_u32(1);
    uint32x4_t f1 = vshlq_n_u32(vsubq_u32(half, e1), 23);
    uint32x4_t f2 = vshlq_n_u32(vsubq_u32(vsubq_u32(u, half), e1), 23);
    p = vmulq_f32(p, vreinterpretq_f32_u32(f1));
    return vmulq_f32(p, vreinterpretq_f32_u32(f2));
}

#endif
