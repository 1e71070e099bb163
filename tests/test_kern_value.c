/* The specification of the kernels of rows against plain double arithmetic, within
 * tolerances that follow from the number of roundings; the accuracy of exp and GELU
 * against libm.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "kern_fixture.h"

#include <math.h>
#include <string.h>

static const double U = 0x1p-24; /* one rounding to float, relative */
/* The accuracy that kern.h promises, in ulp and absolute. */
static const double EXP_ULP = 0.9, GELU_ULP = 3, GELU_ABS = 0x1p-24;

static const struct kern_table *ref;

static int setup(void **state)
{
    (void)state;
    ref = kern_table_for(CPU_REF);
    return make_buffers() ? 0 : -1;
}

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* ---- dot products ---- */

/* Weight i of a row, from the layouts as they are published. */
static double weight(size_t dot, const uint8_t *w, size_t i)
{
    float f;
    uint32_t u = 0;
    uint16_t h;
    w += i * kern_dots[dot].bytes;
    switch (kern_dots[dot].type) {
    case FMT_F32:
        memcpy(&f, w, 4);
        return (double)f;
    case FMT_F16:
        memcpy(&h, w, 2);
        return (double)fmt_f16_to_f32(h);
    default:
        memcpy((char *)&u + 2, w, 2);
        return (double)float_of(u);
    }
}

/* Error of a sum of n terms in 16 lanes: a lane rounds once a term, the tree 4 times,
 * all relative to the sum of magnitudes.  Cases with few lanes full are covered by
 * counting from above. */
static void test_dot_value(void **state)
{
    (void)state;
    for (size_t dot = 0; dot < N_DOTS; dot++) {
        for (size_t n = 64; n <= 3072; n += 32) {
            size_t stride;
            uint8_t *w = buffer(IN_W, n * kern_dots[dot].bytes);
            draw_weights(w, dot, NORMAL, n);
            const char *x = draw_vectors(NORMAL, n, &stride);
            const float *xf = (const void *)x;
            double sum = 0, magnitude = 0;
            for (size_t i = 0; i < n; i++) {
                double v = weight(dot, w, i) * (double)xf[i];
                sum += v;
                magnitude += fabs(v);
            }
            float got;
            kern_dot_for(ref, kern_dots[dot].type)(n, w, x, stride, 1, &got, 1);
            double tol = ((double)(n / 16) + 6) * U * magnitude;
            if (!(fabs((double)got - sum) <= tol))
                fail_msg("%s, n = %zu: %.9g, not %.9g (tolerance %.3g)",
                         kern_dots[dot].name, n, (double)got, sum, tol);
        }
    }
}

/* ---- activations ---- */

/* What is kept beside the q, summed again. */
static void check_sums(const struct kern_act *a)
{
    int sum[2] = {0}, minus8[2][2] = {{0}};
    for (int j = 0; j < KERN_GROUP; j++) {
        sum[j / 32] += a->q[j];
        minus8[j / 32][j % 4 >= 2] -= 8 * a->q[j];
    }
    for (int h = 0; h < 2; h++) {
        assert_int_equal(a->sum[h], sum[h]);
        assert_int_equal(a->minus8[h][0], minus8[h][0]);
        assert_int_equal(a->minus8[h][1], minus8[h][1]);
        assert_int_equal(a->minus8_both[h], minus8[0][h] + minus8[1][h]);
    }
}

static void test_quantize_value(void **state)
{
    (void)state;
    enum { N = 3199 };
    for (enum pattern p = 0; p < N_PATTERNS; p++) {
        float *x = draw_floats(IN_X, p, N);
        memset(x, 0, 128 * sizeof *x);
        x[3] = 0x1p-119f, x[64 + 63] = 0x1.fffffep-120f;
        struct kern_act *act = buffer(GOT, kern_n_groups(N) * sizeof *act);
        ref->quantize_act(N, x, act);
        assert_true(act[0].d >= 0x1p-126f && act[1].d == 0);
        if (!isnan(act[N / KERN_GROUP].d)) /* then it is -127 */
            assert_int_equal(act[N / KERN_GROUP].q[KERN_GROUP - 1], 0);
        for (size_t g = 0; g < kern_n_groups(N); g++)
            check_sums(&act[g]);
        for (size_t i = 0; i < N; i++) {
            const struct kern_act *a = &act[i / KERN_GROUP];
            double q = a->q[i % KERN_GROUP], d = (double)a->d;
            assert_true(fabs(q) <= 127);
            if (!isfinite(d))
                continue;
            /* half a step, and four roundings of a q of at most 127 */
            double tol = d > 0 ? d * (0.5 + 127 * 4 * U) : 0x1p-119;
            if (!(fabs((double)x[i] - d * q) <= tol))
                fail_msg("%s: %a became %g * %g", pattern_names[p], (double)x[i], d, q);
        }
    }
    struct kern_act a;
    float x[KERN_GROUP] = {1, NAN, 2};
    ref->quantize_act(KERN_GROUP, x, &a);
    assert_true(isnan(a.d));
    check_sums(&a);
    x[1] = -INFINITY;
    ref->quantize_act(KERN_GROUP, x, &a);
    assert_true(isinf(a.d));
    check_sums(&a);
}

