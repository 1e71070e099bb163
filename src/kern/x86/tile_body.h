/* Products of tiles, for every x86 instruction set: how tiles and vectors are walked,
 * and the arithmetic of kern_tile.h in terms of a few operations.  Everything is inline
 * with constant arguments.  A file that includes this defines before:
 *
 *   veci, vecf       a register of integers, of floats
 *   N_REG            registers that make up the 16 rows, 4 bytes a row
 *   FEW, MANY        vectors at a time, packed and unpacked, at most 8
 *   Q8_PLANES        1: Q8_0's codes are taken as code + 128, in one product; 2: as
 *                    16 * (high - 8) + low, in two products of 4 bits
 *   v_load, v_store, v_and, v_xor, v_srl4 (16 bits at a time), v_bytes, v_dword
 *                    (4 bytes from memory), f_load, f_store, f_set, f_mul, f_fma, f_f16
 *   v_dot            sum + products of unsigned bytes (codes) with signed ones; what a
 *                    sum is (32 bits, or two parts of 16) is known here and below only
 *   v_start          the sum that stands for two int16 in memory
 *   v_start16        16 times that
 *   sum_float        a sum as float
 *   sum_float2       16 * a + b as float, for two planes
 *   r4_scale         the scales of a group of R4, from bytes to a register
 *   r4_float         (float)(sum * scale)
 *
 * A few vectors cost little beside the memory that weights come from: codes are
 * unpacked in registers, and the tiles are read in PLACES at once, because the hardware
 * fetches ahead in each of them until the end of a page only, and the others go on
 * meanwhile; each place asks AHEAD bytes early for its lines, because the arithmetic
 * between two loads leaves the processor's window too few of them in flight. For many
 * vectors the codes (and scales) of some groups are unpacked once
 * into scratch that stays in the first-level cache, the vectors' sums are parked in
 * `out`, and the next tile's lines are asked for while this one is multiplied. */
#ifndef RUNT_KERN_TILE_BODY_H
#define RUNT_KERN_TILE_BODY_H

#include "fmt/r4.h"

/* For v from 0 to n - 1, unrolled: n is constant, and arrays that v indexes are to
 * become registers. */
#ifdef __clang__
#define foreach(v, n) _Pragma("clang loop unroll(full)") for (int v = 0; v < (n); v++)
#else
#define foreach(v, n) _Pragma("GCC unroll 8") for (int v = 0; v < (n); v++)
#endif

enum {
    MAX_VECTORS = 8,
    /* A quad is 4 columns of 16 rows, 64 bytes of codes of one byte. */
    N_QUADS = KERN_GROUP / 4,
    N_PAIRS = N_QUADS / 2,
    QUAD_BYTES = 64,
    PLACES = 4,
    /* From 512 to 1024 measured alike, 256 and 2048 less. */
    AHEAD = 1024,
    /* Groups unpacked at a time: 16 KiB of codes beside 4 of scales. */
    PIECE = 16,
    /* Vectors' bytes that are met by tile after tile while they stay in the
     * second-level cache. */
    VECTORS_BYTES = 256 << 10,
};

struct rows_i {
    veci r[N_REG];
};

struct rows_f {
    vecf r[N_REG];
};

/* Unpacked groups.  scale[0]: R4's r4_scale; else scale[0..1] the halves' scales,
 * scale[2..3] Q4_1's minima. */
struct scratch {
    _Alignas(64) uint8_t codes[PIECE][N_QUADS][QUAD_BYTES];
    float scale[PIECE][4][KERN_TILE_ROWS];
};

struct scale {
    struct rows_f s[4];
};

/* Where the weights of a run of groups are. */
struct weights {
    const uint8_t *head, *codes; /* packed */
    size_t head_step, codes_step;
    const struct scratch *ready;
};

INLINE unsigned n_planes(enum kern_tile k)
{
    return k == KERN_TILE_Q8_0 ? Q8_PLANES : 1;
}

INLINE size_t n_scales(enum kern_tile k)
{
    return k == KERN_TILE_R4 ? 1 : k == KERN_TILE_Q4_1 ? 4 : 2;
}

INLINE size_t piece_groups(enum kern_tile k)
{
    return PIECE / n_planes(k);
}

/* Bytes that hold the codes of two neighbouring quads: one chunk of 4 bits. */
INLINE size_t pair_bytes(enum kern_tile k)
{
    return k == KERN_TILE_Q8_0 ? 2 * QUAD_BYTES : QUAD_BYTES;
}

