/* The curves of training runs as one HTML page that needs nothing else: SVG drawn here,
 * complete without scripts; a script adds read-outs under the pointer, a logarithmic
 * axis and the choice of runs and of smoothing. */
#ifndef RUNT_REPORT_PLOT_H
#define RUNT_REPORT_PLOT_H

#include "base/strbuf.h"
#include "runt/error.h"

#include <stddef.h>
#include <stdint.h>

enum plot_series { PLOT_LOSS, PLOT_VAL, PLOT_NORM, PLOT_LR, PLOT_SPEED, PLOT_N_SERIES };

/* What a log says of one quantity: a number for each line that has it, NAN for null. */
struct plot_curve {
    size_t n, room;
    uint64_t *steps; /* ascending */
    double *values;  /* NAN from 1e100 on, 0 below 1e-100 */
};

struct plot_run {
    char *path, *name;
    uint64_t last_step;
    struct plot_curve curves[PLOT_N_SERIES];
};

/* Read a trainer's log (src/train/trainer.h has its form).  Where a run went on from an
 * earlier step the lines that it made again replace the old ones; a last line that was
 * cut short is left out.  Its name is the file's, or the folder's when that is
 * log.jsonl.  Errors: RUNT_E_NOTFOUND, RUNT_E_IO, RUNT_E_NOMEM, RUNT_E_FORMAT (no
 * number at all, or a line that is none of a log, which is named). */
int plot_read(const char *path, struct plot_run *out, struct runt_err *err);
/* The same of text in memory. */
int plot_parse(const char *text, size_t n, const char *path, struct plot_run *out,
               struct runt_err *err);
void plot_run_free(struct plot_run *r);

/* The page, appended to `out`. */
int plot_page(const char *title, const struct plot_run *runs, size_t n_runs,
              struct strbuf *out, struct runt_err *err);
/* The page in a file, whole or not at all. */
int plot_write(const char *path, const char *title, const struct plot_run *runs,
               size_t n_runs, struct runt_err *err);

#endif
