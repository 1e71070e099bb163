/* Owns GBNF, llama.cpp's notation of grammars:
 *
 *     # a comment
 *     root  ::= "yes" | "no" reason?
 *     reason ::= ", " ( [a-z]+ " "? ){1,5} "."
 *
 * A rule ends with its line, except inside of ( ) and after ::= or | ; a | may begin
 * the next line, too.  A literal that is repeated is repeated whole.  Characters are
 * Unicode's: \xE9 is U+00E9, not a byte.  The text must be UTF-8. */
#include "sample/grammar.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { N_BUCKETS = 4096 };

struct name {
    const char *text; /* in the grammar's */
    size_t len, first_use, next;
    uint32_t rule;
    bool defined;
};

struct gbnf_names {
    struct name *list; /* [n], from 1 on */
    size_t n, cap;
    size_t buckets[N_BUCKETS]; /* the first of a list, or 0 */
};

struct reader {
    struct grammar_builder *b;
    struct gbnf_names *names;
    const char *text;
    size_t n, at;
    unsigned depth;
    struct runt_err *err;
};

/* ---- errors ---- */

/* "line 3 column 7: ..."; columns count characters. */
static int complain(struct reader *r, size_t at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static int complain(struct reader *r, size_t at, const char *fmt, ...)
{
    char text[256];
    size_t line = 1, column = 1;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (size_t i = 0; i < at && i < r->n; i++) {
        if (r->text[i] == '\n') {
            line++;
            column = 1;
        } else if (((unsigned char)r->text[i] & 0xc0) != 0x80) {
            column++;
        }
    }
    return err_set(r->err, RUNT_E_FORMAT, "line %zu column %zu: %s", line, column,
                   text);
}

static bool peek(const struct reader *r, char c)
{
    return r->at < r->n && r->text[r->at] == c;
}

/* ---- names ---- */

static int shown(const struct name *e)
{
    return e->len < 64 ? (int)e->len : 64;
}

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           c == '-' || c == '_';
}

/* The entry of a name; 0 without memory. */
static size_t name_entry(struct reader *r, const char *text, size_t len)
{
    struct gbnf_names *names = r->names;
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (unsigned char)text[i]) * 16777619u;
    size_t *bucket = &names->buckets[(hash ^ hash >> 16) % N_BUCKETS];
    for (size_t i = *bucket; i; i = names->list[i].next)
        if (names->list[i].len == len && !memcmp(names->list[i].text, text, len))
            return i;
    if (names->n == names->cap) {
        size_t cap = names->cap ? names->cap * 2 : 64;
        struct name *p = mem_resize(names->list, cap, sizeof *p);
        if (!p)
            return 0;
        names->list = p;
        names->cap = cap;
    }
    if (!names->n)
        names->n = 1;
    names->list[names->n] = (struct name){.text = text,
                                          .len = len,
                                          .first_use = r->at,
                                          .next = *bucket,
                                          .rule = builder_rule(r->b, r->at)};
    return *bucket = names->n++;
}

/* Characters of the name that stands here. */
static size_t name_len(const struct reader *r)
{
    size_t len = 0;
    while (r->at + len < r->n && is_name_char(r->text[r->at + len]))
        len++;
    return len;
}

static int read_name(struct reader *r, size_t *entry)
{
    size_t len = name_len(r);
    if (!len)
        return complain(r, r->at, "the name of a rule is expected");
    *entry = name_entry(r, r->text + r->at, len);
    if (!*entry)
        return err_nomem(r->err, "a grammar");
    r->at += len;
    return 0;
}

bool gbnf_find(const struct gbnf_names *names, const char *name, uint32_t *rule)
{
    for (size_t i = 1; i < names->n; i++)
        if (names->list[i].len == strlen(name) &&
            !memcmp(names->list[i].text, name, names->list[i].len)) {
            *rule = names->list[i].rule;
            return true;
        }
    return false;
}

void gbnf_names_free(struct gbnf_names *names)
{
    if (!names)
        return;
    mem_free(names->list);
    mem_free(names);
}

/* ---- characters ---- */

static void skip_space(struct reader *r, bool newlines)
{
    while (r->at < r->n) {
        char c = r->text[r->at];
        if (c == '#')
            while (r->at < r->n && r->text[r->at] != '\n')
                r->at++;
        else if (c == ' ' || c == '\t' || c == '\r' || (newlines && c == '\n'))
            r->at++;
        else
            break;
    }
}

