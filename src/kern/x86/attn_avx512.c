/* Attention (kern_attn.h) in AVX-512 (F, BW, DQ, VL) and VNNI: scores, values and the
 * step of the softmax; what goes into the cache is a row of floats at a time and stays
 * in AVX2.
 *
 * The shape is that of attn_avx2.c, with the 16 positions of a stripe, or 16
 * dimensions, in one register: one query meets 4 registers at a time, which is all of a
 * block, and 4 queries the same 4, 16 chains of fma.
 *
 * Scores of 8-bit keys: VNNI multiplies unsigned by signed bytes and sums 4 neighbours
 * without saturation.  The key is made unsigned by adding 128, which the sum of the
 * query's codes takes off again.
 *
 * Tests build this file a second time, with KERN_SIMDE, for other processors. */
#include "kern/x86/avx512.h"

#include <math.h>
#include <string.h>

enum {
    MANY = 4,       /* queries at a time */
    WIDE = 4,       /* registers of each */
    MAX_ACC = 16,   /* registers of results */
    USUAL_DIM = 64, /* GPT-2's heads, in every size */
};

INLINE size_t pad4(size_t n_dim)
{
    return (n_dim + 3) / 4 * 4;
}

/* kern_stripe_bytes. */
INLINE size_t stripe_bytes(enum kern_kv kv, size_t n_dim)
{
    return kv == KERN_KV_F16 ? 2 * KERN_STRIPE * n_dim
                             : 2 * KERN_STRIPE + KERN_STRIPE * pad4(n_dim);
}

INLINE size_t element_bytes(enum kern_kv kv)
{
    return kv == KERN_KV_F16 ? 2 : 1;
}

INLINE __m512 load_f16(const char *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}

INLINE __m512 broadcast(const float *p)
{
    return _mm512_set1_ps(*p);
}

/* ---- the common loop ---- */

/* The 16 elements of register r in row k lie at at + k * row + r * next; of the last
 * register those in keep are read. */
struct rows {
    enum kern_kv kv;
    __mmask16 keep;
    const char *at;
    size_t row, next;
};

INLINE __m512 widen(enum kern_kv kv, const char *p)
{
    if (kv == KERN_KV_F16)
        return load_f16(p);
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)));
}

INLINE __m512 widen_part(enum kern_kv kv, const char *p, __mmask16 keep)
{
    if (kv == KERN_KV_F16)
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(keep, (const void *)p));
    __m128i q = _mm_maskz_loadu_epi8(keep, (const void *)p);
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q));
}

/* acc[i][r] = fma(f[i * f_stride + k], row k of register r, acc[i][r]), k = 0, 1, ...
 */
INLINE void accumulate(int n_q, int n_r, size_t n_k, const float *f, size_t f_stride,
                       struct rows b, struct kern_asking *ask, __m512 acc[MAX_ACC])
{
    for (size_t k = 0; k < n_k; k++, b.at += b.row) {
        __m512 v[WIDE];
        if (n_q == 1)
            kern_ask(ask);
        for (int r = 0; r < n_r; r++)
            v[r] = n_r == 1 ? widen_part(b.kv, b.at, b.keep)
                            : widen(b.kv, b.at + (size_t)r * b.next);
        for (int i = 0; i < n_q; i++)
            for (int r = 0; r < n_r; r++)
                acc[i * n_r + r] = _mm512_fmadd_ps(
                    broadcast(f + (size_t)i * f_stride + k), v[r], acc[i * n_r + r]);
    }
}

/* ---- scores, f16 ---- */

