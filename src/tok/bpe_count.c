/* Owns counting the words of texts: each thread counts pieces of them in a table of its
 * own, and the tables become one at the end.
 *
 * A text is cut only between a letter and a space, where a word always ends and what
 * follows does not depend on it: so the words do not depend on the cuts. */
#include "tok/bpe_impl.h"

#include "base/err.h"
#include "base/mem.h"
#include "tok/tok_impl.h"

#include <stdatomic.h>
#include <string.h>

enum {
    PIECE = 1 << 16, /* bytes that a thread takes at a time, about */
    BATCH = 1 << 23, /* bytes that are gathered before the threads start */
};

struct bpe_train {
    struct pool *pool;
    unsigned n_threads;
    struct counter {
        struct bpe_words words;
        int rc;
    } * counters; /* one a thread */
    struct strbuf batch;
    size_t *ends; /* of the batch's pieces */
    size_t n_pieces, pieces_room;
    atomic_size_t next;
    uint64_t n_bytes;
};

/* ---- a table of words ---- */

static void words_free(struct bpe_words *w)
{
    mem_free(w->items);
    mem_free(w->slots);
    sb_free(&w->text);
    *w = (struct bpe_words){0};
}

static int grow(struct bpe_words *w)
{
    size_t room = w->room ? 2 * w->room : 1 << 10;
    struct bpe_word *items = mem_resize(w->items, room, sizeof *items);
    if (!items)
        return RUNT_E_NOMEM;
    w->items = items;
    struct bpe_slot *slots = mem_array(2 * room, sizeof *slots);
    if (!slots)
        return RUNT_E_NOMEM;
    size_t mask = 2 * room - 1;
    for (size_t k = 0; k < w->n; k++) {
        size_t i = items[k].hash & mask;
        while (slots[i].number)
            i = (i + 1) & mask;
        slots[i] = (struct bpe_slot){items[k].hash, (uint32_t)k + 1};
    }
    mem_free(w->slots);
    w->slots = slots;
    w->mask = mask;
    w->room = room;
    return 0;
}

static int count_word(struct bpe_words *w, const char *s, size_t n, uint32_t hash,
                      uint64_t count)
{
    if (w->n == w->room && grow(w))
        return RUNT_E_NOMEM;
    size_t i = hash & w->mask;
    for (; w->slots[i].number; i = (i + 1) & w->mask) {
        struct bpe_word *k = &w->items[w->slots[i].number - 1];
        if (w->slots[i].hash != hash || k->len != n ||
            memcmp(w->text.data + k->at, s, n))
            continue;
        k->count += count;
        return 0;
    }
    if (n > BPE_MAX_WORDS - w->text.len)
        return RUNT_E_UNSUPPORTED;
    size_t at = w->text.len;
    sb_put(&w->text, s, n);
    if (w->text.failed)
        return RUNT_E_NOMEM;
    w->items[w->n++] = (struct bpe_word){count, at, (uint32_t)n, hash};
    w->slots[i] = (struct bpe_slot){hash, (uint32_t)w->n};
    return 0;
}

static int explain(int rc, struct runt_err *err)
{
    if (rc == RUNT_E_UNSUPPORTED)
        return err_set(err, rc,
                       "the different words are more than %d bytes together: too many "
                       "to learn from",
                       BPE_MAX_WORDS);
    return rc ? err_nomem(err, "the words of a text") : 0;
}

/* ---- texts ---- */

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static size_t piece_len(const char *p, size_t n)
{
    for (size_t i = PIECE; i < n; i++)
        if (p[i] == ' ' && is_letter(p[i - 1]))
            return i;
    return n;
}

static void count_pieces(void *ctx, unsigned i, unsigned n)
{
    struct bpe_train *t = ctx;
    struct counter *c = &t->counters[i];
    size_t k;
    (void)n;
    while ((k = atomic_fetch_add(&t->next, 1)) < t->n_pieces) {
        const char *p = t->batch.data + (k ? t->ends[k - 1] : 0);
        const char *end = t->batch.data + t->ends[k];
        for (size_t len; p < end && !c->rc; p += len) {
            len = tok_pre_next(p, (size_t)(end - p));
            c->rc = count_word(&c->words, p, len, (uint32_t)tok_hash(p, len), 1);
        }
    }
}

static int count_batch(struct bpe_train *t, struct runt_err *err)
{
    int rc = 0;
    atomic_store(&t->next, 0);
    pool_run(t->pool, count_pieces, t);
    t->batch.len = t->n_pieces = 0;
    for (unsigned i = 0; i < t->n_threads && !rc; i++)
        rc = t->counters[i].rc;
    return explain(rc, err);
}

int bpe_train_new(struct pool *pool, struct bpe_train **out, struct runt_err *err)
{
    struct bpe_train *t = mem_zalloc(sizeof *t);
    if (!t)
        return err_nomem(err, "the training of a tokenizer");
    t->pool = pool;
    t->n_threads = pool_n_threads(pool);
    t->counters = mem_array(t->n_threads, sizeof *t->counters);
    if (!t->counters) {
        mem_free(t);
        return err_nomem(err, "the training of a tokenizer");
    }
    *out = t;
    return 0;
}

int bpe_train_add(struct bpe_train *t, const char *text, size_t n, struct runt_err *err)
{
    for (size_t from = 0, len; from < n; from += len) {
        len = piece_len(text + from, n - from);
        if (t->n_pieces == t->pieces_room) {
            size_t room = 2 * t->pieces_room + 64;
            size_t *ends = mem_resize(t->ends, room, sizeof *ends);
            if (!ends)
                return explain(RUNT_E_NOMEM, err);
            t->ends = ends;
            t->pieces_room = room;
        }
        sb_put(&t->batch, text + from, len);
        if (t->batch.failed)
            return explain(RUNT_E_NOMEM, err);
        t->ends[t->n_pieces++] = t->batch.len;
        t->n_bytes += len;
        int rc = t->batch.len >= BATCH ? count_batch(t, err) : 0;
        if (rc)
            return rc;
    }
    return 0;
}

int bpe_train_words(struct bpe_train *t, const struct bpe_words **out,
                    uint64_t *n_bytes, struct runt_err *err)
{
    struct bpe_words *all = &t->counters[0].words;
    int rc = count_batch(t, err);
    if (rc)
        return rc;
    for (unsigned i = 1; i < t->n_threads; i++) {
        struct bpe_words *w = &t->counters[i].words;
        for (size_t k = 0; k < w->n && !rc; k++) {
            const struct bpe_word *x = &w->items[k];
            rc = count_word(all, w->text.data + x->at, x->len, x->hash, x->count);
        }
        words_free(w);
    }
    *out = all;
    *n_bytes = t->n_bytes;
    return explain(rc, err);
}

void bpe_train_free(struct bpe_train *t)
{
    if (!t)
        return;
    for (unsigned i = 0; i < t->n_threads; i++)
        words_free(&t->counters[i].words);
    mem_free(t->counters);
    mem_free(t->ends);
    sb_free(&t->batch);
    mem_free(t);
}
