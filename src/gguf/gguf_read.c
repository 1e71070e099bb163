/* Owns the reading of model files: a map, checked once from front to back, and an index
 * of its names.
 *
 * Every byte may have been written by a stranger.  A count is compared with the bytes
 * that are left before anything is allocated for it; a value is walked once and found
 * complete; a tensor's bytes lie inside the file and inside no other tensor.  After
 * that the getters need no checks but those on kind and range.
 *
 * It refuses what it cannot use, with RUNT_E_UNSUPPORTED: big-endian files, version 1,
 * arrays of arrays, tensors of more than 2 real dimensions or of unknown types.  It
 * accepts tensors in any order, gaps between them, and a last tensor without padding.
 */
#include "gguf/gguf_impl.h"

#include "base/cursor.h"
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MIN_KV_BYTES = 8 + 1 + 4 + 1, /* key, type, value */
    MIN_TENSOR_BYTES =
        8 + 1 + 4 + 8 + 4 + 8, /* name, n_dims, a dimension, type, offset */
    MIN_ALIGNMENT = 8,         /* the specification's */
    MAX_ALIGNMENT = 1 << 20,
    MAX_ELEMENTS = 1 << 24, /* of an array that a getter copies */
    SHOWN = 64              /* bytes of a name in an error line */
};

/* What gguf_close frees; the caller sees only `pub`. */
struct gguf_file {
    struct gguf pub;
    struct file_map map;
    char *path;
    struct gguf_kv *kv;
    struct gguf_tensor *tensors;
    struct tensor_desc *descs;
    struct gguf_name *kv_names, *tensor_names; /* sorted */
};

/* ---- names ---- */

static int name_order(const void *pa, const void *pb)
{
    const struct gguf_name *a = pa, *b = pb;
    if (a->len != b->len)
        return a->len < b->len ? -1 : 1;
    int c = memcmp(a->data, b->data, a->len);
    return c ? c : a->index < b->index ? -1 : a->index > b->index;
}

void gguf_names_sort(struct gguf_name *names, size_t n)
{
    qsort(names, n, sizeof *names, name_order);
}

bool gguf_name_equal(const struct gguf_name *a, const struct gguf_name *b)
{
    return a->len == b->len && !memcmp(a->data, b->data, a->len);
}

bool gguf_name_ok(const char *data, uint64_t len, size_t max_len)
{
    if (len == 0 || len > max_len)
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)data[i];
        bool c1 = i && (unsigned char)data[i - 1] == 0xc2 && c >= 0x80 && c < 0xa0;
        if (c < 0x20 || c == 0x7f || c1)
            return false;
    }
    return true;
}

