/* Training's products against loops in double precision: each library that is here,
 * each form, floats and bfloat16. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "back/gemm.h"
#include "base/mem.h"
#include "base/rng.h"
#include "kern/grad.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct rng rng;
static const float poison = -7.5e29f;

/* An operand: [rows][cols], rows `step` apart.  What lies between is NaN, and must not
 * be read, but for the library's own [rows - 1] steps; nothing follows the last row. */
struct operand {
    size_t rows, cols, step;
    float *f;    /* rounded to bfloat16 where that is asked for */
    uint16_t *h; /* the same, or NULL */
};

static struct operand operand(enum gemm_type type, size_t rows, size_t cols, size_t gap)
{
    struct operand o = {.rows = rows, .cols = cols, .step = cols + gap};
    size_t n = (rows - 1) * o.step + cols;
    o.f = mem_array(n, sizeof *o.f);
    assert_non_null(o.f);
    for (size_t i = 0; i < n; i++)
        o.f[i] = i % o.step < cols ? rng_normal(&rng) : NAN;
    if (type == GEMM_BF16) {
        o.h = mem_array(n, sizeof *o.h);
        assert_non_null(o.h);
        grad_kern_plain.to_bf16(n, o.f, o.h);
        grad_kern_plain.from_bf16(n, o.h, o.f);
    }
    return o;
}

static void operand_free(struct operand *o)
{
    mem_free(o->f);
    mem_free(o->h);
}

static double at(const struct operand *o, size_t row, size_t col)
{
    return (double)o->f[row * o->step + col];
}

struct product {
    enum gemm_type type;
    enum gemm_form form;
    size_t m, n, k, gap;
    bool add;
};

/* Of the sum of the products' magnitudes: a dozen roundings of it.  Sums of floats, in
 * any order, stay below that; leaving out one product does not. */
static const double tolerance = 1e-6;

static void check(struct gemm_thread *t, const struct product *p)
{
    struct operand a = p->form == GEMM_TN ? operand(p->type, p->k, p->m, p->gap)
                                          : operand(p->type, p->m, p->k, p->gap);
    struct operand b = p->form == GEMM_NT ? operand(p->type, p->n, p->k, p->gap * 2)
                                          : operand(p->type, p->k, p->n, p->gap * 2);
    size_t step = p->n + p->gap * 3, n_out = p->m * step;
    float *c = mem_array(n_out, sizeof *c), *before = mem_array(n_out, sizeof *c);
    assert_true(c && before);
    for (size_t i = 0; i < n_out; i++) /* what is not to be added to is NaN */
        c[i] = before[i] = i % step >= p->n ? poison : p->add ? rng_normal(&rng) : NAN;
    gemm_run(t, p->type, p->form, p->m, p->n, p->k,
             p->type == GEMM_BF16 ? (const void *)a.h : a.f, a.step,
             p->type == GEMM_BF16 ? (const void *)b.h : b.f, b.step, p->add, c, step);
    for (size_t i = 0; i < p->m; i++) {
        for (size_t j = 0; j < p->n; j++) {
            double want = p->add ? (double)before[i * step + j] : 0;
            double size = fabs(want), got = (double)c[i * step + j];
            for (size_t l = 0; l < p->k; l++) {
                double x = (p->form == GEMM_TN ? at(&a, l, i) : at(&a, i, l)) *
                           (p->form == GEMM_NT ? at(&b, j, l) : at(&b, l, j));
                want += x;
                size += fabs(x);
            }
            if (!(fabs(got - want) <= tolerance * size))
                fail_msg(
                    "form %d, type %d, add %d, %zu x %zu x %zu, gap %zu: [%zu][%zu] "
                    "is %.9g, not %.9g",
                    p->form, p->type, p->add, p->m, p->n, p->k, p->gap, i, j, got,
                    want);
        }
        for (size_t j = p->n; j < step; j++)
            assert_true(c[i * step + j] == poison);
    }
    operand_free(&a);
    operand_free(&b);
    mem_free(c);
    mem_free(before);
}

/* Sides that are no multiples of any register, one, and a tile's. */
static const size_t sizes[][3] = {{1, 1, 1},   {1, 5, 3},    {5, 1, 7},     {7, 3, 1},
                                  {3, 17, 31}, {33, 15, 47}, {65, 129, 9},  {2, 3, 500},
                                  {64, 5, 64}, {19, 64, 21}, {128, 32, 130}};

static void check_all(enum gemm_type type, struct gemm_thread *t)
{
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int form = GEMM_NT; form <= GEMM_TN; form++)
            for (size_t gap = 0; gap < 6; gap += 5)
                for (int add = 0; add < 2; add++)
                    check(t, &(struct product){type, (enum gemm_form)form, sizes[s][0],
                                               sizes[s][1], sizes[s][2], gap, add});
}

