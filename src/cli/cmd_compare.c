/* runt compare: two model files, tensor by tensor. */
#include "base/err.h"
#include "base/mem.h"
#include "base/pool.h"
#include "cli/convert.h"
#include "cli/verbs.h"
#include "gguf/gguf.h"

#include <math.h>
#include <string.h>

static int run(int argc, char **argv);

const struct cli_verb verb_compare = {
    .name = "compare",
    .summary = "show how two models differ, tensor by tensor",
    .usage = "compare A B [-o text|json]",
    .example = "runt compare gpt2.gguf gpt2-r4.gguf",
    .about = "Compares the weights of two models of the same shape, tensor by "
             "tensor.",
    .operands = {"MODEL", "MODEL"},
    .run = run,
};

enum { CHUNK = 64 }; /* rows that a thread reads at a time */

struct difference {
    const struct tensor_desc *a, *b; /* one of them NULL: the other has it alone */
    size_t ia, ib;
    bool same_shape;
    double rel_error, max_error; /* of B as seen from A */
};

struct side {
    const struct tensor_source *src;
};

/* One tensor's sums, chunk by chunk; added up in order, whoever made them. */
struct summing {
    const struct side *a, *b;
    struct difference *d;
    double *sq, *err, *max; /* [n_chunks] */
    size_t n_chunks;
    struct runt_err *errs; /* [n_threads] */
};

static void sum_chunks(void *ctx, unsigned i, unsigned n)
{
    struct summing *s = ctx;
    size_t n_cols = (size_t)s->d->a->n_cols, size;
    struct runt_err *e = &s->errs[i];
    float *x = size_mul(2 * CHUNK, n_cols, &size) ? mem_array(size, sizeof *x) : NULL;
    if (!x) {
        err_nomem(e, "rows to compare");
        return;
    }
    float *y = x + CHUNK * n_cols;
    for (size_t c = i; c < s->n_chunks; c += n) {
        uint64_t row = (uint64_t)c * CHUNK, left = s->d->a->n_rows - row,
                 m = left < CHUNK ? left : CHUNK;
        if (s->a->src->rows(s->a->src, s->d->ia, row, m, x, e) ||
            s->b->src->rows(s->b->src, s->d->ib, row, m, y, e))
            break;
        for (size_t k = 0; k < m * n_cols; k++) {
            double v = (double)x[k], diff = (double)y[k] - v;
            s->sq[c] += v * v;
            s->err[c] += diff * diff;
            if (!(fabs(diff) <= s->max[c]))
                s->max[c] = fabs(diff);
        }
    }
    mem_free(x);
}

static int measure(struct pool *pool, const struct side *a, const struct side *b,
                   struct difference *d, struct runt_err *err)
{
    unsigned n_threads = pool_n_threads(pool);
    struct summing s = {.a = a, .b = b, .d = d};
    s.n_chunks = (size_t)((d->a->n_rows + CHUNK - 1) / CHUNK);
    s.sq = mem_array(s.n_chunks, sizeof *s.sq);
    s.err = mem_array(s.n_chunks, sizeof *s.err);
    s.max = mem_array(s.n_chunks, sizeof *s.max);
    s.errs = mem_array(n_threads, sizeof *s.errs);
    int rc = s.sq && s.err && s.max && s.errs ? 0 : err_nomem(err, "sums");
    if (!rc)
        pool_run(pool, sum_chunks, &s);
    for (unsigned i = 0; i < n_threads && !rc; i++)
        if (s.errs[i].code) {
            *err = s.errs[i];
            rc = err->code;
        }
    double sq = 0, e = 0;
    for (size_t c = 0; c < s.n_chunks && !rc; c++) {
        sq += s.sq[c];
        e += s.err[c];
        d->max_error = !(s.max[c] <= d->max_error) ? s.max[c] : d->max_error;
    }
    d->rel_error = sq > 0 ? sqrt(e / sq) : e > 0 ? (double)INFINITY : 0;
    mem_free(s.sq);
    mem_free(s.err);
    mem_free(s.max);
    mem_free(s.errs);
    return rc;
}

/* A's tensors in its order, then those that B has alone. */
static size_t pair(const struct side *a, const struct side *b, struct difference *d)
{
    size_t n = 0;
    for (size_t i = 0; i < a->src->n_tensors; i++) {
        const struct tensor_desc *t = &a->src->tensors[i];
        d[n] = (struct difference){.a = t, .ia = i};
        for (size_t k = 0; k < b->src->n_tensors; k++)
            if (!strcmp(b->src->tensors[k].name, t->name)) {
                d[n].b = &b->src->tensors[k];
                d[n].ib = k;
                d[n].same_shape =
                    d[n].b->n_cols == t->n_cols && d[n].b->n_rows == t->n_rows;
            }
        n++;
    }
    for (size_t k = 0; k < b->src->n_tensors; k++) {
        bool known = false;
        for (size_t i = 0; i < a->src->n_tensors && !known; i++)
            known = !strcmp(b->src->tensors[k].name, a->src->tensors[i].name);
        if (!known)
            d[n++] = (struct difference){.b = &b->src->tensors[k], .ib = k};
    }
    return n;
}

