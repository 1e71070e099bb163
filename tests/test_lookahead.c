/* Looking ahead never changes a text: whatever is drafted, in however many sequences,
 * at any temperature, the tokens drawn, the logits and what the session holds are to
 * the bit those of drawing and feeding one token at a time. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "model_fixture.h"

#include <string.h>

enum { N_SEQS = 4, N_CTX = 90, N_PROMPT = 12 };

static struct gpt2_shape shape;
static int32_t prompts[N_SEQS][N_PROMPT];

/* What a sequence drew, and what it ended up with. */
struct text {
    int32_t ids[N_CTX];
    size_t n;
};

static void ok(int rc, const struct runt_err *err)
{
    if (rc)
        fail_msg("%s", err->msg);
}

static runt_session *open_session(const runt_model *m, uint32_t n_seqs,
                                  uint32_t n_batch)
{
    runt_session *s = NULL;
    struct runt_err err;
    struct runt_session_options o = {
        .n_threads = 2, .n_batch = n_batch, .n_seqs = n_seqs};
    ok(runt_session_open(m, &o, &s, &err), &err);
    return s;
}

/* Greedy for seed 0; a penalty makes what was drawn before matter. */
static runt_sampler *new_sampler(unsigned seed)
{
    runt_sampler *s = NULL;
    struct runt_err err;
    struct runt_sampler_options o = runt_sampler_defaults();
    o.temp = seed ? 0.3f * (float)seed : 0;
    o.seed = seed;
    o.repeat_penalty = seed % 2 ? 1.3f : 1;
    o.repeat_last = 9;
    ok(runt_sampler_new(&o, shape.n_vocab, &s, &err), &err);
    return s;
}

static int32_t pick(runt_sampler *s, const float *logits)
{
    struct runt_err err;
    int32_t id;
    ok(runt_sampler_pick(s, logits, &id, &err), &err);
    runt_sampler_accept(s, id);
    return id;
}

/* n tokens after a prompt, one at a time. */
static void alone(runt_session *s, const int32_t *prompt, unsigned seed, size_t n,
                  struct text *out)
{
    struct runt_err err;
    runt_sampler *sampler = new_sampler(seed);
    runt_session_rewind(s, 0);
    ok(runt_session_feed(s, prompt, N_PROMPT, &err), &err);
    for (out->n = 0; out->n < n; out->n++) {
        int32_t id = out->ids[out->n] = pick(sampler, runt_session_logits(s));
        ok(runt_session_feed(s, &id, 1, &err), &err);
    }
    runt_sampler_free(sampler);
}

static void same_state(const runt_session *s, const runt_session *want)
{
    uint32_t n = runt_session_pos(want);
    assert_int_equal(runt_session_pos(s), n);
    assert_memory_equal(runt_session_seq_tokens(s, 0), runt_session_seq_tokens(want, 0),
                        n * sizeof(int32_t));
    assert_memory_equal(runt_session_logits(s), runt_session_logits(want),
                        shape.n_vocab * sizeof(float));
}

/* One sequence, any number of drafts, passes that are whole or cut: stopped after every
 * number of tokens, then gone on with. */
