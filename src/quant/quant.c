/* Owns the walk over the tensors, and plain rounding.  Rows are rounded on all threads,
 * whole tiles of them, but bytes and error sums do not depend on how many: rows are
 * independent, and sums are added in row order. */
#include "quant/quant_impl.h"

#include "back/cpu_ops.h"
#include "base/err.h"
#include "base/mem.h"
#include "quant/gptq.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- rounding ---- */

/* Each thread rounds a block of rows at a time: large enough for a transposing reader
 * to use whole cache lines, small enough for the second-level cache, and whole tiles.
 */
enum { BLOCK_FLOATS = 1 << 16, MIN_BLOCK_ROWS = 16, MAX_COLS = 1 << 20 };

/* Of one row: before rounding, and what that did. */
struct row_figures {
    double sq, max; /* sum of w^2, max |w| */
    double err_sq, max_err;
    uint64_t zeros, outliers;
};

struct rounding {
    const struct tensor_source *src;
    size_t index; /* in the source */
    const struct fmt_info *to;
    size_t n_cols, tile_bytes, block_rows, room_floats;
    const struct gptq *gptq;   /* or NULL */
    float *zeroed;             /* [all rows][n_cols] after zeroing, or NULL */
    uint8_t *made;             /* or NULL: the tensor, zeroed and rounded */
    uint64_t row;              /* first row of this pass */
    size_t n_rows;             /* of this pass */
    float *weights;            /* [n_threads][block_rows][n_cols] */
    float *decoded;            /* [n_threads][n_cols] */
    uint8_t *bytes;            /* [n_threads * block_rows / tile_rows] tiles */
    float *room;               /* [n_threads][room_floats] */
    struct row_figures *rows;  /* [n_threads * block_rows] */
    double far;                /* beyond it a weight is an outlier */
    double *cost, *whole_cost; /* [n_threads]: gptq_cost of errors, of rows */
    struct runt_err *errs;     /* [n_threads] */
};

static int check_row(const struct rounding *q, const float *w, size_t at,
                     struct runt_err *err)
{
    const char *name = q->src->tensors[q->index].name;
    for (size_t i = 0; i < q->n_cols; i++)
        if (!isfinite(w[i]))
            return err_set(err, RUNT_E_FORMAT,
                           "%s: tensor %s row %llu column %zu is %g: not a number to "
                           "store",
                           q->src->name, name, (unsigned long long)(q->row + at), i,
                           (double)w[i]);
    return 0;
}

/* The part of a pass that is thread i's, read and checked. */
static int read_block(struct rounding *q, unsigned i, size_t *begin, size_t *end)
{
    struct runt_err *err = &q->errs[i];
    *begin = i * q->block_rows;
    *end = *begin + q->block_rows < q->n_rows ? *begin + q->block_rows : q->n_rows;
    if (*begin >= q->n_rows)
        *begin = *end;
    float *w = q->weights + *begin * q->n_cols;
    int rc = 0;
    if (*begin < *end)
        rc = q->src->rows(q->src, q->index, q->row + *begin, *end - *begin, w, err);
    for (size_t r = *begin; !rc && r < *end; r++)
        rc = check_row(q, q->weights + r * q->n_cols, r, err);
    return rc;
}

/* The first walk over a tensor: how large its weights are. */
static void look_at_rows(void *ctx, unsigned i, unsigned n)
{
    (void)n;
    struct rounding *q = ctx;
    size_t begin, end;
    if (read_block(q, i, &begin, &end))
        return;
    for (size_t r = begin; r < end; r++) {
        struct row_figures f = {0};
        for (size_t k = 0; k < q->n_cols; k++) {
            double x = (double)q->weights[r * q->n_cols + k];
            f.sq += x * x;
            f.max = fmax(f.max, fabs(x));
        }
        q->rows[r] = f;
    }
}

/* What rounding did to row `at` of this pass. */
static int measure_row(struct rounding *q, const float *w, const float *decoded,
                       size_t at, struct runt_err *err)
{
    struct row_figures f = {0};
    for (size_t i = 0; i < q->n_cols; i++) {
        double x = (double)w[i], d = (double)decoded[i] - x;
        f.err_sq += d * d;
        f.max_err = fmax(f.max_err, fabs(d));
        f.zeros += decoded[i] == 0;
        f.outliers += fabs(x) > q->far;
    }
    if (!isfinite(f.err_sq))
        return err_set(err, RUNT_E_FORMAT,
                       "%s: tensor %s row %llu has a value too large for %s",
                       q->src->name, q->src->tensors[q->index].name,
                       (unsigned long long)(q->row + at), q->to->name);
    q->rows[at] = f;
    return 0;
}

