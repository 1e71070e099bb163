/* What a person sees of a training run: a line that is drawn again on a terminal, lines
 * that stay, samples of what the model writes. */
#ifndef RUNT_CLI_TRAIN_VIEW_H
#define RUNT_CLI_TRAIN_VIEW_H

#include "train/trainer.h"

struct train_view {
    bool quiet;
    uint64_t line_every;   /* steps between lines that stay */
    uint64_t sample_every; /* 0: none */
    const char *prompt, *folder;
    const struct trainer *trainer;
    double peak, flops; /* the machine's FLOP/s, a token's FLOP; 0: unknown */
    double begin;       /* cli_seconds() */
    uint64_t first;     /* steps done before */
};

/* A trainer's watch function; ctx is the view.  Not 0 once a signal came. */
int train_view_step(void *ctx, const struct trainer_step *s);
void train_view_done(const struct train_view *v); /* erase the line */

/* "1 h 20 min", "3 min 5 s", "12 s" */
const char *train_view_time(double seconds, char buf[static 32]);

#endif
