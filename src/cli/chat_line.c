/* Owns reading a line from a person (with libedit) or from a pipe. */
#include "base/err.h"
#include "base/mem.h"
#include "cli/chat.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef HAVE_EDIT
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#endif

struct line_input {
    bool terminal;
    char *line; /* getline's */
    size_t cap;
#ifdef HAVE_EDIT
    EditLine *el;
    History *history;
#endif
};

#ifdef HAVE_EDIT

static char *prompt(EditLine *el)
{
    (void)el;
    static char text[] = "> ";
    return text;
}

/* Ctrl-C stays a signal: it ends the read, and the handler's flag tells why. */
static int open_editor(struct line_input *in, struct runt_err *err)
{
    HistEvent ev;
    /* the editor drops what its locale cannot say; models speak UTF-8 */
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8"))
        setlocale(LC_CTYPE, "C.UTF-8");
    in->el = el_init("runt", stdin, stdout, stderr);
    in->history = history_init();
    if (!in->el || !in->history)
        return err_nomem(err, "the line editor");
    history(in->history, &ev, H_SETSIZE, 1000);
    el_set(in->el, EL_PROMPT, prompt);
    el_set(in->el, EL_EDITOR, "emacs");
    el_set(in->el, EL_HIST, history, in->history);
    el_set(in->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
    return 0;
}

static void close_editor(struct line_input *in)
{
    if (in->el)
        el_end(in->el);
    if (in->history)
        history_end(in->history);
}

static enum line_result read_edited(struct line_input *in, const char **line, size_t *n)
{
    HistEvent ev;
    int len = 0;
    const char *s = el_gets(in->el, &len);
    if (cli_interrupted() || !s || len <= 0) {
        putchar('\n');
        return cli_interrupted() ? LINE_INTERRUPTED : LINE_END;
    }
    if (len > 1)
        history(in->history, &ev, H_ENTER, s);
    *line = s;
    *n = (size_t)len;
    return LINE_OK;
}

#endif

int line_input_open(struct line_input **out, struct runt_err *err)
{
    struct line_input *in = mem_zalloc(sizeof *in);
    if (!in)
        return err_nomem(err, "the input");
    in->terminal = isatty(0) && isatty(1);
#ifdef HAVE_EDIT
    int rc = in->terminal ? open_editor(in, err) : 0;
    if (rc) {
        line_input_close(in);
        return rc;
    }
#endif
    *out = in;
    return 0;
}

void line_input_close(struct line_input *in)
{
    if (!in)
        return;
#ifdef HAVE_EDIT
    close_editor(in);
#endif
    free(in->line);
    mem_free(in);
}

bool line_input_is_terminal(const struct line_input *in)
{
    return in->terminal;
}

static enum line_result read_plain(struct line_input *in, const char **line, size_t *n)
{
    if (in->terminal) {
        fputs("> ", stdout);
        fflush(stdout);
    }
    ssize_t len = getline(&in->line, &in->cap, stdin);
    if (len < 0)
        return cli_interrupted() ? LINE_INTERRUPTED : LINE_END;
    *line = in->line;
    *n = (size_t)len;
    return LINE_OK;
}

enum line_result line_input_read(struct line_input *in, const char **line, size_t *n)
{
#ifdef HAVE_EDIT
    enum line_result r = in->el ? read_edited(in, line, n) : read_plain(in, line, n);
#else
    enum line_result r = read_plain(in, line, n);
#endif
    while (r == LINE_OK && *n && ((*line)[*n - 1] == '\n' || (*line)[*n - 1] == '\r'))
        --*n;
    return r;
}
