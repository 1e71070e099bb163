/* Row kernels: the arithmetic of one thread.
 *
 * The scalar version (kern_ref.c) is the specification; every instruction set gives the
 * same bits.  The specification fixes the order of accumulation:
 *
 *  - Sums of floats run in 16 virtual lanes: element i goes to lane i % 16 with one
 *    fused multiply-add (or add); a last group that is not full is padded with +0
 *    operands, so that every lane sees every group.  Lanes start at +0.
 *  - The 16 lanes are reduced by a fixed tree: lane j += lane j + 8 (j < 8), then
 *    + 4, + 2, + 1.  A maximum may be taken in any order.
 *  - Block formats are kept in tiles of 16 rows (kern_tile.h); the 16 lanes are the
 * rows there, and in attention 16 neighbouring positions (kern_attn.h).
 *  - exp, GELU and softmax are our own, from the same operations in the same order.
 *  - Nothing is flushed to zero and every rounding is to nearest even: the caller
 *    leaves the floating-point environment as C starts it.
 *
 * Where a result is NaN (an infinite scale, an overflow followed by inf - inf) every
 * level gives NaN, but not one NaN: IEEE 754 leaves sign and payload open, and which
 * operand's NaN an x86 fma hands on depends on the encoding that the compiler picks.
 *
 * No kernel fails or reads the environment, and none has undefined behaviour whatever
 * the numbers are: infinities and NaN in weights or vectors reach the output as such.
 */
#ifndef RUNT_KERN_H
#define RUNT_KERN_H

#include "base/cpu.h"
#include "fmt/fmt.h"
#include "kern/kern_attn.h"
#include "kern/kern_tile.h"

#include <stddef.h>
#include <stdint.h>

/* One weight row of n numbers against n_x vectors: out[k * out_stride] = w . x_k for
 * k < n_x.  Vector k starts at (const char *)x + k * x_stride (bytes) and is float[n].
 * The result of one vector does not depend on n_x.  Nothing needs alignment beyond that
 * of its C type; weight rows need none. */
typedef void kern_dot_fn(size_t n, const void *w, const void *x, size_t x_stride,
                         size_t n_x, float *out, size_t out_stride);

struct kern_table {
    enum cpu_level level;
    kern_dot_fn *dot_f32, *dot_f16, *dot_bf16;
    kern_tile_fn *tile[KERN_N_TILES]; /* by enum kern_tile */
    struct kern_attn attn[KERN_N_KV]; /* by enum kern_kv */

    /* x[n] -> out[kern_n_groups(n)]; the last group is filled up with +0.  A NaN or an
     * infinity makes the d of its group one too. */
    void (*quantize_act)(size_t n, const float *x, struct kern_act *out);
    /* layer_norm and then quantize_act, without the floats in between. */
    void (*layer_norm_act)(size_t n, const float *x, const float *gain,
                           const float *bias, float eps, struct kern_act *out);

    /* out = (x - mean) / sqrt(var + eps) * gain + bias, var biased, two passes, n >= 1;
     * x and out may be the same.  mean = sum(x) / n; d = x - mean; var = sum(d * d) / n
     * with one fma a term; inv = 1 / sqrt(var + eps); out = fma(d * inv, gain, bias).
     */
    void (*layer_norm)(size_t n, const float *x, const float *gain, const float *bias,
                       float eps, float *out);

    /* x = GELU(x + bias), the tanh form (Hendrycks and Gimpel 2016, gelu_new): written
     * as y / (1 + exp(-2 u)), u = sqrt(2/pi) (y + 0.044715 y^3), where -2 u is computed
     * as y * fma(y * y, C3, C1).  bias may be NULL.  Measured error against the exact
     * value: below 3 ulp for y >= -1, below 2^-24 for y < -1.  -inf gives NaN. */
    void (*gelu)(size_t n, float *x, const float *bias);

    void (*add)(size_t n, float *y, const float *x); /* y += x */

    /* y[i] = fma(x[k], rows[k * step + i], y[i]) for k = 0, 1, ... n_rows - 1. */
    void (*add_rows)(size_t n, float *y, size_t n_rows, const float *x,
                     const float *rows, size_t step);
};

/* The table for a level, filled for what that level lacks from the specification (or
 * from a lower level, which is the same); NULL when this build or this processor does
 * not have the level. */
const struct kern_table *kern_table_for(enum cpu_level level);

/* The best table that the processor and RUNT_CPU allow, decided on the first call;
 * later calls, from any thread, answer the same. */
int kern_table_get(const struct kern_table **out, struct runt_err *err);

/* The dot product for a float format, NULL for the others. */
kern_dot_fn *kern_dot_for(const struct kern_table *t, enum fmt_type type);

/* e^x as the specification computes it: n = x / ln 2 rounded to nearest even, r = x - n
 * ln 2 in two fma, a polynomial of degree 6 in r by Horner's rule, times 2^n in two
 * factors, so that results fade through the denormals to 0 (below -103.97) and overflow
 * to +inf (above 88.72).  NaN stays NaN.  Measured against double precision over every
 * float in [-87, 88]: at most 0.892 ulp. */
float kern_ref_expf(float x);

#endif
