/* Owns training's operations on rows: norms, sums, embeddings, the loss. */
#include "back/grad_ops.h"

#include <math.h>
#include <string.h>

enum { COLUMNS = 64 }; /* of a thread's part of a sum over rows: whole cache lines */

void grad_sum_rows(const struct grad_cpu *cpu, unsigned i, size_t n_rows, size_t n,
                   const float *x, float *sum)
{
    size_t begin, end;
    pool_range(n, COLUMNS, i, cpu->n_threads, &begin, &end);
    for (size_t r = 0; r < n_rows; r++)
        cpu->kern->add(end - begin, sum + begin, x + r * n + begin);
}

void grad_norm(const struct grad_cpu *cpu, unsigned i, size_t n_rows, size_t n,
               const float *x, const float *gain, const float *bias, float eps,
               float *y, float *stat)
{
    size_t begin, end;
    pool_range(n_rows, 1, i, cpu->n_threads, &begin, &end);
    for (size_t r = begin; r < end; r++)
        cpu->kern->norm(n, x + r * n, gain, bias, eps, y + r * n, stat + r * 2);
}

void grad_norm_again(const struct grad_cpu *cpu, unsigned i, size_t n_rows, size_t n,
                     const float *x, const float *gain, const float *bias,
                     const float *stat, float *y)
{
    size_t begin, end;
    pool_range(n_rows, 1, i, cpu->n_threads, &begin, &end);
    for (size_t r = begin; r < end; r++)
        cpu->kern->norm_again(n, x + r * n, gain, bias, stat + r * 2, y + r * n);
}

void grad_norm_back(const struct grad_cpu *cpu, unsigned i, size_t n_rows, size_t n,
                    const float *x, const float *gain, const float *stat,
                    const float *dy, float *dx, float *dgain, float *dbias)
{
    size_t begin, end;
    pool_range(n_rows, 1, i, cpu->n_threads, &begin, &end);
    for (size_t r = begin; r < end; r++)
        cpu->kern->norm_back(n, x + r * n, gain, stat + r * 2, dy + r * n, dx + r * n);
    pool_range(n, COLUMNS, i, cpu->n_threads, &begin, &end);
    for (size_t r = 0; (dgain || dbias) && r < n_rows; r++)
        cpu->kern->norm_back_params(end - begin, x + r * n + begin, stat + r * 2,
                                    dy + r * n + begin, dgain ? dgain + begin : NULL,
                                    dbias ? dbias + begin : NULL);
}

void grad_gelu(const struct grad_cpu *cpu, unsigned i, size_t n_rows, size_t n,
               const float *x, float *y)
{
    size_t begin, end;
    pool_range(n_rows, 1, i, cpu->n_threads, &begin, &end);
    cpu->kern->gelu((end - begin) * n, x + begin * n, y + begin * n);
}

void grad_embed(const struct grad_cpu *cpu, unsigned i, size_t n_seqs, size_t seq_len,
                size_t n, const int32_t *tokens, const float *table,
                const float *positions, float *x)
{
    size_t begin, end;
    pool_range(n_seqs * seq_len, 1, i, cpu->n_threads, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        memcpy(x + r * n, table + (size_t)tokens[r] * n, n * sizeof *x);
        cpu->kern->add(n, x + r * n, positions + r % seq_len * n);
    }
}

void grad_look_up(const struct grad_cpu *cpu, unsigned i, size_t n_rows, size_t n,
                  const int32_t *ids, const float *table, float scale, float *y)
{
    size_t begin, end;
    pool_range(n_rows, 1, i, cpu->n_threads, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        memcpy(y + r * n, table + (size_t)ids[r] * n, n * sizeof *y);
        cpu->kern->scale(n, y + r * n, scale);
    }
}

/* By columns: tokens repeat, and their sums are to have one order. */
void grad_embed_back(const struct grad_cpu *cpu, unsigned i, size_t n_seqs,
                     size_t seq_len, size_t n, const int32_t *tokens, const float *dx,
                     float *dtable, float *dpositions)
{
    size_t begin, end;
    pool_range(n, COLUMNS, i, cpu->n_threads, &begin, &end);
    for (size_t r = 0; r < n_seqs * seq_len; r++) {
        const float *from = dx + r * n + begin;
        if (dtable)
            cpu->kern->add(end - begin, dtable + (size_t)tokens[r] * n + begin, from);
        if (dpositions)
            cpu->kern->add(end - begin, dpositions + r % seq_len * n + begin, from);
    }
}

void grad_loss(const struct grad_cpu *cpu, unsigned i, size_t n_rows, size_t n,
               float *logits, const int32_t *targets, float weight, double *losses)
{
    size_t begin, end;
    pool_range(n_rows, 1, i, cpu->n_threads, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        float *row = logits + r * n;
        losses[r] = 0;
        if (targets[r] < 0) {
            memset(row, 0, n * sizeof *row);
            continue;
        }
        float top = cpu->kern->max(n, row), x = row[targets[r]];
        float sum = cpu->kern->exp_sum(n, row, 1, top);
        losses[r] = log((double)sum) + (double)top - (double)x;
        cpu->kern->scale(n, row, weight / sum);
        row[targets[r]] -= weight;
    }
}
