/* Number formats: how a tensor's rows of numbers are laid out in bytes.
 *
 * Most formats cut a row into blocks of block_len numbers, each stored in block_bytes
 * bytes; a row never shares a block with the next.  Their type numbers and layouts are
 * ggml's.  R4 (fmt/r4.h) is runt's own: it stores tile_rows rows together, and a tensor
 * is a whole number of such tiles, its last rows and columns padded.
 *
 * The functions on rows of a tensor below serve both kinds. */
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
    FMT_Q5_0 = 6,
    FMT_Q5_1 = 7,
    FMT_Q8_0 = 8,
    FMT_Q2_K = 10, /* this and those below: read only, but for IQ4_NL and BF16 */
    FMT_Q3_K = 11,
    FMT_Q4_K = 12,
    FMT_Q5_K = 13,
    FMT_Q6_K = 14,
    FMT_IQ4_NL = 20,
    FMT_BF16 = 30,
    FMT_TQ1_0 = 34,
    FMT_TQ2_0 = 35,
    FMT_Q1_0 = 41,
    FMT_Q2_0 = 42,
    FMT_R4 = 0x3472, /* "r4": runt's own, fmt/r4.h */
};

struct fmt_info {
    const char *name; /* "Q4_0" */
    enum fmt_type type;
    uint32_t block_len;   /* numbers in a block; 1 for R4: any length is whole */
    uint32_t block_bytes; /* bytes of a block; 0 for R4, whose rows are not apart */
    uint32_t tile_rows;   /* rows stored together: 16 for R4, else 1 */
    bool is_float;        /* F32, F16, BF16 */
    bool is_written;      /* false: read only */
    /* general.file_type of a model whose matrices have this type (llama.cpp's ftype;
     * for R4, which it does not have, the type's own number); 0 where none is written
     */
    uint32_t file_type;
    /* n numbers (a multiple of block_len) <-> n / block_len blocks.  encode rounds as
     * ggml's reference does (Q4_0: scale from the largest magnitude), but IQ4_NL's is
     * our own.  NULL where there is none: encode of a type that is only read, both of
     * R4. */
    void (*encode)(const float *x, void *blocks, size_t n);
    void (*decode)(const void *blocks, float *x, size_t n);
    /* The very same numbers as n / 32 blocks of Q8_0, no code -128; NULL where they do
     * not fit into such (an f16 scale and 32 signed bytes). */
    void (*to_q8_0)(const void *blocks, void *q8_0, size_t n);
};

/* NULL for a type that this program does not know. */
const struct fmt_info *fmt_find(uint32_t type);
/* By name, in any case; NULL when unknown. */
const struct fmt_info *fmt_by_name(const char *name);
/* The formats in a fixed order; NULL past the last. */
const struct fmt_info *fmt_at(size_t i);

/* Bytes of a row of n numbers; false when n is not whole blocks, the size overflows, or
 * rows are not apart (R4). */
bool fmt_row_bytes(const struct fmt_info *f, uint64_t n, size_t *bytes);

/* Bytes of tile_rows rows, and of a tensor of n_rows; false as above. */
bool fmt_tile_bytes(const struct fmt_info *f, uint64_t n_cols, size_t *bytes);
bool fmt_tensor_bytes(const struct fmt_info *f, uint64_t n_cols, uint64_t n_rows,
                      size_t *bytes);
/* A run of rows that starts with a tile: x [n_rows][n_cols] into fmt_tensor_bytes of
 * (n_cols, n_rows).  The type is_written. */
void fmt_encode_rows(const struct fmt_info *f, size_t n_cols, size_t n_rows,
                     const float *x, void *bytes);
/* Row `row` of a tensor that starts at `tensor` into out [n_cols]. */
void fmt_decode_row(const struct fmt_info *f, size_t n_cols, const void *tensor,
                    size_t row, float *out);

/* Single numbers (round to nearest even; NaN stays NaN). */
float fmt_f16_to_f32(uint16_t h);
uint16_t fmt_f32_to_f16(float f);
float fmt_bf16_to_f32(uint16_t h);
uint16_t fmt_f32_to_bf16(float f);

#endif
