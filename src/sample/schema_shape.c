/* Owns what schemas demand together.
 *
 * A shape is filled by one schema after the other: the types that all allow, the larger
 * minimum, every schema that a property must satisfy.  allOf and $ref are more schemas
 * for the same shape.  anyOf and oneOf are choices: for each branch the shape is copied
 * and filled further, so that in the end there is a shape for every way through, and no
 * choice in it.  What several schemas say about one property or element stays a list,
 * which becomes shapes in its turn. */
#include "sample/schema.h"

#include "base/err.h"

#include <math.h>
#include <string.h>

enum { MAX_PARTS = 256, MAX_SHAPES = 512, MAX_PROPERTIES = 4096 };

static const json_t *get(const json_t *schema, const char *key)
{
    return json_object_get(schema, key);
}

static struct schema_list copy_list(struct schema *c, const struct schema_list *l)
{
    struct schema_list out = {.n = l->n, .cap = l->n};
    out.items = schema_alloc(c, l->n, sizeof *l->items);
    if (out.items && l->n)
        memcpy(out.items, l->items, l->n * sizeof *l->items);
    return out;
}

/* ---- one schema's own demands ---- */

static unsigned type_bits(const char *name)
{
    static const struct {
        const char *name;
        unsigned bits;
    } types[] = {
        {"null", T_NULL},     {"boolean", T_BOOLEAN}, {"integer", T_WHOLE},
        {"number", T_NUMBER}, {"string", T_STRING},   {"array", T_ARRAY},
        {"object", T_OBJECT},
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(name, types[i].name))
            return types[i].bits;
    return 0;
}

unsigned schema_types(const json_t *schema)
{
    const json_t *type = get(schema, "type");
    unsigned bits = 0;
    size_t i;
    json_t *x;
    if (!type)
        return T_ALL;
    if (json_is_string(type))
        bits = type_bits(json_string_value(type));
    json_array_foreach(type, i, x) bits |= type_bits(json_string_value(x));
    return bits | (json_is_true(get(schema, "nullable")) ? T_NULL : 0);
}

static void fill_types(struct schema_shape *s, const json_t *schema)
{
    s->types &= schema_types(schema);
    s->has_types = s->has_types || get(schema, "type");
    if (get(schema, "enum") || get(schema, "const"))
        s->values = schema;
}

/* A bound on numbers.  For whole numbers it is rounded to the next one that it allows;
 * for others it must be a whole number itself. */
static void fill_bound(struct schema *c, struct schema_shape *s, const json_t *schema,
                       const char *key, bool is_min, bool exclusive)
{
    const json_t *v = get(schema, key);
    const double most = 1e18;
    if (!v)
        return;
    double x = json_number_value(v);
    s->spoken |= T_NUMBER;
    if (!(fabs(x) <= most)) {
        schema_fail(c, RUNT_E_UNSUPPORTED, schema,
                    "a '%s' of %g is not supported: the limit is %g", key, x, most);
        return;
    }
    json_int_t bound = json_is_integer(v) ? json_integer_value(v)
                       : is_min           ? (json_int_t)ceil(x)
                                          : (json_int_t)floor(x);
    bool whole = json_is_integer(v) || x == floor(x);
    if (exclusive && whole)
        bound += is_min ? 1 : -1;
    if ((exclusive || !whole) && !s->inexact) {
        s->inexact = schema;
        s->inexact_keyword = key;
    }
    if (is_min) {
        s->min = s->has_min && s->min > bound ? s->min : bound;
        s->has_min = true;
    } else {
        s->max = s->has_max && s->max < bound ? s->max : bound;
        s->has_max = true;
    }
}

static void fill_count(struct schema_shape *s, struct schema_count *count,
                       const json_t *schema, const char *min, const char *max,
                       unsigned type)
{
    const json_t *lo = get(schema, min), *hi = get(schema, max);
    if (lo && schema_count_of(lo) > count->min)
        count->min = schema_count_of(lo);
    if (hi && schema_count_of(hi) < count->max)
        count->max = schema_count_of(hi);
    if (lo || hi)
        s->spoken |= type;
}

/* pattern or format: two different ones at once are refused. */
static void fill_text(struct schema *c, struct schema_shape *s, const json_t **slot,
                      const json_t *schema, const char *key)
{
    const json_t *v = get(schema, key);
    if (!v)
        return;
    s->spoken |= T_STRING;
    if (*slot && !json_equal((json_t *)v, (json_t *)get(*slot, key)))
        schema_fail(c, RUNT_E_UNSUPPORTED, schema,
                    "two different '%s' for one string are not supported", key);
    *slot = schema;
}

