/* Text on its way to a person: bytes of tokens in, valid UTF-8 out at every flush, held
 * back where a stop text may be beginning. */
#ifndef RUNT_CLI_STREAM_H
#define RUNT_CLI_STREAM_H

#include "base/strbuf.h"

#include <stdbool.h>
#include <stdio.h>

struct stream {
    FILE *out;                /* NULL: only collect */
    const char *const *stops; /* [n_stops], none empty */
    size_t n_stops;
    bool skip_space;    /* the answer starts a line: drop its first space */
    size_t n_shown;     /* bytes put in that were shown, before any replacement */
    struct strbuf held; /* not yet shown */
    struct strbuf text; /* everything shown */
};

/* Bytes of one token.  True when a stop text is complete: what stands before it has
 * been shown, it and the rest are dropped. */
bool stream_put(struct stream *s, const char *bytes, size_t n);
/* Show what is held back; an unfinished UTF-8 sequence becomes U+FFFD. */
void stream_end(struct stream *s);
void stream_free(struct stream *s);

#endif
