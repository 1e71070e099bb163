/* What the tests of the kernels share: inputs of every kind, in buffers that end where
 * an unreadable page begins, so that reading past a row is a crash and not luck. */
#ifndef RUNT_TESTS_KERN_FIXTURE_H
#define RUNT_TESTS_KERN_FIXTURE_H

#include "kern_shapes.h"

#include <stdbool.h>

enum { MAX_N = 6400, MAX_X = 9, GUARD = 16 };
enum { IN_W, IN_X, IN_B, WANT, GOT, N_BUFFERS };

bool make_buffers(void);
void *buffer(int i, size_t bytes); /* the last `bytes` of buffer i */

/* n floats at the end of buffer i after GUARD more, all of them poison. */
float *poisoned(int i, size_t n);
bool is_poison(float f);

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

bool is_block(size_t dot); /* an index into kern_dots */
/* A row of n weights.  Blocks get scales of the pattern; EQUAL, ZEROS, NEG_ZEROS and
 * HUGE_ have the extremes of what a weight's bits can be. */
void draw_weights(uint8_t *w, size_t dot, enum pattern p, size_t n);
/* MAX_X vectors in IN_X, each followed by poison but the last. */
char *draw_vectors(size_t dot, enum pattern p, size_t n, size_t *stride);

#endif
