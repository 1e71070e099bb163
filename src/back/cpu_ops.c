/* Owns how norms and products are cut among threads and into cache-sized blocks.  The
 * arithmetic itself is in src/kern. */
#include "back/cpu_ops.h"

#include <string.h>
#include <time.h>

static size_t min(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- threads ---- */

double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void cpu_mark(struct cpu_thread *t, enum cpu_op op, uint64_t bytes, uint64_t ops)
{
    if (!t->acc)
        return;
    t->acc->bytes[op] += bytes;
    t->acc->ops[op] += ops;
    if (!t->acc->timed)
        return;
    double now = cpu_seconds();
    t->acc->seconds[op] += now - t->last;
    t->last = now;
}

void cpu_sync(struct cpu_thread *t)
{
    if (t->n == 1)
        return;
    pool_barrier(t->pool, t->i);
    cpu_mark(t, CPU_WAIT, 0, 0);
}

/* ---- what products read ---- */

/* x a^T of one token. */
static void lower(const struct cpu_thread *t, const struct cpu_matrix *w,
                  const float *x, float *low)
{
    t->kern->dot_f32(w->n_cols, x, w->low.a, w->n_cols * sizeof *x, w->low.rank, low,
                     1);
}

struct cpu_input cpu_norm(struct cpu_thread *t, const struct cpu_matrix *w,
                          size_t n_tokens, const float *x, const float *gain,
                          const float *bias, float eps, const struct cpu_buffer *to)
{
    size_t n = w->n_cols, n_groups = kern_n_groups(n), rank = w->low.rank, begin = 0,
           end = n_tokens;
    bool own = n_tokens == 1 && w->tile;
    struct kern_act *act = own ? t->act : to->act;
    float *low = own ? t->low : to->low;
    if (!own)
        pool_range(n_tokens, 1, t->i, t->n, &begin, &end);
    for (size_t k = begin; k < end; k++) {
        float *y = w->tile ? t->block : to->x + k * n;
        if (w->tile && !rank)
            t->kern->layer_norm_act(n, x + k * n, gain, bias, eps, act + k * n_groups);
        else
            t->kern->layer_norm(n, x + k * n, gain, bias, eps, y);
        if (w->tile && rank)
            t->kern->quantize_act(n, y, act + k * n_groups);
        if (rank)
            lower(t, w, y, low + k * rank);
    }
    cpu_mark(t, CPU_NORM, 0, 0);
    if (!own)
        cpu_sync(t);
    return (struct cpu_input){act, to->x, low};
}

struct cpu_input cpu_prepare(struct cpu_thread *t, const struct cpu_matrix *w,
                             size_t n_tokens, const float *x,
                             const struct cpu_buffer *to)
{
    size_t n = w->n_cols, n_groups = kern_n_groups(n), rank = w->low.rank, begin = 0,
           end = n_tokens;
    if (!w->tile && !rank)
        return (struct cpu_input){.x = x};
    bool own = n_tokens == 1;
    struct kern_act *act = own ? t->act : to->act;
    float *low = own ? t->low : to->low;
    if (!own)
        pool_range(n_tokens, 1, t->i, t->n, &begin, &end);
    for (size_t k = begin; k < end; k++) {
        if (w->tile)
            t->kern->quantize_act(n, x + k * n, act + k * n_groups);
        if (rank)
            lower(t, w, x + k * n, low + k * rank);
    }
    cpu_mark(t, CPU_NORM, 0, 0);
    if (!own)
        cpu_sync(t);
    return (struct cpu_input){act, x, low};
}

/* ---- products ---- */

/* A row of a format without a kernel: decoded piece by piece, the pieces' float
 * products added in order. */
static void dot_decoded(const struct cpu_thread *t, const struct cpu_matrix *w,
                        size_t row, const float *x, size_t n_tokens, float *out,
                        size_t stride)
{
    enum { PIECE = 256, MANY = 16 }; /* a piece is whole blocks of every format */
    const uint8_t *bytes = w->data + row * w->row_bytes;
    float piece[PIECE], part[MANY];
    for (size_t k = 0; k < n_tokens; k++)
        out[k * stride] = 0;
    for (size_t i = 0; i < w->n_cols; i += PIECE) {
        size_t n = min(PIECE, w->n_cols - i);
        w->fmt->decode(bytes + i / w->fmt->block_len * w->fmt->block_bytes, piece, n);
        for (size_t k = 0; k < n_tokens; k += MANY) {
            size_t m = min(MANY, n_tokens - k);
            t->kern->dot_f32(n, piece, x + k * w->n_cols + i, w->n_cols * sizeof *x, m,
                             part, 1);
            for (size_t j = 0; j < m; j++)
                out[(k + j) * stride] += part[j];
        }
    }
}

enum { L1_FLOATS = 6144, L2_BYTES = 256 << 10 };

/* Rows row..row + n_rows - 1 (row a multiple of 16) against tokens:
 * block[token][stride].
 */
static void product(const struct cpu_thread *t, const struct cpu_matrix *w, size_t row,
                    size_t n_rows, struct cpu_input in, size_t n_tokens, size_t stride)
{
    if (w->tile) {
        w->tile(w->n_cols, stride / KERN_TILE_ROWS,
                w->data + row / KERN_TILE_ROWS * w->tile_bytes, in.act, n_tokens,
                t->block, stride);
        return;
    }
    if (!w->dot) {
        for (size_t r = 0; r < n_rows; r++)
            dot_decoded(t, w, row + r, in.x, n_tokens, t->block + r, stride);
        return;
    }
    /* Few vectors at a time, as many as the kernels take together or a multiple: they
     * stay in the first-level cache, the rows in the second. */
    size_t some = L1_FLOATS / w->n_cols / 8 * 8, some_rows = L2_BYTES / w->row_bytes;
    some = some ? some : 8;
    some_rows = some_rows ? some_rows : 1;
    for (size_t r0 = 0; r0 < n_rows; r0 += some_rows)
        for (size_t k = 0; k < n_tokens; k += some)
            for (size_t r = r0; r < min(r0 + some_rows, n_rows); r++)
                w->dot(w->n_cols, w->data + (row + r) * w->row_bytes,
                       in.x + k * w->n_cols, w->n_cols * sizeof *in.x,
                       min(some, n_tokens - k), t->block + k * stride + r, stride);
}

/* The same rows of what adapters add: low b. */
static void raise_rows(const struct cpu_thread *t, const struct cpu_matrix *w,
                       size_t row, size_t n_rows, struct cpu_input in, size_t n_tokens,
                       size_t stride)
{
    size_t rank = w->low.rank;
    for (size_t k = 0; k < n_tokens; k++)
        t->kern->add_rows(n_rows, t->block + k * stride, rank, in.low + k * rank,
                          w->low.b + row, w->n_rows);
}

static void deliver(const struct cpu_thread *t, size_t n_rows, const float *bias,
                    enum cpu_sink sink, float *y, float *out)
{
    if (sink == CPU_GELU)
        t->kern->gelu(n_rows, y, bias);
    else if (bias)
        t->kern->add(n_rows, y, bias);
    if (sink == CPU_ADD)
        t->kern->add(n_rows, out, y);
    else
        memcpy(out, y, n_rows * sizeof *out);
}

/* A block of rows meets all tokens (up to MOST_TOKENS) before the next: its weights
 * come from memory once, its outputs stay in the second-level cache.  A few tokens take
 * long blocks, which the kernels read in several places at once. */
void cpu_matmul_rows(struct cpu_thread *t, const struct cpu_matrix *w, size_t begin,
                     size_t end, struct cpu_input in, size_t n_tokens,
                     const float *bias, enum cpu_sink sink, float *out,
                     size_t out_stride)
{
    enum { MOST_TOKENS = CPU_BLOCK_FLOATS / KERN_TILE_ROWS };
    size_t n_groups = kern_n_groups(w->n_cols);
    for (size_t k0 = 0; k0 < n_tokens; k0 += MOST_TOKENS) {
        size_t n = min(MOST_TOKENS, n_tokens - k0),
               rows = CPU_BLOCK_FLOATS / n / KERN_TILE_ROWS * KERN_TILE_ROWS;
        struct cpu_input part = {in.act ? in.act + k0 * n_groups : NULL,
                                 in.x ? in.x + k0 * w->n_cols : NULL,
                                 in.low ? in.low + k0 * w->low.rank : NULL};
        for (size_t r = begin; r < end; r += rows) {
            size_t n_rows = min(rows, end - r),
                   stride =
                       (n_rows + KERN_TILE_ROWS - 1) / KERN_TILE_ROWS * KERN_TILE_ROWS;
            product(t, w, r, n_rows, part, n, stride);
            if (w->low.rank)
                raise_rows(t, w, r, n_rows, part, n, stride);
            for (size_t k = 0; k < n; k++)
                deliver(t, n_rows, bias ? bias + r : NULL, sink, t->block + k * stride,
                        out + (k0 + k) * out_stride + r);
        }
    }
}

void cpu_matmul(struct cpu_thread *t, const struct cpu_matrix *w, struct cpu_input in,
                size_t n_tokens, const float *bias, enum cpu_sink sink, float *out,
                size_t out_stride)
{
    size_t begin, end;
    pool_range(w->n_rows, KERN_TILE_ROWS, t->i, t->n, &begin, &end);
    cpu_matmul_rows(t, w, begin, end, in, n_tokens, bias, sink, out, out_stride);
}
