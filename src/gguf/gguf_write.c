/* Owns the writing of model files: metadata and a tensor table, gathered in memory,
 * then the tensors' bytes, streamed.
 *
 * The table promises every size before the first byte is written, so the file needs one
 * pass and no seeking; gguf_finish holds the caller to that promise and only then gives
 * the file its name.  The same calls give the same bytes.  Names, shapes and types that
 * gguf_read.c would refuse are refused here too.
 *
 * The first failure sticks: setters return nothing, and a caller that overlooks a
 * failed write must not get a file. */
#include "gguf/gguf_impl.h"

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"

#include <string.h>

/* One call of a setter: key, type and value, as the file holds them, in `meta`. */
struct entry {
    size_t begin, end;
    size_t key_len;
};

struct planned {
    struct tensor_desc desc;
    size_t bytes;
    uint64_t offset; /* into the data section */
};

struct gguf_writer {
    struct strbuf meta;
    struct entry *entries;
    size_t n_entries, cap_entries;
    struct planned *tensors;
    size_t n_tensors, cap_tensors;
    struct file_out *out; /* between begin and finish */
    char *path;           /* set by begin */
    size_t at;            /* the tensor that gguf_write fills */
    size_t done;          /* its bytes so far */
    struct runt_err fail; /* the first failure; code 0: none */
};

static const unsigned char zeros[GGUF_ALIGNMENT];

static int report(const struct gguf_writer *w, struct runt_err *err)
{
    if (err)
        *err = w->fail;
    return w->fail.code;
}

int gguf_writer_create(struct gguf_writer **out, struct runt_err *err)
{
    struct gguf_writer *w = mem_zalloc(sizeof *w);
    if (!w)
        return err_nomem(err, "a model file's writer");
    *out = w;
    return 0;
}

void gguf_writer_destroy(struct gguf_writer *w)
{
    if (!w)
        return;
    file_out_abort(w->out);
    sb_free(&w->meta);
    mem_free(w->entries);
    mem_free(w->tensors);
    mem_free(w->path);
    mem_free(w);
}

static void put_le(struct strbuf *b, uint64_t v, unsigned n_bytes)
{
    unsigned char bytes[8];
    for (unsigned i = 0; i < n_bytes; i++)
        bytes[i] = (unsigned char)(v >> (8 * i));
    sb_put(b, bytes, n_bytes);
}

static void put_str(struct strbuf *b, const char *s, size_t len)
{
    put_le(b, len, 8);
    sb_put(b, s, len);
}

/* Room for one more item; NULL when there is none. */
static void *grow(void *items, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return items;
    size_t more = *cap ? *cap * 2 : 32;
    void *p = mem_resize(items, more, size);
    if (p)
        *cap = more;
    return p;
}

/* ---- metadata ---- */

/* Start an entry: the caller appends the value, then calls end_entry.  False when there
 * is nothing to append to. */
static bool begin_entry(struct gguf_writer *w, struct gguf_str key, enum gguf_type type)
{
    static const char alignment[] = GGUF_KEY_ALIGNMENT;
    if (w->fail.code)
        return false;
    if (w->path) {
        err_set(&w->fail, RUNT_E_INVALID, "%s: key %.*s set after the file was begun",
                w->path, (int)(key.len < 64 ? key.len : 64), key.data);
        return false;
    }
    if (!gguf_name_ok(key.data, key.len, GGUF_KEY_MAX)) {
        err_set(&w->fail, RUNT_E_INVALID, "key %zu has a bad name of %zu bytes",
                w->n_entries, key.len);
        return false;
    }
    if (key.len == sizeof alignment - 1 && !memcmp(key.data, alignment, key.len))
        return false; /* another file's; ours is always the default */
    struct entry *e = grow(w->entries, w->n_entries, &w->cap_entries, sizeof *e);
    if (!e) {
        err_nomem(&w->fail, "a model file's metadata");
        return false;
    }
    w->entries = e;
    e[w->n_entries] = (struct entry){.begin = w->meta.len, .key_len = key.len};
    put_str(&w->meta, key.data, key.len);
    put_le(&w->meta, type, 4);
    return true;
}

