/* Owns the loop of drawing and feeding, and what to forget when the context is full. */
#include "cli/answer.h"

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"

#include <string.h>
#include <time.h>

struct cli_sampler cli_sampler_defaults(void)
{
    struct runt_sampler_options o = runt_sampler_defaults();
    /* decimal again: 0.8f shown as a double would be 0.800000011920929 */
    return (struct cli_sampler){.temp = 0.8,
                                .top_p = 0.95,
                                .min_p = 0.05,
                                .repeat_penalty = 1,
                                .top_k = o.top_k,
                                .repeat_last = o.repeat_last,
                                .seed = -1};
}

struct runt_sampler_options cli_sampler_options(const struct cli_sampler *s)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (struct runt_sampler_options){
        .temp = (float)s->temp,
        .top_k = (int32_t)s->top_k,
        .top_p = (float)s->top_p,
        .min_p = (float)s->min_p,
        .repeat_penalty = (float)s->repeat_penalty,
        .repeat_last = (int32_t)s->repeat_last,
        .seed = s->seed >= 0 ? (uint64_t)s->seed
                             : (uint64_t)t.tv_sec * 1000000007u + (uint64_t)t.tv_nsec,
    };
}

int token_list_put(struct token_list *l, const int32_t *ids, size_t n,
                   struct runt_err *err)
{
    if (l->cap - l->n < n) {
        size_t cap = l->cap * 2 > l->n + n ? l->cap * 2 : l->n + n;
        int32_t *p = mem_resize(l->ids, cap, sizeof *p);
        if (!p)
            return err_nomem(err, "tokens");
        l->ids = p;
        l->cap = cap;
    }
    memcpy(l->ids + l->n, ids, n * sizeof *ids);
    l->n += n;
    return 0;
}

int timeline_open(struct timeline *t, const runt_model *m,
                  const struct runt_session_options *so,
                  const struct runt_sampler_options *sa, struct runt_err *err)
{
    struct runt_model_info info;
    runt_model_info(m, &info);
    *t = (struct timeline){.model = m};
    int rc = runt_session_open(m, so, &t->session, err);
    if (!rc)
        rc = runt_sampler_new(sa, info.n_vocab, &t->sampler, err);
    if (rc)
        timeline_close(t);
    return rc;
}

void timeline_close(struct timeline *t)
{
    runt_session_close(t->session);
    runt_sampler_free(t->sampler);
    *t = (struct timeline){0};
}

/* A long text in pieces, so that Ctrl-C is heard between them.  `tokens` may be the
 * session's own, further on than where they go. */
static int feed_pieces(struct timeline *t, const int32_t *tokens, size_t n,
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

/* Make room for n more tokens by dropping the oldest ones: at least half of them, so
 * that feeding the rest again stays rare. */
static int make_room(struct timeline *t, size_t n, struct runt_err *err)
{
    size_t pos = runt_session_pos(t->session), n_ctx = runt_session_n_ctx(t->session);
    if (pos + n <= n_ctx)
        return 0;
    size_t drop = pos + n - n_ctx;
    if (drop < pos / 2)
        drop = pos / 2;
    if (drop > pos)
        drop = pos;
    t->n_dropped += drop;
    runt_session_rewind(t->session, 0);
    const int32_t *tokens = runt_session_seq_tokens(t->session, 0);
    return pos > drop ? feed_pieces(t, tokens + drop, pos - drop, err) : 0;
}

int timeline_feed(struct timeline *t, const int32_t *tokens, size_t n,
                  struct runt_err *err)
{
    size_t n_ctx = runt_session_n_ctx(t->session);
    for (size_t i = 0; i < n; i++)
        runt_sampler_accept(t->sampler, tokens[i]);
    /* a context holds the end of the text and one token to draw */
    size_t most = n_ctx - (n_ctx > 1);
    if (n > most) { /* what came before the tokens that are left goes too */
        t->n_dropped += runt_session_pos(t->session) + n - most;
        runt_session_rewind(t->session, 0);
        tokens += n - most;
        n = most;
    }
    int rc = n ? make_room(t, n, err) : 0;
    return rc || !n ? rc : feed_pieces(t, tokens, n, err);
}

int timeline_set(struct timeline *t, const int32_t *tokens, size_t n,
                 struct runt_err *err)
{
    uint32_t same = runt_session_match(t->session, 0, tokens, n);
    t->n_reused = same;
    runt_sampler_forget(t->sampler);
    for (size_t i = 0; i < n; i++)
        runt_sampler_accept(t->sampler, tokens[i]);
    return feed_pieces(t, tokens + same, n - same, err);
}

int timeline_prompt(struct timeline *t, const char *path, const int32_t *tokens,
                    size_t n, struct runt_err *err)
{
    size_t n_ctx = runt_session_n_ctx(t->session);
    if (!path || n > n_ctx - (n_ctx > 1)) /* what gets cut cannot be found again */
        return timeline_feed(t, tokens, n, err);
    int rc = file_exists(path) ? runt_session_restore(t->session, 0, path, err) : 0;
    if (rc)
        return rc;
    size_t had = runt_session_pos(t->session);
    rc = timeline_set(t, tokens, n, err);
    /* one that goes on beyond this prompt serves longer prompts, too */
    bool whole = t->n_reused + 1 == n && had >= n;
    return rc || whole ? rc : runt_session_save(t->session, 0, path, err);
}

/* Keep of the drawn tokens those whose bytes were shown whole: a stop text that began
 * in them is no part of the answer. */
static void drop_hidden(const runt_model *m, struct token_list *drawn, size_t from,
                        size_t n_shown)
{
    size_t n = from, bytes = 0, len;
    for (; n < drawn->n; n++) {
        runt_token_bytes(m, drawn->ids[n], &len);
        if (bytes + len > n_shown)
            break;
        bytes += len;
    }
    drawn->n = n;
}

int timeline_answer(struct timeline *t, size_t n_max, bool ignore_eos, struct stream *s,
                    struct token_list *drawn, struct answer *out, struct runt_err *err)
{
    struct answer a = {.end = ANSWER_LENGTH};
    size_t n_before = drawn ? drawn->n : 0, shown_before = s->n_shown;
    double t0 = cli_seconds();
    int rc = 0;
    while (!n_max || a.n_tokens < n_max) {
        int32_t id;
        size_t n;
        if (cli_interrupted()) {
            a.end = ANSWER_INTERRUPTED;
            break;
        }
        rc = runt_sampler_pick(t->sampler, runt_session_logits(t->session), &id, err);
        if (rc)
            break;
        a.n_tokens++;
        if (runt_token_is_control(t->model, id) && !ignore_eos) {
            a.end = ANSWER_EOS;
            break;
        }
        const char *bytes = runt_token_bytes(t->model, id, &n);
        if (stream_put(s, bytes, n)) {
            a.end = ANSWER_STOP;
            break;
        }
        if (s->out && ferror(s->out)) {
            rc = err_set(err, RUNT_E_IO, "cannot write the answer: nobody reads it");
            break;
        }
        /* nobody asks for the logits after the last one, but a chat goes on from it */
        rc = timeline_feed(t, &id, 1, err);
        if (!rc && drawn)
            rc = token_list_put(drawn, &id, 1, err);
        if (rc)
            break;
    }
    if (a.end == ANSWER_STOP && drawn)
        drop_hidden(t->model, drawn, n_before, s->n_shown - shown_before);
    stream_end(s);
    a.seconds = cli_seconds() - t0;
    if (!rc)
        *out = a;
    return rc;
}
