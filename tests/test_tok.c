/* The tokenizer at work: alphabet, pre-tokenizer, merges against a naive reference,
 * special tokens, round trips, and ids that other programs gave. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/js.h"
#include "base/rng.h"
#include "tok_small.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- characters ---- */

static void test_alphabet(void **state)
{
    (void)state;
    bool seen[324] = {0};
    for (unsigned b = 0; b < 256; b++) {
        uint32_t c = tok_byte_to_char((uint8_t)b);
        assert_true(c < 324 && !seen[c]);
        seen[c] = true;
        assert_int_equal(tok_char_to_byte(c), (int)b);
    }
    assert_int_equal(tok_byte_to_char('!'), '!');
    assert_int_equal(tok_byte_to_char('~'), '~');
    assert_int_equal(tok_byte_to_char(' '), 0x120);
    assert_int_equal(tok_byte_to_char('\n'), 0x10a);
    assert_int_equal(tok_byte_to_char(0), 0x100);
    assert_int_equal(tok_byte_to_char(0x7f), 0x121);
    assert_int_equal(tok_byte_to_char(0xa0), 0x142);
    assert_int_equal(tok_byte_to_char(0xad), 0x143);
    assert_int_equal(tok_byte_to_char(0xff), 0xff);
    for (uint32_t c = 0; c < 0x400; c++)
        assert_int_equal(tok_char_to_byte(c) >= 0, c < 324 && seen[c]);
    assert_int_equal(tok_char_to_byte(0x10ffff), -1);
}

/* `want` with bars where the text is cut. */
static void expect_cuts(const char *want)
{
    struct strbuf text = {0}, got = {0};
    for (const char *p = want; *p; p++)
        if (*p != '|')
            sb_char(&text, *p);
    for (size_t pos = 0, n; pos < text.len; pos += n) {
        n = tok_pre_next(text.data + pos, text.len - pos);
        assert_true(n > 0 && n <= text.len - pos);
        sb_str(&got, pos ? "|" : "");
        sb_put(&got, text.data + pos, n);
    }
    assert_string_equal(got.data, want);
    sb_free(&text);
    sb_free(&got);
}

