/* Owns the order of samples: which documents are held out, how windows lie, whose turn
 * it is. */
#include "train/data_impl.h"

#include "base/err.h"
#include "base/fold.h"
#include "base/mem.h"
#include "base/rng.h"

#include <math.h>
#include <string.h>

enum { TURNS = 1024 }; /* the pattern in which sources take turns */

/* A run of one source's tokens. */
struct piece {
    uint64_t from, n;
};

struct stream {
    struct data_tokens tokens;
    double weight;
    struct piece *train, *val;
    uint64_t n_train, n_val;           /* pieces */
    uint64_t *train_at, *val_at;       /* [n + 1]: where each begins in the stream */
    uint64_t n_windows, n_val_windows; /* of an epoch; held out */
};

struct data {
    size_t context, n_streams;
    uint64_t seed, fingerprint;
    int32_t filler;         /* where a window is longer than what there is */
    struct stream *streams; /* the sources, then the validation sources */
    size_t n_sources;
    uint16_t turn[TURNS], turns_before[TURNS]; /* whose; how many of its own before */
    uint64_t turns_of[TURNS];                  /* by source */
    struct data_stats stats;
};

/* ---- documents ---- */

static double chance(uint64_t hash)
{
    return (double)(fold(3, &hash, sizeof hash) >> 11) * 0x1p-53;
}

/* Which document is held out when none has drawn it, or stays when all have: the one
 * with the least number. */
static uint64_t least(const struct data_tokens *t)
{
    uint64_t best = 0;
    for (uint64_t i = 1; i < t->n_docs; i++)
        if (chance(t->hashes[i]) < chance(t->hashes[best]))
            best = i;
    return best;
}

static int split(struct stream *s, double share, struct runt_err *err)
{
    const struct data_tokens *t = &s->tokens;
    s->train = mem_array(t->n_docs + 1, sizeof *s->train);
    s->val = mem_array(t->n_docs + 1, sizeof *s->val);
    if (!s->train || !s->val)
        return err_nomem(err, "the list of documents");
    if (t->n_docs == 1 && share > 0 && share < 1) { /* its end, then */
        uint64_t cut = t->n_tokens - (uint64_t)((double)t->n_tokens * share);
        s->train[s->n_train++] = (struct piece){0, cut};
        if (cut < t->n_tokens)
            s->val[s->n_val++] = (struct piece){cut, t->n_tokens - cut};
        return 0;
    }
    uint64_t n_out = 0, one = least(t);
    for (uint64_t i = 0; i < t->n_docs; i++)
        n_out += chance(t->hashes[i]) < share;
    bool force_out = share > 0 && !n_out, force_in = share < 1 && n_out == t->n_docs;
    for (uint64_t i = 0; i < t->n_docs; i++) {
        bool is_out = chance(t->hashes[i]) < share;
        if (i == one)
            is_out = (is_out || force_out) && !force_in;
        struct piece p = {t->at[i], t->at[i + 1] - t->at[i]};
        if (is_out)
            s->val[s->n_val++] = p;
        else
            s->train[s->n_train++] = p;
    }
    return 0;
}

static void shuffle(struct piece *p, uint64_t n, uint64_t seed)
{
    struct rng rng;
    rng_seed(&rng, seed);
    for (uint64_t i = n; i > 1; i--) {
        uint64_t k = (uint64_t)(rng_unit(&rng) * (double)i);
        struct piece x = p[i - 1];
        p[i - 1] = p[k];
        p[k] = x;
    }
}

static uint64_t *prefix(const struct piece *p, uint64_t n)
{
    uint64_t *at = mem_array(n + 1, sizeof *at);
    for (uint64_t i = 0; at && i < n; i++)
        at[i + 1] = at[i] + p[i].n;
    return at;
}

/* ---- windows ---- */

/* A permutation of 0 .. n - 1 by a key: four rounds of a Feistel network on the next
 * even number of bits, walked until the result is inside (Black and Rogaway 2002). */
static uint64_t permute(uint64_t i, uint64_t n, uint64_t key)
{
    unsigned half = 1;
    while (half < 31 && (uint64_t)1 << (2 * half) < n)
        half++;
    uint64_t mask = ((uint64_t)1 << half) - 1;
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint64_t round = 0; round < 4; round++) {
            uint64_t x[] = {key, round, right},
                     next = left ^ (fold(4, x, sizeof x) & mask);
            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}