static int read_hex(struct reader *r, unsigned n_digits, uint32_t *out)
{
    uint32_t c = 0;
    size_t at = r->at;
    for (unsigned i = 0; i < n_digits; i++, r->at++) {
        char d = r->at < r->n ? r->text[r->at] : 0;
        if (!isxdigit((unsigned char)d))
            return complain(r, at, "%u hexadecimal digits are expected", n_digits);
        c = c << 4 |
            (uint32_t)(isdigit((unsigned char)d) ? d - '0' : (d | 32) - 'a' + 10);
    }
    if (c > MAX_CHAR || (c >= 0xd800 && c <= 0xdfff))
        return complain(r, at, "U+%04X is no character", c);
    *out = c;
    return 0;
}

/* One character of a literal or a class, perhaps behind a backslash. */
static int read_char(struct reader *r, uint32_t *out)
{
    const unsigned char *s = (const unsigned char *)r->text + r->at;
    if (*s != '\\') { /* the text is UTF-8 and does not end here */
        size_t n = utf8_len(r->text + r->at, r->n - r->at);
        uint32_t c = n == 1 ? *s : *s & (0x7fu >> n);
        for (size_t i = 1; i < n; i++)
            c = c << 6 | (s[i] & 63);
        *out = c;
        r->at += n;
        return 0;
    }
    size_t at = r->at++;
    char c = r->at < r->n ? r->text[r->at++] : 0;
    switch (c) {
    case 'x':
        return read_hex(r, 2, out);
    case 'u':
        return read_hex(r, 4, out);
    case 'U':
        return read_hex(r, 8, out);
    case 't':
        *out = '\t';
        return 0;
    case 'r':
        *out = '\r';
        return 0;
    case 'n':
        *out = '\n';
        return 0;
    default:
        if ((unsigned char)c >= 0x80 || !ispunct((unsigned char)c))
            return complain(r, at,
                            "no such escape; there are \\t \\r \\n \\xHH \\uHHHH "
                            "\\UHHHHHHHH and \\ before a mark");
        *out = (unsigned char)c;
        return 0;
    }
}

static int read_literal(struct reader *r, struct item_list *to)
{
    size_t at = r->at++;
    while (r->at < r->n && r->text[r->at] != '"' && r->text[r->at] != '\n') {
        uint32_t c;
        int rc = read_char(r, &c);
        if (rc)
            return rc;
        char bytes[4];
        builder_text(r->b, to, bytes, utf8_put(c, bytes));
    }
    if (!peek(r, '"'))
        return complain(r, at, "the literal that begins here does not end");
    r->at++;
    return 0;
}

static int read_class(struct reader *r, struct item_list *to)
{
    struct char_set set = {0};
    size_t at = r->at++;
    int rc = 0;
    bool inverted = peek(r, '^');
    r->at += inverted;
    while (!rc && r->at < r->n && r->text[r->at] != ']' && r->text[r->at] != '\n') {
        uint32_t lo = 0, hi;
        size_t here = r->at;
        rc = read_char(r, &lo);
        hi = lo;
        if (!rc && peek(r, '-') && r->at + 1 < r->n && r->text[r->at + 1] != ']') {
            r->at++;
            rc = r->text[r->at] == '\n' ? 0 : read_char(r, &hi);
        }
        if (!rc && lo > hi)
            rc = complain(r, here, "the range ends before it begins");
        char_set_add(&set, lo, hi);
    }
    if (!rc && !peek(r, ']'))
        rc = complain(r, at, "the class that begins here does not end");
    char_set_tidy(&set);
    if (inverted)
        char_set_invert(&set);
    if (!rc && !set.n && !set.failed)
        rc = complain(r, at, "no character is in this class");
    if (!rc) {
        r->at++;
        item_put(to, builder_chars(r->b, &set));
    }
    char_set_free(&set);
    return rc;
}

/* ---- sequences ---- */

static int read_count(struct reader *r, uint32_t *out)
{
    size_t at = r->at;
    uint64_t n = 0;
    for (; r->at < r->n && isdigit((unsigned char)r->text[r->at]); r->at++)
        if (n <= GRAMMAR_MAX_ITEMS)
            n = n * 10 + (uint64_t)(r->text[r->at] - '0');
    if (r->at == at)
        return complain(r, at, "a number is expected");
    if (n > GRAMMAR_MAX_ITEMS)
        return complain(r, at, "a repetition of more than %d times", GRAMMAR_MAX_ITEMS);
    *out = (uint32_t)n;
    return 0;
}

