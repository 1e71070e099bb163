/* The body of every struct grad_kern (grad.h), on vectors of 8 floats as the compiler
 * has them.  A file that includes this is compiled with an instruction set's flags and
 * then defines a table of the functions here. */
#ifndef RUNT_GRAD_BODY_H
#define RUNT_GRAD_BODY_H

#include "kern/grad.h"
#include "kern/kern_impl.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { LANES = 8 };
typedef float v8 __attribute__((vector_size(32)));
typedef int32_t v8i __attribute__((vector_size(32)));
#define INLINE static inline __attribute__((always_inline))

INLINE v8 set(float x)
{
    return (v8){x, x, x, x, x, x, x, x};
}

/* The k <= LANES numbers at p; the others are +0. */
INLINE v8 load(const float *p, size_t k)
{
    v8 x = {0};
    if (k == LANES)
        memcpy(&x, p, sizeof x);
    else
        memcpy(&x, p, k * sizeof *p);
    return x;
}

INLINE void store(float *p, v8 x, size_t k)
{
    if (k == LANES)
        memcpy(p, &x, sizeof x);
    else
        memcpy(p, &x, k * sizeof *p);
}

INLINE v8 select(v8i mask, v8 yes, v8 no)
{
    return (v8)((mask & (v8i)yes) | (~mask & (v8i)no));
}

INLINE float lanes_sum(v8 x)
{
    return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}

/* kern_ref_expf without fused operations: n * LN2_HI is exact, so little is lost. */
INLINE v8 exp8(v8 x)
{
    x = select(x < KERN_EXP_LO, set(KERN_EXP_LO), x);
    x = select(x > KERN_EXP_HI, set(KERN_EXP_HI), x);
    v8 t = x * KERN_LOG2E + KERN_ROUND, n = t - KERN_ROUND;
    v8 r = x - n * KERN_LN2_HI - n * KERN_LN2_LO;
    v8 p = set(KERN_EXP_C6);
    p = p * r + KERN_EXP_C5;
    p = p * r + KERN_EXP_C4;
    p = p * r + KERN_EXP_C3;
    p = p * r + KERN_EXP_C2;
    p = p * r + 1;
    p = p * r + 1;
    v8i u = (v8i)t - (KERN_ROUND_BITS - 256), half = u >> 1;
    return p * (v8)((half - 1) << 23) * (v8)((u - half - 1) << 23);
}

#define FOR_LANES(i, k, n) \
    for (size_t i = 0, k; i < (n) && (k = (n)-i < LANES ? (n)-i : LANES, 1); i += LANES)

/* ---- plain ---- */

static void add(size_t n, float *y, const float *x)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

/* ---- layer norm ---- */

static void norm_again(size_t n, const float *x, const float *gain, const float *bias,
                       const float stat[2], float *y)
{
    FOR_LANES(i, k, n)
    store(y + i,
          (load(x + i, k) - stat[0]) * stat[1] * load(gain + i, k) + load(bias + i, k),
          k);
}

static void norm(size_t n, const float *x, const float *gain, const float *bias,
                 float eps, float *y, float stat[2])
{
    v8 sum = {0}, squares = {0};
    FOR_LANES(i, k, n)
    sum += load(x + i, k);
    float mean = lanes_sum(sum) / (float)n;
    size_t whole = n - n % LANES;
    FOR_LANES(i, k, whole)
    {
        v8 d = load(x + i, k) - mean;
        squares += d * d;
    }
    for (size_t i = whole; i < n; i++) /* lanes beyond n would count mean^2 */
        squares[i % LANES] += (x[i] - mean) * (x[i] - mean);
    stat[0] = mean;
    stat[1] = 1 / sqrtf(lanes_sum(squares) / (float)n + eps);
    norm_again(n, x, gain, bias, stat, y);
}

/* With z = (x - mean) inv and dz = dy gain: dx = inv (dz - mean(dz) - z mean(dz z)). */
static void norm_back(size_t n, const float *x, const float *gain, const float stat[2],
                      const float *dy, float *dx)
{
    v8 sum = {0}, sum_z = {0};
    FOR_LANES(i, k, n)
    {
        v8 dz = load(dy + i, k) * load(gain + i, k);
        sum += dz;
        sum_z += dz * ((load(x + i, k) - stat[0]) * stat[1]);
    }
    float m = lanes_sum(sum) / (float)n, mz = lanes_sum(sum_z) / (float)n;
    FOR_LANES(i, k, n)
    {
        v8 dz = load(dy + i, k) * load(gain + i, k);
        v8 z = (load(x + i, k) - stat[0]) * stat[1];
        store(dx + i, load(dx + i, k) + (dz - m - z * mz) * stat[1], k);
    }
}

static void norm_back_params(size_t n, const float *x, const float stat[2],
                             const float *dy, float *dgain, float *dbias)
{
    if (dgain)
        FOR_LANES(i, k, n)
        {
            v8 z = (load(x + i, k) - stat[0]) * stat[1];
            store(dgain + i, load(dgain + i, k) + load(dy + i, k) * z, k);
        }
    if (dbias)
        add(n, dbias, dy);
}

/* ---- GELU ---- */

static void gelu(size_t n, const float *x, float *y)
{
    FOR_LANES(i, k, n)
    {
        v8 a = load(x + i, k);
        store(y + i, a / (exp8(a * (a * a * KERN_GELU_C3 + KERN_GELU_C1)) + 1), k);
    }
}

