/* Derailment: answers made many at a time against answers made one by one, and every
 * figure against its definition done the plain way. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "eval/derail.h"
#include "eval/ngram.h"
#include "model_fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char prompts_text[] =
    "The goat\n\n  \nA red fox came by\r\nOn the hill\nIt rained\nOne day\nWhy\n"
    "This prompt is so long that an answer to it meets the end of the context of 90 "
    "tok\nThen";

enum { N_PROMPTS = 8, N_SAMPLES = 2, N_TOKENS = 40 };

struct pair {
    runt_model *m, *base;
};

static struct derail_options options(unsigned n_threads)
{
    struct derail_options o = {.n_tokens = N_TOKENS,
                               .n_samples = N_SAMPLES,
                               .sampler = runt_sampler_defaults(),
                               .n_threads = n_threads};
    o.sampler.seed = 5;
    o.sampler.repeat_penalty = 1.1f;
    return o;
}

static struct derail_result make(const struct pair *p, bool base, unsigned n_threads)
{
    struct derail_options o = options(n_threads);
    struct derail_prompt *prompts = NULL;
    struct derail_result r;
    struct runt_err err;
    size_t n = 0;
    assert_int_equal(
        derail_prompts(prompts_text, sizeof prompts_text - 1, "p", &prompts, &n, NULL),
        0);
    assert_int_equal(n, N_PROMPTS);
    assert_int_equal(prompts[1].line, 4);
    assert_int_equal(prompts[1].n, strlen("A red fox came by"));
    if (derail_run(p->m, base ? p->base : NULL, prompts, n, &o, &r, &err))
        fail_msg("%s", err.msg);
    runt_free(prompts);
    return r;
}

/* -log softmax(l)[i] in the obvious way; p [n] gets the probabilities. */
static double nll_of(const float *l, size_t n, int32_t i, double *p)
{
    double most = -(double)INFINITY, sum = 0;
    for (size_t k = 0; k < n; k++)
        most = fmax(most, (double)l[k]);
    for (size_t k = 0; k < n; k++)
        sum += p[k] = exp((double)l[k] - most);
    for (size_t k = 0; k < n; k++)
        p[k] /= sum;
    return -log(p[i]);
}

/* The answer again, alone, a token at a time. */
static void check_answer(const struct pair *p, const struct derail_prompt *prompt,
                         const struct derail_answer *a)
{
    struct runt_session_options so = {.n_threads = 1, .n_batch = 1};
    struct runt_sampler_options sa = options(1).sampler;
    runt_session *s = NULL, *b = NULL;
    runt_sampler *sampler = NULL;
    struct runt_model_info info;
    int32_t *ids = NULL, token = 0;
    size_t n = 0, n_vocab, n_drawn = 0, at = 0;
    runt_model_info(p->m, &info);
    n_vocab = info.n_vocab;
    double kl = 0, nll = 0, *pm = calloc(n_vocab, sizeof *pm),
           *pb = calloc(n_vocab, sizeof *pb);
    if (a->sampled)
        sa.seed = a->seed;
    else
        sa = (struct runt_sampler_options){.temp = 0, .top_p = 1, .repeat_penalty = 1};
    assert_int_equal(runt_session_open(p->m, &so, &s, NULL), 0);
    assert_int_equal(runt_session_open(p->base, &so, &b, NULL), 0);
    assert_int_equal(runt_sampler_new(&sa, info.n_vocab, &sampler, NULL), 0);
    assert_int_equal(
        runt_tokenize(p->m, prompt->text, prompt->n, false, &ids, &n, NULL), 0);
    assert_int_equal(a->n_prompt, n);
    for (size_t i = 0; i < n; i++)
        runt_sampler_accept(sampler, ids[i]);
    assert_int_equal(runt_session_feed(s, ids, n, NULL), 0);
    assert_int_equal(runt_session_feed(b, ids, n, NULL), 0);
    for (;;) {
        const float *lm = runt_session_logits(s), *lb = runt_session_logits(b);
        assert_int_equal(runt_sampler_pick(sampler, lm, &token, NULL), 0);
        runt_sampler_accept(sampler, token);
        nll_of(lm, n_vocab, token, pm);
        nll += nll_of(lb, n_vocab, token, pb);
        for (size_t k = 0; k < n_vocab; k++)
            kl += pb[k] * log(pb[k] / pm[k]);
        n_drawn++;
        if (token == info.eos) {
            assert_int_equal(a->end, DERAIL_EOS);
            break;
        }
        assert_true(at < a->n);
        assert_int_equal(a->tokens[at++], token);
        if (at == N_TOKENS || n + at == info.n_ctx) {
            assert_int_equal(a->end, at == N_TOKENS ? DERAIL_LENGTH : DERAIL_CONTEXT);
            break;
        }
        assert_int_equal(runt_session_feed(s, &token, 1, NULL), 0);
        assert_int_equal(runt_session_feed(b, &token, 1, NULL), 0);
    }
    assert_int_equal(at, a->n);
    assert_int_equal(n_drawn, a->n_drawn);
    assert_true(fabs(a->kl - kl) <= 1e-9 * fabs(kl) + 1e-12);
    assert_true(fabs(a->base_nll - nll) <= 1e-9 * nll);
    runt_sampler_free(sampler);
    runt_session_close(s);
    runt_session_close(b);
    runt_free(ids);
    free(pm);
    free(pb);
}

