/* Owns evaluation's way to a device. */
#include "train/net_eval.h"

#include "base/err.h"

#include <string.h>

enum { TOKENS = 8192 }; /* at once: enough work for a GPU */

struct net_eval {
    struct eval_scorer scorer;
    struct net *net, *base;
    int32_t *inputs, *targets; /* [n_seqs][window - 1] */
};

static int score(void *ctx, const int32_t *tokens, size_t stride, size_t n,
                 size_t window, struct eval_score *scores, struct runt_err *err)
{
    struct net_eval *e = ctx;
    size_t len = window - 1;
    for (size_t i = 0; i < n; i++) {
        memcpy(e->inputs + i * len, tokens + i * stride, len * sizeof *tokens);
        memcpy(e->targets + i * len, tokens + i * stride + 1, len * sizeof *tokens);
    }
    struct net_batch b = {
        .inputs = e->inputs, .targets = e->targets, .n_seqs = n, .seq_len = len};
    return e->net->o.device->score(e->net, e->base, &b, scores, err);
}

static int load(struct net_device *d, const runt_model *m, size_t n_seqs, size_t len,
                struct net **out, struct runt_err *err)
{
    struct net_options o = {.shape = &m->shape,
                            .n_seqs = n_seqs,
                            .seq_len = len,
                            .type = d->type,
                            .device = d,
                            .forward = true};
    int rc = net_create(&o, out, err);
    return rc ? rc : net_load(*out, &m->file->source, err);
}

int net_eval_open(struct net_device *d, const runt_model *m, const runt_model *base,
                  size_t window, struct net_eval **out, struct runt_err *err)
{
    struct net_eval *e = mem_zalloc(sizeof *e);
    size_t len = window > 1 ? window - 1 : 1, n_seqs = TOKENS / window;
    n_seqs = n_seqs ? n_seqs : 1;
    if (!e)
        return err_nomem(err, "evaluation");
    e->scorer = (struct eval_scorer){TOKENS, score, e};
    e->inputs = mem_array(n_seqs * len, sizeof *e->inputs);
    e->targets = mem_array(n_seqs * len, sizeof *e->targets);
    int rc = e->inputs && e->targets ? 0 : err_nomem(err, "evaluation");
    if (!rc)
        rc = load(d, m, n_seqs, len, &e->net, err);
    if (!rc && base)
        rc = load(d, base, n_seqs, len, &e->base, err);
    if (rc)
        net_eval_close(e);
    else
        *out = e;
    return rc;
}

const struct eval_scorer *net_eval_scorer(const struct net_eval *e)
{
    return &e->scorer;
}

void net_eval_close(struct net_eval *e)
{
    if (!e)
        return;
    net_free(e->net);
    net_free(e->base);
    mem_free(e->inputs);
    mem_free(e->targets);
    mem_free(e);
}