static void test_pre_tokenizer(void **state)
{
    (void)state;
    static const char *const cases[] = {
        /* words, numbers, signs, each with at most one space before */
        "Hello| world", "Hello| | world|!!?", "a|1|b|22| c|3|.", "12|,| 345", "x|_|y",
        /* contractions: seven, lower case only, before anything else */
        "I|'m", "we|'re|'ve|'ll", "he|'s|'d| can|'t", "I|'|M", "he|'|S", "'s|a",
        "'ll|l", "'|l|'|r|'|v", "''|s", "a|'s|x", "'t|'t", "a| '|s", "'",
        /* white space: the last of a run goes to the word */
        " ", "   ", "a| ", "a|  ", "a| | b", "a|\n\n|\n|b", "a|\n|b", "\t|\n|x",
        "a| \n| b", "\n| b", "\r\n", "a|\r|\n|b", "a|\v\f|\v|b", "  | 1", "  | !",
        /* every White_Space character (a sign would take the space before it) ... */
        "a| |\xc2\x85|b", "a| |\u00a0|b", "a| |\u1680|b", "a|\u2000\u2001|\u200a|b",
        "a| |\u2028|b", "a| |\u2029|b", "a| |\u202f|b", "a| |\u205f|b", "a| |\u3000|b",
        "a| |\t|b", "a| |\v|b", "a| |\f|b", "a|\u3000\u3000| b", "a|\u3000",
        /* ... and some that only look like it */
        "a| \u200b|b", "a| \ufeff|b", "a| \u180e|b", "a| \x1c\x1f|b",
        "a| \u200b|\u3000", "a| \u2060|b", "a| \u200c|b",
        /* letters and numbers beyond ASCII; a combining mark is neither */
        "naïve| café", "Führer", "нещо| на", "日本語|、|日本", "e|\u0301|a", "½|x|²Ⅷ",
        "\u0661\u0662\u0663|ab", "𝒳𝒴|𝟘𝟙|𐍈", "🙂🙂| 🙂", "ªº", "\u0378|a",
        /* bytes that are not UTF-8: signs, one by one */
        "a|\xff|b", "a| \xff\xfe|b", "\xc3(", "a|\xc3", "\xe2\x82|a", "\xed\xa0\x80|a",
        "\xc0\xaf|1", "\xf4\x90\x80\x80|a", "\xf5|a", "\x80|a", "!\x80|é", "\xe3\x80",
        " \xe3\x80| ", "é|\xc3| é"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_cuts(cases[i]);
    assert_int_equal(tok_pre_next("\0\0a", 3), 2);
    assert_int_equal(tok_pre_next(" \0\0", 3), 3);
    assert_int_equal(tok_pre_next("  a", 2), 2); /* looks no further than told */
    assert_int_equal(tok_pre_next("'re", 2), 1);
}

/* ---- merges ---- */

static void test_merge_order(void **state)
{
    (void)state;
    struct tok *t = small_tok("a b\nb c\na a\naa a\nab c\n\u0120 x\n", "");
    expect_pieces(t, "", false, "");
    expect_pieces(t, "abc", false, "abc");
    expect_pieces(t, "bc", false, "bc");
    expect_pieces(t, "aab", false, "a|ab"); /* a b ranks before a a */
    expect_pieces(t, "aaa", false, "aaa");
    expect_pieces(t, "aaaa", false, "aa|aa"); /* all a a, then none for aa a */
    expect_pieces(t, "aaaaa", false, "aa|aaa");
    expect_pieces(t, "cab abc", false, "c|ab| |abc");
    expect_pieces(t, "x  x", false, "x| | x");
    expect_pieces(t, "é", false, "\xc3|\xa9");
    tok_destroy(t);
}

struct rule {
    char left[16], right[16];
};

/* GPT-2's loop as its authors wrote it, on strings. */
static char *naive_pieces(const struct rule *rules, size_t n_rules, const char *word)
{
    char(*s)[32] = mem_array(strlen(word), sizeof *s);
    size_t n = 0;
    for (; word[n]; n++)
        s[n][0] = word[n];
    for (;;) {
        size_t best = n_rules, k = 0;
        for (size_t i = 0; i + 1 < n; i++)
            for (size_t r = 0; r < best; r++)
                if (!strcmp(s[i], rules[r].left) && !strcmp(s[i + 1], rules[r].right))
                    best = r;
        if (best == n_rules)
            break;
        for (size_t i = 0; i < n; i++, k++) {
            memmove(s[k], s[i], sizeof *s);
            if (i + 1 < n && !strcmp(s[i], rules[best].left) &&
                !strcmp(s[i + 1], rules[best].right))
                strcat(s[k], s[++i]);
        }
        n = k;
    }
    struct strbuf b = {0};
    for (size_t i = 0; i < n; i++) {
        sb_str(&b, i ? "|" : "");
        sb_str(&b, s[i]);
    }
    mem_free(s);
    return b.data;
}

/* Random rules over the first letters; a rule may use earlier results.  When shuffled,
 * ranks no longer follow the order of making, as in a hostile file. */
static struct tok *random_rules(struct rng *rng, unsigned n_letters, bool shuffled,
                                struct rule *rules, size_t n_rules)
{
    struct strbuf lines = {0};
    size_t n_made = n_letters;
    char(*made)[16] = mem_array(n_letters + n_rules, sizeof *made);
    for (unsigned i = 0; i < n_letters; i++)
        made[i][0] = (char)('a' + i);
    for (size_t n = 0; n < n_rules;) {
        const char *l = made[rng_u64(rng) % n_made], *r = made[rng_u64(rng) % n_made];
        char both[32];
        snprintf(both, sizeof both, "%s%s", l, r);
        bool refused = strlen(both) > 15;
        for (size_t i = 0; i < n_made && !refused; i++)
            refused = !strcmp(made[i], both);
        if (refused)
            continue;
        memcpy(rules[n].left, l, sizeof rules->left);
        memcpy(rules[n++].right, r, sizeof rules->right);
        memcpy(made[n_made++], both, sizeof *made);
    }
    for (size_t i = n_rules; shuffled && i-- > 1;) {
        size_t k = rng_u64(rng) % (i + 1);
        struct rule x = rules[i];
        rules[i] = rules[k];
        rules[k] = x;
    }
    for (size_t i = 0; i < n_rules; i++)
        sb_printf(&lines, "%s %s\n", rules[i].left, rules[i].right);
    struct tok *t = small_tok(lines.data, "");
    sb_free(&lines);
    mem_free(made);
    return t;
}

static void compare_with_naive(struct rng *rng, unsigned n_letters, bool shuffled,
                               size_t n_rules, int n_words)
{
    struct rule *rules = mem_array(n_rules, sizeof *rules);
    struct tok *t = random_rules(rng, n_letters, shuffled, rules, n_rules);
    for (int i = 0; i < n_words; i++) {
        /* Both sides of SHORT_WORD; now and then few letters, so that runs occur. */
        char word[128];
        size_t n = 1 + rng_u64(rng) % (i % 2 ? 120 : 36);
        unsigned n_used = 1 + (unsigned)(rng_u64(rng) % n_letters);
        for (size_t k = 0; k < n; k++)
            word[k] = (char)('a' + rng_u64(rng) % n_used);
        word[n] = 0;
        char *want = naive_pieces(rules, n_rules, word);
        expect_pieces(t, word, false, want);
        mem_free(want);
    }
    tok_destroy(t);
    mem_free(rules);
}

static void test_merges_match_naive(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 20240229);
    for (int round = 0; round < 60; round++)
        compare_with_naive(&rng, 3, round % 3 == 2, 40, 12);
    compare_with_naive(&rng, 20, false, 5000, 12); /* more than 64 * 64 ranks */
    compare_with_naive(&rng, 20, true, 5000, 12);
}

