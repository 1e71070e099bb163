/* A training step against itself: finite differences; threads, kernels and what is
 * kept; cuts of a batch; frozen weights; masked targets; and the forward pass against
 * the one that answers. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "model_fixture.h"
#include "net_fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Rows and columns fill several tiles of a product and several blocks of attention,
 * none of them whole: 2 x 83 tokens, width 141 = 3 heads of 47. */
static struct gpt2_shape wide_shape(bool tied)
{
    return (struct gpt2_shape){.n_vocab = 203,
                               .n_ctx = 90,
                               .n_embd = 141,
                               .n_head = 3,
                               .n_layer = 2,
                               .n_ff = 170,
                               .eps = 1e-5f,
                               .tied = tied};
}
enum { SEQS = 2, LEN = 83 };

static const uint32_t keys[MAX_SEQS] = {0x12345678, 77, 0xfffffff0, 4};

static struct net *wide_net(const struct gpt2_shape *s, struct net_options o,
                            unsigned n_threads)
{
    struct net_weights *w = net_weights(s, NULL);
    o.shape = s;
    o.n_seqs = o.n_seqs ? o.n_seqs : SEQS;
    o.seq_len = o.seq_len ? o.seq_len : LEN;
    struct net *n = net_made(&o, n_threads, &w->source);
    net_weights_free(w);
    return n;
}

static void near(const char *what, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s: %.9g, not %.9g (within %.2g)", what, got, want, tolerance);
}

/* ---- finite differences ---- */

static double loss_of(struct net *n, const struct net_batch *b)
{
    struct net_batch only = *b;
    only.learn = false;
    return net_run(n, &only) * (double)b->weight;
}

/* The loss's slope as the weights of q move along the unit vector d. */
static double slope_along(struct net *n, const struct net_batch *b,
                          const struct net_param *q, const float *d, double step)
{
    float *w = n->w + q->at;
    size_t size = net_size(q);
    float *before = mem_array(size, sizeof *before);
    double loss[2];
    memcpy(before, w, size * sizeof *w);
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < size; i++)
            w[i] = before[i] + (float)(side ? step : -step) * d[i];
        loss[side] = loss_of(n, b);
    }
    memcpy(w, before, size * sizeof *w);
    mem_free(before);
    return (loss[1] - loss[0]) / (2 * step);
}

/* Along the gradient the slope is its length, whichever of its numbers are wrong; and
 * along its largest number's axis, that.  A loss of about 6 has an error of 1e-7 or so
 * in float32; steps that change it by 4e-3 leave 1e-4 of the slope to that, and were
 * chosen such that the third derivative takes less than 3e-3 of it. */
static void check_slopes(struct net *n, const struct net_batch *b)
{
    double worst = 0;
    net_run(n, b);
    for (size_t p = 0; p < n->n_params; p++) {
        const struct net_param *q = &n->params[p];
        const float *g = n->g + q->at;
        size_t size = net_size(q), largest = 0;
        double length = net_l2(g, size);
        float *d = mem_array(size, sizeof *d);
        assert_true(length > 1e-3);
        for (size_t i = 0; i < size; i++) {
            d[i] = (float)((double)g[i] / length);
            largest = fabsf(g[i]) > fabsf(g[largest]) ? i : largest;
        }
        double got = slope_along(n, b, q, d, 2e-3 / length);
        near(q->desc.name, got, length, 1e-2 * length);
        worst = fmax(worst, fabs(got / length - 1));
        memset(d, 0, size * sizeof *d);
        d[largest] = 1;
        double one = (double)g[largest];
        got = slope_along(n, b, q, d, fmin(2e-3 / fabs(one), 0.05));
        near(q->desc.name, got, one, 1e-2 * fabs(one));
        worst = fmax(worst, fabs(got / one - 1));
        mem_free(d);
    }
    print_message("gradient and differences: %.2g apart at most\n", worst);
}

