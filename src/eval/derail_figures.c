/* Owns the statistics of finished answers.  Each figure is a ratio of sums over
 * prompts, so that answers to one prompt, which resemble each other, count as one
 * cluster. */
#include "eval/derail_impl.h"

#include "base/err.h"
#include "base/mem.h"
#include "eval/ngram.h"
#include "eval/score.h"

#include <math.h>
#include <stdlib.h>

/* ---- one answer ---- */

static void measure(struct derail_answer *a, struct ngram *grams)
{
    size_t n = ngram_list(a->tokens, a->n, 4, 0, grams);
    a->has_rep4 = n > 0;
    if (n)
        a->rep4 = 1 - (double)ngram_sort(grams, n) / (double)n;
    a->loops = loop_find(a->tokens, a->n, &a->loop_begin, &a->loop_period);
}

/* ---- all answers of a kind ---- */

/* What an answer adds to a figure's numerator; its weight in the denominator. */
typedef double part_fn(const struct derail_answer *a, double *weight);

static double length_of(const struct derail_answer *a, double *weight)
{
    *weight = 1;
    return (double)a->n;
}

static double rep4_of(const struct derail_answer *a, double *weight)
{
    *weight = a->has_rep4;
    return a->has_rep4 ? a->rep4 : 0;
}

static double looping_of(const struct derail_answer *a, double *weight)
{
    *weight = 1;
    return a->loops;
}

static double loop_begin_of(const struct derail_answer *a, double *weight)
{
    *weight = a->loops;
    return a->loops ? (double)a->loop_begin : 0;
}

static double kl_of(const struct derail_answer *a, double *weight)
{
    *weight = (double)a->n_drawn;
    return a->kl;
}

static double base_nll_of(const struct derail_answer *a, double *weight)
{
    *weight = (double)a->n_drawn;
    return a->base_nll;
}

struct sums {
    const struct derail_result *r;
    bool sampled;
    double *x, *w; /* [n_prompts] */
    struct ngram *grams;
    size_t *only;       /* [n_prompts] */
    size_t *per_prompt; /* [n_prompts] */
    double *begins;     /* [n_answers] */
};

static struct eval_mean figure(struct sums *s, part_fn *part)
{
    for (size_t i = 0; i < s->r->n_prompts; i++)
        s->x[i] = s->w[i] = 0;
    for (size_t i = 0; i < s->r->n_answers; i++) {
        const struct derail_answer *a = &s->r->answers[i];
        double weight;
        if (a->sampled != s->sampled)
            continue;
        s->x[a->prompt] += part(a, &weight);
        s->w[a->prompt] += weight;
    }
    return score_ratio(s->x, s->w, s->r->n_prompts);
}

/* The error by leaving out one prompt after another (Tukey's jackknife): without prompt
 * j, what stood in its answers alone is gone. */
static struct eval_mean distinct(struct sums *s, unsigned k)
{
    size_t n = 0, n_prompts = s->r->n_prompts;
    for (size_t i = 0; i < n_prompts; i++)
        s->only[i] = s->per_prompt[i] = 0;
    for (size_t i = 0; i < s->r->n_answers; i++) {
        const struct derail_answer *a = &s->r->answers[i];
        if (a->sampled != s->sampled)
            continue;
        size_t more = ngram_list(a->tokens, a->n, k, (uint32_t)a->prompt, s->grams + n);
        s->per_prompt[a->prompt] += more;
        n += more;
    }
    if (!n)
        return (struct eval_mean){0, 0};
    size_t n_distinct = ngram_sort(s->grams, n);
    ngram_only(s->grams, n, s->only);
    double mean = 0, sq = 0, m = (double)n_prompts;
    for (size_t i = 0; i < n_prompts; i++) {
        size_t left = n - s->per_prompt[i];
        s->x[i] = left ? (double)(n_distinct - s->only[i]) / (double)left : 0;
        mean += s->x[i] / m;
    }
    for (size_t i = 0; i < n_prompts; i++)
        sq += (s->x[i] - mean) * (s->x[i] - mean);
    return (struct eval_mean){(double)n_distinct / (double)n,
                              n_prompts > 1 ? sqrt((m - 1) / m * sq) : (double)NAN};
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, size_t n)
{
    if (!n)
        return 0;
    qsort(x, n, sizeof *x, ascending);
    return (x[(n - 1) / 2] + x[n / 2]) / 2;
}

static struct derail_figures figures(struct sums *s)
{
    struct derail_figures f = {0};
    for (size_t i = 0; i < s->r->n_answers; i++) {
        const struct derail_answer *a = &s->r->answers[i];
        if (a->sampled != s->sampled)
            continue;
        f.n_answers++;
        f.n_tokens += a->n;
        f.n_eos += a->end == DERAIL_EOS;
        if (a->loops)
            s->begins[f.n_loops++] = (double)a->loop_begin;
    }
    f.length = figure(s, length_of);
    f.rep4 = figure(s, rep4_of);
    f.looping = figure(s, looping_of);
    f.loop_begin = figure(s, loop_begin_of);
    f.loop_begin_median = median(s->begins, f.n_loops);
    for (unsigned k = 1; k <= 3; k++)
        f.distinct[k - 1] = distinct(s, k);
    if (s->r->has_base) {
        f.kl = figure(s, kl_of);
        struct eval_mean nll = figure(s, base_nll_of);
        f.base_perplexity = exp(nll.mean);
        f.base_perplexity_se = f.base_perplexity * nll.se;
    }
    return f;
}

int derail_summarize(struct derail_result *r, struct runt_err *err)
{
    size_t n_tokens = 1;
    struct sums s = {.r = r};
    for (size_t i = 0; i < r->n_answers; i++)
        n_tokens += r->answers[i].n;
    s.x = mem_array(r->n_prompts, sizeof *s.x);
    s.w = mem_array(r->n_prompts, sizeof *s.w);
    s.only = mem_array(r->n_prompts, sizeof *s.only);
    s.per_prompt = mem_array(r->n_prompts, sizeof *s.per_prompt);
    s.begins = mem_array(r->n_answers, sizeof *s.begins);
    s.grams = mem_array(n_tokens, sizeof *s.grams);
    int rc = s.x && s.w && s.only && s.per_prompt && s.begins && s.grams
                 ? 0
                 : err_nomem(err, "figures");
    if (!rc) {
        for (size_t i = 0; i < r->n_answers; i++)
            measure(&r->answers[i], s.grams);
        r->greedy = figures(&s);
        s.sampled = true;
        if (r->has_samples)
            r->sampled = figures(&s);
    }
    mem_free(s.x);
    mem_free(s.w);
    mem_free(s.only);
    mem_free(s.per_prompt);
    mem_free(s.begins);
    mem_free(s.grams);
    return rc;
}
