/* The CUDA backend's operations on rows, its products and its optimizer against this
 * processor's, on an emulated GPU (emu/emu.h). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "cuda_fixture.h"
#include "net_fixture.h"

#include <math.h>
#include <string.h>

static float *copy_of(const float *x, size_t n)
{
    float *y = mem_array(n, sizeof *y);
    memcpy(y, x, n * sizeof *y);
    return y;
}

static uint64_t sum_of(uint64_t h, struct gpu *g, const float *x, size_t n)
{
    float *got = from_gpu(g, x, n);
    h = checksum(h, got, n * sizeof *got);
    mem_free(got);
    return h;
}

static uint64_t acts_sum(uint64_t h, struct gpu *g, const void *x, size_t n)
{
    float *got = acts_from_gpu(g, x, n);
    h = checksum(h, got, n * sizeof *got);
    mem_free(got);
    return h;
}

/* ---- products ---- */

/* Against sums in double; c lies in a wider matrix whose rest stays as it was. */
static uint64_t product(struct gpu *g, size_t index)
{
    enum { M = 19, N = 23, K = 31, A_STEP = 37, B_STEP = 41, C_STEP = 29 };
    enum gemm_form form = (enum gemm_form)(index % 3);
    bool wide = index / 3 % 2, add = index / 6 % 2;
    float *a = numbers(g, K * A_STEP, 0, 1, true),
          *b = numbers(g, K * B_STEP, 0, 1.1f, true);
    float *c = numbers(g, M * C_STEP, 0, 1.2f, !wide), *want = copy_of(c, M * C_STEP);
    void *to = wide ? on_gpu(g, c, M * C_STEP) : acts_on_gpu(g, c, M * C_STEP);
    struct cuda_out out = {to, C_STEP, wide, add, 0.5f};
    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < N; j++) {
            double sum = 0;
            for (size_t k = 0; k < K; k++)
                sum += (double)a[form == GEMM_TN ? k * A_STEP + i : i * A_STEP + k] *
                       (double)b[form == GEMM_NT ? j * B_STEP + k : k * B_STEP + j];
            want[i * C_STEP + j] =
                (float)(0.5 * sum + (add ? (double)c[i * C_STEP + j] : 0));
        }
    cuda_product(g->d, form, M, N, K, acts_on_gpu(g, a, K * A_STEP), A_STEP,
                 acts_on_gpu(g, b, K * B_STEP), B_STEP, &out);
    float *got = wide ? from_gpu(g, to, M * C_STEP) : acts_from_gpu(g, to, M * C_STEP);
    same(g, "a product", got, want, M * C_STEP, 1e-6, !wide);
    mem_free(a);
    mem_free(b);
    mem_free(c);
    mem_free(want);
    return 0;
}

static void products_in_every_form(void **state)
{
    (void)state;
    in_every_order(product, 12);
}

/* ---- embeddings ---- */

struct rows_case {
    size_t n_seqs, seq_len, n;
    float share;
};
/* Packs of four or not; more than a row of warps, than a part of a sum; dropout. */
static const struct rows_case rows_cases[] = {
    {1, 1, 1, 0}, {2, 83, 47, 0.2f}, {3, 50, 140, 0}, {2, 70, 36, 0.3f}};
enum { N_ROWS_CASES = sizeof rows_cases / sizeof *rows_cases, VOCAB = 11 };

static const uint32_t keys[] = {0x12345678, 77, 0xfffffff0};

struct drops {
    struct cuda_drop gpu;
    struct grad_drop cpu;
};

static struct drops drops_of(struct gpu *g, const struct rows_case *c, uint32_t place)
{
    return (struct drops){
        {c->share, bytes_on_gpu(g, keys, sizeof keys), place, c->seq_len},
        {c->share, keys, place, c->seq_len}};
}

static uint64_t embeddings(struct gpu *g, size_t index)
{
    const struct rows_case *c = &rows_cases[index];
    size_t rows = c->n_seqs * c->seq_len, n = c->n;
    struct drops d = drops_of(g, c, 5);
    float *table = numbers(g, VOCAB * n, 0, 1, false);
    float *positions = numbers(g, c->seq_len * n, 0, 0.5f, false);
    float *x = mem_array(rows * n, sizeof *x);
    int32_t *tokens = mem_array(rows, sizeof *tokens);
    for (size_t i = 0; i < rows; i++)
        tokens[i] = (int32_t)(i * i % 7 + (i == 9 ? 4 : 0)); /* some occur often */
    grad_embed(&g->cpu, 0, c->n_seqs, c->seq_len, n, tokens, table, positions, x);
    if (c->share > 0)
        grad_drop_rows(&g->cpu, 0, &d.cpu, rows, n, x, x);
    float *to = empty_on_gpu(g, rows * n * sizeof *to);
    cuda_embed(g->d, rows, n, bytes_on_gpu(g, tokens, rows * sizeof *tokens),
               on_gpu(g, table, VOCAB * n), on_gpu(g, positions, c->seq_len * n),
               &d.gpu, to);
    same(g, "embeddings", from_gpu(g, to, rows * n), x, rows * n, 0, false);
    mem_free(table);
    mem_free(positions);
    mem_free(x);
    mem_free(tokens);
    return 0;
}

