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
#if defined __GNUC__
#pragma GCC visibility push(default) /* the library hides everything else */
#endif

/* ---- version ---- */

/* Grows by one whenever a program that was built with an older header could not go on
 * with a newer library; the shared library's soname carries it. */
#define RUNT_ABI_VERSION 1
int runt_abi_version(void);     /* RUNT_ABI_VERSION of the library */
const char *runt_version(void); /* "0.1.0" */

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
    uint32_t n_logits;  /* most rows of logits in one call, 0: n_seqs + 32 */
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
/* Forget every token of sequence 0 from position pos on; pos <= runt_session_pos.  Back
 * to a token of the last step whose logits were wanted: runt_session_logits are its. */
void runt_session_rewind(runt_session *s, uint32_t pos);
/* Logits [n_vocab] after the last token fed (by steps: of step 0); with all_logits,
 * _at(i) is after token i of the last pass of at most n_batch tokens.  Valid from one
 * feed to the next; a session that was never fed has none. */
const float *runt_session_logits(const runt_session *s);
const float *runt_session_logits_at(const runt_session *s, size_t i);

/* ---- many sequences ---- */

struct runt_step {
    uint32_t seq;
    const int32_t *tokens; /* [n], n >= 1 */
    size_t n;
    size_t n_logits; /* wanted after each of the last n_logits tokens, 0: 1 */
};

/* Feed each step's tokens to its sequence, all in as few passes as n_batch allows; a
 * sequence may stand in one step only.  Logits lie in rows, runt_session_logits_at(s,
 * row): step 0's from row 0 on, one a token, then step 1's, and so on; so row i is step
 * i's where no step asks for more than one.  All rows together are at most the
 * session's n_logits.  Errors as of runt_session_feed, and RUNT_E_INVALID for more
 * logits than tokens or rows; the line names the step; nothing is fed then.  Not for a
 * session with all_logits. */
int runt_session_step(runt_session *s, const struct runt_step *steps, size_t n_steps,
                      struct runt_err *err);

uint32_t runt_session_n_seqs(const runt_session *s);
uint32_t runt_session_n_logits(const runt_session *s); /* rows of logits */
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

/* ---- embedding ---- */

/* What a text means, as a direction: the mean, over its n tokens, of what the final
 * norm puts out, scaled to length 1, to out [n_embd] (runt_model_info).  Sequence `seq`
 * forgets what it held and holds these tokens then; no logits are made, those of
 * earlier feeds stay.  Errors as of runt_session_feed; the sequence is as before then.
 */
int runt_embed(runt_session *s, uint32_t seq, const int32_t *tokens, size_t n,
               float *out, struct runt_err *err);
/* The same in pieces: feed n tokens behind what the sequence holds, and add what the
 * final norm puts out for each to sum [n_embd]; at the end, scale the sum.  The result
 * is the same bits, however the text is cut. */
int runt_embed_feed(runt_session *s, uint32_t seq, const int32_t *tokens, size_t n,
                    double *sum, struct runt_err *err);
void runt_embed_scale(const double *sum, size_t n_embd, float *out);

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

/* Stages change the logits or narrow the choice, one after the other; then a token is
 * drawn.  docs/SAMPLING.md says what each does and where it comes from.  Equal logits
 * keep the order of their ids, so a seed gives the same text everywhere. */
typedef struct runt_sampler runt_sampler;

struct runt_logit_bias {
    int32_t token;
    float bias; /* added to the logit, at most 1e6 either way; -INFINITY: never */
};

