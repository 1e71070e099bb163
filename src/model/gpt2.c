/* Owns the order of operations of GPT-2 (Radford et al. 2019): embeddings, n_layer
 * blocks of attention and feed-forward with the norm before each (pre-LN), final norm,
 * head.  Every thread runs forward() from top to bottom; cpu_sync stands where a step
 * reads what other threads made in the step before.  Shapes: T tokens of this pass, E
 * width, F feed-forward width, V vocabulary. */
#include "model/model.h"

#include <string.h>

/* One thread's view of a pass. */
struct part {
    struct runt_session *s;
    const struct model_pass *p;
    struct cpu_thread t;
};

static void mark(struct part *a, enum cpu_op op, const struct cpu_matrix *w, size_t n)
{
    cpu_mark(&a->t, op, cpu_matrix_bytes(w), cpu_matrix_ops(w, n));
}

/* x += what adapters add to a token's row */
static void embed_low(struct part *a, int32_t token, float *x)
{
    const struct runt_model *m = a->s->model;
    const struct cpu_low *low = m->shape.tied ? &m->head.low : &m->token_embd.low;
    for (size_t k = 0; k < low->rank; k++)
        a->t.low[k] = low->b[k * m->shape.n_vocab + (size_t)token];
    if (low->rank)
        m->kern->add_rows(m->shape.n_embd, x, low->rank, a->t.low, low->a,
                          m->shape.n_embd);
}

/* x[t] = token_embd[token] + position_embd[pos + t].  A single token is thread 0's. */
static void embed(struct part *a)
{
    const struct runt_model *m = a->s->model;
    size_t e = m->shape.n_embd, begin = 0, end = a->p->n;
    const struct model_table *te = &m->token_embd, *pe = &m->position_embd;
    pool_range(a->p->n, 1, a->t.i, a->t.n, &begin, &end);
    for (size_t i = 0; i < a->p->n_spans; i++) {
        const struct cpu_span *s = &a->p->spans[i];
        for (size_t k = s->first < begin ? begin : s->first;
             k < end && k < s->first + s->n; k++) {
            float *x = a->s->x + k * e;
            fmt_decode_row(te->fmt, e, te->data, (size_t)a->p->tokens[k], x);
            fmt_decode_row(pe->fmt, e, pe->data, s->pos + k - s->first, a->t.block);
            m->kern->add(e, x, a->t.block);
            embed_low(a, a->p->tokens[k], x);
        }
    }
    cpu_mark(&a->t, CPU_EMBED, a->p->n * (te->row_bytes + pe->row_bytes), 0);
    cpu_sync(&a->t);
}

static struct cpu_input norm(struct part *a, const struct cpu_matrix *w, size_t n,
                             const float *x, const struct model_norm *b)
{
    return cpu_norm(&a->t, w, n, x, b->gain, b->bias, a->s->model->shape.eps,
                    &a->s->input);
}

static void tap(struct part *a, size_t which, const float *x,
                const struct cpu_matrix *w)
{
    const struct model_tap *t = a->s->tap;
    if (t)
        t->fn(t->ctx, a->t.i, a->t.n, which, x, a->p->n, w->n_cols);
}

static void linear(struct part *a, const struct model_linear *w, struct cpu_input in,
                   enum cpu_sink sink, float *out, enum cpu_op op)
{
    size_t n = a->p->n;
    cpu_matmul(&a->t, &w->weight, in, n, w->bias, sink, out, w->weight.n_rows);
    mark(a, op, &w->weight, n);
    cpu_sync(&a->t);
}

/* qkv [T][3 E] = norm(x) w.  A thread that makes queries, keys and values of the very
 * heads that it attends to needs to wait for nobody: so for a single token where heads
 * are whole tiles of rows, as many for each thread. */
static void project(struct part *a, size_t l)
{
    struct runt_session *s = a->s;
    const struct model_block *b = &s->model->blocks[l];
    const struct cpu_matrix *w = &b->qkv.weight;
    size_t e = s->model->shape.n_embd, n_head = s->model->shape.n_head,
           n_dim = e / n_head, begin, end;
    struct cpu_input in = norm(a, w, a->p->n, s->x, &b->attn_norm);
    tap(a, MODEL_TAPS * l + MODEL_TAP_QKV, in.x, w);
    if (a->p->n > 1 || n_dim % KERN_TILE_ROWS || n_head % a->t.n) {
        linear(a, &b->qkv, in, CPU_STORE, s->qkv, CPU_QKV);
        return;
    }
    pool_range(n_head, 1, a->t.i, a->t.n, &begin, &end);
    for (size_t i = 0; i < 3; i++)
        cpu_matmul_rows(&a->t, w, i * e + begin * n_dim, i * e + end * n_dim, in, 1,
                        b->qkv.bias, CPU_STORE, s->qkv, w->n_rows);
    mark(a, CPU_QKV, w, 1);
}

