/* How long passes take, by the number of their tokens, and whether drafts have paid.
 * Times are medians of the last few passes of a size, since single ones say little on a
 * machine that is shared; sizes that were not seen lately are guessed from their
 * neighbours. */
#ifndef RUNT_TALK_PACE_H
#define RUNT_TALK_PACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PACE_TOKENS = 64, PACE_KEPT = 7 };

struct pace {
    struct pace_size {
        double kept[PACE_KEPT]; /* seconds, a ring */
        double median;
        uint64_t seen; /* the pass that was the last of this size, 0: none */
        unsigned n;
    } sizes[PACE_TOKENS + 1];
    uint64_t now;   /* passes so far */
    double balance; /* seconds that drafts have saved, and may lose */
};

/* A pass of n_seqs tokens and n_drafts drafted ones took so long, and so many of the
 * drafted ones were right. */
void pace_note(struct pace *p, size_t n_seqs, size_t n_drafts, size_t n_right,
               double seconds);
/* Seconds that a pass of n tokens takes, 1 <= n <= PACE_TOKENS; 0 when nobody knows. */
double pace_seconds(const struct pace *p, size_t n);
/* The same of a pass without drafts, by its own passes where there were some. */
double pace_plain(const struct pace *p, size_t n_seqs);
/* How many times as fast drafts on top of n_seqs tokens must promise to be; 0: none are
 * to be tried, because what a pass without them takes was not measured lately, or
 * because drafts have lost more time than they may. */
double pace_worth(const struct pace *p, size_t n_seqs);

#endif
