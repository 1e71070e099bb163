/* Owns the processes that mpirun started.
 *
 * Messages go from process to process by themselves instead of through MPI's
 * collectives: so it is known who has not answered, and sums have an order of their
 * own.  Every process of this host is looked after while one waits: mpirun would end
 * the survivors without a word of theirs. */
#include "comm/comm.h"

#include "base/err.h"
#include "base/mem.h"

#include <errno.h>
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct peer {
    char host[64];
    int pid;
};

struct comm {
    MPI_Comm world;
    int rank, size;
    int tag; /* of the next operation */
    bool lost;
    struct peer *peers; /* [size] */
};

struct comm_op {
    struct comm *c;
    MPI_Request *requests; /* persistent */
    int *whom;             /* [n]: the other side */
    int *outcome;          /* [n]: Testsome's scratch */
    MPI_Status *statuses;
    int n, n_done;
    float *own;     /* a sum: where it goes, [n_own]; else NULL */
    float *scratch; /* [size - 1][n_own] */
    size_t n_own;
};

enum { CHUNK = 1 << 30 }; /* bytes of a message: MPI counts in int */

static bool under_mpirun(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMI_SIZE") || getenv("PMIX_RANK");
}

int comm_open(struct comm **out, struct runt_err *err)
{
    int level;
    if (!under_mpirun()) {
        *out = NULL;
        return 0;
    }
    struct comm *c = mem_zalloc(sizeof *c);
    if (!c)
        return err_nomem(err, "MPI");
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level) != MPI_SUCCESS) {
        mem_free(c);
        return err_set(err, RUNT_E_IO, "MPI does not start");
    }
    c->world = MPI_COMM_WORLD;
    MPI_Comm_set_errhandler(c->world, MPI_ERRORS_RETURN);
    MPI_Comm_rank(c->world, &c->rank);
    MPI_Comm_size(c->world, &c->size);
    c->peers = mem_array((size_t)c->size, sizeof *c->peers);
    if (!c->peers) { /* not to be told to the others */
        mem_free(c);
        return err_nomem(err, "MPI");
    }
    struct peer *me = &c->peers[c->rank];
    memset(me, 0, sizeof *me);
    gethostname(me->host, sizeof me->host - 1);
    me->pid = getpid();
    MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, c->peers, (int)sizeof *me,
                  MPI_BYTE, c->world);
    *out = c;
    return 0;
}

void comm_close(struct comm *c, int failed)
{
    if (!c)
        return;
    if (!c->lost && !failed)
        MPI_Finalize();
    mem_free(c->peers);
    mem_free(c);
}

unsigned comm_rank(const struct comm *c)
{
    return c ? (unsigned)c->rank : 0;
}

unsigned comm_size(const struct comm *c)
{
    return c ? (unsigned)c->size : 1;
}

bool comm_lost(const struct comm *c)
{
    return c && c->lost;
}

size_t comm_sum_bytes(const struct comm *c, size_t n_own)
{
    return (comm_size(c) - 1) * n_own * sizeof(float);
}

/* ---- operations ---- */

static size_t n_chunks(size_t bytes)
{
    return (bytes + CHUNK - 1) / CHUNK;
}

/* Requests to send or receive bytes, made but not started. */
static void add(struct comm_op *op, bool send, void *x, size_t bytes, int whom, int tag)
{
    unsigned char *p = x;
    for (size_t at = 0; at < bytes; at += CHUNK, op->n++) {
        int count = (int)(bytes - at < CHUNK ? bytes - at : CHUNK);
        op->whom[op->n] = whom;
        if (send)
            MPI_Send_init(p + at, count, MPI_BYTE, whom, tag, op->c->world,
                          &op->requests[op->n]);
        else
            MPI_Recv_init(p + at, count, MPI_BYTE, whom, tag, op->c->world,
                          &op->requests[op->n]);
    }
}

static int op_new(struct comm *c, size_t largest, size_t n_scratch,
                  struct comm_op **out, struct runt_err *err)
{
    struct comm_op *op = mem_zalloc(sizeof *op);
    size_t most = 2 * (size_t)c->size * (n_chunks(largest) + 1);
    if (op) {
        op->c = c;
        op->requests = mem_array(most, sizeof(MPI_Request));
        op->whom = mem_array(most, sizeof *op->whom);
        op->outcome = mem_array(most, sizeof *op->outcome);
        op->statuses = mem_array(most, sizeof(MPI_Status));
        op->scratch = mem_array(n_scratch, sizeof *op->scratch);
    }
    if (!op || !op->requests || !op->whom || !op->outcome || !op->statuses ||
        !op->scratch) {
        comm_op_free(op);
        return err_nomem(err, "the other processes' messages");
    }
    *out = op;
    return 0;
}

