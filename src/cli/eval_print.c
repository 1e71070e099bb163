/* Owns what `runt eval` prints. */
#include "cli/eval_print.h"

#include "base/strbuf.h"
#include "cli/answer.h"

#include <math.h>

static void number(const char *key, const char *suffix, double x)
{
    if (isfinite(x))
        printf(",\"%s%s\":%.17g", key, suffix, x);
    else
        printf(",\"%s%s\":null", key, suffix);
}

static void put(const char *key, double value, double se)
{
    number(key, "", value);
    number(key, "_se", se);
}

static void put_mean(const char *key, struct eval_mean m)
{
    put(key, m.mean, m.se);
}

/* ---- a text ---- */

static void text_json(const struct eval_result *r, double seconds)
{
    printf("{\"tokens\":%zu,\"stream_tokens\":%zu,\"window\":%zu,\"stride\":%zu",
           r->n_scored, r->n_tokens, r->window, r->stride);
    put("perplexity", r->perplexity, r->perplexity_se);
    put_mean("nll", r->nll);
    put_mean("bits_per_byte", r->bits_per_byte);
    if (r->has_base) {
        put_mean("kl_mean", r->kl);
        put("kl_p99", r->kl_p99, r->kl_p99_se);
        put_mean("top1", r->top1);
        put("base_perplexity", r->base_perplexity, r->base_perplexity_se);
    }
    printf(",\"seconds\":%.3f}\n", seconds);
}

void eval_print_text(enum cli_format format, const struct eval_result *r,
                     double seconds)
{
    if (format == CLI_JSON) {
        text_json(r, seconds);
        return;
    }
    printf("tokens scored   %zu of %zu (window %zu, stride %zu)\n", r->n_scored,
           r->n_tokens, r->window, r->stride);
    printf("perplexity      %.6f +- %.6f\n", r->perplexity, r->perplexity_se);
    printf("bits per byte   %.6f +- %.6f\n", r->bits_per_byte.mean,
           r->bits_per_byte.se);
    if (r->has_base) {
        printf("base perplexity %.6f +- %.6f (ratio %.6f)\n", r->base_perplexity,
               r->base_perplexity_se, r->perplexity / r->base_perplexity);
        printf("KL mean         %.8f +- %.8f nats\n", r->kl.mean, r->kl.se);
        printf("KL 99%%          %.8f +- %.8f nats\n", r->kl_p99, r->kl_p99_se);
        printf("top-1 agreement %.4f%% +- %.4f%%\n", 100 * r->top1.mean,
               100 * r->top1.se);
    }
    printf("time            %.2f s, %.0f tokens/s\n", seconds,
           (double)r->n_scored / seconds);
}

/* ---- tasks ---- */

void eval_print_task(enum cli_format format, enum task_kind kind,
                     const struct task_result *r, double seconds)
{
    bool words = kind == TASK_LAMBADA;
    if (format == CLI_JSON) {
        printf("{\"task\":\"%s\",\"tasks\":%zu,\"truncated\":%zu,\"tokens\":%zu",
               words ? "lambada" : "hellaswag", r->n, r->n_truncated, r->n_tokens);
        put_mean("acc", r->acc);
        if (words)
            put("perplexity", r->perplexity, r->perplexity_se);
        else
            put_mean("acc_norm", r->acc_norm);
        printf(",\"seconds\":%.3f}\n", seconds);
        return;
    }
    printf("task            %s, %zu tasks (%zu cut to the context)\n",
           words ? "lambada" : "hellaswag", r->n, r->n_truncated);
    printf("acc             %.2f%% +- %.2f%%  (%s)\n", 100 * r->acc.mean,
           100 * r->acc.se,
           words ? "every token of the last word is the likeliest"
                 : "largest log p; chance 25%");
    if (words)
        printf("perplexity      %.4f +- %.4f  (of last words)\n", r->perplexity,
               r->perplexity_se);
    else
        printf("acc_norm        %.2f%% +- %.2f%%  (largest log p by character)\n",
               100 * r->acc_norm.mean, 100 * r->acc_norm.se);
    printf("time            %.2f s, %zu tokens scored\n", seconds, r->n_tokens);
}