static void end_entry(struct gguf_writer *w)
{
    if (w->meta.failed)
        err_nomem(&w->fail, "a model file's metadata");
    else
        w->entries[w->n_entries++].end = w->meta.len;
}

static void set_scalar(struct gguf_writer *w, const char *key, enum gguf_type type,
                       uint64_t bits)
{
    if (!begin_entry(w, (struct gguf_str){key, strlen(key)}, type))
        return;
    put_le(&w->meta, bits, (unsigned)gguf_scalar_bytes(type));
    end_entry(w);
}

void gguf_set_u32(struct gguf_writer *w, const char *key, uint32_t v)
{
    set_scalar(w, key, GGUF_U32, v);
}

void gguf_set_f32(struct gguf_writer *w, const char *key, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    set_scalar(w, key, GGUF_F32, bits);
}

void gguf_set_bool(struct gguf_writer *w, const char *key, bool v)
{
    set_scalar(w, key, GGUF_BOOL, v);
}

void gguf_set_str(struct gguf_writer *w, const char *key, const char *s, size_t len)
{
    if (!begin_entry(w, (struct gguf_str){key, strlen(key)}, GGUF_STR))
        return;
    put_str(&w->meta, s, len);
    end_entry(w);
}

static bool begin_array(struct gguf_writer *w, const char *key, enum gguf_type elem,
                        size_t n)
{
    if (!begin_entry(w, (struct gguf_str){key, strlen(key)}, GGUF_ARR))
        return false;
    put_le(&w->meta, elem, 4);
    put_le(&w->meta, n, 8);
    return true;
}

void gguf_set_strings(struct gguf_writer *w, const char *key, const struct gguf_str *s,
                      size_t n)
{
    if (!begin_array(w, key, GGUF_STR, n))
        return;
    for (size_t i = 0; i < n; i++)
        put_str(&w->meta, s[i].data, s[i].len);
    end_entry(w);
}

void gguf_set_i32s(struct gguf_writer *w, const char *key, const int32_t *v, size_t n)
{
    if (!begin_array(w, key, GGUF_I32, n))
        return;
    for (size_t i = 0; i < n; i++)
        put_le(&w->meta, (uint32_t)v[i], 4);
    end_entry(w);
}

void gguf_set_kv(struct gguf_writer *w, const struct gguf_kv *kv)
{
    if (!begin_entry(w, kv->key, kv->type))
        return;
    if (kv->type == GGUF_ARR) {
        put_le(&w->meta, kv->elem, 4);
        put_le(&w->meta, kv->n, 8);
    }
    sb_put(&w->meta, kv->value, kv->bytes);
    end_entry(w);
}

/* ---- the tensor table ---- */

void gguf_add_tensor(struct gguf_writer *w, const char *name,
                     const struct fmt_info *fmt, unsigned n_dims, uint64_t n_cols,
                     uint64_t n_rows)
{
    size_t len = strlen(name);
    if (w->fail.code)
        return;
    if (w->path) {
        err_set(&w->fail, RUNT_E_INVALID,
                "%s: tensor %s added after the file was begun", w->path, name);
        return;
    }
    if (!gguf_name_ok(name, len, TENSOR_NAME_MAX - 1)) {
        err_set(&w->fail, RUNT_E_INVALID, "tensor %zu has a bad name of %zu bytes",
                w->n_tensors, len);
        return;
    }
    struct planned *t = grow(w->tensors, w->n_tensors, &w->cap_tensors, sizeof *t);
    if (!t) {
        err_nomem(&w->fail, "a model file's tensor table");
        return;
    }
    w->tensors = t;
    t += w->n_tensors;
    *t = (struct planned){
        .desc = {.fmt = fmt, .n_cols = n_cols, .n_rows = n_rows, .n_dims = n_dims}};
    memcpy(t->desc.name, name, len);
    if (n_dims < 1 || n_dims > 2 || (n_dims == 1 && n_rows != 1) || !n_cols ||
        !n_rows || !fmt_tensor_bytes(fmt, n_cols, n_rows, &t->bytes)) {
        err_set(&w->fail, RUNT_E_INVALID,
                "tensor %s: %u dimensions, %llu columns, %llu rows are no %s tensor",
                name, n_dims, (unsigned long long)n_cols, (unsigned long long)n_rows,
                fmt->name);
        return;
    }
    w->n_tensors++;
}

