/* Owns how strings are spelled in JSON, and the rules for them.
 *
 * Every character has one spelling: as it is, or with a backslash where JSON demands
 * one.  So characters can be counted, and names be told apart, on what is spelled. */
#include "sample/schema.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

#include "sample/json_parts.h"

enum {
    MOST_CHARS = 16384,  /* no more are made where there is a maxLength */
    MOST_NEEDED = 65536, /* a larger minLength is refused */
};

/* The letter behind the backslash of an ASCII character's spelling; 'u': \u00HH; 0: it
 * is spelled as it is. */
static char escape_of(uint32_t ch)
{
    switch (ch) {
    case '"':
    case '\\':
        return (char)ch;
    case '\b':
        return 'b';
    case '\f':
        return 'f';
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    default:
        return ch < 0x20 ? 'u' : 0;
    }
}

static void spell_ascii(struct strbuf *out, uint32_t ch)
{
    char e = escape_of(ch);
    if (e == 'u')
        sb_printf(out, "\\u%04x", ch);
    else if (e)
        sb_printf(out, "\\%c", e);
    else
        sb_char(out, (char)ch);
}

void schema_spell(struct strbuf *out, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] < 0x80)
            spell_ascii(out, (unsigned char)text[i]);
        else
            sb_char(out, text[i]);
}

grammar_item schema_rule(struct schema *c, const char *name)
{
    uint32_t rule = 0;
    if (!c->json && !c->rc)
        c->rc = gbnf_read(c->builder, json_grammar, sizeof json_grammar - 1, &c->json,
                          c->err);
    if (!c->rc)
        gbnf_find(c->json, name, &rule);
    return item_of_rule(rule);
}

/* ---- characters ---- */

grammar_item schema_chars(struct schema *c, const struct char_set *s)
{
    struct char_set plain = {0};
    uint32_t rule = builder_rule(c->builder, 0);
    for (size_t i = 0; i < s->n; i++) {
        struct char_range r = s->ranges[i];
        for (; r.lo <= r.hi && r.lo < 0x80; r.lo++) {
            struct strbuf text = {0};
            struct item_list items = {0};
            if (!escape_of(r.lo)) {
                char_set_add(&plain, r.lo, r.lo);
                continue;
            }
            spell_ascii(&text, r.lo);
            builder_text(c->builder, &items, text.data ? text.data : "", text.len);
            builder_alternative(c->builder, rule, items.items, items.n);
            schema_no_memory(c, text.failed);
            sb_free(&text);
            item_list_free(&items);
        }
        if (r.lo <= r.hi)
            char_set_add(&plain, r.lo, r.hi);
    }
    char_set_tidy(&plain);
    grammar_item item = builder_chars(c->builder, &plain);
    builder_alternative(c->builder, rule, &item, 1);
    char_set_free(&plain);
    return item_of_rule(rule);
}

/* At most n characters; the rules for fewer serve all strings. */
static grammar_item chars_up_to(struct schema *c, size_t n)
{
    while (c->n_up_to < n && !c->rc && !builder_failed(c->builder)) {
        if (!schema_grow(c, &c->up_to, c->n_up_to, &c->cap_up_to, sizeof *c->up_to))
            return item_of_rule(0);
        uint32_t rule = builder_rule(c->builder, 0);
        grammar_item both[2] = {schema_rule(c, "char"),
                                c->n_up_to ? c->up_to[c->n_up_to - 1] : 0};
        builder_alternative(c->builder, rule, both, c->n_up_to ? 2 : 1);
        builder_alternative(c->builder, rule, NULL, 0);
        c->up_to[c->n_up_to++] = item_of_rule(rule);
    }
    return c->n_up_to < n ? item_of_rule(0) : c->up_to[n - 1];
}

/* ---- strings ---- */

static void put_counted(struct schema *c, const struct schema_shape *s,
                        struct item_list *l)
{
    size_t min = s->length.min, max = s->length.max;
    grammar_item ch = schema_rule(c, "char");
    if (min > MOST_NEEDED) {
        schema_fail(c, RUNT_E_UNSUPPORTED, s->parts[0].schema,
                    "a 'minLength' of more than %d is not supported", MOST_NEEDED);
        return;
    }
    for (size_t i = 0; i < min; i++)
        item_put(l, ch);
    if (max == SCHEMA_NO_MAX) {
        item_put(l, builder_repeat(c->builder, ch, 0, REPEAT_EVER, 0));
    } else {
        if (max > MOST_CHARS)
            max = min > MOST_CHARS ? min : MOST_CHARS;
        if (max > min)
            item_put(l, chars_up_to(c, max - min));
    }
}

