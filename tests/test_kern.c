/* The kernels of rows: every instruction set against the scalar specification, bit for
 * bit; and the table.  (test_kern_value.c has the specification against plain
 * arithmetic, test_kern_tile.c the products of tiles.)
 *
 * Outputs start as poison and have guards.  Where the build has SIMDe, the files of
 * AVX-512 and AVX-VNNI are tested by emulation on any processor with AVX2 and FMA.
 *
 * With --bench [LEVEL...] it is a micro-benchmark instead (kern_bench.h). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "kern_bench.h"
#include "kern_fixture.h"

#include "base/mem.h"
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

static int setup(void **state)
{
    (void)state;
    ref = kern_table_for(CPU_REF);
    find_levels();
    return make_buffers() ? 0 : -1;
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
    if (!guards_hold(p))
        fail_msg("%s %s, n = %zu: wrote before its output", level, kernel, n);
}

/* ---- dot products ---- */

static void check_dot(size_t dot, enum pattern p, size_t n)
{
    size_t stride, bytes = n * kern_dots[dot].bytes;
    uint8_t *w = buffer(IN_W, bytes + n % 2); /* at odd addresses, too */
    draw_weights(w, dot, p, n);
    char *x = draw_vectors(p, n, &stride);

    float want[MAX_X];
    kern_dot_fn *spec = kern_dot_for(ref, kern_dots[dot].type);
    for (size_t k = 0; k < MAX_X; k++)
        spec(n, w, x + k * stride, 0, 1, &want[k], 0);

    for (size_t l = 0; l <= n_levels; l++) {
        const char *name = l < n_levels ? levels[l].name : "ref";
        kern_dot_fn *fn =
            kern_dot_for(l < n_levels ? &levels[l].t : ref, kern_dots[dot].type);
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
        for (enum pattern p = 0; p < N_PATTERNS; p++) {
            for (size_t n = 0; n <= 100; n++)
                check_dot(dot, p, n);
            for (size_t n = 255; n <= 257; n++)
                check_dot(dot, p, n);
            for (size_t i = 0; i < N_MODEL_LENGTHS; i++)
                check_dot(dot, p, kern_model_lengths[i]);
        }
    }
}

/* ---- activations ---- */

static void quantize(const struct kern_table *t, bool norm, size_t n, const float *x,
                     const float *b, struct kern_act *out)
{
    if (norm)
        t->layer_norm_act(n, x, b, x, 1e-5f, out);
    else
        t->quantize_act(n, x, out);
}

static void check_quantize(bool norm, enum pattern p, size_t n)
{
    const char *name = norm ? "layer_norm_act" : "quantize_act";
    size_t n_groups = kern_n_groups(n), floats = n_groups * sizeof(struct kern_act) / 4;
    float *x = draw_floats(IN_X, p, n), *b = draw_floats(IN_B, p, n);
    if (n >= 128 && !norm) { /* the edges of what counts as zero */
        memset(x, 0, 128 * sizeof *x);
        x[3] = 0x1p-119f, x[5] = -0x1.fp-120f, x[64 + 63] = 0x1.fffffep-120f;
    }
    if (n >= 192 && !norm) { /* ties, to even */
        for (size_t j = 0; j < 64; j++)
            x[128 + j] = (float)j - 31.5f;
        x[128] = 127;
    }
    float *want_floats = poisoned(WANT, floats);
    struct kern_act *want = (void *)want_floats;
    quantize(ref, norm, n, x, b, want);
    expect_guards("ref", name, n, want_floats);
    for (size_t l = 0; l < n_levels; l++) {
        float *out = poisoned(GOT, floats);
        struct kern_act *got = (void *)out;
        quantize(&levels[l].t, norm, n, x, b, got);
        for (size_t g = 0; g < n_groups; g++)
            if (!same_act(&want[g], &got[g]))
                fail_msg("%s %s, %s, n = %zu: group %zu differs", levels[l].name, name,
                         pattern_names[p], n, g);
        expect_guards(levels[l].name, name, n, out);
    }
}

static void test_quantize(void **state)
{
    (void)state;
    for (int norm = 0; norm < 2; norm++)
        for (enum pattern p = 0; p < N_PATTERNS; p++) {
            for (size_t n = (size_t)norm; n <= 270; n++)
                check_quantize(norm, p, n);
            for (size_t i = 0; i < N_MODEL_LENGTHS; i++)
                check_quantize(norm, p, kern_model_lengths[i]);
        }
}

/* ---- rows ---- */

enum row { LAYER_NORM, GELU, GELU_NO_BIAS, ADD, N_ROWS };

static const char *const row_names[] = {"layer_norm", "gelu", "gelu without bias",
                                        "add"};