INLINE void scores_f16_part(int n_q, int n_r, size_t n_dim, const char *queries,
                            const char *keys, float *s, struct kern_asking *ask)
{
    __m512 acc[MAX_ACC];
    size_t bytes = stripe_bytes(KERN_KV_F16, n_dim);
    struct rows b = {.kv = KERN_KV_F16,
                     .keep = 0xffff,
                     .at = keys,
                     .row = 2 * KERN_STRIPE,
                     .next = bytes};
    for (int i = 0; i < n_q * n_r; i++)
        acc[i] = _mm512_setzero_ps();
    accumulate(n_q, n_r, n_dim, (const void *)queries, n_dim, b, ask, acc);
    for (int i = 0; i < n_q; i++)
        for (int r = 0; r < n_r; r++)
            _mm512_storeu_ps(s + i * KERN_ATTN_BLOCK + KERN_STRIPE * r,
                             acc[i * n_r + r]);
}

/* ---- scores, q8 ---- */

INLINE __m512i broadcast4(const char *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm512_set1_epi32(v);
}

INLINE void scores_q8_part(int n_q, int n_r, size_t n_dim, const char *queries,
                           const char *keys, float *s, struct kern_asking *ask)
{
    __m512i acc[MAX_ACC];
    size_t bytes = stripe_bytes(KERN_KV_Q8, n_dim), q_bytes = 8 + pad4(n_dim);
    const char *codes = keys + 2 * KERN_STRIPE;
    for (int i = 0; i < n_q; i++) {
        __m512i sum = broadcast4(queries + (size_t)i * q_bytes + 4);
        sum = _mm512_slli_epi32(_mm512_sub_epi32(_mm512_setzero_si512(), sum), 7);
        for (int r = 0; r < n_r; r++)
            acc[i * n_r + r] = sum;
    }
    for (size_t d = 0; d < n_dim; d += 4, codes += 4 * KERN_STRIPE) {
        __m512i k[WIDE];
        if (n_q == 1)
            kern_ask(ask);
        for (int r = 0; r < n_r; r++)
            k[r] = _mm512_xor_si512(_mm512_loadu_si512(codes + (size_t)r * bytes),
                                    _mm512_set1_epi8(-128));
        for (int i = 0; i < n_q; i++) {
            __m512i x = broadcast4(queries + (size_t)i * q_bytes + 8 + d);
            for (int r = 0; r < n_r; r++)
                acc[i * n_r + r] = _mm512_dpbusd_epi32(acc[i * n_r + r], k[r], x);
        }
    }
    for (int r = 0; r < n_r; r++) {
        __m512 dk = load_f16(keys + (size_t)r * bytes);
        for (int i = 0; i < n_q; i++) {
            __m512 dq = broadcast((const void *)(queries + (size_t)i * q_bytes));
            _mm512_storeu_ps(s + i * KERN_ATTN_BLOCK + KERN_STRIPE * r,
                             _mm512_mul_ps(_mm512_cvtepi32_ps(acc[i * n_r + r]),
                                           _mm512_mul_ps(dq, dk)));
        }
    }
}

/* ---- scores ---- */

INLINE void scores_part(enum kern_kv kv, int n_q, int n_r, size_t n_dim,
                        const char *queries, const char *keys, float *s,
                        struct kern_asking *ask)
{
    if (kv == KERN_KV_F16)
        scores_f16_part(n_q, n_r, n_dim, queries, keys, s, ask);
    else
        scores_q8_part(n_q, n_r, n_dim, queries, keys, s, ask);
}

INLINE void scores_queries(enum kern_kv kv, int n_q, size_t n_dim, const char *queries,
                           size_t n_stripes, const char *keys, float *s,
                           struct kern_asking *ask)
{
    if (n_stripes == WIDE) {
        scores_part(kv, n_q, WIDE, n_dim, queries, keys, s, ask);
        return;
    }
    for (size_t t = 0; t < n_stripes; t++)
        scores_part(kv, n_q, 1, n_dim, queries, keys + t * stripe_bytes(kv, n_dim),
                    s + t * KERN_STRIPE, ask);
}

