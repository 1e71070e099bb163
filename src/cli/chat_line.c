/* Owns reading a line from a person (with libedit), a script or a pipe.
 *
 * Bytes come by way of a buffer of our own: a wait for them ends at once, and without a
 * race, when Ctrl-C is pressed or the window changes its size, and no line takes more
 * memory than it may. */
#include "cli/chat_line.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/utf8.h"
#include "cli/cli.h"
#include "cli/wrap.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

#ifdef HAVE_EDIT
#include <histedit.h>
#endif

struct line_input {
    struct line_options o;
    int fd;
    bool terminal; /* a person types */
    bool echo;     /* a script's lines are shown at a terminal as if typed */
    unsigned char bytes[4096];
    size_t at, n; /* bytes not yet used: [at, n) */
    struct strbuf line;
    char *history_path; /* NULL: lines are not kept */
    char complaint[512];
#ifdef HAVE_EDIT
    EditLine *el;
    History *history;
    bool more;
#endif
};

/* ---- bytes ---- */

/* The window has another width, or the program goes on after Ctrl-Z. */
static volatile sig_atomic_t disturbed;

/* Block or unblock what ends a wait. */
static void hold_signals(int how, sigset_t *before)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGCONT};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaddset(&set, signals[i]);
    sigprocmask(how, how == SIG_SETMASK ? before : &set,
                how == SIG_SETMASK ? NULL : before);
}

enum { END_OF_FILE = -1, STOPPED = -2, DISTURBED = -3, BROKEN = -4 };

/* Wait until there is something to read. */
static int wait_input(struct line_input *in)
{
    sigset_t before;
    int rc = 0;
    hold_signals(SIG_BLOCK, &before);
    while (!rc) {
        fd_set set;
        FD_ZERO(&set);
        FD_SET(in->fd, &set);
        if (cli_interrupted())
            rc = STOPPED;
        else if (in->terminal && disturbed)
            rc = DISTURBED;
        else if (pselect(in->fd + 1, &set, NULL, NULL, NULL, &before) > 0)
            break;
        else if (errno != EINTR)
            rc = BROKEN;
    }
    if (rc == DISTURBED)
        disturbed = 0;
    hold_signals(SIG_SETMASK, &before);
    return rc;
}

/* The next byte, or one of the above. */
static int next_byte(struct line_input *in)
{
    while (in->at == in->n) {
        int rc = wait_input(in);
        if (rc)
            return rc;
        ssize_t n = read(in->fd, in->bytes, sizeof in->bytes);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return BROKEN;
        if (n == 0)
            return END_OF_FILE;
        in->at = 0;
        in->n = n > 0 ? (size_t)n : 0;
    }
    return in->bytes[in->at++];
}

void line_input_flush(struct line_input *in)
{
    if (in->terminal)
        in->at = in->n = 0;
}

/* ---- editing ---- */

#ifdef HAVE_EDIT

static void on_disturbance(int sig)
{
    (void)sig;
    disturbed = 1;
}

static char *prompt(EditLine *el)
{
    static char text[2][8] = {"> ", "... "};
    struct line_input *in;
    el_get(el, EL_CLIENTDATA, &in);
    return text[in->more];
}

/* The line again, in a terminal that may have another width and other modes: from where
 * the terminal has moved its beginning, as those do that break lines anew. */
static void redraw(struct line_input *in)
{
    const LineInfo *l = el_line(in->el);
    const char *term = getenv("TERM");
    size_t columns = strlen(prompt(in->el)) +
                     wrap_columns(l->buffer, (size_t)(l->cursor - l->buffer));
    size_t width = cli_columns(stdout), rows = width ? columns / width : 0;
    if (!term || !strcmp(term, "dumb"))
        putchar('\n');
    else if (rows)
        printf("\033[%zuA\r\033[J", rows);
    else
        printf("\r\033[J");
    fflush(stdout);
    el_set(in->el, EL_PREP_TERM, 0);
    el_set(in->el, EL_PREP_TERM, 1);
    el_resize(in->el);
    el_set(in->el, EL_REFRESH);
}

/* One character for the editor; bytes that are none are dropped. */
static int get_character(EditLine *el, wchar_t *out)
{
    struct line_input *in;
    char s[4];
    size_t n = 0;
    el_get(el, EL_CLIENTDATA, &in);
    for (;;) {
        int c = next_byte(in);
        if (c == DISTURBED) {
            redraw(in);
            continue;
        }
        if (c < 0)
            return c == END_OF_FILE ? 0 : -1;
        s[n++] = (char)c;
        size_t len = utf8_len(s, n);
        if (len) {
            *out = (wchar_t)utf8_code_point(s, len);
            return 1;
        }
        if (!utf8_partial(s, n))
            n = 0;
    }
}

