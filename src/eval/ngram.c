/* Owns counting what a text repeats. */
#include "eval/ngram.h"

#include <stdlib.h>
#include <string.h>

size_t ngram_list(const int32_t *t, size_t n, unsigned k, uint32_t group,
                  struct ngram *out)
{
    if (n < k)
        return 0;
    for (size_t i = 0; i + k <= n; i++) {
        out[i] = (struct ngram){.group = group};
        memcpy(out[i].id, t + i, k * sizeof *t);
    }
    return n - k + 1;
}

static int ascending(const void *a, const void *b)
{
    const struct ngram *x = a, *y = b;
    for (size_t i = 0; i < NGRAM_MAX; i++)
        if (x->id[i] != y->id[i])
            return x->id[i] < y->id[i] ? -1 : 1;
    return (x->group > y->group) - (x->group < y->group);
}

static bool same(const struct ngram *a, const struct ngram *b)
{
    return !memcmp(a->id, b->id, sizeof a->id);
}

size_t ngram_sort(struct ngram *g, size_t n)
{
    size_t distinct = 0;
    qsort(g, n, sizeof *g, ascending);
    for (size_t i = 0; i < n; i++)
        distinct += i == 0 || !same(&g[i], &g[i - 1]);
    return distinct;
}

void ngram_only(const struct ngram *g, size_t n, size_t *only)
{
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && same(&g[end], &g[i]);)
            end++;
        only[g[i].group] += g[i].group == g[end - 1].group; /* groups ascend */
    }
}

bool loop_find(const int32_t *t, size_t n, size_t *begin, size_t *period)
{
    size_t best = n;
    for (size_t p = 1; p <= LOOP_MAX_PERIOD; p++) {
        size_t want = 3 * p > LOOP_TOKENS ? 3 * p : LOOP_TOKENS, run = 0;
        for (size_t i = 0; i + p < n; i++) { /* run: equal pairs that end with i */
            run = t[i] == t[i + p] ? run + 1 : 0;
            if (run + p < want)
                continue;
            if (i + 1 - run < best) {
                best = i + 1 - run;
                *period = p;
            }
            break;
        }
    }
    if (best < n)
        *begin = best;
    return best < n;
}