struct runt_sampler_options {
    float temp;           /* 0: greedy */
    int32_t top_k;        /* 0: off */
    float top_p;          /* 1: off */
    float min_p;          /* 0: off */
    float repeat_penalty; /* 1: off */
    int32_t repeat_last;  /* tokens that the penalties look back on, at most 4096 */
    uint64_t seed;
    float typical_p;                           /* 0 and 1: off */
    float frequency_penalty, presence_penalty; /* 0: off; over repeat_last tokens */
    float dry_multiplier;                      /* 0: off */
    float dry_base;                            /* at least 1 */
    int32_t dry_allowed_length;                /* at least 1 */
    int32_t dry_last; /* tokens that DRY looks back on; -1: all, at most 65536 */
    const char *const *dry_breakers; /* [n_dry_breakers] texts, none empty */
    size_t n_dry_breakers;
    int32_t mirostat; /* 0: off, 2: instead of top-k, typical, top-p and min-p */
    float mirostat_tau, mirostat_eta;
    const struct runt_logit_bias *bias; /* [n_bias] */
    size_t n_bias;
    /* The stages and their order, names with ; between them; what is not named is off.
     * NULL: RUNT_SAMPLER_ORDER. */
    const char *order;
};
#define RUNT_SAMPLER_ORDER "penalties;dry;top_k;typ_p;top_p;min_p;temperature"
struct runt_sampler_options runt_sampler_defaults(void);

/* A sampler for a model, which must outlive it.  `o` may be NULL: the defaults; nothing
 * of it is kept.  RUNT_E_INVALID names the option that is out of range. */
int runt_sampler_for(const runt_model *m, const struct runt_sampler_options *o,
                     runt_sampler **out, struct runt_err *err);
/* The same for any logits of n_vocab tokens.  Without a model nothing is known of
 * texts: RUNT_E_INVALID when DRY is on and has breakers. */
int runt_sampler_new(const struct runt_sampler_options *o, uint32_t n_vocab,
                     runt_sampler **out, struct runt_err *err);
void runt_sampler_free(runt_sampler *s); /* NULL is fine */
/* Tell the sampler of a token in the text (prompt or answer) for penalties and DRY. */
void runt_sampler_accept(runt_sampler *s, int32_t token);
/* A new text: forget the tokens accepted so far, what mirostat has learned and how far
 * a grammar has got; the random numbers go on. */
void runt_sampler_forget(runt_sampler *s);
/* The next token.  Errors: RUNT_E_FORMAT for logits that are not numbers (the model is
 * broken); RUNT_E_INVALID when biases and grammar leave no token; RUNT_E_FULL when the
 * grammar is too ambiguous to follow; RUNT_E_NOMEM. */
int runt_sampler_pick(runt_sampler *s, const float *logits, int32_t *token,
                      struct runt_err *err);

/* ---- constrained output ---- */

/* Which texts may come out.  Immutable; any number of samplers may share one. */
typedef struct runt_grammar runt_grammar;

/* GBNF, llama.cpp's notation (docs/SAMPLING.md); RUNT_E_FORMAT names line and column.
 */
int runt_grammar_gbnf(const char *text, size_t n, runt_grammar **out,
                      struct runt_err *err);
/* The JSON values that a JSON schema accepts.  RUNT_E_UNSUPPORTED names a keyword that
 * is not supported and its place, RUNT_E_FORMAT what is wrong with a schema. */
int runt_grammar_json_schema(const char *json, size_t n, runt_grammar **out,
                             struct runt_err *err);
int runt_grammar_json(runt_grammar **out, struct runt_err *err); /* any JSON object */
void runt_grammar_free(runt_grammar *g); /* after its samplers; NULL is fine */

/* From now on only tokens are picked that go on with a text of the grammar, from its
 * beginning; tokens that end an answer only where the text may end.  What is picked,
 * not what is accepted, moves on in the grammar.  NULL: no constraint any more.  `m` is
 * the model of the logits; it and the grammar must outlive the sampler.  Errors:
 * RUNT_E_INVALID for a model that does not fit, RUNT_E_UNSUPPORTED for one whose
 * vocabulary has no token that ends a text, RUNT_E_NOMEM. */
int runt_sampler_constrain(runt_sampler *s, const runt_model *m, const runt_grammar *g,
                           struct runt_err *err);

/* ---- log probabilities ---- */

struct runt_logprob {
    int32_t token;
    float logprob; /* natural logarithm */
};
enum { RUNT_MAX_LOGPROBS = 20 };
/* By the model alone, before biases, penalties, grammar and temperature: that of
 * `token`, and the n_top likeliest ones, likeliest first, equal ones by id.  n_top is
 * at most RUNT_MAX_LOGPROBS and n_vocab.  Errors: RUNT_E_INVALID, RUNT_E_FORMAT for
 * logits that are not numbers. */
