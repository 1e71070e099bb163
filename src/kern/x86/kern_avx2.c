/* The kernels in AVX2, FMA and F16C.  The 16 lanes of the specification are two
 * registers (struct lanes); a block fills one, even blocks .lo and odd blocks .hi.
 *
 * Dot products come as one function for each format, made from an inline body whose
 * format and number of vectors are constants.  Several vectors at a time share the work
 * of unpacking a weight; no vector's own sequence of operations changes with that.
 *
 * Products of bytes: the only instruction multiplies unsigned by signed bytes and adds
 * pairs with saturation at 16 bits.  |w| * (x with the sign of w) stays at or below
 * 2 * 128 * 127 = 32512, which does not saturate. */
#include "kern/kern_impl.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

struct lanes {
    __m256 lo, hi; /* lanes 0 to 7, 8 to 15 */
};

INLINE float lanes_sum(struct lanes v)
{
    __m256 a8 = _mm256_add_ps(v.lo, v.hi);
    __m128 a4 = _mm_add_ps(_mm256_castps256_ps128(a8), _mm256_extractf128_ps(a8, 1));
    __m128 a2 = _mm_add_ps(a4, _mm_movehl_ps(a4, a4));
    return _mm_cvtss_f32(_mm_add_ss(a2, _mm_movehdup_ps(a2)));
}

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

/* ---- rows of blocks ---- */

enum { BLOCK_VECTORS = 8 };

struct block {
    __m256i u, q; /* unsigned factors; signed weights, where u is their magnitude */
    __m256 scale, min;
};

INLINE size_t block_bytes(enum fmt_type type)
{
    return type == FMT_Q8_0   ? KERN_Q8_0_BYTES
           : type == FMT_Q4_0 ? KERN_Q4_0_BYTES
                              : KERN_Q4_1_BYTES;
}

INLINE __m256 broadcast_f16(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return _mm256_cvtph_ps(_mm_set1_epi16((short)h));
}

/* 16 bytes twice, the second copy moved down by a nibble: the order of the block. */
INLINE __m256i nibbles(const uint8_t *p)
{
    __m256i twice = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)p));
    twice = _mm256_srlv_epi64(twice, _mm256_setr_epi64x(0, 0, 4, 4));
    return _mm256_and_si256(twice, _mm256_set1_epi8(15));
}

INLINE struct block unpack(enum fmt_type type, const uint8_t *p)
{
    struct block b = {.scale = broadcast_f16(p)};
    if (type == FMT_Q8_0) {
        b.q = _mm256_loadu_si256((const void *)(p + 2));
        b.u = _mm256_abs_epi8(b.q);
    } else if (type == FMT_Q4_0) {
        b.u = nibbles(p + 2);
    } else {
        b.min = broadcast_f16(p + 2);
        b.u = nibbles(p + 4);
    }
    return b;
}