static void gradients_are_the_losses_slopes(void **state)
{
    (void)state;
    net_need_library();
    for (int dropped = 0; dropped < 2; dropped++) {
        struct gpt2_shape s = wide_shape(dropped);
        struct tokens t = tokens_random(SEQS, LEN, s.n_vocab);
        struct net_batch b = batch_of(&t);
        struct net *n =
            wide_net(&s, (struct net_options){.dropout = dropped ? 0.2f : 0}, 2);
        b.keys = dropped ? keys : NULL;
        check_slopes(n, &b);
        net_unmade(n);
    }
}

/* ---- the same bits ---- */

struct learned {
    double loss;
    size_t n;
    float *g;
};

static struct learned learn(const struct gpt2_shape *s, struct net_options o,
                            unsigned n_threads, const struct tokens *t, bool dropped)
{
    struct net_batch b = batch_of(t);
    o.dropout = dropped ? 0.15f : 0;
    b.keys = dropped ? keys : NULL;
    struct net *n = wide_net(s, o, n_threads);
    struct learned l = {.n = n->n_trained, .loss = net_run(n, &b)};
    l.g = mem_array(l.n, sizeof *l.g);
    memcpy(l.g, n->g, l.n * sizeof *l.g);
    net_unmade(n);
    return l;
}

static void check_same(struct learned *a, const struct learned *b)
{
    assert_true(a->loss == b->loss);
    assert_int_equal(a->n, b->n);
    for (size_t i = 0; i < a->n; i++)
        if (memcmp(a->g + i, b->g + i, sizeof *a->g))
            fail_msg("gradient %zu: %a, not %a", i, (double)a->g[i], (double)b->g[i]);
    mem_free(a->g);
}

/* Whatever the number of threads; whether blocks are kept or run again; in a net made
 * for larger batches. */
static void the_same_bits_however_it_is_run(void **state)
{
    (void)state;
    net_need_library();
    struct gpt2_shape s = wide_shape(true);
    struct tokens t = tokens_random(SEQS, LEN, s.n_vocab);
    s.n_layer = 3;
    for (int kind = 0; kind < 4; kind++) {
        bool dropped = kind % 2;
        struct net_options o = {.type = kind / 2 ? GEMM_BF16 : GEMM_F32};
        struct learned want = learn(&s, o, 1, &t, dropped), got;
        for (unsigned threads = 2; threads <= 3; threads++) {
            got = learn(&s, o, threads, &t, dropped);
            check_same(&got, &want);
        }
        o.recompute = true;
        for (unsigned threads = 1; threads <= 3; threads++) {
            got = learn(&s, o, threads, &t, dropped);
            check_same(&got, &want);
        }
        o.n_seqs = SEQS + 1;
        o.seq_len = s.n_ctx;
        got = learn(&s, o, 2, &t, dropped);
        check_same(&got, &want);
        mem_free(want.g);
    }
}

static void the_same_bits_by_any_kernels(void **state)
{
    (void)state;
    net_need_library();
    if (!grad_kern_avx2())
        skip();
    const char *was = getenv("RUNT_CPU");
    char *kept = was ? mem_strdup(was) : NULL;
    struct gpt2_shape s = wide_shape(false);
    struct tokens t = tokens_random(SEQS, LEN, s.n_vocab);
    struct learned by[2];
    for (int i = 0; i < 2; i++) {
        setenv("RUNT_CPU", i ? "avx2" : "ref", 1);
        by[i] = learn(&s, (struct net_options){.type = GEMM_BF16}, 2, &t, true);
    }
    if (kept)
        setenv("RUNT_CPU", kept, 1);
    else
        unsetenv("RUNT_CPU");
    check_same(&by[1], &by[0]);
    mem_free(by[0].g);
    mem_free(kept);
}

/* ---- cuts ---- */

static void check_close(const struct net *n, const float *got, const float *want)
{
    for (size_t p = 0; p < n->n_params; p++) {
        const struct net_param *q = &n->params[p];
        double scale = net_largest(want + q->at, net_size(q));
        for (size_t i = q->at; i < q->at + net_size(q); i++)
            near(q->desc.name, (double)got[i], (double)want[i], 2e-5 * scale);
    }
}

