/* R4 against its definition worked out another way: where each bit lies, what padding
 * holds, how far a group may be off, what odd rows become, and the same bytes from
 * every compiler. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "fmt/fmt.h"
#include "fmt/r4.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { MAX_COLS = 130, MAX_ROWS = 33, GUARD = 64 };

static const struct fmt_info *r4(void)
{
    return fmt_find(FMT_R4);
}

/* Bytes of a tile, its head and columns counted one by one. */
static size_t slow_tile_bytes(size_t n_cols, size_t *head)
{
    size_t n = 16 * 2;
    for (size_t c = 0; c < n_cols; c += 64)
        n += 16;
    while (n % 64)
        n++;
    *head = n;
    for (size_t c = 0; c < n_cols; c += 64)
        n += 16 * 64 / 2;
    return n;
}

static double half_value(const uint8_t *p)
{
    int bits = p[0] | p[1] << 8, e = (bits >> 10) & 31, m = bits & 1023;
    double v = e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
    return bits & 0x8000 ? -v : v;
}

static int slow_code(const uint8_t *tile, size_t head, size_t r, size_t c)
{
    uint8_t b = tile[head + c / 8 * 64 + 4 * r + c % 4];
    return c / 4 % 2 ? b / 16 : b % 16;
}

/* Random bytes but for the row scales, which are finite: every shape decodes to what
 * the definition says. */
static void every_bit_has_its_place(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 1);
    float out[MAX_COLS];
    for (size_t n_cols = 1; n_cols <= MAX_COLS; n_cols++) {
        for (size_t n_rows = 1; n_rows <= MAX_ROWS; n_rows += n_cols % 7 ? 8 : 1) {
            size_t head, tile = slow_tile_bytes(n_cols, &head), size = 0;
            assert_int_equal(r4_tile_bytes(n_cols), tile);
            assert_true(fmt_tile_bytes(r4(), n_cols, &size));
            assert_int_equal(size, tile);
            assert_true(fmt_tensor_bytes(r4(), n_cols, n_rows, &size));
            assert_int_equal(size, (n_rows + 15) / 16 * tile);
            uint8_t *bytes = mem_alloc(size);
            for (size_t i = 0; i < size; i++)
                bytes[i] = (uint8_t)rng_u64(&rng);
            for (size_t row = 0; row < n_rows; row++)
                bytes[row / 16 * tile + row % 16 * 2 + 1] &= 0xbf; /* below 2 */
            for (size_t row = 0; row < n_rows; row++) {
                const uint8_t *t = bytes + row / 16 * tile;
                size_t r = row % 16;
                fmt_decode_row(r4(), n_cols, bytes, row, out);
                for (size_t c = 0; c < n_cols; c++) {
                    int scale = (int8_t)t[32 + c / 64 * 16 + r];
                    double want =
                        half_value(t + 2 * r) * scale * (slow_code(t, head, r, c) - 8);
                    assert_true((double)out[c] == want);
                }
            }
            mem_free(bytes);
        }
    }
}

static void random_rows(struct rng *rng, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = 0.02f * rng_normal(rng);
        if (rng_u64(rng) % 97 == 0)
            x[i] *= 20; /* outliers, as GPT-2 has them */
    }
}

/* Whatever the memory held before, all bytes are set, padding to zeros (but filling
 * codes of a group that has columns to 8), nothing past the end; and a row's bytes do
 * not depend on the rows around it. */
