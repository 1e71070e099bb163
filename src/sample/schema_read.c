/* Owns which keywords a schema may have and what they may hold, the memory of a schema
 * on its way, and the words for what is wrong with it.
 *
 * A keyword that is not in the table is refused by name: what it demands would not be
 * kept.  Only what a value depends on is looked at: not what stands in $defs and is
 * never referred to. */
#include "sample/schema.h"

#include "base/err.h"
#include "base/mem.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    MAX_BYTES = 64 << 20,
    MAX_WORK = 5000000,
    SHOWN_PATH = 200,
};

/* ---- memory and work ---- */

struct schema_block {
    struct schema_block *next;
    max_align_t data[];
};

void *schema_alloc(struct schema *c, size_t n, size_t size)
{
    size_t bytes;
    if (c->rc)
        return NULL;
    if (!size_mul(n, size, &bytes) || bytes > MAX_BYTES - c->n_bytes) {
        c->rc =
            err_set(c->err, RUNT_E_FORMAT,
                    "the schema takes more than %d MB to work out", MAX_BYTES >> 20);
        return NULL;
    }
    struct schema_block *b = mem_zalloc(sizeof *b + bytes);
    if (!b) {
        c->rc = err_nomem(c->err, "a schema");
        return NULL;
    }
    c->n_bytes += bytes + sizeof *b;
    b->next = c->blocks;
    c->blocks = b;
    return b->data;
}

void schema_free(struct schema *c)
{
    schema_matching_free(c);
    while (c->blocks) {
        struct schema_block *next = c->blocks->next;
        mem_free(c->blocks);
        c->blocks = next;
    }
    builder_free(c->builder);
    gbnf_names_free(c->json);
    json_decref(c->root);
}

void schema_no_memory(struct schema *c, bool failed)
{
    if (failed && !c->rc)
        c->rc = err_nomem(c->err, "a schema");
}

bool schema_grow(struct schema *c, void *array, size_t n, size_t *cap, size_t size)
{
    void *old;
    if (c->rc)
        return false;
    if (n < *cap)
        return true;
    size_t want = *cap ? 2 * *cap : 4;
    void *p = schema_alloc(c, want, size);
    if (!p)
        return false;
    memcpy(&old, array, sizeof old);
    if (n)
        memcpy(p, old, n * size);
    memcpy(array, &p, sizeof p);
    *cap = want;
    return true;
}

void schema_list_add(struct schema *c, struct schema_list *l, const json_t *schema)
{
    if (schema_grow(c, &l->items, l->n, &l->cap, sizeof *l->items))
        l->items[l->n++] = schema;
}

void schema_spend(struct schema *c, size_t n)
{
    c->work += n;
    if (c->work > MAX_WORK && !c->rc)
        c->rc = err_set(c->err, RUNT_E_FORMAT, "the schema is too large to work out");
}

/* ---- errors ---- */

static void append_step(struct strbuf *path, const char *key)
{
    sb_char(path, '/');
    for (; *key; key++) /* RFC 6901 */
        if (*key == '~' || *key == '/')
            sb_str(path, *key == '~' ? "~0" : "~1");
        else
            sb_char(path, *key);
}

/* Append to `path` the way from `at` to `wanted`; false, with the path as it was, when
 * there is none. */
static bool find_path(const json_t *at, const json_t *wanted, struct strbuf *path)
{
    size_t len = path->len, i;
    const char *key;
    json_t *v;
    if (at == wanted)
        return true;
    json_object_foreach((json_t *)at, key, v)
    {
        append_step(path, key);
        if (find_path(v, wanted, path))
            return true;
        path->len = len;
    }
    json_array_foreach(at, i, v)
    {
        char number[24];
        snprintf(number, sizeof number, "%zu", i);
        append_step(path, number);
        if (find_path(v, wanted, path))
            return true;
        path->len = len;
    }
    return false;
}

