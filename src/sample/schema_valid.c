/* Owns testing values, and telling whether two schemas can hold at once.
 *
 * Both are needed to keep a promise: what comes out is valid.  A value of `enum` is
 * only made when the other keywords allow it; a branch of oneOf is only made when it is
 * sure that no other branch holds, too. */
#include "sample/matcher.h"
#include "sample/schema.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <math.h>
#include <string.h>

enum { MAX_COMPARED = 12 }; /* schemas in schemas */

static const json_t *get(const json_t *schema, const char *key)
{
    return json_object_get(schema, key);
}

/* ---- texts ---- */

/* A pattern's or format's grammar, made when it is first asked for. */
struct matching {
    const json_t *text; /* the keyword's value */
    runt_grammar *grammar;
    bool doubtful; /* other texts may have it, too */
    struct matching *next;
};

/* A grammar of its own for one keyword's texts, as they are spelled. */
static runt_grammar *make_grammar(struct schema *c, const json_t *schema,
                                  bool is_pattern, bool *doubtful)
{
    struct grammar_builder *outer = c->builder;
    struct gbnf_names *outer_json = c->json;
    struct grammar_fault fault;
    runt_grammar *out = NULL;
    c->builder = NULL;
    c->json = NULL;
    c->rc = builder_new(&c->builder, c->err);
    *doubtful = true; /* dates of the year 1 */
    grammar_item item = is_pattern
                            ? schema_pattern_test(c, schema, doubtful)
                            : schema_rule(c, json_string_value(get(schema, "format")));
    if (!c->rc) {
        uint32_t root = builder_rule(c->builder, 0);
        builder_alternative(c->builder, root, &item, 1);
        c->rc = builder_finish(c->builder, root, true, &fault, &out, c->err);
        if (c->rc == RUNT_E_FORMAT) { /* matches nothing, or is too large */
            c->rc = 0;
            schema_fail(
                c, RUNT_E_UNSUPPORTED, schema, "this pattern is not supported: %s",
                fault.kind == FAULT_SIZE ? "it is too large" : "no text matches it");
        }
    }
    builder_free(c->builder);
    gbnf_names_free(c->json);
    c->builder = outer;
    c->json = outer_json;
    return out;
}

void schema_matching_free(struct schema *c)
{
    for (struct matching *m = c->matching; m; m = m->next)
        runt_grammar_free(m->grammar);
    c->matching = NULL;
}

/* Whether a string has the format or pattern of a schema.  Of both we know texts that
 * surely have it; others may. */
static bool matches(struct schema *c, const json_t *schema, const char *keyword,
                    const json_t *value, bool maybe)
{
    const json_t *text = get(schema, keyword);
    struct matching *m = c->matching;
    struct strbuf spelled = {0};
    bool out = false;
    if (!text || c->rc)
        return true;
    while (m && m->text != text)
        m = m->next;
    if (!m) {
        m = schema_alloc(c, 1, sizeof *m);
        if (!m)
            return maybe;
        *m = (struct matching){.text = text, .next = c->matching};
        c->matching = m;
        m->grammar = make_grammar(c, schema, !strcmp(keyword, "pattern"), &m->doubtful);
    }
    if (!m->grammar)
        return maybe;
    schema_spell(&spelled, json_string_value(value), json_string_length(value));
    schema_no_memory(c, spelled.failed);
    if (!c->rc)
        c->rc = matcher_test(m->grammar, spelled.data ? spelled.data : "", spelled.len,
                             &out, c->err);
    schema_spend(c, spelled.len);
    sb_free(&spelled);
    return out || (maybe && m->doubtful);
}

static bool string_is_valid(struct schema *c, const json_t *schema, const json_t *value,
                            bool maybe)
{
    const char *s = json_string_value(value);
    size_t n = json_string_length(value), length = 0;
    const json_t *min = get(schema, "minLength"), *max = get(schema, "maxLength");
    for (size_t i = 0; i < n; i++)
        length += ((unsigned char)s[i] & 0xc0) != 0x80;
    if ((min && length < schema_count_of(min)) ||
        (max && length > schema_count_of(max)))
        return false;
    return matches(c, schema, "pattern", value, maybe) &&
           matches(c, schema, "format", value, maybe);
}

/* ---- numbers ---- */

/* a < b: -1, a > b: 1. */
static int compare(const json_t *a, const json_t *b)
{
    if (json_is_integer(a) && json_is_integer(b)) {
        json_int_t x = json_integer_value(a), y = json_integer_value(b);
        return (x > y) - (x < y);
    }
    long double x = json_is_integer(a) ? (long double)json_integer_value(a)
                                       : (long double)json_real_value(a),
                y = json_is_integer(b) ? (long double)json_integer_value(b)
                                       : (long double)json_real_value(b);
    return (x > y) - (x < y);
}

static bool number_is_valid(const json_t *schema, const json_t *value)
{
    const json_t *min = get(schema, "minimum"), *max = get(schema, "maximum"),
                 *above = get(schema, "exclusiveMinimum"),
                 *below = get(schema, "exclusiveMaximum");
    return (!min || compare(value, min) >= 0) && (!max || compare(value, max) <= 0) &&
           (!above || compare(value, above) > 0) &&
           (!below || compare(value, below) < 0);
}

