/* The kernels: every instruction set against the scalar specification, bit for bit.
 * (test_kern_value.c has the specification against plain arithmetic.)
 *
 * Outputs start as poison and have guards.  Where the build has SIMDe, the AVX-512 file
 * is tested by emulation on any processor with AVX2 and FMA. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "kern_fixture.h"

#include "kern/kern_impl.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- what is compared ---- */

static const struct kern_table *ref;

static struct {
    const char *name;
    struct kern_table t;
} levels[4];
static size_t n_levels;

static int setup(void **state)
{
    (void)state;
    enum cpu_level best;
    assert_int_equal(cpu_detect(&best, NULL), 0);
    ref = kern_table_for(CPU_REF);
    for (enum cpu_level l = CPU_AVX2; l <= CPU_NEON; l++) {
        const struct kern_table *t = kern_table_for(l);
        if (!t || l > best) {
            print_message("# level %s: not on this machine, not tested\n",
                          cpu_level_name(l));
            continue;
        }
        levels[n_levels].name = cpu_level_name(l);
        levels[n_levels++].t = *t;
    }
#ifdef KERN_SIMDE
    if (best >= CPU_AVX2) {
        levels[n_levels].name = "avx512 (emulated)";
        levels[n_levels].t = *ref;
        kern_fill_avx512_simde(&levels[n_levels++].t);
    }
#else
    print_message("# no SIMDe: AVX-512 is not emulated\n");
#endif
    return make_buffers() ? 0 : -1;
}

/* Two NaN count as the same: kern.h says why their bits are open. */
static bool same(float a, float b)
{
    return !memcmp(&a, &b, sizeof a) || (isnan(a) && isnan(b));
}

static void expect_same(const char *level, const char *kernel, const char *input,
                        size_t n, const float *want, const float *got, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!same(want[i], got[i]))
            fail_msg("%s %s, %s, n = %zu: element %zu is %a, not %a", level, kernel,
                     input, n, i, (double)got[i], (double)want[i]);
}

static void expect_guards(const char *level, const char *kernel, size_t n,
                          const float *p)
{
    for (int i = 1; i <= GUARD; i++)
        if (!is_poison(p[-i]))
            fail_msg("%s %s, n = %zu: wrote before its output", level, kernel, n);
}

/* ---- dot products ---- */

static void check_dot(size_t dot, enum pattern p, size_t n)
{
    size_t stride, bytes = n / kern_dots[dot].block_len * kern_dots[dot].block_bytes;
    uint8_t *w = buffer(IN_W, bytes + n % 2); /* at odd addresses, too */
    if (is_block(dot))
        w -= n / KERN_BLOCK % 2;
    draw_weights(w, dot, p, n);
    char *x = draw_vectors(dot, p, n, &stride);

    bool int8;
    float want[MAX_X];
    kern_dot_fn *spec = kern_dot_for(ref, kern_dots[dot].type, &int8);
    assert_true(int8 == is_block(dot));
    for (size_t k = 0; k < MAX_X; k++)
        spec(n, w, x + k * stride, 0, 1, &want[k], 0);

    for (size_t l = 0; l <= n_levels; l++) {
        const char *name = l < n_levels ? levels[l].name : "ref";
        kern_dot_fn *fn =
            kern_dot_for(l < n_levels ? &levels[l].t : ref, kern_dots[dot].type, &int8);
        for (size_t n_x = 0; n_x <= MAX_X; n_x++) {
            size_t out_stride = n_x % 2 ? 1 : 3,
                   n_out = n_x ? (n_x - 1) * out_stride + 1 : 0;
            float *out = poisoned(GOT, n_out);
            fn(n, w, x, stride, n_x, out, out_stride);
            for (size_t i = 0; i < n_out; i++) {
                bool ok = i % out_stride ? is_poison(out[i])
                                         : same(out[i], want[i / out_stride]);
                if (!ok)
                    fail_msg("%s %s, %s, n = %zu, %zu of %zu vectors: %a, not %a", name,
                             kern_dots[dot].name, pattern_names[p], n, i / out_stride,
                             n_x, (double)out[i], (double)want[i / out_stride]);
            }
            expect_guards(name, kern_dots[dot].name, n, out);
        }
    }
}

