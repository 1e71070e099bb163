/* Owns the questions to the processor and to the scheduler. */
#include "base/cpu.h"

#include "base/err.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

static const char *const level_names[] = {"ref", "avx2", "avx512", "neon"};

const char *cpu_level_name(enum cpu_level level)
{
    return level_names[level];
}

#if defined(__x86_64__)
/* Not a name that clang 14's __builtin_cpu_supports knows. */
static int has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

static enum cpu_level best(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
        !has_f16c())
        return CPU_REF;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vnni"))
        return CPU_AVX512;
    return CPU_AVX2;
#elif defined(__aarch64__)
    return CPU_NEON;
#else
    return CPU_REF;
#endif
}

int cpu_detect(enum cpu_level *out, struct runt_err *err)
{
    enum cpu_level have = best();
    const char *want = getenv("RUNT_CPU");
    if (!want || !*want) {
        *out = have;
        return 0;
    }
    for (unsigned i = 0; i < sizeof level_names / sizeof *level_names; i++) {
        if (strcasecmp(want, level_names[i]))
            continue;
        enum cpu_level l = (enum cpu_level)i;
        if (l != CPU_REF && (l > have || (l == CPU_NEON) != (have == CPU_NEON)))
            return err_set(err, RUNT_E_INVALID,
                           "RUNT_CPU=%s: this processor has only %s", want,
                           level_names[have]);
        *out = l;
        return 0;
    }
    return err_set(err, RUNT_E_INVALID,
                   "RUNT_CPU=%s: not one of ref, avx2, avx512, neon", want);
}

/* Distinct (package, core) pairs among the CPUs of our affinity mask.  Where /sys does
 * not tell, every CPU counts. */
unsigned cpu_n_cores(void)
{
#if defined(__linux__)
    cpu_set_t set;
    if (!sched_getaffinity(0, sizeof set, &set)) {
        unsigned n = 0;
        long seen[CPU_SETSIZE];
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
            if (!CPU_ISSET(cpu, &set))
                continue;
            long id[2] = {-1, cpu};
            static const char *const names[2] = {"physical_package_id", "core_id"};
            for (int k = 0; k < 2; k++) {
                char path[96];
                snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/%s",
                         cpu, names[k]);
                FILE *f = fopen(path, "r");
                if (f && fscanf(f, "%ld", &id[k]) != 1)
                    id[k] = k ? cpu : -1;
                if (f)
                    fclose(f);
            }
            long key = id[0] * 65536 + id[1];
            unsigned j = 0;
            while (j < n && seen[j] != key)
                j++;
            if (j == n)
                seen[n++] = key;
        }
        if (n)
            return n;
    }
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (unsigned)n : 1;
}