/* Sequences together or one by one, each with its own dropout; logits all together or
 * some tokens at a time.  Sums have other orders: 2e-5 of a tensor's largest. */
static void a_batch_may_be_cut_anywhere(void **state)
{
    (void)state;
    net_need_library();
    struct gpt2_shape s = wide_shape(true);
    struct tokens t = tokens_random(3, LEN, s.n_vocab);
    struct net_options o = {.dropout = 0.15f, .n_seqs = 3};
    struct net_batch b = batch_of(&t);
    b.keys = keys;
    struct net *whole = wide_net(&s, o, 2), *cut = wide_net(&s, o, 2);
    double loss = net_run(whole, &b), sum = 0;
    struct net_batch one = b;
    one.n_seqs = 1;
    for (size_t i = 0; i < 3; i++) {
        one.inputs = b.inputs + i * LEN;
        one.targets = b.targets + i * LEN;
        one.keys = b.keys + i;
        sum += net_run(cut, &one);
    }
    near("the loss", sum, loss, 1e-6 * loss);
    check_close(whole, cut->g, whole->g);

    memset(cut->g, 0, cut->n_trained * sizeof *cut->g);
    cut->chunk = 50; /* of 249 tokens */
    near("the loss", net_run(cut, &b), loss, 1e-6 * loss);
    check_close(whole, cut->g, whole->g);

    /* other keys, other zeros; no keys, none */
    b.keys = keys + 1;
    assert_true(fabs(loss_of(cut, &b) / (loss * (double)b.weight) - 1) > 1e-5);
    b.keys = NULL;
    struct net *plain = wide_net(&s, (struct net_options){.n_seqs = 3}, 2);
    plain->chunk = cut->chunk;
    assert_true(net_run(cut, &b) == net_run(plain, &b));
    net_unmade(whole);
    net_unmade(cut);
    net_unmade(plain);
}

/* ---- frozen weights ---- */

static void frozen_weights_have_no_gradient(void **state)
{
    (void)state;
    net_need_library();
    static const struct {
        const char *pattern;
        size_t n_matches, n_untied;
    } cases[] = {
        {"ffn_", 12, 12},         {"^blk\\.1\\.", 12, 12},   {"bias$", 13, 13},
        {"^token_embd", 1, 1},    {"^position_embd", 1, 1},  {"^output_norm", 2, 2},
        {"^output\\.|qkv", 4, 5}, {"blk.0.attn_norm", 2, 2}, {".", 28, 29}};
    for (size_t c = 0; c < 2 * sizeof cases / sizeof *cases; c++) {
        bool tied = c % 2, again = c % 4 > 1;
        struct gpt2_shape s = wide_shape(tied);
        struct tokens t = tokens_random(SEQS, LEN, s.n_vocab);
        struct net_batch b = batch_of(&t);
        struct net_options o = {.dropout = 0.1f, .recompute = again};
        b.keys = keys;
        struct net *all = wide_net(&s, o, 2);
        o.train = cases[c / 2].pattern;
        struct net *some = wide_net(&s, o, 2);
        assert_true(net_run(all, &b) == net_run(some, &b));
        size_t n_matches = 0, n_numbers = 0;
        for (size_t p = 0; p < some->n_params; p++) {
            const struct net_param *q = &some->params[p], *full = &all->params[p];
            assert_string_equal(q->desc.name, full->desc.name);
            assert_memory_equal(some->w + q->at, all->w + full->at,
                                net_size(q) * sizeof(float));
            if (q->frozen) {
                assert_true(q->at >= some->n_trained);
                continue;
            }
            n_matches++;
            n_numbers += net_size(q);
            assert_true(q->at + net_size(q) <= some->n_trained);
            assert_memory_equal(some->g + q->at, all->g + full->at,
                                net_size(q) * sizeof(float));
        }
        assert_int_equal(n_matches,
                         tied ? cases[c / 2].n_matches : cases[c / 2].n_untied);
        assert_true(some->n_trained < n_numbers + 16 * n_matches);
        net_unmade(all);
        net_unmade(some);
    }
}

