/* Owns the walk over columns, in blocks: within a block errors go from column to
 * column, behind it they go on all at once, as a product. */
#include "quant/gptq.h"

#include "base/err.h"
#include "base/mem.h"

#include <string.h>

enum { COLUMNS = 128 }; /* of a block: whole groups */
static const double LOOKUPS = 3;

static double trace(const struct calib_moment *m)
{
    double sum = 0;
    for (size_t i = 0; i < m->n; i++)
        sum += (double)m->h[i * m->n + i];
    return sum;
}

int gptq_init(struct gptq *g, const struct blas *blas, const struct fmt_info *fmt,
              const struct calib *c, const struct calib_moment *m, double damping,
              struct runt_err *err)
{
    size_t n = m->n, size = n * n;
    const struct calib_moment *rows = calib_find_rows(c, m);
    double mean = 0, *a = mem_array(size, sizeof *a), share = 0;
    *g = (struct gptq){.blas = blas, .fmt = fmt, .n = n};
    g->h = mem_array(size, sizeof *g->h);
    g->u = mem_array(size, sizeof *g->u);
    g->weight = mem_array(n, sizeof *g->weight);
    int rc = a && g->h && g->u && g->weight ? 0 : err_nomem(err, "a Hessian");
    if (rc)
        goto out;
    if (rows && trace(rows) > 0)
        share = LOOKUPS * trace(m) / (double)c->n_tokens / trace(rows);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++) {
            double x = (double)m->h[i * n + j] / (double)c->n_tokens;
            if (rows)
                x += share * (double)rows->h[i * n + j];
            g->h[i * n + j] = g->h[j * n + i] = (float)x;
            a[i * n + j] = x;
        }
    for (size_t i = 0; i < n; i++)
        mean += a[i * n + i] / (double)n;
    for (size_t i = 0; i < n; i++) /* an input that is always 0 costs nothing */
        a[i * n + i] += mean > 0 ? damping * mean : 1;
    rc = blas_inverse_factor(blas, n, a, err);
    if (rc) {
        err_prefix(err, "%s", m->name);
        goto out;
    }
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        double d = 1 / (a[i * n + i] * a[i * n + i]);
        most = d > most ? d : most;
        for (size_t j = i; j < n; j++)
            g->u[i * n + j] = (float)a[i * n + j];
    }
    for (size_t i = 0; i < n; i++)
        g->weight[i] = (float)(1 / (a[i * n + i] * a[i * n + i]) / most);
out:
    mem_free(a);
    if (rc)
        gptq_free(g);
    return rc;
}

void gptq_free(struct gptq *g)
{
    mem_free(g->h);
    mem_free(g->u);
    mem_free(g->weight);
    *g = (struct gptq){0};
}

size_t gptq_room(const struct gptq *g, size_t n_rows)
{
    return n_rows * (g->n + COLUMNS);
}

void gptq_group(const struct gptq *g, size_t j0, size_t n, size_t end, size_t row,
                uint16_t row_scale, const uint8_t *zero, float *w, float *e,
                uint8_t *bytes)
{
    size_t group = codec_group(g->fmt);
    struct codec_grid grid;
    float kept[CODEC_MAX_GROUP];
    int codes[CODEC_MAX_GROUP];
    for (size_t j = 0; group && j < n; j++)
        kept[j] = zero && zero[j] ? 0 : w[j0 + j];
    if (group)
        codec_fit(g->fmt, row_scale, kept, g->weight + j0, n, &grid);
    for (size_t j = j0; j < j0 + n; j++) {
        const float *u = g->u + j * g->n;
        float value = zero && zero[j - j0] ? 0 : w[j];
        if (group)
            codes[j - j0] = codec_round(&grid, value, &value);
        float err = (w[j] - value) / u[j];
        e[j - j0] = err;
        w[j] = value;
        for (size_t k = j + 1; k < end; k++)
            w[k] -= err * u[k];
    }
    if (group)
        codec_store(g->fmt, g->n, row, j0 / group, row_scale, &grid, codes, n, bytes);
}

void gptq_round(const struct gptq *g, size_t n_rows, const float *w, float *room,
                uint8_t *bytes)
{
    size_t n = g->n, group = codec_group(g->fmt), total;
    float *left = room, *e = room + n_rows * n;
    memcpy(left, w, n_rows * n * sizeof *w);
    if (fmt_tensor_bytes(g->fmt, n, n_rows, &total))
        memset(bytes, 0, total);
    for (size_t j = 0; j < n; j += COLUMNS) {
        size_t m = n - j < COLUMNS ? n - j : COLUMNS;
        for (size_t r = 0; r < n_rows; r++) {
            uint16_t row_scale = codec_row(g->fmt, w + r * n, n);
            for (size_t k = j; k < j + m; k += group)
                gptq_group(g, k, j + m - k < group ? j + m - k : group, j + m, r,
                           row_scale, NULL, left + r * n, e + r * COLUMNS + k - j,
                           bytes);
        }
        if (j + m < n)
            blas_gemm_nn(g->blas, n_rows, n - j - m, m, -1, e, COLUMNS,
                         g->u + j * n + j + m, n, 1, left + j + m, n);
    }
}

double gptq_cost(const struct gptq *g, size_t n_rows, const float *d, float *room)
{
    double cost = 0;
    memset(room, 0, n_rows * g->n * sizeof *room);
    blas_gemm_nn(g->blas, n_rows, g->n, g->n, 1, d, g->n, g->h, g->n, 1, room, g->n);
    for (size_t i = 0; i < n_rows * g->n; i++)
        cost += (double)d[i] * (double)room[i];
    return cost;
}
