/* The sampler's stages against a second implementation in doubles, slow and by the
 * definitions; orders of stages; mirostat; biases. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "sample/sample_impl.h"
#include "vocab_fixture.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 60, TEXT = 150 };

/* ---- the second implementation ---- */

struct ref {
    double l[N]; /* after all that was done so far, the temperature included */
    bool in[N];
};

static double ref_total(const struct ref *r, double p[N])
{
    double most = -(double)INFINITY, total = 0;
    for (int i = 0; i < N; i++)
        if (r->in[i] && r->l[i] > most)
            most = r->l[i];
    for (int i = 0; i < N; i++)
        total += p[i] = r->in[i] ? exp(r->l[i] - most) : 0;
    for (int i = 0; i < N; i++)
        p[i] /= total;
    return total;
}

/* Keep taking the best by `key` (smallest first, then the likeliest, then the smallest
 * id) while `more` wants some. */
static void ref_keep(struct ref *r, const double key[N], double p_wanted,
                     size_t n_wanted)
{
    bool keep[N] = {false};
    double p[N], sum = 0;
    ref_total(r, p);
    for (size_t n = 0; n < n_wanted && (n == 0 || sum < p_wanted); n++) {
        int best = -1;
        for (int i = 0; i < N; i++)
            if (r->in[i] && !keep[i] &&
                (best < 0 || key[i] < key[best] ||
                 (key[i] == key[best] && r->l[i] > r->l[best])))
                best = i;
        if (best < 0)
            break;
        keep[best] = true;
        sum += p[best];
    }
    memcpy(r->in, keep, sizeof keep);
}

static void ref_typical(struct ref *r, double p_wanted)
{
    double p[N], key[N], entropy = 0;
    ref_total(r, p);
    for (int i = 0; i < N; i++)
        entropy -= p[i] > 0 ? p[i] * log(p[i]) : 0;
    for (int i = 0; i < N; i++) /* equal logits must not be parted by rounding */
        key[i] = round(fabs(-log(p[i]) - entropy) * 1e11);
    ref_keep(r, key, p_wanted, N);
}

static void ref_min_p(struct ref *r, double min_p)
{
    double p[N], most = 0;
    ref_total(r, p);
    for (int i = 0; i < N; i++)
        most = p[i] > most ? p[i] : most;
    for (int i = 0; i < N; i++)
        r->in[i] = r->in[i] && (p[i] >= min_p * most);
}

static void ref_penalties(struct ref *r, const struct runt_sampler_options *o,
                          const int32_t *text, int n)
{
    for (int i = 0; i < N; i++) {
        int count = 0;
        for (int k = n > o->repeat_last ? n - o->repeat_last : 0; k < n; k++)
            count += text[k] == i;
        if (!count)
            continue;
        r->l[i] *=
            r->l[i] > 0 ? 1 / (double)o->repeat_penalty : (double)o->repeat_penalty;
        r->l[i] -= count * (double)o->frequency_penalty + (double)o->presence_penalty;
    }
}

/* p-e-w's loop: for every place where the last token stood before, how far back the
 * tokens agree. */
static void ref_dry(struct ref *r, const struct runt_sampler_options *o,
                    const int32_t *text, const bool *breaks, const bool *breaker, int n)
{
    int first = n > o->dry_last ? n - o->dry_last : 0, longest[N] = {0};
    for (int i = first; i + 1 < n; i++) {
        int len = 0;
        while (i - len >= first && text[i - len] == text[n - 1 - len] &&
               !breaks[n - 1 - len])
            len++;
        if (len > longest[text[i + 1]])
            longest[text[i + 1]] = len;
    }
    for (int i = 0; i < N; i++)
        if (longest[i] >= o->dry_allowed_length && !breaker[i])
            r->l[i] -= (double)o->dry_multiplier *
                       pow((double)o->dry_base, longest[i] - o->dry_allowed_length);
}

/* ---- comparing ---- */

/* What the sampler would draw from, against the reference.  Logits are floats between
 * stages, so a probability may be off by the few units in the last place of a logit of
 * up to 40: 40 * 2^-24 = 2.4e-6 each, relative. */
