/* Owns what other threads may ask of the engine, and all that its lock guards: the
 * inbox, the list of jobs with news, the figures.  Nothing here waits for a token. */
#include "serve/engine_impl.h"

#include "base/err.h"
#include "base/mem.h"

#include <math.h>
#include <signal.h>
#include <string.h>

#include "serve/api.h"

enum {
    AUTO_CACHE_BYTES = 1 << 30, /* of a model's session, where n_seqs is left open */
    AUTO_MAX_SEQS = 64,
    PASS_TOKENS = 256, /* of prompts in one pass, beside one for each running answer */
    SCORE_ROWS = 32    /* of logits, for prompts whose probabilities are told */
};

/* ---- jobs ---- */

int job_prepare(struct job *j, struct runt_err *err)
{
    j->n_choices = j->n_prompts * j->n_each;
    j->choices = mem_array(j->n_choices, sizeof *j->choices);
    j->state = mem_zalloc(sizeof *j->state);
    if (j->embed)
        j->vectors =
            mem_array(j->n_choices, j->model->info.n_embd * sizeof *j->vectors);
    if (!j->choices || !j->state || (j->embed && !j->vectors))
        return err_nomem(err, "a request");
    for (size_t i = 0; i < j->n_choices; i++)
        j->choices[i] = (struct choice){.job = j,
                                        .index = i % j->n_each,
                                        .prompt = &j->prompts[i / j->n_each],
                                        .weight = !j->embed || !i};
    return 0;
}

void job_free(struct job *j)
{
    if (!j)
        return;
    for (size_t i = 0; j->choices && i < j->n_choices; i++) {
        struct choice *c = &j->choices[i];
        choice_drop(c);
        sb_free(&c->fresh);
        sb_free(&c->news.text);
        probs_free(&c->probs);
        probs_free(&c->news.probs);
    }
    for (size_t i = 0; j->prompts && i < j->n_prompts; i++)
        runt_free(j->prompts[i].ids);
    for (size_t i = 0; j->stops && i < j->n_stops; i++)
        mem_free(j->stops[i]);
    runt_grammar_free(j->grammar);
    mem_free(j->stops);
    mem_free(j->bias);
    mem_free(j->prompts);
    mem_free(j->choices);
    mem_free(j->vectors);
    mem_free(j->state);
    mem_free(j);
}

/* ---- models ---- */

int engine_new(const struct engine_options *o, struct engine **out,
               struct runt_err *err)
{
    struct engine *e = mem_zalloc(sizeof *e);
    if (!e)
        return err_nomem(err, "the engine");
    e->o = *o;
    e->inbox_end = &e->inbox;
    e->ready_end = &e->ready;
    e->waiting_end = &e->waiting;
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->work, NULL);
    *out = e;
    return 0;
}

/* As many as their caches fit 1 GiB, if all were full. */
static uint32_t auto_seqs(const struct served *m)
{
    double bytes = 2.0 * 2 * m->info.n_layer * m->info.n_embd * m->n_ctx,
           n = floor(AUTO_CACHE_BYTES / bytes);
    return n < 4 ? 4 : n > AUTO_MAX_SEQS ? AUTO_MAX_SEQS : (uint32_t)n;
}

static int open_session(struct served *m, const struct engine_options *o,
                        struct runt_err *err)
{
    struct model_run *r = m->run;
    struct runt_session_options so = runt_session_defaults();
    so.n_ctx = m->n_ctx;
    so.n_threads = o->n_threads;
    so.n_seqs = m->n_seqs;
    so.n_batch = m->n_seqs + PASS_TOKENS;
    so.n_logits = m->n_seqs + SCORE_ROWS;
    so.kv = o->kv;
    r->n_logits = so.n_logits;
    r->places = mem_array(m->n_seqs, sizeof *r->places);
    r->steps = mem_array(m->n_seqs, sizeof *r->steps);
    r->step_of = mem_array(m->n_seqs, sizeof(struct choice *));
    if (!r->places || !r->steps || !r->step_of)
        return err_nomem(err, "sequences");
    return runt_session_open(m->model, &so, &r->session, err);
}

static void served_free(struct served *m)
{
    if (m->run) {
        runt_session_close(m->run->session);
        mem_free(m->run->places);
        mem_free(m->run->steps);
        mem_free(m->run->step_of);
    }
    mem_free(m->run);
    mem_free(m->name);
    runt_model_free(m->model);
}

int engine_add(struct engine *e, const char *name, runt_model *model,
               const runt_template *chat, struct runt_err *err)
{
    struct served m = {.model = model, .created = time(NULL)}, *more;
    runt_model_info(model, &m.info);
    const runt_template *own = runt_template_of(model);
    m.chat = chat ? chat : own ? own : runt_template_find("none");
    m.has_template = m.chat != runt_template_find("none");
    m.n_ctx = e->o.n_ctx && e->o.n_ctx < m.info.n_ctx ? e->o.n_ctx : m.info.n_ctx;
    m.n_seqs = e->o.n_seqs ? e->o.n_seqs : auto_seqs(&m);
    for (uint32_t i = 0; i < m.info.n_vocab; i++) {
        size_t n;
        runt_token_bytes(model, (int32_t)i, &n);
        m.longest_token = n > m.longest_token ? n : m.longest_token;
    }
    m.name = mem_strdup(name);
    m.run = mem_zalloc(sizeof *m.run);
    int rc = m.name && m.run ? open_session(&m, &e->o, err) : err_nomem(err, "a model");
    more = rc ? NULL : mem_resize(e->models, e->n_models + 1, sizeof *more);
    if (!more) {
        served_free(&m);
        return rc ? rc : err_nomem(err, "a model");
    }
    e->models = more;
    e->models[e->n_models++] = m;
    return 0;
}

