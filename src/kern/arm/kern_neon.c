/* Kernels of rows in NEON, for any AArch64 processor: float weights, activations, layer
 * norm, GELU.  The 16 lanes of the specification are four registers (struct lanes).
 *
 * Dot products come as one function for each format, made from an inline body whose
 * format and number of vectors are constants.  Several vectors at a time share the work
 * of widening a weight; no vector's own sequence of operations changes with that. */
#include "kern/arm/neon.h"

#include <math.h>

/* ---- rows of floats ---- */

enum { FLOAT_VECTORS = 4 }; /* 16 sums and 4 weights in 32 registers */

INLINE size_t float_bytes(enum fmt_type type)
{
    return type == FMT_F32 ? 4 : 2;
}

INLINE float32x4_t load_weights(enum fmt_type type, const uint8_t *w)
{
    if (type == FMT_F32)
        return vreinterpretq_f32_u8(vld1q_u8(w));
    uint16x4_t h = vreinterpret_u16_u8(vld1_u8(w));
    if (type == FMT_F16)
        return vcvt_f32_f16(vreinterpret_f16_u16(h));
    return vreinterpretq_f32_u32(vshll_n_u16(h, 16));
}

/* One step of the 16 lanes: acc + w * x for 16 weights at w, 16 numbers at each x. */
INLINE void float_step(enum fmt_type type, int n_v, const uint8_t *w,
                       const float *const *x, struct lanes *acc)
{
    for (int k = 0; k < N_REGS; k++) {
        float32x4_t wf = load_weights(type, w + REG * k * float_bytes(type));
        for (int v = 0; v < n_v; v++)
            acc[v].v[k] = vfmaq_f32(acc[v].v[k], wf, vld1q_f32(x[v] + REG * k));
    }
}

INLINE void float_vectors(enum fmt_type type, int n_v, size_t n, const uint8_t *w,
                          const char *x, size_t x_stride, float *out, size_t out_stride)
{
    struct lanes acc[FLOAT_VECTORS];
    const float *at[FLOAT_VECTORS];
    size_t size = float_bytes(type), i = 0;
    for (int v = 0; v < n_v; v++) {
        acc[v] = lanes_zero();
        at[v] = (const void *)(x + v * x_stride);
    }
    for (; i + KERN_LANES <= n; i += KERN_LANES) {
        float_step(type, n_v, w + i * size, at, acc);
        for (int v = 0; v < n_v; v++)
            at[v] += KERN_LANES;
    }
    if (i < n) {
        uint8_t w_tail[KERN_LANES * sizeof(float)] = {0};
        float x_tail[FLOAT_VECTORS][KERN_LANES] = {{0}};
        memcpy(w_tail, w + i * size, (n - i) * size);
        for (int v = 0; v < n_v; v++) {
            memcpy(x_tail[v], at[v], (n - i) * sizeof(float));
            at[v] = x_tail[v];
        }
        float_step(type, n_v, w_tail, at, acc);
    }
    for (int v = 0; v < n_v; v++)
        out[v * out_stride] = lanes_sum(acc[v]);
}

INLINE void float_row(enum fmt_type type, size_t n, const void *w, const char *x,
                      size_t x_stride, size_t n_x, float *out, size_t out_stride)
{
    size_t k = 0;
    for (; k + FLOAT_VECTORS <= n_x; k += FLOAT_VECTORS)
        float_vectors(type, FLOAT_VECTORS, n, w, x + k * x_stride, x_stride,
                      out + k * out_stride, out_stride);
    for (; k < n_x; k++)
        float_vectors(type, 1, n, w, x + k * x_stride, 0, out + k * out_stride, 0);
}

static void dot_f32(size_t n, const void *w, const void *x, size_t x_stride, size_t n_x,
                    float *out, size_t out_stride)
{
    float_row(FMT_F32, n, w, x, x_stride, n_x, out, out_stride);
}

static void dot_f16(size_t n, const void *w, const void *x, size_t x_stride, size_t n_x,
                    float *out, size_t out_stride)
{
    float_row(FMT_F16, n, w, x, x_stride, n_x, out, out_stride);
}

