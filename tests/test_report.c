/* Pages of curves: ticks and their labels, what axes span, thinning, smoothing, logs
 * of all kinds, memory that runs out. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "report/plot_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct plot_run parse(const char *text)
{
    struct plot_run r = {0};
    struct runt_err err;
    if (plot_parse(text, strlen(text), "a/log.jsonl", &r, &err))
        fail_msg("%s", err.msg);
    return r;
}

/* ---- axes ---- */

static void check_ticks(struct plot_axis a, int most, bool whole, const char *want)
{
    char got[400] = "", label[PLOT_LABEL];
    struct plot_ticks t = plot_find_ticks(&a, most, whole);
    for (size_t i = 0; i < t.n; i++) {
        strcat(got, i ? " " : "");
        strcat(got, plot_label(t.at[i], t.step, label));
        double f = plot_at(&a, t.at[i]);
        assert_true(f >= 0 && f <= 1);
    }
    assert_string_equal(got, want);
}

static void ticks_are_round(void **state)
{
    (void)state;
    check_ticks((struct plot_axis){2.93, 10.9, false}, 6, false, "4 6 8 10");
    check_ticks((struct plot_axis){3.01, 3.62, false}, 6, false, "3.2 3.4 3.6");
    check_ticks((struct plot_axis){-1, 1, false}, 6, false, "-1.0 -0.5 0 0.5 1.0");
    check_ticks((struct plot_axis){0, 6.3e-4, false}, 6, false, "0 2e-4 4e-4 6e-4");
    check_ticks((struct plot_axis){0, 0.0063, false}, 6, false, "0 0.002 0.004 0.006");
    check_ticks((struct plot_axis){0, 5600, false}, 6, false, "0 1k 2k 3k 4k 5k");
    check_ticks((struct plot_axis){0, 12000, false}, 8, true, "0 2k 4k 6k 8k 10k 12k");
    check_ticks((struct plot_axis){0, 1200000, false}, 8, true,
                "0 0.2M 0.4M 0.6M 0.8M 1M 1.2M");
    check_ticks((struct plot_axis){0, 3, false}, 8, true, "0 1 2 3");
    check_ticks((struct plot_axis){0.4, 21, true}, 6, false, "0.5 1 2 5 10 20");
    check_ticks((struct plot_axis){0.4, 4.1e4, true}, 6, false, "1 10 100 1k 10k");
    check_ticks((struct plot_axis){120400, 120900, false}, 6, true,
                "120.4k 120.5k 120.6k 120.7k 120.8k 120.9k");
}

/* Ends that only just differ, or by all that there is: few ticks, and soon. */
static void ticks_come_to_an_end(void **state)
{
    (void)state;
    static const struct plot_axis axes[] = {
        {9e18, 9.1e18, false},  {1e17, 1.0000001e17, false}, {-1e99, 1e99, false},
        {-1e-30, 1e-30, false}, {1e-300, 1e99, true},
    };
    for (size_t i = 0; i < sizeof axes / sizeof *axes; i++) {
        struct plot_ticks t = plot_find_ticks(&axes[i], 6, false);
        assert_in_range(t.n, 1, PLOT_MAX_TICKS);
        for (size_t k = 0; k < t.n; k++)
            assert_true(isfinite(t.at[k]));
    }
}

static struct plot_axis axis_of(const char *log, enum plot_series s, double *most)
{
    struct plot_run r = parse(log);
    struct plot_axis a = {0};
    bool any = false;
    assert_int_equal(plot_values_axis(&r, 1, s, &a, most, &any, NULL), 0);
    assert_true(any && a.lo < a.hi);
    plot_run_free(&r);
    return a;
}

static void axes_show_what_matters(void **state)
{
    (void)state;
    double most;
    /* a loss that explodes must not flatten the rest */
    struct plot_axis a =
        axis_of("{\"step\": 1, \"loss\": 10}\n{\"step\": 2, \"loss\": 4}\n"
                "{\"step\": 3, \"loss\": 1e6}\n",
                PLOT_LOSS, &most);
    assert_true(a.lo < 4 && a.lo > 3 && a.hi > 13 && a.hi < 14 && most == 1e6);
    a = axis_of("{\"step\": 1, \"lr\": 0.1}\n{\"step\": 2, \"lr\": 0.2}\n", PLOT_LR,
                &most);
    assert_true(a.lo == 0 && a.hi > 0.2 && a.hi < 0.22);
    a = axis_of("{\"step\": 1, \"grad_norm\": 0.1}\n{\"step\": 2, \"grad_norm\": 9}\n",
                PLOT_NORM, &most);
    assert_true(a.log && a.lo > 0.05 && a.lo < 0.1 && a.hi > 9 && a.hi < 12);
    a = axis_of("{\"step\": 1, \"grad_norm\": 1}\n{\"step\": 2, \"grad_norm\": 2}\n",
                PLOT_NORM, &most);
    assert_true(!a.log && a.lo == 0);
    /* all numbers the same */
    a = axis_of("{\"step\": 1, \"loss\": 3}\n{\"step\": 2, \"loss\": 3}\n", PLOT_LOSS,
                &most);
    assert_true(plot_at(&a, 3) > 0.3 && plot_at(&a, 3) < 0.7);
    a = axis_of("{\"step\": 1, \"lr\": 0}\n", PLOT_LR, &most);
    assert_true(plot_at(&a, 0) >= 0 && plot_at(&a, 0) <= 1);
}

/* ---- curves ---- */

