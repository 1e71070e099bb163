/* Evaluation on a device: models as nets without gradients, in float32. */
#ifndef RUNT_TRAIN_NET_EVAL_H
#define RUNT_TRAIN_NET_EVAL_H

#include "model/model.h"
#include "train/net_device.h"

struct net_eval;

/* A scorer of a model, and of a base (or NULL) beside it, both with the weights that
 * their files stand for: what is in blocks is decoded, and activations are not rounded.
 * window: tokens of the longest one.  Errors: RUNT_E_NOMEM, RUNT_E_IO. */
int net_eval_open(struct net_device *d, const runt_model *m, const runt_model *base,
                  size_t window, struct net_eval **out, struct runt_err *err);
const struct eval_scorer *net_eval_scorer(const struct net_eval *e);
void net_eval_close(struct net_eval *e); /* NULL is fine; before the device */

#endif
