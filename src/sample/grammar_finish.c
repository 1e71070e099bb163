/* Owns what must hold of rules that refer to each other before a text can be followed
 * along them, and their packed form.
 *
 * A rule that begins with itself, or repeats nothing without end, would make the
 * matcher go on for ever between two bytes.  A rule whose texts never end would lead an
 * answer where it cannot stop.  All three are found in time that is linear in the size
 * of the grammar. */
#include "sample/grammar_impl.h"

#include "base/err.h"
#include "base/mem.h"

#include <string.h>

/* The builder's alternatives by rule, and by the rules that stand in them. */
struct graph {
    const struct grammar_builder *b;
    uint32_t *own, *own_row; /* alternatives; [n_rules + 1] */
    uint32_t *callers,
        *calls_row;           /* alternatives, once for every call; [n_rules + 1] */
    uint32_t *waits;          /* [n_alts], of spread */
    uint32_t *queue;          /* [n_rules] */
    uint8_t *dead;            /* [n_alts]: dropped */
    uint8_t *ends, *nullable; /* [n_rules] */
    uint32_t *number;         /* [n_rules]: in the packed form + 1, or 0 */
};

static int graph_init(struct graph *g, const struct grammar_builder *b)
{
    *g = (struct graph){.b = b};
    g->own = mem_array(b->n_alts, sizeof *g->own);
    g->own_row = mem_array(b->n_rules + 1, sizeof *g->own_row);
    g->callers = mem_array(b->n_items, sizeof *g->callers);
    g->calls_row = mem_array(b->n_rules + 1, sizeof *g->calls_row);
    g->waits = mem_array(b->n_alts, sizeof *g->waits);
    g->queue = mem_array(b->n_rules, sizeof *g->queue);
    g->dead = mem_array(b->n_alts, 1);
    g->ends = mem_array(b->n_rules, 1);
    g->nullable = mem_array(b->n_rules, 1);
    g->number = mem_array(b->n_rules, sizeof *g->number);
    if (!g->own || !g->own_row || !g->callers || !g->calls_row || !g->waits ||
        !g->queue || !g->dead || !g->ends || !g->nullable || !g->number)
        return RUNT_E_NOMEM;
    for (size_t a = 0; a < b->n_alts; a++) {
        const struct alternative *alt = &b->alts[a];
        g->own_row[alt->rule + 1]++;
        for (uint32_t i = 0; i < alt->n; i++)
            if (item_is_rule(b->items[alt->first + i]))
                g->calls_row[(b->items[alt->first + i] >> 1) + 1]++;
    }
    for (size_t r = 0; r < b->n_rules; r++) {
        g->own_row[r + 1] += g->own_row[r];
        g->calls_row[r + 1] += g->calls_row[r];
    }
    for (size_t a = b->n_alts; a--;) { /* backwards, so that the order stays */
        const struct alternative *alt = &b->alts[a];
        g->own[--g->own_row[alt->rule + 1]] = (uint32_t)a;
        for (uint32_t i = 0; i < alt->n; i++)
            if (item_is_rule(b->items[alt->first + i]))
                g->callers[--g->calls_row[(b->items[alt->first + i] >> 1) + 1]] =
                    (uint32_t)a;
    }
    /* the rows have slid down by one */
    memmove(g->own_row, g->own_row + 1, b->n_rules * sizeof *g->own_row);
    memmove(g->calls_row, g->calls_row + 1, b->n_rules * sizeof *g->calls_row);
    g->own_row[b->n_rules] = (uint32_t)b->n_alts;
    g->calls_row[b->n_rules] = 0;
    for (size_t i = 0; i < b->n_items; i++)
        g->calls_row[b->n_rules] += item_is_rule(b->items[i]);
    return 0;
}

static void graph_free(struct graph *g)
{
    mem_free(g->own);
    mem_free(g->own_row);
    mem_free(g->callers);
    mem_free(g->calls_row);
    mem_free(g->waits);
    mem_free(g->queue);
    mem_free(g->dead);
    mem_free(g->ends);
    mem_free(g->nullable);
    mem_free(g->number);
}

/* Mark the rules that have an alternative (not dead) all of whose items are marked
 * rules or, with `bytes`, bytes. */
