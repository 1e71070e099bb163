/* Owns the way back: a tensor source becomes a folder that Hugging Face's own programs
 * read.
 *
 * Rows are streamed.  Only a Conv1D matrix, which goes back to [in][out], is held as
 * floats, and of a very large one only a band of its columns at a time.  config.json is
 * put in place after the weights, so that a folder that has it is whole. */
#include "import/import_impl.h"

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"

#include <float.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROWS_FLOATS = 1 << 16, /* of a block of rows, at least one row */
    BAND_FLOATS = 1 << 23, /* of a band of a Conv1D matrix, at least one column */
    CHUNK = 1 << 14,       /* numbers encoded at once */
    CONV_ROWS = 16         /* rows transposed at once: a cache line of the band */
};

struct writer {
    const struct tensor_source *src;
    const struct fmt_info *fmt;
    struct file_out *file;
    uint8_t *bytes; /* CHUNK numbers */
    runt_progress_fn progress;
    void *ctx;
    uint64_t done, total; /* bytes of data */
};

/* The tensor of the source for one line of the table. */
static int find(const struct tensor_source *src, const struct hf_layout *l, size_t *out,
                struct runt_err *err)
{
    for (size_t i = 0; i < src->n_tensors; i++) {
        const struct tensor_desc *d = &src->tensors[i];
        if (strcmp(d->name, l->name))
            continue;
        if (d->n_rows != l->n_rows || d->n_cols != l->n_cols)
            return err_set(
                err, RUNT_E_FORMAT,
                "%s: tensor %s has %llu rows of %llu, the model's sizes ask for "
                "%llu of %llu",
                src->name, d->name, (unsigned long long)d->n_rows,
                (unsigned long long)d->n_cols, (unsigned long long)l->n_rows,
                (unsigned long long)l->n_cols);
        *out = i;
        return 0;
    }
    return err_set(err, RUNT_E_NOTFOUND, "%s: no tensor %s", src->name, l->name);
}

/* The JSON header with its length in front, padded so that the data begin on 8 bytes;
 * checks on the way that the source has every tensor. */
static int make_header(const struct gpt2_shape *s, struct writer *w, size_t n,
                       struct strbuf *b, struct runt_err *err)
{
    uint64_t end = 0;
    sb_put(b, "\0\0\0\0\0\0\0\0", 8);
    sb_str(b, "{\"__metadata__\":{\"format\":\"pt\"}"); /* transformers insists on it */
    for (size_t i = 0; i < n; i++) {
        struct hf_layout l;
        size_t at, number_bytes = w->fmt->block_bytes;
        uint64_t begin = end, n_bytes;
        hf_layout_at(s, i, &l);
        int rc = find(w->src, &l, &at, err);
        if (rc)
            return rc;
        if (__builtin_mul_overflow(l.n_rows * number_bytes, l.n_cols, &n_bytes) ||
            __builtin_add_overflow(begin, n_bytes, &end))
            return err_nomem(err, l.name);
        sb_printf(b, ",\"%s%s\":{\"dtype\":\"%s\",\"shape\":[",
                  i < hf_layout_count(s) ? HF_PREFIX : "", l.hf, w->fmt->name);
        if (l.n_dims == 2)
            sb_printf(b, "%llu,", (unsigned long long)(l.conv1d ? l.n_cols : l.n_rows));
        sb_printf(b, "%llu],\"data_offsets\":[%llu,%llu]}",
                  (unsigned long long)(l.conv1d ? l.n_rows : l.n_cols),
                  (unsigned long long)begin, (unsigned long long)end);
    }
    sb_char(b, '}');
    while (b->len % 8 && !b->failed)
        sb_char(b, ' ');
    if (b->failed)
        return err_nomem(err, "a header");
    for (unsigned i = 0; i < 8; i++)
        b->data[i] = (char)((b->len - 8) >> (8 * i));
    w->total = end;
    return 0;
}

