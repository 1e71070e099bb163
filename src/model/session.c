/* Owns a session: its sequences' caches, its scratch memory, their positions, and how
 * steps are cut into passes.  Everything is allocated when it opens; feeding tokens
 * allocates nothing. */
#include "model/model.h"

#include "base/err.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

enum {
    DEFAULT_BATCH = 256,
    DEFAULT_BATCH_LOGITS = 64, /* each token's logits are 200 KB in GPT-2 */
    DEFAULT_DRAFTS = 32,       /* rows of logits beyond one a sequence */
    MAX_BATCH = 4096,
    MAX_SEQS = 4096,
    MAX_LOGITS = 65536
};

struct runt_session_options runt_session_defaults(void)
{
    return (struct runt_session_options){0};
}

static size_t max(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* ---- memory ---- */

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

/* The cache is never cleared: a page that no token has reached takes no memory. */
static void lay_out(struct runt_session *s, struct layout *l, unsigned n_threads)
{
    const struct gpt2_shape *sh = &s->model->shape;
    struct session_cache *c = &s->cache;
    size_t e = sh->n_embd, b = s->n_batch, f = sizeof(float), n_dim = e / sh->n_head,
           groups = kern_n_groups(max(e, sh->n_ff));
    size_t n_blocks = ((size_t)s->n_ctx + KERN_ATTN_BLOCK - 1) / KERN_ATTN_BLOCK;
    c->stripe_bytes = kern_stripe_bytes(s->kv, n_dim);
    c->layer_bytes = cpu_attn_layer_bytes(s->kv, sh->n_head, n_dim);
    if (!size_mul(c->layer_bytes, sh->n_layer, &c->block_bytes) ||
        !size_mul(c->block_bytes, n_blocks, &c->seq_bytes)) {
        l->overflow = true;
        return;
    }
    s->pos = place(l, s->n_seqs, 1, 1, sizeof *s->pos);
    s->tokens = place(l, s->n_seqs, s->n_ctx, 1, sizeof *s->tokens);
    s->x = place(l, b, e, 1, f);
    s->h = place(l, b, e, 1, f);
    s->qkv = place(l, b, 3, e, f);
    s->ff = place(l, b, sh->n_ff, 1, f);
    s->input.act = place(l, b, groups, 1, sizeof *s->input.act);
    s->input.x = place(l, b, e, 1, f);
    s->input.low = place(l, b, s->model->low_rank, 1, f);
    s->spans = place(l, b, 1, 1, sizeof *s->spans);
    s->out = place(l, b, 1, 1, sizeof *s->out);
    s->sum = place(l, e, 1, 1, sizeof *s->sum);
    s->threads = place(l, n_threads, 1, 1, sizeof *s->threads);
    for (unsigned i = 0; i < n_threads; i++) {
        struct session_thread t = {
            .act = place(l, groups, 1, 1, sizeof *t.act),
            .block = place(l, max(CPU_BLOCK_FLOATS, e), 1, 1, f),
            .low = place(l, s->model->low_rank, 1, 1, f),
            .attn = place(l, cpu_attn_scratch_bytes(s->kv, n_dim), 1, 1, 1),
        };
        if (l->arena)
            s->threads[i] = t;
    }
    s->logits = place(l, max(s->all_logits ? b : 0, s->n_logits), sh->n_vocab, 1, f);
    c->base = place(l, s->n_seqs, c->seq_bytes, 1, 1);
}

static int check_options(const runt_model *m, const struct runt_session_options *o,
                         struct runt_err *err)
{
    if (o->n_ctx > m->shape.n_ctx)
        return err_set(err, RUNT_E_INVALID,
                       "a context of %u: this model was made for at most %u", o->n_ctx,
                       m->shape.n_ctx);
    if (o->n_batch > MAX_BATCH)
        return err_set(err, RUNT_E_INVALID, "a batch of %u: the limit is %d",
                       o->n_batch, MAX_BATCH);
    if (o->n_seqs > MAX_SEQS)
        return err_set(err, RUNT_E_INVALID, "%u sequences: the limit is %d", o->n_seqs,
                       MAX_SEQS);
    if (o->n_logits > MAX_LOGITS)
        return err_set(err, RUNT_E_INVALID, "%u rows of logits: the limit is %d",
                       o->n_logits, MAX_LOGITS);
    if ((unsigned)o->kv > RUNT_KV_F32)
        return err_set(err, RUNT_E_INVALID, "a cache of unknown kind %d", (int)o->kv);
    return 0;
}

static enum kern_kv kind_of_cache(const runt_model *m, enum runt_kv kv)
{
    switch (kv) {
    case RUNT_KV_F16:
        return KERN_KV_F16;
    case RUNT_KV_Q8:
        return KERN_KV_Q8;
    case RUNT_KV_F32:
        return KERN_KV_F32;
    case RUNT_KV_AUTO:
        break;
    }
    return m->head.fmt->is_float ? KERN_KV_F32 : KERN_KV_F16;
}

int runt_session_open(const runt_model *m, const struct runt_session_options *o,
                      runt_session **out, struct runt_err *err)
{
    struct runt_session_options defaults = runt_session_defaults();
    if (!o)
        o = &defaults;
    int rc = check_options(m, o, err);
    if (rc)
        return rc;
    struct runt_session *s = mem_zalloc(sizeof *s);
    if (!s)
        return err_nomem(err, "a session");
    s->model = m;
    s->kv = kind_of_cache(m, o->kv);
    s->n_ctx = o->n_ctx ? o->n_ctx : m->shape.n_ctx;
    s->n_seqs = o->n_seqs ? o->n_seqs : 1;
    s->n_logits = o->n_logits ? o->n_logits : s->n_seqs + DEFAULT_DRAFTS;
    s->n_batch = o->n_batch      ? o->n_batch
                 : o->all_logits ? DEFAULT_BATCH_LOGITS
                                 : DEFAULT_BATCH;
    if (s->n_batch / s->n_seqs > s->n_ctx) /* more never share a pass */
        s->n_batch = s->n_ctx * s->n_seqs;
    s->all_logits = o->all_logits;
    s->account.timed = o->profile;
    rc = pool_create(o->n_threads, &s->pool, err);
    if (rc)
        goto fail;
    struct layout size = {0};
    lay_out(s, &size, pool_n_threads(s->pool));
    if (size.overflow || arena_init(&s->arena, size.bytes)) {
        rc = err_set(err, RUNT_E_NOMEM,
                     "no memory for a session of %u x %u positions (%zu "
                     "bytes); try a smaller context",
                     s->n_seqs, s->n_ctx, size.bytes);
        goto fail;
    }
    struct layout real = {.arena = &s->arena};
    lay_out(s, &real, pool_n_threads(s->pool));
    memset(s->pos, 0, s->n_seqs * sizeof *s->pos);
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
    pool_destroy(s->pool);
    arena_free(&s->arena);
    mem_free(s);
}

/* ---- feeding ---- */

static int check_tokens(const runt_session *s, const int32_t *tokens, size_t n,
                        uint32_t pos, struct runt_err *err)
{
    if (!n)
        return err_set(err, RUNT_E_INVALID, "no tokens to feed");
    if (n > s->n_ctx - pos)
        return err_set(err, RUNT_E_FULL,
                       "%zu tokens do not fit: %u of the context's %u are used", n, pos,
                       s->n_ctx);
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= s->model->shape.n_vocab)
            return err_set(err, RUNT_E_INVALID, "token id %d is outside 0..%u",
                           tokens[i], s->model->shape.n_vocab - 1);
    return 0;
}

