/* Owns making the answers: a queue of them over the sequences of one session, with a
 * base model fed the same tokens in step.  derail_figures.c has the statistics. */
#include "eval/derail_impl.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/utf8.h"
#include "eval/score.h"
#include "model/model.h"

#include <math.h>
#include <string.h>

enum { DEFAULT_TOKENS = 256, N_SEQS = 16, MAX_TOKENS = 1 << 20 };

/* ---- prompts ---- */

int derail_prompts(const char *bytes, size_t n, const char *name,
                   struct derail_prompt **out, size_t *n_out, struct runt_err *err)
{
    struct derail_prompt *list = NULL;
    size_t n_list = 0, cap = 0, line = 0;
    int rc = 0;
    for (size_t at = 0; at < n && !rc;) {
        const char *s = bytes + at, *end = memchr(s, '\n', n - at);
        size_t len = end ? (size_t)(end - s) : n - at;
        bool blank = true;
        at += len + 1;
        line++;
        if (len && s[len - 1] == '\r')
            len--;
        for (size_t i = 0, k; i < len && !rc; i += k) {
            k = utf8_len(s + i, len - i);
            if (!k || !s[i])
                rc = err_set(err, RUNT_E_FORMAT, "%s, line %zu: not a text (%s)", name,
                             line, k ? "a NUL byte" : "not UTF-8");
            blank = blank && (s[i] == ' ' || s[i] == '\t');
        }
        if (rc || blank)
            continue;
        if (n_list == cap) {
            cap = cap ? 2 * cap : 64;
            struct derail_prompt *p = mem_resize(list, cap, sizeof *p);
            if (!p) {
                rc = err_nomem(err, "prompts");
                break;
            }
            list = p;
        }
        list[n_list++] = (struct derail_prompt){s, len, line};
    }
    if (!rc && !n_list)
        rc = err_set(err, RUNT_E_FORMAT, "%s: no prompts in it", name);
    if (rc) {
        mem_free(list);
        return rc;
    }
    *out = list;
    *n_out = n_list;
    return 0;
}

/* ---- the queue ---- */

struct ids {
    int32_t *ids;
    size_t n;
};

struct slot {
    struct derail_answer *a; /* NULL: nothing to do */
    runt_sampler *sampler;
    const int32_t *next; /* tokens to feed: the prompt's, or the one drawn */
    size_t n_next, step;
    int32_t drawn;
    int rc;
    struct runt_err err;
};

struct work {
    const runt_model *m, *base;
    const struct derail_options *o;
    runt_session *s, *base_s;
    struct ids *prompts; /* [n_prompts] */
    size_t n_ctx, n_tokens;
    int32_t eos;
    struct derail_answer *answers;
    size_t n_answers, n_begun, n_done;
    struct slot slots[N_SEQS];
    uint32_t n_slots;
};

