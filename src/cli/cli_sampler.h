/* The sampler's flags, as llama.cpp's users know them, and what they make: options, a
 * sampler, the grammar that holds it (docs/SAMPLING.md). */
#ifndef RUNT_CLI_SAMPLER_H
#define RUNT_CLI_SAMPLER_H

#include "cli/cli.h"
#include "runt/runt.h"

struct cli_sampler {
    double temp, top_p, min_p, typical, repeat_penalty, frequency, presence,
        dry_multiplier, dry_base, mirostat_tau, mirostat_eta;
    int64_t top_k, repeat_last, seed /* -1: from the clock */, dry_allowed, dry_last,
        mirostat;
    const char *order;
    struct cli_list breakers, biases;
    const char *grammar, *json_schema; /* files, or NULL */
};
struct cli_sampler cli_sampler_defaults(void);

/* What a struct runt_sampler_options points to. */
struct cli_sampler_room {
    struct runt_logit_bias *bias; /* [biases.n] */
    char **breakers;              /* [n_breakers] */
    size_t n_breakers;
};
void cli_sampler_room_free(struct cli_sampler_room *room);

/* *o is valid while *room is; that is freed also after an error.  RUNT_E_INVALID for a
 * bias that is none; ranges are checked where a sampler is made. */
int cli_sampler_options(const struct cli_sampler *s, struct cli_sampler_room *room,
                        struct runt_sampler_options *o, struct runt_err *err);

/* A sampler for a model, held to the grammar or schema (*grammar, or NULL: none), which
 * is freed after it.  Errors name the file. */
int cli_sampler_open(const struct cli_sampler *s, const runt_model *m,
                     runt_sampler **out, runt_grammar **grammar, struct runt_err *err);

#define CLI_SAMPLER_OPTIONS(s)                                                        \
    {"--seed",  "-s", CLI_INT,                                                        \
     &(s).seed, "N",  "seed, the same text again; -1: from the clock",                \
     -1,        9e18},                                                                \
        {"--temp",  NULL, CLI_REAL,                                                   \
         &(s).temp, "X",  "temperature, 0: always the likeliest token",               \
         0,         100},                                                             \
        {"--top-k",  NULL,     CLI_INT,                                               \
         &(s).top_k, "N",      "only the N likeliest tokens, 0: all",                 \
         0,          INT32_MAX},                                                      \
        {"--top-p",  NULL, CLI_REAL,                                                  \
         &(s).top_p, "X",  "only the likeliest tokens that together reach X",         \
         0,          1},                                                              \
        {"--min-p",  NULL, CLI_REAL,                                                  \
         &(s).min_p, "X",  "only tokens at least X times as likely as the likeliest", \
         0,          1},                                                              \
        {"--typical", NULL,                                                           \
         CLI_REAL,    &(s).typical,                                                   \
         "X",         "only the most usual tokens that together reach X, 1: all",     \
         0,           1},                                                             \
        {"--repeat-penalty",                                                          \
         NULL,                                                                        \
         CLI_REAL,                                                                    \
         &(s).repeat_penalty,                                                         \
         "X",                                                                         \
         "penalty on recent tokens, 1: none",                                         \
         0.01,                                                                        \
         100},                                                                        \
        {"--repeat-last-n",                                                           \
         NULL,                                                                        \
         CLI_INT,                                                                     \
         &(s).repeat_last,                                                            \
         "N",                                                                         \
         "how many recent tokens that is",                                            \
         0,                                                                           \
         4096},                                                                       \
        {"--frequency-penalty",                                                       \
         NULL,                                                                        \
         CLI_REAL,                                                                    \
         &(s).frequency,                                                              \
         "X",                                                                         \
         "off a recent token's logit each time it is there",                          \
         -100,                                                                        \
         100},                                                                        \
        {"--presence-penalty",                                                        \
         NULL,                                                                        \
         CLI_REAL,                                                                    \
         &(s).presence,                                                               \
         "X",                                                                         \
         "off a recent token's logit if it is there",                                 \
         -100,                                                                        \
         100},                                                                        \
        {"--dry-multiplier",                                                          \
         NULL,                                                                        \
         CLI_REAL,                                                                    \
         &(s).dry_multiplier,                                                         \
         "X",                                                                         \
         "DRY: penalty on what repeats, 0: none",                                     \
         0,                                                                           \
         100},                                                                        \
        {"--dry-base",                                                                \
         NULL,                                                                        \
         CLI_REAL,                                                                    \
         &(s).dry_base,                                                               \
         "X",                                                                         \
         "DRY: growth of the penalty with each token repeated",                       \
         1,                                                                           \
         100},                                                                        \
        {"--dry-allowed-length",        NULL, CLI_INT, &(s).dry_allowed, "N",         \
         "DRY: tokens that may repeat", 1,    65536},                                 \
        {"--dry-penalty-last-n",                                                      \
         NULL,                                                                        \
         CLI_INT,                                                                     \
         &(s).dry_last,                                                               \
         "N",                                                                         \
         "DRY: recent tokens looked at, -1: all",                                     \
         -1,                                                                          \
         65536},                                                                      \
        {"--dry-sequence-breaker",                                                    \
         NULL,                                                                        \
         CLI_LIST,                                                                    \
         &(s).breakers,                                                               \
         "TEXT",                                                                      \
         "DRY: no repetition reaches across it, as \\n; again for more; none",        \
         0,                                                                           \
         0},                                                                          \
        {"--mirostat",                                                                \
         NULL,                                                                        \
         CLI_INT,                                                                     \
         &(s).mirostat,                                                               \
         "N",                                                                         \
         "2: aim at a surprise instead of top-k, top-p, min-p and typical; 0: off",   \
         0,                                                                           \
         2},                                                                          \
        {"--mirostat-ent",                                                            \
         NULL,                                                                        \
         CLI_REAL,                                                                    \
         &(s).mirostat_tau,                                                           \
         "X",                                                                         \
         "mirostat: that surprise, in bits",                                          \
         0,                                                                           \
         100},                                                                        \
        {"--mirostat-lr",                                                             \
         NULL,                                                                        \
         CLI_REAL,                                                                    \
         &(s).mirostat_eta,                                                           \
         "X",                                                                         \
         "mirostat: how fast it learns",                                              \
         0,                                                                           \
         1},                                                                          \
        {"--logit-bias",                                                              \
         NULL,                                                                        \
         CLI_LIST,                                                                    \
         &(s).biases,                                                                 \
         "TOKEN+X",                                                                   \
         "add X to a token's logit (TOKEN-X: subtract, TOKEN-inf: never); again for " \
         "more",                                                                      \
         0,                                                                           \
         0},                                                                          \
    {                                                                                 \
        "--samplers", NULL, CLI_STR, &(s).order, "STAGES",                            \
            "the stages in order, ; between them: "                                   \
            "penalties;dry;top_k;typ_p;top_p;min_p;"                                  \
            "temperature",                                                            \
            0, 0                                                                      \
    }

#define CLI_GRAMMAR_OPTIONS(s)                                    \
    {"--grammar", NULL,                                           \
     CLI_STR,     &(s).grammar,                                   \
     "FILE",      "only texts of this grammar (GBNF)",            \
     0,           0},                                             \
    {                                                             \
        "--json-schema", NULL, CLI_STR, &(s).json_schema, "FILE", \
            "only JSON that this schema accepts", 0, 0            \
    }

#endif