/* Thread i's block of this pass. */
static void round_rows(void *ctx, unsigned i, unsigned n)
{
    (void)n;
    struct rounding *q = ctx;
    size_t begin, end;
    int rc = read_block(q, i, &begin, &end);
    if (rc || begin == end)
        return;
    float *w = q->weights + begin * q->n_cols, *decoded = q->decoded + i * q->n_cols;
    uint8_t *bytes = q->bytes + begin / q->to->tile_rows * q->tile_bytes;
    struct runt_err *err = &q->errs[i];
    float *room = q->room + i * q->room_floats;
    size_t at = (size_t)q->row + begin;
    if (q->made)
        memcpy(bytes, q->made + at / q->to->tile_rows * q->tile_bytes,
               (end - begin + q->to->tile_rows - 1) / q->to->tile_rows * q->tile_bytes);
    else if (q->zeroed)
        fmt_encode_rows(q->to, q->n_cols, end - begin, q->zeroed + at * q->n_cols,
                        bytes);
    else if (q->gptq)
        gptq_round(q->gptq, end - begin, w, room, bytes);
    else
        fmt_encode_rows(q->to, q->n_cols, end - begin, w, bytes);
    if (q->gptq)
        q->whole_cost[i] = gptq_cost(q->gptq, end - begin, w, room);
    for (size_t r = begin; !rc && r < end; r++) {
        float *row = w + (r - begin) * q->n_cols;
        fmt_decode_row(q->to, q->n_cols, bytes, r - begin, decoded);
        rc = measure_row(q, row, decoded, r, err);
        for (size_t k = 0; k < q->n_cols; k++)
            row[k] = decoded[k] - row[k];
    }
    if (q->gptq)
        q->cost[i] = gptq_cost(q->gptq, end - begin, w, room);
}

static int rounding_init(struct rounding *q, unsigned n_threads, uint64_t n_rows,
                         struct runt_err *err)
{
    size_t tile = q->to->tile_rows;
    _Static_assert(MIN_BLOCK_ROWS % 16 == 0, "whole tiles");
    q->block_rows = BLOCK_FLOATS / q->n_cols;
    if (q->block_rows < MIN_BLOCK_ROWS)
        q->block_rows = MIN_BLOCK_ROWS;
    if (q->block_rows > n_rows)
        q->block_rows = (size_t)n_rows + tile - 1;
    q->block_rows -= q->block_rows % tile;
    size_t rows, floats, decoded;
    if (!size_mul(q->block_rows, n_threads, &rows) ||
        !size_mul(rows, q->n_cols, &floats) ||
        !size_mul(n_threads, q->n_cols, &decoded))
        return err_nomem(err, "rows to round");
    q->weights = mem_array(floats, sizeof *q->weights);
    q->decoded = mem_array(decoded, sizeof *q->decoded);
    q->bytes = mem_array(rows / tile, q->tile_bytes);
    q->rows = mem_array(rows, sizeof *q->rows);
    q->errs = mem_array(n_threads, sizeof *q->errs);
    q->cost = mem_array(n_threads, sizeof *q->cost);
    q->whole_cost = mem_array(n_threads, sizeof *q->whole_cost);
    q->room_floats = q->gptq ? gptq_room(q->gptq, q->block_rows) : 0;
    size_t room;
    q->room = size_mul(q->room_floats, n_threads, &room)
                  ? mem_array(room, sizeof *q->room)
                  : NULL;
    return q->room && q->cost && q->whole_cost && q->weights && q->decoded &&
                   q->bytes && q->rows && q->errs
               ? 0
               : err_nomem(err, "rows to round");
}

static void rounding_free(struct rounding *q)
{
    mem_free(q->weights);
    mem_free(q->decoded);
    mem_free(q->bytes);
    mem_free(q->rows);
    mem_free(q->zeroed);
    mem_free(q->made);
    mem_free(q->errs);
    mem_free(q->room);
    mem_free(q->cost);
    mem_free(q->whole_cost);
}

