/* Attention over a cache (kern_attn.h) in NEON, compiled with and without sdot: neon.h.
 *
 * Scores: lane r of 16 is a position of the stripe, so a query's number meets 16 keys
 * at once.  Values: a register holds dimensions, a position's weight meets all of them.
 * Several queries share the widening of keys and values; a single one, as in decoding,
 * takes two stripes of keys or 64 dimensions at a time, so that there are enough
 * independent chains of fma.  Not measured on a processor. */
#include "kern/arm/dot_neon.h"

#include <math.h>

enum { QUERIES = 4 }; /* at a time; times 4 registers of sums */

INLINE size_t pad4(size_t n_dim)
{
    return (n_dim + 3) / 4 * 4;
}

/* ---- storing ---- */

INLINE uint16x4_t to_f16(float32x4_t v)
{
    return vreinterpret_u16_f16(vcvt_f16_f32(v));
}

static void store_key_f16(size_t n_dim, const float *key, void *stripe, size_t lane)
{
    for (size_t d = 0; d < n_dim; d += REG) {
        uint16_t h[REG];
        vst1_u16(h, to_f16(load_part(key, d, n_dim)));
        for (size_t j = 0; j < REG && d + j < n_dim; j++)
            memcpy((char *)stripe + 2 * (KERN_STRIPE * (d + j) + lane), &h[j], 2);
    }
}

static void store_value_f16(size_t n_dim, const float *value, void *stripe, size_t lane)
{
    uint16_t *p = (uint16_t *)stripe + n_dim * lane;
    for (size_t d = 0; d < n_dim; d += REG) {
        uint16x4_t h = to_f16(load_part(value, d, n_dim));
        if (d + REG <= n_dim)
            vst1_u16(p + d, h);
        else
            memcpy(p + d, &h, 2 * (n_dim - d));
    }
}

static void store_key_f32(size_t n_dim, const float *key, void *stripe, size_t lane)
{
    for (size_t d = 0; d < n_dim; d++)
        memcpy((char *)stripe + 4 * (KERN_STRIPE * d + lane), key + d, sizeof *key);
}

static void store_value_f32(size_t n_dim, const float *value, void *stripe, size_t lane)
{
    memcpy((char *)stripe + 4 * n_dim * lane, value, n_dim * sizeof *value);
}

/* The maximum of |x * scale|, NaN above infinity. */
INLINE uint32_t max_abs_bits(size_t n, const float *x, float scale)
{
    uint32x4_t max = vdupq_n_u32(0);
    for (size_t i = 0; i < n; i += REG) {
        float32x4_t v = vmulq_n_f32(load_part(x, i, n), scale);
        max = vmaxq_u32(max, keep_bits(abs_bits(v), i, n));
    }
    return vmaxvq_u32(max);
}

/* round_q of 4 numbers as 4 bytes. */
INLINE uint32_t bytes_of(int32x4_t q)
{
    int16x4_t h = vmovn_s32(q);
    return vget_lane_u32(vreinterpret_u32_s8(vmovn_s16(vcombine_s16(h, h))), 0);
}

/* The scale of a key or a value; the codes' factor, 0 where every code is 0. */
INLINE float code_factor(size_t n_dim, const float *x, uint16_t *d)
{
    uint32_t bits = max_abs_bits(n_dim, x, 1);
    float max;
    memcpy(&max, &bits, sizeof max);
    *d = fmt_f32_to_f16(max / KERN_ACT_MAX_Q);
    float f = fmt_f16_to_f32(*d);
    return f > 0 && f < INFINITY ? 1 / f : 0;
}

/* Codes of one position, four at a time, `step` bytes from four to four. */
INLINE void store_codes(size_t n_dim, const float *x, float inv, char *to, size_t step)
{
    for (size_t i = 0; i < n_dim; i += REG, to += step) {
        uint32_t codes = 0;
        if (inv > 0)
            codes = bytes_of(round_q(vmulq_n_f32(load_part(x, i, n_dim), inv)));
        memcpy(to, &codes, sizeof codes);
    }
}

static void store_key_q8(size_t n_dim, const float *key, void *stripe, size_t lane)
{
    char *p = stripe;
    uint16_t d;
    float inv = code_factor(n_dim, key, &d);
    memcpy(p + 2 * lane, &d, sizeof d);
    store_codes(n_dim, key, inv, p + 2 * KERN_STRIPE + 4 * lane, 64);
}