static void one_sequence(void **state)
{
    (void)state;
    static const int32_t drafts[] = {RUNT_LOOKAHEAD_AUTO, 1, 3, RUNT_LOOKAHEAD_MAX};
    static const char *const types[] = {"f32", "q4_0", "r4"};
    uint64_t all_drafted = 0, all_accepted = 0;
    for (unsigned v = 0; v < 3 * 4 * 6; v++) {
        runt_model *m = fixture_random(&shape, types[v % 3], 5 + v / 24);
        runt_session *s = open_session(m, 1, v % 2 ? 3 : 0),
                     *want = open_session(m, 1, 0);
        unsigned seed = v % 4 == 3 ? 0 : v % 4;
        runt_lookahead *l = NULL;
        struct runt_err err;
        struct text text = {{0}, 0};
        runt_sampler *sampler = new_sampler(seed);
        ok(runt_lookahead_new(s, drafts[v / 3 % 4], &l, &err), &err);
        ok(runt_session_feed(s, prompts[0], N_PROMPT, &err), &err);
        const float *logits = runt_session_logits(s);
        while (text.n < N_CTX - N_PROMPT) {
            int32_t id = text.ids[text.n++] = pick(sampler, logits);
            if (!runt_lookahead_take(l, 0, id)) {
                struct runt_step step = {0, &id, 1, 1};
                ok(runt_lookahead_step(l, &step, 1, &err), &err);
            }
            logits = runt_lookahead_logits(l, 0);
            if (text.n % 7 == v % 7) {
                struct text short_text;
                runt_lookahead_stop(l, 0);
                alone(want, prompts[0], seed, text.n, &short_text);
                assert_memory_equal(text.ids, short_text.ids,
                                    text.n * sizeof *text.ids);
                same_state(s, want);
                logits = runt_session_logits(s);
            }
        }
        struct text whole;
        alone(want, prompts[0], seed, N_CTX - N_PROMPT, &whole);
        assert_memory_equal(text.ids, whole.ids, sizeof *text.ids * whole.n);
        runt_lookahead_stop(l, 0);
        same_state(s, want);
        uint64_t drafted, accepted;
        runt_lookahead_counts(l, &drafted, &accepted);
        assert_true(accepted <= drafted);
        all_drafted += drafted;
        all_accepted += accepted;
        runt_lookahead_free(l);
        runt_sampler_free(sampler);
        runt_session_close(s);
        runt_session_close(want);
        fixture_close(m);
    }
    assert_true(all_accepted > 200 && all_drafted > all_accepted + 200);
}

/* Sequences of different lengths that come and go, their prompts read in the passes of
 * the others. */
static void many_sequences(void **state)
{
    (void)state;
    static const size_t starts[N_SEQS] = {0, 3, 3, 20},
                        lengths[N_SEQS] = {60, 9, 70, 40};
    for (unsigned v = 0; v < 8; v++) {
        runt_model *m = fixture_random(&shape, v % 2 ? "q4_0" : "r4", 9 + v);
        runt_session *s = open_session(m, N_SEQS, v % 3 ? 0 : 5),
                     *want = open_session(m, 1, 0);
        runt_lookahead *l = NULL;
        struct runt_err err;
        ok(runt_lookahead_new(s, v < 4 ? (int32_t)(1 + 10 * v) : RUNT_LOOKAHEAD_AUTO,
                              &l, &err),
           &err);
        for (unsigned rounds = 0; rounds < 2; rounds++) { /* a sequence serves again */
            runt_sampler *samplers[N_SEQS];
            struct text texts[N_SEQS] = {0};
            for (unsigned q = 0; q < N_SEQS; q++) {
                samplers[q] = new_sampler(q);
                runt_session_seq_rewind(s, q, 0);
            }
            for (size_t pass = 0;; pass++) {
                struct runt_step steps[N_SEQS];
                size_t n = 0;
                for (uint32_t q = 0; q < N_SEQS; q++) {
                    struct text *t = &texts[q];
                    if (pass < starts[q] || t->n == lengths[q])
                        continue;
                    if (pass == starts[q]) {
                        steps[n++] = (struct runt_step){q, prompts[q], N_PROMPT, 1 + q};
                        continue;
                    }
                    bool taken = true;
                    while (t->n < lengths[q] && taken) {
                        t->ids[t->n] = pick(samplers[q], runt_lookahead_logits(l, q));
                        taken = runt_lookahead_take(l, q, t->ids[t->n++]);
                    }
                    if (t->n < lengths[q] || !taken)
                        steps[n++] = (struct runt_step){q, &t->ids[t->n - 1], 1, 0};
                    runt_lookahead_limit(l, q, lengths[q] - t->n);
                }
                if (!n && pass > starts[N_SEQS - 1])
                    break;
                ok(runt_lookahead_step(l, steps, n, &err), &err);
            }
            for (uint32_t q = 0; q < N_SEQS; q++) {
                struct text whole;
                alone(want, prompts[q], q, lengths[q], &whole);
                assert_memory_equal(texts[q].ids, whole.ids,
                                    lengths[q] * sizeof(int32_t));
                assert_int_equal(runt_session_seq_pos(s, q), N_PROMPT + lengths[q]);
                assert_memory_equal(runt_session_seq_tokens(s, q),
                                    runt_session_seq_tokens(want, 0),
                                    (N_PROMPT + lengths[q]) * sizeof(int32_t));
                runt_sampler_free(samplers[q]);
            }
        }
        runt_lookahead_free(l);
        runt_session_close(s);
        runt_session_close(want);
        fixture_close(m);
    }
}