/* out = the kernel's result on x; kernels that work in place get a copy of x. */
static void run_row(const struct kern_table *t, enum row row, size_t n, const float *x,
                    const float *b, float *out)
{
    if (row != LAYER_NORM)
        memcpy(out, x, n * sizeof *x);
    switch (row) {
    case LAYER_NORM:
        t->layer_norm(n, x, b, x, 1e-5f, out);
        break;
    case GELU:
    case GELU_NO_BIAS:
        t->gelu(n, out, row == GELU ? b : NULL);
        break;
    default:
        t->add(n, out, b);
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
            if (row != LAYER_NORM)
                check_row(row, p, 0);
        }
    }
}

/* Rows that lie apart by more than they are long, with poison between them. */
static void check_add_rows(enum pattern p, size_t n, size_t n_rows)
{
    size_t step = n + n_rows % 3;
    float *x = draw_floats(IN_X, p, n_rows), *y = draw_floats(IN_B, p, n),
          *rows = draw_floats(IN_W, p, n_rows ? (n_rows - 1) * step + n : 0);
    for (size_t l = 0; l <= n_levels; l++) {
        const struct kern_table *t = l ? &levels[l - 1].t : ref;
        float *out = poisoned(l ? GOT : WANT, n);
        memcpy(out, y, n * sizeof *y);
        t->add_rows(n, out, n_rows, x, rows, step);
        expect_guards(l ? levels[l - 1].name : "ref", "add_rows", n, out);
        if (l)
            expect_same(levels[l - 1].name, "add_rows", pattern_names[p], n,
                        (float *)buffer(WANT, n * sizeof *y), out, n);
    }
}

static void test_add_rows_same(void **state)
{
    (void)state;
    for (enum pattern p = 0; p < N_PATTERNS; p++)
        for (size_t n_rows = 0; n_rows <= 9; n_rows++)
            for (size_t n = 0; n <= 100; n++)
                check_add_rows(p, n, n_rows);
    check_add_rows(NORMAL, 3072, 64);
    /* and what it is: small whole numbers have no rounding */
    float y[3] = {1, 2, 3}, x[2] = {10, -3}, rows[8] = {5, 6, 7, 0, 1, 2, 4, 0};
    ref->add_rows(3, y, 2, x, rows, 4);
    assert_true(y[0] == 48 && y[1] == 56 && y[2] == 61);
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

/* Between the two widths of AVX-512 the race decides. */
static void expect_best(int level)
{
    enum cpu_level best;
    assert_int_equal(cpu_detect(&best, NULL), 0);
    assert_true(level == (int)best || (best == CPU_AVX512 && level == CPU_AVX512VL));
}

static void test_table(void **state)
{
    (void)state;
    assert_int_equal(table_in_child("bogus"), 50 - RUNT_E_INVALID);
    assert_int_equal(table_in_child("ref"), CPU_REF);
    for (enum cpu_level l = CPU_REF; l < CPU_N_LEVELS; l++)
        assert_int_equal(table_in_child(cpu_level_name(l)),
                         cpu_has(l) ? (int)l : 50 - RUNT_E_INVALID);
    expect_best(table_in_child(""));

    const struct kern_table *t[8] = {0};
    pthread_t id[8];
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&id[i], NULL, get_table, &t[i]), 0);
    for (int i = 0; i < 8; i++)
        pthread_join(id[i], NULL);
    for (int i = 0; i < 8; i++)
        assert_true(t[i] && t[i] == t[0]);
    expect_best(t[0]->level);
    assert_null(kern_dot_for(ref, (enum fmt_type)7));
    assert_null(kern_dot_for(ref, FMT_Q4_0));
    for (enum cpu_level l = CPU_REF; l < CPU_N_LEVELS; l++)
        assert_true(!kern_table_for(l) || kern_table_for(l)->level == l);
}

/* Whatever the order, the race goes to the faster; here by far. */
static void test_race(void **state)
{
    (void)state;
    const struct kern_table *best = NULL;
    for (enum cpu_level l = CPU_AVX2; l < CPU_N_LEVELS; l++)
        if (cpu_has(l))
            best = kern_table_for(l);
    if (!best)
        skip();
    assert_ptr_equal(kern_table_race(ref, best), best);
    assert_ptr_equal(kern_table_race(best, ref), best);
}

/* ---- the benchmark ---- */

enum { MATRIX_BYTES = 128 << 20, BENCH_X = 64 };

struct job {
    const struct kern_table *t;
    kern_dot_fn *dot;
    size_t n, n_rows, row_bytes, n_x;
    uint8_t *w;
    float *x, *y;
    size_t kernel;
};

static void run_dot(void *job)
{
    const struct job *j = job;
    for (size_t r = 0; r < j->n_rows; r++)
        j->dot(j->n, j->w + r * j->row_bytes, j->x, j->n * sizeof *j->x, j->n_x, j->y,
               1);
}

