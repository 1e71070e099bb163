/* Owns following a grammar: a pushdown automaton that is in all its possible states at
 * once, made deterministic as far as texts go.
 *
 * A stack is a place in the grammar and, below it, the places to return to.  A set of
 * stacks is a list of entries, a place and the set of what may lie below it; so stacks
 * that end alike share their ends, and those that differ only further down are one
 * entry: an ambiguous grammar has few sets where it has a power of 2 of stacks.  Equal
 * sets are kept once.  A state is a set whose places are all where a byte is read (or
 * DONE, the empty stack); what leads from one to the next through ends and beginnings
 * of rules is worked out once for each state and class of bytes, and then read from a
 * table.  (RE2 does the same with regular expressions, Cox
 * 2010; shared stacks are Tomita's, 1985.) */
#include "sample/matcher.h"

#include "base/err.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum {
    NO_SET = 0,                   /* the number of the set of no stacks */
    DONE_SET = 1,                 /* of that of the empty stack */
    SOFT_LIMIT = 2 << 20,         /* bytes that are kept from token to token */
    HARD_LIMIT = 64 << 20,        /* bytes */
    MAX_WALK = GRAMMAR_MAX_ITEMS, /* places between one byte and the next */
};
#define DONE UINT32_MAX /* the place of the empty stack */

struct entry {
    uint32_t place, rest;
};

struct entry_list {
    struct entry *e;
    size_t n, cap;
};

struct stack_set {
    uint32_t first, n; /* into entries, ascending */
    uint32_t state;    /* or 0 */
};

struct matcher_work {
    const runt_grammar *g;
    struct stack_set *sets;
    size_t n_sets, cap_sets;
    struct entry_list entries;
    uint32_t *state_sets; /* [n_states] */
    size_t n_states, cap_states, cap_next;
    uint32_t *map; /* by hash: a set, or 0 */
    size_t map_mask;
    size_t trim_at; /* bytes */
    int failed;     /* 0 or a code */

    /* one step's work */
    struct entry_list todo, found, joined;
    struct entry *seen; /* by hash */
    uint32_t *seen_in;  /* the walk that put it there */
    size_t seen_mask, n_seen;
    uint32_t walk;
};

static void fail(struct matcher_work *m, int code)
{
    if (!m->failed)
        m->failed = code;
}

static size_t bytes_used(const struct matcher_work *m)
{
    return m->entries.n * sizeof *m->entries.e + m->n_sets * sizeof *m->sets +
           m->n_states * (m->g->n_classes + 1) * sizeof *m->state_sets;
}

/* Room for one more element. */
static bool room(struct matcher_work *m, void *array, size_t n, size_t more,
                 size_t *cap, size_t size)
{
    void *p;
    if (n + more <= *cap)
        return true;
    size_t want = 2 * (n + more) + 64;
    memcpy(&p, array, sizeof p);
    p = mem_resize(p, want, size);
    if (!p) {
        fail(m, RUNT_E_NOMEM);
        return false;
    }
    memcpy(array, &p, sizeof p);
    *cap = want;
    return true;
}

static void put(struct matcher_work *m, struct entry_list *l, uint32_t place,
                uint32_t rest)
{
    if (l->n >= MAX_WALK)
        fail(m, RUNT_E_FULL);
    else if (room(m, &l->e, l->n, 1, &l->cap, sizeof *l->e))
        l->e[l->n++] = (struct entry){place, rest};
}

/* ---- sets ---- */

static uint64_t hash_entries(const struct entry *e, size_t n)
{
    uint64_t h = n;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ ((uint64_t)e[i].place << 32 | e[i].rest)) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    return h;
}

static bool map_rebuild(struct matcher_work *m, size_t mask)
{
    uint32_t *map = mem_array(mask + 1, sizeof *map);
    if (!map) {
        fail(m, RUNT_E_NOMEM);
        return false;
    }
    for (uint32_t s = 1; s < m->n_sets; s++) {
        const struct stack_set *set = &m->sets[s];
        size_t i = hash_entries(m->entries.e + set->first, set->n) & mask;
        while (map[i])
            i = (i + 1) & mask;
        map[i] = s;
    }
    mem_free(m->map);
    m->map = map;
    m->map_mask = mask;
    return true;
}