/* ---- runt_generate ---- */

struct heard {
    char text[4096];
    size_t n, n_calls, stop_at; /* 0: never */
};

static int hear(void *ctx, const char *text, size_t n)
{
    struct heard *h = ctx;
    assert_true(h->n + n < sizeof h->text);
    memcpy(h->text + h->n, text, n);
    h->n += n;
    return ++h->n_calls == h->stop_at;
}

/* Samplers with a state that every token drawn moves on. */
enum kind { PLAIN, MIROSTAT, DRY, GRAMMAR };

static struct runt_sampler_options options_of(enum kind kind, float temp)
{
    struct runt_sampler_options o = runt_sampler_defaults();
    o.temp = temp;
    o.repeat_penalty = 1.05f;
    o.mirostat = kind == MIROSTAT ? 2 : 0;
    if (kind == DRY) {
        o.dry_multiplier = 0.4f;
        o.frequency_penalty = 0.2f;
        o.presence_penalty = 0.1f;
        o.typical_p = 0.9f;
    }
    return o;
}

/* Draw twice, the second time going on from what the first left. */
static void draw_twice(const runt_model *m, const struct runt_generate_options *o,
                       int32_t n_drafts, enum kind kind, float temp, size_t stop_at,
                       runt_session **s, struct heard heard[2],
                       struct runt_generated g[2])
{
    static const char prompt[] = "The cat sat on the mat. The dog sat on the mat. The";
    struct runt_session_options so = {.n_ctx = 48};
    struct runt_sampler_options sa = options_of(kind, temp);
    struct runt_generate_options with = *o;
    runt_grammar *grammar = NULL;
    struct runt_err err;
    runt_sampler *sampler = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    ok(runt_session_open(m, &so, s, &err), &err);
    ok(runt_sampler_for(m, &sa, &sampler, &err), &err);
    ok(runt_tokenize(m, prompt, strlen(prompt), false, &ids, &n, &err), &err);
    ok(runt_session_feed(*s, ids, n, &err), &err);
    if (n_drafts >= 0)
        ok(runt_lookahead_new(*s, n_drafts, &with.lookahead, &err), &err);
    for (size_t i = 0; i < 2; i++) {
        if (kind == GRAMMAR && !i) {
            static const char text[] =
                "root ::= (\" The cat sat on the mat.\" | \" \" [a-z]+ "
                "\"; \" [a-z]+ \";\")+";
            ok(runt_grammar_gbnf(text, strlen(text), &grammar, &err), &err);
            ok(runt_sampler_constrain(sampler, m, grammar, &err), &err);
        }
        heard[i] = (struct heard){.stop_at = stop_at};
        ok(runt_generate(*s, sampler, &with, hear, &heard[i], &g[i], &err), &err);
    }
    runt_lookahead_free(with.lookahead);
    runt_sampler_free(sampler);
    runt_grammar_free(grammar);
    runt_free(ids);
}

