/* Owns the measurements that set the roofline: the read loops and the large product. */
#include "back/roofline.h"

#include "back/cpu_ops.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/rng.h"
#include "fmt/r4.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A run is repeated work that takes this long at least: far above what starting the
 * threads costs.  The figure is what RUNS of them do in all their time, so that a
 * moment in which the machine served others counts here as in the work that is
 * compared. */
enum { RUNS = 7 };
static const double run_seconds = 0.012;

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double roofline_median(double *x, size_t n)
{
    if (!n)
        return 0;
    qsort(x, n, sizeof *x, ascending);
    return (x[(n - 1) / 2] + x[n / 2]) / 2;
}

/* On as many threads as a forward pass would get: fewer where others hold the cores. */
static double timed(struct pool *pool, pool_fn *fn, void *ctx)
{
    double start = cpu_seconds();
    pool_run_free(pool, fn, ctx);
    return cpu_seconds() - start;
}

/* Whether the work is long enough for a run; a single slow one proves nothing. */
static bool long_enough(struct pool *pool, pool_fn *fn, void *ctx)
{
    return timed(pool, fn, ctx) >= run_seconds && timed(pool, fn, ctx) >= run_seconds;
}

/* ---- reading ---- */

/* Four places are read side by side, LINES bytes each at a time: their distance is
 * LINES in a straight walk, a quarter of the part otherwise.  On 4 KB pages the
 * hardware's prefetch stops at the end of each page, so that one walk alone leaves
 * memory idle; from a cache the straight walk can be the faster one.  The better of the
 * two is the machine's. */
enum { PLACES = 4, LINES = 128, UNIT = PLACES * LINES, N_SUMS = 8 };

typedef uint64_t read_fn(const uint8_t *p, size_t n_units, size_t distance,
                         size_t step);

/* Everything in n_units * UNIT bytes is read and reaches the result.  The inner loops
 * have constant bounds and dissolve; the sums are independent, so that loads are what
 * is waited for. */
#define DEFINE_READ(name, attributes, bytes)                                           \
    typedef uint64_t name##_vec                                                        \
        __attribute__((vector_size(bytes), aligned(bytes), may_alias));                \
    attributes static uint64_t name(const uint8_t *p, size_t n_units, size_t distance, \
                                    size_t step)                                       \
    {                                                                                  \
        enum { PER = LINES / bytes };                                                  \
        name##_vec sum[N_SUMS] = {{0}};                                                \
        for (size_t i = 0; i < n_units; i++, p += step) {                              \
            for (size_t k = 0; k < PLACES; k++) {                                      \
                const name##_vec *v = (const void *)(p + k * distance);                \
                for (size_t j = 0; j < PER; j++)                                       \
                    sum[(k * PER + j) % N_SUMS] ^= v[j];                               \
            }                                                                          \
        }                                                                              \
        for (size_t k = 1; k < N_SUMS; k++)                                            \
            sum[0] ^= sum[k];                                                          \
        uint64_t all = 0;                                                              \
        for (size_t k = 0; k < bytes / sizeof all; k++)                                \
            all ^= sum[0][k];                                                          \
        return all;                                                                    \
    }

DEFINE_READ(read_16, , 16)
#if defined(__x86_64__)
DEFINE_READ(read_32, __attribute__((target("avx2"))), 32)
DEFINE_READ(read_64, __attribute__((target("avx512f"))), 64)
#endif

static read_fn *widest(enum cpu_level level)
{
#if defined(__x86_64__)
    if (level == CPU_AVX512 || level == CPU_AVX512VL)
        return read_64;
    if (level == CPU_AVX2 || level == CPU_AVXVNNI)
        return read_32;
#endif
    (void)level;
    return read_16;
}

struct reading {
    read_fn *read;
    uint8_t *buffer;
    size_t bytes; /* a multiple of UNIT */
    size_t passes;
    bool straight;
    unsigned n;                               /* threads of the last run */
    uint64_t expected, sum[POOL_MAX_THREADS]; /* of the words read, xor */
};

