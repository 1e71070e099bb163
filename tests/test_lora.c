/* Adapters while they are trained: what they begin as, finite differences, the same
 * bits however it is run, what is refused, and the weights that come of them.
 * (test_net.c has them against an oracle.) */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rng.h"
#include "net_fixture.h"
#include "train/optim.h"

#include <math.h>
#include <string.h>

/* As test_net_run.c: several tiles and blocks, none whole. */
static const struct gpt2_shape shape = {.n_vocab = 203,
                                        .n_ctx = 90,
                                        .n_embd = 141,
                                        .n_head = 3,
                                        .n_layer = 3,
                                        .n_ff = 170,
                                        .eps = 1e-5f,
                                        .tied = true};
enum { SEQS = 2, LEN = 83 };

static const uint32_t keys[MAX_SEQS] = {0x12345678, 77, 0xfffffff0, 4};

static void near(const char *what, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s: %.9g, not %.9g (within %.2g)", what, got, want, tolerance);
}

static struct net *made(struct net_options o, unsigned n_threads)
{
    struct net_weights *w = net_weights(&shape, NULL);
    o.shape = &shape;
    o.n_seqs = o.n_seqs ? o.n_seqs : SEQS;
    o.seq_len = o.seq_len ? o.seq_len : LEN;
    struct net *n = net_made(&o, n_threads, &w->source);
    net_weights_free(w);
    return n;
}

/* b begins as 0, where half of the gradients are 0: give it numbers. */
static void fill_b(struct net *n)
{
    for (size_t p = n->n_own + 1; p < n->n_params; p += 2) {
        struct rng rng;
        rng_seed(&rng, p);
        for (size_t i = 0; i < net_size(&n->params[p]); i++)
            n->w[n->params[p].at + i] = 0.2f * rng_normal(&rng);
    }
    if (n->h)
        net_narrow(n, 0, 0, n->n_weights);
}

static double loss_of(struct net *n, const struct net_batch *b)
{
    struct net_batch only = *b;
    only.learn = false;
    return net_run(n, &only) * (double)b->weight;
}

/* ---- the beginning ---- */

static void they_begin_as_nothing(void **state)
{
    (void)state;
    net_need_library();
    struct tokens t = tokens_random(SEQS, LEN, shape.n_vocab);
    struct net_batch b = batch_of(&t);
    for (int type = GEMM_F32; type <= GEMM_BF16; type++) {
        struct net_options o = {.type = (enum gemm_type)type};
        struct net *plain = made(o, 2);
        o.lora = (struct net_lora){8, 16, NULL, 5};
        struct net *with = made(o, 1), *again = made(o, 1);
        o.lora.seed = 6;
        struct net *other = made(o, 1);
        assert_true(loss_of(with, &b) == loss_of(plain, &b));
        assert_int_equal(with->n_params, plain->n_params + 2 * 4 * shape.n_layer);
        assert_memory_equal(with->w, again->w, with->n_weights * sizeof(float));
        size_t n_numbers = 0;
        double squares = 0;
        for (size_t p = with->n_own; p < with->n_params; p += 2) {
            const struct net_param *a = &with->params[p], *c = a + 1;
            assert_true(net_l2(with->w + c->at, net_size(c)) == 0);
            assert_true(
                memcmp(with->w + a->at, other->w + a->at, net_size(a) * sizeof(float)));
            double l2 = net_l2(with->w + a->at, net_size(a));
            squares += l2 * l2 * 3 * (double)a->desc.n_cols;
            n_numbers += net_size(a);
        }
        near("the variance", squares / (double)n_numbers, 1, 0.05);
        net_unmade(plain);
        net_unmade(with);
        net_unmade(again);
        net_unmade(other);
    }
}

/* ---- finite differences ---- */

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