static uint64_t embeddings_back(struct gpu *g, size_t index)
{
    const struct rows_case *c = &rows_cases[index];
    size_t rows = c->n_seqs * c->seq_len, n = c->n, n_ids = 0;
    struct drops d = drops_of(g, c, 0);
    float *table = numbers(g, VOCAB * n, 0, 1, false);
    float *positions = numbers(g, c->seq_len * n, 0, 0.5f, false);
    float *dx = numbers(g, rows * n, 0, 0.7f, false);
    int32_t *tokens = mem_array(rows, sizeof *tokens);
    int32_t *groups = mem_array(3 * rows + 1, sizeof *groups);
    for (size_t i = 0; i < rows; i++)
        tokens[i] = (int32_t)(i * i % 7);
    int32_t *ids = groups, *starts = ids + rows, *sorted = starts + rows + 1, at = 0;
    for (int32_t t = 0; t < VOCAB; t++) {
        int32_t before = at;
        starts[n_ids] = at;
        for (size_t i = 0; i < rows; i++)
            if (tokens[i] == t)
                sorted[at++] = (int32_t)i;
        if (at > before)
            ids[n_ids++] = t;
    }
    starts[n_ids] = at;
    float *gpu_table = on_gpu(g, table, VOCAB * n);
    float *gpu_positions = on_gpu(g, positions, c->seq_len * n);
    struct cuda_groups groups_ = {n_ids, bytes_on_gpu(g, ids, rows * 4),
                                  bytes_on_gpu(g, starts, (rows + 1) * 4),
                                  bytes_on_gpu(g, sorted, rows * 4)};
    cuda_embed_back(g->d, rows, n, &groups_, on_gpu(g, dx, rows * n), &d.gpu, gpu_table,
                    gpu_positions);
    cuda_embed_back(g->d, rows, n, &groups_, on_gpu(g, dx, rows * n), &d.gpu, NULL,
                    NULL);
    uint64_t h = sum_of(sum_of(1, g, gpu_table, VOCAB * n), g, gpu_positions, n);
    if (c->share > 0)
        grad_drop_rows(&g->cpu, 0, &d.cpu, rows, n, dx, dx);
    grad_embed_back(&g->cpu, 0, c->n_seqs, c->seq_len, n, tokens, dx, table, positions);
    same(g, "d tokens", from_gpu(g, gpu_table, VOCAB * n), table, VOCAB * n, 1e-6,
         false);
    same(g, "d positions", from_gpu(g, gpu_positions, c->seq_len * n), positions,
         c->seq_len * n, 1e-6, false);
    mem_free(table);
    mem_free(positions);
    mem_free(dx);
    mem_free(tokens);
    mem_free(groups);
    return h;
}

static void embeddings_and_their_gradients(void **state)
{
    (void)state;
    in_every_order(embeddings, N_ROWS_CASES);
    in_every_order(embeddings_back, N_ROWS_CASES);
}

/* ---- norms ---- */

