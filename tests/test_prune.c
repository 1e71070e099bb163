/* Zeroing: which weights go against a plain sort, what feedback makes of the others
 * against a plain loop in double precision, its gain, and that threads change nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "gptq_fixture.h"

#include "base/mem.h"
#include "base/rng.h"
#include "quant/prune.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct runt_err err;

static float *draw(size_t n, uint64_t seed, bool ties)
{
    struct rng rng;
    float *w = fixture_room(n, sizeof *w);
    rng_seed(&rng, seed);
    for (size_t i = 0; i < n; i++) {
        w[i] = rng_normal(&rng);
        if (ties)
            w[i] = rintf(w[i]) / 4; /* many equal ones, -0 among them */
    }
    return w;
}

static size_t count_zeros(const float *w, size_t n)
{
    size_t zeros = 0;
    for (size_t i = 0; i < n; i++)
        zeros += w[i] == 0;
    return zeros;
}

static int by_size(const void *a, const void *b)
{
    float x = fabsf(*(const float *)a), y = fabsf(*(const float *)b);
    return (x > y) - (x < y);
}

static void test_magnitude(void **state)
{
    (void)state;
    static const double shares[] = {1e-9, 0.01, 0.3, 0.5, 0.97, 1 - 1e-9};
    for (size_t s = 0; s < 6; s++)
        for (int ties = 0; ties < 2; ties++) {
            size_t rows = 7 + s, n = 33 * rows;
            struct prune p = {.sparsity = shares[s]};
            float *w = draw(n, s, ties), *sorted = draw(n, s, ties),
                  *old = draw(n, s, ties);
            size_t k = (size_t)llround(shares[s] * (double)n), gone = 0, fresh = 0;
            qsort(sorted, n, sizeof *sorted, by_size);
            assert_int_equal(prune_matrix(&p, NULL, NULL, rows, 33, w, NULL, &err), 0);
            for (size_t i = 0; i < n; i++) {
                float size = fabsf(old[i]);
                if (w[i] != 0)
                    assert_true(w[i] == old[i]);
                if (k && size < fabsf(sorted[k - 1]))
                    assert_true(w[i] == 0);
                else if (!k || size > fabsf(sorted[k - 1]))
                    assert_true(w[i] == old[i]);
                else if (w[i] != 0) /* among equals the first ones go */
                    fresh = 1;
                else
                    assert_true(!fresh || size == 0);
                gone += w[i] == 0 && old[i] != 0;
            }
            size_t were = count_zeros(old, n);
            assert_int_equal(gone + were, k > were ? k : were);
            mem_free(w);
            mem_free(sorted);
            mem_free(old);
        }
}

static void test_pattern(void **state)
{
    (void)state;
    static const unsigned patterns[][2] = {{2, 4}, {1, 4}, {4, 8},
                                           {3, 7}, {1, 2}, {47, 48}};
    struct calib c = {.n_tokens = 500};
    for (size_t t = 0; t < 6; t++)
        for (int feedback = 0; feedback < 2; feedback++) {
            unsigned keep = patterns[t][0], of = patterns[t][1];
            size_t rows = 70, n = of * (of == 48 ? 6 : 40);
            struct prune p = {.keep = keep, .of = of, .feedback = feedback};
            struct gptq g = {0};
            float *w = draw(rows * n, t, false), *old = draw(rows * n, t, false);
            struct calib_moment m = {0};
            if (feedback) {
                m = fixture_moment(n, 500, t);
                assert_int_equal(gptq_init(&g, fixture_blas(), fmt_find(FMT_F32), &c,
                                           &m, 0.01, &err),
                                 0);
            }
            assert_int_equal(
                prune_matrix(&p, feedback ? &g : NULL, NULL, rows, n, w, NULL, &err),
                0);
            for (size_t i = 0; i < rows * n; i += of) {
                assert_int_equal(count_zeros(w + i, of), of - keep);
                float least = INFINITY, most = 0;
                for (size_t j = i; j < i + of && !feedback; j++) {
                    float size = fabsf(old[j]);
                    if (w[j] == 0)
                        most = fmaxf(most, size);
                    else
                        least = fminf(least, size);
                }
                assert_true(most <= least);
            }
            gptq_free(&g);
            mem_free(m.h);
            mem_free(w);
            mem_free(old);
        }
}

/* A walk without blocks: the errors of a column go to all behind it, in double.  Where
 * the zeros are is taken from the result; those of the first block were chosen by
 * scores that no feedback had touched. */
