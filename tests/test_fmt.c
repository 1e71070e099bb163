/* Number formats against arithmetic done another way: every half-precision value,
 * rounding at ties, block formats against blocks worked out by hand and against ggml's
 * own code (tests/data/ggml_blocks.bin, made by tools/gen_blocks.py). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rng.h"
#include "fmt/fmt.h"
#include "fmt/iq4_nl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The value of half-precision bits by definition (IEEE 754-2008, 3.4). */
static double half_value(uint16_t h)
{
    int e = (h >> 10) & 31, m = h & 1023;
    double v = e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
    return h & 0x8000 ? -v : v;
}

static void every_half_converts_exactly(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 65536; i++) {
        uint16_t h = (uint16_t)i;
        float f = fmt_f16_to_f32(h);
        if (((h >> 10) & 31) == 31) {
            assert_true((h & 1023) ? isnan(f) : isinf(f));
            if (h & 1023)
                assert_true(isnan(fmt_f16_to_f32(fmt_f32_to_f16(f))));
            else
                assert_int_equal(fmt_f32_to_f16(f), h);
            continue;
        }
        assert_true((double)f == half_value(h));
        assert_int_equal(fmt_f32_to_f16(f), h);
    }
}

/* Every midpoint between neighbours goes to the even one; a step beside it does not. */
static void half_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (uint16_t h = 0; h < 0x7bff; h++) {
        float mid = (float)((half_value(h) + half_value((uint16_t)(h + 1))) / 2);
        assert_int_equal(fmt_f32_to_f16(mid), h & 1 ? h + 1 : h);
        assert_int_equal(fmt_f32_to_f16(nextafterf(mid, 0)), h);
        assert_int_equal(fmt_f32_to_f16(nextafterf(mid, INFINITY)), h + 1);
        assert_int_equal(fmt_f32_to_f16(-mid), 0x8000 | (h & 1 ? h + 1 : h));
    }
    assert_int_equal(fmt_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(fmt_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(fmt_f32_to_f16(1e30f), 0x7c00);
    assert_int_equal(fmt_f32_to_f16(1e-30f), 0);
}

static void bfloat_rounds_to_nearest_even(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 3);
    for (int i = 0; i < 200000; i++) {
        uint32_t u = (uint32_t)rng_u64(&r);
        if ((u & 0x7f800000) == 0x7f800000)
            continue;
        float f, lo, hi;
        uint32_t low = u & 0xffff0000, high = low + 0x10000;
        memcpy(&f, &u, 4);
        memcpy(&lo, &low, 4);
        memcpy(&hi, &high, 4);
        uint16_t got = fmt_f32_to_bf16(f);
        double dl = fabs((double)f - (double)lo), dh = fabs((double)hi - (double)f);
        if (dl != dh && isfinite(hi))
            assert_int_equal(got, (dl < dh ? low : high) >> 16);
        else if (isfinite(hi))
            assert_int_equal(got & 1, 0);
        assert_true(fmt_bf16_to_f32((uint16_t)(low >> 16)) == lo);
    }
    assert_true(isnan(fmt_bf16_to_f32(fmt_f32_to_bf16(NAN))));
}

/* -8..7 times 0.5 twice over: the largest magnitude (-4) gets code 0, the scale is 0.5.
 */
static void q4_0_block_by_hand(void **state)
{
    (void)state;
    float x[32], y[32];
    uint8_t block[18];
    for (int i = 0; i < 32; i++)
        x[i] = 0.5f * (float)(i % 16 - 8);
    const struct fmt_info *f = fmt_by_name("q4_0");
    f->encode(x, block, 32);
    assert_int_equal(block[0] | block[1] << 8, 0x3800); /* f16 0.5 */
    for (int j = 0; j < 16; j++)
        assert_int_equal(block[2 + j], j | j << 4);
    f->decode(block, y, 32);
    assert_memory_equal(x, y, sizeof x);
}

static void q4_1_block_by_hand(void **state)
{
    (void)state;
    float x[32], y[32];
    uint8_t block[20];
    for (int i = 0; i < 32; i++)
        x[i] = 3 + 0.25f * (float)(i < 16 ? i : 31 - i);
    const struct fmt_info *f = fmt_by_name("Q4_1");
    f->encode(x, block, 32);
    assert_int_equal(block[0] | block[1] << 8, 0x3400); /* f16 0.25 */
    assert_int_equal(block[2] | block[3] << 8, 0x4200); /* f16 3 */
    for (int j = 0; j < 16; j++)
        assert_int_equal(block[4 + j], j | (15 - j) << 4);
    f->decode(block, y, 32);
    assert_memory_equal(x, y, sizeof x);
}

