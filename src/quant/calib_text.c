/* Owns the text that a model writes for its own calibration: many sequences side by
 * side, each from the end-of-text token, drawn at temperature 1.
 *
 * Where the calibration is kept in a file F, F.text is the way to go on:
 *
 *   8 bytes  "RUNTTXT1"
 *   u64      fingerprint of the model, seed, tokens of a sequence, number of sequences,
 *            the first of those being written, tokens that each of them has
 *   int32    the tokens, sequence after sequence
 *   u64      checksum of all of the above
 *
 * Feeding the tokens again and drawing the used random numbers again leads to the same
 * text, because logits do not depend on how tokens are cut into passes. */
#include "quant/calib_impl.h"

#include "back/cpu_ops.h"
#include "base/cursor.h"
#include "base/err.h"
#include "base/file.h"
#include "base/fold.h"
#include "base/mem.h"
#include "base/rng.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

/* Short sequences keep the cache of many small: GPT-2 124M's float cache takes 604 MB.
 */
enum { SEQS = 32, MOST_LENGTH = 256 };

static const char magic[8] = {'R', 'U', 'N', 'T', 'T', 'X', 'T', '1'};

struct writing {
    runt_session *s;
    uint64_t model, seed;
    int32_t *ids; /* [n_seqs][length] */
    size_t n_seqs, length;
    size_t first, n;      /* the sequences being written */
    size_t t;             /* tokens that each of them has */
    struct rng rng[SEQS]; /* one a sequence: the same text for any threads */
    float *room;          /* [n_threads][n_vocab] */
};

