/* Owns `pattern`: regular expressions (ECMA-262) as rules.
 *
 * Supported are characters, escapes, classes, groups, alternatives, repetitions, and ^
 * and $ at the ends of the whole or of an alternative of the whole.  Refused, by name,
 * is what is no regular language or what readers of schemas take in different ways:
 * what looks ahead or behind, \b, references to groups, \p.
 *
 * Programs do not agree whether \w or \d knows more than ASCII, nor which blanks \s
 * means.  So of such a class only those characters are made of which all are sure,
 * which are of ASCII; and a class that excludes it excludes all others, too. */
#include "sample/schema.h"

#include "base/utf8.h"

#include <string.h>

struct pattern {
    struct schema *c;
    const json_t *schema;
    const char *text;
    size_t n, at;
    unsigned depth;
    bool exact;    /* all that we match, not only what we make */
    bool doubtful; /* some programs may match more than we do */
};

/* A part of a pattern. */
struct part {
    grammar_item item;
    bool may_be_empty;
};

static const struct part nothing = {1, false};

static struct part refuse(struct pattern *p, const char *what)
{
    schema_fail(p->c, RUNT_E_UNSUPPORTED, p->schema,
                "'pattern': %s at character %zu is not supported", what, p->at + 1);
    return nothing;
}

static int next(const struct pattern *p, size_t ahead)
{
    return p->n - p->at > ahead ? (unsigned char)p->text[p->at + ahead] : -1;
}

/* ---- characters ---- */

/* The ASCII characters that are surely meant by \d, \D, \w, \W, \s or \S; or, with
 * `maybe`, all that are not surely meant by the opposite. */
static void add_named(struct char_set *s, char letter, bool maybe)
{
    if (maybe) {
        struct char_set opposite = {0};
        add_named(&opposite, letter ^ 32, false);
        char_set_tidy(&opposite);
        char_set_invert(&opposite);
        for (size_t i = 0; i < opposite.n; i++)
            char_set_add(s, opposite.ranges[i].lo, opposite.ranges[i].hi);
        s->failed = s->failed || opposite.failed;
        char_set_free(&opposite);
        return;
    }
    for (uint32_t ch = 0; ch < 0x80; ch++) {
        bool digit = ch >= '0' && ch <= '9', blank = ch == ' ' || (ch >= 9 && ch <= 13),
             word = digit || ch == '_' || ((ch | 32) >= 'a' && (ch | 32) <= 'z'),
             doubtful = ch >= 0x1c && ch <= 0x1f, in = false;
        switch (letter) {
        case 'd':
            in = digit;
            break;
        case 'D':
            in = !digit;
            break;
        case 'w':
            in = word;
            break;
        case 'W':
            in = !word;
            break;
        case 's':
            in = blank;
            break;
        case 'S':
            in = !blank && !doubtful;
            break;
        }
        if (in)
            char_set_add(s, ch, ch);
    }
}

static bool is_named(int ch)
{
    return ch > 0 && strchr("dDwWsS", ch);
}

/* n hexadecimal digits behind the next `skip` characters. */
static bool read_hex(struct pattern *p, size_t skip, size_t n, uint32_t *out)
{
    uint32_t x = 0;
    for (size_t i = 0; i < n; i++) {
        int d = next(p, skip + i);
        if (d < 0 || !strchr("0123456789abcdefABCDEF", d))
            return false;
        x = x << 4 | (uint32_t)(d <= '9' ? d - '0' : (d | 32) - 'a' + 10);
    }
    p->at += skip + n;
    *out = x;
    return true;
}

/* \uHHHH, two of them for one character beyond U+FFFF, or \u{...}; at the u. */
static bool read_unicode(struct pattern *p, uint32_t *out)
{
    uint32_t lo = 0;
    if (next(p, 1) == '{') {
        size_t n = 0;
        while (next(p, 2 + n) != '}' && n < 7)
            n++;
        bool good = n && n < 7 && read_hex(p, 2, n, out) && *out <= MAX_CHAR &&
                    (*out < 0xd800 || *out > 0xdfff);
        p->at += good;
        return good;
    }
    if (!read_hex(p, 1, 4, out))
        return false;
    if (*out < 0xd800 || *out > 0xdfff)
        return true;
    if (*out > 0xdbff || next(p, 0) != '\\' || next(p, 1) != 'u' ||
        !read_hex(p, 2, 4, &lo) || lo < 0xdc00 || lo > 0xdfff)
        return false;
    *out = 0x10000 + ((*out - 0xd800) << 10) + (lo - 0xdc00);
    return true;
}

