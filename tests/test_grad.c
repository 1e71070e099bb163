/* Training's row kernels: the plain table against loops in double precision, AVX2's
 * against the plain one bit for bit, and what each must not touch. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rng.h"
#include "kern/grad.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const struct grad_kern *const plain = &grad_kern_plain;

/* 0 to 40, then around the pieces of 256 that sum_squares makes, and larger. */
static const size_t more_sizes[] = {63, 64, 65, 255, 256, 257, 511, 769, 1001, 4097};
enum { SMALL_SIZES = 41, N_SIZES = SMALL_SIZES + 10 };

static size_t size_at(size_t i)
{
    return i < SMALL_SIZES ? i : more_sizes[i - SMALL_SIZES];
}

/* ---- vectors of exactly n numbers, and of n behind which nothing may be written ----
 */

enum { GUARD = 16 };
static const float poison = -7.5e29f;

static float *vector(size_t n)
{
    float *x = malloc((n + GUARD) * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n + GUARD; i++)
        x[i] = poison;
    return x;
}

static void check_guard(const float *x, size_t n)
{
    for (size_t i = n; i < n + GUARD; i++)
        assert_true(x[i] == poison);
}

static struct rng rng;

enum pattern { NORMAL, WIDE, DENORMAL, HUGE_, EXTREME_GELU, SPECIAL, N_PATTERNS };

static float draw(enum pattern p)
{
    static const float special[] = {0,   -0.0f,   INFINITY, -INFINITY,
                                    NAN, FLT_MAX, -1e-45f,  1};
    float x = rng_normal(&rng);
    switch (p) {
    case WIDE: /* 1e-20 to 1e20 */
        return x * powf(10, (float)(rng_unit(&rng) * 40 - 20));
    case DENORMAL:
        return x * 1e-40f;
    case HUGE_:
        return x * 1e38f;
    case EXTREME_GELU:
        return (float)(rng_unit(&rng) * 200 - 100);
    case SPECIAL:
        return special[rng_u64(&rng) % 8];
    default:
        return x;
    }
}

/* No more memory than n numbers take, so that a sanitizer sees who reads further. */
static float *drawn(enum pattern p, size_t n)
{
    float *x = malloc(n * sizeof *x + !n);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++)
        x[i] = draw(p);
    return x;
}

static float *copied(const float *from, size_t n)
{
    float *x = vector(n);
    if (n)
        memcpy(x, from, n * sizeof *x);
    return x;
}

static void near(const char *what, size_t n, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s of %zu: %.9g, not %.9g", what, n, got, want);
}

/* ---- against doubles ---- */

struct norm_case {
    size_t n;
    float *x, *gain, *bias, *dy;
    double mean, inv;
};

static struct norm_case norm_case(size_t n)
{
    struct norm_case c = {.n = n, .x = drawn(NORMAL, n), .gain = drawn(NORMAL, n)};
    c.bias = drawn(NORMAL, n);
    c.dy = drawn(NORMAL, n);
    double squares = 0;
    for (size_t i = 0; i < n; i++) { /* a mean as large as the deviation */
        c.x[i] = 2 * c.x[i] + 1.5f;
        c.mean += (double)c.x[i] / (double)n;
    }
    for (size_t i = 0; i < n; i++)
        squares += pow((double)c.x[i] - c.mean, 2) / (double)n;
    c.inv = 1 / sqrt(squares + (double)1e-5f);
    return c;
}

static void norm_case_free(struct norm_case *c)
{
    free(c->x);
    free(c->gain);
    free(c->bias);
    free(c->dy);
}

/* A row of one number, or two that are close, has a deviation of about 0: rounding in
 * x - mean is then multiplied with up to 1 / sqrt(eps). */
static double norm_tolerance(const struct norm_case *c)
{
    return 2e-6 * (4 + c->inv * 4);
}