static size_t min(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* The next answer of the queue takes the slot, if there is one. */
static int begin(struct work *w, uint32_t i, struct runt_err *err)
{
    struct slot *slot = &w->slots[i];
    struct derail_answer *a =
        w->n_begun < w->n_answers ? &w->answers[w->n_begun] : NULL;
    slot->a = a;
    if (!a)
        return 0;
    w->n_begun++;
    const struct ids *prompt = &w->prompts[a->prompt];
    struct runt_sampler_options so = runt_sampler_defaults();
    so.temp = 0; /* and no penalties */
    if (a->sampled)
        so = w->o->sampler;
    so.seed = a->seed;
    runt_sampler_free(slot->sampler);
    slot->sampler = NULL;
    int rc = runt_sampler_for(w->m, &so, &slot->sampler, err);
    if (rc)
        return rc;
    for (size_t k = 0; k < prompt->n; k++)
        runt_sampler_accept(slot->sampler, prompt->ids[k]);
    a->n_prompt = prompt->n;
    a->tokens = mem_array(min(w->n_tokens, w->n_ctx - prompt->n), sizeof *a->tokens);
    if (!a->tokens)
        return err_nomem(err, "an answer");
    slot->next = prompt->ids;
    slot->n_next = prompt->n;
    runt_session_seq_rewind(w->s, i, 0);
    if (w->base_s)
        runt_session_seq_rewind(w->base_s, i, 0);
    return 0;
}

static void draw(struct work *w, struct slot *slot)
{
    struct derail_answer *a = slot->a;
    const float *l = runt_session_logits_at(w->s, slot->step);
    slot->rc = runt_sampler_pick(slot->sampler, l, &slot->drawn, &slot->err);
    if (slot->rc) {
        slot->rc = score_broken(w->m, &slot->err);
        return;
    }
    runt_sampler_accept(slot->sampler, slot->drawn);
    a->n_drawn++;
    if (!w->base_s)
        return;
    size_t n = w->m->shape.n_vocab, best;
    const float *b = runt_session_logits_at(w->base_s, slot->step);
    double l_lse = score_log_sum_exp(l, n, &best),
           b_lse = score_log_sum_exp(b, n, &best);
    a->kl += score_kl(b, b_lse, l, l_lse, n);
    a->base_nll += b_lse - (double)b[slot->drawn];
    if (!isfinite(a->kl) || !isfinite(a->base_nll))
        slot->rc = score_broken(w->base, &slot->err);
}

static void draw_part(void *ctx, unsigned part, unsigned n_parts)
{
    struct work *w = ctx;
    for (uint32_t i = part; i < w->n_slots; i += n_parts)
        if (w->slots[i].a)
            draw(w, &w->slots[i]);
}

/* Take the token drawn into the answer; true when that is complete. */
static bool take(struct work *w, struct slot *slot)
{
    struct derail_answer *a = slot->a;
    if (slot->drawn == w->eos) {
        a->end = DERAIL_EOS;
        return true;
    }
    a->tokens[a->n++] = slot->drawn;
    slot->next = &a->tokens[a->n - 1];
    slot->n_next = 1;
    a->end = a->n == w->n_tokens ? DERAIL_LENGTH : DERAIL_CONTEXT;
    return a->n == w->n_tokens || a->n == w->n_ctx - a->n_prompt;
}

static int one_step(struct work *w, struct runt_err *err)
{
    struct runt_step steps[N_SEQS];
    size_t n = 0;
    for (uint32_t i = 0; i < w->n_slots; i++) {
        struct slot *slot = &w->slots[i];
        if (!slot->a)
            continue;
        slot->step = n;
        steps[n++] = (struct runt_step){i, slot->next, slot->n_next, 0};
    }
    int rc = runt_session_step(w->s, steps, n, err);
    if (!rc && w->base_s)
        rc = runt_session_step(w->base_s, steps, n, err);
    if (rc)
        return rc;
    pool_run(w->s->pool, draw_part, w);
    for (uint32_t i = 0; i < w->n_slots && !rc; i++) {
        struct slot *slot = &w->slots[i];
        if (slot->a && slot->rc)
            rc = err_set(err, slot->rc, "%s", slot->err.msg);
        else if (slot->a && take(w, slot)) {
            w->n_done++;
            rc = begin(w, i, err);
        }
    }
    return rc;
}

static int answer_all(struct work *w, struct runt_err *err)
{
    int rc = 0;
    for (uint32_t i = 0; i < w->n_slots && !rc; i++)
        rc = begin(w, i, err);
    while (!rc && w->n_done < w->n_answers) {
        if (w->o->progress &&
            w->o->progress(w->o->progress_ctx, "answers", w->n_done, w->n_answers))
            rc = err_set(err, RUNT_E_INTERRUPTED, "interrupted");
        else
            rc = one_step(w, err);
    }
    return rc;
}

/* ---- all of it ---- */

static int encode_prompts(struct work *w, const struct derail_prompt *prompts, size_t n,
                          size_t *longest, struct runt_err *err)
{
    int rc = 0;
    *longest = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        struct ids *p = &w->prompts[i];
        rc = runt_tokenize(w->m, prompts[i].text, prompts[i].n, false, &p->ids, &p->n,
                           err);
        if (!rc && (!p->n || p->n >= w->n_ctx))
            rc = err_set(err, RUNT_E_INVALID,
                         "line %zu: a prompt of %zu tokens leaves no room for an "
                         "answer: the context is %zu",
                         prompts[i].line, p->n, w->n_ctx);
        if (p->n > *longest)
            *longest = p->n;
    }
    return rc;
}

