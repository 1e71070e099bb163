/* Owns the order of operations of a micro-batch: forward as in src/model/gpt2.c, then
 * backward, every thread from top to bottom.  grad_sync stands where a thread reads
 * what others made, or writes over what others may still read. */
#include "train/net_device.h"
#include "train/net_names.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

const char *const net_part_names[NET_N_PARTS] = {
    [NET_FORWARD] = "products, forward",
    [NET_INPUTS] = "products, d activations",
    [NET_WEIGHTS] = "products, d weights",
    [NET_ATTENTION] = "attention",
    [NET_ATTENTION_BACK] = "attention, backward",
    [NET_NORMS] = "norms",
    [NET_GELU] = "GELU again",
    [NET_BIASES] = "d biases",
    [NET_LOSS] = "loss",
    [NET_DROPOUT] = "dropout",
    [NET_EMBEDDINGS] = "embeddings",
    [NET_WAIT] = "waiting for threads",
    [NET_OUTSIDE] = "optimizer, data, files",
};

struct run {
    struct net *n;
    const struct net_batch *b;
    size_t rows, width, ff;
    uint32_t first;  /* the lowest block that the backward pass must reach */
    bool embeddings; /* are they trained? */
    double loss;
};

/* What the first thread has done since the last mark is put down to a part. */
static void mark(const struct run *r, unsigned i, enum net_part part)
{
    struct timespec t;
    if (i)
        return;
    clock_gettime(CLOCK_MONOTONIC, &t);
    double now = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    if (r->n->mark > 0)
        r->n->seconds[part] += now - r->n->mark;
    r->n->mark = now;
}

static void sync(const struct run *r, unsigned i)
{
    if (!i && r->b->poll)
        r->b->poll(r->b->ctx);
    grad_sync(&r->n->cpu, i);
    mark(r, i, NET_WAIT);
}

static void product(const struct run *r, unsigned i, enum net_part part,
                    enum gemm_form form, size_t m, size_t n, size_t k,
                    struct grad_matrix a, struct grad_matrix b, bool add, float *c,
                    const struct grad_then *then)
{
    size_t terms = k + (then ? then->more_k : 0);
    grad_product(&r->n->cpu, i, form, m, n, k, a, b, add, c, then);
    if (!i)
        r->n->flops[part] += 2.0 * (double)m * (double)n * (double)terms;
    mark(r, i, part);
}

/* Of a block's matrices, whose biases follow them: where acts.low has them. */
static const int low_places[BLOCK_PARAMS] = {
    [QKV] = 0, [OUT] = 1, [UP] = 2, [DOWN] = 3};

static const float *weight(const struct net *n, const struct net_param *p)
{
    return n->w + p->at;
}

static float *gradient(struct net *n, const struct net_param *p)
{
    return p->frozen ? NULL : n->g + p->at;
}

static struct grad_matrix matrix(const struct net *n, const struct net_param *p)
{
    return (struct grad_matrix){n->w + p->at, n->h ? n->h + p->at : NULL,
                                p->desc.n_cols};
}

static struct grad_matrix acts(const float *x, size_t n_cols)
{
    return (struct grad_matrix){x, NULL, n_cols};
}

struct block {
    const struct net_param *p[BLOCK_PARAMS];
    struct net_block_acts a;
    float *in, *out; /* of the residual stream */
    struct grad_drop drop_attn, drop_ff;
    struct grad_attention attention;
};

/* Places of dropout: 0 the embeddings; then for every block one behind attention, one
 * behind the feed-forward layer, and one for each head. */
static struct grad_drop drop_at(const struct run *r, uint32_t place)
{
    const struct net_batch *b = r->b;
    float share = b->keys ? r->n->o.dropout : 0;
    return (struct grad_drop){share, b->keys, place, b->seq_len};
}