/* ---- special tokens ---- */

/* A vocabulary of 256 bytes and these, from arrays. */
static struct tok *special_tok(const char *const names[], const int32_t kinds[],
                               size_t n)
{
    static char letters[256][2];
    struct tok_str tokens[300];
    int32_t all_kinds[300];
    struct runt_err err = {0};
    struct tok *t = NULL;
    for (unsigned b = 0; b < 256; b++) {
        uint32_t c = tok_byte_to_char((uint8_t)b);
        letters[b][0] = (char)(c < 128 ? c : 0xc0 | c >> 6);
        letters[b][1] = (char)(0x80 | (c & 63));
        tokens[b] = (struct tok_str){letters[b], c < 128 ? 1 : 2};
        all_kinds[b] = TOK_NORMAL;
    }
    for (size_t i = 0; i < n; i++) {
        tokens[256 + i] = (struct tok_str){names[i], strlen(names[i])};
        all_kinds[256 + i] = kinds[i];
    }
    struct tok_vocab v = {256 + n, tokens, all_kinds, 0, NULL, -1, -1, NULL, NULL};
    if (tok_create(&v, "special", &t, &err))
        fail_msg("%s", err.msg);
    return t;
}

static void test_special_tokens(void **state)
{
    (void)state;
    enum { N = 9 };
    static const char *const names[N] = {"<e>", "<e", "<e><e>!", "é e", "  ",
                                         "<f>", "zz", "<u>",     ""};
    static const int32_t kinds[N] = {TOK_CONTROL, TOK_USER,   TOK_USER,
                                     TOK_USER,    TOK_USER,   TOK_CONTROL,
                                     TOK_CONTROL, TOK_UNUSED, TOK_CONTROL};
    struct tok *t = special_tok(names, kinds, N);
    expect_pieces(t, "<e>", false, "<|e|>");
    expect_pieces(t, "<e>", true, "<e>");
    expect_pieces(t, "<e", true, "<e");
    expect_pieces(t, "<", true, "<");
    expect_pieces(t, "<e><e>", true, "<e>|<e>"); /* the longest one is cut short */
    expect_pieces(t, "<e><e>!", true, "<e><e>!");
    expect_pieces(t, "<e><e>?", true, "<e>|<e>|?");
    expect_pieces(t, "a<e<e>>", true, "a|<e|<e>|>");
    expect_pieces(t, "<f<f><ff>", true, "<|f|<f>|<|f|f|>");
    expect_pieces(t, "xé e", true, "x|é e");
    expect_pieces(t, "a   b", true, "a|  | |b"); /* leftmost */
    expect_pieces(t, "a   b", false, "a| | | |b");
    expect_pieces(t, "zzz", true, "zz|z"); /* leftmost */
    expect_pieces(t, "<u>", true, "<|u|>");
    static const char nul[] = "\0<e>\0";
    char *got = small_pieces(t, nul, 5, true);
    assert_memory_equal(got, "\0|<e>|\0", 8);
    mem_free(got);
    size_t n;
    assert_true(tok_is_control(t, 256) && !tok_is_control(t, 257) &&
                !tok_is_control(t, 'a') && !tok_is_control(t, -1) &&
                !tok_is_control(t, 256 + N));
    assert_int_equal(tok_find(t, "<e>", 3), 256);
    assert_int_equal(tok_find(t, "a", 1), 'a');
    assert_int_equal(tok_find(t, "\xff", 1), 0xff);
    assert_int_equal(tok_find(t, "ab", 2), -1);
    assert_int_equal(tok_find(t, "", 0), -1);
    assert_int_equal(tok_find(t, "<u>", 3), -1);
    assert_string_equal(tok_bytes(t, -1, &n), "");
    assert_int_equal(n, 0);
    assert_string_equal(tok_bytes(t, 256 + 7, &n), ""); /* unused */
    assert_int_equal(n, 0);
    assert_string_equal(tok_bytes(t, 256 + N, &n), "");
    assert_int_equal(n, 0);
    tok_destroy(t);
}

