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
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

static const char *const level_names[CPU_N_LEVELS] = {
    "ref", "avx2", "avxvnni", "avx512vl", "avx512", "neon", "neondot"};

const char *cpu_level_name(enum cpu_level level)
{
    return level_names[level];
}

#if defined(__x86_64__)
/* Two that clang 14's __builtin_cpu_supports does not know the names of.  AVX-VNNI uses
 * the registers that the system saves where AVX2 is usable. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool has_avx_vnni(void)
{
    enum { BIT_AVX_VNNI = 1 << 4 };
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && a >= 1 &&
           __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & BIT_AVX_VNNI);
}

bool cpu_has(enum cpu_level level)
{
    __builtin_cpu_init();
    if (level == CPU_REF)
        return true;
    if (level > CPU_AVX512 || !__builtin_cpu_supports("avx2") ||
        !__builtin_cpu_supports("fma") || !has_f16c())
        return false;
    if (level == CPU_AVXVNNI)
        return has_avx_vnni();
    return level == CPU_AVX2 ||
           (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
            __builtin_cpu_supports("avx512vnni"));
}
#elif defined(__aarch64__)
bool cpu_has(enum cpu_level level)
{
    if (level == CPU_NEON_DOT)
        return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
    return level == CPU_REF || level == CPU_NEON;
}
#else
bool cpu_has(enum cpu_level level)
{
    return level == CPU_REF;
}
#endif

bool cpu_is_chosen(void)
{
    const char *want = getenv("RUNT_CPU");
    return want && *want;
}

/* "ref, avx2": all names, or those that the processor has. */
static void list_levels(bool all, char *out, size_t size)
{
    size_t n = 0;
    for (enum cpu_level l = CPU_REF; l < CPU_N_LEVELS && n < size; l++)
        if (all || cpu_has(l))
            n += (size_t)snprintf(out + n, size - n, "%s%s", n ? ", " : "",
                                  level_names[l]);
}

int cpu_detect(enum cpu_level *out, struct runt_err *err)
{
    char names[80];
    const char *want = getenv("RUNT_CPU");
    if (!cpu_is_chosen()) {
        for (enum cpu_level l = CPU_REF; l < CPU_N_LEVELS; l++)
            if (cpu_has(l))
                *out = l;
        return 0;
    }
    for (enum cpu_level l = CPU_REF; l < CPU_N_LEVELS; l++) {
        if (strcasecmp(want, level_names[l]))
            continue;
        if (cpu_has(l)) {
            *out = l;
            return 0;
        }
        list_levels(false, names, sizeof names);
        return err_set(err, RUNT_E_INVALID, "RUNT_CPU=%s: this processor has only %s",
                       want, names);
    }
    list_levels(true, names, sizeof names);
    return err_set(err, RUNT_E_INVALID, "RUNT_CPU=%s: not one of %s", want, names);
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
