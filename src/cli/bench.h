/* Measuring speed: `runt bench`.
 *
 * Two tests: `tg` generates tokens, one at a time for each of `batch` sequences in
 * lockstep; `pp` processes a prompt.  Both start behind `depth` tokens that the caches
 * hold already, which is not timed.  Tokens are random but always the same; nothing is
 * sampled.
 *
 * Machines drift from minute to minute.  So every figure is a median; models are
 * compared by interleaving: repetition k of every model comes before repetition k + 1
 * of any; and the roofline of a configuration is measured before its first repetition
 * and after each of them, and the median is used. */
#ifndef RUNT_CLI_BENCH_H
#define RUNT_CLI_BENCH_H

#include "cli/cli_session.h"

enum { BENCH_MAX_ITEMS = 32, BENCH_MAX_BATCH = 256, BENCH_MAX_REPS = 1000 };

struct bench_list {
    uint32_t at[BENCH_MAX_ITEMS];
    size_t n;
};

struct bench_plan {
    const char **models; /* as the user named them */
    size_t n_models;
    struct cli_list adapters; /* of each of them */
    /* Tokens of pp and tg, 0: no such test; -1: 512 and 128, or as many as every
     * model's context holds behind the greatest depth. */
    int64_t n_prompt, n_gen;
    size_t n_reps;
    struct bench_list threads, depths, batches;
    enum runt_kv kv;
    bool roofline, profile;
};

/* One model in one configuration. */
struct bench_row {
    const char *model, *kv, *level; /* level: of the kernels */
    bool prompt;                    /* pp, else tg */
    uint32_t threads, depth, batch;
    size_t tokens; /* of one repetition, all sequences together */
    /* Median over the repetitions, and their range: greatest - smallest. */
    double tokens_per_second, spread;
    double bytes_per_token,
        ops_per_token;      /* weights and cache, as the session counts */
    double bandwidth, peak; /* per second; 0: not measured */
    double load_seconds;    /* runt_model_load of a warm file, median */
    double
        first_token_seconds; /* from before it to the first logits of a new session */
    uint64_t file_bytes;
    size_t peak_bytes;          /* resident memory of the process so far */
    struct cli_profile profile; /* of all repetitions */
};

/* *rows [*n] is freed with mem_free; it borrows the plan's model names.  Errors: those
 * of loading and of sessions; RUNT_E_INVALID when a depth and its test do not fit a
 * model's context, before anything is measured. */
int bench_run(const struct bench_plan *plan, struct bench_row **rows, size_t *n,
              struct runt_err *err);

/* ---- bench_print.c ---- */

void bench_print(enum cli_format format, const struct bench_plan *plan,
                 const struct bench_row *rows, size_t n);

#endif
