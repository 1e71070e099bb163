/* Attention (kern_attn.h) in AVX2, FMA and F16C.
 *
 * Both sums of attention are one loop, accumulate(): rows of the cache, widened to
 * floats, times one float a query, added to registers that hold 8 results each.  For
 * scores a row is a dimension and the lanes are positions, for values a row is a
 * position and the lanes are dimensions; the order along the rows is the
 * specification's sequence, so all that can be chosen is which results are in registers
 * together:
 *
 *   one query     8 registers: 4 stripes, or 64 dimensions.  8 chains of fma are what
 *                 a latency of 4 and two a cycle need; widening is the limit.
 *   4 queries     2 registers each: 1 stripe, or 16 dimensions.  What is widened serves
 *                 4 queries, and that runs beside the fma on ports of its own, so a
 *                 widened copy of the block would only add work.
 *
 * Scores of 8-bit keys are sums of whole numbers, exact in any order.  The instruction
 * multiplies unsigned by signed bytes and adds pairs with saturation at 16 bits, so the
 * sign of one factor moves to the other: 2 * 128 * 127 = 32512 does not saturate, not
 * even for the -128 that an unused lane may hold.
 *
 * Decoding waits for memory, so each turn of a loop for one query asks for some of the
 * lines that the caller names (struct kern_ahead).  Measured on Zen 3 at 960 positions:
 * 61% of the bandwidth of the products beside it while the next block was fetched in
 * one place, 75% with keys and values fetched side by side.
 *
 * Heads of 64 dimensions (every GPT-2) get copies with constant strides. */
#include "kern/x86/avx2.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum {
    MANY = 4,       /* queries at a time */
    WIDE = 8,       /* registers of one query alone */
    MAX_ACC = 8,    /* registers of results */
    USUAL_DIM = 64, /* GPT-2's heads, in every size */
};

INLINE size_t pad4(size_t n_dim)
{
    return (n_dim + 3) / 4 * 4;
}

INLINE size_t element_bytes(enum kern_kv kv)
{
    return kv == KERN_KV_F16 ? 2 : kv == KERN_KV_F32 ? 4 : 1;
}

/* kern_stripe_bytes. */
INLINE size_t stripe_bytes(enum kern_kv kv, size_t n_dim)
{
    return kv == KERN_KV_Q8 ? 2 * KERN_STRIPE + KERN_STRIPE * pad4(n_dim)
                            : element_bytes(kv) * KERN_STRIPE * n_dim;
}

INLINE __m256 load_f16(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128(p));
}

/* ---- the common loop ---- */

/* Where the 8 elements of register r in row k lie: r / 2 pairs and r % 2 registers
 * after at + k * row. */
struct rows {
    enum kern_kv kv;
    const char *at;
    size_t row, pair;
};

INLINE __m256 widen(enum kern_kv kv, const char *p)
{
    if (kv == KERN_KV_F16)
        return load_f16(p);
    if (kv == KERN_KV_F32)
        return _mm256_loadu_ps((const void *)p);
    __m128i q = _mm_loadl_epi64((const void *)p);
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
}

/* The first n_kept of 8 elements, the bytes after them unread. */
INLINE __m256 widen_part(enum kern_kv kv, const char *p, size_t n_kept)
{
    char tail[32] = {0};
    if (n_kept >= 8)
        return widen(kv, p);
    memcpy(tail, p, n_kept * element_bytes(kv));
    return widen(kv, tail);
}

INLINE __m256 widen_register(struct rows b, int r, size_t n_kept)
{
    const char *p = b.at + (size_t)r / 2 * b.pair;
    return widen_part(b.kv, p + (size_t)r % 2 * 8 * element_bytes(b.kv), n_kept);
}

/* acc[i][r] = fma(f[i * f_stride + k], row k of register r, acc[i][r]), k = 0, 1, ...
 * For one query each register is used as soon as it is widened: with 8 of them widened
 * first, gcc runs out of registers and keeps a sum in memory. */
