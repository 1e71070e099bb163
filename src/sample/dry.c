/* DRY ("don't repeat yourself"), as its author p-e-w defined it in 2024: a token that
 * would go on with a repetition of what the text ends with is less likely the longer
 * that repetition is,
 *
 *     logit - multiplier * base ^ (length - allowed length),
 *
 * where the length is that of the longest end of the text that stands further up, too,
 * followed there by this token.  A repetition does not reach across a breaker, a text
 * that belongs to the form rather than to the words; and a token that holds a breaker
 * is never penalized.
 *
 * Breakers are texts, but a text is cut into tokens in many ways: so they are looked
 * for in the bytes, as tokens are accepted, and each token is marked in which one
 * ends. */
#include "sample/sample_impl.h"

#include "base/err.h"
#include "base/mem.h"

#include <string.h>

/* ---- breakers ---- */

enum { MAX_BREAKERS = 64, MAX_BREAKER_LEN = 256 };

int breakers_set(struct breakers *b, const char *const *texts, size_t n,
                 struct runt_err *err)
{
    if (n > MAX_BREAKERS)
        return err_set(err, RUNT_E_INVALID, "sampler: %zu breakers; DRY takes %d", n,
                       MAX_BREAKERS);
    b->list = mem_array(n, sizeof *b->list);
    b->tail = mem_alloc(MAX_BREAKER_LEN);
    if (!b->list || !b->tail)
        return err_nomem(err, "the sampler");
    for (; b->n < n; b->n++) {
        size_t len = strlen(texts[b->n]);
        if (!len || len > MAX_BREAKER_LEN)
            return err_set(err, RUNT_E_INVALID,
                           "sampler: a breaker of DRY has %zu bytes, not 1 to %d", len,
                           MAX_BREAKER_LEN);
        char *text = mem_strdup(texts[b->n]);
        if (!text)
            return err_nomem(err, "the sampler");
        b->list[b->n] = (struct breaker){text, len};
        b->max_len = len > b->max_len ? len : b->max_len;
    }
    return 0;
}

void breakers_free(struct breakers *b)
{
    for (size_t i = 0; i < b->n; i++)
        mem_free(b->list[i].text);
    mem_free(b->list);
    mem_free(b->tail);
}

/* Whether the text that ends with the first n of `bytes`, behind the tail, ends with a
 * breaker. */
static bool ends_here(const struct breakers *b, const char *bytes, size_t n)
{
    for (size_t i = 0; i < b->n; i++) {
        const struct breaker *k = &b->list[i];
        size_t here = k->len < n ? k->len : n, before = k->len - here;
        if (before <= b->n_tail && !memcmp(k->text + before, bytes + n - here, here) &&
            !memcmp(k->text, b->tail + b->n_tail - before, before))
            return true;
    }
    return false;
}

bool breakers_note(struct breakers *b, const char *bytes, size_t n)
{
    bool found = false;
    for (size_t i = 1; i <= n && !found; i++)
        found = ends_here(b, bytes, i);
    size_t most = b->max_len - 1;
    if (n >= most) {
        memcpy(b->tail, bytes + n - most, most);
        b->n_tail = most;
    } else {
        size_t keep = b->n_tail < most - n ? b->n_tail : most - n;
        memmove(b->tail, b->tail + b->n_tail - keep, keep);
        memcpy(b->tail + keep, bytes, n);
        b->n_tail = keep + n;
    }
    return found;
}

/* Whether a token holds a whole breaker. */
static bool holds_breaker(const struct runt_sampler *s, int32_t token)
{
    if (!s->breakers.n)
        return false;
    size_t n;
    const char *bytes = tok_bytes(s->tok, token, &n);
    for (size_t i = 0; i < s->breakers.n; i++)
        if (memmem(bytes, n, s->breakers.list[i].text, s->breakers.list[i].len))
            return true;
    return false;
}

/* ---- repetitions ---- */

/* The token k places before the last one. */
static int32_t back(const struct runt_sampler *s, size_t k)
{
    return s->recent[(s->n_recent - 1 - k) % s->n_ring];
}

/* match[k]: how many tokens back from place k are those back from the end, at most
 * `limit`.  That is the Z function (Gusfield 1997, section 1.4) of the text read
 * backwards: [from, to) is the match known so far that reaches furthest. */
static void find_matches(const struct runt_sampler *s, size_t n, size_t limit,
                         uint32_t *match)
{
    size_t from = 0, to = 0;
    for (size_t k = 1; k < n; k++) {
        size_t m = 0;
        if (k < to)
            m = match[k - from] < to - k ? match[k - from] : to - k;
        while (m < limit && k + m < n && back(s, m) == back(s, k + m))
            m++;
        match[k] = (uint32_t)m;
        if (k + m > to) {
            from = k;
            to = k + m;
        }
    }
}

static double power(double base, uint32_t n)
{
    double p = 1;
    for (; n; n >>= 1, base *= base)
        if (n & 1)
            p *= base;
    return p;
}

void dry_penalize(struct runt_sampler *s)
{
    const struct runt_sampler_options *o = &s->o;
    const double most = 1e30; /* far beyond any logit, and still a float */
    size_t n = s->n_recent, limit = 0;
    if (n > (size_t)o->dry_last)
        n = (size_t)o->dry_last;
    while (limit < n && !s->breaks[(s->n_recent - 1 - limit) % s->n_ring])
        limit++;
    if (limit < (size_t)o->dry_allowed_length)
        return;
    find_matches(s, n, limit, s->dry_match);
    for (size_t k = 1; k < n; k++) {
        uint32_t *reach = &s->dry_reach[back(s, k - 1)];
        *reach = s->dry_match[k] > *reach ? s->dry_match[k] : *reach;
    }
    for (size_t i = 0; i < s->n; i++) {
        uint32_t reach = s->dry_reach[s->c[i].id];
        if (reach < (uint32_t)o->dry_allowed_length || holds_breaker(s, s->c[i].id))
            continue;
        double p = power((double)o->dry_base, reach - (uint32_t)o->dry_allowed_length) *
                   (double)o->dry_multiplier * s->divisor;
        p = p < most ? p : most;
        s->c[i].logit = stage_finite((float)((double)s->c[i].logit - p));
    }
    for (size_t k = 1; k < n; k++)
        s->dry_reach[back(s, k - 1)] = 0;
    s->sorted = false;
}
