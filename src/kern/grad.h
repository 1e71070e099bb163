/* Row kernels of training: what a step does besides its matrix products.
 *
 * One body (grad_body.h), compiled for what every processor of the family has and for
 * AVX2.  Sums run in 8 lanes that a fixed tree reduces, products and sums are rounded
 * one by one, and exp is our own, so that both give the same bits.  Nothing needs
 * alignment beyond its C type; n may be any number, 0 included. */
#ifndef RUNT_GRAD_H
#define RUNT_GRAD_H

#include <stddef.h>
#include <stdint.h>

/* Loshchilov and Hutter 2019, algorithm 2, with the step size as PyTorch has it:
 * w -= lr decay w; w -= lr m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps). */
struct grad_adamw {
    float beta1, beta2, eps;
    float keep;       /* 1 - lr * decay */
    float rate;       /* lr / (1 - beta1^t) */
    float inv_root;   /* 1 / sqrt(1 - beta2^t) */
    float grad_scale; /* of clipping */
};

struct grad_kern {
    /* y = (x - mean) / sqrt(var + eps) * gain + bias; stat = {mean, 1 / sqrt(...)}. */
    void (*norm)(size_t n, const float *x, const float *gain, const float *bias,
                 float eps, float *y, float stat[2]);
    /* The same y again from x and stat. */
    void (*norm_again)(size_t n, const float *x, const float *gain, const float *bias,
                       const float stat[2], float *y);
    /* dx += the gradient with respect to x. */
    void (*norm_back)(size_t n, const float *x, const float *gain, const float stat[2],
                      const float *dy, float *dx);
    /* dgain += dy * (x - mean) * inv, dbias += dy; n columns of one row; either may be
     * NULL. */
    void (*norm_back_params)(size_t n, const float *x, const float stat[2],
                             const float *dy, float *dgain, float *dbias);

    /* The tanh form, y = x / (1 + exp(-2u)) (kern.h); dy *= dGELU/dx. */
    void (*gelu)(size_t n, const float *x, float *y);
    void (*gelu_back)(size_t n, const float *x, float *dy);

    float (*max)(size_t n, const float *x); /* n >= 1; a NaN may be passed over */
    /* x = exp(scale * x - shift); the sum of them. */
    float (*exp_sum)(size_t n, float *x, float scale, float shift);
    /* ds = p * (dp - d) * scale, over dp. */
    void (*softmax_back)(size_t n, const float *p, float *dp, float d, float scale);

    void (*add)(size_t n, float *y, const float *x); /* y += x */
    void (*scale)(size_t n, float *x, float a);      /* x *= a */
    float (*dot)(size_t n, const float *x, const float *y);
    double (*sum_squares)(size_t n, const float *x);

    /* x[i] = 0 for a share of about `share` of the numbers, else x[i] / (1 - share);
     * which ones is a hash of key and first + i. */
    void (*dropout)(size_t n, float *x, uint32_t key, uint32_t first, float share);

    void (*adamw)(size_t n, const struct grad_adamw *o, const float *g, float *w,
                  float *m, float *v);
    void (*to_bf16)(size_t n, const float *x, uint16_t *y); /* nearest, ties to even */
    void (*from_bf16)(size_t n, const uint16_t *x, float *y);
};

/* The table that this processor and RUNT_CPU (base/cpu.h) want. */
const struct grad_kern *grad_kern_get(void);
/* For tests: the plain one, and AVX2's or NULL. */
extern const struct grad_kern grad_kern_plain;
const struct grad_kern *grad_kern_avx2(void);

#endif
