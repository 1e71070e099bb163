/* Owns reading the files of tasks: JSON lines and plain text, and what the harness does
 * to HellaSwag's sentences before they are scored. */
#include "eval/task.h"

#include "base/err.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct reader {
    const char *name, *at, *end;
    size_t line; /* the number of the line read last */
    struct task_set *out;
    size_t cap;
    struct runt_err *err;
};

__attribute__((format(printf, 2, 3))) static int fault(struct reader *r,
                                                       const char *fmt, ...)
{
    va_list ap;
    char what[256];
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return err_set(r->err, RUNT_E_FORMAT, "%s, line %zu: %s", r->name, r->line, what);
}

/* The next line without its end; false at the end of the file. */
static bool next_line(struct reader *r, const char **line, size_t *n)
{
    if (r->at == r->end)
        return false;
    const char *end = memchr(r->at, '\n', (size_t)(r->end - r->at));
    *line = r->at;
    *n = (size_t)((end ? end : r->end) - r->at);
    r->at = end ? end + 1 : r->end;
    if (*n && (*line)[*n - 1] == '\r')
        --*n;
    r->line++;
    return true;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_blank(const char *s, size_t n)
{
    while (n && is_space(s[n - 1]))
        n--;
    return !n;
}

static int check_text(struct reader *r, const char *s, size_t n)
{
    for (size_t i = 0, k; i < n; i += k) {
        k = utf8_len(s + i, n - i);
        if (!k || !s[i])
            return fault(r, "not a text (%s)", k ? "a NUL byte" : "not UTF-8");
    }
    return 0;
}

static struct task_span keep(struct reader *r, const char *s, size_t n)
{
    struct task_span span = {r->out->text.len, n};
    sb_put(&r->out->text, s, n);
    return span;
}

static struct task_item *add(struct reader *r)
{
    struct task_set *set = r->out;
    if (set->n == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 256;
        struct task_item *p = mem_resize(set->items, cap, sizeof *p);
        if (!p)
            return NULL;
        set->items = p;
        r->cap = cap;
    }
    struct task_item *t = &set->items[set->n];
    *t = (struct task_item){.line = r->line};
    return t;
}

/* ---- LAMBADA ---- */

/* The last word is what follows the last space. */
static int add_passage(struct reader *r, const char *s, size_t n)
{
    size_t word = n;
    while (word && s[word - 1] != ' ')
        word--;
    if (word == n)
        return fault(r, n ? "the passage ends with a space, so it has no last word"
                          : "an empty passage");
    struct task_item *t = add(r);
    if (!t)
        return err_nomem(r->err, r->name);
    t->n_endings = 1;
    t->context = keep(r, s, word ? word - 1 : 0);
    t->endings[0] = keep(r, s + word, n - word);
    r->out->n++;
    return 0;
}

static int passage_json(struct reader *r, const json_t *o)
{
    const json_t *text = json_object_get(o, "text");
    if (!json_is_string(text))
        return fault(r, "no \"text\" that is a string");
    return add_passage(r, json_string_value(text), json_string_length(text));
}

/* ---- HellaSwag ---- */

static void put_trimmed(struct strbuf *b, const char *s, size_t n)
{
    while (n && is_space(s[n - 1]))
        n--;
    while (n && is_space(*s)) {
        s++;
        n--;
    }
    sb_put(b, s, n);
}

/* " [title]" becomes ". "; what stands in brackets on one line goes; two spaces become
 * one, from the left, not again.  In place, the text only shrinks. */
static void drop_artifacts(struct strbuf *b)
{
    static const char title[] = " [title]";
    char *s = b->data;
    size_t n = 0, len = b->len;
    for (size_t i = 0; i < len;) {
        if (len - i >= sizeof title - 1 && !memcmp(s + i, title, sizeof title - 1)) {
            s[n++] = '.';
            s[n++] = ' ';
            i += sizeof title - 1;
        } else {
            s[n++] = s[i++];
        }
    }
    len = n;
    n = 0;
    for (size_t i = 0, open_until = 0; i < len;) { /* no ']' before open_until */
        size_t k = i;
        if (s[i] == '[' && i >= open_until)
            while (k < len && s[k] != ']' && s[k] != '\n')
                k++;
        if (k < len && s[k] == ']' && k > i) {
            i = k + 1;
        } else {
            if (k > i)
                open_until = k;
            s[n++] = s[i++];
        }
    }
    len = n;
    n = 0;
    for (size_t i = 0; i < len; i++) {
        s[n++] = s[i];
        if (s[i] == ' ' && i + 1 < len && s[i + 1] == ' ')
            i++;
    }
    b->len = n;
}

static struct task_span keep_preprocessed(struct reader *r, const struct strbuf *raw,
                                          bool *failed)
{
    struct strbuf b = {0};
    sb_str(&b, "");
    put_trimmed(&b, raw->data ? raw->data : "", raw->len);
    *failed |= b.failed || raw->failed;
    if (!b.failed)
        drop_artifacts(&b);
    struct task_span span = keep(r, b.data ? b.data : "", b.len);
    sb_free(&b);
    return span;
}

/* Python's str.capitalize(), for ASCII letters: the first large, the others small. */
static void put_capitalized(struct strbuf *b, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        if (i == 0 && c >= 'a' && c <= 'z')
            c = (char)(c - 'a' + 'A');
        else if (i && c >= 'A' && c <= 'Z')
            c = (char)(c - 'A' + 'a');
        sb_char(b, c);
    }
}

static void put_json(struct strbuf *b, const json_t *s)
{
    sb_put(b, json_string_value(s), json_string_length(s));
}

