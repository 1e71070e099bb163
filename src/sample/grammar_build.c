/* Owns a grammar while it grows: rules, alternatives, and how characters become bytes.
 *
 * Everything is reduced to rules with alternatives of bytes and rules: a repetition is
 * a rule that calls itself last, a group is a rule without a name, a class of
 * characters beyond ASCII is a rule whose alternatives are ranges of UTF-8.  Equal sets
 * and classes are kept once. */
#include "sample/grammar_impl.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <string.h>

void item_put(struct item_list *l, grammar_item item)
{
    if (l->failed || !grow(&l->items, l->n, 1, &l->cap, sizeof *l->items)) {
        l->failed = true;
        return;
    }
    l->items[l->n++] = item;
}

void item_list_free(struct item_list *l)
{
    mem_free(l->items);
    *l = (struct item_list){0};
}

/* ---- finding equal things again ---- */

static uint64_t hash_bytes(const void *p, size_t n)
{
    const unsigned char *s = p;
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < n; i++)
        h = (h ^ s[i]) * 0x100000001b3u;
    return h ^ h >> 32;
}

static bool map_grow(struct index_map *m)
{
    if (m->slots && m->n * 2 <= m->mask)
        return true;
    struct index_map bigger = {.mask = m->slots ? m->mask * 2 + 1 : 63};
    bigger.slots = mem_array(bigger.mask + 1, 2 * sizeof *bigger.slots);
    if (!bigger.slots)
        return false;
    for (size_t i = 0; m->slots && i <= m->mask; i++) {
        if (!m->slots[2 * i])
            continue;
        size_t k = m->slots[2 * i + 1] & bigger.mask;
        while (bigger.slots[2 * k])
            k = (k + 1) & bigger.mask;
        memcpy(&bigger.slots[2 * k], &m->slots[2 * i], 2 * sizeof *m->slots);
    }
    bigger.n = m->n;
    mem_free(m->slots);
    *m = bigger;
    return true;
}

/* ---- a builder ---- */

int builder_new(struct grammar_builder **out, struct runt_err *err)
{
    struct grammar_builder *b = mem_zalloc(sizeof *b);
    if (!b)
        return err_nomem(err, "a grammar");
    builder_rule(b, 0); /* rule 0 matches nothing; what does not fit becomes it */
    *out = b;
    return 0;
}

void builder_free(struct grammar_builder *b)
{
    if (!b)
        return;
    mem_free(b->alts);
    mem_free(b->items);
    mem_free(b->where);
    mem_free(b->loops);
    mem_free(b->sets);
    mem_free(b->set_map.slots);
    mem_free(b->classes);
    mem_free(b->class_ranges);
    mem_free(b->class_map.slots);
    mem_free(b);
}

bool builder_failed(const struct grammar_builder *b)
{
    return b->no_memory || b->too_large;
}

/* Room for more elements of one of the builder's arrays. */
static bool room(struct grammar_builder *b, void *array, size_t n, size_t more,
                 size_t *cap, size_t size)
{
    if (builder_failed(b))
        return false;
    if (more > GRAMMAR_MAX_ITEMS - n)
        b->too_large = true;
    else if (!grow(array, n, more, cap, size))
        b->no_memory = true;
    return !builder_failed(b);
}

uint32_t builder_rule(struct grammar_builder *b, size_t where)
{
    if (!room(b, &b->where, b->n_rules, 1, &b->cap_rules, sizeof *b->where))
        return 0;
    b->where[b->n_rules] = where;
    return (uint32_t)b->n_rules++;
}

void builder_place(struct grammar_builder *b, uint32_t rule, size_t where)
{
    if (!builder_failed(b))
        b->where[rule] = where;
}

void builder_alternative(struct grammar_builder *b, uint32_t rule,
                         const grammar_item *items, size_t n)
{
    if (!room(b, &b->alts, b->n_alts, 1, &b->cap_alts, sizeof *b->alts) ||
        !room(b, &b->items, b->n_items, n, &b->cap_items, sizeof *b->items))
        return;
    b->alts[b->n_alts++] =
        (struct alternative){rule, (uint32_t)b->n_items, (uint32_t)n};
    if (n)
        memcpy(b->items + b->n_items, items, n * sizeof *items);
    b->n_items += n;
}

