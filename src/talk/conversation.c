/* Owns the messages of a conversation and the form of its file. */
#include "talk/conversation.h"

#include "base/err.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <string.h>

/* A role's name that lives as long as the program, or NULL. */
static const char *known_role(const char *name)
{
    static const char *const names[] = {"system", "user", "assistant"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i], name))
            return names[i];
    return NULL;
}

int conversation_add(struct conversation *c, const char *role, const char *text,
                     size_t n, struct runt_err *err)
{
    if (c->n == c->cap) {
        size_t cap = c->cap ? c->cap * 2 : 16;
        struct runt_message *p = mem_resize(c->messages, cap, sizeof *p);
        if (!p)
            return err_nomem(err, "a conversation");
        c->messages = p;
        c->cap = cap;
    }
    char *copy = mem_alloc(n + 1);
    if (!copy)
        return err_nomem(err, "a message");
    memcpy(copy, text, n); /* may hold zeros */
    copy[n] = 0;
    c->messages[c->n++] = (struct runt_message){known_role(role), copy, n};
    return 0;
}

static void message_free(struct runt_message *m)
{
    mem_free((char *)m->content);
}

void conversation_cut(struct conversation *c, size_t n)
{
    while (c->n > n)
        message_free(&c->messages[--c->n]);
}

void conversation_free(struct conversation *c)
{
    conversation_cut(c, 0);
    mem_free(c->messages);
    *c = (struct conversation){0};
}

size_t conversation_n_system(const struct conversation *c)
{
    size_t n = 0;
    while (n < c->n && !strcmp(c->messages[n].role, "system"))
        n++;
    return n;
}

int conversation_set_system(struct conversation *c, const char *text, size_t n,
                            struct runt_err *err)
{
    size_t n_old = conversation_n_system(c), n_new = n ? 1 : 0;
    if (n) { /* at the end first: where memory fails, nothing has changed */
        int rc = conversation_add(c, "system", text, n, err);
        if (rc)
            return rc;
    }
    struct runt_message added = c->n ? c->messages[c->n - 1] : (struct runt_message){0};
    size_t n_rest = c->n - n_new - n_old;
    for (size_t i = 0; i < n_old; i++)
        message_free(&c->messages[i]);
    if (n_rest)
        memmove(c->messages + n_new, c->messages + n_old, n_rest * sizeof added);
    if (n)
        c->messages[0] = added;
    c->n = n_new + n_rest;
    return 0;
}

/* ---- its file ---- */

static int parse_message(const json_t *m, size_t number, const char *name,
                         struct conversation *out, struct runt_err *err)
{
    const char *role = json_is_object(m) ? js_get_str(m, "role") : NULL;
    const json_t *content = json_object_get(m, "content");
    if (!role || !json_is_string(content))
        return err_set(err, RUNT_E_FORMAT,
                       "%s: message %zu is no object with a text 'role' and a text "
                       "'content'",
                       name, number);
    if (!known_role(role))
        return err_set(err, RUNT_E_FORMAT,
                       "%s: message %zu is of role '%.20s'; there are system, user and "
                       "assistant",
                       name, number, role);
    return conversation_add(out, role, json_string_value(content),
                            json_string_length(content), err);
}

static int from_json(const json_t *root, const char *name, struct conversation *out,
                     struct runt_err *err)
{
    const json_t *list = json_object_get(root, "messages");
    struct conversation c = {0};
    int rc = 0;
    if (!json_is_array(list))
        return err_set(err, RUNT_E_FORMAT, "%s: no object with a list 'messages'",
                       name);
    for (size_t i = 0; i < json_array_size(list) && !rc; i++)
        rc = parse_message(json_array_get(list, i), i + 1, name, &c, err);
    if (rc) {
        conversation_free(&c);
        return rc;
    }
    conversation_free(out);
    *out = c;
    return 0;
}

int conversation_parse(const char *text, size_t n, const char *name,
                       struct conversation *out, struct runt_err *err)
{
    json_t *root = NULL;
    int rc = js_parse(text, n, name, &root, err);
    if (!rc)
        rc = from_json(root, name, out, err);
    json_decref(root);
    return rc;
}

int conversation_load(const char *path, struct conversation *out, struct runt_err *err)
{
    json_t *root = NULL;
    int rc = js_parse_file(path, &root, err);
    if (!rc)
        rc = from_json(root, path, out, err);
    json_decref(root);
    return rc;
}

/* A JSON text of any bytes. */
static json_t *text_of(const char *s, size_t n)
{
    struct strbuf b = {0};
    for (size_t i = 0; i < n;) {
        size_t len = utf8_len(s + i, n - i);
        sb_put(&b, len ? s + i : "\xef\xbf\xbd", len ? len : 3);
        i += len ? len : 1;
    }
    json_t *t = b.failed ? NULL : json_stringn(b.data ? b.data : "", b.len);
    sb_free(&b);
    return t;
}

static json_t *to_json(const struct conversation *c, const char *model)
{
    json_t *list = json_array(), *root = json_object();
    bool ok = list && root;
    for (size_t i = 0; i < c->n && ok; i++) {
        const struct runt_message *m = &c->messages[i];
        json_t *o = json_object();
        ok = o && !json_object_set_new(o, "role", json_string(m->role)) &&
             !json_object_set_new(o, "content", text_of(m->content, m->n_content)) &&
             !json_array_append(list, o);
        json_decref(o);
    }
    ok = ok && !json_object_set_new(root, "model", text_of(model, strlen(model))) &&
         !json_object_set(root, "messages", list);
    json_decref(list);
    if (ok)
        return root;
    json_decref(root);
    return NULL;
}

static int append(const char *bytes, size_t n, void *ctx)
{
    sb_put(ctx, bytes, n);
    return 0;
}

int conversation_write(const struct conversation *c, const char *model,
                       struct strbuf *out, struct runt_err *err)
{
    json_t *root = to_json(c, model);
    bool ok = root && !json_dump_callback(root, append, out, JSON_INDENT(1));
    json_decref(root);
    sb_char(out, '\n');
    return ok && !out->failed ? 0 : err_nomem(err, "a conversation");
}

int conversation_save(const struct conversation *c, const char *model, const char *path,
                      struct runt_err *err)
{
    struct strbuf text = {0};
    struct file_out *f = NULL;
    int rc = conversation_write(c, model, &text, err);
    if (!rc)
        rc = file_out_open(path, &f, err);
    if (!rc)
        rc = file_out_write(f, text.data, text.len, err);
    if (!rc)
        rc = file_out_commit(f, err);
    else
        file_out_abort(f);
    sb_free(&text);
    return rc;
}
