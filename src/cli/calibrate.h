/* Calibration as the command line asks for it: shared by `quantize` and `prune`. */
#ifndef RUNT_CLI_CALIBRATE_H
#define RUNT_CLI_CALIBRATE_H

#include "cli/cli.h"
#include "quant/calib.h"

struct calibrate_request {
    const char *text, *save, *load;
    int64_t n_tokens, window, seed;
};

/* clang-format off */
#define CLI_CALIB_OPTIONS(q)                                                           \
    {"--calib", NULL, CLI_STR, &(q).text, "FILE",                                      \
     "round with feedback, for inputs as this text makes them", 0, 0},                 \
    {"--calib-tokens", NULL, CLI_INT, &(q).n_tokens, "N",                              \
     "tokens of it (131072); without --calib, of text that the model writes", 0,       \
     1 << 30},                                                                         \
    {"--calib-window", NULL, CLI_INT, &(q).window, "N",                                \
     "tokens that see each other, 0: the model's context", 0, 1 << 20},                \
    {"--calib-seed", NULL, CLI_INT, &(q).seed, "N",                                    \
     "of the text that the model writes", 0, 1e15},                                    \
    {"--save-calib", NULL, CLI_STR, &(q).save, "FILE",                                 \
     "keep the calibration, and go on from it after an interruption", 0, 0},           \
    {"--load-calib", NULL, CLI_STR, &(q).load, "FILE", "use a kept one", 0, 0}
/* clang-format on */

/* Whether any of the options was given. */
bool calibrate_wanted(const struct calibrate_request *q);
/* 0, or EXIT_USAGE after saying which options exclude each other. */
int calibrate_check(const struct cli_verb *v, const struct calibrate_request *q);
/* From a file, from a text, or from what the model at path `in` writes itself. */
int calibrate(const char *in, const struct calibrate_request *q, unsigned n_threads,
              struct calib *out, struct runt_err *err);

#endif
