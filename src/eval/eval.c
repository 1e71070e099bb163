/* Owns the walk over a text in windows, and the statistics over its scored tokens.
 * Per-token results are computed on all threads but added up in text order, so figures
 * do not depend on the number of threads. */
#include "eval/eval.h"
#include "eval/score.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/pool.h"
#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct scored {
    float *nll;      /* [n] nats */
    float *kl;       /* [n] nats, with a base */
    float *base_nll; /* [n] */
    uint8_t *same;   /* [n] the likeliest next tokens agree */
    uint32_t *bytes; /* [n] of text behind the token */
    size_t n;
};

/* One pass: logits of tokens at[0..n) in the window predict the tokens after them. */
struct pass {
    const runt_model *m;
    const runt_session *s, *base;
    const int32_t *targets;
    size_t n_tokens;
    struct scored *out;
    const runt_model *broken[POOL_MAX_THREADS]; /* whose logits were not finite */
};

static uint32_t bytes_of(const runt_model *m, int32_t token)
{
    size_t n = 0;
    if (!tok_is_control(m->tok, token))
        tok_bytes(m->tok, token, &n);
    return (uint32_t)n;
}

static void score_tokens(void *ctx, unsigned part, unsigned n_parts)
{
    struct pass *p = ctx;
    size_t n_vocab = p->m->shape.n_vocab, begin, end;
    pool_range(p->n_tokens, 1, part, n_parts, &begin, &end);
    for (size_t t = begin; t < end; t++) {
        size_t at = p->out->n + t, best, base_best;
        int32_t target = p->targets[t];
        const float *l = runt_session_logits_at(p->s, t);
        double lse = score_log_sum_exp(l, n_vocab, &best),
               nll = lse - (double)l[target];
        p->out->nll[at] = (float)nll;
        p->out->bytes[at] = bytes_of(p->m, target);
        if (!isfinite(nll))
            p->broken[part] = p->m;
        if (!p->base)
            continue;
        const float *b = runt_session_logits_at(p->base, t);
        double base_lse = score_log_sum_exp(b, n_vocab, &base_best),
               kl = score_kl(b, base_lse, l, lse, n_vocab);
        p->out->kl[at] = (float)kl;
        p->out->same[at] = best == base_best;
        p->out->base_nll[at] = (float)(base_lse - (double)b[target]);
        if (!isfinite(base_lse))
            p->broken[part] = p->base->model;
        else if (!isfinite(kl))
            p->broken[part] = p->m;
    }
}

/* ---- the walk ---- */

struct walk {
    const runt_model *m, *base_model;
    runt_session *s, *base;
    const struct eval_scorer *scorer; /* instead of sessions, or NULL */
    struct eval_score *scores;        /* [n_group][window - 1] */
    size_t n_group;                   /* windows at once */
    size_t window, stride, n_windows;
    const int32_t *tokens;
    struct scored out;
};

static int feed(struct walk *w, const int32_t *tokens, size_t n, bool logits,
                struct runt_err *err)
{
    w->s->all_logits = logits;
    int rc = runt_session_feed(w->s, tokens, n, err);
    if (!rc && w->base) {
        w->base->all_logits = logits;
        rc = runt_session_feed(w->base, tokens, n, err);
    }
    return rc;
}

/* Tokens of a window that only give context. */
static size_t n_unscored(const struct walk *w, size_t index)
{
    size_t n_score = index ? w->stride : w->window;
    return n_score < w->window - 1 ? w->window - 1 - n_score : 0;
}

/* The last token of a window is predicted but never read, so it is not fed. */
static int do_window(struct walk *w, size_t index, struct runt_err *err)
{
    const int32_t *tokens = w->tokens + index * w->stride;
    size_t at = n_unscored(w, index);
    runt_session_rewind(w->s, 0);
    if (w->base)
        runt_session_rewind(w->base, 0);
    int rc = at ? feed(w, tokens, at, false, err) : 0;
    while (!rc && at < w->window - 1) {
        size_t n = w->window - 1 - at;
        if (n > w->s->n_batch)
            n = w->s->n_batch;
        rc = feed(w, tokens + at, n, true, err);
        if (rc)
            break;
        struct pass p = {.m = w->m,
                         .s = w->s,
                         .base = w->base,
                         .targets = tokens + at + 1,
                         .n_tokens = n,
                         .out = &w->out};
        pool_run(w->s->pool, score_tokens, &p);
        for (unsigned i = 0; i < POOL_MAX_THREADS; i++)
            if (p.broken[i])
                return score_broken(p.broken[i], err);
        w->out.n += n;
        at += n;
    }
    return rc;
}