void schema_fail(struct schema *c, int code, const json_t *schema, const char *fmt, ...)
{
    char text[256];
    struct strbuf path = {0};
    va_list ap;
    if (c->rc)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    sb_char(&path, '#');
    find_path(c->root, schema, &path);
    const char *p = path.data && path.len ? path.data : "#";
    size_t skip = path.len > SHOWN_PATH ? path.len - SHOWN_PATH : 0;
    c->rc = err_set(c->err, code, "%s%.*s: %s", skip ? "..." : "",
                    (int)(path.len - skip), p + skip, text);
    sb_free(&path);
}

/* ---- references ---- */

static bool unescape(const char *from, size_t n, struct strbuf *out)
{
    for (size_t i = 0; i < n; i++) {
        char c = from[i];
        if (c == '%') { /* of a URI's fragment, before the pointer's own escapes */
            unsigned hex;
            if (n - i < 3 || !isxdigit((unsigned char)from[i + 1]) ||
                !isxdigit((unsigned char)from[i + 2]) ||
                sscanf(from + i + 1, "%2x", &hex) != 1 || !hex)
                return false;
            c = (char)hex;
            i += 2;
        }
        sb_char(out, c);
    }
    for (char *r = out->data, *w = r; r && (*w = *r); w++, r++)
        if (*r == '~') {
            r++;
            if (*r != '0' && *r != '1')
                return false;
            *w = *r == '0' ? '~' : '/';
        }
    return !out->failed;
}

const json_t *schema_resolve(struct schema *c, const char *ref)
{
    const json_t *at = c->root;
    if (*ref++ != '#')
        return NULL;
    while (at && *ref) {
        if (*ref++ != '/')
            return NULL;
        size_t n = strcspn(ref, "/");
        struct strbuf key = {0};
        bool good = unescape(ref, n, &key);
        schema_no_memory(c, key.failed);
        const char *name = key.data ? key.data : "";
        char *end = NULL;
        if (!good)
            at = NULL;
        else if (json_is_array(at))
            at = isdigit((unsigned char)*name)
                     ? json_array_get(at, strtoul(name, &end, 10))
                     : NULL;
        else
            at = json_object_get(at, name);
        if (end && *end)
            at = NULL;
        sb_free(&key);
        ref += n;
    }
    return at;
}

/* ---- what has been looked at ---- */

struct ref_set {
    const json_t **slots;
    size_t mask, n;
};

static size_t hash_pointer(const json_t *p)
{
    return (size_t)(((uintptr_t)p >> 4) * 0x9e3779b97f4a7c15u >> 20);
}

/* Whether a schema is new to the set; it is in it now. */
static bool is_new(struct schema *c, const json_t *schema)
{
    struct ref_set *s = c->seen;
    if (!s)
        s = c->seen = schema_alloc(c, 1, sizeof *s);
    if (s && s->n * 2 >= s->mask) {
        struct ref_set bigger = {.mask = s->mask ? s->mask * 2 + 1 : 255, .n = s->n};
        bigger.slots = schema_alloc(c, bigger.mask + 1, sizeof *bigger.slots);
        for (size_t i = 0; bigger.slots && s->slots && i <= s->mask; i++) {
            if (!s->slots[i])
                continue;
            size_t k = hash_pointer(s->slots[i]) & bigger.mask;
            while (bigger.slots[k])
                k = (k + 1) & bigger.mask;
            bigger.slots[k] = s->slots[i];
        }
        *s = bigger;
    }
    if (c->rc)
        return false;
    size_t i = hash_pointer(schema) & s->mask;
    for (; s->slots[i]; i = (i + 1) & s->mask)
        if (s->slots[i] == schema)
            return false;
    s->slots[i] = schema;
    s->n++;
    return true;
}

/* ---- keywords ---- */

enum kind {
    K_NOTE, /* says nothing about values */
    K_ROOT_NOTE,
    K_DEFS, /* looked at when referred to */
    K_SCHEMA,
    K_SCHEMAS,
    K_PROPERTIES,
    K_TYPE,
    K_ENUM,
    K_CONST,
    K_COUNT,
    K_NUMBER,
    K_PATTERN,
    K_FORMAT,
    K_NAMES,
    K_FLAG,
    K_REF
};

