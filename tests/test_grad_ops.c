/* Training's operations over threads: what follows a product in its tiles, products one
 * behind another, and that every place drops other numbers. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rng.h"
#include "net_fixture.h"

#include <math.h>
#include <string.h>

static struct rng rng;

static float *drawn(size_t n)
{
    float *x = mem_array(n, sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++)
        x[i] = rng_normal(&rng);
    return x;
}

static struct grad_cpu opened(unsigned n_threads, enum gemm_type type, size_t seq_len,
                              size_t n_operand)
{
    struct grad_cpu cpu = {0};
    struct pool *pool = NULL;
    struct runt_err err;
    if (pool_create(n_threads, &pool, &err) ||
        grad_cpu_init(&cpu, pool, type, seq_len, n_operand, &err))
        fail_msg("%s", err.msg);
    return cpu;
}

static void closed(struct grad_cpu *cpu)
{
    struct pool *pool = cpu->pool;
    grad_cpu_free(cpu);
    pool_destroy(pool);
}

/* ---- products ---- */

struct work {
    const struct grad_cpu *cpu;
    size_t m, n, k;
    const float *a[2], *b[2];
    float *c[2];
    const struct grad_then *then;
};

static struct grad_matrix rows(const float *f, size_t step)
{
    return (struct grad_matrix){f, NULL, step};
}

static void multiply(void *ctx, unsigned i, unsigned n)
{
    const struct work *w = ctx;
    (void)n;
    for (size_t p = 0; p < 2 && w->a[p]; p++)
        grad_product(w->cpu, i, GEMM_NT, w->m, w->n, w->k, rows(w->a[p], w->k),
                     rows(w->b[p], w->k), false, w->c[p], w->then);
}

/* More than one tile either way; bias, residual, GELU and its slope, dropout. */
static void what_follows_a_product(void **state)
{
    (void)state;
    net_need_library();
    enum { M = 150, N = 301, K = 7, LEN = 50 };
    static const uint32_t keys[] = {5, 6, 7};
    const struct grad_drop drop = {0.3f, keys, 9, LEN};
    float *a = drawn(M * K), *b = drawn(N * K), *bias = drawn(N), *more = drawn(M * N);
    float *sum = mem_array(M * N, sizeof *sum), *want = mem_array(M * N, sizeof *want);
    float *c = mem_array(M * N, sizeof *c), *gelu = mem_array(M * N, sizeof *gelu);
    struct grad_cpu cpu = opened(3, GEMM_F32, LEN, 1);
    const struct grad_kern *kern = cpu.kern;
    for (size_t i = 0; i < M * N; i++) {
        double x = (double)bias[i % N];
        for (size_t k = 0; k < K; k++)
            x += (double)a[i / N * K + k] * (double)b[i % N * K + k];
        sum[i] = (float)x;
    }
    const struct grad_then cases[] = {{.bias = bias},
                                      {.bias = bias, .residual = more},
                                      {.bias = bias, .residual = more, .drop = &drop},
                                      {.bias = bias, .gelu = gelu},
                                      {.bias = bias, .gelu_back = more}};
    for (size_t t = 0; t < sizeof cases / sizeof *cases; t++) {
        struct work w = {&cpu, M, N, K, {a}, {b}, {c}, &cases[t]};
        pool_run(cpu.pool, multiply, &w);
        memcpy(want, sum, M * N * sizeof *want);
        for (size_t r = 0; r < M && cases[t].drop; r++)
            grad_drop_row(&cpu, &drop, r, N, 0, N, want + r * N);
        if (cases[t].residual)
            kern->add(M * N, want, more);
        if (cases[t].gelu_back)
            kern->gelu_back(M * N, more, want);
        for (size_t i = 0; i < M * N; i++)
            assert_true(fabsf(c[i] - want[i]) <= 1e-5f);
        if (cases[t].gelu) {
            kern->gelu(M * N, c, want);
            assert_memory_equal(gelu, want, M * N * sizeof *want);
        }
    }
    closed(&cpu);
    mem_free(a);
    mem_free(b);
    mem_free(bias);
    mem_free(more);
    mem_free(sum);
    mem_free(want);
    mem_free(c);
    mem_free(gelu);
}

/* A second term and a scale, in every form, before what else follows; the operands of
 * the second are rounded as those of the first. */
struct both {
    struct grad_cpu cpu;
    enum gemm_form form;
    size_t m, n, k[2];
    struct grad_matrix a[2], b[2];
    float *c;
    struct grad_then then;
};

static void multiply_both(void *ctx, unsigned i, unsigned n)
{
    const struct both *w = ctx;
    (void)n;
    grad_product(&w->cpu, i, w->form, w->m, w->n, w->k[0], w->a[0], w->b[0], false,
                 w->c, &w->then);
}

static double term(const struct both *w, int t, size_t row, size_t col)
{
    const float *a = w->a[t].f, *b = w->b[t].f;
    double x = 0;
    for (size_t k = 0; k < w->k[t]; k++)
        x += (double)(w->form == GEMM_TN ? a[k * w->m + row] : a[row * w->k[t] + k]) *
             (double)(w->form == GEMM_NT ? b[col * w->k[t] + k] : b[k * w->n + col]);
    return x;
}

