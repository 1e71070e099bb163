/* Owns what of a prompt is fed, and when drawing is interrupted. */
#include "cli/answer.h"

#include "base/err.h"
#include "base/file.h"

/* ---- text for a person ---- */

int answer_text_put(void *ctx, const char *text, size_t n)
{
    struct answer_text *t = ctx;
    sb_put(&t->text, text, n);
    if (t->out && n) {
        fwrite(text, 1, n, t->out);
        fflush(t->out);
    }
    return cli_interrupted() || (t->out && ferror(t->out));
}

static int put(void *ctx, const char *text, size_t n)
{
    fwrite(text, 1, n, ctx);
    return 0;
}

int answer_show(FILE *out, const char *bytes, size_t n, struct runt_err *err)
{
    runt_stream *s = NULL;
    int rc = runt_stream_new(NULL, 0, false, &s, err);
    if (rc)
        return rc;
    runt_stream_put(s, bytes, n, put, out);
    runt_stream_end(s, put, out);
    runt_stream_free(s);
    return 0;
}

/* ---- a session and its prompt ---- */

int timeline_open(struct timeline *t, const runt_model *m,
                  const struct runt_session_options *so, const struct cli_sampler *s,
                  struct runt_err *err)
{
    *t = (struct timeline){0};
    int rc = runt_session_open(m, so, &t->session, err);
    if (!rc)
        rc = timeline_set_sampler(t, m, s, err);
    if (rc)
        timeline_close(t);
    return rc;
}

int timeline_set_sampler(struct timeline *t, const runt_model *m,
                         const struct cli_sampler *s, struct runt_err *err)
{
    runt_sampler *sampler;
    runt_grammar *grammar;
    int rc = cli_sampler_open(s, m, &sampler, &grammar, err);
    if (rc)
        return rc;
    runt_sampler_free(t->sampler);
    runt_grammar_free(t->grammar);
    t->sampler = sampler;
    t->grammar = grammar;
    return 0;
}

int timeline_look_ahead(struct timeline *t, int32_t n_drafts, struct runt_err *err)
{
    runt_lookahead *l = NULL;
    int rc = n_drafts == CLI_LOOKAHEAD_OFF
                 ? 0
                 : runt_lookahead_new(t->session, n_drafts, &l, err);
    if (rc)
        return rc;
    runt_lookahead_free(t->lookahead);
    t->lookahead = l;
    return 0;
}

void timeline_close(struct timeline *t)
{
    runt_lookahead_free(t->lookahead);
    runt_session_close(t->session);
    runt_sampler_free(t->sampler);
    runt_grammar_free(t->grammar);
    *t = (struct timeline){0};
}

static void accept_all(struct timeline *t, const int32_t *tokens, size_t n)
{
    runt_sampler_forget(t->sampler);
    for (size_t i = 0; i < n; i++)
        runt_sampler_accept(t->sampler, tokens[i]);
}

/* A long text in pieces, so that Ctrl-C is heard between them. */
static int feed(struct timeline *t, const int32_t *tokens, size_t n,
                struct runt_err *err)
{
    enum { PIECE = 256 };
    for (size_t i = 0; i < n; i += PIECE) {
        if (i && cli_interrupted())
            return err_set(err, RUNT_E_INTERRUPTED, "interrupted");
        size_t k = n - i < PIECE ? n - i : PIECE;
        int rc = runt_session_feed(t->session, tokens + i, k, err);
        if (rc)
            return rc;
    }
    return 0;
}

int timeline_set(struct timeline *t, const int32_t *tokens, size_t n,
                 struct runt_err *err)
{
    uint32_t same = runt_session_match(t->session, 0, tokens, n);
    t->n_reused = same;
    accept_all(t, tokens, n);
    return feed(t, tokens + same, n - same, err);
}

int timeline_prompt(struct timeline *t, const char *path, const int32_t *tokens,
                    size_t n, struct runt_err *err)
{
    /* a context holds the end of the text and one token to draw */
    size_t n_ctx = runt_session_n_ctx(t->session), most = n_ctx - (n_ctx > 1);
    if (n > most) { /* what gets cut cannot be found again: without a file */
        t->n_dropped += n - most;
        accept_all(t, tokens, n);
        return feed(t, tokens + (n - most), most, err);
    }
    int rc =
        path && file_exists(path) ? runt_session_restore(t->session, 0, path, err) : 0;
    if (rc)
        return rc;
    size_t had = runt_session_pos(t->session);
    rc = timeline_set(t, tokens, n, err);
    /* one that goes on beyond this prompt serves longer prompts, too */
    bool whole = t->n_reused + 1 == n && had >= n;
    return rc || whole || !path ? rc : runt_session_save(t->session, 0, path, err);
}

int timeline_answer(struct timeline *t, const struct runt_generate_options *o,
                    runt_text_fn *fn, void *ctx, struct runt_generated *out,
                    struct runt_err *err)
{
    struct runt_generate_options sliding = *o;
    sliding.slide = true;
    sliding.lookahead = t->lookahead;
    int rc = runt_generate(t->session, t->sampler, &sliding, fn, ctx, out, err);
    if (!rc)
        t->n_dropped += out->n_dropped;
    return rc;
}
