/* Measuring a model on a text: perplexity, and divergence from a base model.
 *
 * Convention (that of the PyTorch oracle in the tests): the text becomes one token
 * stream, in which the end-of-text token's name is that token; windows of `window`
 * tokens, full ones only, the tail is dropped; the first token of a window is never
 * scored; the first window scores all its others, every later one its last `stride`
 * tokens. */
#ifndef RUNT_EVAL_H
#define RUNT_EVAL_H

#include "runt/runt.h"

/* Of a token: -log p, the likeliest; of a base model the same, and KL(base || it). */
struct eval_score {
    double nll, base_nll, kl;
    int32_t best, base_best;
};

/* Who makes scores instead of sessions on this processor: train/net_eval.h has one. */
struct eval_scorer {
    size_t most_tokens; /* at once, but for a single window */
    /* scores [n][window - 1]: of token i + 1 of each window, given those up to i.
     * Windows are n, and lie stride tokens apart. */
    int (*score)(void *ctx, const int32_t *tokens, size_t stride, size_t n,
                 size_t window, struct eval_score *scores, struct runt_err *err);
    void *ctx;
};

struct eval_options {
    size_t window;     /* 0: the model's context */
    size_t stride;     /* 0: the window */
    size_t max_tokens; /* use only the stream's first tokens, 0: all */
    unsigned n_threads;
    enum runt_kv kv; /* of the model; a base has what RUNT_KV_AUTO gives it */
    const struct eval_scorer *scorer; /* of both models; NULL: sessions */
    runt_progress_fn progress;        /* may be NULL */
    void *progress_ctx;
};

struct eval_mean {
    double mean, se; /* standard error of the mean over scored tokens */
};

struct eval_result {
    size_t n_tokens;                  /* of the stream used */
    size_t n_scored;                  /* the number of tokens behind every mean */
    size_t window, stride;            /* as used */
    struct eval_mean nll;             /* nats a token */
    double perplexity, perplexity_se; /* exp(nll); delta method */
    struct eval_mean bits_per_byte;   /* over the bytes of the scored tokens */
    bool has_base;
    struct eval_mean kl;   /* KL(base || model), nats */
    double kl_p99;         /* 99th percentile over scored tokens */
    double kl_p99_se;      /* from the order statistics around it */
    struct eval_mean top1; /* share of tokens whose likeliest next token agrees */
    double base_perplexity, base_perplexity_se;
};

/* Both models run in lockstep, a pass of tokens at a time, so memory grows with
 * the text by some 20 bytes a token only.  Errors: RUNT_E_INVALID for a text shorter
 * than a window, a window longer than the context, a stride above the window - 1 ...
 * see the message; RUNT_E_FORMAT when logits are not numbers; vocabularies of different
 * size with a base. */
int eval_text(const runt_model *m, const runt_model *base, const char *text, size_t n,
              const struct eval_options *o, struct eval_result *out,
              struct runt_err *err);

#endif
