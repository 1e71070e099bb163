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

/* One head of a pass. */
struct head {
    const struct kern_attn *k;
    size_t n_dim, key_stripe, value_stripe, query_bytes;
    const float *qkv; /* of token 0: its query; keys and values e and 2 e further */
    size_t e;
};

static struct head head_of(const struct cpu_thread *t, const struct cpu_attention *a,
                           size_t h)
{
    size_t n_dim = a->n_embd / a->n_head;
    return (struct head){
        .k = &t->kern->attn[a->kv],
        .n_dim = n_dim,
        .key_stripe = kern_key_stripe_bytes(a->kv, n_dim),
        .value_stripe = kern_value_stripe_bytes(a->kv, n_dim),
        .query_bytes = kern_query_bytes(a->kv, n_dim),
        .qkv = a->qkv + h * n_dim,
        .e = a->n_embd,
    };
}

static void store(const struct head *h, const struct cpu_attention *a, size_t head)
{
    for (size_t i = 0; i < a->n_spans; i++) {
        const struct cpu_span *s = &a->spans[i];
        uint8_t *keys = s->cache + a->keys_at + head * a->head_bytes,
                *values = s->cache + a->values_at + head * a->head_bytes;
        for (size_t k = 0; k < s->n; k++) {
            const float *from = h->qkv + (s->first + k) * 3 * h->e;
            size_t stripe = (s->pos + k) / KERN_STRIPE,
                   lane = (s->pos + k) % KERN_STRIPE;
            h->k->store_key(h->n_dim, from + h->e, keys + stripe * h->key_stripe, lane);
            h->k->store_value(h->n_dim, from + 2 * h->e,
                              values + stripe * h->value_stripe, lane);
        }
    }
}

/* Tokens k..k + n_q - 1 of a span.  Blocks that the first of them sees whole, all see
 * whole, and share; in the last ones each has its own end. */
static void attend(const struct head *h, const struct cpu_attention *a,
                   const struct cpu_span *s, size_t head, size_t k, size_t n_q,
                   struct room *r)
{
    const uint8_t *keys = s->cache + a->keys_at + head * a->head_bytes,
                  *values = s->cache + a->values_at + head * a->head_bytes;
    size_t token = s->first + k, n_seen = s->pos + k + 1, n_dim = h->n_dim;
    float *o = r->o_and_queries;
    char *queries = (char *)(o + CPU_QUERIES * n_dim);
    memset(o, 0, n_q * n_dim * sizeof *o);
    for (size_t i = 0; i < n_q; i++) {
        r->m[i] = -INFINITY;
        r->l[i] = 0;
        h->k->query(n_dim, h->qkv + (token + i) * 3 * h->e, 1 / sqrtf((float)n_dim),
                    queries + i * h->query_bytes);
    }
    for (size_t p = 0; p < n_seen + n_q - 1; p += KERN_ATTN_BLOCK) {
        size_t last = n_seen + n_q - 1 - p, /* that the last query sees of this block */
            n_pos = last < KERN_ATTN_BLOCK ? last : KERN_ATTN_BLOCK,
               stripe = p / KERN_STRIPE;
        bool shared = n_seen >= p + n_pos;
        h->k->scores(n_dim, n_q, queries, (n_pos + KERN_STRIPE - 1) / KERN_STRIPE,
                     keys + stripe * h->key_stripe, r->s);
        for (size_t i = 0; i < n_q; i++) {
            size_t n_valid = n_pos;
            if (n_seen + i < p + n_pos)
                n_valid = n_seen + i > p ? n_seen + i - p : 0;
            if (!n_valid)
                continue;
            float *e = r->s + i * KERN_ATTN_BLOCK;
            r->c[i] = h->k->step(n_valid, e, &r->m[i], &r->l[i]);
            if (!shared)
                h->k->values(n_dim, 1, n_valid, e, values + stripe * h->value_stripe,
                             &r->c[i], o + i * n_dim, n_dim);
        }
        if (shared)
            h->k->values(n_dim, n_q, n_pos, r->s, values + stripe * h->value_stripe,
                         r->c, o, n_dim);
    }
    for (size_t i = 0; i < n_q; i++) {
        float inv = 1 / r->l[i], *out = a->out + (token + i) * h->e + head * n_dim;
        for (size_t d = 0; d < n_dim; d++)
            out[d] = o[i * n_dim + d] * inv;
    }
}

void cpu_attend(struct cpu_thread *t, const struct cpu_attention *a)
{
    size_t begin, end, unit = 0;
    bool own = a->n_tokens == 1; /* the thread that stores a head reads it */
    pool_range(a->n_head, 1, t->i, t->n, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        struct head h = head_of(t, a, i);
        store(&h, a, i);
    }
    if (!own) {
        cpu_mark(t, CPU_ATTENTION, 0, 0);
        cpu_sync(t);
    }
    /* Later tokens see more positions: heads and blocks of queries are dealt in turn.
     */
    for (size_t i = own ? begin : 0; i < (own ? end : a->n_head); i++) {
        struct head h = head_of(t, a, i);
        for (size_t j = 0; j < a->n_spans; j++) {
            const struct cpu_span *s = &a->spans[j];
            for (size_t k = 0; k < s->n; k += CPU_QUERIES) {
                if (!own && unit++ % t->n != t->i)
                    continue;
                size_t left = s->n - k;
                attend(&h, a, s, i, k, left < CPU_QUERIES ? left : CPU_QUERIES,
                       t->attn);
            }
        }
    }
}
