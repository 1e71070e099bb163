/* R4, runt's own 4-bit format: 16 rows interleaved, stored as the kernels read them.
 *
 * value[row][col] = row_scale * group_scale * (code - 8), codes 0 to 15, group_scale a
 * signed byte for each row and 64 columns, row_scale f16.  A tile of 16 rows:
 *
 *   f16  row_scale[16]
 *   int8 group_scale[n_groups][16]
 *   zeros up to a multiple of 64
 *   u8   codes[n_groups * 8][64]    8 columns a chunk: byte 4 r + j is row r, its low
 *                                   nibble column 8 c + j, its high one 8 c + 4 + j
 *
 * n_groups = ceil(n_cols / 64); rows and columns that pad a matrix to whole tiles have
 * scales and codes of 0 (in a group that has columns, filling codes are 8, value 0).
 * 4.17 bits a weight at 768 columns, 4.14 at 3072. */
#ifndef RUNT_FMT_R4_H
#define RUNT_FMT_R4_H

#include <stddef.h>
#include <stdint.h>

enum { R4_ROWS = 16, R4_GROUP = 64, R4_CHUNK = 8, R4_CHUNK_BYTES = 64 };

static inline size_t r4_n_groups(size_t n_cols)
{
    return (n_cols + R4_GROUP - 1) / R4_GROUP;
}

/* Bytes of a tile before its codes. */
static inline size_t r4_head_bytes(size_t n_cols)
{
    return (2 * R4_ROWS + r4_n_groups(n_cols) * R4_ROWS + 63) / 64 * 64;
}

static inline size_t r4_tile_bytes(size_t n_cols)
{
    return r4_head_bytes(n_cols) +
           r4_n_groups(n_cols) * (R4_GROUP / R4_CHUNK) * R4_CHUNK_BYTES;
}

/* ---- rounding a row, in pieces (r4.c) ---- */

/* The f16 scale of a row; 0 when every number rounds to 0, infinite when one is not
 * finite or too large (above 65504 * 127 * 7). */
uint16_t r4_row_scale(const float *x, size_t n_cols);
/* The 8-bit scale, -127 to 127, that rounds the n <= R4_GROUP numbers of a group with
 * the least squared error. */
int r4_group_scale(const float *x, size_t n, float row_scale);
/* The nearest codes for scale = row_scale * group_scale, and filling ones. */
void r4_round_group(const float *x, size_t n, float scale, uint8_t codes[R4_GROUP]);
/* Store a row's scale, or a group's scale and codes, in row r of a tile of zeros. */
void r4_put_row_scale(void *tile, size_t r, uint16_t scale);
void r4_put_group(void *tile, size_t n_cols, size_t r, size_t group, int scale,
                  const uint8_t codes[R4_GROUP]);

#endif
