/* bfloat16 of CUDA, emulated: rounding to nearest, ties to even; NaN stays NaN. */
#ifndef EMU_CUDA_BF16_H
#define EMU_CUDA_BF16_H

#include <stdint.h>
#include <string.h>

struct __nv_bfloat16 {
    uint16_t bits;
};

static inline struct __nv_bfloat16 __float2bfloat16_rn(float x)
{
    struct __nv_bfloat16 y;
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    if ((u & 0x7fffffff) > 0x7f800000)
        y.bits = 0x7fff;
    else
        y.bits = (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
    return y;
}

static inline float __bfloat162float(struct __nv_bfloat16 x)
{
    uint32_t u = (uint32_t)x.bits << 16;
    float y;
    memcpy(&y, &u, sizeof y);
    return y;
}

#endif
