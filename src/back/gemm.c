/* Owns the choice of the library behind training's products, and bfloat16 products on
 * processors without them. */
#include "back/gemm_impl.h"

#include "back/blas.h"
#include "base/err.h"
#include "base/mem.h"
#include "kern/grad.h"

#include <stdlib.h>
#include <string.h>

struct gemm {
    const char *name;            /* of the library that multiplies floats */
    const struct blas *blas;     /* or NULL: */
    const struct onednn *onednn; /* or NULL */
    const struct grad_kern *kern;
};

struct gemm_thread {
    const struct gemm *gemm;
    struct onednn_thread *bf16; /* or NULL: made of floats, in */
    float *scratch;             /* [SCRATCH] */
};

enum { SCRATCH = 1 << 20 }; /* more than two sides of any tile */

int gemm_open(struct gemm **out, struct runt_err *err)
{
    const char *want = getenv("RUNT_GEMM");
    bool any = !want || !*want, onednn = any || !strcmp(want, "onednn"),
         blas = any || !strcmp(want, "openblas");
    if (!onednn && !blas)
        return err_set(err, RUNT_E_INVALID,
                       "RUNT_GEMM is '%s'; it names onednn or openblas", want);
    struct gemm g = {.kern = grad_kern_get()};
    g.onednn = onednn ? onednn_get() : NULL;
    /* Products of floats are a fifth quicker in OpenBLAS (docs/SPEED.md). */
    if (!blas || blas_get(&g.blas, NULL))
        g.blas = NULL;
    g.name = g.blas ? "OpenBLAS" : "oneDNN";
    if (!g.onednn && !g.blas)
        return err_set(err, RUNT_E_UNSUPPORTED,
                       "no library for matrix products is here; Debian's packages are "
                       "libdnnl2 and libopenblas0-pthread");
    *out = mem_alloc(sizeof g);
    if (!*out)
        return err_nomem(err, "matrix products");
    **out = g;
    return 0;
}

void gemm_close(struct gemm *g)
{
    mem_free(g);
}

const char *gemm_name(const struct gemm *g, enum gemm_type type)
{
    return type == GEMM_BF16 && gemm_has_bf16(g) ? "oneDNN" : g->name;
}

bool gemm_has_bf16(const struct gemm *g)
{
    return g->onednn && onednn_has_bf16(g->onednn);
}

int gemm_thread_open(const struct gemm *g, struct gemm_thread **out,
                     struct runt_err *err)
{
    struct gemm_thread *t = mem_zalloc(sizeof *t);
    if (!t)
        return err_nomem(err, "matrix products");
    t->gemm = g;
    if (gemm_has_bf16(g))
        t->bf16 = onednn_thread_open(g->onednn);
    t->scratch = mem_array(SCRATCH, sizeof *t->scratch);
    if ((gemm_has_bf16(g) && !t->bf16) || !t->scratch) {
        gemm_thread_close(t);
        return err_nomem(err, "matrix products");
    }
    *out = t;
    return 0;
}

void gemm_thread_close(struct gemm_thread *t)
{
    if (!t)
        return;
    onednn_thread_close(t->bf16);
    mem_free(t->scratch);
    mem_free(t);
}

static void run_f32(const struct gemm *g, enum gemm_form form, size_t m, size_t n,
                    size_t k, const float *a, size_t a_step, const float *b,
                    size_t b_step, bool add, float *c, size_t c_step)
{
    float beta = add ? 1 : 0;
    if (!g->blas)
        onednn_f32(g->onednn, form, m, n, k, a, a_step, b, b_step, add, c, c_step);
    else if (form == GEMM_NT)
        blas_gemm_nt(g->blas, m, n, k, a, a_step, b, b_step, beta, c, c_step);
    else if (form == GEMM_NN)
        blas_gemm_nn(g->blas, m, n, k, 1, a, a_step, b, b_step, beta, c, c_step);
    else
        blas_gemm_tn(g->blas, m, n, k, 1, a, a_step, b, b_step, beta, c, c_step);
}

/* Rows of bfloat16 as floats, close together. */
static void widen(const struct grad_kern *kern, size_t rows, size_t cols,
                  const uint16_t *from, size_t step, float *to)
{
    for (size_t r = 0; r < rows; r++)
        kern->from_bf16(cols, from + r * step, to + r * cols);
}

void gemm_run(struct gemm_thread *t, enum gemm_type type, enum gemm_form form, size_t m,
              size_t n, size_t k, const void *a, size_t a_step, const void *b,
              size_t b_step, bool add, float *c, size_t c_step)
{
    const struct gemm *g = t->gemm;
    if (!m || !n || !k)
        return;
    if (type == GEMM_F32) {
        run_f32(g, form, m, n, k, a, a_step, b, b_step, add, c, c_step);
        return;
    }
    if (t->bf16 &&
        onednn_bf16(t->bf16, form, m, n, k, a, a_step, b, b_step, add, c, c_step))
        return;
    /* Some columns at a time, widened. */
    size_t piece = SCRATCH / (m + n) < k ? SCRATCH / (m + n) : k;
    for (size_t from = 0; from < k; from += piece) {
        size_t p = k - from < piece ? k - from : piece;
        const uint16_t *pa =
            (const uint16_t *)a + from * (form == GEMM_TN ? a_step : 1);
        const uint16_t *pb =
            (const uint16_t *)b + from * (form == GEMM_NT ? 1 : b_step);
        float *fa = t->scratch, *fb = fa + m * p;
        size_t a_cols = form == GEMM_TN ? m : p, b_cols = form == GEMM_NT ? p : n;
        widen(g->kern, m * p / a_cols, a_cols, pa, a_step, fa);
        widen(g->kern, n * p / b_cols, b_cols, pb, b_step, fb);
        run_f32(g, form, m, n, p, fa, a_cols, fb, b_cols, add || from, c, c_step);
    }
}