static void bench_dot(struct job *j, size_t d)
{
    j->dot = kern_dot_for(j->t, kern_dots[d].type);
    j->row_bytes = j->n * kern_dots[d].bytes;
    j->n_x = j->n_rows = 1;
    double hot = bench_best(run_dot, j);
    j->n_rows = MATRIX_BYTES / j->row_bytes;
    double stream = bench_best(run_dot, j) / (double)j->n_rows;
    j->n_rows = 1;
    j->n_x = BENCH_X;
    double many = bench_best(run_dot, j) / BENCH_X;
    double gigabytes = 1e-9 * (double)j->row_bytes, ops = 2e-9 * (double)j->n;
    printf("%-14s %5zu %8.1f %8.1f %8.1f %8.1f\n", kern_dots[d].name, j->n,
           gigabytes / hot, gigabytes / stream, ops / hot, ops / many);
    fflush(stdout);
}

static const struct {
    const char *name;
    unsigned bytes; /* read and written for each number */
} others[] = {{"quantize_act", 5}, {"layer_norm_act", 13},
              {"layer_norm", 16},  {"gelu", 12},
              {"add", 12},         {"add_rows of 8", 40}};

/* x is read, y written; where a kernel works in place y is made anew from x, which
 * costs a copy within the cache. */
static void run_other(void *job)
{
    const struct job *j = job;
    switch (j->kernel) {
    case 0:
        j->t->quantize_act(j->n, j->x, (void *)j->y);
        break;
    case 1:
        j->t->layer_norm_act(j->n, j->x, j->x, j->x, 1e-5f, (void *)j->y);
        break;
    case 2:
        j->t->layer_norm(j->n, j->x, j->x, j->x, 1e-5f, j->y);
        break;
    case 3:
        memcpy(j->y, j->x, j->n * sizeof *j->y);
        j->t->gelu(j->n, j->y, j->x);
        break;
    case 4:
        j->t->add(j->n, j->y, j->x);
        break;
    default:
        j->t->add_rows(j->n, j->y, 8, j->x, j->x, j->n);
    }
}

static void bench_others(struct job *j)
{
    for (j->kernel = 0; j->kernel < sizeof others / sizeof *others; j->kernel++) {
        for (size_t i = 0; i < N_MODEL_LENGTHS; i++) {
            j->n = kern_model_lengths[i];
            memset(j->y, 0, MAX_N * sizeof *j->y);
            double s = bench_best(run_other, j);
            printf("%-14s %5zu %8.3f ns %6.1f GB/s\n", others[j->kernel].name, j->n,
                   1e9 * s / (double)j->n,
                   1e-9 * (double)(others[j->kernel].bytes * j->n) / s);
        }
    }
}

static int bench(int n_names, char **names)
{
    struct job j = {.w = mem_aligned(MATRIX_BYTES),
                    .x = mem_array(BENCH_X * MAX_N, sizeof *j.x),
                    .y = mem_array(MAX_N, sizeof *j.y)};
    int rc = !j.w || !j.x || !j.y || !make_buffers();
    if (rc) {
        fprintf(stderr, "test_kern: out of memory\n");
        goto out;
    }
    memset(j.w, 0x2c, MATRIX_BYTES); /* as every weight: small normal numbers */
    for (size_t i = 0; i < BENCH_X; i++)
        memcpy(j.x + i * MAX_N, draw_floats(IN_X, NORMAL, MAX_N), MAX_N * sizeof *j.x);
    for (enum cpu_level l = CPU_REF; l < CPU_N_LEVELS; l++) {
        if (!bench_wanted(l, n_names, names))
            continue;
        j.t = kern_table_for(l);
        printf("%s\nkernel             n  hot GB/s   stream  GOP/s 1       64\n",
               cpu_level_name(l));
        for (size_t d = 0; d < N_DOTS; d++) {
            for (size_t i = 0; i < N_MODEL_LENGTHS; i++) {
                j.n = kern_model_lengths[i];
                bench_dot(&j, d);
            }
        }
        bench_others(&j);
    }
out:
    mem_free(j.y);
    mem_free(j.x);
    mem_free(j.w);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "--bench"))
        return bench(argc - 2, argv + 2);
    unsetenv("RUNT_CPU"); /* every level is tested, whatever the user prefers */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_race),
        cmocka_unit_test(test_dot_same),
        cmocka_unit_test(test_quantize),
        cmocka_unit_test(test_rows_same),
        cmocka_unit_test(test_add_rows_same),
        cmocka_unit_test(test_layer_norm_in_place),
        cmocka_unit_test(test_gelu_same),
    };
    return cmocka_run_group_tests_name("kern", tests, setup, NULL);
}