/* The place of a name in the list that `names` sorts, or -1. */
static ptrdiff_t names_find(const struct gguf_name *names, size_t n, const char *s)
{
    size_t len = strlen(s), lo = 0, hi = n;
    if (len > GGUF_KEY_MAX)
        return -1;
    struct gguf_name key = {s, (uint32_t)len, 0};
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (name_order(&names[mid], &key) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n && gguf_name_equal(&names[lo], &key) ? (ptrdiff_t)names[lo].index
                                                       : -1;
}

static int shown(size_t len)
{
    return len < SHOWN ? (int)len : SHOWN;
}

/* ---- parsing ---- */

uint64_t gguf_align(uint64_t pos, uint32_t alignment)
{
    return (pos + alignment - 1) & ~(uint64_t)(alignment - 1);
}

size_t gguf_scalar_bytes(uint32_t type)
{
    static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < sizeof bytes ? bytes[type] : 0;
}

static int parse_head(struct gguf_file *f, struct cursor *c, struct runt_err *err)
{
    uint32_t magic = cur_u32(c), version = cur_u32(c);
    uint64_t n_tensors = cur_u64(c), n_kv = cur_u64(c);
    if (magic != GGUF_MAGIC)
        return err_set(err, RUNT_E_FORMAT, "not a GGUF file (%zu bytes)", c->size);
    if (c->size >= 8 && version && !(version & 0xffff))
        return err_set(err, RUNT_E_UNSUPPORTED,
                       "a big-endian GGUF file (version field %08x)", version);
    if (c->size >= 8 && version != 2 && version != 3)
        return err_set(err, RUNT_E_UNSUPPORTED, "GGUF version %u, not one of 2 and 3",
                       version);
    if (c->bad)
        return err_set(err, RUNT_E_FORMAT, "ends in the header (%zu bytes of 24)",
                       c->size);
    if (n_kv > cur_left(c) / MIN_KV_BYTES || n_tensors > cur_left(c) / MIN_TENSOR_BYTES)
        return err_set(
            err, RUNT_E_FORMAT, "claims %llu keys and %llu tensors in %zu bytes",
            (unsigned long long)n_kv, (unsigned long long)n_tensors, c->size);
    if (n_kv > GGUF_MAX_KV || n_tensors > GGUF_MAX_TENSORS)
        return err_set(err, RUNT_E_UNSUPPORTED,
                       "%llu keys and %llu tensors, the limits are %d and %d",
                       (unsigned long long)n_kv, (unsigned long long)n_tensors,
                       GGUF_MAX_KV, GGUF_MAX_TENSORS);
    f->pub.version = version;
    f->pub.n_kv = (size_t)n_kv;
    f->pub.n_tensors = (size_t)n_tensors;
    return 0;
}

/* Step over n values of one type.  Bools must be 0 or 1; a value that runs past the end
 * sets c->bad. */
static bool skip_values(struct cursor *c, uint32_t type, uint64_t n)
{
    size_t one = gguf_scalar_bytes(type);
    if (n > cur_left(c) / (one ? one : 8)) { /* a string's length alone has 8 */
        c->bad = true;
        return true;
    }
    if (type == GGUF_STR) {
        for (uint64_t i = 0; i < n && !c->bad; i++)
            cur_bytes(c, cur_u64(c));
        return true;
    }
    const uint8_t *p = cur_bytes(c, n * one);
    for (uint64_t i = 0; type == GGUF_BOOL && i < n; i++)
        if (p[i] > 1)
            return false;
    return true;
}

static int parse_kv(struct gguf_file *f, size_t i, struct cursor *c,
                    struct runt_err *err)
{
    struct gguf_kv *kv = &f->kv[i];
    size_t at = c->pos;
    uint64_t len = cur_u64(c);
    const uint8_t *key = cur_bytes(c, len);
    uint32_t type = cur_u32(c), elem = type;
    if (key && !gguf_name_ok((const char *)key, len, GGUF_KEY_MAX))
        return err_set(err, RUNT_E_FORMAT,
                       "key %zu (byte %zu) has a bad name of %llu bytes", i, at,
                       (unsigned long long)len);
    if (c->bad)
        return err_set(err, RUNT_E_FORMAT,
                       "key %zu (byte %zu) runs past the file's %zu bytes", i, at,
                       c->size);
    kv->key = (struct gguf_str){(const char *)key, (size_t)len};
    kv->n = 1;
    if (type == GGUF_ARR) {
        elem = cur_u32(c);
        kv->n = cur_u64(c);
        if (elem == GGUF_ARR)
            return err_set(err, RUNT_E_UNSUPPORTED, "key %.*s is an array of arrays",
                           shown(len), key);
    }
    if (!c->bad && elem != GGUF_STR && !gguf_scalar_bytes(elem))
        return err_set(err, RUNT_E_FORMAT, "key %.*s has unknown type %u", shown(len),
                       key, elem);
    kv->type = (enum gguf_type)type;
    kv->elem = (enum gguf_type)elem;
    kv->value = c->data + c->pos;
    at = c->pos;
    bool is_sane = skip_values(c, elem, kv->n);
    if (c->bad)
        return err_set(err, RUNT_E_FORMAT,
                       "key %.*s: its value (byte %zu, %llu elements) runs past the "
                       "file's %zu bytes",
                       shown(len), key, at, (unsigned long long)kv->n, c->size);
    if (!is_sane)
        return err_set(err, RUNT_E_FORMAT, "key %.*s: a truth value is neither 0 nor 1",
                       shown(len), key);
    kv->bytes = c->pos - at;
    return 0;
}

static int find_alignment(struct gguf_file *f, struct runt_err *err)
{
    f->pub.alignment = GGUF_ALIGNMENT;
    const struct gguf_kv *kv = gguf_find(&f->pub, GGUF_KEY_ALIGNMENT);
    if (!kv)
        return 0;
    if (kv->type != GGUF_U32)
        return err_set(err, RUNT_E_FORMAT, "key %s is not a 32-bit count",
                       GGUF_KEY_ALIGNMENT);
    struct cursor c = cur_make(kv->value, kv->bytes);
    uint32_t a = cur_u32(&c);
    if (a < MIN_ALIGNMENT || a > MAX_ALIGNMENT || (a & (a - 1)))
        return err_set(err, RUNT_E_FORMAT, "key %s is %u, not a power of two in %d..%d",
                       GGUF_KEY_ALIGNMENT, a, MIN_ALIGNMENT, MAX_ALIGNMENT);
    f->pub.alignment = a;
    return 0;
}

/* One entry of the tensor table.  *offset is the file's word, not yet checked. */
static int parse_tensor(struct gguf_file *f, size_t i, struct cursor *c,
                        uint64_t *offset, struct runt_err *err)
{
    struct gguf_tensor *t = &f->tensors[i];
    struct tensor_desc *d = &t->desc;
    size_t at = c->pos;
    uint64_t dims[4] = {1, 1, 1, 1}, len = cur_u64(c);
    const uint8_t *name = cur_bytes(c, len);
    if (name && !gguf_name_ok((const char *)name, len, TENSOR_NAME_MAX - 1))
        return err_set(err, RUNT_E_FORMAT,
                       "tensor %zu (byte %zu) has a bad name of %llu bytes", i, at,
                       (unsigned long long)len);
    if (name)
        memcpy(d->name, name, (size_t)len);
    uint32_t n_dims = cur_u32(c);
    if (!c->bad && (n_dims < 1 || n_dims > 4))
        return err_set(err, RUNT_E_FORMAT, "tensor %s: %u dimensions, not 1 to 4",
                       d->name, n_dims);
    for (uint32_t k = 0; k < n_dims && !c->bad; k++)
        dims[k] = cur_u64(c);
    uint32_t type = cur_u32(c);
    *offset = cur_u64(c);
    if (c->bad)
        return err_set(err, RUNT_E_FORMAT,
                       "tensor %zu (byte %zu) runs past the file's %zu bytes", i, at,
                       c->size);
    for (uint32_t k = 0; k < n_dims; k++)
        if (!dims[k])
            return err_set(err, RUNT_E_FORMAT, "tensor %s: dimension %u is 0", d->name,
                           k);
    if (dims[2] != 1 || dims[3] != 1)
        return err_set(
            err, RUNT_E_UNSUPPORTED,
            "tensor %s: %u dimensions (%llu x %llu x %llu x %llu), 2 are supported",
            d->name, n_dims, (unsigned long long)dims[0], (unsigned long long)dims[1],
            (unsigned long long)dims[2], (unsigned long long)dims[3]);
    d->fmt = fmt_find(type);
    if (!d->fmt)
        return err_set(err, RUNT_E_UNSUPPORTED, "tensor %s: type number %u is unknown",
                       d->name, type);
    d->n_cols = dims[0];
    d->n_rows = dims[1];
    d->n_dims = n_dims == 1 ? 1 : 2;
    if (d->n_cols % d->fmt->block_len)
        return err_set(err, RUNT_E_FORMAT,
                       "tensor %s: rows of %llu numbers are not whole %s blocks of %u",
                       d->name, (unsigned long long)d->n_cols, d->fmt->name,
                       d->fmt->block_len);
    if (!fmt_tensor_bytes(d->fmt, d->n_cols, d->n_rows, &t->bytes))
        return err_set(err, RUNT_E_FORMAT,
                       "tensor %s: %llu x %llu numbers overflow its size", d->name,
                       (unsigned long long)d->n_cols, (unsigned long long)d->n_rows);
    return 0;
}

/* A tensor's offset becomes a pointer here and nowhere else. */
static int place_tensor(struct gguf_file *f, struct gguf_tensor *t, uint64_t start,
                        uint64_t offset, const struct cursor *c, struct runt_err *err)
{
    const char *name = t->desc.name;
    if (offset % f->pub.alignment)
        return err_set(err, RUNT_E_FORMAT,
                       "tensor %s: offset %llu is not a multiple of %u", name,
                       (unsigned long long)offset, f->pub.alignment);
    if (start > c->size || offset > c->size - start)
        return err_set(err, RUNT_E_FORMAT,
                       "tensor %s: offset %llu into data that start at byte %llu, "
                       "beyond the file's %zu",
                       name, (unsigned long long)offset, (unsigned long long)start,
                       c->size);
    uint64_t begin = start + offset;
    if (t->bytes > c->size - begin) {
        /* begin fits the file, so only a lying size can overflow this sum */
        uint64_t end = t->bytes > UINT64_MAX - begin ? UINT64_MAX : begin + t->bytes;
        return err_set(err, RUNT_E_FORMAT,
                       "tensor %s: data ends at byte %llu, beyond the file's %zu", name,
                       (unsigned long long)end, c->size);
    }
    t->data = c->data + begin;
    return 0;
}

static int data_order(const void *pa, const void *pb)
{
    const struct gguf_tensor *a = *(const struct gguf_tensor *const *)pa;
    const struct gguf_tensor *b = *(const struct gguf_tensor *const *)pb;
    return a->data < b->data ? -1 : a->data > b->data;
}

/* No tensor is empty, so in the order of their first bytes any overlap shows between
 * two neighbours. */
static int check_overlap(struct gguf_file *f, struct runt_err *err)
{
    size_t n = f->pub.n_tensors;
    const struct gguf_tensor **by_data = mem_array(n, sizeof *by_data);
    if (!by_data)
        return err_nomem(err, "the tables of its content");
    int rc = 0;
    for (size_t i = 0; i < n; i++)
        by_data[i] = &f->tensors[i];
    qsort(by_data, n, sizeof *by_data, data_order);
    for (size_t i = 1; i < n && !rc; i++) {
        const struct gguf_tensor *a = by_data[i - 1], *b = by_data[i];
        if ((size_t)(b->data - a->data) < a->bytes)
            rc = err_set(err, RUNT_E_FORMAT,
                         "tensors %s and %s overlap: %zu bytes, %td bytes apart",
                         a->desc.name, b->desc.name, a->bytes, b->data - a->data);
    }
    mem_free(by_data);
    return rc;
}

static int index_names(struct gguf_name *names, size_t n, const char *what,
                       struct runt_err *err)
{
    gguf_names_sort(names, n);
    for (size_t i = 1; i < n; i++)
        if (gguf_name_equal(&names[i - 1], &names[i]))
            return err_set(err, RUNT_E_FORMAT, "%s %.*s appears twice (%u and %u)",
                           what, shown(names[i].len), names[i].data, names[i - 1].index,
                           names[i].index);
    return 0;
}

static int parse_metadata(struct gguf_file *f, struct cursor *c, struct runt_err *err)
{
    size_t n = f->pub.n_kv;
    f->pub.kv = f->kv = mem_array(n, sizeof *f->kv);
    f->kv_names = mem_array(n, sizeof *f->kv_names);
    if (!f->kv || !f->kv_names)
        return err_nomem(err, "the tables of its content");
    for (size_t i = 0; i < n; i++) {
        int rc = parse_kv(f, i, c, err);
        if (rc)
            return rc;
        f->kv_names[i] = (struct gguf_name){f->kv[i].key.data,
                                            (uint32_t)f->kv[i].key.len, (uint32_t)i};
    }
    int rc = index_names(f->kv_names, n, "key", err);
    return rc ? rc : find_alignment(f, err);
}

static int parse_tensors(struct gguf_file *f, struct cursor *c, struct runt_err *err)
{
    int rc = 0;
    size_t n = f->pub.n_tensors;
    uint64_t start = 0, *offsets = mem_array(n, sizeof *offsets);
    f->pub.tensors = f->tensors = mem_array(n, sizeof *f->tensors);
    f->descs = mem_array(n, sizeof *f->descs);
    f->tensor_names = mem_array(n, sizeof *f->tensor_names);
    if (!offsets || !f->tensors || !f->descs || !f->tensor_names) {
        rc = err_nomem(err, "the tables of its content");
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        rc = parse_tensor(f, i, c, &offsets[i], err);
        if (rc)
            goto out;
        const char *name = f->tensors[i].desc.name;
        f->descs[i] = f->tensors[i].desc;
        f->tensor_names[i] =
            (struct gguf_name){name, (uint32_t)strlen(name), (uint32_t)i};
    }
    rc = index_names(f->tensor_names, n, "tensor", err);
    if (rc)
        goto out;
    start = gguf_align(c->pos, f->pub.alignment);
    for (size_t i = 0; i < n && !rc; i++)
        rc = place_tensor(f, &f->tensors[i], start, offsets[i], c, err);
    if (!rc)
        rc = check_overlap(f, err);
out:
    mem_free(offsets);
    return rc;
}

static int source_rows(const struct tensor_source *s, size_t i, uint64_t row,
                       uint64_t n, float *out, struct runt_err *err)
{
    const struct gguf *g =
        (const struct gguf *)((const char *)s - offsetof(struct gguf, source));
    if (i >= g->n_tensors)
        return err_set(err, RUNT_E_INVALID, "%s: tensor %zu of %zu", g->path, i,
                       g->n_tensors);
    const struct gguf_tensor *t = &g->tensors[i];
    const struct tensor_desc *d = &t->desc;
    if (row > d->n_rows || n > d->n_rows - row)
        return err_set(err, RUNT_E_INVALID, "%s: tensor %s: rows %llu + %llu of %llu",
                       g->path, d->name, (unsigned long long)row, (unsigned long long)n,
                       (unsigned long long)d->n_rows);
    size_t n_cols = (size_t)d->n_cols;
    for (size_t k = 0; k < n; k++)
        fmt_decode_row(d->fmt, n_cols, t->data, (size_t)row + k, out + k * n_cols);
    return 0;
}

static int parse(struct gguf_file *f, const void *data, size_t size,
                 struct runt_err *err)
{
    struct runt_err why;
    struct cursor c = cur_make(data, size);
    int rc = parse_head(f, &c, &why);
    if (!rc)
        rc = parse_metadata(f, &c, &why);
    if (!rc)
        rc = parse_tensors(f, &c, &why);
    if (rc) {
        if (err) {
            *err = why;
            err_prefix(err, "%s", f->path);
        }
        return rc;
    }
    f->pub.file_bytes = size;
    f->pub.source = (struct tensor_source){.name = f->path,
                                           .n_tensors = f->pub.n_tensors,
                                           .tensors = f->descs,
                                           .rows = source_rows};
    return 0;
}

static int file_create(const char *name, struct gguf_file **out, struct runt_err *err)
{
    struct gguf_file *f = mem_zalloc(sizeof *f);
    if (!f)
        return err_nomem(err, name);
    f->pub.path = f->path = mem_strdup(name);
    if (!f->path) {
        mem_free(f);
        return err_nomem(err, name);
    }
    *out = f;
    return 0;
}

int gguf_parse(const void *data, size_t size, const char *name, struct gguf **out,
               struct runt_err *err)
{
    struct gguf_file *f = NULL;
    int rc = file_create(name, &f, err);
    if (rc)
        return rc;
    rc = parse(f, data, size, err);
    if (rc)
        gguf_close(&f->pub);
    else
        *out = &f->pub;
    return rc;
}

int gguf_open(const char *path, struct gguf **out, struct runt_err *err)
{
    struct gguf_file *f = NULL;
    int rc = file_create(path, &f, err);
    if (rc)
        return rc;
    rc = file_map_open(path, &f->map, err);
    if (!rc)
        rc = parse(f, f->map.data, f->map.size, err);
    if (rc)
        gguf_close(&f->pub);
    else
        *out = &f->pub;
    return rc;
}

static struct gguf_file *file_of(const struct gguf *g)
{
    return (struct gguf_file *)((uintptr_t)g - offsetof(struct gguf_file, pub));
}

void gguf_close(struct gguf *g)
{
    if (!g)
        return;
    struct gguf_file *f = file_of(g);
    file_map_close(&f->map);
    mem_free(f->path);
    mem_free(f->kv);
    mem_free(f->tensors);
    mem_free(f->descs);
    mem_free(f->kv_names);
    mem_free(f->tensor_names);
    mem_free(f);
}

/* ---- looking up ---- */

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key)
{
    ptrdiff_t i = names_find(file_of(g)->kv_names, g->n_kv, key);
    return i < 0 ? NULL : &g->kv[i];
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name)
{
    ptrdiff_t i = names_find(file_of(g)->tensor_names, g->n_tensors, name);
    return i < 0 ? NULL : &g->tensors[i];
}