static uint64_t norms(struct gpu *g, size_t index)
{
    const struct rows_case *c = &rows_cases[index];
    size_t rows = c->n_seqs * c->seq_len, n = c->n, all = rows * n;
    struct drops d = drops_of(g, c, 3);
    float *residual = numbers(g, all, 0.5f, 1, false),
          *y = numbers(g, all, 0, 0.9f, true);
    float *bias = numbers(g, n, 0, 0.8f, false), *gain = numbers(g, n, 1, 0.2f, false);
    float *norm_bias = numbers(g, n, 0, 0.1f, false);
    float *out = mem_array(all, sizeof *out), *norm = mem_array(all, sizeof *norm);
    float *stat = mem_array(2 * rows, sizeof *stat);
    for (size_t i = 0; i < all; i++)
        out[i] = y[i] + bias[i % n];
    if (c->share > 0)
        grad_drop_rows(&g->cpu, 0, &d.cpu, rows, n, out, out);
    for (size_t i = 0; i < all; i++)
        out[i] += residual[i];
    grad_norm(&g->cpu, 0, rows, n, out, gain, norm_bias, 1e-5f, norm, stat);
    void *gpu_norm = empty_on_gpu(g, all * sizeof *norm);
    float *gpu_stat = empty_on_gpu(g, 2 * rows * sizeof *stat);
    float *gpu_out = empty_on_gpu(g, all * sizeof *out);
    struct cuda_norm w = {on_gpu(g, gain, n), on_gpu(g, norm_bias, n), 1e-5f};
    struct cuda_branch branch = {acts_on_gpu(g, y, all), on_gpu(g, bias, n), d.gpu,
                                 gpu_out};
    cuda_add_norm(g->d, rows, n, &branch, on_gpu(g, residual, all), &w, gpu_norm,
                  gpu_stat);
    same(g, "the residual stream", from_gpu(g, gpu_out, all), out, all, 1e-6, false);
    same(g, "a norm's figures", from_gpu(g, gpu_stat, 2 * rows), stat, 2 * rows, 1e-5,
         false);
    same(g, "a norm", acts_from_gpu(g, gpu_norm, all), norm, all, 1e-5, true);
    uint64_t h = acts_sum(sum_of(1, g, gpu_out, all), g, gpu_norm, all);
    /* the same again; and a norm alone */
    branch.y = NULL;
    cuda_zero(g->d, gpu_norm, all * 2);
    cuda_add_norm(g->d, rows, n, &branch, gpu_out, &w, gpu_norm, gpu_stat);
    assert_true(acts_sum(sum_of(1, g, gpu_out, all), g, gpu_norm, all) == h);
    cuda_zero(g->d, gpu_norm, all * 2);
    cuda_norm_again(g->d, rows, n, gpu_out, &w, gpu_stat, gpu_norm);
    same(g, "a norm again", acts_from_gpu(g, gpu_norm, all), norm, all, 1e-5, true);
    mem_free(residual);
    mem_free(y);
    mem_free(bias);
    mem_free(gain);
    mem_free(norm_bias);
    mem_free(out);
    mem_free(norm);
    mem_free(stat);
    return h;
}

static uint64_t norms_back(struct gpu *g, size_t index)
{
    const struct rows_case *c = &rows_cases[index];
    size_t rows = c->n_seqs * c->seq_len, n = c->n, all = rows * n;
    struct drops d = drops_of(g, c, 3);
    float *x = numbers(g, all, 0.5f, 1, false), *dy = numbers(g, all, 0, 0.9f, true);
    float *gain = numbers(g, n, 1, 0.2f, false), *dx = numbers(g, all, 0, 0.3f, false);
    float *dgain = numbers(g, n, 0, 1.2f, false),
          *dbias = numbers(g, n, 0, 1.3f, false);
    float *scratch = mem_array(all, sizeof *scratch), *stat = mem_array(2 * rows, 4);
    grad_norm(&g->cpu, 0, rows, n, x, gain, gain, 1e-5f, scratch, stat);
    float *gpu_x = on_gpu(g, x, all), *gpu_stat = on_gpu(g, stat, 2 * rows);
    float *gpu_dx = on_gpu(g, dx, all), *gpu_gain = on_gpu(g, gain, n);
    float *gpu_dgain = on_gpu(g, dgain, n), *gpu_dbias = on_gpu(g, dbias, n);
    void *gpu_dy = acts_on_gpu(g, dy, all), *next = empty_on_gpu(g, all * 4);
    float *partial = empty_on_gpu(g, cuda_sum_floats(rows, n) * sizeof *partial);
    cuda_sum_rows(g->d, rows, n, gpu_dy, gpu_x, gpu_stat, partial, gpu_dgain,
                  gpu_dbias);
    cuda_sum_rows(g->d, rows, n, gpu_dy, NULL, NULL, partial, NULL, NULL);
    cuda_norm_back(g->d, rows, n, gpu_x, gpu_gain, gpu_stat, gpu_dy, gpu_dx, &d.gpu,
                   next);
    grad_norm_back(&g->cpu, 0, rows, n, x, gain, stat, dy, dx, dgain, dbias);
    same(g, "dx", from_gpu(g, gpu_dx, all), dx, all, 1e-5, false);
    same(g, "dgain", from_gpu(g, gpu_dgain, n), dgain, n, 1e-5, false);
    same(g, "dbias", from_gpu(g, gpu_dbias, n), dbias, n, 1e-5, false);
    if (c->share > 0)
        grad_drop_rows(&g->cpu, 0, &d.cpu, rows, n, dx, dx);
    same(g, "dx that is passed on", acts_from_gpu(g, next, all), dx, all, 1e-5, true);
    uint64_t h = acts_sum(sum_of(1, g, gpu_dx, all), g, next, all);
    h = sum_of(sum_of(h, g, gpu_dgain, n), g, gpu_dbias, n);
    /* one of the two alone */
    cuda_sum_rows(g->d, rows, n, gpu_dy, gpu_x, gpu_stat, partial, NULL, gpu_dbias);
    grad_norm_back(&g->cpu, 0, rows, n, x, gain, stat, dy, scratch, NULL, dbias);
    same(g, "dbias alone", from_gpu(g, gpu_dbias, n), dbias, n, 1e-5, false);
    cuda_sum_rows(g->d, rows, n, gpu_dy, gpu_x, gpu_stat, partial, gpu_dgain, NULL);
    grad_norm_back(&g->cpu, 0, rows, n, x, gain, stat, dy, scratch, dgain, NULL);
    same(g, "dgain alone", from_gpu(g, gpu_dgain, n), dgain, n, 1e-5, false);
    cuda_sum_rows(g->d, rows, n, gpu_dy, NULL, NULL, partial, NULL, gpu_dbias);
    grad_sum_rows(&g->cpu, 0, rows, n, dy, dbias);
    same(g, "a sum over rows", from_gpu(g, gpu_dbias, n), dbias, n, 1e-5, false);
    cuda_norm_back(g->d, rows, n, gpu_x, gpu_gain, gpu_stat, gpu_dy, gpu_dx, NULL,
                   NULL);
    mem_free(x);
    mem_free(dy);
    mem_free(gain);
    mem_free(dx);
    mem_free(dgain);
    mem_free(dbias);
    mem_free(scratch);
    mem_free(stat);
    return h;
}