static void fill_elements(struct schema *c, struct schema_shape *s,
                          const json_t *schema)
{
    const json_t *first = get(schema, "prefixItems"), *rest = get(schema, "items");
    size_t n = json_array_size(first);
    if (first || rest)
        s->spoken |= T_ARRAY;
    /* an element's schema is that of its place, or else of all others */
    for (size_t i = s->n_first; i < n; i++) {
        if (!schema_grow(c, &s->first, s->n_first, &s->cap_first, sizeof *s->first))
            return;
        s->first[s->n_first++] = copy_list(c, &s->rest);
    }
    for (size_t i = 0; i < s->n_first; i++)
        if (i < n)
            schema_list_add(c, &s->first[i], json_array_get(first, i));
        else if (rest)
            schema_list_add(c, &s->first[i], rest);
    if (rest)
        schema_list_add(c, &s->rest, rest);
    s->has_rest = s->has_rest || rest;
}

static size_t find_property(const struct schema_shape *s, const char *name)
{
    for (size_t i = 0; i < s->n_properties; i++)
        if (!strcmp(s->properties[i].name, name))
            return i;
    return s->n_properties;
}

/* One more property, which so far is one of those that no schema names. */
static struct schema_property *add_property(struct schema *c, struct schema_shape *s,
                                            const char *name)
{
    if (s->n_properties == MAX_PROPERTIES)
        schema_fail(c, RUNT_E_FORMAT, s->parts[0].schema,
                    "more than %d properties in one object", MAX_PROPERTIES);
    if (!schema_grow(c, &s->properties, s->n_properties, &s->cap_properties,
                     sizeof *s->properties))
        return NULL;
    struct schema_property *p = &s->properties[s->n_properties++];
    *p = (struct schema_property){name, copy_list(c, &s->more), false};
    return p;
}

static void fill_properties(struct schema *c, struct schema_shape *s,
                            const json_t *schema)
{
    const json_t *properties = get(schema, "properties"),
                 *required = get(schema, "required"),
                 *more = get(schema, "additionalProperties");
    size_t n_before = s->n_properties, i;
    const char *key;
    json_t *v;
    if (properties || required || more)
        s->spoken |= T_OBJECT;
    schema_spend(c, n_before * (json_object_size(properties) + 1));
    for (i = 0; i < n_before && more && !c->rc; i++)
        if (!get(properties, s->properties[i].name))
            schema_list_add(c, &s->properties[i].schemas, more);
    json_object_foreach((json_t *)properties, key, v)
    {
        size_t at = n_before ? find_property(s, key) : s->n_properties;
        struct schema_property *p =
            at < s->n_properties ? &s->properties[at] : add_property(c, s, key);
        if (p)
            schema_list_add(c, &p->schemas, v);
        if (c->rc)
            return;
    }
    if (more)
        schema_list_add(c, &s->more, more);
    json_array_foreach(required, i, v) schema_list_add(c, &s->names, v);
    s->has_properties = s->has_properties || properties;
    s->has_more = s->has_more || more;
}

/* ---- filling a shape ---- */

static void add_choice(struct schema *c, struct schema_shape *s, const json_t *branches,
                       size_t part, bool only_one)
{
    if (branches &&
        schema_grow(c, &s->choices, s->n_choices, &s->cap_choices, sizeof *s->choices))
        s->choices[s->n_choices++] = (struct schema_choice){branches, part, only_one};
}

/* Whether a schema is one of the parts; one that led to itself is refused. */
static bool has_part(struct schema *c, const struct schema_shape *s,
                     const json_t *schema, size_t parent)
{
    for (size_t p = parent; p != SIZE_MAX; p = s->parts[p].parent)
        if (s->parts[p].schema == schema) {
            schema_fail(c, RUNT_E_FORMAT, schema, "this schema refers to itself only");
            return true;
        }
    for (size_t i = 0; i < s->n_parts; i++)
        if (s->parts[i].schema == schema)
            return true;
    return false;
}

static void fill(struct schema *c, struct schema_shape *s, const json_t *schema,
                 size_t parent)
{
    size_t i;
    json_t *x;
    if (json_is_false(schema))
        s->types = 0;
    if (!json_is_object(schema) || c->rc || has_part(c, s, schema, parent))
        return;
    if (s->n_parts == MAX_PARTS)
        schema_fail(c, RUNT_E_FORMAT, schema,
                    "more than %d schemas are to hold at once", MAX_PARTS);
    if (!schema_grow(c, &s->parts, s->n_parts, &s->cap_parts, sizeof *s->parts))
        return;
    size_t me = s->n_parts++;
    s->parts[me] = (struct schema_part){schema, parent};
    schema_spend(c, 16);
    fill_types(s, schema);
    fill_bound(c, s, schema, "minimum", true, false);
    fill_bound(c, s, schema, "exclusiveMinimum", true, true);
    fill_bound(c, s, schema, "maximum", false, false);
    fill_bound(c, s, schema, "exclusiveMaximum", false, true);
    fill_count(s, &s->length, schema, "minLength", "maxLength", T_STRING);
    fill_count(s, &s->elements, schema, "minItems", "maxItems", T_ARRAY);
    fill_text(c, s, &s->pattern, schema, "pattern");
    fill_text(c, s, &s->format, schema, "format");
    fill_elements(c, s, schema);
    fill_properties(c, s, schema);
    const json_t *ref = get(schema, "$ref");
    if (ref && !c->rc)
        fill(c, s, schema_resolve(c, json_string_value(ref)), me);
    json_array_foreach(get(schema, "allOf"), i, x) fill(c, s, x, me);
    add_choice(c, s, get(schema, "anyOf"), me, false);
    add_choice(c, s, get(schema, "oneOf"), me, true);
}

