/* The part of CUDA's runtime that src/back/cuda_*.cu use, emulated (emu.h). */
#ifndef EMU_CUDA_RUNTIME_H
#define EMU_CUDA_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#define __global__
#define __device__
#define __host__
#define __shared__
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))

#define CUDART_VERSION 13000

struct dim3 {
    unsigned x, y, z;
#ifdef __cplusplus
    constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c)
    {
    }
#endif
};

typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorLaunchFailure = 719,
} cudaError_t;

enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum { cudaStreamNonBlocking = 1 };
typedef struct emu_stream *cudaStream_t;
typedef struct emu_event *cudaEvent_t;
struct cudaDeviceProp {
    char name[256];
    int major, minor;
};

#ifdef __cplusplus
extern "C" {
#endif
const char *cudaGetErrorString(cudaError_t e);
cudaError_t cudaGetLastError(void);
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaMemGetInfo(size_t *is_free, size_t *total);
cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes,
                            enum cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaEventCreate(cudaEvent_t *e);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t stream);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to);
cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute a,
                                 int value);

/* ---- for kernels ---- */

extern struct dim3 threadIdx, blockIdx, blockDim, gridDim;

void __syncthreads(void);
void __syncwarp(void);
/* All lanes of a warp hand in up to 8 bytes; the answer is what lane `from` did. */
uint64_t emu_exchange(uint64_t mine, unsigned from);

struct emu_launch {
    struct dim3 grid, block;
    size_t shared_bytes;
    const void *kernel;
    void (*run)(void *args);
    void *args;
    size_t args_bytes;
};
cudaError_t emu_run(const struct emu_launch *l);
#ifdef __cplusplus
}

#include <string.h>
#include <tuple>

template <typename X>
static inline __attribute__((no_sanitize_thread)) X __shfl_xor_sync(unsigned, X x,
                                                                    int other)
{
    static_assert(sizeof(X) <= 8, "what a lane hands over");
    uint64_t bits = 0;
    memcpy(&bits, &x, sizeof x);
    bits = emu_exchange(bits, (threadIdx.x % 32) ^ (unsigned)other);
    memcpy(&x, &bits, sizeof x);
    return x;
}

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
};

template <typename... P> struct emu_call {
    void (*kernel)(P...);
    std::tuple<P...> args;
    static void run(void *p)
    {
        struct emu_call *c = static_cast<struct emu_call *>(p);
        std::apply(c->kernel, c->args);
    }
};

template <typename... P, typename... A>
static inline cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config,
                                             void (*kernel)(P...), A &&...args)
{
    struct emu_call<P...> call = {
        kernel, std::tuple<P...>(args...)
    };
    struct emu_launch l = {
        config->gridDim,      config->blockDim,    config->dynamicSmemBytes,
        (const void *)kernel, emu_call<P...>::run, &call,
        sizeof call};
    return emu_run(&l);
}
#endif
#endif
