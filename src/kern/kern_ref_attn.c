/* The specification of attention, in scalar C, and the layout of its cache: kern_attn.h
 * word for word. */
#include "kern/kern_impl.h"

#include <math.h>
#include <string.h>

/* ---- layout ---- */

static size_t pad4(size_t n_dim)
{
    return (n_dim + 3) / 4 * 4;
}

static size_t float_bytes(enum kern_kv kv)
{
    return kv == KERN_KV_F16 ? 2 : 4;
}

size_t kern_stripe_bytes(enum kern_kv kv, size_t n_dim)
{
    return kv == KERN_KV_Q8 ? 2 * KERN_STRIPE + KERN_STRIPE * pad4(n_dim)
                            : float_bytes(kv) * KERN_STRIPE * n_dim;
}

size_t kern_query_bytes(enum kern_kv kv, size_t n_dim)
{
    return kv == KERN_KV_Q8 ? sizeof(float) + sizeof(int32_t) + pad4(n_dim)
                            : n_dim * sizeof(float);
}

static float load_f16(const void *p)
{
    uint16_t u;
    memcpy(&u, p, sizeof u);
    return fmt_f16_to_f32(u);
}

static void store_f16(void *p, float f)
{
    uint16_t u = fmt_f32_to_f16(f);
    memcpy(p, &u, sizeof u);
}

/* The maximum of |x|, NaN above infinity. */
static float max_abs(size_t n, const float *x)
{
    uint32_t max = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &x[i], sizeof u);
        u &= 0x7fffffff;
        max = u > max ? u : max;
    }
    float f;
    memcpy(&f, &max, sizeof f);
    return f;
}

static int8_t round_q(float v)
{
    v = v > -KERN_ACT_MAX_Q ? v : -KERN_ACT_MAX_Q;
    v = v < KERN_ACT_MAX_Q ? v : KERN_ACT_MAX_Q;
    return (int8_t)rintf(v);
}

/* ---- f16 and f32 ---- */

static float load_number(enum kern_kv kv, const void *base, size_t i)
{
    float f;
    if (kv == KERN_KV_F16)
        return load_f16((const char *)base + 2 * i);
    memcpy(&f, (const char *)base + 4 * i, sizeof f);
    return f;
}

static void store_number(enum kern_kv kv, void *base, size_t i, float f)
{
    if (kv == KERN_KV_F16)
        store_f16((char *)base + 2 * i, f);
    else
        memcpy((char *)base + 4 * i, &f, sizeof f);
}

static void query_float(size_t n_dim, const float *q, float scale, void *out)
{
    float *f = out;
    for (size_t d = 0; d < n_dim; d++)
        f[d] = q[d] * scale;
}

static void scores_float(enum kern_kv kv, size_t n_dim, size_t n_q, const void *queries,
                         size_t n_stripes, const void *keys, float *s)
{
    size_t bytes = kern_stripe_bytes(kv, n_dim);
    for (size_t i = 0; i < n_q; i++) {
        const float *q = (const float *)queries + i * n_dim;
        for (size_t p = 0; p < KERN_STRIPE * n_stripes; p++) {
            const char *stripe = (const char *)keys + p / KERN_STRIPE * bytes;
            float sum = 0;
            for (size_t d = 0; d < n_dim; d++)
                sum = fmaf(q[d],
                           load_number(kv, stripe, KERN_STRIPE * d + p % KERN_STRIPE),
                           sum);
            s[KERN_ATTN_BLOCK * i + p] = sum;
        }
    }
}

static void values_float(enum kern_kv kv, size_t n_dim, size_t n_q, size_t n_pos,
                         const float *e, const void *values, const float *c, float *o,
                         size_t o_stride)
{
    for (size_t i = 0; i < n_q; i++) {
        for (size_t d = 0; d < n_dim; d++) {
            float sum = o[i * o_stride + d] * c[i];
            for (size_t p = 0; p < n_pos; p++)
                sum = fmaf(e[KERN_ATTN_BLOCK * i + p],
                           load_number(kv, values, n_dim * p + d), sum);
            o[i * o_stride + d] = sum;
        }
    }
}