static void norms_and_their_gradients(void **state)
{
    (void)state;
    in_every_order(norms, N_ROWS_CASES);
    in_every_order(norms_back, N_ROWS_CASES);
}

/* ---- GELU ---- */

static uint64_t gelus(struct gpu *g, size_t index)
{
    const struct rows_case *c = &rows_cases[index];
    size_t rows = c->seq_len, n = index == 2 ? 1100 : c->n, all = rows * n;
    float *x = numbers(g, all, 0, 2, true), *bias = numbers(g, n, 0, 0.5f, false);
    float *dy = numbers(g, all, 0, 1, true), *y = mem_array(all, sizeof *y);
    static const float extremes[] = {-200, 200, -4096, 4096, 0, -11, 11};
    for (size_t i = 0; i < 7 && i < all; i++)
        x[i] = extremes[i];
    void *gpu_x = acts_on_gpu(g, x, all), *gpu_dy = acts_on_gpu(g, dy, all);
    void *gpu_y = empty_on_gpu(g, all * 4), *again = empty_on_gpu(g, all * 4);
    float *gpu_bias = on_gpu(g, bias, n);
    float *rounded = acts_from_gpu(g, gpu_x, all);
    cuda_gelu(g->d, rows, n, gpu_x, gpu_bias, gpu_y);
    cuda_gelu_back(g->d, rows, n, gpu_x, gpu_bias, gpu_dy, again);
    for (size_t i = 0; i < all; i++)
        rounded[i] += bias[i % n];
    grad_gelu(&g->cpu, 0, rows, n, rounded, y);
    g->cpu.kern->gelu_back(all, rounded, dy);
    float *got = acts_from_gpu(g, gpu_y, all),
          *got_again = acts_from_gpu(g, again, all);
    assert_memory_equal(got, got_again, all * sizeof *got);
    for (size_t i = 0; i < 7 && i < all; i++) /* do not hide the others */
        if (fabsf(y[i]) > 100) {
            assert_true(fabsf(got[i] / y[i] - 1) < 0.01f);
            got[i] = y[i] = 0;
        }
    same(g, "GELU", got, y, all, 1e-6, true);
    mem_free(got_again);
    same(g, "d GELU", acts_from_gpu(g, gpu_dy, all), dy, all, 1e-5, true);
    uint64_t h = acts_sum(acts_sum(1, g, gpu_y, all), g, gpu_dy, all);
    mem_free(x);
    mem_free(bias);
    mem_free(dy);
    mem_free(y);
    mem_free(rounded);
    return h;
}

static void gelu_and_its_slope(void **state)
{
    (void)state;
    in_every_order(gelus, N_ROWS_CASES);
}

/* ---- the optimizer ---- */

enum { PARAMS = 3 };
static const size_t sizes[PARAMS] = {5003, 7, 4096};

