/* runt: load a GPT-2-class model file and talk with it.
 *
 *     runt_model    an immutable loaded model with its tokenizer; share it freely
 *     runt_session  one timeline over a model: its cache and position; one owner
 *     runt_sampler  turns logits into the next token, repeatably for a seed
 *     runt_template how a conversation becomes tokens
 *     runt_generate draws an answer; runt_stream makes text of its tokens
 *
 * Functions that can fail return 0 or a RUNT_E_* code and fill *err (may be NULL).
 * Nothing here prints, exits or aborts on input.
 */
#ifndef RUNT_H
#define RUNT_H

#include "runt/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- model ---- */

typedef struct runt_model runt_model;

/* Map a GGUF model file.  Errors: RUNT_E_NOTFOUND, RUNT_E_IO, RUNT_E_FORMAT (damaged),
 * RUNT_E_UNSUPPORTED (another architecture or tensor type). */
int runt_model_load(const char *path, runt_model **out, struct runt_err *err);
void runt_model_free(runt_model *m); /* after its sessions; NULL is fine */

struct runt_model_info {
    const char *name; /* general.name, or "" */
    uint32_t n_vocab, n_ctx, n_embd, n_head, n_layer, n_ff;
    uint64_t n_weights;        /* numbers in all tensors */
    uint64_t file_bytes;       /* of the whole file, tokenizer included */
    int32_t bos, eos;          /* token ids, -1 when there is none */
    const char *chat_template; /* tokenizer.chat_template, NULL when there is none */
};
void runt_model_info(const runt_model *m, struct runt_model_info *out);

/* ---- adapters ---- */

/* From now on the model computes with an adapter, a GGUF file as `runt train --lora`
 * and llama.cpp's converter write it (LoRA: Hu et al. 2021): each matrix that it names
 * gives `scale` times a product of low rank more, in floats, whatever the type of its
 * weights. Several may be added; the chat template becomes that of the last that has
 * one.  Before the model's first session is opened.  Errors: RUNT_E_NOTFOUND,
 * RUNT_E_IO, RUNT_E_FORMAT (damaged), RUNT_E_INVALID (not an adapter, of another shape,
 * a scale that is no number), RUNT_E_UNSUPPORTED (another architecture or kind),
 * RUNT_E_NOMEM; the model is as it was then. */
int runt_model_adapter(runt_model *m, const char *path, float scale,
                       struct runt_err *err);

struct runt_adapter_info {
    const char *path; /* as it was named */
    float scale;
    uint32_t rank;      /* its matrices' highest */
    uint64_t n_weights; /* numbers in all tensors */
    bool other_base;    /* it says that it was made for another model: the norms or the
                         * biases, which no conversion changes, are not this one's */
};
/* The adapters so far, at most max of them; returns how many there are. */
size_t runt_model_adapters(const runt_model *m, struct runt_adapter_info *out,
                           size_t max);

/* ---- tokens ---- */

/* Text to ids; with `special`, names of control tokens in the text become their ids.
 * *ids is freed with runt_free. */
int runt_tokenize(const runt_model *m, const char *text, size_t n, bool special,
                  int32_t **ids, size_t *n_ids, struct runt_err *err);
/* The bytes of one token (borrowed, *n of them; may be part of a UTF-8 sequence). */
const char *runt_token_bytes(const runt_model *m, int32_t id, size_t *n);
bool runt_token_is_control(const runt_model *m, int32_t id);
void runt_free(void *p);

/* ---- session ---- */

/* A session holds one or more sequences, each a timeline of tokens with a cache of its
 * own; a forward pass may carry tokens of many of them.  For one model file, logits are
 * the same bits whatever shares a pass, however a text is cut into passes, on any
 * number of threads and on every processor.  One thread at a time may use a session;
 * several sessions may share a model. */
typedef struct runt_session runt_session;

/* Numbers of the key/value cache: half precision; 8 bits with a scale for each head and
 * position; float.  AUTO is float for a model of floats, half precision for one in
 * blocks. */
enum runt_kv { RUNT_KV_AUTO, RUNT_KV_F16, RUNT_KV_Q8, RUNT_KV_F32 };

struct runt_session_options {
    uint32_t n_ctx;   /* positions, 0: the model's; more than the model's is an error */
    uint32_t n_batch; /* most tokens in one forward pass, 0: 256 (64: all_logits) */
    uint32_t n_threads; /* 0: one for each physical core */
    uint32_t n_seqs;    /* 0: 1 */
    enum runt_kv kv;
    bool all_logits; /* keep the logits of every token of a pass, not only the last */
    bool profile;    /* take the time of each operation */
};
struct runt_session_options runt_session_defaults(void);

/* `o` may be NULL: the defaults. */
int runt_session_open(const runt_model *m, const struct runt_session_options *o,
                      runt_session **out, struct runt_err *err);
