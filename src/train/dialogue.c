/* Owns what a turn is, in a text and in messages. */
#include "train/dialogue.h"

#include "base/err.h"

#include <ctype.h>
#include <string.h>

enum { USER = sizeof TALK_USER - 1, BOT = sizeof TALK_BOT - 1 };

static bool is_user(const char *line, size_t n)
{
    return n >= USER && !memcmp(line, TALK_USER, USER);
}

static bool is_bot(const char *line, size_t n)
{
    return n >= BOT && !memcmp(line, TALK_BOT, BOT);
}

/* Where the line behind the one at `at` begins; n behind the last. */
static size_t line_after(const char *text, size_t n, size_t at)
{
    const char *stop = memchr(text + at, '\n', n - at);
    return stop ? (size_t)(stop - text) + 1 : n;
}

void dialogue_next(const char *text, size_t n, struct dialogue_answer *a)
{
    size_t at = a->next;
    while (at < n && !is_bot(text + at, n - at))
        at = line_after(text, n, at);
    if (at >= n) {
        *a = (struct dialogue_answer){SIZE_MAX, SIZE_MAX, n};
        return;
    }
    a->from = at + BOT;
    do
        at = line_after(text, n, at);
    while (at < n && !is_user(text + at, n - at) && !is_bot(text + at, n - at));
    a->next = at;
    /* A model that has never learnt to write the next name would not stop in a chat. */
    a->to = at >= n ? n + 1 : is_user(text + at, n - at) ? at + USER : at;
}

/* ---- messages ---- */

static void put_lines(struct strbuf *out, const char *text, size_t n, bool new_line)
{
    while (n && isspace((unsigned char)*text))
        text++, n--;
    while (n && isspace((unsigned char)text[n - 1]))
        n--;
    for (size_t at = 0, next; at < n; at = next) {
        if ((at || new_line) &&
            (is_user(text + at, n - at) || is_bot(text + at, n - at)))
            sb_char(out, ' ');
        next = line_after(text, n, at);
        sb_put(out, text + at, next - at);
    }
}

static int put_message(const json_t *m, size_t number, const char *where,
                       bool *turns_began, struct strbuf *out, struct runt_err *err)
{
    const char *role = json_is_object(m) ? js_get_str(m, "role") : NULL;
    const json_t *content = json_object_get(m, "content");
    const char *text = json_string_value(content);
    size_t n = json_string_length(content);
    if (!role || !text)
        return err_set(err, RUNT_E_FORMAT,
                       "%s: message %zu is no object with a text 'role' and a text "
                       "'content'",
                       where, number);
    if (memchr(text, 0, n))
        return err_set(err, RUNT_E_FORMAT, "%s: message %zu holds a NUL: not a text",
                       where, number);
    bool user = !strcmp(role, "user"), bot = !strcmp(role, "assistant");
    if (!user && !bot && strcmp(role, "system"))
        return err_set(err, RUNT_E_FORMAT,
                       "%s: message %zu is of role '%.20s'; there are user, assistant "
                       "and system",
                       where, number, role);
    if (!user && !bot && *turns_began)
        return err_set(err, RUNT_E_FORMAT,
                       "%s: message %zu is of the system, which speaks only before "
                       "the first turn",
                       where, number);
    if (number > 1)
        sb_char(out, '\n');
    if (user || bot) {
        *turns_began = true;
        sb_str(out, user ? TALK_USER " " : TALK_BOT " ");
    }
    put_lines(out, text, n, !user && !bot);
    return 0;
}

int dialogue_render(const json_t *messages, const char *where, struct strbuf *out,
                    struct runt_err *err)
{
    bool turns_began = false;
    for (size_t i = 0; i < json_array_size(messages); i++) {
        int rc = put_message(json_array_get(messages, i), i + 1, where, &turns_began,
                             out, err);
        if (rc)
            return rc;
    }
    return out->failed ? err_nomem(err, "a dialogue") : 0;
}
