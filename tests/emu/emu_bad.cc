#include "emu_bad.h"

#include "back/cuda_impl.h"

#include <mma.h>

struct bad_shared {
    float x[64], y[64];
};

static __global__ void bad_kernel(enum bad which, float *a, const float *unwritten,
                                  float *host)
{
    struct bad_shared &shared = block_shared<struct bad_shared>();
    unsigned t = threadIdx.x,
             i = blockIdx.x * 32 + t % 32; /* halves of a block share */
    bool first = t < 32;
    shared.x[t] = (float)t;
    shared.y[t] = 0;
    __syncthreads();
    switch (which) {
    case BAD_NOTHING: {
        float x = shared.x[63 - t];
        __syncthreads();
        shared.x[t] = x + shared.y[t];
        __syncthreads();
        if (first)
            a[i] += shared.x[63 - t];
        break;
    }
    case BAD_NOTHING_BY_WARPS: {
        float x = shared.x[t ^ 1];
        __syncwarp();
        shared.x[t] = warp_sum(x);
        __syncwarp();
        if (first)
            a[i] = shared.x[t ^ 5];
        break;
    }
    case BAD_BLOCKS_WRITE_THE_SAME:
        if (!t)
            a[0] = 1;
        break;
    case BAD_BLOCK_READS_WHAT_ANOTHER_WROTE:
        if (!t)
            a[blockIdx.x] = a[63 - blockIdx.x] + a[1 - blockIdx.x];
        break;
    case BAD_NO_BARRIER_BEHIND_WRITES:
        shared.y[t] = 1;
        if (first)
            a[i] = shared.y[t + 32];
        break;
    case BAD_NO_BARRIER_BEHIND_READS:
        if (first)
            a[i] = shared.x[t + 32];
        shared.x[t] = 2;
        break;
    case BAD_SYNCWARP_FOR_A_BLOCK:
        shared.y[t] = 1;
        __syncwarp();
        if (first)
            a[i] = shared.y[t + 32];
        break;
    case BAD_SHUFFLE_FOR_A_BARRIER:
        shared.y[t] = 1;
        warp_sum(shared.y[t]);
        if (first)
            a[i] = shared.y[t ^ 1];
        break;
    case BAD_HALVES_AND_WHOLE:
        if (t == 1)
            reinterpret_cast<bf16 *>(shared.y)[1] = from_float<bf16>(1);
        if (t == 2)
            a[i] = shared.y[0];
        break;
    case BAD_READS_SHARED_UNWRITTEN:
        a[first ? i : 0] = 0;
        break;
    case BAD_READS_UNWRITTEN:
        if (first)
            a[i] = unwritten[t];
        break;
    case BAD_WRITES_BEYOND:
        if (t == 31)
            a[i + (blockIdx.x ? 33 : 0)] = 0;
        break;
    case BAD_READS_BEFORE:
        if (!t)
            a[i] = a[(int)i - (blockIdx.x ? 0 : 1)];
        break;
    case BAD_BEYOND_SHARED:
        if (t == 63) { /* by a number that the compiler does not know */
            float *x = shared.x;
            x[t + 65 + (unsigned)a[0]] = 0;
        }
        break;
    case BAD_BEYOND_ITS_ARRAY:
        if (t == 63)
            shared.x[t + 1 + (unsigned)a[0]] = 0;
        break;
    case BAD_NOT_ALIGNED:
        if (first && t % 4 == 1) {
            float x[2];
            load<2>(a + i, x);
            a[i] = x[0];
        }
        break;
    case BAD_HOST_MEMORY:
        if (first)
            a[i] = host[0];
        break;
    case BAD_ENDS_BEFORE_A_BARRIER:
        if (first)
            return;
        __syncthreads();
        break;
    case BAD_DIFFERENT_PLACES:
        if (t % 32 == 3)
            __syncthreads();
        else
            __syncwarp();
        break;
    case BAD_LANES_MISSING:
        if (t == 3)
            return;
        a[i] = warp_sum(1.0f);
        break;
    case BAD_TRANSPOSED_STEP:
    case BAD_MISALIGNED_SQUARE: {
        nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> f;
        bool step = which == BAD_TRANSPOSED_STEP;
        nvcuda::wmma::load_matrix_sync(f, shared.x + (step ? 0 : 4), step ? 3 : 4,
                                       nvcuda::wmma::mem_row_major);
        if (first && f.x[0] > 1e30f)
            a[i] = f.x[0];
        break;
    }
    default:
        break;
    }
}

/* A block reads what nobody wrote: no writes before it. */
static __global__ void unwritten_shared(float *a)
{
    struct bad_shared &shared = block_shared<struct bad_shared>();
    if (!threadIdx.x && !blockIdx.x)
        a[0] = shared.x[5];
}

static float on_host[64];

bool emu_bad(enum bad which)
{
    float *a = NULL, *unwritten = NULL;
    bool ok = cudaMalloc((void **)&a, 64 * sizeof *a) == cudaSuccess &&
              cudaMalloc((void **)&unwritten, 64 * sizeof *a) == cudaSuccess &&
              cudaMemcpyAsync(a, on_host, sizeof on_host, cudaMemcpyHostToDevice,
                              NULL) == cudaSuccess;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(2);
    config.blockDim = dim3(64);
    config.dynamicSmemBytes = sizeof(struct bad_shared);
    switch (which) {
    case BAD_READS_SHARED_UNWRITTEN:
        ok = ok && cudaLaunchKernelEx(&config, unwritten_shared, a) == cudaSuccess;
        break;
    case BAD_LAUNCH_TOO_MUCH_SHARED:
        config.dynamicSmemBytes = 49 << 10;
        ok = ok && cudaLaunchKernelEx(&config, unwritten_shared, a) == cudaSuccess;
        break;
    case BAD_HOST_READS_DEVICE:
        on_host[1] = a[1];
        break;
    case BAD_COPY_BEYOND:
        ok = cudaMemcpyAsync(on_host, a + 1, sizeof on_host, cudaMemcpyDeviceToHost,
                             NULL) == cudaSuccess;
        break;
    case BAD_COPY_UNWRITTEN:
        ok = cudaMemcpyAsync(on_host, unwritten, 4, cudaMemcpyDeviceToHost, NULL) ==
             cudaSuccess;
        break;
    case BAD_COPY_WRONG_WAY:
        ok =
            cudaMemcpyAsync(a, on_host, 4, cudaMemcpyDeviceToHost, NULL) == cudaSuccess;
        break;
    default:
        ok = ok && cudaLaunchKernelEx(&config, bad_kernel, which, a,
                                      (const float *)unwritten, on_host) == cudaSuccess;
    }
    cudaFree(a);
    cudaFree(unwritten);
    if (which == BAD_FREES_TWICE)
        cudaFree(a);
    return ok;
}
