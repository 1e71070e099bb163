/* Owns the step from logits to a token.
 *
 * Order: repeat penalty, top-k, top-p, min-p, temperature, draw.  Top-p and min-p look
 * at the probabilities before the temperature, as llama.cpp's users know them.  Equal
 * logits keep the order of their ids, so a seed gives the same text everywhere. */
#include "base/err.h"
#include "base/mem.h"
#include "base/rng.h"
#include "runt/runt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_REPEAT = 4096 };

struct candidate {
    float logit;
    int32_t id;
};

struct runt_sampler {
    struct runt_sampler_options o;
    uint32_t n_vocab;
    struct rng rng;
    struct candidate *candidates; /* [n_vocab] */
    double *weights;              /* [n_vocab] */
    unsigned char *penalized;     /* [n_vocab] */
    int32_t *recent;              /* ring of the last repeat_last tokens */
    size_t n_recent;              /* tokens accepted so far */
};

struct runt_sampler_options runt_sampler_defaults(void)
{
    return (struct runt_sampler_options){.temp = 0.8f,
                                         .top_k = 40,
                                         .top_p = 0.95f,
                                         .min_p = 0.05f,
                                         .repeat_penalty = 1.0f,
                                         .repeat_last = 64,
                                         .seed = 0};
}

int runt_sampler_new(const struct runt_sampler_options *o, uint32_t n_vocab,
                     runt_sampler **out, struct runt_err *err)
{
    struct runt_sampler_options defaults = runt_sampler_defaults();
    if (!o)
        o = &defaults;
    if (!(o->temp >= 0 && o->temp <= 100) || o->top_k < 0 ||
        !(o->top_p >= 0 && o->top_p <= 1) || !(o->min_p >= 0 && o->min_p <= 1) ||
        !(o->repeat_penalty > 0 && o->repeat_penalty <= 100) || o->repeat_last < 0 ||
        o->repeat_last > MAX_REPEAT || !n_vocab)
        return err_set(
            err, RUNT_E_INVALID,
            "sampler out of range: temp %g (0..100), top-k %d (>= 0), top-p %g "
            "(0..1), min-p %g (0..1), repeat penalty %g (0..100] over %d",
            (double)o->temp, o->top_k, (double)o->top_p, (double)o->min_p,
            (double)o->repeat_penalty, o->repeat_last);
    runt_sampler *s = mem_zalloc(sizeof *s);
    if (!s)
        return err_nomem(err, "the sampler");
    s->o = *o;
    s->n_vocab = n_vocab;
    rng_seed(&s->rng, o->seed);
    s->candidates = mem_array(n_vocab, sizeof *s->candidates);
    s->weights = mem_array(n_vocab, sizeof *s->weights);
    s->penalized = mem_array(n_vocab, 1);
    s->recent = mem_array((size_t)o->repeat_last + 1, sizeof *s->recent);
    if (!s->candidates || !s->weights || !s->penalized || !s->recent) {
        runt_sampler_free(s);
        return err_nomem(err, "the sampler");
    }
    *out = s;
    return 0;
}

void runt_sampler_free(runt_sampler *s)
{
    if (!s)
        return;
    mem_free(s->candidates);
    mem_free(s->weights);
    mem_free(s->penalized);
    mem_free(s->recent);
    mem_free(s);
}

void runt_sampler_accept(runt_sampler *s, int32_t token)
{
    if (s->o.repeat_last && token >= 0 && (uint32_t)token < s->n_vocab)
        s->recent[s->n_recent++ % (size_t)s->o.repeat_last] = token;
}

void runt_sampler_forget(runt_sampler *s)
{
    s->n_recent = 0;
}

/* Keskar et al. 2019 (CTRL), equation in section 4.1: positive logits are divided by
 * the penalty, negative ones multiplied. */
static void penalize(runt_sampler *s)
{
    size_t window = (size_t)s->o.repeat_last, n = s->n_recent;
    if (n > window)
        n = window;
    for (size_t i = 0; i < n; i++) {
        int32_t id = s->recent[i];
        float *l = &s->candidates[id].logit;
        if (!s->penalized[id])
            *l = *l > 0 ? *l / s->o.repeat_penalty : *l * s->o.repeat_penalty;
        s->penalized[id] = 1;
    }
    for (size_t i = 0; i < n; i++)
        s->penalized[s->recent[i]] = 0;
}

static int descending(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit < y->logit ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Move the k first of c[0..n) in descending order to the front (not sorted): Hoare's
 * selection.  All candidates differ, so the partition always shrinks. */
static void select_top(struct candidate *c, size_t n, size_t k)
{
    size_t lo = 0, hi = n;
    while (hi - lo > 1 && k > lo && k < hi) {
        struct candidate pivot = c[lo + (hi - lo) / 2];
        size_t i = lo, j = hi - 1;
        for (;;) {
            while (descending(&c[i], &pivot) < 0)
                i++;
            while (descending(&pivot, &c[j]) < 0)
                j--;
            if (i >= j)
                break;
            struct candidate t = c[i];
            c[i++] = c[j];
            c[j--] = t;
        }
        if (k <= i)
            hi = i;
        else
            lo = i;
    }
}

static int32_t greedy(const runt_sampler *s)
{
    const struct candidate *c = s->candidates;
    size_t best = 0;
    for (size_t i = 1; i < s->n_vocab; i++)
        if (c[i].logit > c[best].logit)
            best = i;
    return c[best].id;
}

int runt_sampler_pick(runt_sampler *s, const float *logits, int32_t *token,
                      struct runt_err *err)
{
    struct candidate *c = s->candidates;
    size_t n = s->n_vocab;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(logits[i]))
            return err_set(
                err, RUNT_E_FORMAT,
                "the model's logit of token %zu is %g: its weights are broken", i,
                (double)logits[i]);
        c[i] = (struct candidate){logits[i], (int32_t)i};
    }
    if (s->o.repeat_penalty != 1)
        penalize(s);
    if (s->o.temp == 0) {
        *token = greedy(s);
        return 0;
    }
    if (s->o.top_k && (size_t)s->o.top_k < n) {
        select_top(c, n, (size_t)s->o.top_k);
        n = (size_t)s->o.top_k;
    }
    qsort(c, n, sizeof *c, descending);
    double sum = 0, total = 0;
    for (size_t i = 0; i < n; i++)
        total += s->weights[i] = exp((double)c[i].logit - (double)c[0].logit);
    if (s->o.top_p < 1) {
        size_t keep = 0;
        while (keep < n && (keep == 0 || sum < (double)s->o.top_p * total))
            sum += s->weights[keep++];
        n = keep;
    }
    while (n > 1 && s->weights[n - 1] < (double)s->o.min_p)
        n--;
    sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += s->weights[i] =
            exp(((double)c[i].logit - (double)c[0].logit) / (double)s->o.temp);
    double r = rng_unit(&s->rng) * sum;
    size_t i = 0;
    while (i + 1 < n && r >= s->weights[i])
        r -= s->weights[i++];
    *token = c[i].id;
    return 0;
}
