/* Log probabilities of tokens, for those who ask how sure a model was. */
#include "base/err.h"
#include "runt/runt.h"

#include <float.h>
#include <math.h>

/* Put a token among the n likeliest so far; equal ones stay in the order of their ids,
 * which come ascending. */
static void insert(struct runt_logprob *top, size_t n, struct runt_logprob x)
{
    while (n && top[n - 1].logprob < x.logprob) {
        top[n] = top[n - 1];
        n--;
    }
    top[n] = x;
}

/* Of a logit; finite, because JSON knows no infinity. */
static float log_share(float logit, float largest, double log_sum)
{
    double x = (double)logit - (double)largest - log_sum;
    return x > (double)-FLT_MAX ? (float)x : -FLT_MAX;
}

int runt_logprobs(const float *logits, uint32_t n_vocab, int32_t token, float *logprob,
                  struct runt_logprob *top, size_t n_top, struct runt_err *err)
{
    if (token < 0 || (uint32_t)token >= n_vocab || n_top > RUNT_MAX_LOGPROBS ||
        n_top > n_vocab)
        return err_set(err, RUNT_E_INVALID,
                       "log probabilities of token %d and the %zu likeliest of %u "
                       "(at most %d)",
                       token, n_top, n_vocab, RUNT_MAX_LOGPROBS);
    struct runt_logprob best[RUNT_MAX_LOGPROBS + 1]; /* one falls out at the end */
    size_t n = 0;
    float largest = -INFINITY;
    double sum = 0;
    for (uint32_t i = 0; i < n_vocab; i++) {
        if (!isfinite(logits[i]))
            return err_set(
                err, RUNT_E_FORMAT,
                "the model's logit of token %u is %g: its weights are broken", i,
                (double)logits[i]);
        largest = logits[i] > largest ? logits[i] : largest;
        if (n < n_top || (n && best[n - 1].logprob < logits[i])) {
            insert(best, n, (struct runt_logprob){(int32_t)i, logits[i]});
            n += n < n_top;
        }
    }
    for (uint32_t i = 0; i < n_vocab; i++)
        sum += exp((double)logits[i] - (double)largest);
    for (size_t i = 0; i < n; i++)
        top[i] = (struct runt_logprob){best[i].token,
                                       log_share(best[i].logprob, largest, log(sum))};
    *logprob = log_share(logits[token], largest, log(sum));
    return 0;
}