static void store_value_q8(size_t n_dim, const float *value, void *stripe, size_t lane)
{
    char *p = stripe;
    uint16_t d;
    float inv = code_factor(n_dim, value, &d);
    memcpy(p + 2 * lane, &d, sizeof d);
    store_codes(n_dim, value, inv, p + 2 * KERN_STRIPE + pad4(n_dim) * lane, 4);
}

/* ---- queries ---- */

static void query_float(size_t n_dim, const float *q, float scale, void *out)
{
    for (size_t d = 0; d < n_dim; d += REG)
        store_part(out, d, n_dim, vmulq_n_f32(load_part(q, d, n_dim), scale));
}

struct query_q8 {
    float d;
    int32_t sum;
    int8_t q[];
};

static void query_q8(size_t n_dim, const float *q, float scale, void *out)
{
    struct query_q8 *to = out;
    uint32_t bits = max_abs_bits(n_dim, q, scale);
    if (bits < KERN_ACT_MIN_BITS) {
        memset(to, 0, kern_query_bytes(KERN_KV_Q8, n_dim));
        return;
    }
    float max;
    memcpy(&max, &bits, sizeof max);
    float32x4_t inv = vdupq_n_f32(KERN_ACT_MAX_Q / max);
    int32x4_t sum = vdupq_n_s32(0);
    to->d = max / KERN_ACT_MAX_Q;
    for (size_t i = 0; i < n_dim; i += REG) {
        float32x4_t v = vmulq_n_f32(load_part(q, i, n_dim), scale);
        /* zeros past the end, also where inv is NaN */
        int32x4_t c = round_q(vmulq_f32(v, inv));
        c = vreinterpretq_s32_u32(keep_bits(vreinterpretq_u32_s32(c), i, n_dim));
        sum = vaddq_s32(sum, c);
        uint32_t codes = bytes_of(c);
        memcpy(to->q + i, &codes, sizeof codes);
    }
    to->sum = vaddvq_s32(sum);
}

/* ---- scores ---- */

INLINE size_t float_bytes(enum kern_kv kv)
{
    return kv == KERN_KV_F16 ? 2 : 4;
}

INLINE float32x4_t load_numbers(enum kern_kv kv, const char *p)
{
    return kv == KERN_KV_F16 ? load_f16x4(p)
                             : vreinterpretq_f32_u8(vld1q_u8((const uint8_t *)p));
}

/* n_q queries against n_s neighbouring stripes, n_q * n_s <= QUERIES. */
INLINE void dots_float(enum kern_kv kv, int n_q, int n_s, size_t n_dim, const float *q,
                       const char *keys, float *s, struct kern_asking *ask)
{
    size_t bytes = kern_stripe_bytes(kv, n_dim);
    float32x4_t acc[QUERIES][N_REGS];
    for (int j = 0; j < n_q * n_s; j++)
        for (int k = 0; k < N_REGS; k++)
            acc[j][k] = vdupq_n_f32(0);
    for (size_t d = 0; d < n_dim; d++, keys += float_bytes(kv) * KERN_STRIPE) {
        if (n_q == 1)
            kern_ask(ask);
        for (int t = 0; t < n_s; t++)
            for (int k = 0; k < N_REGS; k++) {
                float32x4_t key =
                    load_numbers(kv, keys + t * bytes + REG * float_bytes(kv) * k);
                for (int i = 0; i < n_q; i++) {
                    float32x4_t *a = &acc[n_s * i + t][k];
                    *a = vfmaq_n_f32(*a, key, q[i * n_dim + d]);
                }
            }
    }
    for (int i = 0; i < n_q; i++)
        for (int t = 0; t < n_s; t++)
            for (int k = 0; k < N_REGS; k++)
                vst1q_f32(s + KERN_ATTN_BLOCK * i + KERN_STRIPE * t + 4 * k,
                          acc[n_s * i + t][k]);
}

