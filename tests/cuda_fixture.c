#include "cuda_fixture.h"

#include "base/fold.h"
#include "base/mem.h"
#include "base/rng.h"
#include "net_fixture.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

enum { MAX_OPERAND = 1 << 20, MAX_SEQ = 512 };

void gpu_open(struct gpu *g, enum gemm_type type)
{
    struct runt_err err;
    net_need_library();
    *g = (struct gpu){.type = type};
    if (cuda_open(type, &g->d, &err) || pool_create(1, &g->pool, &err) ||
        grad_cpu_init(&g->cpu, g->pool, type, MAX_SEQ, MAX_OPERAND, &err))
        fail_msg("%s", err.msg);
}

void gpu_close(struct gpu *g)
{
    struct runt_err err;
    if (cuda_wait(g->d, &err))
        fail_msg("%s", err.msg);
    for (size_t i = 0; i < g->n_arrays; i++)
        cuda_release(g->d, g->arrays[i]);
    cuda_close(g->d);
    grad_cpu_free(&g->cpu);
    pool_destroy(g->pool);
    const char *trouble = emu_trouble();
    if (trouble)
        fail_msg("%s", trouble);
    assert_int_equal(emu_live(), 0);
}

float *numbers(struct gpu *g, size_t n, float mean, float deviation, bool acts)
{
    float *x = mem_array(n, sizeof *x);
    struct rng rng;
    assert_non_null(x);
    rng_seed(&rng, n * 31 + (uint64_t)(1000 * deviation));
    for (size_t i = 0; i < n; i++)
        x[i] = mean + deviation * rng_normal(&rng);
    if (acts && g->type == GEMM_BF16)
        for (size_t i = 0; i < n; i++) {
            uint16_t h;
            g->cpu.kern->to_bf16(1, x + i, &h);
            g->cpu.kern->from_bf16(1, &h, x + i);
        }
    return x;
}

void *empty_on_gpu(struct gpu *g, size_t bytes)
{
    struct runt_err err;
    void *p = NULL;
    assert_true(g->n_arrays < sizeof g->arrays / sizeof *g->arrays);
    if (cuda_alloc(g->d, bytes, "a test", &p, &err))
        fail_msg("%s", err.msg);
    return g->arrays[g->n_arrays++] = p;
}

void *bytes_on_gpu(struct gpu *g, const void *x, size_t n)
{
    void *p = empty_on_gpu(g, n);
    cuda_upload(g->d, p, x, n);
    return p;
}

float *on_gpu(struct gpu *g, const float *x, size_t n)
{
    return bytes_on_gpu(g, x, n * sizeof *x);
}

void *acts_on_gpu(struct gpu *g, const float *x, size_t n)
{
    if (g->type == GEMM_F32)
        return on_gpu(g, x, n);
    uint16_t *h = mem_array(n, sizeof *h);
    g->cpu.kern->to_bf16(n, x, h);
    void *p = bytes_on_gpu(g, h, n * sizeof *h);
    mem_free(h);
    return p;
}

float *from_gpu(struct gpu *g, const float *x, size_t n)
{
    float *out = mem_array(n, sizeof *out);
    cuda_download(g->d, out, x, n * sizeof *out);
    return out;
}

float *acts_from_gpu(struct gpu *g, const void *x, size_t n)
{
    if (g->type == GEMM_F32)
        return from_gpu(g, x, n);
    uint16_t *h = mem_array(n, sizeof *h);
    float *out = mem_array(n, sizeof *out);
    cuda_download(g->d, h, x, n * sizeof *h);
    g->cpu.kern->from_bf16(n, h, out);
    mem_free(h);
    return out;
}

void same(const struct gpu *g, const char *what, float *got, const float *want,
          size_t n, double tolerance, bool acts)
{
    double most = net_largest(want, n);
    double unit = acts && g->type == GEMM_BF16 ? 0x1p-8 : 0;
    for (size_t i = 0; i < n; i++) {
        double x = (double)got[i], y = (double)want[i];
        if (!(fabs(x - y) <= tolerance * most + unit * fabs(y)))
            fail_msg("%s, number %zu: %.9g, not %.9g (within %.2g)", what, i, x, y,
                     tolerance * most + unit * fabs(y));
    }
    mem_free(got);
}

uint64_t checksum(uint64_t h, const void *x, size_t bytes)
{
    return fold(h, x, bytes);
}

void in_every_order(uint64_t (*fn)(struct gpu *g, size_t index), size_t n)
{
    for (int type = GEMM_F32; type <= GEMM_BF16; type++)
        for (size_t i = 0; i < n; i++) {
            uint64_t first = 0;
            for (int order = EMU_UP; order < EMU_ORDERS; order++) {
                struct gpu g;
                emu_set_order((enum emu_order)order);
                gpu_open(&g, (enum gemm_type)type);
                uint64_t got = fn(&g, i);
                gpu_close(&g);
                emu_set_order(EMU_UP);
                if (order && got != first)
                    fail_msg("case %zu: other bits in another order", i);
                first = got;
            }
        }
}
