/* Who may ask, from where, and under which name a request is known: what is decided
 * from headers alone. */
#ifndef RUNT_SERVE_ACCESS_H
#define RUNT_SERVE_ACCESS_H

#include <stdbool.h>
#include <stddef.h>

enum { ACCESS_ID_SIZE = 72 };

/* True when `authorization` (a header, or NULL) is "Bearer KEY" with one of the keys,
 * or when there are no keys.  The time does not depend on how much of a key is right.
 */
bool access_key_ok(const char *authorization, const char *const *keys, size_t n_keys);

/* What Access-Control-Allow-Origin answers to `origin` (a header, or NULL): one of the
 * origins, "*" when that is among them, or NULL. */
const char *access_origin(const char *origin, const char *const *origins,
                          size_t n_origins);

/* The client's or the proxy's own name for a request when it is 1 to 64 letters, digits
 * or one of ._- ; else "req_" and 24 random digits. */
void access_request_id(const char *given, char out[static ACCESS_ID_SIZE]);

/* The keys in a file's text: one a line, blank lines and lines that begin with # apart.
 * The text is cut up in place; at most `max` go to `keys`.  Returns how many there
 * are. */
size_t access_read_keys(char *text, const char **keys, size_t max);

#endif
