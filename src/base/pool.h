/* A pool of worker threads that run one function together.
 *
 * The function gets its thread's index; work is split by output row with pool_range, so
 * that results do not depend on the number of threads and each thread always reads the
 * same rows.  Inside it, threads that need each other's results meet at pool_barrier.
 * Who waits spins for some tens of microseconds, then sleeps. */
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

typedef void pool_fn(void *ctx, unsigned i, unsigned n);

/* Run fn(ctx, i, n) on every thread i of n = pool_n_threads and return when all have
 * finished.  A NULL pool runs fn(ctx, 0, 1) on the caller.  Not reentrant; one caller
 * at a time. */
void pool_run(struct pool *p, pool_fn *fn, void *ctx);

/* The same on n threads, 1 <= n <= pool_n_threads, as many as have a core: where a
 * barrier has to wait long for a thread that should have come, another program holds
 * its core, and runs use one thread less for a while.  For work whose result does not
 * depend on n, and that comes in runs of some milliseconds. */
void pool_run_free(struct pool *p, pool_fn *fn, void *ctx);

/* Called inside fn by every thread i of the run: none goes on before all have come. */
void pool_barrier(struct pool *p, unsigned i);

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