static void store_key_f16(size_t n_dim, const float *key, void *stripe, size_t lane)
{
    for (size_t d = 0; d < n_dim; d++)
        store_number(KERN_KV_F16, stripe, KERN_STRIPE * d + lane, key[d]);
}

static void store_value_f16(size_t n_dim, const float *value, void *stripe, size_t lane)
{
    for (size_t d = 0; d < n_dim; d++)
        store_number(KERN_KV_F16, stripe, n_dim * lane + d, value[d]);
}

static void scores_f16(size_t n_dim, size_t n_q, const void *queries, size_t n_stripes,
                       const void *keys, float *s, const struct kern_ahead *ahead)
{
    (void)ahead;
    scores_float(KERN_KV_F16, n_dim, n_q, queries, n_stripes, keys, s);
}

static void values_f16(size_t n_dim, size_t n_q, size_t n_pos, const float *e,
                       const void *values, const float *c, float *o, size_t o_stride,
                       const struct kern_ahead *ahead)
{
    (void)ahead;
    values_float(KERN_KV_F16, n_dim, n_q, n_pos, e, values, c, o, o_stride);
}

static void store_key_f32(size_t n_dim, const float *key, void *stripe, size_t lane)
{
    for (size_t d = 0; d < n_dim; d++)
        store_number(KERN_KV_F32, stripe, KERN_STRIPE * d + lane, key[d]);
}

static void store_value_f32(size_t n_dim, const float *value, void *stripe, size_t lane)
{
    for (size_t d = 0; d < n_dim; d++)
        store_number(KERN_KV_F32, stripe, n_dim * lane + d, value[d]);
}

static void scores_f32(size_t n_dim, size_t n_q, const void *queries, size_t n_stripes,
                       const void *keys, float *s, const struct kern_ahead *ahead)
{
    (void)ahead;
    scores_float(KERN_KV_F32, n_dim, n_q, queries, n_stripes, keys, s);
}

static void values_f32(size_t n_dim, size_t n_q, size_t n_pos, const float *e,
                       const void *values, const float *c, float *o, size_t o_stride,
                       const struct kern_ahead *ahead)
{
    (void)ahead;
    values_float(KERN_KV_F32, n_dim, n_q, n_pos, e, values, c, o, o_stride);
}

/* ---- q8 ---- */

/* d as a float; the codes' factor in *inv, 0 where every code is 0. */
static float q8_scale(size_t n_dim, const float *x, uint16_t *d, float *inv)
{
    *d = fmt_f32_to_f16(max_abs(n_dim, x) / KERN_ACT_MAX_Q);
    float f = fmt_f16_to_f32(*d);
    *inv = f > 0 && f < INFINITY ? 1 / f : 0;
    return f;
}

/* x * inv, or 0 whatever x is where inv is 0. */
static int8_t q8_code(float x, float inv)
{
    return inv > 0 ? round_q(x * inv) : 0;
}

static void store_key_q8(size_t n_dim, const float *key, void *stripe, size_t lane)
{
    char *p = stripe;
    uint16_t d;
    float inv;
    q8_scale(n_dim, key, &d, &inv);
    memcpy(p + 2 * lane, &d, sizeof d);
    for (size_t i = 0; i < pad4(n_dim); i++) {
        int8_t q = i < n_dim ? q8_code(key[i], inv) : 0;
        memcpy(p + 2 * KERN_STRIPE + 64 * (i / 4) + 4 * lane + i % 4, &q, 1);
    }
}

static void store_value_q8(size_t n_dim, const float *value, void *stripe, size_t lane)
{
    char *p = stripe;
    uint16_t d;
    float inv;
    q8_scale(n_dim, value, &d, &inv);
    memcpy(p + 2 * lane, &d, sizeof d);
    for (size_t i = 0; i < pad4(n_dim); i++) {
        int8_t q = i < n_dim ? q8_code(value[i], inv) : 0;
        memcpy(p + 2 * KERN_STRIPE + pad4(n_dim) * lane + i, &q, 1);
    }
}

struct query_q8 {
    float d;
    int32_t sum;
    int8_t q[];
};

