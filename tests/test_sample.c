/* The sampler: greedy, seeds, the share of draws against the probabilities, log
 * probabilities, and what is refused.  test_stages.c has each stage. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "sample/sample.h"
#include "vocab_fixture.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static runt_sampler *sampler(struct runt_sampler_options o, uint32_t n)
{
    runt_sampler *s = NULL;
    struct runt_err err;
    if (runt_sampler_new(&o, n, &s, &err))
        fail_msg("%s", err.msg);
    return s;
}

/* Everything off: the plain softmax at temperature 1. */
static struct runt_sampler_options plain(uint64_t seed)
{
    return (struct runt_sampler_options){
        .temp = 1, .top_p = 1, .repeat_penalty = 1, .repeat_last = 64, .seed = seed};
}

static int32_t pick(runt_sampler *s, const float *logits)
{
    int32_t id = -1;
    assert_int_equal(runt_sampler_pick(s, logits, &id, NULL), 0);
    return id;
}

static void greedy_takes_the_first_of_the_largest(void **state)
{
    (void)state;
    const float l[5] = {1, 7, 3, 7, -2};
    struct runt_sampler_options o = plain(1);
    o.temp = 0;
    runt_sampler *s = sampler(o, 5);
    for (int i = 0; i < 10; i++)
        assert_int_equal(pick(s, l), 1);
    runt_sampler_free(s);
}

/* Of any numbers that there are, zeros of both signs and the smallest included; a logit
 * that is none is refused wherever it stands. */
static void greedy_compares_as_numbers_do(void **state)
{
    static const float odd[] = {0.0f,    -0.0f,   FLT_MIN,  -FLT_MIN, 1e-45f,
                                -1e-45f, FLT_MAX, -FLT_MAX, 1,        -1};
    enum { N = 777, N_ODD = sizeof odd / sizeof *odd };
    struct runt_sampler_options o = plain(1);
    struct rng rng;
    float l[N];
    (void)state;
    rng_seed(&rng, 3);
    o.temp = 0;
    runt_sampler *s = sampler(o, N);
    for (int round = 0; round < 2000; round++) {
        /* few different values, so that they are often equal; often all negative */
        for (size_t i = 0; i < N; i++)
            l[i] = round % 2 ? -fabsf(odd[rng_u64(&rng) % (1 + (size_t)round % N_ODD)])
                             : odd[rng_u64(&rng) % N_ODD];
        int32_t best = 0;
        for (int32_t i = 1; i < N; i++)
            best = l[i] > l[best] ? i : best;
        assert_int_equal(pick(s, l), best);
        const float broken[] = {NAN, INFINITY, -INFINITY, -NAN};
        int32_t id = -1;
        l[rng_u64(&rng) % N] = broken[round % 4];
        assert_int_equal(runt_sampler_pick(s, l, &id, NULL), RUNT_E_FORMAT);
        assert_int_equal(id, -1);
    }
    runt_sampler_free(s);
}

/* Which ids can come at all, over many draws. */
static uint32_t reachable(struct runt_sampler_options o, const float *l, uint32_t n)
{
    uint32_t seen = 0;
    runt_sampler *s = sampler(o, n);
    for (int i = 0; i < 20000; i++)
        seen |= 1u << pick(s, l);
    runt_sampler_free(s);
    return seen;
}

/* Probabilities 0.4, 0.3, 0.2, 0.06, 0.04 on ids 3, 0, 4, 1, 2. */
static const float logits5[5] = {-1.2039728f, -2.8134107f, -3.2188758f, -0.9162907f,
                                 -1.6094379f};

