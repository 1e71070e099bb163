/* A training step against oracles: this project's own (tools/gen_train_oracle.py,
 * double precision, in every checkout) and PyTorch's where RUNT_TEST_DATA has it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "import/import.h"
#include "net_fixture.h"
#include "train/optim.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How far from a double's result a float's may be: of the loss, of a gradient's largest
 * element.  Sums of 15 numbers in bfloat16 leave more than those of 128. */
struct tolerance {
    double loss, gradient;
};
static const struct tolerance exact = {1e-6, 1e-4}, coarse = {2e-2, 2e-2},
                              coarse_and_odd = {2e-2, 3e-2};

static void near(const char *what, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s is %.9g, not %.9g (within %.2g)", what, got, want, tolerance);
}

static double number(const json_t *o, const char *key)
{
    const json_t *x = json_object_get(o, key);
    assert_true(json_is_number(x));
    return json_number_value(x);
}

static json_t *oracle(void)
{
    return net_json(net_source_root(), "tests/data/train_oracle.json");
}

/* ---- one tensor ---- */

/* Either every number, or {"l2", "at", "value"}; l2_tolerance 0: as the others. */
static void check_tensor(const char *name, const json_t *want, const float *got,
                         size_t n, double tolerance, double l2_tolerance)
{
    double scale = net_largest(got, n);
    if (json_is_array(want)) {
        assert_int_equal(json_array_size(want), n);
        for (size_t i = 0; i < n; i++)
            near(name, (double)got[i], json_number_value(json_array_get(want, i)),
                 tolerance * scale);
        return;
    }
    const json_t *at = json_object_get(want, "at"),
                 *value = json_object_get(want, "value");
    assert_true(json_array_size(at) > 0);
    double l2 = number(want, "l2");
    near(name, net_l2(got, n), l2, (l2_tolerance > 0 ? l2_tolerance : tolerance) * l2);
    for (size_t i = 0; i < json_array_size(at); i++) {
        size_t k = (size_t)json_integer_value(json_array_get(at, i));
        assert_true(k < n);
        near(name, (double)got[k], json_number_value(json_array_get(value, i)),
             tolerance * scale);
    }
}

static size_t count_trained(const struct net *n)
{
    size_t count = 0;
    for (size_t p = 0; p < n->n_params; p++)
        count += !n->params[p].frozen;
    return count;
}

static void check_gradients(const struct net *n, const json_t *want, double tolerance)
{
    assert_int_equal(json_object_size(want), count_trained(n));
    for (size_t p = 0; p < n->n_params; p++) {
        const struct net_param *q = &n->params[p];
        if (q->frozen)
            continue;
        check_tensor(q->desc.name, json_object_get(want, q->desc.name), n->g + q->at,
                     net_size(q), tolerance, 0);
    }
}

/* Biases of keys have a gradient of rounding alone, and AdamW makes steps of it. */
static void check_weights(const struct net *n, const json_t *want, double tolerance)
{
    assert_int_equal(json_object_size(want), count_trained(n));
    for (size_t p = 0; p < n->n_params; p++) {
        const struct net_param *q = &n->params[p];
        if (q->frozen)
            continue;
        check_tensor(q->desc.name, json_object_get(want, q->desc.name), n->w + q->at,
                     net_size(q), tolerance,
                     strstr(q->desc.name, "attn_qkv.bias") ? 1e-2 : 0);
    }
}

/* ---- a step, and some ---- */

static void check_step(struct net *n, const struct tokens *t, const json_t *want,
                       struct tolerance tolerance)
{
    struct net_batch b = batch_of(t);
    double loss = number(want, "loss"), got = net_run(n, &b) * (double)b.weight;
    near("the loss", got, loss, tolerance.loss * loss);
    check_gradients(n, json_object_get(want, "gradients"), tolerance.gradient);
}

/* A float32 sum of 4,096 exponentials of which one is 1 is 2e-6 low: that is the error
 * of a loss, and shows where a model knows the batch by heart and its loss is next to
 * 0. */
