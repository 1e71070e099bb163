/* A JSON schema on its way to a grammar.
 *
 * schema_read.c knows the keywords, schema_shape.c brings schemas that all must hold
 * into one shape for each way in which they can, schema_valid.c tests values,
 * schema_build.c makes rules of shapes, with schema_text.c for strings, schema_number.c
 * for numbers and schema_pattern.c for regular expressions.
 *
 * What goes wrong first is kept in the context, and every function does nothing after
 * that; so one call can follow another and the result be looked at once. */
#ifndef RUNT_SAMPLE_SCHEMA_H
#define RUNT_SAMPLE_SCHEMA_H

#include "base/js.h"
#include "base/strbuf.h"
#include "runt/runt.h"
#include "sample/grammar.h"

enum { SCHEMA_MAX_DEPTH = 500 };

/* Types of values, as bits. */
enum {
    T_NULL = 1,
    T_BOOLEAN = 2,
    T_WHOLE = 4,    /* a number without a fraction */
    T_FRACTION = 8, /* any other number */
    T_NUMBER = T_WHOLE | T_FRACTION,
    T_STRING = 16,
    T_ARRAY = 32,
    T_OBJECT = 64,
    T_ALL = 127
};

/* Schemas that all must hold; none: anything goes. */
struct schema_list {
    const json_t **items;
    size_t n, cap;
};

struct schema_property {
    const char *name;
    struct schema_list schemas;
    bool required;
};

/* Counts of characters, of elements. */
struct schema_count {
    size_t min, max; /* SCHEMA_NO_MAX: none */
};
#define SCHEMA_NO_MAX SIZE_MAX

/* anyOf or oneOf. */
struct schema_choice {
    const json_t *branches;
    size_t part; /* that it stands in */
    bool only_one;
};

/* What schemas demand together, where each choice is made. */
struct schema_shape {
    unsigned types;
    bool has_types;  /* said so by `type` */
    unsigned spoken; /* types that other keywords are about */

    struct schema_part {
        const json_t *schema;
        size_t parent; /* the part that led to it, or SIZE_MAX */
    } * parts;
    size_t n_parts, cap_parts;
    struct schema_choice *choices;
    size_t n_choices, cap_choices;
    struct schema_list others; /* branches of oneOf that must not hold */

    const json_t *values; /* the schema with enum or const, or NULL */
    json_int_t min, max;  /* of whole numbers */
    bool has_min, has_max;
    const json_t *inexact; /* a schema whose bound is none for fractions, or NULL */
    const char *inexact_keyword;
    struct schema_count length, elements;
    const json_t *pattern, *format; /* the schemas that have them, or NULL */
    struct schema_list *first;      /* [n_first]: prefixItems */
    size_t n_first, cap_first;
    struct schema_list rest; /* items */
    bool has_rest;
    struct schema_property *properties;
    size_t n_properties, cap_properties;
    bool has_properties;
    struct schema_list names; /* required, as JSON strings */
    struct schema_list more;  /* additionalProperties */
    bool has_more;
};

struct schema_shapes {
    struct schema_shape *items;
    size_t n, cap;
};

struct schema {
    json_t *root;
    struct grammar_builder *builder;
    struct gbnf_names *json; /* the rules of json.gbnf */
    struct schema_block *blocks;
    size_t n_bytes;            /* of all blocks */
    size_t work;               /* steps so far */
    struct ref_set *seen;      /* schema_read.c */
    struct memo *memo;         /* schema_build.c */
    struct matching *matching; /* schema_valid.c */
    grammar_item *up_to;       /* [n_up_to]: that many characters at most */
    size_t n_up_to, cap_up_to;
    int rc;
    struct runt_err *err;
};

/* ---- schema_read.c ---- */

/* Memory that lasts as long as the context; NULL, and a failure, without. */
void *schema_alloc(struct schema *c, size_t n, size_t size);
/* Free what a context holds. */
void schema_free(struct schema *c);
/* Note that memory has run out, if it has. */
void schema_no_memory(struct schema *c, bool failed);
/* Room for one more of n elements in an array; false after a failure. */
bool schema_grow(struct schema *c, void *array, size_t n, size_t *cap, size_t size);
void schema_list_add(struct schema *c, struct schema_list *l, const json_t *schema);
/* Count steps, so that no schema keeps us busy for long. */
void schema_spend(struct schema *c, size_t n);
/* "#/properties/a: ...", for a schema of the document. */
void schema_fail(struct schema *c, int code, const json_t *schema, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Check a schema and all that it leads to: keywords, and what they hold. */
void schema_check(struct schema *c, const json_t *schema);
/* What a $ref leads to; NULL when nothing is there. */
const json_t *schema_resolve(struct schema *c, const char *ref);
/* A number of keywords such as minItems, which schema_check has looked at. */
size_t schema_count_of(const json_t *value);

/* ---- schema_shape.c ---- */

/* Of `type` and `nullable`. */
unsigned schema_types(const json_t *schema);
/* Every way in which all schemas of a list can hold.  Ways that cannot are left out.
 * Where no type is given, all are possible; with `narrow`, only those that other
 * keywords are about. */
struct schema_shapes schema_expand(struct schema *c, const struct schema_list *l,
                                   bool narrow);
const struct schema_property *schema_property_of(const struct schema_shape *s,
                                                 const char *name);
/* Whether properties are made that no schema names. */
bool schema_makes_more(const struct schema_shape *s);
/* Whether elements are made beyond prefixItems without need. */
bool schema_makes_rest(const struct schema_shape *s);

/* ---- schema_valid.c ---- */

/* Whether a value is valid.  Where that cannot be told (a format or pattern that is
 * only known in part), `maybe`. */
bool schema_valid(struct schema *c, const json_t *schema, const json_t *value,
                  bool maybe);
/* Whether it is sure that nothing that is made for a shape is valid for `schema`. */
bool schema_excludes(struct schema *c, const struct schema_shape *made,
                     const json_t *schema);

void schema_matching_free(struct schema *c);

/* ---- schema_text.c ---- */

/* A string's characters as they are spelled in JSON, without quotes. */
void schema_spell(struct strbuf *out, const char *text, size_t n);
/* One character of a tidy set, as it is spelled. */
grammar_item schema_chars(struct schema *c, const struct char_set *s);
grammar_item schema_string(struct schema *c, const struct schema_shape *s);
/* A string that is none of the names. */
grammar_item schema_other_name(struct schema *c, const struct schema_shape *s);
/* A rule of json.gbnf. */
grammar_item schema_rule(struct schema *c, const char *name);

/* ---- schema_pattern.c ---- */

/* The texts, as they are spelled, that a regular expression is found in. */
grammar_item schema_pattern(struct schema *c, const json_t *schema);
/* The same to test texts with; *doubtful when others may match, too. */
grammar_item schema_pattern_test(struct schema *c, const json_t *schema,
                                 bool *doubtful);

/* ---- schema_number.c ---- */

grammar_item schema_number(struct schema *c, const struct schema_shape *s,
                           unsigned types);

#endif