/* The tiles of a pass; all but a tensor's last are full. */
static int write_rows(const struct rounding *q, struct gguf_writer *w, uint64_t *total,
                      struct runt_err *err)
{
    size_t n_tiles = (q->n_rows + q->to->tile_rows - 1) / q->to->tile_rows;
    *total += n_tiles * q->tile_bytes;
    return gguf_write(w, q->bytes, n_tiles * q->tile_bytes, err);
}

/* ---- zeroing ---- */

static void read_rows(void *ctx, unsigned i, unsigned n)
{
    struct rounding *q = ctx;
    size_t begin, end;
    pool_range(q->n_rows, MIN_BLOCK_ROWS, i, n, &begin, &end);
    float *w = q->zeroed + begin * q->n_cols;
    if (begin < end)
        q->src->rows(q->src, q->index, begin, end - begin, w, &q->errs[i]);
}

static int first_error(const struct rounding *q, unsigned n_threads,
                       struct runt_err *err)
{
    for (unsigned i = 0; i < n_threads; i++)
        if (q->errs[i].code) {
            if (err)
                *err = q->errs[i];
            return q->errs[i].code;
        }
    return 0;
}

/* The whole matrix: a share is chosen over all of its rows. */
static int zero(struct rounding *q, const struct quant_options *o, uint64_t n_rows,
                struct runt_err *err)
{
    size_t n, bytes;
    q->n_rows = (size_t)n_rows;
    q->row = 0;
    if (!size_mul(q->n_rows, q->n_cols, &n) ||
        !fmt_tensor_bytes(q->to, q->n_cols, n_rows, &bytes))
        return err_nomem(err, "weights to zero");
    q->zeroed = mem_array(n, sizeof *q->zeroed);
    if (o->prune->feedback && codec_group(q->to))
        q->made = mem_array(bytes, 1);
    if (!q->zeroed || (o->prune->feedback && codec_group(q->to) && !q->made))
        return err_nomem(err, "weights to zero");
    pool_run(o->pool, read_rows, q);
    int rc = first_error(q, pool_n_threads(o->pool), err);
    if (!rc)
        rc = prune_matrix(o->prune, o->prune->feedback ? q->gptq : NULL, o->pool,
                          q->n_rows, q->n_cols, q->zeroed, q->made, err);
    return rc;
}

struct tally {
    uint64_t done, total; /* weights */
};

/* How many rows the pass from q->row on takes; false behind the last. */
static bool next_pass(struct rounding *q, unsigned n_threads, uint64_t n_rows)
{
    uint64_t left = n_rows - q->row;
    q->n_rows = n_threads * q->block_rows;
    if (q->n_rows > left)
        q->n_rows = (size_t)left;
    return left > 0;
}

