/* Owns the two memories that drafts come from; draft.h has what they are. */
#include "talk/draft.h"

#include "base/mem.h"

#include <string.h>

/* ---- the index ---- */

enum { MOST_PLACES = 16 };

static uint32_t mix(uint32_t h, int32_t token)
{
    h = (h ^ (uint32_t)token) * 0x9e3779b1u;
    return h ^ h >> 15;
}

/* The list of the pair that ends at place i >= 1. */
static uint32_t *head_of(const struct draft_index *x, uint32_t i)
{
    uint32_t h = mix(mix(1, x->tokens[i - 1]), x->tokens[i]);
    return &x->heads[h >> (32 - x->bits)];
}

bool draft_index_init(struct draft_index *x, uint32_t max)
{
    *x = (struct draft_index){.max = max, .bits = 4};
    while (x->bits < 24 && (1u << x->bits) < max)
        x->bits++;
    x->tokens = mem_array(max, sizeof *x->tokens);
    x->before = mem_array(max, sizeof *x->before);
    x->heads = mem_array((size_t)1 << x->bits, sizeof *x->heads);
    return x->tokens && x->before && x->heads;
}

void draft_index_free(struct draft_index *x)
{
    mem_free(x->tokens);
    mem_free(x->before);
    mem_free(x->heads);
    *x = (struct draft_index){0};
}

void draft_index_put(struct draft_index *x, int32_t token)
{
    uint32_t i = x->n++;
    x->tokens[i] = token;
    if (!i)
        return;
    uint32_t *head = head_of(x, i);
    x->before[i] = *head;
    *head = i + 1;
}

void draft_index_cut(struct draft_index *x, uint32_t n)
{
    while (x->n > n)
        if (--x->n)
            *head_of(x, x->n) = x->before[x->n];
    x->back = 0;
}

/* How far the text before and at place p is that before and at the end. */
static size_t common(const struct draft_index *x, uint32_t p)
{
    const int32_t *end = x->tokens + x->n - 1, *at = x->tokens + p;
    size_t n = 0, most = p + 1 < DRAFT_LONGEST ? p + 1 : DRAFT_LONGEST;
    while (n < most && at[-(ptrdiff_t)n] == end[-(ptrdiff_t)n])
        n++;
    return n;
}

size_t draft_index_match(struct draft_index *x, uint32_t *next)
{
    size_t best = 1;
    uint32_t where = 0; /* the place behind the best */
    if (x->n < 2)
        return 0;
    uint32_t end = x->n - 1, at = x->before[end];
    if (x->back && x->back < x->n) { /* the last match may go on */
        size_t n = common(x, end - x->back);
        if (n > best) {
            best = n;
            where = end - x->back + 1;
        }
    }
    for (size_t i = 0; at && i < MOST_PLACES && best < DRAFT_LONGEST; i++) {
        size_t n = common(x, at - 1);
        if (n > best || (n == best && where && at > where)) {
            best = n;
            where = at;
        }
        at = x->before[at - 1];
    }
    x->back = where ? x->n - where : 0;
    *next = where;
    return where ? best : 0;
}

/* ---- the counts ---- */

enum { MIN_BITS = 10, MAX_BITS = 16, N_FOLLOWERS = 4, MOST_COUNT = 255 };

struct draft_slot {
    uint32_t key; /* of the tokens before, 0: free */
    uint16_t total, count[N_FOLLOWERS];
    int32_t token[N_FOLLOWERS];
};
_Static_assert(sizeof(struct draft_slot) == 32, "two a cache line");

bool draft_cache_init(struct draft_cache *c, size_t n_tokens)
{
    c->bits = MIN_BITS;
    while (c->bits < MAX_BITS && (size_t)1 << c->bits < 4 * n_tokens)
        c->bits++;
    c->slots = mem_array((size_t)1 << c->bits, sizeof *c->slots);
    return c->slots;
}

void draft_cache_free(struct draft_cache *c)
{
    mem_free(c->slots);
    c->slots = NULL;
}

static uint32_t key_of(const int32_t *end, unsigned order)
{
    uint32_t h = order * 0xc2b2ae35u; /* far from small ids */
    for (unsigned i = 1; i <= order; i++)
        h = mix(h, end[-(ptrdiff_t)i]);
    return h ? h : 1;
}

static struct draft_slot *slot_of(const struct draft_cache *c, uint32_t key)
{
    return &c->slots[key * 0x85ebca6bu >> (32 - c->bits)];
}

static void halve(struct draft_slot *s)
{
    s->total = 0;
    for (size_t i = 0; i < N_FOLLOWERS; i++)
        s->total += s->count[i] /= 2;
}

/* A new follower takes the place of the rarest. */
static void count(struct draft_slot *s, int32_t token)
{
    size_t at = 0;
    for (size_t i = 0; i < N_FOLLOWERS; i++) {
        if (s->count[i] && s->token[i] == token) {
            at = i;
            break;
        }
        if (s->count[i] < s->count[at])
            at = i;
    }
    if (s->token[at] != token) {
        s->token[at] = token;
        s->count[at] = 0;
    }
    s->count[at]++;
    s->total++;
    if (s->total >= MOST_COUNT)
        halve(s);
}

void draft_cache_prefetch(const struct draft_cache *c, const int32_t *t, size_t n)
{
    for (size_t end = n - 1; end <= n; end++)
        for (unsigned order = 1; order <= DRAFT_ORDERS && order <= end; order++)
            __builtin_prefetch(slot_of(c, key_of(t + end, order)));
}

void draft_cache_put(struct draft_cache *c, const int32_t *t, size_t n)
{
    for (unsigned order = 1; order <= DRAFT_ORDERS && order < n; order++) {
        uint32_t key = key_of(t + n - 1, order);
        struct draft_slot *s = slot_of(c, key);
        if (s->key != key &&
            s->total > 1) { /* two share a slot: the rarer one gives way */
            halve(s);
            continue;
        }
        if (s->key != key)
            *s = (struct draft_slot){.key = key};
        count(s, t[n - 1]);
    }
}

bool draft_cache_get(const struct draft_cache *c, const int32_t *t, size_t n,
                     unsigned order, int32_t *token, unsigned *sure)
{
    if (n < order)
        return false;
    uint32_t key = key_of(t + n, order);
    const struct draft_slot *s = slot_of(c, key);
    if (s->key != key || !s->total)
        return false;
    size_t best = 0;
    for (size_t i = 1; i < N_FOLLOWERS; i++)
        if (s->count[i] > s->count[best])
            best = i;
    *token = s->token[best];
    unsigned share = 4u * s->count[best] / s->total; /* quarters */
    *sure = s->total == 1 ? 0 : share < 2 ? 1 : share < 4 ? 2 : 3;
    return true;
}
