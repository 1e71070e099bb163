/* Owns the loop: who joins, what a pass carries, when others hear of it.
 *
 * A pass carries one token of every running answer and, behind them, pieces of prompts
 * in the order in which they came.  The pieces are so small that the running answers
 * stall for a twentieth of a second at most; where none runs, they are larger. */
#include "serve/engine_impl.h"

#include "base/mem.h"
#include "serve/api.h"

#include <string.h>

enum { MIN_PIECE = 16, MAX_PIECE = 256, FIRST_PROMPT_RATE = 1000 };

static const double STALL_SECONDS = 0.05, QUIET_SECONDS = 0.25;
/* How long news may wait for more, so that not every token of a small model is written
 * out by itself: 50 times a second is as smooth as can be seen.  A first token and an
 * end do not wait. */
static const double TELL_SECONDS = 0.02;

void engine_touch(struct engine *e, struct choice *c)
{
    if (c->touched)
        return;
    c->touched = true;
    c->next_touched = e->touched;
    e->touched = c;
}

/* ---- joining ---- */

/* By the lock: what was submitted becomes the worker's. */
static void open_inbox(struct engine *e)
{
    for (struct job *j = e->inbox; j; j = j->state->next)
        for (size_t i = 0; i < j->n_choices; i++) {
            struct choice *c = &j->choices[i];
            c->order = ++e->n_orders;
            *e->waiting_end = c;
            e->waiting_end = &c->next;
        }
    while (e->inbox) {
        struct job *j = e->inbox;
        e->inbox = j->state->next;
        j->state->next = NULL;
    }
    e->inbox_end = &e->inbox;
}

static void start(struct engine *e, struct choice *c)
{
    struct runt_err err = {0};
    c->started = api_seconds();
    c->state = CHOICE_PROMPT;
    engine_touch(e, c);
    if (choice_start(c, &err))
        choice_fail(e, c, &err);
}

/* Places for those who wait, first come first served; one that had better wait for
 * another's prompt lets others pass. */
static void admit(struct engine *e)
{
    struct choice **at = &e->waiting, *c;
    const struct prompt *refused = NULL;
    while ((c = *at)) {
        if (c->prompt == refused || !place_take(c)) {
            refused = c->prompt;
            at = &c->next;
            continue;
        }
        *at = c->next;
        c->next = NULL;
        c->job->model->run->n_admitted += c->weight;
        e->step.n_cached_tokens += c->n_cached;
        start(e, c);
    }
    e->waiting_end = at;
}

/* By the lock: the end of those that nobody wants any more, or of all. */
static void end_cancelled(struct engine *e)
{
    struct choice **at = &e->waiting, *c;
    while ((c = *at)) {
        enum job_end why = e->stop ? JOB_SHUTDOWN : c->job->state->cancel;
        if (!why) {
            at = &c->next;
            continue;
        }
        *at = c->next;
        c->next = NULL;
        c->job->model->run->n_admitted += c->weight;
        choice_end(e, c, why);
    }
    e->waiting_end = at;
    for (size_t m = 0; m < e->n_models; m++)
        for (uint32_t i = 0; i < e->models[m].n_seqs; i++) {
            c = e->models[m].run->places[i].choice;
            enum job_end why = !c ? 0 : e->stop ? JOB_SHUTDOWN : c->job->state->cancel;
            if (why)
                choice_end(e, c, why);
        }
    e->has_cancelled = false;
}

/* ---- publishing ---- */

/* By the lock: the figures of an answer that ended. */
static void account(struct model_run *r, const struct choice *c, double now)
{
    double seconds = now - c->started, drawing = now - c->first;
    if (!(c->started > 0))
        return;
    r->choice_seconds +=
        (r->choice_seconds > 0 ? 0.1 : 1) * (seconds - r->choice_seconds);
    if (c->n_drawn < 2 || !(drawing > 0))
        return;
    double rate = (double)(c->n_drawn - 1) / drawing;
    r->answer_rate += (r->answer_rate > 0 ? 0.2 : 1) * (rate - r->answer_rate);
}

static void list_job(struct engine *e, struct job *j)
{
    if (j->state->listed)
        return;
    j->state->listed = true;
    *e->ready_end = j;
    e->ready_end = &j->state->next;
}

/* What does not wait for more: a job's first token, a choice's end. */
static bool is_urgent(const struct choice *c)
{
    return (c->first > 0 && !(c->job->first > 0)) || c->end;
}