static void norm_and_again(void **state)
{
    (void)state;
    for (size_t s = 0; s < N_SIZES; s++) {
        size_t n = size_at(s);
        struct norm_case c = norm_case(n);
        float *y = vector(n), *again = vector(n), stat[3] = {0, 0, poison};
        plain->norm(n, c.x, c.gain, c.bias, 1e-5f, y, stat);
        plain->norm_again(n, c.x, c.gain, c.bias, stat, again);
        check_guard(y, n);
        check_guard(again, n);
        assert_true(stat[2] == poison);
        assert_memory_equal(y, again, n * sizeof *y);
        if (n) {
            near("mean", n, (double)stat[0], c.mean, 2e-6);
            near("inv", n, (double)stat[1] / c.inv, 1, 4e-6);
        }
        for (size_t i = 0; i < n; i++)
            near("norm", n, (double)y[i],
                 ((double)c.x[i] - c.mean) * c.inv * (double)c.gain[i] +
                     (double)c.bias[i],
                 norm_tolerance(&c));
        free(y);
        free(again);
        norm_case_free(&c);
    }
}

static void norm_back_and_its_parameters(void **state)
{
    (void)state;
    for (size_t s = 0; s < N_SIZES; s++) {
        size_t n = size_at(s);
        struct norm_case c = norm_case(n);
        float stat[2] = {(float)c.mean, (float)c.inv};
        float *before = drawn(NORMAL, n), *dx = copied(before, n);
        float *dgain = copied(before, n), *dbias = copied(before, n);
        plain->norm_back(n, c.x, c.gain, stat, c.dy, dx);
        plain->norm_back_params(n, c.x, stat, c.dy, dgain, dbias);
        check_guard(dx, n);
        check_guard(dgain, n);
        check_guard(dbias, n);
        double m = 0, mz = 0, tolerance = norm_tolerance(&c) * (1 + c.inv);
        for (size_t i = 0; i < n; i++) {
            double dz = (double)c.dy[i] * (double)c.gain[i];
            m += dz / (double)n;
            mz += dz * ((double)c.x[i] - c.mean) * c.inv / (double)n;
        }
        for (size_t i = 0; i < n; i++) {
            double z = ((double)c.x[i] - c.mean) * c.inv, dy = (double)c.dy[i];
            double was = (double)before[i];
            near("norm_back", n, (double)dx[i],
                 was + c.inv * (dy * (double)c.gain[i] - m - z * mz), tolerance);
            near("dgain", n, (double)dgain[i], was + dy * z, norm_tolerance(&c));
            near("dbias", n, (double)dbias[i], was + dy, 1e-6);
        }
        /* either alone */
        float *alone = copied(before, n);
        plain->norm_back_params(n, c.x, stat, c.dy, alone, NULL);
        assert_memory_equal(alone, dgain, n * sizeof *alone);
        memcpy(alone, before, n * sizeof *alone);
        plain->norm_back_params(n, c.x, stat, c.dy, NULL, alone);
        assert_memory_equal(alone, dbias, n * sizeof *alone);
        free(alone);
        free(before);
        free(dx);
        free(dgain);
        free(dbias);
        norm_case_free(&c);
    }
}

static double gelu_of(double x, double *slope)
{
    double k = sqrt(2 / M_PI), u = k * (x + 0.044715 * x * x * x), t = tanh(u);
    *slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * k * (1 + 3 * 0.044715 * x * x);
    return 0.5 * x * (1 + t);
}

static void gelu_and_its_slope(void **state)
{
    (void)state;
    double worst = 0, worst_back = 0;
    for (size_t s = 0; s < N_SIZES; s++) {
        size_t n = size_at(s);
        float *x = drawn(NORMAL, n), *dy = drawn(NORMAL, n), *y = vector(n);
        for (size_t i = 0; i < n; i++)
            x[i] = i % 7 ? x[i] * 4 : draw(EXTREME_GELU);
        float *back = copied(dy, n);
        plain->gelu(n, x, y);
        plain->gelu_back(n, x, back);
        check_guard(y, n);
        check_guard(back, n);
        for (size_t i = 0; i < n; i++) {
            double slope, want = gelu_of((double)x[i], &slope);
            near("gelu", n, (double)y[i], want, 1e-6 * (1e-3 + fabs((double)x[i])));
            near("gelu_back", n, (double)back[i], slope * (double)dy[i],
                 5e-6 * fabs((double)dy[i]));
            worst = fmax(worst, fabs((double)y[i] - want));
            worst_back =
                fmax(worst_back, fabs((double)back[i] / (double)dy[i] - slope));
        }
        free(x);
        free(dy);
        free(y);
        free(back);
    }
    print_message("largest error of GELU %.2g, of its slope %.2g\n", worst, worst_back);
}

