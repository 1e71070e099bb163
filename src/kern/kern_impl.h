/* What the kernel files share: block sizes, the constants of exp and GELU, and the
 * functions by which each instruction set overwrites its entries of a table. */
#ifndef RUNT_KERN_IMPL_H
#define RUNT_KERN_IMPL_H

#include "kern/kern.h"

enum {
    KERN_LANES = 16,
    KERN_ACT_MAX_Q = 127,
    KERN_ACT_MIN_BITS = 0x04000000, /* 2^-119 as float32: see struct kern_act */
};

/* exp.  LN2_HI has 15 significant bits, so n * LN2_HI is exact; C2..C6 are the minimax
 * polynomial of e^r = 1 + r + C2 r^2 + ... on |r| <= ln(2) / 2, error 2^-28. */
#define KERN_EXP_LO -104.0f /* e^x rounds to 0 */
#define KERN_EXP_HI 89.0f   /* e^x rounds to +inf */
#define KERN_LOG2E 0x1.715476p+0f
#define KERN_LN2_HI 0x1.62e4p-1f
#define KERN_LN2_LO 0x1.7f7d1cp-20f
#define KERN_EXP_C2 0x1.fffffcp-2f
#define KERN_EXP_C3 0x1.55548cp-3f
#define KERN_EXP_C4 0x1.555858p-5f
#define KERN_EXP_C5 0x1.123da6p-7f
#define KERN_EXP_C6 0x1.6ac144p-10f
/* Adding 1.5 * 2^23 rounds to a whole number, which then stands in the low bits. */
#define KERN_ROUND 0x1.8p23f
#define KERN_ROUND_BITS 0x4b400000

/* GELU: -2 u = y * (C1 + C3 y^2), C1 = -2 sqrt(2/pi), C3 = 0.044715 C1. */
#define KERN_GELU_C1 -0x1.988454p+0f
#define KERN_GELU_C3 -0x1.2444f2p-4f

/* The fixed tree of kern.h; uses lane up. */
float kern_ref_lanes_sum(float lane[KERN_LANES]);

/* Each fills its entries on top of those of the level below; *_tile and *_attn are
 * parts of the one that they are named after. */
void kern_fill_ref(struct kern_table *t);
void kern_fill_ref_tile(struct kern_table *t);
void kern_fill_ref_attn(struct kern_table *t);
void kern_fill_avx2(struct kern_table *t);
void kern_fill_avx2_tile(struct kern_table *t);
void kern_fill_avx2_attn(struct kern_table *t);
void kern_fill_avxvnni(struct kern_table *t);
void kern_fill_avx512vl(struct kern_table *t);
void kern_fill_avx512(struct kern_table *t);
void kern_fill_avx512_tile(struct kern_table *t);
void kern_fill_avx512_attn(struct kern_table *t);
void kern_fill_neon(struct kern_table *t);
void kern_fill_neon_dot(struct kern_table *t);
/* Tests: the same files, emulated. */
void kern_fill_avxvnni_simde(struct kern_table *t);
void kern_fill_avx512vl_simde(struct kern_table *t);
void kern_fill_avx512_simde(struct kern_table *t);
void kern_fill_avx512_tile_simde(struct kern_table *t);
void kern_fill_avx512_attn_simde(struct kern_table *t);

/* Whichever of two tables multiplies tiles faster on this processor, in about a quarter
 * of a millisecond. */
const struct kern_table *kern_table_race(const struct kern_table *a,
                                         const struct kern_table *b);

/* A kern_ahead as it is used up, evenly over a loop's turns. */
struct kern_asking {
    const char *a, *b;
    size_t left, per; /* lines; those of one turn */
};

static inline struct kern_asking kern_asking(const struct kern_ahead *ahead, size_t n_q,
                                             size_t n_turns)
{
    if (!ahead || n_q > 1)
        return (struct kern_asking){NULL, NULL, 0, 0};
    return (struct kern_asking){ahead->a, ahead->b, ahead->n,
                                (ahead->n + n_turns - 1) / n_turns};
}

static inline __attribute__((always_inline)) void kern_ask(struct kern_asking *k)
{
    for (size_t i = 0; i < k->per && k->left; i++, k->left--) {
        __builtin_prefetch(k->a, 0, 3);
        __builtin_prefetch(k->b, 0, 3);
        k->a += 64;
        k->b += 64;
    }
}

#endif