static void filters_keep_what_they_define(void **state)
{
    (void)state;
    struct runt_sampler_options o = plain(2);
    assert_int_equal(reachable(o, logits5, 5), 0x1f);
    o.top_k = 2;
    assert_int_equal(reachable(o, logits5, 5), 0x09);
    o = plain(3);
    o.top_p = 0.69f; /* 0.4 + 0.3 reach it */
    assert_int_equal(reachable(o, logits5, 5), 0x09);
    o.top_p = 0.71f;
    assert_int_equal(reachable(o, logits5, 5), 0x19);
    o.top_p = 0;
    assert_int_equal(reachable(o, logits5, 5), 0x08);
    o = plain(4);
    o.min_p = 0.4f; /* of 0.4: at least 0.16 */
    assert_int_equal(reachable(o, logits5, 5), 0x19);
    o.min_p = 1;
    assert_int_equal(reachable(o, logits5, 5), 0x08);
    o = plain(5);
    o.temp = 100; /* the filters look at the probabilities before the temperature */
    o.top_p = 0.69f;
    assert_int_equal(reachable(o, logits5, 5), 0x09);
}

/* 40,000 draws: each share within 5 standard deviations of its probability. */
static void draws_follow_the_probabilities(void **state)
{
    (void)state;
    static const double p[5] = {0.3, 0.06, 0.04, 0.4, 0.2};
    enum { N = 40000 };
    int count[5] = {0};
    runt_sampler *s = sampler(plain(6), 5);
    for (int i = 0; i < N; i++)
        count[pick(s, logits5)]++;
    for (int k = 0; k < 5; k++)
        assert_true(fabs(count[k] - N * p[k]) <= 5 * sqrt(N * p[k] * (1 - p[k])));
    runt_sampler_free(s);
}

static void seeds_repeat(void **state)
{
    (void)state;
    struct rng r;
    float l[300];
    int same = 0;
    rng_seed(&r, 1);
    for (int i = 0; i < 300; i++)
        l[i] = rng_normal(&r);
    runt_sampler *a = sampler(plain(7), 300), *b = sampler(plain(7), 300),
                 *c = sampler(plain(8), 300);
    for (int i = 0; i < 200; i++) {
        int32_t x = pick(a, l);
        assert_int_equal(x, pick(b, l));
        same += x == pick(c, l);
    }
    assert_true(same < 50);
    runt_sampler_free(a);
    runt_sampler_free(b);
    runt_sampler_free(c);
}

static void repeat_penalty_pushes_recent_tokens_down(void **state)
{
    (void)state;
    const float l[4] = {2.0f, 1.5f, -1.0f, -1.5f};
    struct runt_sampler_options o = plain(1);
    o.temp = 0;
    o.repeat_penalty = 1.5f;
    o.repeat_last = 2;
    runt_sampler *s = sampler(o, 4);
    assert_int_equal(pick(s, l), 0);
    runt_sampler_accept(s, 0); /* 2.0 / 1.5 < 1.5 */
    assert_int_equal(pick(s, l), 1);
    runt_sampler_accept(s, 0); /* twice counts once */
    assert_int_equal(pick(s, l), 1);
    runt_sampler_accept(s, 1);
    assert_int_equal(pick(s, l), 0); /* both penalized: 1.33 > 1 */
    runt_sampler_accept(s, 3);
    assert_int_equal(pick(s, l), 0); /* 0 has left the window of two; 1 has not */
    runt_sampler_accept(s, 2);
    assert_int_equal(pick(s, l), 0);
    runt_sampler_accept(s, 0);
    runt_sampler_accept(s, 0);
    assert_int_equal(pick(s, l), 1);
    runt_sampler_forget(s);
    assert_int_equal(pick(s, l), 0);
    runt_sampler_free(s);
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* Top-k by selection gives exactly the k largest of many logits, ties by id. */
static void top_k_selects_the_largest_of_many(void **state)
{
    (void)state;
    enum { N = 5000 };
    static float l[N], sorted[N];
    struct rng r;
    rng_seed(&r, 11);
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < N; i++) /* many ties in the odd rounds */
            sorted[i] = l[i] = round % 2 ? (float)(rng_u64(&r) % 50) : rng_normal(&r);
        qsort(sorted, N, sizeof *sorted, by_value);
        struct runt_sampler_options o = plain((uint64_t)round);
        o.top_k = 1 + round * 13;
        o.temp = 100;
        runt_sampler *s = sampler(o, N);
        for (int i = 0; i < 300; i++)
            assert_true(l[pick(s, l)] >= sorted[o.top_k - 1]);
        runt_sampler_free(s);
    }
}

