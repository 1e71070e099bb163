/* Rounding with feedback: its algebra against plain double loops, its grids against the
 * decoders, its gain on correlated inputs; calibration against moments computed here.
 */
#include "gptq_fixture.h"
#include "model_fixture.h"

#include "back/blas.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/rng.h"
#include "quant/calib.h"
#include "quant/codec.h"
#include "quant/gptq.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct runt_err err;

static void test_inverse_factor(void **state)
{
    (void)state;
    for (size_t n = 1; n < 70; n += 17) {
        struct calib_moment m = fixture_moment(n, 400, n);
        double *a = fixture_room(n * n, sizeof *a), *h = fixture_room(n * n, sizeof *h);
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j <= i; j++)
                a[i * n + j] = h[i * n + j] = h[j * n + i] =
                    (double)m.h[i * n + j] / 400 + (i == j);
        assert_int_equal(blas_inverse_factor(fixture_blas(), n, a, &err), 0);
        for (size_t i = 0; i < n; i++) /* (U^T U) H is the identity */
            for (size_t j = 0; j < n; j++) {
                double sum = 0;
                for (size_t k = 0; k < n; k++) {
                    double inv = 0;
                    for (size_t l = 0; l <= i && l <= k; l++)
                        inv += a[l * n + i] * a[l * n + k];
                    sum += inv * h[k * n + j];
                }
                /* double precision times a condition number below 1e4 */
                assert_true(fabs(sum - (i == j)) < 1e-10);
            }
        mem_free(a);
        mem_free(h);
        mem_free(m.h);
    }
    double bad[4] = {1, 0, 2, 1}; /* eigenvalues 3 and -1 */
    assert_int_equal(blas_inverse_factor(fixture_blas(), 2, bad, &err), RUNT_E_INVALID);
}

static const enum fmt_type types[] = {FMT_R4,   FMT_Q4_0, FMT_Q4_1,  FMT_Q5_0,
                                      FMT_Q5_1, FMT_Q8_0, FMT_IQ4_NL};
enum { N_TYPES = sizeof types / sizeof *types };

static void draw_row(struct rng *rng, size_t n, int pattern, float *w)
{
    for (size_t i = 0; i < n; i++)
        w[i] = pattern == 1   ? 0
               : pattern == 2 ? 0.25f
               : pattern == 3 ? rng_normal(rng) * 1e-7f
               : pattern == 4 ? (i % 61 ? 0.01f : 3.0f) * rng_normal(rng)
                              : rng_normal(rng) * 0.1f;
}

/* What codec_round says is what decoders give, and no worse than plain rounding. */
static void test_grids_decode(void **state)
{
    (void)state;
    enum { ROWS = 17, COLS = 192 };
    static float w[ROWS][COLS], got[COLS], plain[COLS], want[ROWS][COLS], ones[64];
    struct rng rng;
    rng_seed(&rng, 7);
    for (size_t i = 0; i < 64; i++)
        ones[i] = 1;
    for (size_t t = 0; t < N_TYPES; t++) {
        const struct fmt_info *f = fmt_find(types[t]);
        size_t bytes, group = codec_group(f);
        assert_true(fmt_tensor_bytes(f, COLS, ROWS, &bytes));
        uint8_t *a = fixture_room(bytes, 1), *b = fixture_room(bytes, 1);
        for (size_t r = 0; r < ROWS; r++) {
            draw_row(&rng, COLS, (int)(r % 6), w[r]);
            uint16_t row = codec_row(f, w[r], COLS);
            for (size_t j = 0; j < COLS; j += group) {
                struct codec_grid g;
                int codes[CODEC_MAX_GROUP];
                codec_fit(f, row, w[r] + j, ones, group, &g);
                for (size_t k = 0; k < group; k++)
                    codes[k] = codec_round(&g, w[r][j + k], &want[r][j + k]);
                codec_store(f, COLS, r, j / group, row, &g, codes, group, a);
            }
        }
        fmt_encode_rows(f, COLS, ROWS, w[0], b);
        for (size_t r = 0; r < ROWS; r++) {
            double ours = 0, theirs = 0;
            fmt_decode_row(f, COLS, a, r, got);
            fmt_decode_row(f, COLS, b, r, plain);
            for (size_t i = 0; i < COLS; i++) {
                if (memcmp(&got[i], &want[r][i], 4) && (got[i] != 0 || want[r][i] != 0))
                    fail_msg("%s row %zu column %zu: %a, not %a", f->name, r, i,
                             (double)got[i], (double)want[r][i]);
                ours += pow((double)got[i] - (double)w[r][i], 2);
                theirs += pow((double)plain[i] - (double)w[r][i], 2);
            }
            /* R4's plain search tries every scale there is, from the same weights */
            assert_true(ours <= theirs * 1.02);
        }
        mem_free(a);
        mem_free(b);
    }
}

