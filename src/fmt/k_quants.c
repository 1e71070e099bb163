/* Owns reading the K types of llama.cpp: 256 numbers share one or two f16 scales, 16 or
 * 32 of them a smaller one.  Its files mix them (Q4_K_M is Q4_K, Q6_K and others), so
 * we read them all; we write none.
 *
 *         bits a number   a group    of it
 *   Q2_K  2.625           16         4-bit scale, 4-bit minimum
 *   Q3_K  3.4375          16         6-bit scale, signed
 *   Q4_K  4.5             32         6-bit scale, 6-bit minimum
 *   Q5_K  5.5             32         6-bit scale, 6-bit minimum
 *   Q6_K  6.5625          16         8-bit scale, signed
 *
 * Numbers come in runs of 32 whose bits lie at the same place of 32 neighbouring bytes:
 * run r (0 to 7) has its pairs of bits in bytes 32 (r / 4) at shift 2 (r % 4), its
 * nibbles in bytes 32 (r / 2) at shift 4 (r % 2), single bits in bytes 0 at shift r.
 * Q6_K's nibbles are another matter, see there.
 *
 * The product of an f16, a scale and a code is exact in a float, so that only taking
 * off a minimum rounds, once, and every order of operations gives the same bits. */
#include "fmt/fmt_impl.h"

enum { RUN = 32, RUNS = QK_K / RUN };

/* A run's codes from `mask` bits at q >> shift and, above `place`, bits of high.  In
 * bytes, so that compilers put 16 of them into a register; the shifts become constants
 * where the loop over runs is unrolled. */
static inline __attribute__((always_inline)) void
put_run(const uint8_t q[RUN], int shift, int mask, const uint8_t *high, int high_shift,
        int high_mask, int place, int zero, const float d[2], const float m[2],
        float *x)
{
    int8_t code[RUN];
    for (int l = 0; l < RUN; l++)
        code[l] = (int8_t)(((q[l] >> shift & mask) | (high[l] >> high_shift & high_mask)
                                                         << place) -
                           zero);
    for (int l = 0; l < RUN / 2; l++)
        x[l] = d[0] * (float)code[l] - m[0];
    for (int l = RUN / 2; l < RUN; l++)
        x[l] = d[1] * (float)code[l] - m[1];
}

void fmt_q2_k_decode(const void *blocks, float *x, size_t n)
{
    const struct q2_k *b = blocks;
    for (; n; n -= QK_K, b++) {
        float d = fmt_f16_to_f32(b->d), m = fmt_f16_to_f32(b->m);
#pragma GCC unroll 8
        for (int r = 0; r < RUNS; r++, x += RUN) {
            const uint8_t *s = b->scale_min + 2 * r, *q = b->low + r / 4 * RUN;
            float scale[2] = {d * (float)(s[0] & 15), d * (float)(s[1] & 15)},
                  min[2] = {m * (float)(s[0] >> 4), m * (float)(s[1] >> 4)};
            put_run(q, 2 * (r % 4), 3, q, 0, 0, 0, 0, scale, min, x);
        }
    }
}

/* Scale s of Q3_K: its low nibble in byte s % 8, its two high bits in byte 8 + s % 4.
 */
static int q3_k_scale(const uint8_t packed[12], int s)
{
    int low = packed[s % 8] >> (s / 8 * 4) & 15;
    return (low | (packed[8 + s % 4] >> (s / 4 * 2) & 3) << 4) - 32;
}

void fmt_q3_k_decode(const void *blocks, float *x, size_t n)
{
    static const float none[2] = {0, 0};
    const struct q3_k *b = blocks;
    for (; n; n -= QK_K, b++) {
        float d = fmt_f16_to_f32(b->d);
#pragma GCC unroll 8
        for (int r = 0; r < RUNS; r++, x += RUN) {
            float scale[2] = {d * (float)q3_k_scale(b->scale, 2 * r),
                              d * (float)q3_k_scale(b->scale, 2 * r + 1)};
            put_run(b->low + r / 4 * RUN, 2 * (r % 4), 3, b->high, r, 1, 2, 4, scale,
                    none, x);
        }
    }
}

/* Scale and minimum r of Q4_K and Q5_K, 6 bits each.  The first four lie in bytes r and
 * 4 + r; of the others bytes 4 + r hold the low nibbles, and the two bits that the
 * first four leave free in bytes r - 4 and r the high ones. */
static void scale_and_min(const uint8_t packed[12], int r, float d, float m,
                          float scale[2], float min[2])
{
    int s, t;
    if (r < 4) {
        s = packed[r] & 63;
        t = packed[4 + r] & 63;
    } else {
        s = (packed[4 + r] & 15) | packed[r - 4] >> 6 << 4;
        t = packed[4 + r] >> 4 | packed[r] >> 6 << 4;
    }
    scale[0] = scale[1] = d * (float)s;
    min[0] = min[1] = m * (float)t;
}

void fmt_q4_k_decode(const void *blocks, float *x, size_t n)
{
    const struct q4_k *b = blocks;
    for (; n; n -= QK_K, b++) {
        float d = fmt_f16_to_f32(b->d), m = fmt_f16_to_f32(b->m), scale[2], min[2];
#pragma GCC unroll 8
        for (int r = 0; r < RUNS; r++, x += RUN) {
            const uint8_t *q = b->low + r / 2 * RUN;
            scale_and_min(b->scale_min, r, d, m, scale, min);
            put_run(q, 4 * (r % 2), 15, q, 0, 0, 0, 0, scale, min, x);
        }
    }
}

void fmt_q5_k_decode(const void *blocks, float *x, size_t n)
{
    const struct q5_k *b = blocks;
    for (; n; n -= QK_K, b++) {
        float d = fmt_f16_to_f32(b->d), m = fmt_f16_to_f32(b->m), scale[2], min[2];
#pragma GCC unroll 8
        for (int r = 0; r < RUNS; r++, x += RUN) {
            scale_and_min(b->scale_min, r, d, m, scale, min);
            put_run(b->low + r / 2 * RUN, 4 * (r % 2), 15, b->high, r, 1, 4, 0, scale,
                    min, x);
        }
    }
}

/* Each half of a block has 64 bytes of nibbles: its runs 0 and 2 share the first 32 of
 * them, 1 and 3 the others. */
void fmt_q6_k_decode(const void *blocks, float *x, size_t n)
{
    static const float none[2] = {0, 0};
    const struct q6_k *b = blocks;
    for (; n; n -= QK_K, b++) {
        float d = fmt_f16_to_f32(b->d);
#pragma GCC unroll 8
        for (int r = 0; r < RUNS; r++, x += RUN) {
            const int8_t *s = b->scale + 2 * r;
            float scale[2] = {d * (float)s[0], d * (float)s[1]};
            put_run(b->low + r / 4 * 64 + r % 2 * RUN, r % 4 / 2 * 4, 15,
                    b->high + r / 4 * RUN, 2 * (r % 4), 3, 4, 32, scale, none, x);
        }
    }
}
