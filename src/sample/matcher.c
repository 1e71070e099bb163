/* Owns following a grammar: a pushdown automaton that is in all its possible states at
 * once, made deterministic as far as texts go.
 *
 * A stack is a place in the grammar and, below it, the places to return to.  A set of
 * stacks is a list of entries, a place and the set of what may lie below it; so stacks
 * that end alike share their ends, and those that differ only further down are one
 * entry: an ambiguous grammar has few sets where it has a power of 2 of stacks.  Equal
 * sets are kept once, and a set's number is a state.  Sets that are states hold places
 * where a byte is read (or DONE, the empty stack); what leads from one to the next
 * through ends and beginnings of rules is worked out once for each state and class of
 * bytes, and then read from a table.  (RE2 does the same with regular expressions, Cox
 * 2010; shared stacks are Tomita's, 1985.) */
#include "sample/grammar.h"

#include "base/err.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum {
    DONE_SET = 1,                 /* the number of the set of the empty stack */
    SOFT_LIMIT = 2 << 20,         /* bytes that are kept from one token to the next */
    HARD_LIMIT = 64 << 20,        /* bytes */
    MAX_WALK = GRAMMAR_MAX_ITEMS, /* places between one byte and the next */
};
#define DONE UINT32_MAX    /* the place of the empty stack */
#define UNKNOWN UINT32_MAX /* a step not yet worked out */

struct entry {
    uint32_t place, rest;
};

struct entry_list {
    struct entry *e;
    size_t n, cap;
};

struct stack_set {
    uint32_t first, n; /* into entries, ascending */
    uint32_t row;      /* into rows, or 0 */
};

struct matcher {
    const runt_grammar *g;
    struct stack_set *sets;
    size_t n_sets, cap_sets;
    struct entry_list entries;
    uint32_t *rows; /* [n_classes] each: the next state; the first is unused */
    size_t n_rows, cap_rows;
    uint32_t *map; /* by hash: a set, or 0 */
    size_t map_mask;
    uint32_t start;
    int failed; /* 0 or a code */

    /* one step's work */
    struct entry_list todo, found, joined;
    struct entry *seen; /* by hash */
    uint32_t *seen_in;  /* the walk that put it there */
    size_t seen_mask, n_seen;
    uint32_t walk;
};

static void fail(struct matcher *m, int code)
{
    if (!m->failed)
        m->failed = code;
}

static size_t bytes_used(const struct matcher *m)
{
    return m->entries.n * sizeof *m->entries.e + m->n_sets * sizeof *m->sets +
           m->n_rows * sizeof *m->rows;
}

/* Room for one more element. */
static bool room(struct matcher *m, void *array, size_t n, size_t more, size_t *cap,
                 size_t size)
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

static void put(struct matcher *m, struct entry_list *l, uint32_t place, uint32_t rest)
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