static void encoding_sets_every_byte(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 2);
    float *x = mem_array((size_t)MAX_ROWS * MAX_COLS, sizeof *x);
    for (size_t n_cols = 1; n_cols <= MAX_COLS; n_cols++) {
        size_t n_rows = 1 + (n_cols * 5) % MAX_ROWS, head, size;
        size_t tile = slow_tile_bytes(n_cols, &head);
        assert_true(fmt_tensor_bytes(r4(), n_cols, n_rows, &size));
        uint8_t *a = mem_alloc(size + GUARD), *b = mem_alloc(size + GUARD);
        uint8_t *alone = mem_alloc(tile);
        random_rows(&rng, x, n_rows * n_cols);
        memset(a, 0x5a, size + GUARD);
        memset(b, 0xff, size + GUARD);
        fmt_encode_rows(r4(), n_cols, n_rows, x, a);
        fmt_encode_rows(r4(), n_cols, n_rows, x, b);
        assert_memory_equal(a, b, size);
        for (size_t i = 0; i < GUARD; i++)
            assert_true(a[size + i] == 0x5a && b[size + i] == 0xff);
        for (size_t row = 0; row < (n_rows + 15) / 16 * 16; row++) {
            const uint8_t *t = a + row / 16 * tile;
            size_t r = row % 16;
            bool is_there = row < n_rows;
            for (size_t c = n_cols; c < (n_cols + 63) / 64 * 64; c++)
                assert_int_equal(slow_code(t, head, r, c), is_there ? 8 : 0);
            for (size_t i = 32 + (n_cols + 63) / 64 * 16; i < head; i++)
                assert_int_equal(t[i], 0);
            if (!is_there) {
                assert_int_equal(t[2 * r] | t[2 * r + 1], 0);
                for (size_t g = 0; g * 64 < n_cols; g++)
                    assert_int_equal(t[32 + g * 16 + r], 0);
                for (size_t c = 0; c < n_cols; c++)
                    assert_int_equal(slow_code(t, head, r, c), 0);
                continue;
            }
            fmt_encode_rows(r4(), n_cols, 1, x + row * n_cols, alone);
            assert_memory_equal(t + 2 * r, alone, 2);
            for (size_t g = 0; g * 64 < n_cols; g++)
                assert_int_equal(t[32 + g * 16 + r], alone[32 + g * 16]);
            for (size_t c = 0; c < n_cols; c++)
                assert_int_equal(slow_code(t, head, r, c),
                                 slow_code(alone, head, 0, c));
        }
        mem_free(a);
        mem_free(b);
        mem_free(alone);
    }
    mem_free(x);
}

/* The squared error of n numbers with the best codes for a scale. */
static double error_of(const float *x, size_t n, double scale)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double best = (double)INFINITY;
        for (int code = 0; code < 16; code++)
            best = fmin(best, fabs((double)x[i] - scale * (code - 8)));
        sum += best * best;
    }
    return sum;
}

/* Against a look at all 255 scales.  With max the group's largest magnitude, the scale
 * s next above max / 8 puts every number within s: half a step, or on the side without
 * code 16 max - 7 s <= s; that scale is among those that are tried. */
static void the_scale_is_nearly_the_best(void **state)
{
    (void)state;
    enum { N = 64 * 5 + 17, N_ROWS = 24 };
    struct rng rng;
    rng_seed(&rng, 3);
    float x[N], out[N];
    uint8_t tile[4096];
    double all = 0, all_best = 0;
    assert_true(r4_tile_bytes(N) <= sizeof tile);
    for (int row = 0; row < N_ROWS; row++) {
        random_rows(&rng, x, N);
        for (size_t i = 0; i < N; i++)
            x[i] *= ldexpf(1, row % 24 - 12);
        fmt_encode_rows(r4(), N, 1, x, tile);
        fmt_decode_row(r4(), N, tile, 0, out);
        double row_scale = half_value(tile), row_max = 0;
        for (size_t i = 0; i < N; i++)
            row_max = fmax(row_max, fabs((double)x[i]));
        assert_true(row_scale * 127 * 7 >= row_max);
        for (size_t g = 0; g * 64 < N; g++) {
            const float *xg = x + g * 64;
            size_t n = N - g * 64 < 64 ? N - g * 64 : 64;
            double got = 0, best = (double)INFINITY, max = 0;
            for (size_t i = 0; i < n; i++) {
                double d = (double)out[g * 64 + i] - (double)xg[i];
                got += d * d;
                max = fmax(max, fabs((double)xg[i]));
            }
            for (int scale = -127; scale <= 127; scale++)
                best = fmin(best, error_of(xg, n, row_scale * scale));
            double s = max / 8 + row_scale;
            assert_true(got <= (double)n * s * s);
            assert_true(got <= best * 1.15 + 1e-30);
            double stored = error_of(xg, n, row_scale * (int8_t)tile[32 + g * 16]);
            assert_true(got <= stored * 1.000001 + 1e-30); /* codes are the nearest */
            all += got;
            all_best += best;
        }
    }
    print_message("squared error over the least possible: %.4f\n", all / all_best);
    assert_true(all <= 1.01 * all_best);
}