/* Without correlation there is nothing to feed back. */
static void test_identity_is_plain(void **state)
{
    (void)state;
    enum { N = 192, ROWS = 32 };
    static float w[ROWS][N];
    struct calib c = {.n_tokens = 1};
    struct calib_moment m = {.n = N, .h = fixture_room(N * N, sizeof(float))};
    struct rng rng;
    rng_seed(&rng, 3);
    for (size_t i = 0; i < N; i++)
        m.h[i * N + i] = 1;
    for (size_t r = 0; r < ROWS; r++)
        draw_row(&rng, N, 0, w[r]);
    for (size_t t = 0; t < N_TYPES; t++) {
        const struct fmt_info *f = fmt_find(types[t]);
        struct gptq g;
        size_t bytes, group = codec_group(f);
        assert_int_equal(gptq_init(&g, fixture_blas(), f, &c, &m, 0.01, &err), 0);
        assert_true(fmt_tensor_bytes(f, N, ROWS, &bytes));
        uint8_t *got = fixture_room(bytes, 1), *want = fixture_room(bytes, 1);
        float *space = fixture_room(gptq_room(&g, ROWS), sizeof *space);
        memset(got, 0xee, bytes);
        gptq_round(&g, ROWS, w[0], space, got);
        for (size_t r = 0; r < ROWS; r++)
            for (size_t j = 0; j < N; j += group) {
                struct codec_grid grid;
                int codes[CODEC_MAX_GROUP];
                float value;
                uint16_t row = codec_row(f, w[r], N);
                codec_fit(f, row, w[r] + j, g.weight + j, group, &grid);
                for (size_t k = 0; k < group; k++)
                    codes[k] = codec_round(&grid, w[r][j + k], &value);
                codec_store(f, N, r, j / group, row, &grid, codes, group, want);
            }
        assert_memory_equal(got, want, bytes);
        mem_free(got);
        mem_free(want);
        mem_free(space);
        gptq_free(&g);
    }
    mem_free(m.h);
}

/* The cost of decoded bytes: sum over rows of d^T H d, in double. */
static double cost_of(const struct fmt_info *f, const struct calib_moment *m,
                      size_t n_rows, const float *w, const uint8_t *bytes)
{
    size_t n = m->n;
    float *x = fixture_room(n, sizeof *x);
    double cost = 0;
    for (size_t r = 0; r < n_rows; r++) {
        fmt_decode_row(f, n, bytes, r, x);
        for (size_t i = 0; i < n; i++)
            x[i] -= w[r * n + i];
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j <= i; j++)
                cost += (i == j ? 1 : 2) * (double)x[i] * (double)x[j] *
                        (double)m->h[i * n + j];
    }
    mem_free(x);
    return cost;
}

static void test_feedback_pays(void **state)
{
    (void)state;
    enum { ROWS = 48, TOKENS = 600 };
    static const size_t widths[] = {64, 160, 320};
    for (size_t k = 0; k < 3; k++) {
        size_t n = widths[k], bytes;
        struct calib c = {.n_tokens = TOKENS};
        struct calib_moment m = fixture_moment(n, TOKENS, k);
        float *w = fixture_room(ROWS * n, sizeof *w),
              *d = fixture_room(ROWS * n, sizeof *d);
        struct rng rng;
        rng_seed(&rng, k);
        draw_row(&rng, ROWS * n, 0, w);
        for (size_t t = 0; t < N_TYPES; t++) {
            const struct fmt_info *f = fmt_find(types[t]);
            struct gptq g;
            assert_int_equal(gptq_init(&g, fixture_blas(), f, &c, &m, 0.01, &err), 0);
            assert_true(fmt_tensor_bytes(f, n, ROWS, &bytes));
            uint8_t *got = fixture_room(bytes, 1), *plain = fixture_room(bytes, 1);
            float *space = fixture_room(gptq_room(&g, ROWS), sizeof *space);
            fmt_encode_rows(f, n, ROWS, w, plain);
            gptq_round(&g, ROWS, w, space, got);
            double with = cost_of(f, &m, ROWS, w, got),
                   without = cost_of(f, &m, ROWS, w, plain);
            print_message("# %s, %zu columns: cost %.3g of plain rounding's\n", f->name,
                          n, with / without);
            assert_true(with < 0.5 * without);
            for (size_t r = 0; r < ROWS; r++)
                fmt_decode_row(f, n, got, r, d + r * n);
            for (size_t i = 0; i < ROWS * n; i++)
                d[i] -= w[i];
            /* float32 sums of up to 320 terms */
            assert_true(fabs(gptq_cost(&g, ROWS, d, space) * TOKENS / with - 1) < 1e-3);
            mem_free(got);
            mem_free(plain);
            mem_free(space);
            gptq_free(&g);
        }
        mem_free(w);
        mem_free(d);
        mem_free(m.h);
    }
}

