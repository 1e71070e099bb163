/* The sampler's flags, a prompt's way into a session, an answer's way to a person:
 * shared by generate and chat.  Of the model it uses only the public door. */
#ifndef RUNT_CLI_ANSWER_H
#define RUNT_CLI_ANSWER_H

#include "base/strbuf.h"
#include "cli/cli_session.h"
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

/* ---- text for a person ---- */

/* Where text goes: to `out` at once (NULL: nowhere), and all of it into `text`. */
struct answer_text {
    FILE *out;
    struct strbuf text;
};
/* A runt_text_fn with a struct answer_text: asks to stop once Ctrl-C came or nobody
 * reads. */
int answer_text_put(void *ctx, const char *text, size_t n);
/* Bytes of any kind as valid UTF-8. */
int answer_show(FILE *out, const char *bytes, size_t n, struct runt_err *err);

/* ---- a session and its prompt ---- */

/* A session of one sequence and what draws its tokens. */
struct timeline {
    runt_session *session;
    runt_sampler *sampler;
    runt_lookahead *lookahead; /* or NULL */
    size_t n_dropped;          /* tokens dropped so far to make room */
    size_t n_reused; /* tokens that the last timeline_set had not to compute */
};
int timeline_open(struct timeline *t, const runt_model *m,
                  const struct runt_session_options *so,
                  const struct runt_sampler_options *sa, struct runt_err *err);
void timeline_close(struct timeline *t);

/* Draw with drafts from now on: so many, RUNT_LOOKAHEAD_AUTO, or CLI_LOOKAHEAD_OFF. */
int timeline_look_ahead(struct timeline *t, int32_t n_drafts, struct runt_err *err);

/* Make the timeline hold these tokens; what it already has of their beginning is not
 * computed again.  n is 1 to n_ctx.  RUNT_E_INTERRUPTED once Ctrl-C came. */
int timeline_set(struct timeline *t, const int32_t *tokens, size_t n,
                 struct runt_err *err);

/* Start from a prompt; of one that is longer than the context its end is kept.  With a
 * file (or NULL) that keeps it computed: what the file and the prompt have in common is
 * not computed again, and the file is written anew when it does not hold the whole
 * prompt.  A file that is something else is an error, not overwritten.  A prompt longer
 * than the context goes without. */
int timeline_prompt(struct timeline *t, const char *path, const int32_t *tokens,
                    size_t n, struct runt_err *err);

/* runt_generate on it, in a context that slides. */
int timeline_answer(struct timeline *t, const struct runt_generate_options *o,
                    runt_text_fn *fn, void *ctx, struct runt_generated *out,
                    struct runt_err *err);

#endif