/* Floats next to their bfloat16, so that products of both types are one. */
static float *short_numbers(const struct grad_kern *kern, size_t n, uint16_t **h)
{
    float *x = drawn(n);
    *h = mem_array(n, sizeof **h);
    kern->to_bf16(n, x, *h);
    kern->from_bf16(n, *h, x);
    return x;
}

static void a_product_of_two_terms(void **state)
{
    (void)state;
    net_need_library();
    enum { M = 150, N = 301, K = 20, RANK = 3 };
    for (int kind = 0; kind < 6; kind++) {
        struct both w = {.form = (enum gemm_form)(kind % 3),
                         .m = M,
                         .n = N,
                         .k = {K, RANK},
                         .cpu = opened(3, kind / 3 ? GEMM_BF16 : GEMM_F32, 1, N * K)};
        bool bf16 = w.cpu.type == GEMM_BF16;
        float *x[4];
        uint16_t *h[4];
        for (int t = 0; t < 2; t++) {
            x[t] = short_numbers(w.cpu.kern, M * w.k[t], &h[t]);
            x[2 + t] = short_numbers(w.cpu.kern, N * w.k[t], &h[2 + t]);
            w.a[t] = rows(x[t], w.form == GEMM_TN ? M : w.k[t]);
            w.b[t] = rows(x[2 + t], w.form == GEMM_NT ? w.k[t] : N);
            w.b[t].h = bf16 ? h[2 + t] : NULL;
        }
        w.c = mem_array(M * N, sizeof *w.c);
        w.then = (struct grad_then){
            .more_a = w.a[1], .more_b = w.b[1], .more_k = RANK, .scale = 0.5f};
        pool_run(w.cpu.pool, multiply_both, &w);
        for (size_t i = 0; i < M * N; i++) {
            double want = 0.5 * (term(&w, 0, i / N, i % N) + term(&w, 1, i / N, i % N));
            assert_true(fabs((double)w.c[i] - want) <= 2e-5);
        }
        for (int i = 0; i < 4; i++) {
            mem_free(x[i]);
            mem_free(h[i]);
        }
        mem_free(w.c);
        closed(&w.cpu);
    }
}

/* One tile each, so that all threads but one hurry ahead to the next product's
 * operands, which are rounded to where the first product's lie. */
static void products_one_behind_another_in_bf16(void **state)
{
    (void)state;
    net_need_library();
    enum { M = 60, N = 70, K = 4000 };
    struct work w = {.m = M, .n = N, .k = K};
    float *c[2][2];
    for (int p = 0; p < 2; p++) {
        w.a[p] = drawn(M * K);
        w.b[p] = drawn(N * K);
        c[0][p] = mem_array(M * N, sizeof(float));
        c[1][p] = mem_array(M * N, sizeof(float));
    }
    for (unsigned several = 0; several < 2; several++) {
        struct grad_cpu cpu = opened(several ? 3 : 1, GEMM_BF16, 1, N * K);
        w.cpu = &cpu;
        for (int again = 0; again < 5; again++) {
            for (int p = 0; p < 2; p++)
                w.c[p] = c[several][p];
            pool_run(cpu.pool, multiply, &w);
            for (int p = 0; p < 2; p++)
                assert_memory_equal(c[several][p], c[0][p], M * N * sizeof(float));
        }
        closed(&cpu);
    }
    for (int p = 0; p < 2; p++) {
        union {
            const float *from;
            void *to;
        } a = {.from = w.a[p]}, b = {.from = w.b[p]};
        mem_free(a.to);
        mem_free(b.to);
        mem_free(c[0][p]);
        mem_free(c[1][p]);
    }
}

/* ---- dropout ---- */

struct attending {
    const struct grad_cpu *cpu;
    const struct grad_attention *a;
    const float *qkv;
    float *out, *lse;
};

static void attend(void *ctx, unsigned i, unsigned n)
{
    const struct attending *w = ctx;
    (void)n;
    grad_attend(w->cpu, i, w->a, w->qkv, w->out, w->lse);
}

/* Queries and keys of 0 look everywhere alike; values of 1 then give the share of keys
 * that are left, which differs by head, query and sequence. */
