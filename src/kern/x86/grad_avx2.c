/* Training's row kernels with AVX2. */
#include "kern/grad_body.h"

#include "base/cpu.h"

static const struct grad_kern table = GRAD_TABLE;

const struct grad_kern *grad_kern_avx2(void)
{
    return cpu_has(CPU_AVX2) ? &table : NULL;
}