static void gelu_far_out(void **state)
{
    (void)state;
    const float x[] = {100, -100, 50, -50, 12, -12, 0, -0.0f};
    const float slope[] = {1, 0, 1, 0, 1, 0, 0.5f, 0.5f};
    float y[8], dy[8] = {3, 3, 3, 3, 3, 3, 3, 3};
    plain->gelu(8, x, y);
    plain->gelu_back(8, x, dy);
    for (int i = 0; i < 8; i++) {
        assert_true(y[i] == (x[i] > 0 ? x[i] : 0));
        assert_true(dy[i] == 3 * slope[i]);
    }
}

static void softmax_parts(void **state)
{
    (void)state;
    const float scale = 0.37f;
    for (size_t s = 0; s < N_SIZES; s++) {
        size_t n = size_at(s);
        float *x = drawn(NORMAL, n), *dp = drawn(NORMAL, n), *p = copied(x, n);
        float *ds = copied(dp, n), top = -INFINITY;
        double sum = 0;
        for (size_t i = 0; i < n; i++) {
            x[i] = p[i] *= 10;
            top = fmaxf(top, x[i]);
        }
        if (n)
            assert_true(plain->max(n, x) == top);
        float shift = n ? top * scale - 1 : 0;
        float got = plain->exp_sum(n, p, scale, shift);
        check_guard(p, n);
        for (size_t i = 0; i < n; i++) {
            /* 1e-6: rounding of scale x - shift, here up to 30 */
            double want = exp((double)scale * (double)x[i] - (double)shift);
            near("exp", n, (double)p[i] / want, 1, 4e-6);
            sum += want;
        }
        near("sum of exp", n, (double)got, sum, 4e-6 * sum);
        plain->softmax_back(n, p, ds, 0.3f, scale);
        check_guard(ds, n);
        for (size_t i = 0; i < n; i++) {
            double want = (double)p[i] * ((double)dp[i] - (double)0.3f) * (double)scale;
            near("softmax_back", n, (double)ds[i], want,
                 3e-7 * (double)p[i] * (1 + fabs((double)dp[i])));
        }
        free(x);
        free(dp);
        free(p);
        free(ds);
    }
}

static void the_largest_wherever_it_stands(void **state)
{
    (void)state;
    for (size_t n = 1; n <= 40; n++)
        for (size_t at = 0; at < n; at++) {
            float *x = vector(n);
            for (size_t i = 0; i < n; i++)
                x[i] = -3;
            x[at] = -2;
            assert_true(plain->max(n, x) == -2);
            free(x);
        }
}

static void sums(void **state)
{
    (void)state;
    for (size_t s = 0; s < N_SIZES; s++) {
        size_t n = size_at(s);
        float *x = drawn(NORMAL, n), *y = drawn(NORMAL, n), *sum = copied(y, n);
        float *scaled = copied(x, n);
        double dot = 0, size = 0, squares = 0;
        plain->add(n, sum, x);
        plain->scale(n, scaled, 0.3f);
        check_guard(sum, n);
        check_guard(scaled, n);
        for (size_t i = 0; i < n; i++) {
            double p = (double)x[i] * (double)y[i];
            assert_true(sum[i] == x[i] + y[i]);
            assert_true(scaled[i] == x[i] * 0.3f);
            dot += p;
            size += fabs(p);
            squares += (double)x[i] * (double)x[i];
        }
        near("dot", n, (double)plain->dot(n, x, y), dot, 1e-6 * size);
        near("sum_squares", n, plain->sum_squares(n, x), squares, 1e-6 * squares);
        free(x);
        free(y);
        free(sum);
        free(scaled);
    }
}

/* A float alone would stop counting at 2^24. */
static void squares_do_not_stop_growing(void **state)
{
    (void)state;
    enum { N = 1 << 18 };
    float *x = drawn(NORMAL, N);
    x[0] = 8192; /* its square is 2^26 */
    for (size_t i = 1; i < N; i++)
        x[i] = 1;
    near("sum_squares", N, plain->sum_squares(N, x), 0x1p26 + N - 1, 256);
    free(x);
}

/* ---- AdamW ---- */

