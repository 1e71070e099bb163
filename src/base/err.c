/* Owns the one way in which the library words a failure. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ASCII's control bytes, and C1's in UTF-8: U+009B starts an escape sequence too. */
static void clean(char *s)
{
    for (; *s; s++) {
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = '?';
        else if ((unsigned char)*s == 0xc2 && (unsigned char)s[1] >= 0x80 &&
                 (unsigned char)s[1] <= 0x9f)
            s[0] = s[1] = '?';
    }
}

int err_set(struct runt_err *err, int code, const char *fmt, ...)
{
    if (!err)
        return code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    clean(err->msg);
    err->code = code;
    return code;
}

void err_prefix(struct runt_err *err, const char *fmt, ...)
{
    if (!err)
        return;
    char head[256], *msg = err->msg;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    size_t n = strlen(head), room = sizeof err->msg - n - 3, len = strlen(msg);
    len = len < room ? len : room;
    memmove(msg + n + 2, msg, len);
    memcpy(msg, head, n);
    memcpy(msg + n, ": ", 2);
    msg[n + 2 + len] = 0;
    clean(msg);
}

int err_nomem(struct runt_err *err, const char *what)
{
    return err_set(err, RUNT_E_NOMEM, "out of memory for %s", what);
}

int err_errno(struct runt_err *err, const char *path, const char *verb)
{
    int e = errno;
    return err_set(err, e == ENOENT ? RUNT_E_NOTFOUND : RUNT_E_IO, "%s: cannot %s: %s",
                   path, verb, strerror(e));
}
