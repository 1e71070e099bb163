/* Owns the order of operations of a micro-batch on a GPU: what net_run.c has, operation
 * by operation, but for what is done in one go with another.
 *
 * One stream takes all of them, so each reads what those before it made. */
#include "train/net_cuda.h"

#include "base/err.h"

#include <math.h>
#include <string.h>
#include <time.h>

struct run {
    struct net *n;
    struct net_cuda *c;
    const struct net_batch *b;
    size_t rows, width, ff, act; /* act: bytes */
    uint32_t first; /* the lowest block that the backward pass must reach */
    bool embeddings;
};

static struct run run_of(struct net *n, const struct net_batch *b)
{
    struct run r = {.n = n,
                    .c = n->on_device,
                    .b = b,
                    .rows = b->n_seqs * b->seq_len,
                    .width = n->shape.n_embd,
                    .ff = n->shape.n_ff};
    r.act = cuda_act_bytes(r.c->cuda);
    r.first = net_lowest(n, &r.embeddings);
    return r;
}

static void mark(const struct run *r, enum net_part part)
{
    if (r->n->o.profile)
        cuda_mark(r->c->cuda, (int)part);
}

/* ---- weights and products ---- */

static const float *weight(const struct run *r, const struct net_param *p)
{
    return r->c->w + p->at;
}

static float *gradient(const struct run *r, const struct net_param *p)
{
    return p->frozen ? NULL : r->c->g + p->at;
}

/* As products want it. */
static const void *matrix(const struct run *r, const struct net_param *p)
{
    const struct net_cuda *c = r->c;
    return c->h ? (const void *)((const uint16_t *)c->h + p->at) : c->w + p->at;
}

static void product(const struct run *r, enum net_part part, enum gemm_form form,
                    size_t m, size_t n, size_t k, const void *a, size_t a_step,
                    const void *b, size_t b_step, struct cuda_out out)
{
    cuda_product(r->c->cuda, form, m, n, k, a, a_step, b, b_step, &out);
    r->n->flops[part] += 2.0 * (double)m * (double)n * (double)k;
    mark(r, part);
}

static struct cuda_out acts(void *p, size_t step)
{
    return (struct cuda_out){.p = p, .step = step, .scale = 1};
}

struct block {
    const struct net_param *p[BLOCK_PARAMS];
    struct net_cuda_acts a;
    float *in, *out; /* of the residual stream */
    struct cuda_drop drop_attn, drop_ff;
    struct cuda_attention attention;
};

/* y = x w^T; the bias is added where y is read */
static void linear(const struct run *r, const struct block *k, enum net_place which,
                   const void *x, void *y)
{
    const struct net_param *w = k->p[which];
    size_t in = w->desc.n_cols, out = w->desc.n_rows;
    product(r, NET_FORWARD, GEMM_NT, r->rows, out, in, x, in, matrix(r, w), in,
            acts(y, out));
}

/* From dy the gradients of w and its bias. */
static void linear_back(const struct run *r, const struct block *k,
                        enum net_place which, const void *x, const void *dy)
{
    const struct net_param *w = k->p[which], *bias = k->p[which + 1];
    size_t in = w->desc.n_cols, out = w->desc.n_rows;
    if (!w->frozen)
        product(r, NET_WEIGHTS, GEMM_TN, out, in, r->rows, dy, out, x, in,
                (struct cuda_out){gradient(r, w), in, true, true, 1});
    cuda_sum_rows(r->c->cuda, r->rows, out, dy, NULL, NULL, r->c->partial, NULL,
                  gradient(r, bias));
    mark(r, NET_BIASES);
}

/* dx = dy w */
static void linear_inputs(const struct run *r, const struct block *k,
                          enum net_place which, const void *dy, void *dx)
{
    const struct net_param *w = k->p[which];
    size_t in = w->desc.n_cols, out = w->desc.n_rows;
    product(r, NET_INPUTS, GEMM_NN, r->rows, in, out, dy, out, matrix(r, w), in,
            acts(dx, in));
}

/* ---- places ---- */

/* Where dropout is, as net_run.c counts. */
static struct cuda_drop drop_at(const struct run *r, uint32_t place)
{
    const struct net_batch *b = r->b;
    float share = b->keys ? r->n->o.dropout : 0;
    return (struct cuda_drop){share, r->c->keys, place, b->seq_len};
}

static float *stream_at(const struct run *r, uint32_t layer)
{
    size_t at = r->n->o.forward ? layer % 2 : layer;
    return r->c->x + at * r->rows * r->width;
}

