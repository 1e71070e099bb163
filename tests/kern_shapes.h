/* What both the tests and the micro-benchmarks of the kernels use: the widths of
 * GPT-2's matrices (embedding and feed-forward of the small and XL models) and of one
 * attention head, and the kernels by name. */
#ifndef RUNT_TESTS_KERN_SHAPES_H
#define RUNT_TESTS_KERN_SHAPES_H

#include "kern/kern.h"

static const size_t kern_model_lengths[] = {64, 768, 1600, 3072, 6400};

static const struct {
    const char *name;
    enum fmt_type type;
    size_t bytes; /* of a number */
} kern_dots[] = {
    {"dot_f32", FMT_F32, 4}, {"dot_f16", FMT_F16, 2}, {"dot_bf16", FMT_BF16, 2}};

static const struct {
    const char *name;
    enum fmt_type type;
    size_t block_bytes; /* of 32 numbers in a file; R4 has no rows of its own */
} kern_tiles[KERN_N_TILES] = {[KERN_TILE_R4] = {"tile_r4", FMT_R4, 0},
                              [KERN_TILE_Q4_0] = {"tile_q4_0", FMT_Q4_0, 18},
                              [KERN_TILE_Q4_1] = {"tile_q4_1", FMT_Q4_1, 20},
                              [KERN_TILE_Q8_0] = {"tile_q8_0", FMT_Q8_0, 34}};
enum {
    N_MODEL_LENGTHS = sizeof kern_model_lengths / sizeof *kern_model_lengths,
    N_DOTS = sizeof kern_dots / sizeof *kern_dots,
};

#endif