static void heads_and_queries_drop_other_keys(void **state)
{
    (void)state;
    net_need_library();
    enum { SEQS = 2, LEN = 70, HEADS = 3, WIDTH = 6 };
    static const uint32_t keys[] = {1, 2};
    const struct grad_attention a = {SEQS, LEN, HEADS, WIDTH, {0.5f, keys, 40, LEN}};
    struct grad_cpu cpu = opened(2, GEMM_F32, LEN, 1);
    float *qkv = mem_array(SEQS * LEN * 3 * WIDTH, sizeof *qkv);
    float *out = mem_array(SEQS * LEN * WIDTH, sizeof *out);
    float *lse = mem_array(SEQS * LEN * HEADS, sizeof *lse);
    for (size_t i = 0; i < SEQS * LEN * 3 * WIDTH; i++)
        qkv[i] = i % (3 * WIDTH) >= 2 * WIDTH;
    pool_run(cpu.pool, attend, &(struct attending){&cpu, &a, qkv, out, lse});
    double mean = 0;
    size_t alike = 0, seqs_alike = 0;
    for (size_t r = 0; r < SEQS * LEN; r++) {
        const float *o = out + r * WIDTH;
        assert_true(o[0] == o[1] && o[2] == o[3] && o[4] == o[5]);
        assert_true(fabsf(lse[r * HEADS] - logf((float)(r % LEN + 1))) < 1e-5f);
        mean += (double)(o[0] + o[2] + o[4]) / (3 * SEQS * LEN);
        alike +=
            r % LEN > 30 && fabsf(o[0] - o[2]) < 1e-6f && fabsf(o[2] - o[4]) < 1e-6f;
        seqs_alike += r < LEN && r > 30 && fabsf(o[0] - out[(r + LEN) * WIDTH]) < 1e-6f;
    }
    assert_true(fabs(mean - 1) < 0.1);
    assert_true(alike < 10 && seqs_alike < 20); /* of 78 and 39 */
    closed(&cpu);
    mem_free(qkv);
    mem_free(out);
    mem_free(lse);
}

static void fill(struct net *n, const char *end, float value)
{
    for (size_t p = 0; p < n->n_params; p++) {
        const struct net_param *q = &n->params[p];
        const char *at = strstr(q->desc.name, end);
        for (size_t i = 0; at && i < net_size(q); i++)
            n->w[q->at + i] = value;
    }
}

/* Both layers of a block answer their bias, 1, whatever they are asked: then the
 * residual stream counts how many of the places so far left a number alone. */
static void every_place_drops_other_numbers(void **state)
{
    (void)state;
    net_need_library();
    enum { SEQS = 2, LEN = 50, WIDTH = 90, ALL = SEQS * LEN * WIDTH };
    static const uint32_t keys[] = {3, 4};
    struct gpt2_shape s = {.n_vocab = 50,
                           .n_ctx = LEN,
                           .n_embd = WIDTH,
                           .n_head = 2,
                           .n_layer = 2,
                           .n_ff = 30,
                           .eps = 1e-5f,
                           .tied = true};
    struct net_weights *weights = net_weights(&s, NULL);
    struct net *n = net_made(
        &(struct net_options){
            .shape = &s, .n_seqs = SEQS, .seq_len = LEN, .dropout = 0.25f},
        2, &weights->source);
    struct tokens t = tokens_random(SEQS, LEN, s.n_vocab);
    struct net_batch b = batch_of(&t);
    b.keys = keys;
    b.learn = false;
    fill(n, "token_embd.weight", 1);
    fill(n, "position_embd.weight", 0);
    fill(n, "attn_output.weight", 0);
    fill(n, "ffn_down.weight", 0);
    fill(n, "attn_output.bias", 1);
    fill(n, "ffn_down.bias", 1);
    net_run(n, &b);
    double one_of_two[2] = {0, 0}, blocks_alike = 0, embedded = 0, alike = 0;
    for (size_t i = 0; i < ALL; i++) {
        long left[3];
        for (size_t k = 0; k < 3; k++)
            left[k] =
                lrintf((n->x[k * ALL + i] - (k ? n->x[(k - 1) * ALL + i] : 0)) * 0.75f);
        assert_in_range(left[0], 0, 1);
        assert_in_range(left[1], 0, 2);
        embedded += left[0] == 1;
        one_of_two[0] += left[1] == 1;
        one_of_two[1] += left[2] == 1;
        blocks_alike += left[1] == left[2];
        alike += (left[1] == 2) == (left[0] == 1);
    }
    /* 9,000 numbers: five deviations are 0.027 at most */
    assert_true(fabs(embedded / ALL - 0.75) < 0.03);
    assert_true(fabs(one_of_two[0] / ALL - 2 * 0.25 * 0.75) < 0.03);
    assert_true(fabs(one_of_two[1] / ALL - 2 * 0.25 * 0.75) < 0.03);
    assert_true(fabs(blocks_alike / ALL -
                     (0.0625 * 0.0625 + 0.375 * 0.375 + 0.5625 * 0.5625)) < 0.03);
    assert_true(fabs(alike / ALL - (0.5625 * 0.75 + 0.4375 * 0.25)) < 0.03);
    net_unmade(n);
    net_weights_free(weights);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_follows_a_product),
        cmocka_unit_test(a_product_of_two_terms),
        cmocka_unit_test(products_one_behind_another_in_bf16),
        cmocka_unit_test(heads_and_queries_drop_other_keys),
        cmocka_unit_test(every_place_drops_other_numbers),
    };
    rng_seed(&rng, 40);
    return cmocka_run_group_tests_name("grad_ops", tests, NULL, NULL);
}