/* The error of GPT-2-like rows is that of the search, not of a step of 1/8 (0.0955). */
static void the_search_earns_its_time(void **state)
{
    (void)state;
    enum { N = 768, N_ROWS = 64 };
    struct rng rng;
    rng_seed(&rng, 4);
    float x[N], out[N];
    uint8_t *tile = mem_alloc(r4_tile_bytes(N));
    double sq = 0, e = 0;
    for (int row = 0; row < N_ROWS; row++) {
        for (size_t i = 0; i < N; i++)
            x[i] = 0.02f * rng_normal(&rng);
        fmt_encode_rows(r4(), N, 1, x, tile);
        fmt_decode_row(r4(), N, tile, 0, out);
        for (size_t i = 0; i < N; i++) {
            double d = (double)out[i] - (double)x[i];
            e += d * d;
            sq += (double)x[i] * (double)x[i];
        }
    }
    print_message("relative error of normal numbers: %.5f\n", sqrt(e / sq));
    assert_true(sqrt(e / sq) < 0.0905);
    mem_free(tile);
}

/* ---- odd rows ---- */

static void one_row(const float *x, size_t n, float *out, uint16_t *row_scale)
{
    uint8_t tile[2048];
    assert_true(r4_tile_bytes(n) <= sizeof tile);
    fmt_encode_rows(r4(), n, 1, x, tile);
    fmt_decode_row(r4(), n, tile, 0, out);
    memcpy(row_scale, tile, 2);
}

static void odd_rows_stay_near(void **state)
{
    (void)state;
    enum { N = 100 };
    float x[N], out[N];
    uint16_t scale;
    memset(x, 0, sizeof x);
    x[3] = -0.0f;
    one_row(x, N, out, &scale);
    assert_int_equal(scale, 0);
    for (size_t i = 0; i < N; i++)
        assert_true(out[i] == 0);
    /* constant rows: a multiple of the scale is within its rounding */
    static const float values[] = {0.5f,     -3,       1e-3f,      -65504, 5e7f,
                                   0x1p-20f, 0x1p-24f, 0x1.8p-25f, 1e-6f,  -0x1p-23f};
    for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
        for (size_t i = 0; i < N; i++)
            x[i] = values[v];
        one_row(x, N, out, &scale);
        assert_true(scale > 0 && scale < 0x7c00);
        double tol = fmax(0.005 * fabs((double)values[v]), 0x1p-24);
        for (size_t i = 0; i < N; i++)
            assert_true(fabs((double)out[i] - (double)values[v]) <= tol);
    }
    /* below half the smallest step: zeros; exactly at it: either */
    for (size_t i = 0; i < N; i++)
        x[i] = i % 2 ? 0x1.fp-26f : -FLT_TRUE_MIN;
    one_row(x, N, out, &scale);
    for (size_t i = 0; i < N; i++)
        assert_true(out[i] == 0);
    /* one huge number costs the others of its row, not itself */
    for (size_t i = 0; i < N; i++)
        x[i] = i == 70 ? 1e7f : 0.25f;
    one_row(x, N, out, &scale);
    assert_true(fabsf(out[70] - 1e7f) <= 1e5f);
    for (size_t i = 0; i < N; i++)
        assert_true(i == 70 || fabsf(out[i]) <= 65504);
    /* an outlier in another group costs a group nothing but the scale's fineness */
    for (size_t i = 0; i < N; i++)
        x[i] = i == 70 ? 10 : 0.25f * (float)((int)(i % 16) - 8);
    one_row(x, N, out, &scale);
    for (size_t i = 0; i < 64; i++)
        assert_true(fabsf(out[i] - x[i]) <= 0.13f);
}

