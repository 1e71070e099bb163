/* The sampler: greedy, each filter against its definition, seeds, and the share of
 * draws against the probabilities. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rng.h"
#include "runt/runt.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_first_of_the_largest),
        cmocka_unit_test(filters_keep_what_they_define),
        cmocka_unit_test(draws_follow_the_probabilities),
        cmocka_unit_test(seeds_repeat),
        cmocka_unit_test(repeat_penalty_pushes_recent_tokens_down),
        cmocka_unit_test(top_k_selects_the_largest_of_many),
        cmocka_unit_test(broken_logits_and_options_are_refused),
    };
    return cmocka_run_group_tests_name("sample", tests, NULL, NULL);
}
