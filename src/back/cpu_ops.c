/* Owns how tensor operations are cut among threads and into cache-sized tiles.  The
 * arithmetic itself is in src/kern. */
#include "back/cpu_ops.h"

#include "base/err.h"

#include <math.h>
#include <string.h>

int cpu_matrix_init(const struct cpu *c, const struct fmt_info *fmt,
                    const uint8_t *data, size_t n_rows, size_t n_cols,
                    struct cpu_matrix *out, struct runt_err *err)
{
    struct cpu_matrix m = {
        .fmt = fmt, .data = data, .n_rows = n_rows, .n_cols = n_cols};
    m.dot = kern_dot_for(c->kern, fmt->type, &m.int8);
    if (!fmt_row_bytes(fmt, n_cols, &m.row_bytes))
        return err_set(err, RUNT_E_FORMAT,
                       "a row of %zu numbers is not whole %s blocks", n_cols,
                       fmt->name);
    *out = m;
    return 0;
}

/* ---- products ---- */

/* Tiles: a block of rows (at most 16 x 3072 x 4 bytes for GPT-2) and a block of vectors
 * stay in the second-level cache together while every pair of them meets. */
enum { ROW_TILE = 16, TOKEN_TILE = 16 };

struct product {
    const struct cpu *c;
    const struct cpu_matrix *w;
    const float *x;
    const void *vectors;
    size_t stride, n_tokens;
    struct kern_act *act;
    const float *bias;
    float *out;
};

