/* Owns the merges: which pair comes next, and what that makes of the words.
 *
 * The bytes of all different words lie in one array.  A token is a run of places; every
 * pair of neighbouring tokens stands at the place where its left one begins, in a list
 * of the places of equal pairs.  To merge a pair is to walk through its list, and each
 * step costs the same, however long the word is: all merges together take a time that
 * is linear in the bytes, but for the heap from which the most frequent pair is taken.
 *
 * A list ascends by place: a pair's places are all found in one pass from the left, the
 * one that makes the later of its two tokens.  So "aaa" merges from the left, as the
 * encoder does.  For the same reason a count only falls once a pair is in the heap: an
 * entry that says too much is put back with what is left when it comes to the top. */
#include "tok/bpe_impl.h"

#include "base/err.h"
#include "base/mem.h"
#include "tok/tok_impl.h"

#include <string.h>

static const uint32_t none = UINT32_MAX;

enum { N_BYTES = 256, BORDER = -1 };

struct place {
    int32_t id;     /* of the token that begins here; BORDER between words */
    uint32_t begin; /* where the token that ends here begins */
    uint32_t word;
    uint32_t pair;       /* that begins here, or none */
    uint32_t prev, next; /* in the pair's list, or none */
};

struct pair {
    int32_t left, right;
    uint64_t count;
    uint32_t first, last; /* places, or none */
};

struct candidate {
    uint64_t count, key; /* when it was put there */
};

struct merging {
    const struct bpe_words *words;
    struct place *places;
    struct pair *pairs;
    size_t n_pairs, pairs_room;
    uint32_t *slots; /* pairs by key: number from 1; 0: empty */
    size_t mask;
    struct candidate *heap;
    size_t n_heap, heap_room;
    uint32_t len[BPE_MAX_VOCAB]; /* bytes of a token, by id */
    int32_t (*merges)[2];
    size_t n_merges;
    uint64_t min_count, n_tokens;
};

/* ---- pairs by key ---- */

static uint64_t key_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* The slot where a pair is, or the empty one where it belongs. */
static size_t slot_of(const struct merging *m, uint64_t key)
{
    uint64_t h = key * 0x9e3779b97f4a7c15u;
    size_t i = (size_t)(h ^ h >> 32) & m->mask;
    while (m->slots[i]) {
        const struct pair *p = &m->pairs[m->slots[i] - 1];
        if (key_of(p->left, p->right) == key)
            break;
        i = (i + 1) & m->mask;
    }
    return i;
}

static bool grow_pairs(struct merging *m)
{
    size_t room = m->pairs_room ? 2 * m->pairs_room : 1 << 12;
    struct pair *pairs = mem_resize(m->pairs, room, sizeof *pairs);
    m->pairs = pairs ? pairs : m->pairs;
    uint32_t *slots = pairs ? mem_array(2 * room, sizeof *slots) : NULL;
    if (!slots)
        return false;
    mem_free(m->slots);
    m->slots = slots;
    m->mask = 2 * room - 1;
    m->pairs_room = room;
    for (size_t k = 0; k < m->n_pairs; k++)
        slots[slot_of(m, key_of(pairs[k].left, pairs[k].right))] = (uint32_t)k + 1;
    return true;
}

/* The pair's number, a new one if need be; none when out of memory. */
static uint32_t pair_number(struct merging *m, int32_t left, int32_t right)
{
    if (m->n_pairs == m->pairs_room && !grow_pairs(m))
        return none;
    size_t i = slot_of(m, key_of(left, right));
    if (!m->slots[i]) {
        m->pairs[m->n_pairs] = (struct pair){left, right, 0, none, none};
        m->slots[i] = (uint32_t)++m->n_pairs;
    }
    return m->slots[i] - 1;
}

/* ---- the heap ---- */

static bool before(struct candidate a, struct candidate b)
{
    return a.count != b.count ? a.count > b.count : a.key < b.key;
}

static bool push(struct merging *m, const struct pair *p)
{
    if (m->n_heap == m->heap_room) {
        size_t room = m->heap_room ? 2 * m->heap_room : 1 << 12;
        struct candidate *heap = mem_resize(m->heap, room, sizeof *heap);
        if (!heap)
            return false;
        m->heap = heap;
        m->heap_room = room;
    }
    struct candidate c = {p->count, key_of(p->left, p->right)};
    size_t i = m->n_heap++;
    for (; i && before(c, m->heap[(i - 1) / 2]); i = (i - 1) / 2)
        m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = c;
    return true;
}