/* ---- choices ---- */

/* A copy that can be filled without changing the original. */
static struct schema_shape copy_shape(struct schema *c, const struct schema_shape *s)
{
    struct schema_shape out = *s;
#define COPY(array, n, cap)                                       \
    do {                                                          \
        out.array = schema_alloc(c, s->n, sizeof *s->array);      \
        if (out.array && s->n)                                    \
            memcpy(out.array, s->array, s->n * sizeof *s->array); \
        out.cap = s->n;                                           \
    } while (0)
    COPY(parts, n_parts, cap_parts);
    COPY(choices, n_choices, cap_choices);
    COPY(first, n_first, cap_first);
    COPY(properties, n_properties, cap_properties);
#undef COPY
    out.others = copy_list(c, &s->others);
    out.rest = copy_list(c, &s->rest);
    out.names = copy_list(c, &s->names);
    out.more = copy_list(c, &s->more);
    for (size_t i = 0; i < out.n_first && !c->rc; i++)
        out.first[i] = copy_list(c, &out.first[i]);
    for (size_t i = 0; i < out.n_properties && !c->rc; i++)
        out.properties[i].schemas = copy_list(c, &out.properties[i].schemas);
    schema_spend(c, s->n_parts + s->n_first + s->n_properties);
    return out;
}

static bool has_false(const struct schema_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        if (json_is_false(l->items[i]))
            return true;
    return false;
}

/* Required names become properties, and types that nothing can have go. */
static void settle(struct schema *c, struct schema_shape *s, bool narrow)
{
    if (narrow && !s->has_types && s->spoken)
        s->types &= s->spoken;
    schema_spend(c, s->names.n * s->n_properties);
    for (size_t i = 0; i < s->names.n && !c->rc; i++) {
        const char *name = json_string_value(s->names.items[i]);
        size_t at = find_property(s, name);
        struct schema_property *p =
            at < s->n_properties ? &s->properties[at] : add_property(c, s, name);
        if (p)
            p->required = true;
        if (p && has_false(&p->schemas))
            s->types &= ~(unsigned)T_OBJECT;
    }
    if (s->length.min > s->length.max)
        s->types &= ~(unsigned)T_STRING;
    if (s->elements.min > s->elements.max)
        s->types &= ~(unsigned)T_ARRAY;
    if (s->has_min && s->has_max && s->min > s->max) /* 1.2 to 1.8: no whole number */
        s->types &= ~(unsigned)(s->inexact ? T_WHOLE : T_NUMBER);
}

static void choose(struct schema *c, struct schema_shape *s, size_t next, bool narrow,
                   struct schema_shapes *out)
{
    size_t i, k;
    json_t *branch, *other;
    if (!s->types || c->rc)
        return;
    if (next == s->n_choices) {
        settle(c, s, narrow);
        if (out->n == MAX_SHAPES)
            schema_fail(c, RUNT_E_FORMAT, s->parts[0].schema,
                        "more than %d ways through anyOf and oneOf", MAX_SHAPES);
        if (s->types && schema_grow(c, &out->items, out->n, &out->cap, sizeof *s))
            out->items[out->n++] = *s;
        return;
    }
    struct schema_choice choice = s->choices[next];
    json_array_foreach(choice.branches, i, branch)
    {
        struct schema_shape way = copy_shape(c, s);
        fill(c, &way, branch, choice.part);
        json_array_foreach(choice.branches, k, other) if (choice.only_one && k != i)
            schema_list_add(c, &way.others, other);
        choose(c, &way, next + 1, narrow, out);
    }
}

struct schema_shapes schema_expand(struct schema *c, const struct schema_list *l,
                                   bool narrow)
{
    struct schema_shapes out = {0};
    struct schema_shape s = {
        .types = T_ALL, .length.max = SCHEMA_NO_MAX, .elements.max = SCHEMA_NO_MAX};
    for (size_t i = 0; i < l->n; i++)
        fill(c, &s, l->items[i], SIZE_MAX);
    choose(c, &s, 0, narrow, &out);
    return out;
}

/* ---- what is made of a shape ---- */

const struct schema_property *schema_property_of(const struct schema_shape *s,
                                                 const char *name)
{
    size_t at = find_property(s, name);
    return at < s->n_properties ? &s->properties[at] : NULL;
}

bool schema_makes_more(const struct schema_shape *s)
{
    return (s->has_more || !s->has_properties) && !has_false(&s->more);
}

bool schema_makes_rest(const struct schema_shape *s)
{
    return (s->has_rest || !s->n_first) && !has_false(&s->rest);
}
