/* The roofline's figures: finite, of a sane size, and refused where there is nothing to
 * measure.  No test asks for a speed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "back/roofline.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

/* Any real machine: a kilobyte to a petabyte, a thousand to 10^16 operations. */
static void assert_sane(double x)
{
    assert_true(isfinite(x));
    assert_true(x > 1e3 && x < 1e16);
}

static struct pool *pool_of(unsigned n)
{
    struct pool *p = NULL;
    struct runt_err err;
    if (pool_create(n, &p, &err))
        fail_msg("%s", err.msg);
    return p;
}

/* NULL: this processor or this build lacks the level. */
static const struct kern_table *table_at(int level)
{
    return cpu_has((enum cpu_level)level) ? kern_table_for((enum cpu_level)level)
                                          : NULL;
}

static void bandwidth_is_measured_for_any_buffer(void **state)
{
    (void)state;
    /* parts that are equal, that differ, and then one that is empty */
    static const size_t bytes[] = {ROOFLINE_MIN_BYTES, 1000003};
    for (unsigned n = 1; n <= 3; n++) {
        struct pool *p = pool_of(n);
        for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++) {
            double x = -1;
            struct runt_err err;
            if (roofline_bandwidth(table_at(CPU_REF), p, bytes[i], &x, &err))
                fail_msg("%u threads, %zu bytes: %s", n, bytes[i], err.msg);
            assert_sane(x);
        }
        pool_destroy(p);
    }
    struct pool *many = pool_of(9);
    double x = -1;
    assert_int_equal(
        roofline_bandwidth(table_at(CPU_REF), many, ROOFLINE_MIN_BYTES, &x, NULL), 0);
    assert_sane(x);
    pool_destroy(many);
}

/* Every width of load reads all there is: the function checks its own sum. */
static void every_level_reads_the_whole_buffer(void **state)
{
    (void)state;
    for (int level = CPU_REF; level < CPU_N_LEVELS; level++) {
        const struct kern_table *t = table_at(level);
        double x = -1;
        if (!t)
            continue;
        assert_int_equal(roofline_bandwidth(t, NULL, 100000, &x, NULL), 0);
        assert_sane(x);
    }
}

static void too_small_a_buffer_is_refused(void **state)
{
    (void)state;
    static const size_t bytes[] = {0, 1, ROOFLINE_MIN_BYTES - 1};
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++) {
        double x = -1;
        struct runt_err err = {0};
        assert_int_equal(
            roofline_bandwidth(table_at(CPU_REF), NULL, bytes[i], &x, &err),
            RUNT_E_INVALID);
        assert_non_null(strstr(err.msg, "4096"));
        assert_true(x < 0); /* untouched */
    }
}

static void a_buffer_beyond_memory_is_an_error(void **state)
{
    (void)state;
    double x = -1;
    struct runt_err err = {0};
    assert_int_equal(
        roofline_bandwidth(table_at(CPU_REF), NULL, SIZE_MAX - 600, &x, &err),
        RUNT_E_NOMEM);
    assert_true(x < 0);
}

static void the_peak_is_measured_on_any_number_of_threads(void **state)
{
    (void)state;
    const struct kern_table *best;
    assert_int_equal(kern_table_get(&best, NULL), 0);
    for (unsigned n = 0; n <= 3; n++) {
        struct pool *p = n ? pool_of(n) : NULL;
        double x = -1;
        struct runt_err err;
        if (roofline_int8_peak(best, p, &x, &err))
            fail_msg("%u threads: %s", n, err.msg);
        assert_sane(x);
        pool_destroy(p);
    }
}

/* A kernel whose results are not finite is broken, and no peak. */
static void nan_tile(size_t n_cols, size_t n_tiles, const void *tiles,
                     const struct kern_act *x, size_t n_x, float *out,
                     size_t out_stride)
{
    (void)n_cols, (void)tiles, (void)x, (void)out_stride;
    for (size_t i = 0; i < n_tiles * KERN_TILE_ROWS * n_x; i++)
        out[i] = NAN;
}