static int check_seq(const runt_session *s, uint32_t seq, struct runt_err *err)
{
    if (seq >= s->n_seqs)
        return err_set(err, RUNT_E_INVALID, "sequence %u of %u", seq, s->n_seqs);
    return 0;
}

/* Tokens at a step's end whose logits are wanted. */
static size_t n_wanted(const struct runt_step *step)
{
    return step->n_logits ? step->n_logits : 1;
}

/* A step whose logits begin in row `row`. */
static int check_step(const runt_session *s, const struct runt_step *step, size_t row,
                      struct runt_err *err)
{
    int rc = check_seq(s, step->seq, err);
    if (!rc)
        rc = check_tokens(s, step->tokens, step->n, s->pos[step->seq], err);
    if (!rc && n_wanted(step) > step->n)
        rc =
            err_set(err, RUNT_E_INVALID, "logits of %zu tokens are wanted, %zu are fed",
                    step->n_logits, step->n);
    if (!rc && n_wanted(step) > s->n_logits - row)
        rc = err_set(err, RUNT_E_INVALID,
                     "no room for %zu more rows of logits: %zu of the session's %u are "
                     "taken",
                     n_wanted(step), row, s->n_logits);
    return rc;
}

/* How far a call has come: `token` of step `step`; the next free row of logits. */
struct cursor {
    size_t step, token, row;
};

