/* Owns the /commands: their list, what they say, and what the tab key knows of them. */
#include "cli/chat_impl.h"

#include "base/err.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- /set ---- */

/* What /set knows: every option of the sampler, by its name without dashes. */
#define SETTINGS(c)                                                                 \
    {                                                                               \
        CLI_SAMPLER_OPTIONS((c)->o->sampler), CLI_GRAMMAR_OPTIONS((c)->o->sampler), \
            {"-n",    NULL,                                                         \
             CLI_INT, &(c)->o->n_max,                                               \
             "N",     "tokens an answer at most, 0: no limit",                      \
             0,       1e15},                                                        \
            {0},                                                                    \
    }

static const char *setting_name(const struct cli_option *o)
{
    return o->name + strspn(o->name, "-");
}

static void put_value(const struct cli_option *o, struct strbuf *out)
{
    const struct cli_list *l = o->value;
    const char *s;
    switch (o->kind) {
    case CLI_FLAG:
        sb_str(out, *(bool *)o->value ? "on" : "off");
        break;
    case CLI_INT:
        sb_printf(out, "%lld", (long long)*(int64_t *)o->value);
        break;
    case CLI_REAL:
        sb_printf(out, "%.16g", *(double *)o->value);
        break;
    case CLI_STR:
        s = *(const char **)o->value;
        sb_str(out, s ? s : "none");
        break;
    case CLI_LIST:
        for (size_t i = 0; i < l->n; i++)
            sb_printf(out, "%s%s", i ? " " : "", l->items[i]);
        sb_str(out, l->n ? "" : "none");
    }
}

static void say_value(const struct chat *c, const struct cli_option *o,
                      const char *between)
{
    struct strbuf b = {0};
    put_value(o, &b);
    chat_note(c, "%s%s %s", setting_name(o), between, b.failed ? "?" : b.data);
    sb_free(&b);
}

static int set_flag(const struct cli_option *o, const char *text, struct runt_err *err)
{
    bool on = !strcasecmp(text, "on") || !strcasecmp(text, "true"),
         off = !strcasecmp(text, "off") || !strcasecmp(text, "false");
    if (!on && !off)
        return err_set(err, RUNT_E_INVALID, "%s is on or off, not '%s'",
                       setting_name(o), text);
    *(bool *)o->value = on;
    return 0;
}

/* A text lives as long as the chat; "none" is none. */
static int set_text(struct chat *c, const struct cli_option *o, const char *text,
                    struct runt_err *err)
{
    if (!strcmp(text, "none")) {
        if (o->kind == CLI_LIST)
            ((struct cli_list *)o->value)->n = 0;
        else
            *(const char **)o->value = NULL;
        return 0;
    }
    char *kept = mem_strdup(text);
    const char **p = mem_resize(c->strings.items, c->strings.n + 1, sizeof *p);
    if (p)
        c->strings.items = p;
    if (!kept || !p) {
        mem_free(kept);
        return err_nomem(err, "a value");
    }
    p[c->strings.n++] = kept;
    return cli_store(o, setting_name(o), kept, err);
}

static int set_value(struct chat *c, const struct cli_option *o, const char *text,
                     struct runt_err *err)
{
    struct cli_sampler before = c->o->sampler;
    struct cli_list *list = o->kind == CLI_LIST ? o->value : NULL;
    size_t n_before = list ? list->n : 0;
    bool is_text = list || o->kind == CLI_STR;
    int rc = is_text               ? set_text(c, o, text, err)
             : o->kind == CLI_FLAG ? set_flag(o, text, err)
                                   : cli_store(o, setting_name(o), text, err);
    if (!rc)
        rc = chat_new_sampler(c, err);
    if (rc && list)
        list->n = n_before; /* its memory may have moved */
    else if (rc)
        c->o->sampler = before;
    return rc;
}

static const struct cli_option *find_setting(const struct cli_option *settings,
                                             const char *name)
{
    const struct cli_option *o = settings;
    while (o->name && strcmp(setting_name(o), name))
        o++;
    return o->name ? o : NULL;
}