/* The next n numbers of the file. */
static int put(struct writer *w, const char *name, const float *x, size_t n,
               struct runt_err *err)
{
    for (size_t i = 0; i < n; i += CHUNK) {
        size_t k = n - i < CHUNK ? n - i : CHUNK;
        /* silently writing infinity would ruin the model */
        for (size_t j = i; w->fmt->type == FMT_F16 && j < i + k; j++)
            if (fabsf(x[j]) >= 65520 && !isinf(x[j]))
                return err_set(
                    err, RUNT_E_INVALID,
                    "tensor %s holds %g, which F16 cannot: write F32 or BF16", name,
                    (double)x[j]);
        w->fmt->encode(x + i, w->bytes, k);
        int rc = file_out_write(w->file, w->bytes, k * w->fmt->block_bytes, err);
        if (rc)
            return rc;
        w->done += k * w->fmt->block_bytes;
    }
    if (w->progress && w->progress(w->ctx, "model.safetensors", w->done, w->total))
        return err_set(err, RUNT_E_INTERRUPTED, "writing stopped at tensor %s", name);
    return 0;
}

static int put_rows(struct writer *w, size_t at, struct runt_err *err)
{
    const struct tensor_desc *d = &w->src->tensors[at];
    uint64_t step = d->n_cols < ROWS_FLOATS ? ROWS_FLOATS / d->n_cols : 1;
    float *x = mem_array(step * d->n_cols, sizeof *x);
    int rc = x ? 0 : err_nomem(err, d->name);
    for (uint64_t r = 0; r < d->n_rows && !rc; r += step) {
        uint64_t n = d->n_rows - r < step ? d->n_rows - r : step;
        rc = w->src->rows(w->src, at, r, n, x, err);
        if (!rc)
            rc = put(w, d->name, x, n * d->n_cols, err);
    }
    mem_free(x);
    return rc;
}

/* Columns c .. c + n - 1 of tensor `at` into band [n][n_rows]; x holds CONV_ROWS rows.
 */
static int read_band(struct writer *w, size_t at, uint64_t c, uint64_t n, float *band,
                     float *x, struct runt_err *err)
{
    const struct tensor_desc *d = &w->src->tensors[at];
    for (uint64_t r = 0; r < d->n_rows; r += CONV_ROWS) {
        uint64_t nr = d->n_rows - r < CONV_ROWS ? d->n_rows - r : CONV_ROWS;
        int rc = w->src->rows(w->src, at, r, nr, x, err);
        if (rc)
            return rc;
        for (uint64_t j = 0; j < n; j++)
            for (uint64_t i = 0; i < nr; i++)
                band[j * d->n_rows + r + i] = x[i * d->n_cols + c + j];
    }
    return 0;
}

static int put_transposed(struct writer *w, size_t at, struct runt_err *err)
{
    const struct tensor_desc *d = &w->src->tensors[at];
    uint64_t step = d->n_rows < BAND_FLOATS ? BAND_FLOATS / d->n_rows : 1;
    if (step > d->n_cols)
        step = d->n_cols;
    float *band = mem_array(step * d->n_rows, sizeof *band);
    float *x = mem_array(CONV_ROWS * d->n_cols, sizeof *x);
    int rc = band && x ? 0 : err_nomem(err, d->name);
    for (uint64_t c = 0; c < d->n_cols && !rc; c += step) {
        uint64_t n = d->n_cols - c < step ? d->n_cols - c : step;
        rc = read_band(w, at, c, n, band, x, err);
        if (!rc)
            rc = put(w, d->name, band, n * d->n_rows, err);
    }
    mem_free(band);
    mem_free(x);
    return rc;
}

/* The decimal of fewest digits that is this float: 1e-05, not 9.99999975e-06. */
static double shortest(float f)
{
    char text[40];
    double d = (double)f;
    for (int n = 1; n <= FLT_DECIMAL_DIG; n++) {
        snprintf(text, sizeof text, "%.*g", n, (double)f);
        d = strtod(text, NULL);
        if ((float)d == f)
            break;
    }
    return d;
}

static json_t *token(int32_t id)
{
    return id < 0 ? json_null() : json_integer(id);
}