/* ---- values ---- */

static bool equal(const json_t *a, const json_t *b)
{
    size_t i;
    const char *key;
    json_t *v;
    if (json_is_number(a) && json_is_number(b))
        return !compare(a, b); /* 1 is 1.0 */
    if (json_typeof(a) != json_typeof(b) || json_array_size(a) != json_array_size(b) ||
        json_object_size(a) != json_object_size(b))
        return false;
    json_array_foreach(a, i, v) if (!equal(v, json_array_get(b, i))) return false;
    json_object_foreach((json_t *)a, key,
                        v) if (!get(b, key) || !equal(v, get(b, key))) return false;
    return json_is_array(a) || json_is_object(a) ||
           json_equal((json_t *)a, (json_t *)b);
}

static unsigned type_of(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_NULL:
        return T_NULL;
    case JSON_TRUE:
    case JSON_FALSE:
        return T_BOOLEAN;
    case JSON_INTEGER:
        return T_WHOLE;
    case JSON_REAL:
        return json_real_value(v) == floor(json_real_value(v)) ? T_WHOLE : T_FRACTION;
    case JSON_STRING:
        return T_STRING;
    case JSON_ARRAY:
        return T_ARRAY;
    case JSON_OBJECT:
        return T_OBJECT;
    }
    return 0;
}

static bool valid(struct schema *c, const json_t *schema, const json_t *value,
                  bool maybe, unsigned depth);

static bool array_is_valid(struct schema *c, const json_t *schema, const json_t *value,
                           bool maybe, unsigned depth)
{
    const json_t *first = get(schema, "prefixItems"), *rest = get(schema, "items"),
                 *min = get(schema, "minItems"), *max = get(schema, "maxItems");
    size_t n = json_array_size(value), i;
    json_t *v;
    if ((min && n < schema_count_of(min)) || (max && n > schema_count_of(max)))
        return false;
    json_array_foreach(value, i, v)
    {
        const json_t *s = i < json_array_size(first) ? json_array_get(first, i) : rest;
        if (s && !valid(c, s, v, maybe, depth))
            return false;
    }
    return true;
}

static bool object_is_valid(struct schema *c, const json_t *schema, const json_t *value,
                            bool maybe, unsigned depth)
{
    const json_t *properties = get(schema, "properties"),
                 *more = get(schema, "additionalProperties");
    size_t i;
    const char *key;
    json_t *v;
    json_array_foreach(get(schema, "required"), i,
                       v) if (!get(value, json_string_value(v))) return false;
    json_object_foreach((json_t *)value, key, v)
    {
        const json_t *own = get(properties, key), *s = own ? own : more;
        if (s && !valid(c, s, v, maybe, depth))
            return false;
    }
    return true;
}

static bool has_value(const json_t *schema, const json_t *value)
{
    const json_t *constant = get(schema, "const"), *list = get(schema, "enum");
    size_t i;
    json_t *v;
    if (constant && !equal(constant, value))
        return false;
    json_array_foreach(list, i, v) if (equal(v, value)) return true;
    return !list;
}

/* Exactly one branch: sure when one surely holds and no other may; possible when one
 * may and not two surely do. */
static bool one_is_valid(struct schema *c, const json_t *branches, const json_t *value,
                         bool maybe, unsigned depth)
{
    size_t n_sure = 0, n_maybe = 0, i;
    json_t *s;
    json_array_foreach(branches, i, s)
    {
        n_sure += valid(c, s, value, false, depth);
        n_maybe += valid(c, s, value, true, depth);
    }
    return maybe ? n_maybe > 0 && n_sure <= 1 : n_sure == 1 && n_maybe == 1;
}

static bool combinations_are_valid(struct schema *c, const json_t *schema,
                                   const json_t *value, bool maybe, unsigned depth)
{
    const json_t *any = get(schema, "anyOf"), *one = get(schema, "oneOf"),
                 *ref = get(schema, "$ref");
    bool found = !any;
    size_t i;
    json_t *s;
    json_array_foreach(get(schema, "allOf"), i,
                       s) if (!valid(c, s, value, maybe, depth)) return false;
    json_array_foreach(any, i, s) found = found || valid(c, s, value, maybe, depth);
    if (!found || (one && !one_is_valid(c, one, value, maybe, depth)))
        return false;
    return !ref ||
           valid(c, schema_resolve(c, json_string_value(ref)), value, maybe, depth);
}

static bool valid(struct schema *c, const json_t *schema, const json_t *value,
                  bool maybe, unsigned depth)
{
    schema_spend(c, 4);
    if (c->rc || json_is_boolean(schema))
        return c->rc ? maybe : json_is_true(schema);
    if (depth > SCHEMA_MAX_DEPTH) {
        schema_fail(c, RUNT_E_FORMAT, schema, "this schema refers to itself only");
        return maybe;
    }
    unsigned type = type_of(value);
    if (!(schema_types(schema) & type) || !has_value(schema, value))
        return false;
    if ((type & T_NUMBER && !number_is_valid(schema, value)) ||
        (type == T_STRING && !string_is_valid(c, schema, value, maybe)) ||
        (type == T_ARRAY && !array_is_valid(c, schema, value, maybe, depth + 1)) ||
        (type == T_OBJECT && !object_is_valid(c, schema, value, maybe, depth + 1)))
        return false;
    return combinations_are_valid(c, schema, value, maybe, depth + 1);
}

