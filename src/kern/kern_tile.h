/* Products of block formats: tiles of 16 rows, and vectors of 8-bit activations.
 *
 * A tile holds 16 rows side by side, so that one activation meets 16 weights at once
 * and no sum runs across a register: lane r of the 16 belongs to row r.  Rows past the
 * end of a matrix and columns past the end of a row are zeros of any bits: their
 * products meet activations that are 0, or are not read.
 *
 * Columns come in groups of 64, the groups of the activations.  Codes of 4 bits lie in
 * chunks of 8 columns, 64 bytes: byte 4 r + j holds the code of row r, column 8 c + j
 * in its low nibble and of column 8 c + 4 + j in its high one.  Codes of 8 bits lie in
 * chunks of 4 columns: byte 4 r + j is row r, column 4 c + j.
 *
 * The specification, for row r and one vector.  Group g has activations q (scale d);
 * h is a half of it, 32 columns; i is an exact sum of products.  acc starts at +0.
 *
 *  - R4: i = sum of (code - 8) * q over the group, s the group's scale in 8 bits;
 *    acc = fma((float)(s * i), d, acc), where s * i is exact, below 2^24.  At the end
 *    out = acc * (float)row scale.
 *  - Q4_0: i[h] = sum of (code - 8) * q over the half, s[h] its scale in f16;
 *    t = (float)i[0] * s[0]; t = fma((float)i[1], s[1], t); acc = fma(t, d, acc).  At
 *    the end out = acc.
 *  - Q8_0: as Q4_0, with i[h] = sum of code * q.
 *  - Q4_1: i[h] = sum of code * q, a[h] = sum of q, m[h] the half's minimum in f16;
 *    t as in Q4_0, then t = fma((float)a[0], m[0], t); t = fma((float)a[1], m[1], t);
 *    acc = fma(t, d, acc). */
#ifndef RUNT_KERN_TILE_H
#define RUNT_KERN_TILE_H

#include "fmt/fmt.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Activations in 8 bits, 64 at a time: value = d * q, d = max|x| / 127, q = x * (127 /
 * max|x|) rounded to nearest even, |q| <= 127.  Where max|x| is below 2^-119, d would
 * be denormal and 127 / max|x| near overflow: such a group counts as zero: d = 0
 * and q = 0.  The sums are exact; they spare the products taking a bias off every
 * weight. */
enum { KERN_GROUP = 64, KERN_HALF = KERN_GROUP / 2 };

struct kern_act {
    int8_t q[KERN_GROUP];
    float d;
    int16_t sum[2]; /* of each half of q */
    /* -8 times the sum of the q[j] with j / 32 == half and j % 4 / 2 == pair */
    int16_t minus8[2][2];   /* [half][pair] */
    int16_t minus8_both[2]; /* [pair]: of the two halves together, |.| <= 32512 */
};
_Static_assert(sizeof(struct kern_act) == 84, "no padding");

static inline size_t kern_n_groups(size_t n)
{
    return (n + KERN_GROUP - 1) / KERN_GROUP;
}

/* R4 is stored in tiles in the model file (fmt/r4.h has its layout).  The others are
 * packed when a model is loaded, group after group:
 *   Q4_0  f16 s[2][16], 8 chunks of 4-bit codes      576 bytes a group
 *   Q4_1  f16 s[2][16], f16 m[2][16], 8 chunks       640
 *   Q8_0  f16 s[2][16], 16 chunks of 8-bit codes    1088
 * A tile starts at a multiple of 64 bytes where the matrix does. */
enum kern_tile {
    KERN_TILE_R4,
    KERN_TILE_Q4_0,
    KERN_TILE_Q4_1,
    KERN_TILE_Q8_0,
    KERN_N_TILES
};

enum { KERN_TILE_ROWS = 16 };

/* Whether a format's products are made in tiles, and which. */
bool kern_tile_for(enum fmt_type type, enum kern_tile *out);
/* Bytes of one tile of rows of n_cols numbers; below 2^31 for n_cols up to 2^20. */
size_t kern_tile_bytes(enum kern_tile k, size_t n_cols);

/* Pack n_rows (1 to 16) rows of Q4_0, Q4_1 or Q8_0 as the model file has them into a
 * tile; n_cols is a multiple of 32.  Missing rows and columns become zero bytes. */
void kern_tile_pack(enum kern_tile k, size_t n_rows, size_t n_cols, const uint8_t *rows,
                    size_t row_bytes, void *tile);

/* n_tiles tiles against n_x vectors of n_cols numbers: out[k * out_stride + 16 * t + r]
 * = row r of tile t . x_k; all 16 rows of a tile are written.  Vector k starts at x + k
 * * kern_n_groups(n_cols), no q is -128.  The result of one vector does not depend on
 * n_x, nor that of a tile on n_tiles.  Tiles need the alignment of uint16_t, no more
 * (file offsets are multiples of 32). */
typedef void kern_tile_fn(size_t n_cols, size_t n_tiles, const void *tiles,
                          const struct kern_act *x, size_t n_x, float *out,
                          size_t out_stride);

#endif
