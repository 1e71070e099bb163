/* Model files made byte by byte, for the tests of src/gguf: a writer that knows nothing
 * of runt's own and may lie, and files made with it.  Include after cmocka.h. */
#ifndef RUNT_TESTS_GGUF_RAW_H
#define RUNT_TESTS_GGUF_RAW_H

#include "base/mem.h"
#include "base/strbuf.h"
#include "gguf/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline void put_le(struct strbuf *b, uint64_t v, int n_bytes)
{
    for (int i = 0; i < n_bytes; i++)
        sb_char(b, (char)(v >> (8 * i)));
}

static inline void put_text(struct strbuf *b, const char *s)
{
    put_le(b, strlen(s), 8);
    sb_str(b, s);
}

static inline void put_head(struct strbuf *b, uint32_t version, uint64_t n_tensors,
                            uint64_t n_kv)
{
    sb_str(b, "GGUF");
    put_le(b, version, 4);
    put_le(b, n_tensors, 8);
    put_le(b, n_kv, 8);
}

/* A key and its type, then (for most) the value's low bytes. */
static inline void put_kv(struct strbuf *b, const char *key, uint32_t type, uint64_t v,
                          int n)
{
    put_text(b, key);
    put_le(b, type, 4);
    put_le(b, v, n);
}

static inline void put_arr(struct strbuf *b, const char *key, uint32_t elem, uint64_t n)
{
    put_kv(b, key, GGUF_ARR, elem, 4);
    put_le(b, n, 8);
}

static inline void put_tensor(struct strbuf *b, const char *name, uint32_t n_dims,
                              const uint64_t *dims, uint32_t type, uint64_t offset)
{
    put_text(b, name);
    put_le(b, n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++)
        put_le(b, dims[i], 8);
    put_le(b, type, 4);
    put_le(b, offset, 8);
}

static inline void put_pad(struct strbuf *b, size_t alignment)
{
    while (b->len % alignment)
        sb_char(b, 0);
}

static inline void put_zeros(struct strbuf *b, size_t n)
{
    void *zeros = mem_zalloc(n);
    sb_put(b, zeros, n);
    mem_free(zeros);
}

/* Written by hand from the specification; the writer must give these bytes and the
 * reader must understand them. */
/* clang-format off */
static const uint8_t oracle[] = {
    'G', 'G', 'U', 'F', 3, 0, 0, 0,                           /* version 3 */
    2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,           /* 2 tensors, 2 keys */
    1, 0, 0, 0, 0, 0, 0, 0, 'a', 4, 0, 0, 0,                  /* a: UINT32 */
    0x39, 0x30, 0, 0,                                         /* 12345 */
    2, 0, 0, 0, 0, 0, 0, 0, 's', 's', 8, 0, 0, 0,             /* ss: STRING */
    3, 0, 0, 0, 0, 0, 0, 0, 'x', 'y', 'z',                    /* "xyz" */
    1, 0, 0, 0, 0, 0, 0, 0, 't', 1, 0, 0, 0,                  /* t: 1 dimension */
    3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,                       /* 3, F32 */
    0, 0, 0, 0, 0, 0, 0, 0,                                   /* at 0 */
    1, 0, 0, 0, 0, 0, 0, 0, 'm', 2, 0, 0, 0,                  /* m: 2 dimensions */
    2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0,           /* rows of 2, 3 of them */
    1, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0,                      /* F16, at 32 */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* to 160 */
    0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0, 0, 0, 0, 0x3f,           /* t: 1, -2, 0.5 */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0x00, 0x3c, 0x00, 0xc0, 0x00, 0x38, 0, 0, 1, 0, 0, 0x7c,  /* m */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
};
/* clang-format on */

static const uint32_t scalars[] = {GGUF_U8,  GGUF_I8,  GGUF_U16, GGUF_I16,
                                   GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL,
                                   GGUF_U64, GGUF_I64, GGUF_F64};
static const int scalar_bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 8, 8};
enum { N_SCALARS = sizeof scalars / sizeof *scalars };

/* Every type as a value, as an array of 0 and as an array of 3. */
static inline void put_zoo(struct strbuf *b)
{
    char key[32];
    put_head(b, 3, 0, 3 * N_SCALARS + 3);
    for (int i = 0; i < N_SCALARS; i++) {
        bool is_bool = scalars[i] == GGUF_BOOL;
        uint64_t v = is_bool ? 1 : 0x8877665544332211u + (uint64_t)i;
        snprintf(key, sizeof key, "zoo.%u", scalars[i]);
        put_kv(b, key, scalars[i], v, scalar_bytes[i]);
        snprintf(key, sizeof key, "zoo.%u.none", scalars[i]);
        put_arr(b, key, scalars[i], 0);
        snprintf(key, sizeof key, "zoo.%u.some", scalars[i]);
        put_arr(b, key, scalars[i], 3);
        for (unsigned k = 0; k < 3; k++)
            put_le(b, is_bool ? k & 1 : v + k, scalar_bytes[i]);
    }
    put_kv(b, "zoo.str", GGUF_STR, 0, 0);
    put_text(b, "any\nbytes\xff");
    put_arr(b, "zoo.str.none", GGUF_STR, 0);
    put_arr(b, "zoo.str.some", GGUF_STR, 3);
    put_text(b, "");
    put_text(b, "a");
    put_text(b, "bb");
}

static inline struct gguf *accept(const void *bytes, size_t n)
{
    struct gguf *g = NULL;
    struct runt_err err = {0};
    if (gguf_parse(bytes, n, "good.gguf", &g, &err))
        fail_msg("refused: %s", err.msg);
    return g;
}

/* Every getter on every key, some rows of every tensor; what they answer is their own
 * affair, but they must answer. */
static inline void read_all(const struct gguf *g)
{
    for (size_t i = 0; i < g->n_kv; i++) {
        char *key = mem_strndup(g->kv[i].key.data, g->kv[i].key.len);
        assert_ptr_equal(gguf_find(g, key), &g->kv[i]);
        uint64_t u;
        float f;
        struct gguf_str s, *strings = NULL;
        int32_t *ints = NULL;
        size_t n;
        gguf_get_uint(g, key, UINT64_MAX, &u, NULL);
        gguf_get_f32(g, key, &f, NULL);
        gguf_get_str(g, key, &s, NULL);
        gguf_get_strings(g, key, &strings, &n, NULL);
        gguf_get_ints(g, key, &ints, &n, NULL);
        mem_free(strings);
        mem_free(ints);
        mem_free(key);
    }
    for (size_t i = 0; i < g->n_tensors; i++) {
        const struct tensor_desc *d = &g->tensors[i].desc;
        assert_ptr_equal(gguf_find_tensor(g, d->name), &g->tensors[i]);
        uint64_t n = d->n_rows < 4 ? d->n_rows : 4;
        if (d->n_cols > 1 << 16)
            continue;
        float *x = malloc((size_t)(n * d->n_cols) * sizeof *x);
        assert_non_null(x);
        assert_int_equal(g->source.rows(&g->source, i, d->n_rows - n, n, x, NULL), 0);
        free(x);
    }
}

#endif