/* Sums of 4 neighbouring products from those of 2, as floats. */
INLINE __m256 group_sums(__m256i pairs)
{
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

/* One block of the row against the same block of n_v vectors.  Q4_0 has two exact ways
 * to take 8 off its weights: for one vector from the products, for several once and for
 * all from the weight, which then needs its sign moved. */
INLINE void block_step(enum fmt_type type, int n_v, const uint8_t *w, const char *x,
                       size_t x_stride, __m256 *acc)
{
    const __m256i eight = _mm256_set1_epi8(8), one = _mm256_set1_epi8(1);
    bool move_sign = type == FMT_Q8_0 || (type == FMT_Q4_0 && n_v > 1);
    struct block b = unpack(type, w);
    if (type == FMT_Q4_0 && move_sign) {
        b.q = _mm256_sub_epi8(b.u, eight);
        b.u = _mm256_abs_epi8(b.q);
    }
    for (int k = 0; k < n_v; k++) {
        const struct kern_act *a = (const void *)(x + k * x_stride);
        __m256i q = _mm256_loadu_si256((const void *)a->q);
        __m256 d = _mm256_broadcast_ss(&a->d);
        __m256i pairs =
            _mm256_maddubs_epi16(b.u, move_sign ? _mm256_sign_epi8(q, b.q) : q);
        if (type == FMT_Q4_0 && !move_sign)
            pairs = _mm256_sub_epi16(pairs, _mm256_maddubs_epi16(eight, q));
        acc[k] = _mm256_fmadd_ps(_mm256_mul_ps(b.scale, d), group_sums(pairs), acc[k]);
        if (type == FMT_Q4_1) {
            pairs = _mm256_maddubs_epi16(one, q);
            acc[k] =
                _mm256_fmadd_ps(_mm256_mul_ps(b.min, d), group_sums(pairs), acc[k]);
        }
    }
}

/* Few vectors: even and odd blocks in turn, two chains of fma for each. */
INLINE void block_few(enum fmt_type type, int n_v, size_t n_blocks, const uint8_t *w,
                      const char *x, size_t x_stride, float *out, size_t out_stride)
{
    __m256 lo[BLOCK_VECTORS / 2], hi[BLOCK_VECTORS / 2];
    size_t bytes = block_bytes(type), b = 0;
    for (int k = 0; k < n_v; k++)
        lo[k] = hi[k] = _mm256_setzero_ps();
    for (; b + 2 <= n_blocks;
         b += 2, w += 2 * bytes, x += 2 * sizeof(struct kern_act)) {
        block_step(type, n_v, w, x, x_stride, lo);
        block_step(type, n_v, w + bytes, x + sizeof(struct kern_act), x_stride, hi);
    }
    if (b < n_blocks)
        block_step(type, n_v, w, x, x_stride, lo);
    for (int k = 0; k < n_v; k++)
        out[k * out_stride] = lanes_sum((struct lanes){lo[k], hi[k]});
}

/* Many vectors: all even blocks, then all odd ones, because 16 accumulators would not
 * leave a register free. */
INLINE void block_many(enum fmt_type type, size_t n_blocks, const uint8_t *w,
                       const char *x, size_t x_stride, float *out, size_t out_stride)
{
    __m256 acc[2][BLOCK_VECTORS];
    for (size_t odd = 0; odd < 2; odd++) {
        __m256 a[BLOCK_VECTORS];
        for (int k = 0; k < BLOCK_VECTORS; k++)
            a[k] = _mm256_setzero_ps();
        for (size_t b = odd; b < n_blocks; b += 2)
            block_step(type, BLOCK_VECTORS, w + b * block_bytes(type),
                       x + b * sizeof(struct kern_act), x_stride, a);
        for (int k = 0; k < BLOCK_VECTORS; k++)
            acc[odd][k] = a[k];
    }
    for (int k = 0; k < BLOCK_VECTORS; k++)
        out[k * out_stride] = lanes_sum((struct lanes){acc[0][k], acc[1][k]});
}

INLINE void block_row(enum fmt_type type, size_t n, const void *w, const char *x,
                      size_t x_stride, size_t n_x, float *out, size_t out_stride)
{
    size_t n_blocks = n / KERN_BLOCK, k = 0;
    for (; k + BLOCK_VECTORS <= n_x; k += BLOCK_VECTORS)
        block_many(type, n_blocks, w, x + k * x_stride, x_stride, out + k * out_stride,
                   out_stride);
    for (; k + BLOCK_VECTORS / 2 <= n_x; k += BLOCK_VECTORS / 2)
        block_few(type, BLOCK_VECTORS / 2, n_blocks, w, x + k * x_stride, x_stride,
                  out + k * out_stride, out_stride);
    for (; k < n_x; k++)
        block_few(type, 1, n_blocks, w, x + k * x_stride, 0, out + k * out_stride, 0);
}

static void dot_q8_0(size_t n, const void *w, const void *x, size_t x_stride,
                     size_t n_x, float *out, size_t out_stride)
{
    block_row(FMT_Q8_0, n, w, x, x_stride, n_x, out, out_stride);
}

static void dot_q4_0(size_t n, const void *w, const void *x, size_t x_stride,
                     size_t n_x, float *out, size_t out_stride)
{
    block_row(FMT_Q4_0, n, w, x, x_stride, n_x, out, out_stride);
}

static void dot_q4_1(size_t n, const void *w, const void *x, size_t x_stride,
                     size_t n_x, float *out, size_t out_stride)
{
    block_row(FMT_Q4_1, n, w, x, x_stride, n_x, out, out_stride);
}

/* 8 numbers times inv, clamped to [-127, 127] (NaN gives -127) and rounded. */
INLINE __m256i quantize8(const float *x, __m256 inv)
{
    __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x), inv);
    v = _mm256_max_ps(v, _mm256_set1_ps(-KERN_ACT_MAX_Q));
    v = _mm256_min_ps(v, _mm256_set1_ps(KERN_ACT_MAX_Q));
    return _mm256_cvtps_epi32(v);
}