bool schema_valid(struct schema *c, const json_t *schema, const json_t *value,
                  bool maybe)
{
    return valid(c, schema, value, maybe, 0);
}

static bool valid_for_parts(struct schema *c, const struct schema_shape *s,
                            const json_t *value)
{
    for (size_t i = 0; i < s->n_parts; i++)
        if (!schema_valid(c, s->parts[i].schema, value, true))
            return false;
    return true;
}

/* ---- two schemas at once ---- */

static bool lists_exclude(struct schema *c, const struct schema_list *made,
                          const struct schema_list *other, unsigned depth);

/* Whether `other` cannot hold for any of the values that a shape lists. */
static bool values_exclude(struct schema *c, const struct schema_shape *listing,
                           const struct schema_shape *other)
{
    const json_t *list = get(listing->values, "enum"),
                 *constant = get(listing->values, "const");
    size_t i;
    json_t *v;
    if (constant)
        return !valid_for_parts(c, listing, constant) ||
               !valid_for_parts(c, other, constant);
    json_array_foreach(list, i, v) if (valid_for_parts(c, listing, v) &&
                                       valid_for_parts(c, other, v)) return false;
    return true;
}

/* Bounds of `other` may be rounded to the next whole number; those of what is made are
 * whole, so that nothing is lost. */
static bool numbers_exclude(const struct schema_shape *made,
                            const struct schema_shape *other)
{
    return (made->has_max && other->has_min && made->max < other->min) ||
           (made->has_min && other->has_max && made->min > other->max);
}

static bool arrays_exclude(struct schema *c, const struct schema_shape *made,
                           const struct schema_shape *other, unsigned depth)
{
    size_t most = made->elements.max;
    if (!schema_makes_rest(made) && most > made->n_first)
        most = made->n_first > made->elements.min ? made->n_first : made->elements.min;
    if (most < other->elements.min || made->elements.min > other->elements.max)
        return true;
    for (size_t i = 0; i < made->elements.min; i++) {
        const struct schema_list *a = i < made->n_first ? &made->first[i] : &made->rest,
                                 *b = i < other->n_first ? &other->first[i]
                                                         : &other->rest;
        if (lists_exclude(c, a, b, depth))
            return true;
        if (i >= made->n_first && i >= other->n_first)
            break;
    }
    return false;
}

static bool objects_exclude(struct schema *c, const struct schema_shape *made,
                            const struct schema_shape *other, unsigned depth)
{
    for (size_t i = 0; i < made->n_properties; i++) {
        const struct schema_property *a = &made->properties[i],
                                     *b = schema_property_of(other, a->name);
        if (a->required &&
            lists_exclude(c, &a->schemas, b ? &b->schemas : &other->more, depth))
            return true;
    }
    for (size_t i = 0; i < other->n_properties && !schema_makes_more(made); i++)
        if (other->properties[i].required &&
            !schema_property_of(made, other->properties[i].name))
            return true;
    return false;
}

static bool shapes_exclude(struct schema *c, const struct schema_shape *made,
                           const struct schema_shape *other, unsigned depth)
{
    if (made->values)
        return values_exclude(c, made, other);
    if (other->values)
        return values_exclude(c, other, made);
    unsigned both = made->types & other->types;
    if (both & (T_NULL | T_BOOLEAN))
        return false;
    if (both & T_NUMBER && !numbers_exclude(made, other))
        return false;
    if (both & T_STRING && made->length.max >= other->length.min &&
        other->length.max >= made->length.min)
        return false;
    if (both & T_ARRAY && !arrays_exclude(c, made, other, depth))
        return false;
    return !(both & T_OBJECT) || objects_exclude(c, made, other, depth);
}

static bool shape_excludes(struct schema *c, const struct schema_shape *made,
                           const struct schema_list *other, unsigned depth)
{
    struct schema_shapes ways = schema_expand(c, other, false);
    for (size_t i = 0; i < ways.n; i++)
        if (c->rc || !shapes_exclude(c, made, &ways.items[i], depth))
            return false;
    return true;
}

static bool lists_exclude(struct schema *c, const struct schema_list *made,
                          const struct schema_list *other, unsigned depth)
{
    if (depth == MAX_COMPARED || c->rc)
        return false;
    struct schema_shapes ways = schema_expand(c, made, true);
    for (size_t i = 0; i < ways.n; i++)
        if (!shape_excludes(c, &ways.items[i], other, depth + 1))
            return false;
    return true;
}

bool schema_excludes(struct schema *c, const struct schema_shape *made,
                     const json_t *schema)
{
    struct schema_list other = {0};
    schema_list_add(c, &other, schema);
    return !c->rc && shape_excludes(c, made, &other, 0);
}
