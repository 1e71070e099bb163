/* Block layouts, shared by the table and the files that own one each. */
#ifndef RUNT_FMT_IMPL_H
#define RUNT_FMT_IMPL_H

#include "fmt/fmt.h"

enum { QK = 32 }; /* numbers in a block of Q8_0, Q4_0 and Q4_1 */

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

enum { QK_K = 256 };

struct q6_k { /* value = d * scale * (q - 32); q6_k.c says where the bits of q are */
    uint8_t low[QK_K / 2], high[QK_K / 4];
    int8_t scale[QK_K / 16];
    uint16_t d; /* f16 */
};
_Static_assert(sizeof(struct q6_k) == 210, "Q6_K is 210 bytes");

void fmt_q6_k_decode(const void *blocks, float *x, size_t n);
void fmt_q8_0_encode(const float *x, void *blocks, size_t n);
void fmt_q8_0_decode(const void *blocks, float *x, size_t n);
void fmt_q4_0_encode(const float *x, void *blocks, size_t n);
void fmt_q4_0_decode(const void *blocks, float *x, size_t n);
void fmt_q4_1_encode(const float *x, void *blocks, size_t n);
void fmt_q4_1_decode(const void *blocks, float *x, size_t n);
/* Whole tiles; a row of them. */
void fmt_r4_encode(size_t n_cols, size_t n_rows, const float *x, void *tiles);
void fmt_r4_decode_row(size_t n_cols, const void *tiles, size_t row, float *out);

#endif