static const double low = 5e-6;
/* AdamW's steps have the size of the rate however small a gradient is, so rounding of
 * small ones shows in the next gradients: more than in the losses. */
static const double norm_tolerance = 5e-4;

static void check_adamw(struct net *n, const struct tokens *t, const json_t *want,
                        double tolerance)
{
    const json_t *losses = json_object_get(want, "loss"),
                 *norms = json_object_get(want, "norm");
    struct optim_options o = {.lr = number(want, "lr"),
                              .beta1 = number(want, "beta1"),
                              .beta2 = number(want, "beta2"),
                              .eps = number(want, "eps"),
                              .weight_decay = number(want, "weight_decay"),
                              .clip = number(want, "clip_norm")};
    struct optim *optim = NULL;
    struct net_batch b = batch_of(t);
    size_t n_steps = json_array_size(losses);
    assert_true(n_steps > 0 && json_array_size(norms) == n_steps);
    assert_int_equal(optim_create(&o, n, &optim, NULL), 0);
    for (size_t s = 0; s < n_steps; s++) {
        double loss = json_number_value(json_array_get(losses, s));
        double norm = json_number_value(json_array_get(norms, s));
        near("a step's loss", net_run(n, &b) * (double)b.weight, loss,
             tolerance * loss + low);
        double got = optim_norm(optim);
        near("a step's norm", got, norm, norm_tolerance * norm);
        optim_step(optim, s, got);
    }
    b.learn = false;
    double after = number(want, "loss_after");
    near("the loss after", net_run(n, &b) * (double)b.weight, after,
         tolerance * after + low);
    check_weights(n, json_object_get(want, "weights"), tolerance);
    optim_free(optim);
}

/* ---- trained models: tests/data/mini, or tiny-gpt2 in a folder of data ---- */

struct bundle {
    json_t *all, *oracle;
    struct hf_checkpoint *checkpoint;
    struct tokens tokens;
    struct net *net;
};

static struct bundle bundle_open(struct net_options o, const char *folder,
                                 const json_t *batch)
{
    struct bundle t = {.all = oracle()};
    char dir[512];
    struct runt_err err;
    t.oracle = json_object_get(t.all, "mini");
    t.tokens = tokens_of(batch ? batch : json_object_get(t.oracle, "batch"));
    snprintf(dir, sizeof dir, "%s/%s", folder ? folder : net_source_root(),
             folder ? "models/tiny-gpt2"
                    : json_string_value(json_object_get(t.oracle, "model")));
    if (hf_open(dir, &t.checkpoint, &err))
        fail_msg("%s", err.msg);
    o.shape = hf_shape(t.checkpoint);
    o.n_seqs = t.tokens.n_seqs;
    o.seq_len = t.tokens.seq_len;
    t.net = net_made(&o, 2, hf_source(t.checkpoint));
    return t;
}

static void bundle_close(struct bundle *t)
{
    net_unmade(t->net);
    hf_close(t->checkpoint);
    json_decref(t->all);
}

static void gradients_of_the_bundled_model(void **state)
{
    (void)state;
    net_need_library();
    struct bundle t = bundle_open((struct net_options){.type = GEMM_F32}, NULL, NULL);
    check_step(t.net, &t.tokens, t.oracle, exact);
    bundle_close(&t);
}

static void gradients_of_the_bundled_model_in_bf16(void **state)
{
    (void)state;
    net_need_library();
    struct bundle t = bundle_open((struct net_options){.type = GEMM_BF16}, NULL, NULL);
    check_step(t.net, &t.tokens, t.oracle, coarse);
    bundle_close(&t);
}

static void adamw_on_the_bundled_model(void **state)
{
    (void)state;
    net_need_library();
    struct bundle t = bundle_open((struct net_options){.type = GEMM_F32}, NULL, NULL);
    check_adamw(t.net, &t.tokens, json_object_get(t.oracle, "adamw"), 1e-4);
    bundle_close(&t);
}

/* ---- the odd one ---- */

