/* Owns the type table and single-number conversions. */
#include "base/mem.h"
#include "fmt/fmt_impl.h"
#include "fmt/r4.h"

#include <string.h>
#include <strings.h>

static uint32_t f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float f32_from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

float fmt_bf16_to_f32(uint16_t h)
{
    return f32_from_bits((uint32_t)h << 16);
}

uint16_t fmt_f32_to_bf16(float f)
{
    uint32_t u = f32_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000) /* NaN: keep it one, and quiet */
        return (uint16_t)((u >> 16) | 64);
    return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

float fmt_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = (h >> 10) & 31, m = h & 0x3ff;
    if (e == 31)
        return f32_from_bits(sign | 0x7f800000 | m << 13);
    if (e == 0) { /* zero and denormals: m * 2^-24, exact */
        float f = (float)m * 0x1p-24f;
        return sign ? -f : f;
    }
    return f32_from_bits(sign | (e + 112) << 23 | m << 13);
}

uint16_t fmt_f32_to_f16(float f)
{
    uint32_t u = f32_bits(f), sign = (u >> 16) & 0x8000;
    u &= 0x7fffffff;
    if (u > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | ((u >> 13) & 0x3ff));
    if (u >= 0x477ff000) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (u < 0x38800000) { /* below 2^-14: adding 1/2 lets the FPU round to 2^-24 */
        float a = f32_from_bits(u) + 0.5f;
        return (uint16_t)(sign | (f32_bits(a) - 0x3f000000));
    }
    u += 0xfff + ((u >> 13) & 1);
    return (uint16_t)(sign | ((u - 0x38000000) >> 13));
}

static void f32_encode(const float *x, void *blocks, size_t n)
{
    memcpy(blocks, x, n * sizeof *x);
}

static void f32_decode(const void *blocks, float *x, size_t n)
{
    memcpy(x, blocks, n * sizeof *x);
}

static void f16_encode(const float *x, void *blocks, size_t n)
{
    uint8_t *p = blocks;
    for (size_t i = 0; i < n; i++, p += 2) {
        uint16_t h = fmt_f32_to_f16(x[i]);
        memcpy(p, &h, 2);
    }
}

static void f16_decode(const void *blocks, float *x, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i++, p += 2) {
        uint16_t h;
        memcpy(&h, p, 2);
        x[i] = fmt_f16_to_f32(h);
    }
}

static void bf16_encode(const float *x, void *blocks, size_t n)
{
    uint8_t *p = blocks;
    for (size_t i = 0; i < n; i++, p += 2) {
        uint16_t h = fmt_f32_to_bf16(x[i]);
        memcpy(p, &h, 2);
    }
}

static void bf16_decode(const void *blocks, float *x, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i++, p += 2) {
        uint16_t h;
        memcpy(&h, p, 2);
        x[i] = fmt_bf16_to_f32(h);
    }
}

