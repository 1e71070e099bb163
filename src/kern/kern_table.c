/* Owns the kernel tables: filled once, each instruction set on top of the one below it,
 * and the choice among them.  Nothing else in runt asks what the processor is. */
#include "kern/kern_impl.h"

#include <pthread.h>

enum { N_LEVELS = CPU_NEON + 1 };

static struct {
    pthread_once_t filled, chosen;
    struct kern_table level[N_LEVELS];
    bool have[N_LEVELS];
    const struct kern_table *choice; /* NULL: err says why */
    struct runt_err err;
} tables = {.filled = PTHREAD_ONCE_INIT, .chosen = PTHREAD_ONCE_INIT};

static void fill(void)
{
    kern_fill_ref(&tables.level[CPU_REF]);
    tables.have[CPU_REF] = true;
#if defined(__x86_64__)
    tables.level[CPU_AVX2] = tables.level[CPU_REF];
    kern_fill_avx2(&tables.level[CPU_AVX2]);
    tables.have[CPU_AVX2] = true;
    tables.level[CPU_AVX512] = tables.level[CPU_AVX2];
    kern_fill_avx512(&tables.level[CPU_AVX512]);
    tables.have[CPU_AVX512] = true;
#endif
}

const struct kern_table *kern_table_for(enum cpu_level level)
{
    pthread_once(&tables.filled, fill);
    return tables.have[level] ? &tables.level[level] : NULL;
}

static void choose(void)
{
    enum cpu_level level;
    if (cpu_detect(&level, &tables.err))
        return;
    const struct kern_table *t = kern_table_for(level);
    tables.choice = t ? t : kern_table_for(CPU_REF);
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

kern_dot_fn *kern_dot_for(const struct kern_table *t, enum fmt_type type, bool *int8)
{
    *int8 = type == FMT_Q8_0 || type == FMT_Q4_0 || type == FMT_Q4_1;
    switch (type) {
    case FMT_F32:
        return t->dot_f32;
    case FMT_F16:
        return t->dot_f16;
    case FMT_BF16:
        return t->dot_bf16;
    case FMT_Q8_0:
        return t->dot_q8_0;
    case FMT_Q4_0:
        return t->dot_q4_0;
    case FMT_Q4_1:
        return t->dot_q4_1;
    case FMT_Q6_K:
        break;
    }
    return NULL;
}