void runt_session_close(runt_session *s); /* NULL is fine */

/* Feed n tokens (1 or more) to sequence 0.  Longer inputs are cut into passes of
 * n_batch.  Errors: RUNT_E_FULL when they do not fit the context (nothing is fed),
 * RUNT_E_INVALID for an id outside the vocabulary. */
int runt_session_feed(runt_session *s, const int32_t *tokens, size_t n,
                      struct runt_err *err);
uint32_t runt_session_pos(const runt_session *s); /* tokens that sequence 0 holds */
uint32_t runt_session_n_ctx(const runt_session *s);
const runt_model *runt_session_model(const runt_session *s);
/* Forget every token of sequence 0 from position pos on; pos <= runt_session_pos. */
void runt_session_rewind(runt_session *s, uint32_t pos);
/* Logits [n_vocab] after the last token fed; with all_logits, after token i of the last
 * pass of at most n_batch tokens.  Valid from one feed to the next; a session that was
 * never fed has none. */
const float *runt_session_logits(const runt_session *s);
const float *runt_session_logits_at(const runt_session *s, size_t i);

/* ---- many sequences ---- */

struct runt_step {
    uint32_t seq;
    const int32_t *tokens; /* [n], n >= 1 */
    size_t n;
};

/* Feed each step's tokens to its sequence, all in as few passes as n_batch allows; a
 * sequence may stand in one step only.  The logits after the last token of step i are
 * runt_session_logits_at(s, i).  Errors as of runt_session_feed, the line names the
 * step; nothing is fed then.  Not for a session with all_logits. */
int runt_session_step(runt_session *s, const struct runt_step *steps, size_t n_steps,
                      struct runt_err *err);

uint32_t runt_session_n_seqs(const runt_session *s);
uint32_t runt_session_seq_pos(const runt_session *s, uint32_t seq);
void runt_session_seq_rewind(runt_session *s, uint32_t seq, uint32_t pos);
/* The tokens that a sequence holds, [runt_session_seq_pos]. */
const int32_t *runt_session_seq_tokens(const runt_session *s, uint32_t seq);

/* Cut sequence `seq` to what it has in common with the beginning of tokens [n]; returns
 * how many that is.  Only the rest needs feeding; where that is nothing, the last token
 * is cut off, too, because its logits are wanted (n >= 1). */
uint32_t runt_session_match(runt_session *s, uint32_t seq, const int32_t *tokens,
                            size_t n);
/* Make sequence `to` begin with the first n tokens of `from`, without computing them
 * again (n <= runt_session_seq_pos(s, from)). */
void runt_session_copy(runt_session *s, uint32_t from, uint32_t to, uint32_t n);

/* Write a sequence (tokens and cache) to a file, which appears only when complete, and
 * read it back into a session of the same model and kind of cache.  The context may
 * differ when the tokens fit.  Errors of restore: RUNT_E_NOTFOUND, RUNT_E_IO,
 * RUNT_E_FORMAT (no such file, damaged), RUNT_E_INVALID (another model or kind),
 * RUNT_E_FULL; the sequence is as before then.  No logits come back: match and feed. */
int runt_session_save(const runt_session *s, uint32_t seq, const char *path,
                      struct runt_err *err);
int runt_session_restore(runt_session *s, uint32_t seq, const char *path,
                         struct runt_err *err);

/* ---- where the time goes ---- */

struct runt_profile_row {
    const char *name;    /* of the operation */
    double seconds;      /* on the first thread; 0 without the option `profile` */
    uint64_t bytes, ops; /* weights and cache read, multiply-adds times two */
};
/* The rows so far, at most max of them; returns how many there are. */
size_t runt_session_profile(const runt_session *s, struct runt_profile_row *rows,
                            size_t max);
void runt_session_profile_reset(runt_session *s);

/* ---- sampler ---- */

typedef struct runt_sampler runt_sampler;

/* Applied in this order: repeat penalty, top-k, top-p, min-p, temperature. */
struct runt_sampler_options {
    float temp;           /* 0: greedy */
    int32_t top_k;        /* 0: off */
    float top_p;          /* 1: off */
    float min_p;          /* 0: off */
    float repeat_penalty; /* 1: off */
    int32_t repeat_last;  /* tokens that the penalty looks back on, at most 4096 */
    uint64_t seed;
};
struct runt_sampler_options runt_sampler_defaults(void);

/* `o` may be NULL: the defaults; n_vocab is the model's. */

int runt_sampler_new(const struct runt_sampler_options *o, uint32_t n_vocab,
                     runt_sampler **out, struct runt_err *err);
