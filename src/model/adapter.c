/* Owns the form of adapter files, and merging. */
#include "model/adapter.h"

#include "base/err.h"
#include "base/fold.h"
#include "base/mem.h"
#include "model/model.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_BASE "runt.adapter.base"
#define KEY_TEMPLATE "tokenizer.chat_template"

/* ---- reading ---- */

static bool equals(struct gguf_str s, const char *word)
{
    return s.len == strlen(word) && !memcmp(s.data, word, s.len);
}

/* A key that must have one of the strings that there are. */
static int demand(const struct gguf *g, const char *key, const char *word,
                  struct runt_err *err)
{
    struct gguf_str s;
    int rc = gguf_get_str(g, key, &s, err);
    if (!rc && !equals(s, word))
        rc = err_set(err, RUNT_E_UNSUPPORTED, "%s: %s is '%.*s', not '%s'", g->path,
                     key, (int)(s.len < 40 ? s.len : 40), s.data, word);
    return rc;
}

static int read_kind(const struct gguf *g, float *alpha, struct runt_err *err)
{
    struct gguf_str type;
    if (gguf_get_str(g, "general.type", &type, NULL) || !equals(type, "adapter"))
        return err_set(err, RUNT_E_INVALID, "%s is not an adapter", g->path);
    int rc = demand(g, "general.architecture", "gpt2", err);
    if (!rc)
        rc = demand(g, "adapter.type", "lora", err);
    *alpha = 0;
    if (!rc && gguf_find(g, "adapter.lora.alpha"))
        rc = gguf_get_f32(g, "adapter.lora.alpha", alpha, err);
    if (!rc && *alpha < 0)
        rc = err_set(err, RUNT_E_FORMAT, "%s: adapter.lora.alpha is %g", g->path,
                     (double)*alpha);
    return rc;
}

static int read_base(const struct gguf *g, struct adapter *a, struct runt_err *err)
{
    struct gguf_str s;
    char text[24], *end = text;
    if (!gguf_find(g, KEY_BASE))
        return 0;
    int rc = gguf_get_str(g, KEY_BASE, &s, err);
    if (rc)
        return rc;
    if (s.len == 16) {
        memcpy(text, s.data, s.len);
        text[s.len] = 0;
        a->base = strtoull(text, &end, 16);
    }
    if (s.len != 16 || end != text + 16)
        return err_set(err, RUNT_E_FORMAT, "%s: %s is damaged", g->path, KEY_BASE);
    a->has_base = true;
    return 0;
}

/* One tensor's numbers, of which none may be NaN or infinite. */
static int read_numbers(const struct gguf *g, const struct gguf_tensor *t, float **out,
                        uint64_t *print, struct runt_err *err)
{
    size_t n_cols = (size_t)t->desc.n_cols, n_rows = (size_t)t->desc.n_rows, n, bytes;
    float *x = NULL;
    if (size_mul(n_cols, n_rows, &n) && size_mul(n, sizeof *x, &bytes))
        x = mem_aligned(bytes);
    if (!x)
        return err_nomem(err, t->desc.name);
    for (size_t r = 0; r < n_rows; r++)
        fmt_decode_row(t->desc.fmt, n_cols, t->data, r, x + r * n_cols);
    *out = x;
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return err_set(err, RUNT_E_FORMAT, "%s: tensor %s: number %zu is %g",
                           g->path, t->desc.name, i, (double)x[i]);
    *print = fold(fold(*print, t->desc.name, strlen(t->desc.name)), x, bytes);
    return 0;
}

static int wrong_shape(const struct gguf *g, const struct gguf_tensor *t,
                       const struct adapter_matrix *m, struct runt_err *err)
{
    return err_set(err, RUNT_E_INVALID,
                   "%s: tensor %s is %llu x %llu, the model's matrix %zu x %zu: an "
                   "adapter of another model",
                   g->path, t->desc.name, (unsigned long long)t->desc.n_rows,
                   (unsigned long long)t->desc.n_cols, m->n_out, m->n_in);
}

/* Of the token table a pair lies turned (adapter.h). */
static bool is_turned(const struct adapter_matrix *m)
{
    return !strcmp(m->name, "token_embd.weight");
}

