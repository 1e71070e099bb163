/* Training steps on an emulated GPU (emu/emu.h) against the oracle and against this
 * processor's; what is kept, cut, frozen, stopped; and what fails. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "emu.h"
#include "net_oracle.h"
#include "train/net_device.h"
#include "train/optim.h"

#include <math.h>
#include <string.h>

static struct net_device *device_of(enum gemm_type type)
{
    struct net_device *d = NULL;
    struct runt_err err;
    if (net_cuda_open(type, &d, &err))
        fail_msg("%s", err.msg);
    return d;
}

static void device_done(struct net_device *d)
{
    d->close(d);
    const char *trouble = emu_trouble();
    if (trouble)
        fail_msg("%s", trouble);
    assert_int_equal(emu_live(), 0);
}

/* ---- the oracle ---- */

static void the_bundled_model(void **state)
{
    (void)state;
    for (int type = GEMM_F32; type <= GEMM_BF16; type++) {
        struct net_device *d = device_of((enum gemm_type)type);
        struct bundle t =
            bundle_open((struct net_options){.type = (enum gemm_type)type, .device = d},
                        NULL, NULL);
        oracle_step(t.net, &t.tokens, t.oracle, type == GEMM_F32 ? exact : coarse);
        bundle_close(&t);
        device_done(d);
    }
}

static void the_odd_model(void **state)
{
    (void)state;
    for (int type = GEMM_F32; type <= GEMM_BF16; type++) {
        struct net_device *d = device_of((enum gemm_type)type);
        struct odd o = odd_open();
        struct net *n = odd_net(
            &o, (struct net_options){.type = (enum gemm_type)type, .device = d});
        oracle_step(n, &o.tokens, o.oracle, type == GEMM_F32 ? exact : coarse_and_odd);
        net_unmade(n);
        odd_close(&o);
        device_done(d);
    }
}

static void several_batches_add_up(void **state)
{
    (void)state;
    struct net_device *d = device_of(GEMM_F32);
    oracle_several((struct net_options){.type = GEMM_F32, .device = d});
    device_done(d);
}

static void adamw_on_the_odd_model(void **state)
{
    (void)state;
    struct net_device *d = device_of(GEMM_F32);
    struct odd o = odd_open();
    struct net *n = odd_net(&o, (struct net_options){.type = GEMM_F32, .device = d});
    oracle_adamw(n, &o.tokens, json_object_get(o.oracle, "adamw"), 1e-4);
    net_unmade(n);
    odd_close(&o);
    device_done(d);
}

/* ---- this processor ---- */

/* Rows and columns fill several squares of attention and several parts of a sum, none
 * of them whole. */
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

static struct net *wide_net(const struct gpt2_shape *s, struct net_options o)
{
    struct net_weights *w = net_weights(s, NULL);
    o.shape = s;
    o.n_seqs = o.n_seqs ? o.n_seqs : SEQS;
    o.seq_len = o.seq_len ? o.seq_len : LEN;
    o.type = o.device ? o.device->type : o.type;
    struct net *n = net_made(&o, 2, &w->source);
    net_weights_free(w);
    return n;
}

static void check_gradients(const struct net *n, const float *got, const float *want,
                            double tolerance)
{
    for (size_t p = 0; p < n->n_params; p++) {
        const struct net_param *q = &n->params[p];
        double scale = net_largest(want + q->at, net_size(q));
        for (size_t i = q->at; i < q->at + net_size(q); i++)
            oracle_near(q->desc.name, (double)got[i], (double)want[i],
                        tolerance * scale);
    }
}

/* Of all gradients, each tensor's by its own size: how far they are from w's, as a root
 * of the mean square. */
static double distance(const struct net *n, const float *g, const float *want)
{
    double sum = 0;
    for (size_t p = 0; p < n->n_params; p++) {
        const struct net_param *q = &n->params[p];
        double l2 = net_l2(want + q->at, net_size(q)), off = 0;
        for (size_t i = q->at; i < q->at + net_size(q); i++)
            off += ((double)g[i] - (double)want[i]) * ((double)g[i] - (double)want[i]);
        sum += off / (l2 * l2) / (double)n->n_params;
    }
    return sqrt(sum);
}

