/* One step's work over several processes: every process runs some sequences of each
 * micro-batch, gradients are summed block by block while the backward pass goes on,
 * each process updates its share of every block and holds the moments of that share
 * alone, and the new weights go to all (Rajbhandari et al. 2020, ZeRO, stage 1). */
#ifndef RUNT_TRAIN_SHARD_H
#define RUNT_TRAIN_SHARD_H

#include "comm/comm.h"
#include "train/optim.h"

struct shard;

/* comm of one process (or NULL): *out is NULL, and the functions below do nothing. */
int shard_create(struct comm *comm, struct net *net, struct shard **out,
                 struct runt_err *err);
void shard_free(struct shard *s); /* NULL is fine */

/* What this process updates; NULL for all. */
const struct optim_piece *shard_pieces(const struct shard *s, size_t *n);

/* net_batch.done and .poll of a step's last micro-batch. */
void shard_done(void *ctx, size_t from, size_t to);
void shard_poll(void *ctx);

/* Behind the backward pass: the own pieces of net->g are sums over all processes, the
 * rest is 0.  Errors as of comm_wait. */
int shard_reduce(struct shard *s, struct runt_err *err);
/* Behind the update: net->w is the same everywhere again. */
int shard_spread(struct shard *s, struct runt_err *err);
/* A moment of all pieces to process 0; what is not a process's own goes from memory. */
int shard_collect(struct shard *s, float *x, struct runt_err *err);
void shard_drop(const struct shard *s, float *x);

#endif