/* [n_cols][n_rows] of x [n_rows][n_cols]; NULL without memory. */
static float *turned(size_t n_rows, size_t n_cols, const float *x)
{
    float *y = mem_array(n_rows * n_cols, sizeof *y);
    for (size_t i = 0; y && i < n_rows * n_cols; i++)
        y[i % n_cols * n_rows + i / n_cols] = x[i];
    return y;
}

/* t: the tensors of a and b, of which the file may call a lora_b. */
static int read_numbers_of(const struct gguf *g, const struct gguf_tensor *const t[2],
                           struct adapter_matrix *m, uint64_t *print,
                           struct runt_err *err)
{
    int rc = read_numbers(g, t[0], &m->a, print, err);
    if (!rc && is_turned(m)) {
        float *a = turned(m->n_in, m->rank, m->a);
        mem_free(m->a);
        m->a = a;
        rc = a ? 0 : err_nomem(err, t[0]->desc.name);
    }
    return rc ? rc : read_numbers(g, t[1], &m->b, print, err);
}

static int read_pair(const struct gguf *g, float alpha, struct adapter_matrix *m,
                     uint64_t *print, struct runt_err *err)
{
    bool turn = is_turned(m);
    char names[2][TENSOR_NAME_MAX + 8];
    const struct gguf_tensor *t[2];
    for (int i = 0; i < 2; i++) {
        snprintf(names[i], sizeof names[i], "%s.lora_%c", m->name,
                 turn ? "ba"[i] : "ab"[i]);
        t[i] = gguf_find_tensor(g, names[i]);
    }
    if (!t[0] && !t[1])
        return 0;
    if (!t[0] || !t[1])
        return err_set(err, RUNT_E_FORMAT, "%s: there is a %s, but no %s", g->path,
                       names[!t[0]], names[!t[1]]);
    const struct tensor_desc *a = &t[0]->desc, *b = &t[1]->desc;
    uint64_t n_in = turn ? a->n_rows : a->n_cols, rank = turn ? a->n_cols : a->n_rows;
    if (n_in != m->n_in)
        return wrong_shape(g, t[0], m, err);
    if (b->n_rows != m->n_out)
        return wrong_shape(g, t[1], m, err);
    size_t most = m->n_in < m->n_out ? m->n_in : m->n_out;
    if (rank != b->n_cols || rank < 1 || rank > most)
        return err_set(err, RUNT_E_INVALID,
                       "%s: %s has rank %llu and %s %llu; one from 1 to %zu is wanted",
                       g->path, a->name, (unsigned long long)rank, b->name,
                       (unsigned long long)b->n_cols, most);
    m->rank = (size_t)rank;
    m->scale = alpha > 0 ? (double)alpha / (double)m->rank : 1;
    return read_numbers_of(g, t, m, print, err);
}

/* The matrices that a model has, whether adapted or not. */
static int list_matrices(const struct gpt2_shape *s, struct adapter *a,
                         struct runt_err *err)
{
    size_t n = model_n_tensors(s);
    a->matrices = mem_array(n, sizeof *a->matrices);
    if (!a->matrices)
        return err_nomem(err, "an adapter");
    for (size_t i = 0; i < n; i++) {
        struct adapter_matrix m = {.rank = 0};
        unsigned n_dims;
        uint64_t n_cols, n_rows;
        model_tensor_at(s, i, m.name, &n_dims, &n_cols, &n_rows);
        m.n_in = (size_t)n_cols;
        m.n_out = (size_t)n_rows;
        if (n_dims == 2 && strcmp(m.name, "position_embd.weight") != 0)
            a->matrices[a->n_matrices++] = m;
    }
    return 0;
}

/* Is it half of a pair that was read? */
static bool is_known(const struct adapter *a, const char *name)
{
    const char *end = strstr(name, ".lora_");
    size_t n = end ? (size_t)(end - name) : 0;
    for (size_t i = 0; i < a->n_matrices; i++) {
        const struct adapter_matrix *m = &a->matrices[i];
        if (m->rank && !strncmp(m->name, name, n) && !m->name[n])
            return !strcmp(end, ".lora_a") || !strcmp(end, ".lora_b");
    }
    return false;
}

/* A tensor that belongs to no matrix is told, not passed over: the adapter would do
 * something else than what it was trained for. */