static int write_config(struct file_out *file, const struct gpt2_shape *s,
                        const struct fmt_info *fmt, struct runt_err *err)
{
    const char *dtype = fmt->type == FMT_F32   ? "float32"
                        : fmt->type == FMT_F16 ? "float16"
                                               : "bfloat16";
    int rc;
    /* clang-format off */
    json_t *o = json_pack("{s:[s], s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:o, s:o, s:b, s:s}",
                          "architectures", "GPT2LMHeadModel",
                          "model_type", "gpt2",
                          "activation_function", "gelu_new",
                          "vocab_size", (json_int_t)s->n_vocab,
                          "n_positions", (json_int_t)s->n_ctx,
                          "n_ctx", (json_int_t)s->n_ctx,
                          "n_embd", (json_int_t)s->n_embd,
                          "n_layer", (json_int_t)s->n_layer,
                          "n_head", (json_int_t)s->n_head,
                          "n_inner", (json_int_t)s->n_ff,
                          "layer_norm_epsilon", shortest(s->eps),
                          "bos_token_id", token(s->bos),
                          "eos_token_id", token(s->eos),
                          "tie_word_embeddings", s->tied,
                          "torch_dtype", dtype);
    /* clang-format on */
    char *text =
        o ? json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(FLT_DECIMAL_DIG)) : NULL;
    if (!text)
        rc = err_nomem(err, "config.json");
    else if (!(rc = file_out_write(file, text, strlen(text), err)))
        rc = file_out_write(file, "\n", 1, err);
    free(text); /* jansson's, not ours */
    json_decref(o);
    return rc;
}

static int write_weights(struct writer *w, const struct gpt2_shape *s,
                         struct runt_err *err)
{
    struct strbuf header = {0};
    size_t n = hf_layout_count(s) + !s->tied;
    int rc = make_header(s, w, n, &header, err);
    if (!rc)
        rc = file_out_write(w->file, header.data, header.len, err);
    for (size_t i = 0; i < n && !rc; i++) {
        struct hf_layout l;
        size_t at;
        hf_layout_at(s, i, &l);
        rc = find(w->src, &l, &at, err);
        if (!rc)
            rc = l.conv1d ? put_transposed(w, at, err) : put_rows(w, at, err);
    }
    sb_free(&header);
    return rc;
}

int hf_write_dir(const char *dir, const struct gpt2_shape *shape,
                 const struct tensor_source *src, const struct fmt_info *fmt,
                 runt_progress_fn progress, void *ctx, struct runt_err *err)
{
    struct writer w = {.src = src, .fmt = fmt, .progress = progress, .ctx = ctx};
    struct file_out *config = NULL;
    char *config_path = NULL, *path = NULL;
    int rc;
    if (!fmt->is_float)
        return err_set(err, RUNT_E_INVALID,
                       "%s: a checkpoint holds F32, F16 or BF16, not %s", dir,
                       fmt->name);
    if (!shape->n_vocab || !shape->n_ctx || !shape->n_embd || !shape->n_head ||
        !shape->n_layer || !shape->n_ff || !(shape->eps >= 0 && shape->eps <= 1))
        return err_set(err, RUNT_E_INVALID,
                       "%s: a model of size 0 or without a usable epsilon", dir);
    if ((rc = file_make_dirs(dir, err)))
        return rc;
    path = hf_path(dir, "model.safetensors");
    config_path = hf_path(dir, "config.json");
    w.bytes = mem_array(CHUNK, fmt->block_bytes);
    if (!path || !config_path || !w.bytes) {
        rc = err_nomem(err, dir);
        goto out;
    }
    if ((rc = file_out_open(path, &w.file, err)) ||
        (rc = file_out_open(config_path, &config, err)) ||
        (rc = write_config(config, shape, fmt, err)) ||
        (rc = write_weights(&w, shape, err)))
        goto out;
    rc = file_out_commit(w.file, err);
    w.file = NULL;
    if (rc)
        goto out;
    rc = file_out_commit(config, err);
    config = NULL;
out:
    file_out_abort(w.file);
    file_out_abort(config);
    mem_free(w.bytes);
    mem_free(config_path);
    mem_free(path);
    return rc;
}
