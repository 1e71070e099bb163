/* Owns the pass over the calibration text.
 *
 * The sums are made in tiles of TILE x TILE, each by one thread, from a pass of tokens
 * at a time: so every number is added up in the same order whatever the number of
 * threads. */
#include "quant/calib_impl.h"

#include "back/blas.h"
#include "base/err.h"
#include "base/file.h"
#include "base/fold.h"
#include "base/mem.h"
#include "model/model.h"

#include <stdio.h>
#include <string.h>

enum {
    TILE = 256,
    PASS = 256, /* tokens */
};

struct gathering {
    const struct blas *blas;
    struct calib *c;
};

static size_t min(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* h += x^T x, this thread's tiles. */
static void look(void *ctx, unsigned i, unsigned n, size_t which, const float *x,
                 size_t n_tokens, size_t n_cols)
{
    const struct gathering *g = ctx;
    float *h = g->c->moments[which].h;
    size_t tile = 0;
    for (size_t r = 0; r < n_cols; r += TILE)
        for (size_t k = 0; k <= r; k += TILE)
            if (tile++ % n == i)
                blas_gemm_tn(g->blas, min(TILE, n_cols - r), min(TILE, n_cols - k),
                             n_tokens, 1, x + r, n_cols, x + k, n_cols, 1,
                             h + r * n_cols + k, n_cols);
}

/* ---- what there is to gather ---- */

static int add_moment(struct calib *c, size_t i, const char *name,
                      const struct cpu_matrix *w, struct runt_err *err)
{
    struct calib_moment *m = &c->moments[i];
    size_t n;
    snprintf(m->name, sizeof m->name, "%s", name);
    m->n = w->n_cols;
    if (w->tile || !w->dot)
        return err_set(err, RUNT_E_INVALID,
                       "%s is %s: calibration wants a model of floats", name,
                       w->fmt->name);
    m->h = size_mul(m->n, m->n, &n) ? mem_array(n, sizeof *m->h) : NULL;
    return m->h ? 0 : err_nomem(err, "second moments");
}

static const char rows_name[] = "token_embd.weight, rows";

/* E^T E of the token table E. */
static int look_at_rows(const struct gathering *g, const runt_model *m,
                        struct runt_err *err)
{
    size_t n = m->shape.n_embd;
    float *x = mem_array(PASS * n, sizeof *x);
    if (!x)
        return err_nomem(err, "rows of the token table");
    memset(g->c->moments[g->c->n_moments - 1].h, 0, n * n * sizeof *x);
    for (size_t r = 0; r < m->shape.n_vocab; r += PASS) {
        size_t k = min(PASS, m->shape.n_vocab - r);
        for (size_t i = 0; i < k; i++)
            fmt_decode_row(m->token_embd.fmt, n, m->token_embd.data, r + i, x + i * n);
        look((void *)(uintptr_t)g, 0, 1, g->c->n_moments - 1, x, k, n);
    }
    mem_free(x);
    return 0;
}

static int init(struct calib *c, const runt_model *m, struct runt_err *err)
{
    static const char *const names[MODEL_TAPS] = {"attn_qkv", "attn_output", "ffn_up",
                                                  "ffn_down"};
    size_t n_layer = m->shape.n_layer;
    int rc = 0;
    c->n_moments = MODEL_TAPS * n_layer + 2;
    c->moments = mem_array(c->n_moments, sizeof *c->moments);
    if (!c->moments)
        return err_nomem(err, "second moments");
    for (size_t l = 0; l < n_layer; l++) {
        const struct model_block *b = &m->blocks[l];
        const struct cpu_matrix *w[MODEL_TAPS] = {
            &b->qkv.weight, &b->attn_output.weight, &b->ffn_up.weight,
            &b->ffn_down.weight};
        for (size_t k = 0; k < MODEL_TAPS && !rc; k++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%zu.%s.weight", l, names[k]);
            rc = add_moment(c, MODEL_TAPS * l + k, name, w[k], err);
        }
    }
    if (!rc)
        rc = add_moment(c, MODEL_TAPS * n_layer, "token_embd.weight", &m->head, err);
    if (!rc)
        rc = add_moment(c, MODEL_TAPS * n_layer + 1, rows_name, &m->head, err);
    return rc;
}

/* What an earlier run left of this very work, if anything. */
static void resume(struct calib *c, const char *path)
{
    struct calib found = {0};
    struct runt_err ignored = {0};
    if (!path || !file_exists(path) || calib_load(path, &found, &ignored))
        return;
    bool same = found.model == c->model && found.text == c->text &&
                found.n_wanted == c->n_wanted && found.window == c->window &&
                found.n_moments == c->n_moments;
    for (size_t i = 0; same && i < c->n_moments; i++)
        same = found.moments[i].n == c->moments[i].n;
    if (same) {
        struct calib old = *c;
        *c = found;
        found = old;
    }
    calib_free(&found);
}

static int walk(const runt_model *m, const int32_t *tokens, size_t n,
                const struct calib_options *o, struct calib *c, struct runt_err *err)
{
    struct gathering g = {.c = c};
    struct runt_session_options so = {
        .n_ctx = (uint32_t)c->window, .n_batch = PASS, .n_threads = o->n_threads};
    runt_session *s = NULL;
    struct model_tap tap = {look, &g};
    size_t n_windows = c->n_wanted / c->window;
    int rc = blas_get(&g.blas, err);
    if (!rc)
        rc = look_at_rows(&g, m, err);
    if (!rc)
        rc = runt_session_open(m, &so, &s, err);
    if (rc)
        return rc;
    s->tap = &tap;
    double saved = cpu_seconds();
    for (size_t k = c->n_tokens / c->window; k < n_windows && !rc; k++) {
        /* evenly from the first token to the last */
        size_t at = n_windows > 1 ? (n - c->window) / (n_windows - 1) * k : 0;
        runt_session_rewind(s, 0);
        rc = runt_session_feed(s, tokens + at, c->window, err);
        c->n_tokens += c->window;
        bool stop = o->progress && o->progress(o->progress_ctx, "calibration",
                                               c->n_tokens, c->n_wanted);
        if (!rc && o->save && (stop || cpu_seconds() - saved > CALIB_SAVE_SECONDS)) {
            rc = calib_save(c, o->save, err);
            saved = cpu_seconds();
        }
        if (!rc && stop)
            rc = err_set(err, RUNT_E_INTERRUPTED, "interrupted%s%s",
                         o->save ? "; the same command goes on from " : "",
                         o->save ? o->save : "");
    }
    runt_session_close(s);
    return rc;
}

int calib_gather(const runt_model *m, const int32_t *tokens, size_t n,
                 const struct calib_options *o, struct calib *out, struct runt_err *err)
{
    struct calib c = {.window = calib_window(m, o)};
    size_t wanted = o->n_tokens ? o->n_tokens : CALIB_TOKENS;
    if (c.window > m->shape.n_ctx)
        return err_set(err, RUNT_E_INVALID,
                       "windows of %zu tokens: the model's context is %u", c.window,
                       m->shape.n_ctx);
    if (n < c.window)
        return err_set(err, RUNT_E_INVALID,
                       "%s: %zu tokens to calibrate with; one window takes %zu",
                       o->name, n, c.window);
    c.n_wanted = min(wanted < c.window ? c.window : wanted, n) / c.window * c.window;
    c.model = model_fingerprint(m);
    c.text = fold(c.window, tokens, n * sizeof *tokens);
    int rc = init(&c, m, err);
    if (!rc) {
        resume(&c, o->save);
        rc = walk(m, tokens, n, o, &c, err);
    }
    if (!rc && o->save)
        rc = calib_save(&c, o->save, err);
    if (!rc && o->save)
        calib_text_forget(o->save);
    if (rc)
        calib_free(&c);
    else
        *out = c;
    return rc;
}

/* ---- the result ---- */

const struct calib_moment *calib_find(const struct calib *c, const char *name, size_t n)
{
    if (!strcmp(name, "output.weight")) /* the untied head has the same inputs */
        name = "token_embd.weight";
    for (size_t i = 0; i < c->n_moments; i++)
        if (!strcmp(c->moments[i].name, name) && c->moments[i].n == n)
            return &c->moments[i];
    return NULL;
}

const struct calib_moment *calib_find_rows(const struct calib *c,
                                           const struct calib_moment *m)
{
    return strcmp(m->name, "token_embd.weight") ? NULL : calib_find(c, rows_name, m->n);
}

void calib_free(struct calib *c)
{
    for (size_t i = 0; c->moments && i < c->n_moments; i++)
        mem_free(c->moments[i].h);
    mem_free(c->moments);
    *c = (struct calib){0};
}
