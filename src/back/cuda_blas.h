/* The functions of cuBLAS that are used: looked for when a device is opened, so that a
 * program that was built with CUDA runs where cuBLAS is not. */
#ifndef RUNT_CUDA_BLAS_H
#define RUNT_CUDA_BLAS_H

#include "runt/error.h"

#include <cublas_v2.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cuda_blas {
    cublasStatus_t (*create)(cublasHandle_t *);
    cublasStatus_t (*destroy)(cublasHandle_t);
    cublasStatus_t (*set_stream)(cublasHandle_t, cudaStream_t);
    cublasStatus_t (*set_math_mode)(cublasHandle_t, cublasMath_t);
    cublasStatus_t (*gemm)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int,
                           int, int, const void *, const void *, cudaDataType, int,
                           const void *, cudaDataType, int, const void *, void *,
                           cudaDataType, int, cublasComputeType_t, cublasGemmAlgo_t);
    const char *(*status_string)(cublasStatus_t);
};

/* RUNT_E_UNSUPPORTED: the library is not here. */
int cuda_blas_get(const struct cuda_blas **out, struct runt_err *err);

#ifdef __cplusplus
}
#endif
#endif
