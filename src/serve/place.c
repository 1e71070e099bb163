/* Owns who gets which sequence of a session: the prefix cache.
 *
 * A sequence that is left keeps its tokens.  A new prompt takes the free one that has
 * most in common with it, as it is when that is most of what it holds; else the
 * beginning is copied to the one that was left longest ago, so that a conversation is
 * not lost to another that begins like it.  Running sequences are copied from, too. */
#include "serve/engine_impl.h"

enum {
    MIN_COPY = 16, /* tokens that are worth copying a block for */
    MIN_WAIT = 8   /* tokens that are worth waiting for */
};

static size_t n_common(const int32_t *a, size_t n_a, const int32_t *b, size_t n_b)
{
    size_t n = 0;
    while (n < n_a && n < n_b && a[n] == b[n])
        n++;
    return n;
}

/* Tokens of prompt p that sequence i holds; the last one's logits are wanted, so it is
 * never among them. */
static size_t n_held(const runt_session *s, uint32_t i, const struct prompt *p)
{
    return n_common(runt_session_seq_tokens(s, i), runt_session_seq_pos(s, i), p->ids,
                    p->n - 1);
}

/* A prompt that is being computed will have so much more of this one that it is better
 * to wait for it. */
static bool better_soon(const struct served *m, const struct choice *c, size_t n_now)
{
    for (uint32_t i = 0; i < m->n_seqs; i++) {
        const struct choice *other = m->run->places[i].choice;
        if (!other || other->state != CHOICE_PROMPT)
            continue;
        const struct prompt *p = other->prompt;
        if (n_common(p->ids, p->n, c->prompt->ids, c->prompt->n - 1) >=
            n_now + MIN_WAIT)
            return true;
    }
    return false;
}

/* The free place that was left longest ago, n_seqs when all are taken. */
static uint32_t oldest(const struct served *m)
{
    uint32_t found = m->n_seqs;
    for (uint32_t i = 0; i < m->n_seqs; i++) {
        const struct place *p = &m->run->places[i];
        if (!p->choice && (found == m->n_seqs || p->left < m->run->places[found].left))
            found = i;
    }
    return found;
}

/* Whose tokens c can have: *from, and how many.  Free ones are preferred, because they
 * need no copy. */
static size_t best_source(const struct served *m, const struct choice *c,
                          uint32_t *from)
{
    size_t most = 0;
    for (uint32_t i = 0; i < m->n_seqs; i++) {
        const struct place *p = &m->run->places[i];
        size_t n = n_held(m->run->session, i, c->prompt);
        if (n > most ||
            (n == most && n && !p->choice && m->run->places[*from].choice)) {
            most = n;
            *from = i;
        }
    }
    return most;
}

static void occupy(struct choice *c, uint32_t i)
{
    struct served *m = c->job->model;
    m->run->places[i].choice = c;
    m->run->n_running++;
    c->place = i;
}

bool place_take(struct choice *c)
{
    struct served *m = c->job->model;
    runt_session *s = m->run->session;
    uint32_t to = oldest(m), from = to;
    if (to == m->n_seqs)
        return false;
    if (c->job->embed && c > c->job->choices && c[-1].state != CHOICE_ENDED)
        return false;                            /* its texts take turns in one place */
    if (c->job->score_prompt || c->job->embed) { /* every token has to be computed */
        runt_session_seq_rewind(s, to, 0);
        occupy(c, to);
        return true;
    }
    size_t n = best_source(m, c, &from);
    if (better_soon(m, c, n))
        return false;
    bool free = !m->run->places[from].choice;
    if (free && n >= runt_session_seq_pos(s, from) / 2)
        to = from;
    else if (from != to && n >= MIN_COPY)
        runt_session_copy(s, from, to, (uint32_t)n);
    c->n_fed = c->n_cached = runt_session_match(s, to, c->prompt->ids, c->prompt->n);
    occupy(c, to);
    return true;
}

void place_leave(struct engine *e, struct choice *c)
{
    struct model_run *run = c->job->model->run;
    run->places[c->place].choice = NULL;
    run->places[c->place].left = ++e->n_leaves;
    run->n_running--;
}