/* Every word tells where it stands, so that one left out changes the sum. */
static void fill_part(void *ctx, unsigned i, unsigned n)
{
    struct reading *r = ctx;
    size_t begin, end;
    uint64_t sum = 0;
    pool_range(r->bytes, UNIT, i, n, &begin, &end);
    for (size_t at = begin; at < end; at += sizeof sum) {
        uint64_t word = (at + 1) * 0x9e3779b97f4a7c15u;
        memcpy(r->buffer + at, &word, sizeof word);
        sum ^= word;
    }
    r->sum[i] = sum;
    if (!i)
        r->n = n;
}

static void read_part(void *ctx, unsigned i, unsigned n)
{
    struct reading *r = ctx;
    size_t begin, end;
    uint64_t sum = 0;
    pool_range(r->bytes, UNIT, i, n, &begin, &end);
    size_t part = end - begin;
    for (size_t k = 0; k < r->passes; k++) {
        sum ^= r->straight
                   ? r->read(r->buffer + begin, part / UNIT, LINES, UNIT)
                   : r->read(r->buffer + begin, part / UNIT, part / PLACES, LINES);
        /* the next pass reads again, whatever the compiler knows of this one */
        __asm__ volatile("" ::"r"(r->buffer) : "memory");
    }
    r->sum[i] = sum;
    if (!i)
        r->n = n;
}

static uint64_t sum_of(const struct reading *r)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < r->n; i++)
        sum ^= r->sum[i];
    return sum;
}

int roofline_bandwidth(const struct kern_table *kern, struct pool *pool, size_t bytes,
                       double *bytes_per_second, struct runt_err *err)
{
    if (bytes < ROOFLINE_MIN_BYTES)
        return err_set(err, RUNT_E_INVALID,
                       "bandwidth of a buffer of %zu bytes: %d at least", bytes,
                       ROOFLINE_MIN_BYTES);
    struct reading r = {.read = widest(kern->level), .bytes = bytes / UNIT * UNIT};
    double best = 0;
    bool all_read = true;
    r.buffer = mem_aligned(r.bytes);
    if (!r.buffer)
        return err_nomem(err, "the buffer that bandwidth is measured with");
    pool_run(pool, fill_part, &r);
    r.expected = sum_of(&r);
    for (int straight = 0; straight < 2; straight++) {
        double took = 0;
        r.straight = straight;
        /* an odd number of passes, so that the sums do not cancel */
        for (r.passes = 1; !long_enough(pool, read_part, &r);)
            r.passes = 2 * r.passes + 1;
        for (int k = 0; k < RUNS; k++)
            took += timed(pool, read_part, &r);
        all_read = all_read && sum_of(&r) == r.expected;
        double here = (double)r.bytes * (double)(RUNS * r.passes) / took;
        best = here > best ? here : best;
    }
    mem_free(r.buffer);
    if (!all_read)
        return err_set(err, RUNT_E_IO, "memory does not hold what was written to it");
    *bytes_per_second = best;
    return 0;
}

/* ---- multiplying ---- */

enum { N_COLS = 4096, N_ROWS = 4096, N_VECTORS = 512 };

struct product {
    const struct kern_table *kern;
    uint8_t *tiles;       /* [N_ROWS / 16][tile_bytes] */
    struct kern_act *act; /* [N_VECTORS][groups] */
    float *out;           /* a block for each thread */
    size_t tile_bytes;
    size_t n_tiles;   /* of each thread's part, the first of them */
    size_t n_vectors; /* that meet a block of tiles together */
    unsigned n;       /* threads of the last run, and what each of them did */
    size_t done[POOL_MAX_THREADS];
};

/* Codes and scales of any bits, but row scales of 1: all values are finite. */
static void fill_tiles(void *ctx, unsigned i, unsigned n)
{
    struct product *p = ctx;
    struct rng rng;
    size_t begin, end;
    rng_seed(&rng, i + 1);
    pool_range(N_ROWS, KERN_TILE_ROWS, i, n, &begin, &end);
    for (size_t t = begin / KERN_TILE_ROWS; t < end / KERN_TILE_ROWS; t++) {
        uint8_t *tile = p->tiles + t * p->tile_bytes;
        for (size_t k = 0; k < p->tile_bytes; k += sizeof(uint64_t)) {
            uint64_t word = rng_u64(&rng);
            memcpy(tile + k, &word, sizeof word);
        }
        for (size_t k = 0; k < KERN_TILE_ROWS; k++)
            memcpy(tile + 2 * k, &(uint16_t){0x3c00}, 2);
    }
}

