/* What the files of a page share: the arithmetic of axes and curves. */
#ifndef RUNT_REPORT_PLOT_IMPL_H
#define RUNT_REPORT_PLOT_IMPL_H

#include "report/plot.h"

#include <stdbool.h>

/* ---- plot_axis.c ---- */

struct plot_axis {
    double lo, hi; /* lo < hi */
    bool log;      /* then 0 < lo */
};

/* Where v lies between lo (0) and hi (1); what is beyond lies at the end. */
double plot_at(const struct plot_axis *a, double v);

/* The steps of all runs. */
struct plot_axis plot_steps_axis(const struct plot_run *runs, size_t n_runs);

/* The numbers of a series over all runs.  Some that stand far out may lie beyond, so
 * that the rest can be seen; *most is the largest of all.  false: there are none.
 * RUNT_E_NOMEM. */
int plot_values_axis(const struct plot_run *runs, size_t n_runs, enum plot_series s,
                     struct plot_axis *out, double *most, bool *any,
                     struct runt_err *err);

enum { PLOT_MAX_TICKS = 16 };

struct plot_ticks {
    size_t n;
    double at[PLOT_MAX_TICKS], step; /* step 0: logarithmic */
};

/* Round numbers, at most `most` of them on a linear axis; `whole` ones where asked. */
struct plot_ticks plot_find_ticks(const struct plot_axis *a, int most, bool whole);

enum { PLOT_LABEL = 40 };
/* 0.25, 12.5k, 3e-5: as many digits as ticks `step` apart need; three where it is 0. */
const char *plot_label(double v, double step, char buf[static PLOT_LABEL]);

/* ---- plot_curve.c ---- */

/* Mark what is drawn of many numbers: the least and the largest of each of n_linear
 * stretches, of n_log that grow from the first number on (for a logarithmic axis), both
 * ends, and a number of each gap. */
void plot_thin(const double *v, size_t n, size_t n_linear, size_t n_log, bool *keep);

/* Means of the numbers up to each, whose weights fall by e every `reach` numbers (fewer
 * at the beginning, where a loss falls fast); NAN stays NAN and weighs nothing. Nothing
 * that comes later has a part in it, so that a run diverges where it does.  The numbers
 * lie in 0..1. */
void plot_smooth(const double *v, size_t n, double reach, double *out);

#endif