/* The set of these entries, ascending and without equals. */
static uint32_t intern(struct matcher_work *m, const struct entry *e, size_t n)
{
    if (!n || m->failed)
        return NO_SET;
    if (m->n_sets * 2 > m->map_mask && !map_rebuild(m, m->map_mask * 2 + 1))
        return NO_SET;
    size_t i = hash_entries(e, n) & m->map_mask;
    for (; m->map[i]; i = (i + 1) & m->map_mask) {
        const struct stack_set *s = &m->sets[m->map[i]];
        if (s->n == n && !memcmp(m->entries.e + s->first, e, n * sizeof *e))
            return m->map[i];
    }
    if (bytes_used(m) > HARD_LIMIT)
        fail(m, RUNT_E_FULL);
    if (m->failed || !room(m, &m->sets, m->n_sets, 1, &m->cap_sets, sizeof *m->sets) ||
        !room(m, &m->entries.e, m->entries.n, n, &m->entries.cap, sizeof *e))
        return NO_SET;
    memcpy(m->entries.e + m->entries.n, e, n * sizeof *e);
    m->sets[m->n_sets] = (struct stack_set){(uint32_t)m->entries.n, (uint32_t)n, 0};
    m->entries.n += n;
    m->map[i] = (uint32_t)m->n_sets;
    return (uint32_t)m->n_sets++;
}

static int ascending(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->place != y->place)
        return x->place < y->place ? -1 : 1;
    return (x->rest > y->rest) - (x->rest < y->rest);
}

static void tidy(struct entry_list *l)
{
    size_t n = 0;
    if (l->n > 1)
        qsort(l->e, l->n, sizeof *l->e, ascending);
    for (size_t i = 0; i < l->n; i++)
        if (!n || ascending(&l->e[n - 1], &l->e[i]))
            l->e[n++] = l->e[i];
    l->n = n;
}

/* What may lie below a place that was reached with several sets below it. */
static uint32_t join(struct matcher_work *m, const struct entry *e, size_t n)
{
    m->joined.n = 0;
    for (size_t i = 0; i < n; i++) {
        const struct stack_set *s = &m->sets[e[i].rest];
        for (uint32_t k = 0; k < s->n; k++) {
            struct entry x = m->entries.e[s->first + k];
            put(m, &m->joined, x.place, x.rest);
        }
    }
    tidy(&m->joined);
    return intern(m, m->joined.e, m->joined.n);
}

/* ---- one step ---- */

static bool seen_grow(struct matcher_work *m)
{
    size_t mask = m->seen_mask ? m->seen_mask * 2 + 1 : 255;
    struct entry *seen = mem_array(mask + 1, sizeof *seen);
    uint32_t *seen_in = mem_array(mask + 1, sizeof *seen_in);
    if (!seen || !seen_in) {
        mem_free(seen);
        mem_free(seen_in);
        fail(m, RUNT_E_NOMEM);
        return false;
    }
    for (size_t k = 0; m->seen && k <= m->seen_mask; k++) {
        if (m->seen_in[k] != m->walk)
            continue;
        size_t i = hash_entries(&m->seen[k], 1) & mask;
        while (seen_in[i])
            i = (i + 1) & mask;
        seen[i] = m->seen[k];
        seen_in[i] = m->walk;
    }
    mem_free(m->seen);
    mem_free(m->seen_in);
    m->seen = seen;
    m->seen_in = seen_in;
    m->seen_mask = mask;
    return true;
}

/* Whether this walk has been here; it has now. */
static bool been(struct matcher_work *m, struct entry e)
{
    if (m->n_seen * 2 >= m->seen_mask && !seen_grow(m))
        return true;
    size_t i = hash_entries(&e, 1) & m->seen_mask;
    for (; m->seen_in[i] == m->walk; i = (i + 1) & m->seen_mask)
        if (m->seen[i].place == e.place && m->seen[i].rest == e.rest)
            return true;
    m->seen[i] = e;
    m->seen_in[i] = m->walk;
    m->n_seen++;
    return false;
}

static void walk_begin(struct matcher_work *m)
{
    if (!++m->walk) { /* once in 4 billion steps */
        m->walk = 1;
        if (m->seen_in)
            memset(m->seen_in, 0, (m->seen_mask + 1) * sizeof *m->seen_in);
    }
    m->n_seen = 0;
    m->todo.n = 0;
    m->found.n = 0;
}

