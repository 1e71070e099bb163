/* Owns the clock of drafting.  Drafts are paid for out of a balance: what they save is
 * added, what they lose is taken, and a hundredth of all time spent is added besides.
 * Below zero they have to promise more, and a few passes below zero there are none.  So
 * whatever is guessed wrong about times and chances, drafts cost about a hundredth. */
#include "talk/pace.h"

enum {
    LATELY = 64,     /* a baseline is measured again after so many passes */
    FORGOTTEN = 128, /* and other sizes are tried again */
    ENOUGH = 3,      /* passes of a size; one or two may be a bad moment */
    BASELINE = 2,    /* plain passes before any draft; the first is slow */
};
static const double ALLOWED = 0.01; /* of the time */
/* In passes: to begin with, and the most that is saved up, so that a text that turns
 * from repetition to news does not live on its savings. */
static const double FIRST = 2, MOST = 16, LEAST = -4;
/* How much faster drafts must promise to be; the second in debt. */
static const double WORTH_IT = 1.05, WORTH_A_DEBT = 1.3;
/* What a token more in a pass adds to a pass of one, before anything was measured. */
static const double SLOPE = 0.3;

static double min(double a, double b)
{
    return a < b ? a : b;
}

static void keep(struct pace_size *s, double seconds)
{
    double sorted[PACE_KEPT];
    size_t n;
    s->kept[s->n++ % PACE_KEPT] = seconds;
    n = s->n < PACE_KEPT ? s->n : PACE_KEPT;
    for (size_t i = 0; i < n; i++) {
        size_t k = i;
        for (; k && sorted[k - 1] > s->kept[i]; k--)
            sorted[k] = sorted[k - 1];
        sorted[k] = s->kept[i];
    }
    s->median = sorted[(n - 1) / 2];
}

void pace_note(struct pace *p, size_t n_seqs, size_t n_drafts, size_t n_right,
               double seconds)
{
    size_t n = n_seqs + n_drafts;
    p->now++;
    if (!n_seqs || n > PACE_TOKENS)
        return;
    struct pace_size *s = &p->sizes[n];
    if (s->seen && p->now - s->seen > FORGOTTEN)
        s->n = 0;
    s->seen = p->now;
    keep(s, seconds);
    double plain = pace_plain(p, n_seqs), guess = pace_seconds(p, n),
           usual = s->n >= ENOUGH ? s->median : min(seconds, 2 * guess);
    if (p->now == 1)
        p->balance = FIRST * plain;
    if (n_drafts)
        p->balance += (double)(n_seqs + n_right) / (double)n_seqs * plain - usual;
    p->balance = min(p->balance + ALLOWED * usual, MOST * plain);
}

static bool known(const struct pace *p, size_t n, unsigned enough)
{
    const struct pace_size *s = &p->sizes[n];
    return s->n >= enough && p->now - s->seen <= FORGOTTEN;
}

static double shape(size_t n)
{
    return 1 + SLOPE * (double)(n - 1);
}

/* Between the nearest sizes that are known; 0 when there is none. */
static double between(const struct pace *p, size_t n, unsigned enough)
{
    size_t below = n, above = n;
    while (below && !known(p, below, enough))
        below--;
    while (above <= PACE_TOKENS && !known(p, above, enough))
        above++;
    if (!below && above > PACE_TOKENS)
        return 0;
    if (!below || above > PACE_TOKENS) {
        size_t near = below ? below : above;
        return p->sizes[near].median * shape(n) / shape(near);
    }
    if (below == above)
        return p->sizes[n].median;
    double part = (double)(n - below) / (double)(above - below);
    return (1 - part) * p->sizes[below].median + part * p->sizes[above].median;
}

double pace_seconds(const struct pace *p, size_t n)
{
    double t = between(p, n, ENOUGH);
    return t > 0 ? t : between(p, n, 1);
}

double pace_plain(const struct pace *p, size_t n_seqs)
{
    return p->sizes[n_seqs].n ? p->sizes[n_seqs].median : pace_seconds(p, n_seqs);
}

double pace_worth(const struct pace *p, size_t n_seqs)
{
    if (!n_seqs || n_seqs > PACE_TOKENS || p->sizes[n_seqs].n < BASELINE ||
        p->now - p->sizes[n_seqs].seen >= LATELY)
        return 0;
    if (p->balance < LEAST * pace_plain(p, n_seqs))
        return 0;
    return p->balance < 0 ? WORTH_A_DEBT : WORTH_IT;
}
