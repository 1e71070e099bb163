/* Repetition in a text of tokens: n-grams and loops. */
#ifndef RUNT_EVAL_NGRAM_H
#define RUNT_EVAL_NGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NGRAM_MAX = 4 };

struct ngram {
    int32_t id[NGRAM_MAX]; /* the tokens, then zeros */
    uint32_t group;        /* whose text it is from */
};

/* The k-grams of tokens t[0..n), k <= NGRAM_MAX, to out [n - k + 1]; how many. */
size_t ngram_list(const int32_t *t, size_t n, unsigned k, uint32_t group,
                  struct ngram *out);
/* Sort the list; how many of it are distinct (groups do not count). */
size_t ngram_sort(struct ngram *g, size_t n);
/* only[i] += the distinct n-grams of a sorted list that stand in group i alone. */
void ngram_only(const struct ngram *sorted, size_t n, size_t *only);

/* A loop: from token `begin` on, for at least max(3 * period, LOOP_TOKENS) tokens,
 * every token is that of `period` places later or earlier, period <= LOOP_MAX_PERIOD.
 * That is, with L = max(3p, LOOP_TOKENS), t[i] == t[i + p] for begin <= i < begin + L -
 * p. Finds the first begin, and its smallest period; false when there is none.  What
 * comes after the loop does not count. */
enum { LOOP_MAX_PERIOD = 64, LOOP_TOKENS = 24 };
bool loop_find(const int32_t *t, size_t n, size_t *begin, size_t *period);

#endif