static void compare(const runt_sampler *s, const struct ref *r)
{
    double p[N], sum = 0, mine[N] = {0};
    bool in[N] = {false};
    ref_total(r, p);
    for (size_t i = 0; i < s->n; i++)
        sum += s->weights[i];
    for (size_t i = 0; i < s->n; i++) {
        in[s->c[i].id] = true;
        mine[s->c[i].id] = s->weights[i] / sum;
    }
    for (int i = 0; i < N; i++) {
        assert_int_equal(in[i], r->in[i]);
        assert_true(fabs(mine[i] - p[i]) <= 2e-5 * p[i] + 1e-30);
    }
}

static runt_sampler *sampler(const struct runt_sampler_options *o,
                             const struct tok *tok)
{
    runt_sampler *s = NULL;
    struct runt_err err;
    if (sampler_new(o, N, tok, &s, &err))
        fail_msg("%s", err.msg);
    return s;
}

static struct runt_sampler_options options(const char *order)
{
    struct runt_sampler_options o = runt_sampler_defaults();
    o.order = order;
    o.n_dry_breakers = 0;
    return o;
}

static float round_to(float x, float step)
{
    return step > 0 ? roundf(x / step) * step : x;
}

/* With `step`, many logits are equal. */
static void random_logits(struct rng *r, float l[N], float step)
{
    for (int i = 0; i < N; i++)
        l[i] = round_to(3 * rng_normal(r), step);
}

static struct ref reference(const float l[N])
{
    struct ref r;
    for (int i = 0; i < N; i++) {
        r.l[i] = (double)l[i];
        r.in[i] = true;
    }
    return r;
}

static void pick(runt_sampler *s, const float *l)
{
    int32_t id = -1;
    assert_int_equal(runt_sampler_pick(s, l, &id, NULL), 0);
    assert_true(id >= 0 && id < N);
}

/* One stage alone: its options' values are tried, each on many logits. */
static void one_stage(const char *order, const float *values, size_t n_values,
                      void (*set)(struct runt_sampler_options *o, float x),
                      void (*run)(struct ref *r, float x))
{
    struct rng rng;
    rng_seed(&rng, 5);
    for (size_t v = 0; v < n_values; v++) {
        struct runt_sampler_options o = options(order);
        set(&o, values[v]);
        runt_sampler *s = sampler(&o, NULL);
        for (int round = 0; round < 60; round++) {
            float l[N];
            random_logits(&rng, l, round % 3 ? 0 : 1.5f);
            struct ref r = reference(l);
            run(&r, values[v]);
            pick(s, l);
            compare(s, &r);
        }
        runt_sampler_free(s);
    }
}