/* n tokens from place `from` of a stream of pieces, round and round; as targets, -1 for
 * those that do not count. */
static void copy(const struct data_tokens *t, const struct piece *pieces,
                 const uint64_t *at, uint64_t n_pieces, uint64_t from, size_t n,
                 bool targets, int32_t *out)
{
    uint64_t total = at[n_pieces], lo = 0, hi = n_pieces;
    from %= total;
    while (hi - lo > 1) {
        uint64_t mid = (lo + hi) / 2;
        if (at[mid] <= from)
            lo = mid;
        else
            hi = mid;
    }
    uint64_t k = from - at[lo];
    while (n) {
        for (; k < pieces[lo].n && n; k++, n--) {
            uint64_t i = pieces[lo].from + k;
            *out++ = targets && !data_counts(t, i) ? -1 : data_token(t, i);
        }
        lo = lo + 1 < n_pieces ? lo + 1 : 0;
        k = 0;
    }
}

/* One window: `have` tokens, of which all but the last are inputs, and filler. */
static void window(const struct data *d, const struct data_tokens *t,
                   const struct piece *pieces, const uint64_t *at, uint64_t n_pieces,
                   uint64_t from, size_t have, int32_t *inputs, int32_t *targets)
{
    size_t n = have - 1; /* <= context */
    copy(t, pieces, at, n_pieces, from, n, false, inputs);
    copy(t, pieces, at, n_pieces, from + 1, n, true, targets);
    for (size_t i = n; i < d->context; i++) {
        inputs[i] = d->filler;
        targets[i] = -1;
    }
}

void data_train(const struct data *d, uint64_t first, size_t n, int32_t *inputs,
                int32_t *targets)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t k = first + i, source = d->turn[k % TURNS];
        const struct stream *s = &d->streams[source];
        uint64_t total = s->train_at[s->n_train];
        uint64_t own = k / TURNS * d->turns_of[source] + d->turns_before[k % TURNS];
        uint64_t epoch = own / s->n_windows;
        uint64_t x[] = {d->seed, source, epoch}, key = fold(5, x, sizeof x);
        uint64_t w = permute(own % s->n_windows, s->n_windows, key);
        bool is_short = total <= d->context;
        uint64_t from = is_short ? 0 : key % d->context + w * d->context;
        window(d, &s->tokens, s->train, s->train_at, s->n_train, from,
               is_short ? total : d->context + 1, inputs + i * d->context,
               targets + i * d->context);
    }
}

size_t data_n_val(const struct data *d)
{
    size_t n = 0;
    for (size_t i = 0; i < d->n_streams; i++)
        n += d->streams[i].n_val_windows;
    return n;
}

void data_val(const struct data *d, size_t first, size_t n, int32_t *inputs,
              int32_t *targets)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t w = first + i;
        const struct stream *s = d->streams;
        while (w >= s->n_val_windows)
            w -= s++->n_val_windows;
        uint64_t from = w * d->context, left = s->val_at[s->n_val] - from;
        window(d, &s->tokens, s->val, s->val_at, s->n_val, from,
               left > d->context ? d->context + 1 : left, inputs + i * d->context,
               targets + i * d->context);
    }
}

/* ---- opening ---- */

/* Sources take turns in a fixed pattern, shuffled once. */
static void take_turns(struct data *d)
{
    bool given = false;
    double total = 0, used = 0;
    size_t at = 0;
    for (size_t i = 0; i < d->n_sources; i++)
        given |= d->streams[i].weight > 0;
    for (size_t i = 0; i < d->n_sources; i++) {
        struct stream *s = &d->streams[i];
        if (!given)
            s->weight = (double)s->train_at[s->n_train];
        else if (!(s->weight > 0))
            s->weight = 1;
        total += s->weight;
    }
    for (size_t i = 0; i < d->n_sources; i++) {
        used += d->streams[i].weight;
        size_t end = (size_t)(used / total * TURNS + 0.5);
        size_t room = TURNS - (d->n_sources - 1 - i); /* one for each that is left */
        end = end > room ? room : end <= at ? at + 1 : end;
        for (; at < end; at++)
            d->turn[at] = (uint16_t)i;
    }
    struct rng rng;
    rng_seed(&rng, d->seed ^ 0x7475726e73);
    for (size_t i = TURNS; i > 1; i--) {
        size_t k = (size_t)(rng_unit(&rng) * (double)i);
        uint16_t x = d->turn[i - 1];
        d->turn[i - 1] = d->turn[k];
        d->turn[k] = x;
    }
    for (size_t i = 0; i < TURNS; i++)
        d->turns_before[i] = (uint16_t)d->turns_of[d->turn[i]]++;
}

