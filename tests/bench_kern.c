/* Micro-benchmark of the kernels, one thread: not a test, run by hand.
 *
 *   bench_kern [LEVEL...]     levels by name (ref, avx2, ...); default: all that run
 *
 * For each dot product and row length:
 *   hot     GB/s of weight bytes, one vector, the same row again and again (cache)
 *   stream  GB/s of weight bytes, one vector, a matrix of 128 MiB (memory)
 *   1, 64   GOP/s (a multiply and an add are two) for 1 and for 64 vectors, hot row
 * For the others: nanoseconds a number, and GB/s of numbers read and written.
 * Every figure is the best of many short runs, in processor time. */
#include "kern_shapes.h"

#include "base/mem.h"
#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { N_VECTORS = 64, MATRIX_BYTES = 128 << 20, MAX_LEN = 6400 };

struct job {
    const struct kern_table *t;
    kern_dot_fn *dot;
    size_t n, n_rows, row_bytes, n_x, x_stride;
    const uint8_t *w;
    const void *x;
    float *y, *z;
    int kernel;
};

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

/* Seconds that one run of fn takes: the best of 50 measurements of 1 ms or more. */
static double best_time(void (*fn)(const struct job *j), const struct job *j)
{
    double best = 1e30;
    size_t n_runs = 1;
    for (int tries = 0; tries < 50;) {
        double start = now();
        for (size_t i = 0; i < n_runs; i++)
            fn(j);
        double s = now() - start;
        if (s < 0.001) {
            n_runs *= 2;
            continue;
        }
        s /= (double)n_runs;
        best = s < best ? s : best;
        tries++;
    }
    return best;
}

static void run_dot(const struct job *j)
{
    for (size_t r = 0; r < j->n_rows; r++)
        j->dot(j->n, j->w + r * j->row_bytes, j->x, j->x_stride, j->n_x, j->y, 1);
}

static void bench_dot(struct job *j, size_t d, const float *x, struct kern_act *act)
{
    bool int8;
    j->dot = kern_dot_for(j->t, kern_dots[d].type, &int8);
    j->row_bytes = j->n / kern_dots[d].block_len * kern_dots[d].block_bytes;
    j->x = int8 ? (const void *)act : x;
    j->x_stride = int8 ? j->n / KERN_ACT_LEN * sizeof *act : j->n * sizeof *x;
    if (int8)
        j->t->quantize_act(j->n * N_VECTORS, x, act);

    j->n_x = j->n_rows = 1;
    double hot = best_time(run_dot, j);
    j->n_rows = MATRIX_BYTES / j->row_bytes;
    double stream = best_time(run_dot, j) / (double)j->n_rows;
    j->n_rows = 1;
    j->n_x = N_VECTORS;
    double many = best_time(run_dot, j) / N_VECTORS;
    double gigabytes = 1e-9 * (double)j->row_bytes, ops = 2e-9 * (double)j->n;
    printf("%-7s %-12s %5zu %8.1f %8.1f %8.1f %8.1f\n", cpu_level_name(j->t->level),
           kern_dots[d].name, j->n, gigabytes / hot, gigabytes / stream, ops / hot,
           ops / many);
    fflush(stdout);
}

static const struct {
    const char *name;
    unsigned bytes; /* read and written for each number */
} others[] = {{"quantize_act", 5}, {"layer_norm", 16}, {"gelu", 12},     {"softmax", 8},
              {"add", 12},         {"axpy", 12},       {"decode_f16", 6}};

/* z is read, y written; where a kernel works in place y is made anew from z, which
 * costs a copy within the cache. */
static void run_other(const struct job *j)
{
    switch (j->kernel) {
    case 0:
        j->t->quantize_act(j->n, j->z, (void *)j->y);
        break;
    case 1:
        j->t->layer_norm(j->n, j->z, j->z, j->z, 1e-5f, j->y);
        break;
    case 2:
        memcpy(j->y, j->z, j->n * sizeof *j->y);
        j->t->gelu(j->n, j->y, j->z);
        break;
    case 3:
        memcpy(j->y, j->z, j->n * sizeof *j->y);
        j->t->softmax(j->n, j->y, 0.125f);
        break;
    case 4:
        j->t->add(j->n, j->y, j->z);
        break;
    case 5:
        j->t->axpy(j->n, j->y, 1e-6f, j->z);
        break;
    default:
        j->t->decode_f16(j->n, (const void *)j->w, j->y);
    }
}

static void bench_other(struct job *j)
{
    memset(j->y, 0, MAX_LEN * sizeof *j->y);
    double s = best_time(run_other, j);
    printf("%-7s %-12s %5zu %8.3f ns %6.1f GB/s\n", cpu_level_name(j->t->level),
           others[j->kernel].name, j->n, 1e9 * s / (double)j->n,
           1e-9 * (double)(others[j->kernel].bytes * j->n) / s);
}

static bool wanted(enum cpu_level level, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], cpu_level_name(level)))
            return true;
    return argc == 1;
}

int main(int argc, char **argv)
{
    struct runt_err err;
    enum cpu_level best;
    if (cpu_detect(&best, &err)) {
        fprintf(stderr, "bench_kern: %s\n", err.msg);
        return 1;
    }
    /* Bytes 0x2c.. as every weight: f16 and bf16 scales that are small normal numbers.
     */
    uint8_t *w = mem_aligned(MATRIX_BYTES);
    float *x = mem_array(N_VECTORS * MAX_LEN, sizeof *x);
    float *y = mem_array(MAX_LEN, sizeof *y);
    struct kern_act *act = mem_array(N_VECTORS * MAX_LEN / KERN_ACT_LEN, sizeof *act);
    int rc = !w || !x || !y || !act;
    if (rc)
        goto out;
    memset(w, 0x2c, MATRIX_BYTES);
    struct rng rng;
    rng_seed(&rng, 1);
    for (size_t i = 0; i < N_VECTORS * MAX_LEN; i++)
        x[i] = rng_normal(&rng);

    for (enum cpu_level l = CPU_REF; l <= CPU_NEON; l++) {
        struct job j = {.t = kern_table_for(l), .w = w, .y = y, .z = x};
        if (!j.t || l > best || !wanted(l, argc, argv))
            continue;
        printf("level   kernel           n  hot GB/s   stream  GOP/s 1       64\n");
        for (size_t d = 0; d < N_DOTS; d++) {
            for (size_t i = 0; i < N_MODEL_LENGTHS; i++) {
                j.n = kern_model_lengths[i];
                bench_dot(&j, d, x, act);
            }
        }
        for (j.kernel = 0; j.kernel < (int)(sizeof others / sizeof *others);
             j.kernel++) {
            for (size_t i = 0; i < N_MODEL_LENGTHS; i++) {
                j.n = kern_model_lengths[i];
                bench_other(&j);
            }
        }
    }
out:
    if (rc)
        fprintf(stderr, "bench_kern: out of memory\n");
    mem_free(act);
    mem_free(y);
    mem_free(x);
    mem_free(w);
    return rc;
}
