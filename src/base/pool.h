/* A pool of worker threads that run one function together.
 *
 * pool_run gives every thread its index; work is split by output row with pool_range,
 * so that results do not depend on the number of threads and each thread always reads
 * the same rows.  Workers spin for a few microseconds after a job, then sleep. */
#ifndef RUNT_BASE_POOL_H
#define RUNT_BASE_POOL_H

#include "runt/error.h"

#include <stddef.h>

struct pool;

enum { POOL_MAX_THREADS = 256 };

/* n_threads 0 means one for each physical core.  Threads include the caller's. */
int pool_create(unsigned n_threads, struct pool **out, struct runt_err *err);
void pool_destroy(struct pool *p);             /* NULL is fine */
unsigned pool_n_threads(const struct pool *p); /* NULL pool: 1 */

/* Run fn(ctx, i, n) on every thread i of n and return when all have finished.  A NULL
 * pool runs fn(ctx, 0, 1) on the caller.  Not reentrant; one caller at a time. */
void pool_run(struct pool *p, void (*fn)(void *ctx, unsigned i, unsigned n), void *ctx);

/* The part of 0..total-1 that belongs to thread i of n, in multiples of `step`. */
static inline void pool_range(size_t total, size_t step, unsigned i, unsigned n,
                              size_t *begin, size_t *end)
{
    size_t units = (total + step - 1) / step;
    size_t b = units * i / n * step, e = units * (i + 1) / n * step;
    *begin = b < total ? b : total;
    *end = e < total ? e : total;
}

#endif
