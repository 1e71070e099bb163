/* Owns training's attention, forward and backward: a task is one head of one sequence,
 * its products are small ones of the library. */
#include "back/grad_ops.h"

#include <math.h>
#include <string.h>

struct head {
    const struct grad_cpu *cpu;
    const struct grad_attention *a;
    struct gemm_thread *gemm;
    size_t step, dim; /* of a row of qkv; of a head */
    size_t row, index;
    float scale;
    const float *q, *k, *v; /* [seq_len], step apart */
};

static struct head head_at(const struct grad_cpu *cpu, unsigned i,
                           const struct grad_attention *a, size_t task,
                           const float *qkv)
{
    struct head h = {.cpu = cpu, .a = a, .gemm = cpu->threads[i].gemm};
    h.index = task % a->n_heads;
    h.row = task / a->n_heads * a->seq_len;
    h.step = 3 * a->width;
    h.dim = a->width / a->n_heads;
    h.scale = 1 / sqrtf((float)h.dim);
    h.q = qkv + h.row * h.step + h.index * h.dim;
    h.k = h.q + a->width;
    h.v = h.k + a->width;
    return h;
}

static void product(const struct head *h, enum gemm_form form, size_t m, size_t n,
                    size_t k, const float *a, size_t a_step, const float *b,
                    size_t b_step, bool add, float *c, size_t c_step)
{
    gemm_run(h->gemm, GEMM_F32, form, m, n, k, a, a_step, b, b_step, add, c, c_step);
}

static void drop(const struct head *h, size_t query, size_t n, float *p)
{
    const struct grad_drop *d = &h->a->drop;
    if (!(d->share > 0))
        return;
    struct grad_drop own = *d;
    own.place = d->place + (uint32_t)h->index;
    grad_drop_row(h->cpu, &own, h->row + query, h->a->seq_len, 0, n, p);
}

void grad_attend(const struct grad_cpu *cpu, unsigned i, const struct grad_attention *a,
                 const float *qkv, float *out, float *lse)
{
    size_t begin, end;
    pool_range(a->n_seqs * a->n_heads, 1, i, cpu->n_threads, &begin, &end);
    for (size_t task = begin; task < end; task++) {
        struct head h = head_at(cpu, i, a, task, qkv);
        float *p = cpu->threads[i].attn;
        for (size_t q = 0; q < a->seq_len; q += GRAD_ATTN_ROWS) {
            size_t rows =
                a->seq_len - q < GRAD_ATTN_ROWS ? a->seq_len - q : GRAD_ATTN_ROWS;
            size_t keys = q + rows;
            product(&h, GEMM_NT, rows, keys, h.dim, h.q + q * h.step, h.step, h.k,
                    h.step, false, p, keys);
            for (size_t r = 0; r < rows; r++) {
                size_t n = q + r + 1;
                float *row = p + r * keys, top = cpu->kern->max(n, row) * h.scale;
                float sum = cpu->kern->exp_sum(n, row, h.scale, top);
                lse[(h.row + q + r) * a->n_heads + h.index] = top + logf(sum);
                cpu->kern->scale(n, row, 1 / sum);
                memset(row + n, 0, (keys - n) * sizeof *row);
                drop(&h, q + r, n, row);
            }
            product(&h, GEMM_NN, rows, h.dim, keys, p, keys, h.v, h.step, false,
                    out + (h.row + q) * a->width + h.index * h.dim, a->width);
        }
    }
}

/* P = exp(scale Q K^T - lse); O = P V.  dV = P^T dO; dP = dO V^T;
 * dS = scale P (dP - rowsum(dO O)); dQ = dS K; dK = dS^T Q.  With dropout P's zeros and
 * factor stand in the two products with V and before dS. */
void grad_attend_back(const struct grad_cpu *cpu, unsigned i,
                      const struct grad_attention *a, const float *qkv,
                      const float *out, const float *lse, const float *dout,
                      float *dqkv)
{
    const struct grad_kern *kern = cpu->kern;
    size_t begin, end, width = a->width;
    pool_range(a->n_seqs * a->n_heads, 1, i, cpu->n_threads, &begin, &end);
    for (size_t task = begin; task < end; task++) {
        struct head h = head_at(cpu, i, a, task, qkv);
        size_t part = GRAD_ATTN_ROWS * a->seq_len;
        float *p = cpu->threads[i].attn, *dp = p + part, *dropped = dp + part;
        float *dq = dqkv + h.row * h.step + h.index * h.dim, *dk = dq + width,
              *dv = dk + width;
        for (size_t q = 0; q < a->seq_len; q += GRAD_ATTN_ROWS) {
            size_t rows =
                a->seq_len - q < GRAD_ATTN_ROWS ? a->seq_len - q : GRAD_ATTN_ROWS;
            size_t keys = q + rows, at = (h.row + q) * width + h.index * h.dim;
            float *p_v = p; /* what met V */
            product(&h, GEMM_NT, rows, keys, h.dim, h.q + q * h.step, h.step, h.k,
                    h.step, false, p, keys);
            product(&h, GEMM_NT, rows, keys, h.dim, dout + at, width, h.v, h.step,
                    false, dp, keys);
            for (size_t r = 0; r < rows; r++) {
                size_t n = q + r + 1;
                float *row = p + r * keys, *drow = dp + r * keys;
                kern->exp_sum(n, row, h.scale,
                              lse[(h.row + q + r) * a->n_heads + h.index]);
                memset(row + n, 0, (keys - n) * sizeof *row);
                if (a->drop.share > 0) {
                    p_v = dropped;
                    memcpy(p_v + r * keys, row, keys * sizeof *row);
                    drop(&h, q + r, n, p_v + r * keys);
                    drop(&h, q + r, n, drow);
                }
                float d = kern->dot(h.dim, dout + at + r * width, out + at + r * width);
                kern->softmax_back(n, row, drow, d, h.scale);
                memset(drow + n, 0, (keys - n) * sizeof *drow);
            }
            /* The first block reaches keys that none reached before it: those that are
             * new in a block are set, the others are added to. */
            product(&h, GEMM_TN, q, h.dim, rows, p_v, keys, dout + at, width, true, dv,
                    h.step);
            product(&h, GEMM_TN, rows, h.dim, rows, p_v + q, keys, dout + at, width,
                    false, dv + q * h.step, h.step);
            product(&h, GEMM_TN, q, h.dim, rows, dp, keys, h.q + q * h.step, h.step,
                    true, dk, h.step);
            product(&h, GEMM_TN, rows, h.dim, rows, dp + q, keys, h.q + q * h.step,
                    h.step, false, dk + q * h.step, h.step);
            product(&h, GEMM_NN, rows, h.dim, keys, dp, keys, h.k, h.step, false,
                    dq + q * h.step, h.step);
        }
    }
}
