/* Owns the form of a checkpoint file, and the folder of them. */
#include "train/checkpoint.h"

#include "base/err.h"
#include "base/fold.h"
#include "model/adapter.h"
#include "model/model.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VERSION = 1 };

/* The first parameter that a checkpoint holds: with adapters none of the model's own.
 */
static size_t first(const struct net *n)
{
    return n->o.lora.rank ? n->n_own : 0;
}

/* Of the weights that it holds, then of the moments, as they lie in memory. */
static uint64_t checksum(const struct optim *o)
{
    const struct net *n = o->net;
    size_t n_kept = n->o.lora.rank ? n->n_trained : n->n_weights;
    uint64_t h = fold(1, n->w, n_kept * sizeof(float));
    h = fold(h, o->m, n->n_trained * sizeof(float));
    return fold(h, o->v, n->n_trained * sizeof(float));
}

/* Of the weights that adapters are for. */
static uint64_t base_checksum(const struct net *n)
{
    return fold(1, n->w + n->n_trained, (n->n_weights - n->n_trained) * sizeof(float));
}

/* 64 bits, and doubles to the last bit, as text: GGUF readers differ in what else they
 * know. */
static void set_hex(struct gguf_writer *w, const char *key, uint64_t v)
{
    char s[24];
    snprintf(s, sizeof s, "%016" PRIx64, v);
    gguf_set_str(w, key, s, strlen(s));
}

static void set_double(struct gguf_writer *w, const char *key, double v)
{
    char s[40];
    snprintf(s, sizeof s, "%a", v);
    gguf_set_str(w, key, s, strlen(s));
}

static void add(struct gguf_writer *w, const char *prefix, const struct net_param *p)
{
    char name[TENSOR_NAME_MAX + 2];
    snprintf(name, sizeof name, "%s%s", prefix, p->desc.name);
    gguf_add_tensor(w, name, p->desc.fmt, p->desc.n_dims, p->desc.n_cols,
                    p->desc.n_rows);
}

static int put(struct gguf_writer *w, const struct net_param *p, const float *from,
               struct runt_err *err)
{
    return gguf_write(w, from + p->at, p->desc.n_rows * p->desc.n_cols * sizeof *from,
                      err);
}

static int write_all(const char *path, struct gguf_writer *w, const struct optim *o,
                     struct runt_err *err)
{
    const struct net *n = o->net;
    size_t from = first(n);
    for (size_t p = from; p < n->n_params; p++)
        add(w, "", &n->params[p]);
    for (int moment = 0; moment < 2; moment++)
        for (size_t p = from; p < n->n_params; p++)
            if (!n->params[p].frozen)
                add(w, moment ? "v." : "m.", &n->params[p]);
    int rc = gguf_begin(w, path, err);
    for (size_t p = from; p < n->n_params && !rc; p++)
        rc = put(w, &n->params[p], n->w, err);
    for (int moment = 0; moment < 2; moment++)
        for (size_t p = from; p < n->n_params && !rc; p++)
            if (!n->params[p].frozen)
                rc = put(w, &n->params[p], moment ? o->v : o->m, err);
    return rc ? rc : gguf_finish(w, NULL, err);
}

/* Some rows at a time: where there are adapters, they are merged on the way. */
static int write_source(const char *path, struct gguf_writer *w,
                        const struct tensor_source *src, struct runt_err *err)
{
    enum { SOME = 1 << 20 };
    size_t largest = 0;
    for (size_t i = 0; i < src->n_tensors; i++) {
        const struct tensor_desc *d = &src->tensors[i];
        gguf_add_tensor(w, d->name, d->fmt, d->n_dims, d->n_cols, d->n_rows);
        largest = d->n_cols > largest ? (size_t)d->n_cols : largest;
    }
    size_t room = largest > SOME ? largest : SOME;
    float *x = mem_array(room, sizeof *x);
    int rc = x ? gguf_begin(w, path, err) : err_nomem(err, "rows of a model");
    for (size_t i = 0; i < src->n_tensors && !rc; i++) {
        const struct tensor_desc *d = &src->tensors[i];
        uint64_t most = room / d->n_cols;
        for (uint64_t row = 0; row < d->n_rows && !rc; row += most) {
            uint64_t n = d->n_rows - row < most ? d->n_rows - row : most;
            rc = src->rows(src, i, row, n, x, err);
            if (!rc)
                rc = gguf_write(w, x, n * d->n_cols * sizeof *x, err);
        }
    }
    mem_free(x);
    return rc ? rc : gguf_finish(w, NULL, err);
}

