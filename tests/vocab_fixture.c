#include "vocab_fixture.h"

#include "base/mem.h"
#include "base/rng.h"
#include "base/strbuf.h"
#include "base/utf8.h"
#include "tok/tok_impl.h"

#include <stdio.h>
#include <string.h>

static struct tok_str spell(const struct fixture_token *t)
{
    struct strbuf b = {0};
    for (size_t i = 0; i < t->len; i++) {
        char c[4];
        sb_put(&b, c, utf8_put(tok_byte_to_char((uint8_t)t->bytes[i]), c));
    }
    if (t->kind == TOK_CONTROL) { /* its name, as it is */
        b.len = 0;
        sb_put(&b, t->bytes, t->len);
    }
    return (struct tok_str){b.data, b.len};
}

struct tok *fixture_tok(const struct fixture_token *tokens, size_t n, int32_t eos)
{
    struct tok_vocab v = {.n_tokens = n, .bos = eos, .eos = eos};
    struct runt_err err = {0};
    struct tok *t = NULL;
    v.tokens = mem_array(n, sizeof *v.tokens);
    v.kinds = mem_array(n, sizeof *v.kinds);
    v.merges = mem_array(1, sizeof *v.merges);
    for (size_t i = 0; i < n; i++) {
        v.tokens[i] = spell(&tokens[i]);
        v.kinds[i] = tokens[i].kind;
    }
    if (tok_create(&v, "fixture", &t, &err))
        fprintf(stderr, "%s\n", err.msg);
    for (size_t i = 0; i < n; i++)
        mem_free((char *)v.tokens[i].data);
    mem_free(v.tokens);
    mem_free(v.kinds);
    mem_free(v.merges);
    return t;
}

static bool is_new(const struct fixture_token *tokens, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (tokens[i].len == tokens[n].len &&
            !memcmp(tokens[i].bytes, tokens[n].bytes, tokens[n].len))
            return false;
    return true;
}

struct tok *fixture_random_tok(const char *letters, size_t n_letters, size_t n_words,
                               uint64_t seed)
{
    size_t n = 256 + n_words + 2;
    struct fixture_token *tokens = mem_array(n, sizeof *tokens);
    char *bytes = mem_array(n, 5);
    struct rng r;
    rng_seed(&r, seed);
    for (size_t i = 0; i < n - 2; i++)
        do {
            size_t len = i < 256 ? 1 : 2 + rng_u64(&r) % 4;
            tokens[i] = (struct fixture_token){bytes + 5 * i, len, TOK_NORMAL};
            for (size_t k = 0; k < len; k++)
                bytes[5 * i + k] = i < 256 ? (char)i : letters[rng_u64(&r) % n_letters];
        } while (!is_new(tokens, i));
    tokens[n - 2] = (struct fixture_token){"<|end|>", 7, TOK_CONTROL};
    tokens[n - 1] = (struct fixture_token){"<|other|>", 9, TOK_CONTROL};
    struct tok *t = fixture_tok(tokens, n, (int32_t)n - 2);
    mem_free(bytes);
    mem_free(tokens);
    return t;
}
