#ifndef RUNT_QUANT_IMPL_H
#define RUNT_QUANT_IMPL_H

#include "quant/quant.h"

/* Fill the report's plan: everything but bytes and errors.  Errors as of quant_write.
 */
int quant_plan(const struct tensor_source *src, const struct quant_options *o,
               struct quant_report *r, struct runt_err *err);

/* The source's tensor behind report entry i: the extra last one of an untied model is
 * the token table again. */
size_t quant_source_index(const struct tensor_source *src, size_t i);

#endif
