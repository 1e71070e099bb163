/* Block layouts, shared by the table and the files that own one each. */
#ifndef RUNT_FMT_IMPL_H
#define RUNT_FMT_IMPL_H

#include "fmt/fmt.h"

enum { QK = 32 }; /* numbers in a block of Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 and IQ4_NL */

struct q8_0 {   /* value = d * q */
    uint16_t d; /* f16 */
    int8_t q[QK];
};
_Static_assert(sizeof(struct q8_0) == 34, "Q8_0 is 34 bytes");

/* Element j sits in the low nibble of q[j], element j + 16 in the high one. */
struct q4_0 { /* value = d * (q - 8) */
    uint16_t d;
    uint8_t q[QK / 2];
};
_Static_assert(sizeof(struct q4_0) == 18, "Q4_0 is 18 bytes");

struct q4_1 { /* value = d * q + m */
    uint16_t d, m;
    uint8_t q[QK / 2];
};
_Static_assert(sizeof(struct q4_1) == 20, "Q4_1 is 20 bytes");

/* As Q4_0 and Q4_1, and the fifth bit of element j is bit j of high. */
struct q5_0 { /* value = d * (q - 16) */
    uint16_t d;
    uint8_t high[QK / 8], q[QK / 2];
};
_Static_assert(sizeof(struct q5_0) == 22, "Q5_0 is 22 bytes");

struct q5_1 { /* value = d * q + m */
    uint16_t d, m;
    uint8_t high[QK / 8], q[QK / 2];
};
_Static_assert(sizeof(struct q5_1) == 24, "Q5_1 is 24 bytes");

struct iq4_nl { /* value = d * iq4_nl_values[q], q as in Q4_0 */
    uint16_t d;
    uint8_t q[QK / 2];
};
_Static_assert(sizeof(struct iq4_nl) == 18, "IQ4_NL is 18 bytes");

/* ---- 256 numbers a block; k_quants.c and ternary.c say where the bits are ---- */

enum { QK_K = 256 };

struct q2_k { /* value = d * scale * q - m * min: 16 scales and minima of 4 bits */
    uint8_t scale_min[QK_K / 16], low[QK_K / 4];
    uint16_t d, m;
};
_Static_assert(sizeof(struct q2_k) == 84, "Q2_K is 84 bytes");

struct q3_k { /* value = d * (scale - 32) * (q - 4): 16 scales of 6 bits */
    uint8_t high[QK_K / 8], low[QK_K / 4], scale[12];
    uint16_t d;
};
_Static_assert(sizeof(struct q3_k) == 110, "Q3_K is 110 bytes");

struct q4_k { /* value = d * scale * q - m * min: 8 scales and minima of 6 bits */
    uint16_t d, m;
    uint8_t scale_min[12], low[QK_K / 2];
};
_Static_assert(sizeof(struct q4_k) == 144, "Q4_K is 144 bytes");

struct q5_k { /* as Q4_K */
    uint16_t d, m;
    uint8_t scale_min[12], high[QK_K / 8], low[QK_K / 2];
};
_Static_assert(sizeof(struct q5_k) == 176, "Q5_K is 176 bytes");

struct q6_k { /* value = d * scale * (q - 32): 16 scales of 8 bits */
    uint8_t low[QK_K / 2], high[QK_K / 4];
    int8_t scale[QK_K / 16];
    uint16_t d;
};
_Static_assert(sizeof(struct q6_k) == 210, "Q6_K is 210 bytes");

struct tq1_0 { /* value = d * (q - 1), five q to a byte of q5, four to one of q4 */
    uint8_t q5[48], q4[4];
    uint16_t d;
};
_Static_assert(sizeof(struct tq1_0) == 54, "TQ1_0 is 54 bytes");

struct tq2_0 { /* value = d * (q - 1) */
    uint8_t q[QK_K / 4];
    uint16_t d;
};
_Static_assert(sizeof(struct tq2_0) == 66, "TQ2_0 is 66 bytes");

/* ---- one scale and few bits, in the order of the numbers ---- */

enum { QK_1 = 128, QK_2 = 64 };

struct q1_0 { /* value = bit ? d : -d */
    uint16_t d;
    uint8_t q[QK_1 / 8];
};
_Static_assert(sizeof(struct q1_0) == 18, "Q1_0 is 18 bytes");

struct q2_0 { /* value = d * (q - 1) */
    uint16_t d;
    uint8_t q[QK_2 / 4];
};
_Static_assert(sizeof(struct q2_0) == 18, "Q2_0 is 18 bytes");

typedef void fmt_encode_fn(const float *x, void *blocks, size_t n);
typedef void fmt_decode_fn(const void *blocks, float *x, size_t n);
typedef void fmt_to_q8_0_fn(const void *blocks, void *q8_0, size_t n);

fmt_encode_fn fmt_q8_0_encode, fmt_q4_0_encode, fmt_q4_1_encode, fmt_q5_0_encode,
    fmt_q5_1_encode, fmt_iq4_nl_encode;
fmt_decode_fn fmt_q8_0_decode, fmt_q4_0_decode, fmt_q4_1_decode, fmt_q5_0_decode,
    fmt_q5_1_decode, fmt_iq4_nl_decode, fmt_q2_k_decode, fmt_q3_k_decode,
    fmt_q4_k_decode, fmt_q5_k_decode, fmt_q6_k_decode, fmt_tq1_0_decode,
    fmt_tq2_0_decode, fmt_q1_0_decode, fmt_q2_0_decode;
fmt_to_q8_0_fn fmt_q5_0_to_q8_0, fmt_iq4_nl_to_q8_0, fmt_tq1_0_to_q8_0,
    fmt_tq2_0_to_q8_0, fmt_q1_0_to_q8_0, fmt_q2_0_to_q8_0;

/* Decoding by way of Q8_0, for those that fit into it: blocks of block_len (at most
 * 256) numbers in block_bytes. */
void fmt_decode_by_q8_0(fmt_to_q8_0_fn *to_q8_0, size_t block_len, size_t block_bytes,
                        const void *blocks, float *x, size_t n);

/* R4: whole tiles; a row of them. */
void fmt_r4_encode(size_t n_cols, size_t n_rows, const float *x, void *tiles);
void fmt_r4_decode_row(size_t n_cols, const void *tiles, size_t row, float *out);

#endif
