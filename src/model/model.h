/* The loaded model, seen from inside the library: shape, weights in place, tokenizer.
 * The public face is include/runt/runt.h. */
#ifndef RUNT_MODEL_H
#define RUNT_MODEL_H

#include "back/cpu_ops.h"
#include "base/mem.h"
#include "fmt/shape.h"
#include "gguf/gguf.h"
#include "runt/runt.h"
#include "tok/tok.h"

struct model_linear {
    struct cpu_matrix weight; /* [n_out][n_in] */
    const float *bias;        /* [n_out] */
};

struct model_norm {
    const float *gain, *bias; /* [n_embd] */
};

struct model_block {
    struct model_norm attn_norm, ffn_norm;
    struct model_linear qkv, attn_output, ffn_up, ffn_down;
};

struct runt_model {
    struct gguf *file; /* mapped; matrices are used where they lie */
    struct tok *tok;
    struct gpt2_shape shape;
    char *name, *chat_template; /* template NULL when there is none */
    uint64_t n_weights;
    const struct kern_table *kern;
    struct arena vectors; /* norms and biases as floats */
    struct cpu_matrix token_embd, position_embd, head;
    struct model_norm output_norm;
    struct model_block *blocks; /* [n_layer] */
};

/* The shape that a GGUF file states, checked against sane limits; errors name the key.
 */
int model_read_shape(const struct gguf *g, struct gpt2_shape *out,
                     struct runt_err *err);

/* The vocabulary in a GGUF file.  Strings are borrowed from the file; free with
 * tok_vocab_free. */
int model_read_vocab(const struct gguf *g, struct tok_vocab *out, struct runt_err *err);

/* What a GPT-2 of this shape holds, in the model file's order: tensor i < n_tensors. */
size_t model_n_tensors(const struct gpt2_shape *s);
void model_tensor_at(const struct gpt2_shape *s, size_t i, char name[static 64],
                     unsigned *n_dims, uint64_t *n_cols, uint64_t *n_rows);

/* The metadata of a GPT-2 model file, in a fixed order.  The vocabulary must have
 * n_vocab tokens (tok_vocab_pad). */
void model_write_meta(struct gguf_writer *w, const struct gpt2_shape *s,
                      const struct tok_vocab *v, const char *name);

/* ---- random models (model_random.c) ---- */

/* A source of random weights as GPT-2 starts training with (normal, deviation 0.02,
 * that of the residual projections divided by sqrt(2 n_layer), positions 0.01; gains 1,
 * biases 0), the same for a seed on every machine and in any order of reading. */
struct model_random;
int model_random_open(const struct gpt2_shape *s, uint64_t seed,
                      struct model_random **out, struct runt_err *err);
const struct tensor_source *model_random_source(const struct model_random *r);
void model_random_close(struct model_random *r); /* NULL is fine */

/* One forward pass: n tokens from position pos on, through the session's cache. */
struct runt_session {
    const struct runt_model *model;
    struct cpu cpu;
    uint32_t n_ctx, n_batch, pos, n_last; /* n_last: tokens of the last pass */
    bool all_logits;
    struct arena arena;
    float *keys, *values; /* [n_layer][n_ctx][n_embd] */
    float *x, *h, *tmp;   /* [n_batch][n_embd] */
    float *qkv;           /* [n_batch][3 * n_embd] */
    float *ff;            /* [n_batch][n_ff] */
    float *scores;        /* [n_threads][n_ctx] */
    struct kern_act *act; /* [n_batch][max(n_embd, n_ff) / 32] */
    float *logits;        /* [n_batch or 1][n_vocab] */
};
void model_forward(struct runt_session *s, const int32_t *tokens, size_t n);

#endif