static void generating(void **state)
{
    (void)state;
    static const char *const stops[] = {"mat.", "was"};
    static const struct {
        struct runt_generate_options o;
        float temp;
        size_t stop_at;
        enum kind kind;
    } cases[] = {
        {{.n_max = 1}, 0, 0, PLAIN},
        {{.n_max = 17}, 0, 0, PLAIN},
        {{.n_max = 17}, 0.9f, 0, PLAIN},
        {{.n_max = 150, .slide = true, .ignore_eos = true}, 0, 0, PLAIN},
        {{.n_max = 150, .slide = true, .ignore_eos = true}, 0.9f, 0, PLAIN},
        {{0}, 0, 0, PLAIN}, /* to the end of the context */
        {{.n_max = 90, .stops = stops, .n_stops = 2, .slide = true}, 0, 0, PLAIN},
        {{.n_max = 90, .stops = stops, .n_stops = 2, .slide = true}, 0.9f, 0, PLAIN},
        {{.n_max = 90, .slide = true}, 0, 9, PLAIN},
        {{.n_max = 90, .slide = true, .skip_space = true}, 0.3f, 30, PLAIN},
        {{.n_max = 70, .slide = true}, 0.9f, 0, MIROSTAT},
        {{.n_max = 70, .slide = true}, 0.9f, 0, DRY},
        {{.n_max = 70, .slide = true}, 0, 0, DRY},
        {{.n_max = 70, .slide = true}, 0, 0, GRAMMAR},
        {{.n_max = 70, .slide = true}, 0.9f, 0, GRAMMAR},
    };
    runt_model *m = fixture_tiny("q4_0");
    size_t accepted = 0, drafted = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        runt_session *plain = NULL;
        struct heard want[2], got[2];
        struct runt_generated a[2], b[2];
        draw_twice(m, &cases[i].o, -1, cases[i].kind, cases[i].temp, cases[i].stop_at,
                   &plain, want, a);
        for (int32_t n = 0; n <= RUNT_LOOKAHEAD_MAX; n += 1 + 3 * n) {
            runt_session *s = NULL;
            draw_twice(m, &cases[i].o, n, cases[i].kind, cases[i].temp,
                       cases[i].stop_at, &s, got, b);
            for (size_t k = 0; k < 2; k++) {
                assert_int_equal(got[k].n, want[k].n);
                assert_memory_equal(got[k].text, want[k].text, want[k].n);
                assert_int_equal(got[k].n_calls, want[k].n_calls);
                assert_int_equal(b[k].n_tokens, a[k].n_tokens);
                assert_int_equal(b[k].n_dropped, a[k].n_dropped);
                assert_int_equal(b[k].end, a[k].end);
                assert_int_equal(a[k].n_drafted + a[k].n_accepted, 0);
                assert_true(b[k].n_accepted <= b[k].n_drafted);
                drafted += b[k].n_drafted;
                accepted += b[k].n_accepted;
            }
            uint32_t pos = runt_session_pos(s);
            assert_int_equal(pos, runt_session_pos(plain));
            assert_memory_equal(runt_session_seq_tokens(s, 0),
                                runt_session_seq_tokens(plain, 0),
                                pos * sizeof(int32_t));
            assert_memory_equal(runt_session_logits(s), runt_session_logits(plain),
                                4096 * sizeof(float));
            runt_session_close(s);
        }
        runt_session_close(plain);
    }
    assert_true(accepted > 300 && drafted > accepted);
    fixture_close(m);
}

