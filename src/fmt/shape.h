/* The sizes and constants of a GPT-2 model: what a checkpoint's config.json and a model
 * file's metadata both state, and all that the shapes of its tensors follow from. */
#ifndef RUNT_FMT_SHAPE_H
#define RUNT_FMT_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

struct gpt2_shape {
    uint32_t n_vocab; /* rows of the token embedding */
    uint32_t n_ctx;   /* longest sequence, rows of the position embedding */
    uint32_t n_embd;  /* width of the residual stream, a multiple of n_head */
    uint32_t n_head, n_layer;
    uint32_t n_ff;    /* width inside the feed-forward block */
    float eps;        /* added to the variance in every layer norm */
    int32_t bos, eos; /* token ids, -1 for none */
    bool tied;        /* logits use the token embedding: there is no output.weight */
};

#endif