grammar_item schema_string(struct schema *c, const struct schema_shape *s)
{
    struct item_list l = {0};
    const json_t *named = s->pattern ? s->pattern : s->format;
    const char *keyword = s->pattern ? "pattern" : "format";
    if (s->pattern && s->format)
        schema_fail(c, RUNT_E_UNSUPPORTED, s->pattern,
                    "'pattern' and 'format' for one string are not supported");
    if (named && (s->length.min || s->length.max != SCHEMA_NO_MAX))
        schema_fail(c, RUNT_E_UNSUPPORTED, named,
                    "'minLength' and 'maxLength' beside '%s' are not supported",
                    keyword);
    item_put(&l, builder_byte(c->builder, '"', '"'));
    if (s->pattern)
        item_put(&l, schema_pattern(c, s->pattern));
    else if (s->format)
        item_put(&l, schema_rule(
                         c, json_string_value(json_object_get(s->format, "format"))));
    else
        put_counted(c, s, &l);
    item_put(&l, builder_byte(c->builder, '"', '"'));
    grammar_item out =
        l.failed ? item_of_rule(0) : builder_group(c->builder, l.items, l.n, 0);
    schema_no_memory(c, l.failed);
    item_list_free(&l);
    return out;
}

/* ---- names that are not taken ---- */

enum { MAX_TOLD_APART = 256 }; /* characters */

/* The character at p, and its bytes. */
static uint32_t char_at(const char *p, size_t *n)
{
    *n = utf8_len(p, strlen(p));
    if (!*n) /* jansson's strings are UTF-8 */
        *n = 1;
    uint32_t ch = *n == 1 ? (unsigned char)*p : (unsigned char)*p & (0x7fu >> *n);
    for (size_t i = 1; i < *n; i++)
        ch = ch << 6 | ((unsigned char)p[i] & 63);
    return ch;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* What may follow when the names, which are in order, are the ones that go on so: an
 * end, unless a name ends here; a character of theirs; any other and then anything. */
static grammar_item other_ends(struct schema *c, const char **names, size_t n,
                               unsigned depth)
{
    uint32_t rule = builder_rule(c->builder, 0);
    struct char_set others = {0};
    size_t i = 0;
    if (n && !*names[0])
        i = 1;
    else
        builder_alternative(c->builder, rule, NULL, 0);
    if (depth == MAX_TOLD_APART || c->rc || builder_failed(c->builder))
        return item_of_rule(rule);
    for (size_t k; i < n; i = k) {
        size_t len, other_len;
        uint32_t ch = char_at(names[i], &len);
        for (k = i; k < n && char_at(names[k], &other_len) == ch; k++)
            names[k] += len;
        struct char_range one = {ch, ch};
        grammar_item both[2] = {schema_chars(c, &(struct char_set){&one, 1, 1, false}),
                                other_ends(c, names + i, k - i, depth + 1)};
        builder_alternative(c->builder, rule, both, 2);
        char_set_add(&others, ch, ch);
    }
    for (uint32_t ch = 0; ch < 0x20; ch++) /* as in json.gbnf */
        if (escape_of(ch) == 'u')
            char_set_add(&others, ch, ch);
    char_set_tidy(&others);
    char_set_invert(&others);
    grammar_item both[2] = {
        schema_chars(c, &others),
        builder_repeat(c->builder, schema_rule(c, "char"), 0, REPEAT_EVER, 0)};
    builder_alternative(c->builder, rule, both, 2);
    char_set_free(&others);
    return item_of_rule(rule);
}

grammar_item schema_other_name(struct schema *c, const struct schema_shape *s)
{
    const char **names = schema_alloc(c, s->n_properties, sizeof *names);
    if (!names)
        return item_of_rule(0);
    for (size_t i = 0; i < s->n_properties; i++)
        names[i] = s->properties[i].name;
    if (s->n_properties)
        qsort(names, s->n_properties, sizeof *names, by_text);
    grammar_item quote = builder_byte(c->builder, '"', '"'),
                 items[3] = {quote, other_ends(c, names, s->n_properties, 0), quote};
    return builder_group(c->builder, items, 3, 0);
}
