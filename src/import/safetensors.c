/* Owns the safetensors container: from bytes to checked views of them.
 *
 * The header is a stranger's text, so each number in it is checked against the file
 * before anything points there: whatever passes here can be read without further
 * thought. A dtype that runt cannot read is not an error yet (attention masks come in
 * several); the reader of the model refuses it when it needs that tensor.  Two tensors
 * that share bytes are refused, since no honest writer makes them. */
#include "import/safetensors.h"

#include "base/cursor.h"
#include "base/err.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

struct st_owner {
    struct st_file file; /* first, so that st_close finds the rest */
    struct file_map map; /* empty for st_parse */
    char *path;
    char *names;
    struct st_tensor *tensors;
};

static const struct dtype {
    const char *name;
    unsigned bits;
} dtypes[] = {
    {"F32", 32},    {"F16", 16},    {"BF16", 16}, {"F64", 64},    {"BOOL", 8},
    {"U8", 8},      {"I8", 8},      {"U16", 16},  {"I16", 16},    {"U32", 32},
    {"I32", 32},    {"U64", 64},    {"I64", 64},  {"C64", 64},    {"F8_E4M3", 8},
    {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F4", 4},    {"F6_E2M3", 6}, {"F6_E3M2", 6},
};

/* 0 for a dtype that is unknown: its size cannot be checked. */
static unsigned dtype_bits(const char *name)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (!strcmp(dtypes[i].name, name))
            return dtypes[i].bits;
    return 0;
}

static bool get_u64(const json_t *v, uint64_t *out)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return false;
    *out = (uint64_t)json_integer_value(v);
    return true;
}

/* Product of the shape times the size of a number, in bytes. */
static bool shape_bytes(const json_t *shape, unsigned bits, uint64_t *bytes)
{
    uint64_t n = bits;
    bool has_zero = false;
    for (size_t i = 0; i < json_array_size(shape); i++) {
        uint64_t d = (uint64_t)json_integer_value(json_array_get(shape, i));
        has_zero |= d == 0;
        if (!has_zero && __builtin_mul_overflow(n, d, &n))
            return false;
    }
    n = has_zero ? 0 : n;
    *bytes = n / 8;
    return n % 8 == 0;
}

static int read_tensor(const char *path, const char *name, const json_t *v,
                       const uint8_t *data, size_t n_data, struct st_tensor *out,
                       struct runt_err *err)
{
    const json_t *shape = json_object_get(v, "shape");
    const json_t *range = json_object_get(v, "data_offsets");
    const char *dtype = js_get_str(v, "dtype");
    struct st_tensor t = {.name = name};
    uint64_t begin, end, want;
    if (!dtype || !json_is_array(shape) || json_array_size(range) != 2)
        return err_set(err, RUNT_E_FORMAT,
                       "%s: tensor %.100s lacks its dtype, shape or data_offsets", path,
                       name);
    t.n_dims = json_array_size(shape);
    for (size_t i = 0; i < t.n_dims; i++) {
        uint64_t d;
        if (!get_u64(json_array_get(shape, i), &d))
            return err_set(
                err, RUNT_E_FORMAT,
                "%s: tensor %.100s: dimension %zu of its shape is not a size", path,
                name, i);
        if (i < ST_MAX_DIMS)
            t.dims[i] = d;
    }
    if (!get_u64(json_array_get(range, 0), &begin) ||
        !get_u64(json_array_get(range, 1), &end))
        return err_set(err, RUNT_E_FORMAT,
                       "%s: tensor %.100s: data_offsets are not two sizes", path, name);
    if (begin > end || end > n_data)
        return err_set(
            err, RUNT_E_FORMAT,
            "%s: tensor %.100s lies at bytes %llu..%llu of %zu bytes of data", path,
            name, (unsigned long long)begin, (unsigned long long)end, n_data);
    snprintf(t.dtype, sizeof t.dtype, "%s", dtype);
    unsigned bits = dtype_bits(dtype);
    if (bits && (!shape_bytes(shape, bits, &want) || want != end - begin)) {
        char text[128];
        return err_set(err, RUNT_E_FORMAT,
                       "%s: tensor %.100s has %llu bytes, not those of %s %s", path,
                       name, (unsigned long long)(end - begin), t.dtype,
                       st_shape_text(&t, text, sizeof text));
    }
    t.data = data + begin;
    t.bytes = (size_t)(end - begin);
    const struct fmt_info *fmt = bits ? fmt_by_name(dtype) : NULL;
    t.fmt = fmt && fmt->is_float ? fmt : NULL;
    *out = t;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct st_tensor *)a)->name,
                  ((const struct st_tensor *)b)->name);
}