static struct block block_at(const struct run *r, uint32_t layer)
{
    const struct net *n = r->n;
    uint32_t place = 1 + layer * (n->shape.n_head + 2);
    struct block k = {.a = r->c->acts[layer]};
    for (int i = 0; i < BLOCK_PARAMS; i++)
        k.p[i] = net_in_block(n, layer, (enum net_place)i);
    k.in = stream_at(r, layer);
    k.out = stream_at(r, layer + 1);
    k.drop_attn = drop_at(r, place);
    k.drop_ff = drop_at(r, place + 1);
    k.attention = (struct cuda_attention){r->b->n_seqs,
                                          r->b->seq_len,
                                          n->shape.n_head,
                                          r->width,
                                          weight(r, k.p[QKV_BIAS]),
                                          drop_at(r, place + 2)};
    return k;
}

static struct cuda_norm norm_at(const struct run *r, const struct net_param *gain,
                                const struct net_param *bias)
{
    return (struct cuda_norm){weight(r, gain), weight(r, bias), r->n->shape.eps};
}

/* The norm behind a block: the next one's first, or the last. */
struct next {
    struct cuda_norm w;
    float *stat;
};

static struct next next_norm(const struct run *r, uint32_t layer)
{
    const struct net *n = r->n;
    if (layer == n->shape.n_layer)
        return (struct next){norm_at(r, net_named(n, "output_norm.weight"),
                                     net_named(n, "output_norm.bias")),
                             r->c->stat};
    return (struct next){
        norm_at(r, net_in_block(n, layer, NORM1), net_in_block(n, layer, NORM1_BIAS)),
        r->c->acts[layer].stat1};
}

/* ---- forward ---- */

static void add_norm(const struct run *r, const struct cuda_branch *branch,
                     const float *residual, const struct next *next)
{
    cuda_add_norm(r->c->cuda, r->rows, r->width, branch, residual, &next->w, r->c->norm,
                  next->stat);
    mark(r, NET_NORMS);
}

/* From the block's first norm to what enters its GELU. */
static void block_inside(const struct run *r, const struct block *k)
{
    struct net_cuda *c = r->c;
    linear(r, k, QKV, c->norm, k->a.qkv);
    cuda_attend(c->cuda, &k->attention, k->a.qkv, k->a.attn, k->a.lse);
    mark(r, NET_ATTENTION);
    linear(r, k, OUT, k->a.attn, c->y);
    add_norm(
        r,
        &(struct cuda_branch){c->y, weight(r, k->p[OUT_BIAS]), k->drop_attn, k->a.mid},
        k->in, &(struct next){norm_at(r, k->p[NORM2], k->p[NORM2_BIAS]), k->a.stat2});
    linear(r, k, UP, c->norm, k->a.up);
}

static void block_forward(const struct run *r, const struct block *k,
                          const struct next *next)
{
    struct net_cuda *c = r->c;
    block_inside(r, k);
    cuda_gelu(c->cuda, r->rows, r->ff, k->a.up, weight(r, k->p[UP_BIAS]), c->wide);
    mark(r, NET_GELU);
    linear(r, k, DOWN, c->wide, c->y);
    add_norm(
        r, &(struct cuda_branch){c->y, weight(r, k->p[DOWN_BIAS]), k->drop_ff, k->out},
        k->a.mid, next);
}

/* Up to what the last norm gives, in c->norm. */
static void forward(const struct run *r)
{
    const struct net *n = r->n;
    struct net_cuda *c = r->c;
    struct cuda_drop d = drop_at(r, 0);
    cuda_upload(c->cuda, c->tokens, r->b->inputs, r->rows * sizeof *c->tokens);
    cuda_upload(c->cuda, c->targets, r->b->targets, r->rows * sizeof *c->targets);
    if (r->b->keys)
        cuda_upload(c->cuda, c->keys, r->b->keys, r->b->n_seqs * sizeof *c->keys);
    cuda_embed(c->cuda, r->rows, r->width, c->tokens,
               weight(r, net_named(n, "token_embd.weight")),
               weight(r, net_named(n, "position_embd.weight")), &d, c->x);
    mark(r, NET_EMBEDDINGS);
    struct next next = next_norm(r, 0);
    add_norm(r, &(struct cuda_branch){.y = NULL}, c->x, &next);
    for (uint32_t layer = 0; layer < n->shape.n_layer; layer++) {
        struct block k = block_at(r, layer);
        next = next_norm(r, layer + 1);
        block_forward(r, &k, &next);
    }
}

/* Logits of tokens from.., of c->norm. */
static void logits(const struct run *r, size_t from, size_t rows)
{
    struct net_cuda *c = r->c;
    const char *x = (const char *)c->norm + from * r->width * r->act;
    struct cuda_out out = {c->logits, c->step, true, false, 1};
    product(r, NET_FORWARD, GEMM_NT, rows, r->n->shape.n_vocab, r->width, x, r->width,
            matrix(r, net_table(r->n)), r->width, out);
}