/* What is refused leaves everything as it was. */
static void refused(void **state)
{
    (void)state;
    runt_model *m = fixture_random(&shape, "q4_0", 3);
    runt_session *s = open_session(m, 2, 0);
    runt_lookahead *l = NULL;
    struct runt_err err;
    int32_t loop[N_CTX], bad = (int32_t)shape.n_vocab;
    for (size_t i = 0; i < N_CTX; i++)
        loop[i] = (int32_t)(i % 3);
    assert_int_equal(runt_lookahead_new(s, -1, &l, &err), RUNT_E_INVALID);
    assert_int_equal(runt_lookahead_new(s, RUNT_LOOKAHEAD_MAX + 1, &l, &err),
                     RUNT_E_INVALID);
    assert_null(l);
    ok(runt_lookahead_new(s, 8, &l, &err), &err);
    const struct {
        struct runt_step steps[3];
        size_t n;
        int code;
    } cases[] = {
        {{{2, loop, 1, 1}}, 1, RUNT_E_INVALID},
        {{{1, loop, 1, 1}, {0, &bad, 1, 1}}, 2, RUNT_E_INVALID},
        {{{1, loop, 1, 1}, {1, loop, 1, 1}}, 2, RUNT_E_INVALID},
        {{{1, loop, 1, 1}, {0, loop, 1, 1}, {1, loop, 1, 1}}, 3, RUNT_E_INVALID},
        {{{1, loop, 0, 1}}, 1, RUNT_E_INVALID},
        {{{1, loop, N_CTX, 1}}, 1, RUNT_E_FULL},
    };
    ok(runt_lookahead_step(l, &(struct runt_step){1, loop, 30, 1}, 1, &err), &err);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(runt_lookahead_step(l, cases[i].steps, cases[i].n, &err),
                         cases[i].code);
        assert_int_equal(runt_session_seq_pos(s, 1), 30);
        assert_int_equal(runt_session_seq_pos(s, 0), 0);
    }
    /* drafts are as many as asked for, or as there is room for */
    for (uint32_t pos = 30; pos < N_CTX; pos++) {
        uint64_t before, after, accepted;
        uint32_t room = N_CTX - pos - 1;
        runt_lookahead_counts(l, &before, &accepted);
        ok(runt_lookahead_step(l, &(struct runt_step){1, loop + pos, 1, 1}, 1, &err),
           &err);
        runt_lookahead_counts(l, &after, &accepted);
        assert_int_equal(after - before, room < 8 ? room : 8);
        runt_lookahead_stop(l, 1);
        assert_int_equal(runt_session_seq_pos(s, 1), pos + 1);
    }
    assert_int_equal(
        runt_lookahead_step(l, &(struct runt_step){1, loop, 1, 1}, 1, &err),
        RUNT_E_FULL);
    runt_lookahead_free(l);
    runt_session_close(s);
    fixture_close(m);
}

static void without_memory(void **state)
{
    (void)state;
    runt_model *m = fixture_random(&shape, "q4_0", 3);
    runt_session *s = open_session(m, 3, 0);
    long before = mem_live();
    int rc = RUNT_E_NOMEM;
    for (long n = 0; rc; n++) {
        runt_lookahead *l = NULL;
        struct runt_err err;
        mem_fail_after(n);
        rc = runt_lookahead_new(s, 4, &l, &err);
        mem_fail_after(-1);
        assert_true(rc == 0 || (rc == RUNT_E_NOMEM && !l));
        runt_lookahead_free(l);
        assert_int_equal(mem_live(), before);
        assert_true(n < 100);
    }
    runt_session_close(s);
    fixture_close(m);
}

static int setup(void **state)
{
    (void)state;
    shape = fixture_odd_shape();
    for (uint32_t q = 0; q < N_SEQS; q++)
        for (uint32_t i = 0; i < N_PROMPT; i++)
            prompts[q][i] =
                (int32_t)((i % (3 + q) * 7919 + q * 104729) % shape.n_vocab);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_sequence),   cmocka_unit_test(many_sequences),
        cmocka_unit_test(generating),     cmocka_unit_test(refused),
        cmocka_unit_test(without_memory),
    };
    return cmocka_run_group_tests_name("lookahead", tests, setup, NULL);
}