static void adamw_as_in_doubles(void **state)
{
    (void)state;
    const double lr = 0.01, decay = 0.1, b1 = 0.9, b2 = 0.95, eps = 1e-8, clip = 0.7;
    for (size_t s = 0; s < N_SIZES; s++) {
        size_t n = size_at(s);
        float *first = drawn(NORMAL, n), *w = copied(first, n);
        float *zeros = calloc(n + 1, sizeof *zeros);
        float *m = copied(zeros, n), *v = copied(zeros, n);
        double *ww = calloc(n + 1, sizeof *ww), *mm = calloc(n + 1, sizeof *mm),
               *vv = calloc(n + 1, sizeof *vv);
        for (size_t i = 0; i < n; i++)
            ww[i] = (double)w[i];
        for (int t = 1; t <= 6; t++) {
            float *g = drawn(NORMAL, n);
            const struct grad_adamw o = {.beta1 = (float)b1,
                                         .beta2 = (float)b2,
                                         .eps = (float)eps,
                                         .keep = (float)(1 - lr * decay),
                                         .rate = (float)(lr / (1 - pow(b1, t))),
                                         .inv_root = (float)(1 / sqrt(1 - pow(b2, t))),
                                         .grad_scale = (float)clip};
            plain->adamw(n, &o, g, w, m, v);
            for (size_t i = 0; i < n; i++) {
                double a = (double)g[i] * clip;
                mm[i] = b1 * mm[i] + (1 - b1) * a;
                vv[i] = b2 * vv[i] + (1 - b2) * a * a;
                ww[i] -= lr * decay * ww[i];
                ww[i] -= lr * (mm[i] / (1 - pow(b1, t))) /
                         (sqrt(vv[i] / (1 - pow(b2, t))) + eps);
                near("w", n, (double)w[i], ww[i], 1e-6 * (1 + fabs(ww[i])));
                near("m", n, (double)m[i], mm[i], 1e-6);
                near("v", n, (double)v[i], vv[i], 1e-6 * (1e-3 + vv[i]));
            }
            free(g);
        }
        check_guard(w, n);
        check_guard(m, n);
        check_guard(v, n);
        free(first);
        free(zeros);
        free(w);
        free(m);
        free(v);
        free(ww);
        free(mm);
        free(vv);
    }
}

/* ---- dropout ---- */

static void dropout_takes_its_share(void **state)
{
    (void)state;
    enum { N = 100000 };
    const float shares[] = {0, 0.1f, 0.5f, 0.9f};
    float *x = vector(N);
    for (size_t s = 0; s < 4; s++) {
        double share = (double)shares[s], n_zeros = 0, runs = 0;
        for (size_t i = 0; i < N; i++)
            x[i] = 3;
        plain->dropout(N, x, 0xdeadbeef, 77, shares[s]);
        check_guard(x, N);
        for (size_t i = 0; i < N; i++) {
            bool zero = x[i] == 0;
            assert_true(zero || fabs((double)x[i] * (1 - share) / 3 - 1) < 2e-7);
            n_zeros += zero;
            runs += zero && i && x[i - 1] == 0;
        }
        /* five deviations of a binomial; neighbours know nothing of each other */
        near("zeros", N, n_zeros, N * share, 5 * sqrt(N * share * (1 - share)));
        near("pairs of zeros", N, runs, N * share * share, 8 * sqrt(N * share * share));
    }
    free(x);
}

static void dropout_is_a_function_of_key_and_place(void **state)
{
    (void)state;
    enum { N = 5000 };
    const uint32_t first = UINT32_MAX - 1000; /* places may wrap */
    float *whole = vector(N), *x = vector(N), *other = vector(N);
    for (size_t i = 0; i < N; i++)
        whole[i] = x[i] = other[i] = 1;
    plain->dropout(N, whole, 42, first, 0.25f);
    for (size_t from = 0; from < N;) { /* in pieces of any size */
        size_t n = 1 + rng_u64(&rng) % 41;
        n = n < N - from ? n : N - from;
        plain->dropout(n, x + from, 42, first + (uint32_t)from, 0.25f);
        from += n;
    }
    assert_memory_equal(x, whole, N * sizeof *x);
    plain->dropout(N, other, 43, first, 0.25f);
    double agree = 0;
    for (size_t i = 0; i < N; i++)
        agree += (other[i] == 0) == (whole[i] == 0);
    near("agreement", N, agree / N, 0.25 * 0.25 + 0.75 * 0.75, 0.04);
    free(whole);
    free(x);
    free(other);
}