/* In floats, the same but for the order of sums.  In bfloat16 both are off by rounding,
 * each in its own way; the GPU keeps more numbers in that form. */
static void gradients_are_the_processors(void **state)
{
    (void)state;
    net_need_library();
    for (int kind = 0; kind < 4; kind++) {
        bool narrow = kind / 2;
        struct net_device *d = device_of(narrow ? GEMM_BF16 : GEMM_F32);
        struct gpt2_shape s = wide_shape(kind % 2);
        struct net_options o = {.dropout = kind % 2 ? 0.15f : 0};
        struct tokens t = tokens_random(SEQS, LEN, s.n_vocab);
        struct net_batch b = batch_of(&t);
        b.keys = keys;
        struct net *cpu = wide_net(&s, o);
        o.device = d;
        struct net *gpu = wide_net(&s, o);
        double want = net_run(cpu, &b), got = net_run(gpu, &b);
        float *g = net_gradients(gpu);
        if (narrow) {
            o.device = NULL;
            o.type = GEMM_BF16;
            struct net *other = wide_net(&s, o);
            double loss = net_run(other, &b), theirs = distance(cpu, other->g, cpu->g);
            double ours = distance(cpu, g, cpu->g);
            print_message(
                "in bfloat16 the loss is off by %.2g (the processor's: %.2g), "
                "gradients by %.2g (%.2g)\n",
                got / want - 1, loss / want - 1, ours, theirs);
            oracle_near("the loss", got, want, 1e-3 * want);
            assert_true(ours < 2 * theirs);
            net_unmade(other);
        } else {
            oracle_near("the loss", got, want, 1e-6 * want);
            check_gradients(cpu, g, cpu->g, 2e-5);
        }
        mem_free(g);
        net_unmade(cpu);
        net_unmade(gpu);
        device_done(d);
    }
}

/* Ten steps of AdamW side by side, with clipping. */
static void ten_steps_are_the_processors(void **state)
{
    (void)state;
    net_need_library();
    struct net_device *d = device_of(GEMM_F32);
    struct gpt2_shape s = wide_shape(true);
    struct tokens t = tokens_random(1, 40, s.n_vocab);
    struct net_batch b = batch_of(&t);
    struct net *n[2];
    struct optim *optim[2];
    struct optim_options o = {.lr = 1e-3,
                              .beta1 = 0.9,
                              .beta2 = 0.95,
                              .eps = 1e-8,
                              .weight_decay = 0.1,
                              .clip = 0.5};
    b.keys = keys;
    for (int i = 0; i < 2; i++) {
        n[i] =
            wide_net(&s, (struct net_options){.dropout = 0.1f, .device = i ? d : NULL});
        assert_int_equal(optim_create(&o, n[i], &optim[i], NULL), 0);
    }
    for (uint64_t step = 0; step < 10; step++) {
        double loss[2], norm[2];
        for (int i = 0; i < 2; i++) {
            loss[i] = net_run(n[i], &b);
            norm[i] = optim_norm(optim[i]);
            optim_step(optim[i], step, norm[i]);
        }
        oracle_near("a step's loss", loss[1], loss[0], 2e-5 * loss[0]);
        oracle_near("a step's norm", norm[1], norm[0], 5e-4 * norm[0]);
    }
    assert_int_equal(net_fetch(n[1], NULL), 0);
    assert_int_equal(optim_fetch(optim[1], NULL), 0);
    for (size_t p = 0; p < n[0]->n_params; p++) {
        const struct net_param *q = &n[0]->params[p];
        /* biases of keys have a gradient of rounding alone, and AdamW makes steps of it
         */
        double tolerance = strstr(q->desc.name, "attn_qkv.bias") ? 2e-2 : 1e-3;
        double scale = net_largest(n[0]->w + q->at, net_size(q));
        for (size_t i = q->at; i < q->at + net_size(q); i++)
            oracle_near(q->desc.name, (double)n[1]->w[i], (double)n[0]->w[i],
                        tolerance * scale);
    }
    for (int i = 0; i < 2; i++) {
        optim_free(optim[i]);
        net_unmade(n[i]);
    }
    device_done(d);
}

