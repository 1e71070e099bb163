/* Owns the emulated cuBLAS: products as plain loops, sums in float, what enters and
 * what comes out rounded as its type says. */
#include "emu_impl.h"

extern "C" {
#include "back/cuda_blas.h"
}

#include <cuda_bf16.h>

#include <stdlib.h>

struct emu_blas {
    int nothing;
};

static const char *status_string(cublasStatus_t s)
{
    return s == CUBLAS_STATUS_SUCCESS ? "success" : "the product failed to run";
}

static cublasStatus_t create(cublasHandle_t *h)
{
    *h = (cublasHandle_t)calloc(1, sizeof **h);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t destroy(cublasHandle_t h)
{
    free(h);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t set_stream(cublasHandle_t, cudaStream_t)
{
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t set_math_mode(cublasHandle_t, cublasMath_t mode)
{
    return mode == (cublasMath_t)(CUBLAS_DEFAULT_MATH |
                                  CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION)
               ? CUBLAS_STATUS_SUCCESS
               : CUBLAS_STATUS_EXECUTION_FAILED;
}

static size_t bytes_of(cudaDataType type)
{
    return type == CUDA_R_32F ? sizeof(float) : sizeof(__nv_bfloat16);
}

static float get(const void *p, cudaDataType type, size_t i)
{
    return type == CUDA_R_32F ? ((const float *)p)[i]
                              : __bfloat162float(((const __nv_bfloat16 *)p)[i]);
}

static void put(void *p, cudaDataType type, size_t i, float x)
{
    if (type == CUDA_R_32F)
        ((float *)p)[i] = x;
    else
        ((__nv_bfloat16 *)p)[i] = __float2bfloat16_rn(x);
}

/* Columns of `rows` numbers, `step` apart, by columns or by rows as floats [cols][rows]
 * or [rows][cols]. */
static float *take(const void *p, cudaDataType type, size_t rows, size_t cols,
                   size_t step, bool by_rows)
{
    float *out = (float *)malloc(rows * cols * sizeof *out);
    for (size_t j = 0; j < cols; j++) {
        emu_use((const char *)p + j * step * bytes_of(type), rows * bytes_of(type),
                false, "a product");
        for (size_t i = 0; i < rows; i++)
            out[by_rows ? i * cols + j : j * rows + i] = get(p, type, j * step + i);
    }
    return out;
}

/* c [m x n] = alpha op(a) op(b) + beta c, columns one behind another. */
static cublasStatus_t gemm(cublasHandle_t, cublasOperation_t op_a,
                           cublasOperation_t op_b, int m_, int n_, int k_,
                           const void *alpha, const void *a, cudaDataType a_type,
                           int a_step, const void *b, cudaDataType b_type, int b_step,
                           const void *beta, void *c, cudaDataType c_type, int c_step,
                           cublasComputeType_t compute, cublasGemmAlgo_t)
{
    size_t m = (size_t)m_, n = (size_t)n_, k = (size_t)k_;
    float scale = *(const float *)alpha, keep = *(const float *)beta;
    if (emu_fails(EMU_PRODUCT) || emu_lost())
        return CUBLAS_STATUS_EXECUTION_FAILED;
    if (m_ <= 0 || n_ <= 0 || k_ <= 0 || c_step < m_ ||
        a_step < (op_a == CUBLAS_OP_N ? m_ : k_) ||
        b_step < (op_b == CUBLAS_OP_N ? k_ : n_) || a_type != b_type ||
        (a_type == CUDA_R_32F && c_type != CUDA_R_32F) ||
        compute != CUBLAS_COMPUTE_32F) {
        emu_note("a product that cuBLAS would refuse");
        return CUBLAS_STATUS_EXECUTION_FAILED;
    }
    /* x [k][m], y [n][k] */
    float *x = op_a == CUBLAS_OP_N ? take(a, a_type, m, k, (size_t)a_step, false)
                                   : take(a, a_type, k, m, (size_t)a_step, true);
    float *y = op_b == CUBLAS_OP_N ? take(b, b_type, k, n, (size_t)b_step, false)
                                   : take(b, b_type, n, k, (size_t)b_step, true);
    float *sum = (float *)malloc(m * sizeof *sum);
    for (size_t j = 0; j < n; j++) {
        char *column = (char *)c + j * (size_t)c_step * bytes_of(c_type);
        for (size_t i = 0; i < m; i++)
            sum[i] = 0;
        for (size_t p = 0; p < k; p++)
            for (size_t i = 0; i < m; i++)
                sum[i] += x[p * m + i] * y[j * k + p];
        if (keep != 0)
            emu_use(column, m * bytes_of(c_type), false, "a product that is added");
        if (!emu_use(column, m * bytes_of(c_type), true, "a product's result"))
            break;
        for (size_t i = 0; i < m; i++)
            put(column, c_type, i,
                scale * sum[i] + (keep != 0 ? keep * get(column, c_type, i) : 0));
    }
    free(x);
    free(y);
    free(sum);
    return CUBLAS_STATUS_SUCCESS;
}

extern "C" int cuda_blas_get(const struct cuda_blas **out, struct runt_err *)
{
    static const struct cuda_blas table = {create,        destroy, set_stream,
                                           set_math_mode, gemm,    status_string};
    *out = &table;
    return 0;
}