/* Words that may stand at the cursor and begin with what stands before it. */
struct completion {
    const struct line_input *in;
    const char *before, *begun; /* the line up to the word, the word up to the cursor */
    size_t n_found, n_common;
    const char *first; /* of those found; all agree on its first n_common bytes */
};

static void find_words(struct completion *c, bool list)
{
    struct wrap w = {.out = stdout, .width = cli_columns(stdout)};
    const char *word;
    for (size_t i = 0; (word = c->in->o.words(c->in->o.ctx, c->before, i)); i++) {
        if (strncmp(word, c->begun, strlen(c->begun)))
            continue;
        if (!c->n_found++) {
            c->first = word;
            c->n_common = strlen(word);
        }
        size_t k = 0;
        while (k < c->n_common && word[k] == c->first[k])
            k++;
        c->n_common = k;
        if (list) {
            wrap_put(&w, word, strlen(word));
            wrap_put(&w, "  ", 2);
        }
    }
    wrap_end(&w);
}

/* Tab: what all words have in common is typed; where that is nothing they are listed.
 */
static unsigned char complete(EditLine *el, int key)
{
    (void)key;
    struct line_input *in;
    const LineInfo *l = el_line(el);
    char line[128], rest[128];
    size_t n = (size_t)(l->cursor - l->buffer), at = n;
    el_get(el, EL_CLIENTDATA, &in);
    if (in->more || n >= sizeof line)
        return CC_ERROR;
    while (at && l->buffer[at - 1] != ' ')
        at--;
    snprintf(line, sizeof line, "%.*s", (int)at, l->buffer);
    snprintf(rest, sizeof rest, "%.*s", (int)(n - at), l->buffer + at);
    struct completion c = {.in = in, .before = line, .begun = rest};
    find_words(&c, false);
    if (!c.n_found)
        return CC_ERROR;
    if (c.n_found == 1 || c.n_common > n - at) {
        char typed[128];
        snprintf(typed, sizeof typed, "%.*s%s", (int)(c.n_common - (n - at)),
                 c.first + (n - at), c.n_found == 1 ? " " : "");
        return el_insertstr(el, typed) ? CC_ERROR : CC_REFRESH;
    }
    putchar('\n');
    c.n_found = 0;
    find_words(&c, true);
    putchar('\n');
    return CC_REDISPLAY;
}

static void remember(void *ctx, const char *line)
{
    struct line_input *in = ctx;
    HistEvent ev;
    history(in->history, &ev, H_ENTER, line);
}

/* No more lines are kept: it is told, and the conversation goes on. */
static void give_up_history(struct line_input *in, const struct runt_err *err)
{
    snprintf(in->complaint, sizeof in->complaint, "%s", err->msg);
    mem_free(in->history_path);
    in->history_path = NULL;
}

static void open_history(struct line_input *in)
{
    struct runt_err err;
    in->history_path = in->o.history ? line_history_path() : NULL;
    if (in->history_path && line_history_load(in->history_path, remember, in, &err))
        give_up_history(in, &err);
}

/* Keep a line for the arrow keys and for later sessions, but not twice in a row. */
static void keep(struct line_input *in, const char *line)
{
    HistEvent ev;
    struct runt_err err;
    if (!*line || (!history(in->history, &ev, H_FIRST) && !strcmp(ev.str, line)))
        return;
    remember(in, line);
    if (in->history_path && line_history_append(in->history_path, line, &err))
        give_up_history(in, &err);
}

/* Ctrl-C stays a signal: it ends the read, and the handler's flag tells why. */
static int open_editor(struct line_input *in, struct runt_err *err)
{
    HistEvent ev;
    in->el = el_init("runt", stdin, stdout, stderr);
    in->history = history_init();
    if (!in->el || !in->history)
        return err_nomem(err, "the line editor");
    /* SA_RESTART: what is being written goes on; a wait for input ends all the same */
    struct sigaction sa = {.sa_handler = on_disturbance, .sa_flags = SA_RESTART};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGWINCH, &sa, NULL);
    sigaction(SIGCONT, &sa, NULL);
    history(in->history, &ev, H_SETSIZE, LINE_HISTORY);
    history(in->history, &ev, H_SETUNIQUE, 1);
    el_set(in->el, EL_CLIENTDATA, in);
    el_set(in->el, EL_PROMPT, prompt);
    el_set(in->el, EL_EDITOR, "emacs");
    el_set(in->el, EL_HIST, history, in->history);
    el_set(in->el, EL_GETCFN, get_character);
    el_set(in->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
    if (in->o.words) {
        /* el_set would leak the two strings */
        el_wset(in->el, EL_ADDFN, L"runt-complete", L"complete a command", complete);
        el_set(in->el, EL_BIND, "^I", "runt-complete", NULL);
    }
    open_history(in);
    return 0;
}

