/* Owns adapters at run time: from a file to what a model's products add. */
#include "model/adapter.h"
#include "model/model.h"

#include "base/err.h"

#include <math.h>

/* In the order of struct adapter's matrices: the token table, blocks, a head. */
static struct cpu_low *low_at(struct runt_model *m, size_t i)
{
    if (!i && !m->shape.tied)
        return &m->token_embd.low;
    if (!i || i > ADAPTER_PARTS * (size_t)m->shape.n_layer)
        return &m->head.low;
    struct model_block *b = &m->blocks[(i - 1) / ADAPTER_PARTS];
    struct model_linear *const parts[ADAPTER_PARTS] = {&b->qkv, &b->attn_output,
                                                       &b->ffn_up, &b->ffn_down};
    return &parts[(i - 1) % ADAPTER_PARTS]->weight.low;
}

/* All that needs memory first, so that the model changes as a whole or not at all. */
static int join_all(struct runt_model *m, const struct adapter *a, float scale,
                    struct cpu_low *lows, struct runt_err *err)
{
    int rc = 0;
    for (size_t i = 0; i < a->n_matrices && !rc; i++) {
        const struct adapter_matrix *x = &a->matrices[i];
        if (x->rank)
            rc = cpu_low_join(low_at(m, i), x->n_out, x->n_in, x->rank, x->a, x->b,
                              x->scale * (double)scale, &lows[i], err);
    }
    return rc;
}

static void adapt(struct runt_model *m, struct adapter *a, struct cpu_low *lows,
                  struct model_adapter *info)
{
    for (size_t i = 0; i < a->n_matrices; i++) {
        const struct adapter_matrix *x = &a->matrices[i];
        if (!x->rank)
            continue;
        size_t rank = lows[i].rank;
        cpu_low_free(low_at(m, i));
        *low_at(m, i) = lows[i];
        lows[i] = (struct cpu_low){0};
        m->low_rank = rank > m->low_rank ? rank : m->low_rank;
        info->rank = x->rank > info->rank ? (uint32_t)x->rank : info->rank;
        info->n_weights += x->rank * (x->n_in + x->n_out);
    }
    if (a->chat_template) {
        mem_free(m->chat_template);
        m->chat_template = a->chat_template;
        a->chat_template = NULL;
    }
}

int runt_model_adapter(runt_model *m, const char *path, float scale,
                       struct runt_err *err)
{
    struct adapter *a = NULL;
    struct cpu_low *lows = NULL;
    struct model_adapter info = {.scale = scale}, *more;
    uint64_t base = 0;
    if (!isfinite(scale))
        return err_set(err, RUNT_E_INVALID, "%s: a scale of %g", path, (double)scale);
    int rc = adapter_open(path, &m->shape, &a, err);
    if (!rc)
        rc = adapter_base(&m->file->source, &m->shape, &base, err);
    if (rc)
        goto out;
    info.other_base = a->has_base && a->base != base;
    info.print = a->print;
    info.path = mem_strdup(path);
    lows = mem_array(a->n_matrices, sizeof *lows);
    rc = info.path && lows ? join_all(m, a, scale, lows, err)
                           : err_nomem(err, "an adapter");
    if (rc)
        goto out;
    more = mem_resize(m->adapters, m->n_adapters + 1, sizeof *more);
    if (!more) {
        rc = err_nomem(err, "an adapter");
        goto out;
    }
    m->adapters = more;
    adapt(m, a, lows, &info);
    m->adapters[m->n_adapters++] = info;
    info.path = NULL;
out:
    for (size_t i = 0; lows && i < a->n_matrices; i++)
        cpu_low_free(&lows[i]);
    mem_free(lows);
    mem_free(info.path);
    adapter_close(a);
    return rc;
}

size_t runt_model_adapters(const runt_model *m, struct runt_adapter_info *out,
                           size_t max)
{
    for (size_t i = 0; i < m->n_adapters && i < max; i++) {
        const struct model_adapter *a = &m->adapters[i];
        out[i] = (struct runt_adapter_info){a->path, a->scale, a->rank, a->n_weights,
                                            a->other_base};
    }
    return m->n_adapters;
}
