/* The CUDA backend's attention, loss and scores against this processor's, on an
 * emulated GPU (emu/emu.h). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "cuda_fixture.h"
#include "eval/score.h"
#include "net_fixture.h"

#include <math.h>
#include <string.h>

static void near(const char *what, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s: %.12g, not %.12g (within %.2g)", what, got, want, tolerance);
}

/* ---- attention ---- */

/* Sequences within a square of 64, as long as one, a little longer, of three; heads by
 * fours and not, as wide as a square, wider than one and than two. */
static const struct {
    size_t n_seqs, seq_len, n_heads, dim;
    float share;
} cases[] = {{1, 1, 2, 4, 0},      {2, 64, 1, 64, 0.2f},  {1, 65, 3, 47, 0},
             {2, 83, 2, 16, 0.3f}, {1, 130, 1, 80, 0.1f}, {1, 70, 2, 130, 0}};
enum { N_CASES = sizeof cases / sizeof *cases };

static const uint32_t keys[] = {0x12345678, 77};

struct attention {
    size_t rows, width;
    float *qkv, *bias, *dout, *sum; /* sum: qkv + bias as the GPU rounds it */
    struct cuda_attention gpu;
    struct grad_attention cpu;
    void *gpu_qkv;
};

static struct attention attention_of(struct gpu *g, size_t index)
{
    struct attention a = {.rows = cases[index].n_seqs * cases[index].seq_len,
                          .width = cases[index].n_heads * cases[index].dim};
    size_t n = a.rows * 3 * a.width, len = cases[index].seq_len;
    a.qkv = numbers(g, n, 0, 0.9f, true);
    a.bias = numbers(g, 3 * a.width, 0, 0.5f, true);
    a.dout = numbers(g, a.rows * a.width, 0, 1, true);
    for (size_t i = 0; i < a.rows * a.width; i++) /* some scores stand out */
        a.qkv[i / a.width * 3 * a.width + i % a.width] *= i / a.width % 5 == 3 ? 4 : 1;
    a.gpu_qkv = acts_on_gpu(g, a.qkv, n);
    a.sum = mem_array(n, sizeof *a.sum);
    for (size_t i = 0; i < n; i++)
        a.sum[i] = a.qkv[i] + a.bias[i % (3 * a.width)];
    float *rounded = acts_from_gpu(g, acts_on_gpu(g, a.sum, n), n);
    mem_free(a.sum);
    a.sum = rounded;
    a.gpu = (struct cuda_attention){
        cases[index].n_seqs,
        len,
        cases[index].n_heads,
        a.width,
        on_gpu(g, a.bias, 3 * a.width),
        {cases[index].share, bytes_on_gpu(g, keys, sizeof keys), 9, len}};
    a.cpu = (struct grad_attention){cases[index].n_seqs,
                                    len,
                                    cases[index].n_heads,
                                    a.width,
                                    {cases[index].share, keys, 9, len}};
    return a;
}

static void attention_free(struct attention *a)
{
    mem_free(a->qkv);
    mem_free(a->bias);
    mem_free(a->dout);
    mem_free(a->sum);
}

/* Probabilities and their gradients enter products in bfloat16 there: each is off by up
 * to 2^-9 of itself, sums of them by less. */
static uint64_t attend(struct gpu *g, size_t index)
{
    struct attention a = attention_of(g, index);
    size_t n = a.rows * a.width, heads = a.gpu.n_heads;
    double tolerance = g->type == GEMM_BF16 ? 4e-3 : 1e-5;
    float *out = mem_array(n, sizeof *out),
          *lse = mem_array(a.rows * heads, sizeof *lse);
    float *dqkv = mem_array(3 * n, sizeof *dqkv);
    void *gpu_out = empty_on_gpu(g, n * sizeof *out);
    float *gpu_lse = empty_on_gpu(g, a.rows * heads * sizeof *lse);
    float *delta = empty_on_gpu(g, a.rows * heads * sizeof *delta);
    void *gpu_dqkv = empty_on_gpu(g, 3 * n * sizeof *dqkv);
    cuda_attend(g->d, &a.gpu, a.gpu_qkv, gpu_out, gpu_lse);
    grad_attend(&g->cpu, 0, &a.cpu, a.sum, out, lse);
    same(g, "lse", from_gpu(g, gpu_lse, a.rows * heads), lse, a.rows * heads, 1e-6,
         false);
    same(g, "attention", acts_from_gpu(g, gpu_out, n), out, n, tolerance, true);
    cuda_attend_back(g->d, &a.gpu, a.gpu_qkv, gpu_out, gpu_lse,
                     acts_on_gpu(g, a.dout, n), delta, gpu_dqkv);
    grad_attend_back(&g->cpu, 0, &a.cpu, a.sum, out, lse, a.dout, dqkv);
    for (int part = 0; part < 3; part++) { /* each by its own scale */
        float *got = acts_from_gpu(g, gpu_dqkv, 3 * n);
        float *of = mem_array(n, sizeof *of), *want = mem_array(n, sizeof *want);
        for (size_t i = 0; i < n; i++) {
            size_t at =
                i / a.width * 3 * a.width + (size_t)part * a.width + i % a.width;
            of[i] = got[at];
            want[i] = dqkv[at];
        }
        static const char *const names[] = {"d queries", "d keys", "d values"};
        if (a.rows == 1 && part < 2) /* a single key has no gradient but rounding */
            for (size_t i = 0; i < n; i++) {
                near(names[part], (double)of[i], 0, 1e-2);
                of[i] = want[i] = 0;
            }
        same(g, names[part], of, want, n, 2 * tolerance, true);
        mem_free(got);
        mem_free(want);
    }
    float *got = acts_from_gpu(g, gpu_dqkv, 3 * n);
    uint64_t h = checksum(1, got, 3 * n * sizeof *got);
    mem_free(got);
    got = acts_from_gpu(g, gpu_out, n);
    h = checksum(h, got, n * sizeof *got);
    mem_free(got);
    mem_free(out);
    mem_free(lse);
    mem_free(dqkv);
    attention_free(&a);
    return h;
}

