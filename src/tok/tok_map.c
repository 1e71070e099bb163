/* Owns the map from strings to ids: open addressing, at most half full.
 *
 * The strings may be chosen by an enemy who knows the hash.  No honest vocabulary comes
 * near STRMAP_MAX_PROBES; one that passes it is refused, so that time stays linear
 * without a secret seed. */
#include "tok/tok_impl.h"

#include "base/mem.h"

#include <string.h>

enum { STRMAP_MAX_PROBES = 256 };

struct strmap_slot {
    uint32_t tag; /* the hash's high half */
    int32_t id;   /* -1 when empty */
};

static uint64_t hash_more(uint64_t h, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)bytes[i]) * 0x100000001b3u; /* FNV-1a */
    return h;
}

static uint64_t hash_end(uint64_t h)
{
    h = (h ^ h >> 32) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static const uint64_t hash_start = 0xcbf29ce484222325u;

uint64_t tok_hash(const char *bytes, size_t n)
{
    return hash_end(hash_more(hash_start, bytes, n));
}

int strmap_init(struct strmap *m, size_t n_max)
{
    size_t n = 2;
    while (n < n_max * 2)
        n *= 2;
    struct strmap_slot *slots = mem_array(n, sizeof *slots);
    if (!slots)
        return RUNT_E_NOMEM;
    memset(slots, 0xff, n * sizeof *slots);
    *m = (struct strmap){slots, n - 1};
    return 0;
}

void strmap_free(struct strmap *m)
{
    mem_free(m->slots);
    *m = (struct strmap){0};
}

static bool is_pair(struct tok_str s, struct tok_str a, struct tok_str b)
{
    return s.len == a.len + b.len && (!a.len || !memcmp(s.data, a.data, a.len)) &&
           (!b.len || !memcmp(s.data + a.len, b.data, b.len));
}

/* The slot that holds a followed by b, or the empty one where it belongs, or NULL. */
static struct strmap_slot *probe(const struct strmap *m, const struct tok_str *strs,
                                 struct tok_str a, struct tok_str b, uint32_t *tag)
{
    uint64_t h =
        hash_end(hash_more(hash_more(hash_start, a.data, a.len), b.data, b.len));
    *tag = (uint32_t)(h >> 32);
    for (size_t i = 0; i < STRMAP_MAX_PROBES; i++) {
        struct strmap_slot *s = &m->slots[(h + i) & m->mask];
        if (s->id < 0 || (s->tag == *tag && is_pair(strs[s->id], a, b)))
            return s;
    }
    return NULL;
}

int strmap_put(struct strmap *m, const struct tok_str *strs, int32_t id, int32_t *found)
{
    uint32_t tag;
    struct strmap_slot *s = probe(m, strs, strs[id], (struct tok_str){0}, &tag);
    if (!s)
        return RUNT_E_FORMAT;
    if (s->id < 0)
        *s = (struct strmap_slot){tag, id};
    *found = s->id;
    return 0;
}

int32_t strmap_get(const struct strmap *m, const struct tok_str *strs, struct tok_str a,
                   struct tok_str b)
{
    uint32_t tag;
    const struct strmap_slot *s = probe(m, strs, a, b, &tag);
    return s ? s->id : -1;
}
