/* What the processor can do, and which of it RUNT_CPU in the
 * environment lets runt use. */
#ifndef RUNT_BASE_CPU_H
#define RUNT_BASE_CPU_H

#include "runt/error.h"

#include <stdbool.h>

/* In the order of preference.  A processor has a set of them: of the two above AVX2,
 * AVX-VNNI and AVX-512, it may have either without the other. */
enum cpu_level {
    CPU_REF,      /* the scalar specification, any machine */
    CPU_AVX2,     /* AVX2, FMA, F16C */
    CPU_AVXVNNI,  /* AVX-VNNI, besides AVX2's */
    CPU_AVX512VL, /* as CPU_AVX512, but the products of tiles in 256-bit registers */
    CPU_AVX512,   /* AVX-512 F, BW, DQ, VL, VNNI, besides AVX2's */
    CPU_NEON,     /* AArch64 */
    CPU_NEON_DOT, /* its dot products of bytes, besides */
    CPU_N_LEVELS
};

bool cpu_has(enum cpu_level level); /* whatever RUNT_CPU is */
const char *cpu_level_name(enum cpu_level level);

/* The level that RUNT_CPU names (ref, avx2, avxvnni, avx512vl, avx512, neon, neondot);
 * where it is unset or empty, the last that this processor has.  A name that is unknown
 * or that the processor lacks is RUNT_E_INVALID. */
int cpu_detect(enum cpu_level *out, struct runt_err *err);
bool cpu_is_chosen(void); /* RUNT_CPU is set and not empty */

unsigned cpu_n_cores(void); /* physical cores that this process may use, at least 1 */

#endif