INLINE void scores_float(enum kern_kv kv, size_t n_dim, size_t n_q, const void *queries,
                         size_t n_stripes, const void *keys, float *s,
                         const struct kern_ahead *ahead)
{
    size_t bytes = kern_stripe_bytes(kv, n_dim), i = 0, t;
    struct kern_asking ask = kern_asking(ahead, n_q, n_dim);
    const float *q = queries;
    for (; i + QUERIES <= n_q; i += QUERIES, q += QUERIES * n_dim)
        for (t = 0; t < n_stripes; t++)
            dots_float(kv, QUERIES, 1, n_dim, q, (const char *)keys + t * bytes,
                       s + KERN_ATTN_BLOCK * i + KERN_STRIPE * t, &ask);
    for (; i < n_q; i++, q += n_dim) {
        float *to = s + KERN_ATTN_BLOCK * i;
        for (t = 0; t + 2 <= n_stripes; t += 2)
            dots_float(kv, 1, 2, n_dim, q, (const char *)keys + t * bytes,
                       to + KERN_STRIPE * t, &ask);
        if (t < n_stripes)
            dots_float(kv, 1, 1, n_dim, q, (const char *)keys + t * bytes,
                       to + KERN_STRIPE * t, &ask);
    }
}

static void scores_f16(size_t n_dim, size_t n_q, const void *queries, size_t n_stripes,
                       const void *keys, float *s, const struct kern_ahead *ahead)
{
    scores_float(KERN_KV_F16, n_dim, n_q, queries, n_stripes, keys, s, ahead);
}

static void scores_f32(size_t n_dim, size_t n_q, const void *queries, size_t n_stripes,
                       const void *keys, float *s, const struct kern_ahead *ahead)
{
    scores_float(KERN_KV_F32, n_dim, n_q, queries, n_stripes, keys, s, ahead);
}

INLINE void dots_q8(int n_q, size_t n_dim, const char *queries, const char *stripe,
                    float *s)
{
    const struct query_q8 *to[SHARE];
    const int8_t *q[SHARE];
    int32x4_t p[SHARE][N_REGS];
    for (int i = 0; i < n_q; i++) {
        to[i] = (const void *)(queries + i * kern_query_bytes(KERN_KV_Q8, n_dim));
        q[i] = to[i]->q;
    }
    sums8(n_q, pad4(n_dim) / 4, (const int8_t *)stripe + 2 * KERN_STRIPE, q, p);
    for (int k = 0; k < N_REGS; k++) {
        float32x4_t d = load_f16x4(stripe + 8 * k);
        for (int i = 0; i < n_q; i++)
            vst1q_f32(s + KERN_ATTN_BLOCK * i + 4 * k,
                      vmulq_f32(vcvtq_f32_s32(p[i][k]), vmulq_n_f32(d, to[i]->d)));
    }
}

static void scores_q8(size_t n_dim, size_t n_q, const void *queries, size_t n_stripes,
                      const void *keys, float *s, const struct kern_ahead *ahead)
{
    size_t bytes = kern_stripe_bytes(KERN_KV_Q8, n_dim),
           query_bytes = kern_query_bytes(KERN_KV_Q8, n_dim);
    struct kern_asking ask = kern_asking(ahead, n_q, n_stripes);
    for (size_t t = 0; t < n_stripes; t++) {
        kern_ask(&ask);
        const char *stripe = (const char *)keys + t * bytes, *q = queries;
        float *to = s + KERN_STRIPE * t;
        size_t i = 0;
        for (; i + SHARE <= n_q; i += SHARE, q += SHARE * query_bytes)
            dots_q8(SHARE, n_dim, q, stripe, to + KERN_ATTN_BLOCK * i);
        for (; i < n_q; i++, q += query_bytes)
            dots_q8(1, n_dim, q, stripe, to + KERN_ATTN_BLOCK * i);
    }
}

/* ---- values ---- */

/* Where a position's values begin. */
INLINE const char *value_row(enum kern_kv kv, size_t n_dim, const char *values,
                             size_t p)
{
    if (kv != KERN_KV_Q8)
        return values + float_bytes(kv) * n_dim * p;
    return values + p / KERN_STRIPE * kern_stripe_bytes(kv, n_dim) + 2 * KERN_STRIPE +
           pad4(n_dim) * (p % KERN_STRIPE);
}

