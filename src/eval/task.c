/* Owns the scoring of tasks.  Continuations are fed one after another to one sequence,
 * from where they differ from what it holds: so the context of four endings is computed
 * once.  The engine gives the same bits however a text is cut into passes, hence the
 * same as with each ending fed alone. */
#include "eval/task.h"
#include "eval/score.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/pool.h"
#include "model/model.h"

#include <math.h>
#include <string.h>

struct scorer {
    const runt_model *m;
    runt_session *s;
    const struct eval_scorer *scorer; /* instead of it, or NULL */
    struct eval_score *scores;        /* [n_ctx] */
    const struct task_set *set;
    struct strbuf text; /* of a context and a continuation */
    /* of the pass: logits of its token t predict targets[t] */
    const int32_t *targets;
    size_t n_targets;
    double *logp;    /* [n_ctx] of the ending's tokens, in text order */
    uint8_t *likely; /* [n_ctx] */
    size_t n_logp;
};

/* ---- encoding ---- */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int put_id(int32_t **ids, size_t *n, int32_t first, struct runt_err *err)
{
    int32_t *p = mem_resize(*ids, *n + 1, sizeof *p);
    if (!p)
        return err_nomem(err, "a task");
    memmove(p + 1, p, *n * sizeof *p);
    p[0] = first;
    *ids = p;
    ++*n;
    return 0;
}

/* Context and " ENDING" as one text; *n_cont: the tokens that the context alone does
 * not have.  White space at the context's end belongs to the ending, as in the harness,
 * and an empty context is the end-of-text token. */
static int encode(struct scorer *k, const struct task_item *t, size_t e, int32_t **ids,
                  size_t *n, size_t *n_cont, struct runt_err *err)
{
    const char *text = k->set->text.data;
    size_t n_context = t->context.n, n_alone = 0;
    k->text.len = 0;
    sb_put(&k->text, text + t->context.at, t->context.n);
    sb_char(&k->text, ' ');
    sb_put(&k->text, text + t->endings[e].at, t->endings[e].n);
    if (k->text.failed)
        return err_nomem(err, "a task");
    while (n_context && is_space(k->text.data[n_context - 1]))
        n_context--;
    int32_t *alone = NULL;
    int rc = runt_tokenize(k->m, k->text.data, k->text.len, true, ids, n, err);
    if (!rc && n_context)
        rc = runt_tokenize(k->m, k->text.data, n_context, true, &alone, &n_alone, err);
    runt_free(alone);
    if (rc)
        return rc;
    *n_cont = *n > n_alone ? *n - n_alone : 0;
    if (!n_context) {
        struct runt_model_info info;
        runt_model_info(k->m, &info);
        rc = put_id(ids, n, info.eos >= 0 ? info.eos : 0, err);
    }
    if (!rc && !*n_cont)
        rc = err_set(err, RUNT_E_INVALID, "line %zu: ending %zu makes no token",
                     t->line, e);
    else if (!rc && *n_cont > k->m->shape.n_ctx)
        rc = err_set(err, RUNT_E_INVALID,
                     "line %zu: ending %zu has %zu tokens, more than the model's "
                     "context of %u",
                     t->line, e, *n_cont, k->m->shape.n_ctx);
    return rc;
}

/* ---- scoring ---- */

static void score_part(void *ctx, unsigned part, unsigned n_parts)
{
    struct scorer *k = ctx;
    size_t n_vocab = k->m->shape.n_vocab;
    for (size_t t = part; t < k->n_targets; t += n_parts) {
        const float *l = runt_session_logits_at(k->s, t);
        size_t best, target = (size_t)k->targets[t];
        double lse = score_log_sum_exp(l, n_vocab, &best);
        k->logp[k->n_logp + t] = (double)l[target] - lse;
        k->likely[k->n_logp + t] = best == target;
    }
}

/* The same without a session: the context is computed again for every ending. */
static int score_elsewhere(struct scorer *k, const int32_t *ids, size_t n,
                           size_t n_cont, struct runt_err *err)
{
    size_t first = n - n_cont - 1;
    int rc = k->scorer->score(k->scorer->ctx, ids, n, 1, n, k->scores, err);
    k->n_logp = rc ? 0 : n_cont;
    for (size_t i = 0; i < k->n_logp; i++) {
        k->logp[i] = -k->scores[first + i].nll;
        k->likely[i] = k->scores[first + i].best == ids[first + i + 1];
    }
    return rc;
}

/* ids [n]: the last n_cont of them are scored; the very last is never fed. */
static int score_ids(struct scorer *k, const int32_t *ids, size_t n, size_t n_cont,
                     struct runt_err *err)
{
    runt_session *s = k->s;
    size_t first = n - n_cont - 1, at = runt_session_match(s, 0, ids, n - 1);
    int rc = 0;
    if (at > first)
        at = first;
    runt_session_rewind(s, (uint32_t)at);
    k->n_logp = 0;
    if (at < first) {
        s->all_logits = false;
        rc = runt_session_feed(s, ids + at, first - at, err);
        s->all_logits = true;
    }
    for (at = first; !rc && at < n - 1; at += k->n_targets) {
        k->n_targets = n - 1 - at < s->n_batch ? n - 1 - at : s->n_batch;
        k->targets = ids + at + 1;
        rc = runt_session_feed(s, ids + at, k->n_targets, err);
        if (rc)
            break;
        pool_run(s->pool, score_part, k);
        k->n_logp += k->n_targets;
    }
    return rc;
}

