/* Owns the rules that are made of shapes, and the way from a schema's text to its
 * grammar.
 *
 * A list of schemas becomes a rule, once: where it comes again, as in schemas that
 * refer to themselves, the rule is there.  What nothing can satisfy becomes a rule
 * without alternatives, and what needs it disappears when the grammar is finished. */
#include "sample/schema.h"

#include "base/err.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_ELEMENTS = 4096 }; /* no more are made where there is a maxItems */

static grammar_item list_item(struct schema *c, const struct schema_list *l,
                              unsigned depth);

static void put_text(struct schema *c, struct item_list *l, const char *text)
{
    builder_text(c->builder, l, text, strlen(text));
}

/* The items of a list as an alternative, and the list empty again. */
static void add_alternative(struct schema *c, uint32_t rule, struct item_list *l)
{
    schema_no_memory(c, l->failed);
    if (!l->failed)
        builder_alternative(c->builder, rule, l->items, l->n);
    item_list_free(l);
}

/* ---- values that are listed ---- */

/* Real numbers with as few digits as still mean the same. */
static void put_value(struct schema *c, struct item_list *l, const json_t *v)
{
    char *text = NULL;
    size_t n = 0;
    for (size_t digits = 15; digits <= 17 && !c->rc; digits++) {
        size_t flags = JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(digits);
        json_t *again = NULL;
        mem_free(text);
        n = json_dumpb(v, NULL, 0, flags);
        text = mem_alloc(n);
        schema_no_memory(c, !text || !n);
        if (c->rc)
            break;
        json_dumpb(v, text, n, flags);
        again = json_loadb(text, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        bool same = json_equal((json_t *)v, again);
        json_decref(again);
        if (same)
            break;
    }
    if (!c->rc)
        builder_text(c->builder, l, text, n);
    mem_free(text);
}

/* A value that all parts allow, those with oneOf included. */
static void add_value(struct schema *c, uint32_t rule, const struct schema_shape *s,
                      const json_t *v)
{
    struct item_list l = {0};
    for (size_t i = 0; i < s->n_parts; i++)
        if (!schema_valid(c, s->parts[i].schema, v, false))
            return;
    if (c->rc)
        return;
    put_value(c, &l, v);
    add_alternative(c, rule, &l);
}

static void add_values(struct schema *c, uint32_t rule, const struct schema_shape *s)
{
    const json_t *constant = json_object_get(s->values, "const"), *v;
    size_t i;
    if (constant)
        add_value(c, rule, s, constant);
    else
        json_array_foreach(json_object_get(s->values, "enum"), i, v)
            add_value(c, rule, s, v);
}

/* ---- arrays ---- */

/* "[", the elements, "]".  The elements that have a place come one by one, each behind
 * the one before it; the others are a repetition. */
static grammar_item array_item(struct schema *c, const struct schema_shape *s,
                               unsigned depth)
{
    struct grammar_builder *b = c->builder;
    size_t min = s->elements.min, max = s->elements.max, n_first = s->n_first;
    grammar_item ws = schema_rule(c, "ws"), comma = schema_rule(c, "comma"),
                 rest = item_of_rule(0);
    if (n_first > max)
        n_first = max;
    if (!schema_makes_rest(s) && max > n_first)
        max = min > n_first ? min : n_first;
    if (max > MOST_ELEMENTS && max > min)
        max = max == SCHEMA_NO_MAX ? max : min > MOST_ELEMENTS ? min : MOST_ELEMENTS;
    if (max > n_first)
        rest = list_item(c, &s->rest, depth);
    if (c->rc || min > GRAMMAR_MAX_ITEMS) {
        schema_fail(c, RUNT_E_UNSUPPORTED, s->n_parts ? s->parts[0].schema : c->root,
                    "a 'minItems' of %zu is not supported", min);
        return item_of_rule(0);
    }
    /* what may follow the i elements that are there, from the last i to the first */
    size_t more_min = min > n_first ? min - n_first : 0,
           more_max = max == SCHEMA_NO_MAX ? SCHEMA_NO_MAX : max - n_first;
    grammar_item next[2] = {comma, rest};
    grammar_item tail;
    if (n_first) {
        tail = more_max
                   ? builder_repeat(b, builder_group(b, next, 2, 0), (uint32_t)more_min,
                                    more_max == SCHEMA_NO_MAX ? REPEAT_EVER
                                                              : (uint32_t)more_max,
                                    0)
                   : builder_group(b, NULL, 0, 0);
    } else if (more_max) { /* the first one has no comma before it */
        grammar_item both[2] = {
            rest,
            builder_repeat(
                b, builder_group(b, next, 2, 0), more_min ? (uint32_t)more_min - 1 : 0,
                more_max == SCHEMA_NO_MAX ? REPEAT_EVER : (uint32_t)more_max - 1, 0)};
        tail = builder_group(b, both, 2, 0);
    } else {
        tail = item_of_rule(0);
    }
    for (size_t i = n_first; i-- > 0 && !c->rc;) {
        uint32_t rule = builder_rule(b, 0);
        grammar_item all[3] = {comma, list_item(c, &s->first[i], depth), tail};
        builder_alternative(b, rule, i ? all : all + 1, i ? 3 : 2);
        if (i && i >= min)
            builder_alternative(b, rule, NULL, 0);
        tail = item_of_rule(rule);
    }
    uint32_t rule = builder_rule(b, 0);
    grammar_item open = builder_byte(b, '[', '['), close = builder_byte(b, ']', ']'),
                 full[5] = {open, ws, tail, ws, close}, empty[3] = {open, ws, close};
    builder_alternative(b, rule, full, 5);
    if (!min)
        builder_alternative(b, rule, empty, 3);
    return item_of_rule(rule);
}

/* ---- objects ---- */

static grammar_item member_item(struct schema *c, grammar_item name,
                                const struct schema_list *schemas, unsigned depth)
{
    grammar_item items[3] = {name, schema_rule(c, "colon"),
                             list_item(c, schemas, depth)};
    return builder_group(c->builder, items, 3, 0);
}

static grammar_item name_item(struct schema *c, const char *name)
{
    struct strbuf spelled = {0};
    struct item_list l = {0};
    sb_char(&spelled, '"');
    schema_spell(&spelled, name, strlen(name));
    sb_char(&spelled, '"');
    schema_no_memory(c, spelled.failed);
    if (!spelled.failed)
        builder_text(c->builder, &l, spelled.data, spelled.len);
    schema_no_memory(c, l.failed);
    grammar_item out =
        c->rc ? item_of_rule(0) : builder_group(c->builder, l.items, l.n, 0);
    item_list_free(&l);
    sb_free(&spelled);
    return out;
}

/* Properties come in their order, each or not; those that no schema names come last.
 * From the last to the first: what may follow when something stands before it, which
 * wants a comma, and when nothing does. */
static grammar_item object_item(struct schema *c, const struct schema_shape *s,
                                unsigned depth)
{
    struct grammar_builder *b = c->builder;
    grammar_item ws = schema_rule(c, "ws"), comma = schema_rule(c, "comma"),
                 none = builder_group(b, NULL, 0, 0), behind = none, alone = none;
    if (schema_makes_more(s)) {
        grammar_item member = member_item(c, schema_other_name(c, s), &s->more, depth);
        grammar_item next[2] = {comma, member};
        behind = builder_repeat(b, builder_group(b, next, 2, 0), 0, REPEAT_EVER, 0);
        grammar_item list[2] = {member, behind};
        alone = builder_repeat(b, builder_group(b, list, 2, 0), 0, 1, 0);
    }
    for (size_t i = s->n_properties; i-- > 0 && !c->rc;) {
        const struct schema_property *p = &s->properties[i];
        grammar_item member = member_item(c, name_item(c, p->name), &p->schemas, depth);
        uint32_t new_behind = builder_rule(b, 0), new_alone = builder_rule(b, 0);
        grammar_item next[3] = {comma, member, behind};
        builder_alternative(b, new_behind, next, 3);
        builder_alternative(b, new_alone, next + 1, 2);
        if (!p->required) {
            builder_alternative(b, new_behind, &behind, 1);
            builder_alternative(b, new_alone, &alone, 1);
        }
        behind = item_of_rule(new_behind);
        alone = item_of_rule(new_alone);
    }
    grammar_item all[5] = {builder_byte(b, '{', '{'), ws, alone, ws,
                           builder_byte(b, '}', '}')};
    return builder_group(b, all, 5, 0);
}

/* ---- shapes ---- */

static void add_shape(struct schema *c, uint32_t rule, const struct schema_shape *s,
                      unsigned depth)
{
    struct item_list l = {0};
    if (s->values) {
        add_values(c, rule, s);
        return;
    }
    for (size_t i = 0; i < s->others.n && !c->rc; i++)
        if (!schema_excludes(c, s, s->others.items[i]))
            schema_fail(c, RUNT_E_UNSUPPORTED, s->others.items[i],
                        "this branch of 'oneOf' may hold together with another one; "
                        "only branches that exclude each other are supported (anyOf "
                        "takes any)");
    static const struct {
        unsigned type;
        const char *text;
    } words[] = {{T_NULL, "null"}, {T_BOOLEAN, "true"}, {T_BOOLEAN, "false"}};
    for (size_t i = 0; i < sizeof words / sizeof *words && !c->rc; i++)
        if (s->types & words[i].type) {
            put_text(c, &l, words[i].text);
            add_alternative(c, rule, &l);
        }
    const unsigned others[] = {T_NUMBER, T_STRING, T_ARRAY, T_OBJECT};
    for (size_t i = 0; i < sizeof others / sizeof *others && !c->rc; i++) {
        unsigned types = s->types & others[i];
        if (!types)
            continue;
        item_put(&l, types & T_NUMBER    ? schema_number(c, s, types)
                     : types == T_STRING ? schema_string(c, s)
                     : types == T_ARRAY  ? array_item(c, s, depth)
                                         : object_item(c, s, depth));
        add_alternative(c, rule, &l);
    }
}

/* ---- lists of schemas ---- */

/* The lists that have a rule. */
struct memo {
    struct memo_entry {
        const struct schema_list *list;
        uint32_t rule;
        struct memo_entry *next;
    } * buckets[1024];
};

static struct memo_entry *find_memo(struct schema *c, const struct schema_list *l)
{
    uint64_t hash = l->n;
    if (!c->memo)
        c->memo = schema_alloc(c, 1, sizeof *c->memo);
    for (size_t i = 0; i < l->n; i++)
        hash = (hash ^ (uintptr_t)l->items[i] >> 4) * 0x9e3779b97f4a7c15u;
    if (c->rc)
        return NULL;
    struct memo_entry **at = &c->memo->buckets[hash >> 54];
    for (; *at; at = &(*at)->next) {
        schema_spend(c, 1);
        if ((*at)->list->n == l->n &&
            !memcmp((*at)->list->items, l->items, l->n * sizeof *l->items))
            return *at;
    }
    struct schema_list *copy = schema_alloc(c, 1, sizeof *copy);
    if (!copy)
        return NULL;
    *copy = *l;
    *at = schema_alloc(c, 1, sizeof **at);
    if (*at)
        **at = (struct memo_entry){.list = copy};
    return *at;
}

static bool says_nothing(const json_t *schema)
{
    return json_is_true(schema) ||
           (json_is_object(schema) && !json_object_size(schema));
}

static grammar_item list_item(struct schema *c, const struct schema_list *l,
                              unsigned depth)
{
    struct schema_list list = {0};
    for (size_t i = 0; i < l->n; i++)
        if (!says_nothing(l->items[i]))
            schema_list_add(c, &list, l->items[i]);
    if (!list.n && !c->rc)
        return schema_rule(c, "value");
    struct memo_entry *e = find_memo(c, &list);
    if (!e || e->rule)
        return item_of_rule(e ? e->rule : 0);
    if (depth > SCHEMA_MAX_DEPTH)
        schema_fail(c, RUNT_E_FORMAT, list.items[0],
                    "schemas are nested more than %d deep", SCHEMA_MAX_DEPTH);
    e->rule = builder_rule(c->builder, 0);
    struct schema_shapes ways = schema_expand(c, &list, true);
    for (size_t i = 0; i < ways.n && !c->rc && !builder_failed(c->builder); i++)
        add_shape(c, e->rule, &ways.items[i], depth + 1);
    return item_of_rule(e->rule);
}

/* ---- the door ---- */

static void finish(struct schema *c, runt_grammar **out)
{
    struct grammar_fault fault;
    struct schema_list list = {0};
    schema_list_add(c, &list, c->root);
    grammar_item item = list_item(c, &list, 0);
    if (c->rc)
        return;
    uint32_t root = builder_rule(c->builder, 0);
    builder_alternative(c->builder, root, &item, 1);
    c->rc = builder_finish(c->builder, root, true, &fault, out, c->err);
    if (c->rc == RUNT_E_FORMAT)
        c->rc =
            fault.kind == FAULT_SIZE
                ? err_set(c->err, RUNT_E_FORMAT,
                          "the schema makes a grammar of more than %d items",
                          GRAMMAR_MAX_ITEMS)
                : err_set(c->err, RUNT_E_FORMAT, "#: no value can satisfy this schema");
}

int runt_grammar_json_schema(const char *json, size_t n, runt_grammar **out,
                             struct runt_err *err)
{
    struct schema c = {.err = err};
    if (n > GRAMMAR_MAX_TEXT)
        return err_set(err, RUNT_E_FORMAT,
                       "a schema of %zu bytes, more than the limit of %d", n,
                       GRAMMAR_MAX_TEXT);
    c.rc = js_parse(json, n, "the schema", &c.root, err);
    if (!c.rc)
        c.rc = builder_new(&c.builder, err);
    if (!c.rc)
        schema_check(&c, c.root);
    if (!c.rc)
        finish(&c, out);
    schema_free(&c);
    return c.rc;
}

int runt_grammar_json(runt_grammar **out, struct runt_err *err)
{
    static const char object[] = "{\"type\":\"object\"}";
    return runt_grammar_json_schema(object, sizeof object - 1, out, err);
}
