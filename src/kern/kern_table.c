/* Owns the kernel tables: filled once, each instruction set on top of the one below it,
 * and the choice among them.  Nothing else in runt asks what the processor is. */
#include "kern/kern_impl.h"

#include "fmt/r4.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

static struct {
    pthread_once_t filled, chosen;
    struct kern_table level[CPU_N_LEVELS];
    bool have[CPU_N_LEVELS];
    const struct kern_table *choice; /* NULL: err says why */
    struct runt_err err;
} tables = {.filled = PTHREAD_ONCE_INIT, .chosen = PTHREAD_ONCE_INIT};

static void fill_level(enum cpu_level level, enum cpu_level base,
                       void (*fn)(struct kern_table *t))
{
    if (!cpu_has(level)) /* the compiler may have used the level's instructions in fn */
        return;
    tables.level[level] = tables.level[base];
    fn(&tables.level[level]);
    tables.level[level].level = level;
    tables.have[level] = true;
}

static void fill(void)
{
    fill_level(CPU_REF, CPU_REF, kern_fill_ref);
#if defined(__x86_64__)
    fill_level(CPU_AVX2, CPU_REF, kern_fill_avx2);
    fill_level(CPU_AVXVNNI, CPU_AVX2, kern_fill_avxvnni);
    fill_level(CPU_AVX512VL, CPU_AVX2, kern_fill_avx512vl);
    fill_level(CPU_AVX512, CPU_AVX2, kern_fill_avx512);
#elif defined(__aarch64__)
    fill_level(CPU_NEON, CPU_REF, kern_fill_neon);
    fill_level(CPU_NEON_DOT, CPU_NEON, kern_fill_neon_dot);
#endif
}

const struct kern_table *kern_table_for(enum cpu_level level)
{
    pthread_once(&tables.filled, fill);
    return tables.have[level] ? &tables.level[level] : NULL;
}

/* ---- the choice ---- */

enum { RACE_COLS = 768, RACE_VECTORS = 8, RACE_ROUNDS = 8 };

/* Nanoseconds of a few products with one vector and with several; the tile and the
 * vectors stay in the first-level cache.  Of the rounds the first half is not counted:
 * code gets warm in it, and a processor that lowers its clock for wide registers does
 * so. */
static int64_t race_time(const struct kern_table *t, const void *tile,
                         const struct kern_act *x)
{
    int64_t best = INT64_MAX;
    float out[RACE_VECTORS * KERN_TILE_ROWS];
    for (int round = 0; round < RACE_ROUNDS; round++) {
        struct timespec from, to;
        clock_gettime(CLOCK_MONOTONIC, &from);
        for (int i = 0; i < 16; i++)
            t->tile[KERN_TILE_R4](RACE_COLS, 1, tile, x, 1, out, KERN_TILE_ROWS);
        for (int i = 0; i < 4; i++)
            t->tile[KERN_TILE_R4](RACE_COLS, 1, tile, x, RACE_VECTORS, out,
                                  KERN_TILE_ROWS);
        clock_gettime(CLOCK_MONOTONIC, &to);
        int64_t ns = (to.tv_sec - from.tv_sec) * INT64_C(1000000000) +
                     (to.tv_nsec - from.tv_nsec);
        if (round >= RACE_ROUNDS / 2 && ns < best)
            best = ns;
    }
    return best;
}

const struct kern_table *kern_table_race(const struct kern_table *a,
                                         const struct kern_table *b)
{
    _Alignas(64) uint8_t tile[8192];
    struct kern_act x[RACE_VECTORS * RACE_COLS / KERN_GROUP];
    memset(tile, 0x11, sizeof tile);
    memset(x, 0, sizeof x);
    return race_time(a, tile, x) <= race_time(b, tile, x) ? a : b;
}

/* On a processor with AVX-512 the two widths of registers are raced: 512 bits are twice
 * the work an instruction on most, but some lower their clock for them (the first ones)
 * or do them in two halves, and no flag tells.  256 bits run first, because the lower
 * clock stays for a while.  The bits of results are the same, so the choice, which may
 * fall differently from run to run, shows in speed only. */
static void choose(void)
{
    enum cpu_level level;
    if (cpu_detect(&level, &tables.err))
        return;
    const struct kern_table *t = kern_table_for(level);
    tables.choice = t ? t : kern_table_for(CPU_REF);
    if (t && level == CPU_AVX512 && !cpu_is_chosen())
        tables.choice = kern_table_race(kern_table_for(CPU_AVX512VL), t);
}

int kern_table_get(const struct kern_table **out, struct runt_err *err)
{
    pthread_once(&tables.chosen, choose);
    if (!tables.choice) {
        if (err)
            *err = tables.err;
        return tables.err.code;
    }
    *out = tables.choice;
    return 0;
}

kern_dot_fn *kern_dot_for(const struct kern_table *t, enum fmt_type type)
{
    return type == FMT_F32    ? t->dot_f32
           : type == FMT_F16  ? t->dot_f16
           : type == FMT_BF16 ? t->dot_bf16
                              : NULL;
}
