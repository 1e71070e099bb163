/* Owns reading Q1_0 (128 signs share one f16 scale, 1.125 bits a number) and Q2_0 (64
 * numbers -1, 0, 1 or 2 times one, 2.25 bits); for models that were trained so. */
#include "fmt/fmt_impl.h"

void fmt_q1_0_to_q8_0(const void *blocks, void *q8_0, size_t n)
{
    const struct q1_0 *b = blocks;
    struct q8_0 *out = q8_0;
    for (; n; n -= QK_1, b++)
        for (const uint8_t *q = b->q; q < b->q + QK_1 / 8; q += QK / 8, out++) {
            out->d = b->d;
            for (int j = 0; j < QK; j++)
                out->q[j] = q[j / 8] >> j % 8 & 1 ? 1 : -1;
        }
}

void fmt_q2_0_to_q8_0(const void *blocks, void *q8_0, size_t n)
{
    const struct q2_0 *b = blocks;
    struct q8_0 *out = q8_0;
    for (; n; n -= QK_2, b++)
        for (const uint8_t *q = b->q; q < b->q + QK_2 / 4; q += QK / 4, out++) {
            out->d = b->d;
            for (int j = 0; j < QK; j++)
                out->q[j] = (int8_t)((q[j / 4] >> j % 4 * 2 & 3) - 1);
        }
}

void fmt_q1_0_decode(const void *blocks, float *x, size_t n)
{
    fmt_decode_by_q8_0(fmt_q1_0_to_q8_0, QK_1, sizeof(struct q1_0), blocks, x, n);
}

void fmt_q2_0_decode(const void *blocks, float *x, size_t n)
{
    fmt_decode_by_q8_0(fmt_q2_0_to_q8_0, QK_2, sizeof(struct q2_0), blocks, x, n);
}