static struct candidate pop(struct merging *m)
{
    struct candidate top = m->heap[0], c = m->heap[--m->n_heap];
    size_t i = 0, child;
    for (; (child = 2 * i + 1) < m->n_heap; i = child) {
        if (child + 1 < m->n_heap && before(m->heap[child + 1], m->heap[child]))
            child++;
        if (!before(m->heap[child], c))
            break;
        m->heap[i] = m->heap[child];
    }
    m->heap[i] = c;
    return top;
}

/* ---- places ---- */

static bool is_border(const struct merging *m, uint32_t at)
{
    return m->places[at].id == BORDER;
}

static uint64_t weight(const struct merging *m, uint32_t at)
{
    return m->words->items[m->places[at].word].count;
}

/* Enter the pair that begins at `at`, if one does; false when out of memory. */
static bool link_pair(struct merging *m, uint32_t at)
{
    struct place *x = &m->places[at];
    uint32_t right = at + m->len[x->id];
    if (is_border(m, right) ||
        m->len[x->id] + m->len[m->places[right].id] > BPE_MAX_TOKEN)
        return true;
    uint32_t number = pair_number(m, x->id, m->places[right].id);
    if (number == none)
        return false;
    struct pair *p = &m->pairs[number];
    x->pair = number;
    x->prev = p->last;
    x->next = none;
    if (p->last == none)
        p->first = at;
    else
        m->places[p->last].next = at;
    p->last = at;
    p->count += weight(m, at);
    return true;
}

static void unlink_pair(struct merging *m, uint32_t at)
{
    struct place *x = &m->places[at];
    if (x->pair == none)
        return;
    struct pair *p = &m->pairs[x->pair];
    if (x->prev == none)
        p->first = x->next;
    else
        m->places[x->prev].next = x->next;
    if (x->next == none)
        p->last = x->prev;
    else
        m->places[x->next].prev = x->prev;
    p->count -= weight(m, at);
    x->pair = none;
}

/* Make one token `id` of the pair at `at`. */
static bool merge_at(struct merging *m, uint32_t at, int32_t id)
{
    uint32_t right = at + m->len[m->places[at].id];
    uint32_t left = is_border(m, at - 1) ? none : m->places[at - 1].begin;
    unlink_pair(m, at);
    unlink_pair(m, right);
    if (left != none)
        unlink_pair(m, left);
    m->places[at].id = id;
    m->places[at + m->len[id] - 1].begin = at;
    m->n_tokens -= weight(m, at);
    return (left == none || link_pair(m, left)) && link_pair(m, at);
}

/* Pairs from `from` on are complete: they may be chosen. */
static bool push_from(struct merging *m, size_t from)
{
    for (size_t k = from; k < m->n_pairs; k++)
        if (m->pairs[k].count >= m->min_count && !push(m, &m->pairs[k]))
            return false;
    return true;
}

/* ---- from words to merges ---- */

/* Bytes as tokens in GPT-2's order: by their characters in the printable alphabet. */
static void order_bytes(uint8_t byte_of[N_BYTES], int32_t id_of[N_BYTES])
{
    int32_t id = 0;
    for (uint32_t c = 0; id < N_BYTES; c++) {
        int b = tok_char_to_byte(c);
        if (b < 0)
            continue;
        byte_of[id] = (uint8_t)b;
        id_of[b] = id++;
    }
}

/* Words one behind another, with a border on each side. */
static bool lay_out(struct merging *m, const int32_t id_of[N_BYTES])
{
    const struct bpe_words *w = m->words;
    uint32_t at = 0;
    m->places = mem_array(w->text.len + w->n + 1, sizeof *m->places);
    if (!m->places)
        return false;
    m->places[at++].id = BORDER;
    for (uint32_t k = 0; k < w->n; k++) {
        const char *s = w->text.data + w->items[k].at;
        for (uint32_t i = 0; i < w->items[k].len; i++, at++)
            m->places[at] =
                (struct place){id_of[(uint8_t)s[i]], at, k, none, none, none};
        m->places[at++].id = BORDER;
        m->n_tokens += w->items[k].count * w->items[k].len;
    }
    for (uint32_t i = 0; i < at; i++)
        if (!is_border(m, i) && !link_pair(m, i))
            return false;
    return push_from(m, 0);
}

