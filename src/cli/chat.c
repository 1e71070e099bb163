/* Owns the conversation: its turns, what is dropped when the context is full, and the
 * /commands. */
#include "cli/chat.h"

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/chat_template.h"
#include "cli/convert.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct turn {
    char *words; /* what the person said */
    size_t n_words;
    struct token_list question, answer; /* the answer with the template's end */
};

struct chat {
    struct chat_options o;
    runt_model *model;
    const struct chat_template *template;
    struct timeline timeline;
    struct line_input *input;
    struct turn *turns;
    size_t n_turns, n_forgotten; /* oldest turns that no longer fit */
    bool said_full, left;
    struct answer last;
    size_t total_tokens;
    double total_seconds;
};

int chat_check(const struct cli_verb *v, struct chat_options *o)
{
    int rc = cli_kv_parse(v, o->kv_name, &o->kv);
    if (rc)
        return rc;
    if (!strcmp(o->template_name, "auto") || chat_template_find(o->template_name))
        return 0;
    return cli_misuse(v, "unknown template '%s'; there are auto, none, turns, chatml",
                      o->template_name);
}

struct chat_options chat_defaults(void)
{
    return (struct chat_options){.sampler = cli_sampler_defaults(),
                                 .template_name = "auto",
                                 .kv_name = "auto",
                                 .n_max = 256};
}

/* A line to the person that is no answer: dim on a terminal, on stderr in a pipe. */
static void note(const struct chat *c, const char *text)
{
    bool terminal = line_input_is_terminal(c->input),
         dim = terminal && cli_color(stdout);
    char plain[512];
    fprintf(terminal ? stdout : stderr, "%s(%s)%s\n", dim ? "\033[2m" : "",
            cli_plain(text, plain, sizeof plain), dim ? "\033[0m" : "");
}

/* ---- turns ---- */

static void turn_free(struct turn *t)
{
    mem_free(t->words);
    mem_free(t->question.ids);
    mem_free(t->answer.ids);
    *t = (struct turn){0};
}

static void forget_all(struct chat *c)
{
    for (size_t i = 0; i < c->n_turns; i++)
        turn_free(&c->turns[i]);
    c->n_turns = c->n_forgotten = 0;
}

static int add_turn(struct chat *c, const char *words, size_t n, struct runt_err *err)
{
    struct turn *p = mem_resize(c->turns, c->n_turns + 1, sizeof *p);
    if (!p)
        return err_nomem(err, "a turn");
    c->turns = p;
    struct turn t = {.words = mem_strndup(words, n), .n_words = n};
    int rc = t.words
                 ? chat_template_turn(c->template, c->model, words, n, &t.question, err)
                 : err_nomem(err, "a turn");
    if (rc)
        turn_free(&t);
    else
        c->turns[c->n_turns++] = t;
    return rc;
}

static size_t turn_len(const struct turn *t)
{
    return t->question.n + t->answer.n;
}

/* The tokens of all turns that still fit with room for an answer; the oldest are
 * forgotten first, and a last question that alone is too long loses its beginning. */
static int context_tokens(struct chat *c, struct token_list *out, struct runt_err *err)
{
    size_t n_ctx = runt_session_n_ctx(c->timeline.session), room = n_ctx / 4, n = 0;
    int rc = 0;
    if (c->o.n_max && (size_t)c->o.n_max < room)
        room = (size_t)c->o.n_max;
    for (size_t i = c->n_forgotten; i < c->n_turns; i++)
        n += turn_len(&c->turns[i]);
    for (; n + room > n_ctx && c->n_forgotten + 1 < c->n_turns; c->n_forgotten++)
        n -= turn_len(&c->turns[c->n_forgotten]);
    for (size_t i = c->n_forgotten; i < c->n_turns && !rc; i++) {
        const struct turn *t = &c->turns[i];
        rc = token_list_put(out, t->question.ids, t->question.n, err);
        if (!rc && t->answer.n)
            rc = token_list_put(out, t->answer.ids, t->answer.n, err);
    }
    size_t most = n_ctx - room > 0 ? n_ctx - room : 1;
    if (!rc && out->n > most) {
        memmove(out->ids, out->ids + (out->n - most), most * sizeof *out->ids);
        out->n = most;
        c->timeline.n_dropped++;
    }
    return rc;
}

static void say_once_when_full(struct chat *c)
{
    if (c->said_full || (!c->n_forgotten && !c->timeline.n_dropped))
        return;
    c->said_full = true;
    note(c, "the context is full: from now on the oldest turns are forgotten");
}

static void print_stats(const struct chat *c)
{
    char line[256], size[32];
    struct runt_model_info info;
    runt_model_info(c->model, &info);
    snprintf(line, sizeof line,
             "%zu tokens at %.1f tokens/s; context %u of %u; model %s", c->total_tokens,
             c->total_seconds > 0 ? (double)c->total_tokens / c->total_seconds : 0.0,
             runt_session_pos(c->timeline.session),
             runt_session_n_ctx(c->timeline.session), cli_bytes(info.file_bytes, size));
    note(c, line);
    snprintf(line, sizeof line, "peak memory %s", cli_bytes(cli_peak_rss(), size));
    note(c, line);
}