/* ---- bfloat16 ---- */

static float from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* The magnitude of bfloat16 h, with 2^128 in the place of infinity. */
static double magnitude(uint32_t h)
{
    h &= 0x7fff;
    return h == 0x7f80 ? 0x1p128 : (double)from_bits(h << 16);
}

static void check_bf16(const struct grad_kern *k)
{
    static const uint32_t low[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
    float x[48];
    uint16_t y[48], guard = 0x1234;
    for (uint32_t high = 0; high < 0x10000; high += 8) {
        size_t n = 0;
        for (uint32_t h = high; h < high + 8; h++)
            for (size_t l = 0; l < 6; l++) {
                uint32_t u = h << 16 | low[l];
                memcpy(x + n++, &u, sizeof u);
            }
        y[47] = guard;
        k->to_bf16(47, x, y);
        assert_int_equal(y[47], guard);
        k->to_bf16(48, x, y);
        for (size_t i = 0; i < n; i++) {
            uint32_t h = high + (uint32_t)i / 6, u = h << 16 | low[i % 6];
            assert_int_equal(y[i] >> 15, h >> 15);
            if (isnan(x[i])) {
                assert_true((y[i] & 0x7fff) > 0x7f80);
                continue;
            }
            if (isinf(x[i])) {
                assert_int_equal(y[i], h);
                continue;
            }
            double size = fabs((double)from_bits(u)), below = magnitude(h),
                   above = magnitude(h + 1);
            uint32_t want = size - below < above - size   ? h
                            : size - below > above - size ? h + 1
                            : h % 2                       ? h + 1
                                                          : h;
            assert_int_equal(y[i], want);
        }
    }
}

static void bf16_is_the_nearest_and_nan_stays(void **state)
{
    (void)state;
    check_bf16(plain);
    if (grad_kern_avx2())
        check_bf16(grad_kern_avx2());
}

static void bf16_there_and_back(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        uint16_t y = (uint16_t)h, z;
        uint32_t u;
        float x[2] = {0, poison};
        plain->from_bf16(1, &y, x);
        assert_true(x[1] == poison);
        memcpy(&u, x, sizeof u);
        assert_int_equal(u, h << 16);
        plain->to_bf16(1, x, &z);
        assert_true(z == y || (isnan(x[0]) && (z & 0x7fff) > 0x7f80));
    }
    for (size_t n = 0; n <= 40; n++) {
        float *x = drawn(WIDE, n), *z = vector(n);
        uint16_t *y = calloc(n + 1, sizeof *y);
        y[n] = 0x1234;
        plain->to_bf16(n, x, y);
        plain->from_bf16(n, y, z);
        check_guard(z, n);
        assert_int_equal(y[n], 0x1234);
        for (size_t i = 0; i < n; i++)
            near("bf16", n, (double)z[i], (double)x[i], 0x1p-8 * fabs((double)x[i]));
        free(x);
        free(y);
        free(z);
    }
}

/* ---- AVX2 ---- */

enum { MAX_OUT = 24 };

struct outputs {
    size_t n, n_out;
    float *out[MAX_OUT];
    double squares;
};

/* The next output, which begins as `from` (NULL: as poison); four numbers at least. */
static float *output(struct outputs *o, const float *from)
{
    assert_true(o->n_out < MAX_OUT);
    float *x = vector(o->n > 4 ? o->n : 4);
    if (from && o->n)
        memcpy(x, from, o->n * sizeof *x);
    return o->out[o->n_out++] = x;
}

