/* How a person's words become text for the model. */
#ifndef RUNT_CLI_CHAT_TEMPLATE_H
#define RUNT_CLI_CHAT_TEMPLATE_H

#include "cli/answer.h"

struct chat_template {
    const char *name;
    const char *before; /* before the person's words */
    const char *after;  /* between them and the answer */
    const char *end;    /* after the answer */
    const char *stop;   /* a text that ends an answer, or NULL */
    const char *jinja;  /* the same as a program, for model files; or NULL */
    bool special;       /* before, after and end hold control tokens by name */
};

/* By name: none, turns, chatml; NULL when unknown. */
const struct chat_template *chat_template_find(const char *name);
/* The one that a model file's tokenizer.chat_template (a Jinja program) means, or NULL
 * when it is none that we know. */
const struct chat_template *chat_template_detect(const char *jinja);

/* Append the tokens of one person's turn.  In the person's words, names of control
 * tokens are spelled out. */
int chat_template_turn(const struct chat_template *t, const runt_model *m,
                       const char *words, size_t n, struct token_list *out,
                       struct runt_err *err);
int chat_template_end(const struct chat_template *t, const runt_model *m,
                      struct token_list *out, struct runt_err *err);

#endif