/* {m}, {m,} or {m,n} */
static int read_braces(struct reader *r, uint32_t *min, uint32_t *max)
{
    size_t at = r->at++;
    skip_space(r, false);
    int rc = read_count(r, min);
    if (rc)
        return rc;
    skip_space(r, false);
    *max = *min;
    if (peek(r, ',')) {
        r->at++;
        skip_space(r, false);
        *max = REPEAT_EVER;
        if (!peek(r, '}'))
            rc = read_count(r, max);
        skip_space(r, false);
    }
    if (!rc && !peek(r, '}'))
        rc = complain(r, r->at, "a } is expected");
    if (!rc && *min > *max)
        rc = complain(r, at, "the least number of times is the larger one");
    r->at += !rc;
    return rc;
}

/* What may follow the items from `first` on: ? * + {m,n}, any number of them. */
static int read_repetitions(struct reader *r, struct item_list *l, size_t first,
                            size_t at)
{
    for (;;) {
        skip_space(r, false);
        uint32_t min = 0, max = REPEAT_EVER;
        char c = r->at < r->n ? r->text[r->at] : 0;
        size_t here = r->at;
        if (!c || !strchr("?*+{", c))
            return 0;
        int rc = 0;
        if (c == '{') {
            rc = read_braces(r, &min, &max);
        } else {
            min = c == '+';
            max = c == '?' ? 1 : REPEAT_EVER;
            r->at++;
        }
        if (rc || l->failed)
            return rc;
        const grammar_item *from =
            l->items ? l->items + first : NULL; /* NULL: nothing was put */
        grammar_item all = builder_group(r->b, from, l->n - first, at);
        l->n = first;
        item_put(l, builder_repeat(r->b, all, min, max, here));
    }
}

static int read_alternatives(struct reader *r, uint32_t rule, bool nested);

static int read_group(struct reader *r, struct item_list *to)
{
    size_t at = r->at++;
    if (++r->depth > GRAMMAR_MAX_DEPTH)
        return complain(r, at, "groups are nested more than %d deep",
                        GRAMMAR_MAX_DEPTH);
    uint32_t rule = builder_rule(r->b, at);
    int rc = read_alternatives(r, rule, true);
    if (rc)
        return rc;
    if (!peek(r, ')'))
        return complain(r, at, "the group that begins here does not end");
    r->at++;
    r->depth--;
    item_put(to, item_of_rule(rule));
    return 0;
}

static int read_reference(struct reader *r, struct item_list *to)
{
    size_t entry = 0;
    int rc = read_name(r, &entry);
    if (!rc)
        item_put(to, item_of_rule(r->names->list[entry].rule));
    return rc;
}

/* Whether a name stands here that a rule of its own begins with. */
static bool rule_begins(const struct reader *r)
{
    struct reader ahead = *r;
    ahead.at += name_len(r);
    skip_space(&ahead, false);
    return ahead.n - ahead.at >= 3 && !memcmp(ahead.text + ahead.at, "::=", 3);
}

/* The items of one alternative. */
static int read_sequence(struct reader *r, struct item_list *l, bool nested)
{
    for (;;) {
        skip_space(r, nested);
        char c = r->at < r->n ? r->text[r->at] : 0;
        size_t at = r->at, first = l->n;
        int rc = 0;
        if (c == '"')
            rc = read_literal(r, l);
        else if (c == '[')
            rc = read_class(r, l);
        else if (c == '(')
            rc = read_group(r, l);
        else if (c == '.') {
            struct char_set any = {0};
            char_set_invert(&any);
            item_put(l, builder_chars(r->b, &any));
            char_set_free(&any);
            r->at++;
        } else if (is_name_char(c) && !rule_begins(r))
            rc = read_reference(r, l);
        else
            return 0;
        if (!rc)
            rc = read_repetitions(r, l, first, at);
        if (rc)
            return rc;
    }
}

/* Whether a | follows; it may begin the next line. */
static bool skip_bar(struct reader *r)
{
    size_t at = r->at;
    skip_space(r, true);
    if (peek(r, '|')) {
        r->at++;
        return true;
    }
    r->at = at;
    return false;
}

