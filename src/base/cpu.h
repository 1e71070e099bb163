/* What the processor can do, read once; the environment variable RUNT_CPU lowers it. */
#ifndef RUNT_BASE_CPU_H
#define RUNT_BASE_CPU_H

#include "runt/error.h"

enum cpu_level {
    CPU_REF,    /* the scalar specification, any machine */
    CPU_AVX2,   /* AVX2, FMA, F16C */
    CPU_AVX512, /* AVX-512 F, BW, DQ, VL, VNNI, besides AVX2's */
    CPU_NEON,   /* AArch64 */
};

/* The best level that this processor has and RUNT_CPU (ref, avx2, avx512, neon; unset
 * or empty: all) allows.  A name that is unknown or above the processor is
 * RUNT_E_INVALID. */
int cpu_detect(enum cpu_level *out, struct runt_err *err);
const char *cpu_level_name(enum cpu_level level);

unsigned cpu_n_cores(void); /* physical cores that this process may use, at least 1 */

#endif