/* Steps and tolerance as in test_net_run.c: the loss changes by 4e-3. */
static void gradients_are_the_losses_slopes(void **state)
{
    (void)state;
    net_need_library();
    struct tokens t = tokens_random(SEQS, LEN, shape.n_vocab);
    struct net_batch b = batch_of(&t);
    for (int dropped = 0; dropped < 2; dropped++) {
        struct net *n = made((struct net_options){.dropout = dropped ? 0.2f : 0,
                                                  .lora = {dropped ? 1 : 5, 7, ".", 1}},
                             2);
        fill_b(n);
        b.keys = dropped ? keys : NULL;
        net_run(n, &b);
        double worst = 0;
        for (size_t p = n->n_own; p < n->n_params; p++) {
            const struct net_param *q = &n->params[p];
            size_t size = net_size(q);
            double length = net_l2(n->g + q->at, size);
            float *d = mem_array(size, sizeof *d);
            assert_true(length > 1e-3);
            for (size_t i = 0; i < size; i++)
                d[i] = (float)((double)n->g[q->at + i] / length);
            double got = slope_along(n, &b, q, d, 2e-3 / length);
            near(q->desc.name, got, length, 1e-2 * length);
            worst = fmax(worst, fabs(got / length - 1));
            mem_free(d);
        }
        print_message("gradient and differences: %.2g apart at most\n", worst);
        net_unmade(n);
    }
}

/* ---- the same bits ---- */

struct learned {
    double loss;
    size_t n;
    float *g;
};

static struct learned learn(struct net_options o, unsigned n_threads,
                            const struct tokens *t, bool dropped)
{
    struct net_batch b = batch_of(t);
    o.dropout = dropped ? 0.15f : 0;
    o.lora = (struct net_lora){8, 16, "qkv|ffn_|^blk\\.1|^token", 3};
    b.keys = dropped ? keys : NULL;
    struct net *n = made(o, n_threads);
    fill_b(n);
    struct learned l = {.n = n->n_trained, .loss = net_run(n, &b)};
    l.g = mem_array(l.n, sizeof *l.g);
    memcpy(l.g, n->g, l.n * sizeof *l.g);
    net_unmade(n);
    return l;
}

static void check_same(struct learned got, const struct learned *want)
{
    assert_true(got.loss == want->loss);
    assert_int_equal(got.n, want->n);
    assert_memory_equal(got.g, want->g, got.n * sizeof *got.g);
    mem_free(got.g);
}

static void the_same_bits_however_it_is_run(void **state)
{
    (void)state;
    net_need_library();
    struct tokens t = tokens_random(SEQS, LEN, shape.n_vocab);
    for (int kind = 0; kind < 4; kind++) {
        struct net_options o = {.type = kind / 2 ? GEMM_BF16 : GEMM_F32};
        struct learned want = learn(o, 1, &t, kind % 2);
        for (unsigned threads = 2; threads <= 3; threads++)
            check_same(learn(o, threads, &t, kind % 2), &want);
        o.recompute = true;
        for (unsigned threads = 1; threads <= 3; threads++)
            check_same(learn(o, threads, &t, kind % 2), &want);
        o.n_seqs = SEQS + 1;
        o.seq_len = shape.n_ctx;
        check_same(learn(o, 2, &t, kind % 2), &want);
        mem_free(want.g);
    }
}

/* Gradients of sequences one by one add up to those of all: other orders of sums, 2e-5
 * of a tensor's largest. */
static void a_batch_may_be_cut(void **state)
{
    (void)state;
    net_need_library();
    struct tokens t = tokens_random(SEQS, LEN, shape.n_vocab);
    struct net_options o = {.dropout = 0.15f, .lora = {8, 16, ".", 1}};
    struct net_batch b = batch_of(&t);
    struct net *whole = made(o, 2), *cut = made(o, 2);
    b.keys = keys;
    fill_b(whole);
    fill_b(cut);
    net_run(whole, &b);
    b.n_seqs = 1;
    for (size_t i = 0; i < SEQS; i++) {
        net_run(cut, &b);
        b.inputs += LEN;
        b.targets += LEN;
        b.keys++;
    }
    for (size_t p = whole->n_own; p < whole->n_params; p++) {
        const struct net_param *q = &whole->params[p];
        double scale = net_largest(whole->g + q->at, net_size(q));
        for (size_t i = q->at; i < q->at + net_size(q); i++)
            near(q->desc.name, (double)cut->g[i], (double)whole->g[i], 2e-5 * scale);
    }
    net_unmade(whole);
    net_unmade(cut);
}

/* ---- which matrices ---- */

