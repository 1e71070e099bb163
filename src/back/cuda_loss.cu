/* Owns what is done to logits: the loss with its gradient, and scores in double.
 *
 * A row belongs to a block.  Its logits are read once for the largest and the sum of
 * exponentials together: a thread keeps both of what it has seen, and rescales its sum
 * when the largest grows. */
#include "back/cuda_impl.h"

enum { THREADS = 512, WARPS = THREADS / WARP, PACK = 4 };

/* Some logits: their largest, and the sum of exp(x - largest). */
template <typename X> struct seen {
    float most;
    X sum;
};

static __device__ __forceinline__ float exp_of(float x)
{
    return expf(x);
}

static __device__ __forceinline__ double exp_of(double x)
{
    return exp(x);
}

/* Neither has seen only -inf unless both are empty, which -FLT_MAX stands for. */
static constexpr float NONE = -3.402823466e38f;

template <typename X>
static __device__ __forceinline__ struct seen<X> both(struct seen<X> a,
                                                      struct seen<X> b) {
    struct seen<X> r;
    r.most = a.most > b.most ? a.most : b.most;
    r.sum =
        a.sum * exp_of((X)a.most - (X)r.most) + b.sum * exp_of((X)b.most - (X)r.most);
    return r;
}

template <typename X>
static __device__ __forceinline__ void see(struct seen<X> &s, float x)
{
    if (x > s.most) {
        s.sum = s.sum * exp_of((X)s.most - (X)x) + 1;
        s.most = x;
    } else {
        s.sum += exp_of((X)x - (X)s.most);
    }
}

/* All of a row's n logits, thread by thread, lane by lane, warp by warp: the same in
 * every thread. */
template <typename X>
static __device__ __forceinline__ struct seen<X>
see_row(unsigned n, const float *row, struct seen<X> (&warps)[WARPS]) {
    struct seen<X> s = {
        NONE, 0
    };
    for (unsigned i = threadIdx.x * PACK; i < n; i += THREADS * PACK) {
        if (i + PACK <= n) {
            float x[PACK];
            load<PACK>(row + i, x);
#pragma unroll
            for (int k = 0; k < PACK; k++)
                see(s, x[k]);
        } else {
            for (unsigned k = i; k < n; k++)
                see(s, row[k]);
        }
    }
#pragma unroll
    for (int other = WARP / 2; other; other /= 2) {
        struct seen<X> o = {
            __shfl_xor_sync(ALL_LANES, s.most, other),
                __shfl_xor_sync(ALL_LANES, s.sum, other)
        };
        s = threadIdx.x & other ? both(o, s) : both(s, o);
    }
    __syncthreads();
    if (threadIdx.x % WARP == 0)
        warps[threadIdx.x / WARP] = s;
    __syncthreads();
    s = warps[0];
    for (int w = 1; w < WARPS; w++)
        s = both(s, warps[w]);
    return s;
}

/* ---- training ---- */

struct loss_shared {
    struct seen<float> warps[WARPS];
};

template <typename T>
static __global__ void loss(unsigned n, size_t step, const float *logits,
                            const int32_t *targets, float weight, T *dlogits,
                            double *losses)
{
    struct loss_shared &shared = block_shared<struct loss_shared>();
    size_t row = blockIdx.x;
    const float *x = logits + row * step;
    int target = targets[row];
    struct seen<float> s = {
        0, 1
    };
    float of_target = 0;
    if (target >= 0) { /* all threads of a block agree on it */
        s = see_row(n, x, shared.warps);
        of_target = x[target];
    }
    if (threadIdx.x == 0)
        losses[row] =
            target < 0 ? 0 : log((double)s.sum) + (double)s.most - (double)of_target;
    if (!dlogits)
        return;
    float scale = target < 0 ? 0 : weight / s.sum;
    __syncthreads(); /* dlogits may be logits: all have read of_target */
    for (unsigned i = threadIdx.x * PACK; i < n; i += THREADS * PACK) {
        float g[PACK];
#pragma unroll
        for (int k = 0; k < PACK; k++) {
            bool is = i + k < n;
            float p = target >= 0 && is ? expf(x[i + k] - s.most) * scale : 0;
            g[k] = (int)(i + k) == target ? p - weight : p;
        }
        if (i + PACK <= n)
            store<PACK>(dlogits + row * step + i, g);
        else
            for (unsigned k = 0; i + k < n; k++)
                dlogits[row * step + i + k] = from_float<T>(g[k]);
    }
}