static int label_of(struct reader *r, const json_t *o, uint32_t *label)
{
    const json_t *v = json_object_get(o, "label");
    json_int_t i = -1;
    if (json_is_integer(v))
        i = json_integer_value(v);
    else if (json_is_string(v) && json_string_length(v) == 1)
        i = *json_string_value(v) - '0';
    if (i < 0 || i >= TASK_MAX_ENDINGS)
        return fault(r, "no \"label\" from 0 to %d", TASK_MAX_ENDINGS - 1);
    *label = (uint32_t)i;
    return 0;
}

static int sentence_json(struct reader *r, const json_t *o)
{
    const json_t *ctx = json_object_get(o, "ctx"), *a = json_object_get(o, "ctx_a"),
                 *b = json_object_get(o, "ctx_b"),
                 *activity = json_object_get(o, "activity_label"),
                 *endings = json_object_get(o, "endings");
    bool both = json_is_string(a) && json_is_string(b);
    if (!both && !json_is_string(ctx))
        return fault(r, "no \"ctx_a\" and \"ctx_b\", nor a \"ctx\"");
    if (!json_is_string(activity))
        return fault(r, "no \"activity_label\" that is a string");
    if (!json_is_array(endings) || json_array_size(endings) != TASK_MAX_ENDINGS)
        return fault(r, "no \"endings\" that are a list of %d", TASK_MAX_ENDINGS);
    struct task_item *t = add(r);
    if (!t)
        return err_nomem(r->err, r->name);
    int rc = label_of(r, o, &t->label);
    struct strbuf raw = {0};
    bool failed = false;
    put_json(&raw, activity);
    sb_str(&raw, ": ");
    put_json(&raw, both ? a : ctx);
    if (both) {
        sb_char(&raw, ' ');
        put_capitalized(&raw, json_string_value(b), json_string_length(b));
    }
    t->context = keep_preprocessed(r, &raw, &failed);
    t->n_endings = TASK_MAX_ENDINGS;
    for (size_t i = 0; i < TASK_MAX_ENDINGS && !rc; i++) {
        const json_t *e = json_array_get(endings, i);
        raw.len = 0;
        if (!json_is_string(e)) {
            rc = fault(r, "ending %zu is no string", i);
            break;
        }
        put_json(&raw, e);
        t->endings[i] = keep_preprocessed(r, &raw, &failed);
        if (!t->endings[i].n)
            rc = fault(r, "ending %zu is empty", i);
    }
    sb_free(&raw);
    if (!rc && failed)
        rc = err_nomem(r->err, r->name);
    r->out->n += !rc;
    return rc;
}

/* Six lines, of which the first is read already. */
static int sentence_lines(struct reader *r, const char *s, size_t n)
{
    struct task_item *t = add(r);
    if (!t)
        return err_nomem(r->err, r->name);
    t->context = keep(r, s, n);
    t->n_endings = TASK_MAX_ENDINGS;
    for (int i = -1; i < TASK_MAX_ENDINGS; i++) {
        if (!next_line(r, &s, &n))
            return fault(r, "the file ends inside a task, which takes 6 lines");
        int rc = check_text(r, s, n);
        if (rc)
            return rc;
        if (i < 0 && (n != 1 || *s < '0' || *s >= '0' + TASK_MAX_ENDINGS))
            return fault(r, "the right ending's index, 0 to %d, was expected",
                         TASK_MAX_ENDINGS - 1);
        if (i < 0)
            t->label = (uint32_t)(*s - '0');
        else if (is_blank(s, n))
            return fault(r, "an empty ending");
        else
            t->endings[i] = keep(r, s, n);
    }
    r->out->n++;
    return 0;
}

/* ---- files ---- */

static int read_json(struct reader *r, const char *s, size_t n)
{
    json_t *o = NULL;
    struct runt_err ignored;
    if (js_parse(s, n, r->name, &o, &ignored) || !json_is_object(o)) {
        json_decref(o);
        return fault(r, "not a JSON object");
    }
    int rc = r->out->kind == TASK_LAMBADA ? passage_json(r, o) : sentence_json(r, o);
    json_decref(o);
    return rc;
}

static int read_line(struct reader *r, bool is_json, const char *s, size_t n)
{
    if (is_json)
        return read_json(r, s, n);
    int rc = check_text(r, s, n);
    if (rc)
        return rc;
    return r->out->kind == TASK_LAMBADA ? add_passage(r, s, n)
                                        : sentence_lines(r, s, n);
}

int task_parse(enum task_kind kind, const char *bytes, size_t n, const char *name,
               size_t limit, struct task_set *out, struct runt_err *err)
{
    struct task_set set = {.kind = kind};
    struct reader r = {.name = name, .at = bytes, .end = bytes + n, .err = err};
    const char *s;
    size_t len;
    int rc = 0;
    bool is_json = false, any = false;
    r.out = &set;
    while (!rc && (!limit || set.n < limit) && next_line(&r, &s, &len)) {
        if (is_blank(s, len))
            continue;
        for (size_t i = 0; !any && i < len; i++)
            if (!is_space(s[i])) {
                is_json = s[i] == '{';
                any = true;
            }
        rc = read_line(&r, is_json, s, len);
    }
    if (!rc && set.text.failed)
        rc = err_nomem(err, name);
    if (!rc && !set.n)
        rc = err_set(err, RUNT_E_FORMAT, "%s: no tasks in it", name);
    if (rc)
        task_set_free(&set);
    else
        *out = set;
    return rc;
}

void task_set_free(struct task_set *s)
{
    mem_free(s->items);
    sb_free(&s->text);
    *s = (struct task_set){0};
}
