/* What the tests of the kernels share: the levels under test; inputs of every kind, in
 * buffers that end where an unreadable page begins, so that reading past an input is a
 * crash and not luck. */
#ifndef RUNT_TESTS_KERN_FIXTURE_H
#define RUNT_TESTS_KERN_FIXTURE_H

#include "kern_shapes.h"

#include <stdbool.h>

/* Every level that this machine has, but the specification, and those that SIMDe
 * emulates where the build has it and the machine AVX2. */
struct level {
    const char *name;
    struct kern_table t;
};
extern struct level levels[CPU_N_LEVELS + 3];
extern size_t n_levels;
void find_levels(void);

/* Two NaN count as the same: kern.h says why their bits are open. */
bool same(float a, float b);
bool same_act(const struct kern_act *a, const struct kern_act *b);

enum { MAX_N = 6400, MAX_X = 9, GUARD = 16 };
enum { IN_W, IN_X, IN_B, WANT, GOT, N_BUFFERS };

bool make_buffers(void);
void *buffer(int i, size_t bytes); /* the last `bytes` of buffer i, 1 MiB at most */

/* n floats at the end of buffer i after GUARD more, all of them poison. */
float *poisoned(int i, size_t n);
bool is_poison(float f);
bool guards_hold(const float *p); /* those before p */

enum pattern {
    NORMAL,   /* mean 0, variance 1 */
    SMALL,    /* 1e-23: products underflow */
    SINKING,  /* every product of floats underflows to -0 */
    DENORMAL, /* denormal and next to it */
    HUGE_,    /* 1e38: sums overflow */
    ANY,      /* any finite bits */
    EQUAL,    /* 0.7 */
    ZEROS,    /* +0 */
    NEG_ZEROS,
    SPECIAL, /* one in eight is an infinity or NaN */
    N_PATTERNS,
};
extern const char *const pattern_names[];

/* n floats at the end of buffer i. */
float *draw_floats(int i, enum pattern p, size_t n);
/* A row of n floats of the format of a dot product. */
void draw_weights(uint8_t *w, size_t dot, enum pattern p, size_t n);
/* MAX_X vectors in IN_X, each followed by poison but the last. */
char *draw_vectors(enum pattern p, size_t n, size_t *stride);

/* Tiles and activations.  Scales are of the pattern; EQUAL, ZEROS, NEG_ZEROS and HUGE_
 * have the extremes of what codes and activations can be, so that any two of these make
 * the largest sums of either sign. */
void draw_tiles(uint8_t *w, enum kern_tile k, enum pattern p, size_t n_cols,
                size_t n_tiles);
/* One vector of n_cols numbers; the last group is filled up with 0. */
void draw_act(struct kern_act *x, enum pattern p, size_t n_cols);
/* Rows of blocks (not R4), as a file has them. */
void draw_blocks(uint8_t *w, enum kern_tile k, enum pattern p, size_t n_blocks);

#endif