static uint64_t adamw(struct gpu *g, size_t index)
{
    struct cuda_piece pieces[8];
    size_t n = 0, n_pieces = 0, start[PARAMS];
    for (int p = 0; p < PARAMS; p++) {
        start[p] = n;
        for (size_t done = 0; done < sizes[p]; done += CUDA_PIECE, n_pieces++)
            pieces[n_pieces] = (struct cuda_piece){
                n + done,
                (uint32_t)(sizes[p] - done < CUDA_PIECE ? sizes[p] - done : CUDA_PIECE),
                p != 1};
        n = (n + sizes[p] + 15) / 16 * 16;
    }
    struct grad_adamw vector = {.beta1 = 0.9f,
                                .beta2 = 0.95f,
                                .eps = 1e-8f,
                                .keep = 1,
                                .rate = 0.01f,
                                .inv_root = 1.7f,
                                .grad_scale = index ? 0.3f : 1};
    struct grad_adamw matrix = vector;
    matrix.keep = 0.99f;
    float *x[4], *gpu[4];
    for (int i = 0; i < 4; i++) {
        x[i] = numbers(g, n, 0, 0.5f + 0.1f * (float)i, false);
        for (size_t k = 0; i == 3 && k < n; k++)
            x[i][k] *= x[i][k]; /* v */
        gpu[i] = on_gpu(g, x[i], n);
    }
    void *h = g->type == GEMM_BF16 ? empty_on_gpu(g, n * 2) : NULL;
    void *table = bytes_on_gpu(g, pieces, n_pieces * sizeof *pieces);
    double *partial = empty_on_gpu(g, (n_pieces + 1) * sizeof *partial), sum, want = 0;
    cuda_squares(g->d, n_pieces, table, gpu[0], partial, partial + n_pieces);
    cuda_download(g->d, &sum, partial + n_pieces, sizeof sum);
    for (int p = 0; p < PARAMS; p++)
        want += g->cpu.kern->sum_squares(sizes[p], x[0] + start[p]);
    assert_true(fabs(sum / want - 1) < 1e-6);
    cuda_adamw(g->d, n_pieces, table, &matrix, &vector, gpu[0], gpu[1], gpu[2], gpu[3],
               h);
    uint64_t check = checksum(1, &sum, sizeof sum);
    for (int p = 0; p < PARAMS; p++) {
        size_t at = start[p];
        g->cpu.kern->adamw(sizes[p], p == 1 ? &vector : &matrix, x[0] + at, x[1] + at,
                           x[2] + at, x[3] + at);
        memset(x[0] + at, 0, sizes[p] * sizeof *x[0]);
        if (h)
            same(g, "w in bfloat16", acts_from_gpu(g, (uint16_t *)h + at, sizes[p]),
                 x[1] + at, sizes[p], 0, true);
    }
    for (int i = 0; i < 4; i++) {
        check = sum_of(check, g, gpu[i], n); /* what is between them stays */
        same(g, "AdamW", from_gpu(g, gpu[i], n), x[i], n, 1e-6, false);
        mem_free(x[i]);
    }
    return check;
}

static void the_optimizers_step(void **state)
{
    (void)state;
    in_every_order(adamw, 2);
}

/* To the nearest, ties to even; numbers that are none stay such. */
static void narrowing(void **state)
{
    (void)state;
    struct gpu g;
    gpu_open(&g, GEMM_BF16);
    float *x = numbers(&g, 5001, 0, 3, false);
    static const uint32_t special[] = {0x7f800000, 0xff800000, 0x7fc00001, 0x00000001,
                                       0x7f7fffff, 0x3f808000, 0x3f818000, 0x80000000};
    memcpy(x, special, sizeof special);
    uint16_t want[5001], got[5001], *to = empty_on_gpu(&g, sizeof want);
    g.cpu.kern->to_bf16(5001, x, want);
    cuda_narrow(g.d, 5001, on_gpu(&g, x, 5001), to);
    cuda_download(g.d, got, to, sizeof got);
    assert_true((got[2] & 0x7fff) > 0x7f80 && (want[2] & 0x7fff) > 0x7f80);
    got[2] = want[2]; /* which NaN is free */
    assert_memory_equal(got, want, sizeof got);
    mem_free(x);
    gpu_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_in_every_form),
        cmocka_unit_test(embeddings_and_their_gradients),
        cmocka_unit_test(norms_and_their_gradients),
        cmocka_unit_test(gelu_and_its_slope),
        cmocka_unit_test(the_optimizers_step),
        cmocka_unit_test(narrowing),
    };
    return cmocka_run_group_tests_name("cuda", tests, NULL, NULL);
}
