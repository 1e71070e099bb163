/* Owns a sampler's options, what it remembers of the text, and the pick: which tokens
 * there are to choose from, the stages in their order (stages.c), the draw. */
#include "sample/sample_impl.h"

#include "base/err.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

enum { MAX_REPEAT = 4096, MAX_DRY = 65536 };

static const float max_bias = 1e6f;

struct runt_sampler_options runt_sampler_defaults(void)
{
    static const char *const breakers[] = {"\n", ":", "\"", "*"};
    return (struct runt_sampler_options){
        .temp = 0.8f,
        .top_k = 40,
        .top_p = 0.95f,
        .min_p = 0.05f,
        .repeat_penalty = 1.0f,
        .repeat_last = 64,
        .seed = 0,
        .typical_p = 1,
        .dry_base = 1.75f,
        .dry_allowed_length = 2,
        .dry_last = -1,
        .dry_breakers = breakers,
        .n_dry_breakers = sizeof breakers / sizeof *breakers,
        .mirostat_tau = 5,
        .mirostat_eta = 0.1f,
    };
}

/* ---- checking ---- */

static int out_of_range(const struct runt_sampler_options *o, struct runt_err *err)
{
    const struct {
        const char *name;
        double value, min, max;
    } table[] = {
        {"temp", (double)o->temp, 0, 100},
        {"top-k", o->top_k, 0, INT32_MAX},
        {"top-p", (double)o->top_p, 0, 1},
        {"min-p", (double)o->min_p, 0, 1},
        {"repeat penalty", (double)o->repeat_penalty, 1e-6, 100},
        {"repeat-last", o->repeat_last, 0, MAX_REPEAT},
        {"typical", (double)o->typical_p, 0, 1},
        {"frequency penalty", (double)o->frequency_penalty, -100, 100},
        {"presence penalty", (double)o->presence_penalty, -100, 100},
        {"DRY's multiplier", (double)o->dry_multiplier, 0, 1000},
        {"DRY's base", (double)o->dry_base, o->dry_multiplier > 0 ? 1 : 0, 1000},
        {"DRY's allowed length", o->dry_allowed_length, o->dry_multiplier > 0 ? 1 : 0,
         MAX_DRY},
        {"DRY's last tokens", o->dry_last, -1, MAX_DRY},
        {"mirostat's tau", (double)o->mirostat_tau, 0, 100},
        {"mirostat's eta", (double)o->mirostat_eta, 0, 1},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (!(table[i].value >= table[i].min && table[i].value <= table[i].max))
            return err_set(err, RUNT_E_INVALID,
                           "sampler: %s is %g, out of range (%g to %g)", table[i].name,
                           table[i].value, table[i].min, table[i].max);
    if (o->mirostat != 0 && o->mirostat != 2)
        return err_set(err, RUNT_E_INVALID,
                       "sampler: mirostat is %d; there is version 2, and 0 for none",
                       o->mirostat);
    return 0;
}

static int set_bias(struct runt_sampler *s, const struct runt_sampler_options *o,
                    struct runt_err *err)
{
    if (!o->n_bias)
        return 0;
    s->bias = mem_array(s->n_vocab, sizeof *s->bias);
    if (!s->bias)
        return err_nomem(err, "the logit biases");
    for (size_t i = 0; i < o->n_bias; i++) {
        const struct runt_logit_bias *b = &o->bias[i];
        if (b->token < 0 || (uint32_t)b->token >= s->n_vocab)
            return err_set(err, RUNT_E_INVALID,
                           "sampler: a logit bias for token %d of %u", b->token,
                           s->n_vocab);
        if (!(fabsf(b->bias) <= max_bias) && b->bias != -INFINITY)
            return err_set(err, RUNT_E_INVALID,
                           "sampler: the logit bias of token %d is %g; it may be from "
                           "%g to %g, or -inf",
                           b->token, (double)b->bias, (double)-max_bias,
                           (double)max_bias);
        s->bias[b->token] += b->bias;
    }
    return 0;
}

static const struct stage_name {
    const char *name;
    enum stage stage;
} stage_names[] = {
    {"penalties", STAGE_PENALTIES},
    {"dry", STAGE_DRY},
    {"top_k", STAGE_TOP_K},
    {"typ_p", STAGE_TYPICAL},
    {"top_p", STAGE_TOP_P},
    {"min_p", STAGE_MIN_P},
    {"temperature", STAGE_TEMPERATURE},
    /* other spellings that people know */
    {"typical", STAGE_TYPICAL},
    {"typical_p", STAGE_TYPICAL},
    {"temp", STAGE_TEMPERATURE},
};

static bool same_name(const char *text, size_t n, const char *name)
{
    if (n != strlen(name))
        return false;
    for (size_t i = 0; i < n; i++)
        if (text[i] != name[i] && !(text[i] == '-' && name[i] == '_'))
            return false;
    return true;
}

/* The stages that are named, in their order. */
static int read_order(const char *text, enum stage *order, size_t *n,
                      struct runt_err *err)
{
    bool seen[N_STAGES] = {false};
    *n = 0;
    for (const char *p = text; *p;) {
        size_t len = strcspn(p, ";"), k = 0;
        while (k < sizeof stage_names / sizeof *stage_names &&
               !same_name(p, len, stage_names[k].name))
            k++;
        if (k == sizeof stage_names / sizeof *stage_names)
            return err_set(err, RUNT_E_INVALID,
                           "sampler: no stage '%.*s'; there are " RUNT_SAMPLER_ORDER,
                           (int)(len < 40 ? len : 40), p);
        enum stage stage = stage_names[k].stage;
        if (seen[stage])
            return err_set(err, RUNT_E_INVALID, "sampler: stage %.*s is named twice",
                           (int)len, p);
        seen[stage] = true;
        order[(*n)++] = stage;
        p += len + (p[len] == ';');
    }
    return 0;
}

static bool changes_logits(enum stage stage)
{
    return stage == STAGE_PENALTIES || stage == STAGE_DRY;
}

/* Whether a stage has any effect. */
static bool is_on(const struct runt_sampler_options *o, enum stage stage)
{
    switch (stage) {
    case STAGE_PENALTIES:
        return o->repeat_last && (o->repeat_penalty != 1 || o->frequency_penalty != 0 ||
                                  o->presence_penalty != 0);
    case STAGE_DRY:
        return o->dry_multiplier > 0 && o->dry_last;
    case STAGE_TOP_K:
        return o->top_k && !o->mirostat;
    case STAGE_TYPICAL:
        return o->typical_p > 0 && o->typical_p < 1 && !o->mirostat;
    case STAGE_TOP_P:
        return o->top_p < 1 && !o->mirostat;
    case STAGE_MIN_P:
        return o->min_p > 0 && !o->mirostat;
    case STAGE_TEMPERATURE:
        return o->temp != 1;
    case N_STAGES:
        break;
    }
    return false;
}

/* What there is to do.  At temperature 0 only the likeliest token is left, so nothing
 * follows, and what always keeps that token need not be done just before: top-k, top-p
 * and min-p do, typical sampling may not. */
static int make_plan(struct runt_sampler *s, const struct runt_sampler_options *o,
                     struct runt_err *err)
{
    enum stage order[N_STAGES];
    size_t n = 0;
    int rc = read_order(o->order ? o->order : RUNT_SAMPLER_ORDER, order, &n, err);
    for (size_t i = 0; i < n && !rc; i++) {
        if (!is_on(o, order[i]))
            continue;
        if (order[i] == STAGE_TEMPERATURE && o->temp == 0) {
            while (s->n_plan && !changes_logits(s->plan[s->n_plan - 1]) &&
                   s->plan[s->n_plan - 1] != STAGE_TYPICAL)
                s->n_plan--;
            n = i + 1;
        }
        s->plan[s->n_plan++] = order[i];
    }
    return rc;
}

static bool plans(const struct runt_sampler *s, enum stage stage)
{
    for (size_t i = 0; i < s->n_plan; i++)
        if (s->plan[i] == stage)
            return true;
    return false;
}

/* ---- a sampler ---- */

static int set_dry(struct runt_sampler *s, const struct runt_sampler_options *o,
                   struct runt_err *err)
{
    if (!plans(s, STAGE_DRY))
        return 0;
    if (s->o.dry_last < 0)
        s->o.dry_last = MAX_DRY;
    if (o->n_dry_breakers && !s->tok)
        return err_set(err, RUNT_E_INVALID,
                       "sampler: DRY's breakers are texts, so it must know the model");
    int rc = breakers_set(&s->breakers, o->dry_breakers, o->n_dry_breakers, err);
    s->dry_match = mem_array((size_t)s->o.dry_last, sizeof *s->dry_match);
    s->dry_reach = mem_array(s->n_vocab, sizeof *s->dry_reach);
    if (!rc && (!s->dry_match || !s->dry_reach))
        rc = err_nomem(err, "the sampler");
    return rc;
}

static int set_memory(struct runt_sampler *s, struct runt_err *err)
{
    size_t dry = plans(s, STAGE_DRY) ? (size_t)s->o.dry_last : 0;
    s->n_ring = (size_t)s->o.repeat_last > dry ? (size_t)s->o.repeat_last : dry;
    s->c = mem_array(s->n_vocab, sizeof *s->c);
    s->weights = mem_array(s->n_vocab, sizeof *s->weights);
    s->counts = mem_array(s->n_vocab, sizeof *s->counts);
    s->recent = mem_array(s->n_ring, sizeof *s->recent);
    s->breaks = mem_array(s->n_ring, 1);
    if (plans(s, STAGE_TYPICAL))
        s->ranked = mem_array(s->n_vocab, sizeof *s->ranked);
    if (!s->c || !s->weights || !s->counts || !s->recent || !s->breaks ||
        (plans(s, STAGE_TYPICAL) && !s->ranked))
        return err_nomem(err, "the sampler");
    return 0;
}

int sampler_new(const struct runt_sampler_options *o, uint32_t n_vocab,
                const struct tok *tok, runt_sampler **out, struct runt_err *err)
{
    struct runt_sampler_options defaults = runt_sampler_defaults();
    if (!o)
        o = &defaults;
    int rc = out_of_range(o, err);
    if (!rc && !n_vocab)
        rc = err_set(err, RUNT_E_INVALID, "sampler: a vocabulary of no tokens");
    if (rc)
        return rc;
    runt_sampler *s = mem_zalloc(sizeof *s);
    if (!s)
        return err_nomem(err, "the sampler");
    s->o = *o;
    s->o.dry_breakers = NULL;
    s->o.bias = NULL;
    s->o.order = NULL;
    s->n_vocab = n_vocab;
    s->tok = tok;
    s->mu = 2 * (double)o->mirostat_tau;
    rng_seed(&s->rng, o->seed);
    rc = make_plan(s, o, err);
    rc = rc ? rc : set_bias(s, o, err);
    rc = rc ? rc : set_dry(s, o, err);
    rc = rc ? rc : set_memory(s, err);
    if (rc)
        runt_sampler_free(s);
    else
        *out = s;
    return rc;
}

int runt_sampler_new(const struct runt_sampler_options *o, uint32_t n_vocab,
                     runt_sampler **out, struct runt_err *err)
{
    return sampler_new(o, n_vocab, NULL, out, err);
}

void runt_sampler_free(runt_sampler *s)
{
    if (!s)
        return;
    constraint_free(s->constraint);
    breakers_free(&s->breakers);
    mem_free(s->bias);
    mem_free(s->recent);
    mem_free(s->breaks);
    mem_free(s->counts);
    mem_free(s->dry_match);
    mem_free(s->dry_reach);
    mem_free(s->c);
    mem_free(s->weights);
    mem_free(s->ranked);
    mem_free(s);
}

/* ---- the text so far ---- */

void runt_sampler_accept(runt_sampler *s, int32_t token)
{
    if (!s->n_ring || token < 0 || (uint32_t)token >= s->n_vocab)
        return;
    size_t window = (size_t)s->o.repeat_last, at = s->n_recent % s->n_ring;
    if (window && s->n_recent >= window)
        s->counts[s->recent[(s->n_recent - window) % s->n_ring]]--;
    if (window)
        s->counts[token]++;
    s->recent[at] = token;
    if (s->breakers.n) {
        size_t n;
        const char *bytes = tok_bytes(s->tok, token, &n);
        s->breaks[at] = breakers_note(&s->breakers, bytes, n);
    }
    s->n_recent++;
}

void runt_sampler_forget(runt_sampler *s)
{
    s->n_recent = 0;
    s->breakers.n_tail = 0;
    memset(s->counts, 0, s->n_vocab * sizeof *s->counts);
    s->mu = 2 * (double)s->o.mirostat_tau;
    if (s->constraint)
        constraint_restart(s->constraint);
}

/* ---- the pick ---- */

/* Every token as a candidate, or those that the grammar allows; without those that are
 * banned. */
static int gather(struct runt_sampler *s, const float *logits, struct runt_err *err)
{
    struct candidate *c = s->c;
    for (size_t i = 0; i < s->n_vocab; i++) {
        if (!isfinite(logits[i]))
            return err_set(
                err, RUNT_E_FORMAT,
                "the model's logit of token %zu is %g: its weights are broken", i,
                (double)logits[i]);
        c[i] = (struct candidate){logits[i], (int32_t)i};
    }
    s->n = s->n_vocab;
    s->sorted = false;
    s->divisor = 1;
    if (s->constraint) {
        const int32_t *ids = NULL;
        int rc = constraint_filter(s->constraint, &ids, &s->n, err);
        if (rc)
            return rc;
        for (size_t i = 0; i < s->n; i++)
            c[i] = (struct candidate){logits[ids[i]], ids[i]};
    }
    size_t n = 0;
    for (size_t i = 0; i < s->n && s->bias; i++) {
        float bias = s->bias[c[i].id];
        if (bias != -INFINITY)
            c[n++] = (struct candidate){stage_finite(c[i].logit + bias), c[i].id};
    }
    if (s->bias)
        s->n = n;
    if (!s->n)
        return err_set(err, RUNT_E_INVALID, "no token is left to pick from: %s",
                       !s->constraint ? "biases forbid all of them"
                       : s->bias      ? "the grammar or a bias forbids each of them"
                                      : "the vocabulary cannot spell what the grammar "
                                        "wants");
    return 0;
}

/* By weights whose sum is given. */
static size_t draw(struct runt_sampler *s, double sum)
{
    double r = rng_unit(&s->rng) * sum;
    size_t i = 0;
    while (i + 1 < s->n && r >= s->weights[i])
        r -= s->weights[i++];
    return i;
}

/* Basu et al. 2021 (Mirostat), algorithm 1, with the cut that its authors call version
 * 2: instead of a k that would have surprise mu on average, no token of more than mu
 * bits of surprise.  The drawn token's surprise then moves mu so that surprise keeps
 * near tau. */
static size_t draw_mirostat(struct runt_sampler *s)
{
    double total = stage_weigh(s), sum = s->weights[0];
    size_t n = 1;
    while (n < s->n && -log2(s->weights[n] / total) <= s->mu)
        sum += s->weights[n++];
    s->n = n;
    size_t i = draw(s, sum);
    double surprise = -log2(s->weights[i] / sum);
    s->mu -= (double)s->o.mirostat_eta * (surprise - (double)s->o.mirostat_tau);
    return i;
}

/* Nothing but the logits decides. */
static bool is_greedy(const struct runt_sampler *s)
{
    return s->o.temp == 0 && s->n_plan == 1 && s->plan[0] == STAGE_TEMPERATURE &&
           !s->constraint && !s->bias;
}

int runt_sampler_pick(runt_sampler *s, const float *logits, int32_t *token,
                      struct runt_err *err)
{
    int32_t best = is_greedy(s) ? likeliest(logits, s->n_vocab) : -1;
    if (best >= 0) {
        *token = best;
        return 0;
    }
    int rc = gather(s, logits, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < s->n_plan; i++)
        stage_run(s, s->plan[i]);
    size_t i = 0;
    if (s->o.temp != 0 || !plans(s, STAGE_TEMPERATURE))
        i = s->o.mirostat ? draw_mirostat(s) : draw(s, stage_weigh(s));
    int32_t id = s->c[i].id;
    if (s->constraint)
        rc = constraint_advance(s->constraint, id, err);
    if (!rc)
        *token = id;
    return rc;
}