static void attention_and_its_gradients(void **state)
{
    (void)state;
    in_every_order(attend, N_CASES);
}

/* The gradient against differences of the forward pass alone. */
static void attention_slopes(void **state)
{
    (void)state;
    struct gpu g;
    gpu_open(&g, GEMM_F32);
    struct attention a = attention_of(&g, 3);
    size_t n = a.rows * a.width, heads = a.gpu.n_heads;
    float *out = empty_on_gpu(&g, n * sizeof *out), *got = NULL;
    float *lse = empty_on_gpu(&g, a.rows * heads * sizeof *lse), *delta;
    float *dqkv = empty_on_gpu(&g, 3 * n * sizeof *dqkv);
    delta = empty_on_gpu(&g, a.rows * heads * sizeof *delta);
    cuda_attend(g.d, &a.gpu, a.gpu_qkv, out, lse);
    cuda_attend_back(g.d, &a.gpu, a.gpu_qkv, out, lse, on_gpu(&g, a.dout, n), delta,
                     dqkv);
    float *d = from_gpu(&g, dqkv, 3 * n);
    double length = net_l2(d, 3 * n), value[2];
    for (int side = 0; side < 2; side++) {
        double step = (side ? 1e-2 : -1e-2) / length;
        float *moved = mem_array(3 * n, sizeof *moved);
        for (size_t i = 0; i < 3 * n; i++)
            moved[i] = a.qkv[i] + (float)(step * (double)d[i]);
        cuda_upload(g.d, a.gpu_qkv, moved, 3 * n * sizeof *moved);
        cuda_attend(g.d, &a.gpu, a.gpu_qkv, out, lse);
        got = from_gpu(&g, out, n);
        value[side] = 0;
        for (size_t i = 0; i < n; i++)
            value[side] += (double)got[i] * (double)a.dout[i];
        mem_free(got);
        mem_free(moved);
    }
    near("the slope", (value[1] - value[0]) / 2e-2 * length, length * length,
         1e-3 * length * length);
    mem_free(d);
    attention_free(&a);
    gpu_close(&g);
}

/* ---- the loss ---- */

static const struct {
    size_t rows, n;
} loss_cases[] = {{3, 1}, {5, 37}, {4, 203}, {2, 5001}};
enum { N_LOSS_CASES = sizeof loss_cases / sizeof *loss_cases };

static uint64_t loss(struct gpu *g, size_t index)
{
    size_t rows = loss_cases[index].rows, n = loss_cases[index].n;
    size_t step = (n + 7) / 8 * 8;
    float *logits = numbers(g, rows * n, 0, 3, false);
    int32_t targets[8];
    double want[8], got[8];
    for (size_t r = 0; r < rows; r++)
        targets[r] = r == 1 ? -1 : (int32_t)(r * 7 % n);
    for (size_t i = 0; i < n; i++) /* a row far from 0 */
        logits[i] += i % 2 ? 9000 : 8990;
    float *padded = empty_on_gpu(g, rows * step * sizeof *padded);
    void *d = empty_on_gpu(g, rows * step * sizeof(float));
    double *losses = empty_on_gpu(g, rows * sizeof *losses);
    void *t = bytes_on_gpu(g, targets, rows * sizeof *targets);
    for (size_t r = 0; r < rows; r++) /* what is between rows is never written */
        cuda_upload(g->d, padded + r * step, logits + r * n, n * sizeof *logits);
    cuda_loss(g->d, rows, n, step, padded, t, 0.125f, NULL, losses);
    cuda_download(g->d, got, losses, rows * sizeof *got);
    cuda_loss(g->d, rows, n, step, padded, t, 0.125f, d, losses);
    double again[8];
    cuda_download(g->d, again, losses, rows * sizeof *got);
    assert_memory_equal(got, again, rows * sizeof *got);
    grad_loss(&g->cpu, 0, rows, n, logits, targets, 0.125f, want);
    uint64_t h = checksum(1, got, rows * sizeof *got);
    for (size_t r = 0; r < rows; r++) {
        size_t act = cuda_act_bytes(g->d);
        near("a loss", got[r], want[r], 1e-6 * (want[r] + 1));
        float *of = acts_from_gpu(g, (char *)d + r * step * act, n);
        h = checksum(h, of, n * sizeof *of);
        same(g, "d logits", of, logits + r * n, n, 2e-6, true);
        if (g->type == GEMM_BF16)
            continue;
        /* over the logits themselves */
        if (!r)
            cuda_loss(g->d, rows, n, step, padded, t, 0.125f, padded, losses);
        same(g, "d logits in place", from_gpu(g, padded + r * step, n), logits + r * n,
             n, 2e-6, false);
    }
    mem_free(logits);
    return h;
}

