/* Texts that may be compressed, by xz, zstd or gzip: the one way in for data files.
 * Which of them is told by the first bytes, not by the name; several members one behind
 * another are one text.  Built without a library, its files are refused with a line
 * that says so. */
#ifndef RUNT_BASE_UNPACK_H
#define RUNT_BASE_UNPACK_H

#include "runt/error.h"

#include <stddef.h>

/* The whole of a file, unpacked, NUL-terminated past *n; at most `max` bytes, which
 * holds for the file and for the text.  The caller frees *out with mem_free.  Errors:
 * those of file_read; RUNT_E_FORMAT: damaged, cut short, or larger than `max`;
 * RUNT_E_UNSUPPORTED: no library here. */
int unpack_read(const char *path, size_t max, char **out, size_t *n,
                struct runt_err *err);
/* The same over bytes in memory that are compressed or not; `name` starts the error
 * line. *out is NULL when they are not compressed. */
int unpack_bytes(const char *bytes, size_t n, size_t max, const char *name, char **out,
                 size_t *n_out, struct runt_err *err);

#endif