/* n_r * 4 dimensions of one position as floats; n_r is 4 or 1. */
INLINE void load_values(enum kern_kv kv, int n_r, const char *row, float32x4_t v[4])
{
    if (kv != KERN_KV_Q8) {
        for (int r = 0; r < n_r; r++)
            v[r] = load_numbers(kv, row + REG * float_bytes(kv) * r);
        return;
    }
    int8x16_t q = n_r == 1 ? four((const int8_t *)row) : vld1q_s8((const int8_t *)row);
    int16x8_t lo = vmovl_s8(vget_low_s8(q)), hi = vmovl_high_s8(q);
    v[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(lo)));
    if (n_r == 1)
        return;
    v[1] = vcvtq_f32_s32(vmovl_high_s16(lo));
    v[2] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(hi)));
    v[3] = vcvtq_f32_s32(vmovl_high_s16(hi));
}

/* The dimensions d to d + 4 n_r - 1 of n_q queries whose weights are f[64 * i + p]; of
 * a last register that is not full (n_r is 1), those below n_dim. */
INLINE void weigh(enum kern_kv kv, int n_q, int n_r, size_t d, size_t n_dim,
                  size_t n_pos, const float *f, const char *values, const float *c,
                  float *o, size_t o_stride, struct kern_asking *ask)
{
    enum { MAX_REGS = 16 };
    float32x4_t acc[MAX_REGS], v[4];
    size_t left = n_dim - d, size = kv == KERN_KV_Q8 ? 1 : float_bytes(kv);
    int n_v = n_r < 4 ? n_r : 4;
    for (int i = 0; i < n_q; i++)
        for (int r = 0; r < n_r; r++)
            acc[n_r * i + r] =
                vmulq_n_f32(load_part(o + i * o_stride, d + REG * r, n_dim), c[i]);
    for (size_t p = 0; p < n_pos; p++) {
        if (n_q == 1)
            kern_ask(ask);
        const char *row = value_row(kv, n_dim, values, p) + size * d;
        char part[REG * sizeof(float)] = {0};
        if (n_r == 1 && left < REG)
            row = memcpy(part, row, left * size);
        for (int r = 0; r < n_r; r += n_v) {
            load_values(kv, n_v, row + r * REG * size, v);
            for (int i = 0; i < n_q; i++)
                for (int j = 0; j < n_v; j++) {
                    float32x4_t *a = &acc[n_r * i + r + j];
                    *a = vfmaq_n_f32(*a, v[j], f[KERN_ATTN_BLOCK * i + p]);
                }
        }
    }
    for (int i = 0; i < n_q; i++)
        for (int r = 0; r < n_r; r++)
            store_part(o + i * o_stride, d + REG * r, n_dim, acc[n_r * i + r]);
}

/* All dimensions of n_q queries. */
INLINE void weigh_all(enum kern_kv kv, int n_q, size_t n_dim, size_t n_pos,
                      const float *f, const char *values, const float *c, float *o,
                      size_t o_stride, struct kern_asking *ask)
{
    size_t d = 0;
    for (; n_q == 1 && d + 64 <= n_dim; d += 64)
        weigh(kv, n_q, 16 / n_q, d, n_dim, n_pos, f, values, c, o, o_stride, ask);
    for (; d + 16 <= n_dim; d += 16)
        weigh(kv, n_q, 4, d, n_dim, n_pos, f, values, c, o, o_stride, ask);
    for (; d < n_dim; d += REG)
        weigh(kv, n_q, 1, d, n_dim, n_pos, f, values, c, o, o_stride, ask);
}

INLINE void values_float(enum kern_kv kv, size_t n_dim, size_t n_q, size_t n_pos,
                         const float *e, const void *values, const float *c, float *o,
                         size_t o_stride, const struct kern_ahead *ahead)
{
    struct kern_asking ask = kern_asking(ahead, n_q, n_pos);
    size_t i = 0;
    for (; i + QUERIES <= n_q; i += QUERIES)
        weigh_all(kv, QUERIES, n_dim, n_pos, e + KERN_ATTN_BLOCK * i, values, c + i,
                  o + i * o_stride, o_stride, &ask);
    for (; i < n_q; i++)
        weigh_all(kv, 1, n_dim, n_pos, e + KERN_ATTN_BLOCK * i, values, c + i,
                  o + i * o_stride, 0, &ask);
}

