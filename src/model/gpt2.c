/* Owns the order of operations of GPT-2 (Radford et al. 2019): embeddings, n_layer
 * blocks of attention and feed-forward with the norm before each (pre-LN), final norm,
 * head. Shapes: T tokens of this pass, E width, F feed-forward width, V vocabulary. */
#include "model/model.h"

#include <string.h>

/* x[t] = token_embd[token] + position_embd[pos + t] */
static void embed(struct runt_session *s, const int32_t *tokens, size_t n)
{
    const struct runt_model *m = s->model;
    size_t e = m->shape.n_embd;
    const struct cpu_matrix *te = &m->token_embd, *pe = &m->position_embd;
    for (size_t t = 0; t < n; t++) {
        float *x = s->x + t * e, *p = s->h;
        te->fmt->decode(te->data + (size_t)tokens[t] * te->row_bytes, x, e);
        pe->fmt->decode(pe->data + (s->pos + t) * pe->row_bytes, p, e);
        m->kern->add(e, x, p);
    }
}

/* h [T][E] -> tmp [T][E]; appends this pass's keys and values to layer l's cache. */
static void attention(struct runt_session *s, size_t l, size_t n)
{
    const struct model_block *b = &s->model->blocks[l];
    size_t e = s->model->shape.n_embd, layer = l * s->n_ctx * e;
    float *keys = s->keys + layer, *values = s->values + layer;
    cpu_matmul(&s->cpu, &b->qkv.weight, s->h, n, s->act, b->qkv.bias, s->qkv);
    for (size_t t = 0; t < n; t++) {
        const float *qkv = s->qkv + t * 3 * e;
        memcpy(keys + (s->pos + t) * e, qkv + e, e * sizeof *qkv);
        memcpy(values + (s->pos + t) * e, qkv + 2 * e, e * sizeof *qkv);
    }
    struct cpu_attention a = {
        .n_tokens = n,
        .pos = s->pos,
        .n_embd = e,
        .n_head = s->model->shape.n_head,
        .n_ctx = s->n_ctx,
        .qkv = s->qkv,
        .keys = keys,
        .values = values,
        .scores = s->scores,
        .out = s->h,
    };
    cpu_attention(&s->cpu, &a);
    cpu_matmul(&s->cpu, &b->attn_output.weight, s->h, n, s->act, b->attn_output.bias,
               s->tmp);
}

/* h [T][E] -> tmp [T][E] through ff [T][F] */
static void feed_forward(struct runt_session *s, size_t l, size_t n)
{
    const struct model_block *b = &s->model->blocks[l];
    cpu_matmul(&s->cpu, &b->ffn_up.weight, s->h, n, s->act, NULL, s->ff);
    cpu_gelu(&s->cpu, n, s->model->shape.n_ff, s->ff, b->ffn_up.bias);
    cpu_matmul(&s->cpu, &b->ffn_down.weight, s->ff, n, s->act, b->ffn_down.bias,
               s->tmp);
}

/* Each norm call first adds the branch before it (in tmp) to the residual stream x. */
static void add_norm(struct runt_session *s, const float *add,
                     const struct model_norm *norm, size_t n)
{
    const struct gpt2_shape *sh = &s->model->shape;
    cpu_add_norm(&s->cpu, n, sh->n_embd, s->x, add, norm->gain, norm->bias, sh->eps,
                 s->h);
}

void model_forward(struct runt_session *s, const int32_t *tokens, size_t n)
{
    const struct runt_model *m = s->model;
    embed(s, tokens, n);
    for (size_t l = 0; l < m->shape.n_layer; l++) {
        add_norm(s, l ? s->tmp : NULL, &m->blocks[l].attn_norm, n);
        attention(s, l, n);
        add_norm(s, s->tmp, &m->blocks[l].ffn_norm, n);
        feed_forward(s, l, n);
    }
    add_norm(s, s->tmp, &m->output_norm, n);
    size_t first = s->all_logits ? 0 : n - 1;
    cpu_matmul(&s->cpu, &m->head, s->h + first * m->shape.n_embd, n - first, s->act,
               NULL, s->logits);
    s->pos += (uint32_t)n;
    s->n_last = (uint32_t)n;
}