static struct block block_at(const struct run *r, uint32_t layer)
{
    const struct net *n = r->n;
    uint32_t place = 1 + layer * (n->shape.n_head + 2);
    struct block k = {.a = n->acts[layer]};
    for (int i = 0; i < BLOCK_PARAMS; i++)
        k.p[i] = net_in_block(n, layer, (enum net_place)i);
    k.in = n->x + layer * r->rows * r->width;
    k.out = k.in + r->rows * r->width;
    k.drop_attn = drop_at(r, place);
    k.drop_ff = drop_at(r, place + 1);
    k.attention = (struct grad_attention){r->b->n_seqs, r->b->seq_len, n->shape.n_head,
                                          r->width, drop_at(r, place + 2)};
    return k;
}

/* ---- products with matrices ---- */

struct linear {
    const struct net_param *w, *bias; /* bias NULL: none */
    float *low; /* [rows][rank]: scale x a^T, which the way back wants again */
};

static struct linear linear_of(const struct block *k, int which)
{
    return (struct linear){k->p[which], k->p[which + 1], k->a.low[low_places[which]]};
}

/* y = x w^T + bias, and what `then` says; to an adapted matrix belongs a second term,
 * low b^T. */
static void linear(const struct run *r, unsigned i, struct linear l, size_t rows,
                   const float *x, float *y, struct grad_then then)
{
    struct net *n = r->n;
    size_t in = l.w->desc.n_cols, out = l.w->desc.n_rows, rank = n->o.lora.rank;
    then.bias = l.bias ? weight(n, l.bias) : NULL;
    if (l.w->lora) {
        const struct net_param *a = &n->params[l.w->lora], *b = a + 1;
        product(r, i, NET_FORWARD, GEMM_NT, rows, rank, in, acts(x, in), matrix(n, a),
                false, l.low, &(struct grad_then){.scale = n->scale});
        sync(r, i);
        then.more_a = acts(l.low, rank);
        then.more_b = matrix(n, b);
        then.more_k = rank;
    }
    product(r, i, NET_FORWARD, GEMM_NT, rows, out, in, acts(x, in), matrix(n, l.w),
            false, y, &then);
}

/* From dy the gradients of what learns in linear(), and dx = dy w; of an adapted matrix
 * dx = dy w + dlow a, dlow = scale dy b.  x is complete, and dy. */
static void linear_back(const struct run *r, unsigned i, struct linear l, size_t rows,
                        const float *x, const float *dy, float *dx,
                        struct grad_then then)
{
    struct net *n = r->n;
    size_t in = l.w->desc.n_cols, out = l.w->desc.n_rows, rank = n->o.lora.rank;
    if (!l.w->frozen)
        product(r, i, NET_WEIGHTS, GEMM_TN, out, in, rows, acts(dy, out), acts(x, in),
                true, gradient(n, l.w), NULL);
    if (l.bias && !l.bias->frozen) {
        grad_sum_rows(&n->cpu, i, rows, out, dy, gradient(n, l.bias));
        mark(r, i, NET_BIASES);
    }
    if (l.w->lora) {
        const struct net_param *a = &n->params[l.w->lora], *b = a + 1;
        product(r, i, NET_INPUTS, GEMM_NN, rows, rank, out, acts(dy, out), matrix(n, b),
                false, n->dlow, &(struct grad_then){.scale = n->scale});
        product(r, i, NET_WEIGHTS, GEMM_TN, out, rank, rows, acts(dy, out),
                acts(l.low, rank), true, gradient(n, b), NULL);
        sync(r, i);
        product(r, i, NET_WEIGHTS, GEMM_TN, rank, in, rows, acts(n->dlow, rank),
                acts(x, in), true, gradient(n, a), NULL);
        then.more_a = acts(n->dlow, rank);
        then.more_b = matrix(n, a);
        then.more_k = rank;
    }
    product(r, i, NET_INPUTS, GEMM_NN, rows, in, out, acts(dy, out), matrix(n, l.w),
            false, dx, &then);
}

/* ---- forward ---- */

