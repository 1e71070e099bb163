/* IQ4_NL's grid: 16 values, closer together near 0, which all share a scale. */
#ifndef RUNT_FMT_IQ4_NL_H
#define RUNT_FMT_IQ4_NL_H

#include <stdint.h>

enum { IQ4_NL_CODES = 16 };

static const int8_t iq4_nl_values[IQ4_NL_CODES] = {
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* Half way between a code's value and the one before; multiples of 1/2, so exact. */
static const float iq4_nl_middles[IQ4_NL_CODES] = {
    0,     -115.5f, -93.5f, -74,  -57,   -42, -28.5f, -16,
    -4.5f, 7,       19,     31.5, 45.5f, 61,  79,     101};

/* The code whose value is nearest to v, of two as near the larger one; 0 for NaN. */
static inline int iq4_nl_nearest(float v)
{
    int code = v >= iq4_nl_middles[8] ? 8 : 0;
    code += v >= iq4_nl_middles[code + 4] ? 4 : 0;
    code += v >= iq4_nl_middles[code + 2] ? 2 : 0;
    return code + (v >= iq4_nl_middles[code + 1] ? 1 : 0);
}

#endif
