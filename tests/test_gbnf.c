/* GBNF: what texts grammars take, what is refused and where, and random grammars
 * against a second matcher, which tries everything. */
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

#include <stdlib.h>
#include <string.h>

static runt_grammar *read(const char *text)
{
    runt_grammar *g = NULL;
    struct runt_err err;
    if (runt_grammar_gbnf(text, strlen(text), &g, &err))
        fail_msg("%s: %s", text, err.msg);
    return g;
}

static bool takes_n(const runt_grammar *g, const char *text, size_t n)
{
    bool out = false;
    struct runt_err err;
    if (matcher_test(g, text, n, &out, &err))
        fail_msg("%s: %s", text, err.msg);
    return out;
}

static bool takes(const runt_grammar *g, const char *text)
{
    return takes_n(g, text, strlen(text));
}

/* ---- what grammars take ---- */

static const struct {
    const char *grammar, *good, *bad; /* texts, each ended by '|' */
} table[] = {
    {"root ::= \"a\"", "a|", "|b|aa|A|"},
    {"root ::= \"\"", "|", "a|"},
    {"root ::=", "|", "a|"},
    {"root ::= | \"a\"", "|a|", "aa|"},
    {"root ::= \"a\" |", "|a|", "aa|"},
    {"root::=\"a\"\"b\"  \t \"c\" # comment", "abc|", "ab|"},
    {"# first\n\n  # second\nroot ::= x # third\n#\nx ::= \"1\"\n\n", "1|", "x|"},
    {"root ::= \"a\" | \"b\" |\n  \"c\"\n  | \"d\"\r\nx ::= \"e\"", "a|b|c|d|", "e|"},
    {"root ::=\n  \"a\"\n", "a|", ""},
    {"root ::= ( # one\n \"a\"\n \"b\"\n |\n\n \"c\" )\n", "ab|c|", "a|abc|"},
    {"root ::= \"ab\"*", "|ab|abab|", "a|aba|abb|"},
    {"root ::= \"ab\"+ \"c\"?", "ab|ababc|", "|c|abcc|"},
    {"root ::= \"a\"? \"a\"?", "|a|aa|", "aaa|"},
    {"root ::= \"a\"{2}", "aa|", "|a|aaa|"},
    {"root ::= \"a\"{2,}", "aa|aaaaa|", "a|"},
    {"root ::= \"a\"{1,3}", "a|aaa|", "|aaaa|"},
    {"root ::= \"a\"{ 0 , 2 }", "|aa|", "aaa|"},
    {"root ::= \"a\"{0} \"b\"", "b|", "ab|"},
    {"root ::= (\"a\" | \"bc\"){2}", "aa|abc|bcbc|", "a|bc|aab|"},
    {"root ::= \"a\"{2}{3}", "aaaaaa|", "aaaaa|aa|"},
    {"root ::= (\"a\"?){3}", "|a|aaa|", "aaaa|"},
    {"root ::= [abc]", "a|c|", "d|ab|^|"},
    {"root ::= [ecag-i]", "a|c|e|g|i|", "b|d|f|j|"},
    {"root ::= [^abc]", "d|\xc3\xa9|\n|", "a||dd|"},
    {"root ::= [a-cx-z]+", "abcxyz|", "d|"},
    {"root ::= [-a]+ [a-]", "-a-|--|", "-b|"},
    {"root ::= [\\]\\\\\\-\\^\\[]+", "]\\-^[|", "a|"},
    {"root ::= [\\x41\\u00e9\\U0001F600]+", "A\xc3\xa9\xf0\x9f\x98\x80|", "a|"},
    {"root ::= [^\\x00-\\x1f]", " |\x7f|", "\n|\t|"},
    {"root ::= \"\\x41\\n\\t\\r\\\"\\\\\\u00E9\\U0001f600\"",
     "A\n\t\r\"\\\xc3\xa9\xf0\x9f\x98\x80|", "A|"},
    {"root ::= \"\xc3\xa9\xe2\x82\xac\" [\xc3\xa0-\xc3\xbf]",
     "\xc3\xa9\xe2\x82\xac\xc3\xb1|", "\xc3\xa9\xe2\x82\xac|"},
    {"root ::= .", "a|\n|\xe2\x82\xac|\xf4\x8f\xbf\xbf|",
     "|ab|\xff|\xc0\x80|\xed\xa0\x80|\xf4\x90\x80\x80|\xe2\x82|"},
    {"root ::= my-rule_2 Rule3\nmy-rule_2 ::= \"x\"\nRule3 ::= \"y\"", "xy|", "x|"},
    {"root ::= \"(\" root \")\" | \"\"", "|()|((()))|", "(|)|(()|())|"},
    {"root ::= e\ne ::= t (\"+\" t)*\nt ::= [0-9] | \"(\" e \")\"",
     "1|1+2|(1+2)+3|((1))|", "1+|()|(1|1+2)|"},
    /* as llama.cpp's documentation writes them */
    {"root ::= (\n # pawn or piece\n \"1. \" move \" \" move \"\\n\"\n"
     " ([1-9] [0-9]? \". \" move \" \" move \"\\n\")+\n)\n"
     "move ::= (pawn | nonpawn | castle) [+#]?\n"
     "pawn ::= ([a-h] \"x\")? [a-h] [1-8] (\"=\" [NBKQR])?\n"
     "nonpawn ::= [NBKQR] [a-h]? [1-8]? \"x\"? [a-h] [1-8]\n"
     "castle ::= \"O-O\" \"-O\"?",
     "1. e4 e5\n2. Nf3 Nc6\n|", "1. e4 e5\n|1. e9 e5\n2. a1 a2\n|"},
    /* one text in a power of 2 of ways */
    {"root ::= s\ns ::= \"x\" s \"y\" | \"x\" s \"y\" | \"x\" s \"z\" | \"\"",
     "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
     "yzyzyzyzyzyzyzyzyzyzyzyzyzyzyzyzyzyzyzyzyzyzyzyz|",
     "xxy|xxyzz|"},
    {"root ::= a a a a a a a a\na ::= \"x\"{0,8}",
     "|xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx|",
     "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx|"},
    {"root ::= (([ab]+)+ \"c\"?)+ \"!\"", "aabbabc!|abcabcabab!|", "!|c!|ab|"},
    {"root ::= x x\nx ::= \"a\" | y?\ny ::= x2 \"b\"\nx2 ::= \"\"", "|a|b|ab|ba|aa|bb|",
     "abb|"},
};