static int set(struct chat *c, char *arg, struct runt_err *err)
{
    struct cli_option settings[] = SETTINGS(c);
    struct runt_err why;
    (void)err;
    if (!*arg) {
        for (const struct cli_option *o = settings; o->name; o++)
            say_value(c, o, "");
        return 0;
    }
    char *value = arg + strcspn(arg, " \t");
    if (*value)
        *value++ = 0;
    value += strspn(value, " \t");
    const struct cli_option *o = find_setting(settings, arg);
    if (!o)
        chat_note(c, "no such value; /set alone lists them");
    else if (!*value)
        say_value(c, o, "");
    else if (set_value(c, o, value, &why))
        chat_note(c, "%s", why.msg);
    else
        say_value(c, o, " is now");
    return 0;
}

/* ---- the conversation ---- */

static int clear(struct chat *c, char *arg, struct runt_err *err)
{
    (void)arg;
    conversation_cut(&c->said, conversation_n_system(&c->said));
    chat_changed(c);
    chat_note(c, "forgotten");
    return chat_new_sampler(c, err); /* its random numbers begin again */
}

static int regenerate(struct chat *c, char *arg, struct runt_err *err)
{
    (void)arg;
    size_t n = c->said.n;
    if (n && !strcmp(c->said.messages[n - 1].role, "assistant"))
        conversation_cut(&c->said, --n);
    if (n == conversation_n_system(&c->said)) {
        chat_note(c, "nothing was said yet");
        return 0;
    }
    return chat_answer(c, err);
}

static int set_system(struct chat *c, char *arg, struct runt_err *err)
{
    struct strbuf text = {0};
    bool done = true;
    int rc = 0;
    if (!strncmp(arg, "\"\"\"", 3))
        rc = chat_read_block(c, arg + 3, &text, &done, err);
    else
        sb_str(&text, arg);
    if (!rc && text.failed)
        rc = err_nomem(err, "a text");
    if (!rc && done) {
        rc = conversation_set_system(&c->said, text.data, text.len, err);
        chat_changed(c);
        chat_note(c, text.len ? "the system says so from now on"
                              : "the system says nothing any more");
    }
    sb_free(&text);
    return rc;
}

/* The role in bold where there are colours, and what it said. */
static void show_message(const struct chat *c, const struct runt_message *m)
{
    FILE *f = chat_side(c);
    struct wrap w = {.out = f, .width = cli_columns(f), .column = strlen(m->role) + 1};
    bool bold = cli_color(f);
    size_t skip = m->n_content && m->content[0] == ' ';
    fprintf(f, "%s%s:%s", bold ? "\033[1m" : "", m->role, bold ? "\033[0m" : "");
    wrap_put(&w, " ", 1);
    wrap_put(&w, m->content + skip, m->n_content - skip);
    wrap_end(&w);
    putc('\n', f);
}

static int show(struct chat *c, char *arg, struct runt_err *err)
{
    (void)arg;
    (void)err;
    chat_note(c, "model %s, template %s, %zu messages%s", c->path,
              runt_template_name(c->template), c->said.n,
              c->n_forgotten ? ", the oldest no longer in the context" : "");
    for (size_t i = 0; i < c->said.n; i++)
        show_message(c, &c->said.messages[i]);
    return 0;
}

/* ---- its file ---- */

/* What a shell makes of ~/: freed with mem_free, NULL without memory. */
static char *file_name(const char *arg)
{
    const char *home = getenv("HOME");
    return !strncmp(arg, "~/", 2) && home ? mem_printf("%s%s", home, arg + 1)
                                          : mem_strdup(arg);
}

static int save(struct chat *c, char *arg, struct runt_err *err)
{
    struct runt_model_info info;
    struct runt_err why;
    char *path = file_name(arg);
    runt_model_info(c->model, &info);
    if (!path)
        return err_nomem(err, "a path");
    if (!*path)
        chat_note(c, "to which file? /save FILE");
    else if (conversation_save(&c->said, info.name, path, &why))
        chat_note(c, "%s", why.msg);
    else
        chat_note(c, "saved %zu messages to %s", c->said.n, path);
    mem_free(path);
    return 0;
}

static int load(struct chat *c, char *arg, struct runt_err *err)
{
    struct runt_err why;
    char *path = file_name(arg);
    if (!path)
        return err_nomem(err, "a path");
    if (!*path) {
        chat_note(c, "which file? /load FILE");
    } else if (conversation_load(path, &c->said, &why)) {
        chat_note(c, "%s", why.msg);
    } else {
        const struct conversation *s = &c->said;
        bool asks = s->n && !strcmp(s->messages[s->n - 1].role, "user");
        chat_changed(c);
        chat_note(c, "loaded %zu messages; /show shows them%s", s->n,
                  asks ? ", /regen answers the last" : "");
    }
    mem_free(path);
    return 0;
}