static bool map_rebuild(struct matcher *m, size_t mask)
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
static uint32_t intern(struct matcher *m, const struct entry *e, size_t n)
{
    if (!n || m->failed)
        return STATE_NOWHERE;
    if (m->n_sets * 2 > m->map_mask && !map_rebuild(m, m->map_mask * 2 + 1))
        return STATE_NOWHERE;
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
        return STATE_NOWHERE;
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
static uint32_t join(struct matcher *m, const struct entry *e, size_t n)
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

static bool seen_grow(struct matcher *m)
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
static bool been(struct matcher *m, struct entry e)
{
    if (m->n_seen * 2 > m->seen_mask && !seen_grow(m))
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

static void walk_begin(struct matcher *m)
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

/* From the places in `todo` on to where bytes are read, which make a state. */
static uint32_t walk(struct matcher *m)
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

/* A row of steps not yet worked out; 0 when there is no room. */
static uint32_t new_row(struct matcher *m)
{
    size_t n = m->g->n_classes;
    if (!room(m, &m->rows, m->n_rows, n, &m->cap_rows, sizeof *m->rows))
        return 0;
    for (size_t i = 0; i < n; i++)
        m->rows[m->n_rows + i] = UNKNOWN;
    m->n_rows += n;
    return (uint32_t)(m->n_rows - n);
}

uint32_t matcher_step(struct matcher *m, uint32_t state, uint8_t byte)
{
    unsigned class = m->g->byte_class[byte];
    struct stack_set s = m->sets[state];
    if (s.row && m->rows[s.row + class] != UNKNOWN)
        return m->rows[s.row + class];
    if (!s.n || m->failed)
        return STATE_NOWHERE;
    if (!s.row)
        s.row = m->sets[state].row = new_row(m);
    walk_begin(m);
    for (uint32_t k = 0; k < s.n; k++) {
        struct entry x = m->entries.e[s.first + k];
        if (x.place != DONE &&
            byte_set_has(&m->g->sets[m->g->code[x.place] >> 1], byte))
            put(m, &m->todo, x.place + 1, x.rest);
    }
    uint32_t next = walk(m);
    if (m->failed)
        return STATE_NOWHERE;
    m->rows[s.row + class] = next;
    return next;
}

bool matcher_may_end(const struct matcher *m, uint32_t state)
{
    struct stack_set s = m->sets[state];
    return s.n && m->entries.e[s.first + s.n - 1].place == DONE;
}

int matcher_failed(const struct matcher *m, struct runt_err *err)
{
    if (m->failed == RUNT_E_NOMEM)
        return err_nomem(err, "following a grammar");
    if (m->failed)
        return err_set(err, m->failed,
                       "the grammar is too ambiguous: following it takes more than %d "
                       "MB",
                       HARD_LIMIT >> 20);
    return 0;
}

/* ---- a matcher ---- */

uint32_t matcher_start(const struct matcher *m)
{
    return m->start;
}

uint32_t matcher_trim(struct matcher *m, uint32_t state)
{
    if (!m->failed && bytes_used(m) <= SOFT_LIMIT)
        return state;
    m->failed = 0;
    /* a set's own number is larger than those of the sets it holds */
    uint32_t *number = mem_array(m->n_sets, sizeof *number);
    if (!number) {
        fail(m, RUNT_E_NOMEM);
        return state;
    }
    number[DONE_SET] = number[m->start] = number[state] = 1;
    for (size_t s = m->n_sets; --s;)
        for (uint32_t k = 0; number[s] && k < m->sets[s].n; k++)
            number[m->entries.e[m->sets[s].first + k].rest] = 1;
    uint32_t n = 1;
    size_t n_entries = 0;
    number[0] = 0;
    for (size_t s = 1; s < m->n_sets; s++) {
        struct stack_set set = m->sets[s];
        if (!number[s])
            continue;
        number[s] = n;
        m->sets[n++] = (struct stack_set){(uint32_t)n_entries, set.n, 0};
        for (uint32_t k = 0; k < set.n; k++) {
            struct entry x = m->entries.e[set.first + k];
            m->entries.e[n_entries++] = (struct entry){x.place, number[x.rest]};
        }
    }
    m->n_sets = n;
    m->entries.n = n_entries;
    m->n_rows = m->g->n_classes;
    m->start = number[m->start];
    state = number[state];
    mem_free(number);
    map_rebuild(m, m->map_mask);
    return state;
}

int matcher_new(const runt_grammar *g, struct matcher **out, struct runt_err *err)
{
    struct matcher *m = mem_zalloc(sizeof *m);
    if (!m)
        return err_nomem(err, "following a grammar");
    m->g = g;
    map_rebuild(m, 255);
    if (room(m, &m->sets, 0, 1, &m->cap_sets, sizeof *m->sets))
        m->sets[m->n_sets++] = (struct stack_set){0};
    new_row(m); /* row 0 means none */
    if (!m->failed) {
        intern(m, &(struct entry){DONE, 0}, 1);
        walk_begin(m);
        for (uint32_t a = g->rules[0]; a < g->rules[1]; a++)
            put(m, &m->todo, g->starts[a], DONE_SET);
        m->start = walk(m);
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
    mem_free(m->sets);
    mem_free(m->entries.e);
    mem_free(m->rows);
    mem_free(m->map);
    mem_free(m->todo.e);
    mem_free(m->found.e);
    mem_free(m->joined.e);
    mem_free(m->seen);
    mem_free(m->seen_in);
    mem_free(m);
}

int matcher_test(const runt_grammar *g, const char *text, size_t n, bool *out,
                 struct runt_err *err)
{
    struct matcher *m = NULL;
    int rc = matcher_new(g, &m, err);
    if (rc)
        return rc;
    uint32_t state = matcher_start(m);
    for (size_t i = 0; i < n && state != STATE_NOWHERE; i++)
        state = matcher_step(m, matcher_trim(m, state), (uint8_t)text[i]);
    rc = matcher_failed(m, err);
    if (!rc)
        *out = matcher_may_end(m, state);
    matcher_free(m);
    return rc;
}
