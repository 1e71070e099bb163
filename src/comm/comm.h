/* Processes that train one model together: sums and gathers of arrays that every
 * process holds, cut in as many parts as there are processes.
 *
 * Operations are made once and started many times; between start and wait the arrays
 * belong to them.  All processes make, start and wait for the same ones in the same
 * order, from one thread each.  Sums are added in an order that depends on nothing but
 * the number of processes. */
#ifndef RUNT_COMM_H
#define RUNT_COMM_H

#include "runt/error.h"

#include <stdbool.h>
#include <stddef.h>

struct comm;
struct comm_op;

/* The processes that mpirun started, or this one alone.  RUNT_E_UNSUPPORTED: started by
 * mpirun, but built without MPI. */
int comm_open(struct comm **out, struct runt_err *err);
/* Where a process was lost, or `failed`, the others are not waited for. */
void comm_close(struct comm *c, int failed); /* NULL is fine */

unsigned comm_rank(const struct comm *c); /* NULL: 0 */
unsigned comm_size(const struct comm *c); /* NULL: 1 */

/* part [size + 1], ascending, is copied: process r's are x[part[r] .. part[r + 1]).
 *
 * Reduce-scatter: a process's own part becomes the sum over all processes; the other
 * parts of x stay as they are. */
int comm_sum_new(struct comm *c, float *x, const size_t *part, struct comm_op **out,
                 struct runt_err *err);
/* Gather: process `root` (-1: all of them) gets everyone's own part.  x is bytes. */
int comm_gather_new(struct comm *c, void *x, const size_t *part, int root,
                    struct comm_op **out, struct runt_err *err);
void comm_op_free(struct comm_op *op); /* NULL is fine; not while it is under way */

void comm_start(struct comm_op *op);
/* Let transfers move on; cheap. */
void comm_poll(struct comm *c);
/* RUNT_E_IO: a process is gone; the line names it. */
int comm_wait(struct comm_op *op, struct runt_err *err);

/* Whether a process is gone: nothing can be sent or awaited any more. */
bool comm_lost(const struct comm *c);

/* All processes meet: x [n] becomes the sums over all, in the order of their ranks, and
 * where one came with rc < 0, every one gets it and its line.  One process: rc. */
enum { COMM_MEET_MAX = 4 };
int comm_meet(struct comm *c, double *x, size_t n, int rc, struct runt_err *err);

/* What sums of process p's part need besides x, in bytes. */
size_t comm_sum_bytes(const struct comm *c, size_t n_own);

#endif
