/* Random grammars: written as GBNF and followed by the matcher, and matched a second
 * time on their trees by trying everything; and the choice of tokens against following
 * each token alone. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "base/strbuf.h"
#include "base/utf8.h"
#include "sample/matcher.h"
#include "sample/sample_impl.h"
#include "vocab_fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- random grammars ---- */

enum { N_RULES = 4, MAX_NODES = 200, MAX_TEXT = 24 };

/* Of one, two, three and four bytes; some begin with the same byte. */
static const uint32_t alphabet[] = {'a', 'b', 0xe9, 0xe8, 0x20ac, 0x1f600};
enum { N_LETTERS = sizeof alphabet / sizeof *alphabet };

enum kind { LITERAL, CLASS, SEQUENCE, CHOICE, REPEAT, RULE };

struct node {
    enum kind kind;
    int kids[3], n_kids;
    uint32_t letters; /* of a class, as bits; of a literal: one */
    int min, max;     /* of a repetition; max -1: no end */
    int rule;
};

struct tree {
    struct node nodes[MAX_NODES];
    int n, rules[N_RULES];
};

static int below(struct rng *r, int n)
{
    return (int)(rng_u64(r) % (uint64_t)n);
}

static int grow_node(struct tree *t, struct rng *r, int depth)
{
    if (t->n == MAX_NODES)
        return 0;
    int me = t->n++;
    struct node x = {.kind = (enum kind)below(r, depth > 4 ? 2 : 6)};
    switch (x.kind) {
    case LITERAL:
        x.letters = 1u << below(r, N_LETTERS);
        break;
    case CLASS:
        x.letters = 1 + (uint32_t)below(r, (1 << N_LETTERS) - 1);
        break;
    case SEQUENCE:
    case CHOICE:
        x.n_kids = below(r, 4);
        break;
    case REPEAT:
        x.n_kids = 1;
        x.min = below(r, 3);
        x.max = below(r, 2) ? -1 : x.min + below(r, 3);
        break;
    case RULE:
        x.rule = below(r, N_RULES);
        break;
    }
    for (int i = 0; i < x.n_kids; i++)
        x.kids[i] = grow_node(t, r, depth + 1);
    t->nodes[me] = x;
    return me;
}

