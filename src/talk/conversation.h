/* A conversation that is being held, and its file: JSON with the messages, as everyone
 * writes them. */
#ifndef RUNT_TALK_CONVERSATION_H
#define RUNT_TALK_CONVERSATION_H

#include "base/strbuf.h"
#include "runt/runt.h"

struct conversation {
    struct runt_message *messages; /* [n], contents owned, NUL-terminated */
    size_t n, cap;
};

/* Append a message of a role that is one of runt.h's; the text is copied. */
int conversation_add(struct conversation *c, const char *role, const char *text,
                     size_t n, struct runt_err *err);
/* Cut it to its first n messages. */
void conversation_cut(struct conversation *c, size_t n);
/* The first message becomes what the system says; with n = 0 there is none. */
int conversation_set_system(struct conversation *c, const char *text, size_t n,
                            struct runt_err *err);
/* What stands before the first turn: messages of the system. */
size_t conversation_n_system(const struct conversation *c);
void conversation_free(struct conversation *c);

/* {"messages": [{"role": "system" | "user" | "assistant", "content": TEXT}, ...]};
 * other members are passed over.  `name` (a file) starts error lines: RUNT_E_FORMAT.
 * *out is what is freed then, if anything was in it. */
int conversation_parse(const char *text, size_t n, const char *name,
                       struct conversation *out, struct runt_err *err);
int conversation_load(const char *path, struct conversation *out, struct runt_err *err);
/* Bytes that are no UTF-8 become U+FFFD; the file appears only when complete. */
int conversation_write(const struct conversation *c, const char *model,
                       struct strbuf *out, struct runt_err *err);
int conversation_save(const struct conversation *c, const char *model, const char *path,
                      struct runt_err *err);

#endif
