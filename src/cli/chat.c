/* Owns the conversation: its turns, what is dropped when the context is full, and the
 * /commands. */
#include "cli/chat.h"

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "talk/conversation.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct chat {
    struct chat_options o;
    runt_model *model;
    const runt_template *template;
    struct timeline timeline;
    struct line_input *input;
    struct conversation said;
    size_t n_forgotten; /* messages behind the system's that no longer fit */
    bool said_full, left;
    size_t total_tokens;
    double total_seconds;
};

int chat_check(const struct cli_verb *v, struct chat_options *o)
{
    int rc = cli_kv_parse(v, o->kv_name, &o->kv);
    if (rc)
        return rc;
    if (!strcmp(o->template_name, "auto") || runt_template_find(o->template_name))
        return 0;
    char names[256];
    size_t n = 0;
    for (size_t i = 0; runt_template_at(i); i++)
        n += (size_t)snprintf(names + n, sizeof names - n, ", %s",
                              runt_template_name(runt_template_at(i)));
    return cli_misuse(v, "unknown template '%s'; there are auto%s", o->template_name,
                      names);
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

/* ---- what fits ---- */

static void forget_all(struct chat *c)
{
    conversation_cut(&c->said, 0);
    c->n_forgotten = 0;
}

/* Tokens of what the system says and of the messages behind the first n_forgotten. */
static int tokens_without(struct chat *c, size_t n_forgotten, int32_t **ids, size_t *n,
                          struct runt_err *err)
{
    const struct conversation *s = &c->said;
    size_t n_system = conversation_n_system(s), n_kept = s->n - n_forgotten;
    struct runt_message *kept = mem_array(n_kept, sizeof *kept);
    if (!kept)
        return err_nomem(err, "a conversation");
    for (size_t i = 0; i < n_kept; i++)
        kept[i] = s->messages[i < n_system ? i : i + n_forgotten];
    int rc =
        runt_template_apply(c->template, c->model, kept, n_kept, true, ids, n, err);
    mem_free(kept);
    return rc;
}

/* The tokens to answer, with room left for the answer: the oldest turns are forgotten
 * first, as few as need be, and a last question that alone is too long loses its
 * beginning. */
static int context_tokens(struct chat *c, int32_t **ids, size_t *n,
                          struct runt_err *err)
{
    size_t n_ctx = runt_session_n_ctx(c->timeline.session), room = n_ctx / 4;
    if (c->o.n_max && (size_t)c->o.n_max < room)
        room = (size_t)c->o.n_max;
    size_t most = n_ctx - room > 0 ? n_ctx - room : 1;
    size_t n_system = conversation_n_system(&c->said);
    const struct runt_message *turns = c->said.messages + n_system;
    size_t low = c->n_forgotten, high = c->said.n - n_system - 1;
    int rc = tokens_without(c, low, ids, n, err);
    if (rc || *n <= most)
        return rc;
    while (low + 1 < high && !rc) { /* low is too few, high as many as may be */
        size_t middle = (low + high) / 2;
        runt_free(*ids);
        *ids = NULL;
        rc = tokens_without(c, middle, ids, n, err);
        *(*n > most ? &low : &high) = middle;
    }
    while (high + 1 < c->said.n - n_system && !strcmp(turns[high].role, "assistant"))
        high++; /* an answer without its question */
    runt_free(*ids);
    *ids = NULL;
    c->n_forgotten = high;
    if (!rc)
        rc = tokens_without(c, high, ids, n, err);
    if (!rc && *n > most) {
        memmove(*ids, *ids + (*n - most), most * sizeof **ids);
        *n = most;
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

/* An answer on its way: it starts its line without a blank. */
struct shown {
    struct answer_text text;
    bool began;
};

static int show(void *ctx, const char *text, size_t n)
{
    struct shown *s = ctx;
    size_t skip = !s->began && n && text[0] == ' ';
    s->began |= n > 0;
    sb_put(&s->text.text, text, skip);
    return answer_text_put(&s->text, text + skip, n - skip);
}

/* What was said is kept, whatever ended it. */
static int draw(struct chat *c, struct runt_generated *g, struct runt_err *err)
{
    struct shown s = {.text.out = stdout};
    struct runt_generate_options o = {.n_max = (size_t)c->o.n_max,
                                      .skip_space =
                                          runt_template_skips_space(c->template)};
    o.stops = runt_template_stops(c->template, &o.n_stops);
    int rc = timeline_answer(&c->timeline, &o, show, &s, g, err);
    putchar('\n');
    fflush(stdout);
    if (!rc && ferror(stdout))
        rc = err_set(err, RUNT_E_IO, "cannot write the answer: nobody reads it");
    if (!rc && s.text.text.failed)
        rc = err_nomem(err, "the answer");
    if (!rc)
        rc = conversation_add(&c->said, "assistant",
                              s.text.text.data ? s.text.text.data : "", s.text.text.len,
                              err);
    sb_free(&s.text.text);
    return rc;
}

/* After Ctrl-C: told, and the conversation goes on, unless all is to end. */
static int stopped(struct chat *c, struct runt_err *err)
{
    if (cli_terminated())
        return err_set(err, RUNT_E_INTERRUPTED, "%s", "");
    cli_clear_interrupt();
    note(c, "stopped");
    return 0;
}

/* Answer the last message. */
static int answer(struct chat *c, struct runt_err *err)
{
    int32_t *ids = NULL;
    size_t n = 0;
    struct runt_generated g = {0};
    int rc = context_tokens(c, &ids, &n, err);
    if (!rc && !n)
        goto out; /* nothing to continue from */
    if (!rc)
        rc = timeline_set(&c->timeline, ids, n, err);
    if (rc == RUNT_E_INTERRUPTED) { /* while reading, not yet talking */
        rc = stopped(c, err);
        goto out;
    }
    if (rc)
        goto out;
    say_once_when_full(c);
    rc = draw(c, &g, err);
    if (rc)
        goto out;
    c->total_tokens += g.n_tokens;
    c->total_seconds += g.seconds;
    if (g.end == RUNT_END_CALLER)
        rc = stopped(c, err);
    say_once_when_full(c);
out:
    runt_free(ids);
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

static int regenerate(struct chat *c, struct runt_err *err)
{
    size_t n = c->said.n;
    if (n && !strcmp(c->said.messages[n - 1].role, "assistant"))
        conversation_cut(&c->said, --n);
    if (n == conversation_n_system(&c->said)) {
        note(c, "nothing was said yet");
        return 0;
    }
    return answer(c, err);
}

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
        return regenerate(c, err);
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
    if (c->template == runt_template_find("none") && strcmp(c->o.template_name, "none"))
        note(c, info.chat_template
                    ? "the model's chat template is none that runt knows: it continues "
                      "your text; --template names another"
                    : "a base model without a chat template: it continues your text");
}

static void choose_template(struct chat *c)
{
    c->template = strcmp(c->o.template_name, "auto")
                      ? runt_template_find(c->o.template_name)
                      : runt_template_of(c->model);
    if (!c->template)
        c->template = runt_template_find("none");
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
            rc = conversation_add(&c->said, "user", line, n, err);
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
    int rc = runt_model_load(path, &c.model, err);
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
    conversation_free(&c.said);
    line_input_close(c.input);
    timeline_close(&c.timeline);
    runt_model_free(c.model);
    return rc;
}