static size_t largest_part(const struct comm *c, const size_t *part)
{
    size_t most = 0;
    for (int r = 0; r < c->size; r++)
        most = part[r + 1] - part[r] > most ? part[r + 1] - part[r] : most;
    return most;
}

int comm_sum_new(struct comm *c, float *x, const size_t *part, struct comm_op **out,
                 struct runt_err *err)
{
    struct comm_op *op;
    size_t n = part[c->rank + 1] - part[c->rank];
    int rc = op_new(c, largest_part(c, part) * sizeof *x, (size_t)(c->size - 1) * n,
                    &op, err);
    if (rc)
        return rc;
    op->own = x + part[c->rank];
    op->n_own = n;
    for (int r = 0, k = 0; r < c->size; r++) {
        if (r == c->rank)
            continue;
        add(op, false, op->scratch + (size_t)k++ * n, n * sizeof *x, r, c->tag);
        add(op, true, x + part[r], (part[r + 1] - part[r]) * sizeof *x, r, c->tag);
    }
    c->tag++;
    *out = op;
    return 0;
}

int comm_gather_new(struct comm *c, void *x, const size_t *part, int root,
                    struct comm_op **out, struct runt_err *err)
{
    struct comm_op *op;
    unsigned char *p = x;
    int me = c->rank, rc = op_new(c, largest_part(c, part), 0, &op, err);
    if (rc)
        return rc;
    for (int r = 0; r < c->size; r++) {
        if (r == me)
            continue;
        if (root < 0 || root == me)
            add(op, false, p + part[r], part[r + 1] - part[r], r, c->tag);
        if (root < 0 || root == r)
            add(op, true, p + part[me], part[me + 1] - part[me], r, c->tag);
    }
    c->tag++;
    *out = op;
    return 0;
}

void comm_op_free(struct comm_op *op)
{
    if (!op)
        return;
    for (int i = 0; i < op->n && !op->c->lost; i++)
        MPI_Request_free(&op->requests[i]);
    mem_free(op->requests);
    mem_free(op->whom);
    mem_free(op->outcome);
    mem_free(op->statuses);
    mem_free(op->scratch);
    mem_free(op);
}

void comm_start(struct comm_op *op)
{
    op->n_done = 0;
    if (op->n && !op->c->lost)
        MPI_Startall(op->n, op->requests);
}

void comm_poll(struct comm *c)
{
    int flag;
    if (c && !c->lost)
        MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, c->world, &flag, MPI_STATUS_IGNORE);
}

static int gone(struct comm *c, int whom, struct runt_err *err)
{
    c->lost = true;
    return err_set(err, RUNT_E_IO,
                   "process %d of %d (host %s, pid %d) is gone: the run ends", whom,
                   c->size, c->peers[whom].host, c->peers[whom].pid);
}

/* A process of this host that is no more, or -1. */
static int missing(const struct comm *c)
{
    for (int r = 0; r < c->size; r++)
        if (!strcmp(c->peers[r].host, c->peers[c->rank].host) &&
            kill(c->peers[r].pid, 0) && errno == ESRCH)
            return r;
    return -1;
}

int comm_wait(struct comm_op *op, struct runt_err *err)
{
    struct comm *c = op->c;
    for (unsigned turn = 0; op->n_done < op->n; turn++) {
        int n, rc = c->lost ? MPI_SUCCESS
                            : MPI_Testsome(op->n, op->requests, &n, op->outcome,
                                           op->statuses);
        int whom = -1;
        if (c->lost)
            return err_set(err, RUNT_E_IO, "a process is gone: the run ends");
        for (int i = 0; i < n && rc == MPI_ERR_IN_STATUS; i++)
            if (op->statuses[i].MPI_ERROR != MPI_SUCCESS)
                whom = op->whom[op->outcome[i]];
        if (rc != MPI_SUCCESS)
            return gone(c, whom < 0 ? op->whom[0] : whom, err);
        op->n_done += n > 0 ? n : 0; /* MPI_UNDEFINED where none is active */
        if (n > 0 || turn < 1000)
            continue;
        if (turn % 100 == 0 && (whom = missing(c)) >= 0)
            return gone(c, whom, err);
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    }
    for (int k = 0; op->own && k < c->size - 1; k++)
        for (size_t i = 0; i < op->n_own; i++)
            op->own[i] += op->scratch[(size_t)k * op->n_own + i];
    return 0;
}
