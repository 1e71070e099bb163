/* Between the files of the engine: engine.c (what other threads call), worker.c (the
 * loop), place.c (who gets which sequence), choice.c (one answer). */
#ifndef RUNT_SERVE_ENGINE_IMPL_H
#define RUNT_SERVE_ENGINE_IMPL_H

#include "serve/engine.h"

#include <pthread.h>

/* A sequence of a model's session, and who has it.  It keeps its tokens when it is
 * left, for the next request that begins like them. */
struct place {
    struct choice *choice; /* NULL: free */
    uint64_t left;         /* when, in choices; 0: never used */
};

enum { CHOICE_WAITING, CHOICE_PROMPT, CHOICE_DRAWING, CHOICE_ENDED };

/* One answer.  All but `news` is the worker's alone once it is submitted. */
struct choice {
    struct job *job;
    size_t index;
    const struct prompt *prompt;
    struct choice *next; /* in the waiting list */
    int state;
    uint32_t place, weight; /* that it has in the queue: of a list of texts, one */
    uint64_t order;         /* of coming in: prompts are computed in this order */

    size_t n_fed;    /* tokens of the prompt that the sequence holds */
    size_t n_cached; /* of these, found there */
    size_t n_drawn, n_room;
    int32_t token;         /* drawn, to be fed */
    double started, first; /* when it got its place; its first token */
    runt_sampler *sampler;
    runt_stream *text;
    double *sum; /* [n_embd], of an embedding */

    /* made since the last publication */
    bool touched;
    struct choice *next_touched;
    enum job_end end;
    struct strbuf fresh;
    size_t n_shown; /* bytes of text, since the beginning */
    struct prob_list probs;
    size_t n_known;     /* tokens of probs whose text was shown, at least in part */
    size_t known_bytes; /* where the text of the next one begins */

    struct news news; /* by the engine's lock */
};

struct job_state {
    struct job *next;    /* in the inbox, or among those with news */
    bool listed;         /* among those with news */
    bool abandoned;      /* nobody takes the news */
    enum job_end cancel; /* JOB_RUNNING: no */
    size_t n_ended;
};

/* A model at work. */
struct model_run {
    runt_session *session;
    struct place *places;    /* [n_seqs] */
    struct runt_step *steps; /* [n_seqs] */
    struct choice **step_of; /* [n_seqs], whose they are */
    uint32_t n_running, n_logits;
    size_t n_admitted;  /* since the last publication */
    double prompt_rate; /* tokens a second of a pass that feeds prompts */

    /* by the lock */
    size_t n_waiting, n_taken; /* choices without and with a place */
    double answer_rate;        /* tokens a second of an answer, smoothed */
    double choice_seconds;     /* that a choice has its place, smoothed */
};

struct engine {
    struct engine_options o;
    struct served *models; /* [n_models] */
    size_t n_models;
    bool started;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t work;
    bool stop, has_cancelled;       /* the worker is to look */
    struct job *inbox, **inbox_end; /* submitted, not yet seen by the worker */
    struct job *ready, **ready_end; /* have news */
    struct engine_figures figures;

    /* the worker's */
    struct choice *waiting, **waiting_end;
    struct choice *touched;
    uint64_t n_orders, n_leaves;
    double told;                /* when all that was touched was last published */
    bool owes_a_wake;           /* something was, and nobody was told */
    struct engine_figures step; /* what to add to `figures` */
};

/* ---- worker.c ---- */
void *engine_work(void *arg);
/* Note that a choice has something to publish. */
void engine_touch(struct engine *e, struct choice *c);

/* ---- place.c ---- */
/* A place for c in its model's session, with as much of its prompt as any sequence
 * holds.  False: none is free, or another's prompt that is being computed will have
 * more of it soon. */
bool place_take(struct choice *c);
void place_leave(struct engine *e, struct choice *c);

/* ---- choice.c ---- */
int choice_start(struct choice *c, struct runt_err *err);
/* After its prompt or its last token: draw the next one from `logits`. */
void choice_draw(struct engine *e, struct choice *c, const float *logits);
/* Tell how likely token `at` of its prompt was by these logits (NULL for the first). */
int choice_score(struct choice *c, size_t at, const float *logits,
                 struct runt_err *err);
void choice_end(struct engine *e, struct choice *c, enum job_end end);
void choice_fail(struct engine *e, struct choice *c, const struct runt_err *err);
/* What only a running choice needs. */
void choice_drop(struct choice *c);

/* ---- probs.c ---- */
/* Append how likely `token` was by these logits (NULL: nothing predicts it), and the
 * n_top likeliest. */
int probs_add(struct prob_list *l, const float *logits, uint32_t n_vocab, int32_t token,
              int n_top, struct runt_err *err);
int probs_move(struct prob_list *from, size_t n, struct prob_list *to);
void probs_free(struct prob_list *l);

#endif
