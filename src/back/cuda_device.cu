/* Owns the device: finding it, its memory, copies, errors, time, and products. */
#include "back/cuda_impl.h"

extern "C" {
#include "base/err.h"
#include "base/mem.h"
}

#include <stdio.h>
#include <string.h>

/* What this is compiled for, and newer (src/back/meson.build). */
enum { LEAST_MAJOR = 8 };

/* ---- errors ---- */

void cuda_note(struct cuda *d, const char *what, const char *why)
{
    if (!*d->failed)
        snprintf(d->failed, sizeof d->failed, "%s: %s", what, why);
}

static void check_blas(struct cuda *d, const char *what, cublasStatus_t s)
{
    if (s != CUBLAS_STATUS_SUCCESS)
        cuda_note(d, what, d->blas->status_string(s));
}

int cuda_wait(struct cuda *d, struct runt_err *err)
{
    if (!*d->failed)
        cuda_check(d, "waiting", cudaStreamSynchronize(d->stream));
    return *d->failed
               ? err_set(err, RUNT_E_IO, "the GPU (%s) failed: %s", d->name, d->failed)
               : 0;
}

/* ---- finding it ---- */

static int find(struct cuda *d, struct runt_err *err)
{
    int count = 0, version = 0;
    struct cudaDeviceProp prop;
    if (cudaDriverGetVersion(&version) == cudaSuccess && !version)
        return err_set(err, RUNT_E_UNSUPPORTED,
                       "there is no GPU, or NVIDIA's driver is not installed");
    cudaError_t e = cudaGetDeviceCount(&count);
    if (e == cudaErrorNoDevice || (e == cudaSuccess && !count))
        return err_set(err, RUNT_E_UNSUPPORTED, "there is no GPU that CUDA knows");
    if (e != cudaSuccess)
        return err_set(err, RUNT_E_UNSUPPORTED, "there is no GPU for CUDA: %s",
                       cudaGetErrorString(e));
    e = cudaGetDeviceProperties(&prop, 0);
    if (e == cudaSuccess)
        e = cudaSetDevice(0);
    if (e != cudaSuccess)
        return err_set(err, RUNT_E_UNSUPPORTED, "the GPU cannot be used: %s",
                       cudaGetErrorString(e));
    snprintf(d->name, sizeof d->name, "%s", prop.name);
    if (prop.major < LEAST_MAJOR)
        return err_set(err, RUNT_E_UNSUPPORTED,
                       "the GPU (%s) has compute capability %d.%d; this program needs "
                       "%d.0",
                       d->name, prop.major, prop.minor, LEAST_MAJOR);
    return 0;
}

/* Products of floats are exact ones (no TF32), and partial sums of bfloat16's are kept
 * in float32. */
static void begin(struct cuda *d)
{
    cuda_check(d, "a stream",
               cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking));
    if (*d->failed)
        return;
    check_blas(d, "cuBLAS", d->blas->create(&d->handle));
    if (*d->failed)
        return;
    check_blas(d, "cuBLAS", d->blas->set_stream(d->handle, d->stream));
    check_blas(d, "cuBLAS",
               d->blas->set_math_mode(
                   d->handle,
                   (cublasMath_t)(CUBLAS_DEFAULT_MATH |
                                  CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION)));
}

int cuda_open(enum gemm_type type, struct cuda **out, struct runt_err *err)
{
    struct cuda *d = (struct cuda *)mem_zalloc(sizeof *d);
    if (!d)
        return err_nomem(err, "a GPU");
    d->type = type;
    int rc = find(d, err);
    if (!rc)
        rc = cuda_blas_get(&d->blas, err);
    if (!rc) {
        begin(d);
        rc = cuda_wait(d, err);
    }
    if (rc)
        cuda_close(d);
    else
        *out = d;
    return rc;
}

void cuda_close(struct cuda *d)
{
    if (!d)
        return;
    for (size_t i = 0; i < d->n_events; i++)
        cudaEventDestroy(d->events[i]);
    mem_free(d->events);
    mem_free(d->parts);
    if (d->handle)
        d->blas->destroy(d->handle);
    if (d->stream)
        cudaStreamDestroy(d->stream);
    mem_free(d);
}

const char *cuda_name(const struct cuda *d)
{
    return d->name;
}

size_t cuda_act_bytes(const struct cuda *d)
{
    return d->type == GEMM_BF16 ? sizeof(bf16) : sizeof(float);
}

size_t cuda_free_bytes(struct cuda *d)
{
    size_t is_free = 0, total = 0;
    cuda_check(d, "asking for memory", cudaMemGetInfo(&is_free, &total));
    return is_free;
}

/* ---- memory ---- */