int runt_logprobs(const float *logits, uint32_t n_vocab, int32_t token, float *logprob,
                  struct runt_logprob *top, size_t n_top, struct runt_err *err);

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

/* ---- looking ahead ---- */

/* A model reads its weights once for a pass, of however many tokens.  So tokens that
 * are likely to come (drafts) can be fed behind the one that was drawn, and what is
 * drawn after each decides whether the next was right.  Drafts come from the text
 * itself: from where its end stood before, and from counts of what followed which
 * tokens, in every sequence of the session.  They never change a text, drawn at any
 * temperature: the logits are the same bits, and are drawn from in the same order.
 *
 *     draw id from runt_session_logits(s)
 *     for (;;) {
 *         if (!runt_lookahead_take(l, seq, id))
 *             runt_lookahead_step(l, &(struct runt_step){seq, &id, 1, 1}, 1, &err);
 *         draw id from runt_lookahead_logits(l, seq)
 *     }
 *     runt_lookahead_stop(l, seq);
 */
typedef struct runt_lookahead runt_lookahead;

/* AUTO: as many drafts as make the most tokens a second by what passes took and by how
 * often drafts like these were right, none where none do. */
enum { RUNT_LOOKAHEAD_AUTO = 0, RUNT_LOOKAHEAD_MAX = 31 };

/* For a session, which outlives it and has no all_logits.  n_drafts is AUTO, or how
 * many there are in every pass where there are so many.  One thread at a time uses it
 * and the session. */
int runt_lookahead_new(runt_session *s, int32_t n_drafts, runt_lookahead **out,
                       struct runt_err *err);
void runt_lookahead_free(runt_lookahead *l); /* NULL is fine */

/* runt_session_step, with drafts put behind the tokens of steps of one token as far as
 * n_ctx and the session's n_logits have room; not where another step reads a longer
 * text. Until drafts are settled (by a take that says false, stop, or the next step)
 * the sequence holds those that may be wrong. */
int runt_lookahead_step(runt_lookahead *l, const struct runt_step *steps,
                        size_t n_steps, struct runt_err *err);
/* Logits after the last token of a sequence that is known to be right: of the last step
 * in which it was, or a token taken since. */
const float *runt_lookahead_logits(const runt_lookahead *l, uint32_t seq);
/* Tell of every token drawn for a sequence.  True: it was drafted, and is in the
 * session already; false: wrong drafts were taken back, and the token is to be fed. */
bool runt_lookahead_take(runt_lookahead *l, uint32_t seq, int32_t token);
/* Take back what is not settled: the session holds the tokens that were fed and taken,
 * and runt_session_logits are those after the last one (of step 0). */
void runt_lookahead_stop(runt_lookahead *l, uint32_t seq);
/* From now on at most n drafts in a step of this sequence: it will not want more. */
void runt_lookahead_limit(runt_lookahead *l, uint32_t seq, size_t n);
/* So far, of all sequences. */
void runt_lookahead_counts(const runt_lookahead *l, uint64_t *drafted,
                           uint64_t *accepted);

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
    runt_lookahead *lookahead; /* of this session, or NULL; learns from one call to the
                                  next */
};

struct runt_generated {
    size_t n_tokens;              /* drawn, the end token included */
    size_t n_dropped;             /* forgotten to make room */
    size_t n_drafted, n_accepted; /* by the lookahead */
    double seconds;               /* of drawing and feeding them */
    enum runt_end end;
};

/* Draw tokens after what was fed to sequence 0 (one token or more), feed them, tell
 * them to the sampler, and hand their text to fn (may be NULL).  fn is called at every
 * token, with n = 0 where there is no text yet, so that it can stop a silent model,
 * too. The session ends up with what was drawn, without the token that ended the
 * answer. `o` may be NULL: no limit, no stops; so may `out`.  Errors: as of
 * runt_sampler_pick, RUNT_E_INVALID when nothing was fed or of runt_stream_new. */
int runt_generate(runt_session *s, runt_sampler *sampler,
                  const struct runt_generate_options *o, runt_text_fn *fn, void *ctx,
                  struct runt_generated *out, struct runt_err *err);

#if defined __GNUC__
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif
#endif