/* Random names over two letters, prefixes of each other; leftmost, then longest. */
static void test_special_tokens_match_naive(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 11);
    for (int round = 0; round < 200; round++) {
        enum { N = 12, LEN = 60 };
        char all[N][8] = {0}, text[LEN + 1] = {0};
        const char *names[N];
        int32_t kinds[N];
        size_t n = 0;
        while (n < N) {
            size_t len = 2 + rng_u64(&r) % 5;
            bool twice = false;
            memset(all[n], 0, sizeof *all);
            for (size_t i = 0; i < len; i++)
                all[n][i] = (char)('a' + rng_u64(&r) % 2);
            for (size_t i = 0; i < n; i++)
                twice = twice || !strcmp(all[i], all[n]);
            names[n] = all[n];
            kinds[n] = n % 2 ? TOK_CONTROL : TOK_USER;
            n += !twice;
        }
        for (size_t i = 0; i < LEN; i++)
            text[i] = (char)('a' + rng_u64(&r) % 16 / 7); /* seldom c */
        struct strbuf want = {0};
        for (size_t pos = 0; pos < LEN;) {
            size_t best = 0;
            for (size_t i = 0; i < N; i++)
                if (!strncmp(text + pos, names[i], strlen(names[i])) &&
                    strlen(names[i]) > best)
                    best = strlen(names[i]);
            best += best == 0;
            sb_str(&want, pos ? "|" : "");
            sb_put(&want, text + pos, best);
            pos += best;
        }
        struct tok *t = special_tok(names, kinds, N);
        expect_pieces(t, text, true, want.data);
        tok_destroy(t);
        sb_free(&want);
    }
}