static void spread(struct graph *g, bool bytes, uint8_t *mark)
{
    const struct grammar_builder *b = g->b;
    size_t n = 0;
    for (size_t a = 0; a < b->n_alts; a++) {
        const struct alternative *alt = &b->alts[a];
        g->waits[a] = g->dead[a];
        for (uint32_t i = 0; i < alt->n; i++)
            g->waits[a] += item_is_rule(b->items[alt->first + i]) || !bytes;
        if (!g->waits[a] && !mark[alt->rule]) {
            mark[alt->rule] = 1;
            g->queue[n++] = alt->rule;
        }
    }
    while (n) {
        uint32_t rule = g->queue[--n];
        for (uint32_t i = g->calls_row[rule]; i < g->calls_row[rule + 1]; i++) {
            const struct alternative *alt = &b->alts[g->callers[i]];
            if (--g->waits[g->callers[i]] || mark[alt->rule])
                continue;
            mark[alt->rule] = 1;
            g->queue[n++] = alt->rule;
        }
    }
}

/* Drop the alternatives that never end, or find a rule that does not. */
static bool drop_endless(struct graph *g, uint32_t root, bool prune,
                         struct grammar_fault *fault)
{
    const struct grammar_builder *b = g->b;
    spread(g, true, g->ends);
    for (size_t r = 1; r < b->n_rules; r++)
        if (!g->ends[r] && (!prune || r == root)) {
            *fault = (struct grammar_fault){FAULT_ENDLESS, b->where[r]};
            return false;
        }
    for (size_t a = 0; a < b->n_alts; a++) {
        const struct alternative *alt = &b->alts[a];
        for (uint32_t i = 0; i < alt->n; i++) {
            grammar_item item = b->items[alt->first + i];
            g->dead[a] |= item_is_rule(item) && !g->ends[item >> 1];
        }
    }
    return true;
}

/* ---- rules that begin with themselves ---- */

struct visit {
    uint32_t rule, alt, item; /* alt: index into own; item: the next one to look at */
};

/* The next rule that v's rule may begin with, or 0. */
static uint32_t next_first(const struct graph *g, struct visit *v)
{
    const struct grammar_builder *b = g->b;
    for (; v->alt < g->own_row[v->rule + 1]; v->alt++, v->item = 0) {
        const struct alternative *alt = &b->alts[g->own[v->alt]];
        if (g->dead[g->own[v->alt]])
            continue;
        for (; v->item < alt->n; v->item++) {
            grammar_item item = b->items[alt->first + v->item];
            bool before_is_empty =
                !v->item || g->nullable[b->items[alt->first + v->item - 1] >> 1];
            if (!item_is_rule(item) || !before_is_empty)
                break;
            v->item++;
            return item >> 1;
        }
    }
    return 0;
}

/* Depth first, without recursion: rules can be nested a million deep. */
static int check_left(struct graph *g, struct grammar_fault *fault)
{
    enum { NEW, OPEN, DONE };
    const struct grammar_builder *b = g->b;
    uint8_t *mark = mem_array(b->n_rules, 1);
    struct visit *stack = mem_array(b->n_rules, sizeof *stack);
    int rc = mark && stack ? 0 : RUNT_E_NOMEM;
    for (uint32_t r = 0; !rc && r < b->n_rules; r++) {
        size_t depth = 0;
        if (mark[r] == NEW) {
            stack[depth++] = (struct visit){r, g->own_row[r], 0};
            mark[r] = OPEN;
        }
        while (depth && !rc) {
            uint32_t next = next_first(g, &stack[depth - 1]);
            if (!next) {
                mark[stack[--depth].rule] = DONE;
            } else if (mark[next] == NEW) {
                stack[depth++] = (struct visit){next, g->own_row[next], 0};
                mark[next] = OPEN;
            } else if (mark[next] == OPEN) {
                *fault = (struct grammar_fault){FAULT_LEFT, b->where[next]};
                rc = RUNT_E_FORMAT;
            }
        }
    }
    mem_free(mark);
    mem_free(stack);
    return rc;
}

static int check(struct graph *g, uint32_t root, bool prune,
                 struct grammar_fault *fault)
{
    if (!drop_endless(g, root, prune, fault))
        return RUNT_E_FORMAT;
    spread(g, false, g->nullable);
    for (size_t i = 0; i < g->b->n_loops; i++)
        if (g->nullable[g->b->loops[i].rule]) {
            *fault = (struct grammar_fault){FAULT_LOOP, g->b->loops[i].where};
            return RUNT_E_FORMAT;
        }
    return check_left(g, fault);
}

/* ---- packing ---- */

