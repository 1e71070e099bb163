/* Owns the pass over the calibration text.
 *
 * The sums are made in tiles of TILE x TILE, each by one thread, from a pass of tokens
 * at a time: so every number is added up in the same order whatever the number of
 * threads. */
#include "quant/calib.h"

#include "back/blas.h"
#include "base/err.h"
#include "base/file.h"
#include "base/fold.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    DEFAULT_TOKENS = 131072,
    MAX_WINDOW = 1024,
    TILE = 256,
    PASS = 256, /* tokens */
    SAVE_SECONDS = 60,
    SAMPLE_SEQS = 16,
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

static size_t window_of(const runt_model *m, const struct calib_options *o)
{
    size_t most = min(m->shape.n_ctx, MAX_WINDOW);
    return o->window ? o->window : most;
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
        if (!rc && o->save && (stop || cpu_seconds() - saved > SAVE_SECONDS)) {
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
    struct calib c = {.window = window_of(m, o)};
    size_t wanted = o->n_tokens ? o->n_tokens : DEFAULT_TOKENS;
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
    if (rc)
        calib_free(&c);
    else
        *out = c;
    return rc;
}

/* ---- text of the model's own ---- */

struct writing {
    runt_session *s;
    struct rng rng[SAMPLE_SEQS]; /* one a sequence: the same text for any threads */
    int32_t *ids;                /* [n_seqs][window] */
    size_t n, window, t;         /* sequences side by side; position */
};

/* A token by its probability: the place of a random share of the sum of exp(l). */
static int32_t draw(struct rng *rng, const float *l, size_t n)
{
    float most = l[0];
    double sum = 0, at = 0;
    for (size_t i = 1; i < n; i++)
        most = l[i] > most ? l[i] : most;
    for (size_t i = 0; i < n; i++)
        sum += (double)expf(l[i] - most);
    double wanted = rng_unit(rng) * sum;
    for (size_t i = 0; i < n; i++) {
        at += (double)expf(l[i] - most);
        if (at > wanted)
            return (int32_t)i;
    }
    return (int32_t)n - 1;
}

static void draw_part(void *ctx, unsigned i, unsigned n)
{
    struct writing *w = ctx;
    for (size_t k = i; k < w->n; k += n)
        w->ids[k * w->window + w->t + 1] = draw(
            &w->rng[k], runt_session_logits_at(w->s, k), w->s->model->shape.n_vocab);
}

/* w->n sequences, each from its first token to a full window. */
static int write_some(struct writing *w, struct runt_err *err)
{
    struct runt_step steps[SAMPLE_SEQS];
    for (size_t i = 0; i < w->n; i++)
        runt_session_seq_rewind(w->s, (uint32_t)i, 0);
    for (w->t = 0; w->t + 1 < w->window; w->t++) {
        for (size_t i = 0; i < w->n; i++)
            steps[i] =
                (struct runt_step){(uint32_t)i, w->ids + i * w->window + w->t, 1};
        int rc = runt_session_step(w->s, steps, w->n, err);
        if (rc)
            return rc;
        pool_run(w->s->pool, draw_part, w);
    }
    return 0;
}

int calib_sample(const runt_model *m, uint64_t seed, const struct calib_options *o,
                 int32_t **tokens, size_t *n, struct runt_err *err)
{
    size_t window = window_of(m, o),
           wanted = o->n_tokens ? o->n_tokens : DEFAULT_TOKENS,
           n_seqs = (wanted + window - 1) / window, n_ids;
    struct runt_model_info info;
    struct runt_session_options so = {
        .n_ctx = (uint32_t)window, .n_seqs = SAMPLE_SEQS, .n_threads = o->n_threads};
    struct writing w = {.window = window};
    runt_model_info(m, &info);
    if (window > m->shape.n_ctx)
        return err_set(err, RUNT_E_INVALID,
                       "windows of %zu tokens: the model's context is %u", window,
                       m->shape.n_ctx);
    int32_t *ids =
        size_mul(n_seqs, window, &n_ids) ? mem_array(n_ids, sizeof *ids) : NULL;
    int rc =
        ids ? runt_session_open(m, &so, &w.s, err) : err_nomem(err, "sampled text");
    for (size_t at = 0; at < n_seqs && !rc; at += w.n) {
        w.n = min(SAMPLE_SEQS, n_seqs - at);
        w.ids = ids + at * window;
        for (size_t i = 0; i < w.n; i++) {
            rng_seed(&w.rng[i], seed + at + i);
            w.ids[i * window] = info.eos >= 0 ? info.eos : 0;
        }
        rc = write_some(&w, err);
        if (!rc && o->progress &&
            o->progress(o->progress_ctx, "sampling text", (at + w.n) * window, n_ids))
            rc = err_set(err, RUNT_E_INTERRUPTED, "interrupted");
    }
    runt_session_close(w.s);
    if (rc) {
        mem_free(ids);
        return rc;
    }
    *tokens = ids;
    *n = n_ids;
    return 0;
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