static void block_forward(const struct run *r, unsigned i, const struct block *k)
{
    struct net *n = r->n;
    const struct grad_cpu *cpu = &n->cpu;
    size_t rows = r->rows, width = r->width;
    grad_norm(cpu, i, rows, width, k->in, weight(n, k->p[NORM1]),
              weight(n, k->p[NORM1_BIAS]), n->shape.eps, n->norm, k->a.stat1);
    mark(r, i, NET_NORMS);
    sync(r, i);
    linear(r, i, linear_of(k, QKV), rows, n->norm, k->a.qkv, (struct grad_then){0});
    sync(r, i);
    grad_attend(cpu, i, &k->attention, k->a.qkv, k->a.attn, k->a.lse);
    mark(r, i, NET_ATTENTION);
    sync(r, i);
    linear(r, i, linear_of(k, OUT), rows, k->a.attn, k->a.mid,
           (struct grad_then){.residual = k->in, .drop = &k->drop_attn});
    sync(r, i);
    grad_norm(cpu, i, rows, width, k->a.mid, weight(n, k->p[NORM2]),
              weight(n, k->p[NORM2_BIAS]), n->shape.eps, n->norm, k->a.stat2);
    mark(r, i, NET_NORMS);
    sync(r, i);
    linear(r, i, linear_of(k, UP), rows, n->norm, k->a.up,
           (struct grad_then){.gelu = n->wide});
    sync(r, i);
    linear(r, i, linear_of(k, DOWN), rows, n->wide, k->out,
           (struct grad_then){.residual = k->a.mid, .drop = &k->drop_ff});
    sync(r, i);
}

/* x = token and position rows, with dropout.  Rows of an adapted table are w + low a,
 * where low is a row of b. */
static void embed(const struct run *r, unsigned i)
{
    struct net *n = r->n;
    const struct grad_cpu *cpu = &n->cpu;
    const struct net_param *table = net_named(n, "token_embd.weight");
    struct grad_drop d = drop_at(r, 0);
    grad_embed(cpu, i, r->b->n_seqs, r->b->seq_len, r->width, r->b->inputs,
               weight(n, table), weight(n, net_named(n, "position_embd.weight")), n->x);
    mark(r, i, NET_EMBEDDINGS);
    if (table->lora) {
        const struct net_param *a = &n->params[table->lora], *b = a + 1;
        size_t rank = n->o.lora.rank;
        grad_look_up(cpu, i, r->rows, rank, r->b->inputs, weight(n, b), n->scale,
                     n->low_embed);
        sync(r, i);
        product(r, i, NET_FORWARD, GEMM_NN, r->rows, r->width, rank,
                acts(n->low_embed, rank), matrix(n, a), true, n->x, NULL);
        sync(r, i);
    }
    if (d.share > 0) {
        grad_drop_rows(cpu, i, &d, r->rows, r->width, n->x, n->x);
        mark(r, i, NET_DROPOUT);
    }
    sync(r, i);
}

/* The head and the loss, some tokens at a time; n->dnorm gets the gradient of the last
 * norm's output. */
static void head(const struct run *r, unsigned i)
{
    struct net *n = r->n;
    struct linear l = {net_table(n), NULL, n->low_head};
    for (size_t from = 0; from < r->rows; from += n->chunk) {
        size_t rows = r->rows - from < n->chunk ? r->rows - from : n->chunk;
        const float *x = n->norm + from * r->width;
        linear(r, i, l, rows, x, n->logits, (struct grad_then){0});
        sync(r, i);
        grad_loss(&n->cpu, i, rows, n->shape.n_vocab, n->logits, r->b->targets + from,
                  r->b->weight, n->losses + from);
        mark(r, i, NET_LOSS);
        sync(r, i);
        if (!r->b->learn)
            continue;
        linear_back(r, i, l, rows, x, n->logits, n->dnorm + from * r->width,
                    (struct grad_then){0});
        sync(r, i);
    }
}

/* ---- backward ---- */

