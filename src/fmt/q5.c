/* Owns Q5_0 and Q5_1: 32 numbers of 5 bits share one f16 scale (Q5_0, 5.5 bits a
 * number) or a scale and a minimum (Q5_1, 6 bits).
 *
 * Rounded as Q4_0 and Q4_1 are, by ggml's reference operation by operation, so that
 * files are equal byte for byte. */
#include "fmt/fmt_impl.h"

#include <math.h>
#include <string.h>

/* v truncated to 0..31; for what denormal scales make of v see q4.c. */
static uint8_t code(float v)
{
    if (!(v > 0))
        return 0;
    return v < 31 ? (uint8_t)v : 31;
}

static void put(uint8_t *high, uint8_t *q, int j, uint8_t low, uint8_t up)
{
    const int half = QK / 2;
    q[j] = (uint8_t)((low & 15) | (up & 15) << 4);
    high[j / 8] |= (uint8_t)((low >> 4) << j % 8);
    high[(j + half) / 8] |= (uint8_t)((up >> 4) << j % 8);
}

/* All 32 codes.  Four fifth bits at a time go to bit 4 of four bytes: copies 7 bits
 * apart put bit k of the nibble at bit 8 k. */
static void codes_of(const uint8_t *high, const uint8_t *q, int8_t *codes)
{
    uint8_t fifth[QK];
    for (int j = 0; j < QK; j += 4) {
        uint32_t bits = high[j / 8] >> j % 8 & 15,
                 spread = (bits * 0x00204081u & 0x01010101u) << 4;
        for (int k = 0; k < 4; k++)
            fifth[j + k] = (uint8_t)(spread >> 8 * k);
    }
    for (int j = 0; j < QK / 2; j++) {
        codes[j] = (int8_t)((q[j] & 15) | fifth[j]);
        codes[j + QK / 2] = (int8_t)(q[j] >> 4 | fifth[j + QK / 2]);
    }
}

void fmt_q5_0_encode(const float *x, void *blocks, size_t n)
{
    struct q5_0 *b = blocks;
    for (; n; n -= QK, x += QK, b++) {
        float amax = 0, extreme = 0;
        for (int j = 0; j < QK; j++) {
            if (amax < fabsf(x[j])) {
                amax = fabsf(x[j]);
                extreme = x[j];
            }
        }
        float d = extreme / -16, inv = d != 0 ? 1 / d : 0;
        memset(b, 0, sizeof *b);
        b->d = fmt_f32_to_f16(d);
        for (int j = 0; j < QK / 2; j++)
            put(b->high, b->q, j, code(x[j] * inv + 16.5f),
                code(x[j + QK / 2] * inv + 16.5f));
    }
}

void fmt_q5_0_to_q8_0(const void *blocks, void *q8_0, size_t n)
{
    const struct q5_0 *b = blocks;
    struct q8_0 *out = q8_0;
    for (; n; n -= QK, b++, out++) {
        out->d = b->d;
        codes_of(b->high, b->q, out->q);
        for (int j = 0; j < QK; j++)
            out->q[j] = (int8_t)(out->q[j] - 16);
    }
}

void fmt_q5_0_decode(const void *blocks, float *x, size_t n)
{
    fmt_decode_by_q8_0(fmt_q5_0_to_q8_0, QK, sizeof(struct q5_0), blocks, x, n);
}

void fmt_q5_1_encode(const float *x, void *blocks, size_t n)
{
    struct q5_1 *b = blocks;
    for (; n; n -= QK, x += QK, b++) {
        float min = x[0], max = x[0];
        for (int j = 1; j < QK; j++) {
            min = x[j] < min ? x[j] : min;
            max = x[j] > max ? x[j] : max;
        }
        float d = (max - min) / 31, inv = d != 0 ? 1 / d : 0;
        memset(b, 0, sizeof *b);
        b->d = fmt_f32_to_f16(d);
        b->m = fmt_f32_to_f16(min);
        for (int j = 0; j < QK / 2; j++)
            put(b->high, b->q, j, code((x[j] - min) * inv + 0.5f),
                code((x[j + QK / 2] - min) * inv + 0.5f));
    }
}

void fmt_q5_1_decode(const void *blocks, float *x, size_t n)
{
    const struct q5_1 *b = blocks;
    for (; n; n -= QK, x += QK, b++) {
        float d = fmt_f16_to_f32(b->d), m = fmt_f16_to_f32(b->m);
        int8_t q[QK];
        codes_of(b->high, b->q, q);
        for (int j = 0; j < QK; j++)
            x[j] = d * (float)q[j] + m;
    }
}