/* From the places in `todo` on to where bytes are read: the set of these. */
static uint32_t walk(struct matcher_work *m)
{
    const runt_grammar *g = m->g;
    while (m->todo.n && !m->failed) {
        struct entry at = m->todo.e[--m->todo.n];
        if (at.place == DONE) {
            put(m, &m->found, DONE, 0);
            continue;
        }
        if (been(m, at))
            continue;
        grammar_item item = g->code[at.place];
        if (item == ITEM_END) {
            struct stack_set s = m->sets[at.rest];
            for (uint32_t k = 0; k < s.n; k++) {
                struct entry x = m->entries.e[s.first + k];
                put(m, &m->todo, x.place, x.rest);
            }
        } else if (item_is_rule(item)) {
            struct entry back = {at.place + 1, at.rest};
            /* nothing to return to: loops and lists need no stack */
            uint32_t rest =
                g->code[back.place] == ITEM_END ? at.rest : intern(m, &back, 1);
            for (uint32_t a = g->rules[item >> 1]; a < g->rules[(item >> 1) + 1]; a++)
                put(m, &m->todo, g->starts[a], rest);
        } else {
            put(m, &m->found, at.place, at.rest);
        }
    }
    tidy(&m->found);
    struct entry *e = m->found.e;
    size_t n = 0;
    for (size_t i = 0, k; i < m->found.n; i = k) {
        for (k = i + 1; k < m->found.n && e[k].place == e[i].place;)
            k++;
        uint32_t rest = k - i > 1 ? join(m, e + i, k - i) : e[i].rest;
        e[n++] = (struct entry){e[i].place, rest};
    }
    return intern(m, e, n);
}

/* ---- states ---- */

static uint32_t new_state(struct matcher *m, uint32_t set)
{
    struct matcher_work *w = m->work;
    size_t n = w->g->n_classes, at = w->n_states * n;
    if (!room(w, &w->state_sets, w->n_states, 1, &w->cap_states,
              sizeof *w->state_sets) ||
        !room(w, &m->next, at, n, &w->cap_next, sizeof *m->next))
        return STATE_NOWHERE;
    for (size_t i = 0; i < n; i++)
        m->next[at + i] = set == NO_SET ? STATE_NOWHERE : STEP_UNKNOWN;
    w->state_sets[w->n_states] = set;
    w->sets[set].state = (uint32_t)w->n_states;
    return (uint32_t)w->n_states++;
}

uint32_t matcher_explore(struct matcher *m, uint32_t state, uint8_t byte)
{
    struct matcher_work *w = m->work;
    const runt_grammar *g = w->g;
    if (w->failed)
        return STATE_NOWHERE;
    walk_begin(w);
    struct stack_set s = w->sets[w->state_sets[state]];
    for (uint32_t k = 0; k < s.n; k++) {
        struct entry x = w->entries.e[s.first + k];
        if (x.place != DONE && byte_set_has(&g->sets[g->code[x.place] >> 1], byte))
            put(w, &w->todo, x.place + 1, x.rest);
    }
    uint32_t set = walk(w), next = STATE_NOWHERE;
    if (!w->failed && set != NO_SET) {
        next = w->sets[set].state;
        if (!next)
            next = new_state(m, set);
    }
    if (w->failed)
        return STATE_NOWHERE;
    m->next[state * m->n_classes + m->byte_class[byte]] = next;
    return next;
}

bool matcher_may_end(const struct matcher *m, uint32_t state)
{
    const struct matcher_work *w = m->work;
    struct stack_set s = w->sets[w->state_sets[state]];
    return s.n && w->entries.e[s.first + s.n - 1].place == DONE;
}

int matcher_failed(const struct matcher *m, struct runt_err *err)
{
    int failed = m->work->failed;
    if (failed == RUNT_E_NOMEM)
        return err_nomem(err, "following a grammar");
    if (failed)
        return err_set(err, failed,
                       "the grammar is too ambiguous: following it takes more than %d "
                       "MB",
                       HARD_LIMIT >> 20);
    return 0;
}

/* Keep the sets of the states that stay, and what they hold, in numbers that stay in
 * order: a set's own is larger than those of the sets it holds. */