static size_t min(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void quantize_tokens(void *ctx, unsigned i, unsigned n)
{
    const struct product *p = ctx;
    size_t begin, end, n_cols = p->w->n_cols;
    pool_range(p->n_tokens, 1, i, n, &begin, &end);
    for (size_t t = begin; t < end; t++)
        p->c->kern->quantize_act(n_cols, p->x + t * n_cols,
                                 p->act + t * (n_cols / KERN_ACT_LEN));
}

/* A row of a format without a kernel: decoded piece by piece, the pieces' float
 * products added in order. */
static void dot_decoded(const struct product *p, size_t row, const float *x,
                        size_t n_tokens, float *out)
{
    enum { PIECE = 256 }; /* whole blocks of every format */
    const struct cpu_matrix *w = p->w;
    const uint8_t *bytes = w->data + row * w->row_bytes;
    float piece[PIECE], part[TOKEN_TILE];
    for (size_t i = 0; i < w->n_cols; i += PIECE) {
        size_t n = min(PIECE, w->n_cols - i);
        w->fmt->decode(bytes + i / w->fmt->block_len * w->fmt->block_bytes, piece, n);
        p->c->kern->dot_f32(n, piece, x + i, p->stride, n_tokens, part, 1);
        for (size_t t = 0; t < n_tokens; t++)
            out[t * w->n_rows] = i ? out[t * w->n_rows] + part[t] : part[t];
    }
}

static void product_rows(void *ctx, unsigned i, unsigned n)
{
    const struct product *p = ctx;
    const struct cpu_matrix *w = p->w;
    size_t begin, end;
    pool_range(w->n_rows, ROW_TILE, i, n, &begin, &end);
    for (size_t r0 = begin; r0 < end; r0 += ROW_TILE) {
        size_t r1 = min(r0 + ROW_TILE, end);
        for (size_t t0 = 0; t0 < p->n_tokens; t0 += TOKEN_TILE) {
            size_t nt = min(TOKEN_TILE, p->n_tokens - t0);
            const char *x = (const char *)p->vectors + t0 * p->stride;
            for (size_t r = r0; r < r1; r++) {
                float *out = p->out + t0 * w->n_rows + r;
                if (w->dot)
                    w->dot(w->n_cols, w->data + r * w->row_bytes, x, p->stride, nt, out,
                           w->n_rows);
                else
                    dot_decoded(p, r, (const float *)(const void *)x, nt, out);
                for (size_t t = 0; p->bias && t < nt; t++)
                    out[t * w->n_rows] += p->bias[r];
            }
        }
    }
}

/* A single token's share of work is too small for a barrier. */
static void run_tokens(const struct cpu *c, size_t n_tokens,
                       void (*fn)(void *ctx, unsigned i, unsigned n), void *ctx)
{
    pool_run(n_tokens > 1 ? c->pool : NULL, fn, ctx);
}

void cpu_matmul(const struct cpu *c, const struct cpu_matrix *w, const float *x,
                size_t n_tokens, struct kern_act *act, const float *bias, float *out)
{
    struct product p = {.c = c,
                        .w = w,
                        .x = x,
                        .vectors = x,
                        .stride = w->n_cols * sizeof *x,
                        .n_tokens = n_tokens,
                        .act = act,
                        .bias = bias,
                        .out = out};
    if (w->int8) {
        p.vectors = act;
        p.stride = w->n_cols / KERN_ACT_LEN * sizeof *act;
        run_tokens(c, n_tokens, quantize_tokens, &p);
    }
    pool_run(c->pool, product_rows, &p);
}

/* ---- norm, GELU ---- */

struct per_token {
    const struct cpu *c;
    size_t n_tokens, n;
    float *x;
    const float *add, *gain, *bias;
    float eps;
    float *out;
};

static void add_norm_tokens(void *ctx, unsigned i, unsigned n)
{
    const struct per_token *p = ctx;
    size_t begin, end;
    pool_range(p->n_tokens, 1, i, n, &begin, &end);
    for (size_t t = begin; t < end; t++) {
        float *x = p->x + t * p->n;
        if (p->add)
            p->c->kern->add(p->n, x, p->add + t * p->n);
        p->c->kern->layer_norm(p->n, x, p->gain, p->bias, p->eps, p->out + t * p->n);
    }
}

void cpu_add_norm(const struct cpu *c, size_t n_tokens, size_t n, float *x,
                  const float *add, const float *gain, const float *bias, float eps,
                  float *out)
{
    struct per_token p = {c, n_tokens, n, x, add, gain, bias, eps, out};
    run_tokens(c, n_tokens, add_norm_tokens, &p);
}

static void gelu_tokens(void *ctx, unsigned i, unsigned n)
{
    const struct per_token *p = ctx;
    size_t begin, end;
    pool_range(p->n_tokens, 1, i, n, &begin, &end);
    for (size_t t = begin; t < end; t++)
        p->c->kern->gelu(p->n, p->x + t * p->n, p->bias);
}

void cpu_gelu(const struct cpu *c, size_t n_tokens, size_t n, float *x,
              const float *bias)
{
    struct per_token p = {.c = c, .n_tokens = n_tokens, .n = n, .x = x, .bias = bias};
    run_tokens(c, n_tokens, gelu_tokens, &p);
}

/* ---- attention ---- */

struct attention_job {
    const struct cpu *c;
    const struct cpu_attention *a;
};

static void attend(const struct kern_table *k, const struct cpu_attention *a, size_t t,
                   size_t head, float *scores)
{
    size_t n_dim = a->n_embd / a->n_head, n_seen = a->pos + t + 1;
    const float *q = a->qkv + t * 3 * a->n_embd + head * n_dim;
    float *out = a->out + t * a->n_embd + head * n_dim;
    k->dot_f32(n_dim, q, a->keys + head * n_dim, a->n_embd * sizeof *q, n_seen, scores,
               1);
    k->softmax(n_seen, scores, 1 / sqrtf((float)n_dim));
    memset(out, 0, n_dim * sizeof *out);
    for (size_t s = 0; s < n_seen; s++)
        k->axpy(n_dim, out, scores[s], a->values + s * a->n_embd + head * n_dim);
}

static void attention_part(void *ctx, unsigned i, unsigned n)
{
    const struct attention_job *j = ctx;
    const struct cpu_attention *a = j->a;
    float *scores = a->scores + i * a->n_ctx;
    /* Later tokens see more positions: deal (token, head) pairs out in turn. */
    for (size_t u = i; u < a->n_tokens * a->n_head; u += n)
        attend(j->c->kern, a, u / a->n_head, u % a->n_head, scores);
}

void cpu_attention(const struct cpu *c, const struct cpu_attention *a)
{
    struct attention_job j = {c, a};
    pool_run(c->pool, attention_part, &j);
}
