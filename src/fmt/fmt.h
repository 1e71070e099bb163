/* Number formats: how a row of numbers is laid out in bytes.
 *
 * A format cuts a row into blocks of block_len numbers, each stored in block_bytes
 * bytes; a row never shares a block with the next.  Type numbers and layouts are
 * ggml's. */
#ifndef RUNT_FMT_H
#define RUNT_FMT_H

#include "runt/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fmt_type {
    FMT_F32 = 0,
    FMT_F16 = 1,
    FMT_Q4_0 = 2,
    FMT_Q4_1 = 3,
    FMT_Q8_0 = 8,
    FMT_Q6_K = 14, /* read only */
    FMT_BF16 = 30,
};

struct fmt_info {
    const char *name; /* "Q4_0" */
    enum fmt_type type;
    uint32_t block_len;   /* numbers in a block */
    uint32_t block_bytes; /* bytes of a block */
    bool is_float;        /* F32, F16, BF16 */
    /* general.file_type of a model whose matrices have this type (llama.cpp's ftype) */
    uint32_t file_type;
    /* n numbers (a multiple of block_len) <-> n / block_len blocks.  encode rounds as
     * ggml's reference does (Q4_0: scale from the largest magnitude); it is NULL for a
     * type that is read but not written. */
    void (*encode)(const float *x, void *blocks, size_t n);
    void (*decode)(const void *blocks, float *x, size_t n);
};

/* NULL for a type that this program does not know. */
const struct fmt_info *fmt_find(uint32_t type);
/* By name, in any case; NULL when unknown. */
const struct fmt_info *fmt_by_name(const char *name);
/* The formats in a fixed order; NULL past the last. */
const struct fmt_info *fmt_at(size_t i);

/* Bytes of a row of n numbers; false when n is not whole blocks or the size overflows.
 */
bool fmt_row_bytes(const struct fmt_info *f, uint64_t n, size_t *bytes);

/* Single numbers (round to nearest even; NaN stays NaN). */
float fmt_f16_to_f32(uint16_t h);
uint16_t fmt_f32_to_f16(float f);
float fmt_bf16_to_f32(uint16_t h);
uint16_t fmt_f32_to_bf16(float f);

#endif