static int check_all_known(const struct gguf *g, const struct adapter *a,
                           struct runt_err *err)
{
    for (size_t i = 0; i < g->n_tensors; i++)
        if (!is_known(a, g->tensors[i].desc.name))
            return err_set(err, RUNT_E_UNSUPPORTED,
                           "%s: tensor %s adapts no matrix of this model", g->path,
                           g->tensors[i].desc.name);
    return g->n_tensors
               ? 0
               : err_set(err, RUNT_E_FORMAT, "%s: an adapter of nothing", g->path);
}

static int read_all(const struct gguf *g, const struct gpt2_shape *s, struct adapter *a,
                    struct runt_err *err)
{
    float alpha;
    struct gguf_str template;
    int rc = read_kind(g, &alpha, err);
    if (!rc)
        rc = read_base(g, a, err);
    if (!rc && gguf_find(g, KEY_TEMPLATE)) {
        rc = gguf_get_str(g, KEY_TEMPLATE, &template, err);
        if (!rc && !(a->chat_template = mem_strndup(template.data, template.len)))
            rc = err_nomem(err, "a chat template");
    }
    if (!rc)
        rc = list_matrices(s, a, err);
    a->print = fold(1, &alpha, sizeof alpha);
    for (size_t i = 0; i < a->n_matrices && !rc; i++)
        rc = read_pair(g, alpha, &a->matrices[i], &a->print, err);
    return rc ? rc : check_all_known(g, a, err);
}

int adapter_read(const struct gguf *g, const struct gpt2_shape *s, struct adapter **out,
                 struct runt_err *err)
{
    struct adapter *a = mem_zalloc(sizeof *a);
    if (!a)
        return err_nomem(err, "an adapter");
    int rc = read_all(g, s, a, err);
    if (rc)
        adapter_close(a);
    else
        *out = a;
    return rc;
}

int adapter_open(const char *path, const struct gpt2_shape *s, struct adapter **out,
                 struct runt_err *err)
{
    struct gguf *g = NULL;
    int rc = gguf_open(path, &g, err);
    if (!rc)
        rc = adapter_read(g, s, out, err);
    gguf_close(g);
    return rc;
}

void adapter_close(struct adapter *a)
{
    if (!a)
        return;
    for (size_t i = 0; i < a->n_matrices; i++) {
        mem_free(a->matrices[i].a);
        mem_free(a->matrices[i].b);
    }
    mem_free(a->matrices);
    mem_free(a->chat_template);
    mem_free(a);
}

/* ---- the base ---- */

int adapter_base(const struct tensor_source *weights, const struct gpt2_shape *s,
                 uint64_t *out, struct runt_err *err)
{
    size_t widest = 3 * (size_t)s->n_embd > s->n_ff ? 3 * (size_t)s->n_embd : s->n_ff;
    float *x = mem_array(widest, sizeof *x);
    uint64_t h = 1;
    int rc = x ? 0 : err_nomem(err, "a vector");
    for (size_t i = 0; i < model_n_tensors(s) && !rc; i++) {
        char name[TENSOR_NAME_MAX];
        unsigned n_dims;
        uint64_t n_cols, n_rows;
        model_tensor_at(s, i, name, &n_dims, &n_cols, &n_rows);
        if (n_dims != 1)
            continue;
        size_t k = 0;
        while (k < weights->n_tensors && strcmp(weights->tensors[k].name, name))
            k++;
        if (k == weights->n_tensors || weights->tensors[k].n_cols != n_cols)
            rc = err_set(err, RUNT_E_FORMAT, "%s: there is no %s of %llu numbers",
                         weights->name, name, (unsigned long long)n_cols);
        if (!rc)
            rc = weights->rows(weights, k, 0, 1, x, err);
        if (!rc)
            h = fold(h, x, (size_t)n_cols * sizeof *x);
    }
    mem_free(x);
    if (!rc)
        *out = h;
    return rc;
}

void adapter_write_meta(struct gguf_writer *w, float alpha, uint64_t base,
                        const char *chat_template)
{
    char text[24];
    snprintf(text, sizeof text, "%016" PRIx64, base);
    gguf_set_str(w, "general.type", "adapter", 7);
    gguf_set_str(w, "general.architecture", "gpt2", 4);
    gguf_set_str(w, "adapter.type", "lora", 4);
    gguf_set_f32(w, "adapter.lora.alpha", alpha);
    gguf_set_str(w, KEY_BASE, text, strlen(text));
    if (chat_template)
        gguf_set_str(w, KEY_TEMPLATE, chat_template, strlen(chat_template));
}