static int find(const struct gguf *g, const char *key, const struct gguf_kv **out,
                struct runt_err *err)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv)
        return err_set(err, RUNT_E_NOTFOUND, "%s: has no key %s", g->path, key);
    *out = kv;
    return 0;
}

static int wrong_kind(const struct gguf *g, const char *key, const char *want,
                      struct runt_err *err)
{
    return err_set(err, RUNT_E_FORMAT, "%s: key %s is not %s", g->path, key, want);
}

struct integer {
    bool is_negative;
    uint64_t bits; /* two's complement */
};

/* A bool counts as one. */
static bool is_integer(enum gguf_type type)
{
    return gguf_scalar_bytes(type) && type != GGUF_F32 && type != GGUF_F64;
}

static struct integer read_integer(struct cursor *c, enum gguf_type type)
{
    bool is_signed =
        type == GGUF_I8 || type == GGUF_I16 || type == GGUF_I32 || type == GGUF_I64;
    unsigned bytes = (unsigned)gguf_scalar_bytes(type);
    uint64_t v = cur_le(c, bytes), sign = (uint64_t)1 << (8 * bytes - 1);
    bool is_negative = is_signed && (v & sign);
    return (struct integer){is_negative, is_negative ? v | (0 - sign) : v};
}

int gguf_get_uint(const struct gguf *g, const char *key, uint64_t max, uint64_t *out,
                  struct runt_err *err)
{
    const struct gguf_kv *kv = NULL;
    int rc = find(g, key, &kv, err);
    if (rc)
        return rc;
    if (!is_integer(kv->type))
        return wrong_kind(g, key, "an integer", err);
    struct cursor c = cur_make(kv->value, kv->bytes);
    struct integer v = read_integer(&c, kv->type);
    if (v.is_negative)
        return err_set(err, RUNT_E_FORMAT, "%s: key %s is %lld, below 0", g->path, key,
                       (long long)v.bits);
    if (v.bits > max)
        return err_set(err, RUNT_E_FORMAT, "%s: key %s is %llu, above %llu", g->path,
                       key, (unsigned long long)v.bits, (unsigned long long)max);
    *out = v.bits;
    return 0;
}

