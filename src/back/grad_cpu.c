/* Owns what the operations of training share: the threads' scratch, products in tiles,
 * dropout. */
#include "back/grad_ops.h"

#include "base/err.h"
#include "base/mem.h"

#include <string.h>
#include <time.h>

size_t grad_cpu_bytes(unsigned n_threads, enum gemm_type type, size_t seq_len,
                      size_t n_operand)
{
    return n_threads * 3 * GRAD_ATTN_ROWS * seq_len * sizeof(float) +
           (type == GEMM_BF16 ? 2 * n_operand * sizeof(uint16_t) : 0);
}

int grad_cpu_init(struct grad_cpu *cpu, struct pool *pool, enum gemm_type type,
                  size_t seq_len, size_t n_operand, struct runt_err *err)
{
    *cpu = (struct grad_cpu){.pool = pool,
                             .kern = grad_kern_get(),
                             .type = type,
                             .n_threads = pool_n_threads(pool),
                             .n_narrow = type == GEMM_BF16 ? n_operand : 0};
    int rc = gemm_open(&cpu->gemm, err);
    if (rc)
        return rc;
    cpu->threads = mem_array(cpu->n_threads, sizeof *cpu->threads);
    bool ok = cpu->threads != NULL;
    for (unsigned i = 0; ok && i < cpu->n_threads && !rc; i++) {
        rc = gemm_thread_open(cpu->gemm, &cpu->threads[i].gemm, err);
        cpu->threads[i].attn = mem_array(seq_len, 3 * GRAD_ATTN_ROWS * sizeof(float));
        ok = cpu->threads[i].attn != NULL;
    }
    for (int k = 0; ok && cpu->n_narrow && k < 2; k++)
        ok = (cpu->narrow[k] = mem_array(n_operand, sizeof(uint16_t))) != NULL;
    if (!rc && !ok)
        rc = err_nomem(err, "training");
    if (rc)
        grad_cpu_free(cpu);
    return rc;
}

void grad_cpu_free(struct grad_cpu *cpu)
{
    for (unsigned i = 0; cpu->threads && i < cpu->n_threads; i++) {
        gemm_thread_close(cpu->threads[i].gemm);
        mem_free(cpu->threads[i].attn);
    }
    mem_free(cpu->threads);
    mem_free(cpu->narrow[0]);
    mem_free(cpu->narrow[1]);
    gemm_close(cpu->gemm);
    memset(cpu, 0, sizeof *cpu);
}

void grad_sync(const struct grad_cpu *cpu, unsigned i)
{
    pool_barrier(cpu->pool, i);
}

/* ---- dropout ---- */

static uint32_t mix(uint32_t h)
{
    h = (h ^ (h >> 16)) * 0x7feb352du;
    h = (h ^ (h >> 15)) * 0x846ca68bu;
    return h ^ (h >> 16);
}

void grad_drop_row(const struct grad_cpu *cpu, const struct grad_drop *d, size_t row,
                   size_t n_cols, size_t from, size_t n, float *x)
{
    uint32_t key = mix(d->keys[row / d->seq_len] + d->place * 0x9e3779b9u);
    cpu->kern->dropout(n, x, key, (uint32_t)(row % d->seq_len * n_cols + from),
                       d->share);
}

void grad_drop_rows(const struct grad_cpu *cpu, unsigned i, const struct grad_drop *d,
                    size_t n_rows, size_t n_cols, const float *x, float *y)
{
    size_t begin, end;
    pool_range(n_rows, 1, i, cpu->n_threads, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        if (y != x)
            memcpy(y + r * n_cols, x + r * n_cols, n_cols * sizeof *y);
        grad_drop_row(cpu, d, r, n_cols, 0, n_cols, y + r * n_cols);
    }
}

/* ---- products ---- */

/* As large as leaves work for some threads: the library packs a tile's operands anew
 * for every tile. */
static void tile_sides(size_t m, size_t n, size_t *tile_m, size_t *tile_n)
{
    enum { LARGEST = 512, SMALLEST = 128, ENOUGH = 8 };
    *tile_m = m < LARGEST ? m : LARGEST;
    *tile_n = n < LARGEST ? n : LARGEST;
    while (((m + *tile_m - 1) / *tile_m) * ((n + *tile_n - 1) / *tile_n) < ENOUGH) {
        size_t *side = *tile_m > *tile_n ? tile_m : tile_n;
        if (*side <= SMALLEST)
            break;
        *side = (*side / 2 + 31) / 32 * 32;
    }
}

/* Rows of an operand in bfloat16, all threads together. */
static void narrow(const struct grad_cpu *cpu, unsigned i, size_t rows, size_t cols,
                   struct grad_matrix *x, uint16_t *to)
{
    size_t begin, end;
    pool_range(rows, 1, i, cpu->n_threads, &begin, &end);
    for (size_t r = begin; r < end; r++)
        cpu->kern->to_bf16(cols, x->f + r * x->step, to + r * cols);
    x->h = to;
    x->step = cols;
}

/* c [rows][cols] = or += the part of a product that begins at (row, col). */
static void part(const struct grad_cpu *cpu, unsigned i, enum gemm_form form,
                 size_t row, size_t rows, size_t col, size_t cols, size_t n, size_t k,
                 struct grad_matrix a, struct grad_matrix b, bool add, float *c)
{
    bool narrow = cpu->type == GEMM_BF16;
    size_t a_at = form == GEMM_TN ? row : row * a.step;
    size_t b_at = form == GEMM_NT ? col * b.step : col;
    gemm_run(cpu->threads[i].gemm, cpu->type, form, rows, cols, k,
             narrow ? (const void *)(a.h + a_at) : a.f + a_at, a.step,
             narrow ? (const void *)(b.h + b_at) : b.f + b_at, b.step, add, c, n);
}

