/* Owns Q8_0: 32 numbers share one f16 scale, 8 bits each, 8.5 bits a number.  Formats
 * that are a scale and smaller codes are decoded by way of it. */
#include "fmt/fmt_impl.h"

#include <math.h>

/* Denormal scales make 1 / d infinite and a product NaN; such a block decodes to zeros
 * whatever the codes, so any in-range code will do. */
static int8_t code(float v)
{
    if (!(v > -127.5f))
        return -127;
    return v < 127.5f ? (int8_t)roundf(v) : 127;
}

void fmt_q8_0_encode(const float *x, void *blocks, size_t n)
{
    struct q8_0 *b = blocks;
    for (; n; n -= QK, x += QK, b++) {
        float amax = 0;
        for (int j = 0; j < QK; j++)
            amax = fmaxf(amax, fabsf(x[j]));
        float d = amax / 127, inv = d != 0 ? 1 / d : 0;
        b->d = fmt_f32_to_f16(d);
        for (int j = 0; j < QK; j++)
            b->q[j] = code(x[j] * inv);
    }
}

void fmt_q8_0_decode(const void *blocks, float *x, size_t n)
{
    const struct q8_0 *b = blocks;
    for (; n; n -= QK, x += QK, b++) {
        float d = fmt_f16_to_f32(b->d);
        for (int j = 0; j < QK; j++)
            x[j] = d * b->q[j];
    }
}

void fmt_decode_by_q8_0(fmt_to_q8_0_fn *to_q8_0, size_t block_len, size_t block_bytes,
                        const void *blocks, float *x, size_t n)
{
    const uint8_t *p = blocks;
    struct q8_0 q[QK_K / QK];
    for (; n; n -= block_len, x += block_len, p += block_bytes) {
        to_q8_0(p, q, block_len);
        fmt_q8_0_decode(q, x, block_len);
    }
}