/* The fused form is the two one after the other. */
static void test_layer_norm_act(void **state)
{
    (void)state;
    for (size_t n = 1; n <= 3072; n = n * 3 / 2 + 1) {
        float *x = draw_floats(IN_X, NORMAL, n), *b = draw_floats(IN_B, NORMAL, n);
        float *normed = poisoned(GOT, n);
        struct kern_act want[48], got[48];
        ref->layer_norm(n, x, b, x, 1e-5f, normed);
        ref->quantize_act(n, normed, want);
        ref->layer_norm_act(n, x, b, x, 1e-5f, got);
        for (size_t g = 0; g < kern_n_groups(n); g++)
            assert_true(same_act(&want[g], &got[g]));
    }
}

/* ---- rows ---- */

/* First-order error of each step, relative to the exact intermediate results; s is the
 * error of a sum in lanes relative to the sum of magnitudes. */
static void test_layer_norm_value(void **state)
{
    (void)state;
    for (size_t n = 1; n <= 3072; n = n * 3 / 2 + 1) {
        float *x = draw_floats(IN_X, NORMAL, n), *b = draw_floats(IN_B, NORMAL, n);
        float *out = poisoned(GOT, n);
        for (size_t i = 0; i < n; i++)
            x[i] = 3 + 2 * x[i];
        ref->layer_norm(n, x, b, x, 1e-5f, out);
        double mean = 0, size = 0, var = 0, dn = (double)n;
        for (size_t i = 0; i < n; i++) {
            mean += (double)x[i] / dn;
            size += fabs((double)x[i]) / dn;
        }
        for (size_t i = 0; i < n; i++)
            var += ((double)x[i] - mean) * ((double)x[i] - mean) / dn;
        double inv = 1 / sqrt(var + (double)1e-5f);
        double s = (dn / 16 + 7) * U, err_mean = s * size;
        for (size_t i = 0; i < n; i++) {
            double g = (double)b[i], z = ((double)x[i] - mean) * inv;
            double want = z * g + (double)x[i];
            double err_z = err_mean * inv + fabs(z) * (s + err_mean * inv + 6 * U);
            double tol = fabs(g) * err_z + U * (fabs(g * z) + fabs((double)x[i]));
            if (!(fabs((double)out[i] - want) <= 1.01 * tol))
                fail_msg("n = %zu: %.9g, not %.9g (tolerance %.3g)", n, (double)out[i],
                         want, tol);
        }
    }
}

/* In ulp of the exact value, which count 2^-149 where it is denormal. */
static double ulps(double got, double want)
{
    int e;
    frexp(want, &e);
    return fabs(got - want) / ldexp(1, e < -125 ? -149 : e - 24);
}

static void test_exp(void **state)
{
    (void)state;
    double worst = 0, worst_small = 0;
    for (uint32_t u = 0; u <= 0x42b00000; u += 499) { /* |x| <= 88 */
        for (int sign = 0; sign < 2; sign++) {
            float x = sign ? -float_of(u) : float_of(u);
            double e = ulps((double)kern_ref_expf(x), exp((double)x));
            if (x < -87)
                worst_small = fmax(worst_small, e);
            else
                worst = fmax(worst, e);
        }
    }
    for (float x = -87; x > -104; x -= 0.001f)
        worst_small = fmax(worst_small, ulps((double)kern_ref_expf(x), exp((double)x)));
    print_message("# exp: %.3f ulp in [-87, 88], %.3f below\n", worst, worst_small);
    assert_true(worst <= EXP_ULP);
    assert_true(worst_small <= 1); /* one more rounding, to a denormal */

    assert_true(kern_ref_expf(0) == 1 && kern_ref_expf(-0.0f) == 1);
    assert_true(kern_ref_expf(88.72f) < INFINITY && isinf(kern_ref_expf(88.73f)));
    assert_true(isinf(kern_ref_expf(3e38f)) && isinf(kern_ref_expf(INFINITY)));
    assert_true(kern_ref_expf(-103.97f) == 0x1p-149f && kern_ref_expf(-103.98f) == 0);
    assert_true(kern_ref_expf(-3e38f) == 0 && kern_ref_expf(-INFINITY) == 0);
    assert_true(isnan(kern_ref_expf(NAN)));
}

static void test_gelu_value(void **state)
{
    (void)state;
    double worst_ulp = 0, worst_abs = 0;
    for (float x = -110; x < 110; x += fabsf(x) < 2 ? 0.0000011f : 0.000131f) {
        double y = (double)x, u = sqrt(2 / acos(-1)) * (y + 0.044715 * y * y * y);
        double want = y / (1 + exp(-2 * u));
        float got = x;
        ref->gelu(1, &got, NULL);
        if (y >= -1)
            worst_ulp = fmax(worst_ulp, ulps((double)got, want));
        else
            worst_abs = fmax(worst_abs, fabs((double)got - want));
    }
    print_message("# gelu: %.3f ulp from -1 up, %.3g below\n", worst_ulp, worst_abs);
    assert_true(worst_ulp <= GELU_ULP);
    assert_true(worst_abs <= GELU_ABS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dot_value),
        cmocka_unit_test(test_quantize_value),
        cmocka_unit_test(test_layer_norm_act),
        cmocka_unit_test(test_layer_norm_value),
        cmocka_unit_test(test_exp),
        cmocka_unit_test(test_gelu_value),
    };
    return cmocka_run_group_tests_name("kern_value", tests, setup, NULL);
}
