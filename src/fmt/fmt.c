/* Owns the type table and single-number conversions. */
#include "fmt/fmt_impl.h"

#include "base/mem.h"

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

/* The last column is llama.cpp's general.file_type for "mostly this type". */
static const struct fmt_info table[] = {
    {"F32", FMT_F32, 1, 4, true, 0, f32_encode, f32_decode},
    {"F16", FMT_F16, 1, 2, true, 1, f16_encode, f16_decode},
    {"BF16", FMT_BF16, 1, 2, true, 32, bf16_encode, bf16_decode},
    {"Q8_0", FMT_Q8_0, 32, sizeof(struct q8_0), false, 7, fmt_q8_0_encode,
     fmt_q8_0_decode},
    {"Q4_0", FMT_Q4_0, 32, sizeof(struct q4_0), false, 2, fmt_q4_0_encode,
     fmt_q4_0_decode},
    {"Q4_1", FMT_Q4_1, 32, sizeof(struct q4_1), false, 3, fmt_q4_1_encode,
     fmt_q4_1_decode},
    {"Q6_K", FMT_Q6_K, QK_K, sizeof(struct q6_k), false, 18, NULL, fmt_q6_k_decode},
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
    if (n % f->block_len || n / f->block_len > SIZE_MAX)
        return false;
    return size_mul((size_t)(n / f->block_len), f->block_bytes, bytes);
}
