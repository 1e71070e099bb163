/* Owns the probabilities that are told beside tokens: those of the model, before any
 * penalty, constraint or temperature. */
#include "serve/engine_impl.h"

#include "base/err.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

static int reserve(struct prob_list *l, size_t more)
{
    if (l->cap - l->n >= more)
        return 0;
    size_t cap = l->cap * 2 > l->n + more ? l->cap * 2 : l->n + more;
    struct runt_logprob *p = mem_resize(l->at, cap, sizeof *p);
    if (!p)
        return RUNT_E_NOMEM;
    l->at = p;
    l->cap = cap;
    return 0;
}

/* Room for a token and those beside it, all of them still unknown. */
static struct runt_logprob *add(struct prob_list *l, int32_t token, int n_top)
{
    size_t n = 1 + (size_t)n_top;
    if (reserve(l, n))
        return NULL;
    struct runt_logprob *p = l->at + l->n;
    for (size_t i = 0; i < n; i++)
        p[i] = (struct runt_logprob){i ? -1 : token, NAN};
    l->n += n;
    return p;
}

int probs_add(struct prob_list *l, const float *logits, uint32_t n_vocab, int32_t token,
              int n_top, struct runt_err *err)
{
    struct runt_logprob *p = add(l, token, n_top);
    size_t n = (uint32_t)n_top < n_vocab ? (size_t)n_top : n_vocab;
    if (!p)
        return err_nomem(err, "probabilities");
    return logits ? runt_logprobs(logits, n_vocab, token, &p->logprob, p + 1, n, err)
                  : 0;
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
