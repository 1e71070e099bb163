/* Owns adapters while they are trained: which matrices have one, what it begins as, and
 * what it makes of its matrix. */
#include "train/net_impl.h"

#include "base/err.h"
#include "base/rng.h"
#include "model/adapter.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The token table and a head of its own are adapted where they are named. */
static bool is_target(const struct net_param *p, const regex_t *re)
{
    const char *name = p->desc.name;
    if (p->desc.n_dims != 2 || !strcmp(name, "position_embd.weight"))
        return false;
    return re ? !regexec(re, name, 0, NULL, 0) : !strncmp(name, "blk.", 4);
}

static void describe_one(struct net *n, const char *name, const char *kind,
                         uint64_t n_rows, uint64_t n_cols)
{
    struct net_param *p = &n->params[n->n_params++];
    p->desc = (struct tensor_desc){
        .fmt = fmt_find(FMT_F32), .n_cols = n_cols, .n_rows = n_rows, .n_dims = 2};
    snprintf(p->desc.name, sizeof p->desc.name, "%.50s.%s", name, kind);
}

static int describe_all(struct net *n, const regex_t *re, struct runt_err *err)
{
    size_t rank = n->o.lora.rank;
    for (size_t p = 0; p < n->n_own; p++) {
        struct net_param *q = &n->params[p];
        const struct tensor_desc *d = &q->desc;
        q->frozen = true;
        if (!is_target(q, re))
            continue;
        uint64_t most = d->n_rows < d->n_cols ? d->n_rows : d->n_cols;
        if (rank > most)
            return err_set(err, RUNT_E_INVALID,
                           "adapters of rank %zu: %s is %llu x %llu, so that %llu is "
                           "the highest",
                           rank, d->name, (unsigned long long)d->n_rows,
                           (unsigned long long)d->n_cols, (unsigned long long)most);
        q->lora = n->n_params;
        describe_one(n, d->name, "lora_a", rank, d->n_cols);
        describe_one(n, d->name, "lora_b", d->n_rows, rank);
    }
    return n->n_params > n->n_own ? 0
                                  : err_set(err, RUNT_E_INVALID,
                                            "no matrix's name matches the pattern '%s'",
                                            n->o.lora.targets);
}

int net_lora_describe(struct net *n, struct runt_err *err)
{
    const char *targets = n->o.lora.targets;
    regex_t re;
    n->scale = n->o.lora.alpha / (float)n->o.lora.rank;
    int rc = targets ? net_pattern(targets, &re, err) : 0;
    if (rc)
        return rc;
    rc = describe_all(n, targets ? &re : NULL, err);
    if (targets)
        regfree(&re);
    return rc;
}

/* With b = 0 the model begins as it is.  The deviation of a is that of a new layer of
 * random weights as PyTorch makes it, 1 / sqrt(3 in).  Every row has a generator of its
 * own: a matrix begins alike whatever else is adapted. */
void net_lora_begin(struct net *n)
{
    for (size_t p = 0; p < n->n_own; p++) {
        const struct net_param *a = &n->params[n->params[p].lora], *b = a + 1;
        if (!n->params[p].lora)
            continue;
        size_t cols = a->desc.n_cols;
        float deviation = 1 / sqrtf(3 * (float)cols);
        for (size_t r = 0; r < a->desc.n_rows; r++) {
            struct rng rng;
            rng_seed(&rng,
                     n->o.lora.seed * 0x9e3779b97f4a7c15u + ((uint64_t)p << 20) + r);
            for (size_t k = 0; k < cols; k++)
                n->w[a->at + r * cols + k] = deviation * rng_normal(&rng);
        }
        memset(n->w + b->at, 0, b->desc.n_rows * b->desc.n_cols * sizeof *n->w);
    }
}

bool net_lora_at(const struct net *n, size_t p, struct adapter_matrix *out)
{
    const struct net_param *q = &n->params[p], *a = &n->params[q->lora], *b = a + 1;
    if (!q->lora)
        return false;
    *out = (struct adapter_matrix){.n_in = (size_t)q->desc.n_cols,
                                   .n_out = (size_t)q->desc.n_rows,
                                   .rank = (size_t)a->desc.n_rows,
                                   .scale = (double)n->scale,
                                   .a = n->w + a->at,
                                   .b = n->w + b->at};
    memcpy(out->name, q->desc.name, sizeof out->name);
    return true;
}

void net_lora_merge(const struct net *n, size_t p, uint64_t row, uint64_t n_rows,
                    float *w)
{
    struct adapter_matrix m;
    if (net_lora_at(n, p, &m))
        adapter_merge(m.n_in, n_rows, m.rank, m.scale, m.a, m.b + row * m.rank, w);
}