void runt_sampler_free(runt_sampler *s); /* NULL is fine */
/* Tell the sampler of a token in the text (prompt or answer) for the repeat penalty. */
void runt_sampler_accept(runt_sampler *s, int32_t token);
/* Forget the tokens accepted so far (a new text); the random numbers go on. */
void runt_sampler_forget(runt_sampler *s);
/* The next token.  Logits that are not numbers give RUNT_E_FORMAT: the model is broken.
 */
int runt_sampler_pick(runt_sampler *s, const float *logits, int32_t *token,
                      struct runt_err *err);

/* ---- conversations ---- */

struct runt_message {
    const char *role; /* "system", "user" or "assistant" */
    const char *content;
    size_t n_content;
};

/* How a conversation is written down for a model; static, never freed. */
typedef struct runt_template runt_template;

/* By name; NULL when unknown.  "none" is for a base model: it feeds the words as they
 * are, and an answer continues them. */
const runt_template *runt_template_find(const char *name);
/* The i-th, NULL behind the last. */
const runt_template *runt_template_at(size_t i);
/* The one that the file's tokenizer.chat_template means: NULL when there is none, or
 * none that we know. */
const runt_template *runt_template_of(const runt_model *m);
const char *runt_template_name(const runt_template *t);
/* Texts that end an answer, [*n]. */
const char *const *runt_template_stops(const runt_template *t, size_t *n);
/* An answer begins with a blank that is not shown, and is no part of its message. */
bool runt_template_skips_space(const runt_template *t);

/* Tokens of a conversation, with `answer` up to where the assistant's next answer
 * begins.  Free *ids with runt_free; *n_ids may be 0.  In the messages, names of
 * control tokens are spelled out, and a line that would begin a turn gets a blank
 * before it. The tokens of a conversation are a prefix of those of the same
 * conversation continued, so that runt_session_match finds what need not be computed
 * again. RUNT_E_INVALID names a message with another role. */
int runt_template_apply(const runt_template *t, const runt_model *m,
                        const struct runt_message *messages, size_t n, bool answer,
                        int32_t **ids, size_t *n_ids, struct runt_err *err);

/* ---- text on its way out ---- */

/* Bytes of tokens in; valid UTF-8 out, held back where a character is unfinished or a
 * stop text may be beginning.  Nothing is allocated once it is there. */
typedef struct runt_stream runt_stream;

/* Gets n bytes of valid UTF-8, no character cut; not NUL-terminated.  Non-zero: stop.
 */
typedef int runt_text_fn(void *ctx, const char *text, size_t n);

/* The stop texts are copied; 1 to 4096 bytes each, else RUNT_E_INVALID.  With
 * skip_space, a blank that the text begins with is left out. */
int runt_stream_new(const char *const *stops, size_t n_stops, bool skip_space,
                    runt_stream **out, struct runt_err *err);
void runt_stream_free(runt_stream *s); /* NULL is fine */
/* 1: a stop text is complete: what stands before it has been given to fn, the rest is
 * dropped.  2: fn asked to stop.  0 otherwise. */
int runt_stream_put(runt_stream *s, const char *bytes, size_t n, runt_text_fn *fn,
                    void *ctx);
/* Gives what is held; unfinished UTF-8 becomes U+FFFD.  0, or 2 as above. */
int runt_stream_end(runt_stream *s, runt_text_fn *fn, void *ctx);

/* ---- generate ---- */

enum runt_end {
    RUNT_END_EOS,    /* the model drew a control token */
    RUNT_END_STOP,   /* a stop text */
    RUNT_END_LENGTH, /* n_max tokens, or the context is full */
    RUNT_END_CALLER  /* fn asked to stop */
};

struct runt_generate_options {
    size_t n_max;             /* tokens at most, 0: no limit */
    const char *const *stops; /* [n_stops], as of runt_stream_new */
    size_t n_stops;
    bool ignore_eos; /* show control tokens by name and go on */
    bool skip_space; /* as of runt_stream_new */
    bool slide; /* in a full context, forget the older half and go on; else that is the
                   end */
};

struct runt_generated {
    size_t n_tokens;  /* drawn, the end token included */
    size_t n_dropped; /* forgotten to make room */
    double seconds;   /* of drawing and feeding them */
    enum runt_end end;
};

/* Draw tokens after what was fed to sequence 0 (one token or more), feed them, tell
 * them to the sampler, and hand their text to fn (may be NULL).  fn is called at every
 * token, with n = 0 where there is no text yet, so that it can stop a silent model,
 * too. The session ends up with what was drawn, without the token that ended the
 * answer. `o` may be NULL: no limit, no stops.  Errors: as of runt_sampler_pick,
 * RUNT_E_INVALID when nothing was fed or of runt_stream_new. */
int runt_generate(runt_session *s, runt_sampler *sampler,
                  const struct runt_generate_options *o, runt_text_fn *fn, void *ctx,
                  struct runt_generated *out, struct runt_err *err);

#ifdef __cplusplus
}
#endif
#endif
