/* Owns the loop of drawing and feeding, and what to forget when the context is full. */
#include "talk/talk.h"

#include "base/err.h"

#include <time.h>

enum { PIECE = 256 };

/* Hands text on, and remembers whether it did: a token may have none yet. */
struct listener {
    runt_text_fn *fn;
    void *ctx;
    bool called;
};

static int listen(void *ctx, const char *text, size_t n)
{
    struct listener *l = ctx;
    l->called = true;
    return l->fn ? l->fn(l->ctx, text, n) : 0;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Make room for one token by forgetting the oldest ones, half of all, so that feeding
 * the rest again stays rare.  It is fed in pieces, so that the caller can stop it. */
static int forget_half(runt_session *s, struct listener *l, struct runt_generated *g,
                       struct runt_err *err)
{
    size_t pos = runt_session_pos(s), drop = pos / 2 ? pos / 2 : 1;
    /* the session's own list, read further on than where it is written */
    const int32_t *tokens = runt_session_seq_tokens(s, 0);
    g->n_dropped += drop;
    runt_session_rewind(s, 0);
    for (size_t i = drop; i < pos; i += PIECE) {
        int rc =
            runt_session_feed(s, tokens + i, pos - i < PIECE ? pos - i : PIECE, err);
        if (rc)
            return rc;
        if (listen(l, "", 0)) {
            g->end = RUNT_END_CALLER;
            return 0;
        }
    }
    return 0;
}

/* Feed a drawn token, unless it is there because it was drafted; g->end is set where
 * that cannot be. */
static int feed(runt_session *s, int32_t id, const struct runt_generate_options *o,
                struct listener *l, struct runt_generated *g, bool *ended,
                struct runt_err *err)
{
    runt_lookahead *ahead = o->lookahead;
    if (ahead && runt_lookahead_take(ahead, 0, id))
        return 0;
    if (runt_session_pos(s) == runt_session_n_ctx(s)) {
        *ended = !o->slide;
        int rc = o->slide ? forget_half(s, l, g, err) : 0;
        *ended |= g->end == RUNT_END_CALLER;
        if (rc || *ended)
            return rc;
    }
    if (!ahead)
        return runt_session_feed(s, &id, 1, err);
    struct runt_step step = {0, &id, 1, 1};
    runt_lookahead_limit(ahead, 0, o->n_max ? o->n_max - g->n_tokens : SIZE_MAX);
    return runt_lookahead_step(ahead, &step, 1, err);
}

/* Draw and feed until something ends it. */
static int draw(runt_session *s, runt_sampler *sampler,
                const struct runt_generate_options *o, runt_stream *stream,
                struct listener *l, struct runt_generated *g, struct runt_err *err)
{
    const runt_model *m = runt_session_model(s);
    const float *logits = runt_session_logits(s);
    bool ended = false;
    int rc = 0;
    g->end = RUNT_END_LENGTH;
    while (!rc && !ended && (!o->n_max || g->n_tokens < o->n_max)) {
        int32_t id;
        rc = runt_sampler_pick(sampler, logits, &id, err);
        if (rc)
            break;
        g->n_tokens++;
        if (runt_token_is_control(m, id) && !o->ignore_eos) {
            g->end = RUNT_END_EOS;
            break;
        }
        runt_sampler_accept(sampler, id);
        size_t n;
        const char *bytes = runt_token_bytes(m, id, &n);
        l->called = false;
        int stop = runt_stream_put(stream, bytes, n, listen, l);
        if (!stop && !l->called && listen(l, "", 0))
            stop = 2;
        if (stop) {
            g->end = stop == 1 ? RUNT_END_STOP : RUNT_END_CALLER;
            break;
        }
        rc = feed(s, id, o, l, g, &ended, err);
        logits = o->lookahead ? runt_lookahead_logits(o->lookahead, 0)
                              : runt_session_logits(s);
    }
    return rc;
}

static void count_drafts(const struct runt_generate_options *o, uint64_t *drafted,
                         uint64_t *accepted)
{
    *drafted = *accepted = 0;
    if (o->lookahead)
        runt_lookahead_counts(o->lookahead, drafted, accepted);
}

int runt_generate(runt_session *s, runt_sampler *sampler,
                  const struct runt_generate_options *o, runt_text_fn *fn, void *ctx,
                  struct runt_generated *out, struct runt_err *err)
{
    static const struct runt_generate_options defaults = {0};
    struct runt_generated g = {0};
    struct listener l = {.fn = fn, .ctx = ctx};
    runt_stream *stream = NULL;
    o = o ? o : &defaults;
    if (!runt_session_pos(s))
        return err_set(err, RUNT_E_INVALID, "nothing was fed to continue from");
    int rc = runt_stream_new(o->stops, o->n_stops, o->skip_space, &stream, err);
    if (rc)
        return rc;
    uint64_t drafted, accepted, drafted_now, accepted_now;
    count_drafts(o, &drafted, &accepted);
    double t0 = seconds();
    rc = draw(s, sampler, o, stream, &l, &g, err);
    if (o->lookahead)
        runt_lookahead_stop(o->lookahead, 0);
    count_drafts(o, &drafted_now, &accepted_now);
    g.n_drafted = (size_t)(drafted_now - drafted);
    g.n_accepted = (size_t)(accepted_now - accepted);
    /* what is held is text, too, unless the caller wants no more */
    if (g.end != RUNT_END_STOP && g.end != RUNT_END_CALLER &&
        runt_stream_end(stream, listen, &l))
        g.end = RUNT_END_CALLER;
    g.seconds = seconds() - t0;
    runt_stream_free(stream);
    if (!rc && out)
        *out = g;
    return rc;
}