void adapter_add(struct gguf_writer *w, const struct adapter_matrix *m)
{
    bool turn = is_turned(m);
    const struct fmt_info *f32 = fmt_find(FMT_F32);
    char name[TENSOR_NAME_MAX + 8];
    snprintf(name, sizeof name, "%s.lora_a", m->name);
    gguf_add_tensor(w, name, f32, 2, turn ? m->rank : m->n_in,
                    turn ? m->n_out : m->rank);
    snprintf(name, sizeof name, "%s.lora_b", m->name);
    gguf_add_tensor(w, name, f32, 2, m->rank, turn ? m->n_in : m->n_out);
}

int adapter_write(struct gguf_writer *w, const struct adapter_matrix *m,
                  struct runt_err *err)
{
    size_t n_a = m->rank * m->n_in * sizeof *m->a,
           n_b = m->rank * m->n_out * sizeof *m->b;
    if (!is_turned(m)) {
        int rc = gguf_write(w, m->a, n_a, err);
        return rc ? rc : gguf_write(w, m->b, n_b, err);
    }
    float *a = turned(m->rank, m->n_in, m->a);
    int rc = a ? gguf_write(w, m->b, n_b, err) : err_nomem(err, "an adapter");
    if (!rc)
        rc = gguf_write(w, a, n_a, err);
    mem_free(a);
    return rc;
}

/* ---- merging ---- */

void adapter_merge(size_t n_in, size_t n_rows, size_t rank, double scale,
                   const float *a, const float *b, float *w)
{
    enum { SOME = 64 };
    double sum[SOME];
    for (size_t r = 0; r < n_rows; r++)
        for (size_t from = 0; from < n_in; from += SOME) {
            size_t n = n_in - from < SOME ? n_in - from : SOME;
            float *to = w + r * n_in + from;
            memset(sum, 0, sizeof sum);
            for (size_t k = 0; k < rank; k++) {
                const float *row = a + k * n_in + from;
                for (size_t i = 0; i < n; i++)
                    sum[i] += (double)b[r * rank + k] * (double)row[i];
            }
            for (size_t i = 0; i < n; i++)
                to[i] = (float)((double)to[i] + scale * sum[i]);
        }
}

struct adapter_merged {
    struct tensor_source source; /* first: rows() gets its address */
    const struct tensor_source *weights;
    struct adapter *const *adapters;
    const float *scales;
    size_t n;
};

static int merged_rows(const struct tensor_source *src, size_t i, uint64_t row,
                       uint64_t n_rows, float *out, struct runt_err *err)
{
    const struct adapter_merged *m = (const struct adapter_merged *)src;
    int rc = m->weights->rows(m->weights, i, row, n_rows, out, err);
    for (size_t k = 0; k < m->n && !rc; k++)
        for (size_t j = 0; j < m->adapters[k]->n_matrices; j++) {
            const struct adapter_matrix *x = &m->adapters[k]->matrices[j];
            if (x->rank && !strcmp(x->name, src->tensors[i].name))
                adapter_merge(x->n_in, (size_t)n_rows, x->rank,
                              x->scale * (double)m->scales[k], x->a,
                              x->b + row * x->rank, out);
        }
    return rc;
}

int adapter_merged_open(const struct tensor_source *weights,
                        struct adapter *const *adapters, const float *scales, size_t n,
                        struct adapter_merged **out, struct runt_err *err)
{
    struct adapter_merged *m = mem_zalloc(sizeof *m);
    if (!m)
        return err_nomem(err, "merged weights");
    *m = (struct adapter_merged){
        .source = {weights->name, weights->n_tensors, weights->tensors, merged_rows},
        .weights = weights,
        .adapters = adapters,
        .scales = scales,
        .n = n};
    *out = m;
    return 0;
}

const struct tensor_source *adapter_merged_source(const struct adapter_merged *m)
{
    return &m->source;
}

void adapter_merged_close(struct adapter_merged *m)
{
    mem_free(m);
}