size_t engine_n_models(const struct engine *e)
{
    return e->n_models;
}

struct served *engine_model(const struct engine *e, size_t i)
{
    return &e->models[i];
}

struct served *engine_find(const struct engine *e, const char *name)
{
    for (size_t i = 0; i < e->n_models; i++)
        if (!name || !strcmp(e->models[i].name, name))
            return &e->models[i];
    return NULL;
}

/* ---- the worker ---- */

int engine_start(struct engine *e, struct runt_err *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the caller's */
    int failed = pthread_create(&e->thread, NULL, engine_work, e);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed)
        return err_set(err, RUNT_E_IO, "cannot start the worker: %s", strerror(failed));
    e->started = true;
    return 0;
}

void engine_free(struct engine *e)
{
    if (!e)
        return;
    if (e->started) {
        pthread_mutex_lock(&e->lock);
        e->stop = true;
        pthread_cond_signal(&e->work);
        pthread_mutex_unlock(&e->lock);
        pthread_join(e->thread, NULL);
    }
    for (size_t i = 0; i < e->n_models; i++)
        served_free(&e->models[i]);
    mem_free(e->models);
    pthread_cond_destroy(&e->work);
    pthread_mutex_destroy(&e->lock);
    mem_free(e);
}

/* ---- jobs in and out ---- */

int engine_submit(struct engine *e, struct job *j, struct runt_err *err)
{
    struct model_run *r = j->model->run;
    size_t n = j->embed ? 1 : j->n_choices, room = e->o.max_waiting;
    if (n > room + j->model->n_seqs)
        return err_set(err, RUNT_E_INVALID,
                       "%zu answers at once: this server takes at most %zu", n,
                       room + j->model->n_seqs);
    pthread_mutex_lock(&e->lock);
    /* what finds a free place does not wait */
    bool full = e->stop || r->n_waiting + n > room + j->model->n_seqs - r->n_taken;
    if (full)
        e->figures.n_refused++;
    else {
        r->n_waiting += n;
        e->figures.n_jobs++;
        j->submitted = api_seconds();
        *e->inbox_end = j;
        e->inbox_end = &j->state->next;
        pthread_cond_signal(&e->work);
    }
    pthread_mutex_unlock(&e->lock);
    return full ? err_set(err, RUNT_E_FULL, "the queue is full: %zu answers wait", room)
                : 0;
}

static void cancel(struct engine *e, struct job *j, enum job_end why)
{
    if (!j->done && !j->state->cancel) {
        j->state->cancel = why;
        e->has_cancelled = true;
        pthread_cond_signal(&e->work);
    }
}

void engine_cancel(struct engine *e, struct job *j, enum job_end why)
{
    pthread_mutex_lock(&e->lock);
    cancel(e, j, why);
    pthread_mutex_unlock(&e->lock);
}

void engine_abandon(struct engine *e, struct job *j)
{
    pthread_mutex_lock(&e->lock);
    bool done = j->done;
    if (j->state->listed) {
        struct job **at = &e->ready;
        while (*at != j)
            at = &(*at)->state->next;
        *at = j->state->next;
        if (!*at)
            e->ready_end = at;
        j->state->next = NULL;
        j->state->listed = false;
    }
    j->state->abandoned = true;
    cancel(e, j, JOB_CANCELLED);
    pthread_mutex_unlock(&e->lock);
    if (done)
        job_free(j);
}

struct job *engine_next(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    struct job *j = e->ready;
    if (j) {
        e->ready = j->state->next;
        if (!e->ready)
            e->ready_end = &e->ready;
        j->state->next = NULL;
        j->state->listed = false;
    }
    pthread_mutex_unlock(&e->lock);
    return j;
}

bool engine_take(struct engine *e, struct job *j, size_t i, struct news *out)
{
    struct choice *c = &j->choices[i];
    pthread_mutex_lock(&e->lock);
    sb_put(&out->text, c->news.text.data, c->news.text.len);
    c->news.text.len = 0;
    if (probs_move(&c->news.probs, c->news.probs.n, &out->probs))
        out->text.failed = true;
    out->n_prompt = c->prompt->n;
    out->n_cached = c->news.n_cached;
    out->n_tokens = c->news.n_tokens;
    out->end = c->news.end;
    bool done = j->done;
    pthread_mutex_unlock(&e->lock);
    return done;
}

/* ---- figures ---- */

void engine_figures(struct engine *e, struct engine_figures *out)
{
    double most = 0;
    pthread_mutex_lock(&e->lock);
    *out = e->figures;
    for (size_t i = 0; i < e->n_models; i++) {
        const struct model_run *r = e->models[i].run;
        double turns = 1 + (double)r->n_waiting / e->models[i].n_seqs;
        out->n_running += r->n_taken;
        out->n_waiting += r->n_waiting;
        most = turns * r->choice_seconds > most ? turns * r->choice_seconds : most;
    }
    pthread_mutex_unlock(&e->lock);
    out->retry_after = most;
}

double engine_tokens_per_second(struct engine *e, const struct served *m)
{
    pthread_mutex_lock(&e->lock);
    double rate = m->run->answer_rate;
    pthread_mutex_unlock(&e->lock);
    return rate;
}
