/* Owns the meetings of all processes: numbers added up, faults told to all. */
#include "comm/comm.h"

#include "base/err.h"
#include "base/mem.h"

#include <string.h>

struct slot {
    double x[COMM_MEET_MAX];
    int rc;
    struct runt_err err;
};

static int meet(struct comm *c, struct slot *slots, size_t *part, struct runt_err *err)
{
    struct comm_op *op = NULL;
    for (unsigned r = 0; r <= comm_size(c); r++)
        part[r] = r * sizeof *slots;
    int rc = comm_gather_new(c, slots, part, -1, &op, err);
    if (rc)
        return rc;
    comm_start(op);
    rc = comm_wait(op, err);
    comm_op_free(op);
    return rc;
}

/* An interruption counts least: it is no fault. */
static bool worse(int a, int b)
{
    return a && (!b || (b == RUNT_E_INTERRUPTED && a != RUNT_E_INTERRUPTED));
}

int comm_meet(struct comm *c, double *x, size_t n, int rc, struct runt_err *err)
{
    unsigned size = comm_size(c);
    if (size == 1)
        return rc;
    struct slot *slots = mem_zalloc(size * sizeof *slots);
    size_t *part = mem_array(size + 1, sizeof *part);
    int bad = 0;
    if (!slots || !part) {
        bad = err_nomem(err, "a meeting of processes");
        goto out;
    }
    struct slot *me = &slots[comm_rank(c)];
    if (n)
        memcpy(me->x, x, n * sizeof *x);
    me->rc = rc;
    if (rc && err)
        me->err = *err;
    struct runt_err lost = {0};
    bad = meet(c, slots, part, &lost);
    if (bad && err)
        *err = lost;
    for (size_t k = 0; k < n && !bad; k++) {
        x[k] = 0;
        for (unsigned r = 0; r < size; r++)
            x[k] += slots[r].x[k];
    }
    const struct slot *worst = &slots[0];
    for (unsigned r = 1; r < size && !bad; r++)
        if (worse(slots[r].rc, worst->rc))
            worst = &slots[r];
    if (!bad && worst->rc) {
        bad = worst->rc;
        if (err)
            *err = worst->err;
    }
out:
    mem_free(slots);
    mem_free(part);
    return bad;
}
