/* The model file: GGUF version 3 (versions 2 and 3 are read), little-endian.
 *
 * A file is metadata (typed key-value pairs), a table of tensors, and the tensors'
 * bytes, each aligned.  Reading trusts nothing: every length, offset and count is
 * checked against the file before use. */
#ifndef RUNT_GGUF_H
#define RUNT_GGUF_H

#include "fmt/source.h"
#include "runt/error.h"

enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STR,
    GGUF_ARR,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
};

struct gguf_str {
    const char *data; /* not NUL-terminated, lives as long as the file */
    size_t len;
};

struct gguf_kv {
    struct gguf_str key;
    enum gguf_type type;
    enum gguf_type elem;  /* of an array */
    uint64_t n;           /* elements of an array, else 1 */
    const uint8_t *value; /* the encoded value (an array's first element) */
    size_t bytes;         /* of the encoded value */
};

struct gguf_tensor {
    struct tensor_desc desc; /* desc.fmt is never NULL */
    const uint8_t *data;     /* rows for fmt_decode_row */
    size_t bytes;            /* fmt_tensor_bytes */
};

struct gguf {
    const char *path;
    size_t file_bytes;
    uint32_t version, alignment;
    size_t n_kv, n_tensors;
    const struct gguf_kv *kv;
    const struct gguf_tensor *tensors;
    struct tensor_source source; /* the tensors, decoded on demand */
};

/* Map and check a file.  Errors: RUNT_E_NOTFOUND, RUNT_E_IO, RUNT_E_FORMAT (damaged),
 * RUNT_E_UNSUPPORTED (big-endian, version 1, a tensor type that this program lacks,
 * more than 2 real dimensions), each line naming the file and the fault. */
int gguf_open(const char *path, struct gguf **out, struct runt_err *err);
/* The same over bytes that outlive the result (tests, fuzzing) and start at a multiple
 * of 8, as a map does. */
int gguf_parse(const void *data, size_t size, const char *name, struct gguf **out,
               struct runt_err *err);
void gguf_close(struct gguf *g); /* NULL is fine */

/* NULL when there is no such key / tensor.  Binary search. */
const struct gguf_kv *gguf_find(const struct gguf *g, const char *key);
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name);

/* A scalar of any integer width or bool / any float width / a string.  RUNT_E_NOTFOUND
 * when missing (err filled, the line names the file and key), RUNT_E_FORMAT when of
 * another kind, negative, above max, or not a finite float. */
int gguf_get_uint(const struct gguf *g, const char *key, uint64_t max, uint64_t *out,
                  struct runt_err *err);
int gguf_get_f32(const struct gguf *g, const char *key, float *out,
                 struct runt_err *err);
int gguf_get_str(const struct gguf *g, const char *key, struct gguf_str *out,
                 struct runt_err *err);
/* All strings / integers (of any width, when they fit 32 bits) of an array of at most
 * 2^24 elements; *out from mem_array, the caller frees it. */
int gguf_get_strings(const struct gguf *g, const char *key, struct gguf_str **out,
                     size_t *n, struct runt_err *err);
int gguf_get_ints(const struct gguf *g, const char *key, int32_t **out, size_t *n,
                  struct runt_err *err);

/* ---- writing ---- */

/* Metadata first (any order of calls; setting a key again replaces its value in place),
 * then the tensor table, then each tensor's bytes in that order, whole or in pieces (a
 * piece never crosses into the next tensor).  The first failure sticks: begin reports a
 * setter's (out of memory, a bad name or shape, a tensor added twice: RUNT_E_NOMEM,
 * RUNT_E_INVALID), and write and finish repeat it.  All strings and bytes are copied.
 */
struct gguf_writer;
int gguf_writer_create(struct gguf_writer **out, struct runt_err *err);
void gguf_set_u32(struct gguf_writer *w, const char *key, uint32_t v);
void gguf_set_f32(struct gguf_writer *w, const char *key, float v);
void gguf_set_bool(struct gguf_writer *w, const char *key, bool v);
void gguf_set_str(struct gguf_writer *w, const char *key, const char *s, size_t len);
void gguf_set_strings(struct gguf_writer *w, const char *key, const struct gguf_str *s,
                      size_t n);
void gguf_set_i32s(struct gguf_writer *w, const char *key, const int32_t *v, size_t n);
/* A key-value pair of another file, byte for byte.  (general.alignment is passed over
 * by every setter: the writer's own is always 32, the default.) */
void gguf_set_kv(struct gguf_writer *w, const struct gguf_kv *kv);
void gguf_add_tensor(struct gguf_writer *w, const char *name,
                     const struct fmt_info *fmt, unsigned n_dims, uint64_t n_cols,
                     uint64_t n_rows);
int gguf_begin(struct gguf_writer *w, const char *path, struct runt_err *err);
int gguf_write(struct gguf_writer *w, const void *bytes, size_t n,
               struct runt_err *err);
/* RUNT_E_INVALID when the bytes written are not exactly those that the table promises.
 * The file appears under its name only here.  *file_bytes (NULL is fine) is its size.
 */
int gguf_finish(struct gguf_writer *w, uint64_t *file_bytes, struct runt_err *err);
/* Drops an unfinished file; NULL is fine. */
void gguf_writer_destroy(struct gguf_writer *w);

#endif