static int take_score(struct walk *w, const struct eval_score *s, int32_t target,
                      struct runt_err *err)
{
    size_t at = w->out.n++;
    if (!isfinite(s->nll))
        return score_broken(w->m, err);
    w->out.nll[at] = (float)s->nll;
    w->out.bytes[at] = bytes_of(w->m, target);
    if (!w->base_model)
        return 0;
    if (!isfinite(s->base_nll))
        return score_broken(w->base_model, err);
    if (!isfinite(s->kl))
        return score_broken(w->m, err);
    w->out.kl[at] = (float)s->kl;
    w->out.same[at] = s->best == s->base_best;
    w->out.base_nll[at] = (float)s->base_nll;
    return 0;
}

/* Windows index.. by the scorer, as many as it takes at once; *n of them. */
static int do_group(struct walk *w, size_t index, size_t *n, struct runt_err *err)
{
    const int32_t *tokens = w->tokens + index * w->stride;
    *n = w->n_windows - index < w->n_group ? w->n_windows - index : w->n_group;
    int rc = w->scorer->score(w->scorer->ctx, tokens, w->stride, *n, w->window,
                              w->scores, err);
    for (size_t i = 0; i < *n; i++)
        for (size_t t = n_unscored(w, index + i); !rc && t < w->window - 1; t++)
            rc = take_score(w, &w->scores[i * (w->window - 1) + t],
                            tokens[i * w->stride + t + 1], err);
    return rc;
}

/* ---- statistics ---- */

static struct eval_mean mean_of(const float *x, size_t n)
{
    double sum = 0, sq = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i];
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        sq += ((double)x[i] - mean) * ((double)x[i] - mean);
    double var = n > 1 ? sq / (double)(n - 1) : 0;
    return (struct eval_mean){mean, sqrt(var / (double)n)};
}

/* A ratio of sums, its error by the delta method (Cochran 1977, equation 6.13). */
static struct eval_mean bits_per_byte(const struct scored *s)
{
    double bits = 0, bytes = 0, sq = 0;
    for (size_t i = 0; i < s->n; i++) {
        bits += (double)s->nll[i] / log(2);
        bytes += s->bytes[i];
    }
    if (bytes == 0)
        return (struct eval_mean){0, 0};
    for (size_t i = 0; i < s->n; i++) {
        double r = (double)s->nll[i] / log(2) - bits / bytes * s->bytes[i];
        sq += r * r;
    }
    return (struct eval_mean){bits / bytes, sqrt(sq) / bytes};
}

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The 99th percentile by linear interpolation between order statistics; its standard
 * error is half the distance between the order statistics one binomial standard
 * deviation to each side.  Sorts x. */
static void percentile99(float *x, size_t n, double *p99, double *se)
{
    qsort(x, n, sizeof *x, ascending);
    double at = 0.99 * (double)(n - 1), sd = sqrt(0.99 * 0.01 * (double)n);
    size_t i = (size_t)at;
    double frac = at - (double)i, next = (double)x[i + 1 < n ? i + 1 : i];
    *p99 = (double)x[i] + frac * (next - (double)x[i]);
    double lo = at - sd, hi = at + sd;
    size_t l = lo > 0 ? (size_t)lo : 0, h = (size_t)ceil(hi);
    *se = ((double)x[h < n ? h : n - 1] - (double)x[l]) / 2;
}

static void summarize(struct walk *w, struct eval_result *r)
{
    struct scored *s = &w->out;
    r->n_scored = s->n;
    r->nll = mean_of(s->nll, s->n);
    r->perplexity = exp(r->nll.mean);
    r->perplexity_se = r->perplexity * r->nll.se;
    r->bits_per_byte = bits_per_byte(s);
    r->has_base = w->base_model != NULL;
    if (!r->has_base)
        return;
    r->kl = mean_of(s->kl, s->n);
    percentile99(s->kl, s->n, &r->kl_p99, &r->kl_p99_se);
    double same = 0;
    for (size_t i = 0; i < s->n; i++)
        same += s->same[i];
    double p = same / (double)s->n;
    r->top1 = (struct eval_mean){p, sqrt(p * (1 - p) / (double)s->n)};
    struct eval_mean base = mean_of(s->base_nll, s->n);
    r->base_perplexity = exp(base.mean);
    r->base_perplexity_se = r->base_perplexity * base.se;
}

/* ---- the public function ---- */

