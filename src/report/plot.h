/* The curves of training runs as one HTML page that needs nothing else: SVG drawn here,
 * readable without scripts; a script adds read-outs under the pointer. */
#ifndef RUNT_REPORT_PLOT_H
#define RUNT_REPORT_PLOT_H

#include "runt/error.h"

#include <stddef.h>
#include <stdint.h>

enum plot_series { PLOT_LOSS, PLOT_VAL, PLOT_LR, PLOT_NORM, PLOT_SPEED, PLOT_N_SERIES };

/* A run's log: at steps[i] the numbers value[series][i], NAN where there is none. */
struct plot_run {
    char *name;
    size_t n;
    uint64_t *steps; /* ascending */
    double *value[PLOT_N_SERIES];
};

/* Read a trainer's log (src/train/trainer.h).  Where a run went on from an earlier step
 * the lines that it made again replace the old ones; a last line that is cut short is
 * left out.  Errors: RUNT_E_NOTFOUND, RUNT_E_IO, RUNT_E_FORMAT (no line, or one that is
 * no line of a log: its number is named). */
int plot_read(const char *path, struct plot_run *out, struct runt_err *err);
/* The same of text in memory; `name` starts error lines and names the run. */
int plot_parse(const char *text, size_t n, const char *name, struct plot_run *out,
               struct runt_err *err);
void plot_run_free(struct plot_run *r);

/* The page, written whole or not at all. */
int plot_write(const char *path, const char *title, const struct plot_run *runs,
               size_t n_runs, struct runt_err *err);

#endif
