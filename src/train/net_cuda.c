/* Owns a net's memory on a GPU, and what goes between it and this machine's. */
#include "train/net_cuda.h"

#include "base/err.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Logits are made for as many tokens at a time as 268 MB of floats hold, 64 at least:
 * enough work for a GPU, little of its memory. */
enum {
    LOGITS = 1 << 26,
    LOGITS_STEP = 8 /* numbers: an alignment that products like */
};

static struct net_cuda *on(const struct net *n)
{
    return n->on_device;
}

static struct cuda *cuda_of(const struct net_device *d)
{
    return ((const struct net_cuda_device *)d)->cuda;
}

/* ---- memory ---- */

/* Goes over all arrays: counts their bytes, or makes them. */
struct rooms {
    struct net_cuda *c; /* NULL: count */
    struct runt_err *err;
    int rc;
    size_t bytes;
};

static void *room(struct rooms *r, size_t count, size_t size)
{
    void *p = NULL;
    r->bytes += count * size;
    if (!r->c || r->rc)
        return NULL;
    r->rc = cuda_alloc(r->c->cuda, count * size, "training (--memory shows the plan)",
                       &p, r->err);
    if (!r->rc)
        r->c->owned[r->c->n_owned++] = p;
    return p;
}

static void acts_rooms(struct rooms *r, const struct gpt2_shape *s, size_t rows,
                       size_t act, struct net_cuda_acts *a)
{
    a->stat1 = room(r, rows * 2, sizeof(float));
    a->qkv = room(r, rows * 3 * s->n_embd, act);
    a->attn = room(r, rows * s->n_embd, act);
    a->lse = room(r, rows * s->n_head, sizeof(float));
    a->mid = room(r, rows * s->n_embd, sizeof(float));
    a->stat2 = room(r, rows * 2, sizeof(float));
    a->up = room(r, rows * s->n_ff, act);
}

static size_t wide_of(const struct gpt2_shape *s)
{
    return s->n_ff > 3 * (size_t)s->n_embd ? s->n_ff : 3 * (size_t)s->n_embd;
}

/* What blocks keep for the way back. */
static void kept_rooms(struct rooms *r, const struct net *n, size_t act,
                       struct net_cuda *c, struct net_cuda_acts *acts)
{
    const struct gpt2_shape *s = &n->shape;
    size_t rows = n->o.n_seqs * n->o.seq_len;
    bool one = n->o.recompute || n->o.forward;
    c->x =
        room(r, (n->o.forward ? 2 : s->n_layer + 1) * rows * s->n_embd, sizeof(float));
    for (uint32_t l = 0; l < s->n_layer; l++)
        if (one && l)
            acts[l] = acts[0];
        else
            acts_rooms(r, s, rows, act, &acts[l]);
    c->stat = room(r, rows * 2, sizeof(float));
}

/* What one operation hands to the next. */
static void work_rooms(struct rooms *r, const struct net *n, size_t act,
                       struct net_cuda *c)
{
    const struct gpt2_shape *s = &n->shape;
    size_t rows = n->o.n_seqs * n->o.seq_len, width = s->n_embd, wide = wide_of(s);
    c->step = (s->n_vocab + LOGITS_STEP - 1) / LOGITS_STEP * LOGITS_STEP;
    c->tokens = room(r, rows, sizeof(int32_t));
    c->targets = room(r, rows, sizeof(int32_t));
    c->keys = room(r, n->o.n_seqs, sizeof(uint32_t));
    c->norm = room(r, rows * width, act);
    c->wide = room(r, rows * wide, act);
    c->y = room(r, rows * width, act);
    c->logits = room(r, n->chunk * c->step, sizeof(float));
    c->losses = room(r, rows, sizeof(double));
    c->dlogits = c->logits;
    if (n->o.forward) {
        c->scores = room(r, n->chunk, sizeof(struct cuda_score));
        return;
    }
    c->wide2 = room(r, rows * wide, act);
    c->dx = room(r, rows * width, sizeof(float));
    c->dy = room(r, rows * width, act);
    c->delta = room(r, rows * s->n_head, sizeof(float));
    c->partial = room(r, cuda_sum_floats(rows, wide), sizeof(float));
    c->groups = room(r, 3 * rows + 1, sizeof(int32_t));
    if (act < sizeof(float))
        c->dlogits = room(r, n->chunk * c->step, act);
}

static size_t act_bytes(const struct net *n)
{
    return n->o.type == GEMM_BF16 ? sizeof(uint16_t) : sizeof(float);
}