static void broken_logits_and_options_are_refused(void **state)
{
    (void)state;
    float l[3] = {1, NAN, 2};
    int32_t id = -1;
    struct runt_err err;
    runt_sampler *s = sampler(plain(1), 3);
    assert_int_equal(runt_sampler_pick(s, l, &id, &err), RUNT_E_FORMAT);
    assert_non_null(strstr(err.msg, "token 1"));
    l[1] = -INFINITY;
    assert_int_equal(runt_sampler_pick(s, l, &id, &err), RUNT_E_FORMAT);
    assert_int_equal(id, -1);
    runt_sampler_free(s);
    struct runt_sampler_options bad[6] = {plain(1), plain(1), plain(1),
                                          plain(1), plain(1), plain(1)};
    bad[0].temp = NAN;
    bad[1].top_p = 1.5f;
    bad[2].min_p = -1;
    bad[3].repeat_penalty = 0;
    bad[4].top_k = -1;
    bad[5].repeat_last = 100000;
    for (int i = 0; i < 6; i++) {
        s = NULL;
        assert_int_equal(runt_sampler_new(&bad[i], 3, &s, &err), RUNT_E_INVALID);
        assert_null(s);
    }
}

static void orders_that_are_none_are_refused(void **state)
{
    static const char *const bad[] = {"top_k;top_q", "top_k;top-k", "temp;temperature",
                                      " top_k",      ";",           "typ_p;typical"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct runt_sampler_options o = runt_sampler_defaults();
        runt_sampler *s = NULL;
        o.order = bad[i];
        struct runt_err err;
        assert_int_equal(runt_sampler_new(&o, 5, &s, &err), RUNT_E_INVALID);
        assert_non_null(strstr(err.msg, "stage"));
        assert_null(s);
    }
}

/* ---- log probabilities ---- */

static void logprobs_are_the_log_of_softmax(void **state)
{
    enum { N = 60 };
    struct rng rng;
    (void)state;
    rng_seed(&rng, 13);
    for (int round = 0; round < 300; round++) {
        float l[N], logprob;
        double p[N];
        struct runt_logprob top[RUNT_MAX_LOGPROBS];
        size_t n = (size_t)(round % (RUNT_MAX_LOGPROBS + 1));
        int32_t token = round % N;
        for (int i = 0; i < N; i++) /* many are equal in every third round */
            l[i] = round % 3 ? 3 * rng_normal(&rng) : (float)(rng_u64(&rng) % 9);
        bool in[N];
        double total = 0;
        for (int i = 0; i < N; i++)
            total += exp((double)l[i]);
        for (int i = 0; i < N; i++) {
            p[i] = exp((double)l[i]) / total;
            in[i] = true;
        }
        assert_int_equal(runt_logprobs(l, N, token, &logprob, top, n, NULL), 0);
        assert_true(fabs((double)logprob - log(p[token])) <=
                    1e-6 * fabs(log(p[token])));
        for (size_t k = 0; k < n; k++) {
            int best = -1;
            for (int i = 0; i < N; i++)
                if (in[i] && (best < 0 || l[i] > l[best]))
                    best = i;
            assert_int_equal(top[k].token, best);
            assert_true(fabs((double)top[k].logprob - log(p[best])) <=
                        1e-6 * fabs(log(p[best])));
            in[best] = false;
        }
    }
    float l[3] = {FLT_MAX, -FLT_MAX, 0}, logprob;
    struct runt_logprob top[3];
    assert_int_equal(runt_logprobs(l, 3, 1, &logprob, top, 3, NULL), 0);
    assert_true(logprob == -FLT_MAX && top[0].logprob == 0 && top[1].token == 2);
    assert_int_equal(runt_logprobs(l, 3, 3, &logprob, top, 1, NULL), RUNT_E_INVALID);
    assert_int_equal(runt_logprobs(l, 3, -1, &logprob, top, 1, NULL), RUNT_E_INVALID);
    assert_int_equal(runt_logprobs(l, 3, 0, &logprob, top, 4, NULL), RUNT_E_INVALID);
    l[1] = NAN;
    assert_int_equal(runt_logprobs(l, 3, 0, &logprob, top, 1, NULL), RUNT_E_FORMAT);
}