static void test_feedback(void **state)
{
    (void)state;
    enum { ROWS = 70, N = 300, BLOCK = 128 };
    struct calib c = {.n_tokens = 700};
    struct calib_moment m = fixture_moment(N, 700, 5);
    struct prune p = {.sparsity = 0.4, .feedback = true};
    struct gptq g;
    assert_int_equal(
        gptq_init(&g, fixture_blas(), fmt_find(FMT_F32), &c, &m, 0.01, &err), 0);
    float *w = draw(ROWS * N, 9, false), *old = draw(ROWS * N, 9, false), most = 0,
          least = INFINITY;
    assert_int_equal(prune_matrix(&p, &g, NULL, ROWS, N, w, NULL, &err), 0);
    assert_int_equal(count_zeros(w, ROWS * N), llround(0.4 * ROWS * N));
    for (size_t r = 0; r < ROWS; r++) {
        double x[N];
        for (size_t j = 0; j < N; j++)
            x[j] = (double)old[r * N + j];
        for (size_t j = 0; j < BLOCK; j++) {
            float score = old[r * N + j] * old[r * N + j] * g.weight[j];
            if (w[r * N + j] == 0)
                most = fmaxf(most, score);
            else
                least = fminf(least, score);
        }
        for (size_t j = 0; j < N; j++) {
            bool gone = w[r * N + j] == 0;
            double e = gone ? x[j] / (double)g.u[j * N + j] : 0;
            /* floats, up to 300 steps of some 1e-7 times errors of order 1 / U_jj */
            assert_true(gone || fabs(x[j] - (double)w[r * N + j]) < 1e-3);
            for (size_t k = j + 1; k < N; k++)
                x[k] -= e * (double)g.u[j * N + k];
        }
    }
    assert_true(most <= least); /* one threshold for the block, over all rows */
    gptq_free(&g);
    mem_free(m.h);
    mem_free(w);
    mem_free(old);
}

/* The cost of what is left of w in outputs, relative to zeroing without feedback. */
static void test_feedback_pays(void **state)
{
    (void)state;
    enum { ROWS = 48, N = 320 };
    struct calib c = {.n_tokens = 600};
    struct calib_moment m = fixture_moment(N, 600, 3);
    struct gptq g;
    assert_int_equal(
        gptq_init(&g, fixture_blas(), fmt_find(FMT_F32), &c, &m, 0.01, &err), 0);
    float *room = fixture_room(ROWS * N, sizeof *room);
    double cost[2];
    for (int feedback = 0; feedback < 2; feedback++) {
        struct prune p = {.sparsity = 0.3, .feedback = feedback};
        float *w = draw(ROWS * N, 1, false), *old = draw(ROWS * N, 1, false);
        assert_int_equal(
            prune_matrix(&p, feedback ? &g : NULL, NULL, ROWS, N, w, NULL, &err), 0);
        for (size_t i = 0; i < ROWS * N; i++)
            w[i] -= old[i];
        cost[feedback] = gptq_cost(&g, ROWS, w, room);
        mem_free(w);
        mem_free(old);
    }
    /* inputs vary along 12 directions of 320: nearly all can be made good */
    assert_true(cost[1] < 0.1 * cost[0]);
    mem_free(room);
    gptq_free(&g);
    mem_free(m.h);
}

/* What is left is what its bytes say, zeros are exact, and threads change nothing. */
static void test_rounded_too(void **state)
{
    (void)state;
    static const enum fmt_type types[] = {FMT_R4, FMT_Q4_0, FMT_Q8_0, FMT_F16};
    enum { ROWS = 150, N = 288 };
    struct calib c = {.n_tokens = 600};
    struct calib_moment m = fixture_moment(N, 600, 3);
    for (size_t t = 0; t < 4; t++)
        for (unsigned of = 0; of <= 4; of += 4) {
            const struct fmt_info *f = fmt_find(types[t]);
            struct prune p = {.sparsity = 0.3, .keep = 2, .of = of, .feedback = true};
            struct gptq g;
            size_t size;
            uint8_t *bytes[3];
            float *w[3], row[N];
            assert_int_equal(gptq_init(&g, fixture_blas(), f, &c, &m, 0.01, &err), 0);
            assert_true(fmt_tensor_bytes(f, N, ROWS, &size));
            for (unsigned k = 0; k < 3; k++) {
                struct pool *pool = NULL;
                assert_int_equal(pool_create(k + 1, &pool, &err), 0);
                bytes[k] = fixture_room(size, 1);
                memset(bytes[k], 0xaa, size);
                w[k] = draw(ROWS * N, t, false);
                assert_int_equal(
                    prune_matrix(&p, &g, pool, ROWS, N, w[k], bytes[k], &err), 0);
                assert_memory_equal(w[k], w[0], ROWS * N * sizeof *w[k]);
                assert_memory_equal(bytes[k], bytes[0], size);
                pool_destroy(pool);
            }
            size_t zeros = count_zeros(w[0], ROWS * N);
            assert_true(zeros >= (of ? ROWS * N / 2 : (size_t)llround(0.3 * ROWS * N)));
            for (size_t r = 0; r < ROWS && types[t] != FMT_F16; r++) {
                fmt_decode_row(f, N, bytes[0], r, row);
                for (size_t j = 0; j < N; j++) /* -0 may be 0 */
                    assert_true(row[j] == w[0][r * N + j]);
            }
            for (unsigned k = 0; k < 3; k++) {
                mem_free(bytes[k]);
                mem_free(w[k]);
            }
            gptq_free(&g);
        }
    mem_free(m.h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_magnitude),   cmocka_unit_test(test_pattern),
        cmocka_unit_test(test_feedback),    cmocka_unit_test(test_feedback_pays),
        cmocka_unit_test(test_rounded_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