/* ---- the same bits ---- */

struct learned {
    double loss;
    size_t n;
    float *g;
};

static struct learned learn(const struct gpt2_shape *s, struct net_options o,
                            struct net_batch b, enum gemm_type type)
{
    struct net_device *d = device_of(type);
    o.device = d;
    struct net *n = wide_net(s, o);
    struct learned l = {
        .loss = net_run(n, &b), .n = n->n_trained, .g = net_gradients(n)};
    net_unmade(n);
    device_done(d);
    return l;
}

static void check_same(struct learned a, const struct learned *b)
{
    assert_true(a.loss == b->loss);
    assert_int_equal(a.n, b->n);
    assert_memory_equal(a.g, b->g, a.n * sizeof *a.g);
    mem_free(a.g);
}

/* In whatever order blocks and threads run; whether blocks are kept or run again; in a
 * net made for larger batches. */
static void the_same_bits_however_it_is_run(void **state)
{
    (void)state;
    struct gpt2_shape s = wide_shape(true);
    struct tokens t = tokens_random(SEQS, LEN, s.n_vocab);
    struct net_batch b = batch_of(&t);
    b.keys = keys;
    for (int type = GEMM_F32; type <= GEMM_BF16; type++) {
        struct net_options o = {.dropout = type ? 0 : 0.1f};
        struct learned want = learn(&s, o, b, (enum gemm_type)type);
        emu_set_order(EMU_MIXED);
        o.recompute = true;
        check_same(learn(&s, o, b, (enum gemm_type)type), &want);
        emu_set_order(EMU_DOWN);
        o.n_seqs = SEQS + 1;
        o.seq_len = s.n_ctx;
        check_same(learn(&s, o, b, (enum gemm_type)type), &want);
        emu_set_order(EMU_UP);
        mem_free(want.g);
    }
}

/* ---- cuts, frozen weights, targets ---- */

static void logits_may_be_made_piece_by_piece(void **state)
{
    (void)state;
    struct net_device *d = device_of(GEMM_F32);
    struct gpt2_shape s = wide_shape(false);
    struct tokens t = tokens_random(SEQS, LEN, s.n_vocab);
    struct net_batch b = batch_of(&t);
    struct net *whole = wide_net(&s, (struct net_options){.device = d}),
               *cut = wide_net(&s, (struct net_options){.device = d});
    cut->chunk = 50; /* of 166 tokens */
    assert_true(net_run(whole, &b) == net_run(cut, &b));
    float *want = net_gradients(whole), *got = net_gradients(cut);
    check_gradients(whole, got, want, 2e-5);
    mem_free(want);
    mem_free(got);
    net_unmade(whole);
    net_unmade(cut);
    device_done(d);
}

static void frozen_weights_have_no_gradient(void **state)
{
    (void)state;
    static const char *const patterns[] = {
        "ffn_",           "^blk\\.1\\.",  "bias$",          "^token_embd",
        "^position_embd", "^output_norm", "blk.0.attn_norm"};
    struct net_device *d = device_of(GEMM_F32);
    struct gpt2_shape s = wide_shape(true);
    struct tokens t = tokens_random(1, 20, s.n_vocab);
    struct net_batch b = batch_of(&t);
    struct net_options o = {.dropout = 0.1f, .device = d};
    b.keys = keys;
    struct net *all = wide_net(&s, o);
    double loss = net_run(all, &b);
    float *want = net_gradients(all);
    for (size_t c = 0; c < sizeof patterns / sizeof *patterns; c++) {
        o.train = patterns[c];
        o.recompute = c % 2;
        struct net *some = wide_net(&s, o);
        assert_true(net_run(some, &b) == loss);
        float *got = net_gradients(some);
        for (size_t p = 0; p < some->n_params; p++) {
            const struct net_param *q = &some->params[p];
            if (!q->frozen)
                assert_memory_equal(got + q->at, want + all->params[p].at,
                                    net_size(q) * sizeof *got);
        }
        mem_free(got);
        net_unmade(some);
    }
    mem_free(want);
    net_unmade(all);
    device_done(d);
}

