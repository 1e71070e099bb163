/* Owns looking ahead: which drafts go into a pass, and what is done with them after it.
 *
 * Each sequence keeps, for the places to come, what its memories say stands there
 * (draft.h): their votes.  Votes fall into classes, by how long the match is or how
 * often and how surely the n-gram was followed by the token.  Every token drawn settles
 * the votes for its place, drafted or not: so how often a class is right is known
 * without spending a pass on it.  The draft at a place is the vote of the class that is
 * right most often.
 *
 * A draft at place k is right when all before it are, too: its chance is the product.
 * Drafts go into a pass as long as tokens a second, expected, grow: chances come from
 * the classes, times from the passes so far (pace.h).
 *
 * None of this can change a text: whoever draws does so from the logits after each
 * token, in order, and a draft that is not what was drawn is taken back. */
#include "talk/draft.h"
#include "talk/pace.h"

#include "base/err.h"
#include "base/mem.h"
#include "runt/runt.h"

#include <string.h>
#include <time.h>

enum {
    N_LENGTHS = 7, /* classes of matches: 2, 3, 4, 5, 7, 10, 16 tokens and more */
    N_CLASSES = N_LENGTHS + DRAFT_ORDERS * DRAFT_SURE,
    N_VOTES = 1 + DRAFT_ORDERS,
    MAX_TRIES = 32, /* of a class; then all counts are halved */
    /* After so many tokens in a row without a draft that was right, the next are
     * thought of, and timed, once in a while only: a small model draws one in 100 us,
     * thinking takes 1. */
    PATIENCE = 8,
    NAP = 8,
};
/* A draft less likely than that is not worth a place in any pass. */
static const float LEAST_CHANCE = 0.15f;

struct vote {
    int32_t token;
    unsigned class;
};

/* What is thought of a place to come. */
struct place {
    int32_t token;
    float chance; /* that all tokens up to it are as drafted */
    struct vote votes[N_VOTES];
    size_t n_votes;
};

struct sequence {
    struct draft_index index;
    float right[N_CLASSES], tries[N_CLASSES];
    struct place places[RUNT_LOOKAHEAD_MAX];
    size_t n_places;                     /* thought of */
    size_t n_sent;                       /* drafts in the last pass */
    size_t n_right;                      /* of them, so far */
    bool open;                           /* the session may hold wrong ones */
    size_t limit;                        /* drafts at most */
    unsigned idle;                       /* tokens in a row that got no drafts */
    size_t row;                          /* of the logits to draw from */
    uint32_t pos;                        /* tokens that are true */
    int32_t fed[1 + RUNT_LOOKAHEAD_MAX]; /* the token and its drafts */
};

