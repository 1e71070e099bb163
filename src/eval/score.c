/* Owns the arithmetic on logits that all measures share, in double and in a fixed
 * order. */
#include "eval/score.h"

#include "base/err.h"
#include "model/model.h"

#include <math.h>
#include <string.h>

double score_log_sum_exp(const float *l, size_t n, size_t *best)
{
    size_t b = 0;
    for (size_t i = 1; i < n; i++)
        if (l[i] > l[b])
            b = i;
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)l[i] - (double)l[b]);
    *best = b;
    return (double)l[b] + log(sum);
}

double score_kl(const float *b, double b_lse, const float *l, double l_lse, size_t n)
{
    double kl = 0;
    for (size_t i = 0; i < n; i++) {
        double lp = (double)b[i] - b_lse, lq = (double)l[i] - l_lse;
        kl += exp(lp) * (lp - lq);
    }
    return kl;
}

int score_comparable(const runt_model *m, const runt_model *base, struct runt_err *err)
{
    if (base->shape.n_vocab != m->shape.n_vocab)
        return err_set(err, RUNT_E_INVALID,
                       "%s has %u tokens, the base model %s has %u: not comparable",
                       m->file->path, m->shape.n_vocab, base->file->path,
                       base->shape.n_vocab);
    for (int32_t i = 0; i < (int32_t)m->shape.n_vocab; i++) {
        size_t na, nb;
        const char *a = tok_bytes(m->tok, i, &na), *b = tok_bytes(base->tok, i, &nb);
        if (na != nb || (na && memcmp(a, b, na)))
            return err_set(err, RUNT_E_INVALID,
                           "token %d of %s differs from that of the base model %s: not "
                           "comparable",
                           i, m->file->path, base->file->path);
    }
    return 0;
}

int score_broken(const runt_model *m, struct runt_err *err)
{
    return err_set(err, RUNT_E_FORMAT,
                   "%s: its logits are not finite: its weights are broken",
                   m->file->path);
}

struct eval_mean score_ratio(const double *x, const double *w, size_t n)
{
    double sx = 0, sw = 0, sq = 0;
    size_t n_used = 0;
    for (size_t i = 0; i < n; i++) {
        sx += x[i];
        sw += w[i];
        n_used += w[i] != 0;
    }
    if (sw == 0)
        return (struct eval_mean){0, 0};
    double r = sx / sw;
    for (size_t i = 0; i < n; i++)
        sq += (x[i] - r * w[i]) * (x[i] - r * w[i]);
    double k = (double)n_used;
    return (struct eval_mean){r,
                              n_used > 1 ? sqrt(k / (k - 1) * sq) / sw : (double)NAN};
}