/* ---- derailment ---- */

static void answer_text(const runt_model *m, const struct derail_answer *a,
                        struct strbuf *out)
{
    for (size_t i = 0; i < a->n; i++) {
        size_t n;
        const char *s = runt_token_bytes(m, a->tokens[i], &n);
        sb_put(out, s, n);
    }
}

static void figures_json(const struct derail_figures *f, bool has_base)
{
    printf("{\"answers\":%zu,\"tokens\":%zu,\"eos\":%zu", f->n_answers, f->n_tokens,
           f->n_eos);
    put_mean("length", f->length);
    put_mean("rep4", f->rep4);
    printf(",\"loops\":%zu", f->n_loops);
    put_mean("looping", f->looping);
    if (f->n_loops) {
        put_mean("loop_begin", f->loop_begin);
        printf(",\"loop_begin_median\":%g", f->loop_begin_median);
    } else {
        printf(",\"loop_begin\":null,\"loop_begin_se\":null,"
               "\"loop_begin_median\":null");
    }
    put_mean("distinct1", f->distinct[0]);
    put_mean("distinct2", f->distinct[1]);
    put_mean("distinct3", f->distinct[2]);
    if (has_base) {
        put_mean("kl", f->kl);
        put("base_perplexity", f->base_perplexity, f->base_perplexity_se);
    }
    putchar('}');
}

static void answer_json(const runt_model *m, const struct derail_prompt *prompts,
                        const struct derail_result *r, const struct derail_answer *a,
                        bool show)
{
    static const char *const ends[] = {"eos", "length", "context"};
    printf("{\"line\":%zu,\"sampled\":%s", prompts[a->prompt].line,
           a->sampled ? "true" : "false");
    if (a->sampled)
        printf(",\"seed\":%llu", (unsigned long long)a->seed);
    printf(",\"prompt_tokens\":%zu,\"tokens\":%zu,\"end\":\"%s\"", a->n_prompt, a->n,
           ends[a->end]);
    if (a->has_rep4)
        printf(",\"rep4\":%.17g", a->rep4);
    if (a->loops)
        printf(",\"loop_begin\":%zu,\"loop_period\":%zu", a->loop_begin,
               a->loop_period);
    if (r->has_base && a->n_drawn)
        printf(",\"kl\":%.17g,\"base_nll\":%.17g", a->kl / (double)a->n_drawn,
               a->base_nll / (double)a->n_drawn);
    if (show) {
        struct strbuf text = {0};
        answer_text(m, a, &text);
        printf(",\"text\":");
        cli_json_str(stdout, text.data ? text.data : "", text.len);
        sb_free(&text);
    }
    putchar('}');
}

static void derail_json(const runt_model *m, const struct derail_prompt *prompts,
                        const struct derail_options *o, const struct derail_result *r,
                        size_t show, double seconds)
{
    printf("{\"prompts\":%zu,\"samples\":%zu,\"n_predict\":%zu,\"seed\":%llu",
           r->n_prompts, o->n_samples, o->n_tokens,
           (unsigned long long)o->sampler.seed);
    printf(",\"greedy\":");
    figures_json(&r->greedy, r->has_base);
    if (r->has_samples) {
        printf(",\"sampled\":");
        figures_json(&r->sampled, r->has_base);
    }
    printf(",\"answers\":[");
    for (size_t i = 0; i < r->n_answers; i++) {
        if (i)
            putchar(',');
        answer_json(m, prompts, r, &r->answers[i], i < show);
    }
    printf("],\"seconds\":%.3f}\n", seconds);
}

