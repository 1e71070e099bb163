/* Owns encoding: text -> pre-tokens -> byte-pair merges -> ids.
 *
 * Within a pre-token, as GPT-2 does it: find the pair of lowest rank, merge all of its
 * occurrences from left to right, repeat.  Words are short, and a look at every pair is
 * quickest.  But a megabyte of one letter is one pre-token too, so from SHORT_WORD
 * bytes on the symbols are a linked list, the pairs of a rank are another, and a set of
 * the ranks that occur gives the lowest: linear time, 24 bytes for each byte of the
 * text.
 *
 * Words repeat, so a call remembers the recent ones: the text and ids that it already
 * has serve as keys and values, a slot only says where they are.  The tokenizer itself
 * stays immutable and may be shared by threads. */
#include "tok/tok_impl.h"

#include "base/err.h"
#include "base/mem.h"

#include <string.h>

enum {
    SHORT_WORD = 32,
    CACHE_MAX_SLOTS = 8192,
    RANK_LEVELS = 4, /* 64^4 ranks: more than TOK_MAX_TOKENS */
};

static const uint32_t none = UINT32_MAX; /* no rank, no symbol */

struct symbol {
    int32_t id;
    uint32_t prev, next;   /* in the text */
    uint32_t rank;         /* of the pair with `next` */
    uint32_t newer, older; /* among the pairs of that rank */
};

struct seen_word {
    uint32_t pos, len; /* in the text; len 0: an empty slot */
    uint32_t first, n; /* in the ids */
};

struct encoder {
    const struct tok *t;
    const char *text;
    int32_t *ids;
    size_t n_ids, cap_ids;
    struct seen_word *cache;
    size_t cache_mask;
    /* For long words, made when the first one comes; between words no rank occurs. */
    struct symbol *symbols;
    size_t cap_symbols;
    uint32_t *newest;                /* by rank: the pair that joined last, or none */
    uint64_t *rank_set[RANK_LEVELS]; /* bit r of a level: word r of the one before has
                                        bits; of level 0: rank r occurs */
};

static uint32_t pair_rank(const struct tok *t, int32_t left, int32_t right)
{
    const struct tok_merge *m = t->merges + t->merge_row[left];
    size_t n = t->merge_row[left + 1] - t->merge_row[left];
    while (n > 1) {
        size_t half = n / 2;
        m += m[half].right <= right ? half : 0;
        n -= half;
    }
    return n && m->right == right ? m->rank : none;
}

static int byte_token(const struct encoder *e, size_t pos, int32_t *id,
                      struct runt_err *err)
{
    uint8_t b = (uint8_t)e->text[pos];
    *id = e->t->byte_id[b];
    if (*id >= 0)
        return 0;
    return err_set(
        err, RUNT_E_UNSUPPORTED,
        "byte 0x%02x at offset %zu of the text: the vocabulary has no token for "
        "it and no unknown token",
        b, pos);
}

/* ---- short words ---- */

static int merge_short(struct encoder *e, size_t pos, size_t n, struct runt_err *err)
{
    const struct tok *t = e->t;
    int32_t *id = e->ids + e->n_ids;
    uint32_t rank[SHORT_WORD];
    for (size_t i = 0; i < n; i++) {
        int rc = byte_token(e, pos + i, &id[i], err);
        if (rc)
            return rc;
        if (i)
            rank[i - 1] = pair_rank(t, id[i - 1], id[i]);
    }
    for (;;) {
        uint32_t least = none;
        for (size_t i = 0; i + 1 < n; i++)
            least = rank[i] < least ? rank[i] : least;
        if (least == none)
            break;
        for (size_t i = 0; i + 1 < n; i++) {
            if (rank[i] != least)
                continue;
            n--;
            memmove(id + i + 1, id + i + 2, (n - i - 1) * sizeof *id);
            memmove(rank + i, rank + i + 1, (n - i - 1) * sizeof *rank);
            id[i] = t->merged[least];
            if (i + 1 < n)
                rank[i] = pair_rank(t, id[i], id[i + 1]);
            if (i)
                rank[i - 1] = pair_rank(t, id[i - 1], id[i]);
        }
    }
    e->n_ids += n;
    return 0;
}

/* ---- long words ---- */

static void rank_add(struct encoder *e, uint32_t rank)
{
    for (int l = 0; l < RANK_LEVELS; l++, rank >>= 6)
        e->rank_set[l][rank >> 6] |= 1ull << (rank & 63);
}

static void rank_remove(struct encoder *e, uint32_t rank)
{
    for (int l = 0; l < RANK_LEVELS; l++, rank >>= 6)
        if (e->rank_set[l][rank >> 6] &= ~(1ull << (rank & 63)))
            break;
}

