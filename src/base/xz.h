/* Unpacking .xz (base/unpack.h asks it).  Built without liblzma, a compressed file is
 * refused with a line that says so. */
#ifndef RUNT_BASE_XZ_H
#define RUNT_BASE_XZ_H

#include "runt/error.h"

#include <stdbool.h>
#include <stddef.h>

/* Do these bytes begin as an .xz file does? */
bool xz_is(const char *bytes, size_t n);

/* Unpack a whole .xz file (several streams one behind another are one text), at most
 * `max` bytes, NUL-terminated past *n_out.  The caller frees *out with mem_free.
 * `name` starts the error line.  RUNT_E_FORMAT: damaged, cut short, or larger than
 * `max`; RUNT_E_UNSUPPORTED: no liblzma here, or a filter that it does not know. */
int xz_unpack(const char *bytes, size_t n, size_t max, const char *name, char **out,
              size_t *n_out, struct runt_err *err);

#endif