#define STAGE(name, order, member, reference, ...)                           \
    static void set_##name(struct runt_sampler_options *o, float x)          \
    {                                                                        \
        o->member = (__typeof__(o->member))x;                                \
    }                                                                        \
    static void run_##name(struct ref *r, float x)                           \
    {                                                                        \
        reference;                                                           \
    }                                                                        \
    static void name(void **state)                                           \
    {                                                                        \
        static const float values[] = {__VA_ARGS__};                         \
        (void)state;                                                         \
        one_stage(order, values, sizeof values / sizeof *values, set_##name, \
                  run_##name);                                               \
    }

static void ref_likeliest(struct ref *r, double p_wanted, size_t n_wanted)
{
    double key[N];
    for (int i = 0; i < N; i++)
        key[i] = -r->l[i];
    ref_keep(r, key, p_wanted, n_wanted);
}

static void ref_temperature(struct ref *r, double t)
{
    for (int i = 0; i < N; i++)
        r->l[i] /= t;
}

STAGE(top_k_is_its_definition, "top_k", top_k,
      ref_likeliest(r, 2, x > 0 ? (size_t)x : N), 0, 1, 2, 7, N - 1, N, 1000)
STAGE(top_p_is_its_definition, "top_p", top_p,
      ref_likeliest(r, x < 1 ? (double)x : 2, N), 0, 1e-6f, 0.1f, 0.5f, 0.95f, 1)
STAGE(min_p_is_its_definition, "min_p", min_p, ref_min_p(r, (double)x), 0, 1e-6f, 0.05f,
      0.5f, 0.999f, 1)
STAGE(typical_is_its_definition, "typ_p", typical_p,
      ref_typical(r, x > 0 && x < 1 ? (double)x : 2), 0, 1e-6f, 0.1f, 0.5f, 0.95f, 1)
STAGE(temperature_is_its_definition, "temperature", temp, ref_temperature(r, (double)x),
      0.05f, 0.5f, 1, 3, 100)

/* ---- what looks back on the text ---- */

static void penalties_are_their_definitions(void **state)
{
    static const float repeat[] = {1, 1.3f, 0.5f}, frequency[] = {0, 0.4f, -0.7f},
                       presence[] = {0, 1.1f, -0.2f};
    static const int32_t last[] = {0, 1, 5, 64, 4096};
    struct rng rng;
    (void)state;
    rng_seed(&rng, 6);
    for (int v = 0; v < 3 * 3 * 3 * 5; v++) {
        struct runt_sampler_options o = options("penalties");
        int32_t text[TEXT];
        o.repeat_penalty = repeat[v % 3];
        o.frequency_penalty = frequency[v / 3 % 3];
        o.presence_penalty = presence[v / 9 % 3];
        o.repeat_last = last[v / 27];
        runt_sampler *s = sampler(&o, NULL);
        for (int n = 0; n < TEXT; n++) {
            float l[N];
            random_logits(&rng, l, n % 3 ? 0 : 1.5f);
            if (n % 10 < 3) {
                struct ref r = reference(l);
                ref_penalties(&r, &o, text, n);
                pick(s, l);
                compare(s, &r);
            }
            text[n] = (int32_t)(rng_u64(&rng) % (n % 2 ? N : 6));
            runt_sampler_accept(s, text[n]);
        }
        runt_sampler_free(s);
    }
}

/* Tokens of a few letters; breakers stand inside of tokens and across them. */
static struct tok *dry_tok(bool *breaker, char bytes[N][4])
{
    struct fixture_token tokens[N];
    for (int i = 0; i < N; i++) {
        tokens[i] = (struct fixture_token){bytes[i], (size_t)1 + (i >= 5) + (i >= 30),
                                           TOK_NORMAL};
        for (int k = 0, x = i < 5 ? i : i < 30 ? i - 5 : i - 30; k < 3; k++, x /= 5)
            bytes[i][k] = "ab:c\n"[x % 5];
        bytes[i][tokens[i].len] = 0;
        breaker[i] = strchr(bytes[i], '\n') || strstr(bytes[i], ":a");
    }
    return fixture_tok(tokens, N, -1);
}

/* A breaker ends in the last token of the text. */
static bool ref_breaks(const char *text, size_t n_last)
{
    size_t n = strlen(text);
    for (size_t end = n - n_last + 1; end <= n; end++)
        if (text[end - 1] == '\n' || (end >= 2 && !memcmp(text + end - 2, ":a", 2)))
            return true;
    return false;
}

static void dry_is_its_definition(void **state)
{
    static const char *const breakers[] = {"\n", ":a"};
    static const int32_t last[] = {2, 9, 40, 1000};
    struct rng rng;
    bool breaker[N], none[N] = {false};
    char bytes[N][4];
    struct tok *tok = dry_tok(breaker, bytes);
    int n_penalized[2] = {0};
    (void)state;
    rng_seed(&rng, 7);
    for (int v = 0; v < 4 * 3 * 2 * 3; v++) {
        struct runt_sampler_options o = options("dry");
        int32_t text[TEXT];
        bool breaks[TEXT] = {false};
        char spelled[4 * TEXT] = "";
        bool with = v / 12 % 2;
        o.dry_multiplier = 0.3f;
        o.dry_base = 1.2f;
        o.dry_last = last[v % 4];
        o.dry_allowed_length = 1 + v / 4 % 3;
        o.dry_breakers = breakers;
        o.n_dry_breakers = with ? 2 : 0;
        runt_sampler *s = sampler(&o, tok);
        for (int n = 0; n < TEXT; n++) {
            float l[N];
            random_logits(&rng, l, n % 3 ? 0 : 1.5f);
            struct ref r = reference(l), before = r;
            ref_dry(&r, &o, text, breaks, with ? breaker : none, n);
            pick(s, l);
            compare(s, &r);
            n_penalized[with] += memcmp(&r, &before, sizeof r) != 0;
            /* mostly what stood 11 tokens before */
            text[n] = n >= 11 && rng_u64(&rng) % 8 ? text[n - 11]
                                                   : (int32_t)(rng_u64(&rng) % N);
            strcat(spelled, bytes[text[n]]);
            breaks[n] = with && ref_breaks(spelled, strlen(bytes[text[n]]));
            runt_sampler_accept(s, text[n]);
        }
        runt_sampler_free(s);
    }
    /* of 5,400 each, without and with breakers */
    assert_true(n_penalized[0] > 1500 && n_penalized[1] > 250);
    tok_destroy(tok);
}

/* A breaker that the text before began is none. */
static void dry_forgets_half_a_breaker(void **state)
{
    static const char *const breakers[] = {":a"};
    bool breaker[N];
    char bytes[N][4];
    struct tok *tok = dry_tok(breaker, bytes);
    struct runt_sampler_options o = options("dry");
    (void)state;
    o.dry_multiplier = 1;
    o.dry_breakers = breakers;
    o.n_dry_breakers = 1;
    runt_sampler *s = sampler(&o, tok);
    runt_sampler_accept(s, 0); /* a */
    assert_false(s->breaks[0]);
    runt_sampler_accept(s, 2); /* : */
    runt_sampler_accept(s, 0);
    assert_true(!s->breaks[1] && s->breaks[2]);
    runt_sampler_accept(s, 2);
    runt_sampler_forget(s);
    runt_sampler_accept(s, 0);
    assert_false(s->breaks[0]);
    runt_sampler_free(s);
    tok_destroy(tok);
}

static void dry_stays_finite(void **state)
{
    (void)state;
    struct runt_sampler_options o = options("dry");
    float l[N] = {0};
    o.dry_multiplier = 1000;
    o.dry_base = 1000;
    runt_sampler *s = sampler(&o, NULL);
    for (int i = 0; i < 5000; i++)
        runt_sampler_accept(s, i % 3);
    for (int i = 0; i < N; i++)
        l[i] = i < 3 ? FLT_MAX : -FLT_MAX;
    for (int i = 0; i < 20; i++) {
        int32_t id = -1;
        assert_int_equal(runt_sampler_pick(s, l, &id, NULL), 0);
        assert_true(id < 3); /* none that is less likely by 6.8e38 */
        for (size_t k = 0; k < s->n; k++)
            assert_true(isfinite(s->c[k].logit) && isfinite(s->weights[k]));
    }
    runt_sampler_free(s);
}

/* ---- orders ---- */

static void any_order_is_what_its_stages_are(void **state)
{
    static const char *const names[] = {"penalties", "dry",   "top-k", "typical",
                                        "top_p",     "min_p", "temp"};
    struct rng rng;
    (void)state;
    rng_seed(&rng, 8);
    for (int round = 0; round < 2000; round++) {
        struct runt_sampler_options o = options(NULL);
        char order[100] = "";
        int perm[7] = {0, 1, 2, 3, 4, 5, 6}, n_stages = (int)(rng_u64(&rng) % 8);
        int32_t text[TEXT];
        bool no[TEXT] = {false};
        float l[N];
        for (int i = 0; i < n_stages; i++) {
            int k = i + (int)(rng_u64(&rng) % (uint64_t)(7 - i)), t = perm[i];
            perm[i] = perm[k];
            perm[k] = t;
            strcat(strcat(order, i ? ";" : ""), names[perm[i]]);
        }
        o.order = order;
        o.repeat_penalty = 1.2f;
        o.frequency_penalty = 0.1f;
        o.presence_penalty = 0.2f;
        o.dry_multiplier = 0.5f;
        o.dry_last = 1000;
        o.top_k = 5 + (int)(rng_u64(&rng) % 40);
        o.typical_p = 0.3f + 0.6f * (float)rng_unit(&rng);
        o.top_p = 0.3f + 0.6f * (float)rng_unit(&rng);
        o.min_p = 0.3f * (float)rng_unit(&rng);
        o.temp = 0.3f + 2 * (float)rng_unit(&rng);
        runt_sampler *s = sampler(&o, NULL);
        for (int i = 0; i < TEXT; i++) {
            text[i] = (int32_t)(rng_u64(&rng) % 12);
            runt_sampler_accept(s, text[i]);
        }
        random_logits(&rng, l, 0);
        struct ref r = reference(l);
        for (int i = 0; i < n_stages; i++) {
            if (perm[i] == 0)
                ref_penalties(&r, &o, text, TEXT);
            else if (perm[i] == 1)
                ref_dry(&r, &o, text, no, no, TEXT);
            else if (perm[i] == 2)
                ref_likeliest(&r, 2, (size_t)o.top_k);
            else if (perm[i] == 3)
                ref_typical(&r, (double)o.typical_p);
            else if (perm[i] == 4)
                ref_likeliest(&r, (double)o.top_p, N);
            else if (perm[i] == 5)
                ref_min_p(&r, (double)o.min_p);
            else
                ref_temperature(&r, (double)o.temp);
        }
        pick(s, l);
        compare(s, &r);
        runt_sampler_free(s);
    }
}

/* Temperature 0 takes the likeliest of what its predecessors leave, and stages behind
 * it find nothing to do. */
static void greedy_in_any_order(void **state)
{
    static const char *const orders[] = {
        RUNT_SAMPLER_ORDER, "temperature", "top_k;temperature;penalties",
        "top_k;penalties;temperature", "typ_p;top_k;temp;min_p"};
    struct rng rng;
    (void)state;
    rng_seed(&rng, 9);
    for (int round = 0; round < 500; round++) {
        struct runt_sampler_options o = options(orders[round % 5]);
        int32_t text[8], id = -1;
        float l[N];
        o.temp = 0;
        o.top_k = 3;
        o.repeat_penalty = 3;
        o.typical_p = 0.2f;
        runt_sampler *s = sampler(&o, NULL);
        random_logits(&rng, l, round % 2 ? 0 : 1.5f);
        for (int i = 0; i < 8; i++) { /* among them the likeliest */
            text[i] = 0;
            for (int k = 0; k < N; k++)
                if (l[k] > l[text[i]] && (i < 4 || rng_u64(&rng) % 2))
                    text[i] = k;
            runt_sampler_accept(s, text[i]);
        }
        struct ref r = reference(l);
        switch (round % 5) {
        case 0:
            ref_penalties(&r, &o, text, 8);
            ref_likeliest(&r, 2, 3);
            ref_typical(&r, (double)0.2f);
            break;
        case 3:
            ref_likeliest(&r, 2, 3);
            ref_penalties(&r, &o, text, 8);
            break;
        case 4:
            ref_typical(&r, (double)0.2f);
            break;
        }
        ref_likeliest(&r, 0, 1);
        assert_int_equal(runt_sampler_pick(s, l, &id, NULL), 0);
        assert_true(r.in[id]);
        runt_sampler_free(s);
    }
}

/* ---- mirostat ---- */

static void mirostat_is_its_definition(void **state)
{
    struct rng rng;
    (void)state;
    rng_seed(&rng, 10);
    for (int v = 0; v < 8; v++) {
        struct runt_sampler_options o = options(NULL);
        o.mirostat = 2;
        o.mirostat_tau = 0.5f + (float)v;
        o.mirostat_eta = v % 2 ? 0.1f : 0.9f;
        o.temp = 0.7f;
        o.top_k = 1; /* not in use */
        runt_sampler *s = sampler(&o, NULL);
        double mu = 2 * (double)o.mirostat_tau;
        for (int round = 0; round < 200; round++) {
            float l[N];
            double p[N];
            int32_t id = -1;
            random_logits(&rng, l, round % 3 ? 0 : 1.5f);
            struct ref r = reference(l);
            ref_temperature(&r, (double)o.temp);
            ref_total(&r, p);
            for (int i = 0; i < N; i++)
                r.in[i] = -log2(p[i]) <= mu;
            struct ref most = reference(l);
            ref_likeliest(&most, 0, 1);
            for (int i = 0; i < N; i++)
                r.in[i] |= most.in[i];
            assert_int_equal(runt_sampler_pick(s, l, &id, NULL), 0);
            compare(s, &r);
            ref_total(&r, p);
            mu -= (double)o.mirostat_eta * (-log2(p[id]) - (double)o.mirostat_tau);
            assert_true(fabs(mu - s->mu) < 1e-9 * (1 + fabs(mu)));
            mu = s->mu; /* no drift: the next cut shall be the same */
        }
        runt_sampler_forget(s);
        assert_true(s->mu == 2 * (double)o.mirostat_tau);
        runt_sampler_free(s);
    }
}

/* What it is for: the mean surprise comes near tau, where the model allows. */
static void mirostat_keeps_surprise_near_tau(void **state)
{
    struct rng rng;
    (void)state;
    rng_seed(&rng, 11);
    struct runt_sampler_options o = options(NULL);
    o.mirostat = 2;
    o.mirostat_tau = 2;
    o.temp = 1;
    runt_sampler *s = sampler(&o, NULL);
    double sum = 0;
    for (int round = 0; round < 4000; round++) {
        float l[N], logprob;
        int32_t id;
        random_logits(&rng, l, 0);
        assert_int_equal(runt_sampler_pick(s, l, &id, NULL), 0);
        assert_int_equal(runt_logprobs(l, N, id, &logprob, NULL, 0, NULL), 0);
        sum -= round >= 1000 ? (double)logprob / log(2) : 0;
    }
    assert_true(fabs(sum / 3000 - 2) < 0.3);
    runt_sampler_free(s);
}

/* ---- biases ---- */

static void biases_are_added_and_ban(void **state)
{
    static const struct runt_logit_bias bias[] = {
        {3, 2.5f}, {7, -INFINITY}, {9, -1}, {9, -1.5f}, {N - 1, 1e6f}};
    struct rng rng;
    float l[N];
    (void)state;
    rng_seed(&rng, 12);
    for (int round = 0; round < 50; round++) {
        struct runt_sampler_options o = options("temperature");
        o.bias = bias;
        o.n_bias = round % 2 ? 4 : 5;
        runt_sampler *s = sampler(&o, NULL);
        random_logits(&rng, l, 0);
        struct ref r = reference(l);
        r.l[3] += 2.5;
        r.l[9] -= 2.5;
        r.in[7] = false;
        r.l[N - 1] = (double)(l[N - 1] + (round % 2 ? 0 : 1e6f));
        ref_temperature(&r, (double)o.temp);
        pick(s, l);
        compare(s, &r);
        runt_sampler_free(s);
    }
    struct runt_sampler_options o = options(NULL);
    struct runt_logit_bias all[N];
    struct runt_err err;
    int32_t id = -1;
    for (int i = 0; i < N; i++)
        all[i] = (struct runt_logit_bias){i, -INFINITY};
    o.bias = all;
    o.n_bias = N;
    runt_sampler *s = sampler(&o, NULL);
    assert_int_equal(runt_sampler_pick(s, l, &id, &err), RUNT_E_INVALID);
    assert_int_equal(id, -1);
    runt_sampler_free(s);
    const struct runt_logit_bias bad[] = {
        {-1, 0}, {N, 0}, {0, NAN}, {0, INFINITY}, {0, 2e6f}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        s = NULL;
        o.bias = &bad[i];
        o.n_bias = 1;
        assert_int_equal(runt_sampler_new(&o, N, &s, &err), RUNT_E_INVALID);
        assert_null(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(top_k_is_its_definition),
        cmocka_unit_test(top_p_is_its_definition),
        cmocka_unit_test(min_p_is_its_definition),
        cmocka_unit_test(typical_is_its_definition),
        cmocka_unit_test(temperature_is_its_definition),
        cmocka_unit_test(penalties_are_their_definitions),
        cmocka_unit_test(dry_is_its_definition),
        cmocka_unit_test(dry_forgets_half_a_breaker),
        cmocka_unit_test(dry_stays_finite),
        cmocka_unit_test(any_order_is_what_its_stages_are),
        cmocka_unit_test(greedy_in_any_order),
        cmocka_unit_test(mirostat_is_its_definition),
        cmocka_unit_test(mirostat_keeps_surprise_near_tau),
        cmocka_unit_test(biases_are_added_and_ban),
    };
    return cmocka_run_group_tests_name("stages", tests, NULL, NULL);
}
