/* What the micro-benchmarks of the kernels share.  They are run by hand (make bench),
 * one thread:
 *
 *   test_kern --bench [LEVEL...], test_kern_tile --bench [LEVEL...]
 *
 * with levels by name (ref, avx2, ...), by default all that this machine has.  Every
 * figure is the best of many short runs, in processor time. */
#ifndef RUNT_TESTS_KERN_BENCH_H
#define RUNT_TESTS_KERN_BENCH_H

#include "base/cpu.h"

#include <stdbool.h>

/* Seconds that one run of fn takes. */
double bench_best(void (*fn)(void *job), void *job);

/* Whether a level is among the names (of none, all are) and this machine has it. */
bool bench_wanted(enum cpu_level level, int n_names, char **names);

/* GOP/s (a multiply and an add are two) of the level's product of bytes where nothing
 * but that runs, from register to register: the limit for tiles.  0 where no loop for
 * the level is here. */
double bench_limit(enum cpu_level level);

#endif
