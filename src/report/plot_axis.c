/* Owns axes: what they span, where their ticks are, how those are written. */
#include "report/plot_impl.h"

#include "base/err.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double plot_at(const struct plot_axis *a, double v)
{
    double f = (v - a->lo) / (a->hi - a->lo);
    if (a->log) /* differences: the quotients may be too large */
        f = v > 0 ? (log(v) - log(a->lo)) / (log(a->hi) - log(a->lo)) : 0;
    return f < 0 ? 0 : f > 1 ? 1 : f;
}

/* ---- what an axis spans ---- */

/* Ends that are apart by more than the digits of a double can tell. */
static void spread(struct plot_axis *a)
{
    double least = fmax(fmax(fabs(a->lo), fabs(a->hi)) * 1e-9, 1e-30);
    if (a->hi - a->lo >= least)
        return;
    double middle = a->lo / 2 + a->hi / 2, by = middle != 0 ? fabs(middle) * 0.05 : 0.5;
    a->lo = middle - fmax(by, least);
    a->hi = middle + fmax(by, least);
}

struct plot_axis plot_steps_axis(const struct plot_run *runs, size_t n_runs)
{
    struct plot_axis a = {(double)INFINITY, -(double)INFINITY, false};
    for (size_t k = 0; k < n_runs; k++)
        for (int s = 0; s < PLOT_N_SERIES; s++) {
            const struct plot_curve *c = &runs[k].curves[s];
            if (!c->n)
                continue;
            a.lo = fmin(a.lo, (double)c->steps[0]);
            a.hi = fmax(a.hi, (double)c->steps[c->n - 1]);
        }
    if (a.lo == a.hi) { /* a single step stands in the middle */
        a.lo -= 1;
        a.hi += 1;
    }
    spread(&a);
    return a;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* All numbers of a series, ascending; and the largest of those that begin a curve. */
static int sorted(const struct plot_run *runs, size_t n_runs, enum plot_series s,
                  double **out, size_t *n, double *first, struct runt_err *err)
{
    size_t room = 0;
    for (size_t k = 0; k < n_runs; k++)
        room += runs[k].curves[s].n;
    double *all = mem_array(room, sizeof *all);
    if (!all)
        return err_nomem(err, "a plot");
    *n = 0;
    *first = -(double)INFINITY;
    for (size_t k = 0; k < n_runs; k++) {
        const struct plot_curve *c = &runs[k].curves[s];
        bool begun = false;
        for (size_t i = 0; i < c->n; i++) {
            if (!isfinite(c->values[i]))
                continue;
            if (!begun)
                *first = fmax(*first, c->values[i]);
            begun = true;
            all[(*n)++] = c->values[i];
        }
    }
    qsort(all, *n, sizeof *all, by_size);
    *out = all;
    return 0;
}

int plot_values_axis(const struct plot_run *runs, size_t n_runs, enum plot_series s,
                     struct plot_axis *out, double *most, bool *any,
                     struct runt_err *err)
{
    double *all = NULL, first = 0;
    size_t n = 0;
    int rc = sorted(runs, n_runs, s, &all, &n, &first, err);
    if (rc)
        return rc;
    *any = n;
    if (!n) {
        mem_free(all);
        return 0;
    }
    struct plot_axis a = {all[0], all[n - 1], false};
    double middle = all[n / 2];
    mem_free(all);
    *most = a.hi;
    if (s == PLOT_LOSS || s == PLOT_VAL) { /* one that rises far above its beginning */
        a.hi = fmin(a.hi, first + 0.3 * fabs(first));
        a.hi = fmax(a.hi, a.lo);
        spread(&a);
        double gap = 0.05 * (a.hi - a.lo);
        a.lo -= s == PLOT_VAL ? 3 * gap : gap; /* room for the mark of the least */
        a.hi += gap;
    } else if (s == PLOT_NORM && a.lo > 0 && a.hi > 30 * a.lo) {
        double gap = exp(0.04 * (log(a.hi) - log(a.lo)));
        a = (struct plot_axis){a.lo / gap, a.hi * gap, true};
    } else { /* from 0 on */
        if (s == PLOT_SPEED && middle > 0)
            a.hi = fmin(a.hi, 2 * middle);
        a.lo = fmin(a.lo, 0);
        a.hi = fmax(a.hi, a.lo) + 0.06 * (fmax(a.hi, a.lo) - a.lo);
        spread(&a);
    }
    *out = a;
    return 0;
}

/* ---- ticks ---- */

static struct plot_ticks log_ticks(const struct plot_axis *a)
{
    static const int factors[] = {1, 2, 5};
    struct plot_ticks t = {0};
    double decades = log10(a->hi) - log10(a->lo);
    int n_factors = decades < 2.5 ? 3 : 1, every = 1 + (int)(decades / 8);
    int from = (int)floor(log10(a->lo)), to = (int)ceil(log10(a->hi));
    for (int e = from; e <= to; e++)
        for (int k = 0; k < n_factors; k++) {
            double v = factors[k] * pow(10, e);
            if (e % every == 0 && v >= a->lo && v <= a->hi && t.n < PLOT_MAX_TICKS)
                t.at[t.n++] = v;
        }
    return t;
}

struct plot_ticks plot_find_ticks(const struct plot_axis *a, int most, bool whole)
{
    static const double factors[] = {1, 2, 5, 10};
    struct plot_ticks t = {0};
    double span = a->hi - a->lo, base;
    if (a->log)
        return log_ticks(a);
    base = pow(10, floor(log10(span / most)));
    for (int k = 3; k >= 0; k--)
        if (span / (base * factors[k]) <= most)
            t.step = base * factors[k];
    if (whole && t.step < 1)
        t.step = 1;
    double first = ceil(a->lo / t.step);
    for (int k = 0; k < PLOT_MAX_TICKS && (first + k) * t.step <= a->hi; k++)
        t.at[t.n++] = (first + k) * t.step + 0.0; /* no -0 */
    return t;
}

/* Mantissa and exponent without what printf adds to them. */
static void scientific(double v, char *buf)
{
    int e = (int)floor(log10(fabs(v)) + 1e-9);
    snprintf(buf, PLOT_LABEL, "%.3ge%d", v / pow(10, e), e);
}

const char *plot_label(double v, double step, char buf[static PLOT_LABEL])
{
    double size = fabs(v), unit = step > 0 ? step : size;
    double mega = step > 0 ? 1e5 : 1e6; /* 0.2M beside 1.2M, but 200k alone */
    const char *number = step > 0 ? "%.7g%s" : "%.3g%s";
    if (v == 0)
        snprintf(buf, PLOT_LABEL, "0");
    else if (size >= 1e9 || unit < 1e-3)
        scientific(v, buf);
    else if (unit >= mega)
        snprintf(buf, PLOT_LABEL, number, v / 1e6, "M");
    else if (unit >= 1e3 || size >= 1e5)
        snprintf(buf, PLOT_LABEL, number, v / 1e3, "k");
    else if (step > 0)
        snprintf(buf, PLOT_LABEL, "%.*f", (int)fmax(0, ceil(-log10(step) - 1e-9)), v);
    else
        snprintf(buf, PLOT_LABEL, number, v, "");
    return buf;
}
