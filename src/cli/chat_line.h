/* Lines from a person at a terminal, from a script or through a pipe. */
#ifndef RUNT_CLI_CHAT_LINE_H
#define RUNT_CLI_CHAT_LINE_H

#include "runt/error.h"

#include <stdbool.h>
#include <stddef.h>

/* The i-th word that may stand behind `before` (what precedes the word in the line), or
 * NULL behind the last. */
typedef const char *line_words_fn(void *ctx, const char *before, size_t i);

struct line_options {
    const char *script;   /* read this file instead of standard input, or NULL */
    bool history;         /* keep a person's lines for later sessions */
    line_words_fn *words; /* for the tab key */
    void *ctx;
};

struct line_input;
/* RUNT_E_NOTFOUND, RUNT_E_IO for a script that cannot be opened. */
int line_input_open(const struct line_options *o, struct line_input **out,
                    struct runt_err *err);
void line_input_close(struct line_input *in); /* NULL is fine */
/* A person types. */
bool line_input_is_terminal(const struct line_input *in);
/* Why lines are no longer kept though they should be: told once, into text [n]. */
bool line_input_complaint(struct line_input *in, char *text, size_t n);

enum { LINE_MAX_BYTES = 1 << 20 };
enum line_result { LINE_OK, LINE_END, LINE_INTERRUPTED, LINE_FAILED };
/* One line without its end, valid until the next call; `more`: it goes on with what the
 * last one began.  At a terminal with editing and history (libedit); otherwise plain.
 * LINE_FAILED fills err: a line of more than LINE_MAX_BYTES, or what cannot be read. */
enum line_result line_input_read(struct line_input *in, bool more, const char **line,
                                 size_t *n, struct runt_err *err);
/* Forget what a person typed ahead. */
void line_input_flush(struct line_input *in);

/* ---- lines of earlier sessions (chat_history.c) ---- */

enum { LINE_HISTORY = 1000 }; /* lines that are kept */

/* $XDG_STATE_HOME/runt/history, by default ~/.local/state/runt/history; freed with
 * mem_free.  NULL when there is no such place. */
char *line_history_path(void);
/* The newest lines of the file, the oldest of them first; a file that is not there is
 * made, with its folders.  It is the person's alone (mode 600). */
int line_history_load(const char *path, void (*add)(void *ctx, const char *line),
                      void *ctx, struct runt_err *err);
int line_history_append(const char *path, const char *line, struct runt_err *err);

#endif