/* Offsets, in the order of the table, each a multiple of the alignment. */
static int plan(struct gguf_writer *w, struct runt_err *err)
{
    int rc = 0;
    uint64_t pos = 0;
    struct gguf_name *names = mem_array(w->n_tensors, sizeof *names);
    if (!names)
        return err_nomem(err, "a model file's tensor table");
    if (w->n_tensors > GGUF_MAX_TENSORS) {
        rc = err_set(err, RUNT_E_INVALID, "%zu tensors, the limit is %d", w->n_tensors,
                     GGUF_MAX_TENSORS);
        goto out;
    }
    for (size_t i = 0; i < w->n_tensors; i++) {
        struct planned *t = &w->tensors[i];
        names[i] = (struct gguf_name){t->desc.name, (uint32_t)strlen(t->desc.name),
                                      (uint32_t)i};
        t->offset = pos;
        if (pos > INT64_MAX || t->bytes > INT64_MAX - pos) {
            rc = err_set(err, RUNT_E_NOMEM, "tensor %s: the file's size overflows",
                         t->desc.name);
            goto out;
        }
        pos = gguf_align(pos + t->bytes, GGUF_ALIGNMENT);
    }
    gguf_names_sort(names, w->n_tensors);
    for (size_t i = 1; i < w->n_tensors; i++)
        if (gguf_name_equal(&names[i - 1], &names[i])) {
            rc =
                err_set(err, RUNT_E_INVALID, "tensor %s is added twice", names[i].data);
            goto out;
        }
out:
    mem_free(names);
    return rc;
}

/* ---- the file ---- */

static int put(struct gguf_writer *w, struct strbuf *b, struct runt_err *err)
{
    int rc = b->failed ? err_nomem(err, w->path)
                       : file_out_write(w->out, b->data, b->len, err);
    sb_free(b);
    return rc;
}

static int pad(struct gguf_writer *w, struct runt_err *err)
{
    size_t over = (size_t)(file_out_pos(w->out) % GGUF_ALIGNMENT);
    return over ? file_out_write(w->out, zeros, GGUF_ALIGNMENT - over, err) : 0;
}

/* Header and metadata.  Of several entries with one key the place of the first and the
 * value of the last count; sorting finds them without a quadratic search. */
static int put_metadata(struct gguf_writer *w, struct runt_err *err)
{
    int rc = 0;
    size_t n = w->n_entries, n_keys = 0;
    struct strbuf head = {0};
    struct gguf_name *names = mem_array(n, sizeof *names);
    const struct entry **last = mem_array(n, sizeof *last); /* NULL: not a first */
    if (!names || !last) {
        rc = err_nomem(err, w->path);
        goto out;
    }
    for (size_t i = 0; i < n; i++)
        names[i] = (struct gguf_name){w->meta.data + w->entries[i].begin + 8,
                                      (uint32_t)w->entries[i].key_len, (uint32_t)i};
    gguf_names_sort(names, n);
    for (size_t i = 0, first = 0; i < n; i++) {
        if (i + 1 < n && gguf_name_equal(&names[i], &names[i + 1]))
            continue;
        last[names[first].index] = &w->entries[names[i].index];
        first = i + 1;
        n_keys++;
    }
    if (n_keys > GGUF_MAX_KV) {
        rc = err_set(err, RUNT_E_INVALID, "%s: %zu keys, the limit is %d", w->path,
                     n_keys, GGUF_MAX_KV);
        goto out;
    }
    put_le(&head, GGUF_MAGIC, 4);
    put_le(&head, GGUF_VERSION, 4);
    put_le(&head, w->n_tensors, 8);
    put_le(&head, n_keys, 8);
    rc = put(w, &head, err);
    for (size_t i = 0; i < n && !rc; i++)
        if (last[i])
            rc = file_out_write(w->out, w->meta.data + last[i]->begin,
                                last[i]->end - last[i]->begin, err);
out:
    mem_free(names);
    mem_free(last);
    return rc;
}

