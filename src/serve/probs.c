/* Owns the probabilities that are told beside tokens: those of the model, before any
 * penalty, constraint or temperature. */
#include "serve/engine_impl.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

static int reserve(struct prob_list *l, size_t more)
{
    if (l->cap - l->n >= more)
        return 0;
    size_t cap = l->cap * 2 > l->n + more ? l->cap * 2 : l->n + more;
    struct prob *p = mem_resize(l->at, cap, sizeof *p);
    if (!p)
        return RUNT_E_NOMEM;
    l->at = p;
    l->cap = cap;
    return 0;
}

/* log of the sum of exp(logits) */
static double log_sum(const float *logits, size_t n)
{
    float most = logits[0];
    double sum = 0;
    for (size_t i = 1; i < n; i++)
        most = logits[i] > most ? logits[i] : most;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)(logits[i] - most));
    return (double)most + log(sum);
}

/* The n likeliest in descending order, equal ones by id; ids -1 where there are fewer.
 */
static void find_top(const float *logits, size_t n_vocab, struct prob *top, int n)
{
    for (int k = 0; k < n; k++)
        top[k] = (struct prob){-1, -INFINITY};
    for (size_t i = 0; i < n_vocab && n; i++) {
        if (top[n - 1].id >= 0 && !(logits[i] > top[n - 1].logprob))
            continue;
        int k = n - 1;
        for (; k > 0 && (top[k - 1].id < 0 || logits[i] > top[k - 1].logprob); k--)
            top[k] = top[k - 1];
        top[k] = (struct prob){(int32_t)i, logits[i]};
    }
}

int probs_add(struct prob_list *l, const float *logits, size_t n_vocab, int32_t id,
              int n_top)
{
    size_t n = 1 + (size_t)n_top;
    if (reserve(l, n))
        return RUNT_E_NOMEM;
    struct prob *p = l->at + l->n;
    double sum = log_sum(logits, n_vocab);
    p[0] = (struct prob){id, logits[id]};
    find_top(logits, n_vocab, p + 1, n_top);
    for (size_t i = 0; i < n; i++)
        p[i].logprob = (float)((double)p[i].logprob - sum);
    l->n += n;
    return 0;
}

int probs_add_first(struct prob_list *l, int32_t id, int n_top)
{
    size_t n = 1 + (size_t)n_top;
    if (reserve(l, n))
        return RUNT_E_NOMEM;
    for (size_t i = 0; i < n; i++)
        l->at[l->n + i] = (struct prob){i ? -1 : id, NAN};
    l->n += n;
    return 0;
}

int probs_move(struct prob_list *from, size_t n, struct prob_list *to)
{
    if (!n)
        return 0;
    if (reserve(to, n))
        return RUNT_E_NOMEM;
    memcpy(to->at + to->n, from->at, n * sizeof *to->at);
    memmove(from->at, from->at + n, (from->n - n) * sizeof *from->at);
    to->n += n;
    from->n -= n;
    return 0;
}

void probs_free(struct prob_list *l)
{
    mem_free(l->at);
    *l = (struct prob_list){0};
}