static void norm_back(const struct run *r, unsigned i, const struct net_param *gain,
                      const struct net_param *bias, const float *x, const float *stat,
                      const float *dy)
{
    struct net *n = r->n;
    grad_norm_back(&n->cpu, i, r->rows, r->width, x, weight(n, gain), stat, dy, n->dx,
                   gradient(n, gain), gradient(n, bias));
    mark(r, i, NET_NORMS);
}

/* dx with the zeros of `d`: in n->dnorm, or n->dx itself where there are none. */
static const float *undropped(const struct run *r, unsigned i,
                              const struct grad_drop *d)
{
    struct net *n = r->n;
    if (!(d->share > 0))
        return n->dx;
    grad_drop_rows(&n->cpu, i, d, r->rows, r->width, n->dx, n->dnorm);
    mark(r, i, NET_DROPOUT);
    sync(r, i);
    return n->dnorm;
}

static void block_backward(const struct run *r, unsigned i, const struct block *k)
{
    struct net *n = r->n;
    const struct grad_cpu *cpu = &n->cpu;
    size_t rows = r->rows, width = r->width, ff = r->ff;
    const float *dy = undropped(r, i, &k->drop_ff);
    grad_gelu(cpu, i, rows, ff, k->a.up, n->wide);
    mark(r, i, NET_GELU);
    sync(r, i);
    linear_back(r, i, linear_of(k, DOWN), rows, n->wide, dy, n->wide2,
                (struct grad_then){.gelu_back = k->a.up});
    grad_norm_again(cpu, i, rows, width, k->a.mid, weight(n, k->p[NORM2]),
                    weight(n, k->p[NORM2_BIAS]), k->a.stat2, n->norm);
    mark(r, i, NET_NORMS);
    sync(r, i);
    linear_back(r, i, linear_of(k, UP), rows, n->norm, n->wide2, n->dnorm,
                (struct grad_then){0});
    sync(r, i);
    norm_back(r, i, k->p[NORM2], k->p[NORM2_BIAS], k->a.mid, k->a.stat2, n->dnorm);
    sync(r, i);

    dy = undropped(r, i, &k->drop_attn);
    linear_back(r, i, linear_of(k, OUT), rows, k->a.attn, dy, n->wide,
                (struct grad_then){0});
    grad_norm_again(cpu, i, rows, width, k->in, weight(n, k->p[NORM1]),
                    weight(n, k->p[NORM1_BIAS]), k->a.stat1, n->norm);
    mark(r, i, NET_NORMS);
    sync(r, i);
    grad_attend_back(cpu, i, &k->attention, k->a.qkv, k->a.attn, k->a.lse, n->wide,
                     n->wide2);
    mark(r, i, NET_ATTENTION_BACK);
    sync(r, i);
    linear_back(r, i, linear_of(k, QKV), rows, n->norm, n->wide2, n->dnorm,
                (struct grad_then){0});
    sync(r, i);
    norm_back(r, i, k->p[NORM1], k->p[NORM1_BIAS], k->in, k->a.stat1, n->dnorm);
    sync(r, i);
}

bool net_range(const struct net *n, uint32_t layer, size_t *from, size_t *to)
{
    *from = SIZE_MAX;
    *to = 0;
    for (size_t p = 0; p < n->n_params; p++) {
        const struct net_param *q = &n->params[p];
        unsigned of = n->shape.n_layer;
        if (sscanf(q->desc.name, "blk.%u.", &of) != 1)
            of = n->shape.n_layer;
        if (q->frozen || of != layer)
            continue;
        size_t end = q->at + q->desc.n_rows * q->desc.n_cols;
        *from = q->at < *from ? q->at : *from;
        *to = end > *to ? end : *to;
    }
    return *to > 0;
}

/* Tell that the gradients of a block (n_layer: of all else) are complete. */
static void tell(const struct run *r, unsigned i, uint32_t layer)
{
    size_t from, to;
    if (!i && r->b->done && net_range(r->n, layer, &from, &to))
        r->b->done(r->b->ctx, from, to);
}