/* ---- targets ---- */

static void masked_targets_teach_nothing(void **state)
{
    (void)state;
    net_need_library();
    struct gpt2_shape s = wide_shape(true);
    struct tokens t = tokens_random(SEQS, LEN, s.n_vocab);
    struct net *n = wide_net(&s, (struct net_options){0}, 2);
    struct net_batch b = batch_of(&t);
    double all = 0, alone = 0;
    for (size_t i = 0; i < SEQS * LEN; i++)
        t.targets[i] = -1;
    assert_true(net_run(n, &b) == 0);
    for (size_t i = 0; i < n->n_trained; i++)
        assert_true(n->g[i] == 0);
    /* each target's loss is its own */
    for (size_t i = 0; i < 4; i++)
        t.targets[i * 37] = (int32_t)i + 3;
    all = net_run(n, &b);
    for (size_t i = 0; i < 4; i++) {
        for (size_t k = 0; k < 4; k++)
            t.targets[k * 37] = k == i ? (int32_t)i + 3 : -1;
        alone += net_run(n, &b);
    }
    near("the sum", alone, all, 1e-12 * all);
    net_unmade(n);
}

/* ---- the order in which gradients are complete ---- */

struct told {
    const struct net *net;
    size_t n, from[8], to[8];
    float *g;
};

static void take(void *ctx, size_t from, size_t to)
{
    struct told *t = ctx;
    assert_true(t->n < 8 && from < to && to <= t->net->n_trained);
    t->from[t->n] = from;
    t->to[t->n++] = to;
    memcpy(t->g + from, t->net->g + from, (to - from) * sizeof *t->g);
}

/* What is told when a part is complete is the final gradient of it; parts are blocks
 * from the last to the first, then the rest, and cover what is trained. */
static void gradients_are_told_when_they_are_complete(void **state)
{
    (void)state;
    net_need_library();
    struct gpt2_shape s = wide_shape(true);
    struct tokens t = tokens_random(SEQS, LEN, s.n_vocab);
    for (int some = 0; some < 2; some++) {
        struct net *n = wide_net(
            &s, (struct net_options){.train = some ? "up|^output_norm" : NULL}, 3);
        struct told told = {.net = n, .g = mem_array(n->n_trained, sizeof *told.g)};
        struct net_batch b = batch_of(&t);
        b.done = take;
        b.ctx = &told;
        net_run(n, &b);
        assert_memory_equal(told.g, n->g, n->n_trained * sizeof *n->g);
        assert_int_equal(told.n, 3);
        assert_true(told.from[1] == 0 && told.to[1] <= told.from[0] &&
                    told.to[0] <= told.from[2]);
        for (size_t p = 0; p < n->n_params; p++) {
            const struct net_param *q = &n->params[p];
            bool covered = q->frozen;
            for (size_t k = 0; k < told.n; k++)
                covered |= q->at >= told.from[k] && q->at + net_size(q) <= told.to[k];
            assert_true(covered);
        }
        mem_free(told.g);
        net_unmade(n);
    }
}

/* ---- the other forward pass ---- */

static void the_loss_is_that_of_the_model_that_answers(void **state)
{
    (void)state;
    net_need_library();
    struct gpt2_shape s = wide_shape(true);
    struct tokens t = tokens_random(1, s.n_ctx, s.n_vocab);
    struct net_batch b = batch_of(&t);
    struct model_random *random = NULL;
    runt_session *session = NULL;
    struct runt_err err;
    struct runt_session_options o = {
        .n_threads = 2, .n_batch = 128, .kv = RUNT_KV_F32, .all_logits = true};
    assert_int_equal(model_random_open(&s, 5, &random, &err), 0);
    struct net *n =
        net_made(&(struct net_options){.shape = &s, .n_seqs = 1, .seq_len = s.n_ctx}, 2,
                 model_random_source(random));
    runt_model *m = fixture_random(&s, "f32", 5);
    if (runt_session_open(m, &o, &session, &err) ||
        runt_session_feed(session, t.inputs, s.n_ctx, &err))
        fail_msg("%s", err.msg);
    double want = 0;
    for (size_t i = 0; i < s.n_ctx; i++) {
        const float *l = runt_session_logits_at(session, i);
        double sum = 0;
        for (uint32_t k = 0; k < s.n_vocab; k++)
            sum += exp((double)l[k]);
        if (t.targets[i] >= 0)
            want += log(sum) - (double)l[t.targets[i]];
    }
    near("the loss", net_run(n, &b), want, 1e-6 * want);
    runt_session_close(session);
    fixture_close(m);
    net_unmade(n);
    model_random_close(random);
}

