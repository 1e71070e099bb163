/* Owns the meeting of a checkpoint's tensors with GPT-2's table: which are there,
 * whether their shapes are those that config.json asks for, and their rows as floats.
 *
 * Hugging Face's GPT-2 keeps the four matrices of a layer as "Conv1D", [in][out];
 * rows() transposes while it decodes, a square tile at a time, so nothing is ever
 * copied whole. Tensors that the model needs are checked strictly; anything else is
 * left alone and can be listed. */
#include "import/import_impl.h"

#include "base/err.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

struct slot {
    const uint8_t *data;
    bool conv1d;
};

struct hf_checkpoint {
    struct tensor_source source; /* first: rows() gets from it to the rest */
    struct gpt2_shape shape;
    struct hf_files files;
    char *name;
    struct tensor_desc *descs;
    struct slot *slots; /* as many as descs */
    const char **ignored;
    size_t n_ignored;
};

enum { TILE = 64 };

/* Rows row .. row + n - 1 of the transpose of data, [n_cols][n_rows] on file. */
static void gather(const struct tensor_desc *d, const uint8_t *data, uint64_t row,
                   uint64_t n, float *out)
{
    float tile[TILE][TILE];
    size_t number_bytes = d->fmt->block_bytes;
    for (uint64_t r = 0; r < n; r += TILE) {
        uint64_t nr = n - r < TILE ? n - r : TILE;
        for (uint64_t c = 0; c < d->n_cols; c += TILE) {
            uint64_t nc = d->n_cols - c < TILE ? d->n_cols - c : TILE;
            for (uint64_t j = 0; j < nc; j++)
                d->fmt->decode(data + ((c + j) * d->n_rows + row + r) * number_bytes,
                               tile[j], nr);
            for (uint64_t i = 0; i < nr; i++)
                for (uint64_t j = 0; j < nc; j++)
                    out[(r + i) * d->n_cols + c + j] = tile[j][i];
        }
    }
}

static int rows(const struct tensor_source *s, size_t i, uint64_t row, uint64_t n,
                float *out, struct runt_err *err)
{
    const struct hf_checkpoint *c = (const struct hf_checkpoint *)s;
    if (i >= s->n_tensors || row > s->tensors[i].n_rows ||
        n > s->tensors[i].n_rows - row)
        return err_set(err, RUNT_E_INVALID, "%s: no rows %llu..%llu of tensor %zu",
                       s->name, (unsigned long long)row,
                       (unsigned long long)(row + n - 1), i);
    const struct tensor_desc *d = &s->tensors[i];
    const uint8_t *data = c->slots[i].data;
    if (c->slots[i].conv1d)
        gather(d, data, row, n, out);
    else
        d->fmt->decode(data + row * d->n_cols * d->fmt->block_bytes, out,
                       n * d->n_cols);
    return 0;
}

/* The tensor has the layout's shape, as Hugging Face stores it. */
static bool has_shape(const struct st_tensor *t, const struct hf_layout *l)
{
    if (l->n_dims == 1)
        return t->n_dims == 1 && t->dims[0] == l->n_cols;
    return t->n_dims == 2 && t->dims[0] == (l->conv1d ? l->n_cols : l->n_rows) &&
           t->dims[1] == (l->conv1d ? l->n_rows : l->n_cols);
}

/* Take one tensor as the next of the source. */
static int take(struct hf_checkpoint *c, struct hf_entry *e, const struct hf_layout *l,
                struct runt_err *err)
{
    const struct st_tensor *t = e->tensor;
    if (!has_shape(t, l)) {
        struct st_tensor want = {.n_dims = l->n_dims,
                                 .dims = {l->conv1d ? l->n_cols : l->n_rows,
                                          l->conv1d ? l->n_rows : l->n_cols}};
        char found[128], expected[128];
        if (l->n_dims == 1)
            want.dims[0] = l->n_cols;
        return err_set(err, RUNT_E_FORMAT,
                       "%s: tensor %s has shape %s, config.json asks for %s",
                       e->file->path, t->name, st_shape_text(t, found, sizeof found),
                       st_shape_text(&want, expected, sizeof expected));
    }
    if (!t->fmt)
        return err_set(err, RUNT_E_UNSUPPORTED,
                       "%s: tensor %s is of dtype %s, only F32, F16 and BF16 are read",
                       e->file->path, t->name, t->dtype);
    size_t i = c->source.n_tensors++;
    struct tensor_desc *d = &c->descs[i];
    memcpy(d->name, l->name, sizeof d->name);
    d->fmt = t->fmt;
    d->n_cols = l->n_cols;
    d->n_rows = l->n_rows;
    d->n_dims = l->n_dims;
    c->slots[i] = (struct slot){t->data, l->conv1d};
    e->used = true;
    return 0;
}

/* "transformer." when this checkpoint's names have it, "" when not. */
static int find_prefix(const struct hf_checkpoint *c, const char **out,
                       struct runt_err *err)
{
    if (hf_files_find(&c->files, HF_PREFIX "wte.weight"))
        *out = HF_PREFIX;
    else if (hf_files_find(&c->files, "wte.weight"))
        *out = "";
    else
        return err_set(err, RUNT_E_FORMAT,
                       "%s: no tensor wte.weight or " HF_PREFIX "wte.weight among %zu "
                       "(the first is %.100s)",
                       c->name, c->files.n_entries,
                       c->files.n_entries ? c->files.entries[0].tensor->name : "none");
    return 0;
}