static void check_texts(const runt_grammar *g, const char *grammar, const char *texts,
                        bool expected)
{
    for (const char *p = texts; *p;) {
        size_t n = strcspn(p, "|");
        if (takes_n(g, p, n) != expected)
            fail_msg("%s: '%.*s'", grammar, (int)n, p);
        p += n + (p[n] == '|');
    }
}

static void grammars_take_their_texts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        runt_grammar *g = read(table[i].grammar);
        check_texts(g, table[i].grammar, table[i].good, true);
        check_texts(g, table[i].grammar, table[i].bad, false);
        runt_grammar_free(g);
    }
}

/* ---- what is refused ---- */

static const struct {
    const char *grammar, *where, *word;
} refused[] = {
    {"", "line 1 column 1", "no rule 'root'"},
    {"x ::= \"a\"\n", "line 2 column 1", "no rule 'root'"},
    {"root ::= x\n\n  # \n", "line 1 column 10", "'x' is not defined"},
    {"root ::= (\"a\"\n  | y) \"b\"", "line 2 column 5", "'y' is not defined"},
    {"root ::= \"a\"\nroot ::= \"b\"", "line 2 column 1", "defined twice"},
    {"root ::= \"a", "line 1 column 10", "literal"},
    {"root ::= \"a\n\"", "line 1 column 10", "literal"},
    {"root ::= [ab", "line 1 column 10", "class"},
    {"root ::= [a-\n]", "line 1 column 10", "class"},
    {"root ::= []", "line 1 column 10", "no character"},
    {"root ::= [^\\x00-\\U0010ffff]", "line 1 column 10", "no character"},
    {"root ::= [z-a]", "line 1 column 11", "range"},
    {"root ::= \"\\q\"", "line 1 column 11", "escape"},
    {"root ::= \"\\\xc3\xa9\"", "line 1 column 11", "escape"},
    {"root ::= \"\\x4\"", "line 1 column 13", "2 hexadecimal"},
    {"root ::= \"\\u12g4\"", "line 1 column 13", "4 hexadecimal"},
    {"root ::= \"\\ud800\"", "line 1 column 13", "no character"},
    {"root ::= \"\\U00110000\"", "line 1 column 13", "no character"},
    {"root ::= \"a\" )", "line 1 column 14", "end of the line"},
    {"root ::= (\"a\"", "line 1 column 10", "group"},
    {"root ::= (\"a\"\nx ::= \"b\"", "line 1 column 10", "group"},
    {"root ::= *", "line 1 column 10", "end of the line"},
    {"root ::= \"a\"{2", "line 1 column 15", "}"},
    {"root ::= \"a\"{,2}", "line 1 column 14", "number"},
    {"root ::= \"a\"{x}", "line 1 column 14", "number"},
    {"root ::= \"a\"{3,2}", "line 1 column 13", "larger"},
    {"root ::= \"a\"{99999999999}", "line 1 column 14", "more than"},
    {"root ::= \"a\"{1000000} \"b\"{1000000}", "line 1", "larger than"},
    {"root = \"a\"", "line 1 column 6", "::="},
    {"root\n::= \"a\"", "line 1 column 5", "::="},
    {"+ ::= \"a\"", "line 1 column 1", "name"},
    {"root ::= \"a\xff\"", "line 1 column 12", "UTF-8"},
    {"root ::= \"\xc3\xa9\" ! ", "line 1 column 14", "end of the line"},
    /* rules together */
    {"root ::= root \"a\" | \"b\"", "line 1 column 1", "left recursion"},
    {"root ::= x\nx ::= \"\" y \"a\"\ny ::= z | \"b\"\nz ::= x?", "", "left recursion"},
    {"root ::= \"a\"\n\nx ::= (x)", "line 3 column 1", "no text that ends"},
    {"root ::= \"a\" | x\nx ::= y \"b\" | \"c\"\ny ::= x | \"d\"", "",
     "left recursion"},
    {"root ::= (\"a\"?)*", "line 1 column 16", "endless loop"},
    {"root ::= \"a\"**", "line 1 column 14", "endless loop"},
    {"root ::= x+ \"b\"\nx ::= \"a\"*", "line 1 column 11", "endless loop"},
    {"root ::= x{2,}\nx ::= y y\ny ::= \"\" | \"a\"", "line 1 column 11",
     "endless loop"},
    {"root ::= \"\"*", "line 1 column 12", "endless loop"},
    {"root ::= \"a\" root", "line 1 column 1", "no text that ends"},
    {"root ::= \"a\" | x\nx ::= \"b\" y\ny ::= x \"c\"", "line 2 column 1",
     "no text that ends"},
};