static bool merge_pair(struct merging *m, uint32_t number)
{
    int32_t id = N_BYTES + (int32_t)m->n_merges;
    int32_t left = m->pairs[number].left, right = m->pairs[number].right;
    size_t n_before = m->n_pairs;
    m->len[id] = m->len[left] + m->len[right];
    while (m->pairs[number].first != none)
        if (!merge_at(m, m->pairs[number].first, id))
            return false;
    m->merges[m->n_merges][0] = left;
    m->merges[m->n_merges][1] = right;
    m->n_merges++;
    return push_from(m, n_before);
}

static int merge_all(struct merging *m, const struct bpe_options *o,
                     struct runt_err *err)
{
    size_t want = o->n_vocab - BPE_MIN_VOCAB;
    while (m->n_merges < want && m->n_heap) {
        struct candidate c = pop(m);
        uint32_t number = m->slots[slot_of(m, c.key)] - 1;
        const struct pair *p = &m->pairs[number];
        if (p->count != c.count) {
            if (p->count >= m->min_count && !push(m, p))
                return err_nomem(err, "the pairs of a text");
            continue;
        }
        if (!merge_pair(m, number))
            return err_nomem(err, "the pairs of a text");
        if (o->progress && o->progress(o->progress_ctx, "merging", m->n_merges, want))
            return err_set(err, RUNT_E_INTERRUPTED, "interrupted");
    }
    return 0;
}

static int make_vocab(struct merging *m, const uint8_t byte_of[N_BYTES],
                      struct tok_vocab *out, struct runt_err *err)
{
    static const char end[] = "<|endoftext|>";
    const struct tok_str tail = {end, sizeof end - 1};
    struct tok_vocab v = {0};
    struct tok_compact c = {
        .n_merges = m->n_merges, .pairs = m->merges, .n_tail = 1, .tail = &tail};
    memcpy(c.bytes, byte_of, N_BYTES);
    m->merges = NULL;
    int rc = tok_compact_expand(&c, "the merges", &v, err);
    tok_compact_free(&c);
    if (!rc)
        rc = tok_vocab_spell_merges(&v, err);
    if (rc) {
        tok_vocab_free(&v);
        return rc;
    }
    v.bos = v.eos = (int32_t)v.n_tokens - 1;
    v.kinds[v.eos] = TOK_CONTROL;
    *out = v;
    return 0;
}

int bpe_train_run(struct bpe_train *t, const struct bpe_options *o,
                  struct tok_vocab *out, struct bpe_stats *stats, struct runt_err *err)
{
    uint8_t byte_of[N_BYTES];
    int32_t id_of[N_BYTES];
    struct bpe_stats s = {0};
    const struct bpe_words *words;
    if (o->n_vocab < BPE_MIN_VOCAB || o->n_vocab > BPE_MAX_VOCAB || !o->min_count)
        return err_set(
            err, RUNT_E_INVALID,
            "a vocabulary of %zu tokens (%d to %d), of pairs that occur %llu "
            "times (1 or more)",
            o->n_vocab, BPE_MIN_VOCAB, BPE_MAX_VOCAB, (unsigned long long)o->min_count);
    int rc = bpe_train_words(t, &words, &s.n_bytes, err);
    if (rc)
        return rc;
    struct merging *m = mem_zalloc(sizeof *m);
    if (m)
        m->merges = mem_array(o->n_vocab - BPE_MIN_VOCAB, sizeof *m->merges);
    if (!m || !m->merges) {
        mem_free(m);
        return err_nomem(err, "the merges of a text");
    }
    m->words = words;
    m->min_count = o->min_count;
    for (int i = 0; i < N_BYTES; i++)
        m->len[i] = 1;
    order_bytes(byte_of, id_of);
    rc = lay_out(m, id_of) ? merge_all(m, o, err)
                           : err_nomem(err, "the pairs of a text");
    s.n_distinct = words->n;
    for (size_t k = 0; k < words->n; k++)
        s.n_words += words->items[k].count;
    s.n_tokens = m->n_tokens;
    if (!rc)
        rc = make_vocab(m, byte_of, out, err);
    if (!rc)
        *stats = s;
    mem_free(m->places);
    mem_free(m->pairs);
    mem_free(m->slots);
    mem_free(m->heap);
    mem_free(m->merges);
    mem_free(m);
    return rc;
}
