/* Row lengths that both the test and the micro-benchmark of the kernels use: the widths
 * of GPT-2's matrices (embedding and feed-forward of the small and XL models) and of
 * one attention head.  And the way both reach a kernel by name. */
#ifndef RUNT_TESTS_KERN_SHAPES_H
#define RUNT_TESTS_KERN_SHAPES_H

#include "kern/kern.h"

static const size_t kern_model_lengths[] = {64, 768, 1600, 3072, 6400};

static const struct {
    const char *name;
    enum fmt_type type;
    size_t block_len, block_bytes;
} kern_dots[] = {
    {"dot_f32", FMT_F32, 1, 4},     {"dot_f16", FMT_F16, 1, 2},
    {"dot_bf16", FMT_BF16, 1, 2},   {"dot_q8_0", FMT_Q8_0, 32, 34},
    {"dot_q4_0", FMT_Q4_0, 32, 18}, {"dot_q4_1", FMT_Q4_1, 32, 20},
};
enum {
    N_MODEL_LENGTHS = sizeof kern_model_lengths / sizeof *kern_model_lengths,
    N_DOTS = sizeof kern_dots / sizeof *kern_dots,
};

#endif