static void fill_act(struct product *p)
{
    float x[N_COLS];
    struct rng rng;
    rng_seed(&rng, 99);
    for (size_t k = 0; k < N_VECTORS; k++) {
        for (size_t j = 0; j < N_COLS; j++)
            x[j] = (float)((double)(rng_u64(&rng) >> 40) * 0x1p-23 - 1);
        p->kern->quantize_act(N_COLS, x, p->act + k * kern_n_groups(N_COLS));
    }
}

/* Blocks of tiles whose output stays in the second-level cache, as in cpu_matmul. */
static void multiply(void *ctx, unsigned i, unsigned n)
{
    struct product *p = ctx;
    size_t begin, end, most = CPU_BLOCK_FLOATS / KERN_TILE_ROWS / p->n_vectors;
    pool_range(N_ROWS / KERN_TILE_ROWS, 1, i, n, &begin, &end);
    if (end - begin > p->n_tiles)
        end = begin + p->n_tiles;
    p->done[i] = end - begin;
    if (!i)
        p->n = n;
    for (size_t k = 0; k < N_VECTORS; k += p->n_vectors) {
        for (size_t t = begin; t < end; t += most) {
            size_t m = end - t < most ? end - t : most;
            p->kern->tile[KERN_TILE_R4](
                N_COLS, m, p->tiles + t * p->tile_bytes,
                p->act + k * kern_n_groups(N_COLS), p->n_vectors,
                p->out + (size_t)i * CPU_BLOCK_FLOATS, m * KERN_TILE_ROWS);
        }
    }
}

/* The rate with this many vectors at a time; *slow when one run of the
 * smallest part took so long that nothing more should be tried. */
static double rate(struct product *p, struct pool *pool, size_t n_vectors, bool *slow)
{
    double took = 0, ops = 0;
    p->n_vectors = n_vectors;
    size_t most = N_ROWS / KERN_TILE_ROWS / pool_n_threads(pool);
    for (p->n_tiles = 1; p->n_tiles < most && !long_enough(pool, multiply, p);)
        p->n_tiles *= 2;
    *slow = p->n_tiles == 1 && timed(pool, multiply, p) > 10 * run_seconds;
    size_t runs = *slow ? 3 : RUNS;
    for (size_t k = 0; k < runs; k++) {
        took += timed(pool, multiply, p);
        for (unsigned i = 0; i < p->n; i++)
            ops += 2.0 * N_COLS * N_VECTORS * KERN_TILE_ROWS * (double)p->done[i];
    }
    return ops / took;
}

int roofline_int8_peak(const struct kern_table *kern, struct pool *pool,
                       double *ops_per_second, struct runt_err *err)
{
    static const size_t n_vectors[] = {64, 128, N_VECTORS};
    struct product p = {.kern = kern,
                        .tile_bytes = kern_tile_bytes(KERN_TILE_R4, N_COLS)};
    size_t n_out;
    int rc = 0;
    p.tiles = mem_aligned(N_ROWS / KERN_TILE_ROWS * p.tile_bytes);
    p.act = mem_array(N_VECTORS * kern_n_groups(N_COLS), sizeof *p.act);
    p.out = size_mul(pool_n_threads(pool), CPU_BLOCK_FLOATS, &n_out)
                ? mem_array(n_out, sizeof *p.out)
                : NULL;
    if (!p.tiles || !p.act || !p.out) {
        rc = err_nomem(err, "the product that the peak is measured with");
        goto out;
    }
    pool_run(pool, fill_tiles, &p);
    fill_act(&p);
    double best = 0;
    bool slow = false;
    for (size_t k = 0; k < sizeof n_vectors / sizeof *n_vectors && !slow; k++) {
        double here = rate(&p, pool, n_vectors[k], &slow);
        best = here > best ? here : best;
    }
    for (size_t k = 0; k < n_out; k++)
        if (!isfinite(p.out[k]))
            rc = err_set(err, RUNT_E_FORMAT, "the product for the peak is not finite");
    if (!rc)
        *ops_per_second = best;
out:
    mem_free(p.tiles);
    mem_free(p.act);
    mem_free(p.out);
    return rc;
}