struct odd {
    json_t *all, *oracle;
    struct gpt2_shape shape;
    struct net_weights *weights;
    struct tokens tokens;
};

static struct odd odd_open(void)
{
    struct odd o = {.all = oracle()};
    o.oracle = json_object_get(o.all, "odd");
    const json_t *s = json_object_get(o.oracle, "sizes");
    o.shape = (struct gpt2_shape){.n_layer = (uint32_t)number(s, "n_layer"),
                                  .n_head = (uint32_t)number(s, "n_head"),
                                  .n_embd = (uint32_t)number(s, "n_embd"),
                                  .n_ff = (uint32_t)number(s, "n_ff"),
                                  .n_ctx = (uint32_t)number(s, "n_ctx"),
                                  .n_vocab = (uint32_t)number(s, "n_vocab"),
                                  .eps = (float)number(o.oracle, "norm_eps")};
    o.weights = net_weights(&o.shape, json_object_get(o.oracle, "weights"));
    o.tokens = tokens_of(json_object_get(o.oracle, "batch"));
    return o;
}

static struct net *odd_net(const struct odd *o, enum gemm_type type, size_t n_seqs,
                           size_t seq_len)
{
    struct net_options options = {
        .shape = &o->shape, .n_seqs = n_seqs, .seq_len = seq_len, .type = type};
    return net_made(&options, 2, &o->weights->source);
}

static void odd_close(struct odd *o)
{
    net_weights_free(o->weights);
    json_decref(o->all);
}

static void gradients_of_the_odd_model(void **state)
{
    (void)state;
    net_need_library();
    for (int type = GEMM_F32; type <= GEMM_BF16; type++) {
        struct odd o = odd_open();
        struct net *n =
            odd_net(&o, (enum gemm_type)type, o.tokens.n_seqs, o.tokens.seq_len);
        check_step(n, &o.tokens, o.oracle, type == GEMM_F32 ? exact : coarse_and_odd);
        net_unmade(n);
        odd_close(&o);
    }
}

/* Whichever library makes the products. */
static void gradients_of_the_odd_model_by_each_library(void **state)
{
    (void)state;
    net_need_library();
    const char *was = getenv("RUNT_GEMM");
    char *kept = was ? mem_strdup(was) : NULL;
    static const char *const names[] = {"onednn", "openblas"};
    for (size_t i = 0; i < 2; i++) {
        struct gemm *g = NULL;
        setenv("RUNT_GEMM", names[i], 1);
        if (gemm_open(&g, NULL)) {
            print_message("%s is not here\n", names[i]);
            continue;
        }
        gemm_close(g);
        struct odd o = odd_open();
        struct net *n = odd_net(&o, GEMM_F32, o.tokens.n_seqs, o.tokens.seq_len);
        check_step(n, &o.tokens, o.oracle, exact);
        net_unmade(n);
        odd_close(&o);
    }
    if (kept)
        setenv("RUNT_GEMM", kept, 1);
    else
        unsetenv("RUNT_GEMM");
    mem_free(kept);
}

/* Batches of different sizes, each with a weight of its own, one after another. */
static void gradients_of_several_batches_add_up(void **state)
{
    (void)state;
    net_need_library();
    struct odd o = odd_open();
    const json_t *want = json_object_get(o.oracle, "scaled"),
                 *batches = json_object_get(want, "batches"),
                 *scales = json_object_get(want, "scales"),
                 *losses = json_object_get(want, "losses");
    struct net *n = odd_net(&o, GEMM_F32, 3, 11);
    assert_int_equal(json_array_size(batches), 2);
    for (size_t i = 0; i < 2; i++) {
        struct tokens t = tokens_of(json_array_get(batches, i));
        struct net_batch b = batch_of(&t);
        double loss = json_number_value(json_array_get(losses, i));
        b.weight *= (float)json_number_value(json_array_get(scales, i));
        near("a batch's loss", net_run(n, &b) / (double)t.n_targets, loss, 1e-6 * loss);
    }
    check_gradients(n, json_object_get(want, "gradients"), exact.gradient);
    net_unmade(n);
    odd_close(&o);
}

