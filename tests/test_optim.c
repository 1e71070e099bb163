/* The learning rate's schedule, clipping, and which weights a step changes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "net_fixture.h"
#include "train/optim.h"

#include <math.h>
#include <string.h>

static void near(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%.12g, not %.12g", got, want);
}

/* ---- the schedule ---- */

static void the_corners_of_the_schedule(void **state)
{
    (void)state;
    struct optim_options o = {.lr = 3e-4, .min_lr = 3e-5, .warmup = 10, .steps = 111};
    for (int s = OPTIM_CONSTANT; s <= OPTIM_COSINE; s++) {
        o.schedule = (enum optim_schedule)s;
        bool falls = s != OPTIM_CONSTANT;
        near(optim_rate(&o, 0), 3e-5, 1e-18); /* lr / warmup */
        near(optim_rate(&o, 4), 1.5e-4, 1e-18);
        near(optim_rate(&o, 9), 3e-4, 1e-18); /* the last of the warmup */
        near(optim_rate(&o, 10), 3e-4, 1e-18);
        near(optim_rate(&o, 60), falls ? 1.65e-4 : 3e-4, 1e-15); /* half way */
        near(optim_rate(&o, 110), falls ? 3e-5 : 3e-4, 1e-15);   /* the last */
        near(optim_rate(&o, 111), falls ? 3e-5 : 3e-4, 1e-15);   /* beyond */
        near(optim_rate(&o, 1000000), falls ? 3e-5 : 3e-4, 1e-15);
    }
    o.schedule = OPTIM_LINEAR;
    near(optim_rate(&o, 35), 3e-4 - 2.7e-4 / 4, 1e-15);
    o.schedule = OPTIM_COSINE;
    near(optim_rate(&o, 35), 3e-5 + 2.7e-4 * (1 + sqrt(0.5)) / 2, 1e-15);
    for (uint64_t step = 10; step < 110; step++) {
        o.schedule = OPTIM_LINEAR;
        near(optim_rate(&o, step) - optim_rate(&o, step + 1), 2.7e-6, 1e-15);
        o.schedule = OPTIM_COSINE;
        assert_true(optim_rate(&o, step) > optim_rate(&o, step + 1));
    }
}

static void schedules_without_a_warmup_or_an_end(void **state)
{
    (void)state;
    for (int s = OPTIM_CONSTANT; s <= OPTIM_COSINE; s++) {
        struct optim_options o = {.lr = 2, .schedule = (enum optim_schedule)s};
        o.steps = 5;
        near(optim_rate(&o, 0), 2, 0);
        near(optim_rate(&o, 4), s == OPTIM_CONSTANT ? 2 : 0, 1e-15);
        o.steps = 1; /* the only step is the first */
        near(optim_rate(&o, 0), 2, 0);
        o.steps = 4; /* all of it warmup, or all but one */
        o.warmup = 4;
        near(optim_rate(&o, 0), 0.5, 0);
        near(optim_rate(&o, 3), 2, 0);
        o.warmup = 3;
        near(optim_rate(&o, 3), 2, 0);
        o.warmup = 9; /* longer than the run */
        near(optim_rate(&o, 3), 8.0 / 9, 1e-15);
        o.warmup = o.steps = 0;
        assert_true(isfinite(optim_rate(&o, 0)) && isfinite(optim_rate(&o, 7)));
    }
}

/* ---- a step ---- */

static struct net *small(const char *train, enum gemm_type type)
{
    struct gpt2_shape s = {.n_vocab = 21,
                           .n_ctx = 9,
                           .n_embd = 10,
                           .n_head = 2,
                           .n_layer = 2,
                           .n_ff = 33,
                           .eps = 1e-5f,
                           .tied = true};
    struct net_weights *w = net_weights(&s, NULL);
    struct net *n = net_made(
        &(struct net_options){
            .shape = &s, .n_seqs = 1, .seq_len = 9, .train = train, .type = type},
        2, &w->source);
    net_weights_free(w);
    return n;
}

static const struct optim_options usual = {
    .lr = 0.01, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1};

static struct optim *made(const struct optim_options *o, struct net *n)
{
    struct optim *p = NULL;
    assert_int_equal(optim_create(o, n, &p, NULL), 0);
    return p;
}

/* Without a gradient a step is decay alone: of matrices, embeddings among them. */
static void matrices_decay_and_vectors_do_not(void **state)
{
    (void)state;
    net_need_library();
    struct net *n = small(NULL, GEMM_F32);
    struct optim *o = made(&usual, n);
    float *before = mem_array(n->n_weights, sizeof *before);
    memcpy(before, n->w, n->n_weights * sizeof *before);
    optim_step(o, 0, optim_norm(o));
    for (size_t p = 0; p < n->n_params; p++) {
        const struct net_param *q = &n->params[p];
        bool matrix =
            strstr(q->desc.name, "embd") ||
            (strstr(q->desc.name, ".weight") && !strstr(q->desc.name, "norm"));
        for (size_t i = 0; i < net_size(q); i++)
            assert_true(n->w[q->at + i] == before[q->at + i] * (matrix ? 0.999f : 1));
    }
    mem_free(before);
    optim_free(o);
    net_unmade(n);
}

