/* Attention of one head over a cache of keys and values: the pieces of an online
 * softmax (Milakov and Gimelshein 2018; Dao et al. 2022, algorithm 1).
 *
 * The cache of a head is a row of stripes, 16 positions each; position p is lane p % 16
 * of stripe p / 16.  n_dim is the head's width, n_pad that rounded up to a multiple of
 * 4; the dimensions that fill up are stored as 0.  A stripe of keys:
 *
 *   F16, F32  numbers [n_dim][16]
 *   Q8        f16 d[16]; int8 q[n_pad / 4][16][4]
 *
 * and of values:
 *
 *   F16, F32  numbers [16][n_dim]
 *   Q8        f16 d[16]; int8 q[16][n_pad]
 *
 * Q8: d = max|x| / 127 rounded to f16, q = x * (1 / (float)d) rounded to nearest even,
 * clamped to [-127, 127]; where d is 0, infinite or NaN, every q is 0.
 *
 * Positions are seen in blocks of 64 from position 0 on, whatever the query is, so that
 * a query's result depends on its position alone.  State of a query: m (the maximum so
 * far, starts at -inf), l (the sum, starts at +0), o[n_dim] (starts at +0).  A block:
 *
 *  - scores: s[p] for each of its positions.  F16 and F32: with q[d] * scale as the
 *    query, s = +0, then for d = 0, 1, ...: s = fma(q[d], k[d][p], s).  Q8: q[d] *
 *    scale is rounded to 8 bits as the numbers of struct kern_act are, all n_dim as one
 *    group (scale dq); s = (float)i * (dq * (float)d[p]) with i the sum of products of
 *    codes, exact.
 *  - step: n_valid of them (1 to 64) count.  m' = max(m, s[p]...) in any order;
 *    c = exp(m - m'); e[p] = exp(s[p] - m') for p < n_valid, +0 for the others.
 *    Lane j = ((e[j] + e[j + 16]) + e[j + 32]) + e[j + 48], the 16 lanes by the fixed
 *    tree of kern.h; l = fma(l, c, sum); m = m'.
 *  - values: o[d] = o[d] * c, then for p = 0, 1, ... n_pos - 1: o[d] = fma(f, v[p][d],
 *    o[d]) with f = e[p] (F16, F32) or f = e[p] * (float)d[p] (Q8).
 *
 * At the end out[d] = o[d] * (1 / l). */
#ifndef RUNT_KERN_ATTN_H
#define RUNT_KERN_ATTN_H

#include <stddef.h>
#include <stdint.h>

enum kern_kv { KERN_KV_F16, KERN_KV_Q8, KERN_KV_F32, KERN_N_KV };

enum { KERN_STRIPE = 16, KERN_ATTN_BLOCK = 64 };

/* Bytes of one stripe of a head's keys, or of its values; a multiple of 32. */
size_t kern_stripe_bytes(enum kern_kv kv, size_t n_dim);
/* Bytes of a prepared query: F16, F32 float[n_dim]; Q8 float dq, int32_t sum of the q,
 * int8 q[n_pad]. */
size_t kern_query_bytes(enum kern_kv kv, size_t n_dim);

/* Memory that comes next: n lines of 64 bytes from a on and as many from b on.  One
 * query reads a cache that the weights have driven out since the last token, so while a
 * kernel works for one query it asks for these lines, from two places because the
 * hardware's own fetching ahead ends with every page.  Results do not depend on it, and
 * nothing needs to lie there. */
struct kern_ahead {
    const char *a, *b;
    size_t n;
};

struct kern_attn {
    /* Put one position's key and value (n_dim floats each) into lane `lane` of a
     * stripe. Other lanes are not touched. */
    void (*store_key)(size_t n_dim, const float *key, void *stripe, size_t lane);
    void (*store_value)(size_t n_dim, const float *value, void *stripe, size_t lane);

    void (*query)(size_t n_dim, const float *q, float scale, void *out);

    /* n_q queries (query i at queries + i * kern_query_bytes) against n_stripes (1 to
     * 4) stripes of keys, one after another: s[64 * i + p], p < 16 * n_stripes.  Lanes
     * that hold no position yet may be any bits; their scores are any bits.  Of ahead
     * (NULL: nothing) this asks for all lines where n_q is 1. */
    void (*scores)(size_t n_dim, size_t n_q, const void *queries, size_t n_stripes,
                   const void *keys, float *s, const struct kern_ahead *ahead);
    /* n_q states against n_pos positions (1 to 64) of stripes of values: e[64 * i + p],
     * c[i], o[i * o_stride + d].  Lanes from n_pos on are not read.  ahead likewise. */
    void (*values)(size_t n_dim, size_t n_q, size_t n_pos, const float *e,
                   const void *values, const float *c, float *o, size_t o_stride,
                   const struct kern_ahead *ahead);
    /* s[64] becomes e[64]; returns c.  The same function for every kind of cache. */
    float (*step)(size_t n_valid, float *s, float *m, float *l);
};

#endif