/* Answer the last turn. */
static int answer(struct chat *c, struct runt_err *err)
{
    struct turn *t = &c->turns[c->n_turns - 1];
    const char *stops[1] = {c->template->stop};
    struct stream s = {
        .out = stdout, .stops = stops, .n_stops = stops[0] ? 1 : 0, .skip_space = true};
    struct token_list tokens = {0};
    int rc = context_tokens(c, &tokens, err);
    if (!rc && !tokens.n)
        goto out; /* an empty line before anything was said */
    if (!rc)
        rc = timeline_set(&c->timeline, tokens.ids, tokens.n, err);
    if (rc == RUNT_E_INTERRUPTED &&
        !cli_terminated()) { /* while reading, not yet talking */
        rc = 0;
        cli_clear_interrupt();
        note(c, "stopped");
        goto out;
    }
    if (rc)
        goto out;
    say_once_when_full(c);
    struct answer a;
    rc = timeline_answer(&c->timeline, (size_t)c->o.n_max, false, &s, &t->answer, &a,
                         err);
    putchar('\n');
    fflush(stdout);
    if (rc)
        goto out;
    c->last = a;
    c->total_tokens += a.n_tokens;
    c->total_seconds += a.seconds;
    if (a.end == ANSWER_INTERRUPTED) {
        if (cli_terminated()) {
            rc = err_set(err, RUNT_E_INTERRUPTED, "%s", "");
            goto out;
        }
        cli_clear_interrupt();
        note(c, "stopped");
    }
    say_once_when_full(c);
    rc = chat_template_end(c->template, c->model, &t->answer, err);
out:
    stream_free(&s);
    mem_free(tokens.ids);
    return rc;
}

/* ---- commands ---- */

static int new_sampler(struct chat *c, struct runt_err *err)
{
    struct runt_sampler_options so = cli_sampler_options(&c->o.sampler);
    struct runt_model_info info;
    runt_sampler *s = NULL;
    runt_model_info(c->model, &info);
    int rc = runt_sampler_new(&so, info.n_vocab, &s, err);
    if (rc)
        return rc;
    runt_sampler_free(c->timeline.sampler);
    c->timeline.sampler = s;
    return 0;
}

/* What /set knows: every value of the sampler by the name of its flag. */
struct setting {
    const char *name;
    double *real;
    int64_t *whole;
    double min, max;
};

enum { N_SETTINGS = 8 };

static void list_settings(struct chat *c, struct setting s[N_SETTINGS])
{
    struct cli_sampler *o = &c->o.sampler;
    s[0] = (struct setting){"temp", &o->temp, NULL, 0, 100};
    s[1] = (struct setting){"top-k", NULL, &o->top_k, 0, INT32_MAX};
    s[2] = (struct setting){"top-p", &o->top_p, NULL, 0, 1};
    s[3] = (struct setting){"min-p", &o->min_p, NULL, 0, 1};
    s[4] = (struct setting){"repeat-penalty", &o->repeat_penalty, NULL, 0.01, 100};
    s[5] = (struct setting){"repeat-last-n", NULL, &o->repeat_last, 0, 4096};
    s[6] = (struct setting){"seed", NULL, &o->seed, -1, 9e15};
    s[7] = (struct setting){"n", NULL, &c->o.n_max, 0, 9e15};
}

static double setting_value(const struct setting *s)
{
    return s->real ? *s->real : (double)*s->whole;
}

static int set(struct chat *c, const char *name, const char *value,
               struct runt_err *err)
{
    struct setting settings[N_SETTINGS], *s = settings;
    char line[160], *end = NULL;
    list_settings(c, settings);
    for (size_t i = 0; i < N_SETTINGS && !*name; i++) {
        snprintf(line, sizeof line, "%s %.16g", s[i].name, setting_value(&s[i]));
        note(c, line);
    }
    if (!*name)
        return 0;
    while (s < settings + N_SETTINGS && strcmp(s->name, name))
        s++;
    double x = strtod(value, &end);
    if (s == settings + N_SETTINGS) {
        note(c, "no such value; /set alone lists them");
    } else if (end == value || *end || !(x >= s->min && x <= s->max) ||
               (s->whole && x != floor(x))) {
        snprintf(line, sizeof line, "%s takes a %snumber from %.16g to %.16g", s->name,
                 s->whole ? "whole " : "", s->min, s->max);
        note(c, line);
    } else {
        if (s->real)
            *s->real = x;
        else
            *s->whole = (int64_t)x;
        snprintf(line, sizeof line, "%s is now %.16g", s->name, x);
        note(c, line);
        return new_sampler(c, err);
    }
    return 0;
}