static void dot_bf16(size_t n, const void *w, const void *x, size_t x_stride,
                     size_t n_x, float *out, size_t out_stride)
{
    float_row(FMT_BF16, n, w, x, x_stride, n_x, out, out_stride);
}

/* ---- activations ---- */

enum { GROUP_REGS = KERN_GROUP / REG };

/* The sums of a group's q: pairs of neighbours are what minus8 counts, a half of them
 * at a time; 8 * 32 * 127 = 32512 fits 16 bits. */
INLINE void store_sums(const int8x16_t q[4], struct kern_act *out)
{
    int16x8_t s[2]; /* of a half, by j % 8 */
    for (int h = 0; h < 2; h++)
        s[h] =
            vaddq_s16(vaddl_s8(vget_low_s8(q[2 * h]), vget_high_s8(q[2 * h])),
                      vaddl_s8(vget_low_s8(q[2 * h + 1]), vget_high_s8(q[2 * h + 1])));
    int32x4_t by_pair = vreinterpretq_s32_s16(vpaddq_s16(s[0], s[1]));
    int32x2_t lo = vget_low_s32(by_pair), hi = vget_high_s32(by_pair);
    int16x4_t pairs = vadd_s16(vreinterpret_s16_s32(vuzp1_s32(lo, hi)),
                               vreinterpret_s16_s32(vuzp2_s32(lo, hi)));
    int16x4_t minus8 = vshl_n_s16(vneg_s16(pairs), 3), sums = vpadd_s16(pairs, pairs);
    int16x4_t both = vadd_s16(minus8, vext_s16(minus8, minus8, 2));
    memcpy(out->sum, &sums, sizeof out->sum);
    memcpy(out->minus8, &minus8, sizeof out->minus8);
    memcpy(out->minus8_both, &both, sizeof out->minus8_both);
}

INLINE void quantize_group(const float32x4_t x[GROUP_REGS], struct kern_act *out)
{
    uint32x4_t bits = abs_bits(x[0]);
    for (int k = 1; k < GROUP_REGS; k++)
        bits = vmaxq_u32(bits, abs_bits(x[k]));
    uint32_t max_bits = vmaxvq_u32(bits);
    if (max_bits < KERN_ACT_MIN_BITS) {
        memset(out, 0, sizeof *out);
        return;
    }
    float max;
    memcpy(&max, &max_bits, sizeof max);
    out->d = max / KERN_ACT_MAX_Q;
    float32x4_t inv = vdupq_n_f32(KERN_ACT_MAX_Q / max);
    int8x16_t q[4];
    for (int k = 0; k < 4; k++) {
        int16x8_t h[2];
        for (int j = 0; j < 2; j++) {
            const float32x4_t *v = x + 4 * k + 2 * j;
            int32x4_t a = round_q(vmulq_f32(v[0], inv)),
                      b = round_q(vmulq_f32(v[1], inv));
            h[j] = vmovn_high_s32(vmovn_s32(a), b);
        }
        q[k] = vmovn_high_s16(vmovn_s16(h[0]), h[1]);
        vst1q_s8(out->q + 16 * k, q[k]);
    }
    store_sums(q, out);
}

static void quantize_act(size_t n, const float *x, struct kern_act *out)
{
    for (size_t i = 0; i < n; i += KERN_GROUP, out++) {
        float32x4_t v[GROUP_REGS];
        for (size_t k = 0; k < GROUP_REGS; k++)
            v[k] = load_part(x, i + REG * k, n);
        quantize_group(v, out);
    }
}

/* ---- norm ---- */

struct norm {
    float mean, inv;
};