/* ---- calibration ---- */

static int stop_at(void *ctx, const char *what, unsigned long long done,
                   unsigned long long total)
{
    (void)what;
    (void)total;
    return done >= *(const size_t *)ctx;
}

static struct calib gather(const runt_model *m, const int32_t *tokens, size_t n,
                           struct calib_options o)
{
    struct calib c;
    if (calib_gather(m, tokens, n, &o, &c, &err))
        fail_msg("%s", err.msg);
    return c;
}

static void assert_same(const struct calib *a, const struct calib *b)
{
    assert_int_equal(a->n_moments, b->n_moments);
    assert_int_equal(a->n_tokens, b->n_tokens);
    for (size_t i = 0; i < a->n_moments; i++) {
        const struct calib_moment *x = &a->moments[i], *y = &b->moments[i];
        assert_string_equal(x->name, y->name);
        for (size_t r = 0; r < x->n; r++)
            assert_memory_equal(x->h + r * x->n, y->h + r * x->n,
                                (r + 1) * sizeof *x->h);
    }
}

/* The first layer's inputs, from embeddings and norm in double. */
static void check_first_layer(const runt_model *m, const int32_t *tokens, size_t window,
                              const struct calib *c)
{
    size_t e = m->shape.n_embd;
    const struct calib_moment *got = calib_find(c, "blk.0.attn_qkv.weight", e);
    double *h = fixture_room(e * e, sizeof *h), *x = fixture_room(e, sizeof *x),
           most = 0;
    float *a = fixture_room(e, sizeof *a), *p = fixture_room(e, sizeof *p);
    assert_non_null(got);
    for (size_t t = 0; t < c->n_tokens; t++) {
        double mean = 0, var = 0;
        fmt_decode_row(m->token_embd.fmt, e, m->token_embd.data, (size_t)tokens[t], a);
        fmt_decode_row(m->position_embd.fmt, e, m->position_embd.data, t % window, p);
        for (size_t i = 0; i < e; i++)
            mean += (x[i] = (double)a[i] + (double)p[i]) / (double)e;
        for (size_t i = 0; i < e; i++)
            var += (x[i] - mean) * (x[i] - mean) / (double)e;
        for (size_t i = 0; i < e; i++)
            x[i] = (x[i] - mean) / sqrt(var + (double)m->shape.eps) *
                       (double)m->blocks[0].attn_norm.gain[i] +
                   (double)m->blocks[0].attn_norm.bias[i];
        for (size_t i = 0; i < e; i++)
            for (size_t j = 0; j <= i; j++)
                h[i * e + j] += x[i] * x[j];
    }
    for (size_t i = 0; i < e; i++)
        most = fmax(most, h[i * e + i]);
    for (size_t i = 0; i < e; i++)
        for (size_t j = 0; j <= i; j++)
            /* float32 products and sums */
            assert_true(fabs((double)got->h[i * e + j] - h[i * e + j]) < 1e-5 * most);
    mem_free(h);
    mem_free(x);
    mem_free(a);
    mem_free(p);
}

