/* Owns the conversation: reading, answering, and what is forgotten when the context is
 * full. */
#include "cli/chat_impl.h"

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"

#include <langinfo.h>
#include <locale.h>
#include <stdarg.h>
#include <string.h>

static const char quotes[] = "\"\"\"";
enum { N_QUOTES = sizeof quotes - 1 };

int chat_check(const struct cli_verb *v, struct chat_options *o)
{
    int rc = cli_kv_parse(v, o->kv_name, &o->kv);
    if (!rc)
        rc = cli_lookahead_parse(v, o->lookahead_name, &o->lookahead);
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
                                 .lookahead_name = "auto",
                                 .n_max = 256};
}

/* ---- what is no answer ---- */

FILE *chat_side(const struct chat *c)
{
    return line_input_is_terminal(c->input) ? stdout : stderr;
}

/* In parentheses, dim where there are colours. */
void chat_note(const struct chat *c, const char *fmt, ...)
{
    FILE *f = chat_side(c);
    struct wrap w = {.out = f, .width = cli_columns(f)};
    bool dim = cli_color(f);
    va_list ap;
    va_start(ap, fmt);
    char text[1024], plain[1024];
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    cli_plain(text, plain, sizeof plain);
    fputs(dim ? "\033[2m" : "", f);
    wrap_put(&w, "(", 1);
    wrap_put(&w, plain, strlen(plain));
    wrap_put(&w, ")", 1);
    wrap_end(&w);
    fprintf(f, "%s\n", dim ? "\033[0m" : "");
}

static void tell_complaint(const struct chat *c)
{
    char why[512];
    if (line_input_complaint(c->input, why, sizeof why))
        chat_note(c, "what you type is not kept for later sessions: %s", why);
}

static void say_once_when_full(struct chat *c)
{
    if (c->said_full || (!c->n_forgotten && !c->timeline.n_dropped))
        return;
    c->said_full = true;
    chat_note(c, "the context is full: from now on the oldest turns are forgotten");
}

/* ---- what fits ---- */

void chat_changed(struct chat *c)
{
    c->n_forgotten = 0;
    c->timeline.n_dropped = 0;
    c->said_full = false;
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
    if (c->o->n_max && (size_t)c->o->n_max < room)
        room = (size_t)c->o->n_max;
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

/* ---- answering ---- */

/* An answer on its way: it starts its line without a blank. */
struct shown {
    struct wrap wrap;
    struct strbuf text;
    bool began;
};

static int show(void *ctx, const char *text, size_t n)
{
    struct shown *s = ctx;
    size_t skip = !s->began && n && text[0] == ' ';
    s->began |= n > 0;
    s->wrap.width = cli_columns(stdout); /* it may change at any time */
    sb_put(&s->text, text, n);
    wrap_put(&s->wrap, text + skip, n - skip);
    if (n)
        fflush(stdout);
    return cli_interrupted() || ferror(stdout);
}

/* What was said is kept, whatever ended it. */
static int draw(struct chat *c, struct runt_generated *g, struct runt_err *err)
{
    struct shown s = {.wrap.out = stdout};
    struct runt_generate_options o = {.n_max = (size_t)c->o->n_max,
                                      .skip_space =
                                          runt_template_skips_space(c->template)};
    o.stops = runt_template_stops(c->template, &o.n_stops);
    int rc = timeline_answer(&c->timeline, &o, show, &s, g, err);
    wrap_end(&s.wrap);
    putchar('\n');
    fflush(stdout);
    if (!rc && ferror(stdout))
        rc = err_set(err, RUNT_E_IO, "cannot write the answer: nobody reads it");
    if (!rc && s.text.failed)
        rc = err_nomem(err, "the answer");
    if (!rc)
        rc = conversation_add(&c->said, "assistant", s.text.data ? s.text.data : "",
                              s.text.len, err);
    sb_free(&s.text);
    return rc;
}

/* After Ctrl-C: told, and the conversation goes on, unless all is to end. */
static int stopped(struct chat *c, struct runt_err *err)
{
    if (cli_terminated())
        return err_set(err, RUNT_E_INTERRUPTED, "%s", "");
    cli_clear_interrupt();
    line_input_flush(c->input);
    chat_note(c, "stopped");
    return 0;
}

int chat_answer(struct chat *c, struct runt_err *err)
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
    if (rc == RUNT_E_FORMAT)
        err_prefix(err, "%s", c->path);
    runt_free(ids);
    return rc;
}

int chat_new_sampler(struct chat *c, struct runt_err *err)
{
    return timeline_set_sampler(&c->timeline, c->model, &c->o->sampler, err);
}

/* ---- reading ---- */

/* One more line of a block; true when it is the last. */
static bool add_block_line(struct strbuf *out, const char *line, size_t n)
{
    bool last = n >= N_QUOTES && !memcmp(line + n - N_QUOTES, quotes, N_QUOTES);
    n -= last ? N_QUOTES : 0;
    if (n || !last) {
        if (out->len)
            sb_char(out, '\n');
        sb_put(out, line, n);
    }
    return last;
}

/* The end of what is read, in a block: a person leaves, a file has an end of its own.
 */
static bool block_ended(struct chat *c)
{
    c->left = line_input_is_terminal(c->input);
    if (!c->left)
        chat_note(c, "the text after %s is not closed: taken to its end", quotes);
    return !c->left;
}