static void embed_back(const struct run *r, unsigned i)
{
    struct net *n = r->n;
    const struct grad_cpu *cpu = &n->cpu;
    const struct net_param *table = net_named(n, "token_embd.weight");
    struct grad_drop d = drop_at(r, 0);
    const float *dx = undropped(r, i, &d);
    grad_embed_back(cpu, i, r->b->n_seqs, r->b->seq_len, r->width, r->b->inputs, dx,
                    gradient(n, table),
                    gradient(n, net_named(n, "position_embd.weight")));
    mark(r, i, NET_EMBEDDINGS);
    if (table->lora) {
        const struct net_param *a = &n->params[table->lora], *b = a + 1;
        size_t rank = n->o.lora.rank;
        product(r, i, NET_INPUTS, GEMM_NT, r->rows, rank, r->width, acts(dx, r->width),
                matrix(n, a), false, n->dlow, &(struct grad_then){.scale = n->scale});
        product(r, i, NET_WEIGHTS, GEMM_TN, rank, r->width, r->rows,
                acts(n->low_embed, rank), acts(dx, r->width), true, gradient(n, a),
                NULL);
        sync(r, i);
        grad_embed_back(cpu, i, r->b->n_seqs, r->b->seq_len, rank, r->b->inputs,
                        n->dlow, gradient(n, b), NULL);
        mark(r, i, NET_EMBEDDINGS);
    }
    sync(r, i);
}

static void backward(const struct run *r, unsigned i)
{
    struct net *n = r->n;
    const struct grad_cpu *cpu = &n->cpu;
    size_t begin, end, last = n->shape.n_layer;
    pool_range(r->rows * r->width, 64, i, cpu->n_threads, &begin, &end);
    memset(n->dx + begin, 0, (end - begin) * sizeof *n->dx);
    sync(r, i);
    norm_back(r, i, net_named(n, "output_norm.weight"),
              net_named(n, "output_norm.bias"), n->x + last * r->rows * r->width,
              n->stat, n->dnorm);
    sync(r, i);
    for (uint32_t layer = n->shape.n_layer; layer-- > r->first;) {
        struct block k = block_at(r, layer);
        if (n->o.recompute && layer + 1 < n->shape.n_layer)
            block_forward(r, i, &k);
        block_backward(r, i, &k);
        tell(r, i, layer);
    }
    if (r->embeddings)
        embed_back(r, i);
    tell(r, i, n->shape.n_layer);
}

static void run_thread(void *ctx, unsigned i, unsigned n_threads)
{
    struct run *r = ctx;
    struct net *n = r->n;
    const struct grad_cpu *cpu = &n->cpu;
    (void)n_threads;
    mark(r, i, NET_OUTSIDE);
    embed(r, i);
    for (uint32_t layer = 0; layer < n->shape.n_layer; layer++) {
        struct block k = block_at(r, layer);
        block_forward(r, i, &k);
    }
    grad_norm(cpu, i, r->rows, r->width, n->x + n->shape.n_layer * r->rows * r->width,
              weight(n, net_named(n, "output_norm.weight")),
              weight(n, net_named(n, "output_norm.bias")), n->shape.eps, n->norm,
              n->stat);
    mark(r, i, NET_NORMS);
    sync(r, i);
    head(r, i);
    if (r->b->learn)
        backward(r, i);
}

double net_run(struct net *n, const struct net_batch *b)
{
    if (n->o.device)
        return n->o.device->run(n, b);
    struct run r = {.n = n,
                    .b = b,
                    .rows = b->n_seqs * b->seq_len,
                    .width = n->shape.n_embd,
                    .ff = n->shape.n_ff};
    r.first = net_lowest(n, &r.embeddings);
    pool_run(n->o.pool, run_thread, &r);
    double sum = 0;
    for (size_t k = 0; k < r.rows; k++)
        sum += n->losses[k];
    return sum;
}