INLINE __m256i abs_bits(const float *x)
{
    __m256i v = _mm256_loadu_si256((const void *)x);
    return _mm256_and_si256(v, _mm256_set1_epi32(0x7fffffff));
}

static void quantize_act(size_t n, const float *x, struct kern_act *out)
{
    for (; n >= KERN_ACT_LEN; n -= KERN_ACT_LEN, x += KERN_ACT_LEN, out++) {
        __m256i m8 =
            _mm256_max_epi32(_mm256_max_epi32(abs_bits(x), abs_bits(x + 8)),
                             _mm256_max_epi32(abs_bits(x + 16), abs_bits(x + 24)));
        __m128i m =
            _mm_max_epi32(_mm256_castsi256_si128(m8), _mm256_extracti128_si256(m8, 1));
        m = _mm_max_epi32(m, _mm_unpackhi_epi64(m, m));
        m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 1));
        if (_mm_cvtsi128_si32(m) < KERN_ACT_MIN_BITS) {
            memset(out, 0, sizeof *out);
            continue;
        }
        float max = _mm_cvtss_f32(_mm_castsi128_ps(m));
        __m256 inv = _mm256_set1_ps(KERN_ACT_MAX_Q / max);
        __m256i a = _mm256_packs_epi32(quantize8(x, inv), quantize8(x + 8, inv));
        __m256i b = _mm256_packs_epi32(quantize8(x + 16, inv), quantize8(x + 24, inv));
        /* packs works inside 128-bit halves: put the groups of 4 back in order */
        __m256i q = _mm256_permutevar8x32_epi32(
            _mm256_packs_epi16(a, b), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        out->d = max / KERN_ACT_MAX_Q;
        _mm256_storeu_si256((void *)out->q, q);
    }
}

/* ---- rows that are changed in place ---- */

/* The first n of 8 elements, n from 0 to 8. */
INLINE __m256i first(size_t n)
{
    static const int32_t table[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const void *)(table + 8 - n));
}

/* The elements i to i + 7 that are below n; +0 for the others. */
INLINE __m256 load_part(const float *x, size_t i, size_t n)
{
    if (i + 8 <= n)
        return _mm256_loadu_ps(x + i);
    return i < n ? _mm256_maskload_ps(x + i, first(n - i)) : _mm256_setzero_ps();
}

INLINE void store_part(float *x, size_t i, size_t n, __m256 v)
{
    if (i + 8 <= n)
        _mm256_storeu_ps(x + i, v);
    else if (i < n)
        _mm256_maskstore_ps(x + i, first(n - i), v);
}

/* v where the element i + its index is below n, +0 for the others. */
INLINE __m256 keep_part(__m256 v, size_t i, size_t n)
{
    if (i + 8 <= n)
        return v;
    return i < n ? _mm256_and_ps(v, _mm256_castsi256_ps(first(n - i)))
                 : _mm256_setzero_ps();
}

static void layer_norm(size_t n, const float *x, const float *gain, const float *bias,
                       float eps, float *out)
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
    for (size_t i = 0; i < n; i += 8) {
        __m256 v = _mm256_mul_ps(_mm256_sub_ps(load_part(x, i, n), mean), inv);
        v = _mm256_fmadd_ps(v, load_part(gain, i, n), load_part(bias, i, n));
        store_part(out, i, n, v);
    }
}

