/* Owns what a grammar makes of a vocabulary: which tokens may come next.
 *
 * The grammar is followed along the tree of the vocabulary, whose tokens share their
 * beginnings: a byte that the grammar refuses ends all tokens that go on with it.
 * Steps that were made once are table look-ups (matcher.c), so that even inside of a
 * string, where most of 50,257 tokens are allowed, all of them take 0.2 ms or so.  That
 * is little enough to filter first, always, and never to draw twice: what is picked is
 * what would be picked if the model knew no other tokens. */
#include "sample/grammar.h"
#include "sample/sample_impl.h"
#include "sample/vocab_tree.h"

#include "base/err.h"
#include "base/mem.h"

#include <string.h>

struct constraint {
    const struct vocab_tree *tree;
    struct matcher *matcher;
    const struct tok *tok;
    uint32_t state;
    uint32_t *path; /* by depth: the state before that byte */
    bool ended;     /* by a token that ends the text */
};

void constraint_free(struct constraint *c)
{
    if (!c)
        return;
    matcher_free(c->matcher);
    mem_free(c->path);
    mem_free(c);
}

void constraint_restart(struct constraint *c)
{
    c->state = matcher_start(c->matcher);
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
            rc = c->path ? 0 : err_nomem(err, "a grammar");
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

int constraint_filter(struct constraint *c, const float *logits, struct candidate *out,
                      size_t *n_out, struct runt_err *err)
{
    const struct vocab_tree *t = c->tree;
    size_t n = 0;
    c->state = matcher_trim(c->matcher, c->state);
    c->path[0] = c->state;
    for (size_t i = 0; i < t->n_nodes && !c->ended;) {
        const struct tree_node *node = &t->nodes[i];
        uint32_t state = matcher_step(c->matcher, c->path[node->depth], node->byte);
        if (state == STATE_NOWHERE) {
            i = node->skip;
            continue;
        }
        c->path[node->depth + 1] = state;
        for (uint32_t k = node[0].first_id; k < node[1].first_id; k++)
            out[n++] = (struct candidate){logits[t->ids[k]], t->ids[k]};
        i++;
    }
    if (c->ended || matcher_may_end(c->matcher, c->state))
        for (size_t i = 0; i < t->n_ends; i++)
            out[n++] = (struct candidate){logits[t->ends[i]], t->ends[i]};
    *n_out = n;
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
