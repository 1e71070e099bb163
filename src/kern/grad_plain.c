/* Training's row kernels with what every processor of the family has, and the choice
 * of a table. */
#include "kern/grad_body.h"

#include "base/cpu.h"

const struct grad_kern grad_kern_plain = GRAD_TABLE;

const struct grad_kern *grad_kern_get(void)
{
    enum cpu_level level;
#if defined(__x86_64__)
    if (!cpu_detect(&level, NULL) && level != CPU_REF && grad_kern_avx2())
        return grad_kern_avx2();
#endif
    (void)level;
    return &grad_kern_plain;
}

#if !defined(__x86_64__)
const struct grad_kern *grad_kern_avx2(void)
{
    return NULL;
}
#endif
