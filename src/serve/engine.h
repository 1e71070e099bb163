/* The engine: the models that are served, and the one worker that owns their sessions.
 *
 * A job asks for one answer or more of one model.  Its choices are sequences: each
 * waits for a place in the model's session, joins the running ones between two tokens,
 * and leaves its place when it ends.  Whoever submits a job gets news of it (texts, and
 * how it ended) by engine_next and engine_take; all functions here may be called from
 * any thread, the worker never calls out but to `wake`.
 *
 * A greedy answer does not depend on what else runs: the door guarantees the same
 * logits in any company. */
#ifndef RUNT_SERVE_ENGINE_H
#define RUNT_SERVE_ENGINE_H

#include "base/strbuf.h"
#include "runt/runt.h"

#include <time.h>

struct engine;

/* A model that is served: constant once the engine runs. */
struct served {
    char *name;
    runt_model *model;
    struct runt_model_info info;
    const runt_template *chat; /* how conversations are written down */
    bool has_template;         /* the file names it, or whoever started the server */
    uint32_t n_ctx, n_seqs;
    size_t longest_token; /* bytes */
    time_t created;
    struct model_run *run; /* engine_impl.h */
};

/* ---- jobs ---- */

enum job_end {
    JOB_RUNNING,
    JOB_STOP,      /* the model ended it, or a stop text */
    JOB_LENGTH,    /* as many tokens as were asked for, or as fit the context */
    JOB_CANCELLED, /* engine_cancel: nobody wants it any more, */
    JOB_TIMEOUT,   /*   or it took too long, */
    JOB_SHUTDOWN,  /*   or the server ends */
    JOB_FAILED     /* job->err says why */
};

struct prompt {
    int32_t *ids;
    size_t n;
};

/* Log probabilities; NAN: the first token of a text has none; a token of -1: the
 * vocabulary has no more. */
struct prob_list {
    struct runt_logprob *at;
    size_t n, cap;
};

/* What came of a choice since the last engine_take. */
struct news {
    struct strbuf text;
    struct prob_list probs; /* 1 + n_top for each token: itself, then the likeliest */
    size_t n_prompt, n_cached, n_tokens; /* so far: fed from the cache; drawn */
    enum job_end end;
};

struct job {
    /* set by who submits it, constant from then on */
    struct served *model;
    struct prompt *prompts; /* [n_prompts] */
    size_t n_prompts;
    struct choice *choices; /* [n_choices], engine_impl.h */
    size_t n_choices;       /* prompts times n: choice i is of prompt i / n */
    size_t n_each;          /* n */
    struct runt_sampler_options sampler;
    struct runt_logit_bias *bias; /* what sampler.bias points to */
    runt_grammar *grammar;        /* or NULL */
    size_t n_max;
    char **stops; /* [n_stops] */
    size_t n_stops;
    int n_top;         /* -1: no probabilities */
    bool score_prompt; /* tell the prompt's probabilities, too */
    bool ignore_eos, skip_space;
    bool stream;    /* news of every piece; else only of the end */
    bool embed;     /* no answer: what the prompts mean */
    float *vectors; /* [n_choices][n_embd] of an embedding */
    void *owner;    /* of whoever submitted it */

    /* by engine_take's lock; at rest when it is done */
    bool done;
    double submitted, started, first, ended; /* api_seconds; 0: not yet */
    struct runt_err err;
    struct job_state *state; /* the engine's */
};

/* Make room for the choices.  A job is zeroed memory of mem_alloc's, and so is all that
 * it points to (ids: runt_tokenize's); job_free frees all of it but the owner. */
int job_prepare(struct job *j, struct runt_err *err);
void job_free(struct job *j); /* not while the engine has it; NULL is fine */

/* ---- the engine ---- */

struct engine_options {
    uint32_t n_ctx, n_threads, n_seqs; /* 0: the model's, every core, by memory */
    enum runt_kv kv;
    size_t max_waiting;      /* choices that wait at most */
    void (*wake)(void *ctx); /* there is news; from the worker's thread */
    void *ctx;
};

/* Models are added before the engine starts.  `name` is copied; `model` belongs to the
 * engine from then on (also when that fails).  `chat` NULL: the file's. */
int engine_new(const struct engine_options *o, struct engine **out,
               struct runt_err *err);
int engine_add(struct engine *e, const char *name, runt_model *model,
               const runt_template *chat, struct runt_err *err);
int engine_start(struct engine *e, struct runt_err *err);
void engine_free(struct engine *e); /* ends what runs, then the worker */

size_t engine_n_models(const struct engine *e);
struct served *engine_model(const struct engine *e, size_t i);
/* NULL: the first. */
struct served *engine_find(const struct engine *e, const char *name);

/* 0: the engine has the job.  RUNT_E_FULL: too many choices wait; RUNT_E_INVALID: more
 * choices than could ever wait. */
int engine_submit(struct engine *e, struct job *j, struct runt_err *err);
/* End it soon; its news will say so. */
void engine_cancel(struct engine *e, struct job *j, enum job_end why);
/* The same, and nobody looks at it again: the engine frees it. */
void engine_abandon(struct engine *e, struct job *j);
/* A job that has news, NULL when there is none. */
struct job *engine_next(struct engine *e);
/* Add choice i's news to *out (whose text and probs the caller frees), and the job's
 * `done`. */
bool engine_take(struct engine *e, struct job *j, size_t i, struct news *out);

/* ---- figures ---- */

struct engine_figures {
    uint64_t n_prompt_tokens, n_cached_tokens, n_drawn_tokens; /* computed; reused */
    double prompt_seconds, drawn_seconds;
    size_t n_running, n_waiting; /* choices */
    uint64_t n_jobs, n_refused;
    double retry_after; /* seconds until there may be room */
};
void engine_figures(struct engine *e, struct engine_figures *out);
/* Of the last answers; 0: none yet. */
double engine_tokens_per_second(struct engine *e, const struct served *m);

#endif