/* How many pieces the optimizer's work is cut into; fills them where there is room. */
static size_t cut_pieces(const struct net *n, struct cuda_piece *pieces)
{
    size_t count = 0;
    for (size_t p = 0; p < n->n_params; p++) {
        const struct net_param *q = &n->params[p];
        size_t size = q->frozen ? 0 : q->desc.n_rows * q->desc.n_cols;
        for (size_t done = 0; done < size; done += CUDA_PIECE, count++)
            if (pieces)
                pieces[count] = (struct cuda_piece){
                    .at = q->at + done,
                    .n =
                        (uint32_t)(size - done < CUDA_PIECE ? size - done : CUDA_PIECE),
                    .matrix = q->desc.n_dims == 2};
    }
    return count;
}

/* What the optimizer has beside the moments. */
static size_t optim_bytes(size_t n_pieces)
{
    return n_pieces * sizeof(struct cuda_piece) + (n_pieces + 1) * sizeof(double);
}

static size_t chunk_of(const struct net *n)
{
    size_t rows = n->o.n_seqs * n->o.seq_len, chunk = LOGITS / n->shape.n_vocab;
    chunk = chunk < 64 ? 64 : chunk;
    return chunk < rows ? chunk : rows;
}

static void measure(const struct net *plan, struct net_memory *m)
{
    struct net n = *plan;
    struct net_cuda none = {0};
    struct net_cuda_acts *acts = mem_array(n.shape.n_layer, sizeof *acts);
    struct rooms kept = {0}, work = {0};
    n.chunk = chunk_of(&n);
    if (acts)
        kept_rooms(&kept, &n, act_bytes(&n), &none, acts);
    work_rooms(&work, &n, act_bytes(&n), &none);
    mem_free(acts);
    m->weights = n.n_weights * sizeof(float);
    m->narrow = n.o.type == GEMM_BF16 ? n.n_weights * sizeof(uint16_t) : 0;
    m->gradients = n.o.forward ? 0 : n.n_trained * sizeof(float);
    m->moments = 2 * m->gradients;
    m->activations = kept.bytes;
    m->work = work.bytes;
    if (!n.o.forward)
        m->work += optim_bytes(cut_pieces(&n, NULL));
    m->total =
        m->weights + m->narrow + m->gradients + m->moments + m->activations + m->work;
}

static void destroy(struct net *n)
{
    struct net_cuda *c = on(n);
    for (size_t i = 0; i < c->n_owned; i++)
        cuda_release(c->cuda, c->owned[i]);
    mem_free(c->owned);
    mem_free(c->acts);
    mem_free(c->host_losses);
    mem_free(c->host_groups);
    mem_free(c->counts);
    mem_free(c);
    n->on_device = NULL;
}

static int create(struct net *n, struct runt_err *err)
{
    size_t rows = n->o.n_seqs * n->o.seq_len, act = act_bytes(n);
    struct net_cuda *c = n->on_device = mem_zalloc(sizeof *c);
    if (!c)
        return err_nomem(err, "a model on the GPU");
    c->cuda = cuda_of(n->o.device);
    c->max_owned = 7 * (size_t)n->shape.n_layer + 32;
    c->owned = mem_array(c->max_owned, sizeof *c->owned);
    c->acts = mem_array(n->shape.n_layer, sizeof *c->acts);
    c->host_losses = mem_array(rows, sizeof *c->host_losses);
    c->host_groups = mem_array(3 * rows + 1, sizeof *c->host_groups);
    c->counts = mem_array(n->shape.n_vocab, sizeof *c->counts);
    if (!c->owned || !c->acts || !c->host_losses || !c->host_groups || !c->counts)
        return err_nomem(err, "a model on the GPU");
    n->chunk = chunk_of(n);
    struct rooms r = {.c = c, .err = err};
    c->w = room(&r, n->n_weights, sizeof(float));
    if (n->o.type == GEMM_BF16)
        c->h = room(&r, n->n_weights, sizeof(uint16_t));
    if (!n->o.forward)
        c->g = room(&r, n->n_trained, sizeof(float));
    kept_rooms(&r, n, act, c, c->acts);
    work_rooms(&r, n, act, c);
    if (!r.rc && c->g)
        cuda_zero(c->cuda, c->g, n->n_trained * sizeof(float));
    return r.rc ? r.rc : cuda_wait(c->cuda, err);
}

/* ---- weights ---- */

static int put(struct net *n, struct runt_err *err)
{
    struct net_cuda *c = on(n);
    cuda_upload(c->cuda, c->w, n->w, n->n_weights * sizeof(float));
    if (c->h)
        cuda_narrow(c->cuda, n->n_weights, c->w, c->h);
    return cuda_wait(c->cuda, err);
}

