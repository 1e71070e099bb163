/* Owns the search for cuBLAS: a library that is opened when a device is. */
#include "back/cuda_blas.h"

#include "base/err.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>

static struct cuda_blas the_blas;
static bool found;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static bool look_up(void *library, const char *name, void *to)
{
    *(void **)to = dlsym(library, name);
    return *(void **)to != NULL;
}

/* Where the system looks, then where the toolkit that built this is. */
static void look(void)
{
    char name[64];
    snprintf(name, sizeof name, "libcublas.so.%d", CUBLAS_VER_MAJOR);
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", CUDA_LIBRARIES, name);
        library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    }
    found = library && look_up(library, "cublasCreate_v2", &the_blas.create) &&
            look_up(library, "cublasDestroy_v2", &the_blas.destroy) &&
            look_up(library, "cublasSetStream_v2", &the_blas.set_stream) &&
            look_up(library, "cublasSetMathMode", &the_blas.set_math_mode) &&
            look_up(library, "cublasGemmEx", &the_blas.gemm) &&
            look_up(library, "cublasGetStatusString", &the_blas.status_string);
}

int cuda_blas_get(const struct cuda_blas **out, struct runt_err *err)
{
    pthread_once(&once, look);
    if (!found)
        return err_set(err, RUNT_E_UNSUPPORTED,
                       "cuBLAS (libcublas.so.%d) is not here; it is part of NVIDIA's "
                       "CUDA %d",
                       CUBLAS_VER_MAJOR, CUDART_VERSION / 1000);
    *out = &the_blas;
    return 0;
}
