/* Owns the reading of logs. */
#include "report/plot.h"

#include "base/err.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_LOG = 1 << 30 };

static const char *const members[PLOT_N_SERIES] = {
    [PLOT_LOSS] = "loss",
    [PLOT_VAL] = "val_loss",
    [PLOT_LR] = "lr",
    [PLOT_NORM] = "grad_norm",
    [PLOT_SPEED] = "tokens_per_second",
};

void plot_run_free(struct plot_run *r)
{
    for (int k = 0; k < PLOT_N_SERIES; k++)
        mem_free(r->value[k]);
    mem_free(r->steps);
    mem_free(r->name);
    memset(r, 0, sizeof *r);
}

static int grow(struct plot_run *r, size_t *room, struct runt_err *err)
{
    if (r->n < *room)
        return 0;
    size_t more = *room ? *room * 2 : 256;
    uint64_t *steps = mem_resize(r->steps, more, sizeof *steps);
    bool ok = steps != NULL;
    r->steps = ok ? steps : r->steps;
    for (int k = 0; ok && k < PLOT_N_SERIES; k++) {
        double *v = mem_resize(r->value[k], more, sizeof *v);
        ok = v != NULL;
        r->value[k] = ok ? v : r->value[k];
    }
    *room = ok ? more : *room;
    return ok ? 0 : err_nomem(err, r->name);
}

static int put(struct plot_run *r, size_t *room, const json_t *o, const char *where,
               struct runt_err *err)
{
    uint64_t step;
    int rc = json_is_object(o) ? js_get_uint(o, "step", UINT64_MAX, where, &step, err)
                               : RUNT_E_NOTFOUND;
    if (rc == RUNT_E_NOTFOUND)
        return err_set(err, RUNT_E_FORMAT, "%s: not a line of a training log", where);
    if (rc)
        return rc;
    while (r->n && r->steps[r->n - 1] >= step) /* gone on from before it */
        r->n--;
    rc = grow(r, room, err);
    if (rc)
        return rc;
    r->steps[r->n] = step;
    for (int k = 0; k < PLOT_N_SERIES; k++) {
        const json_t *v = json_object_get(o, members[k]);
        r->value[k][r->n] = json_is_number(v) ? json_number_value(v) : (double)NAN;
    }
    r->n++;
    return 0;
}

int plot_parse(const char *text, size_t n, const char *name, struct plot_run *out,
               struct runt_err *err)
{
    struct plot_run r = {.name = mem_strdup(name)};
    const char *end = text + n;
    size_t room = 0, line = 1;
    int rc = r.name ? 0 : err_nomem(err, name);
    for (const char *p = text; p < end && !rc; line++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t len = (size_t)((stop ? stop : end) - p);
        json_t *o = NULL;
        char where[512];
        snprintf(where, sizeof where, "%s, line %zu", name, line);
        if (len) {
            rc = js_parse(p, len, where, &o, stop ? err : NULL);
            if (!rc)
                rc = put(&r, &room, o, where, stop ? err : NULL);
            if (!stop && rc != RUNT_E_NOMEM)
                rc = 0; /* cut short */
        }
        json_decref(o);
        p += len + 1;
    }
    if (!rc && !r.n)
        rc = err_set(err, RUNT_E_FORMAT, "%s holds no line of a training log", name);
    if (rc)
        plot_run_free(&r);
    else
        *out = r;
    return rc;
}

int plot_read(const char *path, struct plot_run *out, struct runt_err *err)
{
    char *text;
    size_t n;
    int rc = file_read(path, MAX_LOG, &text, &n, err);
    if (rc)
        return rc;
    rc = plot_parse(text, n, path, out, err);
    mem_free(text);
    return rc;
}
