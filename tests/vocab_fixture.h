/* Vocabularies for tests of what is drawn: tokens given as bytes. */
#ifndef TESTS_VOCAB_FIXTURE_H
#define TESTS_VOCAB_FIXTURE_H

#include "tok/tok.h"

struct fixture_token {
    const char *bytes;
    size_t len;
    enum tok_kind kind;
};

/* A tokenizer of these tokens, without merges; NULL on any error.  tok_destroy it. */
struct tok *fixture_tok(const struct fixture_token *tokens, size_t n, int32_t eos);

/* The 256 bytes (ids 0 to 255), then `n_words` random runs of 2 to 5 bytes out of
 * `letters`, then an end of the text and a control token. */
struct tok *fixture_random_tok(const char *letters, size_t n_letters, size_t n_words,
                               uint64_t seed);

#endif
