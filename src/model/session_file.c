/* Owns the file form of a sequence: its tokens and its cache, so that a prompt is
 * computed once and continued many times.
 *
 *   8 bytes  "RUNTKV2\n"
 *   u64      fingerprint of the model: the shape, and a sample of every tensor;
 *            and of its adapters
 *   u32      kind of cache, n_tokens
 *   i32      tokens[n_tokens]
 *   stripes  block by block as in memory: those that hold tokens
 *   u64      checksum of all of the above
 *
 * Numbers are as the machine has them (a cache is not for exchange; another byte order
 * has another magic).  Refuses files of another model, kind or length, and damaged
 * ones.
 */
#include "model/model.h"

#include "base/err.h"
#include "base/file.h"
#include "base/fold.h"
#include "base/mem.h"

#include <string.h>

static const char magic[8] = "RUNTKV2\n";

struct head {
    char magic[8];
    uint64_t model;
    uint32_t kv, n_tokens;
};
_Static_assert(sizeof(struct head) == 24, "no padding");

uint64_t model_fingerprint(const struct runt_model *m)
{
    enum { SAMPLE = 4096 };
    uint64_t h = 1;
    for (size_t i = 0; i < m->file->n_tensors; i++) {
        const struct gguf_tensor *t = &m->file->tensors[i];
        uint64_t shape[3] = {t->desc.fmt->type, t->desc.n_cols, t->desc.n_rows};
        h = fold(h, t->desc.name, strlen(t->desc.name));
        h = fold(h, shape, sizeof shape);
        h = fold(h, t->data, t->bytes < SAMPLE ? t->bytes : SAMPLE);
    }
    for (size_t i = 0; i < m->n_adapters; i++) {
        h = fold(h, &m->adapters[i].print, sizeof m->adapters[i].print);
        h = fold(h, &m->adapters[i].scale, sizeof m->adapters[i].scale);
    }
    return h;
}

/* Rows of stripes in a block: every layer's heads, keys and values in turn. */
static size_t n_rows(const struct runt_session *s)
{
    return 2 * (size_t)s->model->shape.n_layer * s->model->shape.n_head;
}

/* Positions of the n that lie in block b. */
static size_t in_block(size_t n, size_t b)
{
    size_t left = n - b * KERN_ATTN_BLOCK;
    return left < KERN_ATTN_BLOCK ? left : KERN_ATTN_BLOCK;
}

/* A row's stripes for n tokens. */
static size_t row_bytes(const struct runt_session *s, size_t n)
{
    return (n + KERN_STRIPE - 1) / KERN_STRIPE * s->cache.stripe_bytes;
}

static uint8_t *row_at(const struct runt_session *s, uint32_t seq, size_t block,
                       size_t row)
{
    const struct session_cache *c = &s->cache;
    return c->base + seq * c->seq_bytes + block * c->block_bytes +
           row * row_bytes(s, KERN_ATTN_BLOCK);
}

struct out {
    struct file_out *file;
    uint64_t sum;
};

static int put(struct out *o, const void *data, size_t n, struct runt_err *err)
{
    o->sum = fold(o->sum, data, n);
    return file_out_write(o->file, data, n, err);
}

/* The last stripe goes out with zeros where it holds no token: what once stood there is
 * nobody's business. */
static int put_row(struct out *o, const struct runt_session *s, size_t index,
                   const uint8_t *row, size_t n, uint8_t *stripe, const float *zeros,
                   struct runt_err *err)
{
    const struct gpt2_shape *sh = &s->model->shape;
    const struct kern_attn *k = &s->model->kern->attn[s->kv];
    size_t n_dim = sh->n_embd / sh->n_head,
           whole = row_bytes(s, n / KERN_STRIPE * KERN_STRIPE);
    bool keys = index % 2 == 0;
    int rc = put(o, row, whole, err);
    if (rc || n % KERN_STRIPE == 0)
        return rc;
    memcpy(stripe, row + whole, s->cache.stripe_bytes);
    for (size_t lane = n % KERN_STRIPE; lane < KERN_STRIPE; lane++)
        (keys ? k->store_key : k->store_value)(n_dim, zeros, stripe, lane);
    return put(o, stripe, s->cache.stripe_bytes, err);
}

