/* What the files of the CUDA backend share: the device, launches, numbers in packs,
 * sums over a warp or a block, dropout.
 *
 * All of it is C++ that a host compiler takes as well: tests compile these files
 * against an emulation of CUDA's headers (tests/emu).  So kernels are launched by
 * cudaLaunchKernelEx, not by <<< >>>, and shared memory is always block_shared(). */
#ifndef RUNT_CUDA_IMPL_H
#define RUNT_CUDA_IMPL_H

#include "back/cuda.h"
#include "back/cuda_blas.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <math.h>

typedef __nv_bfloat16 bf16;

enum { N_MARKS = 8192 };

struct cuda {
    enum gemm_type type;
    const struct cuda_blas *blas;
    cublasHandle_t handle;
    cudaStream_t stream;
    char name[256], failed[256]; /* failed: empty while all is well */
    cudaEvent_t *events;         /* [N_MARKS], made as they are needed; or NULL */
    int *parts;
    size_t n_events, n_marks;
};

/* Keep the first thing that went wrong. */
void cuda_note(struct cuda *d, const char *what, const char *why);
static inline void cuda_check(struct cuda *d, const char *what, cudaError_t e)
{
    if (e != cudaSuccess)
        cuda_note(d, what, cudaGetErrorString(e));
}

/* ---- launches ---- */

/* A kernel's shared memory: all of it in one struct of its own. */
template <typename S> static __device__ __forceinline__ S &block_shared()
{
    extern __shared__ __align__(128) unsigned char block_memory[];
    return *reinterpret_cast<S *>(block_memory);
}

enum { DEFAULT_SHARED = 48 << 10 }; /* more has to be asked for */

/* Nothing where there is nothing to do. */
template <typename... P, typename... A>
static void launch(struct cuda *d, const char *what, void (*kernel)(P...), dim3 grid,
                   unsigned block, size_t shared, A... args)
{
    if (*d->failed || !grid.x || !grid.y)
        return;
    if (shared > DEFAULT_SHARED)
        cuda_check(d, what,
                   cudaFuncSetAttribute((const void *)kernel,
                                        cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        (int)shared));
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(block);
    config.dynamicSmemBytes = shared;
    config.stream = d->stream;
    if (!*d->failed)
        cuda_check(d, what,
                   cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...));
}

static inline unsigned blocks_for(size_t n, size_t each)
{
    return (unsigned)((n + each - 1) / each);
}

/* Calls f with a number of the acts' type and the length of packs, both known when
 * compiled: rows of n numbers go by 4 where they can. */
template <int V> struct pack_of {
    static constexpr int v = V;
};
template <typename F> static void by_type(const struct cuda *d, size_t n, F f)
{
    bool wide = n % 4 == 0;
    if (d->type == GEMM_BF16)
        wide ? f(bf16(), pack_of<4>()) : f(bf16(), pack_of<1>());
    else
        wide ? f(0.0f, pack_of<4>()) : f(0.0f, pack_of<1>());
}

/* ---- numbers ---- */

static __device__ __forceinline__ float to_float(float x)
{
    return x;
}

static __device__ __forceinline__ float to_float(bf16 x)
{
    return __bfloat162float(x);
}

template <typename T> static __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x)
{
    return x;
}
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x)
{
    return __float2bfloat16_rn(x);
}

/* V numbers that lie together, read or written at once. */
template <typename T, int V> struct alignas(sizeof(T) * V) pack {
    T x[V];
};

template <int V, typename T>
static __device__ __forceinline__ void load(const T *from, float (&x)[V])
{
    pack<T, V> p = *reinterpret_cast<const pack<T, V> *>(from);
#pragma unroll
    for (int i = 0; i < V; i++)
        x[i] = to_float(p.x[i]);
}

template <int V, typename T>
static __device__ __forceinline__ void store(T *to, const float (&x)[V])
{
    pack<T, V> p;
#pragma unroll
    for (int i = 0; i < V; i++)
        p.x[i] = from_float<T>(x[i]);
    *reinterpret_cast<pack<T, V> *>(to) = p;
}

/* ---- sums ---- */

enum { WARP = 32 };
static constexpr unsigned ALL_LANES = 0xffffffffu;

/* Every lane gets the same bits: each step adds the same two numbers in both. */
template <typename X> static __device__ __forceinline__ X warp_sum(X x)
{
#pragma unroll
    for (int other = WARP / 2; other; other /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, other);
    return x;
}

/* Of a block of N warps: the warps' sums one after another. */
template <int N, typename X>
static __device__ __forceinline__ X block_sum(X x, X (&warps)[N])
{
    x = warp_sum(x);
    __syncthreads(); /* others may still read the sum before */
    if (threadIdx.x % WARP == 0)
        warps[threadIdx.x / WARP] = x;
    __syncthreads();
    X sum = warps[0];
#pragma unroll
    for (int i = 1; i < N; i++)
        sum += warps[i];
    return sum;
}

/* ---- dropout, as src/back/grad_cpu.c and kern/grad_body.h have it ---- */

static __host__ __device__ __forceinline__ uint32_t mix(uint32_t h)
{
    h = (h ^ (h >> 16)) * 0x7feb352du;
    h = (h ^ (h >> 15)) * 0x846ca68bu;
    return h ^ (h >> 16);
}

struct dropout {
    const uint32_t *keys;
    uint32_t place, least; /* least: of hashes that stay; 0: all */
    unsigned seq_len;
    float up;
};

static inline struct dropout dropout_of(const struct cuda_drop *drop)
{
    struct dropout r = {};
    if (!drop || !(drop->share > 0))
        return r;
    r.keys = drop->keys;
    r.place = drop->place;
    r.least = (uint32_t)((double)drop->share * 2147483648.0);
    r.seq_len = (unsigned)drop->seq_len;
    r.up = 1 / (1 - drop->share);
    return r;
}

/* A sequence's key at a place. */
static __device__ __forceinline__ uint32_t dropout_key(const struct dropout &o,
                                                       size_t seq, uint32_t place)
{
    return o.least ? mix(o.keys[seq] + place * 0x9e3779b9u) : 0;
}

static __device__ __forceinline__ float dropped(const struct dropout &o, uint32_t key,
                                                uint32_t index, float x)
{
    return !o.least ? x : (mix(index ^ key) >> 1) >= o.least ? x * o.up : 0;
}

/* Rows of a matrix [N][n]: a row's key, and the index of its first number. */
struct dropout_row {
    uint32_t key, first;
};
static __device__ __forceinline__ struct dropout_row
dropout_row_of(const struct dropout &o, size_t row, unsigned n)
{
    struct dropout_row r = {0, 0};
    if (o.least) {
        r.key = dropout_key(o, row / o.seq_len, o.place);
        r.first = (uint32_t)(row % o.seq_len) * n;
    }
    return r;
}

#endif
