/* Owns the net's memory: which weight lies where, and what a step keeps. */
#include "train/net_device.h"
#include "train/net_impl.h"

#include "base/err.h"
#include "model/model.h"

#include <regex.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { ALIGN = 16 }; /* floats: a cache line */

static size_t round_up(size_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

/* The order in which gradients become complete is the reverse of: the rest, then blocks
 * from the last to the first.  A block's weights lie together. */
static int rank_of(const char *name, uint32_t n_layer)
{
    unsigned layer;
    return sscanf(name, "blk.%u.", &layer) == 1 ? (int)layer : (int)n_layer;
}

int net_pattern(const char *pattern, regex_t *out, struct runt_err *err)
{
    int bad = regcomp(out, pattern, REG_EXTENDED | REG_NOSUB);
    if (!bad)
        return 0;
    char why[128];
    regerror(bad, out, why, sizeof why);
    return err_set(err, RUNT_E_INVALID, "the pattern '%s': %s", pattern, why);
}

static int freeze(struct net *n, struct runt_err *err)
{
    regex_t re;
    size_t n_trained = 0;
    if (!n->o.train)
        return 0;
    int rc = net_pattern(n->o.train, &re, err);
    if (rc)
        return rc;
    for (size_t p = 0; p < n->n_params; p++) {
        n->params[p].frozen = regexec(&re, n->params[p].desc.name, 0, NULL, 0) != 0;
        n_trained += !n->params[p].frozen;
    }
    regfree(&re);
    return n_trained ? 0
                     : err_set(err, RUNT_E_INVALID,
                               "no weight's name matches the pattern '%s'", n->o.train);
}

/* Trained weights first, block by block. */
static void place(struct net *n)
{
    size_t at = 0;
    for (int frozen = 0; frozen < 2; frozen++) {
        for (int rank = 0; rank <= (int)n->shape.n_layer; rank++)
            for (size_t p = 0; p < n->n_params; p++) {
                struct net_param *q = &n->params[p];
                if (q->frozen != frozen ||
                    rank_of(q->desc.name, n->shape.n_layer) != rank)
                    continue;
                q->at = at;
                at += round_up(q->desc.n_rows * q->desc.n_cols);
            }
        if (!frozen)
            n->n_trained = at;
    }
    n->n_weights = at;
}

/* Hands out parts of one block of memory; counts them where there is none. */
struct cutter {
    unsigned char *base;
    size_t used;
};

static void *cut(struct cutter *c, size_t count, size_t size)
{
    size_t at = c->used;
    c->used +=
        round_up((count * size + sizeof(float) - 1) / sizeof(float)) * sizeof(float);
    return c->base ? c->base + at : NULL;
}

static void cut_block(struct cutter *c, const struct gpt2_shape *s, size_t rows,
                      size_t rank, struct net_block_acts *a)
{
    a->stat1 = cut(c, rows * 2, sizeof(float));
    a->qkv = cut(c, rows * 3 * s->n_embd, sizeof(float));
    a->attn = cut(c, rows * s->n_embd, sizeof(float));
    a->lse = cut(c, rows * s->n_head, sizeof(float));
    a->mid = cut(c, rows * s->n_embd, sizeof(float));
    a->stat2 = cut(c, rows * 2, sizeof(float));
    a->up = cut(c, rows * s->n_ff, sizeof(float));
    for (int i = 0; i < NET_LORA_PARTS; i++)
        a->low[i] = cut(c, rows * rank, sizeof(float));
}

/* All activations of N tokens. */
static size_t cut_all(struct net *n, unsigned char *base, size_t *work)
{
    struct cutter c = {.base = base};
    const struct gpt2_shape *s = &n->shape;
    size_t rows = n->o.n_seqs * n->o.seq_len, rank = n->o.lora.rank;
    n->x = cut(&c, (s->n_layer + 1) * rows * s->n_embd, sizeof(float));
    for (uint32_t l = 0; l < s->n_layer; l++)
        if (n->o.recompute && l)
            n->acts[l] = n->acts[0];
        else
            cut_block(&c, s, rows, rank, &n->acts[l]);
    n->stat = cut(&c, rows * 2, sizeof(float));
    n->low_embed = cut(&c, rows * rank, sizeof(float));
    size_t kept = c.used, ff = s->n_ff > 3 * s->n_embd ? s->n_ff : 3 * s->n_embd;
    n->norm = cut(&c, rows * s->n_embd, sizeof(float));
    n->wide = cut(&c, rows * ff, sizeof(float));
    n->wide2 = cut(&c, rows * ff, sizeof(float));
    n->dx = cut(&c, rows * s->n_embd, sizeof(float));
    n->dnorm = cut(&c, rows * s->n_embd, sizeof(float));
    n->dlow = cut(&c, rows * rank, sizeof(float));
    n->low_head = cut(&c, n->chunk * rank, sizeof(float));
    n->logits = cut(&c, n->chunk * s->n_vocab, sizeof(float));
    n->losses = cut(&c, rows, sizeof(double));
    *work = c.used - kept;
    return c.used;
}

static int describe(struct net *n, const struct net_options *o, struct runt_err *err)
{
    enum { LOGITS = 13 << 20 };
    if (o->device && o->lora.rank)
        return err_set(err, RUNT_E_UNSUPPORTED,
                       "adapters are trained on the processor, not on a GPU");
    n->o = *o;
    n->shape = *o->shape;
    n->n_own = n->n_params = model_n_tensors(&n->shape);
    n->params = mem_array(3 * n->n_own, sizeof *n->params);
    n->descs = mem_array(n->n_own, sizeof *n->descs);
    n->acts = mem_array(n->shape.n_layer, sizeof *n->acts);
    if (!n->params || !n->descs || !n->acts)
        return err_nomem(err, "a model to train");
    for (size_t p = 0; p < n->n_own; p++) {
        struct tensor_desc *d = &n->descs[p];
        d->fmt = fmt_find(FMT_F32);
        model_tensor_at(&n->shape, p, d->name, &d->n_dims, &d->n_cols, &d->n_rows);
        n->params[p].desc = *d;
    }
    int rc = n->o.lora.rank ? net_lora_describe(n, err) : freeze(n, err);
    if (rc)
        return rc;
    place(n);
    /* Logits are made for as many tokens at a time as 52 MB hold, 64 at least. */
    size_t rows = o->n_seqs * o->seq_len;
    n->chunk = LOGITS / n->shape.n_vocab;
    n->chunk = n->chunk < 64 ? 64 : n->chunk;
    n->chunk = n->chunk > rows ? rows : n->chunk;
    return 0;
}

/* Numbers of the largest activation that enters a product. */
static size_t largest_operand(const struct net *n)
{
    size_t rows = n->o.n_seqs * n->o.seq_len, ff = n->shape.n_ff;
    ff = ff > 3 * (size_t)n->shape.n_embd ? ff : 3 * (size_t)n->shape.n_embd;
    size_t logits = n->chunk * n->shape.n_vocab;
    return rows * ff > logits ? rows * ff : logits;
}

static void measure(struct net *n, struct net_memory *m)
{
    size_t work, all = cut_all(n, NULL, &work);
    bool narrow = n->o.type == GEMM_BF16;
    m->weights = n->n_weights * sizeof(float);
    m->narrow = narrow ? n->n_weights * sizeof(uint16_t) : 0;
    m->gradients = n->n_trained * sizeof(float);
    m->moments = 2 * m->gradients;
    m->activations = all - work;
    m->work = work + grad_cpu_bytes(pool_n_threads(n->o.pool), n->o.type, n->o.seq_len,
                                    largest_operand(n));
    m->total =
        m->weights + m->narrow + m->gradients + m->moments + m->activations + m->work;
}

int net_plan(const struct net_options *o, struct net_memory *out, struct runt_err *err)
{
    struct net n = {0};
    int rc = describe(&n, o, err);
    if (!rc && o->device)
        o->device->measure(&n, out);
    else if (!rc)
        measure(&n, out);
    mem_free(n.params);
    mem_free(n.descs);
    mem_free(n.acts);
    return rc;
}

static int source_rows(const struct tensor_source *src, size_t i, uint64_t row,
                       uint64_t n_rows, float *out, struct runt_err *err)
{
    (void)err;
    const struct net *n =
        (const struct net *)((const char *)src - offsetof(struct net, source));
    const struct net_param *p = &n->params[i];
    memcpy(out, n->w + p->at + row * p->desc.n_cols,
           n_rows * p->desc.n_cols * sizeof *out);
    net_lora_merge(n, i, row, n_rows, out);
    return 0;
}

/* The weights alone: what a device has not. */
static int take_copy(struct net *n, struct runt_err *err)
{
    n->w = mem_huge(n->n_weights * sizeof *n->w);
    if (!n->w)
        return err_nomem(err, "a copy of the weights");
    memset(n->w, 0, n->n_weights * sizeof *n->w);
    return n->o.device->create(n, err);
}

static int take_memory(struct net *n, struct runt_err *err)
{
    struct net_memory m;
    size_t work;
    char line[96];
    measure(n, &m);
    snprintf(line, sizeof line, "training (%zu MB in all; --memory shows the plan)",
             m.total / 1000000 + 1);
    n->w = mem_huge(m.weights);
    n->g = mem_huge(m.gradients);
    if (m.narrow)
        n->h = mem_huge(m.narrow);
    if (!n->w || !n->g || (m.narrow && !n->h) ||
        arena_init(&n->arena, cut_all(n, NULL, &work)))
        return err_nomem(err, line);
    memset(n->w, 0, m.weights);
    memset(n->g, 0, m.gradients);
    cut_all(n, n->arena.base, &work);
    return grad_cpu_init(&n->cpu, n->o.pool, n->o.type, n->o.seq_len,
                         largest_operand(n), err);
}

int net_create(const struct net_options *o, struct net **out, struct runt_err *err)
{
    struct net *n = mem_zalloc(sizeof *n);
    if (!n)
        return err_nomem(err, "a model to train");
    int rc = describe(n, o, err);
    if (!rc)
        rc = o->device ? take_copy(n, err) : take_memory(n, err);
    if (rc) {
        net_free(n);
        return rc;
    }
    n->source =
        (struct tensor_source){"the trained weights", n->n_own, n->descs, source_rows};
    *out = n;
    return 0;
}

void net_free(struct net *n)
{
    if (!n)
        return;
    if (n->on_device)
        n->o.device->destroy(n);
    grad_cpu_free(&n->cpu);
    arena_free(&n->arena);
    mem_free(n->w);
    mem_free(n->g);
    mem_free(n->h);
    mem_free(n->params);
    mem_free(n->descs);
    mem_free(n->acts);
    mem_free(n);
}

void net_narrow(struct net *n, unsigned i, size_t from, size_t to)
{
    size_t begin, end;
    if (!n->h)
        return;
    pool_range(to - from, ALIGN, i, n->cpu.n_threads, &begin, &end);
    n->cpu.kern->to_bf16(end - begin, n->w + from + begin, n->h + from + begin);
}

static void narrow_all(void *ctx, unsigned i, unsigned n_threads)
{
    struct net *n = ctx;
    (void)n_threads;
    net_narrow(n, i, 0, n->n_weights);
}

int net_filled(struct net *n, struct runt_err *err)
{
    if (n->o.device)
        return n->o.device->put(n, err);
    pool_run(n->o.pool, narrow_all, n);
    return 0;
}

int net_fetch(const struct net *n, struct runt_err *err)
{
    return n->o.device ? n->o.device->get(n, err) : 0;
}

int net_check(const struct net *n, struct runt_err *err)
{
    return n->o.device ? n->o.device->check(n, err) : 0;
}

double net_peak(const struct net *n)
{
    return n->o.device ? n->o.device->peak(n->o.device) : grad_cpu_peak(&n->cpu);
}

void net_describe(const struct net *n, char *out, size_t size)
{
    if (n->o.device)
        snprintf(out, size, "%s", n->o.device->name);
    else
        snprintf(out, size, "%s on the processor", gemm_name(n->cpu.gemm, n->o.type));
}

int net_load(struct net *n, const struct tensor_source *src, struct runt_err *err)
{
    for (size_t p = 0; p < n->n_own; p++) {
        const struct net_param *q = &n->params[p];
        size_t i = 0;
        while (i < src->n_tensors && strcmp(src->tensors[i].name, q->desc.name))
            i++;
        if (i == src->n_tensors)
            return err_set(err, RUNT_E_FORMAT, "%s: there is no %s", src->name,
                           q->desc.name);
        const struct tensor_desc *d = &src->tensors[i];
        if (d->n_rows != q->desc.n_rows || d->n_cols != q->desc.n_cols)
            return err_set(err, RUNT_E_INVALID,
                           "%s: %s is %llu x %llu, but the model to train wants "
                           "%llu x %llu",
                           src->name, d->name, (unsigned long long)d->n_rows,
                           (unsigned long long)d->n_cols,
                           (unsigned long long)q->desc.n_rows,
                           (unsigned long long)q->desc.n_cols);
        int rc = src->rows(src, i, 0, d->n_rows, n->w + q->at, err);
        if (rc)
            return rc;
    }
    net_lora_begin(n);
    return net_filled(n, err);
}

/* Weights that do not learn take part in two of three products. */
double net_flops(const struct net *n, size_t seq_len)
{
    const struct gpt2_shape *s = &n->shape;
    double sum = 6.0 * s->n_layer * s->n_embd * (double)(seq_len + 1);
    for (size_t p = 0; p < n->n_params; p++) {
        const struct net_param *q = &n->params[p];
        bool looked_up = !strcmp(q->desc.name, "position_embd.weight") ||
                         (!strcmp(q->desc.name, "token_embd.weight") && !s->tied);
        if (q->desc.n_dims == 2 && !looked_up)
            sum += (q->frozen ? 4.0 : 6.0) * (double)q->desc.n_rows *
                   (double)q->desc.n_cols;
    }
    return sum;
}