static void masked_targets_teach_nothing(void **state)
{
    (void)state;
    struct net_device *d = device_of(GEMM_BF16);
    struct gpt2_shape s = wide_shape(true);
    struct tokens t = tokens_random(1, 20, s.n_vocab);
    struct net *n = wide_net(&s, (struct net_options){.device = d});
    struct net_batch b = batch_of(&t);
    for (size_t i = 0; i < 20; i++)
        t.targets[i] = -1;
    assert_true(net_run(n, &b) == 0);
    float *g = net_gradients(n);
    for (size_t i = 0; i < n->n_trained; i++)
        assert_true(g[i] == 0);
    mem_free(g);
    net_unmade(n);
    device_done(d);
}

/* ---- evaluation ---- */

static void scores_are_the_losses(void **state)
{
    (void)state;
    struct net_device *d = device_of(GEMM_F32);
    struct gpt2_shape s = wide_shape(true);
    struct tokens t = tokens_random(SEQS, LEN, s.n_vocab);
    struct net_batch b = batch_of(&t);
    struct eval_score scores[SEQS * LEN];
    struct net *n = wide_net(&s, (struct net_options){.device = d, .forward = true}),
               *base = wide_net(&s, (struct net_options){.device = d, .forward = true});
    b.learn = false;
    double want = net_run(n, &b);
    for (int with_base = 0; with_base < 2; with_base++) {
        double sum = 0;
        n->chunk = with_base ? 50 : n->chunk;
        assert_int_equal(
            n->o.device->score(n, with_base ? base : NULL, &b, scores, NULL), 0);
        for (size_t i = 0; i < SEQS * LEN; i++) {
            sum += scores[i].nll;
            if (!with_base)
                continue;
            assert_true(fabs(scores[i].kl) < 1e-12); /* it is itself */
            assert_true(scores[i].base_nll == scores[i].nll);
            assert_true(scores[i].base_best == scores[i].best);
        }
        oracle_near("the sum of scores", sum, want, 1e-6 * want);
    }
    net_unmade(n);
    net_unmade(base);
    device_done(d);
}

/* ---- memory, and what fails ---- */

static void the_plan_is_what_is_taken(void **state)
{
    (void)state;
    for (int kind = 0; kind < 6; kind++) {
        struct net_device *d = device_of(kind % 2 ? GEMM_BF16 : GEMM_F32);
        struct gpt2_shape s = wide_shape(true);
        struct net_options o = {.shape = &s,
                                .n_seqs = SEQS,
                                .seq_len = LEN,
                                .type = d->type,
                                .device = d,
                                .recompute = kind / 2 == 1,
                                .forward = kind / 2 == 2};
        struct net_memory plan;
        struct optim *optim = NULL;
        assert_int_equal(net_plan(&o, &plan, NULL), 0);
        size_t before = emu_bytes();
        struct net *n = wide_net(&s, o);
        if (!o.forward)
            assert_int_equal(
                optim_create(&(struct optim_options){.lr = 1}, n, &optim, NULL), 0);
        size_t taken = emu_bytes() - before;
        if (plan.total != taken)
            fail_msg("%zu bytes are taken, %zu were planned", taken, plan.total);
        optim_free(optim);
        net_unmade(n);
        device_done(d);
    }
}

static void memory_may_run_out(void **state)
{
    (void)state;
    struct net_device *d = device_of(GEMM_BF16);
    struct gpt2_shape s = wide_shape(true);
    struct pool *pool = NULL;
    assert_int_equal(pool_create(1, &pool, NULL), 0);
    struct net_options o = {.shape = &s,
                            .n_seqs = 1,
                            .seq_len = 5,
                            .type = GEMM_BF16,
                            .pool = pool,
                            .device = d};
    long live = mem_live();
    for (int gpu = 0; gpu < 2; gpu++)
        for (long k = 0;; k++) {
            struct runt_err err;
            struct net *n = NULL;
            struct optim *optim = NULL;
            if (gpu)
                emu_fail("malloc", k);
            else
                mem_fail_after(k);
            int rc = net_create(&o, &n, &err);
            if (!rc)
                rc = optim_create(&(struct optim_options){.lr = 1}, n, &optim, &err);
            mem_fail_after(-1);
            emu_fail("malloc", -1);
            optim_free(optim);
            net_free(n);
            assert_int_equal(mem_live(), live);
            assert_int_equal(emu_live(), 0);
            if (!rc) {
                assert_true(k > 5);
                break;
            }
            assert_int_equal(rc, RUNT_E_NOMEM);
            if (gpu)
                assert_non_null(strstr(err.msg, "an emulated GPU"));
        }
    pool_destroy(pool);
    device_done(d);
}