/* Collect up to n_batch tokens from where c stands and run them.  Their ids are read
 * back from the timelines. */
static void run_pass(runt_session *s, const struct runt_step *steps, size_t n_steps,
                     struct cursor *c, bool embed)
{
    int32_t tokens[MAX_BATCH];
    struct model_pass p = {.session = s,
                           .tokens = tokens,
                           .spans = s->spans,
                           .out = s->out,
                           .embed = embed,
                           .first_row = s->all_logits ? 0 : c->row};
    while (c->step < n_steps && p.n < s->n_batch) {
        const struct runt_step *step = &steps[c->step];
        uint32_t *pos = &s->pos[step->seq];
        size_t left = step->n - c->token, room = s->n_batch - p.n,
               n = left < room ? left : room,
               first = s->all_logits ? 0 : step->n - n_wanted(step);
        s->spans[p.n_spans++] = (struct cpu_span){
            .first = p.n,
            .n = n,
            .pos = *pos,
            .cache = s->cache.base + step->seq * s->cache.seq_bytes,
        };
        memcpy(tokens + p.n, step->tokens + c->token, n * sizeof *tokens);
        memmove(s->tokens + (size_t)step->seq * s->n_ctx + *pos,
                step->tokens + c->token, n * sizeof *tokens);
        for (size_t k = first > c->token ? first - c->token : 0; k < n && !embed; k++)
            s->out[p.n_out++] = p.n + k;
        *pos += (uint32_t)n;
        p.n += n;
        c->token += n;
        if (c->token == step->n) {
            c->token = 0;
            c->step++;
        }
    }
    c->row += p.n_out;
    s->n_last = (uint32_t)p.n;
    model_forward(&p);
}

static void run_steps(runt_session *s, const struct runt_step *steps, size_t n_steps)
{
    struct cursor c = {0};
    if (!n_steps)
        return;
    while (c.step < n_steps)
        run_pass(s, steps, n_steps, &c, false);
    s->last_row = s->all_logits ? s->n_last - 1 : n_wanted(&steps[0]) - 1;
    s->last_seq = steps[0].seq;
    s->last_pos = s->pos[steps[0].seq];
}

int runt_session_feed(runt_session *s, const int32_t *tokens, size_t n,
                      struct runt_err *err)
{
    struct runt_step step = {.seq = 0, .tokens = tokens, .n = n};
    int rc = check_step(s, &step, 0, err);
    if (!rc)
        run_steps(s, &step, 1);
    return rc;
}

int runt_session_step(runt_session *s, const struct runt_step *steps, size_t n_steps,
                      struct runt_err *err)
{
    if (s->all_logits)
        return err_set(err, RUNT_E_INVALID,
                       "steps are not for a session with all logits");
    for (size_t i = 0, row = 0; i < n_steps; row += n_wanted(&steps[i++])) {
        int rc = check_step(s, &steps[i], row, err);
        for (size_t k = 0; !rc && k < i; k++)
            if (steps[k].seq == steps[i].seq)
                rc = err_set(err, RUNT_E_INVALID, "sequence %u stands in step %zu, too",
                             steps[i].seq, k);
        if (rc) {
            err_prefix(err, "step %zu", i);
            return rc;
        }
    }
    run_steps(s, steps, n_steps);
    return 0;
}

/* The sums run over the tokens in order, whatever passes they came in. */
int runt_embed_feed(runt_session *s, uint32_t seq, const int32_t *tokens, size_t n,
                    double *sum, struct runt_err *err)
{
    size_t n_embd = s->model->shape.n_embd;
    struct runt_step step = {.seq = seq, .tokens = tokens, .n = n};
    struct cursor c = {0};
    int rc = check_seq(s, seq, err);
    if (!rc)
        rc = check_tokens(s, tokens, n, s->pos[seq], err);
    while (!rc && c.step < 1) {
        run_pass(s, &step, 1, &c, true);
        for (size_t i = 0; i < s->n_last * n_embd; i++)
            sum[i % n_embd] += (double)s->h[i];
    }
    return rc;
}

void runt_embed_scale(const double *sum, size_t n_embd, float *out)
{
    double square = 0;
    for (size_t i = 0; i < n_embd; i++)
        square += sum[i] * sum[i];
    double scale = square > 0 ? 1 / sqrt(square) : 0;
    for (size_t i = 0; i < n_embd; i++)
        out[i] = (float)(sum[i] * scale);
}