/* The first step of Adam is lr against the gradient's sign, whatever its size. */
static void a_step_changes_what_is_trained(void **state)
{
    (void)state;
    net_need_library();
    struct net *n = small("ffn_up|^position", GEMM_BF16);
    struct optim_options options = usual;
    options.weight_decay = 0;
    struct optim *o = made(&options, n);
    float *before = mem_array(n->n_weights, sizeof *before);
    uint16_t *narrow = mem_array(n->n_weights, sizeof *narrow);
    memcpy(before, n->w, n->n_weights * sizeof *before);
    memcpy(narrow, n->h, n->n_weights * sizeof *narrow);
    size_t n_changed = 0;
    for (size_t p = 0; p < n->n_params; p++)
        for (size_t i = 0; !n->params[p].frozen && i < net_size(&n->params[p]); i++)
            n->g[n->params[p].at + i] = i % 2 ? 3.0f : -0.001f;
    optim_step(o, 0, optim_norm(o));
    for (size_t p = 0; p < n->n_params; p++) {
        const struct net_param *q = &n->params[p];
        for (size_t i = q->at; i < q->at + net_size(q); i++) {
            uint16_t h;
            n->cpu.kern->to_bf16(1, n->w + i, &h);
            assert_int_equal(n->h[i], h);
            if (q->frozen) {
                assert_true(n->w[i] == before[i]);
                assert_int_equal(n->h[i], narrow[i]);
                continue;
            }
            n_changed++;
            near((double)(n->w[i] - before[i]), (i - q->at) % 2 ? -0.01 : 0.01, 1e-6);
            assert_true(n->g[i] == 0);
        }
    }
    assert_int_equal(n_changed, 2 * (33 * 10 + 33) + 9 * 10);
    mem_free(before);
    mem_free(narrow);
    optim_free(o);
    net_unmade(n);
}

/* Clipping scales gradients, which m shows after one step: (1 - beta1) of them. */
static void the_norm_and_clipping(void **state)
{
    (void)state;
    net_need_library();
    const double clips[] = {0, 0.5, 1e9};
    for (size_t c = 0; c < 3; c++) {
        struct net *n = small(NULL, GEMM_F32);
        struct optim_options options = usual;
        options.clip = clips[c];
        struct optim *o = made(&options, n);
        near(optim_norm(o), 0, 0);
        size_t some = 0;
        for (size_t p = 0; p < n->n_params; p++, some++) /* the last of every tensor */
            n->g[n->params[p].at + net_size(&n->params[p]) - 1] = 2;
        double norm = optim_norm(o);
        near(norm, 2 * sqrt((double)some), 1e-6);
        optim_step(o, 0, norm);
        double scale = clips[c] > 0 && clips[c] < norm ? clips[c] / norm : 1;
        const struct net_param *q = net_find(n, "blk.1.ffn_down.bias");
        near((double)o->m[q->at + 9], 0.1 * 2 * scale, 1e-6);
        near((double)o->v[q->at + 9], 0.05 * 4 * scale * scale, 1e-6);
        near((double)o->m[q->at + 8], 0, 0);
        near(optim_norm(o), 0, 0);
        optim_free(o);
        net_unmade(n);
    }
}

/* More numbers than the parts that it is summed in, and an odd rest. */
static void the_norm_of_many(void **state)
{
    (void)state;
    net_need_library();
    double want = 0, got[3];
    struct gpt2_shape s = {.n_vocab = 4999,
                           .n_ctx = 3,
                           .n_embd = 42,
                           .n_head = 2,
                           .n_layer = 1,
                           .n_ff = 5,
                           .eps = 1e-5f,
                           .tied = true};
    struct net_weights *w = net_weights(&s, NULL);
    for (unsigned threads = 1; threads <= 3; threads++) {
        struct net *n =
            net_made(&(struct net_options){.shape = &s, .n_seqs = 1, .seq_len = 3},
                     threads, &w->source);
        struct optim *o = made(&usual, n);
        assert_true(o->n_parts > 3);
        memcpy(n->g, n->w, n->n_trained * sizeof *n->g);
        want = net_l2(n->g, n->n_trained);
        got[threads - 1] = optim_norm(o);
        optim_free(o);
        net_unmade(n);
    }
    near(got[0] / want, 1, 1e-7);
    assert_true(got[1] == got[0] && got[2] == got[0]);
    net_weights_free(w);
}

static void memory_may_run_out(void **state)
{
    (void)state;
    net_need_library();
    struct net *n = small(NULL, GEMM_F32);
    long live = mem_live();
    for (long k = 0;; k++) {
        struct runt_err err;
        struct optim *o = NULL;
        mem_fail_after(k);
        int rc = optim_create(&usual, n, &o, &err);
        mem_fail_after(-1);
        optim_free(o);
        assert_int_equal(mem_live(), live);
        if (!rc) {
            assert_int_equal(k, 6);
            break;
        }
        assert_int_equal(rc, RUNT_E_NOMEM);
        assert_null(o);
    }
    net_unmade(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_corners_of_the_schedule),
        cmocka_unit_test(schedules_without_a_warmup_or_an_end),
        cmocka_unit_test(matrices_decay_and_vectors_do_not),
        cmocka_unit_test(a_step_changes_what_is_trained),
        cmocka_unit_test(the_norm_and_clipping),
        cmocka_unit_test(the_norm_of_many),
        cmocka_unit_test(memory_may_run_out),
    };
    return cmocka_run_group_tests_name("optim", tests, NULL, NULL);
}
