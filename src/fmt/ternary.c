/* Owns reading TQ1_0 and TQ2_0: 256 numbers -1, 0 or 1 times one f16 scale, 1.6875 and
 * 2.0625 bits a number; for models that were trained so.  Numbers lie in runs of 32
 * (or, at the end of TQ1_0, of 16 and 4), a run's numbers in neighbouring bytes. */
#include "fmt/fmt_impl.h"

/* Digit k of a byte of TQ1_0.  The byte is 256 / 243 of a number of five digits in base
 * 3, rounded up: times 3^k, cut to 8 bits, it is a fraction whose first digit is k. */
static int8_t digit(uint8_t byte, int k)
{
    static const uint8_t power[5] = {1, 3, 9, 27, 81};
    uint8_t rest = (uint8_t)(byte * power[k]);
    return (int8_t)((rest * 3 >> 8) - 1);
}

/* n_digits runs of n_bytes numbers each, from as many bytes. */
static int8_t *digits(const uint8_t *bytes, int n_bytes, int n_digits, int8_t *out)
{
    for (int k = 0; k < n_digits; k++)
        for (int i = 0; i < n_bytes; i++)
            *out++ = digit(bytes[i], k);
    return out;
}

static void put(uint16_t d, const int8_t q[QK_K], struct q8_0 *out)
{
    for (int i = 0; i < QK_K; i++)
        out[i / QK].q[i % QK] = q[i];
    for (int i = 0; i < QK_K / QK; i++)
        out[i].d = d;
}

void fmt_tq1_0_to_q8_0(const void *blocks, void *q8_0, size_t n)
{
    const struct tq1_0 *b = blocks;
    struct q8_0 *out = q8_0;
    for (; n; n -= QK_K, b++, out += QK_K / QK) {
        int8_t q[QK_K], *end = digits(b->q5, 32, 5, q);
        end = digits(b->q5 + 32, 16, 5, end);
        digits(b->q4, 4, 4, end);
        put(b->d, q, out);
    }
}

void fmt_tq2_0_to_q8_0(const void *blocks, void *q8_0, size_t n)
{
    const struct tq2_0 *b = blocks;
    struct q8_0 *out = q8_0;
    for (; n; n -= QK_K, b++, out += QK_K / QK) {
        int8_t q[QK_K];
        for (int i = 0; i < QK_K; i++)
            q[i] =
                (int8_t)((b->q[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3) - 1);
        put(b->d, q, out);
    }
}

void fmt_tq1_0_decode(const void *blocks, float *x, size_t n)
{
    fmt_decode_by_q8_0(fmt_tq1_0_to_q8_0, QK_K, sizeof(struct tq1_0), blocks, x, n);
}

void fmt_tq2_0_decode(const void *blocks, float *x, size_t n)
{
    fmt_decode_by_q8_0(fmt_tq2_0_to_q8_0, QK_K, sizeof(struct tq2_0), blocks, x, n);
}
