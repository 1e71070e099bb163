/* Following a grammar byte by byte. */
#ifndef RUNT_SAMPLE_MATCHER_H
#define RUNT_SAMPLE_MATCHER_H

#include "sample/grammar.h"

/* Where in a grammar a text may be: a number that stands for the set of all stacks of
 * places, made when it is first met, and kept. */
enum {
    STATE_NOWHERE = 0, /* no text of the grammar begins like that */
    STATE_START = 1,
};

/* One owner at a time. */
struct matcher {
    uint32_t *next; /* [n_states][n_classes]: STEP_UNKNOWN, or the state that follows */
    size_t n_classes;
    const uint8_t *byte_class;
    struct matcher_work *work;
};
#define STEP_UNKNOWN UINT32_MAX

int matcher_new(const runt_grammar *g, struct matcher **out, struct runt_err *err);
void matcher_free(struct matcher *m); /* NULL is fine */

/* Work out a step that is not yet known. */
uint32_t matcher_explore(struct matcher *m, uint32_t state, uint8_t byte);
/* After one more byte.  STATE_NOWHERE also when the matcher has failed. */
static inline uint32_t matcher_step(struct matcher *m, uint32_t state, uint8_t byte)
{
    uint32_t next = m->next[state * m->n_classes + m->byte_class[byte]];
    return next != STEP_UNKNOWN ? next : matcher_explore(m, state, byte);
}
bool matcher_may_end(const struct matcher *m, uint32_t state);
/* Out of memory, or more states than are allowed (RUNT_E_FULL); 0 when all is well. */
int matcher_failed(const struct matcher *m, struct runt_err *err);
/* When there are many states, or after a failure, which is then over: forget all but
 * *state and the first one, and give *state its new number; true when that happened. */
bool matcher_trim(struct matcher *m, uint32_t *state);
/* Whether a whole text is one of the grammar's. */
int matcher_test(const runt_grammar *g, const char *text, size_t n, bool *out,
                 struct runt_err *err);

#endif