INLINE void accumulate(int n_q, int n_r, size_t n_k, const float *f, size_t f_stride,
                       struct rows b, size_t n_kept, struct kern_asking *ask,
                       __m256 acc[MAX_ACC])
{
    for (size_t k = 0; k < n_k; k++, b.at += b.row) {
        __m256 v[MAX_ACC], x = _mm256_broadcast_ss(f + k);
        if (n_q == 1) {
            kern_ask(ask);
            for (int r = 0; r < n_r; r++)
                acc[r] = _mm256_fmadd_ps(x, widen_register(b, r, n_kept), acc[r]);
            continue;
        }
        for (int r = 0; r < n_r; r++)
            v[r] = widen_register(b, r, n_kept);
        for (int i = 0; i < n_q; i++) {
            x = _mm256_broadcast_ss(f + (size_t)i * f_stride + k);
            for (int r = 0; r < n_r; r++)
                acc[i * n_r + r] = _mm256_fmadd_ps(x, v[r], acc[i * n_r + r]);
        }
    }
}

/* ---- scores, f16 and f32 ---- */

INLINE void scores_float_part(enum kern_kv kv, int n_q, int n_r, size_t n_dim,
                              const float *q, const char *keys, float *s,
                              struct kern_asking *ask)
{
    __m256 acc[MAX_ACC];
    size_t bytes = stripe_bytes(kv, n_dim), row = element_bytes(kv) * KERN_STRIPE;
    struct rows b = {.kv = kv, .at = keys, .row = row, .pair = bytes};
    for (int i = 0; i < n_q * n_r; i++)
        acc[i] = _mm256_setzero_ps();
    accumulate(n_q, n_r, n_dim, q, n_dim, b, 8, ask, acc);
    for (int i = 0; i < n_q; i++)
        for (int r = 0; r < n_r; r++)
            _mm256_storeu_ps(s + i * KERN_ATTN_BLOCK + 8 * r, acc[i * n_r + r]);
}

/* ---- scores, q8 ---- */