/* By the lock. */
static void publish_choice(struct choice *c, double now)
{
    struct job *j = c->job;
    size_t each = 1 + (size_t)(j->n_top < 0 ? 0 : j->n_top);
    c->touched = false;
    sb_put(&c->news.text, c->fresh.data, c->fresh.len);
    c->fresh.len = 0;
    if (c->fresh.failed || probs_move(&c->probs, c->n_known * each, &c->news.probs))
        c->news.text.failed = true; /* out of memory: told when it ends */
    c->n_known = 0;
    c->news.n_cached = c->n_cached;
    c->news.n_tokens = c->n_drawn;
    if (c->started > 0 && !(j->started > 0))
        j->started = c->started;
    if (c->first > 0 && !(j->first > 0))
        j->first = c->first;
    if (c->end && !c->news.end) {
        c->news.end = c->news.text.failed ? JOB_FAILED : c->end;
        account(j->model->run, c, now);
        if (++j->state->n_ended == j->n_choices) {
            j->ended = now;
            j->done = true;
        }
    }
}

/* Move what was made to where others may take it, all or what is urgent; then free the
 * jobs that nobody waits for. */
static void publish(struct engine *e, bool all)
{
    struct job *orphans = NULL;
    struct choice **at = &e->touched, *c;
    double now = api_seconds();
    all |= now - e->told >= TELL_SECONDS;
    if (all)
        e->told = now;
    while ((c = *at)) {
        struct job *j = c->job;
        if (!all && !is_urgent(c)) {
            at = &c->next_touched;
            continue;
        }
        *at = c->next_touched;
        publish_choice(c, now);
        if (!j->state->abandoned && (j->stream || j->done)) {
            list_job(e, j);
            e->owes_a_wake = true;
        } else if (j->state->abandoned && j->done) {
            j->state->next = orphans;
            orphans = j;
        }
    }
    for (size_t i = 0; i < e->n_models; i++) {
        struct model_run *r = e->models[i].run;
        r->n_waiting -= r->n_admitted;
        r->n_admitted = 0;
        r->n_taken = r->n_running;
    }
    while (orphans) {
        struct job *j = orphans;
        orphans = j->state->next;
        job_free(j);
    }
}

/* Without the lock. */
static void wake(struct engine *e)
{
    if (!e->owes_a_wake)
        return;
    e->owes_a_wake = false;
    e->o.wake(e->o.ctx);
}

/* ---- a pass ---- */

static struct choice *first_prompt(const struct served *m, uint64_t after, bool embed)
{
    struct choice *found = NULL;
    for (uint32_t i = 0; i < m->n_seqs; i++) {
        struct choice *c = m->run->places[i].choice;
        if (c && c->state == CHOICE_PROMPT && c->job->embed == embed &&
            c->order > after && (!found || c->order < found->order))
            found = c;
    }
    return found;
}

/* Tokens of prompts that the next pass may carry. */
static size_t piece(const struct served *m, bool quiet)
{
    double rate = m->run->prompt_rate > 0 ? m->run->prompt_rate : FIRST_PROMPT_RATE,
           n = rate * (quiet ? QUIET_SECONDS : STALL_SECONDS);
    return n < MIN_PIECE ? MIN_PIECE : n > MAX_PIECE ? MAX_PIECE : (size_t)n;
}

struct pass {
    size_t n_steps, n_drawing, n_prompt, n_rows;
};

static void add_step(struct served *m, struct pass *p, struct choice *c,
                     const int32_t *tokens, size_t n, size_t n_logits)
{
    m->run->steps[p->n_steps] = (struct runt_step){
        .seq = c->place, .tokens = tokens, .n = n, .n_logits = n_logits};
    m->run->step_of[p->n_steps++] = c;
    p->n_rows += n_logits;
}

static void add_drawing(struct served *m, struct pass *p)
{
    for (uint32_t i = 0; i < m->n_seqs; i++) {
        struct choice *c = m->run->places[i].choice;
        if (c && c->state == CHOICE_DRAWING)
            add_step(m, p, c, &c->token, 1, 1);
    }
    p->n_drawing = p->n_steps;
}

static void add_prompts(struct served *m, struct pass *p)
{
    size_t room = piece(m, !p->n_drawing);
    /* every other sequence may want one row of logits */
    size_t rows = m->run->n_logits - m->n_seqs;
    uint64_t order = 0;
    struct choice *c;
    while (room && (c = first_prompt(m, order, false))) {
        size_t left = c->prompt->n - c->n_fed, n = left < room ? left : room;
        bool scored = c->job->score_prompt;
        if (scored && n > rows)
            n = rows;
        order = c->order;
        if (!n)
            continue;
        rows -= scored ? n : 0;
        room -= n;
        p->n_prompt += n;
        add_step(m, p, c, c->prompt->ids + c->n_fed, n, scored ? n : 1);
    }
}

/* What a prompt's piece gave: probabilities, or after the last one the first token. */
static void take_prompt(struct engine *e, struct choice *c, size_t n, size_t row)
{
    runt_session *s = c->job->model->run->session;
    bool scored = c->job->score_prompt;
    struct runt_err err = {0};
    int rc = scored && !c->n_fed ? choice_score(c, 0, NULL, &err) : 0;
    for (size_t k = 0; scored && !rc && k < n && c->n_fed + k + 1 < c->prompt->n; k++)
        rc =
            choice_score(c, c->n_fed + k + 1, runt_session_logits_at(s, row + k), &err);
    if (rc) {
        choice_fail(e, c, &err);
        return;
    }
    c->n_fed += n;
    if (c->n_fed == c->prompt->n)
        choice_draw(e, c, runt_session_logits_at(s, row + (scored ? n - 1 : 0)));
}

