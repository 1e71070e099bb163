/* Owns the chat templates: a small set by name, and what a file's template means.
 *
 * A model without one is never given one silently: "none" feeds a person's words as
 * they are.  A file's template is a Jinja program; runt does not run it, but knows the
 * common ones by the marks that they hold.
 *
 * A conversation is cut into pieces that are made tokens of one by one, the same pieces
 * whatever follows: so its tokens are a prefix of those of the conversation continued.
 */
#include "talk/talk.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"

#include <ctype.h>
#include <string.h>

enum role { SYSTEM, USER, ASSISTANT, N_ROLES };

struct turn {
    const char *before, *after; /* a message */
    bool eos;                   /* the end-of-text token, before `after` */
};

enum { MAX_STOPS = 2, MAX_MARKS = 3 };

struct runt_template {
    const char *name;
    struct turn turns[N_ROLES];
    const char *lead;   /* between the assistant's `before` and its words, or NULL */
    bool special;       /* before and after hold control tokens by name */
    bool trims;         /* white space around a message is none of it */
    bool continues;     /* nothing between a person's words and the answer */
    const char *starts; /* what begins a turn, by \n; no line of a message may */
    const char *stops[MAX_STOPS];
    const char *marks[MAX_MARKS]; /* what all stand in a Jinja program of this kind */
    const char *lacks[MAX_MARKS]; /* and what does not */
    const char *jinja;
};

static const struct runt_template templates[] = {
    {
        .name = "none",
        .turns = {{"", "\n", false}, {"", "\n", false}, {"", "\n", false}},
        .continues = true,
    },
    {
        .name = "turns",
        .turns = {{"", "\n", false},
                  {TALK_USER " ", "\n", false},
                  {TALK_BOT, "\n", false}},
        .lead = " ",
        .trims = true,
        .starts = TALK_USER "\n" TALK_BOT,
        .stops = {"\n" TALK_USER},
        .marks = {TALK_USER, TALK_BOT},
        .jinja = "{% for message in messages %}"
                 "{% if message['role'] == 'user' %}"
                 "{{ '" TALK_USER " ' + message['content'] | trim + '\n' }}"
                 "{% elif message['role'] == 'assistant' %}"
                 "{{ '" TALK_BOT " ' + message['content'] | trim + '\n' }}"
                 "{% else %}"
                 "{{ message['content'] | trim + '\n' }}"
                 "{% endif %}"
                 "{% endfor %}"
                 "{% if add_generation_prompt %}{{ '" TALK_BOT "' }}{% endif %}",
    },
    {
        .name = "chatml",
        .turns = {{"<|im_start|>system\n", "<|im_end|>\n", false},
                  {"<|im_start|>user\n", "<|im_end|>\n", false},
                  {"<|im_start|>assistant\n", "<|im_end|>\n", false}},
        .special = true,
        .stops = {"<|im_end|>"},
        .marks = {"<|im_start|>", "<|im_end|>"},
    },
    {
        .name = "alpaca",
        .turns = {{"", "\n\n", false},
                  {"### Instruction:\n", "\n\n", false},
                  {"### Response:\n", "\n\n", false}},
        .trims = true,
        .starts = "### Instruction:\n### Response:",
        .stops = {"\n\n### Instruction:", "\n### Instruction:"},
        .marks = {"### Instruction:", "### Response:"},
    },
    {
        .name = "human",
        .turns = {{"", "\n\n", false},
                  {"Human: ", "\n\n", false},
                  {"Assistant:", "\n\n", false}},
        .lead = " ",
        .trims = true,
        .starts = "Human:\nAssistant:",
        .stops = {"\n\nHuman:", "\nHuman:"},
        .marks = {"Human:", "Assistant:"},
    },
    {
        .name = "zephyr",
        .turns = {{"<|system|>\n", "\n", true},
                  {"<|user|>\n", "\n", true},
                  {"<|assistant|>\n", "\n", true}},
        .special = true,
        .stops = {"\n<|user|>", "<|user|>"},
        .marks = {"<|user|>", "<|assistant|>", "eos_token"},
        .lacks = {"<|end|>"}, /* Phi-3 */
    },
    {
        .name = "dialogpt",
        .turns = {{"", "", true}, {"", "", true}, {"", "", true}},
        .special = true,
        .marks = {"content", "eos_token"},
        .lacks = {"role", "<|"},
    },
};

enum { N_TEMPLATES = sizeof templates / sizeof *templates };

const runt_template *runt_template_at(size_t i)
{
    return i < N_TEMPLATES ? &templates[i] : NULL;
}

const runt_template *runt_template_find(const char *name)
{
    for (size_t i = 0; i < N_TEMPLATES; i++)
        if (!strcmp(templates[i].name, name))
            return &templates[i];
    return NULL;
}

const runt_template *talk_template_detect(const char *jinja)
{
    for (size_t i = 0; i < N_TEMPLATES; i++) {
        const struct runt_template *t = &templates[i];
        bool fits = t->marks[0];
        for (size_t k = 0; k < MAX_MARKS && t->marks[k]; k++)
            fits &= strstr(jinja, t->marks[k]) != NULL;
        for (size_t k = 0; k < MAX_MARKS && t->lacks[k]; k++)
            fits &= !strstr(jinja, t->lacks[k]);
        if (fits)
            return t;
    }
    return NULL;
}

const runt_template *runt_template_of(const runt_model *m)
{
    struct runt_model_info info;
    runt_model_info(m, &info);
    return info.chat_template ? talk_template_detect(info.chat_template) : NULL;
}

const char *runt_template_name(const runt_template *t)
{
    return t->name;
}

const char *talk_template_jinja(const runt_template *t)
{
    return t->jinja;
}