static void thinning_keeps_what_stands_out(void **state)
{
    (void)state;
    enum { N = 30000 };
    double *v = malloc(N * sizeof *v);
    bool *keep = malloc(N);
    size_t kept = 0, early = 0;
    for (size_t i = 0; i < N; i++)
        v[i] = 3 + 0.001 * (double)(i * 7919 % 100);
    v[12345] = 99;
    v[23456] = -99;
    v[20000] = (double)NAN;
    plot_thin(v, N, 600, 250, keep);
    for (size_t i = 0; i < N; i++) {
        kept += keep[i];
        early += i < 100 && keep[i];
    }
    assert_true(keep[0] && keep[N - 1] && keep[12345] && keep[23456] && keep[20000]);
    assert_in_range(kept, 1000, 1700);
    assert_true(early > 60); /* there a logarithmic axis is wide */
    plot_thin(v, 1000, 600, 250, keep);
    for (size_t i = 0; i < 1000; i++)
        assert_true(keep[i]);
    free(keep);
    free(v);
}

static void smoothing_is_a_mean_of_the_past(void **state)
{
    (void)state;
    enum { N = 2000 };
    static double v[N], out[N];
    for (size_t i = 0; i < N; i++)
        v[i] = (i < 1000 ? 0.2 : 0.8) + (i % 2 ? 0.1 : -0.1);
    v[500] = (double)NAN;
    plot_smooth(v, N, 50, out);
    assert_true(fabs(out[0] - v[0]) < 1e-12);
    assert_true(isnan(out[500]) && fabs(out[501] - 0.2) < 0.01);
    assert_true(fabs(out[999] - 0.2) < 0.01); /* knows nothing of what comes */
    assert_true(out[1010] > 0.25 && out[1010] < 0.5);
    assert_true(fabs(out[N - 1] - 0.8) < 0.01);
    for (size_t i = 0; i < N; i++)
        v[i] = 1 / (1 + 0.1 * (double)i);
    plot_smooth(v, N, 50, out);
    for (size_t i = 0; i < N; i++) /* a steep beginning is followed closely */
        assert_true(out[i] >= v[i] && out[i] < v[i] + 0.1);
    v[500] = (double)NAN;
    plot_smooth(v, N, 0, out);
    for (size_t i = 0; i < N; i++)
        assert_true(i == 500 || out[i] == v[i]);
}

/* ---- logs ---- */

static void names_come_from_paths(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"runs/a/log.jsonl", "a"},    {"runs/a//log.jsonl", "a"}, {"a.jsonl", "a"},
        {"runs/b.jsonl", "b"},        {"log.jsonl", "log"},       {"/log.jsonl", "log"},
        {"x/notes.txt", "notes.txt"}, {"-", "standard input"},    {".jsonl", ".jsonl"},
    };
    static const char line[] = "{\"step\": 1, \"loss\": 2}\n";
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plot_run r;
        assert_int_equal(plot_parse(line, sizeof line - 1, cases[i][0], &r, NULL), 0);
        assert_string_equal(r.name, cases[i][1]);
        assert_string_equal(r.path, cases[i][0]);
        plot_run_free(&r);
    }
}

static void later_lines_replace(void **state)
{
    (void)state;
    struct plot_run r = parse("{\"step\": 1, \"loss\": 5, \"val_loss\": 6}\n"
                              "{\"step\": 2, \"loss\": 4}\n"
                              "{\"step\": 3, \"loss\": 3, \"val_loss\": 4}\n\n"
                              "{\"step\": 2, \"loss\": null}\n"
                              "{\"step\": 4, \"loss\": 1e200, \"x\": [1]}");
    const struct plot_curve *loss = &r.curves[PLOT_LOSS];
    assert_int_equal(loss->n, 3);
    assert_true(loss->steps[0] == 1 && loss->steps[1] == 2 && loss->steps[2] == 4);
    assert_true(loss->values[0] == 5 && isnan(loss->values[1]) &&
                isnan(loss->values[2]));
    assert_int_equal(r.curves[PLOT_VAL].n, 1);
    assert_int_equal(r.curves[PLOT_LR].n, 0);
    assert_int_equal(r.last_step, 4);
    plot_run_free(&r);
}

static void memory_may_run_out(void **state)
{
    (void)state;
    char text[40000];
    size_t n = 0;
    for (int i = 0; i < 400; i++)
        n += (size_t)snprintf(text + n, sizeof text - n,
                              "{\"step\": %d, \"loss\": 2.5, \"val_loss\": 3}\n", i);
    long live = mem_live();
    int rc = RUNT_E_NOMEM;
    for (long k = 0; rc; k++) {
        struct plot_run r;
        struct strbuf b = {0};
        mem_fail_after(k);
        rc = plot_parse(text, n, "log", &r, NULL);
        if (!rc) {
            rc = plot_page("t", &r, 1, &b, NULL);
            plot_run_free(&r);
        }
        mem_fail_after(-1);
        sb_free(&b);
        assert_int_equal(mem_live(), live);
        assert_true(!rc ? k > 30 : rc == RUNT_E_NOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ticks_are_round),
        cmocka_unit_test(ticks_come_to_an_end),
        cmocka_unit_test(axes_show_what_matters),
        cmocka_unit_test(thinning_keeps_what_stands_out),
        cmocka_unit_test(smoothing_is_a_mean_of_the_past),
        cmocka_unit_test(names_come_from_paths),
        cmocka_unit_test(later_lines_replace),
        cmocka_unit_test(memory_may_run_out),
    };
    return cmocka_run_group_tests_name("report", tests, NULL, NULL);
}
