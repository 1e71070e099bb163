#include "net_fixture.h"

#include "base/js.h"
#include "base/rng.h"
#include "model/model.h"
#include "train/net_device.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void net_need_library(void)
{
    struct gemm *g = NULL;
    struct runt_err err;
    int rc = gemm_open(&g, &err);
    gemm_close(g);
    if (rc == RUNT_E_UNSUPPORTED) {
        print_message("%s\n", err.msg);
        skip();
    }
    if (rc)
        fail_msg("%s", err.msg);
}

const char *net_source_root(void)
{
    const char *root = getenv("RUNT_SOURCE_ROOT");
    return root ? root : ".";
}

json_t *net_json(const char *folder, const char *name)
{
    char path[512];
    json_t *o = NULL;
    struct runt_err err;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (js_parse_file(path, &o, &err))
        fail_msg("%s", err.msg);
    return o;
}

/* ---- weights ---- */

/* Every row has a generator of its own.  Gains are about 1; nothing is zero or alike,
 * so that no gradient is. */
static int random_rows(const struct tensor_source *s, size_t i, uint64_t row,
                       uint64_t n, float *out, struct runt_err *err)
{
    (void)err;
    const struct tensor_desc *d = &s->tensors[i];
    float mean = strstr(d->name, "norm.weight") ? 1 : 0;
    float deviation = d->n_dims == 1 ? 0.2f : 1.5f / sqrtf((float)d->n_cols);
    for (uint64_t r = row; r < row + n; r++) {
        struct rng rng;
        rng_seed(&rng, ((uint64_t)i << 32) + r);
        for (uint64_t k = 0; k < d->n_cols; k++)
            *out++ = mean + deviation * rng_normal(&rng);
    }
    return 0;
}

static int json_rows(const struct tensor_source *s, size_t i, uint64_t row, uint64_t n,
                     float *out, struct runt_err *err)
{
    (void)err;
    const struct net_weights *w = (const struct net_weights *)s;
    const struct tensor_desc *d = &s->tensors[i];
    const json_t *a = json_object_get(w->json, d->name);
    assert_int_equal(json_array_size(a), d->n_rows * d->n_cols);
    for (uint64_t k = 0; k < n * d->n_cols; k++)
        out[k] = (float)json_number_value(json_array_get(a, row * d->n_cols + k));
    return 0;
}

struct net_weights *net_weights(const struct gpt2_shape *s, const json_t *json)
{
    struct net_weights *w = mem_zalloc(sizeof *w);
    size_t n = model_n_tensors(s);
    assert_non_null(w);
    w->json = json;
    w->descs = mem_array(n, sizeof *w->descs);
    assert_non_null(w->descs);
    for (size_t i = 0; i < n; i++) {
        struct tensor_desc *d = &w->descs[i];
        d->fmt = fmt_find(FMT_F32);
        model_tensor_at(s, i, d->name, &d->n_dims, &d->n_cols, &d->n_rows);
    }
    w->source = (struct tensor_source){"weights of a test", n, w->descs,
                                       json ? json_rows : random_rows};
    return w;
}

void net_weights_free(struct net_weights *w)
{
    mem_free(w->descs);
    mem_free(w);
}

/* ---- batches ---- */

static void count_targets(struct tokens *t)
{
    t->n_targets = 0;
    for (size_t i = 0; i < t->n_seqs * t->seq_len; i++)
        t->n_targets += t->targets[i] >= 0;
}

static int32_t token_at(const json_t *rows, size_t row, size_t col)
{
    return (int32_t)json_integer_value(json_array_get(json_array_get(rows, row), col));
}

struct tokens tokens_of(const json_t *batch)
{
    const json_t *in = json_object_get(batch, "inputs"),
                 *targets = json_object_get(batch, "targets");
    struct tokens t = {.n_seqs = json_array_size(in),
                       .seq_len = json_array_size(json_array_get(in, 0))};
    assert_true(t.n_seqs && t.seq_len && t.n_seqs * t.seq_len <= MAX_TOKENS);
    for (size_t i = 0; i < t.n_seqs * t.seq_len; i++) {
        t.inputs[i] = token_at(in, i / t.seq_len, i % t.seq_len);
        t.targets[i] = token_at(targets, i / t.seq_len, i % t.seq_len);
    }
    count_targets(&t);
    return t;
}

struct tokens tokens_random(size_t n_seqs, size_t seq_len, uint32_t n_vocab)
{
    struct tokens t = {.n_seqs = n_seqs, .seq_len = seq_len};
    struct rng rng;
    assert_true(n_seqs * seq_len <= MAX_TOKENS);
    rng_seed(&rng, n_seqs * 1000 + seq_len);
    for (size_t i = 0; i < n_seqs * seq_len; i++) {
        t.inputs[i] = (int32_t)(rng_u64(&rng) % n_vocab);
        t.targets[i] = i % 9 == 4 ? -1 : (int32_t)(rng_u64(&rng) % n_vocab);
    }
    count_targets(&t);
    return t;
}

struct net_batch batch_of(const struct tokens *t)
{
    return (struct net_batch){.inputs = t->inputs,
                              .targets = t->targets,
                              .n_seqs = t->n_seqs,
                              .seq_len = t->seq_len,
                              .weight = 1 / (float)t->n_targets,
                              .learn = true};
}

/* ---- nets ---- */

struct net *net_made(const struct net_options *o, unsigned n_threads,
                     const struct tensor_source *weights)
{
    struct net_options own = *o;
    struct net *n = NULL;
    struct runt_err err;
    int rc = pool_create(n_threads, &own.pool, &err);
    if (!rc)
        rc = net_create(&own, &n, &err);
    if (!rc)
        rc = net_load(n, weights, &err);
    if (rc)
        fail_msg("%s", err.msg);
    return n;
}

void net_unmade(struct net *n)
{
    struct pool *pool = n->o.pool;
    net_free(n);
    pool_destroy(pool);
}

float *net_gradients(const struct net *n)
{
    struct runt_err err;
    float *g = mem_array(n->n_trained, sizeof *g);
    assert_non_null(g);
    if (!n->o.device)
        memcpy(g, n->g, n->n_trained * sizeof *g);
    else if (net_cuda_gradients(n, g, &err))
        fail_msg("%s", err.msg);
    return g;
}

const struct net_param *net_find(const struct net *n, const char *name)
{
    for (size_t p = 0; p < n->n_params; p++)
        if (!strcmp(n->params[p].desc.name, name))
            return &n->params[p];
    fail_msg("there is no %s", name);
    return NULL;
}

size_t net_size(const struct net_param *p)
{
    return p->desc.n_rows * p->desc.n_cols;
}

double net_l2(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

double net_largest(const float *x, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, fabs((double)x[i]));
    return most;
}