static int by_place(const void *a, const void *b)
{
    const struct st_tensor *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* Sorts by place.  Empty tensors cover nothing and so overlap nothing. */
static int check_overlap(const char *path, struct st_tensor *t, size_t n,
                         struct runt_err *err)
{
    const struct st_tensor *last = NULL;
    qsort(t, n, sizeof *t, by_place);
    for (size_t i = 0; i < n; i++) {
        if (!t[i].bytes)
            continue;
        if (last && t[i].data < last->data + last->bytes)
            return err_set(err, RUNT_E_FORMAT,
                           "%s: tensors %.100s and %.100s share bytes", path,
                           last->name, t[i].name);
        last = &t[i];
    }
    return 0;
}

static int read_tensors(struct st_owner *o, const json_t *header, const uint8_t *data,
                        size_t n_data, struct runt_err *err)
{
    const char *name;
    char *copy = o->names;
    size_t n = 0;
    json_t *v;
    json_object_foreach((json_t *)header, name, v)
    {
        if (!strcmp(name, "__metadata__"))
            continue;
        int rc = read_tensor(o->path, name, v, data, n_data, &o->tensors[n], err);
        if (rc)
            return rc;
        o->tensors[n++].name = strcpy(copy, name);
        copy += strlen(name) + 1;
    }
    int rc = check_overlap(o->path, o->tensors, n, err);
    if (rc)
        return rc;
    qsort(o->tensors, n, sizeof *o->tensors, by_name);
    o->file = (struct st_file){o->path, n, o->tensors};
    return 0;
}

/* The parsed header does not outlive this: it may be thirty times its text. */
static int read_header(struct st_owner *o, const uint8_t *bytes, size_t size,
                       struct runt_err *err)
{
    struct cursor c = cur_make(bytes, size);
    json_t *header = NULL;
    uint64_t n_header = cur_u64(&c);
    if (c.bad || n_header > cur_left(&c))
        return err_set(
            err, RUNT_E_FORMAT,
            "%s: not a safetensors file, or cut short: %zu bytes cannot hold a "
            "header of %llu",
            o->path, size, (unsigned long long)n_header);
    if (n_header > ST_MAX_HEADER)
        return err_set(err, RUNT_E_FORMAT,
                       "%s: a header of %llu bytes is above the limit of %d", o->path,
                       (unsigned long long)n_header, ST_MAX_HEADER);
    const char *text = (const char *)cur_bytes(&c, n_header);
    int rc = js_parse(text, (size_t)n_header, o->path, &header, err);
    if (rc)
        return rc;
    /* a name and its NUL take less room than the name and its quotes */
    o->names = mem_alloc((size_t)n_header);
    o->tensors = mem_array(json_object_size(header), sizeof *o->tensors);
    if (!json_is_object(header))
        rc =
            err_set(err, RUNT_E_FORMAT, "%s: the header is not a JSON object", o->path);
    else if (!o->names || !o->tensors)
        rc = err_nomem(err, o->path);
    else
        rc = read_tensors(o, header, bytes + c.pos, cur_left(&c), err);
    json_decref(header);
    return rc;
}

/* Takes over the map, also on failure. */
static int make(const char *name, struct file_map map, const uint8_t *data, size_t size,
                struct st_file **out, struct runt_err *err)
{
    int rc;
    struct st_owner *o = mem_zalloc(sizeof *o);
    if (!o) {
        file_map_close(&map);
        return err_nomem(err, name);
    }
    o->map = map;
    o->path = mem_strdup(name);
    rc = o->path ? read_header(o, data, size, err) : err_nomem(err, name);
    if (rc)
        st_close(&o->file);
    else
        *out = &o->file;
    return rc;
}

int st_open(const char *path, struct st_file **out, struct runt_err *err)
{
    struct file_map map;
    int rc = file_map_open(path, &map, err);
    return rc ? rc : make(path, map, map.data, map.size, out, err);
}

int st_parse(const void *data, size_t size, const char *name, struct st_file **out,
             struct runt_err *err)
{
    return make(name, (struct file_map){0}, data, size, out, err);
}

void st_close(struct st_file *f)
{
    struct st_owner *o = (struct st_owner *)f;
    if (!o)
        return;
    mem_free(o->tensors);
    mem_free(o->names);
    mem_free(o->path);
    file_map_close(&o->map);
    mem_free(o);
}

const struct st_tensor *st_find(const struct st_file *f, const char *name)
{
    struct st_tensor key = {.name = name};
    return bsearch(&key, f->tensors, f->n_tensors, sizeof key, by_name);
}

const char *st_shape_text(const struct st_tensor *t, char *buf, size_t size)
{
    size_t n = 0;
    buf[0] = 0;
    for (size_t i = 0; i < t->n_dims && i < ST_MAX_DIMS && n < size; i++)
        n += (size_t)snprintf(buf + n, size - n, "%s%llu", i ? ", " : "[",
                              (unsigned long long)t->dims[i]);
    if (n < size)
        snprintf(buf + n, size - n, "%s%s", n ? "" : "[",
                 t->n_dims > ST_MAX_DIMS ? ", ...]" : "]");
    return buf;
}