/* kern_ref_expf, step for step. */
INLINE __m256 exp8(__m256 x)
{
    const __m256 one = _mm256_set1_ps(1), round = _mm256_set1_ps(KERN_ROUND);
    x = _mm256_max_ps(_mm256_set1_ps(KERN_EXP_LO), x);
    x = _mm256_min_ps(_mm256_set1_ps(KERN_EXP_HI), x);
    __m256 t = _mm256_fmadd_ps(x, _mm256_set1_ps(KERN_LOG2E), round);
    __m256 n = _mm256_sub_ps(t, round);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-KERN_LN2_HI), x);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(-KERN_LN2_LO), r);
    __m256 p = _mm256_set1_ps(KERN_EXP_C6);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(KERN_EXP_C5));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(KERN_EXP_C4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(KERN_EXP_C3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(KERN_EXP_C2));
    p = _mm256_fmadd_ps(p, r, one);
    p = _mm256_fmadd_ps(p, r, one);
    __m256i u = _mm256_sub_epi32(_mm256_castps_si256(t),
                                 _mm256_set1_epi32(KERN_ROUND_BITS - 256));
    __m256i half = _mm256_srli_epi32(u, 1), e1 = _mm256_set1_epi32(1);
    __m256i f1 = _mm256_slli_epi32(_mm256_sub_epi32(half, e1), 23);
    __m256i f2 = _mm256_slli_epi32(_mm256_sub_epi32(_mm256_sub_epi32(u, half), e1), 23);
    p = _mm256_mul_ps(p, _mm256_castsi256_ps(f1));
    return _mm256_mul_ps(p, _mm256_castsi256_ps(f2));
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

static void softmax(size_t n, float *x, float scale)
{
    const __m256 s = _mm256_set1_ps(scale);
    __m256 m8 = _mm256_set1_ps(-INFINITY);
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        m8 = _mm256_max_ps(m8, _mm256_mul_ps(s, _mm256_loadu_ps(x + i)));
    __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
    m4 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    float max = _mm_cvtss_f32(_mm_max_ss(m4, _mm_movehdup_ps(m4)));
    for (; i < n; i++)
        max = scale * x[i] > max ? scale * x[i] : max;

    const __m256 m = _mm256_set1_ps(max);
    struct lanes sum = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (i = 0; i < n; i += KERN_LANES) {
        __m256 a = exp8(_mm256_sub_ps(_mm256_mul_ps(s, load_part(x, i, n)), m));
        __m256 b = exp8(_mm256_sub_ps(_mm256_mul_ps(s, load_part(x, i + 8, n)), m));
        store_part(x, i, n, a);
        store_part(x, i + 8, n, b);
        sum.lo = _mm256_add_ps(sum.lo, keep_part(a, i, n));
        sum.hi = _mm256_add_ps(sum.hi, keep_part(b, i + 8, n));
    }
    const __m256 inv = _mm256_set1_ps(1 / lanes_sum(sum));
    for (i = 0; i < n; i += 8)
        store_part(x, i, n, _mm256_mul_ps(load_part(x, i, n), inv));
}

static void add(size_t n, float *y, const float *x)
{
    for (size_t i = 0; i < n; i += 8)
        store_part(y, i, n, _mm256_add_ps(load_part(y, i, n), load_part(x, i, n)));
}

static void axpy(size_t n, float *y, float a, const float *x)
{
    const __m256 a8 = _mm256_set1_ps(a);
    for (size_t i = 0; i < n; i += 8)
        store_part(y, i, n,
                   _mm256_fmadd_ps(a8, load_part(x, i, n), load_part(y, i, n)));
}

static void decode_f16(size_t n, const uint16_t *h, float *out)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i,
                         _mm256_cvtph_ps(_mm_loadu_si128((const void *)(h + i))));
    if (i < n) {
        uint16_t tail[8] = {0};
        memcpy(tail, h + i, (n - i) * sizeof *h);
        store_part(out, i, n, _mm256_cvtph_ps(_mm_loadu_si128((const void *)tail)));
    }
}

void kern_fill_avx2(struct kern_table *t)
{
    *t = (struct kern_table){
        .level = CPU_AVX2,
        .dot_f32 = dot_f32,
        .dot_f16 = dot_f16,
        .dot_bf16 = dot_bf16,
        .dot_q8_0 = dot_q8_0,
        .dot_q4_0 = dot_q4_0,
        .dot_q4_1 = dot_q4_1,
        .quantize_act = quantize_act,
        .layer_norm = layer_norm,
        .gelu = gelu,
        .softmax = softmax,
        .add = add,
        .axpy = axpy,
        .decode_f16 = decode_f16,
    };
}
