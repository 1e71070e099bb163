/* The error type that every fallible runt function fills.
 *
 * A function that can fail returns 0 or one of the negative codes below and writes one
 * line (file, tensor, numbers; no newline) into the struct it was given.  Out-pointers
 * are untouched on failure.
 */
#ifndef RUNT_ERROR_H
#define RUNT_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

enum {
    RUNT_OK = 0,
    RUNT_E_NOMEM = -1,       /* out of memory, or a size that overflows */
    RUNT_E_IO = -2,          /* the operating system refused a read, write or rename */
    RUNT_E_FORMAT = -3,      /* a file's content is damaged or contradicts itself */
    RUNT_E_UNSUPPORTED = -4, /* valid, but not something this program handles */
    RUNT_E_INVALID = -5,     /* an argument out of range */
    RUNT_E_NOTFOUND = -6,    /* no such file, model, tensor or key */
    RUNT_E_NETWORK = -7,     /* a transfer failed */
    RUNT_E_INTERRUPTED = -8, /* the caller's progress callback asked to stop */
    RUNT_E_FULL = -9,        /* no room left in a session's context */
};

struct runt_err {
    int code;
    char msg[512];
};

/* Called now and then by long operations: `done` of `total` (in the operation's own
 * unit; total 0 when unknown).  A non-zero answer stops it with RUNT_E_INTERRUPTED. */
typedef int (*runt_progress_fn)(void *ctx, const char *what, unsigned long long done,
                                unsigned long long total);

#ifdef __cplusplus
}
#endif
#endif