int runt_session_save(const runt_session *s, uint32_t seq, const char *path,
                      struct runt_err *err)
{
    size_t n = s->pos[seq], n_dim = s->model->shape.n_embd / s->model->shape.n_head;
    struct head h = {
        .model = model_fingerprint(s->model), .kv = s->kv, .n_tokens = (uint32_t)n};
    memcpy(h.magic, magic, sizeof magic);
    struct out o = {.sum = 1};
    uint8_t *stripe = mem_alloc(s->cache.stripe_bytes);
    float *zeros = mem_array(n_dim, sizeof *zeros);
    int rc = stripe && zeros ? file_out_open(path, &o.file, err)
                             : err_nomem(err, "a stripe of the cache");
    if (!rc)
        rc = put(&o, &h, sizeof h, err);
    if (!rc)
        rc = put(&o, runt_session_seq_tokens(s, seq), n * sizeof(int32_t), err);
    for (size_t b = 0; b * KERN_ATTN_BLOCK < n; b++)
        for (size_t i = 0; !rc && i < n_rows(s); i++)
            rc = put_row(&o, s, i, row_at(s, seq, b, i), in_block(n, b), stripe, zeros,
                         err);
    if (!rc)
        rc = file_out_write(o.file, &o.sum, sizeof o.sum, err);
    if (rc)
        file_out_abort(o.file);
    else
        rc = file_out_commit(o.file, err);
    mem_free(stripe);
    mem_free(zeros);
    return rc;
}

/* ---- reading ---- */

static int check(const struct runt_session *s, const char *path,
                 const struct file_map *f, struct head *out, struct runt_err *err)
{
    static const char *const kinds[KERN_N_KV] = {"f16", "q8", "f32"};
    struct head h;
    if (f->size < sizeof h || memcmp(f->data, magic, sizeof magic))
        return err_set(err, RUNT_E_FORMAT, "%s: not a prompt cache", path);
    memcpy(&h, f->data, sizeof h);
    if (h.model != model_fingerprint(s->model))
        return err_set(err, RUNT_E_INVALID,
                       "%s: the prompt cache of another model than %s", path,
                       s->model->file->path);
    if (h.kv != s->kv)
        return err_set(err, RUNT_E_INVALID,
                       "%s: a cache of kind %s; this session's is %s", path,
                       h.kv < KERN_N_KV ? kinds[h.kv] : "unknown", kinds[s->kv]);
    if (h.n_tokens > s->n_ctx)
        return err_set(err, RUNT_E_FULL, "%s: %u tokens; this session's context is %u",
                       path, h.n_tokens, s->n_ctx);
    size_t want = sizeof h + h.n_tokens * sizeof(int32_t) +
                  n_rows(s) * row_bytes(s, h.n_tokens) + sizeof(uint64_t);
    if (f->size != want)
        return err_set(err, RUNT_E_FORMAT, "%s: %zu bytes where %u tokens take %zu",
                       path, f->size, h.n_tokens, want);
    *out = h;
    return 0;
}

static const uint8_t *take(const uint8_t **p, size_t n, uint64_t *sum)
{
    const uint8_t *at = *p;
    *sum = fold(*sum, at, n);
    *p += n;
    return at;
}

/* The checksum is made as the file was written, piece by piece: twice, first to trust
 * the bytes, then while they are taken over. */
static uint64_t walk(struct runt_session *s, const uint8_t *p, const struct head *h,
                     uint32_t seq, bool copy)
{
    size_t n = h->n_tokens;
    uint64_t sum = 1;
    take(&p, sizeof *h, &sum);
    const uint8_t *at = take(&p, n * sizeof(int32_t), &sum);
    if (copy)
        memcpy(s->tokens + (size_t)seq * s->n_ctx, at, n * sizeof(int32_t));
    for (size_t b = 0; b * KERN_ATTN_BLOCK < n; b++) {
        size_t m = in_block(n, b), whole = row_bytes(s, m / KERN_STRIPE * KERN_STRIPE),
               rest = row_bytes(s, m) - whole;
        for (size_t i = 0; i < n_rows(s); i++) {
            at = take(&p, whole, &sum);
            if (rest)
                take(&p, rest, &sum);
            if (copy)
                memcpy(row_at(s, seq, b, i), at, whole + rest);
        }
    }
    return sum;
}

int runt_session_restore(runt_session *s, uint32_t seq, const char *path,
                         struct runt_err *err)
{
    struct file_map f;
    struct head h = {0};
    uint64_t sum;
    int rc = file_map_open(path, &f, err);
    if (rc)
        return rc;
    rc = check(s, path, &f, &h, err);
    if (rc)
        goto out;
    memcpy(&sum, f.data + f.size - sizeof sum, sizeof sum);
    if (sum != walk(s, f.data, &h, seq, false)) {
        rc = err_set(err, RUNT_E_FORMAT, "%s: damaged (wrong checksum)", path);
        goto out;
    }
    for (size_t i = 0; i < h.n_tokens; i++) {
        int32_t id;
        memcpy(&id, f.data + sizeof h + i * sizeof id, sizeof id);
        if (id < 0 || (uint32_t)id >= s->model->shape.n_vocab) {
            rc = err_set(err, RUNT_E_FORMAT, "%s: token id %d is outside 0..%u", path,
                         id, s->model->shape.n_vocab - 1);
            goto out;
        }
    }
    walk(s, f.data, &h, seq, true);
    s->pos[seq] = h.n_tokens;
out:
    file_map_close(&f);
    return rc;
}