static void a_broken_product_has_no_peak(void **state)
{
    (void)state;
    struct kern_table t = *table_at(CPU_REF);
    double x = -1;
    t.tile[KERN_TILE_R4] = nan_tile;
    assert_int_equal(roofline_int8_peak(&t, NULL, &x, NULL), RUNT_E_FORMAT);
    assert_true(x < 0);
}

/* What the peak claims to have computed is what the kernel was asked for. */
static struct {
    size_t calls, cols, vectors;
    const char *low, *high; /* of the tiles */
} asked;

static void counting_tile(size_t n_cols, size_t n_tiles, const void *tiles,
                          const struct kern_act *x, size_t n_x, float *out,
                          size_t out_stride)
{
    (void)x;
    const char *begin = tiles,
               *end = begin + n_tiles * kern_tile_bytes(KERN_TILE_R4, n_cols);
    asked.calls++;
    asked.cols = n_cols;
    asked.vectors = n_x > asked.vectors ? n_x : asked.vectors;
    if (!asked.low || begin < asked.low)
        asked.low = begin;
    asked.high = end > asked.high ? end : asked.high;
    for (size_t k = 0; k < n_x; k++)
        for (size_t r = 0; r < n_tiles * KERN_TILE_ROWS; r++)
            out[k * out_stride + r] = 1;
}

static void the_peak_is_of_a_large_product(void **state)
{
    (void)state;
    struct kern_table t = *table_at(CPU_REF);
    double x = -1;
    memset(&asked, 0, sizeof asked);
    t.tile[KERN_TILE_R4] = counting_tile;
    assert_int_equal(roofline_int8_peak(&t, NULL, &x, NULL), 0);
    assert_int_equal(asked.cols, 4096);
    assert_int_equal(asked.vectors, 512);
    /* a kernel as fast as this one is given all of the matrix */
    assert_int_equal(asked.high - asked.low,
                     4096 / KERN_TILE_ROWS * kern_tile_bytes(KERN_TILE_R4, 4096));
}

static void failing_allocations_leave_nothing(void **state)
{
    (void)state;
    long live = mem_live();
    for (long n = 0; n < 4; n++) {
        double x = -1;
        mem_fail_after(n);
        int rc = roofline_int8_peak(table_at(CPU_REF), NULL, &x, NULL);
        mem_fail_after(-1);
        assert_int_equal(mem_live(), live);
        assert_int_equal(rc, n < 3 ? RUNT_E_NOMEM : 0);
        assert_true(rc ? x < 0 : x > 0);
    }
    double x = -1;
    mem_fail_after(0);
    assert_int_equal(roofline_bandwidth(table_at(CPU_REF), NULL, 8192, &x, NULL),
                     RUNT_E_NOMEM);
    mem_fail_after(-1);
    assert_int_equal(mem_live(), live);
}

static void median_is_the_middle(void **state)
{
    (void)state;
    double odd[] = {5, 1, 9}, even[] = {4, 1, 2, 100}, one[] = {7};
    assert_true(roofline_median(odd, 3) == 5);
    assert_true(roofline_median(even, 4) == 3);
    assert_true(roofline_median(one, 1) == 7);
    assert_true(roofline_median(NULL, 0) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bandwidth_is_measured_for_any_buffer),
        cmocka_unit_test(every_level_reads_the_whole_buffer),
        cmocka_unit_test(too_small_a_buffer_is_refused),
        cmocka_unit_test(a_buffer_beyond_memory_is_an_error),
        cmocka_unit_test(the_peak_is_measured_on_any_number_of_threads),
        cmocka_unit_test(a_broken_product_has_no_peak),
        cmocka_unit_test(the_peak_is_of_a_large_product),
        cmocka_unit_test(failing_allocations_leave_nothing),
        cmocka_unit_test(median_is_the_middle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