static const struct fmt_info table[] = {
    {"F32", FMT_F32, 1, 4, 1, true, true, 0, f32_encode, f32_decode, NULL},
    {"F16", FMT_F16, 1, 2, 1, true, true, 1, f16_encode, f16_decode, NULL},
    {"BF16", FMT_BF16, 1, 2, 1, true, true, 32, bf16_encode, bf16_decode, NULL},
    {"Q8_0", FMT_Q8_0, QK, sizeof(struct q8_0), 1, false, true, 7, fmt_q8_0_encode,
     fmt_q8_0_decode, NULL},
    {"Q5_1", FMT_Q5_1, QK, sizeof(struct q5_1), 1, false, true, 9, fmt_q5_1_encode,
     fmt_q5_1_decode, NULL},
    {"Q5_0", FMT_Q5_0, QK, sizeof(struct q5_0), 1, false, true, 8, fmt_q5_0_encode,
     fmt_q5_0_decode, fmt_q5_0_to_q8_0},
    {"Q4_1", FMT_Q4_1, QK, sizeof(struct q4_1), 1, false, true, 3, fmt_q4_1_encode,
     fmt_q4_1_decode, NULL},
    {"Q4_0", FMT_Q4_0, QK, sizeof(struct q4_0), 1, false, true, 2, fmt_q4_0_encode,
     fmt_q4_0_decode, NULL},
    {"IQ4_NL", FMT_IQ4_NL, QK, sizeof(struct iq4_nl), 1, false, true, 25,
     fmt_iq4_nl_encode, fmt_iq4_nl_decode, fmt_iq4_nl_to_q8_0},
    {"R4", FMT_R4, 1, 0, R4_ROWS, false, true, FMT_R4, NULL, NULL, NULL},
    {"Q6_K", FMT_Q6_K, QK_K, sizeof(struct q6_k), 1, false, false, 0, NULL,
     fmt_q6_k_decode, NULL},
    {"Q5_K", FMT_Q5_K, QK_K, sizeof(struct q5_k), 1, false, false, 0, NULL,
     fmt_q5_k_decode, NULL},
    {"Q4_K", FMT_Q4_K, QK_K, sizeof(struct q4_k), 1, false, false, 0, NULL,
     fmt_q4_k_decode, NULL},
    {"Q3_K", FMT_Q3_K, QK_K, sizeof(struct q3_k), 1, false, false, 0, NULL,
     fmt_q3_k_decode, NULL},
    {"Q2_K", FMT_Q2_K, QK_K, sizeof(struct q2_k), 1, false, false, 0, NULL,
     fmt_q2_k_decode, NULL},
    {"Q2_0", FMT_Q2_0, QK_2, sizeof(struct q2_0), 1, false, false, 0, NULL,
     fmt_q2_0_decode, fmt_q2_0_to_q8_0},
    {"TQ2_0", FMT_TQ2_0, QK_K, sizeof(struct tq2_0), 1, false, false, 0, NULL,
     fmt_tq2_0_decode, fmt_tq2_0_to_q8_0},
    {"TQ1_0", FMT_TQ1_0, QK_K, sizeof(struct tq1_0), 1, false, false, 0, NULL,
     fmt_tq1_0_decode, fmt_tq1_0_to_q8_0},
    {"Q1_0", FMT_Q1_0, QK_1, sizeof(struct q1_0), 1, false, false, 0, NULL,
     fmt_q1_0_decode, fmt_q1_0_to_q8_0},
};

enum { N_FORMATS = sizeof table / sizeof *table };

const struct fmt_info *fmt_at(size_t i)
{
    return i < N_FORMATS ? &table[i] : NULL;
}

const struct fmt_info *fmt_find(uint32_t type)
{
    for (size_t i = 0; i < N_FORMATS; i++)
        if ((uint32_t)table[i].type == type)
            return &table[i];
    return NULL;
}

const struct fmt_info *fmt_by_name(const char *name)
{
    for (size_t i = 0; i < N_FORMATS; i++)
        if (!strcasecmp(table[i].name, name))
            return &table[i];
    return NULL;
}

bool fmt_row_bytes(const struct fmt_info *f, uint64_t n, size_t *bytes)
{
    if (f->tile_rows > 1 || n % f->block_len || n / f->block_len > SIZE_MAX)
        return false;
    return size_mul((size_t)(n / f->block_len), f->block_bytes, bytes);
}

bool fmt_tile_bytes(const struct fmt_info *f, uint64_t n_cols, size_t *bytes)
{
    if (f->type != FMT_R4)
        return fmt_row_bytes(f, n_cols, bytes);
    if (n_cols > SIZE_MAX / 16) /* a column has 8.25 bytes and the head below 128 */
        return false;
    *bytes = r4_tile_bytes((size_t)n_cols);
    return true;
}

bool fmt_tensor_bytes(const struct fmt_info *f, uint64_t n_cols, uint64_t n_rows,
                      size_t *bytes)
{
    size_t tile_bytes;
    uint64_t n_tiles = n_rows / f->tile_rows + (n_rows % f->tile_rows != 0);
    return n_tiles <= SIZE_MAX && fmt_tile_bytes(f, n_cols, &tile_bytes) &&
           size_mul(tile_bytes, (size_t)n_tiles, bytes);
}

void fmt_encode_rows(const struct fmt_info *f, size_t n_cols, size_t n_rows,
                     const float *x, void *bytes)
{
    if (f->type == FMT_R4)
        fmt_r4_encode(n_cols, n_rows, x, bytes);
    else /* rows are whole blocks, one after another */
        f->encode(x, bytes, n_cols * n_rows);
}

void fmt_decode_row(const struct fmt_info *f, size_t n_cols, const void *tensor,
                    size_t row, float *out)
{
    if (f->type == FMT_R4)
        fmt_r4_decode_row(n_cols, tensor, row, out);
    else
        f->decode((const uint8_t *)tensor +
                      row * (n_cols / f->block_len) * f->block_bytes,
                  out, n_cols);
}
