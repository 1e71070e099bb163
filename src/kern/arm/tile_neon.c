/* Products of tiles (kern_tile.h) in NEON, compiled with and without sdot: neon.h.
 *
 * One function for each kind of tile, made from an inline body whose kind and number of
 * vectors are constants.  A tile stays in the first cache while vectors pass over it,
 * SHARE of them at a time; a vector's own sequence of operations does not change with
 * their number.  The bias of 8 is not taken off the codes: -8 times the sum of the
 * activations, which they carry, is where the exact sums start.
 *
 * Not measured on a processor: there was none at hand.  The shape (SHARE, four
 * chains of sdot a vector) is meant for Cortex-A76 and Apple's cores. */
#include "kern/arm/dot_neon.h"

#include "fmt/r4.h"

/* 16 halves as floats. */
INLINE void load_scales(const uint8_t *p, float32x4_t s[N_REGS])
{
    for (int k = 0; k < N_REGS; k++)
        s[k] = load_f16x4(p + 8 * k);
}

INLINE void r4_group(int n_v, const uint8_t *scales, const uint8_t *codes,
                     const struct kern_act *const *x, float32x4_t (*acc)[N_REGS])
{
    const int8_t *q[SHARE];
    int32_t start[SHARE];
    int32x4_t p[SHARE][N_REGS];
    for (int v = 0; v < n_v; v++) {
        q[v] = x[v]->q;
        start[v] = x[v]->minus8_both[0] + x[v]->minus8_both[1];
    }
    sums4(n_v, 8, codes, q, start, p);
    int8x16_t s8 = vreinterpretq_s8_u8(vld1q_u8(scales));
    int16x8_t lo = vmovl_s8(vget_low_s8(s8)), hi = vmovl_high_s8(s8);
    int32x4_t s[N_REGS] = {vmovl_s16(vget_low_s16(lo)), vmovl_high_s16(lo),
                           vmovl_s16(vget_low_s16(hi)), vmovl_high_s16(hi)};
    for (int v = 0; v < n_v; v++)
        for (int k = 0; k < N_REGS; k++) {
            float32x4_t f = vcvtq_f32_s32(vmulq_s32(p[v][k], s[k]));
            acc[v][k] = vfmaq_n_f32(acc[v][k], f, x[v]->d);
        }
}

/* Half h of a group, of the formats that have a scale for each: what it adds to t. */
INLINE void half(enum kern_tile kind, int n_v, int h, const uint8_t *group,
                 const struct kern_act *const *x, float32x4_t (*t)[N_REGS])
{
    const uint8_t *codes = group + (kind == KERN_TILE_Q4_1 ? 128 : 64);
    const int8_t *q[SHARE];
    int32_t start[SHARE];
    int32x4_t p[SHARE][N_REGS];
    float32x4_t s[N_REGS];
    for (int v = 0; v < n_v; v++) {
        q[v] = x[v]->q + KERN_HALF * h;
        start[v] = kind == KERN_TILE_Q4_0 ? -8 * x[v]->sum[h] : 0;
    }
    if (kind == KERN_TILE_Q8_0)
        sums8(n_v, 8, (const int8_t *)codes + 512 * h, q, p);
    else
        sums4(n_v, 4, codes + 256 * h, q, start, p);
    load_scales(group + 32 * h, s);
    for (int v = 0; v < n_v; v++)
        for (int k = 0; k < N_REGS; k++) {
            float32x4_t f = vcvtq_f32_s32(p[v][k]);
            t[v][k] = h ? vfmaq_f32(t[v][k], f, s[k]) : vmulq_f32(f, s[k]);
        }
}

INLINE void half_group(enum kern_tile kind, int n_v, const uint8_t *group,
                       const struct kern_act *const *x, float32x4_t (*acc)[N_REGS])
{
    float32x4_t t[SHARE][N_REGS], m[N_REGS];
    half(kind, n_v, 0, group, x, t);
    half(kind, n_v, 1, group, x, t);
    for (int h = 0; kind == KERN_TILE_Q4_1 && h < 2; h++) {
        load_scales(group + 64 + 32 * h, m);
        for (int v = 0; v < n_v; v++)
            for (int k = 0; k < N_REGS; k++)
                t[v][k] = vfmaq_n_f32(t[v][k], m[k], (float)x[v]->sum[h]);
    }
    for (int v = 0; v < n_v; v++)
        for (int k = 0; k < N_REGS; k++)
            acc[v][k] = vfmaq_n_f32(acc[v][k], t[v][k], x[v]->d);
}

/* One tile against n_v vectors, n_v <= SHARE. */
INLINE void vectors(enum kern_tile kind, int n_v, size_t n_cols, const uint8_t *tile,
                    const struct kern_act *x, float *out, size_t out_stride)
{
    size_t n_groups = kern_n_groups(n_cols),
           group_bytes = kind == KERN_TILE_Q4_0   ? 576
                         : kind == KERN_TILE_Q4_1 ? 640
                         : kind == KERN_TILE_Q8_0 ? 1088
                                                  : 512;
    const uint8_t *group = tile + (kind == KERN_TILE_R4 ? r4_head_bytes(n_cols) : 0);
    float32x4_t acc[SHARE][N_REGS];
    for (int v = 0; v < n_v; v++)
        for (int k = 0; k < N_REGS; k++)
            acc[v][k] = vdupq_n_f32(0);
    for (size_t g = 0; g < n_groups; g++, group += group_bytes) {
        const struct kern_act *at[SHARE];
        for (int v = 0; v < n_v; v++)
            at[v] = x + v * n_groups + g;
        if (kind == KERN_TILE_R4)
            r4_group(n_v, tile + 2 * R4_ROWS + R4_ROWS * g, group, at, acc);
        else
            half_group(kind, n_v, group, at, acc);
    }
    float32x4_t s[N_REGS];
    if (kind == KERN_TILE_R4)
        load_scales(tile, s);
    for (int v = 0; v < n_v; v++)
        for (int k = 0; k < N_REGS; k++)
            vst1q_f32(out + v * out_stride + 4 * k,
                      kind == KERN_TILE_R4 ? vmulq_f32(acc[v][k], s[k]) : acc[v][k]);
}

INLINE void tiles(enum kern_tile kind, size_t n_cols, size_t n_tiles,
                  const uint8_t *tile, const struct kern_act *x, size_t n_x, float *out,
                  size_t out_stride)
{
    size_t n_groups = kern_n_groups(n_cols), bytes = kern_tile_bytes(kind, n_cols);
    for (size_t t = 0; t < n_tiles; t++, tile += bytes, out += KERN_TILE_ROWS) {
        size_t i = 0;
        for (; i + SHARE <= n_x; i += SHARE)
            vectors(kind, SHARE, n_cols, tile, x + i * n_groups, out + i * out_stride,
                    out_stride);
        for (; SHARE > 2 && i + 2 <= n_x; i += 2)
            vectors(kind, 2, n_cols, tile, x + i * n_groups, out + i * out_stride,
                    out_stride);
        if (i < n_x)
            vectors(kind, 1, n_cols, tile, x + i * n_groups, out + i * out_stride, 0);
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

#ifdef __ARM_FEATURE_DOTPROD
void kern_fill_neon_dot_tile(struct kern_table *t)
#else
void kern_fill_neon_tile(struct kern_table *t)
#endif
{
    t->tile[KERN_TILE_R4] = tile_r4;
    t->tile[KERN_TILE_Q4_0] = tile_q4_0;
    t->tile[KERN_TILE_Q4_1] = tile_q4_1;
    t->tile[KERN_TILE_Q8_0] = tile_q8_0;
}
