/* Owns the optimizer's step: the gradient's norm, AdamW, weights in bfloat16. */
#include "back/cuda_impl.h"

enum { THREADS = 256, WARPS = THREADS / WARP, PACK = 4 };

struct sum_shared {
    double warps[WARPS];
};

/* A thread's few squares are added in float, all else in double: a gradient of a
 * billion numbers must not lose its small ones. */
static __global__ void squares(const struct cuda_piece *pieces, const float *g,
                               double *partial)
{
    struct sum_shared &shared = block_shared<struct sum_shared>();
    struct cuda_piece piece = pieces[blockIdx.x];
    const float *x = g + piece.at;
    float sum = 0;
    for (unsigned i = threadIdx.x; i < piece.n; i += THREADS)
        sum += x[i] * x[i];
    double all = block_sum((double)sum, shared.warps);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = all;
}

static __global__ void add_squares(unsigned n, const double *partial, double *sum)
{
    struct sum_shared &shared = block_shared<struct sum_shared>();
    double mine = 0;
    for (unsigned i = threadIdx.x; i < n; i += THREADS)
        mine += partial[i];
    double all = block_sum(mine, shared.warps);
    if (threadIdx.x == 0)
        *sum = all;
}

void cuda_squares(struct cuda *d, size_t n_pieces, const struct cuda_piece *pieces,
                  const float *g, double *partial, double *sum)
{
    launch(d, "the gradient's norm", squares, dim3((unsigned)n_pieces), THREADS,
           sizeof(struct sum_shared), pieces, g, partial);
    launch(d, "the gradient's norm", add_squares, dim3(1), THREADS,
           sizeof(struct sum_shared), n_pieces, (const double *)partial, sum);
}

static __device__ __forceinline__ void update(const struct grad_adamw &o, float g,
                                              float &w, float &m, float &v)
{
    float a = g * o.grad_scale;
    m = m * o.beta1 + a * (1 - o.beta1);
    v = v * o.beta2 + a * a * (1 - o.beta2);
    w = w * o.keep - o.rate * (m / (sqrtf(v) * o.inv_root + o.eps));
}

template <int V>
static __device__ __forceinline__ void update_pack(const struct grad_adamw &o,
                                                   float *g_, float *w_, float *m_,
                                                   float *v_, bf16 *h_)
{
    float g[V], w[V], m[V], v[V];
    load<V>(g_, g);
    load<V>(w_, w);
    load<V>(m_, m);
    load<V>(v_, v);
#pragma unroll
    for (int k = 0; k < V; k++) {
        update(o, g[k], w[k], m[k], v[k]);
        g[k] = 0;
    }
    store<V>(g_, g);
    store<V>(w_, w);
    store<V>(m_, m);
    store<V>(v_, v);
    if (h_)
        store<V>(h_, w);
}

static __global__ void adamw(const struct cuda_piece *pieces, struct grad_adamw matrix,
                             struct grad_adamw vector, float *g, float *w, float *m,
                             float *v, bf16 *h)
{
    struct cuda_piece piece = pieces[blockIdx.x];
    const struct grad_adamw &o = piece.matrix ? matrix : vector;
    for (unsigned i = threadIdx.x * PACK; i < piece.n; i += THREADS * PACK) {
        size_t at = piece.at + i;
        if (i + PACK <= piece.n)
            update_pack<PACK>(o, g + at, w + at, m + at, v + at, h ? h + at : NULL);
        else
            for (unsigned k = i; k < piece.n; k++, at++)
                update_pack<1>(o, g + at, w + at, m + at, v + at, h ? h + at : NULL);
    }
}

void cuda_adamw(struct cuda *d, size_t n_pieces, const struct cuda_piece *pieces,
                const struct grad_adamw *matrix, const struct grad_adamw *vector,
                float *g, float *w, float *m, float *v, void *h)
{
    launch(d, "AdamW", adamw, dim3((unsigned)n_pieces), THREADS, 0, pieces, *matrix,
           *vector, g, w, m, v, (bf16 *)h);
}

static __global__ void narrow(size_t n, const float *x, bf16 *y)
{
    size_t i = ((size_t)blockIdx.x * THREADS + threadIdx.x) * PACK;
    if (i + PACK <= n) {
        float a[PACK];
        load<PACK>(x + i, a);
        store<PACK>(y + i, a);
    } else {
        for (; i < n; i++)
            y[i] = __float2bfloat16_rn(x[i]);
    }
}

void cuda_narrow(struct cuda *d, size_t n, const float *x, void *y)
{
    if (d->type == GEMM_BF16)
        launch(d, "weights in bfloat16", narrow, dim3(blocks_for(n, THREADS * PACK)),
               THREADS, 0, n, x, (bf16 *)y);
}
