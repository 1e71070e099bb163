/* Feeding a prompt and drawing an answer, with the context kept from overflowing:
 * shared by generate and chat.  Of the model it uses only the public door. */
#ifndef RUNT_CLI_ANSWER_H
#define RUNT_CLI_ANSWER_H

#include "cli/cli.h"
#include "cli/stream.h"
#include "runt/runt.h"

/* Sampler flags as llama.cpp's users know them. */
struct cli_sampler {
    double temp, top_p, min_p, repeat_penalty;
    int64_t top_k, repeat_last, seed; /* seed -1: from the clock */
};
struct cli_sampler cli_sampler_defaults(void);
struct runt_sampler_options cli_sampler_options(const struct cli_sampler *s);

#define CLI_SAMPLER_OPTIONS(s)                                        \
    {"--seed",                                                        \
     "-s",                                                            \
     CLI_INT,                                                         \
     &(s).seed,                                                       \
     "N",                                                             \
     "seed, the same text again; -1: from the "                       \
     "clock",                                                         \
     -1,                                                              \
     9e18},                                                           \
        {"--temp",                                                    \
         NULL,                                                        \
         CLI_REAL,                                                    \
         &(s).temp,                                                   \
         "X",                                                         \
         "temperature, 0: always the likeliest "                      \
         "token",                                                     \
         0,                                                           \
         100},                                                        \
        {"--top-k",  NULL,     CLI_INT,                               \
         &(s).top_k, "N",      "only the N likeliest tokens, 0: all", \
         0,          INT32_MAX},                                      \
        {"--top-p",                                                   \
         NULL,                                                        \
         CLI_REAL,                                                    \
         &(s).top_p,                                                  \
         "X",                                                         \
         "only the likeliest tokens that "                            \
         "together reach X",                                          \
         0,                                                           \
         1},                                                          \
        {"--min-p",                                                   \
         NULL,                                                        \
         CLI_REAL,                                                    \
         &(s).min_p,                                                  \
         "X",                                                         \
         "only tokens at least X times as "                           \
         "likely as the likeliest",                                   \
         0,                                                           \
         1},                                                          \
        {"--repeat-penalty",                                          \
         NULL,                                                        \
         CLI_REAL,                                                    \
         &(s).repeat_penalty,                                         \
         "X",                                                         \
         "penalty on recent "                                         \
         "tokens, 1: none",                                           \
         0.01,                                                        \
         100},                                                        \
    {                                                                 \
        "--repeat-last-n", NULL, CLI_INT, &(s).repeat_last, "N",      \
            "how many recent tokens "                                 \
            "that is",                                                \
            0, 4096                                                   \
    }

/* A growing list of token ids. */
struct token_list {
    int32_t *ids;
    size_t n, cap;
};
int token_list_put(struct token_list *l, const int32_t *ids, size_t n,
                   struct runt_err *err);

/* A session of one sequence and what draws its tokens. */
struct timeline {
    const runt_model *model;
    runt_session *session;
    runt_sampler *sampler;
    size_t n_dropped; /* tokens dropped so far to make room */
    size_t n_reused;  /* tokens that the last timeline_set had not to compute */
};
int timeline_open(struct timeline *t, const runt_model *m,
                  const struct runt_session_options *so,
                  const struct runt_sampler_options *sa, struct runt_err *err);
void timeline_close(struct timeline *t);

/* Feed tokens.  When they do not fit, the older half of what may go is dropped first
 * and the rest fed again.  More tokens than a context holds: only the last ones are
 * kept. */
int timeline_feed(struct timeline *t, const int32_t *tokens, size_t n,
                  struct runt_err *err);

/* Make the timeline hold these tokens; what it already has of their beginning is not
 * computed again.  n is 1 to n_ctx. */
int timeline_set(struct timeline *t, const int32_t *tokens, size_t n,
                 struct runt_err *err);

/* Start from a prompt with the help of a file (NULL: none) that keeps it computed: what
 * the file and the prompt have in common is not computed again, and the file is written
 * anew when it does not hold the whole prompt.  A file that is something else is an
 * error, not overwritten.  A prompt longer than the context goes without. */
int timeline_prompt(struct timeline *t, const char *path, const int32_t *tokens,
                    size_t n, struct runt_err *err);

enum answer_end { ANSWER_EOS, ANSWER_STOP, ANSWER_LENGTH, ANSWER_INTERRUPTED };
struct answer {
    size_t n_tokens; /* drawn, the end token included */
    double seconds;  /* of drawing and feeding them */
    enum answer_end end;
};
/* Draw up to n_max tokens (0: until the end) after what was fed.  A control token ends
 * the answer and is not shown; with ignore_eos it is shown by name and drawing goes on.
 * `drawn` (may be NULL) gets the tokens that stay in the timeline. */
int timeline_answer(struct timeline *t, size_t n_max, bool ignore_eos, struct stream *s,
                    struct token_list *drawn, struct answer *out, struct runt_err *err);

#endif