/* Whichever operation of a step fails: it is told, by name, and again. */
static void a_lost_device(void **state)
{
    (void)state;
    static const char *const kinds[] = {"launch", "copy", "product"};
    struct gpt2_shape s = wide_shape(true);
    struct tokens t = tokens_random(1, 5, s.n_vocab);
    struct net_batch b = batch_of(&t);
    for (int kind = 0; kind < 3; kind++)
        for (long k = 0;; k += 7) {
            struct net_device *d = device_of(GEMM_BF16);
            struct net *n = wide_net(&s, (struct net_options){.device = d});
            struct optim *optim = NULL;
            struct runt_err err, again;
            assert_int_equal(
                optim_create(&(struct optim_options){.lr = 1}, n, &optim, NULL), 0);
            emu_fail(kinds[kind], k);
            double loss = net_run(n, &b);
            optim_step(optim, 0, optim_norm(optim));
            int rc = net_check(n, &err);
            if (rc) {
                assert_int_equal(rc, RUNT_E_IO);
                assert_non_null(strstr(err.msg, "the GPU (an emulated GPU) failed: "));
                assert_int_equal(net_check(n, &again), rc);
                assert_string_equal(err.msg, again.msg);
                assert_int_equal(net_fetch(n, NULL), rc);
                assert_int_equal(optim_fetch(optim, NULL), rc);
            } else {
                assert_true(isfinite(loss));
            }
            optim_free(optim);
            net_unmade(n);
            emu_fail("launch", -1);
            device_done(d);
            if (!rc) {
                assert_true(k > 5);
                break;
            }
        }
}

static void machines_without_a_gpu(void **state)
{
    (void)state;
    static const char *const words[] = {
        [EMU_OLD_GPU] = "compute capability 7.5", [EMU_NO_GPU] = "no GPU"};
    for (int gpu = EMU_OLD_GPU; gpu <= EMU_NO_GPU; gpu++) {
        struct net_device *d = NULL;
        struct runt_err err;
        emu_set_gpu((enum emu_gpu)gpu);
        assert_int_equal(net_cuda_open(GEMM_F32, &d, &err), RUNT_E_UNSUPPORTED);
        assert_null(d);
        assert_non_null(strstr(err.msg, words[gpu]));
        emu_set_gpu(EMU_GPU);
    }
    emu_set_memory(100000);
    struct net_device *d = device_of(GEMM_F32);
    assert_true(d->free_bytes(d) == 100000 && d->peak(d) == 0);
    emu_set_memory(0);
    device_done(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bundled_model),
        cmocka_unit_test(the_odd_model),
        cmocka_unit_test(several_batches_add_up),
        cmocka_unit_test(adamw_on_the_odd_model),
        cmocka_unit_test(gradients_are_the_processors),
        cmocka_unit_test(ten_steps_are_the_processors),
        cmocka_unit_test(the_same_bits_however_it_is_run),
        cmocka_unit_test(logits_may_be_made_piece_by_piece),
        cmocka_unit_test(frozen_weights_have_no_gradient),
        cmocka_unit_test(masked_targets_teach_nothing),
        cmocka_unit_test(scores_are_the_losses),
        cmocka_unit_test(the_plan_is_what_is_taken),
        cmocka_unit_test(memory_may_run_out),
        cmocka_unit_test(a_lost_device),
        cmocka_unit_test(machines_without_a_gpu),
    };
    return cmocka_run_group_tests_name("cuda_net", tests, NULL, NULL);
}