int gguf_get_f32(const struct gguf *g, const char *key, float *out,
                 struct runt_err *err)
{
    const struct gguf_kv *kv = NULL;
    int rc = find(g, key, &kv, err);
    if (rc)
        return rc;
    struct cursor c = cur_make(kv->value, kv->bytes);
    double v;
    if (kv->type == GGUF_F32)
        v = (double)cur_f32(&c);
    else if (kv->type == GGUF_F64)
        v = cur_f64(&c);
    else
        return wrong_kind(g, key, "a floating-point number", err);
    if (!(fabs(v) <= (double)FLT_MAX))
        return err_set(err, RUNT_E_FORMAT, "%s: key %s is %g, not a finite float",
                       g->path, key, v);
    *out = (float)v;
    return 0;
}

static struct gguf_str read_str(struct cursor *c)
{
    uint64_t len = cur_u64(c);
    return (struct gguf_str){(const char *)cur_bytes(c, len), (size_t)len};
}

int gguf_get_str(const struct gguf *g, const char *key, struct gguf_str *out,
                 struct runt_err *err)
{
    const struct gguf_kv *kv = NULL;
    int rc = find(g, key, &kv, err);
    if (rc)
        return rc;
    if (kv->type != GGUF_STR)
        return wrong_kind(g, key, "a string", err);
    struct cursor c = cur_make(kv->value, kv->bytes);
    *out = read_str(&c);
    return 0;
}

