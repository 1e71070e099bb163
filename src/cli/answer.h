/* A prompt's way into a session, an answer's way to a person: shared by generate and
 * chat.  Of the model it uses only the public door. */
#ifndef RUNT_CLI_ANSWER_H
#define RUNT_CLI_ANSWER_H

#include "base/strbuf.h"
#include "cli/cli_sampler.h"
#include "cli/cli_session.h"
#include "runt/runt.h"

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
    runt_grammar *grammar;     /* the sampler's, or NULL */
    runt_lookahead *lookahead; /* or NULL */
    size_t n_dropped;          /* tokens dropped so far to make room */
    size_t n_reused; /* tokens that the last timeline_set had not to compute */
};
int timeline_open(struct timeline *t, const runt_model *m,
                  const struct runt_session_options *so, const struct cli_sampler *s,
                  struct runt_err *err);
void timeline_close(struct timeline *t);

/* Draw as these flags say from now on; after an error, as before. */
int timeline_set_sampler(struct timeline *t, const runt_model *m,
                         const struct cli_sampler *s, struct runt_err *err);

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
