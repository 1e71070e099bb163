/* What every measure of this room does with logits and with figures of several texts.
 */
#ifndef RUNT_EVAL_SCORE_H
#define RUNT_EVAL_SCORE_H

#include "eval/eval.h"

/* log sum exp of l[0..n), in double; *best is the index of the largest (the first). */
double score_log_sum_exp(const float *l, size_t n, size_t *best);

/* KL(b || l) in nats of the distributions that logits b and l [n] stand for, given
 * their log sum exp. */
double score_kl(const float *b, double b_lse, const float *l, double l_lse, size_t n);

/* RUNT_E_INVALID unless both models have the same tokens. */
int score_comparable(const runt_model *m, const runt_model *base, struct runt_err *err);

/* RUNT_E_FORMAT: this model's logits are not finite. */
int score_broken(const runt_model *m, struct runt_err *err);

/* sum x / sum w over n texts (clusters), its error by the delta method (Cochran 1977,
 * equation 6.13) with k - 1 degrees of freedom, where k of them have a weight; with
 * every w 1 the mean and its standard error.  The error of one text is not a number.
 * Zeros when there is no weight. */
struct eval_mean score_ratio(const double *x, const double *w, size_t n);

#endif