static size_t min(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- the file ---- */

static char *text_path(const char *save)
{
    return mem_printf("%s.text", save);
}

void calib_text_forget(const char *save)
{
    char *path = text_path(save);
    if (path)
        unlink(path);
    mem_free(path);
}

static void head_of(const struct writing *w, uint64_t head[6])
{
    uint64_t h[6] = {w->model, w->seed, w->length, w->n_seqs, w->first, w->t};
    memcpy(head, h, sizeof h);
}

static int keep(const struct writing *w, const char *save, struct runt_err *err)
{
    struct file_out *f = NULL;
    char *path = text_path(save);
    uint64_t head[6];
    size_t size = w->n_seqs * w->length * sizeof *w->ids;
    int rc = path ? file_out_open(path, &f, err) : err_nomem(err, "a path");
    mem_free(path);
    if (rc)
        return rc;
    head_of(w, head);
    uint64_t sum = fold(fold(1, head, sizeof head), w->ids, size);
    rc = file_out_write(f, magic, sizeof magic, err);
    if (!rc)
        rc = file_out_write(f, head, sizeof head, err);
    if (!rc)
        rc = file_out_write(f, w->ids, size, err);
    if (!rc)
        rc = file_out_write(f, &sum, sizeof sum, err);
    if (!rc)
        return file_out_commit(f, err);
    file_out_abort(f);
    return rc;
}

/* Whether a file holds the beginning of this very text: w then has it. */
static bool find(struct writing *w, const char *save)
{
    struct file_map f;
    struct runt_err ignored;
    char *path = text_path(save);
    bool found = path && file_exists(path) && !file_map_open(path, &f, &ignored);
    mem_free(path);
    if (!found)
        return false;
    struct cursor cur = cur_make(f.data, f.size);
    uint64_t head[6], want[6], sum;
    size_t size = w->n_seqs * w->length * sizeof *w->ids;
    const uint8_t *m = cur_bytes(&cur, sizeof magic), *h = cur_bytes(&cur, sizeof head),
                  *ids = cur_bytes(&cur, size), *end = cur_bytes(&cur, sizeof sum);
    found = m && h && ids && end && !cur_left(&cur) && !memcmp(m, magic, sizeof magic);
    if (found) {
        memcpy(head, h, sizeof head);
        memcpy(&sum, end, sizeof sum);
        head_of(w, want);
        found = sum == fold(fold(1, head, sizeof head), ids, size) &&
                !memcmp(head, want, 4 * sizeof *head) && head[4] <= w->n_seqs &&
                (head[4] % SEQS == 0 || head[4] == w->n_seqs) && head[5] >= 1 &&
                head[5] <= w->length;
    }
    for (size_t i = 0; found && i < w->n_seqs * w->length; i++) {
        int32_t id;
        memcpy(&id, ids + i * sizeof id, sizeof id);
        found = id >= 0 && (uint32_t)id < w->s->model->shape.n_vocab;
    }
    if (found) {
        memcpy(w->ids, ids, size);
        w->first = (size_t)head[4];
        w->t = (size_t)head[5];
    }
    file_map_close(&f);
    return found;
}

/* ---- writing ---- */

/* A token by its probability: the place of a random share of the sum of exp(l).  e [n]
 * is room. */
static int32_t draw(struct rng *rng, const float *l, size_t n, float *e)
{
    float most = l[0];
    double sum = 0, at = 0;
    for (size_t i = 1; i < n; i++)
        most = l[i] > most ? l[i] : most;
    for (size_t i = 0; i < n; i++)
        sum += (double)(e[i] = expf(l[i] - most));
    double wanted = rng_unit(rng) * sum;
    for (size_t i = 0; i < n; i++) {
        at += (double)e[i];
        if (at > wanted)
            return (int32_t)i;
    }
    return (int32_t)n - 1;
}

static void draw_part(void *ctx, unsigned i, unsigned n)
{
    struct writing *w = ctx;
    size_t n_vocab = w->s->model->shape.n_vocab;
    for (size_t k = i; k < w->n; k += n)
        w->ids[(w->first + k) * w->length + w->t] =
            draw(&w->rng[k], runt_session_logits_at(w->s, k), n_vocab,
                 w->room + i * n_vocab);
}

/* Begin a group of sequences, or go on with it from their first t tokens. */
static void begin(struct writing *w, int32_t eos)
{
    w->n = min(SEQS, w->n_seqs - w->first);
    for (size_t i = 0; i < w->n; i++) {
        runt_session_seq_rewind(w->s, (uint32_t)i, 0);
        rng_seed(&w->rng[i], w->seed + w->first + i);
        for (size_t t = 1; t < w->t; t++)
            rng_unit(&w->rng[i]);
        if (w->t == 1)
            w->ids[(w->first + i) * w->length] = eos;
    }
}

static int write_token(struct writing *w, struct runt_err *err)
{
    struct runt_step steps[SEQS];
    for (size_t i = 0; i < w->n; i++) {
        size_t fed = runt_session_seq_pos(w->s, (uint32_t)i);
        steps[i] = (struct runt_step){
            .seq = (uint32_t)i,
            .tokens = w->ids + (w->first + i) * w->length + fed,
            .n = w->t - fed,
        };
    }
    int rc = runt_session_step(w->s, steps, w->n, err);
    if (rc)
        return rc;
    pool_run(w->s->pool, draw_part, w);
    w->t++;
    return 0;
}

static int write_all(struct writing *w, const struct calib_options *o, int32_t eos,
                     struct runt_err *err)
{
    double saved = cpu_seconds();
    int rc = 0;
    while (w->first < w->n_seqs && !rc) {
        begin(w, eos);
        while (w->t < w->length && !rc) {
            rc = write_token(w, err);
            bool stop = o->progress && o->progress(o->progress_ctx, "sampling text",
                                                   w->first * w->length + w->n * w->t,
                                                   w->n_seqs * w->length);
            if (!rc && o->save &&
                (stop || cpu_seconds() - saved > CALIB_SAVE_SECONDS)) {
                rc = keep(w, o->save, err);
                saved = cpu_seconds();
            }
            if (!rc && stop)
                rc = err_set(err, RUNT_E_INTERRUPTED, "interrupted%s%s",
                             o->save ? "; the same command goes on from " : "",
                             o->save ? o->save : "");
        }
        if (!rc) {
            w->first = min(w->first + SEQS, w->n_seqs);
            w->t = 1;
        }
    }
    if (!rc && o->save) { /* whole: the calibration may be interrupted, too */
        rc = keep(w, o->save, err);
    }
    return rc;
}

int calib_sample(const runt_model *m, uint64_t seed, const struct calib_options *o,
                 int32_t **tokens, size_t *n, struct runt_err *err)
{
    size_t window = calib_window(m, o),
           wanted = o->n_tokens ? o->n_tokens : CALIB_TOKENS, n_ids, room;
    struct writing w = {.model = model_fingerprint(m),
                        .seed = seed,
                        .length = min(window, MOST_LENGTH),
                        .t = 1};
    struct runt_session_options so = {
        .n_ctx = (uint32_t)w.length, .n_seqs = SEQS, .n_threads = o->n_threads};
    struct runt_model_info info;
    runt_model_info(m, &info);
    if (window > m->shape.n_ctx)
        return err_set(err, RUNT_E_INVALID,
                       "windows of %zu tokens: the model's context is %u", window,
                       m->shape.n_ctx);
    w.n_seqs = ((wanted > window ? wanted : window) + w.length - 1) / w.length;
    int rc = size_mul(w.n_seqs, w.length, &n_ids) ? runt_session_open(m, &so, &w.s, err)
                                                  : err_nomem(err, "sampled text");
    if (rc)
        return rc;
    w.ids = mem_array(n_ids, sizeof *w.ids);
    if (size_mul(pool_n_threads(w.s->pool), m->shape.n_vocab, &room))
        w.room = mem_array(room, sizeof *w.room);
    rc = w.ids && w.room ? 0 : err_nomem(err, "sampled text");
    if (!rc && o->save)
        (void)find(&w, o->save);
    if (!rc)
        rc = write_all(&w, o, info.eos >= 0 ? info.eos : 0, err);
    runt_session_close(w.s);
    mem_free(w.room);
    if (rc) {
        mem_free(w.ids);
        return rc;
    }
    *tokens = w.ids;
    *n = n_ids;
    return 0;
}