static int open_sessions(struct work *w, size_t longest, struct runt_err *err)
{
    size_t n_ctx = min(w->n_ctx, longest + w->n_tokens);
    w->n_slots = (uint32_t)min(N_SEQS, w->n_answers);
    struct runt_session_options so = {.n_ctx = (uint32_t)n_ctx,
                                      .n_threads = w->o->n_threads,
                                      .n_seqs = w->n_slots,
                                      .kv = w->o->kv};
    int rc = runt_session_open(w->m, &so, &w->s, err);
    so.kv = RUNT_KV_AUTO;
    if (!rc && w->base)
        rc = runt_session_open(w->base, &so, &w->base_s, err);
    return rc;
}

static void plan(struct work *w, size_t n_prompts)
{
    size_t each = 1 + w->o->n_samples;
    for (size_t i = 0; i < n_prompts * each; i++) {
        struct derail_answer *a = &w->answers[i];
        a->prompt = i / each;
        a->sampled = i % each > 0;
        if (a->sampled)
            a->seed = w->o->sampler.seed + a->prompt * w->o->n_samples + i % each - 1;
    }
}

int derail_run(const runt_model *m, const runt_model *base,
               const struct derail_prompt *prompts, size_t n_prompts,
               const struct derail_options *o, struct derail_result *out,
               struct runt_err *err)
{
    struct runt_model_info info;
    runt_model_info(m, &info);
    struct work w = {.m = m, .base = base, .o = o, .eos = info.eos};
    struct derail_result r = {.n_prompts = n_prompts,
                              .has_base = base != NULL,
                              .has_samples = o->n_samples > 0};
    size_t longest = 0;
    w.n_ctx = base ? min(m->shape.n_ctx, base->shape.n_ctx) : m->shape.n_ctx;
    w.n_tokens = min(o->n_tokens ? o->n_tokens : DEFAULT_TOKENS, MAX_TOKENS);
    int rc = base ? score_comparable(m, base, err) : 0;
    if (rc)
        return rc;
    if (!size_mul(n_prompts, 1 + o->n_samples, &r.n_answers))
        return err_nomem(err, "answers");
    w.prompts = mem_array(n_prompts, sizeof *w.prompts);
    r.answers = mem_array(r.n_answers, sizeof *r.answers);
    w.answers = r.answers;
    w.n_answers = r.n_answers;
    rc = w.prompts && r.answers ? encode_prompts(&w, prompts, n_prompts, &longest, err)
                                : err_nomem(err, "answers");
    if (!rc) {
        plan(&w, n_prompts);
        rc = open_sessions(&w, longest, err);
    }
    if (!rc)
        rc = answer_all(&w, err);
    if (!rc)
        rc = derail_summarize(&r, err);
    for (size_t i = 0; i < N_SEQS; i++)
        runt_sampler_free(w.slots[i].sampler);
    for (size_t i = 0; w.prompts && i < n_prompts; i++)
        runt_free(w.prompts[i].ids);
    mem_free(w.prompts);
    runt_session_close(w.s);
    runt_session_close(w.base_s);
    if (rc)
        derail_result_free(&r);
    else
        *out = r;
    return rc;
}

void derail_result_free(struct derail_result *r)
{
    for (size_t i = 0; r->answers && i < r->n_answers; i++)
        mem_free(r->answers[i].tokens);
    mem_free(r->answers);
    *r = (struct derail_result){0};
}