static uint32_t rank_least(const struct encoder *e)
{
    uint32_t rank = 0;
    if (!e->rank_set[RANK_LEVELS - 1][0])
        return none;
    for (int l = RANK_LEVELS; l-- > 0;)
        rank = rank << 6 | (uint32_t)__builtin_ctzll(e->rank_set[l][rank]);
    return rank;
}

/* Symbol i, unless none, and its next: look up their rank and join the others of it. */
static void pair_join(struct encoder *e, uint32_t i)
{
    struct symbol *s = e->symbols;
    if (i == none)
        return;
    uint32_t next = s[i].next;
    uint32_t rank = next == none ? none : pair_rank(e->t, s[i].id, s[next].id);
    s[i].rank = rank;
    if (rank == none)
        return;
    s[i].newer = none;
    s[i].older = e->newest[rank];
    e->newest[rank] = i;
    if (s[i].older == none)
        rank_add(e, rank);
    else
        s[s[i].older].newer = i;
}

static void pair_leave(struct encoder *e, uint32_t i)
{
    struct symbol *s = e->symbols;
    if (i == none || s[i].rank == none)
        return;
    uint32_t newer = s[i].newer, older = s[i].older;
    if (newer != none)
        s[newer].older = older;
    else
        e->newest[s[i].rank] = older;
    if (older != none)
        s[older].newer = newer;
    else if (newer == none)
        rank_remove(e, s[i].rank);
    s[i].rank = none;
}

static void merge_pair(struct encoder *e, uint32_t i)
{
    struct symbol *s = e->symbols;
    uint32_t dead = s[i].next, next = s[dead].next, prev = s[i].prev;
    int32_t id = e->t->merged[s[i].rank];
    pair_leave(e, prev);
    pair_leave(e, i);
    pair_leave(e, dead);
    s[i].id = id;
    s[i].next = next;
    if (next != none)
        s[next].prev = i;
    pair_join(e, prev);
    pair_join(e, i);
}

static int reserve_symbols(struct encoder *e, size_t n, struct runt_err *err)
{
    if (!e->newest) {
        size_t n_words[RANK_LEVELS], total = 0, n_bits = e->t->n_merges;
        for (int l = 0; l < RANK_LEVELS; l++) {
            n_words[l] = n_bits / 64 + 1;
            total += n_words[l];
            n_bits = n_words[l];
        }
        uint64_t *words = mem_array(total, sizeof *words);
        e->rank_set[0] = words;
        e->newest = mem_array(e->t->n_merges, sizeof *e->newest);
        if (!words || !e->newest)
            return err_nomem(err, "the ranks of a text's merges");
        memset(e->newest, 0xff, e->t->n_merges * sizeof *e->newest);
        for (int l = 1; l < RANK_LEVELS; l++)
            e->rank_set[l] = e->rank_set[l - 1] + n_words[l - 1];
    }
    if (n > e->cap_symbols) {
        mem_free(e->symbols);
        e->cap_symbols = 0;
        e->symbols = mem_array(n, sizeof *e->symbols);
        if (!e->symbols)
            return err_nomem(err, "the symbols of a text");
        e->cap_symbols = n;
    }
    return 0;
}

static int merge_long(struct encoder *e, size_t pos, size_t n, struct runt_err *err)
{
    int rc = reserve_symbols(e, n, err);
    struct symbol *s = e->symbols;
    for (size_t i = 0; i < n && !rc; i++) {
        s[i] = (struct symbol){.prev = (uint32_t)i - 1, .next = (uint32_t)i + 1};
        rc = byte_token(e, pos + i, &s[i].id, err);
    }
    if (rc)
        return rc;
    s[n - 1].next = none;
    for (size_t i = 0; i < n; i++)
        pair_join(e, (uint32_t)i);
    for (uint32_t rank; (rank = rank_least(e)) != none;) {
        /* No merge makes another pair of its own rank: the list only shrinks.  Pairs of
         * one rank overlap only in a run of one token; there the leftmost goes first.
         */
        for (uint32_t i; (i = e->newest[rank]) != none;) {
            while (s[i].prev != none && s[s[i].prev].rank == rank)
                i = s[i].prev;
            for (; i != none && s[i].rank == rank; i = s[i].next)
                merge_pair(e, i);
        }
    }
    for (uint32_t i = 0; i != none; i = s[i].next)
        e->ids[e->n_ids++] = s[i].id;
    return 0;
}

/* ---- words ---- */