static const struct keyword {
    const char *name;
    enum kind kind;
} keywords[] = {
    {"title", K_NOTE},
    {"description", K_NOTE},
    {"default", K_NOTE},
    {"examples", K_NOTE},
    {"$comment", K_NOTE},
    {"deprecated", K_NOTE},
    {"readOnly", K_NOTE},
    {"writeOnly", K_NOTE},
    {"$schema", K_NOTE},
    {"$id", K_ROOT_NOTE},
    {"$defs", K_DEFS},
    {"definitions", K_DEFS},
    {"type", K_TYPE},
    {"enum", K_ENUM},
    {"const", K_CONST},
    {"properties", K_PROPERTIES},
    {"required", K_NAMES},
    {"additionalProperties", K_SCHEMA},
    {"items", K_SCHEMA},
    {"prefixItems", K_SCHEMAS},
    {"minItems", K_COUNT},
    {"maxItems", K_COUNT},
    {"minLength", K_COUNT},
    {"maxLength", K_COUNT},
    {"pattern", K_PATTERN},
    {"format", K_FORMAT},
    {"minimum", K_NUMBER},
    {"maximum", K_NUMBER},
    {"exclusiveMinimum", K_NUMBER},
    {"exclusiveMaximum", K_NUMBER},
    {"anyOf", K_SCHEMAS},
    {"oneOf", K_SCHEMAS},
    {"allOf", K_SCHEMAS},
    {"$ref", K_REF},
    {"nullable", K_FLAG},
};

static void check(struct schema *c, const json_t *schema, const json_t *in,
                  const char *key, unsigned depth);

static bool is_type(const json_t *v)
{
    static const char *const names[] = {"null",   "boolean", "integer", "number",
                                        "string", "array",   "object"};
    for (size_t i = 0; json_is_string(v) && i < sizeof names / sizeof *names; i++)
        if (!strcmp(json_string_value(v), names[i]))
            return true;
    return false;
}

static void check_type(struct schema *c, const json_t *schema, const json_t *v)
{
    size_t i;
    json_t *x;
    bool good = is_type(v) || (json_is_array(v) && json_array_size(v));
    json_array_foreach(v, i, x) good = good && is_type(x);
    if (!good)
        schema_fail(c, RUNT_E_FORMAT, schema,
                    "'type' is null, boolean, integer, number, string, array, object, "
                    "or a list of these");
}

size_t schema_count_of(const json_t *v)
{
    double x = json_number_value(v);
    return x < 1e15 ? (size_t)x : (size_t)1000000000000000;
}

static void check_count(struct schema *c, const json_t *schema, const char *key,
                        const json_t *v)
{
    double x = json_number_value(v);
    if (!json_is_number(v) || x < 0 || x != floor(x))
        schema_fail(c, RUNT_E_FORMAT, schema, "'%s' is not a whole number from 0 on",
                    key);
}

/* No name has U+0000: jansson's keys end there. */
static bool has_nul(const json_t *text)
{
    return strlen(json_string_value(text)) != json_string_length(text);
}

static void check_names(struct schema *c, const json_t *schema, const char *key,
                        const json_t *v)
{
    size_t i;
    json_t *x;
    bool good = json_is_array(v);
    json_array_foreach(v, i, x) good = good && json_is_string(x) && !has_nul(x);
    if (!good)
        schema_fail(c, RUNT_E_FORMAT, schema, "'%s' is not a list of names", key);
}

static void check_format(struct schema *c, const json_t *schema, const json_t *v)
{
    static const char *const known[] = {"date", "time", "date-time", "uuid"};
    if (!json_is_string(v)) {
        schema_fail(c, RUNT_E_FORMAT, schema, "'format' is not a string");
        return;
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(json_string_value(v), known[i]))
            return;
    schema_fail(c, RUNT_E_UNSUPPORTED, schema,
                "the format '%.40s' is not supported; there are date, time, date-time "
                "and uuid",
                json_string_value(v));
}

static void check_ref(struct schema *c, const json_t *schema, const json_t *v,
                      unsigned depth)
{
    const char *ref = json_string_value(v);
    if (!ref) {
        schema_fail(c, RUNT_E_FORMAT, schema, "'$ref' is not a string");
        return;
    }
    if (ref[0] != '#' || (ref[1] && ref[1] != '/')) {
        schema_fail(c, RUNT_E_UNSUPPORTED, schema,
                    "'$ref' to '%.60s' is not supported: only #/... in this document",
                    ref);
        return;
    }
    const json_t *target = schema_resolve(c, ref);
    if (!target)
        schema_fail(c, RUNT_E_FORMAT, schema, "nothing is at '$ref' %.100s", ref);
    else
        check(c, target, schema, "$ref", depth);
}