static void keep_sets(struct matcher_work *w, uint32_t *number)
{
    uint32_t n = 1;
    size_t n_entries = 0;
    number[DONE_SET] = 1;
    for (size_t s = w->n_sets; --s;)
        for (uint32_t k = 0; number[s] && k < w->sets[s].n; k++)
            number[w->entries.e[w->sets[s].first + k].rest] = 1;
    number[NO_SET] = 0;
    for (size_t s = 1; s < w->n_sets; s++) {
        struct stack_set set = w->sets[s];
        if (!number[s])
            continue;
        number[s] = n;
        w->sets[n++] = (struct stack_set){(uint32_t)n_entries, set.n, 0};
        for (uint32_t k = 0; k < set.n; k++) {
            struct entry x = w->entries.e[set.first + k];
            w->entries.e[n_entries++] = (struct entry){x.place, number[x.rest]};
        }
    }
    w->n_sets = n;
    w->entries.n = n_entries;
}

bool matcher_trim(struct matcher *m, uint32_t *state)
{
    struct matcher_work *w = m->work;
    if (!w->failed && bytes_used(w) <= w->trim_at)
        return false;
    uint32_t *number = mem_array(w->n_sets, sizeof *number);
    w->failed = number ? 0 : RUNT_E_NOMEM;
    if (!number)
        return false;
    uint32_t kept = w->state_sets[*state], start = w->state_sets[STATE_START];
    number[kept] = number[start] = 1;
    keep_sets(w, number);
    w->n_states = STATE_START; /* there is room for those that were there */
    new_state(m, number[start]);
    if (kept == NO_SET)
        *state = STATE_NOWHERE;
    else
        *state = kept == start ? STATE_START : new_state(m, number[kept]);
    mem_free(number);
    map_rebuild(w, w->map_mask);
    w->trim_at = SOFT_LIMIT + 2 * bytes_used(w); /* seldom, however deep the text is */
    return true;
}

/* ---- a matcher ---- */

int matcher_new(const runt_grammar *g, struct matcher **out, struct runt_err *err)
{
    struct matcher *m = mem_zalloc(sizeof *m);
    struct matcher_work *w = mem_zalloc(sizeof *w);
    if (!m || !w) {
        mem_free(m);
        mem_free(w);
        return err_nomem(err, "following a grammar");
    }
    *m = (struct matcher){
        .n_classes = g->n_classes, .byte_class = g->byte_class, .work = w};
    w->g = g;
    w->trim_at = SOFT_LIMIT;
    map_rebuild(w, 255);
    if (room(w, &w->sets, 0, 1, &w->cap_sets, sizeof *w->sets)) {
        w->sets[w->n_sets++] = (struct stack_set){0};
        new_state(m, NO_SET);
    }
    if (!w->failed) {
        intern(w, &(struct entry){DONE, 0}, 1);
        walk_begin(w);
        for (uint32_t a = g->rules[0]; a < g->rules[1]; a++)
            put(w, &w->todo, g->starts[a], DONE_SET);
        uint32_t set = walk(w);
        if (!w->failed)
            new_state(m, set);
    }
    int rc = matcher_failed(m, err);
    if (rc)
        matcher_free(m);
    else
        *out = m;
    return rc;
}

void matcher_free(struct matcher *m)
{
    if (!m)
        return;
    struct matcher_work *w = m->work;
    mem_free(w->sets);
    mem_free(w->entries.e);
    mem_free(w->state_sets);
    mem_free(w->map);
    mem_free(w->todo.e);
    mem_free(w->found.e);
    mem_free(w->joined.e);
    mem_free(w->seen);
    mem_free(w->seen_in);
    mem_free(w);
    mem_free(m->next);
    mem_free(m);
}

int matcher_test(const runt_grammar *g, const char *text, size_t n, bool *out,
                 struct runt_err *err)
{
    struct matcher *m = NULL;
    int rc = matcher_new(g, &m, err);
    if (rc)
        return rc;
    uint32_t state = STATE_START;
    for (size_t i = 0; i < n && state != STATE_NOWHERE && !m->work->failed; i++) {
        matcher_trim(m, &state);
        state = matcher_step(m, state, (uint8_t)text[i]);
    }
    rc = matcher_failed(m, err);
    if (!rc)
        *out = matcher_may_end(m, state);
    matcher_free(m);
    return rc;
}