/* Every 6-bit code once or more, at places worked out from the layout's definition. */
static void q6_k_block_by_hand(void **state)
{
    (void)state;
    uint8_t block[210] = {0};
    float y[256];
    const struct fmt_info *f = fmt_by_name("q6_k");
    block[209] = 0x38; /* f16 0.5 */
    for (int s = 0; s < 16; s++)
        block[192 + s] = (uint8_t)(int8_t)(s - 8);
    for (int i = 0; i < 256; i++) {
        int code = i * 37 % 64, half = i / 128, quarter = i % 128 / 32, l = i % 32;
        block[half * 64 + quarter % 2 * 32 + l] |=
            (uint8_t)((code & 15) << (quarter < 2 ? 0 : 4));
        block[128 + half * 32 + l] |= (uint8_t)((code >> 4) << (2 * quarter));
    }
    f->decode(block, y, 256);
    for (int i = 0; i < 256; i++)
        assert_true(y[i] == 0.5f * (float)(i / 16 - 8) * (float)(i * 37 % 64 - 32));
    assert_null(f->encode);
}

static void q8_0_block_by_hand(void **state)
{
    (void)state;
    float x[32], y[32];
    uint8_t block[34];
    for (int i = 0; i < 32; i++)
        x[i] = 0.125f * (float)(i * 8 - 121);
    const struct fmt_info *f = fmt_by_name("Q8_0"); /* largest: 127 * 0.125 */
    f->encode(x, block, 32);
    assert_int_equal(block[0] | block[1] << 8, 0x3000); /* f16 0.125 */
    for (int i = 0; i < 32; i++)
        assert_int_equal((int8_t)block[2 + i], i * 8 - 121);
    f->decode(block, y, 32);
    assert_memory_equal(x, y, sizeof x);
}

/* ---- ggml's own code ---- */

enum { DECODED, ENCODED, MOST_NUMBERS = 1024 };

/* One entry of the file; false at its end. */
struct blocks {
    uint32_t type, kind, block_len, block_bytes, n;
    uint8_t bytes[4096];
    float x[MOST_NUMBERS];
};

static bool next_blocks(FILE *f, struct blocks *b)
{
    size_t got = fread(b, 4, 5, f);
    if (!got)
        return false;
    assert_int_equal(got, 5);
    assert_true(b->n * b->block_bytes <= sizeof b->bytes);
    assert_true(b->n * b->block_len <= MOST_NUMBERS);
    assert_int_equal(fread(b->bytes, b->block_bytes, b->n, f), b->n);
    assert_int_equal(fread(b->x, 4 * b->block_len, b->n, f), b->n);
    return true;
}

static void check_decoded(const struct fmt_info *f, const struct blocks *b)
{
    static float got[MOST_NUMBERS];
    size_t n = b->n * b->block_len;
    memset(got, 0xee, sizeof got);
    f->decode(b->bytes, got, n);
    for (size_t i = 0; i < n; i++)
        if (memcmp(&got[i], &b->x[i], 4))
            fail_msg("%s number %zu: %a, not %a", f->name, i, (double)got[i],
                     (double)b->x[i]);
    for (size_t k = 0; k < b->n; k++) /* one block alone, and nothing behind it */
    {
        memset(got, 0xee, sizeof got);
        f->decode(b->bytes + k * b->block_bytes, got, b->block_len);
        assert_memory_equal(got, b->x + k * b->block_len, 4 * b->block_len);
        assert_memory_equal(got + b->block_len, "\xee\xee\xee\xee", 4);
    }
}

/* The same numbers by way of Q8_0. */
static void check_to_q8_0(const struct fmt_info *f, const struct blocks *b)
{
    static float got[MOST_NUMBERS];
    static uint8_t q8[MOST_NUMBERS / 32 * 34 + 1];
    size_t n = b->n * b->block_len;
    if (!f->to_q8_0)
        return;
    memset(q8, 0xee, sizeof q8);
    f->to_q8_0(b->bytes, q8, n);
    assert_int_equal(q8[n / 32 * 34], 0xee);
    for (size_t i = 0; i < n / 32 * 34; i++)
        assert_true(i % 34 < 2 || q8[i] != 0x80); /* kernels want no -128 */
    fmt_find(FMT_Q8_0)->decode(q8, got, n);
    assert_memory_equal(got, b->x, 4 * n);
}

