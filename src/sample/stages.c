/* Owns the stages: what each makes of the candidates' logits, or which ones it leaves.
 *
 * The temperature divides nothing at once: its stage sets a divisor that every later
 * exponential uses, so that logits stay the floats that they were. */
#include "sample/sample_impl.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

float stage_finite(float x)
{
    return x > FLT_MAX ? FLT_MAX : x < -FLT_MAX ? -FLT_MAX : x;
}

static int descending(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit < y->logit ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

double stage_weigh(struct runt_sampler *s)
{
    const struct candidate *c = s->c;
    double total = 0;
    if (!s->sorted)
        qsort(s->c, s->n, sizeof *s->c, descending);
    s->sorted = true;
    for (size_t i = 0; i < s->n; i++)
        total += s->weights[i] =
            exp(((double)c[i].logit - (double)c[0].logit) / s->divisor);
    return total;
}

/* Repeat penalty: Keskar et al. 2019 (CTRL), equation in section 4.1, with llama.cpp's
 * correction: positive logits are divided, the others multiplied, so that a token never
 * becomes likelier.  Frequency and presence penalty: OpenAI's, logit - count *
 * frequency - (count > 0) * presence. */
static void penalize(struct runt_sampler *s)
{
    const struct runt_sampler_options *o = &s->o;
    for (size_t i = 0; i < s->n; i++) {
        unsigned count = s->counts[s->c[i].id];
        if (!count)
            continue;
        float l = s->c[i].logit;
        l = l > 0 ? l / o->repeat_penalty : l * o->repeat_penalty;
        double less =
            (double)count * (double)o->frequency_penalty + (double)o->presence_penalty;
        s->c[i].logit = stage_finite((float)((double)l - less * s->divisor));
    }
    s->sorted = false;
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

/* Fan et al. 2018: the k likeliest. */
static void top_k(struct runt_sampler *s)
{
    size_t k = (size_t)s->o.top_k;
    if (k >= s->n)
        return;
    if (!s->sorted)
        select_top(s->c, s->n, k);
    s->n = k;
}

/* Holtzman et al. 2020, equations 2 and 3: the fewest likeliest tokens whose
 * probabilities reach p together. */
static void top_p(struct runt_sampler *s)
{
    double total = stage_weigh(s), sum = 0;
    size_t keep = 0;
    while (keep < s->n && (keep == 0 || sum < (double)s->o.top_p * total))
        sum += s->weights[keep++];
    s->n = keep;
}

/* Nguyen et al. 2024: those at least min_p times as likely as the likeliest. */
static void min_p(struct runt_sampler *s)
{
    stage_weigh(s);
    while (s->n > 1 && s->weights[s->n - 1] < (double)s->o.min_p)
        s->n--;
}

static int by_distance(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->distance != y->distance)
        return x->distance < y->distance ? -1 : 1;
    return (x->place > y->place) - (x->place < y->place);
}

static int by_place(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    return (x->place > y->place) - (x->place < y->place);
}

/* Meister et al. 2022 (locally typical sampling), equation 9: the fewest tokens,
 * nearest in surprise to the entropy first, whose probabilities reach p together.  With
 * d = log p + log total, the entropy is log total - E[d] and the surprise log total -
 * d, so their distance is |E[d] - d|. */
static void typical(struct runt_sampler *s)
{
    double total = stage_weigh(s), mean = 0, sum = 0;
    struct ranked *r = s->ranked;
    for (size_t i = 0; i < s->n; i++) {
        double d = ((double)s->c[i].logit - (double)s->c[0].logit) / s->divisor;
        r[i] = (struct ranked){d, (uint32_t)i};
        mean += s->weights[i] / total * d;
    }
    for (size_t i = 0; i < s->n; i++)
        r[i].distance = fabs(mean - r[i].distance);
    qsort(r, s->n, sizeof *r, by_distance);
    size_t keep = 0;
    while (keep < s->n && (keep == 0 || sum < (double)s->o.typical_p * total))
        sum += s->weights[r[keep++].place];
    qsort(r, keep, sizeof *r, by_place);
    for (size_t i = 0; i < keep; i++)
        s->c[i] = s->c[r[i].place];
    s->n = keep;
}

static void temperature(struct runt_sampler *s)
{
    if (s->o.temp != 0) {
        s->divisor = (double)s->o.temp;
        return;
    }
    size_t best = 0;
    for (size_t i = 1; i < s->n; i++)
        if (descending(&s->c[i], &s->c[best]) < 0)
            best = i;
    s->c[0] = s->c[best];
    s->n = 1;
}

void stage_run(struct runt_sampler *s, enum stage stage)
{
    switch (stage) {
    case STAGE_PENALTIES:
        penalize(s);
        break;
    case STAGE_DRY:
        dry_penalize(s);
        break;
    case STAGE_TOP_K:
        top_k(s);
        break;
    case STAGE_TYPICAL:
        typical(s);
        break;
    case STAGE_TOP_P:
        top_p(s);
        break;
    case STAGE_MIN_P:
        min_p(s);
        break;
    case STAGE_TEMPERATURE:
        temperature(s);
        break;
    case N_STAGES:
        break;
    }
}