int cuda_alloc(struct cuda *d, size_t bytes, const char *what, void **out,
               struct runt_err *err)
{
    void *p = NULL;
    cudaError_t e = cudaMalloc(&p, bytes ? bytes : 1);
    if (e == cudaErrorMemoryAllocation) {
        cudaGetLastError(); /* it is told here, once */
        return err_set(err, RUNT_E_NOMEM,
                       "the GPU (%s) has no %zu MB for %s; %zu MB are free", d->name,
                       bytes / 1000000 + 1, what, cuda_free_bytes(d) / 1000000);
    }
    if (e != cudaSuccess) {
        cuda_check(d, what, e);
        return cuda_wait(d, err);
    }
    *out = p;
    return 0;
}

void cuda_release(struct cuda *d, void *p)
{
    if (p)
        cuda_check(d, "giving memory back", cudaFree(p));
}

static void copy(struct cuda *d, const char *what, void *to, const void *from,
                 size_t bytes, enum cudaMemcpyKind kind)
{
    if (!*d->failed && bytes)
        cuda_check(d, what, cudaMemcpyAsync(to, from, bytes, kind, d->stream));
}

void cuda_upload(struct cuda *d, void *to, const void *host, size_t bytes)
{
    copy(d, "a copy to it", to, host, bytes, cudaMemcpyHostToDevice);
}

void cuda_download(struct cuda *d, void *host, const void *from, size_t bytes)
{
    copy(d, "a copy from it", host, from, bytes, cudaMemcpyDeviceToHost);
    cuda_wait(d, NULL);
}

void cuda_zero(struct cuda *d, void *p, size_t bytes)
{
    if (!*d->failed && bytes)
        cuda_check(d, "clearing memory", cudaMemsetAsync(p, 0, bytes, d->stream));
}

/* ---- time ---- */

void cuda_mark(struct cuda *d, int part)
{
    if (!d->events) {
        d->events = (cudaEvent_t *)mem_array(N_MARKS, sizeof *d->events);
        d->parts = (int *)mem_array(N_MARKS, sizeof *d->parts);
    }
    if (*d->failed || !d->events || !d->parts || d->n_marks == N_MARKS)
        return;
    if (d->n_marks == d->n_events) {
        cuda_check(d, "a mark", cudaEventCreate(&d->events[d->n_events]));
        if (*d->failed)
            return;
        d->n_events++;
    }
    cuda_check(d, "a mark", cudaEventRecord(d->events[d->n_marks], d->stream));
    d->parts[d->n_marks++] = part;
}

void cuda_take_marks(struct cuda *d, double *seconds)
{
    for (size_t i = 1; i < d->n_marks && !*d->failed; i++) {
        float ms = 0;
        cuda_check(d, "a mark",
                   cudaEventElapsedTime(&ms, d->events[i - 1], d->events[i]));
        seconds[d->parts[i]] += 1e-3 * (double)ms;
    }
    d->n_marks = 0;
}

/* ---- products ---- */

/* cuBLAS has columns where we have rows, so it makes c^T = b^T a^T: our c [m][n] is its
 * n x m, a matrix that lies the other way round than it wants is one to transpose. */
void cuda_product(struct cuda *d, enum gemm_form form, size_t m, size_t n, size_t k,
                  const void *a, size_t a_step, const void *b, size_t b_step,
                  const struct cuda_out *c)
{
    cudaDataType in = d->type == GEMM_BF16 ? CUDA_R_16BF : CUDA_R_32F;
    float beta = c->add ? 1 : 0;
    if (*d->failed || !m || !n || !k)
        return;
    check_blas(d, "a product",
               d->blas->gemm(d->handle, form == GEMM_NT ? CUBLAS_OP_T : CUBLAS_OP_N,
                             form == GEMM_TN ? CUBLAS_OP_T : CUBLAS_OP_N, (int)n,
                             (int)m, (int)k, &c->scale, b, in, (int)b_step, a, in,
                             (int)a_step, &beta, c->p, c->wide ? CUDA_R_32F : in,
                             (int)c->step, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
}

/* Large squares, which products like best. */
double cuda_peak(struct cuda *d)
{
    size_t side = d->type == GEMM_BF16 ? 8192 : 4096, numbers = side * side;
    size_t bytes = numbers * cuda_act_bytes(d);
    void *x[3] = {NULL, NULL, NULL};
    double best = 0;
    bool ok = true;
    for (int i = 0; i < 3; i++)
        ok = ok && !cuda_alloc(d, bytes, "a trial product", &x[i], NULL);
    for (int i = 0; ok && i < 2; i++)
        cuda_zero(d, x[i], bytes);
    struct cuda_out c = {x[2], side, false, false, 1};
    for (int round = 0; ok && round < 6; round++) {
        double seconds = 0;
        d->n_marks = 0;
        cuda_mark(d, 0);
        cuda_product(d, GEMM_NT, side, side, side, x[0], side, x[1], side, &c);
        cuda_mark(d, 0);
        ok = !cuda_wait(d, NULL);
        cuda_take_marks(d, &seconds);
        double rate = 2.0 * (double)numbers * (double)side / seconds;
        if (ok && round && seconds > 0 && rate > best)
            best = rate;
    }
    for (int i = 0; i < 3; i++)
        cuda_release(d, x[i]);
    return best;
}
