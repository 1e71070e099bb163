/* Logits to a token, and grammars: what the rooms above need besides the public door.
 *
 * The sampler knows no model.  What it must know of one, the bytes of its tokens and
 * which tokens end a text, it is given here. */
#ifndef RUNT_SAMPLE_H
#define RUNT_SAMPLE_H

#include "runt/runt.h"
#include "tok/tok.h"

/* runt_sampler_new; with the tokenizer (or NULL), which must outlive the sampler, for
 * DRY's breakers. */
int sampler_new(const struct runt_sampler_options *o, uint32_t n_vocab,
                const struct tok *tok, runt_sampler **out, struct runt_err *err);

/* The tokens of a vocabulary by their bytes: a tree in which a grammar is followed
 * along many tokens at once.  Immutable; samplers share it. */
struct vocab_tree;
int vocab_tree_new(const struct tok *tok, struct vocab_tree **out,
                   struct runt_err *err);
void vocab_tree_free(struct vocab_tree *t); /* NULL is fine */

/* runt_sampler_constrain; the tokenizer and its tree must outlive the sampler. */
int sampler_constrain(runt_sampler *s, const struct tok *tok,
                      const struct vocab_tree *tree, const runt_grammar *g,
                      struct runt_err *err);

#endif
