/* Exact dot products of bytes, 16 rows at a time, with and without sdot.
 *
 * Rows lie as kern_tile.h says: a chunk of 64 bytes holds 4 columns (8 columns where
 * codes have 4 bits), and register k of its four holds rows 4 k to 4 k + 3.  The four
 * activations that meet a register are the same for its four rows.
 *
 * With sdot, a lane of 32 bits is a row, and the activations come by lane from a
 * register that holds 16 of them: nothing is broadcast.  Without it, bytes are
 * multiplied to 16 bits (smull, smlal) and a register's products are two registers of
 * two rows.  Codes of 4 bits stay in 16 bits for a whole group of 64 columns: a lane
 * adds 16 products, at most 16 * 15 * 127 = 30480.  Of 8-bit codes two products fit,
 * 2 * 128 * 127 = 32512 (no activation is -128), before they are widened (sadalp).
 *
 * SHARE vectors at a time share the loading and unpacking of weights; it is chosen so
 * that their sums stay in the 32 registers. */
#ifndef RUNT_KERN_DOT_NEON_H
#define RUNT_KERN_DOT_NEON_H

#include "kern/arm/neon.h"

#ifdef __ARM_FEATURE_DOTPROD
enum { SHARE = 4 };
#else
enum { SHARE = 2 };
#endif

/* Sums stay in registers where loops over registers are unrolled, and the loops over
 * columns are not: gcc would unroll short ones and then run out of registers, and clang
 * leaves long bodies in a loop, which puts arrays into memory. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#define NO_UNROLL _Pragma("clang loop unroll(disable)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#define NO_UNROLL _Pragma("GCC unroll 1")
#endif

/* Keeps gcc from knowing n, for it peels loops of two or four steps all the same. */
INLINE void hide(size_t *n)
{
    __asm__("" : "+r"(*n));
}

/* Four activations in every lane. */
INLINE int8x16_t four(const int8_t *q)
{
    int32_t bits;
    memcpy(&bits, q, sizeof bits);
    return vreinterpretq_s8_s32(vdupq_n_s32(bits));
}

INLINE int8x16_t low_nibbles(uint8x16_t b)
{
    return vreinterpretq_s8_u8(vandq_u8(b, vdupq_n_u8(15)));
}

INLINE int8x16_t high_nibbles(uint8x16_t b)
{
    return vreinterpretq_s8_u8(vshrq_n_u8(b, 4));
}

#ifdef __ARM_FEATURE_DOTPROD

/* p[v][k] = start[v] + the sum of code * q over n_chunks chunks of 8 columns (an even
 * number) of rows 4 k to 4 k + 3, for vectors v < n_v. */
INLINE void sums4(int n_v, size_t n_chunks, const uint8_t *codes,
                  const int8_t *const *q, const int32_t *start, int32x4_t (*p)[N_REGS])
{
    for (int v = 0; v < n_v; v++)
        for (int k = 0; k < N_REGS; k++)
            p[v][k] = vdupq_n_s32(start[v]);
    hide(&n_chunks);
    NO_UNROLL
    for (size_t c = 0; c < n_chunks; c += 2, codes += 128) {
        int8x16_t x[SHARE];
        for (int v = 0; v < n_v; v++)
            x[v] = vld1q_s8(q[v] + 8 * c);
        UNROLL
        for (int k = 0; k < N_REGS; k++) {
            uint8x16_t b0 = vld1q_u8(codes + 16 * k),
                       b1 = vld1q_u8(codes + 64 + 16 * k);
            int8x16_t w0 = low_nibbles(b0), w1 = high_nibbles(b0);
            int8x16_t w2 = low_nibbles(b1), w3 = high_nibbles(b1);
            for (int v = 0; v < n_v; v++) {
                p[v][k] = vdotq_laneq_s32(p[v][k], w0, x[v], 0);
                p[v][k] = vdotq_laneq_s32(p[v][k], w1, x[v], 1);
                p[v][k] = vdotq_laneq_s32(p[v][k], w2, x[v], 2);
                p[v][k] = vdotq_laneq_s32(p[v][k], w3, x[v], 3);
            }
        }
    }
}

/* The same for codes of 8 bits, chunks of 4 columns, any number of them; from 0. */
INLINE void sums8(int n_v, size_t n_chunks, const int8_t *codes, const int8_t *const *q,
                  int32x4_t (*p)[N_REGS])
{
    size_t c = 0;
    for (int v = 0; v < n_v; v++)
        for (int k = 0; k < N_REGS; k++)
            p[v][k] = vdupq_n_s32(0);
    NO_UNROLL
    for (; c + 4 <= n_chunks; c += 4) {
        int8x16_t x[SHARE];
        for (int v = 0; v < n_v; v++)
            x[v] = vld1q_s8(q[v] + 4 * c);
        UNROLL
        for (int k = 0; k < N_REGS; k++) {
            const int8_t *w = codes + 64 * c + 16 * k;
            int8x16_t w0 = vld1q_s8(w), w1 = vld1q_s8(w + 64);
            int8x16_t w2 = vld1q_s8(w + 128), w3 = vld1q_s8(w + 192);
            for (int v = 0; v < n_v; v++) {
                p[v][k] = vdotq_laneq_s32(p[v][k], w0, x[v], 0);
                p[v][k] = vdotq_laneq_s32(p[v][k], w1, x[v], 1);
                p[v][k] = vdotq_laneq_s32(p[v][k], w2, x[v], 2);
                p[v][k] = vdotq_laneq_s32(p[v][k], w3, x[v], 3);
            }
        }
    }
    for (; c < n_chunks; c++)
        for (int k = 0; k < N_REGS; k++) {
            int8x16_t w = vld1q_s8(codes + 64 * c + 16 * k);
            for (int v = 0; v < n_v; v++)
                p[v][k] = vdotq_s32(p[v][k], w, four(q[v] + 4 * c));
        }
}