grammar_item builder_group(struct grammar_builder *b, const grammar_item *items,
                           size_t n, size_t where)
{
    if (n == 1)
        return items[0];
    uint32_t rule = builder_rule(b, where);
    builder_alternative(b, rule, items, n);
    return item_of_rule(rule);
}

/* ---- bytes and characters ---- */

static grammar_item set_item(struct grammar_builder *b, const struct byte_set *set)
{
    struct index_map *m = &b->set_map;
    if (!room(b, &b->sets, b->n_sets, 1, &b->cap_sets, sizeof *b->sets))
        return item_of_rule(0);
    if (!map_grow(m)) {
        b->no_memory = true;
        return item_of_rule(0);
    }
    uint32_t hash = (uint32_t)hash_bytes(set, sizeof *set);
    size_t i = hash & m->mask;
    for (; m->slots[2 * i]; i = (i + 1) & m->mask)
        if (!memcmp(&b->sets[m->slots[2 * i] - 1], set, sizeof *set))
            return 2 * (m->slots[2 * i] - 1);
    b->sets[b->n_sets++] = *set;
    m->slots[2 * i] = (uint32_t)b->n_sets;
    m->slots[2 * i + 1] = hash;
    m->n++;
    return 2 * (uint32_t)(b->n_sets - 1);
}

static void set_add(struct byte_set *s, unsigned lo, unsigned hi)
{
    for (unsigned c = lo; c <= hi; c++)
        s->bits[c >> 6] |= (uint64_t)1 << (c & 63);
}

grammar_item builder_byte(struct grammar_builder *b, uint8_t lo, uint8_t hi)
{
    struct byte_set s = {{0}};
    set_add(&s, lo, hi);
    return set_item(b, &s);
}

void builder_text(struct grammar_builder *b, struct item_list *to, const char *bytes,
                  size_t n)
{
    for (size_t i = 0; i < n; i++)
        item_put(to, builder_byte(b, (uint8_t)bytes[i], (uint8_t)bytes[i]));
    if (to->failed)
        b->no_memory = true;
}

/* Alternatives for the characters lo to hi, all beyond ASCII: cut where the length
 * changes, around the surrogates, and where the bytes but the last ones are not the
 * same, until every byte runs through a range of its own. */
static void add_range(struct grammar_builder *b, uint32_t rule, uint32_t lo,
                      uint32_t hi)
{
    static const uint32_t last_of_length[] = {0x7ff, 0xffff};
    if (lo > hi || builder_failed(b))
        return;
    if (lo <= 0xdfff && hi >= 0xd800) {
        add_range(b, rule, lo, 0xd7ff);
        add_range(b, rule, 0xe000, hi);
        return;
    }
    for (size_t i = 0; i < 2; i++)
        if (lo <= last_of_length[i] && hi > last_of_length[i]) {
            add_range(b, rule, lo, last_of_length[i]);
            add_range(b, rule, last_of_length[i] + 1, hi);
            return;
        }
    for (unsigned k = 6; k <= 18; k += 6) {
        uint32_t low = ((uint32_t)1 << k) - 1;
        if ((lo & ~low) == (hi & ~low))
            break;
        if (lo & low) {
            add_range(b, rule, lo, lo | low);
            add_range(b, rule, (lo | low) + 1, hi);
            return;
        }
        if ((hi & low) != low) {
            add_range(b, rule, lo, (hi & ~low) - 1);
            add_range(b, rule, hi & ~low, hi);
            return;
        }
    }
    char first[4], last[4];
    grammar_item items[4];
    size_t n = utf8_put(lo, first);
    utf8_put(hi, last);
    for (size_t i = 0; i < n; i++)
        items[i] = builder_byte(b, (uint8_t)first[i], (uint8_t)last[i]);
    builder_alternative(b, rule, items, n);
}

/* A class that goes beyond ASCII, as a rule. */
static grammar_item make_wide(struct grammar_builder *b, const struct char_set *s,
                              const struct byte_set *ascii)
{
    uint32_t rule = builder_rule(b, 0);
    if (ascii->bits[0] | ascii->bits[1]) {
        grammar_item item = set_item(b, ascii);
        builder_alternative(b, rule, &item, 1);
    }
    for (size_t i = 0; i < s->n; i++)
        add_range(b, rule, s->ranges[i].lo > 0x80 ? s->ranges[i].lo : 0x80,
                  s->ranges[i].hi);
    return item_of_rule(rule);
}