INLINE void scores_any(enum kern_kv kv, size_t n_dim, size_t n_q, const char *queries,
                       size_t n_stripes, const char *keys, float *s,
                       const struct kern_ahead *ahead)
{
    size_t i = 0, bytes = kv == KERN_KV_F16 ? 4 * n_dim : 8 + pad4(n_dim);
    struct kern_asking ask =
        kern_asking(ahead, n_q, kv == KERN_KV_F16 ? n_dim : pad4(n_dim) / 4);
    for (; i + MANY <= n_q; i += MANY)
        scores_queries(kv, MANY, n_dim, queries + i * bytes, n_stripes, keys,
                       s + i * KERN_ATTN_BLOCK, &ask);
    for (; i < n_q; i++)
        scores_queries(kv, 1, n_dim, queries + i * bytes, n_stripes, keys,
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

/* ---- values ---- */

/* One block; f is what each position is multiplied with. */
struct block {
    enum kern_kv kv;
    size_t n_dim, n_pos;
    const char *values;
    const float *f, *c;
    float *o;
    size_t o_stride;
    struct kern_asking *ask;
};

/* 16 * n_r columns from d on, where n_r = 1 may be cut. */
INLINE void values_part(int n_q, int n_r, struct block v, size_t d)
{
    __m512 acc[MAX_ACC];
    size_t size = element_bytes(v.kv), n = v.n_dim;
    __mmask16 keep = below(d, n);
    for (int i = 0; i < n_q; i++)
        for (int r = 0; r < n_r; r++) {
            const float *o = v.o + (size_t)i * v.o_stride + d + KERN_LANES * r;
            __m512 x = n_r == 1 ? _mm512_maskz_loadu_ps(keep, o) : _mm512_loadu_ps(o);
            acc[i * n_r + r] = _mm512_mul_ps(x, broadcast(v.c + i));
        }
    /* F16: all rows are contiguous; Q8: those of a stripe */
    size_t run = v.kv == KERN_KV_F16 ? v.n_pos : KERN_STRIPE;
    size_t row = (v.kv == KERN_KV_F16 ? n : pad4(n)) * size;
    const char *at = v.values + d * size + (v.kv == KERN_KV_F16 ? 0 : 2 * KERN_STRIPE);
    for (size_t p = 0; p < v.n_pos; p += run, at += stripe_bytes(v.kv, n)) {
        struct rows b = {
            .kv = v.kv, .keep = keep, .at = at, .row = row, .next = KERN_LANES * size};
        accumulate(n_q, n_r, v.n_pos - p < run ? v.n_pos - p : run, v.f + p,
                   KERN_ATTN_BLOCK, b, v.ask, acc);
    }
    for (int i = 0; i < n_q; i++)
        for (int r = 0; r < n_r; r++) {
            float *o = v.o + (size_t)i * v.o_stride + d + KERN_LANES * r;
            if (n_r == 1)
                _mm512_mask_storeu_ps(o, keep, acc[i]);
            else
                _mm512_storeu_ps(o, acc[i * n_r + r]);
        }
}

/* f = e * the positions' scales. */
INLINE void scale_weights(int n_q, struct block v, const float *e, float *f)
{
    for (size_t p = 0; p < v.n_pos; p += KERN_STRIPE) {
        __mmask16 keep = below(p, v.n_pos);
        __m512 scale =
            load_f16(v.values + p / KERN_STRIPE * stripe_bytes(KERN_KV_Q8, v.n_dim));
        for (int i = 0; i < n_q; i++) {
            __m512 x = _mm512_maskz_loadu_ps(keep, e + i * KERN_ATTN_BLOCK + p);
            _mm512_storeu_ps(f + i * KERN_ATTN_BLOCK + p, _mm512_mul_ps(x, scale));
        }
    }
}

INLINE void values_queries(int n_q, struct block v, const float *e)
{
    float f[MANY * KERN_ATTN_BLOCK];
    size_t d = 0;
    v.f = e;
    if (v.kv == KERN_KV_Q8) {
        scale_weights(n_q, v, e, f);
        v.f = f;
    }
    for (; d + WIDE * KERN_LANES <= v.n_dim; d += WIDE * KERN_LANES)
        values_part(n_q, WIDE, v, d);
    for (; d < v.n_dim; d += KERN_LANES)
        values_part(n_q, 1, v, d);
}

INLINE void values_any(struct block v, size_t n_q, const float *e)
{
    size_t i = 0;
    for (; i + MANY <= n_q; i += MANY, v.c += MANY, v.o += MANY * v.o_stride)
        values_queries(MANY, v, e + i * KERN_ATTN_BLOCK);
    for (; i < n_q; i++, v.c++, v.o += v.o_stride)
        values_queries(1, v, e + i * KERN_ATTN_BLOCK);
}

INLINE void values_of(enum kern_kv kv, size_t n_dim, size_t n_q, size_t n_pos,
                      const float *e, const void *values, const float *c, float *o,
                      size_t o_stride, const struct kern_ahead *ahead)
{
    struct kern_asking ask = kern_asking(ahead, n_q, n_pos);
    struct block v = {kv, n_dim, n_pos, values, NULL, c, o, o_stride, &ask};
    if (n_dim == USUAL_DIM) {
        v.n_dim = USUAL_DIM;
        values_any(v, n_q, e);
    } else {
        values_any(v, n_q, e);
    }
}

static void values_f16(size_t n_dim, size_t n_q, size_t n_pos, const float *e,
                       const void *values, const float *c, float *o, size_t o_stride,
                       const struct kern_ahead *ahead)
{
    values_of(KERN_KV_F16, n_dim, n_q, n_pos, e, values, c, o, o_stride, ahead);
}

static void values_q8(size_t n_dim, size_t n_q, size_t n_pos, const float *e,
                      const void *values, const float *c, float *o, size_t o_stride,
                      const struct kern_ahead *ahead)
{
    values_of(KERN_KV_Q8, n_dim, n_q, n_pos, e, values, c, o, o_stride, ahead);
}

/* ---- online softmax ---- */

INLINE float max16(__m512 v)
{
    __m256 a8 = _mm256_max_ps(_mm512_castps512_ps256(v), upper(v));
    __m128 a = _mm_max_ps(_mm256_castps256_ps128(a8), _mm256_extractf128_ps(a8, 1));
    a = _mm_max_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)));
}