/* The first or second quad of a pair, each code in a byte, as v_dot takes them. */
INLINE struct rows_i quad_unpack(enum kern_tile k, unsigned plane, const uint8_t *pair,
                                 int second)
{
    const veci low = v_bytes(15);
    struct rows_i c;
    bool is_4 = k != KERN_TILE_Q8_0;
    foreach (i, N_REG) {
        veci v =
            v_load(pair + (second && !is_4 ? QUAD_BYTES : 0) + QUAD_BYTES / N_REG * i);
        if (is_4)
            c.r[i] = v_and(second ? v_srl4(v) : v, low);
        else if (Q8_PLANES == 1)
            c.r[i] = v_xor(v, v_bytes(-128));
        else /* high + 8 is high with its sign bit changed */
            c.r[i] = plane ? v_and(v, low) : v_xor(v_and(v_srl4(v), low), v_bytes(8));
    }
    return c;
}

INLINE struct rows_f f16_rows(const uint8_t *p)
{
    struct rows_f f;
    foreach (i, N_REG)
        f.r[i] = f_f16(p + 2 * KERN_TILE_ROWS / N_REG * i);
    return f;
}

INLINE struct scale scale_unpack(enum kern_tile k, const uint8_t *head)
{
    struct scale s;
    for (size_t j = 0; j < n_scales(k); j++) {
        if (k == KERN_TILE_R4)
            foreach (i, N_REG)
                s.s[0].r[i] = r4_scale(head + KERN_TILE_ROWS / N_REG * i);
        else
            s.s[j] = f16_rows(head + 2 * KERN_TILE_ROWS * j);
    }
    return s;
}

INLINE struct weights weights_skip(struct weights w, size_t n)
{
    w.head += n * w.head_step;
    w.codes += n * w.codes_step;
    return w;
}

static void unpack(enum kern_tile k, struct weights w, size_t n_groups,
                   struct scratch *to)
{
    uint8_t(*out)[QUAD_BYTES] = to->codes[0];
    for (size_t g = 0; g < n_groups; g++, w = weights_skip(w, 1)) {
        for (unsigned plane = 0; plane < n_planes(k); plane++) {
            const uint8_t *pair = w.codes;
            for (int p = 0; p < N_PAIRS; p++, out += 2, pair += pair_bytes(k)) {
                struct rows_i a = quad_unpack(k, plane, pair, 0),
                              b = quad_unpack(k, plane, pair, 1);
                foreach (i, N_REG) {
                    v_store(out[0] + QUAD_BYTES / N_REG * i, a.r[i]);
                    v_store(out[1] + QUAD_BYTES / N_REG * i, b.r[i]);
                }
            }
        }
        struct scale s = scale_unpack(k, w.head);
        for (size_t j = 0; j < n_scales(k); j++)
            foreach (i, N_REG)
                f_store(&to->scale[g][j][KERN_TILE_ROWS / N_REG * i], s.s[j].r[i]);
    }
}

/* ---- one group against n_v vectors ---- */

struct group {
    const uint8_t *codes; /* packed, or those of scratch */
    const struct kern_act *x;
    size_t x_step; /* from vector to vector */
};

/* sum[v] += products of the pairs of quads from `from` to `to`. */
INLINE void add_pairs(enum kern_tile k, bool ready, int n_v, unsigned plane,
                      struct group in, size_t from, size_t to, struct rows_i *sum)
{
    size_t step = ready ? 2 * QUAD_BYTES : pair_bytes(k);
    const uint8_t *pair =
        in.codes + step * from + (ready ? (size_t)N_QUADS * QUAD_BYTES * plane : 0);
#pragma GCC unroll 1
    for (size_t p = from; p < to; p++, pair += step) {
        if (!ready && !plane)
            for (size_t i = 0; i < step; i += 64)
                _mm_prefetch((const char *)pair + AHEAD + i, _MM_HINT_T0);
        foreach (second, 2) {
            struct rows_i c;
            if (ready)
                foreach (i, N_REG)
                    c.r[i] =
                        v_load(pair + QUAD_BYTES * second + QUAD_BYTES / N_REG * i);
            else
                c = quad_unpack(k, plane, pair, second);
            foreach (v, n_v) {
                veci x = v_dword(in.x[v * in.x_step].q + 8 * p + 4 * second);
                foreach (i, N_REG)
                    sum[v].r[i] = v_dot(sum[v].r[i], c.r[i], x);
            }
        }
    }
}