static void test_dot_same(void **state)
{
    (void)state;
    for (size_t dot = 0; dot < N_DOTS; dot++) {
        size_t step = kern_dots[dot].block_len;
        for (enum pattern p = 0; p < N_PATTERNS; p++) {
            for (size_t n = 0; n <= (is_block(dot) ? 13 * step : 100); n += step)
                check_dot(dot, p, n);
            for (size_t n = 255; n <= 257 && !is_block(dot); n++)
                check_dot(dot, p, n);
            for (size_t i = 0; i < N_MODEL_LENGTHS; i++)
                check_dot(dot, p, kern_model_lengths[i]);
        }
    }
}

/* ---- rows ---- */

static void test_quantize(void **state)
{
    (void)state;
    for (enum pattern p = 0; p < N_PATTERNS; p++) {
        for (size_t n = 0; n <= 3200; n += n < 320 ? 32 : 1440) {
            size_t n_blocks = n / KERN_ACT_LEN,
                   floats = n_blocks * sizeof(struct kern_act) / 4;
            float *x = draw_floats(IN_X, p, n);
            if (n >= 64) { /* the edges of what counts as zero */
                memset(x, 0, 64 * sizeof *x);
                x[3] = 0x1p-119f, x[5] = -0x1.fp-120f, x[32 + 31] = 0x1.fffffep-120f;
            }
            struct kern_act *want = (void *)poisoned(WANT, floats);
            ref->quantize_act(n, x, want);
            for (size_t l = 0; l < n_levels; l++) {
                float *out = poisoned(GOT, floats);
                struct kern_act *got = (void *)out;
                levels[l].t.quantize_act(n, x, got);
                for (size_t b = 0; b < n_blocks; b++)
                    if (!same(want[b].d, got[b].d) ||
                        memcmp(want[b].q, got[b].q, KERN_ACT_LEN))
                        fail_msg("%s quantize_act, %s, n = %zu: block %zu differs",
                                 levels[l].name, pattern_names[p], n, b);
                expect_guards(levels[l].name, "quantize_act", n, out);
            }
        }
    }
}

enum row { LAYER_NORM, GELU, GELU_NO_BIAS, SOFTMAX, ADD, AXPY, DECODE_F16, N_ROWS };

static const char *const row_names[] = {
    "layer_norm", "gelu", "gelu without bias", "softmax", "add", "axpy", "decode_f16"};

/* out = the kernel's result on x; kernels that work in place get a copy of x. */
static void run_row(const struct kern_table *t, enum row row, size_t n, const float *x,
                    const float *b, float *out)
{
    if (row != LAYER_NORM && row != DECODE_F16)
        memcpy(out, x, n * sizeof *x);
    switch (row) {
    case LAYER_NORM:
        t->layer_norm(n, x, b, x, 1e-5f, out);
        break;
    case GELU:
    case GELU_NO_BIAS:
        t->gelu(n, out, row == GELU ? b : NULL);
        break;
    case SOFTMAX:
        t->softmax(n, out, 0.125f);
        break;
    case ADD:
        t->add(n, out, b);
        break;
    case AXPY:
        t->axpy(n, out, -0.3f, b);
        break;
    default:
        t->decode_f16(n, (const void *)((const char *)(x + n) - 2 * n), out);
    }
}

static void check_row(enum row row, enum pattern p, size_t n)
{
    float *x = draw_floats(IN_X, p, n), *b = draw_floats(IN_B, p, n);
    float *want = poisoned(WANT, n);
    run_row(ref, row, n, x, b, want);
    for (size_t l = 0; l < n_levels; l++) {
        float *got = poisoned(GOT, n);
        run_row(&levels[l].t, row, n, x, b, got);
        expect_same(levels[l].name, row_names[row], pattern_names[p], n, want, got, n);
        expect_guards(levels[l].name, row_names[row], n, got);
    }
    expect_guards("ref", row_names[row], n, want);
}

static void test_rows_same(void **state)
{
    (void)state;
    for (enum row row = 0; row < N_ROWS; row++) {
        for (enum pattern p = 0; p < N_PATTERNS; p++) {
            for (size_t n = 1; n <= 100; n++)
                check_row(row, p, n);
            for (size_t n = 255; n <= 257; n++)
                check_row(row, p, n);
            for (size_t i = 0; i < N_MODEL_LENGTHS; i++)
                check_row(row, p, kern_model_lengths[i]);
            if (row != LAYER_NORM && row != SOFTMAX)
                check_row(row, p, 0);
        }
    }
}