/* ---- edges ---- */

static void options_out_of_range_are_refused(void **state)
{
    (void)state;
    for (int i = 0; i < 14; i++) {
        struct runt_sampler_options o = runt_sampler_defaults();
        struct runt_err err;
        runt_sampler *s = NULL;
        static const char *const none[] = {""};
        o.dry_multiplier = 1;
        o.n_dry_breakers = 0;
        float *const reals[] = {
            &o.typical_p, &o.frequency_penalty, &o.presence_penalty, &o.dry_multiplier,
            &o.dry_base,  &o.mirostat_tau,      &o.mirostat_eta};
        if (i < 7)
            *reals[i] = i % 2 ? NAN : -101;
        else if (i == 7)
            o.typical_p = 1.1f;
        else if (i == 8)
            o.mirostat = 1;
        else if (i == 9)
            o.dry_allowed_length = 0;
        else if (i == 10)
            o.dry_last = -2;
        else if (i == 11)
            o.dry_base = 0.5f;
        else if (i == 12)
            o.n_dry_breakers = 1; /* whose tokens? */
        else {
            o.dry_breakers = none;
            o.n_dry_breakers = 1;
        }
        assert_int_equal(runt_sampler_new(&o, 5, &s, &err), RUNT_E_INVALID);
        assert_null(s);
    }
}

static void a_vocabulary_of_one(void **state)
{
    (void)state;
    struct runt_sampler_options o = runt_sampler_defaults();
    float l = -3;
    o.typical_p = 0.5f;
    o.repeat_penalty = 2;
    o.dry_multiplier = 1;
    o.n_dry_breakers = 0;
    for (int32_t m = 0; m < 3; m += 2) {
        runt_sampler *s = NULL;
        int32_t id = -1;
        o.mirostat = m;
        assert_int_equal(runt_sampler_new(&o, 1, &s, NULL), 0);
        for (int i = 0; i < 100; i++) {
            assert_int_equal(runt_sampler_pick(s, &l, &id, NULL), 0);
            assert_int_equal(id, 0);
            runt_sampler_accept(s, id);
        }
        runt_sampler_free(s);
    }
}

/* Every allocation of a sampler with everything on, failing in its turn. */
static void no_memory_leaks_nothing(void **state)
{
    static const struct runt_logit_bias bias = {1, 1};
    static const char *const breakers[] = {"x", "yz"};
    struct tok *tok = fixture_random_tok("abc", 3, 10, 1);
    struct runt_sampler_options o = runt_sampler_defaults();
    (void)state;
    o.typical_p = 0.5f;
    o.dry_multiplier = 1;
    o.dry_breakers = breakers;
    o.n_dry_breakers = 2;
    o.bias = &bias;
    o.n_bias = 1;
    long live = mem_live();
    int rc = RUNT_E_NOMEM;
    for (long i = 0; rc; i++) {
        runt_sampler *s = NULL;
        mem_fail_after(i);
        rc = sampler_new(&o, 268, tok, &s, NULL);
        mem_fail_after(-1);
        assert_true(rc == 0 || (rc == RUNT_E_NOMEM && !s && i < 50));
        runt_sampler_free(s);
        assert_int_equal(mem_live(), live);
    }
    tok_destroy(tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_first_of_the_largest),
        cmocka_unit_test(greedy_compares_as_numbers_do),
        cmocka_unit_test(filters_keep_what_they_define),
        cmocka_unit_test(draws_follow_the_probabilities),
        cmocka_unit_test(seeds_repeat),
        cmocka_unit_test(repeat_penalty_pushes_recent_tokens_down),
        cmocka_unit_test(top_k_selects_the_largest_of_many),
        cmocka_unit_test(broken_logits_and_options_are_refused),
        cmocka_unit_test(orders_that_are_none_are_refused),
        cmocka_unit_test(logprobs_are_the_log_of_softmax),
        cmocka_unit_test(options_out_of_range_are_refused),
        cmocka_unit_test(a_vocabulary_of_one),
        cmocka_unit_test(no_memory_leaks_nothing),
    };
    return cmocka_run_group_tests_name("sample", tests, NULL, NULL);
}
