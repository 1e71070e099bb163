/* Owns IQ4_NL: 32 numbers of 4 bits share one f16 scale, 4.5 bits a number, as in Q4_0,
 * but the codes stand for unevenly spaced values (iq4_nl.h).
 *
 * The scale is searched: steps that put the largest magnitude near either end of the
 * grid, each then made best for the codes that it gave.  Least squares of plain
 * weights; ggml's encoder weights by magnitude, so its bytes differ from ours. */
#include "fmt/iq4_nl.h"
#include "fmt/fmt_impl.h"

#include <math.h>

/* Where the largest magnitude is tried to lie on the grid, whose ends are -127 and 113;
 * both signs are tried.  On normal numbers a search among 4000 scales would take
 * another 0.13% off the squared error (test_fmt.c). */
static const float k_lo = 96, k_hi = 144, k_step = 6;

/* sum(x v) and sum(v v) for the grid's values v nearest to x * inv. */
static void sums(const float *x, float inv, float *xv, float *vv)
{
    float a = 0, b = 0;
    for (int j = 0; j < QK; j++) {
        float v = (float)iq4_nl_values[iq4_nl_nearest(x[j] * inv)];
        a += x[j] * v;
        b += v * v;
    }
    *xv = a;
    *vv = b;
}

/* The step with the least squared error; 0 for zeros, and where numbers are so small or
 * large that their products are not normal floats, one from the largest magnitude. */
static float step(const float *x)
{
    float amax = 0, best = 0, most = 0;
    for (int j = 0; j < QK; j++)
        amax = fabsf(x[j]) > amax ? fabsf(x[j]) : amax;
    if (!(amax > 1e-12f && amax < 1e12f))
        return amax / 127;
    for (float k = k_lo; k <= k_hi; k += k_step)
        for (int sign = -1; sign <= 1; sign += 2) {
            float xv, vv;
            sums(x, (float)sign * k / amax, &xv, &vv);
            /* the error saved against rounding to 0, by the best step for these codes
             */
            if (vv > 0 && xv * xv > most * vv) {
                most = xv * xv / vv;
                best = xv / vv;
            }
        }
    return best;
}

void fmt_iq4_nl_encode(const float *x, void *blocks, size_t n)
{
    struct iq4_nl *b = blocks;
    for (; n; n -= QK, x += QK, b++) {
        b->d = fmt_f32_to_f16(step(x));
        float d = fmt_f16_to_f32(b->d), inv = d != 0 ? 1 / d : 0;
        for (int j = 0; j < QK / 2; j++)
            b->q[j] = (uint8_t)(iq4_nl_nearest(x[j] * inv) |
                                iq4_nl_nearest(x[j + QK / 2] * inv) << 4);
    }
}

void fmt_iq4_nl_to_q8_0(const void *blocks, void *q8_0, size_t n)
{
    const struct iq4_nl *b = blocks;
    struct q8_0 *out = q8_0;
    for (; n; n -= QK, b++, out++) {
        out->d = b->d;
        for (int j = 0; j < QK / 2; j++) {
            out->q[j] = iq4_nl_values[b->q[j] & 15];
            out->q[j + QK / 2] = iq4_nl_values[b->q[j] >> 4];
        }
    }
}

void fmt_iq4_nl_decode(const void *blocks, float *x, size_t n)
{
    fmt_decode_by_q8_0(fmt_iq4_nl_to_q8_0, QK, sizeof(struct iq4_nl), blocks, x, n);
}