int runt_embed(runt_session *s, uint32_t seq, const int32_t *tokens, size_t n,
               float *out, struct runt_err *err)
{
    size_t n_embd = s->model->shape.n_embd;
    int rc = check_seq(s, seq, err);
    if (!rc)
        rc = check_tokens(s, tokens, n, 0, err);
    if (rc)
        return rc;
    memset(s->sum, 0, n_embd * sizeof *s->sum);
    s->pos[seq] = 0;
    rc = runt_embed_feed(s, seq, tokens, n, s->sum, err);
    if (!rc)
        runt_embed_scale(s->sum, n_embd, out);
    return rc;
}

const float *runt_session_logits(const runt_session *s)
{
    return runt_session_logits_at(s, s->last_row);
}

const float *runt_session_logits_at(const runt_session *s, size_t i)
{
    return s->logits + i * s->model->shape.n_vocab;
}

/* ---- timelines ---- */

uint32_t runt_session_n_ctx(const runt_session *s)
{
    return s->n_ctx;
}

uint32_t runt_session_n_logits(const runt_session *s)
{
    return s->n_logits;
}

const runt_model *runt_session_model(const runt_session *s)
{
    return s->model;
}

uint32_t runt_session_n_seqs(const runt_session *s)
{
    return s->n_seqs;
}

uint32_t runt_session_pos(const runt_session *s)
{
    return s->pos[0];
}

uint32_t runt_session_seq_pos(const runt_session *s, uint32_t seq)
{
    return s->pos[seq];
}

const int32_t *runt_session_seq_tokens(const runt_session *s, uint32_t seq)
{
    return s->tokens + (size_t)seq * s->n_ctx;
}

void runt_session_rewind(runt_session *s, uint32_t pos)
{
    runt_session_seq_rewind(s, 0, pos);
}

/* The rows of step 0's logits are those of its last tokens: one that is rewound to has
 * its own still. */
void runt_session_seq_rewind(runt_session *s, uint32_t seq, uint32_t pos)
{
    if (pos >= s->pos[seq])
        return;
    size_t back = s->pos[seq] - pos;
    if (seq == s->last_seq && s->pos[seq] == s->last_pos && back <= s->last_row &&
        !s->all_logits) {
        s->last_row -= back;
        s->last_pos = pos;
    }
    s->pos[seq] = pos;
}

uint32_t runt_session_match(runt_session *s, uint32_t seq, const int32_t *tokens,
                            size_t n)
{
    const int32_t *have = runt_session_seq_tokens(s, seq);
    uint32_t same = 0;
    while (same < s->pos[seq] && same + 1 < n && have[same] == tokens[same])
        same++;
    runt_session_seq_rewind(s, seq, same);
    return same;
}

void runt_session_copy(runt_session *s, uint32_t from, uint32_t to, uint32_t n)
{
    const struct session_cache *c = &s->cache;
    size_t n_blocks = (n + KERN_ATTN_BLOCK - 1) / KERN_ATTN_BLOCK;
    if (from != to) {
        memcpy(c->base + to * c->seq_bytes, c->base + from * c->seq_bytes,
               n_blocks * c->block_bytes);
        memcpy(s->tokens + (size_t)to * s->n_ctx, s->tokens + (size_t)from * s->n_ctx,
               n * sizeof *s->tokens);
    }
    s->pos[to] = n;
}

/* ---- where the time goes ---- */

size_t runt_session_profile(const runt_session *s, struct runt_profile_row *rows,
                            size_t n)
{
    static const char *const names[CPU_N_OPS] = {
        [CPU_EMBED] = "embedding",
        [CPU_NORM] = "norm and rounding",
        [CPU_QKV] = "attn_qkv",
        [CPU_ATTENTION] = "attention",
        [CPU_ATTN_OUTPUT] = "attn_output",
        [CPU_FFN_UP] = "ffn_up and gelu",
        [CPU_FFN_DOWN] = "ffn_down",
        [CPU_HEAD] = "head",
        [CPU_WAIT] = "waiting",
    };
    for (size_t i = 0; i < CPU_N_OPS && i < n; i++)
        rows[i] = (struct runt_profile_row){names[i], s->account.seconds[i],
                                            s->account.bytes[i], s->account.ops[i]};
    return CPU_N_OPS;
}

void runt_session_profile_reset(runt_session *s)
{
    s->account = (struct cpu_account){.timed = s->account.timed};
}
