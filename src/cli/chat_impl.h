/* A conversation that is going on: what chat.c and chat_command.c share. */
#ifndef RUNT_CLI_CHAT_IMPL_H
#define RUNT_CLI_CHAT_IMPL_H

#include "cli/chat.h"
#include "cli/chat_line.h"
#include "cli/wrap.h"
#include "talk/conversation.h"

struct chat {
    struct chat_options *o;
    const char *path; /* of the model */
    runt_model *model;
    const runt_template *template;
    struct timeline timeline;
    struct line_input *input;
    struct conversation said;
    size_t n_forgotten; /* messages behind the system's that no longer fit */
    bool said_full, left;
    size_t total_tokens;
    double total_seconds;
    struct cli_list strings; /* that /set made values of; freed at the end */
};

/* A line to the person that is no answer. */
void chat_note(const struct chat *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Where such lines go: to the terminal where a person types, else to stderr. */
FILE *chat_side(const struct chat *c);

/* Answer the last message. */
int chat_answer(struct chat *c, struct runt_err *err);
/* What is said no longer follows from what was: all of it may fit again. */
void chat_changed(struct chat *c);
/* A new sampler as the options want it; the old one stays where that fails. */
int chat_new_sampler(struct chat *c, struct runt_err *err);
/* The lines up to one that ends with """; `first` is what stands behind the opening
 * ones.  Without *done the person gave it up. */
int chat_read_block(struct chat *c, const char *first, struct strbuf *out, bool *done,
                    struct runt_err *err);

/* ---- /commands (chat_command.c) ---- */

int chat_command(struct chat *c, const char *line, struct runt_err *err);
/* A line_words_fn with a struct chat: commands, and what /set may name. */
const char *chat_words(void *ctx, const char *before, size_t i);

#endif