/* ---- refusals ---- */

static void check_refused(const struct gpt2_shape *s, const char *train, int code,
                          const char *words)
{
    struct runt_err err;
    struct net *n = (struct net *)&err;
    struct net_memory m;
    struct net_options o = {.shape = s, .n_seqs = 1, .seq_len = 4, .train = train};
    assert_int_equal(net_create(&o, &n, &err), code);
    assert_ptr_equal(n, &err);
    assert_non_null(strstr(err.msg, words));
    assert_int_equal(net_plan(&o, &m, &err), code);
}

static void patterns_and_sources_that_do_not_fit(void **state)
{
    (void)state;
    net_need_library();
    struct gpt2_shape s = wide_shape(true), untied = wide_shape(false), longer = s;
    check_refused(&s, "blk.(", RUNT_E_INVALID, "the pattern 'blk.('");
    check_refused(&s, "^nothing$", RUNT_E_INVALID, "matches the pattern '^nothing$'");
    struct runt_err err;
    struct net_weights *w = net_weights(&s, NULL);
    longer.n_ctx++;
    const struct {
        struct gpt2_shape *shape;
        int code;
        const char *words;
    } cases[] = {{&untied, RUNT_E_FORMAT, "no output.weight"},
                 {&longer, RUNT_E_INVALID, "position_embd.weight is 90 x 141"}};
    for (size_t i = 0; i < 2; i++) {
        struct net *n = wide_net(cases[i].shape, (struct net_options){0}, 1);
        assert_int_equal(net_load(n, &w->source, &err), cases[i].code);
        assert_non_null(strstr(err.msg, "weights of a test"));
        assert_non_null(strstr(err.msg, cases[i].words));
        net_unmade(n);
    }
    net_weights_free(w);
}

static void memory_may_run_out(void **state)
{
    (void)state;
    net_need_library();
    struct gpt2_shape s = wide_shape(true);
    struct pool *pool = NULL;
    assert_int_equal(pool_create(2, &pool, NULL), 0);
    struct net_options o = {
        .shape = &s, .n_seqs = 1, .seq_len = 5, .type = GEMM_BF16, .pool = pool};
    long live = mem_live();
    for (long k = 0;; k++) {
        struct runt_err err;
        struct net *n = NULL;
        mem_fail_after(k);
        int rc = net_create(&o, &n, &err);
        mem_fail_after(-1);
        net_free(n);
        assert_int_equal(mem_live(), live);
        if (!rc) {
            assert_true(k > 10);
            break;
        }
        assert_int_equal(rc, RUNT_E_NOMEM);
        assert_null(n);
    }
    pool_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_the_losses_slopes),
        cmocka_unit_test(the_same_bits_however_it_is_run),
        cmocka_unit_test(the_same_bits_by_any_kernels),
        cmocka_unit_test(a_batch_may_be_cut_anywhere),
        cmocka_unit_test(frozen_weights_have_no_gradient),
        cmocka_unit_test(masked_targets_teach_nothing),
        cmocka_unit_test(gradients_are_told_when_they_are_complete),
        cmocka_unit_test(the_loss_is_that_of_the_model_that_answers),
        cmocka_unit_test(patterns_and_sources_that_do_not_fit),
        cmocka_unit_test(memory_may_run_out),
    };
    return cmocka_run_group_tests_name("net_run", tests, NULL, NULL);
}