/* ---- the rest ---- */

static int stats(struct chat *c, char *arg, struct runt_err *err)
{
    (void)arg;
    (void)err;
    char size[32];
    struct runt_model_info info;
    runt_model_info(c->model, &info);
    chat_note(
        c, "%zu tokens at %.1f tokens/s; context %u of %u; model %s", c->total_tokens,
        c->total_seconds > 0 ? (double)c->total_tokens / c->total_seconds : 0.0,
        runt_session_pos(c->timeline.session), runt_session_n_ctx(c->timeline.session),
        cli_bytes(info.file_bytes, size));
    chat_note(c, "peak memory %s", cli_bytes(cli_peak_rss(), size));
    return 0;
}

static int leave(struct chat *c, char *arg, struct runt_err *err)
{
    (void)arg;
    (void)err;
    c->left = true;
    return 0;
}

static int help(struct chat *c, char *arg, struct runt_err *err);

/* Without help: another name. */
static const struct command {
    const char *name, *arg, *help;
    int (*run)(struct chat *c, char *arg, struct runt_err *err);
} commands[] = {
    {"/help", "", "this list", help},
    {"/clear", "", "forget the conversation, but not what the system says", clear},
    {"/regen", "", "answer the last words again", regenerate},
    {"/system", " TEXT", "what the system says first; alone: nothing any more",
     set_system},
    {"/show", "", "the conversation so far", show},
    {"/save", " FILE", "write the conversation to a file (JSON)", save},
    {"/load", " FILE", "go on with the conversation of a file", load},
    {"/set", " NAME VALUE",
     "change a value of the sampler, or n, the longest answer; "
     "alone: show all",
     set},
    {"/stats", "", "speed, context, memory", stats},
    {"/bye", "", "leave (Ctrl-D too)", leave},
    {"/exit", "", NULL, leave},
    {"/quit", "", NULL, leave},
};

enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void help_line(const struct chat *c, const char *what, const char *text)
{
    enum { INDENT = 18 };
    FILE *f = chat_side(c);
    struct wrap w = {
        .out = f, .width = cli_columns(f), .indent = INDENT, .column = INDENT};
    fprintf(f, "%-*s", INDENT, what);
    wrap_put(&w, text, strlen(text));
    wrap_end(&w);
    putc('\n', f);
}

static int help(struct chat *c, char *arg, struct runt_err *err)
{
    (void)arg;
    (void)err;
    for (size_t i = 0; i < N_COMMANDS; i++) {
        char what[32];
        snprintf(what, sizeof what, "%s%s", commands[i].name, commands[i].arg);
        if (commands[i].help)
            help_line(c, what, commands[i].help);
    }
    help_line(c, "\"\"\"", "begins a text of several lines, and ends it");
    help_line(c, "Ctrl-C", "stops an answer; at the prompt it leaves");
    return 0;
}

int chat_command(struct chat *c, const char *line, struct runt_err *err)
{
    size_t n = strcspn(line, " \t");
    char *arg = mem_strdup(line + n + strspn(line + n, " \t"));
    if (!arg)
        return err_nomem(err, "a line");
    for (size_t end = strlen(arg); end && strchr(" \t", arg[end - 1]);)
        arg[--end] = 0;
    const struct command *k = commands;
    while (k < commands + N_COMMANDS &&
           (strlen(k->name) != n || memcmp(k->name, line, n)))
        k++;
    int rc = 0;
    if (k == commands + N_COMMANDS)
        chat_note(c, "no such command; /help lists them");
    else
        rc = k->run(c, arg, err);
    mem_free(arg);
    return rc;
}

const char *chat_words(void *ctx, const char *before, size_t i)
{
    struct chat *c = ctx;
    if (!*before)
        return i < N_COMMANDS ? commands[i].name : NULL;
    struct cli_option settings[] = SETTINGS(c);
    size_t n = sizeof settings / sizeof *settings - 1;
    return !strcmp(before, "/set ") && i < n ? setting_name(&settings[i]) : NULL;
}
