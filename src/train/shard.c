/* Owns how a step's arrays are cut over processes, and when the parts travel. */
#include "train/shard.h"

#include "base/err.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct bucket {
    size_t from, to;
    size_t *part, *part_bytes; /* [size + 1] */
    struct comm_op *sum, *spread;
};

struct shard {
    struct comm *comm;
    struct net *net;
    struct bucket *buckets; /* a block each, the last: all else */
    size_t n_buckets;
    struct optim_piece *pieces; /* [n_buckets] */
};

enum { STEP = 16 }; /* numbers: a cache line */

static int fill(struct shard *s, struct bucket *b, struct runt_err *err)
{
    unsigned size = comm_size(s->comm);
    b->part = mem_array(size + 1, sizeof *b->part);
    b->part_bytes = mem_array(size + 1, sizeof *b->part_bytes);
    if (!b->part || !b->part_bytes)
        return err_nomem(err, "a block's parts");
    for (unsigned r = 0; r < size; r++) {
        size_t begin, end;
        pool_range(b->to - b->from, STEP, r, size, &begin, &end);
        b->part[r] = b->from + begin;
        b->part[r + 1] = b->from + end;
    }
    for (unsigned r = 0; r <= size; r++)
        b->part_bytes[r] = b->part[r] * sizeof(float);
    int rc = comm_sum_new(s->comm, s->net->g, b->part, &b->sum, err);
    if (!rc)
        rc = comm_gather_new(s->comm, s->net->w, b->part_bytes, -1, &b->spread, err);
    return rc;
}

int shard_create(struct comm *comm, struct net *net, struct shard **out,
                 struct runt_err *err)
{
    *out = NULL;
    if (comm_size(comm) == 1)
        return 0;
    uint32_t n = net->shape.n_layer + 1, me = comm_rank(comm);
    struct shard *s = mem_zalloc(sizeof *s);
    int rc = 0;
    if (s) {
        s->comm = comm;
        s->net = net;
        s->buckets = mem_zalloc(n * sizeof *s->buckets);
        s->pieces = mem_array(n, sizeof *s->pieces);
    }
    if (!s || !s->buckets || !s->pieces)
        rc = err_nomem(err, "the processes' shares");
    for (uint32_t layer = 0; layer < n && !rc; layer++) {
        struct bucket *b = &s->buckets[s->n_buckets];
        if (!net_range(net, layer, &b->from, &b->to))
            continue;
        s->n_buckets++;
        rc = fill(s, b, err);
        if (!rc)
            s->pieces[s->n_buckets - 1] =
                (struct optim_piece){b->part[me], b->part[me + 1] - b->part[me]};
    }
    if (rc)
        shard_free(s);
    else
        *out = s;
    return rc;
}

void shard_free(struct shard *s)
{
    if (!s)
        return;
    for (size_t k = 0; k < s->n_buckets; k++) {
        comm_op_free(s->buckets[k].sum);
        comm_op_free(s->buckets[k].spread);
        mem_free(s->buckets[k].part);
        mem_free(s->buckets[k].part_bytes);
    }
    mem_free(s->buckets);
    mem_free(s->pieces);
    mem_free(s);
}

const struct optim_piece *shard_pieces(const struct shard *s, size_t *n)
{
    *n = s ? s->n_buckets : 0;
    return s ? s->pieces : NULL;
}

void shard_done(void *ctx, size_t from, size_t to)
{
    struct shard *s = ctx;
    (void)to;
    for (size_t k = 0; k < s->n_buckets; k++)
        if (s->buckets[k].from == from)
            comm_start(s->buckets[k].sum);
}

void shard_poll(void *ctx)
{
    struct shard *s = ctx;
    comm_poll(s->comm);
}

int shard_reduce(struct shard *s, struct runt_err *err)
{
    int rc = 0;
    for (size_t k = s ? s->n_buckets : 0; k-- > 0 && !rc;) {
        struct bucket *b = &s->buckets[k];
        const struct optim_piece *own = &s->pieces[k];
        rc = comm_wait(b->sum, err);
        if (rc)
            break;
        size_t end = own->at + own->n;
        memset(s->net->g + b->from, 0, (own->at - b->from) * sizeof(float));
        memset(s->net->g + end, 0, (b->to - end) * sizeof(float));
    }
    return rc;
}

static void narrow_all(void *ctx, unsigned i, unsigned n_threads)
{
    struct net *n = ctx;
    (void)n_threads;
    net_narrow(n, i, 0, n->n_trained);
}

int shard_spread(struct shard *s, struct runt_err *err)
{
    int rc = 0;
    if (!s)
        return 0;
    for (size_t k = 0; k < s->n_buckets; k++)
        comm_start(s->buckets[k].spread);
    for (size_t k = 0; k < s->n_buckets && !rc; k++)
        rc = comm_wait(s->buckets[k].spread, err);
    if (!rc && s->net->h)
        pool_run(s->net->o.pool, narrow_all, s->net);
    return rc;
}

int shard_collect(struct shard *s, float *x, struct runt_err *err)
{
    int rc = 0;
    for (size_t k = 0; s && k < s->n_buckets && !rc; k++) {
        struct comm_op *op = NULL;
        rc = comm_gather_new(s->comm, x, s->buckets[k].part_bytes, 0, &op, err);
        if (rc)
            break;
        comm_start(op);
        rc = comm_wait(op, err);
        comm_op_free(op);
    }
    return rc;
}

/* Whole pages between from and to go back to the system. */
static void drop(float *x, size_t from, size_t to)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = ((uintptr_t)(x + from) + page - 1) / page * page;
    uintptr_t end = (uintptr_t)(x + to) / page * page;
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_DONTNEED);
}

void shard_drop(const struct shard *s, float *x)
{
    for (size_t k = 0; s && k < s->n_buckets; k++) {
        const struct bucket *b = &s->buckets[k];
        drop(x, b->from, s->pieces[k].at);
        drop(x, s->pieces[k].at + s->pieces[k].n, b->to);
    }
}