static grammar_item wide_item(struct grammar_builder *b, const struct char_set *s,
                              const struct byte_set *ascii)
{
    struct index_map *m = &b->class_map;
    if (!room(b, &b->classes, b->n_classes, 1, &b->cap_classes, sizeof *b->classes) ||
        !room(b, &b->class_ranges, b->n_class_ranges, s->n, &b->cap_class_ranges,
              sizeof *b->class_ranges))
        return item_of_rule(0);
    if (!map_grow(m)) {
        b->no_memory = true;
        return item_of_rule(0);
    }
    size_t bytes = s->n * sizeof *s->ranges;
    uint32_t hash = (uint32_t)hash_bytes(s->ranges, bytes);
    size_t i = hash & m->mask;
    for (; m->slots[2 * i]; i = (i + 1) & m->mask) {
        const struct wide_class *c = &b->classes[m->slots[2 * i] - 1];
        if (c->n == s->n && !memcmp(b->class_ranges + c->first, s->ranges, bytes))
            return c->item;
    }
    memcpy(b->class_ranges + b->n_class_ranges, s->ranges, bytes);
    grammar_item item = make_wide(b, s, ascii);
    b->classes[b->n_classes++] =
        (struct wide_class){(uint32_t)b->n_class_ranges, (uint32_t)s->n, item};
    b->n_class_ranges += s->n;
    m->slots[2 * i] = (uint32_t)b->n_classes;
    m->slots[2 * i + 1] = hash;
    m->n++;
    return item;
}

grammar_item builder_chars(struct grammar_builder *b, const struct char_set *s)
{
    struct byte_set ascii = {{0}};
    if (s->failed)
        b->no_memory = true;
    if (!s->n || s->failed)
        return item_of_rule(0);
    for (size_t i = 0; i < s->n && s->ranges[i].lo < 0x80; i++)
        set_add(&ascii, s->ranges[i].lo,
                s->ranges[i].hi < 0x80 ? s->ranges[i].hi : 0x7f);
    return s->ranges[s->n - 1].hi < 0x80 ? set_item(b, &ascii)
                                         : wide_item(b, s, &ascii);
}

/* ---- repetition ---- */

/* R ::= item R | nothing */
static grammar_item repeat_ever(struct grammar_builder *b, grammar_item item,
                                size_t where)
{
    uint32_t rule = builder_rule(b, where);
    const grammar_item both[2] = {item, item_of_rule(rule)};
    builder_alternative(b, rule, both, 2);
    builder_alternative(b, rule, NULL, 0);
    if (item_is_rule(item) &&
        room(b, &b->loops, b->n_loops, 1, &b->cap_loops, sizeof *b->loops))
        b->loops[b->n_loops++] = (struct loop){item >> 1, where};
    return item_of_rule(rule);
}

/* R1 ::= item | nothing, R2 ::= item R1 | nothing, and so on to Rn */
static grammar_item repeat_at_most(struct grammar_builder *b, grammar_item item,
                                   uint32_t n, size_t where)
{
    grammar_item both[2] = {item, 0};
    for (uint32_t i = 0; i < n && !builder_failed(b); i++) {
        uint32_t rule = builder_rule(b, where);
        builder_alternative(b, rule, both, i ? 2 : 1);
        builder_alternative(b, rule, NULL, 0);
        both[1] = item_of_rule(rule);
    }
    return both[1];
}

grammar_item builder_repeat(struct grammar_builder *b, grammar_item item, uint32_t min,
                            uint32_t max, size_t where)
{
    struct item_list l = {0};
    for (uint32_t i = 0; i < min && !l.failed && l.n <= GRAMMAR_MAX_ITEMS; i++)
        item_put(&l, item);
    if (max == REPEAT_EVER)
        item_put(&l, repeat_ever(b, item, where));
    else if (max > min)
        item_put(&l, repeat_at_most(b, item, max - min, where));
    if (l.failed)
        b->no_memory = true;
    grammar_item out = builder_group(b, l.items, l.n, where);
    item_list_free(&l);
    return out;
}