/* Number what can be reached from the root, in g->queue; returns how many. */
static uint32_t reach(struct graph *g, uint32_t root)
{
    const struct grammar_builder *b = g->b;
    uint32_t n = 1;
    g->queue[0] = root;
    g->number[root] = 1;
    for (uint32_t k = 0; k < n; k++) {
        uint32_t rule = g->queue[k];
        for (uint32_t a = g->own_row[rule]; a < g->own_row[rule + 1]; a++) {
            const struct alternative *alt = &b->alts[g->own[a]];
            for (uint32_t i = 0; i < alt->n && !g->dead[g->own[a]]; i++) {
                grammar_item item = b->items[alt->first + i];
                if (!item_is_rule(item) || g->number[item >> 1])
                    continue;
                g->queue[n++] = item >> 1;
                g->number[item >> 1] = n;
            }
        }
    }
    return n;
}

/* Bytes that are in the same sets get the same class. */
static void classify(runt_grammar *g, size_t n_sets)
{
    g->n_classes = 1;
    for (size_t k = 0; k < n_sets && g->n_classes < 256; k++) {
        uint16_t split[256] = {0}; /* by class: that of its bytes in this set, + 1 */
        unsigned n_inside[256] = {0}, n_all[256] = {0};
        for (unsigned c = 0; c < 256; c++) {
            n_all[g->byte_class[c]]++;
            n_inside[g->byte_class[c]] += byte_set_has(&g->sets[k], (uint8_t)c);
        }
        for (unsigned c = 0; c < 256; c++) {
            unsigned old = g->byte_class[c];
            if (!byte_set_has(&g->sets[k], (uint8_t)c) || n_inside[old] == n_all[old])
                continue;
            if (!split[old])
                split[old] = (uint16_t)++g->n_classes;
            g->byte_class[c] = (uint8_t)(split[old] - 1);
        }
    }
    for (unsigned c = 256; c--;)
        g->class_byte[g->byte_class[c]] = (uint8_t)c;
}

static int pack(struct graph *g, uint32_t root, runt_grammar **out)
{
    struct grammar_builder *b = (struct grammar_builder *)g->b;
    uint32_t n_rules = reach(g, root), n_starts = 0;
    runt_grammar *p = mem_zalloc(sizeof *p);
    if (!p)
        return RUNT_E_NOMEM;
    p->code = mem_array(b->n_items + b->n_alts, sizeof *p->code);
    p->starts = mem_array(b->n_alts, sizeof *p->starts);
    p->rules = mem_array((size_t)n_rules + 1, sizeof *p->rules);
    if (!p->code || !p->starts || !p->rules) {
        runt_grammar_free(p);
        return RUNT_E_NOMEM;
    }
    for (uint32_t k = 0; k < n_rules; k++) {
        uint32_t rule = g->queue[k];
        p->rules[k] = n_starts;
        for (uint32_t a = g->own_row[rule]; a < g->own_row[rule + 1]; a++) {
            const struct alternative *alt = &b->alts[g->own[a]];
            if (g->dead[g->own[a]])
                continue;
            p->starts[n_starts++] = (uint32_t)p->n_code;
            for (uint32_t i = 0; i < alt->n; i++) {
                grammar_item item = b->items[alt->first + i];
                p->code[p->n_code++] =
                    item_is_rule(item) ? item_of_rule(g->number[item >> 1] - 1) : item;
            }
            p->code[p->n_code++] = ITEM_END;
        }
    }
    p->rules[n_rules] = n_starts;
    p->n_rules = n_rules;
    p->sets = b->sets;
    b->sets = NULL;
    classify(p, b->n_sets);
    *out = p;
    return 0;
}

int builder_finish(struct grammar_builder *b, uint32_t root, bool prune,
                   struct grammar_fault *fault, runt_grammar **out,
                   struct runt_err *err)
{
    struct graph g = {0};
    *fault = (struct grammar_fault){FAULT_NONE, 0};
    if (b->too_large) {
        fault->kind = FAULT_SIZE;
        return RUNT_E_FORMAT;
    }
    int rc = b->no_memory ? RUNT_E_NOMEM : graph_init(&g, b);
    rc = rc ? rc : check(&g, root, prune, fault);
    rc = rc ? rc : pack(&g, root, out);
    graph_free(&g);
    return rc == RUNT_E_NOMEM ? err_nomem(err, "a grammar") : rc;
}

void runt_grammar_free(runt_grammar *g)
{
    if (!g)
        return;
    mem_free(g->code);
    mem_free(g->starts);
    mem_free(g->rules);
    mem_free(g->sets);
    mem_free(g);
}