void cuda_loss(struct cuda *d, size_t n_rows, size_t n, size_t step,
               const float *logits, const int32_t *targets, float weight, void *dlogits,
               double *losses)
{
    by_type(d, n, [&](auto number, auto) {
        typedef decltype(number) T;
        launch(d, "the loss", loss<T>, dim3((unsigned)n_rows), THREADS,
               sizeof(struct loss_shared), n, step, logits, targets, weight,
               (T *)dlogits, losses);
    });
}

/* ---- evaluation ---- */

/* The largest logit and where it is, the first of equals. */
struct top {
    float x;
    unsigned at;
};

static __device__ __forceinline__ struct top higher(struct top a, struct top b)
{
    return b.x > a.x || (b.x == a.x && b.at < a.at) ? b : a;
}

struct score_shared {
    struct seen<double> warps[WARPS];
    struct top tops[WARPS];
    double sums[WARPS];
};

static __device__ __forceinline__ unsigned likeliest(unsigned n, const float *row,
                                                     struct top (&warps)[WARPS])
{
    struct top t = {row[0], 0};
    for (unsigned i = threadIdx.x; i < n; i += THREADS)
        t = higher(t, {row[i], i});
#pragma unroll
    for (int other = WARP / 2; other; other /= 2) {
        struct top o = {__shfl_xor_sync(ALL_LANES, t.x, other),
                        __shfl_xor_sync(ALL_LANES, t.at, other)};
        t = higher(t, o);
    }
    __syncthreads();
    if (threadIdx.x % WARP == 0)
        warps[threadIdx.x / WARP] = t;
    __syncthreads();
    t = warps[0];
    for (int w = 1; w < WARPS; w++)
        t = higher(t, warps[w]);
    return t.at;
}

static __global__ void score(unsigned n, size_t step, const float *logits,
                             const float *base, const int32_t *targets,
                             struct cuda_score *scores)
{
    struct score_shared &shared = block_shared<struct score_shared>();
    size_t row = blockIdx.x;
    const float *l = logits + row * step, *b = base ? base + row * step : NULL;
    int target = targets[row];
    struct cuda_score out = {};
    struct seen<double> s = see_row(n, l, shared.warps);
    double lse = log(s.sum) + (double)s.most;
    out.best = (int32_t)likeliest(n, l, shared.tops);
    out.nll = target < 0 ? 0 : lse - (double)l[target];
    if (b) {
        s = see_row(n, b, shared.warps);
        double base_lse = log(s.sum) + (double)s.most, kl = 0;
        out.base_best = (int32_t)likeliest(n, b, shared.tops);
        out.base_nll = target < 0 ? 0 : base_lse - (double)b[target];
        for (unsigned i = threadIdx.x; i < n; i += THREADS) {
            double lp = (double)b[i] - base_lse, lq = (double)l[i] - lse;
            kl += exp(lp) * (lp - lq);
        }
        out.kl = block_sum(kl, shared.sums);
    }
    if (threadIdx.x == 0)
        scores[row] = out;
}

void cuda_score(struct cuda *d, size_t n_rows, size_t n, size_t step,
                const float *logits, const float *base, const int32_t *targets,
                struct cuda_score *scores)
{
    launch(d, "scores", score, dim3((unsigned)n_rows), THREADS,
           sizeof(struct score_shared), n, step, logits, base, targets, scores);
}