static void put_letter(struct strbuf *b, uint32_t c)
{
    char s[4];
    if (c % 2)
        sb_printf(b, c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    else
        sb_put(b, s, utf8_put(c, s));
}

static void write_node(const struct tree *t, int i, struct strbuf *b)
{
    const struct node *x = &t->nodes[i];
    static const char *const open[] = {"\"", "[", "(", "(", "(", ""}, *const close[] = {
                                                                          "\"", "]",
                                                                          ")",  ")",
                                                                          ")",  ""};
    sb_str(b, open[x->kind]);
    if (x->kind == CLASS && x->letters % 3 == 0 && x->letters >> 1 & 1) {
        sb_char(b, '^'); /* the other letters; texts have no more than these */
        for (int k = 0; k < N_LETTERS; k++)
            if (!(x->letters >> k & 1))
                put_letter(b, alphabet[k]);
        sb_char(b, 'X');
    } else {
        for (int k = 0; k < N_LETTERS; k++)
            if (x->letters >> k & 1)
                put_letter(b, alphabet[k]);
    }
    for (int k = 0; k < x->n_kids; k++) {
        sb_str(b, k ? x->kind == CHOICE ? " | " : " " : "");
        write_node(t, x->kids[k], b);
    }
    sb_str(b, close[x->kind]);
    if (x->kind == RULE)
        sb_printf(b, x->rule ? "r%d" : "root", x->rule);
    if (x->kind == REPEAT && x->max < 0)
        sb_printf(b, "{%d,}", x->min);
    else if (x->kind == REPEAT)
        sb_printf(b, "{%d,%d}", x->min, x->max);
}

static void random_tree(struct tree *t, struct rng *r, struct strbuf *b)
{
    *t = (struct tree){0};
    b->len = 0;
    for (int i = 0; i < N_RULES; i++)
        t->rules[i] = grow_node(t, r, 0);
    for (int i = 0; i < N_RULES; i++) {
        sb_printf(b, i ? "r%d ::= " : "root ::= ", i);
        write_node(t, t->rules[i], b);
        sb_char(b, '\n');
    }
}

/* ---- the second matcher ---- */

struct text {
    const struct tree *tree;
    int letters[MAX_TEXT], n;
    uint64_t known[MAX_NODES][MAX_TEXT + 1]; /* ends, + the bit MAX_TEXT + 1 */
};

#define KNOWN ((uint64_t)1 << (MAX_TEXT + 1))

/* The places, as bits, where a match of node i that begins at `from` may end. */
static uint64_t ends(struct text *t, int i, int from);

static uint64_t ends_all(struct text *t, int i, uint64_t from)
{
    uint64_t out = 0;
    for (int k = 0; k <= t->n; k++)
        if (from >> k & 1)
            out |= ends(t, i, k);
    return out;
}

static uint64_t find_ends(struct text *t, const struct node *x, int from)
{
    uint64_t at = (uint64_t)1 << from, out = 0, seen = 0;
    switch (x->kind) {
    case LITERAL:
    case CLASS:
        return from < t->n && x->letters >> t->letters[from] & 1 ? at << 1 : 0;
    case SEQUENCE:
        for (int k = 0; k < x->n_kids; k++)
            at = ends_all(t, x->kids[k], at);
        return at;
    case CHOICE:
        for (int k = 0; k < x->n_kids; k++)
            out |= ends(t, x->kids[k], from);
        return x->n_kids ? out : at;
    case REPEAT:
        for (int k = 0; k < x->min; k++)
            at = ends_all(t, x->kids[0], at);
        for (int k = x->min; at & ~seen && (x->max < 0 || k < x->max); k++) {
            seen |= at;
            at |= ends_all(t, x->kids[0], at);
        }
        return at;
    case RULE:
        return ends(t, t->tree->rules[x->rule], from);
    }
    return 0;
}

static uint64_t ends(struct text *t, int i, int from)
{
    if (!(t->known[i][from] & KNOWN))
        t->known[i][from] = find_ends(t, &t->tree->nodes[i], from) | KNOWN;
    return t->known[i][from] & ~KNOWN;
}

static bool ref_takes(const struct tree *tree, const int *letters, int n)
{
    static struct text t;
    memset(&t, 0, sizeof t);
    t.tree = tree;
    t.n = n;
    memcpy(t.letters, letters, (size_t)n * sizeof *letters);
    return ends(&t, tree->rules[0], 0) >> n & 1;
}

static size_t spell(const int *letters, int n, char *out)
{
    size_t len = 0;
    for (int i = 0; i < n; i++)
        len += utf8_put(alphabet[letters[i]], out + len);
    return len;
}

/* Letters from here to an end of the text, as long as there are any; -1 when the text
 * may end, or is too long. */
static int next_letter(struct matcher *m, uint32_t *state, struct rng *r)
{
    int first = below(r, N_LETTERS);
    if (matcher_may_end(m, *state) && !below(r, 4))
        return -1;
    for (int k = 0; k < N_LETTERS; k++) {
        int letter = (first + k) % N_LETTERS;
        char s[4];
        size_t len = utf8_put(alphabet[letter], s);
        uint32_t next = *state;
        for (size_t i = 0; i < len; i++)
            next = matcher_step(m, next, (uint8_t)s[i]);
        if (next != STATE_NOWHERE) {
            *state = next;
            return letter;
        }
    }
    return -1;
}

/* A text along the grammar, or one that is changed a little, or any. */
static int random_text(const runt_grammar *g, struct rng *r, int letters[MAX_TEXT])
{
    struct matcher *m = NULL;
    uint32_t state = STATE_START;
    int n = 0, way = below(r, 3), letter;
    if (matcher_new(g, &m, NULL))
        fail();
    while (n < MAX_TEXT && way && (letter = next_letter(m, &state, r)) >= 0)
        letters[n++] = letter;
    matcher_free(m);
    for (; !way && n < MAX_TEXT && below(r, 8); n++)
        letters[n] = below(r, N_LETTERS);
    if (way == 2 && n)
        letters[below(r, n)] = below(r, N_LETTERS);
    if (way == 2 && n && below(r, 2))
        n--;
    return n;
}

/* From every state that is reached, some text ends. */
static void check_no_dead_end(struct matcher *m, uint32_t from)
{
    enum { MOST = 3000 };
    uint32_t *queue = malloc((MOST + 256) * sizeof *queue);
    uint8_t *seen = calloc(1 << 20, 1);
    size_t n = 1, i = 0;
    queue[0] = from;
    for (; i < n && n < MOST && !matcher_may_end(m, queue[i]); i++)
        for (int b = 0; b < 256; b++) {
            uint32_t next = matcher_step(m, queue[i], (uint8_t)b);
            if (next && next < 1 << 20 && !seen[next])
                queue[n++] = next;
            seen[next & ((1 << 20) - 1)] = 1;
        }
    assert_true(i < n);
    free(queue);
    free(seen);
}

static void random_grammars_match_both_ways(void **state)
{
    struct strbuf b = {0};
    struct rng r;
    struct tree t;
    int n_grammars = 0, n_taken = 0, n_refused = 0;
    (void)state;
    rng_seed(&r, 30);
    for (int round = 0; round < 3000; round++) {
        runt_grammar *g = NULL;
        struct runt_err err;
        random_tree(&t, &r, &b);
        if (runt_grammar_gbnf(b.data, b.len, &g, &err)) {
            if (!strstr(err.msg, "endless loop") &&
                !strstr(err.msg, "left recursion") &&
                !strstr(err.msg, "no text that ends"))
                fail_msg("%s: %s", b.data, err.msg);
            continue;
        }
        n_grammars++;
        struct matcher *m = NULL;
        assert_int_equal(matcher_new(g, &m, NULL), 0);
        for (int i = 0; i < 30; i++) {
            int letters[MAX_TEXT], n = random_text(g, &r, letters);
            char text[4 * MAX_TEXT];
            size_t len = spell(letters, n, text);
            uint32_t s = STATE_START;
            for (size_t k = 0; k < len; k++)
                s = matcher_step(m, s, (uint8_t)text[k]);
            bool expected = ref_takes(&t, letters, n);
            if (matcher_may_end(m, s) != expected)
                fail_msg("%s: '%.*s'", b.data, (int)len, text);
            *(expected ? &n_taken : &n_refused) += 1;
            if (i % 10 == 0 && s)
                check_no_dead_end(m, s);
        }
        assert_int_equal(matcher_failed(m, NULL), 0);
        matcher_free(m);
        runt_grammar_free(g);
    }
    print_message("%d grammars, %d texts taken, %d not\n", n_grammars, n_taken,
                  n_refused);
    assert_true(n_grammars > 600 && n_taken > 3000 && n_refused > 3000);
    sb_free(&b);
}

/* ---- tokens ---- */

/* Following one token alone, by a matcher of its own. */
static bool allowed_alone(const runt_grammar *g, const char *before, size_t n_before,
                          const char *token, size_t n_token)
{
    struct matcher *m = NULL;
    uint32_t s = STATE_START;
    assert_int_equal(matcher_new(g, &m, NULL), 0);
    for (size_t i = 0; i < n_before; i++)
        s = matcher_step(m, s, (uint8_t)before[i]);
    for (size_t i = 0; i < n_token; i++)
        s = matcher_step(m, s, (uint8_t)token[i]);
    matcher_free(m);
    return s != STATE_NOWHERE;
}

static bool may_end(const runt_grammar *g, const char *text, size_t n)
{
    bool out;
    assert_int_equal(matcher_test(g, text, n, &out, NULL), 0);
    return out;
}

static const char *const token_grammars[] = {
    "root ::= [^\"\\\\\\x00-\\x1f]+ \"!\"",
    "root ::= (\"\xc3\xa9\" | [a-c\xe2\x82\xac])* \"abc\"",
    "root ::= \"ab\" (\"abc\" | \"b\xc3\xa9\" | [^a] .)+",
    "root ::= \"{\" root* \"}\" | [ab\xf0\x9f\x98\x80]+ \".\"",
};

/* What may be picked is what a token-by-token test allows, at every step; and the pick
 * is that of the same sampler when all other tokens are banned: filtering comes first,
 * whatever the stages, for every seed. */
static void picks_are_those_of_filtering_first(void **state)
{
    static const char letters[] = "abc!.{}\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80";
    struct tok *tok = fixture_random_tok(letters, sizeof letters - 1, 400, 40);
    struct vocab_tree *tree = NULL;
    uint32_t n_vocab = (uint32_t)tok_n_tokens(tok);
    struct runt_logit_bias *bans = mem_array(n_vocab, sizeof *bans);
    float *l = mem_array(n_vocab, sizeof *l);
    struct rng r;
    int n_ended = 0, n_inside = 0;
    (void)state;
    rng_seed(&r, 41);
    assert_int_equal(vocab_tree_new(tok, &tree, NULL), 0);
    for (int round = 0; round < 48; round++) {
        const char *text = token_grammars[round % 4];
        struct runt_sampler_options o = runt_sampler_defaults();
        struct strbuf out = {0};
        runt_grammar *g = NULL;
        runt_sampler *s = NULL;
        o.seed = (uint64_t)round;
        o.temp = round % 3 ? 1 : 0;
        o.top_k = round % 5 * 10;
        o.typical_p = round % 2 ? 1 : 0.7f;
        o.repeat_penalty = 1.3f;
        o.mirostat = round % 7 == 6 ? 2 : 0;
        assert_int_equal(runt_grammar_gbnf(text, strlen(text), &g, NULL), 0);
        assert_int_equal(sampler_new(&o, n_vocab, tok, &s, NULL), 0);
        assert_int_equal(sampler_constrain(s, tok, tree, g, NULL), 0);
        for (int step = 0; step < 25; step++) {
            size_t n_bans = 0, len;
            int32_t id = -1, expected = -1;
            struct runt_sampler_options other = o;
            runt_sampler *plain = NULL;
            for (uint32_t i = 0; i < n_vocab; i++) {
                const char *bytes = tok_bytes(tok, (int32_t)i, &len);
                bool good = i + 2 < n_vocab
                                ? allowed_alone(g, out.data, out.len, bytes, len)
                                : may_end(g, out.data ? out.data : "", out.len);
                l[i] = 3 * rng_normal(&r) + (i + 2 >= n_vocab ? 2 : 0);
                if (!good)
                    bans[n_bans++] = (struct runt_logit_bias){(int32_t)i, -INFINITY};
            }
            other.bias = bans;
            other.n_bias = n_bans;
            assert_int_equal(sampler_new(&other, n_vocab, tok, &plain, NULL), 0);
            plain->rng = s->rng;
            plain->mu = s->mu;
            memcpy(plain->counts, s->counts, n_vocab * sizeof *s->counts);
            assert_int_equal(runt_sampler_pick(plain, l, &expected, NULL), 0);
            assert_int_equal(runt_sampler_pick(s, l, &id, NULL), 0);
            assert_int_equal(id, expected);
            runt_sampler_accept(s, id);
            runt_sampler_free(plain);
            if (id >= (int32_t)n_vocab - 2) {
                n_ended++;
                assert_int_equal(runt_sampler_pick(s, l, &id, NULL), 0);
                assert_true(id >= (int32_t)n_vocab - 2); /* and nothing else, ever */
                break;
            }
            const char *bytes = tok_bytes(tok, id, &len);
            sb_put(&out, bytes, len);
            n_inside += utf8_partial(out.data, out.len) > 0;
        }
        runt_sampler_free(s);
        runt_grammar_free(g);
        sb_free(&out);
    }
    print_message("%d ended, %d tokens ended inside of a character\n", n_ended,
                  n_inside);
    assert_true(n_ended > 15 && n_inside > 20);
    vocab_tree_free(tree);
    tok_destroy(tok);
    mem_free(bans);
    mem_free(l);
}

/* A long text makes many states, so that they are forgotten now and then; a matcher
 * that forgets nothing tells what is allowed. */
static void forgetting_states_changes_nothing(void **state)
{
    struct tok *tok = fixture_random_tok("abcd{", 5, 1000, 44);
    uint32_t n_vocab = (uint32_t)tok_n_tokens(tok), at = STATE_START;
    struct runt_sampler_options o = runt_sampler_defaults();
    struct strbuf b = {0};
    struct vocab_tree *tree = NULL;
    struct matcher *m = NULL;
    runt_grammar *g = NULL;
    runt_sampler *s = NULL;
    float *l = mem_array(n_vocab, sizeof *l);
    int n_many = 0;
    (void)state;
    /* one class of bytes for each character makes states large */
    sb_str(&b, "root ::= any{0,9} \"{\" root \"}\" | \" \"\nany ::= [^!-~]");
    for (char c = '!'; c <= '~'; c++)
        if (c != '{' && c != '}')
            sb_printf(&b, " | \"\\x%02x\"", (unsigned)c);
    o.temp = 1;
    o.top_k = 0;
    o.top_p = 1;
    o.min_p = 0;
    assert_int_equal(runt_grammar_gbnf(b.data, b.len, &g, NULL), 0);
    assert_int_equal(vocab_tree_new(tok, &tree, NULL), 0);
    assert_int_equal(sampler_new(&o, n_vocab, tok, &s, NULL), 0);
    assert_int_equal(sampler_constrain(s, tok, tree, g, NULL), 0);
    assert_int_equal(matcher_new(g, &m, NULL), 0);
    for (uint32_t i = 0; i < n_vocab; i++) { /* ever deeper */
        size_t len;
        const char *bytes = tok_bytes(tok, (int32_t)i, &len);
        l[i] = memchr(bytes, '{', len) ? 0 : -12;
    }
    for (int step = 0; step < 300; step++) {
        int32_t id = -1;
        size_t len, n_allowed = 0;
        assert_int_equal(runt_sampler_pick(s, l, &id, NULL), 0);
        for (uint32_t i = 0; i + 2 < n_vocab; i++) {
            uint32_t next = at;
            const char *bytes = tok_bytes(tok, (int32_t)i, &len);
            for (size_t k = 0; k < len; k++)
                next = matcher_step(m, next, (uint8_t)bytes[k]);
            n_allowed += next != STATE_NOWHERE;
        }
        n_allowed += matcher_may_end(m, at) ? 2 : 0;
        assert_int_equal(s->n, n_allowed);
        n_many += n_allowed >= 1000;
        const char *bytes = tok_bytes(tok, id, &len);
        for (size_t k = 0; k < len; k++)
            at = matcher_step(m, at, (uint8_t)bytes[k]);
        assert_true(at != STATE_NOWHERE);
    }
    assert_true(n_many > 100); /* of 300: their tokens are kept */
    matcher_free(m);
    runt_sampler_free(s);
    runt_grammar_free(g);
    vocab_tree_free(tree);
    tok_destroy(tok);
    sb_free(&b);
    mem_free(l);
}

/* A new text begins the grammar anew; another grammar, or none, takes its place. */
static void grammars_begin_again_and_change(void **state)
{
    struct tok *tok = fixture_random_tok("ab", 2, 10, 42);
    struct vocab_tree *tree = NULL;
    struct runt_sampler_options o = runt_sampler_defaults();
    uint32_t n_vocab = (uint32_t)tok_n_tokens(tok);
    runt_grammar *a = NULL, *b = NULL;
    runt_sampler *s = NULL;
    float *l = mem_array(n_vocab, sizeof *l);
    int32_t id;
    (void)state;
    l['c'] = 5;
    l['b'] = 4;
    l['a'] = 3;
    o.temp = 0;
    assert_int_equal(vocab_tree_new(tok, &tree, NULL), 0);
    assert_int_equal(runt_grammar_gbnf("root ::= \"ab\"", 13, &a, NULL), 0);
    assert_int_equal(runt_grammar_gbnf("root ::= \"b\"+", 13, &b, NULL), 0);
    assert_int_equal(sampler_new(&o, n_vocab, tok, &s, NULL), 0);
#define EXPECT(token)                                        \
    assert_int_equal(runt_sampler_pick(s, l, &id, NULL), 0); \
    assert_int_equal(id, token)
    EXPECT('c');
    assert_int_equal(sampler_constrain(s, tok, tree, a, NULL), 0);
    EXPECT('a');
    EXPECT('b');
    EXPECT((int32_t)n_vocab - 2);
    EXPECT((int32_t)n_vocab - 2);
    runt_sampler_accept(s, 'c'); /* a prompt: the grammar does not care */
    runt_sampler_forget(s);
    runt_sampler_accept(s, 'c');
    EXPECT('a');
    assert_int_equal(sampler_constrain(s, tok, tree, b, NULL), 0);
    EXPECT('b');
    EXPECT('b');
    assert_int_equal(sampler_constrain(s, tok, tree, NULL, NULL), 0);
    EXPECT('c');
#undef EXPECT
    runt_sampler_free(s);
    runt_grammar_free(a);
    runt_grammar_free(b);
    vocab_tree_free(tree);
    tok_destroy(tok);
    mem_free(l);
}

static void what_does_not_fit_is_refused(void **state)
{
    static const struct fixture_token only_a[] = {{"a", 1, TOK_NORMAL},
                                                  {"b", 1, TOK_NORMAL}},
                                      ends[] = {{"a", 1, TOK_NORMAL},
                                                {"<e>", 3, TOK_CONTROL},
                                                {"b", 1, TOK_NORMAL}};
    const float l[3] = {0, 0, 0};
    struct tok *endless = fixture_tok(only_a, 2, -1), *tok = fixture_tok(ends, 3, 1);
    struct vocab_tree *t1 = NULL, *t2 = NULL;
    struct runt_err err;
    runt_grammar *g = NULL;
    runt_sampler *s = NULL;
    int32_t id = -1;
    (void)state;
    assert_int_equal(runt_grammar_gbnf("root ::= \"ac\"", 13, &g, NULL), 0);
    assert_int_equal(vocab_tree_new(endless, &t1, NULL), 0);
    assert_int_equal(vocab_tree_new(tok, &t2, NULL), 0);
    assert_int_equal(sampler_new(NULL, 2, endless, &s, NULL), 0);
    assert_int_equal(sampler_constrain(s, endless, t1, g, &err), RUNT_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "ends a text"));
    assert_int_equal(sampler_constrain(s, tok, t2, g, &err), RUNT_E_INVALID);
    runt_sampler_free(s);
    s = NULL;
    assert_int_equal(sampler_new(NULL, 3, tok, &s, NULL), 0);
    assert_int_equal(sampler_constrain(s, tok, t2, g, &err), 0);
    assert_int_equal(runt_sampler_pick(s, l, &id, &err), 0);
    assert_int_equal(id, 0);
    assert_int_equal(runt_sampler_pick(s, l, &id, &err), RUNT_E_INVALID); /* no c */
    assert_non_null(strstr(err.msg, "cannot spell"));
    runt_sampler_free(s);
    runt_grammar_free(g);
    vocab_tree_free(t1);
    vocab_tree_free(t2);
    tok_destroy(endless);
    tok_destroy(tok);
}

