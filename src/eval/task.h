/* Measuring a model on tasks, by the scoring rules of EleutherAI's
 * lm-evaluation-harness (docs/EVAL.md states them).
 *
 *     lambada    predict the last word of a passage: accuracy, perplexity
 *     hellaswag  which of four endings follows: accuracy, accuracy by length
 *
 * A task is a context and one or more continuations.  Context and continuation are
 * encoded together, and the context alone; the continuation's tokens are those of the
 * first beyond the number of the second.  Both together are cut from the left to the
 * model's context.  log p of a continuation is the sum over its tokens, in nats. */
#ifndef RUNT_EVAL_TASK_H
#define RUNT_EVAL_TASK_H

#include "base/strbuf.h"
#include "eval/eval.h"

enum task_kind { TASK_LAMBADA, TASK_HELLASWAG };

enum { TASK_MAX_ENDINGS = 4 };

struct task_span { /* of task_set.text */
    size_t at, n;
};

struct task_item {
    struct task_span context;                   /* without the space behind it */
    struct task_span endings[TASK_MAX_ENDINGS]; /* without the space before them */
    uint32_t n_endings, label;                  /* label: the right one */
    size_t line;                                /* of the file, from 1 */
};

struct task_set {
    enum task_kind kind;
    struct task_item *items; /* [n] */
    size_t n;
    struct strbuf text;
};

/* The tasks of a file's content, the first `limit` (0: all).  A file whose first
 * character that is no white space is '{' is JSON, one object a line:
 *     lambada    {"text": PASSAGE}
 *     hellaswag  {"activity_label", "ctx_a", "ctx_b" (or "ctx"), "endings": [4],
 * "label"} any other is text: a passage a line; six lines a task: context, index of the
 * right ending, four endings (llama.cpp's form, which is preprocessed already). Errors:
 * RUNT_E_FORMAT, the message names the file and the line. */
int task_parse(enum task_kind kind, const char *bytes, size_t n, const char *name,
               size_t limit, struct task_set *out, struct runt_err *err);
void task_set_free(struct task_set *s);

struct task_options {
    unsigned n_threads;
    enum runt_kv kv;
    const struct eval_scorer *scorer; /* NULL: a session */
    runt_progress_fn progress;        /* may be NULL */
    void *progress_ctx;
};

struct task_row {
    double logp[TASK_MAX_ENDINGS]; /* nats, the sum over an ending's tokens */
    uint32_t n_chars[TASK_MAX_ENDINGS];
    uint32_t n_target; /* tokens scored, all endings together */
    bool greedy;       /* each token of the first ending is the likeliest there */
    bool truncated;    /* some of the context did not fit */
    uint32_t pick, pick_norm;
};

struct task_result {
    size_t n, n_truncated, n_tokens; /* tasks; of those, cut; tokens scored */
    /* The right continuation: lambada: each token of it is the likeliest; hellaswag:
     * the ending of the largest log p.  acc_norm (hellaswag): the largest log p divided
     * by the ending's characters (Unicode code points, without the space before it). */
    struct eval_mean acc, acc_norm;
    /* exp(-mean log p) over passages, of whole words, not tokens; delta method. */
    double perplexity, perplexity_se;
    struct task_row *rows; /* [n] */
};

/* Score all tasks of the set; figures do not depend on the number of threads.  Errors:
 * RUNT_E_INVALID: a continuation without a token, or longer than the context (the
 * message names the line); RUNT_E_FORMAT: logits are not numbers. */
int task_run(const runt_model *m, const struct task_set *s,
             const struct task_options *o, struct task_result *out,
             struct runt_err *err);
void task_result_free(struct task_result *r);

#endif