int checkpoint_write_model(const char *path, const struct net *net,
                           const struct checkpoint_meta *meta, struct runt_err *err)
{
    struct gguf_writer *w = NULL;
    int rc = net_fetch(net, err);
    if (!rc)
        rc = gguf_writer_create(&w, err);
    if (!rc)
        rc = meta->fn(meta->ctx, false, w, err);
    if (!rc) {
        gguf_set_u32(w, "general.file_type", 0); /* all F32 */
        rc = write_source(path, w, &net->source, err);
    }
    gguf_writer_destroy(w);
    return rc;
}

static int write_adapter(const char *path, struct gguf_writer *w, const struct net *n,
                         struct runt_err *err)
{
    struct adapter_matrix m;
    for (size_t p = 0; p < n->n_own; p++)
        if (net_lora_at(n, p, &m))
            adapter_add(w, &m);
    int rc = gguf_begin(w, path, err);
    for (size_t p = 0; p < n->n_own && !rc; p++)
        if (net_lora_at(n, p, &m))
            rc = adapter_write(w, &m, err);
    return rc ? rc : gguf_finish(w, NULL, err);
}

int checkpoint_write_adapter(const char *path, const struct net *net,
                             const struct checkpoint_meta *meta, struct runt_err *err)
{
    struct gguf_writer *w = NULL;
    int rc = gguf_writer_create(&w, err);
    if (!rc)
        rc = meta->fn(meta->ctx, true, w, err);
    if (!rc)
        rc = write_adapter(path, w, net, err);
    gguf_writer_destroy(w);
    return rc;
}

int checkpoint_write(const char *path, const struct optim *o,
                     const struct checkpoint_state *s,
                     const struct checkpoint_meta *meta, const char *const *args,
                     size_t n_args, struct runt_err *err)
{
    struct gguf_writer *w = NULL;
    struct gguf_str *strings = mem_array(n_args, sizeof *strings);
    if (!strings)
        return err_nomem(err, "a checkpoint");
    for (size_t i = 0; i < n_args; i++)
        strings[i] = (struct gguf_str){args[i], strlen(args[i])};
    bool adapter = o->net->o.lora.rank > 0;
    int rc = net_fetch(o->net, err);
    if (!rc)
        rc = optim_fetch(o, err);
    if (!rc)
        rc = gguf_writer_create(&w, err);
    if (!rc)
        rc = meta->fn(meta->ctx, adapter, w, err);
    if (!rc) {
        gguf_set_str(w, "general.architecture", MODEL_ARCH_CHECKPOINT,
                     strlen(MODEL_ARCH_CHECKPOINT));
        gguf_set_u32(w, "train.version", VERSION);
        set_hex(w, "train.step", s->step);
        set_hex(w, "train.samples", s->samples);
        set_hex(w, "train.seed", s->seed);
        set_hex(w, "train.run", s->run);
        set_double(w, "train.loss.smooth", s->smooth);
        set_double(w, "train.loss.best", s->best);
        set_hex(w, "train.checksum", checksum(o));
        if (adapter)
            set_hex(w, "train.base", base_checksum(o->net));
        gguf_set_strings(w, "train.arguments", strings, n_args);
        rc = write_all(path, w, o, err);
    }
    gguf_writer_destroy(w);
    mem_free(strings);
    return rc;
}

/* ---- reading ---- */

static int get_text(const struct gguf *g, const char *key, char buf[static 40],
                    struct runt_err *err)
{
    struct gguf_str s;
    int rc = gguf_get_str(g, key, &s, err);
    if (rc)
        return rc;
    if (!s.len || s.len >= 40)
        return err_set(err, RUNT_E_FORMAT, "%s: %s is damaged", g->path, key);
    memcpy(buf, s.data, s.len);
    buf[s.len] = 0;
    return 0;
}

static int get_hex(const struct gguf *g, const char *key, uint64_t *out,
                   struct runt_err *err)
{
    char buf[40], *end;
    int rc = get_text(g, key, buf, err);
    if (rc)
        return rc;
    uint64_t v = strtoull(buf, &end, 16);
    if (*end)
        return err_set(err, RUNT_E_FORMAT, "%s: %s is damaged", g->path, key);
    *out = v;
    return 0;
}

static int get_double(const struct gguf *g, const char *key, double *out,
                      struct runt_err *err)
{
    char buf[40], *end;
    int rc = get_text(g, key, buf, err);
    if (rc)
        return rc;
    double v = strtod(buf, &end);
    if (*end)
        return err_set(err, RUNT_E_FORMAT, "%s: %s is damaged", g->path, key);
    *out = v;
    return 0;
}

