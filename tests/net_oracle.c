#include "net_oracle.h"

#include "train/optim.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

const struct tolerance exact = {1e-6, 1e-4}, coarse = {2e-2, 2e-2},
                       coarse_and_odd = {2e-2, 3e-2};

void oracle_near(const char *what, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s is %.9g, not %.9g (within %.2g)", what, got, want, tolerance);
}

double oracle_number(const json_t *o, const char *key)
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
            oracle_near(name, (double)got[i],
                        json_number_value(json_array_get(want, i)), tolerance * scale);
        return;
    }
    const json_t *at = json_object_get(want, "at"),
                 *value = json_object_get(want, "value");
    assert_true(json_array_size(at) > 0);
    double l2 = oracle_number(want, "l2");
    oracle_near(name, net_l2(got, n), l2,
                (l2_tolerance > 0 ? l2_tolerance : tolerance) * l2);
    for (size_t i = 0; i < json_array_size(at); i++) {
        size_t k = (size_t)json_integer_value(json_array_get(at, i));
        assert_true(k < n);
        oracle_near(name, (double)got[k], json_number_value(json_array_get(value, i)),
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

void oracle_gradients(const struct net *n, const json_t *want, double tolerance)
{
    float *g = net_gradients(n);
    assert_int_equal(json_object_size(want), count_trained(n));
    for (size_t p = 0; p < n->n_params; p++) {
        const struct net_param *q = &n->params[p];
        if (q->frozen)
            continue;
        check_tensor(q->desc.name, json_object_get(want, q->desc.name), g + q->at,
                     net_size(q), tolerance, 0);
    }
    mem_free(g);
}

/* Biases of keys have a gradient of rounding alone, and AdamW makes steps of it. */
static void check_weights(const struct net *n, const json_t *want, double tolerance)
{
    assert_int_equal(net_fetch(n, NULL), 0);
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

void oracle_step(struct net *n, const struct tokens *t, const json_t *want,
                 struct tolerance tolerance)
{
    struct net_batch b = batch_of(t);
    double loss = oracle_number(want, "loss"), got = net_run(n, &b) * (double)b.weight;
    oracle_near("the loss", got, loss, tolerance.loss * loss);
    oracle_gradients(n, json_object_get(want, "gradients"), tolerance.gradient);
}

/* A float32 sum of 4,096 exponentials of which one is 1 is 2e-6 low: that is the error
 * of a loss, and shows where a model knows the batch by heart and its loss is next to
 * 0. */
static const double low = 5e-6;
/* AdamW's steps have the size of the rate however small a gradient is, so rounding of
 * small ones shows in the next gradients: more than in the losses. */
static const double norm_tolerance = 5e-4;

void oracle_adamw(struct net *n, const struct tokens *t, const json_t *want,
                  double tolerance)
{
    const json_t *losses = json_object_get(want, "loss"),
                 *norms = json_object_get(want, "norm");
    struct optim_options o = {.lr = oracle_number(want, "lr"),
                              .beta1 = oracle_number(want, "beta1"),
                              .beta2 = oracle_number(want, "beta2"),
                              .eps = oracle_number(want, "eps"),
                              .weight_decay = oracle_number(want, "weight_decay"),
                              .clip = oracle_number(want, "clip_norm")};
    struct optim *optim = NULL;
    struct net_batch b = batch_of(t);
    size_t n_steps = json_array_size(losses);
    assert_true(n_steps > 0 && json_array_size(norms) == n_steps);
    assert_int_equal(optim_create(&o, n, &optim, NULL), 0);
    for (size_t s = 0; s < n_steps; s++) {
        double loss = json_number_value(json_array_get(losses, s));
        double norm = json_number_value(json_array_get(norms, s));
        oracle_near("a step's loss", net_run(n, &b) * (double)b.weight, loss,
                    tolerance * loss + low);
        double got = optim_norm(optim);
        oracle_near("a step's norm", got, norm, norm_tolerance * norm);
        optim_step(optim, s, got);
    }
    b.learn = false;
    double after = oracle_number(want, "loss_after");
    oracle_near("the loss after", net_run(n, &b) * (double)b.weight, after,
                tolerance * after + low);
    check_weights(n, json_object_get(want, "weights"), tolerance);
    optim_free(optim);
}

/* ---- trained models ---- */

struct bundle bundle_open(struct net_options o, const char *folder, const json_t *batch)
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

void bundle_close(struct bundle *t)
{
    net_unmade(t->net);
    hf_close(t->checkpoint);
    json_decref(t->all);
}

/* ---- the odd one ---- */

struct odd odd_open(void)
{
    struct odd o = {.all = oracle()};
    o.oracle = json_object_get(o.all, "odd");
    const json_t *s = json_object_get(o.oracle, "sizes");
    o.shape = (struct gpt2_shape){.n_layer = (uint32_t)oracle_number(s, "n_layer"),
                                  .n_head = (uint32_t)oracle_number(s, "n_head"),
                                  .n_embd = (uint32_t)oracle_number(s, "n_embd"),
                                  .n_ff = (uint32_t)oracle_number(s, "n_ff"),
                                  .n_ctx = (uint32_t)oracle_number(s, "n_ctx"),
                                  .n_vocab = (uint32_t)oracle_number(s, "n_vocab"),
                                  .eps = (float)oracle_number(o.oracle, "norm_eps")};
    o.weights = net_weights(&o.shape, json_object_get(o.oracle, "weights"));
    o.tokens = tokens_of(json_object_get(o.oracle, "batch"));
    return o;
}

struct net *odd_net(const struct odd *o, struct net_options options)
{
    options.shape = &o->shape;
    options.n_seqs = options.n_seqs ? options.n_seqs : o->tokens.n_seqs;
    options.seq_len = options.seq_len ? options.seq_len : o->tokens.seq_len;
    return net_made(&options, 2, &o->weights->source);
}

void odd_close(struct odd *o)
{
    net_weights_free(o->weights);
    json_decref(o->all);
}

/* Batches of different sizes, each with a weight of its own, one after another. */
void oracle_several(struct net_options options)
{
    struct odd o = odd_open();
    const json_t *want = json_object_get(o.oracle, "scaled"),
                 *batches = json_object_get(want, "batches"),
                 *scales = json_object_get(want, "scales"),
                 *losses = json_object_get(want, "losses");
    options.n_seqs = 3;
    options.seq_len = 11;
    struct net *n = odd_net(&o, options);
    assert_int_equal(json_array_size(batches), 2);
    for (size_t i = 0; i < 2; i++) {
        struct tokens t = tokens_of(json_array_get(batches, i));
        struct net_batch b = batch_of(&t);
        double loss = json_number_value(json_array_get(losses, i));
        b.weight *= (float)json_number_value(json_array_get(scales, i));
        oracle_near("a batch's loss", net_run(n, &b) / (double)t.n_targets, loss,
                    1e-6 * loss);
    }
    oracle_gradients(n, json_object_get(want, "gradients"), exact.gradient);
    net_unmade(n);
    odd_close(&o);
}
