/* Adapters: files of low-rank changes to a model's matrices, all but the positions
 * (LoRA: Hu et al. 2021), as `runt train --lora` writes and llama.cpp reads them.
 *
 * A GGUF file without weights of its own: general.type "adapter", adapter.type "lora",
 * adapter.lora.alpha (f32), general.architecture that of the model; and for a matrix
 * NAME [out][in] the tensors NAME.lora_a [rank][in] and NAME.lora_b [out][rank], which
 * make y = x NAME^T + scale (x a^T) b^T of it, scale = alpha / rank, or 1 where alpha
 * is 0.  Of the token table, whose rows are looked up, the file calls b lora_a
 * [tokens][rank], and lora_b is a turned, [width][rank]: so llama.cpp has them.  A
 * table that is the head, too, is changed as both.  Ours also has runt.adapter.base,
 * which says what model it was made for, and tokenizer.chat_template where the adapter
 * taught one. */
#ifndef RUNT_MODEL_ADAPTER_H
#define RUNT_MODEL_ADAPTER_H

#include "fmt/shape.h"
#include "fmt/source.h"
#include "gguf/gguf.h"

enum { ADAPTER_PARTS = 4 }; /* of a block: qkv, attn_output, ffn_up, ffn_down */

struct adapter_matrix {
    char name[TENSOR_NAME_MAX]; /* the model's: blk.0.attn_qkv.weight */
    size_t n_in, n_out;
    size_t rank;  /* 0: not adapted */
    double scale; /* alpha / rank */
    float *a, *b; /* [rank][n_in], [n_out][rank] */
};

struct adapter {
    bool has_base;       /* does it say for which model it was made? */
    uint64_t base;       /* adapter_base */
    char *chat_template; /* or NULL */
    uint64_t print;      /* fingerprint of all of it */
    size_t n_matrices;   /* the model's own, in its order: table, blocks, head */
    struct adapter_matrix *matrices;
};

/* An adapter for a model of this shape, all of it read and checked.  Errors: those of
 * gguf_open; RUNT_E_FORMAT (a number that is none, half a pair), RUNT_E_INVALID (a
 * model file; another shape, a rank beyond the matrix), RUNT_E_UNSUPPORTED (another
 * architecture or kind of adapter, a tensor that adapts no matrix). */
int adapter_open(const char *path, const struct gpt2_shape *s, struct adapter **out,
                 struct runt_err *err);
/* The same of a file that is open; it keeps nothing of g. */
int adapter_read(const struct gguf *g, const struct gpt2_shape *s, struct adapter **out,
                 struct runt_err *err);
void adapter_close(struct adapter *a); /* NULL is fine */

/* What tells models apart that have the same shape: their norms and biases, which stay
 * as they are when a model is quantized, pruned, converted, or merged with an adapter.
 */
int adapter_base(const struct tensor_source *weights, const struct gpt2_shape *s,
                 uint64_t *out, struct runt_err *err);

/* The metadata of an adapter for a model with that `base`. */
void adapter_write_meta(struct gguf_writer *w, float alpha, uint64_t base,
                        const char *chat_template);

/* Name the tensors of a matrix's pair; later, in the same order, write them. */
void adapter_add(struct gguf_writer *w, const struct adapter_matrix *m);
int adapter_write(struct gguf_writer *w, const struct adapter_matrix *m,
                  struct runt_err *err);

/* ---- merging ---- */

/* w [n_rows][n_in] += scale b a, b [n_rows][rank]: the product of a number is summed in
 * double and rounded once, with the number. */
void adapter_merge(size_t n_in, size_t n_rows, size_t rank, double scale,
                   const float *a, const float *b, float *w);

/* The weights with adapters merged, each `scales` times, one after another; borrows all
 * that it is given. */
struct adapter_merged;
int adapter_merged_open(const struct tensor_source *weights,
                        struct adapter *const *adapters, const float *scales, size_t n,
                        struct adapter_merged **out, struct runt_err *err);
const struct tensor_source *adapter_merged_source(const struct adapter_merged *m);
void adapter_merged_close(struct adapter_merged *m); /* NULL is fine */

#endif
