/* Owns one answer: from logits to a token, to text that may be shown, to its end. */
#include "serve/engine_impl.h"

#include "base/err.h"
#include "base/mem.h"

#include <string.h>

int choice_start(struct choice *c, struct runt_err *err)
{
    const struct job *j = c->job;
    const struct served *m = j->model;
    struct runt_sampler_options o = j->sampler;
    if (j->embed) {
        c->sum = mem_array(m->info.n_embd, sizeof *c->sum);
        return c->sum ? 0 : err_nomem(err, "an embedding");
    }
    o.seed += c->index; /* choices of one prompt differ */
    int rc = runt_sampler_for(m->model, &o, &c->sampler, err);
    if (!rc && j->grammar)
        rc = runt_sampler_constrain(c->sampler, m->model, j->grammar, err);
    if (!rc)
        rc = runt_stream_new((const char *const *)j->stops, j->n_stops, j->skip_space,
                             &c->text, err);
    for (size_t i = 0; i < c->prompt->n && !rc; i++)
        runt_sampler_accept(c->sampler, c->prompt->ids[i]);
    /* the last token of a full context can be drawn, though not be fed */
    c->n_room = m->n_ctx - c->prompt->n + 1;
    if (c->n_room > j->n_max)
        c->n_room = j->n_max;
    return rc;
}

void choice_drop(struct choice *c)
{
    runt_sampler_free(c->sampler);
    runt_stream_free(c->text);
    mem_free(c->sum);
    c->sampler = NULL;
    c->text = NULL;
    c->sum = NULL;
}

/* ---- what may be shown ---- */

static int show(void *ctx, const char *text, size_t n)
{
    struct choice *c = ctx;
    sb_put(&c->fresh, text, n);
    c->n_shown += n;
    return 0;
}

/* Probabilities may be told of tokens whose text has been shown, at least in part: with
 * what a stop text cuts off, its tokens go, too. */
static void tell_known(struct choice *c, bool all)
{
    const runt_model *m = c->job->model->model;
    size_t each = 1 + (size_t)(c->job->n_top < 0 ? 0 : c->job->n_top), n_bytes;
    while (c->n_known * each < c->probs.n) {
        runt_token_bytes(m, c->probs.at[c->n_known * each].token, &n_bytes);
        if (!all && n_bytes && c->known_bytes >= c->n_shown)
            break;
        c->known_bytes += n_bytes;
        c->n_known++;
    }
}

void choice_end(struct engine *e, struct choice *c, enum job_end end)
{
    if (c->state == CHOICE_ENDED)
        return;
    if (c->state != CHOICE_WAITING)
        place_leave(e, c);
    c->state = CHOICE_ENDED;
    c->end = end;
    choice_drop(c);
    engine_touch(e, c);
}

void choice_fail(struct engine *e, struct choice *c, const struct runt_err *err)
{
    pthread_mutex_lock(&e->lock);
    c->job->err = *err;
    pthread_mutex_unlock(&e->lock);
    choice_end(e, c, JOB_FAILED);
}

/* Without a stop text: what was held back is part of the answer. */
static void end_whole(struct engine *e, struct choice *c, enum job_end end)
{
    runt_stream_end(c->text, show, c);
    tell_known(c, true);
    choice_end(e, c, end);
}

/* ---- tokens ---- */

static int pick(struct choice *c, const float *logits, struct runt_err *err)
{
    const struct job *j = c->job;
    const struct served *m = j->model;
    int rc = runt_sampler_pick(c->sampler, logits, &c->token, err);
    if (rc)
        return rc;
    if (j->n_top >= 0 && (j->ignore_eos || !runt_token_is_control(m->model, c->token)))
        rc = probs_add(&c->probs, logits, m->info.n_vocab, c->token, j->n_top, err);
    return rc;
}

void choice_draw(struct engine *e, struct choice *c, const float *logits)
{
    const struct job *j = c->job;
    const runt_model *m = j->model->model;
    struct runt_err err = {0};
    size_t n;
    engine_touch(e, c);
    c->state = CHOICE_DRAWING;
    if (!c->n_room) { /* only the prompt was wanted */
        end_whole(e, c, JOB_LENGTH);
        return;
    }
    if (pick(c, logits, &err)) {
        choice_fail(e, c, &err);
        return;
    }
    c->n_drawn++;
    if (runt_token_is_control(m, c->token) && !j->ignore_eos) {
        end_whole(e, c, JOB_STOP);
        return;
    }
    runt_sampler_accept(c->sampler, c->token);
    const char *bytes = runt_token_bytes(m, c->token, &n);
    if (c->n_drawn == 1 && j->skip_space && n && bytes[0] == ' ')
        c->n_shown = 1; /* the blank that is left out counts as shown */
    if (runt_stream_put(c->text, bytes, n, show, c))
        choice_end(e, c, JOB_STOP);
    else if (c->n_drawn == c->n_room)
        end_whole(e, c, JOB_LENGTH);
    tell_known(c, false);
}

int choice_score(struct choice *c, size_t at, const float *logits, struct runt_err *err)
{
    const struct job *j = c->job;
    int rc = probs_add(&c->probs, logits, j->model->info.n_vocab, c->prompt->ids[at],
                       j->n_top, err);
    c->n_known += !rc; /* it is no part of the answer's text */
    return rc;
}
