/* Owns a session: its cache, its scratch memory, its position.  Everything is allocated
 * when it opens; feeding tokens allocates nothing. */
#include "model/model.h"

#include "base/err.h"
#include "base/mem.h"

#include <string.h>

enum { DEFAULT_BATCH = 64, MAX_BATCH = 4096 };

struct runt_session_options runt_session_defaults(void)
{
    return (struct runt_session_options){0};
}

static size_t max(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Point every buffer into the arena.  Called twice: with no base to learn the size,
 * then for real; both walks are the same, so they cannot disagree. */
struct layout {
    struct arena *arena; /* NULL: only add up */
    size_t bytes;
    bool overflow;
};

static void *place(struct layout *l, size_t a, size_t b, size_t c, size_t item)
{
    size_t n, bytes;
    if (!size_mul(a, b, &n) || !size_mul(n, c, &n) || !size_mul(n, item, &bytes) ||
        !size_add(bytes, 63, &bytes) ||
        !size_add(l->bytes, bytes & ~(size_t)63, &l->bytes)) {
        l->overflow = true;
        return NULL;
    }
    return l->arena ? arena_take(l->arena, n, item) : NULL;
}

static void lay_out(struct runt_session *s, struct layout *l, unsigned n_threads)
{
    const struct gpt2_shape *sh = &s->model->shape;
    size_t e = sh->n_embd, b = s->n_batch, f = sizeof(float);
    s->keys = place(l, sh->n_layer, s->n_ctx, e, f);
    s->values = place(l, sh->n_layer, s->n_ctx, e, f);
    s->x = place(l, b, e, 1, f);
    s->h = place(l, b, e, 1, f);
    s->tmp = place(l, b, e, 1, f);
    s->qkv = place(l, b, 3, e, f);
    s->ff = place(l, b, sh->n_ff, 1, f);
    s->scores = place(l, n_threads, s->n_ctx, 1, f);
    s->act = place(l, b, max(e, sh->n_ff) / KERN_ACT_LEN + 1, 1, sizeof *s->act);
    s->logits = place(l, s->all_logits ? b : 1, sh->n_vocab, 1, f);
}

int runt_session_open(const runt_model *m, const struct runt_session_options *o,
                      runt_session **out, struct runt_err *err)
{
    int rc = 0;
    struct runt_session_options defaults = runt_session_defaults();
    if (!o)
        o = &defaults;
    if (o->n_ctx > m->shape.n_ctx)
        return err_set(err, RUNT_E_INVALID,
                       "a context of %u: this model was made for at most %u", o->n_ctx,
                       m->shape.n_ctx);
    if (o->n_batch > MAX_BATCH)
        return err_set(err, RUNT_E_INVALID, "a batch of %u: the limit is %d",
                       o->n_batch, MAX_BATCH);
    struct runt_session *s = mem_zalloc(sizeof *s);
    if (!s)
        return err_nomem(err, "a session");
    s->model = m;
    s->cpu.kern = m->kern;
    s->n_ctx = o->n_ctx ? o->n_ctx : m->shape.n_ctx;
    s->n_batch = o->n_batch ? o->n_batch : DEFAULT_BATCH;
    if (s->n_batch > s->n_ctx)
        s->n_batch = s->n_ctx;
    s->all_logits = o->all_logits;
    rc = pool_create(o->n_threads, &s->cpu.pool, err);
    if (rc)
        goto fail;
    struct layout size = {0};
    lay_out(s, &size, pool_n_threads(s->cpu.pool));
    if (size.overflow || arena_init(&s->arena, size.bytes)) {
        rc = err_set(err, RUNT_E_NOMEM,
                     "no memory for a session of %u positions (%zu "
                     "bytes); try a smaller context",
                     s->n_ctx, size.bytes);
        goto fail;
    }
    struct layout real = {.arena = &s->arena};
    lay_out(s, &real, pool_n_threads(s->cpu.pool));
    *out = s;
    return 0;
fail:
    runt_session_close(s);
    return rc;
}

void runt_session_close(runt_session *s)
{
    if (!s)
        return;
    pool_destroy(s->cpu.pool);
    arena_free(&s->arena);
    mem_free(s);
}

int runt_session_feed(runt_session *s, const int32_t *tokens, size_t n,
                      struct runt_err *err)
{
    if (!n)
        return err_set(err, RUNT_E_INVALID, "no tokens to feed");
    if (n > s->n_ctx - s->pos)
        return err_set(err, RUNT_E_FULL,
                       "%zu tokens do not fit: %u of the context's %u are used", n,
                       s->pos, s->n_ctx);
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= s->model->shape.n_vocab)
            return err_set(err, RUNT_E_INVALID, "token id %d is outside 0..%u",
                           tokens[i], s->model->shape.n_vocab - 1);
    while (n) {
        size_t k = n < s->n_batch ? n : s->n_batch;
        model_forward(s, tokens, k);
        tokens += k;
        n -= k;
    }
    return 0;
}

uint32_t runt_session_pos(const runt_session *s)
{
    return s->pos;
}

uint32_t runt_session_n_ctx(const runt_session *s)
{
    return s->n_ctx;
}

void runt_session_rewind(runt_session *s, uint32_t pos)
{
    if (pos < s->pos)
        s->pos = pos;
}

const float *runt_session_logits(const runt_session *s)
{
    return runt_session_logits_at(s, s->n_last ? s->n_last - 1 : 0);
}

const float *runt_session_logits_at(const runt_session *s, size_t i)
{
    return s->logits + (s->all_logits ? i * s->model->shape.n_vocab : 0);
}