static void print_text(const struct difference *d, size_t n)
{
    printf("%-28s %14s  %-6s %-6s %10s %10s\n", "tensor", "shape", "A", "B",
           "rel.error", "max.error");
    for (size_t i = 0; i < n; i++) {
        const struct tensor_desc *t = d[i].a ? d[i].a : d[i].b;
        char shape[48], name[TENSOR_NAME_MAX];
        snprintf(shape, sizeof shape, "%llu x %llu", (unsigned long long)t->n_rows,
                 (unsigned long long)t->n_cols);
        printf("%-28s %14s  %-6s %-6s", cli_plain(t->name, name, sizeof name), shape,
               d[i].a ? d[i].a->fmt->name : "-", d[i].b ? d[i].b->fmt->name : "-");
        if (d[i].same_shape)
            printf(" %10.3g %10.3g\n", d[i].rel_error, d[i].max_error);
        else
            printf(" %s\n", d[i].a && d[i].b ? "another shape in B" : "in one of them");
    }
}

static void print_number(const char *key, double x, bool known)
{
    if (known && isfinite(x))
        printf(",\"%s\":%.9g", key, x);
    else
        printf(",\"%s\":null", key);
}

static void print_json(const struct difference *d, size_t n)
{
    printf("[");
    for (size_t i = 0; i < n; i++) {
        const struct tensor_desc *t = d[i].a ? d[i].a : d[i].b;
        printf("%s\n{\"name\":", i ? "," : "");
        cli_json_str(stdout, t->name, strlen(t->name));
        printf(",\"a\":%s%s%s,\"b\":%s%s%s,\"same_shape\":%s", d[i].a ? "\"" : "",
               d[i].a ? d[i].a->fmt->name : "null", d[i].a ? "\"" : "",
               d[i].b ? "\"" : "", d[i].b ? d[i].b->fmt->name : "null",
               d[i].b ? "\"" : "", d[i].same_shape ? "true" : "false");
        print_number("rel_error", d[i].rel_error, d[i].same_shape);
        print_number("max_error", d[i].max_error, d[i].same_shape);
        printf("}");
    }
    printf("]\n");
}

static int compare(char *const paths[2], struct pool *pool, enum cli_format format,
                   struct runt_err *err)
{
    struct gguf *g[2] = {NULL, NULL};
    struct side a, b;
    struct difference *d = NULL;
    size_t n = 0;
    int rc = gguf_open(paths[0], &g[0], err);
    if (!rc)
        rc = gguf_open(paths[1], &g[1], err);
    if (rc)
        goto out;
    a = (struct side){&g[0]->source};
    b = (struct side){&g[1]->source};
    d = mem_array(a.src->n_tensors + b.src->n_tensors, sizeof *d);
    if (!d) {
        rc = err_nomem(err, "the comparison");
        goto out;
    }
    n = pair(&a, &b, d);
    for (size_t i = 0; i < n && !rc; i++) {
        if (d[i].same_shape)
            rc = measure(pool, &a, &b, &d[i], err);
        if (!rc && cli_progress(NULL, "comparing", i + 1, n))
            rc = err_set(err, RUNT_E_INTERRUPTED, "interrupted");
    }
    cli_progress_done();
    if (!rc && format == CLI_JSON)
        print_json(d, n);
    else if (!rc)
        print_text(d, n);
out:
    mem_free(d);
    gguf_close(g[0]);
    gguf_close(g[1]);
    return rc;
}

static int run(int argc, char **argv)
{
    const struct cli_verb *v = &verb_compare;
    const char *format_name = "text";
    int64_t n_threads = 0;
    struct cli_option options[] = {
        {"--output", "-o", CLI_STR, &format_name, "FORMAT text json", "text or json", 0,
         0},
        {"--threads", "-t", CLI_INT, &n_threads, "N", "threads, 0: one for each core",
         0, POOL_MAX_THREADS},
        {0},
    };
    struct cli_args args;
    int rc = cli_parse(v, options, argc, argv, 2, 2, &args);
    if (rc)
        return rc;
    struct runt_err err = {0};
    struct pool *pool = NULL;
    enum cli_format format = CLI_TEXT;
    char *paths[2] = {NULL, NULL};
    rc = cli_format_parse(v, format_name, "text,json", &format);
    if (rc)
        goto out;
    cli_catch_interrupt();
    for (int i = 0; i < 2 && !rc; i++)
        rc = convert_model_path(args.pos[i], &paths[i], &err);
    if (!rc)
        rc = pool_create((unsigned)n_threads, &pool, &err);
    if (!rc)
        rc = compare(paths, pool, format, &err);
    if (rc)
        rc = cli_fail(v, &err);
out:
    pool_destroy(pool);
    mem_free(paths[0]);
    mem_free(paths[1]);
    cli_free(options, &args);
    return rc;
}
