/* The roofline (Williams, Waterman and Patterson 2009): how fast this machine reads
 * memory and how fast it multiplies, measured with the threads and in the minute of the
 * work that is compared with it.
 *
 * Both take about a tenth of a second, and are of the fastest way known here, so that a
 * fraction of them flatters nobody. */
#ifndef RUNT_BACK_ROOFLINE_H
#define RUNT_BACK_ROOFLINE_H

#include "base/pool.h"
#include "kern/kern.h"

enum { ROOFLINE_MIN_BYTES = 4096 };

/* Bytes a second that the pool's threads (NULL: one) read together from a buffer of
 * about `bytes`, each its own contiguous part from beginning to end, again and again.
 * The buffer is plainly allocated: ordinary pages, filled by the thread that reads
 * them. A buffer that fits a cache is read from there, as weights of that size are.
 * Errors: RUNT_E_INVALID below ROOFLINE_MIN_BYTES, RUNT_E_NOMEM. */
int roofline_bandwidth(const struct kern_table *kern, struct pool *pool, size_t bytes,
                       double *bytes_per_second, struct runt_err *err);

/* Operations a second (a multiply-add is two) of a large product in 8 bits: a matrix of
 * 4096 x 4096 in tiles of R4 against 512 vectors, each thread its rows.  On a machine
 * where that takes long, a part of it. */
int roofline_int8_peak(const struct kern_table *kern, struct pool *pool,
                       double *ops_per_second, struct runt_err *err);

/* The middle of x [n], which is sorted; the mean of the two middle ones when n is even.
 * 0 when there is none. */
double roofline_median(double *x, size_t n);

#endif