/* The loss, some tokens at a time; c->y gets the gradient of the last norm's output. */
static void head(const struct run *r)
{
    struct net *n = r->n;
    struct net_cuda *c = r->c;
    const struct net_param *table = net_table(n);
    size_t width = r->width, n_vocab = n->shape.n_vocab;
    for (size_t from = 0; from < r->rows; from += n->chunk) {
        size_t rows = r->rows - from < n->chunk ? r->rows - from : n->chunk;
        size_t at = from * width * r->act;
        logits(r, from, rows);
        cuda_loss(c->cuda, rows, n_vocab, c->step, c->logits, c->targets + from,
                  r->b->weight, r->b->learn ? c->dlogits : NULL, c->losses + from);
        mark(r, NET_LOSS);
        if (!r->b->learn)
            continue;
        product(r, NET_INPUTS, GEMM_NN, rows, width, n_vocab, c->dlogits, c->step,
                matrix(r, table), width, acts((char *)c->y + at, width));
        if (!table->frozen)
            product(r, NET_WEIGHTS, GEMM_TN, n_vocab, width, rows, c->dlogits, c->step,
                    (char *)c->norm + at, width,
                    (struct cuda_out){gradient(r, table), width, true, true, 1});
    }
}

/* ---- backward ---- */

/* Does dx enter products as it is? */
static bool as_it_is(const struct run *r, const struct cuda_drop *d)
{
    return r->act == sizeof(float) && !(d->share > 0);
}

static const void *undropped(const struct run *r, const struct cuda_drop *d)
{
    return as_it_is(r, d) ? (const void *)r->c->dx : r->c->dy;
}

/* From c->y, the gradient of a norm's output, what is added to dx; and dx for whoever
 * reads it next, with the zeros of `d` (NULL: nobody does). */
static void norm_back(const struct run *r, const struct net_param *gain,
                      const struct net_param *bias, const float *x, const float *stat,
                      const struct cuda_drop *d)
{
    struct net_cuda *c = r->c;
    cuda_sum_rows(c->cuda, r->rows, r->width, c->y, x, stat, c->partial,
                  gradient(r, gain), gradient(r, bias));
    cuda_norm_back(c->cuda, r->rows, r->width, x, weight(r, gain), stat, c->y, c->dx, d,
                   d && !as_it_is(r, d) ? c->dy : NULL);
    mark(r, NET_NORMS);
}

static void norm_again(const struct run *r, const struct net_param *gain,
                       const struct net_param *bias, const float *x, const float *stat)
{
    struct cuda_norm w = norm_at(r, gain, bias);
    cuda_norm_again(r->c->cuda, r->rows, r->width, x, &w, stat, r->c->norm);
    mark(r, NET_NORMS);
}

/* below: the dropout at the end of the block below, or NULL. */
static void block_backward(const struct run *r, const struct block *k,
                           const struct cuda_drop *below)
{
    struct net_cuda *c = r->c;
    const void *dy = undropped(r, &k->drop_ff);
    linear_inputs(r, k, DOWN, dy, c->wide2);
    cuda_gelu_back(c->cuda, r->rows, r->ff, k->a.up, weight(r, k->p[UP_BIAS]), c->wide2,
                   c->wide);
    mark(r, NET_GELU);
    linear_back(r, k, DOWN, c->wide, dy);
    norm_again(r, k->p[NORM2], k->p[NORM2_BIAS], k->a.mid, k->a.stat2);
    linear_back(r, k, UP, c->norm, c->wide2);
    linear_inputs(r, k, UP, c->wide2, c->y);
    norm_back(r, k->p[NORM2], k->p[NORM2_BIAS], k->a.mid, k->a.stat2, &k->drop_attn);

    dy = undropped(r, &k->drop_attn);
    linear_back(r, k, OUT, k->a.attn, dy);
    linear_inputs(r, k, OUT, dy, c->wide);
    cuda_attend_back(c->cuda, &k->attention, k->a.qkv, k->a.attn, k->a.lse, c->wide,
                     c->delta, c->wide2);
    mark(r, NET_ATTENTION_BACK);
    norm_again(r, k->p[NORM1], k->p[NORM1_BIAS], k->in, k->a.stat1);
    linear_back(r, k, QKV, c->norm, c->wide2);
    linear_inputs(r, k, QKV, c->wide2, c->y);
    norm_back(r, k->p[NORM1], k->p[NORM1_BIAS], k->in, k->a.stat1, below);
}