static int check_base(const runt_model *m, const runt_model *base, size_t window,
                      struct runt_err *err)
{
    int rc = score_comparable(m, base, err);
    if (rc)
        return rc;
    if (window > base->shape.n_ctx)
        return err_set(err, RUNT_E_INVALID,
                       "a window of %zu: the base model's context is %u", window,
                       base->shape.n_ctx);
    return 0;
}

static int plan(struct walk *w, const runt_model *base, size_t n_tokens,
                struct runt_err *err)
{
    if (w->window < 2 || w->window > w->m->shape.n_ctx)
        return err_set(
            err, RUNT_E_INVALID,
            "a window of %zu: it must be from 2 to the model's context of %u",
            w->window, w->m->shape.n_ctx);
    if (w->stride < 1 || w->stride > w->window)
        return err_set(err, RUNT_E_INVALID,
                       "a stride of %zu: it must be from 1 to the window of %zu",
                       w->stride, w->window);
    if (n_tokens < w->window)
        return err_set(err, RUNT_E_INVALID,
                       "the text has %zu tokens, less than one window of %zu; name a "
                       "smaller --window",
                       n_tokens, w->window);
    w->n_windows = (n_tokens - w->window) / w->stride + 1;
    size_t n_max;
    if (!size_mul(w->n_windows, w->stride, &n_max) ||
        !size_add(n_max, w->window, &n_max))
        return err_nomem(err, "the scores");
    w->out.nll = mem_array(n_max, sizeof *w->out.nll);
    w->out.bytes = mem_array(n_max, sizeof *w->out.bytes);
    if (base) {
        w->out.kl = mem_array(n_max, sizeof *w->out.kl);
        w->out.base_nll = mem_array(n_max, sizeof *w->out.base_nll);
        w->out.same = mem_array(n_max, 1);
    }
    if (!w->out.nll || !w->out.bytes ||
        (base && (!w->out.kl || !w->out.base_nll || !w->out.same)))
        return err_nomem(err, "the scores");
    return base ? check_base(w->m, base, w->window, err) : 0;
}

/* Sessions, or room for the scorer's answers. */
static int open_models(struct walk *w, const struct eval_options *o,
                       struct runt_err *err)
{
    struct runt_session_options so = {.n_ctx = (uint32_t)w->window,
                                      .n_threads = o->n_threads,
                                      .kv = o->kv,
                                      .all_logits = true};
    if (w->scorer) {
        w->n_group = w->scorer->most_tokens / w->window;
        w->n_group = w->n_group ? w->n_group : 1;
        w->scores = mem_array(w->n_group * w->window, sizeof *w->scores);
        return w->scores ? 0 : err_nomem(err, "the scores");
    }
    int rc = runt_session_open(w->m, &so, &w->s, err);
    so.kv = RUNT_KV_AUTO;
    if (!rc && w->base_model)
        rc = runt_session_open(w->base_model, &so, &w->base, err);
    return rc;
}

int eval_text(const runt_model *m, const runt_model *base, const char *text, size_t n,
              const struct eval_options *o, struct eval_result *out,
              struct runt_err *err)
{
    struct eval_result r = {0};
    struct walk w = {.m = m, .base_model = base, .scorer = o->scorer};
    int32_t *tokens = NULL;
    w.window = o->window ? o->window : m->shape.n_ctx;
    w.stride = o->stride ? o->stride : w.window;
    int rc = runt_tokenize(m, text, n, true, &tokens, &r.n_tokens, err);
    if (rc)
        goto out;
    if (o->max_tokens && r.n_tokens > o->max_tokens)
        r.n_tokens = o->max_tokens;
    rc = plan(&w, base, r.n_tokens, err);
    if (rc)
        goto out;
    w.tokens = tokens;
    r.window = w.window;
    r.stride = w.stride;
    rc = open_models(&w, o, err);
    for (size_t i = 0, n_done = 1; !rc && i < w.n_windows; i += n_done) {
        if (o->progress && o->progress(o->progress_ctx, "evaluating", i, w.n_windows))
            rc = err_set(err, RUNT_E_INTERRUPTED, "interrupted");
        else
            rc = w.scorer ? do_group(&w, i, &n_done, err) : do_window(&w, i, err);
    }
    if (rc)
        goto out;
    summarize(&w, &r);
    *out = r;
out:
    runt_session_close(w.s);
    runt_session_close(w.base);
    mem_free(w.scores);
    mem_free(w.out.nll);
    mem_free(w.out.bytes);
    mem_free(w.out.kl);
    mem_free(w.out.base_nll);
    mem_free(w.out.same);
    mem_free(tokens);
    return rc;
}
