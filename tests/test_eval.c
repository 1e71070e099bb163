/* The statistics of eval against the same sums done the plain way, token by token. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "eval/eval.h"
#include "model_fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char text[] =
    "The goat sat on the hill.<|endoftext|>\nA red fox came by and said hello to the "
    "goat. \"Do you like the hill?\" asked the fox. \"I do,\" said the goat.\n"
    "<|endoftext|>Then it began to rain, and they ran under a big tree to keep dry.";

struct pair {
    runt_model *m, *base;
};

static void softmax(const float *l, size_t n, double *p)
{
    double top = -(double)INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        top = fmax(top, (double)l[i]);
    for (size_t i = 0; i < n; i++)
        sum += p[i] = exp((double)l[i] - top);
    for (size_t i = 0; i < n; i++)
        p[i] /= sum;
}

static size_t argmax(const float *l, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        best = l[i] > l[best] ? i : best;
    return best;
}

/* Everything eval_text reports, one token at a time through a session of batch 1. */
static void naive(const struct pair *p, const int32_t *ids, size_t n, size_t window,
                  size_t stride, struct eval_result *r, float *kls)
{
    struct runt_session_options o = {.n_threads = 1, .n_batch = 1};
    runt_session *s = NULL, *b = NULL;
    size_t nv = p->m->shape.n_vocab;
    double *pm = calloc(nv, sizeof *pm), *pb = calloc(nv, sizeof *pb), nll = 0,
           bytes = 0;
    assert_int_equal(runt_session_open(p->m, &o, &s, NULL), 0);
    assert_int_equal(runt_session_open(p->base, &o, &b, NULL), 0);
    *r = (struct eval_result){0};
    for (size_t begin = 0; begin + window <= n; begin += stride) {
        size_t first = begin && stride < window ? window - stride : 1;
        runt_session_rewind(s, 0);
        runt_session_rewind(b, 0);
        for (size_t i = 1; i < window; i++) {
            assert_int_equal(runt_session_feed(s, &ids[begin + i - 1], 1, NULL), 0);
            assert_int_equal(runt_session_feed(b, &ids[begin + i - 1], 1, NULL), 0);
            if (i < first)
                continue;
            int32_t target = ids[begin + i];
            size_t len = 0;
            const float *lm = runt_session_logits(s), *lb = runt_session_logits(b);
            softmax(lm, nv, pm);
            softmax(lb, nv, pb);
            nll -= log(pm[target]);
            double kl = 0;
            for (size_t k = 0; k < nv; k++)
                kl += pb[k] > 0 ? pb[k] * log(pb[k] / pm[k]) : 0;
            kls[r->n_scored++] = (float)kl;
            r->kl.mean += kl;
            r->top1.mean += argmax(lm, nv) == argmax(lb, nv);
            if (!runt_token_is_control(p->m, target))
                runt_token_bytes(p->m, target, &len);
            bytes += (double)len;
        }
    }
    r->perplexity = exp(nll / (double)r->n_scored);
    r->bits_per_byte.mean = nll / log(2) / bytes;
    r->kl.mean /= (double)r->n_scored;
    r->top1.mean /= (double)r->n_scored;
    runt_session_close(s);
    runt_session_close(b);
    free(pm);
    free(pb);
}

static bool near(double a, double b, double rel)
{
    return fabs(a - b) <= rel * fabs(b);
}