INLINE struct norm norm_of(size_t n, const float *x, float eps)
{
    struct lanes s = lanes_zero(), s2 = s;
    for (size_t i = 0; i < n; i += KERN_LANES)
        for (size_t k = 0; k < N_REGS; k++)
            s.v[k] = vaddq_f32(s.v[k], load_part(x, i + REG * k, n));
    float mean = lanes_sum(s) / (float)n;
    for (size_t i = 0; i < n; i += KERN_LANES)
        for (size_t k = 0; k < N_REGS; k++) {
            size_t j = i + REG * k;
            float32x4_t d = vsubq_f32(load_part(x, j, n), vdupq_n_f32(mean));
            d = keep_part(d, j, n);
            s2.v[k] = vfmaq_f32(s2.v[k], d, d);
        }
    return (struct norm){mean, 1 / sqrtf(lanes_sum(s2) / (float)n + eps)};
}

/* The normed elements i to i + 3; those that are not below n are +0. */
INLINE float32x4_t normed(struct norm m, const float *x, const float *gain,
                          const float *bias, size_t i, size_t n)
{
    float32x4_t v = vsubq_f32(load_part(x, i, n), vdupq_n_f32(m.mean));
    v = vmulq_n_f32(v, m.inv);
    v = vfmaq_f32(load_part(bias, i, n), v, load_part(gain, i, n));
    return keep_part(v, i, n); /* an infinite mean makes the rest NaN */
}

static void layer_norm(size_t n, const float *x, const float *gain, const float *bias,
                       float eps, float *out)
{
    struct norm m = norm_of(n, x, eps);
    for (size_t i = 0; i < n; i += REG)
        store_part(out, i, n, normed(m, x, gain, bias, i, n));
}

static void layer_norm_act(size_t n, const float *x, const float *gain,
                           const float *bias, float eps, struct kern_act *out)
{
    struct norm m = norm_of(n, x, eps);
    for (size_t i = 0; i < n; i += KERN_GROUP, out++) {
        float32x4_t v[GROUP_REGS];
        for (size_t k = 0; k < GROUP_REGS; k++)
            v[k] = normed(m, x, gain, bias, i + REG * k, n);
        quantize_group(v, out);
    }
}

/* ---- element by element ---- */

static void gelu(size_t n, float *x, const float *bias)
{
    const float32x4_t one = vdupq_n_f32(1), c1 = vdupq_n_f32(KERN_GELU_C1),
                      c3 = vdupq_n_f32(KERN_GELU_C3);
    for (size_t i = 0; i < n; i += REG) {
        float32x4_t y = load_part(x, i, n);
        if (bias)
            y = vaddq_f32(y, load_part(bias, i, n));
        float32x4_t minus_2u = vmulq_f32(y, vfmaq_f32(c1, vmulq_f32(y, y), c3));
        y = vdivq_f32(y, vaddq_f32(one, exp4(minus_2u)));
        store_part(x, i, n, y);
    }
}

static void add(size_t n, float *y, const float *x)
{
    for (size_t i = 0; i < n; i += REG)
        store_part(y, i, n, vaddq_f32(load_part(y, i, n), load_part(x, i, n)));
}

static void add_rows(size_t n, float *y, size_t n_rows, const float *x,
                     const float *rows, size_t step)
{
    for (size_t i = 0; i < n; i += REG) {
        float32x4_t sum = load_part(y, i, n);
        for (size_t k = 0; k < n_rows; k++)
            sum = vfmaq_f32(sum, vdupq_n_f32(x[k]), load_part(rows + k * step, i, n));
        store_part(y, i, n, sum);
    }
}

/* ---- tables ---- */

/* On top of the specification's table. */
void kern_fill_neon(struct kern_table *t)
{
    t->level = CPU_NEON;
    t->dot_f32 = dot_f32;
    t->dot_f16 = dot_f16;
    t->dot_bf16 = dot_bf16;
    t->quantize_act = quantize_act;
    t->layer_norm = layer_norm;
    t->layer_norm_act = layer_norm_act;
    t->gelu = gelu;
    t->add = add;
    t->add_rows = add_rows;
    kern_fill_neon_tile(t);
    kern_fill_neon_attn(t);
}

/* On top of kern_fill_neon's. */
void kern_fill_neon_dot(struct kern_table *t)
{
    t->level = CPU_NEON_DOT;
    kern_fill_neon_dot_tile(t);
    kern_fill_neon_dot_attn(t);
}