static void answers_are_those_made_alone(void **state)
{
    const struct pair *p = *state;
    struct derail_result r = make(p, true, 2);
    struct derail_prompt *prompts = NULL;
    size_t n = 0, n_context = 0;
    assert_int_equal(
        derail_prompts(prompts_text, sizeof prompts_text - 1, "p", &prompts, &n, NULL),
        0);
    assert_int_equal(r.n_answers, N_PROMPTS * (1 + N_SAMPLES));
    for (size_t i = 0; i < r.n_answers; i++) {
        const struct derail_answer *a = &r.answers[i];
        size_t k = i % (1 + N_SAMPLES);
        assert_int_equal(a->prompt, i / (1 + N_SAMPLES));
        assert_int_equal(a->sampled, k > 0);
        if (k)
            assert_int_equal(a->seed, 5 + a->prompt * N_SAMPLES + k - 1);
        check_answer(p, &prompts[a->prompt], a);
        n_context += a->end == DERAIL_CONTEXT;
    }
    assert_true(n_context >= 1);
    runt_free(prompts);
    derail_result_free(&r);
}

static void threads_and_a_base_change_no_answer(void **state)
{
    const struct pair *p = *state;
    struct derail_result a = make(p, true, 1), b = make(p, true, 3),
                         c = make(p, false, 3);
    assert_int_equal(a.n_answers, c.n_answers);
    for (size_t i = 0; i < a.n_answers; i++) {
        assert_int_equal(a.answers[i].n, b.answers[i].n);
        assert_int_equal(a.answers[i].n, c.answers[i].n);
        assert_memory_equal(a.answers[i].tokens, b.answers[i].tokens,
                            a.answers[i].n * sizeof(int32_t));
        assert_memory_equal(a.answers[i].tokens, c.answers[i].tokens,
                            a.answers[i].n * sizeof(int32_t));
    }
    assert_memory_equal(&a.greedy, &b.greedy, sizeof a.greedy);
    assert_memory_equal(&a.sampled, &b.sampled, sizeof a.sampled);
    assert_memory_equal(&a.sampled.distinct, &c.sampled.distinct,
                        sizeof a.sampled.distinct);
    derail_result_free(&a);
    derail_result_free(&b);
    derail_result_free(&c);
}

/* Distinct n-grams / n-grams of all answers but those to prompt `without`. */
static double distinct_without(const struct derail_result *r, bool sampled, size_t k,
                               size_t without)
{
    static const int32_t *grams[N_PROMPTS * N_SAMPLES * N_TOKENS];
    size_t n = 0, distinct = 0;
    for (size_t i = 0; i < r->n_answers; i++) {
        const struct derail_answer *a = &r->answers[i];
        if (a->sampled == sampled && a->prompt != without)
            for (size_t t = 0; t + k <= a->n; t++)
                grams[n++] = a->tokens + t;
    }
    for (size_t i = 0; i < n; i++) {
        size_t j = 0;
        while (memcmp(grams[j], grams[i], k * sizeof **grams))
            j++;
        distinct += j == i;
    }
    return (double)distinct / (double)n;
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-12 * (1 + fabs(b));
}

