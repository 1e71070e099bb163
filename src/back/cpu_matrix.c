/* Owns the form in which products read a matrix: where it lies in the file, or packed
 * into tiles when the format's kernels, or those of Q8_0 in its place, want that; and
 * what adapters add to it. */
#include "back/cpu_ops.h"

#include "base/err.h"
#include "base/mem.h"

#include <string.h>

struct packing {
    const struct cpu_matrix *m;
    enum kern_tile kind;
    const uint8_t *rows;
    uint8_t *tiles;
};

/* Up to 16 rows of a format that is a scale and small codes, as tiles of Q8_0: the same
 * numbers, by kernels that there are.  A few columns at a time, whole blocks of every
 * format and whole groups of a tile, so that what is between stays in the cache. */
static void pack_as_q8_0(const struct packing *p, size_t n_rows, const uint8_t *rows,
                         uint8_t *tile)
{
    enum { COLS = 256, Q8_0_BYTES = 34, STRIDE = COLS / KERN_HALF * Q8_0_BYTES };
    _Static_assert(COLS % KERN_GROUP == 0, "whole groups");
    const struct cpu_matrix *m = p->m;
    uint8_t q8[KERN_TILE_ROWS * STRIDE];
    for (size_t c = 0; c < m->n_cols; c += COLS) {
        size_t n = m->n_cols - c < COLS ? m->n_cols - c : COLS,
               at = c / m->fmt->block_len * m->fmt->block_bytes;
        for (size_t r = 0; r < n_rows; r++)
            m->fmt->to_q8_0(rows + r * m->row_bytes + at, q8 + r * STRIDE, n);
        kern_tile_pack(KERN_TILE_Q8_0, n_rows, n, q8, STRIDE,
                       tile + kern_tile_bytes(KERN_TILE_Q8_0, c));
    }
}

static void pack_tiles(void *ctx, unsigned i, unsigned n)
{
    const struct packing *p = ctx;
    const struct cpu_matrix *m = p->m;
    size_t begin, end;
    pool_range(m->n_rows, KERN_TILE_ROWS, i, n, &begin, &end);
    for (size_t r = begin; r < end; r += KERN_TILE_ROWS) {
        size_t n_rows = end - r < KERN_TILE_ROWS ? end - r : KERN_TILE_ROWS;
        const uint8_t *rows = p->rows + r * m->row_bytes;
        uint8_t *tile = p->tiles + r / KERN_TILE_ROWS * m->tile_bytes;
        if (m->fmt->to_q8_0)
            pack_as_q8_0(p, n_rows, rows, tile);
        else
            kern_tile_pack(p->kind, n_rows, m->n_cols, rows, m->row_bytes, tile);
    }
}

int cpu_matrix_init(const struct kern_table *kern, struct pool *pool,
                    const struct fmt_info *fmt, const uint8_t *data, size_t n_rows,
                    size_t n_cols, struct cpu_matrix *out, struct runt_err *err)
{
    struct cpu_matrix m = {
        .fmt = fmt, .data = data, .n_rows = n_rows, .n_cols = n_cols};
    enum kern_tile kind;
    size_t n_tiles = (n_rows + KERN_TILE_ROWS - 1) / KERN_TILE_ROWS;
    bool tiled = kern_tile_for(fmt->type, &kind);
    if (fmt->to_q8_0) {
        kind = KERN_TILE_Q8_0;
        tiled = true;
    }
    if (fmt->tile_rows == 1 && !fmt_row_bytes(fmt, n_cols, &m.row_bytes))
        return err_set(err, RUNT_E_FORMAT,
                       "a row of %zu numbers is not whole %s blocks", n_cols,
                       fmt->name);
    if (tiled) {
        m.tile = kern->tile[kind];
        m.tile_bytes = kern_tile_bytes(kind, n_cols);
    }
    if (!size_mul(tiled ? n_tiles : n_rows, tiled ? m.tile_bytes : m.row_bytes,
                  &m.bytes))
        return err_set(err, RUNT_E_FORMAT, "%zu x %zu numbers overflow its size",
                       n_rows, n_cols);
    if (tiled && fmt->tile_rows == 1) {
        m.packed = mem_huge(m.bytes);
        if (!m.packed)
            return err_nomem(err, "the packed weights");
        struct packing p = {&m, kind, data, m.packed};
        pool_run(pool, pack_tiles, &p);
        m.data = m.packed;
    }
    if (!tiled)
        m.dot = kern_dot_for(kern, fmt->type);
    *out = m;
    return 0;
}

void cpu_matrix_free(struct cpu_matrix *m)
{
    mem_free(m->packed);
    cpu_low_free(&m->low);
    *m = (struct cpu_matrix){0};
}

/* ---- adapters ---- */

int cpu_low_join(const struct cpu_low *old, size_t n_rows, size_t n_cols, size_t rank,
                 const float *a, const float *b, double scale, struct cpu_low *out,
                 struct runt_err *err)
{
    size_t n_a, n_b, bytes;
    struct cpu_low l = {.rank = old->rank + rank};
    if (size_mul(l.rank, n_cols, &n_a) && size_mul(n_a, sizeof *l.a, &bytes))
        l.a = mem_aligned(bytes);
    if (size_mul(l.rank, n_rows, &n_b) && size_mul(n_b, sizeof *l.b, &bytes))
        l.b = mem_aligned(bytes);
    if (!l.a || !l.b) {
        cpu_low_free(&l);
        return err_nomem(err, "an adapter");
    }
    if (old->rank) {
        memcpy(l.a, old->a, old->rank * n_cols * sizeof *l.a);
        memcpy(l.b, old->b, old->rank * n_rows * sizeof *l.b);
    }
    memcpy(l.a + old->rank * n_cols, a, rank * n_cols * sizeof *l.a);
    for (size_t k = 0; k < rank; k++)
        for (size_t r = 0; r < n_rows; r++)
            l.b[(old->rank + k) * n_rows + r] =
                (float)(scale * (double)b[r * rank + k]);
    *out = l;
    return 0;
}

void cpu_low_free(struct cpu_low *l)
{
    mem_free(l->a);
    mem_free(l->b);
    *l = (struct cpu_low){0};
}

/* ---- accounts ---- */

static uint64_t low_numbers(const struct cpu_matrix *m)
{
    return (uint64_t)(m->n_rows + m->n_cols) * m->low.rank;
}

size_t cpu_matrix_bytes(const struct cpu_matrix *m)
{
    return m->bytes + (size_t)low_numbers(m) * sizeof(float);
}

uint64_t cpu_matrix_ops(const struct cpu_matrix *m, size_t n)
{
    return 2 * ((uint64_t)m->n_rows * m->n_cols + low_numbers(m)) * n;
}