static void test_plain_text_makes_no_control_token(void **state)
{
    (void)state;
    struct tok *t = small_tok("< |\ne n\nen d\n", ",\"<|endoftext|>\":259");
    int32_t *ids;
    size_t n;
    struct runt_err err;
    assert_int_equal(tok_eos(t), 259);
    assert_int_equal(tok_bos(t), 259);
    expect_pieces(t, "a<|endoftext|>", false, "a|<||end|o|f|t|e|x|t|||>");
    assert_int_equal(tok_encode(t, "a<|endoftext|>", 14, true, &ids, &n, &err), 0);
    assert_int_equal(n, 2);
    assert_int_equal(ids[1], 259);
    mem_free(ids);
    tok_destroy(t);
}

/* ---- round trips ---- */

static void expect_identity(const struct tok *t, const char *text, size_t n)
{
    struct runt_err err = {0};
    int32_t *ids;
    size_t n_ids, pos = 0, k;
    if (tok_encode(t, text, n, false, &ids, &n_ids, &err))
        fail_msg("%s", err.msg);
    for (size_t i = 0; i < n_ids; i++, pos += k) {
        const char *s = tok_bytes(t, ids[i], &k);
        if (tok_is_control(t, ids[i]) || !k || k > n - pos || memcmp(s, text + pos, k))
            fail_msg("id %d at byte %zu", ids[i], pos);
    }
    assert_int_equal(pos, n);
    mem_free(ids);
}

static void expect_identity_random(const struct tok *t)
{
    enum { N = 4 << 20 };
    static const struct {
        const char *letters;
        size_t n;
    } runs[] = {{"a", 1},      {" ", 1},           {"0", 1},
                {"etaoin", 6}, {" \n\xe3\x80", 4}, {"\0'", 2}};
    struct rng r;
    char *text = mem_alloc(N);
    rng_seed(&r, 7);
    for (size_t i = 0; i < N; i++)
        text[i] = (char)(rng_u64(&r) >> 40);
    expect_identity(t, text, N);
    for (size_t k = 0; k < sizeof runs / sizeof *runs; k++) {
        for (size_t i = 0; i < N / 16; i++)
            text[i] = runs[k].letters[rng_u64(&r) % runs[k].n];
        expect_identity(t, text, N / 16);
    }
    mem_free(text);
}

static void test_random_bytes(void **state)
{
    (void)state;
    struct tok *t = small_tok("a a\naa aa\ne t\n0 0\n\u0120 t\n\u00e3 \u0122\n", "");
    expect_identity_random(t);
    tok_destroy(t);
}

/* ---- real vocabularies ---- */

static struct tok *load_tok(const char *root, const char *path)
{
    struct runt_err err = {0};
    struct tok_vocab v;
    struct tok *t = NULL;
    char *dir = mem_printf("%s/%s", root, path);
    if (tok_vocab_load(dir, &v, &err))
        fail_msg("%s", err.msg);
    if (tok_create(&v, dir, &t, &err))
        fail_msg("%s", err.msg);
    tok_vocab_free(&v);
    mem_free(dir);
    return t;
}

static const char *data_root(void)
{
    const char *root = getenv("RUNT_TEST_DATA");
    if (!root || !*root)
        skip();
    return root;
}

static char *read_data(const char *path, size_t *n)
{
    struct runt_err err = {0};
    char *full = mem_printf("%s/%s", data_root(), path), *text = NULL;
    if (file_read(full, 1 << 28, &text, n, &err))
        fail_msg("%s", err.msg);
    mem_free(full);
    return text;
}

static void expect_ids(const struct tok *t, const char *text, size_t n,
                       const int32_t *want, size_t n_want)
{
    struct runt_err err = {0};
    int32_t *ids;
    size_t n_ids;
    if (tok_encode(t, text, n, false, &ids, &n_ids, &err))
        fail_msg("%s", err.msg);
    if (n_ids != n_want || memcmp(ids, want, n_ids * sizeof *ids))
        fail_msg("other ids for \"%.*s\"", (int)n, text);
    mem_free(ids);
}

