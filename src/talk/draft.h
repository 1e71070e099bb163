/* What a text so far says about how it goes on.  Two memories, no model: an index of
 * one timeline (prompt lookup: the place where the text's end stood before), and counts
 * of what followed which tokens, of everything that was ever seen.  Both take some tens
 * of nanoseconds a token, which is what makes drafts worth trying. */
#ifndef RUNT_TALK_DRAFT_H
#define RUNT_TALK_DRAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- where the end of a timeline stood before ---- */

/* Places by the pair of tokens that ends there: the latest in heads, the one before it
 * in before, which is also what takes a token out again. */
struct draft_index {
    int32_t *tokens; /* [max] */
    uint32_t n, max;
    uint32_t *heads;  /* [1 << bits]: 1 + the place of a pair's second token, 0: none */
    uint32_t *before; /* [max] */
    unsigned bits;
    uint32_t back; /* how far before the end the last match stood, 0: none */
};

enum { DRAFT_LONGEST = 32 }; /* longer matches are not told apart */

bool draft_index_init(struct draft_index *x, uint32_t max); /* false: no memory */
void draft_index_free(struct draft_index *x);
void draft_index_put(struct draft_index *x, int32_t token); /* x->n < x->max */
void draft_index_cut(struct draft_index *x, uint32_t n);    /* n <= x->n */
/* The longest run of at least two tokens that the timeline ends with and that stood
 * earlier, of equally long ones the latest; its length, 0 when there is none.  *next is
 * the place behind it.  Of very common pairs only the latest places are looked at. */
size_t draft_index_match(struct draft_index *x, uint32_t *next);

/* ---- what followed ---- */

enum { DRAFT_ORDERS = 3, DRAFT_SURE = 4 };

struct draft_cache {
    struct draft_slot *slots; /* [1 << bits] */
    unsigned bits;
};

/* For texts of so many tokens; false: no memory. */
bool draft_cache_init(struct draft_cache *c, size_t n_tokens);
void draft_cache_free(struct draft_cache *c);
/* Count t[n - 1] as what follows the 1, 2 and 3 tokens before it. */
void draft_cache_put(struct draft_cache *c, const int32_t *t, size_t n);
/* Ask memory for what draft_cache_put with t[n - 1], and draft_cache_get after it, will
 * read: a model's weights have passed through the caches since. */
void draft_cache_prefetch(const struct draft_cache *c, const int32_t *t, size_t n);
/* What followed the last `order` tokens of t[0..n) most often; false when they were not
 * seen.  *sure is 0 (seen once), 1 (less than half the
 * times), 2, or 3 (always). */
bool draft_cache_get(const struct draft_cache *c, const int32_t *t, size_t n,
                     unsigned order, int32_t *token, unsigned *sure);

#endif