/* max_ps answers its second operand where one is NaN: NaN scores are passed over, as
 * the specification does. */
static float step(size_t n_valid, float *s, float *m, float *l)
{
    enum { N = KERN_ATTN_BLOCK / KERN_LANES };
    __m512 e[N], old = broadcast(m), max = old, sum = _mm512_setzero_ps();
    __mmask16 keep[N];
    for (size_t i = 0; i < N; i++) {
        size_t p = KERN_LANES * i;
        keep[i] = below(p < n_valid ? p : n_valid, n_valid);
        e[i] = _mm512_loadu_ps(s + p);
        max = _mm512_max_ps(_mm512_mask_mov_ps(max, keep[i], e[i]), max);
    }
    *m = max16(max);
    max = broadcast(m);
    float c = _mm_cvtss_f32(_mm512_castps512_ps128(exp16(_mm512_sub_ps(old, max))));
    for (size_t i = 0; i < N; i++) {
        e[i] = _mm512_maskz_mov_ps(keep[i], exp16(_mm512_sub_ps(e[i], max)));
        _mm512_storeu_ps(s + KERN_LANES * i, e[i]);
        sum = _mm512_add_ps(sum, e[i]);
    }
    *l = fmaf(*l, c, lanes_sum(sum));
    return c;
}

/* On top of the AVX2 table (in tests: of the specification). */
void kern_fill_avx512_attn(struct kern_table *t)
{
    for (int kv = 0; kv < KERN_N_KV; kv++)
        t->attn[kv].step = step;
    t->attn[KERN_KV_F16].scores = scores_f16;
    t->attn[KERN_KV_F16].values = values_f16;
    t->attn[KERN_KV_Q8].scores = scores_q8;
    t->attn[KERN_KV_Q8].values = values_q8;
}