static void what_cannot_be_stored_shows(void **state)
{
    (void)state;
    enum { N = 70 };
    static const float bad[] = {NAN, -NAN, INFINITY, -INFINITY, FLT_MAX, -1e30f, 6e7f};
    float x[N], out[N];
    for (size_t v = 0; v < sizeof bad / sizeof *bad; v++) {
        for (size_t at = 0; at < N; at += 23) {
            uint16_t scale;
            bool finite = true;
            for (size_t i = 0; i < N; i++)
                x[i] = i == at ? bad[v] : 1;
            one_row(x, N, out, &scale);
            for (size_t i = 0; i < N; i++)
                finite = finite && isfinite(out[i]);
            /* 65504 * 127 * 7 = 5.8e7 is the most */
            assert_false(finite);
            assert_int_equal(scale, 0x7c00);
        }
    }
    for (size_t i = 0; i < N; i++)
        x[i] = 65504.0f * 127 * 7;
    uint16_t scale;
    one_row(x, N, out, &scale);
    assert_int_equal(scale, 0x7bff);
    assert_true(fabsf(out[0] / x[0] - 1) < 0.004f);
}

/* ---- the same everywhere ---- */

static void the_bytes_are_the_same_everywhere(void **state)
{
    (void)state;
    enum { N_COLS = 200, N_ROWS = 37 };
    struct rng rng;
    size_t size;
    float *x = mem_array((size_t)N_COLS * N_ROWS, sizeof *x);
    assert_true(fmt_tensor_bytes(r4(), N_COLS, N_ROWS, &size));
    uint8_t *bytes = mem_alloc(size);
    rng_seed(&rng, 5);
    for (size_t i = 0; i < (size_t)N_COLS * N_ROWS; i++) /* no libm: the same bits */
        x[i] = (float)(int32_t)rng_u64(&rng) * 0x1p-36f * (float)(int8_t)rng_u64(&rng);
    fmt_encode_rows(r4(), N_COLS, N_ROWS, x, bytes);
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++)
        h = (h ^ bytes[i]) * 0x100000001b3u;

    assert_true(h == 0x1c92e36545cc6fd2u);
    mem_free(bytes);
    mem_free(x);
}

static void sizes_do_not_overflow(void **state)
{
    (void)state;
    size_t size;
    static const uint64_t lots[] = {SIZE_MAX, SIZE_MAX - 1, SIZE_MAX - 63, SIZE_MAX / 2,
                                    SIZE_MAX / 8};
    for (size_t i = 0; i < sizeof lots / sizeof *lots; i++) {
        assert_false(fmt_tensor_bytes(r4(), lots[i], 1, &size));
        assert_false(fmt_tensor_bytes(r4(), 1, lots[i], &size));
        assert_false(fmt_tensor_bytes(r4(), lots[i], lots[i], &size));
    }
    assert_false(fmt_row_bytes(r4(), 64, &size));
    assert_true(fmt_tensor_bytes(r4(), 768, 50257, &size));
    assert_int_equal(size, 3142 * (256 + 96 * 64));
    assert_int_equal(r4()->file_type, FMT_R4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bit_has_its_place),
        cmocka_unit_test(encoding_sets_every_byte),
        cmocka_unit_test(the_scale_is_nearly_the_best),
        cmocka_unit_test(the_search_earns_its_time),
        cmocka_unit_test(odd_rows_stay_near),
        cmocka_unit_test(what_cannot_be_stored_shows),
        cmocka_unit_test(the_bytes_are_the_same_everywhere),
        cmocka_unit_test(sizes_do_not_overflow),
    };
    return cmocka_run_group_tests_name("r4", tests, NULL, NULL);
}