static void adamw_on_the_odd_model(void **state)
{
    (void)state;
    net_need_library();
    struct odd o = odd_open();
    struct net *n = odd_net(&o, GEMM_F32, o.tokens.n_seqs, o.tokens.seq_len);
    check_adamw(n, &o.tokens, json_object_get(o.oracle, "adamw"), 1e-4);
    net_unmade(n);
    odd_close(&o);
}

/* ---- adapters of the odd one ---- */

/* The oracle's adapters in place of those that a net begins with. */
static void take_adapters(struct net *n, const json_t *weights)
{
    for (size_t p = n->n_own; p < n->n_params; p++) {
        const struct net_param *q = &n->params[p];
        const json_t *a = json_object_get(weights, q->desc.name);
        assert_int_equal(json_array_size(a), net_size(q));
        for (size_t i = 0; i < net_size(q); i++)
            n->w[q->at + i] = (float)json_number_value(json_array_get(a, i));
    }
    if (n->h)
        net_narrow(n, 0, 0, n->n_weights);
}

static struct net *adapted_net(const struct odd *o, const json_t *want,
                               enum gemm_type type)
{
    const char *targets = json_string_value(json_object_get(want, "targets"));
    struct net_options options = {.shape = &o->shape,
                                  .n_seqs = o->tokens.n_seqs,
                                  .seq_len = o->tokens.seq_len,
                                  .type = type,
                                  .lora = {(size_t)number(want, "rank"),
                                           (float)number(want, "alpha"), targets, 1}};
    struct net *n = net_made(&options, 1, &o->weights->source);
    take_adapters(n, json_object_get(want, "weights"));
    return n;
}

static void adapters_of_the_odd_model(void **state)
{
    (void)state;
    net_need_library();
    for (int type = GEMM_F32; type <= GEMM_BF16; type++) {
        struct odd o = odd_open();
        const json_t *want = json_object_get(o.all, "lora");
        struct net *n = adapted_net(&o, want, (enum gemm_type)type);
        check_step(n, &o.tokens, want, type == GEMM_F32 ? exact : coarse_and_odd);
        net_unmade(n);
        odd_close(&o);
    }
}

static void adamw_on_adapters(void **state)
{
    (void)state;
    net_need_library();
    struct odd o = odd_open();
    const json_t *want = json_object_get(o.all, "lora");
    struct net *n = adapted_net(&o, want, GEMM_F32);
    check_adamw(n, &o.tokens, json_object_get(want, "adamw"), 1e-4);
    net_unmade(n);
    odd_close(&o);
}

/* ---- PyTorch ---- */

/* blk.N.attn_qkv.weight and so on, as Hugging Face has it. */
static void hf_name(const char *name, char *out, size_t n)
{
    static const char *const pairs[][2] = {
        {"attn_norm", "ln_1"},          {"attn_qkv", "attn.c_attn"},
        {"attn_output", "attn.c_proj"}, {"ffn_norm", "ln_2"},
        {"ffn_up", "mlp.c_fc"},         {"ffn_down", "mlp.c_proj"},
        {"token_embd", "wte"},          {"position_embd", "wpe"},
        {"output_norm", "ln_f"}};
    unsigned layer = 0;
    int skipped = 0;
    bool block = sscanf(name, "blk.%u.%n", &layer, &skipped) == 1;
    const char *part = name + (block ? skipped : 0), *end = strrchr(name, '.');
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (strlen(pairs[i][0]) == (size_t)(end - part) &&
            !strncmp(part, pairs[i][0], (size_t)(end - part))) {
            if (block)
                snprintf(out, n, "h.%u.%s%s", layer, pairs[i][1], end);
            else
                snprintf(out, n, "%s%s", pairs[i][1], end);
            return;
        }
    fail_msg("no name for %s", name);
}