/* The character behind a backslash. */
static uint32_t read_escape(struct pattern *p)
{
    static const char letters[] = "tnvfr", meant[] = "\t\n\v\f\r";
    int ch = next(p, 0);
    uint32_t out = 0;
    const char *letter = ch > 0 ? strchr(letters, ch) : NULL;
    if (letter) {
        p->at++;
        return (uint32_t)meant[letter - letters];
    }
    if ((ch == 'x' && read_hex(p, 1, 2, &out)) || (ch == 'u' && read_unicode(p, &out)))
        return out;
    if (ch == '0' && (next(p, 1) < '0' || next(p, 1) > '9')) {
        p->at++;
        return 0;
    }
    if (ch <= ' ' || ch >= 0x7f || (ch >= '0' && ch <= '9') ||
        ((ch | 32) >= 'a' && (ch | 32) <= 'z')) {
        refuse(p, "this escape");
        return 0;
    }
    p->at++;
    return (uint32_t)ch;
}

static uint32_t read_plain(struct pattern *p)
{
    const unsigned char *s = (const unsigned char *)p->text + p->at;
    size_t n = utf8_len(p->text + p->at, p->n - p->at);
    if (!n) { /* jansson's strings are UTF-8 */
        refuse(p, "this byte");
        return 0;
    }
    uint32_t ch = n == 1 ? *s : *s & (0x7fu >> n);
    for (size_t i = 1; i < n; i++)
        ch = ch << 6 | (s[i] & 63);
    p->at += n;
    return ch;
}

static struct part chars(struct pattern *p, struct char_set *s, bool inverted)
{
    struct part out = nothing;
    char_set_tidy(s);
    if (inverted)
        char_set_invert(s);
    schema_no_memory(p->c, s->failed);
    if (!p->c->rc)
        out.item = schema_chars(p->c, s);
    char_set_free(s);
    return out;
}

/* One end of a range in a class; true when it is a class of its own, which was added.
 */
static bool read_member(struct pattern *p, struct char_set *s, bool inverted,
                        uint32_t *ch)
{
    if (next(p, 0) != '\\') {
        *ch = read_plain(p);
        return false;
    }
    p->at++;
    if (is_named(next(p, 0))) {
        add_named(s, p->text[p->at++], inverted);
        p->doubtful = true;
        return true;
    }
    if (next(p, 0) == 'b') { /* in a class: backspace */
        p->at++;
        *ch = '\b';
        return false;
    }
    *ch = read_escape(p);
    return false;
}

static struct part read_class(struct pattern *p)
{
    struct char_set s = {0};
    p->at++;
    bool inverted = next(p, 0) == '^';
    p->at += inverted;
    while (next(p, 0) >= 0 && next(p, 0) != ']' && !p->c->rc) {
        uint32_t lo = 0, hi = 0;
        if (read_member(p, &s, inverted, &lo))
            continue;
        hi = lo;
        if (next(p, 0) == '-' && next(p, 1) >= 0 && next(p, 1) != ']') {
            p->at++;
            if (read_member(p, &s, inverted, &hi) || lo > hi)
                refuse(p, "this range");
        }
        char_set_add(&s, lo, hi);
    }
    if (next(p, 0) != ']')
        refuse(p, "a class that does not end");
    p->at++;
    return chars(p, &s, inverted);
}

/* ---- terms ---- */

static struct part read_alternatives(struct pattern *p, bool whole);

static struct part read_group(struct pattern *p)
{
    p->at++;
    if (next(p, 0) == '?') {
        int kind = next(p, 1), behind = next(p, 2);
        if (kind == '=' || kind == '!')
            return refuse(p, "looking ahead");
        if (kind == '<' && (behind == '=' || behind == '!'))
            return refuse(p, "looking behind");
        if (kind == '<')
            while (next(p, 0) >= 0 && next(p, 0) != '>')
                p->at++;
        else if (kind == ':')
            p->at++;
        else
            return refuse(p, "this kind of group");
        p->at++;
    }
    if (++p->depth > GRAMMAR_MAX_DEPTH)
        return refuse(p, "so deep a group");
    struct part out = read_alternatives(p, false);
    p->depth--;
    if (next(p, 0) != ')')
        return refuse(p, "a group that does not end");
    p->at++;
    return out;
}

static struct part read_atom(struct pattern *p)
{
    struct char_set s = {0};
    uint32_t ch;
    switch (next(p, 0)) {
    case '(':
        return read_group(p);
    case '[':
        return read_class(p);
    case '*':
    case '+':
    case '?':
        return refuse(p, "a repetition of nothing");
    case '^':
    case '$':
        return refuse(p, "^ or $ inside");
    case '.':
        p->at++;
        p->doubtful = true;
        char_set_add(&s, '\n', '\n');
        char_set_add(&s, '\r', '\r');
        char_set_add(&s, 0x2028, 0x2029);
        return chars(p, &s, true);
    case '\\':
        p->at++;
        if (next(p, 0) == 'b' || next(p, 0) == 'B')
            return refuse(p, "\\b");
        if (is_named(next(p, 0))) {
            add_named(&s, p->text[p->at++], false);
            p->doubtful = true;
            return chars(p, &s, false);
        }
        ch = read_escape(p);
        break;
    default:
        ch = read_plain(p);
    }
    char_set_add(&s, ch, ch);
    return chars(p, &s, false);
}

