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

/* A tensor to be written: a line of the table, and the source's tensor for it. */
struct item {
    struct hf_layout layout;
    size_t at;
    const struct fmt_info *fmt;
};

struct writer {
    const struct tensor_source *src;
    struct item *items;
    size_t n_items;
    struct file_out *file;
    uint8_t *bytes; /* CHUNK numbers of the largest type */
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

/* ---- what is written, in which type ---- */

/* Whether every number of a vector comes back from the type. */
static int survives(const struct tensor_source *src, size_t at,
                    const struct fmt_info *fmt, bool *yes, struct runt_err *err)
{
    const struct tensor_desc *d = &src->tensors[at];
    float *x = mem_array(d->n_cols, 2 * sizeof *x);
    uint8_t *bytes = mem_array(d->n_cols, fmt->block_bytes);
    int rc = x && bytes ? src->rows(src, at, 0, 1, x, err) : err_nomem(err, d->name);
    if (!rc) {
        fmt->encode(x, bytes, d->n_cols);
        fmt->decode(bytes, x + d->n_cols, d->n_cols);
        *yes = !memcmp(x, x + d->n_cols, d->n_cols * sizeof *x);
    }
    mem_free(bytes);
    mem_free(x);
    return rc;
}

/* Types that keep every number.  A checkpoint of half precision becomes a model file
 * whose vectors are F32: where they still hold what half precision can, they go back to
 * it, so that the checkpoint is the same again. */
static int keep_all(struct writer *w, struct runt_err *err)
{
    const struct fmt_info *common = NULL;
    bool differ = false;
    for (size_t i = 0; i < w->n_items; i++) {
        struct item *t = &w->items[i];
        const struct fmt_info *own = w->src->tensors[t->at].fmt;
        t->fmt = own->is_float ? own : fmt_find(FMT_F32);
        if (t->layout.n_dims == 1)
            continue;
        differ = differ || (common && common != t->fmt);
        common = t->fmt;
    }
    for (size_t i = 0; i < w->n_items && !differ; i++) {
        struct item *t = &w->items[i];
        bool yes = false;
        int rc = t->fmt->block_bytes > common->block_bytes
                     ? survives(w->src, t->at, common, &yes, err)
                     : 0;
        if (rc)
            return rc;
        t->fmt = yes ? common : t->fmt;
    }
    return 0;
}

/* Every tensor that the shape asks for, each checked to be there. */
static int plan(struct writer *w, const struct gpt2_shape *s,
                const struct fmt_info *fmt, struct runt_err *err)
{
    w->n_items = hf_layout_count(s) + !s->tied;
    w->items = mem_array(w->n_items, sizeof *w->items);
    if (!w->items)
        return err_nomem(err, "a table of tensors");
    for (size_t i = 0; i < w->n_items; i++) {
        struct item *t = &w->items[i];
        hf_layout_at(s, i, &t->layout);
        t->fmt = fmt;
        int rc = find(w->src, &t->layout, &t->at, err);
        if (rc)
            return rc;
    }
    return fmt ? 0 : keep_all(w, err);
}

/* What a program that wants one type for all of them must choose. */
static const struct fmt_info *widest(const struct writer *w)
{
    const struct fmt_info *fmt = w->items[0].fmt;
    for (size_t i = 1; i < w->n_items; i++)
        if (w->items[i].fmt != fmt)
            fmt = fmt_find(FMT_F32);
    return fmt;
}

/* ---- the weights ---- */

/* The JSON header with its length in front, padded so that the data begin on 8 bytes.
 */
static int make_header(struct writer *w, size_t n_prefixed, struct strbuf *b,
                       struct runt_err *err)
{
    uint64_t end = 0;
    sb_put(b, "\0\0\0\0\0\0\0\0", 8);
    sb_str(b, "{\"__metadata__\":{\"format\":\"pt\"}"); /* transformers insists on it */
    for (size_t i = 0; i < w->n_items; i++) {
        const struct hf_layout *l = &w->items[i].layout;
        const struct fmt_info *fmt = w->items[i].fmt;
        uint64_t begin = end, n_bytes;
        if (__builtin_mul_overflow(l->n_rows * fmt->block_bytes, l->n_cols, &n_bytes) ||
            __builtin_add_overflow(begin, n_bytes, &end))
            return err_nomem(err, l->name);
        sb_printf(b, ",\"%s%s\":{\"dtype\":\"%s\",\"shape\":[",
                  i < n_prefixed ? HF_PREFIX : "", l->hf, fmt->name);
        if (l->n_dims == 2)
            sb_printf(b, "%llu,",
                      (unsigned long long)(l->conv1d ? l->n_cols : l->n_rows));
        sb_printf(b, "%llu],\"data_offsets\":[%llu,%llu]}",
                  (unsigned long long)(l->conv1d ? l->n_rows : l->n_cols),
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
static int put(struct writer *w, const struct item *t, const float *x, size_t n,
               struct runt_err *err)
{
    const char *name = t->layout.name;
    const struct fmt_info *fmt = t->fmt;
    for (size_t i = 0; i < n; i += CHUNK) {
        size_t k = n - i < CHUNK ? n - i : CHUNK;
        /* silently writing infinity would ruin the model */
        for (size_t j = i; fmt->type == FMT_F16 && j < i + k; j++)
            if (fabsf(x[j]) >= 65520 && !isinf(x[j]))
                return err_set(
                    err, RUNT_E_INVALID,
                    "%s: tensor %s holds %g, which F16 cannot: write F32 or BF16",
                    w->src->name, name, (double)x[j]);
        fmt->encode(x + i, w->bytes, k);
        int rc = file_out_write(w->file, w->bytes, k * fmt->block_bytes, err);
        if (rc)
            return rc;
        w->done += k * fmt->block_bytes;
    }
    if (w->progress && w->progress(w->ctx, "model.safetensors", w->done, w->total))
        return err_set(err, RUNT_E_INTERRUPTED, "writing stopped at tensor %s", name);
    return 0;
}

static int put_rows(struct writer *w, const struct item *t, struct runt_err *err)
{
    const struct tensor_desc *d = &w->src->tensors[t->at];
    uint64_t step = d->n_cols < ROWS_FLOATS ? ROWS_FLOATS / d->n_cols : 1;
    float *x = mem_array(step * d->n_cols, sizeof *x);
    int rc = x ? 0 : err_nomem(err, d->name);
    for (uint64_t r = 0; r < d->n_rows && !rc; r += step) {
        uint64_t n = d->n_rows - r < step ? d->n_rows - r : step;
        rc = w->src->rows(w->src, t->at, r, n, x, err);
        if (!rc)
            rc = put(w, t, x, n * d->n_cols, err);
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

static int put_transposed(struct writer *w, const struct item *t, struct runt_err *err)
{
    const struct tensor_desc *d = &w->src->tensors[t->at];
    uint64_t step = d->n_rows < BAND_FLOATS ? BAND_FLOATS / d->n_rows : 1;
    if (step > d->n_cols)
        step = d->n_cols;
    float *band = mem_array(step * d->n_rows, sizeof *band);
    float *x = mem_array(CONV_ROWS * d->n_cols, sizeof *x);
    int rc = band && x ? 0 : err_nomem(err, d->name);
    for (uint64_t c = 0; c < d->n_cols && !rc; c += step) {
        uint64_t n = d->n_cols - c < step ? d->n_cols - c : step;
        rc = read_band(w, t->at, c, n, band, x, err);
        if (!rc)
            rc = put(w, t, band, n * d->n_rows, err);
    }
    mem_free(band);
    mem_free(x);
    return rc;
}

/* ---- config.json ---- */

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
    int rc = make_header(w, hf_layout_count(s), &header, err);
    if (!rc)
        rc = file_out_write(w->file, header.data, header.len, err);
    for (size_t i = 0; i < w->n_items && !rc; i++) {
        const struct item *t = &w->items[i];
        rc = t->layout.conv1d ? put_transposed(w, t, err) : put_rows(w, t, err);
    }
    sb_free(&header);
    return rc;
}

int hf_write_dir(const char *dir, const struct gpt2_shape *shape,
                 const struct tensor_source *src, const struct fmt_info *fmt,
                 runt_progress_fn progress, void *ctx, struct runt_err *err)
{
    struct writer w = {.src = src, .progress = progress, .ctx = ctx};
    struct file_out *config = NULL;
    char *config_path = NULL, *path = NULL;
    int rc;
    if (fmt && !fmt->is_float)
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
    w.bytes = mem_array(CHUNK, sizeof(float));
    if (!path || !config_path || !w.bytes) {
        rc = err_nomem(err, dir);
        goto out;
    }
    if ((rc = plan(&w, shape, fmt, err)) || (rc = file_out_open(path, &w.file, err)) ||
        (rc = file_out_open(config_path, &config, err)) ||
        (rc = write_config(config, shape, widest(&w), err)) ||
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
    mem_free(w.items);
    mem_free(w.bytes);
    mem_free(config_path);
    mem_free(path);
    return rc;
}
