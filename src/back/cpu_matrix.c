/* Owns the form in which products read a matrix: where it lies in the file, or packed
 * into tiles when the format's kernels want that. */
#include "back/cpu_ops.h"

#include "base/err.h"
#include "base/mem.h"

struct packing {
    const struct cpu_matrix *m;
    enum kern_tile kind;
    const uint8_t *rows;
    uint8_t *tiles;
};

static void pack_tiles(void *ctx, unsigned i, unsigned n)
{
    const struct packing *p = ctx;
    const struct cpu_matrix *m = p->m;
    size_t begin, end;
    pool_range(m->n_rows, KERN_TILE_ROWS, i, n, &begin, &end);
    for (size_t r = begin; r < end; r += KERN_TILE_ROWS) {
        size_t left = end - r;
        kern_tile_pack(p->kind, left < KERN_TILE_ROWS ? left : KERN_TILE_ROWS,
                       m->n_cols, p->rows + r * m->row_bytes, m->row_bytes,
                       p->tiles + r / KERN_TILE_ROWS * m->tile_bytes);
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
    *m = (struct cpu_matrix){0};
}
