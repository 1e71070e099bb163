/* Owns the reading of logs: lines of JSON into curves. */
#include "report/plot.h"

#include "base/err.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_LOG = 1 << 30 };

/* What is larger, or smaller, has left the world of losses; sums, spans and quotients
 * of such numbers would leave that of doubles. */
static const double too_large = 1e100, too_small = 1e-100;

static const char *const members[PLOT_N_SERIES] = {
    [PLOT_LOSS] = "loss",
    [PLOT_VAL] = "val_loss",
    [PLOT_NORM] = "grad_norm",
    [PLOT_LR] = "lr",
    [PLOT_SPEED] = "tokens_per_second",
};

void plot_run_free(struct plot_run *r)
{
    for (int k = 0; k < PLOT_N_SERIES; k++) {
        mem_free(r->curves[k].steps);
        mem_free(r->curves[k].values);
    }
    mem_free(r->path);
    mem_free(r->name);
    *r = (struct plot_run){0};
}

static int put(struct plot_curve *c, uint64_t step, double value, struct runt_err *err)
{
    if (c->n == c->room) {
        size_t room = c->room ? c->room * 2 : 256;
        uint64_t *steps = mem_resize(c->steps, room, sizeof *steps);
        c->steps = steps ? steps : c->steps;
        double *values = mem_resize(c->values, room, sizeof *values);
        c->values = values ? values : c->values;
        if (!steps || !values)
            return err_nomem(err, "a curve");
        c->room = room;
    }
    c->steps[c->n] = step;
    if (fabs(value) < too_small)
        value = 0;
    c->values[c->n++] = fabs(value) < too_large ? value : (double)NAN;
    return 0;
}

/* The run went on from before this step. */
static void forget(struct plot_run *r, uint64_t step)
{
    for (int k = 0; k < PLOT_N_SERIES; k++) {
        struct plot_curve *c = &r->curves[k];
        while (c->n && c->steps[c->n - 1] >= step)
            c->n--;
    }
}

static int put_line(struct plot_run *r, const json_t *o, const char *where,
                    struct runt_err *err)
{
    uint64_t step;
    int rc = json_is_object(o) ? js_get_uint(o, "step", INT64_MAX, where, &step, err)
                               : RUNT_E_NOTFOUND;
    if (rc == RUNT_E_NOTFOUND)
        return err_set(err, RUNT_E_FORMAT, "%s: not a line of a training log", where);
    if (rc)
        return rc;
    for (int k = 0; k < PLOT_N_SERIES; k++) {
        const json_t *v = json_object_get(o, members[k]);
        if (v && !json_is_null(v) && !json_is_number(v))
            return err_set(err, RUNT_E_FORMAT, "%s: %s is not a number", where,
                           members[k]);
    }
    if (step <= r->last_step)
        forget(r, step);
    r->last_step = step;
    for (int k = 0; k < PLOT_N_SERIES && !rc; k++) {
        const json_t *v = json_object_get(o, members[k]);
        if (v)
            rc = put(&r->curves[k], step,
                     json_is_number(v) ? json_number_value(v) : (double)NAN, err);
    }
    return rc;
}

/* runs/a/log.jsonl is called a, runs/b.jsonl b. */
static char *name_of(const char *path)
{
    static const char usual[] = "log.jsonl", end[] = ".jsonl";
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t n = strlen(name);
    if (!strcmp(name, usual) && slash) {
        const char *to = slash;
        while (to > path && to[-1] == '/')
            to--;
        const char *from = to;
        while (from > path && from[-1] != '/')
            from--;
        if (from < to)
            return mem_strndup(from, (size_t)(to - from));
    }
    if (n >= sizeof end && !strcmp(name + n - (sizeof end - 1), end))
        n -= sizeof end - 1;
    return !strcmp(path, "-") ? mem_strdup("standard input") : mem_strndup(name, n);
}

static bool has_numbers(const struct plot_run *r)
{
    for (int k = 0; k < PLOT_N_SERIES; k++)
        for (size_t i = 0; i < r->curves[k].n; i++)
            if (isfinite(r->curves[k].values[i]))
                return true;
    return false;
}

static int parse_lines(const char *text, size_t n, struct plot_run *r,
                       struct runt_err *err)
{
    const char *end = text + n;
    size_t line = 1;
    for (const char *p = text, *stop; p < end; p = stop + 1, line++) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        char where[512];
        json_t *o = NULL;
        stop = newline ? newline : end;
        if (stop == p)
            continue;
        snprintf(where, sizeof where, "%.440s, line %zu", r->path, line);
        int rc = js_parse(p, (size_t)(stop - p), where, &o, err);
        if (!rc)
            rc = put_line(r, o, where, err);
        json_decref(o);
        if (rc && (newline || rc != RUNT_E_FORMAT)) /* else it was cut short */
            return rc;
    }
    return has_numbers(r) ? 0
                          : err_set(err, RUNT_E_FORMAT,
                                    "%s: no numbers of a training run", r->path);
}

int plot_parse(const char *text, size_t n, const char *path, struct plot_run *out,
               struct runt_err *err)
{
    struct plot_run r = {.path = mem_strdup(path), .name = name_of(path)};
    int rc = r.path && r.name ? parse_lines(text, n, &r, err) : err_nomem(err, path);
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
