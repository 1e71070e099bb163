/* runt: load a GPT-2-class model file and talk with it.
 *
 *     runt_model    an immutable loaded model with its tokenizer; share it freely
 *     runt_session  one timeline over a model: its cache and position; one owner
 *     runt_sampler  turns logits into the next token, repeatably for a seed
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

typedef struct runt_session runt_session;

struct runt_session_options {
    uint32_t n_ctx;   /* positions, 0: the model's; more than the model's is an error */
    uint32_t n_batch; /* most tokens in one forward pass, 0: 64 */
    uint32_t n_threads; /* 0: one for each physical core */
    bool all_logits; /* keep the logits of every token of a pass, not only the last */
};
struct runt_session_options runt_session_defaults(void);

/* `o` may be NULL: the defaults. */

int runt_session_open(const runt_model *m, const struct runt_session_options *o,
                      runt_session **out, struct runt_err *err);
void runt_session_close(runt_session *s); /* NULL is fine */

/* Feed n tokens (1 or more) at the session's position.  Longer inputs are cut into
 * passes of n_batch; the results do not depend on the cut or on the number of threads.
 * Errors: RUNT_E_FULL when they do not fit the context (nothing is fed), RUNT_E_INVALID
 * for an id outside the vocabulary. */
int runt_session_feed(runt_session *s, const int32_t *tokens, size_t n,
                      struct runt_err *err);
uint32_t runt_session_pos(const runt_session *s); /* tokens fed so far */
uint32_t runt_session_n_ctx(const runt_session *s);
/* Forget every token from position pos on; pos <= runt_session_pos. */
void runt_session_rewind(runt_session *s, uint32_t pos);
/* Logits [n_vocab] after the last token fed; with all_logits, after token i of the last
 * pass of at most n_batch tokens.  Valid from one feed to the next; a session that was
 * never fed has none. */
const float *runt_session_logits(const runt_session *s);
const float *runt_session_logits_at(const runt_session *s, size_t i);

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

#ifdef __cplusplus
}
#endif
#endif