#else

INLINE void sums4(int n_v, size_t n_chunks, const uint8_t *codes,
                  const int8_t *const *q, const int32_t *start, int32x4_t (*p)[N_REGS])
{
    int16x8_t acc[SHARE][2 * N_REGS]; /* two rows, their products by column % 4 */
    for (int v = 0; v < n_v; v++)
        for (int k = 0; k < 2 * N_REGS; k++)
            acc[v][k] = vdupq_n_s16(0);
    hide(&n_chunks);
    NO_UNROLL
    for (size_t c = 0; c < n_chunks; c++, codes += 64) {
        int8x16_t x0[SHARE], x1[SHARE];
        for (int v = 0; v < n_v; v++) {
            x0[v] = four(q[v] + 8 * c);
            x1[v] = four(q[v] + 8 * c + 4);
        }
        UNROLL
        for (int k = 0; k < N_REGS; k++) {
            uint8x16_t b = vld1q_u8(codes + 16 * k);
            int8x16_t w0 = low_nibbles(b), w1 = high_nibbles(b);
            for (int v = 0; v < n_v; v++) {
                int16x8_t *a = &acc[v][2 * k];
                a[0] = vmlal_s8(a[0], vget_low_s8(w0), vget_low_s8(x0[v]));
                a[1] = vmlal_high_s8(a[1], w0, x0[v]);
                a[0] = vmlal_s8(a[0], vget_low_s8(w1), vget_low_s8(x1[v]));
                a[1] = vmlal_high_s8(a[1], w1, x1[v]);
            }
        }
    }
    for (int v = 0; v < n_v; v++)
        for (int k = 0; k < N_REGS; k++) {
            int32x4_t a = vpaddlq_s16(acc[v][2 * k]),
                      b = vpaddlq_s16(acc[v][2 * k + 1]);
            p[v][k] = vaddq_s32(vdupq_n_s32(start[v]), vpaddq_s32(a, b));
        }
}

INLINE void sums8(int n_v, size_t n_chunks, const int8_t *codes, const int8_t *const *q,
                  int32x4_t (*p)[N_REGS])
{
    int32x4_t acc[SHARE][2 * N_REGS]; /* two rows, columns % 4 of 0 and 1, 2 and 3 */
    for (int v = 0; v < n_v; v++)
        for (int k = 0; k < 2 * N_REGS; k++)
            acc[v][k] = vdupq_n_s32(0);
    size_t c = 0;
    NO_UNROLL
    for (; c + 2 <= n_chunks; c += 2, codes += 128) {
        int8x16_t x0[SHARE], x1[SHARE];
        for (int v = 0; v < n_v; v++) {
            x0[v] = four(q[v] + 4 * c);
            x1[v] = four(q[v] + 4 * c + 4);
        }
        UNROLL
        for (int k = 0; k < N_REGS; k++) {
            int8x16_t w0 = vld1q_s8(codes + 16 * k), w1 = vld1q_s8(codes + 64 + 16 * k);
            for (int v = 0; v < n_v; v++) {
                int32x4_t *a = &acc[v][2 * k];
                int16x8_t lo = vmull_s8(vget_low_s8(w0), vget_low_s8(x0[v]));
                int16x8_t hi = vmull_high_s8(w0, x0[v]);
                lo = vmlal_s8(lo, vget_low_s8(w1), vget_low_s8(x1[v]));
                hi = vmlal_high_s8(hi, w1, x1[v]);
                a[0] = vpadalq_s16(a[0], lo);
                a[1] = vpadalq_s16(a[1], hi);
            }
        }
    }
    if (c < n_chunks)
        for (int v = 0; v < n_v; v++) {
            int8x16_t x = four(q[v] + 4 * c);
            for (int k = 0; k < N_REGS; k++) {
                int8x16_t w = vld1q_s8(codes + 16 * k);
                int32x4_t *a = &acc[v][2 * k];
                a[0] = vpadalq_s16(a[0], vmull_s8(vget_low_s8(w), vget_low_s8(x)));
                a[1] = vpadalq_s16(a[1], vmull_high_s8(w, x));
            }
        }
    for (int v = 0; v < n_v; v++)
        for (int k = 0; k < N_REGS; k++)
            p[v][k] = vpaddq_s32(acc[v][2 * k], acc[v][2 * k + 1]);
}

#endif
#endif