/* An array that a getter may copy. */
static int find_array(const struct gguf *g, const char *key, const char *want,
                      const struct gguf_kv **out, struct runt_err *err)
{
    const struct gguf_kv *kv = NULL;
    int rc = find(g, key, &kv, err);
    if (rc)
        return rc;
    if (kv->type != GGUF_ARR)
        return wrong_kind(g, key, want, err);
    if (kv->n > MAX_ELEMENTS)
        return err_set(err, RUNT_E_UNSUPPORTED,
                       "%s: key %s has %llu elements, the limit is %d", g->path, key,
                       (unsigned long long)kv->n, MAX_ELEMENTS);
    *out = kv;
    return 0;
}

int gguf_get_strings(const struct gguf *g, const char *key, struct gguf_str **out,
                     size_t *n, struct runt_err *err)
{
    const char *want = "an array of strings";
    const struct gguf_kv *kv = NULL;
    int rc = find_array(g, key, want, &kv, err);
    if (rc)
        return rc;
    if (kv->elem != GGUF_STR)
        return wrong_kind(g, key, want, err);
    struct gguf_str *s = mem_array((size_t)kv->n, sizeof *s);
    if (!s)
        return err_nomem(err, key);
    struct cursor c = cur_make(kv->value, kv->bytes);
    for (size_t i = 0; i < kv->n; i++)
        s[i] = read_str(&c);
    *out = s;
    *n = (size_t)kv->n;
    return 0;
}

int gguf_get_ints(const struct gguf *g, const char *key, int32_t **out, size_t *n,
                  struct runt_err *err)
{
    const char *want = "an array of integers";
    const struct gguf_kv *kv = NULL;
    int rc = find_array(g, key, want, &kv, err);
    if (rc)
        return rc;
    if (!is_integer(kv->elem) || kv->elem == GGUF_BOOL)
        return wrong_kind(g, key, want, err);
    int32_t *v = mem_array((size_t)kv->n, sizeof *v);
    if (!v)
        return err_nomem(err, key);
    struct cursor c = cur_make(kv->value, kv->bytes);
    for (size_t i = 0; i < kv->n; i++) {
        struct integer x = read_integer(&c, kv->elem);
        if (x.is_negative ? x.bits < (uint64_t)INT32_MIN : x.bits > INT32_MAX) {
            mem_free(v);
            return err_set(err, RUNT_E_FORMAT,
                           "%s: key %s: element %zu does not fit 32 bits", g->path, key,
                           i);
        }
        v[i] = (int32_t)(int64_t)x.bits;
    }
    *out = v;
    *n = (size_t)kv->n;
    return 0;
}