/* {m}, {m,} or {m,n}: its length, or 0 when this is no such thing. */
static size_t read_braces(const struct pattern *p, uint32_t *min, uint32_t *max)
{
    size_t i = 1, n_digits = 0;
    uint32_t n[2] = {0, 0};
    bool comma = false;
    for (;; i++) {
        int ch = next(p, i);
        if (ch >= '0' && ch <= '9') {
            uint32_t *x = &n[comma];
            *x = *x < GRAMMAR_MAX_ITEMS ? *x * 10 + (uint32_t)(ch - '0') : *x;
            n_digits++;
        } else if (ch == ',' && !comma && n_digits) {
            comma = true;
            n_digits = 0;
        } else if (ch == '}' && (n_digits || comma)) {
            *min = n[0];
            *max = !comma ? n[0] : n_digits ? n[1] : REPEAT_EVER;
            return i + 1;
        } else {
            return 0;
        }
    }
}

static struct part read_term(struct pattern *p)
{
    struct part a = read_atom(p);
    int ch = next(p, 0);
    uint32_t min = ch == '+', max = ch == '?' ? 1 : REPEAT_EVER;
    size_t n =
        ch == '{' ? read_braces(p, &min, &max) : ch == '*' || ch == '+' || ch == '?';
    if (!n || p->c->rc)
        return a;
    if (min > max)
        return refuse(p, "this repetition");
    if (max == REPEAT_EVER && a.may_be_empty)
        return refuse(p, "a repetition without end of what may be empty");
    p->at += n;
    p->at += next(p, 0) == '?'; /* as few as possible: the same texts */
    return (struct part){builder_repeat(p->c->builder, a.item, min, max, 0),
                         a.may_be_empty || !min};
}

/* ---- alternatives ---- */

/* What stands around a match: of what is made, without control characters. */
static grammar_item anything(struct pattern *p)
{
    struct char_set all = {0};
    grammar_item ch = p->exact ? chars(p, &all, true).item : schema_rule(p->c, "char");
    return builder_repeat(p->c->builder, ch, 0, REPEAT_EVER, 0);
}

static bool at_end(const struct pattern *p)
{
    return next(p, 0) < 0 || next(p, 0) == '|' || next(p, 0) == ')';
}

/* An alternative; one of the whole pattern may be found anywhere between its ^ and $.
 */
static bool read_sequence(struct pattern *p, struct item_list *l, bool whole)
{
    bool may_be_empty = true, from_start = whole && next(p, 0) == '^', to_end = false;
    p->at += from_start;
    if (whole && !from_start)
        item_put(l, anything(p));
    while (!at_end(p) && !p->c->rc && !to_end) {
        if (whole && next(p, 0) == '$') {
            p->at++;
            to_end = at_end(p);
            if (!to_end)
                refuse(p, "$ inside");
            continue;
        }
        struct part a = read_term(p);
        item_put(l, a.item);
        may_be_empty = may_be_empty && a.may_be_empty;
    }
    if (whole && !to_end)
        item_put(l, anything(p));
    schema_no_memory(p->c, l->failed);
    return may_be_empty;
}

static struct part read_alternatives(struct pattern *p, bool whole)
{
    uint32_t rule = builder_rule(p->c->builder, 0);
    struct part out = {item_of_rule(rule), false};
    for (bool more = true; more && !p->c->rc; p->at += more) {
        struct item_list l = {0};
        if (read_sequence(p, &l, whole))
            out.may_be_empty = true;
        if (!p->c->rc)
            builder_alternative(p->c->builder, rule, l.items, l.n);
        item_list_free(&l);
        more = next(p, 0) == '|';
    }
    return out;
}

static grammar_item read_pattern(struct pattern *p, struct schema *c,
                                 const json_t *schema, bool exact)
{
    const json_t *text = json_object_get(schema, "pattern");
    *p = (struct pattern){.c = c,
                          .schema = schema,
                          .text = json_string_value(text),
                          .n = json_string_length(text),
                          .exact = exact};
    struct part out = read_alternatives(p, true);
    if (!c->rc && p->at < p->n)
        refuse(p, "a ) without (");
    return out.item;
}

grammar_item schema_pattern(struct schema *c, const json_t *schema)
{
    struct pattern p;
    return read_pattern(&p, c, schema, false);
}

grammar_item schema_pattern_test(struct schema *c, const json_t *schema, bool *doubtful)
{
    struct pattern p;
    grammar_item out = read_pattern(&p, c, schema, true);
    *doubtful = p.doubtful;
    return out;
}
