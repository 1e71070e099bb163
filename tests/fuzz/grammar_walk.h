/* A text of a grammar, chosen by a number; for fuzz targets. */
#ifndef GRAMMAR_WALK_H
#define GRAMMAR_WALK_H

#include "base/rng.h"
#include "base/strbuf.h"
#include "sample/matcher.h"

#include <stdlib.h>
#include <string.h>

/* Walk for at most n bytes, towards one of `closers` the longer it takes; true when the
 * text has ended.  Aborts where the grammar leads into a dead end. */
static inline bool grammar_walk(const runt_grammar *g, uint64_t seed, size_t n,
                                const char *closers, struct strbuf *out)
{
    struct matcher *m = NULL;
    uint32_t state = STATE_START;
    struct rng r;
    bool ended = false;
    rng_seed(&r, seed);
    if (matcher_new(g, &m, NULL))
        abort();
    for (size_t i = 0; i < n && !ended; i++) {
        uint8_t good[256];
        unsigned n_good = 0;
        matcher_trim(m, &state);
        for (unsigned b = 0; b < 256; b++)
            if (matcher_step(m, state, (uint8_t)b) != STATE_NOWHERE)
                good[n_good++] = (uint8_t)b;
        if (matcher_failed(m, NULL))
            break; /* too ambiguous: refused, not wrong */
        ended = matcher_may_end(m, state);
        if (!n_good && !ended)
            abort();
        if (ended && (!n_good || rng_u64(&r) % n < i + n / 4))
            break;
        uint8_t byte = good[rng_u64(&r) % n_good];
        for (const char *c = closers; *c && rng_u64(&r) % n < 2 * i; c++)
            if (memchr(good, *c, n_good))
                byte = (uint8_t)*c;
        ended = false;
        sb_char(out, (char)byte);
        state = matcher_step(m, state, byte);
    }
    matcher_free(m);
    return ended;
}

#endif