INLINE __m256i dot4(__m256i unsigned_bytes, __m256i signed_bytes, __m256i acc)
{
    __m256i pairs = _mm256_maddubs_epi16(unsigned_bytes, signed_bytes);
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

INLINE __m256i broadcast4(const char *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
}

/* Which factor loses its sign: the one that is shared by more products. */
INLINE void scores_q8_part(int n_q, int n_r, size_t n_dim, const char *q,
                           const char *keys, float *s, struct kern_asking *ask)
{
    __m256i acc[MAX_ACC];
    size_t bytes = stripe_bytes(KERN_KV_Q8, n_dim), q_bytes = 8 + pad4(n_dim);
    const char *codes = keys + 2 * KERN_STRIPE;
    for (int i = 0; i < n_q * n_r; i++)
        acc[i] = _mm256_setzero_si256();
    for (size_t d = 0; d < n_dim; d += 4, codes += 4 * KERN_STRIPE) {
        if (n_q == 1)
            kern_ask(ask);
        __m256i k[MAX_ACC], k_abs[MAX_ACC];
        for (int r = 0; r < n_r; r++) {
            const char *p = codes + (size_t)r / 2 * bytes + (size_t)r % 2 * 32;
            k[r] = _mm256_loadu_si256((const void *)p);
            k_abs[r] = _mm256_abs_epi8(k[r]);
        }
        for (int i = 0; i < n_q; i++) {
            __m256i x = broadcast4(q + (size_t)i * q_bytes + 8 + d);
            __m256i x_abs = _mm256_abs_epi8(x);
            for (int r = 0; r < n_r; r++)
                acc[i * n_r + r] =
                    n_q < n_r
                        ? dot4(x_abs, _mm256_sign_epi8(k[r], x), acc[i * n_r + r])
                        : dot4(k_abs[r], _mm256_sign_epi8(x, k[r]), acc[i * n_r + r]);
        }
    }
    for (int r = 0; r < n_r; r++) {
        __m256 dk = load_f16(keys + (size_t)r / 2 * bytes + (size_t)r % 2 * 16);
        for (int i = 0; i < n_q; i++) {
            __m256 dq = _mm256_broadcast_ss((const void *)(q + (size_t)i * q_bytes));
            _mm256_storeu_ps(s + i * KERN_ATTN_BLOCK + 8 * r,
                             _mm256_mul_ps(_mm256_cvtepi32_ps(acc[i * n_r + r]),
                                           _mm256_mul_ps(dq, dk)));
        }
    }
}

/* ---- scores ---- */

INLINE void scores_part(enum kern_kv kv, int n_q, int n_r, size_t n_dim,
                        const char *queries, const char *keys, float *s,
                        struct kern_asking *ask)
{
    if (kv == KERN_KV_Q8)
        scores_q8_part(n_q, n_r, n_dim, queries, keys, s, ask);
    else
        scores_float_part(kv, n_q, n_r, n_dim, (const void *)queries, keys, s, ask);
}

INLINE void scores_one(enum kern_kv kv, size_t n_dim, const char *query,
                       size_t n_stripes, const char *keys, float *s,
                       struct kern_asking *ask)
{
    switch (n_stripes) {
    case 4:
        scores_part(kv, 1, WIDE, n_dim, query, keys, s, ask);
        break;
    case 3:
        scores_part(kv, 1, 6, n_dim, query, keys, s, ask);
        break;
    case 2:
        scores_part(kv, 1, 4, n_dim, query, keys, s, ask);
        break;
    default:
        scores_part(kv, 1, 2, n_dim, query, keys, s, ask);
    }
}

INLINE void scores_any(enum kern_kv kv, size_t n_dim, size_t n_q, const char *queries,
                       size_t n_stripes, const char *keys, float *s,
                       const struct kern_ahead *ahead)
{
    size_t i = 0, q_bytes = kv == KERN_KV_Q8 ? 8 + pad4(n_dim) : 4 * n_dim;
    struct kern_asking ask =
        kern_asking(ahead, n_q, kv == KERN_KV_Q8 ? pad4(n_dim) / 4 : n_dim);
    for (; i + MANY <= n_q; i += MANY)
        for (size_t t = 0; t < n_stripes; t++)
            scores_part(kv, MANY, 2, n_dim, queries + i * q_bytes,
                        keys + t * stripe_bytes(kv, n_dim),
                        s + i * KERN_ATTN_BLOCK + t * KERN_STRIPE, &ask);
    for (; i < n_q; i++)
        scores_one(kv, n_dim, queries + i * q_bytes, n_stripes, keys,
                   s + i * KERN_ATTN_BLOCK, &ask);
}

static void scores_f16(size_t n_dim, size_t n_q, const void *queries, size_t n_stripes,
                       const void *keys, float *s, const struct kern_ahead *ahead)
{
    if (n_dim == USUAL_DIM)
        scores_any(KERN_KV_F16, USUAL_DIM, n_q, queries, n_stripes, keys, s, ahead);
    else
        scores_any(KERN_KV_F16, n_dim, n_q, queries, n_stripes, keys, s, ahead);
}

static void scores_q8(size_t n_dim, size_t n_q, const void *queries, size_t n_stripes,
                      const void *keys, float *s, const struct kern_ahead *ahead)
{
    if (n_dim == USUAL_DIM)
        scores_any(KERN_KV_Q8, USUAL_DIM, n_q, queries, n_stripes, keys, s, ahead);
    else
        scores_any(KERN_KV_Q8, n_dim, n_q, queries, n_stripes, keys, s, ahead);
}

static void scores_f32(size_t n_dim, size_t n_q, const void *queries, size_t n_stripes,
                       const void *keys, float *s, const struct kern_ahead *ahead)
{
    scores_any(KERN_KV_F32, n_dim, n_q, queries, n_stripes, keys, s, ahead);
}

/* ---- values ---- */

/* One block: n_pos positions, whose rows are contiguous but for the scales of each
 * stripe of Q8; f is what each is multiplied with. */
struct block {
    enum kern_kv kv;
    size_t n_dim, n_pos;
    const char *values;
    const float *f, *c;
    float *o;
    size_t o_stride;
    struct kern_asking *ask;
};

/* 8 * n_r columns from d on, of which the last register may be cut. */
INLINE void values_part(int n_q, int n_r, struct block v, size_t d)
{
    __m256 acc[MAX_ACC];
    size_t size = element_bytes(v.kv), n = v.n_dim;
    size_t n_kept = n - d < 8 ? n - d : 8;
    if (n_r > 1)
        n_kept = 8;
    for (int i = 0; i < n_q; i++)
        for (int r = 0; r < n_r; r++)
            acc[i * n_r + r] =
                _mm256_mul_ps(_mm256_broadcast_ss(v.c + i),
                              load_part(v.o + (size_t)i * v.o_stride + d, 8 * (size_t)r,
                                        8 * (size_t)r + n_kept));
    /* Q8: the rows of a stripe are contiguous; otherwise all are */
    size_t run = v.kv == KERN_KV_Q8 ? KERN_STRIPE : v.n_pos;
    size_t row = (v.kv == KERN_KV_Q8 ? pad4(n) : n) * size;
    const char *at = v.values + d * size + (v.kv == KERN_KV_Q8 ? 2 * KERN_STRIPE : 0);
    for (size_t p = 0; p < v.n_pos; p += run, at += stripe_bytes(v.kv, n)) {
        struct rows b = {.kv = v.kv, .at = at, .row = row, .pair = 16 * size};
        accumulate(n_q, n_r, v.n_pos - p < run ? v.n_pos - p : run, v.f + p,
                   KERN_ATTN_BLOCK, b, n_kept, v.ask, acc);
    }
    for (int i = 0; i < n_q; i++)
        for (int r = 0; r < n_r; r++)
            store_part(v.o + (size_t)i * v.o_stride + d, 8 * (size_t)r,
                       8 * (size_t)r + n_kept, acc[i * n_r + r]);
}

INLINE void values_queries(int n_q, struct block v)
{
    size_t d = 0;
    for (; n_q == 1 && d + 8 * WIDE <= v.n_dim; d += 8 * WIDE)
        values_part(1, WIDE, v, d);
    for (; d + 16 <= v.n_dim; d += 16)
        values_part(n_q, 2, v, d);
    for (; d < v.n_dim; d += 8)
        values_part(n_q, 1, v, d);
}

/* f = e * the positions' scales. */
INLINE void scale_weights(int n_q, struct block v, const float *e, float *f)
{
    for (size_t p = 0; p < v.n_pos; p += 8) {
        const char *stripe =
            v.values + p / KERN_STRIPE * stripe_bytes(KERN_KV_Q8, v.n_dim);
        __m256 scale = load_f16(stripe + p % KERN_STRIPE * 2);
        for (int i = 0; i < n_q; i++)
            _mm256_storeu_ps(
                f + i * KERN_ATTN_BLOCK + p,
                _mm256_mul_ps(load_part(e + i * KERN_ATTN_BLOCK, p, v.n_pos), scale));
    }
}

INLINE void values_some(int n_q, struct block v, const float *e)
{
    float f[MANY * KERN_ATTN_BLOCK];
    v.f = e;
    if (v.kv == KERN_KV_Q8) {
        scale_weights(n_q, v, e, f);
        v.f = f;
    }
    values_queries(n_q, v);
}

INLINE void values_any(struct block v, size_t n_q, const float *e)
{
    size_t i = 0;
    for (; i + MANY <= n_q; i += MANY) {
        values_some(MANY, v, e + i * KERN_ATTN_BLOCK);
        v.c += MANY;
        v.o += MANY * v.o_stride;
    }
    for (; i < n_q; i++) {
        values_some(1, v, e + i * KERN_ATTN_BLOCK);
        v.c++;
        v.o += v.o_stride;
    }
}

static void values_f16(size_t n_dim, size_t n_q, size_t n_pos, const float *e,
                       const void *values, const float *c, float *o, size_t o_stride,
                       const struct kern_ahead *ahead)
{
    struct kern_asking ask = kern_asking(ahead, n_q, n_pos);
    struct block v = {KERN_KV_F16, n_dim, n_pos, values, NULL, c, o, o_stride, &ask};
    if (n_dim == USUAL_DIM) {
        v.n_dim = USUAL_DIM;
        values_any(v, n_q, e);
    } else {
        values_any(v, n_q, e);
    }
}

static void values_q8(size_t n_dim, size_t n_q, size_t n_pos, const float *e,
                      const void *values, const float *c, float *o, size_t o_stride,
                      const struct kern_ahead *ahead)
{
    struct kern_asking ask = kern_asking(ahead, n_q, n_pos);
    struct block v = {KERN_KV_Q8, n_dim, n_pos, values, NULL, c, o, o_stride, &ask};
    if (n_dim == USUAL_DIM) {
        v.n_dim = USUAL_DIM;
        values_any(v, n_q, e);
    } else {
        values_any(v, n_q, e);
    }
}

static void values_f32(size_t n_dim, size_t n_q, size_t n_pos, const float *e,
                       const void *values, const float *c, float *o, size_t o_stride,
                       const struct kern_ahead *ahead)
{
    struct kern_asking ask = kern_asking(ahead, n_q, n_pos);
    struct block v = {KERN_KV_F32, n_dim, n_pos, values, NULL, c, o, o_stride, &ask};
    values_any(v, n_q, e);
}

/* ---- online softmax ---- */

/* The maximum of 8, in each of them. */
INLINE __m256 max8(__m256 v)
{
    v = _mm256_max_ps(v, _mm256_permute2f128_ps(v, v, 1));
    v = _mm256_max_ps(v, _mm256_permute_ps(v, 0x4e));
    return _mm256_max_ps(v, _mm256_permute_ps(v, 0xb1));
}

/* The elements i to i + 7 that count; 8 of them where is_full. */
INLINE __m256i counting(bool is_full, size_t i, size_t n_valid)
{
    size_t n = n_valid > i ? n_valid - i : 0;
    return first(is_full || n > 8 ? 8 : n);
}

INLINE __m256 step_max(bool is_full, size_t i, size_t n_valid, const float *s,
                       __m256 max)
{
    __m256 v = _mm256_loadu_ps(s + i);
    if (!is_full)
        v = _mm256_blendv_ps(max, v,
                             _mm256_castsi256_ps(counting(is_full, i, n_valid)));
    return _mm256_max_ps(v, max);
}

INLINE __m256 step_exp(bool is_full, size_t i, size_t n_valid, float *s, __m256 max)
{
    __m256 e = exp8(_mm256_sub_ps(_mm256_loadu_ps(s + i), max));
    if (!is_full)
        e = _mm256_and_ps(e, _mm256_castsi256_ps(counting(is_full, i, n_valid)));
    _mm256_storeu_ps(s + i, e);
    return e;
}

/* max_ps answers its second operand where one is NaN: NaN scores are passed over, as
 * the specification does.  The scores are loaded a second time for exp: 8 registers of
 * them do not fit beside the constants. */
INLINE float step_any(bool is_full, size_t n_valid, float *s, float *m, float *l)
{
    __m256 old = _mm256_broadcast_ss(m), max = old, max2 = old;
    for (size_t i = 0; i < KERN_ATTN_BLOCK; i += 16) {
        max = step_max(is_full, i, n_valid, s, max);
        max2 = step_max(is_full, i + 8, n_valid, s, max2);
    }
    max = max8(_mm256_max_ps(max, max2));
    __m256 c = exp8(_mm256_sub_ps(old, max));

    struct lanes sum = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (size_t i = 0; i < KERN_ATTN_BLOCK; i += 16) {
        sum.lo = _mm256_add_ps(sum.lo, step_exp(is_full, i, n_valid, s, max));
        sum.hi = _mm256_add_ps(sum.hi, step_exp(is_full, i + 8, n_valid, s, max));
    }
    *m = _mm256_cvtss_f32(max);
    *l = fmaf(*l, _mm256_cvtss_f32(c), lanes_sum(sum));
    return _mm256_cvtss_f32(c);
}

static float step(size_t n_valid, float *s, float *m, float *l)
{
    if (n_valid == KERN_ATTN_BLOCK)
        return step_any(true, KERN_ATTN_BLOCK, s, m, l);
    return step_any(false, n_valid, s, m, l);
}

/* ---- into the cache, f16 and f32 ---- */

INLINE __m128i narrow_f16(__m256 v)
{
    return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static void store_key_f16(size_t n_dim, const float *key, void *stripe, size_t lane)
{
    char *to = (char *)stripe + 2 * lane;
    for (size_t d = 0; d < n_dim; d += 8) {
        uint16_t h[8];
        size_t n = n_dim - d < 8 ? n_dim - d : 8;
        _mm_storeu_si128((void *)h, narrow_f16(load_part(key, d, n_dim)));
        for (size_t j = 0; j < n; j++, to += 2 * KERN_STRIPE)
            memcpy(to, &h[j], sizeof h[j]);
    }
}

static void store_value_f16(size_t n_dim, const float *value, void *stripe, size_t lane)
{
    char *to = (char *)stripe + 2 * n_dim * lane;
    for (size_t d = 0; d < n_dim; d += 8) {
        __m128i h = narrow_f16(load_part(value, d, n_dim));
        if (d + 8 <= n_dim)
            _mm_storeu_si128((void *)(to + 2 * d), h);
        else
            memcpy(to + 2 * d, &h, 2 * (n_dim - d));
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

static void query_float(size_t n_dim, const float *q, float scale, void *out)
{
    for (size_t d = 0; d < n_dim; d += 8)
        store_part(out, d, n_dim,
                   _mm256_mul_ps(load_part(q, d, n_dim), _mm256_set1_ps(scale)));
}

/* ---- into the cache, q8 ---- */

/* The elements i to i + 7 of x * scale, +0 from n on. */
INLINE __m256 scaled_part(const float *x, size_t i, size_t n, float scale)
{
    __m256 v = _mm256_mul_ps(load_part(x, i, n), _mm256_set1_ps(scale));
    return keep_part(v, i, n);
}

/* The maximum of |x * scale|, taken on the bits, where NaN is above infinity. */
INLINE float max_abs(size_t n, const float *x, float scale)
{
    __m256i max = _mm256_setzero_si256();
    for (size_t i = 0; i < n; i += 8) {
        __m256i u = _mm256_castps_si256(scaled_part(x, i, n, scale));
        max = _mm256_max_epu32(max, _mm256_and_si256(u, _mm256_set1_epi32(0x7fffffff)));
    }
    __m128i a =
        _mm_max_epu32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
    a = _mm_max_epu32(a, _mm_unpackhi_epi64(a, a));
    a = _mm_max_epu32(a, _mm_srli_epi64(a, 32));
    return _mm_cvtss_f32(_mm_castsi128_ps(a));
}

/* Round v * inv to whole numbers of [-127, 127]; NaN gives -127. */
INLINE __m256i codes8(__m256 v, float inv)
{
    v = _mm256_mul_ps(v, _mm256_set1_ps(inv));
    v = _mm256_max_ps(v, _mm256_set1_ps(-KERN_ACT_MAX_Q));
    v = _mm256_min_ps(v, _mm256_set1_ps(KERN_ACT_MAX_Q));
    return _mm256_cvtps_epi32(v);
}

/* 8 whole numbers as the low 8 bytes. */
INLINE __m128i narrow_q8(__m256i v)
{
    __m128i h =
        _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    return _mm_packs_epi16(h, h);
}

/* n_bytes is 4, or 8 and more. */
INLINE void store_codes(char *to, size_t n_bytes, __m128i q)
{
    if (n_bytes >= 8)
        _mm_storel_epi64((void *)to, q);
    else
        memcpy(to, &q, 4);
}

/* Put the scale of x into the stripe; the codes' factor, 0 where every code is 0. */
INLINE float store_scale(size_t n_dim, const float *x, char *stripe, size_t lane)
{
    float d = max_abs(n_dim, x, 1) / KERN_ACT_MAX_Q;
    __m128i h = narrow_f16(_mm256_set1_ps(d));
    memcpy(stripe + 2 * lane, &h, sizeof(uint16_t));
    d = _mm256_cvtss_f32(_mm256_cvtph_ps(h));
    return d > 0 ? 1 / d : 0; /* infinity gives 0, too; NaN is not above 0 */
}

/* The codes of the elements i to i + 7; an infinity or NaN times 0 is none. */
INLINE __m128i cache_codes(const float *x, size_t i, size_t n, float inv)
{
    return inv > 0 ? narrow_q8(codes8(load_part(x, i, n), inv)) : _mm_setzero_si128();
}

static void store_key_q8(size_t n_dim, const float *key, void *stripe, size_t lane)
{
    float inv = store_scale(n_dim, key, stripe, lane);
    char *to = (char *)stripe + 2 * KERN_STRIPE + 4 * lane;
    for (size_t d = 0; d < n_dim; d += 8, to += 128) {
        __m128i q = cache_codes(key, d, n_dim, inv);
        store_codes(to, 4, q);
        if (d + 4 < n_dim)
            store_codes(to + 64, 4, _mm_srli_si128(q, 4));
    }
}

static void store_value_q8(size_t n_dim, const float *value, void *stripe, size_t lane)
{
    float inv = store_scale(n_dim, value, stripe, lane);
    size_t n_pad = pad4(n_dim);
    char *to = (char *)stripe + 2 * KERN_STRIPE + n_pad * lane;
    for (size_t d = 0; d < n_dim; d += 8)
        store_codes(to + d, n_pad - d, cache_codes(value, d, n_dim, inv));
}

static void query_q8(size_t n_dim, const float *q, float scale, void *out)
{
    struct {
        float d;
        int32_t sum;
    } head = {0};
    char *to = (char *)out + sizeof head;
    float max = max_abs(n_dim, q, scale);
    size_t n_pad = pad4(n_dim);
    uint32_t bits;
    memcpy(&bits, &max, sizeof bits);
    if (bits < KERN_ACT_MIN_BITS) {
        memset(out, 0, sizeof head + n_pad);
        return;
    }
    float inv = KERN_ACT_MAX_Q / max;
    __m256i sum = _mm256_setzero_si256();
    for (size_t d = 0; d < n_dim; d += 8) {
        /* +0 times an inv that is NaN would leave codes behind the end */
        __m256i v = codes8(scaled_part(q, d, n_dim, scale), inv);
        v = _mm256_castps_si256(keep_part(_mm256_castsi256_ps(v), d, n_dim));
        sum = _mm256_add_epi32(sum, v);
        store_codes(to + d, n_pad - d, narrow_q8(v));
    }
    __m128i a =
        _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    a = _mm_add_epi32(a, _mm_unpackhi_epi64(a, a));
    a = _mm_add_epi32(a, _mm_srli_epi64(a, 32));
    head.d = max / KERN_ACT_MAX_Q;
    head.sum = _mm_cvtsi128_si32(a);
    memcpy(out, &head, sizeof head);
}

void kern_fill_avx2_attn(struct kern_table *t)
{
    t->attn[KERN_KV_F16] = (struct kern_attn){
        store_key_f16, store_value_f16, query_float, scores_f16, values_f16, step};
    t->attn[KERN_KV_F32] = (struct kern_attn){
        store_key_f32, store_value_f32, query_float, scores_f32, values_f32, step};
    t->attn[KERN_KV_Q8] = (struct kern_attn){store_key_q8, store_value_q8, query_q8,
                                             scores_q8,    values_q8,      step};
}