static void targets(void **state)
{
    (void)state;
    net_need_library();
    static const struct {
        const char *pattern;
        size_t n_adapted;
    } cases[] = {{NULL, 12},
                 {"attn_qkv", 3},
                 {"ffn_", 6},
                 {"^blk\\.2", 4},
                 {"norm|weight", 13},
                 {"_embd", 1},
                 {"blk.0.attn_output.weight", 1}};
    struct tokens t = tokens_random(SEQS, LEN, shape.n_vocab);
    struct net_batch b = batch_of(&t);
    struct net *all = made((struct net_options){.lora = {4, 4, ".", 1}}, 2);
    net_run(all, &b);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct net *n = made((struct net_options){.recompute = c % 2,
                                                  .lora = {4, 4, cases[c].pattern, 1}},
                             2);
        float *before = mem_array(n->n_weights, sizeof *before);
        memcpy(before, n->w, n->n_weights * sizeof *before);
        size_t n_adapted = 0, n_numbers = 0;
        net_run(n, &b);
        for (size_t p = 0; p < n->n_params; p++) {
            const struct net_param *q = &n->params[p];
            assert_int_equal(q->frozen, p < n->n_own);
            n_adapted += q->lora > 0;
            if (!q->lora)
                continue;
            const struct net_param *a = &n->params[q->lora], *own = a + 1;
            const struct net_param *same = &all->params[all->params[p].lora] + 1;
            n_numbers += net_size(a) + net_size(own);
            assert_int_equal(a->desc.n_cols, q->desc.n_cols);
            assert_int_equal(own->desc.n_rows, q->desc.n_rows);
            assert_int_equal(a->desc.n_rows, 4);
            assert_int_equal(own->desc.n_cols, 4);
            /* b is 0, so that a matrix learns the same whatever else is adapted */
            assert_memory_equal(n->g + own->at, all->g + same->at,
                                net_size(own) * sizeof(float));
        }
        assert_int_equal(n_adapted, cases[c].n_adapted);
        assert_true(n->n_trained >= n_numbers &&
                    n->n_trained < n_numbers + 32 * n_adapted);
        assert_memory_equal(n->w, before, n->n_weights * sizeof *before);
        mem_free(before);
        net_unmade(n);
    }
    net_unmade(all);
}

static void check_refused(struct net_lora lora, const char *words)
{
    struct runt_err err;
    struct net *n = (struct net *)&err;
    struct net_memory m;
    struct net_options o = {.shape = &shape, .n_seqs = 1, .seq_len = 4, .lora = lora};
    assert_int_equal(net_create(&o, &n, &err), RUNT_E_INVALID);
    assert_ptr_equal(n, &err);
    if (!strstr(err.msg, words))
        fail_msg("%s", err.msg);
    assert_int_equal(net_plan(&o, &m, &err), RUNT_E_INVALID);
}

static void ranks_and_patterns_that_do_not_fit(void **state)
{
    (void)state;
    net_need_library();
    check_refused((struct net_lora){142, 1, NULL, 1},
                  "rank 142: blk.0.attn_qkv.weight is "
                  "423 x 141, so that 141");
    check_refused((struct net_lora){1, 1, "(", 1}, "the pattern '('");
    check_refused((struct net_lora){1, 1, "position_embd", 1}, "'position_embd'");
    check_refused((struct net_lora){1, 1, "bias", 1}, "'bias'");
    /* the highest is no harm */
    struct tokens t = tokens_random(1, 5, shape.n_vocab);
    struct net_batch b = batch_of(&t);
    struct net *n = made((struct net_options){.lora = {141, 141, NULL, 1}}, 2);
    assert_true(isfinite(net_run(n, &b)));
    net_unmade(n);
}

/* Gradients and moments are those of the adapters alone. */
static void the_plan_of_memory(void **state)
{
    (void)state;
    net_need_library();
    struct net_memory whole, some;
    struct pool *pool = NULL;
    assert_int_equal(pool_create(1, &pool, NULL), 0);
    struct net_options o = {.shape = &shape, .n_seqs = 2, .seq_len = 50, .pool = pool};
    assert_int_equal(net_plan(&o, &whole, NULL), 0);
    o.lora = (struct net_lora){2, 2, NULL, 1};
    assert_int_equal(net_plan(&o, &some, NULL), 0);
    size_t e = shape.n_embd, f = shape.n_ff, numbers = 3 * 2 * (6 * e + 2 * (e + f));
    assert_true(some.gradients >= 4 * numbers &&
                some.gradients < 4 * numbers + 24 * 64);
    assert_int_equal(some.moments, 2 * some.gradients);
    assert_int_equal(some.weights, whole.weights + some.gradients);
    assert_true(some.total < whole.total);
    pool_destroy(pool);
}