static uint32_t n_chars(const char *s, size_t n)
{
    uint32_t chars = 0;
    for (size_t i = 0; i < n; i++)
        chars += ((unsigned char)s[i] & 0xC0) != 0x80;
    return chars;
}

static int score_ending(struct scorer *k, const struct task_item *t, size_t e,
                        struct task_row *row, struct runt_err *err)
{
    int32_t *ids = NULL;
    size_t n = 0, n_cont = 0, most = (size_t)k->m->shape.n_ctx + 1;
    int rc = encode(k, t, e, &ids, &n, &n_cont, err);
    size_t cut = n > most ? n - most : 0;
    if (!rc)
        rc = k->scorer ? score_elsewhere(k, ids + cut, n - cut, n_cont, err)
                       : score_ids(k, ids + cut, n - cut, n_cont, err);
    if (!rc) {
        double sum = 0;
        bool greedy = true;
        for (size_t i = 0; i < k->n_logp; i++) {
            sum += k->logp[i];
            greedy = greedy && k->likely[i];
        }
        if (!isfinite(sum))
            rc = score_broken(k->m, err);
        if (e == 0)
            row->greedy = greedy;
        row->truncated |= cut > 0;
        row->n_target += (uint32_t)n_cont;
        row->logp[e] = sum;
        row->n_chars[e] =
            n_chars(k->set->text.data + t->endings[e].at, t->endings[e].n);
        if (sum > row->logp[row->pick])
            row->pick = (uint32_t)e;
        uint32_t *p = &row->pick_norm;
        if (sum / row->n_chars[e] > row->logp[*p] / row->n_chars[*p])
            *p = (uint32_t)e;
    }
    runt_free(ids);
    return rc;
}

/* ---- figures ---- */

static int summarize(const struct task_set *set, struct task_result *r,
                     struct runt_err *err)
{
    double *x = mem_array(r->n, sizeof *x), *ones = mem_array(r->n, sizeof *ones);
    int rc = x && ones ? 0 : err_nomem(err, "figures");
    if (!rc) {
        bool words = set->kind == TASK_LAMBADA;
        for (size_t i = 0; i < r->n; i++) {
            const struct task_row *row = &r->rows[i];
            r->n_truncated += row->truncated;
            r->n_tokens += row->n_target;
            ones[i] = 1;
            x[i] = words ? row->greedy : row->pick == set->items[i].label;
        }
        r->acc = score_ratio(x, ones, r->n);
        for (size_t i = 0; i < r->n; i++)
            x[i] = words ? -r->rows[i].logp[0]
                         : r->rows[i].pick_norm == set->items[i].label;
        struct eval_mean second = score_ratio(x, ones, r->n);
        if (words) {
            r->perplexity = exp(second.mean);
            r->perplexity_se = r->perplexity * second.se;
        } else {
            r->acc_norm = second;
        }
    }
    mem_free(x);
    mem_free(ones);
    return rc;
}

int task_run(const runt_model *m, const struct task_set *set,
             const struct task_options *o, struct task_result *out,
             struct runt_err *err)
{
    struct scorer k = {.m = m, .set = set, .scorer = o->scorer};
    struct task_result r = {.n = set->n};
    struct runt_session_options so = {
        .n_threads = o->n_threads, .kv = o->kv, .all_logits = true};
    r.rows = mem_array(set->n, sizeof *r.rows);
    k.logp = mem_array(m->shape.n_ctx, sizeof *k.logp);
    k.likely = mem_array(m->shape.n_ctx, 1);
    k.scores = mem_array(m->shape.n_ctx, sizeof *k.scores);
    int rc = 0;
    if (!r.rows || !k.logp || !k.likely || !k.scores)
        rc = err_nomem(err, "tasks");
    else if (!k.scorer)
        rc = runt_session_open(m, &so, &k.s, err);
    for (size_t i = 0; i < set->n && !rc; i++) {
        if (o->progress && o->progress(o->progress_ctx, "tasks", i, set->n))
            rc = err_set(err, RUNT_E_INTERRUPTED, "interrupted");
        for (size_t e = 0; e < set->items[i].n_endings && !rc; e++)
            rc = score_ending(&k, &set->items[i], e, &r.rows[i], err);
    }
    if (!rc)
        rc = summarize(set, &r, err);
    runt_session_close(k.s);
    sb_free(&k.text);
    mem_free(k.logp);
    mem_free(k.likely);
    mem_free(k.scores);
    if (rc)
        task_result_free(&r);
    else
        *out = r;
    return rc;
}

void task_result_free(struct task_result *r)
{
    mem_free(r->rows);
    *r = (struct task_result){0};
}