/* One line of the table: a figure of the greedy answers, and of the sampled. */
static void line(const struct derail_result *r, const char *name, unsigned digits,
                 double scale, struct eval_mean a, struct eval_mean b)
{
    printf("%-28s", name);
    for (int i = 0; i < 1 + r->has_samples; i++) {
        struct eval_mean x = i ? b : a;
        char cell[64] = "-";
        if (isfinite(x.mean) && isfinite(x.se))
            snprintf(cell, sizeof cell, "%.*f +- %.*f", (int)digits, scale * x.mean,
                     (int)digits, scale * x.se);
        else if (isfinite(x.mean))
            snprintf(cell, sizeof cell, "%.*f", (int)digits, scale * x.mean);
        printf(" %22s", cell);
    }
    putchar('\n');
}

static struct eval_mean when(bool any, double mean, double se)
{
    return any ? (struct eval_mean){mean, se}
               : (struct eval_mean){(double)NAN, (double)NAN};
}

static void count(const struct derail_result *r, const char *name, size_t a, size_t b)
{
    printf("%-28s %22zu", name, a);
    if (r->has_samples)
        printf(" %22zu", b);
    putchar('\n');
}

static void show_answer(const runt_model *m, const struct derail_prompt *p,
                        const struct derail_answer *a)
{
    struct strbuf text = {0};
    if (a->sampled)
        printf("\n[line %zu, sampled, seed %llu, %zu tokens", p->line,
               (unsigned long long)a->seed, a->n);
    else
        printf("\n[line %zu, greedy, %zu tokens", p->line, a->n);
    if (a->loops)
        printf(", loop of %zu from %zu", a->loop_period, a->loop_begin);
    printf("]\n");
    sb_put(&text, p->text, p->n);
    answer_text(m, a, &text);
    answer_show(stdout, text.data, text.len, NULL);
    putchar('\n');
    sb_free(&text);
}

void eval_print_derail(enum cli_format format, const runt_model *m,
                       const struct derail_prompt *prompts,
                       const struct derail_options *o, const struct derail_result *r,
                       size_t show, double seconds)
{
    const struct derail_figures *g = &r->greedy, *s = &r->sampled;
    if (format == CLI_JSON) {
        derail_json(m, prompts, o, r, show, seconds);
        return;
    }
    printf("%zu prompts, answers of at most %zu tokens", r->n_prompts, o->n_tokens);
    if (r->has_samples)
        printf("; %zu samples each, seeds from %llu", o->n_samples,
               (unsigned long long)o->sampler.seed);
    printf("\n\n%-28s %22s", "", "greedy");
    if (r->has_samples)
        printf(" %22s", "sampled");
    putchar('\n');
    count(r, "answers", g->n_answers, s->n_answers);
    count(r, "ended by end-of-text", g->n_eos, s->n_eos);
    line(r, "tokens an answer", 1, 1, g->length, s->length);
    line(r, "4-grams repeated, %", 2, 100, g->rep4, s->rep4);
    line(r, "answers that loop, %", 1, 100, g->looping, s->looping);
    line(r, "tokens until the loop", 1, 1,
         when(g->n_loops > 0, g->loop_begin.mean, g->loop_begin.se),
         when(s->n_loops > 0, s->loop_begin.mean, s->loop_begin.se));
    line(r, "distinct-1, %", 2, 100, g->distinct[0], s->distinct[0]);
    line(r, "distinct-2, %", 2, 100, g->distinct[1], s->distinct[1]);
    line(r, "distinct-3, %", 2, 100, g->distinct[2], s->distinct[2]);
    if (r->has_base) {
        line(r, "KL(base || model), nats", 5, 1, g->kl, s->kl);
        line(r, "perplexity under the base", 4, 1,
             when(true, g->base_perplexity, g->base_perplexity_se),
             when(true, s->base_perplexity, s->base_perplexity_se));
    }
    for (size_t i = 0; i < r->n_answers && i < show; i++)
        show_answer(m, &prompts[r->answers[i].prompt], &r->answers[i]);
    printf("\ntime %.2f s, %.0f tokens/s\n", seconds,
           (double)(g->n_tokens + s->n_tokens) / seconds);
}