static void test_gather(void **state)
{
    (void)state;
    enum { N = 900, WINDOW = 90 };
    fixture_blas();
    struct gpt2_shape shape = fixture_odd_shape();
    runt_model *m = fixture_random(&shape, "f32", 5);
    static int32_t tokens[N];
    struct rng rng;
    char path[256];
    rng_seed(&rng, 9);
    for (size_t i = 0; i < N; i++)
        tokens[i] = (int32_t)(rng_u64(&rng) % shape.n_vocab);
    struct calib one = gather(m, tokens, N, (struct calib_options){.n_threads = 1}),
                 three = gather(m, tokens, N, (struct calib_options){.n_threads = 3});
    assert_int_equal(one.n_tokens, N);
    assert_same(&one, &three);
    check_first_layer(m, tokens, WINDOW, &one);

    size_t stop = 5 * WINDOW;
    struct calib none;
    fixture_temporary(path, sizeof path);
    unlink(path);
    struct calib_options o = {
        .n_threads = 2, .save = path, .progress = stop_at, .progress_ctx = &stop};
    assert_int_equal(calib_gather(m, tokens, N, &o, &none, &err), RUNT_E_INTERRUPTED);
    struct calib half;
    assert_int_equal(calib_load(path, &half, &err), 0);
    assert_int_equal(half.n_tokens, stop);
    o.progress = NULL;
    struct calib resumed = gather(m, tokens, N, o), loaded;
    assert_same(&one, &resumed);
    assert_int_equal(calib_load(path, &loaded, &err), 0);
    assert_same(&one, &loaded);
    calib_free(&half);
    calib_free(&one);
    calib_free(&three);
    calib_free(&resumed);
    calib_free(&loaded);

    assert_int_equal(calib_gather(m, tokens, WINDOW - 1, &o, &none, &err),
                     RUNT_E_INVALID);
    unlink(path);
    fixture_close(m);
    runt_model *q = fixture_random(&shape, "q8_0", 5);
    assert_int_equal(
        calib_gather(q, tokens, N, &(struct calib_options){0}, &none, &err),
        RUNT_E_INVALID);
    fixture_close(q);
}

/* Its own text: the same for any threads, other for another seed. */
static void test_sample(void **state)
{
    (void)state;
    struct gpt2_shape shape = fixture_odd_shape();
    runt_model *m = fixture_random(&shape, "f32", 5);
    int32_t *ids[3];
    size_t n[3];
    for (size_t k = 0; k < 3; k++) {
        struct calib_options o = {.n_tokens = 1000, .n_threads = k == 1 ? 3 : 1};
        assert_int_equal(calib_sample(m, k == 2 ? 8 : 7, &o, &ids[k], &n[k], &err), 0);
        assert_int_equal(n[k], 12 * 90); /* whole windows */
        for (size_t i = 0; i < n[k]; i++)
            assert_in_range(ids[k][i], 0, shape.n_vocab - 1);
    }
    assert_memory_equal(ids[0], ids[1], n[0] * sizeof(int32_t));
    assert_memory_not_equal(ids[0], ids[2], n[0] * sizeof(int32_t));
    for (size_t k = 0; k < 3; k++)
        mem_free(ids[k]);
    fixture_close(m);
}

static void test_damaged_files(void **state)
{
    (void)state;
    char path[256];
    float h[4] = {1, 0, 2, 3};
    struct calib_moment moments[1] = {{.name = "m", .n = 2, .h = h}};
    struct calib c = {.n_tokens = 8,
                      .n_wanted = 8,
                      .window = 4,
                      .n_moments = 1,
                      .moments = moments},
                 got;
    uint8_t good[512], bad[512];
    fixture_temporary(path, sizeof path);
    assert_int_equal(calib_save(&c, path, &err), 0);
    FILE *f = fopen(path, "rb");
    size_t n = fread(good, 1, sizeof good, f);
    fclose(f);
    assert_int_equal(calib_load(path, &got, &err), 0);
    assert_memory_equal(got.moments[0].h + 2, h + 2, 8);
    calib_free(&got);
    for (size_t k = 0; k < 2 * n; k++) {
        size_t size = k < n ? k : n; /* cut, then a flipped byte */
        memcpy(bad, good, n);
        if (k >= n)
            bad[k - n] ^= 0x41;
        f = fopen(path, "wb");
        fwrite(bad, 1, size, f);
        fclose(f);
        assert_int_equal(calib_load(path, &got, &err), RUNT_E_FORMAT);
        assert_non_null(strstr(err.msg, path));
    }
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inverse_factor),
        cmocka_unit_test(test_grids_decode),
        cmocka_unit_test(test_identity_is_plain),
        cmocka_unit_test(test_feedback_pays),
        cmocka_unit_test(test_gather),
        cmocka_unit_test(test_sample),
        cmocka_unit_test(test_damaged_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
