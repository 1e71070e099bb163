/* The kernels in AVX2, FMA and F16C: rows of floats, rounding to 8 bits, and rows that
 * are changed in place; tile_avx2.c and attn_avx2.c have the others.  The 16 lanes of
 * the specification are two registers (struct lanes).
 *
 * Dot products come as one function for each format, made from an inline body whose
 * format and number of vectors are constants.  Several vectors at a time share the work
 * of decoding a weight; no vector's own sequence of operations changes with that. */
#include "kern/x86/avx2.h"

#include <math.h>
#include <string.h>

/* ---- rows of floats ---- */

enum { FLOAT_VECTORS = 4 }; /* 8 chains of fma: latency 4, two a cycle */

INLINE size_t float_bytes(enum fmt_type type)
{
    return type == FMT_F32 ? 4 : 2;
}

INLINE __m256 load8(enum fmt_type type, const uint8_t *w)
{
    if (type == FMT_F32)
        return _mm256_loadu_ps((const float *)(const void *)w);
    __m128i h = _mm_loadu_si128((const void *)w);
    if (type == FMT_F16)
        return _mm256_cvtph_ps(h);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

INLINE struct lanes lanes_fma(struct lanes w, const float *x, struct lanes acc)
{
    acc.lo = _mm256_fmadd_ps(w.lo, _mm256_loadu_ps(x), acc.lo);
    acc.hi = _mm256_fmadd_ps(w.hi, _mm256_loadu_ps(x + 8), acc.hi);
    return acc;
}

INLINE void float_vectors(enum fmt_type type, int n_v, size_t n, const uint8_t *w,
                          const char *x, size_t x_stride, float *out, size_t out_stride)
{
    struct lanes acc[FLOAT_VECTORS];
    size_t size = float_bytes(type), i = 0;
    for (int k = 0; k < n_v; k++)
        acc[k].lo = acc[k].hi = _mm256_setzero_ps();
    for (; i + KERN_LANES <= n; i += KERN_LANES, w += KERN_LANES * size) {
        struct lanes v = {load8(type, w), load8(type, w + 8 * size)};
        for (int k = 0; k < n_v; k++)
            acc[k] = lanes_fma(v, (const float *)(const void *)(x + k * x_stride) + i,
                               acc[k]);
    }
    if (i < n) {
        uint8_t w_tail[KERN_LANES * sizeof(float)] = {0};
        memcpy(w_tail, w, (n - i) * size);
        struct lanes v = {load8(type, w_tail), load8(type, w_tail + 8 * size)};
        for (int k = 0; k < n_v; k++) {
            float x_tail[KERN_LANES] = {0};
            memcpy(x_tail, x + k * x_stride + i * sizeof(float),
                   (n - i) * sizeof(float));
            acc[k] = lanes_fma(v, x_tail, acc[k]);
        }
    }
    for (int k = 0; k < n_v; k++)
        out[k * out_stride] = lanes_sum(acc[k]);
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

enum { GROUP_REGS = KERN_GROUP / 8 };

/* 32 numbers times inv, clamped to [-127, 127] (NaN gives -127) and rounded. */
INLINE __m256i quantize32(const __m256 *x, __m256 inv)
{
    __m256i q[4];
    for (int i = 0; i < 4; i++) {
        __m256 v = _mm256_mul_ps(x[i], inv);
        v = _mm256_max_ps(v, _mm256_set1_ps(-KERN_ACT_MAX_Q));
        v = _mm256_min_ps(v, _mm256_set1_ps(KERN_ACT_MAX_Q));
        q[i] = _mm256_cvtps_epi32(v);
    }
    /* packs work in 128-bit halves: the permutation puts 4 numbers each in order */
    __m256i b = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]),
                                   _mm256_packs_epi32(q[2], q[3]));
    return _mm256_permutevar8x32_epi32(b, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* The sums of the q[j] with j % 4 < 2 and of the others, 16 bits each, in the low 4
 * bytes and again in the high 4 of each 8; those of two registers as 64-bit halves. */
INLINE __m128i pair_sums(__m256i q0, __m256i q1)
{
    const __m256i ones = _mm256_set1_epi8(1);
    __m256i a = _mm256_maddubs_epi16(ones, q0), b = _mm256_maddubs_epi16(ones, q1);
    __m128i a4 =
        _mm_add_epi16(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    __m128i b4 =
        _mm_add_epi16(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
    __m128i s = _mm_add_epi16(_mm_unpacklo_epi64(a4, b4), _mm_unpackhi_epi64(a4, b4));
    return _mm_add_epi16(s, _mm_shuffle_epi32(s, 0xb1));
}

/* The maximum is that of the bits of |x|, as integers; kern_ref.c says why. */
INLINE void quantize_group(const __m256 x[GROUP_REGS], struct kern_act *out)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i m = _mm256_setzero_si256();
    for (int i = 0; i < GROUP_REGS; i++)
        m = _mm256_max_epi32(m, _mm256_and_si256(_mm256_castps_si256(x[i]), magnitude));
    __m128i m4 =
        _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    m4 = _mm_max_epi32(m4, _mm_shuffle_epi32(m4, 0x4e));
    m4 = _mm_max_epi32(m4, _mm_shuffle_epi32(m4, 0xb1));
    if (_mm_cvtsi128_si32(m4) < KERN_ACT_MIN_BITS) {
        memset(out, 0, sizeof *out);
        return;
    }
    float max = _mm_cvtss_f32(_mm_castsi128_ps(m4));
    __m256 inv = _mm256_set1_ps(KERN_ACT_MAX_Q / max);
    __m256i q0 = quantize32(x, inv), q1 = quantize32(x + 4, inv);
    _mm256_storeu_si256((void *)out->q, q0);
    _mm256_storeu_si256((void *)(out->q + KERN_HALF), q1);
    out->d = max / KERN_ACT_MAX_Q;

    __m128i s = pair_sums(q0, q1);
    __m128i minus8 = _mm_sub_epi16(_mm_setzero_si128(), _mm_slli_epi16(s, 3));
    __m128i both = _mm_add_epi16(minus8, _mm_unpackhi_epi64(minus8, minus8));
    out->sum[0] = (int16_t)(_mm_extract_epi16(s, 0) + _mm_extract_epi16(s, 1));
    out->sum[1] = (int16_t)(_mm_extract_epi16(s, 4) + _mm_extract_epi16(s, 5));
    int32_t pairs[3] = {_mm_cvtsi128_si32(minus8), _mm_extract_epi32(minus8, 2),
                        _mm_cvtsi128_si32(both)};
    memcpy(out->minus8[0], &pairs[0], 4);
    memcpy(out->minus8[1], &pairs[1], 4);
    memcpy(out->minus8_both, &pairs[2], 4);
}

static void quantize_act(size_t n, const float *x, struct kern_act *out)
{
    for (size_t i = 0; i < n; i += KERN_GROUP, out++) {
        __m256 v[GROUP_REGS];
        for (size_t j = 0; j < GROUP_REGS; j++)
            v[j] = load_part(x, i + 8 * j, n);
        quantize_group(v, out);
    }
}

/* ---- rows that are changed in place ---- */

struct norm {
    __m256 mean, inv;
};

INLINE struct norm norm_of(size_t n, const float *x, float eps)
{
    struct lanes s = {_mm256_setzero_ps(), _mm256_setzero_ps()}, s2 = s;
    for (size_t i = 0; i < n; i += KERN_LANES) {
        s.lo = _mm256_add_ps(s.lo, load_part(x, i, n));
        s.hi = _mm256_add_ps(s.hi, load_part(x, i + 8, n));
    }
    __m256 mean = _mm256_set1_ps(lanes_sum(s) / (float)n);
    for (size_t i = 0; i < n; i += KERN_LANES) {
        __m256 a = keep_part(_mm256_sub_ps(load_part(x, i, n), mean), i, n);
        __m256 b = keep_part(_mm256_sub_ps(load_part(x, i + 8, n), mean), i + 8, n);
        s2.lo = _mm256_fmadd_ps(a, a, s2.lo);
        s2.hi = _mm256_fmadd_ps(b, b, s2.hi);
    }
    __m256 inv = _mm256_set1_ps(1 / sqrtf(lanes_sum(s2) / (float)n + eps));
    return (struct norm){mean, inv};
}

INLINE __m256 norm8(struct norm m, const float *x, const float *gain, const float *bias,
                    size_t i, size_t n)
{
    __m256 v = _mm256_mul_ps(_mm256_sub_ps(load_part(x, i, n), m.mean), m.inv);
    return _mm256_fmadd_ps(v, load_part(gain, i, n), load_part(bias, i, n));
}

static void layer_norm(size_t n, const float *x, const float *gain, const float *bias,
                       float eps, float *out)
{
    struct norm m = norm_of(n, x, eps);
    for (size_t i = 0; i < n; i += 8)
        store_part(out, i, n, norm8(m, x, gain, bias, i, n));
}

static void layer_norm_act(size_t n, const float *x, const float *gain,
                           const float *bias, float eps, struct kern_act *out)
{
    struct norm m = norm_of(n, x, eps);
    for (size_t i = 0; i < n; i += KERN_GROUP, out++) {
        __m256 v[GROUP_REGS];
        for (size_t j = 0; j < GROUP_REGS; j++)
            v[j] = keep_part(norm8(m, x, gain, bias, i + 8 * j, n), i + 8 * j, n);
        quantize_group(v, out);
    }
}

static void gelu(size_t n, float *x, const float *bias)
{
    const __m256 c1 = _mm256_set1_ps(KERN_GELU_C1), c3 = _mm256_set1_ps(KERN_GELU_C3);
    for (size_t i = 0; i < n; i += 8) {
        __m256 y = load_part(x, i, n);
        if (bias)
            y = _mm256_add_ps(y, load_part(bias, i, n));
        __m256 z = _mm256_mul_ps(y, _mm256_fmadd_ps(_mm256_mul_ps(y, y), c3, c1));
        y = _mm256_div_ps(y, _mm256_add_ps(_mm256_set1_ps(1), exp8(z)));
        store_part(x, i, n, y);
    }
}

static void add(size_t n, float *y, const float *x)
{
    for (size_t i = 0; i < n; i += 8)
        store_part(y, i, n, _mm256_add_ps(load_part(y, i, n), load_part(x, i, n)));
}

static void add_rows(size_t n, float *y, size_t n_rows, const float *x,
                     const float *rows, size_t step)
{
    enum { REGS = 4 };
    size_t i = 0;
    for (; i + 8 * REGS <= n; i += 8 * REGS) {
        __m256 sum[REGS];
        for (size_t j = 0; j < REGS; j++)
            sum[j] = _mm256_loadu_ps(y + i + 8 * j);
        for (size_t k = 0; k < n_rows; k++)
            for (size_t j = 0; j < REGS; j++)
                sum[j] = _mm256_fmadd_ps(_mm256_set1_ps(x[k]),
                                         _mm256_loadu_ps(rows + k * step + i + 8 * j),
                                         sum[j]);
        for (size_t j = 0; j < REGS; j++)
            _mm256_storeu_ps(y + i + 8 * j, sum[j]);
    }
    for (; i < n; i += 8) {
        __m256 sum = load_part(y, i, n);
        for (size_t k = 0; k < n_rows; k++)
            sum = _mm256_fmadd_ps(_mm256_set1_ps(x[k]),
                                  load_part(rows + k * step, i, n), sum);
        store_part(y, i, n, sum);
    }
}

/* On top of the specification's table. */
void kern_fill_avx2(struct kern_table *t)
{
    t->level = CPU_AVX2;
    t->dot_f32 = dot_f32;
    t->dot_f16 = dot_f16;
    t->dot_bf16 = dot_bf16;
    t->quantize_act = quantize_act;
    t->layer_norm = layer_norm;
    t->layer_norm_act = layer_norm_act;
    t->gelu = gelu;
    t->add = add;
    t->add_rows = add_rows;
    kern_fill_avx2_tile(t);
    kern_fill_avx2_attn(t);
}