/* Rows of the same token together: sorted by counting. */
static struct cuda_groups group(const struct run *r)
{
    struct net_cuda *c = r->c;
    size_t rows = r->rows, n_vocab = r->n->shape.n_vocab;
    int32_t *ids = c->host_groups, *starts = ids + rows, *sorted = starts + rows + 1;
    struct cuda_groups g = {0, c->groups, c->groups + rows, c->groups + 2 * rows + 1};
    int32_t sum = 0;
    memset(c->counts, 0, n_vocab * sizeof *c->counts);
    for (size_t i = 0; i < rows; i++)
        c->counts[r->b->inputs[i]]++;
    for (size_t t = 0; t < n_vocab; t++) {
        int32_t count = c->counts[t];
        c->counts[t] = sum; /* where the token's next row goes */
        if (count) {
            ids[g.n] = (int32_t)t;
            starts[g.n++] = sum;
        }
        sum += count;
    }
    starts[g.n] = sum;
    for (size_t i = 0; i < rows; i++)
        sorted[c->counts[r->b->inputs[i]]++] = (int32_t)i;
    cuda_upload(c->cuda, c->groups, ids, g.n * sizeof *ids);
    cuda_upload(c->cuda, c->groups + rows, starts, (g.n + 1) * sizeof *ids);
    cuda_upload(c->cuda, c->groups + 2 * rows + 1, sorted, rows * sizeof *ids);
    return g;
}

static void embed_back(const struct run *r)
{
    struct net_cuda *c = r->c;
    struct cuda_drop d = drop_at(r, 0);
    struct cuda_groups g = group(r);
    cuda_embed_back(c->cuda, r->rows, r->width, &g, c->dx, &d,
                    gradient(r, net_named(r->n, "token_embd.weight")),
                    gradient(r, net_named(r->n, "position_embd.weight")));
    mark(r, NET_EMBEDDINGS);
}

static void backward(const struct run *r)
{
    const struct net *n = r->n;
    struct net_cuda *c = r->c;
    uint32_t last = n->shape.n_layer;
    struct cuda_drop top = {0};
    if (last > r->first)
        top = block_at(r, last - 1).drop_ff;
    cuda_zero(c->cuda, c->dx, r->rows * r->width * sizeof *c->dx);
    norm_back(r, net_named(n, "output_norm.weight"), net_named(n, "output_norm.bias"),
              stream_at(r, last), c->stat, last > r->first ? &top : NULL);
    for (uint32_t layer = last; layer-- > r->first;) {
        struct block k = block_at(r, layer);
        struct cuda_drop below = {0};
        if (layer > r->first)
            below = block_at(r, layer - 1).drop_ff;
        if (n->o.recompute && layer + 1 < last) {
            struct next again = next_norm(r, layer);
            add_norm(r, &(struct cuda_branch){.y = NULL}, k.in, &again);
            block_inside(r, &k);
        }
        block_backward(r, &k, layer > r->first ? &below : NULL);
    }
    if (r->embeddings)
        embed_back(r);
}

/* ---- a micro-batch ---- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* What is between two passes: the optimizer's step too, which still runs. */
static void begin_profile(const struct run *r)
{
    struct net *n = r->n;
    if (!n->o.profile)
        return;
    cuda_wait(r->c->cuda, NULL);
    if (n->mark > 0)
        n->seconds[NET_OUTSIDE] += now() - n->mark;
    mark(r, NET_OUTSIDE);
}

double net_cuda_run(struct net *n, const struct net_batch *b)
{
    struct run r = run_of(n, b);
    struct net_cuda *c = r.c;
    double sum = 0;
    begin_profile(&r);
    forward(&r);
    head(&r);
    if (b->learn)
        backward(&r);
    cuda_download(c->cuda, c->host_losses, c->losses, r.rows * sizeof *c->losses);
    if (cuda_wait(c->cuda, NULL))
        return (double)NAN;
    cuda_take_marks(c->cuda, n->seconds);
    n->mark = now();
    for (size_t i = 0; i < r.rows; i++)
        sum += c->host_losses[i];
    return sum;
}

/* Both models' logits of the same tokens side by side. */
int net_cuda_score(struct net *n, struct net *base, const struct net_batch *b,
                   struct eval_score *scores, struct runt_err *err)
{
    struct run r = run_of(n, b), of_base;
    struct net_cuda *c = r.c;
    size_t chunk = n->chunk;
    _Static_assert(sizeof(struct eval_score) == sizeof(struct cuda_score),
                   "one struct");
    forward(&r);
    if (base) {
        of_base = run_of(base, b);
        forward(&of_base);
        chunk = base->chunk < chunk ? base->chunk : chunk;
    }
    for (size_t from = 0; from < r.rows; from += chunk) {
        size_t rows = r.rows - from < chunk ? r.rows - from : chunk;
        logits(&r, from, rows);
        if (base)
            logits(&of_base, from, rows);
        cuda_score(c->cuda, rows, n->shape.n_vocab, c->step, c->logits,
                   base ? of_base.c->logits : NULL, c->targets + from, c->scores);
        cuda_download(c->cuda, scores + from, c->scores, rows * sizeof *scores);
    }
    return cuda_wait(c->cuda, err);
}
