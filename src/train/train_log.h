/* The log of a run: a JSON object a line, appended to. */
#ifndef RUNT_TRAIN_LOG_H
#define RUNT_TRAIN_LOG_H

#include "runt/error.h"

#include <stdint.h>

struct train_log;

/* Begin a log (step 0), or go on with one behind step `step`: later lines, and one that
 * was cut short, are dropped first (the file is replaced at once). */
int train_log_open(const char *path, uint64_t step, struct train_log **out,
                   struct runt_err *err);
void train_log_close(struct train_log *l); /* NULL is fine */

struct train_log_line {
    uint64_t step;
    double loss, lr, grad_norm, tokens_per_second, val_loss; /* NAN: left out */
};
/* One write, so that a line is in the file when this returns. */
int train_log_put(struct train_log *l, const struct train_log_line *line,
                  struct runt_err *err);

#endif