static const char help[] =
    "/help            this list\n"
    "/clear           forget the conversation\n"
    "/regen           answer the last words again\n"
    "/stats           speed, context, memory\n"
    "/set NAME VALUE  a sampler value (temp, top-k, top-p, min-p, repeat-penalty,\n"
    "                 repeat-last-n, seed) or n, the longest answer; alone: show all\n"
    "/bye             leave (Ctrl-D too)\n"
    "Ctrl-C stops an answer; at the prompt it leaves.\n";

static int command(struct chat *c, const char *line, struct runt_err *err)
{
    char word[32] = "", name[32] = "", value[64] = "";
    sscanf(line, "%31s %31s %63s", word, name, value);
    if (!strcmp(word, "/bye") || !strcmp(word, "/exit") || !strcmp(word, "/quit")) {
        c->left = true;
    } else if (!strcmp(word, "/help")) {
        fputs(help, line_input_is_terminal(c->input) ? stdout : stderr);
    } else if (!strcmp(word, "/clear")) {
        forget_all(c);
        c->timeline.n_dropped = 0;
        c->said_full = false;
        note(c, "forgotten");
        return new_sampler(c, err); /* it remembers the words for its penalty */
    } else if (!strcmp(word, "/stats")) {
        print_stats(c);
    } else if (!strcmp(word, "/set")) {
        return set(c, name, value, err);
    } else if (!strcmp(word, "/regen")) {
        if (!c->n_turns) {
            note(c, "nothing was said yet");
            return 0;
        }
        c->turns[c->n_turns - 1].answer.n = 0;
        return answer(c, err);
    } else {
        note(c, "no such command; /help lists them");
    }
    return 0;
}

/* ---- the loop ---- */

static void greet(struct chat *c)
{
    char text[320], size[32];
    struct runt_model_info info;
    runt_model_info(c->model, &info);
    if (line_input_is_terminal(c->input)) {
        snprintf(text, sizeof text, "%.100s, %s, context %u; /help lists the commands",
                 info.name, cli_bytes(info.file_bytes, size),
                 runt_session_n_ctx(c->timeline.session));
        note(c, text);
    }
    if (!strcmp(c->template->name, "none") && strcmp(c->o.template_name, "none"))
        note(c, info.chat_template
                    ? "the model's chat template is none that runt knows: it continues "
                      "your text; --template names another"
                    : "a base model without a chat template: it continues your text");
}

static void choose_template(struct chat *c)
{
    struct runt_model_info info;
    runt_model_info(c->model, &info);
    if (strcmp(c->o.template_name, "auto")) {
        c->template = chat_template_find(c->o.template_name);
        return;
    }
    if (info.chat_template)
        c->template = chat_template_detect(info.chat_template);
    if (!c->template)
        c->template = chat_template_find("none");
}

static int talk(struct chat *c, struct runt_err *err)
{
    greet(c);
    int rc = 0;
    while (!rc && !c->left) {
        const char *line;
        size_t n;
        enum line_result r = line_input_read(c->input, &line, &n);
        if (r == LINE_INTERRUPTED) /* leaving is no failure: nothing to say */
            return err_set(err, RUNT_E_INTERRUPTED, "%s", "");
        if (r == LINE_END)
            break;
        if (n && line[0] == '/') {
            char *text = mem_strndup(line, n);
            rc = text ? command(c, text, err) : err_nomem(err, "a line");
            mem_free(text);
        } else if (n) {
            rc = add_turn(c, line, n, err);
            if (!rc)
                rc = answer(c, err);
        }
    }
    return rc;
}

int chat_run(const char *path, const struct chat_options *o, struct runt_err *err)
{
    struct chat c = {.o = *o};
    struct runt_session_options so = runt_session_defaults();
    struct runt_sampler_options sa = cli_sampler_options(&o->sampler);
    so.n_ctx = (uint32_t)o->n_ctx;
    so.n_threads = (uint32_t)o->n_threads;
    so.kv = o->kv;
    int rc = cli_model_load(path, &o->adapters, stderr, &c.model, err);
    if (!rc)
        choose_template(&c);
    if (!rc)
        rc = timeline_open(&c.timeline, c.model, &so, &sa, err);
    if (!rc && o->cache && file_exists(o->cache))
        rc = runt_session_restore(c.timeline.session, 0, o->cache, err);
    if (!rc)
        rc = line_input_open(&c.input, err);
    if (!rc) {
        rc = talk(&c, err);
        if (!rc && o->cache && runt_session_pos(c.timeline.session))
            rc = runt_session_save(c.timeline.session, 0, o->cache, err);
        if (rc == RUNT_E_FORMAT)
            err_prefix(err, "%s", path);
    }
    forget_all(&c);
    mem_free(c.turns);
    line_input_close(c.input);
    timeline_close(&c.timeline);
    runt_model_free(c.model);
    return rc;
}