static int put_table(struct gguf_writer *w, struct runt_err *err)
{
    struct strbuf b = {0};
    for (size_t i = 0; i < w->n_tensors; i++) {
        const struct planned *t = &w->tensors[i];
        const struct tensor_desc *d = &t->desc;
        put_str(&b, d->name, strlen(d->name));
        put_le(&b, d->n_dims, 4);
        put_le(&b, d->n_cols, 8);
        if (d->n_dims == 2)
            put_le(&b, d->n_rows, 8);
        put_le(&b, (uint32_t)d->fmt->type, 4);
        put_le(&b, t->offset, 8);
    }
    int rc = put(w, &b, err);
    return rc ? rc : pad(w, err);
}

int gguf_begin(struct gguf_writer *w, const char *path, struct runt_err *err)
{
    struct runt_err *fail = &w->fail;
    if (w->path)
        return err_set(err, RUNT_E_INVALID, "%s: begun already, as %s", path, w->path);
    if (!fail->code)
        plan(w, fail);
    if (fail->code) { /* worded before the file had a name */
        report(w, err);
        err_prefix(err, "%s", path);
        return fail->code;
    }
    w->path = mem_strdup(path);
    if (!w->path) {
        err_nomem(fail, path);
        return report(w, err);
    }
    if (file_out_open(path, &w->out, fail) || put_metadata(w, fail) ||
        put_table(w, fail)) {
        file_out_abort(w->out);
        w->out = NULL;
    }
    return report(w, err);
}

int gguf_write(struct gguf_writer *w, const void *bytes, size_t n, struct runt_err *err)
{
    if (w->fail.code)
        return report(w, err);
    if (!w->out)
        return err_set(err, RUNT_E_INVALID, "a model file's bytes before gguf_begin");
    if (!n)
        return 0;
    if (w->at == w->n_tensors) {
        err_set(&w->fail, RUNT_E_INVALID, "%s: %zu bytes after the last tensor",
                w->path, n);
        return report(w, err);
    }
    const struct planned *t = &w->tensors[w->at];
    if (n > t->bytes - w->done) {
        err_set(&w->fail, RUNT_E_INVALID,
                "%s: tensor %s: %zu + %zu bytes written, its size is %zu", w->path,
                t->desc.name, w->done, n, t->bytes);
        return report(w, err);
    }
    if (file_out_write(w->out, bytes, n, &w->fail))
        return report(w, err);
    w->done += n;
    if (w->done == t->bytes) {
        w->at++;
        w->done = 0;
        pad(w, &w->fail);
    }
    return report(w, err);
}

int gguf_finish(struct gguf_writer *w, uint64_t *file_bytes, struct runt_err *err)
{
    if (!w->fail.code && !w->out)
        return err_set(err, RUNT_E_INVALID, "a model file finished before gguf_begin");
    if (!w->fail.code && w->at < w->n_tensors)
        err_set(&w->fail, RUNT_E_INVALID,
                "%s: tensor %s: %zu of %zu bytes were written", w->path,
                w->tensors[w->at].desc.name, w->done, w->tensors[w->at].bytes);
    struct file_out *f = w->out;
    w->out = NULL;
    if (w->fail.code) {
        file_out_abort(f);
        return report(w, err);
    }
    uint64_t size = file_out_pos(f);
    if (!file_out_commit(f, &w->fail) && file_bytes)
        *file_bytes = size;
    return report(w, err);
}
