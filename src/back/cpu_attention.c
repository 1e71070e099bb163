/* Owns the order in which a head's cache is filled and read: who stores what, blocks of
 * positions, several queries at a time.  The arithmetic is in src/kern (kern_attn.h).
 */
#include "back/cpu_ops.h"

#include <math.h>
#include <string.h>

/* One thread's room for CPU_QUERIES queries. */
struct room {
    float s[CPU_QUERIES * KERN_ATTN_BLOCK];
    float m[CPU_QUERIES], l[CPU_QUERIES], c[CPU_QUERIES];
    float o_and_queries[]; /* [CPU_QUERIES][n_dim], then the prepared queries */
};

size_t cpu_attn_scratch_bytes(enum kern_kv kv, size_t n_dim)
{
    return sizeof(struct room) + CPU_QUERIES * n_dim * sizeof(float) +
           CPU_QUERIES * kern_query_bytes(kv, n_dim);
}

enum { N_STRIPES = KERN_ATTN_BLOCK / KERN_STRIPE };

size_t cpu_attn_layer_bytes(enum kern_kv kv, size_t n_head, size_t n_dim)
{
    return 2 * n_head * N_STRIPES * kern_stripe_bytes(kv, n_dim);
}

static size_t min(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* What is the same for every head of a layer. */
struct layer {
    const struct cpu_attention *a;
    const struct kern_attn *k;
    size_t n_dim, stripe_bytes, query_bytes;
};

/* One head and up to CPU_QUERIES tokens of a span, from the k-th on. */
struct unit {
    size_t head, span, k;
};

/* The stripe of keys that position pos of a span's sequence lies in; that of values is
 * values_after bytes further. */
static uint8_t *keys_at(const struct layer *l, const struct cpu_span *s, size_t head,
                        size_t pos)
{
    return s->cache + pos / KERN_ATTN_BLOCK * l->a->block_bytes + l->a->layer_at +
           (2 * N_STRIPES * head + pos % KERN_ATTN_BLOCK / KERN_STRIPE) *
               l->stripe_bytes;
}

static size_t values_after(const struct layer *l)
{
    return N_STRIPES * l->stripe_bytes;
}

static void store(const struct layer *l, size_t head)
{
    const struct cpu_attention *a = l->a;
    for (size_t i = 0; i < a->n_spans; i++) {
        const struct cpu_span *s = &a->spans[i];
        for (size_t k = 0; k < s->n; k++) {
            const float *key =
                a->qkv + (s->first + k) * 3 * a->n_embd + a->n_embd + head * l->n_dim;
            uint8_t *to = keys_at(l, s, head, s->pos + k);
            size_t lane = (s->pos + k) % KERN_STRIPE;
            l->k->store_key(l->n_dim, key, to, lane);
            l->k->store_value(l->n_dim, key + a->n_embd, to + values_after(l), lane);
        }
    }
}

/* The block of n_pos positions whose keys begin at `keys`, in two parts, each of keys
 * and of values: one to ask for while scores are made, the other with values, which
 * take three times as long in Q8. */
static void plan(const struct layer *l, const uint8_t *keys, size_t n_pos,
                 struct kern_ahead ahead[2])
{
    const char *at = (const char *)keys;
    size_t n_stripes = (min(n_pos, KERN_ATTN_BLOCK) + KERN_STRIPE - 1) / KERN_STRIPE,
           n = (n_stripes * l->stripe_bytes + 63) / 64,
           part = n / (l->a->kv == KERN_KV_Q8 ? 4 : 2);
    ahead[0] = (struct kern_ahead){at, at + values_after(l), part};
    ahead[1] =
        (struct kern_ahead){at + 64 * part, at + values_after(l) + 64 * part, n - part};
}

/* Blocks that the first token of the unit sees whole, all see whole, and share; in the
 * last ones each has its own end.  next: the unit that this thread does after it, or
 * NULL. */
static void attend(const struct layer *l, const struct unit *u, const struct unit *next,
                   struct room *r)
{
    const struct cpu_attention *a = l->a;
    const struct cpu_span *s = &a->spans[u->span];
    size_t n_q = min(s->n - u->k, CPU_QUERIES), n_dim = l->n_dim,
           token = s->first + u->k, n_seen = s->pos + u->k + 1;
    float *o = r->o_and_queries;
    char *queries = (char *)(o + CPU_QUERIES * n_dim);
    memset(o, 0, n_q * n_dim * sizeof *o);
    for (size_t i = 0; i < n_q; i++) {
        r->m[i] = -INFINITY;
        r->l[i] = 0;
        l->k->query(n_dim, a->qkv + (token + i) * 3 * a->n_embd + u->head * n_dim,
                    1 / sqrtf((float)n_dim), queries + i * l->query_bytes);
    }
    for (size_t p = 0; p < n_seen + n_q - 1; p += KERN_ATTN_BLOCK) {
        size_t last = n_seen + n_q - 1 - p, /* that the last query sees of this block */
            n_pos = min(last, KERN_ATTN_BLOCK);
        const uint8_t *keys = keys_at(l, s, u->head, p),
                      *values = keys + values_after(l);
        bool shared = n_seen >= p + n_pos;
        struct kern_ahead ahead[2] = {{0}};
        if (last > KERN_ATTN_BLOCK) {
            plan(l, keys + a->block_bytes, last - KERN_ATTN_BLOCK, ahead);
        } else if (next) {
            const struct cpu_span *t = &a->spans[next->span];
            plan(l, keys_at(l, t, next->head, 0), t->pos + next->k + 1, ahead);
        }
        l->k->scores(n_dim, n_q, queries, (n_pos + KERN_STRIPE - 1) / KERN_STRIPE, keys,
                     r->s, &ahead[0]);
        for (size_t i = 0; i < n_q; i++) {
            size_t n_valid = n_pos;
            if (n_seen + i < p + n_pos)
                n_valid = n_seen + i > p ? n_seen + i - p : 0;
            if (!n_valid)
                continue;
            float *e = r->s + i * KERN_ATTN_BLOCK;
            r->c[i] = l->k->step(n_valid, e, &r->m[i], &r->l[i]);
            if (!shared)
                l->k->values(n_dim, 1, n_valid, e, values, &r->c[i], o + i * n_dim,
                             n_dim, NULL);
        }
        if (shared)
            l->k->values(n_dim, n_q, n_pos, r->s, values, r->c, o, n_dim, &ahead[1]);
    }
    for (size_t i = 0; i < n_q; i++) {
        float inv = 1 / r->l[i],
              *out = a->out + (token + i) * a->n_embd + u->head * n_dim;
        for (size_t d = 0; d < n_dim; d++)
            out[d] = o[i * n_dim + d] * inv;
    }
}

/* n units further; heads, spans and tokens in order. */
static struct unit skip(const struct cpu_attention *a, struct unit u, size_t n)
{
    for (; n && u.head < a->n_head; n--) {
        u.k += CPU_QUERIES;
        if (u.k < a->spans[u.span].n)
            continue;
        u.k = 0;
        if (++u.span == a->n_spans) {
            u.span = 0;
            u.head++;
        }
    }
    return u;
}

void cpu_attend(struct cpu_thread *t, const struct cpu_attention *a)
{
    size_t begin, end, n_dim = a->n_embd / a->n_head;
    struct layer l = {.a = a,
                      .k = &t->kern->attn[a->kv],
                      .n_dim = n_dim,
                      .stripe_bytes = kern_stripe_bytes(a->kv, n_dim),
                      .query_bytes = kern_query_bytes(a->kv, n_dim)};
    pool_range(a->n_head, 1, t->i, t->n, &begin, &end);
    for (size_t i = begin; i < end; i++)
        store(&l, i);
    /* The thread that stores a head reads it; where later tokens see more positions,
     * heads and tokens are dealt in turn. */
    struct unit u = {.head = begin}, next;
    size_t step = 1;
    if (a->n_tokens > 1) {
        cpu_mark(t, CPU_ATTENTION, 0, 0);
        cpu_sync(t);
        u = skip(a, (struct unit){0}, t->i);
        step = t->n;
        end = a->n_head;
    }
    for (; u.head < end; u = next) {
        next = skip(a, u, step);
        attend(&l, &u, next.head < end ? &next : NULL, t->attn);
    }
}