static void check_keyword(struct schema *c, const json_t *schema,
                          const struct keyword *k, const json_t *v, unsigned depth)
{
    const char *key;
    size_t i;
    json_t *x;
    switch (k->kind) {
    case K_NOTE:
        break;
    case K_ROOT_NOTE: /* elsewhere it would change what a $ref means */
        if (schema != c->root)
            schema_fail(c, RUNT_E_UNSUPPORTED, schema,
                        "the keyword '%s' is not supported inside of a schema",
                        k->name);
        break;
    case K_SCHEMA:
        check(c, v, schema, k->name, depth);
        break;
    case K_SCHEMAS:
        if (!json_is_array(v) || !json_array_size(v))
            schema_fail(c, RUNT_E_FORMAT, schema, "'%s' is not a list of schemas",
                        k->name);
        json_array_foreach(v, i, x) check(c, x, schema, k->name, depth);
        break;
    case K_DEFS:
    case K_PROPERTIES:
        if (!json_is_object(v))
            schema_fail(c, RUNT_E_FORMAT, schema, "'%s' is not an object", k->name);
        if (k->kind == K_PROPERTIES)
            json_object_foreach((json_t *)v, key, x)
                check(c, x, schema, k->name, depth);
        break;
    case K_TYPE:
        check_type(c, schema, v);
        break;
    case K_ENUM:
        if (!json_is_array(v) || !json_array_size(v))
            schema_fail(c, RUNT_E_FORMAT, schema, "'enum' is not a list of values");
        break;
    case K_CONST:
        break;
    case K_COUNT:
        check_count(c, schema, k->name, v);
        break;
    case K_NUMBER:
        if (!json_is_number(v))
            schema_fail(c, RUNT_E_FORMAT, schema, "'%s' is not a number", k->name);
        break;
    case K_PATTERN:
        if (!json_is_string(v))
            schema_fail(c, RUNT_E_FORMAT, schema, "'%s' is not a string", k->name);
        break;
    case K_FORMAT:
        check_format(c, schema, v);
        break;
    case K_NAMES:
        check_names(c, schema, k->name, v);
        break;
    case K_FLAG:
        if (!json_is_boolean(v))
            schema_fail(c, RUNT_E_FORMAT, schema, "'%s' is not true or false", k->name);
        break;
    case K_REF:
        check_ref(c, schema, v, depth);
        break;
    }
}

/* `in` and `key`: the schema and keyword that lead here. */
static void check(struct schema *c, const json_t *schema, const json_t *in,
                  const char *key, unsigned depth)
{
    const char *name;
    json_t *v;
    if (json_is_boolean(schema) || c->rc)
        return;
    if (!json_is_object(schema)) {
        schema_fail(c, RUNT_E_FORMAT, in, "%s%s%s is not an object, true or false",
                    key ? "a schema of '" : "the schema", key ? key : "",
                    key ? "'" : "");
        return;
    }
    if (!is_new(c, schema))
        return;
    if (depth > SCHEMA_MAX_DEPTH) {
        schema_fail(c, RUNT_E_FORMAT, schema, "schemas are nested more than %d deep",
                    SCHEMA_MAX_DEPTH);
        return;
    }
    json_object_foreach((json_t *)schema, name, v)
    {
        size_t i = 0, n = sizeof keywords / sizeof *keywords;
        while (i < n && strcmp(name, keywords[i].name))
            i++;
        if (i == n)
            schema_fail(c, RUNT_E_UNSUPPORTED, schema,
                        "the keyword '%.60s' is not supported", name);
        else
            check_keyword(c, schema, &keywords[i], v, depth + 1);
        if (c->rc)
            return;
    }
}

void schema_check(struct schema *c, const json_t *schema)
{
    check(c, schema, schema, NULL, 0);
}
