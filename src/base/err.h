/* Errors: filling a struct runt_err.  See include/runt/error.h for the codes. */
#ifndef RUNT_BASE_ERR_H
#define RUNT_BASE_ERR_H

#include "runt/error.h"

/* Store code and message (printf style), return code.  Control bytes are replaced by
 * '?' so that a hostile file name cannot drive a terminal.  `err` may be NULL. */
int err_set(struct runt_err *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Put "PREFIX: " before the message that is already there. */
void err_prefix(struct runt_err *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* err_set(RUNT_E_NOMEM) for an allocation of `what`. */
int err_nomem(struct runt_err *err, const char *what);

/* err_set(RUNT_E_IO or RUNT_E_NOTFOUND) with strerror(errno): "PATH: cannot VERB: ...".
 */
int err_errno(struct runt_err *err, const char *path, const char *verb);

#endif
