/* The specification of every kernel, in scalar C.  It is written to be read, not to be
 * fast: each function follows the text of kern.h word for word, and the other files are
 * tested against it bit for bit.  fmaf() is always meant as one rounding; the build
 * forbids the compiler to fuse anything else. */
#include "kern/kern_impl.h"

#include <math.h>
#include <string.h>

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static uint16_t load_u16(const uint8_t *p)
{
    uint16_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

float kern_ref_lanes_sum(float lane[KERN_LANES])
{
    for (int half = KERN_LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++)
            lane[j] += lane[j + half];
    return lane[0];
}

/* ---- rows of floats ---- */

typedef void decode_fn(size_t n, const uint8_t *w, float *out);

static void decode_row_f32(size_t n, const uint8_t *w, float *out)
{
    memcpy(out, w, n * sizeof *out);
}

static void decode_row_f16(size_t n, const uint8_t *w, float *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = fmt_f16_to_f32(load_u16(w + 2 * i));
}

static void decode_row_bf16(size_t n, const uint8_t *w, float *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = fmt_bf16_to_f32(load_u16(w + 2 * i));
}

static float dot_float(size_t n, const uint8_t *w, size_t size, decode_fn *decode,
                       const float *x)
{
    float lane[KERN_LANES] = {0};
    for (size_t i = 0; i < n; i += KERN_LANES) {
        float wf[KERN_LANES] = {0}, xf[KERN_LANES] = {0};
        size_t m = n - i < KERN_LANES ? n - i : KERN_LANES;
        decode(m, w + i * size, wf);
        memcpy(xf, x + i, m * sizeof *xf);
        for (int j = 0; j < KERN_LANES; j++)
            lane[j] = fmaf(wf[j], xf[j], lane[j]);
    }
    return kern_ref_lanes_sum(lane);
}

static void dot_f32(size_t n, const void *w, const void *x, size_t x_stride, size_t n_x,
                    float *out, size_t out_stride)
{
    for (size_t k = 0; k < n_x; k++)
        out[k * out_stride] = dot_float(n, w, 4, decode_row_f32,
                                        (const void *)((const char *)x + k * x_stride));
}

static void dot_f16(size_t n, const void *w, const void *x, size_t x_stride, size_t n_x,
                    float *out, size_t out_stride)
{
    for (size_t k = 0; k < n_x; k++)
        out[k * out_stride] = dot_float(n, w, 2, decode_row_f16,
                                        (const void *)((const char *)x + k * x_stride));
}

static void dot_bf16(size_t n, const void *w, const void *x, size_t x_stride,
                     size_t n_x, float *out, size_t out_stride)
{
    for (size_t k = 0; k < n_x; k++)
        out[k * out_stride] = dot_float(n, w, 2, decode_row_bf16,
                                        (const void *)((const char *)x + k * x_stride));
}

/* ---- activations ---- */

/* The maximum is taken on the bits: those of |x| are ordered as the numbers are, and
 * NaN is above infinity, so that it reaches d.  Clamping before the conversion (NaN
 * goes to -127) keeps q in range when 127 / max|x| is 0 or NaN. */
static void quantize_group(const float x[KERN_GROUP], struct kern_act *out)
{
    uint32_t max_bits = 0;
    memset(out, 0, sizeof *out);
    for (int j = 0; j < KERN_GROUP; j++) {
        uint32_t u = bits_of(x[j]) & 0x7fffffff;
        max_bits = u > max_bits ? u : max_bits;
    }
    if (max_bits < KERN_ACT_MIN_BITS)
        return;
    float max = float_of(max_bits), inv = KERN_ACT_MAX_Q / max;
    out->d = max / KERN_ACT_MAX_Q;
    for (int j = 0; j < KERN_GROUP; j++) {
        float v = x[j] * inv;
        v = v > -KERN_ACT_MAX_Q ? v : -KERN_ACT_MAX_Q;
        v = v < KERN_ACT_MAX_Q ? v : KERN_ACT_MAX_Q;
        int q = (int)rintf(v), half = j / KERN_HALF, pair = j % 4 / 2;
        out->q[j] = (int8_t)q;
        out->sum[half] = (int16_t)(out->sum[half] + q);
        out->minus8[half][pair] = (int16_t)(out->minus8[half][pair] - 8 * q);
        out->minus8_both[pair] = (int16_t)(out->minus8_both[pair] - 8 * q);
    }
}

static void quantize_act(size_t n, const float *x, struct kern_act *out)
{
    for (size_t i = 0; i < n; i += KERN_GROUP) {
        float group[KERN_GROUP] = {0};
        memcpy(group, x + i, (n - i < KERN_GROUP ? n - i : KERN_GROUP) * sizeof *x);
        quantize_group(group, out++);
    }
}

/* ---- norm, GELU, softmax ---- */

struct norm {
    float mean, inv;
};

static struct norm norm_of(size_t n, const float *x, float eps)
{
    float lane[KERN_LANES] = {0};
    for (size_t i = 0; i < n; i += KERN_LANES)
        for (size_t j = 0; j < KERN_LANES; j++)
            lane[j] += i + j < n ? x[i + j] : 0;
    float mean = kern_ref_lanes_sum(lane) / (float)n;

    memset(lane, 0, sizeof lane);
    for (size_t i = 0; i < n; i += KERN_LANES) {
        for (size_t j = 0; j < KERN_LANES; j++) {
            float d = i + j < n ? x[i + j] - mean : 0;
            lane[j] = fmaf(d, d, lane[j]);
        }
    }
    float var = kern_ref_lanes_sum(lane) / (float)n;
    return (struct norm){mean, 1 / sqrtf(var + eps)};
}

static void layer_norm(size_t n, const float *x, const float *gain, const float *bias,
                       float eps, float *out)
{
    struct norm m = norm_of(n, x, eps);
    for (size_t i = 0; i < n; i++)
        out[i] = fmaf((x[i] - m.mean) * m.inv, gain[i], bias[i]);
}

static void layer_norm_act(size_t n, const float *x, const float *gain,
                           const float *bias, float eps, struct kern_act *out)
{
    struct norm m = norm_of(n, x, eps);
    for (size_t i = 0; i < n; i += KERN_GROUP) {
        float group[KERN_GROUP] = {0};
        for (size_t j = 0; j < KERN_GROUP && i + j < n; j++)
            group[j] = fmaf((x[i + j] - m.mean) * m.inv, gain[i + j], bias[i + j]);
        quantize_group(group, out++);
    }
}

/* The comparisons are written so that NaN passes through them.  u is n + 256, never
 * negative, so that halving it needs no signed shift; half - 1 and u - half - 1 are the
 * biased exponents of the two factors. */
float kern_ref_expf(float x)
{
    x = KERN_EXP_LO > x ? KERN_EXP_LO : x;
    x = KERN_EXP_HI < x ? KERN_EXP_HI : x;
    float t = fmaf(x, KERN_LOG2E, KERN_ROUND), n = t - KERN_ROUND;
    float r = fmaf(n, -KERN_LN2_LO, fmaf(n, -KERN_LN2_HI, x));
    float p = KERN_EXP_C6;
    p = fmaf(p, r, KERN_EXP_C5);
    p = fmaf(p, r, KERN_EXP_C4);
    p = fmaf(p, r, KERN_EXP_C3);
    p = fmaf(p, r, KERN_EXP_C2);
    p = fmaf(p, r, 1);
    p = fmaf(p, r, 1);
    uint32_t u = bits_of(t) - (KERN_ROUND_BITS - 256), half = u >> 1;
    return p * float_of((half - 1) << 23) * float_of((u - half - 1) << 23);
}

static void gelu(size_t n, float *x, const float *bias)
{
    for (size_t i = 0; i < n; i++) {
        float y = bias ? x[i] + bias[i] : x[i];
        float minus_2u = y * fmaf(y * y, KERN_GELU_C3, KERN_GELU_C1);
        x[i] = y / (1 + kern_ref_expf(minus_2u));
    }
}

/* ---- element by element ---- */

static void add(size_t n, float *y, const float *x)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

static void add_rows(size_t n, float *y, size_t n_rows, const float *x,
                     const float *rows, size_t step)
{
    for (size_t k = 0; k < n_rows; k++)
        for (size_t i = 0; i < n; i++)
            y[i] = fmaf(x[k], rows[k * step + i], y[i]);
}

void kern_fill_ref(struct kern_table *t)
{
    *t = (struct kern_table){
        .level = CPU_REF,
        .dot_f32 = dot_f32,
        .dot_f16 = dot_f16,
        .dot_bf16 = dot_bf16,
        .quantize_act = quantize_act,
        .layer_norm = layer_norm,
        .layer_norm_act = layer_norm_act,
        .gelu = gelu,
        .add = add,
        .add_rows = add_rows,
    };
    kern_fill_ref_tile(t);
    kern_fill_ref_attn(t);
}
