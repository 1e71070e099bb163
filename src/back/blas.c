/* Owns the only calls of a BLAS library. */
#include "back/blas.h"

#include "base/err.h"

#include <dlfcn.h>
#include <pthread.h>

/* The C interface (Blackford et al. 2002) and LAPACK's Fortran one, whose integers are
 * 32 bits in Debian's build. */
enum { ROW_MAJOR = 101, PLAIN = 111, TRANSPOSED = 112 };
typedef void gemm_fn(int order, int trans_a, int trans_b, int m, int n, int k,
                     float alpha, const float *a, int lda, const float *b, int ldb,
                     float beta, float *c, int ldc);
typedef void factor_fn(const char *uplo, const int *n, double *a, const int *lda,
                       int *info);

struct blas {
    gemm_fn *gemm;
    factor_fn *cholesky, *inverse; /* dpotrf: a = L L^T; dpotri: from L to a^-1 */
};

static struct blas the_blas;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* POSIX: what dlsym answers may be stored as a pointer to a function. */
static void find(void *library, const char *name, void *to)
{
    *(void **)to = dlsym(library, name);
}

static void look(void)
{
#if defined(__x86_64__) /* the least that its kernels take; it does not look itself */
    if (!__builtin_cpu_supports("sse3"))
        return;
#endif
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return;
    void (*set_n_threads)(int);
    find(library, "openblas_set_num_threads", &set_n_threads);
    if (set_n_threads)
        set_n_threads(1);
    find(library, "cblas_sgemm", &the_blas.gemm);
    find(library, "dpotrf_", &the_blas.cholesky);
    find(library, "dpotri_", &the_blas.inverse);
}

int blas_get(const struct blas **out, struct runt_err *err)
{
    pthread_once(&once, look);
    if (!the_blas.gemm || !the_blas.cholesky || !the_blas.inverse)
        return err_set(err, RUNT_E_UNSUPPORTED,
                       "OpenBLAS (libopenblas.so.0) is not here; Debian's package is "
                       "libopenblas0-pthread");
    *out = &the_blas;
    return 0;
}

void blas_gemm_tn(const struct blas *b, size_t m, size_t n, size_t k, float alpha,
                  const float *a, size_t a_step, const float *x, size_t x_step,
                  float beta, float *c, size_t c_step)
{
    b->gemm(ROW_MAJOR, TRANSPOSED, PLAIN, (int)m, (int)n, (int)k, alpha, a, (int)a_step,
            x, (int)x_step, beta, c, (int)c_step);
}

void blas_gemm_nn(const struct blas *b, size_t m, size_t n, size_t k, float alpha,
                  const float *a, size_t a_step, const float *x, size_t x_step,
                  float beta, float *c, size_t c_step)
{
    b->gemm(ROW_MAJOR, PLAIN, PLAIN, (int)m, (int)n, (int)k, alpha, a, (int)a_step, x,
            (int)x_step, beta, c, (int)c_step);
}

void blas_gemm_nt(const struct blas *b, size_t m, size_t n, size_t k, const float *a,
                  size_t a_step, const float *x, size_t x_step, float beta, float *c,
                  size_t c_step)
{
    b->gemm(ROW_MAJOR, PLAIN, TRANSPOSED, (int)m, (int)n, (int)k, 1, a, (int)a_step, x,
            (int)x_step, beta, c, (int)c_step);
}

/* LAPACK sees columns where we see rows: our lower triangle is its upper one.  So its
 * lower factor L of the inverse, L L^T, is our U, U^T U, in place. */
int blas_inverse_factor(const struct blas *b, size_t n, double *h, struct runt_err *err)
{
    int size = (int)n, info = 0;
    b->cholesky("U", &size, h, &size, &info);
    if (!info)
        b->inverse("U", &size, h, &size, &info);
    if (info)
        return err_set(err, RUNT_E_INVALID,
                       "a Hessian of %zu columns is not positive "
                       "definite (at %d)",
                       n, info);
    for (size_t i = 0; i < n; i++) /* its upper triangle to its lower one */
        for (size_t j = 0; j < i; j++)
            h[j * n + i] = h[i * n + j];
    b->cholesky("L", &size, h, &size, &info);
    return info ? err_set(err, RUNT_E_INVALID,
                          "the inverse of a Hessian of %zu columns is not positive "
                          "definite (at %d)",
                          n, info)
                : 0;
}
