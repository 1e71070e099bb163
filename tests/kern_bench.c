/* Owns the clock of the micro-benchmarks, and the loops that measure what instructions
 * allow; see kern_bench.h. */
#include "kern_bench.h"

#include "kern/kern.h"

#include <stddef.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

/* The best of 50 measurements of 1 ms or more. */
double bench_best(void (*fn)(void *job), void *job)
{
    double best = 1e30;
    size_t n_runs = 1;
    for (int tries = 0; tries < 50;) {
        double start = now();
        for (size_t i = 0; i < n_runs; i++)
            fn(job);
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

bool bench_wanted(enum cpu_level level, int n_names, char **names)
{
    bool wanted = !n_names;
    for (int i = 0; i < n_names; i++)
        wanted = wanted || !strcmp(names[i], cpu_level_name(level));
    return wanted && cpu_has(level) && kern_table_for(level);
}

/* ---- loops of products ---- */

enum { LOOPS = 10000, PRODUCTS = 12 }; /* of chains that do not wait for each other */

#if defined(__x86_64__)
#define EACH_12(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11)
#define REGISTERS                                                                   \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", \
        "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

/* Of an even and an odd register the product is in ymm12 or ymm13. */
#define PAIR(i, t)                                                            \
    "vpmaddubsw %%ymm15, %%ymm14, %%ymm" #t "\n vpaddw %%ymm" #t ", %%ymm" #i \
    ", %%ymm" #i "\n"

static void loop_avx2(void *job)
{
    size_t n = LOOPS;
    (void)job;
    __asm__ volatile("1:\n" PAIR(0, 12) PAIR(1, 13) PAIR(2, 12) PAIR(3, 13) PAIR(4, 12)
                         PAIR(5, 13) PAIR(6, 12) PAIR(7, 13) PAIR(8, 12) PAIR(9, 13)
                             PAIR(10, 12) PAIR(11, 13) "dec %0\n jnz 1b"
                     : "+r"(n)
                     :
                     : "cc", REGISTERS);
}

#define VEX(i) "%{vex%} vpdpbusd %%ymm15, %%ymm14, %%ymm" #i "\n"
#define EVEX(i) "%{evex%} vpdpbusd %%ymm15, %%ymm14, %%ymm" #i "\n"
#define WIDE(i) "vpdpbusd %%zmm15, %%zmm14, %%zmm" #i "\n"

static void loop_avxvnni(void *job)
{
    size_t n = LOOPS;
    (void)job;
    __asm__ volatile("1:\n" EACH_12(VEX) "dec %0\n jnz 1b"
                     : "+r"(n)
                     :
                     : "cc", REGISTERS);
}

static void loop_avx512vl(void *job)
{
    size_t n = LOOPS;
    (void)job;
    __asm__ volatile("1:\n" EACH_12(EVEX) "dec %0\n jnz 1b"
                     : "+r"(n)
                     :
                     : "cc", REGISTERS);
}

static void loop_avx512(void *job)
{
    size_t n = LOOPS;
    (void)job;
    __asm__ volatile("1:\n" EACH_12(WIDE) "dec %0\n jnz 1b"
                     : "+r"(n)
                     :
                     : "cc", REGISTERS);
}
#endif

double bench_limit(enum cpu_level level)
{
    void (*fn)(void *job) = NULL;
    double products = 32; /* of bytes, an instruction */
    (void)level;
#if defined(__x86_64__)
    fn = level == CPU_AVX2       ? loop_avx2
         : level == CPU_AVXVNNI  ? loop_avxvnni
         : level == CPU_AVX512VL ? loop_avx512vl
         : level == CPU_AVX512   ? loop_avx512
                                 : NULL;
    products = level == CPU_AVX512 ? 64 : 32;
#endif
    return fn ? 2e-9 * products * PRODUCTS * LOOPS / bench_best(fn, NULL) : 0;
}