static void ggml_gives_the_same_bits(void **state)
{
    (void)state;
    static struct blocks b;
    static uint8_t got[sizeof b.bytes];
    char path[512];
    size_t n_decoded = 0, n_encoded = 0;
    const char *root = getenv("RUNT_SOURCE_ROOT");
    snprintf(path, sizeof path, "%s/tests/data/ggml_blocks.bin", root ? root : ".");
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("%s is missing", path);
    while (next_blocks(file, &b)) {
        const struct fmt_info *f = fmt_find(b.type);
        assert_non_null(f);
        assert_int_equal(f->block_len, b.block_len);
        assert_int_equal(f->block_bytes, b.block_bytes);
        if (b.kind == DECODED) {
            check_decoded(f, &b);
            check_to_q8_0(f, &b);
            n_decoded++;
            continue;
        }
        memset(got, 0xee, sizeof got);
        f->encode(b.x, got, b.n * b.block_len);
        for (size_t i = 0; i < b.n * b.block_bytes; i++)
            if (got[i] != b.bytes[i])
                fail_msg("%s block %zu byte %zu: %02x, not %02x", f->name,
                         i / b.block_bytes, i % b.block_bytes, got[i], b.bytes[i]);
        assert_int_equal(got[b.n * b.block_bytes], 0xee);
        n_encoded++;
    }
    fclose(file);
    assert_int_equal(n_decoded, 12);
    assert_int_equal(n_encoded, 2);
}

/* ---- IQ4_NL, rounded our own way ---- */

static void iq4_nl_finds_the_nearest(void **state)
{
    (void)state;
    for (int i = -150 * 64; i <= 150 * 64; i++) {
        float v = (float)i / 64;
        int got = iq4_nl_nearest(v), best = 0;
        for (int k = 1; k < IQ4_NL_CODES; k++) /* of two as near the larger */
            if (fabsf(v - (float)iq4_nl_values[k]) <=
                fabsf(v - (float)iq4_nl_values[best]))
                best = k;
        assert_int_equal(got, best);
    }
    assert_int_equal(iq4_nl_nearest(INFINITY), 15);
    assert_int_equal(iq4_nl_nearest(-INFINITY), 0);
    assert_in_range(iq4_nl_nearest(NAN), 0, 15);
}

static double iq4_nl_error(const float *x, double d)
{
    double e = 0;
    for (int i = 0; i < 32; i++) {
        double least = HUGE_VAL;
        for (int k = 0; k < IQ4_NL_CODES; k++)
            least = fmin(least, fabs((double)x[i] - d * iq4_nl_values[k]));
        e += least * least;
    }
    return e;
}

/* Against a search among 4000 scales: the errors of 200 blocks together. */
static void iq4_nl_rounds_well(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 5);
    const struct fmt_info *f = fmt_by_name("iq4_nl");
    double ours = 0, best = 0, q4_0 = 0;
    for (int n = 0; n < 200; n++) {
        float x[32], y[32], z[32], amax = 0;
        uint8_t block[18];
        for (int i = 0; i < 32; i++) {
            x[i] = rng_normal(&r);
            amax = fmaxf(amax, fabsf(x[i]));
        }
        f->encode(x, block, 32);
        f->decode(block, y, 32);
        fmt_by_name("q4_0")->encode(x, block, 32);
        fmt_by_name("q4_0")->decode(block, z, 32);
        double least = HUGE_VAL;
        for (int k = -2000; k < 2000; k++)
            least = fmin(least, iq4_nl_error(x, (double)amax / 60 * (k + 0.5) / 2000));
        best += least;
        for (int i = 0; i < 32; i++) {
            ours += pow((double)(x[i] - y[i]), 2);
            q4_0 += pow((double)(x[i] - z[i]), 2);
        }
    }
    print_message("# IQ4_NL: error %.4f of the least, %.3f of Q4_0's\n", ours / best,
                  ours / q4_0);
    assert_true(ours <= 1.02 * best);
}

/* ---- all block types that are written ---- */

/* Rounding moves no value by more than its bound: a half-precision scale is off by at
 * most 2^-11 of itself or, below 2^-14, by 2^-25, times the largest code; a code is at
 * most half a step off (Q4_0 and Q5_0 clip up to one step on the side without code 16
 * or 32). */