static int read_alternatives(struct reader *r, uint32_t rule, bool nested)
{
    do {
        struct item_list l = {0};
        skip_space(r, true); /* also after ::= and | */
        int rc = read_sequence(r, &l, nested);
        if (!rc && l.failed)
            rc = err_nomem(r->err, "a grammar");
        if (!rc)
            builder_alternative(r->b, rule, l.items, l.n);
        item_list_free(&l);
        if (rc)
            return rc;
    } while (skip_bar(r));
    return 0;
}

/* ---- rules ---- */

static int read_rule(struct reader *r)
{
    size_t at = r->at, entry = 0;
    int rc = read_name(r, &entry);
    if (rc)
        return rc;
    struct name *e = &r->names->list[entry];
    uint32_t rule = e->rule;
    if (e->defined)
        return complain(r, at, "rule '%.*s' is defined twice", shown(e), e->text);
    e->defined = true;
    builder_place(r->b, rule, at);
    skip_space(r, false);
    if (r->n - r->at < 3 || memcmp(r->text + r->at, "::=", 3))
        return complain(r, r->at, "::= is expected");
    r->at += 3;
    rc = read_alternatives(r, rule, false);
    if (rc)
        return rc;
    skip_space(r, false);
    if (r->at < r->n && r->text[r->at] != '\n')
        return complain(r, r->at,
                        "a literal, a class, a rule, a group, | or the end of the line "
                        "is expected");
    return 0;
}

static int check_text(struct reader *r)
{
    if (r->n > GRAMMAR_MAX_TEXT)
        return err_set(r->err, RUNT_E_FORMAT,
                       "a grammar of %zu bytes, more than the limit of %d", r->n,
                       GRAMMAR_MAX_TEXT);
    for (size_t i = 0, len; i < r->n; i += len) {
        len = utf8_len(r->text + i, r->n - i);
        if (!len)
            return complain(r, i, "this is not UTF-8");
    }
    return 0;
}

static int read_rules(struct reader *r)
{
    int rc = check_text(r);
    for (skip_space(r, true); !rc && r->at < r->n; skip_space(r, true))
        rc = read_rule(r);
    for (size_t i = 1; i < r->names->n && !rc; i++) {
        const struct name *e = &r->names->list[i];
        if (!e->defined)
            rc = complain(r, e->first_use, "rule '%.*s' is not defined", shown(e),
                          e->text);
    }
    return rc;
}

int gbnf_read(struct grammar_builder *b, const char *text, size_t n,
              struct gbnf_names **out, struct runt_err *err)
{
    struct gbnf_names *names = mem_zalloc(sizeof *names);
    if (!names)
        return err_nomem(err, "a grammar");
    struct reader r = {.b = b, .names = names, .text = text, .n = n, .err = err};
    int rc = read_rules(&r);
    if (rc)
        gbnf_names_free(names);
    else
        *out = names;
    return rc;
}

/* What is wrong with the rules together, at its place. */
static int explain(struct reader *r, struct grammar_fault f)
{
    switch (f.kind) {
    case FAULT_LEFT:
        return complain(r, f.where, "this rule begins with itself (left recursion)");
    case FAULT_LOOP:
        return complain(
            r, f.where,
            "what is repeated without end here may be empty, an endless loop");
    case FAULT_ENDLESS:
        return complain(r, f.where, "this rule has no text that ends");
    case FAULT_SIZE:
    case FAULT_NONE:
        break;
    }
    return complain(r, r->at, "the grammar is larger than %d items", GRAMMAR_MAX_ITEMS);
}

int runt_grammar_gbnf(const char *text, size_t n, runt_grammar **out,
                      struct runt_err *err)
{
    struct grammar_builder *b = NULL;
    struct gbnf_names *names = NULL;
    struct reader r = {.text = text, .n = n, .at = n, .err = err};
    struct grammar_fault fault = {FAULT_NONE, 0};
    uint32_t root = 0;
    int rc = builder_new(&b, err);
    if (!rc)
        rc = gbnf_read(b, text, n, &names, err);
    if (!rc && !gbnf_find(names, "root", &root))
        rc = complain(&r, n, "there is no rule 'root'");
    if (!rc)
        rc = builder_finish(b, root, false, &fault, out, err);
    if (fault.kind != FAULT_NONE)
        rc = explain(&r, fault);
    gbnf_names_free(names);
    builder_free(b);
    return rc;
}