INLINE struct rows_i all_rows(veci v)
{
    struct rows_i s;
    foreach (i, N_REG)
        s.r[i] = v;
    return s;
}

/* t = the first half's sum times its scale, or that of the second added; h constant. */
INLINE void half_sums(enum kern_tile k, bool ready, int n_v, struct group in, size_t h,
                      struct rows_f s, struct rows_f *t)
{
    struct rows_i a[MAX_VECTORS], b[MAX_VECTORS];
    foreach (v, n_v) {
        const int16_t *m = in.x[v * in.x_step].minus8[h];
        a[v] = all_rows(k == KERN_TILE_Q4_1                     ? v_bytes(0)
                        : k == KERN_TILE_Q8_0 && Q8_PLANES == 1 ? v_start16(m)
                                                                : v_start(m));
        b[v] = all_rows(v_bytes(0));
    }
    add_pairs(k, ready, n_v, 0, in, N_PAIRS / 2 * h, N_PAIRS / 2 * (h + 1), a);
    if (n_planes(k) == 2)
        add_pairs(k, ready, n_v, 1, in, N_PAIRS / 2 * h, N_PAIRS / 2 * (h + 1), b);
    foreach (v, n_v) {
        foreach (i, N_REG) {
            vecf p = n_planes(k) == 2 ? sum_float2(a[v].r[i], b[v].r[i])
                                      : sum_float(a[v].r[i]);
            t[v].r[i] = h ? f_fma(p, s.r[i], t[v].r[i]) : f_mul(p, s.r[i]);
        }
    }
}

INLINE void min_sums(int n_v, struct group in, size_t h, struct rows_f min,
                     struct rows_f *t)
{
    foreach (v, n_v) {
        vecf a = f_set((float)in.x[v * in.x_step].sum[h]);
        foreach (i, N_REG)
            t[v].r[i] = f_fma(a, min.r[i], t[v].r[i]);
    }
}

INLINE void r4_sums(bool ready, int n_v, struct group in, const struct scale *s,
                    struct rows_f *t)
{
    struct rows_i sum[MAX_VECTORS];
    foreach (v, n_v)
        sum[v] = all_rows(v_start(in.x[v * in.x_step].minus8_both));
    add_pairs(KERN_TILE_R4, ready, n_v, 0, in, 0, N_PAIRS, sum);
    foreach (v, n_v)
        foreach (i, N_REG)
            t[v].r[i] = r4_float(sum[v].r[i], s->s[0].r[i]);
}

/* acc[v] over n_groups groups. */
INLINE void add_groups(enum kern_tile k, bool ready, int n_v, struct weights w,
                       size_t n_groups, const struct kern_act *x, size_t x_step,
                       struct rows_f *acc)
{
    struct group in = {w.codes, x, x_step};
    for (size_t g = 0; g < n_groups; g++) {
        struct scale s;
        struct rows_f t[MAX_VECTORS];
        if (!ready)
            s = scale_unpack(k, w.head);
        else {
            in.codes = w.ready->codes[g * n_planes(k)][0];
            for (size_t j = 0; j < n_scales(k); j++)
                foreach (i, N_REG)
                    s.s[j].r[i] =
                        f_load(&w.ready->scale[g][j][KERN_TILE_ROWS / N_REG * i]);
        }
        if (k == KERN_TILE_R4)
            r4_sums(ready, n_v, in, &s, t);
        else {
            half_sums(k, ready, n_v, in, 0, s.s[0], t);
            half_sums(k, ready, n_v, in, 1, s.s[1], t);
        }
        if (k == KERN_TILE_Q4_1) {
            min_sums(n_v, in, 0, s.s[2], t);
            min_sums(n_v, in, 1, s.s[3], t);
        }
        foreach (v, n_v)
            foreach (i, N_REG)
                acc[v].r[i] = f_fma(t[v].r[i], f_set(in.x[v * x_step].d), acc[v].r[i]);
        in.x++;
        if (!ready) {
            w = weights_skip(w, 1);
            in.codes = w.codes;
        }
    }
}

/* ---- tiles against vectors ---- */

/* What is left to do when acc has all groups. */
INLINE void finish(enum kern_tile k, int n_v, const uint8_t *row_scale,
                   struct rows_f *acc)
{
    if (k != KERN_TILE_R4)
        return;
    struct rows_f s = f16_rows(row_scale);
    foreach (v, n_v)
        foreach (i, N_REG)
            acc[v].r[i] = f_mul(acc[v].r[i], s.r[i]);
}

