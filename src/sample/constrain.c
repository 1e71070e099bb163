/* Owns what a grammar makes of a vocabulary: which tokens may come next.
 *
 * The grammar is followed along the tree of the vocabulary, whose tokens share their
 * beginnings: a byte that the grammar refuses ends all tokens that go on with it.
 * Steps that were made once are table look-ups (matcher.c), and where most tokens are
 * allowed, as inside of a string, the text stays in one state for long: what is allowed
 * in such a state is kept.  So filtering costs little enough to be done always, and
 * first: what is picked is what would be picked if the model knew no other tokens. */
#include "sample/matcher.h"
#include "sample/sample_impl.h"
#include "sample/vocab_tree.h"

#include "base/err.h"
#include "base/mem.h"

#include <string.h>

enum {
    N_KEPT = 16,     /* states whose tokens are kept; 6 kB each for GPT-2 */
    WORTH_IT = 1000, /* tokens, fewer are found quickly */
};

struct constraint {
    const struct vocab_tree *tree;
    struct matcher *matcher;
    const struct tok *tok;
    uint32_t state;
    uint32_t *path; /* by depth: the state before that byte */
    int32_t *ids;   /* [n_vocab]: what is allowed */
    bool ended;     /* by a token that ends the text */
    struct kept {
        uint32_t state;    /* STATE_NOWHERE: none */
        uint64_t *allowed; /* a bit a token */
    } kept[N_KEPT];
    size_t next_kept;
};

void constraint_free(struct constraint *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < N_KEPT; i++)
        mem_free(c->kept[i].allowed);
    matcher_free(c->matcher);
    mem_free(c->path);
    mem_free(c->ids);
    mem_free(c);
}

void constraint_restart(struct constraint *c)
{
    c->state = STATE_START;
    c->ended = false;
}

int sampler_constrain(runt_sampler *s, const struct tok *tok,
                      const struct vocab_tree *tree, const runt_grammar *g,
                      struct runt_err *err)
{
    struct constraint *c = NULL;
    if (g) {
        if (tree->n_vocab != s->n_vocab)
            return err_set(err, RUNT_E_INVALID,
                           "a grammar over %zu tokens for a sampler of %u",
                           tree->n_vocab, s->n_vocab);
        if (!tree->n_ends)
            return err_set(err, RUNT_E_UNSUPPORTED,
                           "no token of the vocabulary ends a text, so a grammar could "
                           "never end");
        c = mem_zalloc(sizeof *c);
        int rc = c ? matcher_new(g, &c->matcher, err) : err_nomem(err, "a grammar");
        if (!rc) {
            c->path = mem_array(tree->depth + 1, sizeof *c->path);
            c->ids = mem_array(tree->n_vocab, sizeof *c->ids);
            rc = c->path && c->ids ? 0 : err_nomem(err, "a grammar");
        }
        if (rc) {
            constraint_free(c);
            return rc;
        }
        c->tree = tree;
        c->tok = tok;
        constraint_restart(c);
    }
    constraint_free(s->constraint);
    s->constraint = c;
    return 0;
}

/* ---- what is allowed ---- */

static size_t n_words(const struct vocab_tree *t)
{
    return (t->n_vocab + 63) / 64;
}

/* Follow the grammar along the tree. */
static size_t walk_tree(struct constraint *c)
{
    const struct vocab_tree *t = c->tree;
    uint32_t *path = c->path;
    int32_t *out = c->ids;
    size_t n = 0;
    path[0] = c->state;
    for (size_t i = 0; i < t->n_nodes;) {
        const struct tree_node *node = &t->nodes[i];
        uint32_t state = matcher_step(c->matcher, path[node->depth], node->byte);
        if (state == STATE_NOWHERE) {
            i = node->skip;
            continue;
        }
        path[node->depth + 1] = state;
        uint32_t k = node[0].first_id, end = node[1].first_id;
        out[n] = t->ids[k]; /* none or one, nearly always: no guess to get wrong */
        n += k < end;
        for (k++; k < end; k++)
            out[n++] = t->ids[k];
        i++;
    }
    return n;
}

static const uint64_t *find_kept(const struct constraint *c)
{
    for (size_t i = 0; i < N_KEPT; i++)
        if (c->kept[i].state == c->state && c->kept[i].allowed)
            return c->kept[i].allowed;
    return NULL;
}

/* Nothing is lost when there is no memory. */
static void keep(struct constraint *c, const int32_t *ids, size_t n)
{
    struct kept *k = &c->kept[c->next_kept];
    if (!k->allowed)
        k->allowed = mem_array(n_words(c->tree), sizeof *k->allowed);
    if (!k->allowed)
        return;
    memset(k->allowed, 0, n_words(c->tree) * sizeof *k->allowed);
    for (size_t i = 0; i < n; i++)
        k->allowed[ids[i] >> 6] |= (uint64_t)1 << (ids[i] & 63);
    k->state = c->state;
    c->next_kept = (c->next_kept + 1) % N_KEPT;
}

static size_t spell_out(const uint64_t *allowed, size_t n_words, int32_t *out)
{
    size_t n = 0;
    for (size_t w = 0; w < n_words; w++)
        for (uint64_t bits = allowed[w]; bits; bits &= bits - 1)
            out[n++] = (int32_t)(64 * w) + __builtin_ctzll(bits);
    return n;
}

int constraint_filter(struct constraint *c, const int32_t **ids, size_t *n_ids,
                      struct runt_err *err)
{
    const struct vocab_tree *t = c->tree;
    size_t n = 0; /* after the end only what ends */
    if (matcher_trim(c->matcher, &c->state))
        for (size_t i = 0; i < N_KEPT; i++)
            c->kept[i].state = STATE_NOWHERE;
    const uint64_t *kept = find_kept(c);
    if (kept && !c->ended) {
        n = spell_out(kept, n_words(t), c->ids);
    } else if (!c->ended) {
        n = walk_tree(c);
        if (n >= WORTH_IT && !matcher_failed(c->matcher, NULL))
            keep(c, c->ids, n);
    }
    if (matcher_may_end(c->matcher, c->state)) /* then, and ever after */
        for (size_t i = 0; i < t->n_ends; i++)
            c->ids[n++] = t->ends[i];
    *ids = c->ids;
    *n_ids = n;
    return matcher_failed(c->matcher, err);
}

int constraint_advance(struct constraint *c, int32_t token, struct runt_err *err)
{
    size_t n;
    const char *bytes = tok_bytes(c->tok, token, &n);
    for (size_t i = 0; i < c->tree->n_ends; i++)
        c->ended |= c->tree->ends[i] == token;
    uint32_t state = c->state;
    for (size_t i = 0; i < n && !c->ended; i++)
        state = matcher_step(c->matcher, state, (uint8_t)bytes[i]);
    int rc = matcher_failed(c->matcher, err);
    if (!rc)
        c->state = state;
    return rc;
}