static void faults_are_named_with_their_place(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const char *text = refused[i].grammar;
        struct runt_err err = {0};
        runt_grammar *g = NULL;
        int rc = runt_grammar_gbnf(text, strlen(text), &g, &err);
        if (rc != RUNT_E_FORMAT || g || !strstr(err.msg, refused[i].where) ||
            !strstr(err.msg, refused[i].word) ||
            (*refused[i].where && !strstr(err.msg, ": ")))
            fail_msg("%s: %d '%s'", text, rc, err.msg);
        assert_int_equal(runt_grammar_gbnf(text, strlen(text), &g, NULL),
                         RUNT_E_FORMAT);
    }
}

/* ---- sizes ---- */

static void put_many(struct strbuf *b, const char *text, int n)
{
    for (int i = 0; i < n; i++)
        sb_str(b, text);
}

static void sizes_are_bounded(void **state)
{
    struct strbuf b = {0};
    struct runt_err err;
    runt_grammar *g = NULL;
    (void)state;
    for (int depth = 128; depth <= 129; depth++) {
        b.len = 0;
        sb_str(&b, "root ::= ");
        put_many(&b, "(", depth);
        sb_str(&b, "\"a\"");
        put_many(&b, ")", depth);
        int rc = runt_grammar_gbnf(b.data, b.len, &g, &err);
        assert_int_equal(rc, depth == 128 ? 0 : RUNT_E_FORMAT);
        if (rc)
            assert_non_null(strstr(err.msg, "line 1 column 138: groups are nested"));
        else
            assert_true(takes(g, "a") && !takes(g, ""));
        runt_grammar_free(g);
        g = NULL;
    }
    b.len = 0; /* a long chain of rules, the last one first */
    for (int i = 50000; i; i--)
        sb_printf(&b, "r%d ::= r%d\n", i - 1, i);
    sb_str(&b, "r50000 ::= \"a\"\nroot ::= r0\n");
    assert_int_equal(runt_grammar_gbnf(b.data, b.len, &g, &err), 0);
    assert_true(takes(g, "a") && !takes(g, ""));
    runt_grammar_free(g);
    g = NULL;
    b.len = 0;
    put_many(&b, "#", (1 << 20) + 1);
    assert_int_equal(runt_grammar_gbnf(b.data, b.len, &g, &err), RUNT_E_FORMAT);
    assert_non_null(strstr(err.msg, "more than the limit"));
    sb_free(&b);
}

/* Nesting far beyond what is kept from token to token: states are forgotten on the way
 * in, and their stacks are still right on the way out. */
