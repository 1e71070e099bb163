/* safetensors: one file of named arrays.
 *
 * 8 bytes of little-endian header length, a JSON header {"NAME": {"dtype", "shape",
 * "data_offsets": [begin, end]}, ..., "__metadata__": {...}}, then the data, to which
 * the offsets are relative. */
#ifndef RUNT_SAFETENSORS_H
#define RUNT_SAFETENSORS_H

#include "fmt/fmt.h"
#include "runt/error.h"

enum {
    ST_MAX_HEADER = 8 << 20, /* GPT-2 XL has 60 kB */
    ST_MAX_DIMS = 4          /* kept of a shape; a mask has 4 */
};

struct st_tensor {
    const char *name;           /* lives as long as the file */
    char dtype[16];             /* as on file, or its beginning */
    const struct fmt_info *fmt; /* F32, F16 or BF16; NULL for any other dtype */
    size_t n_dims;              /* may be more than ST_MAX_DIMS */
    uint64_t dims[ST_MAX_DIMS]; /* outermost first */
    const uint8_t *data;        /* of any alignment */
    size_t bytes;
};

struct st_file {
    const char *path;
    size_t n_tensors;
    const struct st_tensor *tensors; /* sorted by name */
};

/* Map a file and check its header.  Errors: RUNT_E_NOTFOUND, RUNT_E_IO, RUNT_E_NOMEM,
 * or RUNT_E_FORMAT: a header longer than the file or the limit, bad JSON, a range
 * outside the data, a range that is not the size that dtype and shape ask for, or two
 * that overlap. Bytes that no tensor covers are tolerated. */
int st_open(const char *path, struct st_file **out, struct runt_err *err);
/* The same over bytes that outlive the result. */
int st_parse(const void *data, size_t size, const char *name, struct st_file **out,
             struct runt_err *err);
void st_close(struct st_file *f); /* NULL is fine */

/* NULL when there is no such tensor. */
const struct st_tensor *st_find(const struct st_file *f, const char *name);
/* "[768, 2304]", into buf, which is returned. */
const char *st_shape_text(const struct st_tensor *t, char *buf, size_t size);

#endif