static void rounding_errors_are_bounded(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 7);
    for (int n = 0; n < 2000; n++) {
        float x[32], y[32], lo = INFINITY, hi = -INFINITY, amax = 0;
        float scale = ldexpf(1, n % 20 - 10);
        uint8_t block[40];
        for (int i = 0; i < 32; i++) {
            x[i] = scale * rng_normal(&r);
            lo = fminf(lo, x[i]);
            hi = fmaxf(hi, x[i]);
            amax = fmaxf(amax, fabsf(x[i]));
        }
        const struct {
            const char *name;
            float bound;
        } cases[] = {
            {"q8_0", amax / 127 * 0.5f + amax * 0x1p-11f + 127 * 0x1p-25f},
            {"q4_0", amax / 8 + amax * 0x1p-11f + 8 * 0x1p-25f},
            {"q4_1",
             (hi - lo) / 15 * 0.5f + (hi - lo + 2 * amax) * 0x1p-11f + 16 * 0x1p-25f},
            {"q5_0", amax / 16 + amax * 0x1p-11f + 16 * 0x1p-25f},
            {"q5_1",
             (hi - lo) / 31 * 0.5f + (hi - lo + 2 * amax) * 0x1p-11f + 32 * 0x1p-25f},
            /* steps up to 23 of 96 (k_lo), and the largest may be cut to 113 of 144 */
            {"iq4_nl", amax * 0.3f},
        };
        for (int c = 0; c < 6; c++) {
            const struct fmt_info *f = fmt_by_name(cases[c].name);
            f->encode(x, block, 32);
            f->decode(block, y, 32);
            for (int i = 0; i < 32; i++)
                assert_true(fabsf(x[i] - y[i]) <= cases[c].bound * 1.0001f);
        }
    }
}

/* Zeros, denormals, huge and not finite: no trap, and what is finite stays near. */
static void odd_values_do_no_harm(void **state)
{
    (void)state;
    static const float values[] = {0,     -0.0f,  1e-45f,   -1e-40f, 1e-38f,
                                   1e38f, -3e38f, INFINITY, NAN};
    float x[32], y[32];
    uint8_t block[640];
    for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
        for (int i = 0; i < 32; i++)
            x[i] = i % 3 ? values[v] : 0;
        for (size_t k = 0; fmt_at(k); k++) {
            if (!fmt_at(k)->is_written)
                continue;
            fmt_encode_rows(fmt_at(k), 32, 1, x, block);
            fmt_decode_row(fmt_at(k), 32, block, 0, y);
            for (int i = 0; i < 32 && values[v] == 0; i++)
                assert_true(y[i] == 0);
        }
    }
}

static void the_table_is_consistent(void **state)
{
    (void)state;
    size_t bytes, n = 0;
    for (; fmt_at(n); n++) {
        const struct fmt_info *f = fmt_at(n);
        assert_ptr_equal(fmt_find((uint32_t)f->type), f);
        char lower[16];
        snprintf(lower, sizeof lower, "%s", f->name);
        for (char *p = lower; *p; p++)
            if (*p >= 'A' && *p <= 'Z')
                *p = (char)(*p + 32);
        assert_ptr_equal(fmt_by_name(lower), f);
        assert_true(f->block_len == 1 || !fmt_tensor_bytes(f, 63, 1, &bytes));
        assert_false(fmt_tensor_bytes(f, 512, UINT64_MAX / 4, &bytes));
        if (f->type == FMT_R4)
            continue;
        assert_true(fmt_row_bytes(f, 512, &bytes));
        assert_int_equal(bytes, 512 / f->block_len * f->block_bytes);
        assert_int_equal(f->tile_rows, 1);
        assert_true(fmt_tile_bytes(f, 512, &bytes));
        assert_int_equal(bytes, 512 / f->block_len * f->block_bytes);
        assert_true(fmt_tensor_bytes(f, 512, 7, &bytes));
        assert_int_equal(bytes, 7 * (512 / f->block_len * f->block_bytes));
    }
    assert_false(fmt_row_bytes(fmt_by_name("f32"), UINT64_MAX / 2, &bytes));
    assert_false(fmt_row_bytes(fmt_by_name("q8_0"), UINT64_MAX - 31, &bytes));
    assert_int_equal(n, 19);
    assert_null(fmt_find(9999));
    assert_null(fmt_by_name("q5_9"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_converts_exactly),
        cmocka_unit_test(half_rounds_to_nearest_even),
        cmocka_unit_test(bfloat_rounds_to_nearest_even),
        cmocka_unit_test(q4_0_block_by_hand),
        cmocka_unit_test(q4_1_block_by_hand),
        cmocka_unit_test(q6_k_block_by_hand),
        cmocka_unit_test(q8_0_block_by_hand),
        cmocka_unit_test(ggml_gives_the_same_bits),
        cmocka_unit_test(iq4_nl_finds_the_nearest),
        cmocka_unit_test(iq4_nl_rounds_well),
        cmocka_unit_test(rounding_errors_are_bounded),
        cmocka_unit_test(odd_values_do_no_harm),
        cmocka_unit_test(the_table_is_consistent),
    };
    return cmocka_run_group_tests_name("fmt", tests, NULL, NULL);
}