static int get(const struct net *n, struct runt_err *err)
{
    cuda_download(on(n)->cuda, n->w, on(n)->w, n->n_weights * sizeof(float));
    return cuda_wait(on(n)->cuda, err);
}

int net_cuda_gradients(const struct net *n, float *g, struct runt_err *err)
{
    cuda_download(on(n)->cuda, g, on(n)->g, n->n_trained * sizeof(float));
    return cuda_wait(on(n)->cuda, err);
}

static int check(const struct net *n, struct runt_err *err)
{
    return cuda_wait(on(n)->cuda, err);
}

/* ---- the optimizer ---- */

static int optim_put(struct optim *o, struct runt_err *err)
{
    struct net_cuda *c = on(o->net);
    cuda_upload(c->cuda, c->m, o->m, o->net->n_trained * sizeof(float));
    cuda_upload(c->cuda, c->v, o->v, o->net->n_trained * sizeof(float));
    return cuda_wait(c->cuda, err);
}

static int optim_get(const struct optim *o, struct runt_err *err)
{
    struct net_cuda *c = on(o->net);
    cuda_download(c->cuda, o->m, c->m, o->net->n_trained * sizeof(float));
    cuda_download(c->cuda, o->v, c->v, o->net->n_trained * sizeof(float));
    return cuda_wait(c->cuda, err);
}

static int optim_create_(struct optim *o, struct runt_err *err)
{
    struct net *n = o->net;
    struct net_cuda *c = on(n);
    struct rooms r = {.c = c, .err = err};
    c->n_pieces = cut_pieces(n, NULL);
    struct cuda_piece *pieces = mem_array(c->n_pieces, sizeof *pieces);
    if (!pieces)
        return err_nomem(err, "the optimizer's moments");
    cut_pieces(n, pieces);
    c->m = room(&r, n->n_trained, sizeof(float));
    c->v = room(&r, n->n_trained, sizeof(float));
    c->pieces = room(&r, c->n_pieces, sizeof *pieces);
    c->squares = room(&r, c->n_pieces + 1, sizeof(double));
    if (!r.rc)
        cuda_upload(c->cuda, c->pieces, pieces, c->n_pieces * sizeof *pieces);
    mem_free(pieces);
    return r.rc ? r.rc : optim_put(o, err);
}

static double squares(struct optim *o)
{
    struct net_cuda *c = on(o->net);
    double sum = (double)NAN;
    cuda_squares(c->cuda, c->n_pieces, c->pieces, c->g, c->squares,
                 c->squares + c->n_pieces);
    cuda_download(c->cuda, &sum, c->squares + c->n_pieces, sizeof sum);
    return sum;
}

static void update(struct optim *o, const struct grad_adamw *matrix,
                   const struct grad_adamw *vector)
{
    struct net_cuda *c = on(o->net);
    cuda_adamw(c->cuda, c->n_pieces, c->pieces, matrix, vector, c->g, c->w, c->m, c->v,
               c->h);
}

/* ---- the device ---- */

static void close_device(struct net_device *d)
{
    if (!d)
        return;
    cuda_close(cuda_of(d));
    mem_free(d);
}

static size_t free_bytes(const struct net_device *d)
{
    return cuda_free_bytes(cuda_of(d));
}

static double peak(const struct net_device *d)
{
    return cuda_peak(cuda_of(d));
}

bool net_cuda_built(void)
{
    return true;
}

int net_cuda_open(enum gemm_type type, struct net_device **out, struct runt_err *err)
{
    struct net_cuda_device *d = mem_zalloc(sizeof *d);
    if (!d)
        return err_nomem(err, "a GPU");
    int rc = cuda_open(type, &d->cuda, err);
    if (rc) {
        mem_free(d);
        return rc;
    }
    snprintf(d->name, sizeof d->name, "cuBLAS on %s", cuda_name(d->cuda));
    d->base = (struct net_device){.name = d->name,
                                  .type = type,
                                  .close = close_device,
                                  .free_bytes = free_bytes,
                                  .peak = peak,
                                  .create = create,
                                  .measure = measure,
                                  .destroy = destroy,
                                  .put = put,
                                  .get = get,
                                  .run = net_cuda_run,
                                  .check = check,
                                  .score = net_cuda_score,
                                  .optim_create = optim_create_,
                                  .optim_put = optim_put,
                                  .optim_get = optim_get,
                                  .squares = squares,
                                  .update = update};
    *out = &d->base;
    return 0;
}