struct runt_lookahead {
    runt_session *session;
    int32_t n_drafts; /* always so many, or RUNT_LOOKAHEAD_AUTO */
    struct sequence *seqs;
    struct draft_cache cache;
    struct pace pace;
    struct runt_step *steps; /* [n_seqs], of the pass */
    size_t n_steps;
    double seconds; /* of the last pass, 0 when it is settled or does not count */
    uint64_t n_drafted, n_accepted;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int runt_lookahead_new(runt_session *s, int32_t n_drafts, runt_lookahead **out,
                       struct runt_err *err)
{
    uint32_t n_seqs = runt_session_n_seqs(s), n_ctx = runt_session_n_ctx(s);
    if (n_drafts < RUNT_LOOKAHEAD_AUTO || n_drafts > RUNT_LOOKAHEAD_MAX)
        return err_set(err, RUNT_E_INVALID, "%d drafts: from 1 to %d, or %d for auto",
                       n_drafts, RUNT_LOOKAHEAD_MAX, RUNT_LOOKAHEAD_AUTO);
    runt_lookahead *l = mem_zalloc(sizeof *l);
    if (!l)
        return err_nomem(err, "looking ahead");
    l->session = s;
    l->n_drafts = n_drafts;
    l->seqs = mem_array(n_seqs, sizeof *l->seqs);
    l->steps = mem_array(n_seqs, sizeof *l->steps);
    bool ok =
        l->seqs && l->steps && draft_cache_init(&l->cache, (size_t)n_seqs * n_ctx);
    for (uint32_t i = 0; i < n_seqs && ok; i++) {
        l->seqs[i].limit = RUNT_LOOKAHEAD_MAX;
        ok = draft_index_init(&l->seqs[i].index, n_ctx);
    }
    if (!ok) {
        runt_lookahead_free(l);
        return err_nomem(err, "looking ahead");
    }
    *out = l;
    return 0;
}

void runt_lookahead_free(runt_lookahead *l)
{
    if (!l)
        return;
    for (uint32_t i = 0; l->seqs && i < runt_session_n_seqs(l->session); i++)
        draft_index_free(&l->seqs[i].index);
    draft_cache_free(&l->cache);
    mem_free(l->seqs);
    mem_free(l->steps);
    mem_free(l);
}

/* ---- thinking of drafts ---- */

static unsigned class_of_match(size_t n)
{
    static const unsigned char from[N_LENGTHS] = {2, 3, 4, 5, 7, 10, 16};
    unsigned c = N_LENGTHS - 1;
    while (c && n < from[c])
        c--;
    return c;
}

/* Before anything was seen: long matches are right more often than not. */
static float chance_of(const struct sequence *q, unsigned class)
{
    bool long_match = class >= 3 && class < N_LENGTHS;
    return (q->right[class] + (long_match ? 1.0f : 0.5f)) / (q->tries[class] + 2);
}

/* Make the index hold the sequence's tokens and the one that is to be fed. */
static void catch_up(struct runt_lookahead *l, uint32_t seq, int32_t token)
{
    struct draft_index *x = &l->seqs[seq].index;
    const int32_t *t = runt_session_seq_tokens(l->session, seq);
    uint32_t pos = runt_session_seq_pos(l->session, seq), same = 0;
    if (x->n <= pos && !memcmp(x->tokens, t, x->n * sizeof *t))
        same = x->n;
    while (same < x->n && same < pos && x->tokens[same] == t[same])
        same++;
    draft_index_cut(x, same);
    for (uint32_t i = same; i < x->max && i <= pos; i++) {
        draft_index_put(x, i < pos ? t[i] : token);
        draft_cache_prefetch(&l->cache, x->tokens, x->n);
        draft_cache_put(&l->cache, x->tokens, x->n);
    }
}

static void vote(struct place *p, int32_t token, unsigned class)
{
    p->votes[p->n_votes++] = (struct vote){token, class};
}

/* The most likely vote; its chance. */
static float decide(const struct sequence *q, struct place *p)
{
    float best = 0;
    for (size_t i = 0; i < p->n_votes; i++) {
        float chance = chance_of(q, p->votes[i].class);
        if (chance <= best)
            continue;
        best = chance;
        p->token = p->votes[i].token;
    }
    return best;
}

/* Think of at most `most` places behind the end of the index.  A match goes on into the
 * drafts themselves where the text repeats itself with a short period. */
static void think(struct runt_lookahead *l, struct sequence *q, size_t most)
{
    struct draft_index *x = &q->index;
    uint32_t from = 0;
    size_t match = draft_index_match(x, &from);
    int32_t recent[DRAFT_ORDERS + RUNT_LOOKAHEAD_MAX]; /* the end, and the drafts */
    size_t n = x->n < DRAFT_ORDERS ? x->n : DRAFT_ORDERS, n_end = n;
    memcpy(recent, x->tokens + x->n - n, n * sizeof *recent);
    float chance = 1;
    q->n_places = 0;
    while (q->n_places < most) {
        struct place *p = &q->places[q->n_places];
        size_t k = q->n_places;
        p->n_votes = 0;
        if (match)
            vote(p,
                 from + k < x->n ? x->tokens[from + k]
                                 : recent[n_end + from + k - x->n],
                 class_of_match(match + k));
        for (unsigned order = DRAFT_ORDERS; order; order--) {
            int32_t token;
            unsigned sure;
            if (draft_cache_get(&l->cache, recent, n, order, &token, &sure))
                vote(p, token, N_LENGTHS + (order - 1) * DRAFT_SURE + sure);
        }
        chance *= decide(q, p);
        if (!p->n_votes)
            break;
        p->chance = chance;
        q->n_places++;
        if (chance < LEAST_CHANCE && l->n_drafts == RUNT_LOOKAHEAD_AUTO)
            break;
        if (match && p->token != p->votes[0].token)
            match = 0;
        recent[n++] = p->token;
    }
}

static void learn(struct sequence *q, const struct place *p, int32_t token)
{
    for (size_t i = 0; i < p->n_votes; i++) {
        unsigned c = p->votes[i].class;
        if (q->tries[c] >= MAX_TRIES) {
            q->tries[c] /= 2;
            q->right[c] /= 2;
        }
        q->tries[c]++;
        q->right[c] += p->votes[i].token == token;
    }
}

/* ---- choosing among them ---- */

/* The sequence whose next draft is likeliest; NULL when there is none. */
static struct sequence *likeliest(struct runt_lookahead *l)
{
    struct sequence *best = NULL;
    for (size_t i = 0; i < l->n_steps; i++) {
        struct sequence *q = &l->seqs[l->steps[i].seq];
        if (q->n_sent == q->n_places)
            continue;
        if (!best || q->places[q->n_sent].chance > best->places[best->n_sent].chance)
            best = q;
    }
    return best;
}

/* Draft by draft in the order of their chances; in the end as many as make the most
 * tokens a second. */
static void choose(struct runt_lookahead *l, size_t most)
{
    size_t n = l->n_steps, best = 0;
    double worth = likeliest(l) ? pace_worth(&l->pace, n) : 0;
    if (worth <= 0)
        return;
    double tokens = (double)n, least = worth * tokens / pace_plain(&l->pace, n);
    struct sequence *order[PACE_TOKENS], *q;
    for (size_t d = 0; d < most && n + d < PACE_TOKENS && (q = likeliest(l)); d++) {
        tokens += (double)q->places[q->n_sent++].chance;
        order[d] = q;
        double rate = tokens / pace_seconds(&l->pace, n + d + 1);
        if (rate > least) {
            least = rate;
            best = d + 1;
        }
    }
    for (size_t i = 0; i < n; i++)
        l->seqs[l->steps[i].seq].n_sent = 0;
    for (size_t d = 0; d < best; d++)
        order[d]->n_sent++;
}

static void send_always(struct runt_lookahead *l, size_t most)
{
    struct sequence *q;
    for (size_t d = 0; d < most && (q = likeliest(l)); d++)
        q->n_sent++;
}

/* ---- a pass ---- */

/* What the last pass was worth, now that its drafts are settled. */
static void settle(struct runt_lookahead *l)
{
    size_t n_drafts = 0, n_right = 0;
    for (size_t i = 0; i < l->n_steps; i++) {
        struct sequence *q = &l->seqs[l->steps[i].seq];
        n_drafts += q->n_sent;
        n_right += q->n_right;
        runt_lookahead_stop(l, l->steps[i].seq);
    }
    if (l->seconds > 0)
        pace_note(&l->pace, l->n_steps, n_drafts, n_right, l->seconds);
    l->n_drafted += n_drafts;
    l->n_accepted += n_right;
    l->n_steps = 0;
    l->seconds = 0;
}

static void prepare_nothing(struct sequence *q)
{
    q->n_places = q->n_sent = q->n_right = 0;
    q->open = false;
}

/* A step that reads a text, or that the session will refuse, gets no drafts.  True
 * where some were thought of. */
static bool prepare(struct runt_lookahead *l, const struct runt_step *step)
{
    runt_session *s = l->session;
    struct sequence *q = &l->seqs[step->seq];
    uint32_t pos = runt_session_seq_pos(s, step->seq), n_ctx = runt_session_n_ctx(s);
    prepare_nothing(q);
    if (step->n != 1 || pos >= n_ctx)
        return false;
    if (l->n_drafts == RUNT_LOOKAHEAD_AUTO && q->idle++ >= PATIENCE && q->idle % NAP)
        return false;
    catch_up(l, step->seq, step->tokens[0]);
    size_t most = n_ctx - pos - 1;
    if (most > q->limit)
        most = q->limit;
    if (l->n_drafts && most > (size_t)l->n_drafts)
        most = (size_t)l->n_drafts;
    think(l, q, most);
    return true;
}

/* Put the drafts behind their tokens; count rows. */
static void compose(struct runt_lookahead *l)
{
    size_t row = 0;
    for (size_t i = 0; i < l->n_steps; i++) {
        struct runt_step *step = &l->steps[i];
        struct sequence *q = &l->seqs[step->seq];
        size_t rows = step->n_logits ? step->n_logits : 1;
        if (q->n_sent) {
            q->fed[0] = step->tokens[0];
            for (size_t k = 0; k < q->n_sent; k++)
                q->fed[1 + k] = q->places[k].token;
            *step = (struct runt_step){step->seq, q->fed, 1 + q->n_sent, 1 + q->n_sent};
            rows = 1;
            q->open = true;
        }
        q->pos = runt_session_seq_pos(l->session, step->seq) +
                 (uint32_t)(step->n - q->n_sent);
        q->row = row + rows - 1;
        row += rows + q->n_sent;
    }
}

int runt_lookahead_step(runt_lookahead *l, const struct runt_step *steps,
                        size_t n_steps, struct runt_err *err)
{
    runt_session *s = l->session;
    size_t n_rows = 0;
    bool plain = true, awake = false;
    settle(l);
    for (size_t i = 0; i < n_steps; i++)
        if (n_steps > runt_session_n_seqs(s) || steps[i].seq >= runt_session_n_seqs(s))
            return runt_session_step(s, steps, n_steps, err); /* which says so */
    for (size_t i = 0; i < n_steps; i++) {
        plain &= steps[i].n == 1;
        n_rows += steps[i].n_logits ? steps[i].n_logits : 1;
        awake |= prepare(l, &steps[i]);
        l->steps[i] = steps[i];
    }
    l->n_steps = n_steps;
    size_t n_room = runt_session_n_logits(s),
           most = n_room > n_rows ? n_room - n_rows : 0;
    if (plain && l->n_drafts == RUNT_LOOKAHEAD_AUTO)
        choose(l, most);
    else if (plain)
        send_always(l, most);
    compose(l);
    double begin = awake ? now() : 0;
    int rc = runt_session_step(s, l->steps, n_steps, err);
    if (rc)
        for (size_t i = 0; i < n_steps; i++)
            prepare_nothing(&l->seqs[steps[i].seq]);
    else if (plain && awake)
        l->seconds = now() - begin;
    return rc;
}

const float *runt_lookahead_logits(const runt_lookahead *l, uint32_t seq)
{
    return runt_session_logits_at(l->session, l->seqs[seq].row);
}

bool runt_lookahead_take(runt_lookahead *l, uint32_t seq, int32_t token)
{
    struct sequence *q = &l->seqs[seq];
    size_t k = q->n_right;
    bool right = q->open && k < q->n_sent && q->places[k].token == token;
    if (k < q->n_places)
        learn(q, &q->places[k], token);
    if (right) {
        q->n_right++;
        q->pos++;
        q->row++;
        q->idle = 0;
    } else
        runt_lookahead_stop(l, seq);
    return right;
}

void runt_lookahead_stop(runt_lookahead *l, uint32_t seq)
{
    struct sequence *q = &l->seqs[seq];
    if (q->open && q->n_right < q->n_sent)
        runt_session_seq_rewind(l->session, seq, q->pos);
    q->open = false;
    q->n_places = 0; /* what comes next may be another text */
}

void runt_lookahead_limit(runt_lookahead *l, uint32_t seq, size_t n)
{
    l->seqs[seq].limit = n < RUNT_LOOKAHEAD_MAX ? n : RUNT_LOOKAHEAD_MAX;
}

void runt_lookahead_counts(const runt_lookahead *l, uint64_t *drafted,
                           uint64_t *accepted)
{
    *drafted = l->n_drafted;
    *accepted = l->n_accepted;
    for (size_t i = 0; i < l->n_steps; i++) { /* of the last pass */
        *drafted += l->seqs[l->steps[i].seq].n_sent;
        *accepted += l->seqs[l->steps[i].seq].n_right;
    }
}