/* Its norms are sums of squares in float32, which lose up to 1e-4 in a large tensor. */
static void check_pytorch_tensor(const struct net *n, const struct net_param *q,
                                 const json_t *tensors)
{
    char name[96];
    const float *g = n->g + q->at;
    hf_name(q->desc.name, name, sizeof name);
    const json_t *want = json_object_get(tensors, name),
                 *index = json_object_get(want, "index"),
                 *value = json_object_get(want, "value");
    bool in_out = strstr(name, ".c_") && q->desc.n_dims == 2;
    double scale = net_largest(g, net_size(q)), l2 = number(want, "l2");
    assert_true(json_array_size(index) > 0);
    near(name, net_l2(g, net_size(q)), l2, 5e-4 * l2);
    for (size_t i = 0; i < json_array_size(index); i++) {
        size_t k = (size_t)json_integer_value(json_array_get(index, i));
        assert_true(k < net_size(q));
        if (in_out) /* row: input, column: output */
            k = k % q->desc.n_rows * q->desc.n_cols + k / q->desc.n_rows;
        near(name, (double)g[k], json_number_value(json_array_get(value, i)),
             1e-4 * scale);
    }
}

static void pytorch_gradients_and_adamw(void **state)
{
    (void)state;
    const char *data = getenv("RUNT_TEST_DATA");
    if (!data)
        skip();
    net_need_library();
    json_t *all = net_json(data, "oracle/tiny-gpt2.json");
    const json_t *gradient = json_object_get(all, "gradient"),
                 *adamw = json_object_get(all, "adamw"),
                 *betas = json_object_get(adamw, "betas"),
                 *steps = json_object_get(adamw, "loss_and_norm_before_clip");
    struct bundle t =
        bundle_open((struct net_options){.type = GEMM_F32}, data, gradient);
    struct net_batch b = batch_of(&t.tokens);
    double loss = number(gradient, "loss"), got = net_run(t.net, &b) * (double)b.weight;
    near("the loss", got, loss, 1e-6 * loss);
    assert_int_equal(json_object_size(json_object_get(gradient, "tensors")),
                     t.net->n_params);
    for (size_t p = 0; p < t.net->n_params; p++)
        check_pytorch_tensor(t.net, &t.net->params[p],
                             json_object_get(gradient, "tensors"));
    struct optim_options o = {.lr = number(adamw, "lr"),
                              .beta1 = json_number_value(json_array_get(betas, 0)),
                              .beta2 = json_number_value(json_array_get(betas, 1)),
                              .eps = number(adamw, "eps"),
                              .weight_decay = 0.1,
                              .clip = number(adamw, "clip_norm")};
    struct optim *optim = NULL;
    assert_int_equal(optim_create(&o, t.net, &optim, NULL), 0);
    assert_int_equal(json_array_size(steps), 10);
    for (size_t s = 0; s < 10; s++) {
        const json_t *want = json_array_get(steps, s);
        double norm = json_number_value(json_array_get(want, 1));
        if (s)
            got = net_run(t.net, &b) * (double)b.weight;
        loss = json_number_value(json_array_get(want, 0));
        near("a step's loss", got, loss, 1e-4 * loss);
        double mine = optim_norm(optim);
        near("a step's norm", mine, norm, 5e-4 * norm);
        optim_step(optim, s, mine);
    }
    optim_free(optim);
    bundle_close(&t);
    json_decref(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_of_the_bundled_model),
        cmocka_unit_test(gradients_of_the_bundled_model_in_bf16),
        cmocka_unit_test(adamw_on_the_bundled_model),
        cmocka_unit_test(gradients_of_the_odd_model),
        cmocka_unit_test(gradients_of_the_odd_model_by_each_library),
        cmocka_unit_test(gradients_of_several_batches_add_up),
        cmocka_unit_test(adamw_on_the_odd_model),
        cmocka_unit_test(adapters_of_the_odd_model),
        cmocka_unit_test(adamw_on_adapters),
        cmocka_unit_test(pytorch_gradients_and_adamw),
    };
    return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
