/* Owns Q4_0 and Q4_1: 32 numbers of 4 bits share one f16 scale (Q4_0, 4.5 bits a
 * number) or a scale and a minimum (Q4_1, 5 bits).
 *
 * The rounding is ggml's reference, operation by operation, so that files are equal
 * byte for byte: Q4_0 takes the value of largest magnitude as code 0 (= -8), which
 * gives the side that needs it one more step. */
#include "fmt/fmt_impl.h"

#include <math.h>

/* v truncated to 0..15.  A denormal scale can make v NaN or infinite; the block then
 * decodes to one value whatever the codes, so any in-range code will do. */
static uint8_t code(float v)
{
    if (!(v > 0))
        return 0;
    return v < 15 ? (uint8_t)v : 15;
}

void fmt_q4_0_encode(const float *x, void *blocks, size_t n)
{
    struct q4_0 *b = blocks;
    for (; n; n -= QK, x += QK, b++) {
        float amax = 0, extreme = 0;
        for (int j = 0; j < QK; j++) {
            if (amax < fabsf(x[j])) {
                amax = fabsf(x[j]);
                extreme = x[j];
            }
        }
        float d = extreme / -8, inv = d != 0 ? 1 / d : 0;
        b->d = fmt_f32_to_f16(d);
        for (int j = 0; j < QK / 2; j++)
            b->q[j] = (uint8_t)(code(x[j] * inv + 8.5f) |
                                code(x[j + QK / 2] * inv + 8.5f) << 4);
    }
}

void fmt_q4_0_decode(const void *blocks, float *x, size_t n)
{
    const struct q4_0 *b = blocks;
    for (; n; n -= QK, x += QK, b++) {
        float d = fmt_f16_to_f32(b->d);
        for (int j = 0; j < QK / 2; j++) {
            x[j] = d * (float)((b->q[j] & 15) - 8);
            x[j + QK / 2] = d * (float)((b->q[j] >> 4) - 8);
        }
    }
}

void fmt_q4_1_encode(const float *x, void *blocks, size_t n)
{
    struct q4_1 *b = blocks;
    for (; n; n -= QK, x += QK, b++) {
        float min = x[0], max = x[0];
        for (int j = 1; j < QK; j++) {
            min = x[j] < min ? x[j] : min;
            max = x[j] > max ? x[j] : max;
        }
        float d = (max - min) / 15, inv = d != 0 ? 1 / d : 0;
        b->d = fmt_f32_to_f16(d);
        b->m = fmt_f32_to_f16(min);
        for (int j = 0; j < QK / 2; j++)
            b->q[j] = (uint8_t)(code((x[j] - min) * inv + 0.5f) |
                                code((x[j + QK / 2] - min) * inv + 0.5f) << 4);
    }
}

void fmt_q4_1_decode(const void *blocks, float *x, size_t n)
{
    const struct q4_1 *b = blocks;
    for (; n; n -= QK, x += QK, b++) {
        float d = fmt_f16_to_f32(b->d), m = fmt_f16_to_f32(b->m);
        for (int j = 0; j < QK / 2; j++) {
            x[j] = d * (float)(b->q[j] & 15) + m;
            x[j + QK / 2] = d * (float)(b->q[j] >> 4) + m;
        }
    }
}