int chat_read_block(struct chat *c, const char *first, struct strbuf *out, bool *done,
                    struct runt_err *err)
{
    *done = *first && add_block_line(out, first, strlen(first));
    while (!*done) {
        const char *line;
        size_t n;
        enum line_result r = line_input_read(c->input, true, &line, &n, err);
        if (r == LINE_FAILED)
            return err->code;
        if (r == LINE_END) {
            *done = block_ended(c);
            return 0;
        }
        if (r == LINE_INTERRUPTED) /* gives up the block, not the conversation */
            return stopped(c, err);
        if (out->len + n > LINE_MAX_BYTES)
            return err_set(err, RUNT_E_FORMAT,
                           "a text in %s longer than the limit of %d bytes", quotes,
                           LINE_MAX_BYTES);
        *done = add_block_line(out, line, n);
    }
    return out->failed ? err_nomem(err, "a text") : 0;
}

static int say(struct chat *c, const char *text, size_t n, struct runt_err *err)
{
    int rc = n ? conversation_add(&c->said, "user", text, n, err) : 0;
    return rc || !n ? rc : chat_answer(c, err);
}

static int say_block(struct chat *c, const char *first, struct runt_err *err)
{
    struct strbuf text = {0};
    bool done;
    int rc = chat_read_block(c, first, &text, &done, err);
    if (!rc && done)
        rc = say(c, text.data, text.len, err);
    sb_free(&text);
    return rc;
}

static int take_line(struct chat *c, const char *line, size_t n, struct runt_err *err)
{
    bool block = n >= N_QUOTES && !memcmp(line, quotes, N_QUOTES);
    if (!block && (!n || line[0] != '/'))
        return say(c, line, n, err);
    char *text = mem_strndup(line, n); /* reading goes on before it is done */
    int rc = !text   ? err_nomem(err, "a line")
             : block ? say_block(c, text + N_QUOTES, err)
                     : chat_command(c, text, err);
    mem_free(text);
    return rc;
}

/* ---- the loop ---- */

static void greet(struct chat *c)
{
    char size[32];
    struct runt_model_info info;
    runt_model_info(c->model, &info);
    if (line_input_is_terminal(c->input))
        chat_note(c, "%.100s, %s, context %u; /help lists the commands", info.name,
                  cli_bytes(info.file_bytes, size),
                  runt_session_n_ctx(c->timeline.session));
    tell_complaint(c);
    if (c->template == runt_template_find("none") &&
        strcmp(c->o->template_name, "none"))
        chat_note(c, "%s",
                  info.chat_template
                      ? "the model's chat template is none that runt knows: it "
                        "continues your text; --template names another"
                      : "a base model without a chat template: it continues your text");
}

static void choose_template(struct chat *c)
{
    c->template = strcmp(c->o->template_name, "auto")
                      ? runt_template_find(c->o->template_name)
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
        enum line_result r = line_input_read(c->input, false, &line, &n, err);
        if (r == LINE_INTERRUPTED) /* leaving is no failure: nothing to say */
            return err_set(err, RUNT_E_INTERRUPTED, "%s", "");
        if (r == LINE_FAILED)
            return err->code;
        if (r == LINE_END)
            break;
        rc = take_line(c, line, n, err);
        tell_complaint(c);
    }
    return rc;
}

/* The editor drops what its locale cannot say, and widths of characters come from it;
 * models speak UTF-8. */
static void use_utf8(void)
{
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8"))
        setlocale(LC_CTYPE, "C.UTF-8");
}

static int open_chat(struct chat *c, struct runt_err *err)
{
    struct runt_session_options so = runt_session_defaults();
    struct line_options lo = {.script = c->o->script,
                              .history = !c->o->no_history,
                              .words = chat_words,
                              .ctx = c};
    so.n_ctx = (uint32_t)c->o->n_ctx;
    so.n_threads = (uint32_t)c->o->n_threads;
    so.kv = c->o->kv;
    int rc = cli_model_load(c->path, &c->o->adapters, stderr, &c->model, err);
    if (!rc)
        choose_template(c);
    if (!rc)
        rc = timeline_open(&c->timeline, c->model, &so, &c->o->sampler, err);
    if (!rc)
        rc = timeline_look_ahead(&c->timeline, c->o->lookahead, err);
    if (!rc && c->o->cache && file_exists(c->o->cache))
        rc = runt_session_restore(c->timeline.session, 0, c->o->cache, err);
    if (!rc && c->o->system)
        rc = conversation_set_system(&c->said, c->o->system, strlen(c->o->system), err);
    use_utf8();
    return rc ? rc : line_input_open(&lo, &c->input, err);
}

int chat_run(const char *path, struct chat_options *o, struct runt_err *err)
{
    struct chat c = {.o = o, .path = path};
    int rc = open_chat(&c, err);
    if (!rc) {
        rc = talk(&c, err);
        if (!rc && o->cache && runt_session_pos(c.timeline.session))
            rc = runt_session_save(c.timeline.session, 0, o->cache, err);
    }
    for (size_t i = 0; i < c.strings.n; i++)
        mem_free((char *)c.strings.items[i]);
    mem_free(c.strings.items);
    conversation_free(&c.said);
    line_input_close(c.input);
    timeline_close(&c.timeline);
    runt_model_free(c.model);
    return rc;
}