static void values_f16(size_t n_dim, size_t n_q, size_t n_pos, const float *e,
                       const void *values, const float *c, float *o, size_t o_stride,
                       const struct kern_ahead *ahead)
{
    values_float(KERN_KV_F16, n_dim, n_q, n_pos, e, values, c, o, o_stride, ahead);
}

static void values_f32(size_t n_dim, size_t n_q, size_t n_pos, const float *e,
                       const void *values, const float *c, float *o, size_t o_stride,
                       const struct kern_ahead *ahead)
{
    values_float(KERN_KV_F32, n_dim, n_q, n_pos, e, values, c, o, o_stride, ahead);
}

/* f = e * the scales of the positions. */
INLINE void scale_weights(int n_q, size_t n_dim, size_t n_pos, const float *e,
                          const char *values, float *f)
{
    for (size_t p = 0; p < n_pos; p += REG) {
        size_t bytes = kern_stripe_bytes(KERN_KV_Q8, n_dim);
        const char *stripe = values + p / KERN_STRIPE * bytes;
        float32x4_t d = load_f16x4(stripe + 2 * (p % KERN_STRIPE));
        for (int i = 0; i < n_q; i++)
            vst1q_f32(f + KERN_ATTN_BLOCK * i + p,
                      vmulq_f32(load_part(e + KERN_ATTN_BLOCK * i, p, n_pos), d));
    }
}

static void values_q8(size_t n_dim, size_t n_q, size_t n_pos, const float *e,
                      const void *values, const float *c, float *o, size_t o_stride,
                      const struct kern_ahead *ahead)
{
    float f[QUERIES * KERN_ATTN_BLOCK];
    struct kern_asking ask = kern_asking(ahead, n_q, n_pos);
    size_t i = 0;
    for (; i + QUERIES <= n_q; i += QUERIES) {
        scale_weights(QUERIES, n_dim, n_pos, e + KERN_ATTN_BLOCK * i, values, f);
        weigh_all(KERN_KV_Q8, QUERIES, n_dim, n_pos, f, values, c + i, o + i * o_stride,
                  o_stride, &ask);
    }
    for (; i < n_q; i++) {
        scale_weights(1, n_dim, n_pos, e + KERN_ATTN_BLOCK * i, values, f);
        weigh_all(KERN_KV_Q8, 1, n_dim, n_pos, f, values, c + i, o + i * o_stride, 0,
                  &ask);
    }
}

/* ---- online softmax ---- */

/* The comparison leaves out scores that are NaN and keeps a maximum that is, as the
 * specification's does. */
static float step(size_t n_valid, float *s, float *m, float *l)
{
    float32x4_t max4 = vdupq_n_f32(*m);
    for (size_t p = 0; p < n_valid; p += REG) {
        float32x4_t v = vld1q_f32(s + p);
        uint32x4_t above = vandq_u32(first(n_valid - p), vcgtq_f32(v, max4));
        max4 = vbslq_f32(above, v, max4);
    }
    float max = vmaxvq_f32(max4);
    struct lanes sum = lanes_zero();
    for (size_t p = 0; p < KERN_ATTN_BLOCK; p += KERN_LANES)
        for (size_t k = 0; k < N_REGS; k++) {
            float *at = s + p + REG * k;
            float32x4_t e = exp4(vsubq_f32(vld1q_f32(at), vdupq_n_f32(max)));
            e = keep_part(e, p + REG * k, n_valid);
            vst1q_f32(at, e);
            sum.v[k] = vaddq_f32(sum.v[k], e);
        }
    float c = kern_ref_expf(*m - max);
    *l = fmaf(*l, c, lanes_sum(sum));
    *m = max;
    return c;
}

#ifdef __ARM_FEATURE_DOTPROD
void kern_fill_neon_dot_attn(struct kern_table *t)
#else
void kern_fill_neon_attn(struct kern_table *t)
#endif
{
    t->attn[KERN_KV_F16] = (struct kern_attn){
        store_key_f16, store_value_f16, query_float, scores_f16, values_f16, step};
    t->attn[KERN_KV_F32] = (struct kern_attn){
        store_key_f32, store_value_f32, query_float, scores_f32, values_f32, step};
    t->attn[KERN_KV_Q8] = (struct kern_attn){store_key_q8, store_value_q8, query_q8,
                                             scores_q8,    values_q8,      step};
}
