/* Owns the case of one process, in a program that was built without MPI. */
#include "comm/comm.h"

#include "base/err.h"

#include <stdlib.h>
#include <string.h>

int comm_open(struct comm **out, struct runt_err *err)
{
    const char *size = getenv("OMPI_COMM_WORLD_SIZE");
    if (size && strcmp(size, "1"))
        return err_set(
            err, RUNT_E_UNSUPPORTED,
            "mpirun started %s processes, but this program was built without "
            "MPI (-Dmpi=enabled)",
            size);
    *out = NULL;
    return 0;
}

void comm_close(struct comm *c, int failed)
{
    (void)c;
    (void)failed;
}

unsigned comm_rank(const struct comm *c)
{
    (void)c;
    return 0;
}

unsigned comm_size(const struct comm *c)
{
    (void)c;
    return 1;
}

int comm_sum_new(struct comm *c, float *x, const size_t *part, struct comm_op **out,
                 struct runt_err *err)
{
    (void)c, (void)x, (void)part, (void)err;
    *out = NULL;
    return 0;
}

int comm_gather_new(struct comm *c, void *x, const size_t *part, int root,
                    struct comm_op **out, struct runt_err *err)
{
    (void)c, (void)x, (void)part, (void)root, (void)err;
    *out = NULL;
    return 0;
}

bool comm_lost(const struct comm *c)
{
    (void)c;
    return false;
}

void comm_op_free(struct comm_op *op)
{
    (void)op;
}

void comm_start(struct comm_op *op)
{
    (void)op;
}

void comm_poll(struct comm *c)
{
    (void)c;
}

int comm_wait(struct comm_op *op, struct runt_err *err)
{
    (void)op, (void)err;
    return 0;
}

size_t comm_sum_bytes(const struct comm *c, size_t n_own)
{
    (void)c, (void)n_own;
    return 0;
}