/* x [T][E] += attention(norm(x)); this pass's keys and values go to layer l's cache. */
static void attention(struct part *a, size_t l)
{
    struct runt_session *s = a->s;
    const struct model_block *b = &s->model->blocks[l];
    size_t n = a->p->n;
    project(a, l);
    struct cpu_attention at = {
        .kv = s->kv,
        .n_embd = s->model->shape.n_embd,
        .n_head = s->model->shape.n_head,
        .n_tokens = n,
        .block_bytes = s->cache.block_bytes,
        .layer_at = l * s->cache.layer_bytes,
        .spans = a->p->spans,
        .n_spans = a->p->n_spans,
        .qkv = s->qkv,
        .out = s->h,
    };
    cpu_attend(&a->t, &at);
    cpu_mark(&a->t, CPU_ATTENTION, a->p->cache_bytes, a->p->attention_ops);
    cpu_sync(&a->t);
    struct cpu_input in =
        cpu_prepare(&a->t, &b->attn_output.weight, n, s->h, &s->input);
    tap(a, MODEL_TAPS * l + MODEL_TAP_ATTN_OUTPUT, in.x, &b->attn_output.weight);
    linear(a, &b->attn_output, in, CPU_ADD, s->x, CPU_ATTN_OUTPUT);
}

/* x [T][E] += down(GELU(up(norm(x)))) through ff [T][F] */
static void feed_forward(struct part *a, size_t l)
{
    struct runt_session *s = a->s;
    const struct model_block *b = &s->model->blocks[l];
    size_t n = a->p->n;
    struct cpu_input in = norm(a, &b->ffn_up.weight, n, s->x, &b->ffn_norm);
    tap(a, MODEL_TAPS * l + MODEL_TAP_UP, in.x, &b->ffn_up.weight);
    linear(a, &b->ffn_up, in, CPU_GELU, s->ff, CPU_FFN_UP);
    in = cpu_prepare(&a->t, &b->ffn_down.weight, n, s->ff, &s->input);
    tap(a, MODEL_TAPS * l + MODEL_TAP_DOWN, in.x, &b->ffn_down.weight);
    linear(a, &b->ffn_down, in, CPU_ADD, s->x, CPU_FFN_DOWN);
}

/* h [T][E] = norm(x), for an embedding of the text */
static void last_norm(struct part *a)
{
    const struct runt_model *m = a->s->model;
    size_t e = m->shape.n_embd, begin, end;
    pool_range(a->p->n, 1, a->t.i, a->t.n, &begin, &end);
    for (size_t k = begin; k < end; k++)
        m->kern->layer_norm(e, a->s->x + k * e, m->output_norm.gain,
                            m->output_norm.bias, m->shape.eps, a->s->h + k * e);
    cpu_mark(&a->t, CPU_NORM, 0, 0);
}

/* logits [n_out][V] of the tokens that the pass wants. */
static void head(struct part *a)
{
    struct runt_session *s = a->s;
    const struct runt_model *m = s->model;
    const struct model_pass *p = a->p;
    size_t e = m->shape.n_embd, n = p->n_out, begin, end;
    if (a->s->tap) {
        struct cpu_input all = norm(a, &m->head, p->n, s->x, &m->output_norm);
        tap(a, MODEL_TAPS * m->shape.n_layer, all.x, &m->head);
        return;
    }
    if (!n)
        return;
    const float *x = s->x + p->out[0] * e;
    if (n > 1 && n < p->n) {
        pool_range(n, 1, a->t.i, a->t.n, &begin, &end);
        for (size_t i = begin; i < end; i++)
            memcpy(s->h + i * e, s->x + p->out[i] * e, e * sizeof *x);
        cpu_sync(&a->t);
        x = s->h;
    }
    struct cpu_input in = norm(a, &m->head, n, x, &m->output_norm);
    cpu_matmul(&a->t, &m->head, in, n, NULL, CPU_STORE,
               s->logits + p->first_row * m->shape.n_vocab, m->shape.n_vocab);
    mark(a, CPU_HEAD, &m->head, n);
}

static void forward(void *ctx, unsigned i, unsigned n)
{
    const struct model_pass *p = ctx;
    struct part a = {.s = p->session, .p = p};
    const struct session_thread *own = &a.s->threads[i];
    a.t = (struct cpu_thread){
        .kern = a.s->model->kern,
        .pool = a.s->pool,
        .i = i,
        .n = n,
        .act = own->act,
        .block = own->block,
        .low = own->low,
        .attn = own->attn,
        .acc = i ? NULL : &a.s->account,
        .last = !i && a.s->account.timed ? cpu_seconds() : 0,
    };
    embed(&a);
    for (size_t l = 0; l < a.s->model->shape.n_layer; l++) {
        attention(&a, l);
        feed_forward(&a, l);
    }
    if (p->embed)
        last_norm(&a);
    else
        head(&a);
}

void model_forward(struct model_pass *p)
{
    const struct runt_session *s = p->session;
    const struct gpt2_shape *sh = &s->model->shape;
    p->cache_bytes = p->attention_ops = 0;
    for (size_t i = 0; i < p->n_spans; i++) {
        size_t pos = p->spans[i].pos, n = p->spans[i].n;
        /* keys and values; each query's two products with what it sees */
        p->cache_bytes += 2 * sh->n_head * (pos + n) * s->cache.stripe_bytes / 16;
        p->attention_ops += 4 * (uint64_t)sh->n_embd * (n * pos + n * (n + 1) / 2);
    }
    pool_run_free(s->pool, forward, p);
}