static void tile(const struct grad_cpu *cpu, unsigned i, enum gemm_form form,
                 size_t row, size_t rows, size_t col, size_t cols, size_t n, size_t k,
                 struct grad_matrix a, struct grad_matrix b, bool add, float *c,
                 const struct grad_then *then)
{
    const struct grad_kern *kern = cpu->kern;
    bool dropped = then && then->drop && then->drop->share > 0;
    for (size_t r = row; then && then->bias && r < row + rows; r++) {
        float *to = c + r * n + col;
        memcpy(to, then->bias + col, cols * sizeof *to);
        if (then->residual && !dropped)
            kern->add(cols, to, then->residual + r * n + col);
        add = true;
    }
    part(cpu, i, form, row, rows, col, cols, n, k, a, b, add, c + row * n + col);
    if (then && then->more_k)
        part(cpu, i, form, row, rows, col, cols, n, then->more_k, then->more_a,
             then->more_b, true, c + row * n + col);
    for (size_t r = row; then && r < row + rows; r++) {
        float *to = c + r * n + col;
        if (then->scale != 0)
            kern->scale(cols, to, then->scale);
        if (dropped) {
            grad_drop_row(cpu, then->drop, r, n, col, cols, to);
            kern->add(cols, to, then->residual + r * n + col);
        }
        if (then->gelu)
            kern->gelu(cols, to, then->gelu + r * n + col);
        if (then->gelu_back)
            kern->gelu_back(cols, then->gelu_back + r * n + col, to);
    }
}

void grad_product(const struct grad_cpu *cpu, unsigned i, enum gemm_form form, size_t m,
                  size_t n, size_t k, struct grad_matrix a, struct grad_matrix b,
                  bool add, float *c, const struct grad_then *then)
{
    size_t tile_m, tile_n, begin, end, more = then ? then->more_k : 0;
    struct grad_then own;
    if (cpu->type == GEMM_BF16 && (!a.h || !b.h || (more && !then->more_a.h))) {
        grad_sync(cpu, i); /* the product before may still read them */
        if (!a.h)
            narrow(cpu, i, form == GEMM_TN ? k : m, form == GEMM_TN ? m : k, &a,
                   cpu->narrow[0]);
        if (!b.h)
            narrow(cpu, i, form == GEMM_NT ? n : k, form == GEMM_NT ? k : n, &b,
                   cpu->narrow[1]);
        if (more && !then->more_a.h) {
            own = *then;
            narrow(cpu, i, form == GEMM_TN ? more : m, form == GEMM_TN ? m : more,
                   &own.more_a, cpu->narrow[1]);
            then = &own;
        }
        grad_sync(cpu, i);
    }
    tile_sides(m, n, &tile_m, &tile_n);
    size_t across = (n + tile_n - 1) / tile_n, down = (m + tile_m - 1) / tile_m;
    pool_range(across * down, 1, i, cpu->n_threads, &begin, &end);
    for (size_t t = begin; t < end; t++) {
        size_t row = t % down * tile_m, col = t / down * tile_n;
        tile(cpu, i, form, row, m - row < tile_m ? m - row : tile_m, col,
             n - col < tile_n ? n - col : tile_n, n, k, a, b, add, c, then);
    }
}

/* ---- the peak ---- */

enum { PEAK_SIDE = 512 };

struct peak {
    const struct grad_cpu *cpu;
    const float *x;
    float *out; /* [n_threads][PEAK_SIDE][PEAK_SIDE] */
};

static void peak_thread(void *ctx, unsigned i, unsigned n)
{
    const struct peak *p = ctx;
    size_t all = (size_t)PEAK_SIDE * PEAK_SIDE;
    (void)n;
    gemm_run(p->cpu->threads[i].gemm, p->cpu->type, GEMM_NT, PEAK_SIDE, PEAK_SIDE,
             PEAK_SIDE, p->x, PEAK_SIDE, p->x, PEAK_SIDE, false, p->out + i * all,
             PEAK_SIDE);
}

double grad_cpu_peak(const struct grad_cpu *cpu)
{
    size_t all = (size_t)PEAK_SIDE * PEAK_SIDE;
    float *x = mem_array(all * (cpu->n_threads + 1), sizeof *x);
    struct peak p = {cpu, x, x ? x + all : NULL};
    double best = 0, all_seconds = 0;
    /* For a tenth of a second: both threads may begin on one core. */
    for (int round = 0; x && (round < 12 || all_seconds < 0.1); round++) {
        struct timespec from, to;
        clock_gettime(CLOCK_MONOTONIC, &from);
        pool_run(cpu->pool, peak_thread, &p);
        clock_gettime(CLOCK_MONOTONIC, &to);
        double s = (double)(to.tv_sec - from.tv_sec) +
                   1e-9 * (double)(to.tv_nsec - from.tv_nsec);
        all_seconds += s;
        double rate = 2.0 * (double)all * PEAK_SIDE * cpu->n_threads / s;
        best = rate > best ? rate : best;
    }
    mem_free(x);
    return best;
}