/* s = 1 / (1 + e), e = exp(-2u): d(x s) = s + x s (1 - s) 2u'.  1 - s cancels where s
 * is next to 1, which costs 2e-6 of a slope of 1; e s would not, but is NaN where e is
 * infinite. */
static void gelu_back(size_t n, const float *x, float *dy)
{
    FOR_LANES(i, k, n)
    {
        v8 a = load(x + i, k), aa = a * a;
        v8 s = 1 / (exp8(a * (aa * KERN_GELU_C3 + KERN_GELU_C1)) + 1);
        v8 slope = aa * (3 * KERN_GELU_C3) + KERN_GELU_C1;
        store(dy + i, load(dy + i, k) * (s - a * s * (1 - s) * slope), k);
    }
}

/* ---- softmax ---- */

static float max(size_t n, const float *x)
{
    v8 m = set(x[0]);
    size_t whole = n - n % LANES;
    FOR_LANES(i, k, whole)
    {
        v8 a = load(x + i, k);
        m = select(a > m, a, m);
    }
    float r = m[0];
    for (size_t j = 1; j < LANES; j++)
        r = m[j] > r ? m[j] : r;
    for (size_t i = whole; i < n; i++)
        r = x[i] > r ? x[i] : r;
    return r;
}

static float exp_sum(size_t n, float *x, float scale, float shift)
{
    v8 sum = {0};
    size_t whole = n - n % LANES;
    FOR_LANES(i, k, whole)
    {
        v8 e = exp8(load(x + i, k) * scale - shift);
        store(x + i, e, k);
        sum += e;
    }
    if (whole < n) { /* lanes beyond n would count, too */
        v8 e = exp8(load(x + whole, n - whole) * scale - shift);
        store(x + whole, e, n - whole);
        sum += load(x + whole, n - whole);
    }
    return lanes_sum(sum);
}

static void softmax_back(size_t n, const float *p, float *dp, float d, float scale)
{
    FOR_LANES(i, k, n)
    store(dp + i, load(p + i, k) * (load(dp + i, k) - d) * scale, k);
}

/* ---- sums, AdamW, formats ---- */

static void scale(size_t n, float *x, float a)
{
    for (size_t i = 0; i < n; i++)
        x[i] *= a;
}

static float dot(size_t n, const float *x, const float *y)
{
    v8 sum = {0};
    FOR_LANES(i, k, n)
    sum += load(x + i, k) * load(y + i, k);
    return lanes_sum(sum);
}

/* 8 lanes of floats for 256 numbers at a time, then in double: a gradient of a billion
 * numbers must not lose its small ones. */
static double sum_squares(size_t n, const float *x)
{
    double total = 0;
    for (size_t from = 0; from < n; from += 256) {
        size_t m = n - from < 256 ? n - from : 256;
        v8 sum = {0};
        FOR_LANES(i, k, m)
        {
            v8 a = load(x + from + i, k);
            sum += a * a;
        }
        total += (double)lanes_sum(sum);
    }
    return total;
}

/* A permutation of 32 bits whose every output bit depends on every input bit: multiply
 * and shift (the constants are those that Wellons found by search, "lowbias32"). */
static void dropout(size_t n, float *x, uint32_t key, uint32_t first, float share)
{
    uint32_t least = (uint32_t)((double)share * 0x1p31);
    float up = 1 / (1 - share);
    for (size_t i = 0; i < n; i++) {
        uint32_t h = (first + (uint32_t)i) ^ key;
        h = (h ^ (h >> 16)) * 0x7feb352du;
        h = (h ^ (h >> 15)) * 0x846ca68bu;
        h ^= h >> 16;
        x[i] = (int32_t)(h >> 1) >= (int32_t)least ? x[i] * up : 0;
    }
}

static void adamw(size_t n, const struct grad_adamw *o, const float *restrict g,
                  float *restrict w, float *restrict m, float *restrict v)
{
    float b1 = o->beta1, b2 = o->beta2, c1 = 1 - b1, c2 = 1 - b2;
    for (size_t i = 0; i < n; i++) {
        float a = g[i] * o->grad_scale;
        m[i] = m[i] * b1 + a * c1;
        v[i] = v[i] * b2 + a * a * c2;
        w[i] = w[i] * o->keep - o->rate * (m[i] / (sqrtf(v[i]) * o->inv_root + o->eps));
    }
}

static void to_bf16(size_t n, const float *x, uint16_t *y)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, x + i, sizeof u);
        /* rounding would carry a NaN to infinity or 0: it is cut, and made quiet */
        bool nan = (int32_t)(u & 0x7fffffff) > 0x7f800000;
        y[i] = (uint16_t)(nan ? u >> 16 | 0x40 : (u + 0x7fff + (u >> 16 & 1)) >> 16);
    }
}

static void from_bf16(size_t n, const uint16_t *x, float *y)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t u = (uint32_t)x[i] << 16;
        memcpy(y + i, &u, sizeof u);
    }
}

#define GRAD_TABLE                                                                    \
    {                                                                                 \
        norm, norm_again, norm_back, norm_back_params, gelu, gelu_back, max, exp_sum, \
            softmax_back, add, scale, dot, sum_squares, dropout, adamw, to_bf16,      \
            from_bf16                                                                 \
    }

#endif