static int take_all(struct hf_checkpoint *c, const char *prefix, struct runt_err *err)
{
    size_t n = hf_layout_count(&c->shape);
    for (size_t i = 0; i < n; i++) {
        struct hf_layout l;
        char name[sizeof HF_PREFIX + TENSOR_NAME_MAX];
        hf_layout_at(&c->shape, i, &l);
        snprintf(name, sizeof name, "%s%s", prefix, l.hf);
        struct hf_entry *e = hf_files_find(&c->files, name);
        if (!e)
            return err_set(err, RUNT_E_FORMAT,
                           "%s: no tensor %s (of %zu that %u layers "
                           "need)",
                           c->name, name, n, c->shape.n_layer);
        int rc = take(c, e, &l, err);
        if (rc)
            return rc;
    }
    return 0;
}

/* The output matrix: of its own, or the token embedding again (taken already, the first
 * of the source).  A tied model may store it a second time. */
static int take_head(struct hf_checkpoint *c, const char *prefix, struct runt_err *err)
{
    struct hf_layout l;
    char wte_name[sizeof HF_PREFIX + sizeof "wte.weight"];
    hf_layout_at(&c->shape, hf_layout_count(&c->shape), &l);
    snprintf(wte_name, sizeof wte_name, "%swte.weight", prefix);
    const struct st_tensor *wte = hf_files_find(&c->files, wte_name)->tensor;
    struct hf_entry *e = hf_files_find(&c->files, l.hf);
    if (e && e->tensor->fmt == wte->fmt && has_shape(e->tensor, &l) &&
        !memcmp(e->tensor->data, wte->data, wte->bytes)) {
        e->used = true;
        c->shape.tied = true;
    }
    if (c->shape.tied)
        return 0;
    if (!e)
        return err_set(
            err, RUNT_E_FORMAT,
            "%s: no tensor %s, but config.json has tie_word_embeddings false", c->name,
            l.hf);
    return take(c, e, &l, err);
}

/* h.N.attn.bias is the causal mask, .masked_bias the number that it puts in. */
static bool is_mask(const char *name)
{
    static const char *const ends[] = {".attn.bias", ".attn.masked_bias"};
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t k = strlen(ends[i]);
        if (n > k && !strcmp(name + n - k, ends[i]))
            return true;
    }
    return false;
}

static int list_ignored(struct hf_checkpoint *c, struct runt_err *err)
{
    c->ignored = mem_array(c->files.n_entries, sizeof *c->ignored);
    if (!c->ignored)
        return err_nomem(err, c->name);
    for (size_t i = 0; i < c->files.n_entries; i++) {
        const struct hf_entry *e = &c->files.entries[i];
        if (!e->used && !is_mask(e->tensor->name))
            c->ignored[c->n_ignored++] = e->tensor->name;
    }
    return 0;
}

/* Takes the files over, also on failure. */
static int make(const char *name, const struct gpt2_shape *shape, struct hf_files files,
                struct hf_checkpoint **out, struct runt_err *err)
{
    int rc;
    const char *prefix = "";
    size_t n_max = hf_layout_count(shape) + 1;
    struct hf_checkpoint *c = mem_zalloc(sizeof *c);
    if (!c) {
        hf_files_close(&files);
        return err_nomem(err, name);
    }
    c->shape = *shape;
    c->files = files;
    c->name = mem_strdup(name);
    c->descs = mem_array(n_max, sizeof *c->descs);
    c->slots = mem_array(n_max, sizeof *c->slots);
    if (!c->name || !c->descs || !c->slots) {
        rc = err_nomem(err, name);
        goto out;
    }
    c->source =
        (struct tensor_source){.name = c->name, .tensors = c->descs, .rows = rows};
    if ((rc = find_prefix(c, &prefix, err)) || (rc = take_all(c, prefix, err)) ||
        (rc = take_head(c, prefix, err)) || (rc = list_ignored(c, err)))
        goto out;
    *out = c;
    c = NULL;
out:
    hf_close(c);
    return rc;
}

static int read_config(const char *dir, struct gpt2_shape *out, struct runt_err *err)
{
    char *text = NULL, *path = hf_path(dir, "config.json");
    size_t n = 0;
    int rc = path ? file_read_regular(path, JS_MAX_BYTES, &text, &n, err)
                  : err_nomem(err, dir);
    if (!rc)
        rc = hf_config_parse(text, n, path, out, err);
    mem_free(text);
    mem_free(path);
    return rc;
}

int hf_open(const char *dir, struct hf_checkpoint **out, struct runt_err *err)
{
    struct gpt2_shape shape;
    struct hf_files files;
    int rc;
    if (!file_exists(dir))
        return err_set(err, RUNT_E_NOTFOUND, "%s: no such folder", dir);
    if (!file_is_dir(dir))
        return err_set(
            err, RUNT_E_INVALID,
            "%s: not a folder; give the one with config.json and the weights", dir);
    if ((rc = read_config(dir, &shape, err)) || (rc = hf_files_open(dir, &files, err)))
        return rc;
    return make(dir, &shape, files, out, err);
}

int hf_parse(const struct gpt2_shape *shape, const void *data, size_t size,
             const char *name, struct hf_checkpoint **out, struct runt_err *err)
{
    struct hf_files files;
    int rc = hf_files_parse(data, size, name, &files, err);
    return rc ? rc : make(name, shape, files, out, err);
}

void hf_close(struct hf_checkpoint *c)
{
    if (!c)
        return;
    hf_files_close(&c->files);
    mem_free(c->descs);
    mem_free(c->slots);
    mem_free(c->ignored);
    mem_free(c->name);
    mem_free(c);
}

const struct gpt2_shape *hf_shape(const struct hf_checkpoint *c)
{
    return &c->shape;
}

const struct tensor_source *hf_source(const struct hf_checkpoint *c)
{
    return &c->source;
}

size_t hf_n_ignored(const struct hf_checkpoint *c)
{
    return c->n_ignored;
}

const char *hf_ignored(const struct hf_checkpoint *c, size_t i)
{
    return c->ignored[i];
}