static int write_tensor(const struct tensor_source *src, size_t index,
                        struct gguf_writer *w, const struct quant_options *o,
                        struct quant_tensor_report *r, struct tally *tally,
                        struct runt_err *err)
{
    unsigned n_threads = pool_n_threads(o->pool);
    struct rounding q = {
        .src = src, .index = index, .to = r->to, .n_cols = (size_t)r->desc.n_cols};
    struct gptq gptq = {0};
    double sum_sq = 0, sum_err = 0, cost = 0, whole_cost = 0, max = 0,
           start = cpu_seconds();
    if (r->desc.n_cols > MAX_COLS ||
        !fmt_tile_bytes(r->to, r->desc.n_cols, &q.tile_bytes))
        return err_set(err, RUNT_E_FORMAT,
                       "%s: tensor %s: rows of %llu numbers are too "
                       "long",
                       src->name, r->desc.name, (unsigned long long)r->desc.n_cols);
    bool feedback = codec_group(r->to) || (r->zeroed && o->prune->feedback);
    const struct calib_moment *m =
        o->calib && feedback ? calib_find(o->calib, r->desc.name, q.n_cols) : NULL;
    const struct blas *blas;
    int rc = m ? blas_get(&blas, err) : 0;
    if (!rc && m)
        rc = gptq_init(&gptq, blas, r->to, o->calib, m,
                       o->damping > 0 ? o->damping : 0.01, err);
    q.gptq = m ? &gptq : NULL;
    if (!rc)
        rc = rounding_init(&q, n_threads, r->desc.n_rows, err);
    for (q.row = 0; !rc && next_pass(&q, n_threads, r->desc.n_rows);
         q.row += q.n_rows) {
        pool_run(o->pool, look_at_rows, &q);
        rc = first_error(&q, n_threads, err);
        for (size_t i = 0; !rc && i < q.n_rows; i++) {
            sum_sq += q.rows[i].sq;
            max = fmax(max, q.rows[i].max);
        }
    }
    double rms = sqrt(sum_sq / ((double)r->desc.n_cols * (double)r->desc.n_rows));
    q.far = QUANT_OUTLIER * rms;
    if (!rc && r->zeroed)
        rc = zero(&q, o, r->desc.n_rows, err);
    for (q.row = 0; !rc && next_pass(&q, n_threads, r->desc.n_rows);
         q.row += q.n_rows) {
        pool_run(o->pool, round_rows, &q);
        rc = first_error(&q, n_threads, err);
        for (size_t i = 0; !rc && i < q.n_rows; i++) {
            sum_err += q.rows[i].err_sq;
            r->max_error = fmax(r->max_error, q.rows[i].max_err);
            r->zeros += q.rows[i].zeros;
            r->outliers += q.rows[i].outliers;
        }
        for (unsigned i = 0; i < n_threads && i * q.block_rows < q.n_rows; i++) {
            cost += q.cost[i];
            whole_cost += q.whole_cost[i];
        }
        if (!rc)
            rc = write_rows(&q, w, &r->bytes, err);
        tally->done += q.n_rows * q.n_cols;
        if (!rc && o->progress &&
            o->progress(o->progress_ctx, r->desc.name, tally->done, tally->total))
            rc = err_set(err, RUNT_E_INTERRUPTED, "interrupted");
    }
    r->peak = rms > 0 ? max / rms : 0;
    r->rel_error = sum_sq > 0 ? sqrt(sum_err / sum_sq) : 0;
    r->output_error = !m ? -1 : whole_cost > 0 ? sqrt(cost / whole_cost) : 0;
    r->seconds = cpu_seconds() - start;
    rounding_free(&q);
    gptq_free(&gptq);
    return rc;
}

/* general.file_type: that of the matrices' type (for mixed sources, the token table's).
 */
static void set_file_type(struct gguf_writer *w, const struct quant_report *r,
                          const struct quant_options *o)
{
    const struct fmt_info *fmt = o->fmt;
    for (size_t i = 0; !fmt && i < r->n_tensors; i++)
        if (!strcmp(r->tensors[i].desc.name, "token_embd.weight"))
            fmt = r->tensors[i].to;
    gguf_set_u32(w, "general.file_type", fmt ? fmt->file_type : 0);
    gguf_set_u32(w, "general.quantization_version", 2);
}

int quant_write(const struct tensor_source *src, struct gguf_writer *w,
                const char *path, const struct quant_options *o,
                struct quant_report *report, struct runt_err *err)
{
    struct quant_report r = {0};
    int rc =
        o->prune && o->prune->feedback && !o->calib
            ? err_set(err, RUNT_E_INVALID, "zeroing with feedback wants a calibration")
            : quant_plan(src, o, &r, err);
    if (rc)
        goto out;
    set_file_type(w, &r, o);
    for (size_t i = 0; i < r.n_tensors; i++) {
        const struct tensor_desc *d = &r.tensors[i].desc;
        gguf_add_tensor(w, d->name, r.tensors[i].to, d->n_dims, d->n_cols, d->n_rows);
    }
    rc = gguf_begin(w, path, err);
    struct tally tally = {0, r.n_weights};
    for (size_t i = 0; !rc && i < r.n_tensors; i++)
        rc = write_tensor(src, quant_source_index(src, i), w, o, &r.tensors[i], &tally,
                          err);
    if (!rc)
        rc = gguf_finish(w, &r.file_bytes, err);
    if (rc)
        goto out;
    r.bits_per_weight = 8 * (double)r.file_bytes / (double)r.n_weights;
    *report = r;
    r = (struct quant_report){0};
out:
    quant_report_free(&r);
    return rc;
}

void quant_report_free(struct quant_report *r)
{
    mem_free(r->tensors);
    *r = (struct quant_report){0};
}