/* ---- a library: RUNT_GEMM names it, NULL: the one that is chosen ---- */

struct library {
    struct gemm *gemm;
    struct gemm_thread *thread;
};

static char *was; /* RUNT_GEMM */

static void restore(void)
{
    if (was)
        setenv("RUNT_GEMM", was, 1);
    else
        unsetenv("RUNT_GEMM");
}

static struct library open_library(const char *name)
{
    struct library l = {NULL, NULL};
    struct runt_err err;
    if (name)
        setenv("RUNT_GEMM", name, 1);
    int rc = gemm_open(&l.gemm, &err);
    restore();
    if (rc == RUNT_E_UNSUPPORTED) {
        assert_null(l.gemm);
        print_message("%s\n", err.msg);
        skip();
    }
    if (rc || gemm_thread_open(l.gemm, &l.thread, &err))
        fail_msg("%s", err.msg);
    if (name)
        assert_string_equal(gemm_name(l.gemm, GEMM_F32),
                            strcmp(name, "onednn") ? "OpenBLAS" : "oneDNN");
    return l;
}

static void close_library(struct library *l)
{
    gemm_thread_close(l->thread);
    gemm_close(l->gemm);
}

static void products_of(const char *name, enum gemm_type type)
{
    struct library l = open_library(name);
    check_all(type, l.thread);
    close_library(&l);
}

static void onednn_floats(void **state)
{
    (void)state;
    products_of("onednn", GEMM_F32);
}

static void onednn_bfloat16(void **state)
{
    (void)state;
    products_of("onednn", GEMM_BF16);
}

static void openblas_floats(void **state)
{
    (void)state;
    products_of("openblas", GEMM_F32);
}

static void openblas_bfloat16(void **state)
{
    (void)state;
    products_of("openblas", GEMM_BF16);
}

/* Emulated ones are made of pieces that fit in the scratch: k is longer than two. */
static void long_bfloat16_products(void **state)
{
    (void)state;
    struct library l = open_library(NULL);
    for (int form = GEMM_NT; form <= GEMM_TN; form++)
        for (int add = 0; add < 2; add++)
            check(l.thread, &(struct product){GEMM_BF16, (enum gemm_form)form, 11, 9,
                                              120001, 3, add});
    close_library(&l);
}

static void nothing_to_do_is_fine(void **state)
{
    (void)state;
    struct library l = open_library(NULL);
    float c = poison, x = 1;
    gemm_run(l.thread, GEMM_F32, GEMM_NN, 0, 1, 1, &x, 1, &x, 1, true, &c, 1);
    gemm_run(l.thread, GEMM_F32, GEMM_NN, 1, 0, 1, &x, 1, &x, 1, true, &c, 1);
    gemm_run(l.thread, GEMM_F32, GEMM_NN, 1, 1, 0, &x, 1, &x, 1, true, &c, 1);
    assert_true(c == poison);
    close_library(&l);
}

static void an_unknown_library_is_refused(void **state)
{
    (void)state;
    struct runt_err err;
    struct gemm *g = (struct gemm *)&err;
    setenv("RUNT_GEMM", "nonsense", 1);
    int rc = gemm_open(&g, &err);
    restore();
    assert_int_equal(rc, RUNT_E_INVALID);
    assert_ptr_equal(g, &err);
    assert_non_null(strstr(err.msg, "nonsense"));
    assert_non_null(strstr(err.msg, "onednn or openblas"));
}

static void memory_may_run_out(void **state)
{
    (void)state;
    struct library l = open_library(NULL);
    close_library(&l);
    long live = mem_live();
    for (long k = 0;; k++) {
        struct runt_err err;
        l = (struct library){NULL, NULL};
        mem_fail_after(k);
        int rc = gemm_open(&l.gemm, &err);
        if (!rc)
            rc = gemm_thread_open(l.gemm, &l.thread, &err);
        mem_fail_after(-1);
        close_library(&l);
        assert_int_equal(mem_live(), live);
        if (!rc) {
            assert_true(k > 2);
            break;
        }
        assert_int_equal(rc, RUNT_E_NOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(onednn_floats),
        cmocka_unit_test(onednn_bfloat16),
        cmocka_unit_test(openblas_floats),
        cmocka_unit_test(openblas_bfloat16),
        cmocka_unit_test(long_bfloat16_products),
        cmocka_unit_test(nothing_to_do_is_fine),
        cmocka_unit_test(an_unknown_library_is_refused),
        cmocka_unit_test(memory_may_run_out),
    };
    rng_seed(&rng, 30);
    was = getenv("RUNT_GEMM") ? mem_strdup(getenv("RUNT_GEMM")) : NULL;
    int failed = cmocka_run_group_tests_name("gemm", tests, NULL, NULL);
    mem_free(was);
    return failed;
}
