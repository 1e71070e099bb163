/* Micro-benchmark of the attention kernels, run by hand: test_kern_attn --bench
 * [LEVEL...].
 *
 * One thread, heads of 64 dimensions with 960 positions; every figure is the best of
 * many short runs in processor time.  GB/s are bytes of the cache; "all" is scores,
 * step and values of one head, again and again (it fits in the second-level cache),
 * "from memory" the same over 128 MiB of heads.  A multiply and an add are two FLOP. */
#include "attn_fixture.h"

#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { DIM = 64, CACHE_BYTES = 128 << 20, BENCH_POS = 960, BENCH_Q = 16 };

struct job {
    const struct kern_attn *a;
    size_t n_heads, n_q, bytes, q_bytes; /* bytes: of a stripe */
    uint8_t *keys, *values, *queries;
    float *s, *o, *x;
    size_t lane;
};

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

/* Seconds that one run of fn takes: the best of 40 measurements of 1 ms or more. */
static double best_time(void (*fn)(struct job *j), struct job *j)
{
    double best = 1e30;
    for (int tries = 0, n_runs = 1; tries < 40;) {
        double start = now();
        for (int i = 0; i < n_runs; i++)
            fn(j);
        double t = now() - start;
        if (t < 0.001) {
            n_runs *= 2;
            continue;
        }
        best = fmin(best, t / n_runs);
        tries++;
    }
    return best;
}

static void run_heads(struct job *j)
{
    for (size_t h = 0; h < j->n_heads; h++) {
        float m[BENCH_Q], l[BENCH_Q], c[BENCH_Q];
        for (size_t i = 0; i < j->n_q; i++)
            m[i] = -INFINITY, l[i] = 0;
        for (size_t b = 0; b < BENCH_POS; b += BLOCK) {
            size_t at = (h * BENCH_POS + b) / STRIPE * j->bytes, size = 4 * j->bytes;
            const char *keys = (const char *)j->keys + at + size,
                       *values = (const char *)j->values + at + size;
            struct kern_ahead first = {keys, values, size / 128},
                              second = {keys + size / 2, values + size / 2, size / 128};
            j->a->scores(DIM, j->n_q, j->queries, 4, j->keys + at, j->s, &first);
            for (size_t i = 0; i < j->n_q; i++)
                c[i] = j->a->step(BLOCK, j->s + i * BLOCK, &m[i], &l[i]);
            j->a->values(DIM, j->n_q, BLOCK, j->s, j->values + at, c, j->o, DIM,
                         &second);
        }
    }
}

static void run_scores(struct job *j)
{
    for (size_t b = 0; b < BENCH_POS; b += BLOCK)
        j->a->scores(DIM, j->n_q, j->queries, 4, j->keys + b / STRIPE * j->bytes, j->s,
                     NULL);
}

static void run_values(struct job *j)
{
    float c[BENCH_Q] = {0};
    for (size_t b = 0; b < BENCH_POS; b += BLOCK)
        j->a->values(DIM, j->n_q, BLOCK, j->s, j->values + b / STRIPE * j->bytes, c,
                     j->o, DIM, NULL);
}

static void run_step(struct job *j)
{
    float m = -INFINITY, l = 0;
    j->lane = (j->lane + 1) % STRIPE;
    j->a->step(BLOCK, j->s + j->lane * BLOCK, &m, &l);
}

static void run_store_key(struct job *j)
{
    j->a->store_key(DIM, j->x, j->keys, j->lane = (j->lane + 1) % STRIPE);
}

static void run_store_value(struct job *j)
{
    j->a->store_value(DIM, j->x, j->values, j->lane = (j->lane + 1) % STRIPE);
}

static void run_query(struct job *j)
{
    j->a->query(DIM, j->x, 0.125f, j->queries);
}

static void bench_cache(const char *level, enum kern_kv kv, struct job *j)
{
    double block_bytes = 2.0 * BENCH_POS / STRIPE * (double)j->bytes;
    j->n_q = j->n_heads = 1;
    double hot = best_time(run_heads, j);
    double scores = best_time(run_scores, j), values = best_time(run_values, j);
    j->n_heads = CACHE_BYTES / 2 / (BENCH_POS / STRIPE * j->bytes);
    double stream = best_time(run_heads, j) / (double)j->n_heads;
    printf("%-8s %-4s decode: scores %5.1f GB/s, values %5.1f, all %5.1f, %6.1f "
           "positions/us; from memory %5.1f GB/s, %6.1f positions/us\n",
           level, kv_names[kv], block_bytes / 2e9 / scores, block_bytes / 2e9 / values,
           block_bytes / 1e9 / hot, BENCH_POS / hot / 1e6, block_bytes / 1e9 / stream,
           BENCH_POS / stream / 1e6);

    double flops = 2.0 * BENCH_POS * DIM * BENCH_Q;
    j->n_q = BENCH_Q, j->n_heads = 1;
    hot = best_time(run_heads, j);
    scores = best_time(run_scores, j), values = best_time(run_values, j);
    printf("%-8s %-4s %d queries: scores %5.1f GFLOP/s, values %5.1f, all %5.1f\n",
           level, kv_names[kv], BENCH_Q, flops / 1e9 / scores, flops / 1e9 / values,
           2 * flops / 1e9 / hot);
    printf("%-8s %-4s ns: store key %.1f, value %.1f, query %.1f, step %.1f\n", level,
           kv_names[kv], 1e9 * best_time(run_store_key, j),
           1e9 * best_time(run_store_value, j), 1e9 * best_time(run_query, j),
           1e9 * best_time(run_step, j));
    fflush(stdout);
}

int bench_attn(int n_names, char **names)
{
    struct job j = {0};
    static float s[BENCH_Q * BLOCK], o[BENCH_Q * DIM], x[DIM];
    j.keys = mem_aligned(CACHE_BYTES / 2);
    j.values = mem_aligned(CACHE_BYTES / 2);
    j.queries = mem_aligned(BENCH_Q * sizeof(float) * DIM);
    if (!j.keys || !j.values || !j.queries || find_levels())
        return 1;
    j.s = s, j.o = o, j.x = x;
    draw_row(NORMAL, DIM, x);
    for (size_t l = 0; l < n_levels; l++) {
        bool wanted = n_names == 0;
        for (int i = 0; i < n_names; i++)
            wanted = wanted || !strcmp(names[i], levels[l].name);
        for (enum kern_kv kv = 0; wanted && kv < KERN_N_KV; kv++) {
            j.a = &levels[l].t.attn[kv];
            j.bytes = kern_stripe_bytes(kv, DIM);
            j.q_bytes = kern_query_bytes(kv, DIM);
            fill_cache(kv, true, NORMAL, DIM, BENCH_POS, BENCH_POS / STRIPE, j.keys);
            fill_cache(kv, false, NORMAL, DIM, BENCH_POS, BENCH_POS / STRIPE, j.values);
            size_t head = BENCH_POS / STRIPE * j.bytes;
            for (size_t at = head; at + head <= CACHE_BYTES / 2; at += head) {
                memcpy(j.keys + at, j.keys, head);
                memcpy(j.values + at, j.values, head);
            }
            for (size_t i = 0; i < BENCH_Q; i++)
                j.a->query(DIM, x, 0.125f, j.queries + i * j.q_bytes);
            bench_cache(levels[l].name, kv, &j);
        }
    }
    mem_free(j.keys);
    mem_free(j.values);
    mem_free(j.queries);
    return 0;
}