static void close_editor(struct line_input *in)
{
    if (in->el)
        el_end(in->el);
    if (in->history)
        history_end(in->history);
}

static enum line_result read_edited(struct line_input *in, bool more)
{
    int len = 0;
    in->more = more;
    el_resize(in->el);
    const char *s = el_gets(in->el, &len);
    if (cli_interrupted() || !s || len <= 0) {
        putchar('\n');
        return cli_interrupted() ? LINE_INTERRUPTED : LINE_END;
    }
    while (len && (s[len - 1] == '\n' || s[len - 1] == '\r'))
        len--;
    sb_put(&in->line, s, (size_t)len);
    if (!in->line.failed)
        keep(in, in->line.data);
    return LINE_OK;
}

#endif

/* ---- plain lines ---- */

/* A script's line at a terminal, as if it had been typed. */
static void echo_line(struct line_input *in, bool more)
{
    struct wrap w = {.out = stdout, .width = cli_columns(stdout)};
    wrap_put(&w, more ? "... " : "> ", more ? 4 : 2);
    wrap_put(&w, in->line.data, in->line.len);
    wrap_end(&w);
    putchar('\n');
    fflush(stdout);
}

static enum line_result read_plain(struct line_input *in, bool more,
                                   struct runt_err *err)
{
    const char *name = in->o.script ? in->o.script : "standard input";
    int c;
    if (in->terminal) {
        fputs(more ? "... " : "> ", stdout);
        fflush(stdout);
    }
    sb_put(&in->line, "", 0);
    while ((c = next_byte(in)) != '\n' && c != END_OF_FILE) {
        if (c == STOPPED)
            return LINE_INTERRUPTED;
        if (c == DISTURBED)
            continue;
        if (c == BROKEN && in->terminal) /* it went away */
            return LINE_END;
        if (c == BROKEN) {
            err_errno(err, name, "read");
            return LINE_FAILED;
        }
        if (in->line.len == LINE_MAX_BYTES) {
            err_set(err, RUNT_E_FORMAT, "%s: a line longer than the limit of %d bytes",
                    name, LINE_MAX_BYTES);
            return LINE_FAILED;
        }
        sb_char(&in->line, (char)c);
    }
    if (c == END_OF_FILE && !in->line.len)
        return LINE_END;
    while (in->line.len && in->line.data[in->line.len - 1] == '\r')
        in->line.data[--in->line.len] = 0;
    if (in->echo)
        echo_line(in, more);
    return LINE_OK;
}

/* ---- lines ---- */

static int open_script(struct line_input *in, struct runt_err *err)
{
    if (!strcmp(in->o.script, "-"))
        return 0;
    in->fd = open(in->o.script, O_RDONLY | O_CLOEXEC);
    if (in->fd < 0)
        return err_errno(err, in->o.script, "open");
    return 0;
}

int line_input_open(const struct line_options *o, struct line_input **out,
                    struct runt_err *err)
{
    struct line_input *in = mem_zalloc(sizeof *in);
    if (!in)
        return err_nomem(err, "the input");
    in->o = *o;
    in->terminal = !o->script && isatty(0) && isatty(1);
    in->echo = o->script && isatty(1);
    int rc = o->script ? open_script(in, err) : 0;
#ifdef HAVE_EDIT
    if (!rc && in->terminal)
        rc = open_editor(in, err);
#endif
    if (rc)
        line_input_close(in);
    else
        *out = in;
    return rc;
}

void line_input_close(struct line_input *in)
{
    if (!in)
        return;
#ifdef HAVE_EDIT
    close_editor(in);
#endif
    if (in->fd > 0)
        close(in->fd);
    mem_free(in->history_path);
    sb_free(&in->line);
    mem_free(in);
}

bool line_input_is_terminal(const struct line_input *in)
{
    return in->terminal;
}

bool line_input_complaint(struct line_input *in, char *text, size_t n)
{
    snprintf(text, n, "%s", in->complaint);
    in->complaint[0] = 0;
    return *text;
}

enum line_result line_input_read(struct line_input *in, bool more, const char **line,
                                 size_t *n, struct runt_err *err)
{
    in->line.len = 0;
#ifdef HAVE_EDIT
    enum line_result r = in->el ? read_edited(in, more) : read_plain(in, more, err);
#else
    enum line_result r = read_plain(in, more, err);
#endif
    if (r == LINE_OK && in->line.failed) {
        err_nomem(err, "a line");
        return LINE_FAILED;
    }
    *line = in->line.data;
    *n = in->line.len;
    return r;
}
