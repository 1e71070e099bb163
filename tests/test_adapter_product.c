/* What an adapter adds to a product, and merged into its matrix. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "back/cpu_ops.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/adapter.h"

#include <math.h>
#include <string.h>

enum { IN = 333, OUT = 70, RANK = 9, TOKENS = 5 };

static float *drawn(uint64_t seed, size_t n)
{
    struct rng rng;
    float *x = mem_array(n, sizeof *x);
    rng_seed(&rng, seed);
    for (size_t i = 0; i < n; i++)
        x[i] = rng_normal(&rng);
    return x;
}

static struct cpu_matrix matrix_of(const float *w)
{
    struct cpu_matrix m = {0};
    const struct kern_table *kern;
    assert_int_equal(kern_table_get(&kern, NULL), 0);
    assert_int_equal(cpu_matrix_init(kern, NULL, fmt_find(FMT_F32), (const uint8_t *)w,
                                     OUT, IN, &m, NULL),
                     0);
    return m;
}

static void multiply(const struct cpu_matrix *m, size_t n, const float *x, float *y)
{
    struct cpu_thread t = {.n = 1};
    float own[RANK], *low = mem_array(n * RANK, sizeof *low);
    t.block = mem_array(CPU_BLOCK_FLOATS, sizeof *t.block);
    t.low = own;
    assert_int_equal(kern_table_get(&t.kern, NULL), 0);
    struct cpu_input in = cpu_prepare(&t, m, n, x, &(struct cpu_buffer){.low = low});
    cpu_matmul(&t, m, in, n, NULL, CPU_STORE, y, OUT);
    mem_free(t.block);
    mem_free(low);
}

/* More than a product takes at a time. */
static void a_product_of_many_tokens(void **state)
{
    (void)state;
    enum { MANY = CPU_BLOCK_FLOATS / 16 + 9 };
    float *w = drawn(1, OUT * IN), *a = drawn(2, RANK * IN), *b = drawn(3, OUT * RANK),
          *x = drawn(4, MANY * IN), *y = mem_array(MANY * OUT, sizeof *y), one[OUT];
    struct cpu_matrix m = matrix_of(w);
    struct cpu_low low;
    assert_int_equal(cpu_low_join(&m.low, OUT, IN, RANK, a, b, 0.5, &low, NULL), 0);
    m.low = low;
    multiply(&m, MANY, x, y);
    for (size_t i = 0; i < MANY; i++) {
        multiply(&m, 1, x + i * IN, one);
        assert_memory_equal(one, y + i * OUT, sizeof one);
    }
    cpu_matrix_free(&m);
    mem_free(w);
    mem_free(a);
    mem_free(b);
    mem_free(x);
    mem_free(y);
}

/* Applied and merged, in float: how far apart may a product's number be?  With u =
 * 2^-24, a dot product of n numbers in 16 lanes has an error of (n/16 + 4) u of the sum
 * of magnitudes; low has that of a's, its terms add rank u, the scaled b one u.  A
 * merged weight is rounded once, and the product with it is such a dot product.
 * Together (n/8 + rank + 11) u (|w| + |scale b| |a|) |x|, but for terms in u^2. */
static void applied_and_merged(void **state)
{
    (void)state;
    float *w = drawn(1, OUT * IN), *a = drawn(2, RANK * IN), *b = drawn(3, OUT * RANK),
          *x = drawn(4, TOKENS * IN), *merged = mem_array(OUT * IN, sizeof *w);
    double scale = 0.37, worst = 0;
    float y[2][TOKENS * OUT];
    struct cpu_low low;
    memcpy(merged, w, OUT * IN * sizeof *w);
    adapter_merge(IN, OUT, RANK, scale, a, b, merged);
    struct cpu_matrix m[2] = {matrix_of(w), matrix_of(merged)};
    assert_int_equal(cpu_low_join(&m[0].low, OUT, IN, RANK, a, b, scale, &low, NULL),
                     0);
    m[0].low = low;
    for (size_t n = 1; n <= TOKENS; n += TOKENS - 1) {
        multiply(&m[0], n, x, y[0]);
        multiply(&m[1], n, x, y[1]);
        for (size_t i = 0; i < n * OUT; i++) {
            double size = 0, exact = 0;
            for (size_t k = 0; k < IN; k++) {
                double v = (double)x[i / OUT * IN + k], sum = 0, sizes = 0;
                for (size_t j = 0; j < RANK; j++) {
                    double term =
                        scale * (double)b[i % OUT * RANK + j] * (double)a[j * IN + k];
                    sum += term;
                    sizes += fabs(term);
                }
                double weight = (double)w[i % OUT * IN + k];
                exact += (weight + sum) * v;
                size += (fabs(weight) + sizes) * fabs(v);
            }
            double bound = (IN / 8.0 + RANK + 11) * 0x1p-24 * size;
            double apart = fabs((double)y[0][i] - (double)y[1][i]);
            if (!(apart <= bound) || !(fabs((double)y[0][i] - exact) <= bound))
                fail_msg("number %zu: %a and %a, exactly %a", i, (double)y[0][i],
                         (double)y[1][i], exact);
            worst = fmax(worst, apart / bound);
        }
    }
    print_message("applied and merged: %.2g of the bound apart at most\n", worst);
    assert_true(worst > 0);
    cpu_matrix_free(&m[0]);
    cpu_matrix_free(&m[1]);
    mem_free(w);
    mem_free(a);
    mem_free(b);
    mem_free(x);
    mem_free(merged);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(applied_and_merged),
        cmocka_unit_test(a_product_of_many_tokens),
    };
    return cmocka_run_group_tests_name("adapter_product", tests, NULL, NULL);
}