/* Picks with every allocation failing in its turn: an error, or the tokens that come
 * with memory. */
static void no_memory_while_picking(void **state)
{
    static const char text[] = "root ::= [^{]{8} | \"{\" root \"}\"";
    struct tok *tok = fixture_random_tok("ab{}", 4, 1200, 43);
    uint32_t n_vocab = (uint32_t)tok_n_tokens(tok);
    float *l = mem_array(n_vocab, sizeof *l);
    int32_t expected[6] = {0};
    int n_failed = 0;
    long live = mem_live();
    (void)state;
    for (uint32_t i = 0; i < n_vocab; i++)
        l[i] = (float)(i * 7919 % 1000) / 100;
    for (long fail_at = -1; fail_at < 200; fail_at++) {
        struct vocab_tree *tree = NULL;
        runt_grammar *g = NULL;
        runt_sampler *s = NULL;
        assert_int_equal(sampler_new(NULL, n_vocab, tok, &s, NULL), 0);
        assert_int_equal(runt_grammar_gbnf(text, sizeof text - 1, &g, NULL), 0);
        mem_fail_after(fail_at);
        int rc = vocab_tree_new(tok, &tree, NULL);
        rc = rc ? rc : sampler_constrain(s, tok, tree, g, NULL);
        for (int i = 0; i < 6 && !rc; i++) {
            int32_t id = -1;
            rc = runt_sampler_pick(s, l, &id, NULL);
            if (fail_at < 0)
                expected[i] = id;
            else
                assert_int_equal(id, rc ? -1 : expected[i]);
        }
        mem_fail_after(-1);
        assert_true(!rc || rc == RUNT_E_NOMEM);
        n_failed += rc != 0;
        runt_sampler_free(s);
        runt_grammar_free(g);
        vocab_tree_free(tree);
        assert_int_equal(mem_live(), live);
    }
    print_message("%d failed\n", n_failed);
    assert_true(n_failed > 15 && n_failed < 200);
    mem_free(l);
    tok_destroy(tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_grammars_match_both_ways),
        cmocka_unit_test(picks_are_those_of_filtering_first),
        cmocka_unit_test(forgetting_states_changes_nothing),
        cmocka_unit_test(grammars_begin_again_and_change),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(no_memory_while_picking),
    };
    return cmocka_run_group_tests_name("grammar", tests, NULL, NULL);
}
