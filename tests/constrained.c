/* For test_schema.py: draws texts by JSON schemas from random logits.
 *
 *     constrained SEED N < schemas, one a line
 *
 * answers each with N lines: E and the error; T and the text as a JSON string; or L
 * when the text did not end.  The vocabulary is random runs of what JSON is made of;
 * logits are random, and push towards ends the longer a text is. */
#include "base/mem.h"
#include "base/rng.h"
#include "base/strbuf.h"
#include "sample/sample.h"
#include "vocab_fixture.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 3000 };

static const char letters[] = "\"\"\"{}[]:,0123456789.-eabcxyz \n\\tnul/ZT+"
                              "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80";

struct draw {
    struct tok *tok;
    struct vocab_tree *tree;
    uint32_t n_vocab;
    float *logits;
    struct rng rng;
};

static void fill_logits(struct draw *d, int step)
{
    float push = step > 400 ? 20 : step > 60 ? 4 : 0;
    for (uint32_t i = 0; i < d->n_vocab; i++) {
        size_t n;
        const char *bytes = tok_bytes(d->tok, (int32_t)i, &n);
        d->logits[i] = 2 * rng_normal(&d->rng);
        if (i + 2 >= d->n_vocab || (n == 1 && strchr("\"}]", *bytes)))
            d->logits[i] += push;
    }
}

/* One text. */
static int draw_text(struct draw *d, const runt_grammar *g, uint64_t seed,
                     struct strbuf *out, struct runt_err *err)
{
    struct runt_sampler_options o = runt_sampler_defaults();
    runt_sampler *s = NULL;
    int32_t id;
    o.seed = seed;
    o.temp = 1;
    o.top_k = seed % 2 ? 0 : 40;
    o.top_p = 1;
    o.min_p = 0;
    int rc = sampler_new(&o, d->n_vocab, d->tok, &s, err);
    if (!rc)
        rc = sampler_constrain(s, d->tok, d->tree, g, err);
    for (int step = 0; !rc && step < MAX_TOKENS; step++) {
        size_t n;
        fill_logits(d, step);
        rc = runt_sampler_pick(s, d->logits, &id, err);
        if (rc || id + 2 >= (int32_t)d->n_vocab)
            break;
        const char *bytes = tok_bytes(d->tok, id, &n);
        sb_put(out, bytes, n);
        if (step + 1 == MAX_TOKENS)
            rc = RUNT_E_FULL;
    }
    runt_sampler_free(s);
    return rc;
}

static void answer(struct draw *d, const char *line, size_t len, int n, uint64_t seed)
{
    struct runt_err err = {0};
    runt_grammar *g = NULL;
    int rc = runt_grammar_json_schema(line, len, &g, &err);
    for (int i = 0; i < n; i++) {
        struct strbuf text = {0};
        int rc_text = rc ? rc : draw_text(d, g, seed + (uint64_t)i, &text, &err);
        json_t *string = json_stringn(text.data ? text.data : "", text.len);
        char *dumped = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
        if (rc_text == RUNT_E_FULL && !rc)
            puts("L");
        else if (rc_text)
            printf("E %s\n", err.msg);
        else
            printf("T %s\n", dumped ? dumped : "(not UTF-8)");
        free(dumped);
        json_decref(string);
        sb_free(&text);
    }
    runt_grammar_free(g);
}

int main(int argc, char **argv)
{
    struct draw d = {0};
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    if (argc != 3)
        return 2;
    uint64_t seed = strtoull(argv[1], NULL, 10);
    d.tok = fixture_random_tok(letters, sizeof letters - 1, 500, seed);
    d.n_vocab = (uint32_t)tok_n_tokens(d.tok);
    d.logits = mem_array(d.n_vocab, sizeof *d.logits);
    rng_seed(&d.rng, seed);
    if (!d.logits || vocab_tree_new(d.tok, &d.tree, NULL))
        return 1;
    while ((len = getline(&line, &cap, stdin)) > 0)
        answer(&d, line, (size_t)len - (line[len - 1] == '\n'), atoi(argv[2]), seed++);
    free(line);
    vocab_tree_free(d.tree);
    tok_destroy(d.tok);
    mem_free(d.logits);
    return 0;
}