static void take_logits(struct engine *e, struct served *m, const struct pass *p)
{
    double now = api_seconds();
    size_t row = 0;
    for (size_t i = 0; i < p->n_steps; i++) {
        struct choice *c = m->run->step_of[i];
        const struct runt_step *step = &m->run->steps[i];
        size_t n_before = c->n_drawn;
        if (c->state == CHOICE_DRAWING)
            choice_draw(e, c, runt_session_logits_at(m->run->session, row));
        else
            take_prompt(e, c, step->n, row);
        row += step->n_logits;
        e->step.n_drawn_tokens += c->n_drawn - n_before;
        if (c->n_drawn == 1 && !n_before)
            c->first = now;
    }
}

/* A pass's time belongs to prompts and answers as its tokens do. */
static void account_pass(struct engine *e, struct served *m, const struct pass *p,
                         double seconds)
{
    double part = (double)p->n_prompt / (double)(p->n_prompt + p->n_drawing);
    e->step.n_prompt_tokens += p->n_prompt;
    e->step.prompt_seconds += part * seconds;
    e->step.drawn_seconds += (1 - part) * seconds;
    if (p->n_prompt >= MIN_PIECE && seconds > 0) {
        double rate = (double)(p->n_prompt + p->n_drawing) / seconds;
        m->run->prompt_rate +=
            (m->run->prompt_rate > 0 ? 0.2 : 1) * (rate - m->run->prompt_rate);
    }
}

static void run_pass(struct engine *e, struct served *m)
{
    struct pass p = {0};
    struct runt_err err = {0};
    add_drawing(m, &p);
    add_prompts(m, &p);
    if (!p.n_steps)
        return;
    double t0 = api_seconds();
    int rc = runt_session_step(m->run->session, m->run->steps, p.n_steps, &err);
    for (size_t i = 0; rc && i < p.n_steps; i++)
        choice_fail(e, m->run->step_of[i], &err);
    if (rc)
        return;
    account_pass(e, m, &p, api_seconds() - t0);
    take_logits(e, m, &p);
}

/* A piece of the first text that is to be embedded. */
static void run_embedding(struct engine *e, struct served *m)
{
    struct choice *c = first_prompt(m, 0, true);
    if (!c)
        return;
    struct runt_err err = {0};
    size_t left = c->prompt->n - c->n_fed, room = piece(m, m->run->n_running == 1),
           n = left < room ? left : room;
    double t0 = api_seconds();
    int rc = runt_embed_feed(m->run->session, c->place, c->prompt->ids + c->n_fed, n,
                             c->sum, &err);
    if (rc) {
        choice_fail(e, c, &err);
        return;
    }
    account_pass(e, m, &(struct pass){.n_prompt = n}, api_seconds() - t0);
    c->n_fed += n;
    if (c->n_fed == c->prompt->n) {
        size_t i = (size_t)(c - c->job->choices);
        runt_embed_scale(c->sum, m->info.n_embd, c->job->vectors + i * m->info.n_embd);
        choice_end(e, c, JOB_STOP);
    }
}

/* ---- the loop ---- */

static size_t n_running(const struct engine *e)
{
    size_t n = 0;
    for (size_t i = 0; i < e->n_models; i++)
        n += e->models[i].run->n_running;
    return n;
}

/* By the lock. */
static void add_figures(struct engine *e)
{
    e->figures.n_prompt_tokens += e->step.n_prompt_tokens;
    e->figures.n_cached_tokens += e->step.n_cached_tokens;
    e->figures.n_drawn_tokens += e->step.n_drawn_tokens;
    e->figures.prompt_seconds += e->step.prompt_seconds;
    e->figures.drawn_seconds += e->step.drawn_seconds;
    e->step = (struct engine_figures){0};
}

void *engine_work(void *arg)
{
    struct engine *e = arg;
    pthread_mutex_lock(&e->lock);
    for (;;) {
        open_inbox(e);
        if (e->has_cancelled || e->stop)
            end_cancelled(e);
        add_figures(e);
        bool idle = !n_running(e) && !e->waiting;
        publish(e, idle);
        if (idle && e->stop)
            break;
        pthread_mutex_unlock(&e->lock);
        wake(e);
        admit(e);
        for (size_t i = 0; i < e->n_models; i++) {
            run_pass(e, &e->models[i]);
            run_embedding(e, &e->models[i]);
        }
        pthread_mutex_lock(&e->lock);
        while (idle && !e->inbox && !e->stop && !e->has_cancelled)
            pthread_cond_wait(&e->work, &e->lock);
    }
    pthread_mutex_unlock(&e->lock);
    wake(e);
    return NULL;
}