/* A run of groups of one tile, unpacked, against some vectors. */
struct part {
    struct weights w;
    const uint8_t *row_scale;
    size_t n_groups, x_step, out_stride;
    bool first, last; /* these groups are the tile's first, last */
};

INLINE void vectors(enum kern_tile k, int n_v, const struct part *p,
                    const struct kern_act *x, float *out)
{
    struct rows_f acc[MAX_VECTORS];
    enum { STEP = KERN_TILE_ROWS / N_REG };
    foreach (v, n_v)
        foreach (i, N_REG)
            acc[v].r[i] =
                p->first ? f_set(0) : f_load(out + v * p->out_stride + STEP * i);
    add_groups(k, true, n_v, p->w, p->n_groups, x, p->x_step, acc);
    if (p->last)
        finish(k, n_v, p->row_scale, acc);
    foreach (v, n_v)
        foreach (i, N_REG)
            f_store(out + v * p->out_stride + STEP * i, acc[v].r[i]);
}

/* Vectors in turns of at most MANY, as equal as can be.  In each turn a share of the
 * bytes at `next` is asked for. */
INLINE void all_vectors(enum kern_tile k, const struct part *p,
                        const struct kern_act *x, size_t n_x, float *out,
                        const uint8_t *next, size_t n_next)
{
    size_t n_v, n_turns = (n_x + MANY - 1) / MANY;
    size_t share = (n_next / 64 + n_turns - 1) / n_turns * 64;
    for (; n_turns; n_turns--, n_x -= n_v) {
        size_t n = n_next < share ? n_next : share;
        for (size_t i = 0; i < n; i += 64)
            _mm_prefetch((const char *)next + i, _MM_HINT_T1);
        next += n;
        n_next -= n;
        n_v = (n_x + n_turns - 1) / n_turns;
        switch (n_v) {
        case 1:
            vectors(k, 1, p, x, out);
            break;
        case 2:
            vectors(k, 2, p, x, out);
            break;
        case 3:
            vectors(k, 3, p, x, out);
            break;
        case 4:
            vectors(k, 4, p, x, out);
            break;
        case 5:
            if (MANY >= 5)
                vectors(k, 5, p, x, out);
            break;
        case 6:
            if (MANY >= 6)
                vectors(k, 6, p, x, out);
            break;
        case 7:
            if (MANY >= 7)
                vectors(k, 7, p, x, out);
            break;
        default:
            if (MANY >= 8)
                vectors(k, 8, p, x, out);
        }
        x += n_v * p->x_step;
        out += n_v * p->out_stride;
    }
}

INLINE struct weights tile_weights(enum kern_tile k, size_t n_cols, const uint8_t *tile)
{
    size_t head = k == KERN_TILE_Q4_1 ? 128 : 64;
    size_t step = head + (k == KERN_TILE_Q8_0 ? 1024 : 512);
    if (k == KERN_TILE_R4)
        return (struct weights){.head = tile + 2 * KERN_TILE_ROWS,
                                .codes = tile + r4_head_bytes(n_cols),
                                .head_step = KERN_TILE_ROWS,
                                .codes_step = 512};
    return (struct weights){
        .head = tile, .codes = tile + head, .head_step = step, .codes_step = step};
}

/* n_places tiles, `distance` apart, against n_v vectors: a group of each in turn. */
INLINE void few_tiles(enum kern_tile k, int n_v, size_t n_cols, size_t n_places,
                      const uint8_t *tile, size_t distance, const struct kern_act *x,
                      float *out, size_t out_distance, size_t out_stride)
{
    enum { STEP = KERN_TILE_ROWS / N_REG };
    struct rows_f acc[PLACES][MAX_VECTORS];
    struct weights w = tile_weights(k, n_cols, tile);
    size_t n_groups = kern_n_groups(n_cols);
    for (size_t j = 0; j < n_places; j++)
        foreach (v, n_v)
            foreach (i, N_REG)
                acc[j][v].r[i] = f_set(0);
    for (size_t g = 0; g < n_groups; g++, w = weights_skip(w, 1)) {
        struct weights at = w;
#pragma GCC unroll 1
        for (size_t j = 0; j < n_places; j++) {
            add_groups(k, false, n_v, at, 1, x + g, n_groups, acc[j]);
            at.head += distance;
            at.codes += distance;
        }
    }
    for (size_t j = 0; j < n_places; j++) {
        finish(k, n_v, tile + j * distance, acc[j]);
        foreach (v, n_v)
            foreach (i, N_REG)
                f_store(out + j * out_distance + v * out_stride + STEP * i,
                        acc[j][v].r[i]);
    }
}

