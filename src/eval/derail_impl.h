/* Inside derailment: from finished answers to figures. */
#ifndef RUNT_EVAL_DERAIL_IMPL_H
#define RUNT_EVAL_DERAIL_IMPL_H

#include "eval/derail.h"

/* Fill in each answer's rep4 and loop, then the figures of both kinds. */
int derail_summarize(struct derail_result *r, struct runt_err *err);

#endif