static void test_own_model(void **state)
{
    (void)state;
    const char *root = getenv("RUNT_SOURCE_ROOT");
    if (!root)
        skip();
    static const char text[] = "One day, a little girl named Lily";
    static const int32_t ids[] = {960, 487, 11, 258, 589, 723, 916, 765};
    struct tok *t = load_tok(root, "tests/data/mini");
    assert_int_equal(tok_n_tokens(t), 1024);
    assert_int_equal(tok_eos(t), 1023);
    expect_ids(t, text, sizeof text - 1, ids, sizeof ids / sizeof *ids);
    expect_identity_random(t);
    tok_destroy(t);
}

static void test_oracle(void **state)
{
    (void)state;
    size_t n, n_want;
    char *text = read_data("oracle/tiny-gpt2.json", &n);
    struct tok *t = load_tok(data_root(), "models/tiny-gpt2");
    struct runt_err err = {0};
    json_t *o;
    if (js_parse(text, n, "oracle", &o, &err))
        fail_msg("%s", err.msg);
    const json_t *list = json_object_get(o, "tokens");
    const char *prompt = js_get_str(o, "prompt");
    n_want = json_array_size(list);
    assert_true(prompt && n_want > 50);
    int32_t *want = mem_array(n_want, sizeof *want);
    for (size_t i = 0; i < n_want; i++)
        want[i] = (int32_t)json_integer_value(json_array_get(list, i));
    expect_ids(t, prompt, strlen(prompt), want, n_want);
    mem_free(want);
    json_decref(o);
    tok_destroy(t);
    mem_free(text);
}

static void test_gpt2_vectors(void **state)
{
    (void)state;
    static const char cut[] = "\n__ggml_vocab_test__\n";
    size_t n_in, n_out, n_cases = 0;
    char *in = read_data("tokenizer/vectors/gpt2.inp", &n_in);
    char *out = read_data("tokenizer/vectors/gpt2.out", &n_out), *line = out;
    struct tok *t = load_tok(data_root(), "tokenizer/gpt2");
    assert_int_equal(tok_n_tokens(t), 50257);
    assert_int_equal(tok_eos(t), 50256);
    for (char *s = in, *end; (end = strstr(s, cut)); s = end + sizeof cut - 1) {
        int32_t want[1024];
        size_t n = 0;
        char *line_end = strchr(line, '\n');
        assert_non_null(line_end);
        for (char *rest; line < line_end && n < 1024; line = rest) {
            long id = strtol(line, &rest, 10);
            if (rest == line || rest > line_end)
                break;
            want[n++] = (int32_t)id;
        }
        expect_ids(t, s, (size_t)(end - s), want, n);
        line = line_end + 1;
        n_cases++;
    }
    assert_true(n_cases > 40);
    assert_true(line == out + n_out);
    tok_destroy(t);
    mem_free(in);
    mem_free(out);
}

static void test_gpt2_round_trip(void **state)
{
    (void)state;
    size_t n;
    char *wiki = read_data("eval/wiki.test.raw", &n);
    struct tok *t = load_tok(data_root(), "tokenizer/gpt2");
    int32_t *ids;
    size_t n_ids;
    struct runt_err err = {0};
    expect_identity(t, wiki, n);
    assert_int_equal(tok_encode(t, wiki, n, false, &ids, &n_ids, &err), 0);
    assert_int_equal(n_ids, 286221); /* so says a second program, in Python */
    mem_free(ids);
    expect_identity_random(t);
    mem_free(wiki);
    tok_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alphabet),
        cmocka_unit_test(test_pre_tokenizer),
        cmocka_unit_test(test_merge_order),
        cmocka_unit_test(test_merges_match_naive),
        cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_special_tokens_match_naive),
        cmocka_unit_test(test_plain_text_makes_no_control_token),
        cmocka_unit_test(test_random_bytes),
        cmocka_unit_test(test_own_model),
        cmocka_unit_test(test_oracle),
        cmocka_unit_test(test_gpt2_vectors),
        cmocka_unit_test(test_gpt2_round_trip),
    };
    return cmocka_run_group_tests_name("tok", tests, NULL, NULL);
}