static void test_layer_norm_in_place(void **state)
{
    (void)state;
    for (size_t l = 0; l <= n_levels; l++) {
        const struct kern_table *t = l < n_levels ? &levels[l].t : ref;
        float *x = draw_floats(IN_X, NORMAL, 777), *b = draw_floats(IN_B, NORMAL, 777);
        float *want = poisoned(WANT, 777);
        t->layer_norm(777, x, b, b, 1e-5f, want);
        t->layer_norm(777, x, b, b, 1e-5f, x);
        assert_memory_equal(x, want, 777 * sizeof *x);
    }
}

/* GELU, and with it exp, densely over all that is not 0 or x. */
static void test_gelu_same(void **state)
{
    (void)state;
    enum { N = 4096 };
    for (float next = -110; next < 110;) {
        float *x = buffer(IN_X, N * sizeof *x), *want = poisoned(WANT, N);
        for (size_t i = 0; i < N; i++, next += fabsf(next) < 6 ? 9e-6f : 13e-5f)
            x[i] = next;
        run_row(ref, GELU_NO_BIAS, N, x, NULL, want);
        for (size_t l = 0; l < n_levels; l++) {
            float *got = poisoned(GOT, N);
            run_row(&levels[l].t, GELU_NO_BIAS, N, x, NULL, got);
            expect_same(levels[l].name, "gelu", "sweep", N, want, got, N);
        }
    }
}

static void test_decode_f16(void **state)
{
    (void)state;
    enum { N = 1 << 16 };
    static uint16_t h[N];
    static float want[N], got[N];
    for (size_t i = 0; i < N; i++)
        h[i] = (uint16_t)i;
    ref->decode_f16(N, h, want);
    for (size_t i = 0; i < N; i++)
        assert_true(same(want[i], fmt_f16_to_f32(h[i])));
    for (size_t l = 0; l < n_levels; l++) {
        levels[l].t.decode_f16(N, h, got);
        assert_memory_equal(want, got, sizeof want); /* NaN too */
    }
}

/* ---- the table ---- */

/* The first call decides, so each case has a process of its own. */
static int table_in_child(const char *cpu)
{
    pid_t pid = fork();
    if (pid == 0) {
        const struct kern_table *t = NULL, *again = NULL;
        struct runt_err err = {0}, err2 = {0};
        setenv("RUNT_CPU", cpu, 1);
        int rc = kern_table_get(&t, &err);
        setenv("RUNT_CPU", "ref", 1);
        if (kern_table_get(&again, &err2) != rc || again != t ||
            strcmp(err.msg, err2.msg) || (rc && (t || !strstr(err.msg, cpu))))
            _exit(99);
        _exit(rc ? 50 - rc : (int)t->level);
    }
    int status = 0;
    assert_true(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void *get_table(void *out)
{
    kern_table_get(out, NULL);
    return NULL;
}

static void test_table(void **state)
{
    (void)state;
    enum cpu_level best;
    bool int8;
    assert_int_equal(cpu_detect(&best, NULL), 0);
    assert_int_equal(table_in_child("bogus"), 50 - RUNT_E_INVALID);
    assert_int_equal(table_in_child("ref"), CPU_REF);
    assert_int_equal(table_in_child(""), kern_table_for(best) ? best : CPU_REF);

    const struct kern_table *t[8] = {0};
    pthread_t id[8];
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&id[i], NULL, get_table, &t[i]), 0);
    for (int i = 0; i < 8; i++)
        pthread_join(id[i], NULL);
    for (int i = 0; i < 8; i++)
        assert_true(t[i] && t[i] == t[0]);
    assert_int_equal(t[0]->level, kern_table_for(best) ? best : CPU_REF);
    assert_null(kern_dot_for(ref, (enum fmt_type)7, &int8));
}

int main(void)
{
    unsetenv("RUNT_CPU"); /* every level is tested, whatever the user prefers */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_dot_same),
        cmocka_unit_test(test_quantize),
        cmocka_unit_test(test_rows_same),
        cmocka_unit_test(test_layer_norm_in_place),
        cmocka_unit_test(test_gelu_same),
        cmocka_unit_test(test_decode_f16),
    };
    return cmocka_run_group_tests_name("kern", tests, setup, NULL);
}