int checkpoint_read_state(const struct gguf *g, struct checkpoint_state *s,
                          struct gguf_str **args, size_t *n_args, struct runt_err *err)
{
    struct checkpoint_state c;
    uint64_t version;
    if (!gguf_find(g, "train.version"))
        return err_set(err, RUNT_E_FORMAT, "%s is a model, not a checkpoint", g->path);
    int rc = gguf_get_uint(g, "train.version", UINT32_MAX, &version, err);
    if (!rc && version != VERSION)
        rc = err_set(err, RUNT_E_UNSUPPORTED,
                     "%s is a checkpoint of version %" PRIu64 "; this program has %d",
                     g->path, version, VERSION);
    rc = rc ? rc : get_hex(g, "train.step", &c.step, err);
    rc = rc ? rc : get_hex(g, "train.samples", &c.samples, err);
    rc = rc ? rc : get_hex(g, "train.seed", &c.seed, err);
    rc = rc ? rc : get_hex(g, "train.run", &c.run, err);
    rc = rc ? rc : get_double(g, "train.loss.smooth", &c.smooth, err);
    rc = rc ? rc : get_double(g, "train.loss.best", &c.best, err);
    rc = rc ? rc : gguf_get_strings(g, "train.arguments", args, n_args, err);
    if (!rc)
        *s = c;
    return rc;
}

static int take(const struct gguf *g, const char *prefix, const struct net_param *p,
                float *to, struct runt_err *err)
{
    char name[TENSOR_NAME_MAX + 2];
    snprintf(name, sizeof name, "%s%s", prefix, p->desc.name);
    const struct gguf_tensor *t = gguf_find_tensor(g, name);
    size_t bytes = p->desc.n_rows * p->desc.n_cols * sizeof *to;
    if (!t)
        return err_set(err, RUNT_E_INVALID,
                       "%s: there is no %s: it was frozen otherwise", g->path, name);
    if (t->desc.fmt->type != FMT_F32 || t->bytes != bytes ||
        t->desc.n_cols != p->desc.n_cols)
        return err_set(err, RUNT_E_INVALID,
                       "%s: %s is not %llu x %llu floats: a run of another shape",
                       g->path, name, (unsigned long long)p->desc.n_rows,
                       (unsigned long long)p->desc.n_cols);
    memcpy(to + p->at, t->data, bytes);
    return 0;
}

int checkpoint_read(const struct gguf *g, struct optim *o, struct runt_err *err)
{
    struct net *n = o->net;
    uint64_t want, base = 0;
    int rc = get_hex(g, "train.checksum", &want, err);
    if (!rc && n->o.lora.rank)
        rc = get_hex(g, "train.base", &base, err);
    if (!rc && n->o.lora.rank && base != base_checksum(n))
        rc = err_set(err, RUNT_E_INVALID,
                     "%s holds adapters of other weights: --init is not the model that "
                     "the run began with",
                     g->path);
    for (size_t p = first(n); p < n->n_params && !rc; p++) {
        rc = take(g, "", &n->params[p], n->w, err);
        if (!rc && !n->params[p].frozen)
            rc = take(g, "m.", &n->params[p], o->m, err);
        if (!rc && !n->params[p].frozen)
            rc = take(g, "v.", &n->params[p], o->v, err);
    }
    if (!rc && checksum(o) != want)
        rc = err_set(err, RUNT_E_FORMAT, "%s is damaged: its checksum is another",
                     g->path);
    if (!rc)
        rc = net_filled(n, err);
    return rc ? rc : optim_filled(o, err);
}

/* ---- the folder ---- */

char *checkpoint_path(const char *folder, uint64_t step)
{
    return mem_printf("%s/step-%08" PRIu64 ".gguf", folder, step);
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

int checkpoint_list(const char *folder, uint64_t **steps, size_t *n,
                    struct runt_err *err)
{
    DIR *d = opendir(folder);
    if (!d && errno != ENOENT)
        return err_errno(err, folder, "read");
    uint64_t *list = mem_alloc(0);
    size_t count = 0;
    for (struct dirent *e; list && d && (e = readdir(d));) {
        uint64_t step;
        int end = 0;
        if (sscanf(e->d_name, "step-%" SCNu64 ".gguf%n", &step, &end) != 1 || !end ||
            e->d_name[end])
            continue;
        uint64_t *more = mem_resize(list, count + 1, sizeof *list);
        if (!more)
            mem_free(list);
        list = more;
        if (list)
            list[count++] = step;
    }
    if (d)
        closedir(d);
    if (!list)
        return err_nomem(err, "the list of checkpoints");
    qsort(list, count, sizeof *list, ascending);
    *steps = list;
    *n = count;
    return 0;
}