/* Everything that a table computes of the vectors in. */
static struct outputs run_all(const struct grad_kern *k, size_t n, float *const in[5])
{
    struct outputs o = {.n = n};
    const float *a = in[0], *b = in[1], *c = in[2];
    struct grad_adamw adamw = {0.9f, 0.95f, 1e-8f, 0.999f, 0.02f, 1.7f, 0.3f};
    float *stat = output(&o, NULL), *y = output(&o, NULL), *sums = output(&o, NULL);
    k->norm(n, a, b, c, 1e-5f, y, stat);
    k->norm_again(n, a, b, c, stat, output(&o, NULL));
    k->norm_back(n, a, b, stat, c, output(&o, in[3]));
    float *dgain = output(&o, in[3]), *dbias = output(&o, in[4]);
    k->norm_back_params(n, a, stat, c, dgain, dbias);
    k->gelu(n, a, output(&o, NULL));
    k->gelu_back(n, a, output(&o, b));
    sums[0] = n ? k->max(n, a) : 0;
    sums[1] = k->exp_sum(n, output(&o, a), 0.3f, n ? a[0] : 0);
    sums[2] = k->dot(n, a, b);
    k->softmax_back(n, a, output(&o, b), 0.4f, 0.3f);
    k->add(n, output(&o, a), b);
    k->scale(n, output(&o, a), 0.3f);
    o.squares = k->sum_squares(n, a);
    k->dropout(n, output(&o, a), 12345, 678, 0.3f);
    float *w = output(&o, a), *m = output(&o, b), *v = output(&o, in[3]);
    for (size_t i = 0; i < n; i++)
        v[i] = fabsf(v[i]);
    k->adamw(n, &adamw, c, w, m, v);
    uint16_t *h = calloc(n + 1, sizeof *h);
    k->to_bf16(n, a, h);
    k->from_bf16(n, h, output(&o, NULL));
    free(h);
    return o;
}

static bool same(float a, float b)
{
    return !memcmp(&a, &b, sizeof a) || (isnan(a) && isnan(b));
}

static void avx2_gives_the_same_bits(void **state)
{
    (void)state;
    const struct grad_kern *avx2 = grad_kern_avx2();
    if (!avx2)
        skip();
    for (int p = 0; p < N_PATTERNS; p++)
        for (size_t s = 0; s < N_SIZES; s++) {
            size_t n = size_at(s);
            float *in[5];
            for (int i = 0; i < 5; i++)
                in[i] = drawn((enum pattern)p, n);
            struct outputs want = run_all(plain, n, in), got = run_all(avx2, n, in);
            assert_true(want.squares == got.squares ||
                        (isnan(want.squares) && isnan(got.squares)));
            for (size_t k = 0; k < want.n_out; k++) {
                check_guard(got.out[k], n > 4 ? n : 4);
                for (size_t i = 0; i < (n > 4 ? n : 4); i++)
                    if (!same(want.out[k][i], got.out[k][i]))
                        fail_msg("pattern %d, %zu numbers, output %zu: %a, not %a", p,
                                 n, k, (double)got.out[k][i], (double)want.out[k][i]);
                free(want.out[k]);
                free(got.out[k]);
            }
            for (int i = 0; i < 5; i++)
                free(in[i]);
        }
}

static void runt_cpu_chooses_the_table(void **state)
{
    (void)state;
    const char *was = getenv("RUNT_CPU");
    char *kept = was ? strdup(was) : NULL;
    setenv("RUNT_CPU", "ref", 1);
    assert_ptr_equal(grad_kern_get(), plain);
    if (grad_kern_avx2()) {
        setenv("RUNT_CPU", "avx2", 1);
        assert_ptr_equal(grad_kern_get(), grad_kern_avx2());
    }
    if (kept)
        setenv("RUNT_CPU", kept, 1);
    else
        unsetenv("RUNT_CPU");
    free(kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm_and_again),
        cmocka_unit_test(norm_back_and_its_parameters),
        cmocka_unit_test(gelu_and_its_slope),
        cmocka_unit_test(gelu_far_out),
        cmocka_unit_test(softmax_parts),
        cmocka_unit_test(the_largest_wherever_it_stands),
        cmocka_unit_test(sums),
        cmocka_unit_test(squares_do_not_stop_growing),
        cmocka_unit_test(adamw_as_in_doubles),
        cmocka_unit_test(dropout_takes_its_share),
        cmocka_unit_test(dropout_is_a_function_of_key_and_place),
        cmocka_unit_test(bf16_is_the_nearest_and_nan_stays),
        cmocka_unit_test(bf16_there_and_back),
        cmocka_unit_test(avx2_gives_the_same_bits),
        cmocka_unit_test(runt_cpu_chooses_the_table),
    };
    rng_seed(&rng, 20);
    return cmocka_run_group_tests_name("grad", tests, NULL, NULL);
}