static int reserve_ids(struct encoder *e, size_t more, struct runt_err *err)
{
    size_t need = e->n_ids + more, cap = e->cap_ids + e->cap_ids / 2;
    if (need <= e->cap_ids)
        return 0;
    if (cap < need)
        cap = need;
    int32_t *ids = mem_resize(e->ids, cap, sizeof *ids);
    if (!ids)
        return err_nomem(err, "the ids of a text");
    e->ids = ids;
    e->cap_ids = cap;
    return 0;
}

static int encode_word(struct encoder *e, size_t pos, size_t n, struct runt_err *err)
{
    int rc = reserve_ids(e, n, err);
    if (rc)
        return rc;
    if (n > SHORT_WORD)
        return merge_long(e, pos, n, err);
    struct seen_word *w = &e->cache[tok_hash(e->text + pos, n) & e->cache_mask];
    if (w->len == n && !memcmp(e->text + w->pos, e->text + pos, n)) {
        memcpy(e->ids + e->n_ids, e->ids + w->first, w->n * sizeof *e->ids);
        e->n_ids += w->n;
        return 0;
    }
    size_t first = e->n_ids;
    rc = merge_short(e, pos, n, err);
    if (!rc)
        *w = (struct seen_word){(uint32_t)pos, (uint32_t)n, (uint32_t)first,
                                (uint32_t)(e->n_ids - first)};
    return rc;
}

static int encode_plain(struct encoder *e, size_t begin, size_t end,
                        struct runt_err *err)
{
    while (begin < end) {
        size_t n = tok_pre_next(e->text + begin, end - begin);
        int rc = encode_word(e, begin, n, err);
        if (rc)
            return rc;
        begin += n;
    }
    return 0;
}

/* Whether a special token sorts after the text p, of which it is no prefix then. */
static bool sorts_after(struct tok_str s, const char *p, size_t n)
{
    int c = memcmp(s.data, p, s.len < n ? s.len : n);
    return c ? c > 0 : s.len > n;
}

/* The longest special token that p starts with, or -1.  It is the last one that does
 * not sort after p, or a prefix of that one: special_parent leads from prefix to
 * prefix. */
static int32_t special_at(const struct tok *t, const char *p, size_t n, size_t *len)
{
    size_t first = t->special_row[(uint8_t)p[0]], common = 0;
    size_t lo = first, hi = t->special_row[(uint8_t)p[0] + 1];
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (sorts_after(t->bytes[t->specials[mid]], p, n))
            hi = mid;
        else
            lo = mid + 1;
    }
    if (lo == first)
        return -1;
    int32_t i = (int32_t)lo - 1;
    struct tok_str s = t->bytes[t->specials[i]];
    while (common < s.len && common < n && s.data[common] == p[common])
        common++;
    while (i >= 0 && t->bytes[t->specials[i]].len > common)
        i = t->special_parent[i];
    if (i < 0)
        return -1;
    *len = t->bytes[t->specials[i]].len;
    return t->specials[i];
}

static int encode_special(struct encoder *e, size_t n, struct runt_err *err)
{
    const struct tok *t = e->t;
    size_t begin = 0, len = 0;
    for (size_t i = 0; i < n;) {
        int32_t id = special_at(t, e->text + i, n - i, &len);
        if (id < 0) {
            i++;
            continue;
        }
        int rc = encode_plain(e, begin, i, err);
        if (!rc)
            rc = reserve_ids(e, 1, err);
        if (rc)
            return rc;
        e->ids[e->n_ids++] = id;
        i += len;
        begin = i;
    }
    return encode_plain(e, begin, n, err);
}

int tok_encode(const struct tok *t, const char *text, size_t n, bool special,
               int32_t **ids, size_t *n_ids, struct runt_err *err)
{
    struct encoder e = {.t = t, .text = text};
    int rc;
    if (n >= INT32_MAX)
        return err_set(err, RUNT_E_INVALID, "a text of %zu bytes: at most %d", n,
                       INT32_MAX - 1);
    size_t n_slots = 64;
    while (n_slots < CACHE_MAX_SLOTS && n_slots < n / 8)
        n_slots *= 2;
    e.cache = mem_array(n_slots, sizeof *e.cache);
    e.cache_mask = n_slots - 1;
    e.cap_ids = n / 3 + 16;
    e.ids = mem_array(e.cap_ids, sizeof *e.ids);
    if (!e.cache || !e.ids) {
        rc = err_nomem(err, "the ids of a text");
        goto out;
    }
    rc = special ? encode_special(&e, n, err) : encode_plain(&e, 0, n, err);
    if (rc)
        goto out;
    *ids = e.ids;
    *n_ids = e.n_ids;
    e.ids = NULL;
out:
    mem_free(e.ids);
    mem_free(e.cache);
    mem_free(e.symbols);
    mem_free(e.newest);
    mem_free(e.rank_set[0]);
    return rc;
}