INLINE void few_places(enum kern_tile k, size_t n_cols, size_t n_places,
                       const uint8_t *tile, size_t distance, const struct kern_act *x,
                       size_t n_x, float *out, size_t out_distance, size_t out_stride)
{
    switch (n_x) {
    case 1:
        few_tiles(k, 1, n_cols, n_places, tile, distance, x, out, out_distance,
                  out_stride);
        break;
    case 2:
        few_tiles(k, 2, n_cols, n_places, tile, distance, x, out, out_distance,
                  out_stride);
        break;
    case 3:
        few_tiles(k, 3, n_cols, n_places, tile, distance, x, out, out_distance,
                  out_stride);
        break;
    case 4:
        few_tiles(k, 4, n_cols, n_places, tile, distance, x, out, out_distance,
                  out_stride);
        break;
    default:
        if (FEW >= 5)
            few_tiles(k, 5, n_cols, n_places, tile, distance, x, out, out_distance,
                      out_stride);
    }
}

/* n_x from 1 to FEW.  The tiles are cut into PLACES runs; what is left over comes one
 * by one. */
INLINE void few_vectors(enum kern_tile k, size_t n_cols, size_t n_tiles,
                        const uint8_t *tile, const struct kern_act *x, size_t n_x,
                        float *out, size_t out_stride)
{
    size_t bytes = kern_tile_bytes(k, n_cols), run = n_tiles / PLACES;
    size_t n_turns = run + n_tiles % PLACES;
    for (size_t i = 0; i < n_turns; i++) {
        bool together = i < run;
        size_t t = together ? i : n_tiles - (n_turns - i);
        few_places(k, n_cols, together ? PLACES : 1, tile + t * bytes, run * bytes, x,
                   n_x, out + t * KERN_TILE_ROWS, run * KERN_TILE_ROWS, out_stride);
    }
}

INLINE void many_vectors(enum kern_tile k, size_t n_cols, size_t n_tiles,
                         const uint8_t *tile, const struct kern_act *x, size_t n_x,
                         float *out, size_t out_stride)
{
    size_t n_groups = kern_n_groups(n_cols), bytes = kern_tile_bytes(k, n_cols);
    struct scratch ready;
    for (size_t t = 0; t < n_tiles; t++, tile += bytes, out += KERN_TILE_ROWS) {
        struct weights w = tile_weights(k, n_cols, tile);
        size_t g = 0, n;
        do {
            n = n_groups - g < piece_groups(k) ? n_groups - g : piece_groups(k);
            unpack(k, w, n, &ready);
            w = weights_skip(w, n);
            struct part p = {.w = {.ready = &ready},
                             .row_scale = tile,
                             .n_groups = n,
                             .x_step = n_groups,
                             .out_stride = out_stride,
                             .first = g == 0,
                             .last = g + n == n_groups};
            /* of the next tile as much as this part is of its own */
            size_t at = bytes * g / n_groups, to = bytes * (g + n) / n_groups;
            all_vectors(k, &p, x + g, n_x, out, tile + bytes + at,
                        t + 1 < n_tiles ? to - at : 0);
            g += n;
        } while (g < n_groups);
    }
}

INLINE void tiles(enum kern_tile k, size_t n_cols, size_t n_tiles, const uint8_t *tile,
                  const struct kern_act *x, size_t n_x, float *out, size_t out_stride)
{
    if (!n_x)
        return;
    if (n_x <= FEW) {
        few_vectors(k, n_cols, n_tiles, tile, x, n_x, out, out_stride);
        return;
    }
    size_t n_groups = kern_n_groups(n_cols);
    size_t most = VECTORS_BYTES / ((n_groups + 1) * sizeof *x) / MANY * MANY;
    most = most < 4 * MANY ? 4 * MANY : most;
    for (size_t n; n_x; n_x -= n, x += n * n_groups, out += n * out_stride) {
        n = n_x < most + MANY ? n_x : most;
        many_vectors(k, n_cols, n_tiles, tile, x, n, out, out_stride);
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

INLINE void fill_tiles(struct kern_table *t)
{
    t->tile[KERN_TILE_R4] = tile_r4;
    t->tile[KERN_TILE_Q4_0] = tile_q4_0;
    t->tile[KERN_TILE_Q4_1] = tile_q4_1;
    t->tile[KERN_TILE_Q8_0] = tile_q8_0;
}

#endif