/* ---- what comes of them ---- */

/* A step changes adapters and nothing else; with what they are then, the weights that
 * the net gives as a source, merged, make the same losses. */
static void merged_weights_make_the_same_losses(void **state)
{
    (void)state;
    net_need_library();
    struct tokens t = tokens_random(SEQS, LEN, shape.n_vocab);
    struct net_batch b = batch_of(&t);
    struct net *n =
        made((struct net_options){.lora = {8, 16, "qkv|output|up|token", 1}}, 2);
    struct optim_options options = {
        .lr = 0.01, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1};
    struct optim *o = NULL;
    float *before = mem_array(n->n_weights, sizeof *before);
    memcpy(before, n->w, n->n_weights * sizeof *before);
    double first = loss_of(n, &b);
    assert_int_equal(optim_create(&options, n, &o, NULL), 0);
    for (uint64_t step = 0; step < 5; step++) {
        net_run(n, &b);
        optim_step(o, step, optim_norm(o));
    }
    double loss = loss_of(n, &b);
    assert_true(loss < first - 0.05);
    assert_memory_equal(n->w + n->n_trained, before + n->n_trained,
                        (n->n_weights - n->n_trained) * sizeof *before);
    assert_int_equal(n->source.n_tensors, n->n_own);
    struct net_options plain = n->o;
    plain.lora.rank = 0;
    struct net *merged = net_made(&plain, 1, &n->source);
    /* Sums of 141 to 170 products in another order, each loss of about 5. */
    near("the loss", loss_of(merged, &b), loss, 2e-6 * loss);
    for (size_t p = 0; p < n->n_own; p++) {
        const struct net_param *q = &n->params[p], *m = &merged->params[p];
        bool same =
            !memcmp(n->w + q->at, merged->w + m->at, net_size(q) * sizeof(float));
        assert_int_equal(same, !q->lora);
    }
    /* row by row as all at once */
    for (size_t i = 0; i < n->n_own; i++) {
        const struct net_param *m = &merged->params[i];
        float row[3 * 141];
        for (size_t r = 0; r < m->desc.n_rows; r++) {
            assert_int_equal(n->source.rows(&n->source, i, r, 1, row, NULL), 0);
            assert_memory_equal(row, merged->w + m->at + r * m->desc.n_cols,
                                m->desc.n_cols * sizeof *row);
        }
    }
    mem_free(before);
    optim_free(o);
    net_unmade(merged);
    net_unmade(n);
}

static void memory_may_run_out(void **state)
{
    (void)state;
    net_need_library();
    struct pool *pool = NULL;
    assert_int_equal(pool_create(2, &pool, NULL), 0);
    struct net_options o = {.shape = &shape,
                            .n_seqs = 1,
                            .seq_len = 5,
                            .pool = pool,
                            .lora = {3, 3, "qkv", 1}};
    long live = mem_live();
    for (long k = 0;; k++) {
        struct runt_err err;
        struct net *n = NULL;
        mem_fail_after(k);
        int rc = net_create(&o, &n, &err);
        mem_fail_after(-1);
        net_free(n);
        assert_int_equal(mem_live(), live);
        if (!rc)
            break;
        assert_int_equal(rc, RUNT_E_NOMEM);
    }
    pool_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_begin_as_nothing),
        cmocka_unit_test(gradients_are_the_losses_slopes),
        cmocka_unit_test(the_same_bits_however_it_is_run),
        cmocka_unit_test(a_batch_may_be_cut),
        cmocka_unit_test(targets),
        cmocka_unit_test(ranks_and_patterns_that_do_not_fit),
        cmocka_unit_test(the_plan_of_memory),
        cmocka_unit_test(merged_weights_make_the_same_losses),
        cmocka_unit_test(memory_may_run_out),
    };
    return cmocka_run_group_tests_name("lora", tests, NULL, NULL);
}
