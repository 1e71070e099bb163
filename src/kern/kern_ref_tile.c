/* The specification of products of tiles, in scalar C: kern_tile.h word for word.
 * fmaf() is always meant as one rounding. */
#include "kern/kern_impl.h"

#include "fmt/r4.h"

#include <math.h>
#include <string.h>

static float load_f16(const uint8_t *p)
{
    uint16_t u;
    memcpy(&u, p, sizeof u);
    return fmt_f16_to_f32(u);
}

/* The code of row r, column col of a group. */
static int code4(const uint8_t *codes, size_t r, size_t col)
{
    int byte = codes[64 * (col / 8) + 4 * r + col % 4];
    return col % 8 < 4 ? byte & 15 : byte >> 4;
}

static int code8(const uint8_t *codes, size_t r, size_t col)
{
    int8_t q;
    memcpy(&q, codes + 64 * (col / 4) + 4 * r + col % 4, 1);
    return q;
}

static float r4_row(size_t n_cols, const uint8_t *tile, size_t r,
                    const struct kern_act *x)
{
    const uint8_t *codes = tile + r4_head_bytes(n_cols);
    float acc = 0;
    for (size_t g = 0; g < r4_n_groups(n_cols); g++, codes += 512) {
        int p = 0, s = (int8_t)tile[2 * R4_ROWS + g * R4_ROWS + r];
        for (size_t j = 0; j < KERN_GROUP; j++)
            p += (code4(codes, r, j) - 8) * x[g].q[j];
        acc = fmaf((float)(s * p), x[g].d, acc);
    }
    return acc * load_f16(tile + 2 * r);
}

static float half_row(enum kern_tile k, size_t n_cols, const uint8_t *tile, size_t r,
                      const struct kern_act *x)
{
    size_t n_groups = kern_n_groups(n_cols), head = k == KERN_TILE_Q4_1 ? 128 : 64;
    const uint8_t *group = tile;
    float acc = 0;
    for (size_t g = 0; g < n_groups; g++) {
        float t = 0;
        for (size_t h = 0; h < 2; h++) {
            float s = load_f16(group + 32 * h + 2 * r);
            int p = 0;
            for (size_t j = KERN_HALF * h; j < KERN_HALF * (h + 1); j++) {
                int w = k == KERN_TILE_Q8_0   ? code8(group + head, r, j)
                        : k == KERN_TILE_Q4_0 ? code4(group + head, r, j) - 8
                                              : code4(group + head, r, j);
                p += w * x[g].q[j];
            }
            t = h ? fmaf((float)p, s, t) : (float)p * s;
        }
        for (size_t h = 0; k == KERN_TILE_Q4_1 && h < 2; h++)
            t = fmaf((float)x[g].sum[h], load_f16(group + 64 + 32 * h + 2 * r), t);
        acc = fmaf(t, x[g].d, acc);
        group += head + (k == KERN_TILE_Q8_0 ? 1024 : 512);
    }
    return acc;
}

static void tiles(enum kern_tile k, size_t n_cols, size_t n_tiles, const uint8_t *tile,
                  const struct kern_act *x, size_t n_x, float *out, size_t out_stride)
{
    for (size_t t = 0; t < n_tiles; t++, tile += kern_tile_bytes(k, n_cols))
        for (size_t i = 0; i < n_x; i++)
            for (size_t r = 0; r < KERN_TILE_ROWS; r++) {
                const struct kern_act *v = x + i * kern_n_groups(n_cols);
                out[i * out_stride + KERN_TILE_ROWS * t + r] =
                    k == KERN_TILE_R4 ? r4_row(n_cols, tile, r, v)
                                      : half_row(k, n_cols, tile, r, v);
            }
}

static void tile_r4(size_t n_cols, size_t n_tiles, const void *t,
                    const struct kern_act *x, size_t n_x, float *out, size_t out_stride)
{
    tiles(KERN_TILE_R4, n_cols, n_tiles, t, x, n_x, out, out_stride);
}

static void tile_q4_0(size_t n_cols, size_t n_tiles, const void *t,
                      const struct kern_act *x, size_t n_x, float *out,
                      size_t out_stride)
{
    tiles(KERN_TILE_Q4_0, n_cols, n_tiles, t, x, n_x, out, out_stride);
}

static void tile_q4_1(size_t n_cols, size_t n_tiles, const void *t,
                      const struct kern_act *x, size_t n_x, float *out,
                      size_t out_stride)
{
    tiles(KERN_TILE_Q4_1, n_cols, n_tiles, t, x, n_x, out, out_stride);
}

static void tile_q8_0(size_t n_cols, size_t n_tiles, const void *t,
                      const struct kern_act *x, size_t n_x, float *out,
                      size_t out_stride)
{
    tiles(KERN_TILE_Q8_0, n_cols, n_tiles, t, x, n_x, out, out_stride);
}

void kern_fill_ref_tile(struct kern_table *t)
{
    t->tile[KERN_TILE_R4] = tile_r4;
    t->tile[KERN_TILE_Q4_0] = tile_q4_0;
    t->tile[KERN_TILE_Q4_1] = tile_q4_1;
    t->tile[KERN_TILE_Q8_0] = tile_q8_0;
}