static void results_match_the_plain_sums(void **state)
{
    struct pair *p = *state;
    int32_t *ids = NULL;
    size_t n = 0;
    assert_int_equal(runt_tokenize(p->m, text, strlen(text), true, &ids, &n, NULL), 0);
    const struct {
        size_t window, stride;
    } cases[] = {{16, 16}, {16, 5}, {16, 15}, {24, 1}, {2, 2}, {2, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct eval_options o = {
            .window = cases[i].window, .stride = cases[i].stride, .n_threads = 2};
        struct eval_result got, want;
        float *kls = calloc(n * cases[i].window, sizeof *kls);
        struct runt_err err;
        if (eval_text(p->m, p->base, text, strlen(text), &o, &got, &err))
            fail_msg("%s", err.msg);
        naive(p, ids, n, cases[i].window, cases[i].stride, &want, kls);
        assert_int_equal(got.n_tokens, n);
        assert_int_equal(got.n_scored, want.n_scored);
        /* per-token results are kept as floats: 2^-24 each */
        assert_true(near(got.perplexity, want.perplexity, 1e-6));
        assert_true(near(got.bits_per_byte.mean, want.bits_per_byte.mean, 1e-6));
        assert_true(near(got.kl.mean, want.kl.mean, 1e-6));
        assert_true(near(got.top1.mean, want.top1.mean, 1e-12));
        double sq = 0;
        for (size_t k = 0; k < want.n_scored; k++)
            sq += pow((double)kls[k] - want.kl.mean, 2);
        double n_s = (double)want.n_scored;
        assert_true(near(got.kl.se, sqrt(sq / (n_s - 1) / n_s), 1e-5));
        size_t above = 0;
        for (size_t k = 0; k < want.n_scored; k++)
            above += (double)kls[k] > got.kl_p99;
        assert_true(above <= want.n_scored / 100 + 1);
        free(kls);
    }
    runt_free(ids);
}

static void a_model_equals_itself(void **state)
{
    struct pair *p = *state;
    struct eval_options o = {.window = 20};
    struct eval_result r;
    assert_int_equal(eval_text(p->m, p->m, text, strlen(text), &o, &r, NULL), 0);
    assert_true(r.kl.mean == 0 && r.kl_p99 == 0 && r.top1.mean == 1);
    assert_true(r.perplexity == r.base_perplexity);
}

static void threads_do_not_change_a_digit(void **state)
{
    struct pair *p = *state;
    struct eval_result a, b;
    struct eval_options o = {.window = 30, .stride = 7, .n_threads = 1};
    assert_int_equal(eval_text(p->m, p->base, text, strlen(text), &o, &a, NULL), 0);
    o.n_threads = 3;
    assert_int_equal(eval_text(p->m, p->base, text, strlen(text), &o, &b, NULL), 0);
    assert_memory_equal(&a.perplexity, &b.perplexity, sizeof a.perplexity);
    assert_memory_equal(&a.kl, &b.kl, sizeof a.kl);
    assert_memory_equal(&a.kl_p99, &b.kl_p99, sizeof a.kl_p99);
}

static void what_cannot_be_measured_is_refused(void **state)
{
    struct pair *p = *state;
    struct runt_err err;
    struct eval_result r;
    const struct {
        const char *text;
        struct eval_options o;
        const char *says;
    } cases[] = {
        {"", {.window = 16}, "has 0 tokens"},
        {"a b", {.window = 16}, "less than one window"},
        {text, {.window = 91}, "context of 90"},
        {text, {.window = 1}, "window of 1"},
        {text, {.window = 16, .stride = 17}, "stride of 17"},
        {text, {.window = 16, .max_tokens = 15}, "has 15 tokens"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(eval_text(p->m, NULL, cases[i].text, strlen(cases[i].text),
                                   &cases[i].o, &r, &err),
                         RUNT_E_INVALID);
        assert_non_null(strstr(err.msg, cases[i].says));
    }
    struct gpt2_shape other = fixture_odd_shape();
    other.n_vocab++;
    runt_model *m = fixture_random(&other, "f32", 1);
    struct eval_options o = {.window = 16};
    assert_int_equal(eval_text(p->m, m, text, strlen(text), &o, &r, &err),
                     RUNT_E_INVALID);
    assert_non_null(strstr(err.msg, "not comparable"));
    fixture_close(m);
}

static int stop(void *ctx, const char *what, unsigned long long done,
                unsigned long long total)
{
    (void)ctx;
    (void)what;
    return done == 1 && total > 1;
}

static void progress_can_stop_it(void **state)
{
    struct pair *p = *state;
    struct runt_err err;
    struct eval_result r;
    struct eval_options o = {.window = 16, .progress = stop};
    assert_int_equal(eval_text(p->m, NULL, text, strlen(text), &o, &r, &err),
                     RUNT_E_INTERRUPTED);
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
        cmocka_unit_test(results_match_the_plain_sums),
        cmocka_unit_test(a_model_equals_itself),
        cmocka_unit_test(threads_do_not_change_a_digit),
        cmocka_unit_test(what_cannot_be_measured_is_refused),
        cmocka_unit_test(progress_can_stop_it),
    };
    return cmocka_run_group_tests_name("eval", tests, setup, teardown);
}