static void deep_texts_are_followed(void **state)
{
    enum { N = 100000 };
    runt_grammar *g = read("root ::= \"x\" root [yz] | \"x\" root \"z\" | \"\"");
    char *text = malloc(2 * N);
    (void)state;
    memset(text, 'x', N);
    for (int i = N; i < 2 * N; i++)
        text[i] = i % 3 ? 'y' : 'z';
    assert_true(takes_n(g, text, 2 * N));
    assert_false(takes_n(g, text, 2 * N - 1));
    assert_false(takes_n(g, text + 1, 2 * N - 1));
    free(text);
    runt_grammar_free(g);
}

/* ---- characters and bytes ---- */

static void classes_are_exact_in_utf8(void **state)
{
    struct rng r;
    (void)state;
    rng_seed(&r, 20);
    for (int round = 0; round < 60; round++) {
        uint32_t lo[4], hi[4], probes[64];
        struct strbuf b = {0};
        size_t n_probes = 0;
        bool inverted = round % 2;
        sb_printf(&b, "root ::= [%s", inverted ? "^" : "");
        for (int i = 0; i < 4; i++) {
            do {
                lo[i] = (uint32_t)(rng_u64(&r) >> (43 + rng_u64(&r) % 15));
                hi[i] = lo[i] + (uint32_t)(rng_u64(&r) >> (44 + rng_u64(&r) % 20));
            } while (hi[i] > 0x10ffff || (lo[i] >= 0xd800 && lo[i] <= 0xdfff) ||
                     (hi[i] >= 0xd800 && hi[i] <= 0xdfff));
            sb_printf(&b, "\\U%08x-\\U%08x", lo[i], hi[i]);
            const uint32_t near[] = {lo[i] - 1,           lo[i],      lo[i] + 1,
                                     hi[i] - 1,           hi[i],      hi[i] + 1,
                                     (lo[i] + hi[i]) / 2, lo[i] | 63, hi[i] & ~63u,
                                     lo[i] | 0xfff};
            for (size_t k = 0; k < 10; k++)
                probes[n_probes++] = near[k];
        }
        sb_str(&b, "]");
        runt_grammar *g = read(b.data);
        for (size_t k = 0; k < n_probes; k++) {
            char c[4];
            bool in = inverted;
            if (probes[k] > 0x10ffff || (probes[k] >= 0xd800 && probes[k] <= 0xdfff))
                continue;
            for (int i = 0; i < 4; i++)
                if (probes[k] >= lo[i] && probes[k] <= hi[i])
                    in = !inverted;
            assert_int_equal(takes_n(g, c, utf8_put(probes[k], c)), in);
        }
        runt_grammar_free(g);
        sb_free(&b);
    }
}

/* The dot takes what is UTF-8 (base/utf8.c is a second opinion), nothing else. */
static void the_dot_is_one_character(void **state)
{
    runt_grammar *g = read("root ::= .");
    struct rng r;
    (void)state;
    rng_seed(&r, 21);
    for (int i = 0; i < 200000; i++) {
        char s[4];
        size_t n = 1 + rng_u64(&r) % 4;
        for (size_t k = 0; k < n; k++)
            s[k] = (char)(rng_u64(&r) % 4 ? (k ? 0x80 : 0xc0) | (rng_u64(&r) & 63)
                                          : rng_u64(&r));
        assert_int_equal(takes_n(g, s, n), utf8_len(s, n) == n);
    }
    runt_grammar_free(g);
}

/* ---- memory ---- */

static void no_memory_leaks_nothing(void **state)
{
    static const char text[] = "root ::= x+ | [^a-c\xc3\xa9]{2,5} y?\nx ::= \"ab\" . \n"
                               "y ::= \"(\" y \")\" | \"z\"";
    long live = mem_live();
    int rc = RUNT_E_NOMEM;
    (void)state;
    for (long i = 0; rc; i++) {
        struct runt_err err = {0};
        runt_grammar *g = NULL;
        bool good = false;
        mem_fail_after(i);
        rc = runt_grammar_gbnf(text, sizeof text - 1, &g, &err);
        if (!rc)
            rc = matcher_test(g, "de(((z)))", 9, &good, &err);
        mem_fail_after(-1);
        assert_true(rc ? rc == RUNT_E_NOMEM && !good : good);
        assert_true(rc == 0 || strstr(err.msg, "memory"));
        runt_grammar_free(g);
        assert_int_equal(mem_live(), live);
        assert_true(i < 1000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grammars_take_their_texts),
        cmocka_unit_test(faults_are_named_with_their_place),
        cmocka_unit_test(sizes_are_bounded),
        cmocka_unit_test(deep_texts_are_followed),
        cmocka_unit_test(classes_are_exact_in_utf8),
        cmocka_unit_test(the_dot_is_one_character),
        cmocka_unit_test(no_memory_leaks_nothing),
    };
    return cmocka_run_group_tests_name("gbnf", tests, NULL, NULL);
}
