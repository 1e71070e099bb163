/* A training step against oracles: this project's own (tools/gen_train_oracle.py,
 * double precision, in every checkout) and PyTorch's where RUNT_TEST_DATA has it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "net_oracle.h"
#include "train/optim.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the bundled model ---- */

static void gradients_of_the_bundled_model(void **state)
{
    (void)state;
    net_need_library();
    struct bundle t = bundle_open((struct net_options){.type = GEMM_F32}, NULL, NULL);
    oracle_step(t.net, &t.tokens, t.oracle, exact);
    bundle_close(&t);
}

static void gradients_of_the_bundled_model_in_bf16(void **state)
{
    (void)state;
    net_need_library();
    struct bundle t = bundle_open((struct net_options){.type = GEMM_BF16}, NULL, NULL);
    oracle_step(t.net, &t.tokens, t.oracle, coarse);
    bundle_close(&t);
}

static void adamw_on_the_bundled_model(void **state)
{
    (void)state;
    net_need_library();
    struct bundle t = bundle_open((struct net_options){.type = GEMM_F32}, NULL, NULL);
    oracle_adamw(t.net, &t.tokens, json_object_get(t.oracle, "adamw"), 1e-4);
    bundle_close(&t);
}

/* ---- the odd one ---- */

static void gradients_of_the_odd_model(void **state)
{
    (void)state;
    net_need_library();
    for (int type = GEMM_F32; type <= GEMM_BF16; type++) {
        struct odd o = odd_open();
        struct net *n = odd_net(&o, (struct net_options){.type = (enum gemm_type)type});
        oracle_step(n, &o.tokens, o.oracle, type == GEMM_F32 ? exact : coarse_and_odd);
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
        struct net *n = odd_net(&o, (struct net_options){.type = GEMM_F32});
        oracle_step(n, &o.tokens, o.oracle, exact);
        net_unmade(n);
        odd_close(&o);
    }
    if (kept)
        setenv("RUNT_GEMM", kept, 1);
    else
        unsetenv("RUNT_GEMM");
    mem_free(kept);
}

static void gradients_of_several_batches_add_up(void **state)
{
    (void)state;
    net_need_library();
    oracle_several((struct net_options){.type = GEMM_F32});
}

static void adamw_on_the_odd_model(void **state)
{
    (void)state;
    net_need_library();
    struct odd o = odd_open();
    struct net *n = odd_net(&o, (struct net_options){.type = GEMM_F32});
    oracle_adamw(n, &o.tokens, json_object_get(o.oracle, "adamw"), 1e-4);
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
                                  .lora = {(size_t)oracle_number(want, "rank"),
                                           (float)oracle_number(want, "alpha"), targets,
                                           1}};
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
        oracle_step(n, &o.tokens, want, type == GEMM_F32 ? exact : coarse_and_odd);
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
    oracle_adamw(n, &o.tokens, json_object_get(want, "adamw"), 1e-4);
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
    double scale = net_largest(g, net_size(q)), l2 = oracle_number(want, "l2");
    assert_true(json_array_size(index) > 0);
    oracle_near(name, net_l2(g, net_size(q)), l2, 5e-4 * l2);
    for (size_t i = 0; i < json_array_size(index); i++) {
        size_t k = (size_t)json_integer_value(json_array_get(index, i));
        assert_true(k < net_size(q));
        if (in_out) /* row: input, column: output */
            k = k % q->desc.n_rows * q->desc.n_cols + k / q->desc.n_rows;
        oracle_near(name, (double)g[k], json_number_value(json_array_get(value, i)),
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
    double loss = oracle_number(gradient, "loss"),
           got = net_run(t.net, &b) * (double)b.weight;
    oracle_near("the loss", got, loss, 1e-6 * loss);
    assert_int_equal(json_object_size(json_object_get(gradient, "tensors")),
                     t.net->n_params);
    for (size_t p = 0; p < t.net->n_params; p++)
        check_pytorch_tensor(t.net, &t.net->params[p],
                             json_object_get(gradient, "tensors"));
    struct optim_options o = {.lr = oracle_number(adamw, "lr"),
                              .beta1 = json_number_value(json_array_get(betas, 0)),
                              .beta2 = json_number_value(json_array_get(betas, 1)),
                              .eps = oracle_number(adamw, "eps"),
                              .weight_decay = 0.1,
                              .clip = oracle_number(adamw, "clip_norm")};
    struct optim *optim = NULL;
    assert_int_equal(optim_create(&o, t.net, &optim, NULL), 0);
    assert_int_equal(json_array_size(steps), 10);
    for (size_t s = 0; s < 10; s++) {
        const json_t *want = json_array_get(steps, s);
        double norm = json_number_value(json_array_get(want, 1));
        if (s)
            got = net_run(t.net, &b) * (double)b.weight;
        loss = json_number_value(json_array_get(want, 0));
        oracle_near("a step's loss", got, loss, 1e-4 * loss);
        double mine = optim_norm(optim);
        oracle_near("a step's norm", mine, norm, 5e-4 * norm);
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
