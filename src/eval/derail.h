/* Derailment: what becomes of long answers.  For every prompt a greedy answer and some
 * sampled ones, of which it is measured how much they repeat, when they fall into a
 * loop, and how far the model is from a base model along its own text.  docs/EVAL.md
 * says what the figures mean. */
#ifndef RUNT_EVAL_DERAIL_H
#define RUNT_EVAL_DERAIL_H

#include "eval/eval.h"

struct derail_prompt {
    const char *text; /* borrowed from the file's content */
    size_t n, line;
};

/* One prompt a line, blank lines skipped; *out is freed with runt_free.  Errors:
 * RUNT_E_FORMAT when there is none, or for what is no text; the message names the line.
 */
int derail_prompts(const char *bytes, size_t n, const char *name,
                   struct derail_prompt **out, size_t *n_out, struct runt_err *err);

struct derail_options {
    size_t n_tokens;                     /* most in an answer, 0: 256 */
    size_t n_samples;                    /* sampled answers a prompt */
    struct runt_sampler_options sampler; /* of the sampled ones; seed: see below */
    unsigned n_threads;
    enum runt_kv kv;           /* of the model; a base has what RUNT_KV_AUTO gives it */
    runt_progress_fn progress; /* may be NULL */
    void *progress_ctx;
};

enum derail_end { DERAIL_EOS, DERAIL_LENGTH, DERAIL_CONTEXT };

struct derail_answer {
    size_t prompt, n_prompt; /* which; its tokens */
    bool sampled;
    uint64_t seed;   /* sampler.seed + prompt * n_samples + number of the sample */
    int32_t *tokens; /* [n], the end-of-text token not among them */
    size_t n;
    enum derail_end end; /* end of text, n_tokens reached, context full */
    bool has_rep4;       /* at least 4 tokens */
    double rep4;         /* 1 - distinct 4-grams / 4-grams */
    bool loops;
    size_t loop_begin, loop_period; /* ngram.h: loop_find */
    /* sums over tokens drawn, one that ends the text among them; with a base */
    size_t n_drawn;
    double kl, base_nll; /* KL(base || model), and -log p under the base; nats */
};

/* Figures of the greedy or the sampled answers.  Standard errors treat prompts as
 * independent, not answers: those to one prompt are one cluster. */
struct derail_figures {
    size_t n_answers, n_tokens, n_eos, n_loops;
    struct eval_mean length;     /* tokens an answer */
    struct eval_mean rep4;       /* mean over answers of at least 4 tokens */
    struct eval_mean looping;    /* share of answers that loop */
    struct eval_mean loop_begin; /* of those: tokens before the loop */
    double loop_begin_median;    /* of those; 0 when there are none */
    struct eval_mean
        distinct[3];     /* distinct n-grams / n-grams of all answers together
                            (Li et al. 2016), n = 1, 2, 3; error by jackknife */
    struct eval_mean kl; /* nats a token drawn */
    double base_perplexity, base_perplexity_se;
};

struct derail_result {
    size_t n_prompts, n_answers;
    bool has_base, has_samples;
    struct derail_figures greedy, sampled;
    struct derail_answer
        *answers; /* [n_answers]: greedy, then sampled, of each prompt */
};

/* Answers are made many at a time; neither that nor the number of threads changes a bit
 * of them.  Errors: RUNT_E_INVALID for a prompt that fills the context (the message
 * names the line) or models that are not comparable; RUNT_E_FORMAT when logits are not
 * numbers. */
int derail_run(const runt_model *m, const runt_model *base,
               const struct derail_prompt *prompts, size_t n_prompts,
               const struct derail_options *o, struct derail_result *out,
               struct runt_err *err);
void derail_result_free(struct derail_result *r);

#endif
