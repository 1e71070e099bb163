/* The loaded model, seen from inside the library: shape, weights in place, tokenizer.
 * The public face is include/runt/runt.h. */
#ifndef RUNT_MODEL_H
#define RUNT_MODEL_H

#include "back/cpu_ops.h"
#include "base/mem.h"
#include "fmt/shape.h"
#include "gguf/gguf.h"
#include "runt/runt.h"
#include "sample/sample.h"
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

/* Rows that are looked up, not multiplied, as the file has them. */
struct model_table {
    const struct fmt_info *fmt;
    const uint8_t *data;
    size_t row_bytes;   /* of one row (R4: its share of a tile) */
    struct cpu_low low; /* of tokens, where the head is not this table; else there */
};

struct model_adapter {
    char *path;
    float scale;
    uint32_t rank;   /* its highest */
    bool other_base; /* made for another model than this */
    uint64_t print, n_weights;
};

struct runt_model {
    struct gguf *file; /* mapped; matrices are used where they lie, or packed */
    struct tok *tok;
    struct model_tokens *tokens; /* for samplers */
    struct gpt2_shape shape;
    char *name, *chat_template; /* template NULL when there is none */
    uint64_t n_weights;
    const struct kern_table *kern;
    struct arena vectors; /* norms and biases as floats */
    struct model_table token_embd, position_embd;
    struct cpu_matrix head;
    struct model_norm output_norm;
    struct model_block *blocks;     /* [n_layer] */
    struct model_adapter *adapters; /* [n_adapters] */
    size_t n_adapters, low_rank;    /* the highest of a matrix, of all adapters */
};

/* The shape that a GGUF file states, checked against sane limits; errors name the key.
 */
int model_read_shape(const struct gguf *g, struct gpt2_shape *out,
                     struct runt_err *err);

/* The same of a checkpoint of a training run (src/train/checkpoint.h), which is no
 * model: it says so by its architecture. */
#define MODEL_ARCH_CHECKPOINT "gpt2-checkpoint"
int model_read_checkpoint_shape(const struct gguf *g, struct gpt2_shape *out,
                                struct runt_err *err);

/* The vocabulary in a GGUF file.  Strings are borrowed from the file; free with
 * tok_vocab_free. */
int model_read_vocab(const struct gguf *g, struct tok_vocab *out, struct runt_err *err);

/* Of the weights: names, shapes and a sample of every tensor; and of all adapters. */
uint64_t model_fingerprint(const struct runt_model *m);

/* What a GPT-2 of this shape holds, in the model file's order: tensor i < n_tensors. */
size_t model_n_tensors(const struct gpt2_shape *s);
void model_tensor_at(const struct gpt2_shape *s, size_t i, char name[static 64],
                     unsigned *n_dims, uint64_t *n_cols, uint64_t *n_rows);

/* The metadata of a GPT-2 model file, in a fixed order.  The vocabulary must have
 * n_vocab tokens (tok_vocab_pad). */
void model_write_meta(struct gguf_writer *w, const struct gpt2_shape *s,
                      const struct tok_vocab *v, const char *name);

/* ---- tokens for samplers (model_sampler.c) ---- */

struct model_tokens;
int model_tokens_new(struct model_tokens **out, struct runt_err *err);
void model_tokens_free(struct model_tokens *t); /* NULL is fine */

/* ---- random models (model_random.c) ---- */

/* A source of random weights as GPT-2 starts training with (normal, deviation 0.02,
 * that of the residual projections divided by sqrt(2 n_layer), positions 0.01; gains 1,
 * biases 0), the same for a seed on every machine and in any order of reading. */
struct model_random;
int model_random_open(const struct gpt2_shape *s, uint64_t seed,
                      struct model_random **out, struct runt_err *err);
const struct tensor_source *model_random_source(const struct model_random *r);
void model_random_close(struct model_random *r); /* NULL is fine */

/* ---- sessions ---- */

/* A sequence's cache: blocks of KERN_ATTN_BLOCK positions; a block holds what each
 * layer keeps of them (cpu_ops.h, kern_attn.h).  So a prefix is one run of memory, and
 * what no token has reached is never touched. */
struct session_cache {
    size_t stripe_bytes; /* keys or values of a head, KERN_STRIPE positions */
    size_t layer_bytes, block_bytes, seq_bytes;
    uint8_t *base; /* [n_seqs][seq_bytes] */
};

struct session_thread {
    struct kern_act *act; /* for one token */
    float *block;
    float *low; /* [low_rank] */
    void *attn;
};

/* Someone who looks at what the products read, for calibration: called by every thread
 * i of n, all of them at the same place, with x [n_tokens][n_cols] complete.  `which`
 * is MODEL_TAPS * layer + one of the four, or MODEL_TAPS * n_layer for the head.  Of a
 * model whose matrices are floats; a tapped session makes no logits. */
enum { MODEL_TAP_QKV, MODEL_TAP_ATTN_OUTPUT, MODEL_TAP_UP, MODEL_TAP_DOWN, MODEL_TAPS };
struct model_tap {
    void (*fn)(void *ctx, unsigned i, unsigned n, size_t which, const float *x,
               size_t n_tokens, size_t n_cols);
    void *ctx;
};

struct runt_session {
    const struct runt_model *model;
    const struct model_tap *tap; /* or NULL */
    struct pool *pool;
    uint32_t n_ctx, n_batch, n_seqs, n_logits;
    uint32_t n_last; /* tokens of the last pass */
    size_t last_row; /* of logits: the last token, at last_pos, of step 0, last_seq */
    uint32_t last_seq, last_pos;
    enum kern_kv kv;
    bool all_logits;
    struct cpu_account account;
    struct arena arena;
    struct session_cache cache;
    uint32_t *pos;   /* [n_seqs] */
    int32_t *tokens; /* [n_seqs][n_ctx], what each timeline holds */
    float *x, *h;    /* [n_batch][n_embd] */
    float *qkv;      /* [n_batch][3 * n_embd] */
    float *ff;       /* [n_batch][n_ff] */
    double *sum;     /* [n_embd], of an embedding */
    struct cpu_buffer
        input; /* act [n_batch][groups], x [n_batch][n_embd], low [n_batch][low_rank] */
    struct session_thread *threads; /* [n_threads] */
    float *logits;                  /* [n_batch or n_logits][n_vocab] */
    struct cpu_span *spans;         /* [n_batch] */
    size_t *out;                    /* [n_batch] */
};

/* One forward pass: n tokens of several sequences, each behind what its cache holds. */
struct model_pass {
    struct runt_session *session;
    const int32_t *tokens; /* [n], the spans' tokens in order */
    size_t n;
    const struct cpu_span *spans;
    size_t n_spans;
    const size_t *out;       /* [n_out]: tokens whose logits are wanted, ascending */
    size_t n_out, first_row; /* their first row in session->logits */
    bool embed; /* instead, the final norm's output of every token to session->h */
    /* what attention reads and does in one layer; model_forward fills them in */
    uint64_t cache_bytes, attention_ops;
};
void model_forward(struct model_pass *p);

#endif