static void losses_and_their_gradients(void **state)
{
    (void)state;
    in_every_order(loss, N_LOSS_CASES);
}

/* What is no number is no loss, wherever it is; -infinity is a probability of 0. */
static void logits_that_are_no_numbers(void **state)
{
    (void)state;
    struct gpu g;
    gpu_open(&g, GEMM_F32);
    enum { N = 4000 };
    float *x = numbers(&g, N, 0, 1, false), *gpu_x = on_gpu(&g, x, N);
    int32_t target = 5, *t = bytes_on_gpu(&g, &target, sizeof target);
    double *to = empty_on_gpu(&g, sizeof *to), all, got;
    cuda_loss(g.d, 1, N, N, gpu_x, t, 1, NULL, to);
    cuda_download(g.d, &all, to, sizeof all);
    static const float values[] = {NAN, INFINITY, -INFINITY};
    static const size_t places[] = {0, 1234, N - 1};
    for (size_t i = 0; i < 9; i++) {
        float value = values[i / 3], *at = gpu_x + places[i % 3];
        cuda_upload(g.d, at, &value, sizeof value);
        cuda_loss(g.d, 1, N, N, gpu_x, t, 1, NULL, to);
        cuda_download(g.d, &got, to, sizeof got);
        if (i < 6)
            assert_false(isfinite(got));
        else
            near("without one", got, all, 0.01);
        cuda_upload(g.d, at, x + places[i % 3], sizeof value);
    }
    mem_free(x);
    gpu_close(&g);
}

/* ---- scores ---- */

static uint64_t scores(struct gpu *g, size_t index)
{
    size_t rows = loss_cases[index].rows, n = loss_cases[index].n;
    size_t step = (n + 7) / 8 * 8;
    struct cuda_score got[8], *to = empty_on_gpu(g, sizeof got);
    float *l = numbers(g, rows * step, 0, 3, false),
          *b = numbers(g, rows * step, 0, 3, false);
    int32_t targets[8];
    for (size_t i = 0; i < rows * step; i++)
        b[i] += 0.01f * (float)(i % 13);
    l[n / 2] = l[n - 1] = b[n / 3] = b[n / 2] = 50; /* the first of equals */
    for (size_t r = 0; r < rows; r++)
        targets[r] = r == 1 ? -1 : (int32_t)(r * 7 % n);
    float *gpu_l = on_gpu(g, l, rows * step), *gpu_b = on_gpu(g, b, rows * step);
    void *t = bytes_on_gpu(g, targets, rows * sizeof *targets);
    for (int with_base = 0; with_base < 2; with_base++) {
        cuda_score(g->d, rows, n, step, gpu_l, with_base ? gpu_b : NULL, t, to);
        cuda_download(g->d, got, to, rows * sizeof *got);
        for (size_t r = 0; r < rows; r++) {
            size_t best, base_best;
            const float *x = l + r * step, *y = b + r * step;
            double lse = score_log_sum_exp(x, n, &best);
            double base_lse = score_log_sum_exp(y, n, &base_best);
            double nll = targets[r] < 0 ? 0 : lse - (double)x[targets[r]];
            near("-log p", got[r].nll, nll, 1e-12 * (fabs(nll) + 10));
            assert_int_equal(got[r].best, best);
            if (!with_base)
                continue;
            nll = targets[r] < 0 ? 0 : base_lse - (double)y[targets[r]];
            near("the base's -log p", got[r].base_nll, nll, 1e-12 * (fabs(nll) + 10));
            assert_int_equal(got[r].base_best, base_best);
            near("KL", got[r].kl, score_kl(y, base_lse, x, lse, n), 1e-11);
        }
    }
    mem_free(l);
    mem_free(b);
    return checksum(1, got, rows * sizeof *got);
}

static void scores_of_evaluation(void **state)
{
    (void)state;
    in_every_order(scores, N_LOSS_CASES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_and_its_gradients),
        cmocka_unit_test(attention_slopes),
        cmocka_unit_test(losses_and_their_gradients),
        cmocka_unit_test(logits_that_are_no_numbers),
        cmocka_unit_test(scores_of_evaluation),
    };
    return cmocka_run_group_tests_name("cuda_attention", tests, NULL, NULL);
}
