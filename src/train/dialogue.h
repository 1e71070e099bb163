/* Dialogues as text: turns that begin with `User:` or `Bot:` at the start of a line,
 * which is what the template `turns` speaks (src/talk).
 *
 * An answer is what a model must write by itself: everything behind `Bot:` up to where
 * chat stops it, which is the end of the document or the break and `User:` of the next
 * turn. */
#ifndef RUNT_TRAIN_DIALOGUE_H
#define RUNT_TRAIN_DIALOGUE_H

#include "base/js.h"
#include "base/strbuf.h"
#include "talk/talk.h"

/* Bytes from .. to - 1 of a document.  The byte behind the last stands for the
 * end-of-text token: a document that ends in an answer has to = n + 1. */
struct dialogue_answer {
    size_t from, to;
    size_t next; /* where to go on */
};
/* The next answer; the first for {0}.  Behind the last, from = to = SIZE_MAX. */
void dialogue_next(const char *text, size_t n, struct dialogue_answer *a);

/* Append messages, [{"role": "user" | "assistant" | "system", "content": TEXT}], as
 * turns a line each, without a break at the end.  What the system says stands before
 * the first turn without a name; blanks around a message are left out.  A message's
 * own lines never begin a turn: a space is put before one that would.  `where` (file
 * and line) starts error lines: RUNT_E_FORMAT. */
int dialogue_render(const json_t *messages, const char *where, struct strbuf *out,
                    struct runt_err *err);

#endif