static void figures_are_those_of_the_definitions(void **state)
{
    struct derail_result r = make(*state, true, 2);
    for (int sampled = 0; sampled < 2; sampled++) {
        const struct derail_figures *f = sampled ? &r.sampled : &r.greedy;
        double length = 0, rep4 = 0, kl = 0, drawn = 0, nll = 0, n = 0, n_rep4 = 0,
               n_loops = 0, begin = 0, of[N_PROMPTS] = {0}, weight[N_PROMPTS] = {0};
        for (size_t i = 0; i < r.n_answers; i++) {
            const struct derail_answer *a = &r.answers[i];
            if (a->sampled != (sampled == 1))
                continue;
            double distinct = 0, grams = (double)a->n - 3;
            for (size_t t = 0; t + 4 <= a->n; t++) {
                size_t u = 0;
                while (memcmp(a->tokens + u, a->tokens + t, 4 * sizeof *a->tokens))
                    u++;
                distinct += u == t;
            }
            assert_int_equal(a->has_rep4, grams > 0);
            if (grams > 0) {
                assert_true(near(a->rep4, 1 - distinct / grams));
                rep4 += a->rep4;
                n_rep4++;
            }
            size_t at = 0, period = 0;
            assert_int_equal(a->loops, loop_find(a->tokens, a->n, &at, &period));
            n_loops += a->loops;
            begin += a->loops ? (double)at : 0;
            n++;
            length += (double)a->n;
            kl += a->kl;
            nll += a->base_nll;
            drawn += (double)a->n_drawn;
            of[a->prompt] += a->kl;
            weight[a->prompt] += (double)a->n_drawn;
        }
        assert_int_equal(f->n_answers, n);
        assert_int_equal(f->n_tokens, length);
        assert_int_equal(f->n_loops, n_loops);
        assert_true(near(f->length.mean, length / n));
        assert_true(near(f->rep4.mean, rep4 / n_rep4));
        assert_true(near(f->looping.mean, n_loops / n));
        assert_true(near(f->loop_begin.mean, n_loops > 0 ? begin / n_loops : 0));
        assert_true(near(f->kl.mean, kl / drawn));
        assert_true(near(f->base_perplexity, exp(nll / drawn)));
        double sq = 0;
        for (size_t i = 0; i < N_PROMPTS; i++)
            sq += pow(of[i] - kl / drawn * weight[i], 2);
        assert_true(near(f->kl.se, sqrt(8.0 / 7 * sq) / drawn));
        for (size_t k = 1; k <= 3; k++) {
            double left[N_PROMPTS], mean = 0, d = 0;
            for (size_t i = 0; i < N_PROMPTS; i++)
                mean += left[i] = distinct_without(&r, sampled, k, i);
            for (size_t i = 0; i < N_PROMPTS; i++)
                d += pow(left[i] - mean / 8, 2);
            assert_true(near(f->distinct[k - 1].mean,
                             distinct_without(&r, sampled, k, N_PROMPTS)));
            assert_true(near(f->distinct[k - 1].se, sqrt(7.0 / 8 * d)));
        }
    }
    derail_result_free(&r);
}

static void a_model_does_not_differ_from_itself(void **state)
{
    struct pair same = *(struct pair *)*state;
    same.base = same.m;
    struct derail_result r = make(&same, true, 2);
    assert_true(r.greedy.kl.mean == 0 && r.sampled.kl.mean == 0);
    derail_result_free(&r);
}

static void what_cannot_be_answered_is_refused(void **state)
{
    const struct pair *p = *state;
    const struct {
        const char *text;
        size_t n;
        const char *says;
    } bad[] = {{"", 0, "p: no prompts"},
               {"\n  \n", 4, "p: no prompts"},
               {"fine\n\xff\n", 7, "p, line 2: not a text (not UTF-8)"},
               {"fine\n\na\0b", 9, "p, line 3: not a text (a NUL byte)"}};
    struct runt_err err;
    struct derail_prompt *prompts = NULL;
    size_t n = 0;
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(derail_prompts(bad[i].text, bad[i].n, "p", &prompts, &n, &err),
                         RUNT_E_FORMAT);
        assert_non_null(strstr(err.msg, bad[i].says));
    }
    char text[98] = "short\n";
    memset(text + 6, 'b', 90);
    struct derail_options o = options(1);
    struct derail_result r;
    assert_int_equal(derail_prompts(text, 96, "p", &prompts, &n, NULL), 0);
    assert_int_equal(derail_run(p->m, NULL, prompts, n, &o, &r, &err), RUNT_E_INVALID);
    assert_non_null(strstr(err.msg, "line 2: a prompt of 90 tokens"));
    struct gpt2_shape other = fixture_odd_shape();
    other.n_vocab = 301;
    runt_model *m = fixture_random(&other, "f32", 1);
    assert_int_equal(derail_run(p->m, m, prompts, 1, &o, &r, &err), RUNT_E_INVALID);
    assert_non_null(strstr(err.msg, "not comparable"));
    fixture_close(m);
    runt_free(prompts);
}

static int setup(void **state)
{
    static struct pair p;
    struct gpt2_shape shape = fixture_odd_shape();
    shape.n_vocab = 300; /* all 256 bytes and the end-of-text token */
    p.base = fixture_random(&shape, "f32", 4);
    p.m = fixture_random(&shape, "q4_0", 4);
    *state = &p;
    return 0;
}

static int teardown(void **state)
{
    struct pair *p = *state;
    fixture_close(p->m);
    fixture_close(p->base);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_those_made_alone),
        cmocka_unit_test(threads_and_a_base_change_no_answer),
        cmocka_unit_test(figures_are_those_of_the_definitions),
        cmocka_unit_test(a_model_does_not_differ_from_itself),
        cmocka_unit_test(what_cannot_be_answered_is_refused),
    };
    return cmocka_run_group_tests_name("derail", tests, setup, teardown);
}