static void query_q8(size_t n_dim, const float *q, float scale, void *out)
{
    struct query_q8 *to = out;
    memset(to, 0, kern_query_bytes(KERN_KV_Q8, n_dim));
    float max = 0;
    for (size_t i = 0; i < n_dim; i++) {
        float v = q[i] * scale, m[2] = {max, v};
        max = max_abs(2, m);
    }
    uint32_t bits;
    memcpy(&bits, &max, sizeof bits);
    if (bits < KERN_ACT_MIN_BITS)
        return;
    float inv = KERN_ACT_MAX_Q / max;
    to->d = max / KERN_ACT_MAX_Q;
    for (size_t i = 0; i < n_dim; i++) {
        to->q[i] = round_q(q[i] * scale * inv);
        to->sum += to->q[i];
    }
}

static void scores_q8(size_t n_dim, size_t n_q, const void *queries, size_t n_stripes,
                      const void *keys, float *s, const struct kern_ahead *ahead)
{
    (void)ahead;
    size_t bytes = kern_stripe_bytes(KERN_KV_Q8, n_dim);
    for (size_t i = 0; i < n_q; i++) {
        const struct query_q8 *q =
            (const void *)((const char *)queries +
                           i * kern_query_bytes(KERN_KV_Q8, n_dim));
        for (size_t p = 0; p < KERN_STRIPE * n_stripes; p++) {
            const char *stripe = (const char *)keys + p / KERN_STRIPE * bytes;
            size_t lane = p % KERN_STRIPE;
            const int8_t *k = (const int8_t *)stripe + 2 * KERN_STRIPE + 4 * lane;
            int sum = 0;
            for (size_t d = 0; d < n_dim; d++)
                sum += q->q[d] * k[64 * (d / 4) + d % 4];
            s[KERN_ATTN_BLOCK * i + p] =
                (float)sum * (q->d * load_f16(stripe + 2 * lane));
        }
    }
}

static void values_q8(size_t n_dim, size_t n_q, size_t n_pos, const float *e,
                      const void *values, const float *c, float *o, size_t o_stride,
                      const struct kern_ahead *ahead)
{
    (void)ahead;
    size_t bytes = kern_stripe_bytes(KERN_KV_Q8, n_dim);
    for (size_t i = 0; i < n_q; i++) {
        for (size_t d = 0; d < n_dim; d++) {
            float sum = o[i * o_stride + d] * c[i];
            for (size_t p = 0; p < n_pos; p++) {
                const char *stripe = (const char *)values + p / KERN_STRIPE * bytes;
                size_t lane = p % KERN_STRIPE;
                int8_t q;
                memcpy(&q, stripe + 2 * KERN_STRIPE + pad4(n_dim) * lane + d, 1);
                float f = e[KERN_ATTN_BLOCK * i + p] * load_f16(stripe + 2 * lane);
                sum = fmaf(f, (float)q, sum);
            }
            o[i * o_stride + d] = sum;
        }
    }
}

/* ---- online softmax ---- */

static float step(size_t n_valid, float *s, float *m, float *l)
{
    float max = *m, lane[KERN_LANES] = {0};
    for (size_t p = 0; p < n_valid; p++)
        max = s[p] > max ? s[p] : max;
    float c = kern_ref_expf(*m - max);
    for (size_t p = 0; p < KERN_ATTN_BLOCK; p++) {
        s[p] = p < n_valid ? kern_ref_expf(s[p] - max) : 0;
        lane[p % KERN_LANES] += s[p];
    }
    *l = fmaf(*l, c, kern_ref_lanes_sum(lane));
    *m = max;
    return c;
}

void kern_fill_ref_attn(struct kern_table *t)
{
    t->attn[KERN_KV_F16] = (struct kern_attn){
        store_key_f16, store_value_f16, query_float, scores_f16, values_f16, step};
    t->attn[KERN_KV_F32] = (struct kern_attn){
        store_key_f32, store_value_f32, query_float, scores_f32, values_f32, step};
    t->attn[KERN_KV_Q8] = (struct kern_attn){store_key_q8, store_value_q8, query_q8,
                                             scores_q8,    values_q8,      step};
}