const char *const *runt_template_stops(const runt_template *t, size_t *n)
{
    *n = 0;
    while (*n < MAX_STOPS && t->stops[*n])
        ++*n;
    return t->stops;
}

bool runt_template_skips_space(const runt_template *t)
{
    return t->lead && !strcmp(t->lead, " ");
}

/* ---- tokens of a conversation ---- */

/* Tokens so far, and what is not yet made tokens of. */
struct writer {
    const struct runt_template *t;
    const runt_model *m;
    int32_t eos; /* -1: the model has none */
    struct strbuf text;
    int32_t *ids;
    size_t n, cap;
    struct runt_err *err;
};

static int put_ids(struct writer *w, const int32_t *ids, size_t n)
{
    if (w->cap - w->n < n) {
        size_t cap = w->cap * 2 > w->n + n ? w->cap * 2 : w->n + n;
        int32_t *p = mem_resize(w->ids, cap, sizeof *p);
        if (!p)
            return err_nomem(w->err, "a conversation");
        w->ids = p;
        w->cap = cap;
    }
    if (n)
        memcpy(w->ids + w->n, ids, n * sizeof *ids);
    w->n += n;
    return 0;
}

static int put_text(struct writer *w, const char *text, size_t n, bool special)
{
    int32_t *ids = NULL;
    size_t n_ids = 0;
    int rc = n ? runt_tokenize(w->m, text, n, special, &ids, &n_ids, w->err) : 0;
    if (!rc)
        rc = put_ids(w, ids, n_ids);
    runt_free(ids);
    return rc;
}

/* Does one of the \n-separated starts begin the line? */
static bool begins_turn(const char *starts, const char *line, size_t n)
{
    for (size_t len; *starts; starts += len + (starts[len] == '\n')) {
        len = strcspn(starts, "\n");
        if (n >= len && !memcmp(line, starts, len))
            return true;
    }
    return false;
}

/* The words of a message, as one of its lines may have them. */
static void put_words(struct writer *w, const char *s, size_t n, bool at_line_start)
{
    const struct runt_template *t = w->t;
    for (; t->trims && n && isspace((unsigned char)*s); n--)
        s++;
    while (t->trims && n && isspace((unsigned char)s[n - 1]))
        n--;
    for (size_t i = 0, next; i < n; i = next) {
        const char *stop = memchr(s + i, '\n', n - i);
        next = stop ? (size_t)(stop - s) + 1 : n;
        if (t->starts && (i || at_line_start) && begins_turn(t->starts, s + i, n - i))
            sb_char(&w->text, ' ');
        sb_put(&w->text, s + i, next - i);
    }
}

static int put_message(struct writer *w, enum role role, const struct runt_message *msg)
{
    const struct runt_template *t = w->t;
    const char *before = t->turns[role].before;
    size_t n_before = strlen(before);
    bool answer = role == ASSISTANT; /* its words begin where answers are drawn */
    int rc = 0;
    if (t->special || answer) {
        rc = put_text(w, before, n_before, t->special);
        before = answer && t->lead ? t->lead : "";
    }
    w->text.len = 0;
    sb_str(&w->text, before);
    put_words(w, msg->content, msg->n_content,
              !n_before || t->turns[role].before[n_before - 1] == '\n');
    if (w->text.failed)
        return err_nomem(w->err, "a conversation");
    return rc ? rc : put_text(w, w->text.data, w->text.len, false);
}

/* In plain text each byte by itself: these are line breaks, and GPT-2's way of cutting
 * text keeps the last one before a word apart. */
static int put_after(struct writer *w, enum role role)
{
    const struct turn *turn = &w->t->turns[role];
    size_t n = strlen(turn->after), step = w->t->special ? n : 1;
    int rc = turn->eos && w->eos >= 0 ? put_ids(w, &w->eos, 1) : 0;
    for (size_t i = 0; i < n && !rc; i += step)
        rc = put_text(w, turn->after + i, step, w->t->special);
    return rc;
}

static int find_role(const char *name, enum role *role)
{
    static const char *const names[N_ROLES] = {"system", "user", "assistant"};
    for (int i = 0; i < N_ROLES; i++) {
        if (!strcmp(names[i], name)) {
            *role = (enum role)i;
            return 0;
        }
    }
    return RUNT_E_INVALID;
}

static int put_conversation(struct writer *w, const struct runt_message *messages,
                            size_t n, bool answer)
{
    enum role role, last = SYSTEM;
    int rc = 0;
    bool open = false; /* what follows decides whether the last message is closed */
    for (size_t i = 0; i < n && !rc; i++, last = role) {
        if (find_role(messages[i].role, &role))
            return err_set(w->err, RUNT_E_INVALID,
                           "message %zu is of role '%.20s'; there are system, user and "
                           "assistant",
                           i + 1, messages[i].role);
        if (open && role != ASSISTANT)
            rc = put_after(w, last);
        if (!rc)
            rc = put_message(w, role, &messages[i]);
        open = w->t->continues && role == USER;
        if (!rc && !open)
            rc = put_after(w, role);
    }
    if (!rc && answer) {
        const char *before = w->t->turns[ASSISTANT].before;
        rc = put_text(w, before, strlen(before), w->t->special);
    }
    return rc;
}

int runt_template_apply(const runt_template *t, const runt_model *m,
                        const struct runt_message *messages, size_t n, bool answer,
                        int32_t **ids, size_t *n_ids, struct runt_err *err)
{
    struct runt_model_info info;
    runt_model_info(m, &info);
    struct writer w = {.t = t, .m = m, .eos = info.eos, .err = err};
    int rc = put_conversation(&w, messages, n, answer);
    sb_free(&w.text);
    if (rc) {
        mem_free(w.ids);
        return rc;
    }
    *ids = w.ids;
    *n_ids = w.n;
    return 0;
}