static int open_stream(struct data *d, const struct data_options *o,
                       const struct data_source *source, double share, struct stream *s,
                       struct runt_err *err)
{
    bool cached;
    int rc = data_tokens_open(source->path, o, &s->tokens, &cached, err);
    if (!rc)
        rc = split(s, share, err);
    if (rc)
        return rc;
    s->weight = source->weight;
    shuffle(s->train, s->n_train, o->seed);
    s->train_at = prefix(s->train, s->n_train);
    s->val_at = prefix(s->val, s->n_val);
    if (!s->train_at || !s->val_at)
        return err_nomem(err, "the list of documents");
    uint64_t n = s->train_at[s->n_train], n_val = s->val_at[s->n_val];
    if (share < 1 && n < 2)
        return err_set(err, RUNT_E_INVALID, "%s: too short to train on", source->path);
    s->n_windows = n > d->context ? n / d->context : 1;
    s->n_val_windows = n_val > 1 ? (n_val - 2) / d->context + 1 : 0;
    struct data_stats *st = &d->stats;
    st->documents += s->tokens.n_docs;
    st->tokens += s->tokens.n_tokens;
    st->text_bytes += s->tokens.text_bytes;
    st->counted += s->tokens.n_counted;
    st->unanswered += s->tokens.n_unanswered;
    st->messages |= s->tokens.messages;
    st->val_documents += s->n_val;
    st->val_tokens += n_val;
    st->cached = st->cached && cached;
    for (uint64_t i = 0; i < s->tokens.n_docs; i++)
        st->long_documents += s->tokens.at[i + 1] - s->tokens.at[i] > d->context;
    uint64_t x[] = {s->tokens.key[0], s->tokens.key[1]};
    d->fingerprint = fold(d->fingerprint, x, sizeof x);
    d->fingerprint = fold(d->fingerprint, &source->weight, sizeof source->weight);
    return 0;
}

int data_open(const struct data_options *o, struct data **out, struct runt_err *err)
{
    struct data *d = mem_zalloc(sizeof *d);
    int rc = 0;
    if (d) {
        d->n_streams = o->n_sources + o->n_val_sources;
        d->streams = mem_array(d->n_streams, sizeof *d->streams);
    }
    if (!d || !d->streams) {
        data_close(d);
        return err_nomem(err, "training data");
    }
    d->n_sources = o->n_sources;
    d->context = o->context;
    d->seed = o->seed;
    d->filler = tok_eos(o->tok) < 0 ? 0 : tok_eos(o->tok);
    d->stats.cached = true;
    uint64_t x[] = {o->context, o->seed, o->n_sources};
    d->fingerprint = fold(fold(6, x, sizeof x), &o->val_share, sizeof o->val_share);
    if (!o->n_sources || o->n_sources > TURNS)
        rc = err_set(err, RUNT_E_INVALID, "%zu sources of data", o->n_sources);
    for (size_t i = 0; i < d->n_streams && !rc; i++) {
        bool is_val = i >= o->n_sources;
        double share = is_val ? 1 : o->n_val_sources ? 0 : o->val_share;
        rc = open_stream(d, o,
                         is_val ? &o->val_sources[i - o->n_sources] : &o->sources[i],
                         share, &d->streams[i], err);
    }
    if (rc) {
        data_close(d);
        return rc;
    }
    take_turns(d);
    *out = d;
    return 0;
}

void data_close(struct data *d)
{
    if (!d)
        return;
    for (size_t i = 0; d->streams && i < d->n_streams; i++) {
        struct stream *s = &d->streams[i];
        data_tokens_close(&s->tokens);
        mem_free(s->train);
        mem_free(s->val);
        mem_free(s->train_at);
        mem_free(s->val_at);
    }
    mem_free(d->streams);
    mem_free(d);
}

const struct data_stats *data_get_stats(const struct data *d)
{
    return &d->stats;
}

uint64_t data_fingerprint(const struct data *d)
{
    return d->fingerprint;
}
