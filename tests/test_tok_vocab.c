/* The tokenizer's vocabularies: what files and arrays it reads, which it refuses and in
 * what words, padding, folders, and failing allocations. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "tok_small.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void expect_err(int rc, const struct runt_err *err, int want, const char *part)
{
    if (rc != want || err->code != want || !strstr(err->msg, part))
        fail_msg("%d \"%s\" instead of %d \"%s\"", rc, err->msg, want, part);
}

static bool same_str(struct tok_str s, const char *z)
{
    return s.len == strlen(z) && !memcmp(s.data, z, s.len);
}

/* ---- vocab.json and merges.txt ---- */

static void test_parse(void **state)
{
    (void)state;
    static const char vocab[] = "{\"a\":0,\"b\":1,\"ab\":3,\"<|endoftext|>\":5,"
                                "\"\\u0120\":2,\"日\":6,\"\":7}";
    static const char merges[] = "#version: 0.2\r\na b\r\n\r\n";
    struct runt_err err = {0};
    struct tok_vocab v;
    struct tok *t;
    int rc = tok_vocab_parse(vocab, sizeof vocab - 1, merges, sizeof merges - 1, "m",
                             &v, &err);
    if (rc)
        fail_msg("%s", err.msg);
    assert_int_equal(v.n_tokens, 8);
    assert_int_equal(v.n_merges, 1);
    assert_true(same_str(v.tokens[3], "ab") && same_str(v.merges[0], "a b"));
    assert_true(same_str(v.tokens[4], "[PAD 4]"));
    assert_int_equal(v.kinds[4], TOK_UNUSED);
    assert_int_equal(v.kinds[5], TOK_CONTROL);
    assert_int_equal(v.kinds[6], TOK_NORMAL);
    assert_int_equal(v.bos, 5);
    assert_int_equal(v.eos, 5);
    assert_int_equal(tok_create(&v, "m", &t, &err), 0);
    tok_vocab_free(&v);
    size_t n;
    assert_memory_equal(tok_bytes(t, 2, &n), " ", 1);
    assert_int_equal(n, 1);
    assert_memory_equal(tok_bytes(t, 6, &n), "日", 3); /* stands for its UTF-8 */
    assert_int_equal(n, 3);
    expect_pieces(t, "ab ba", false, "ab| |b|a");
    tok_destroy(t);
    /* No merges, no version line, no last newline. */
    assert_int_equal(tok_vocab_parse("{\"a\":0}", 7, NULL, 0, "m", &v, &err), 0);
    assert_int_equal(v.n_merges, 0);
    assert_int_equal(v.eos, -1);
    tok_vocab_free(&v);
    assert_int_equal(tok_vocab_parse("{\"a\":0,\"aa\":1}", 14, "a a", 3, "m", &v, &err),
                     0);
    assert_int_equal(v.n_merges, 1);
    tok_vocab_free(&v);
}

static void test_parse_refuses(void **state)
{
    (void)state;
#define ABC "{\"a\":0,\"b\":1,\"ab\":2,\"c\":3,\"<|endoftext|>\":4}"
    static const struct {
        const char *vocab, *merges, *part;
    } cases[] = {
        {"", "", "m/vocab.json: bad JSON"},
        {"{", "", "m/vocab.json: bad JSON"},
        {"[]", "", "m/vocab.json: not an object"},
        {"{}", "", "m/vocab.json: 0 tokens"},
        {"{\"a\":0,\"a\":1}", "", "duplicate object key"},
        {"{\"a\":\"0\"}", "", "the id of \"a\" is not an integer"},
        {"{\"a\":0.0}", "", "the id of \"a\" is not an integer"},
        {"{\"a\":-1}", "", "the id of \"a\" is -1, outside 0..3999999"},
        {"{\"a\":4000000}", "", "is 4000000, outside"},
        {"{\"a\":9223372036854775807}", "", "outside"},
        {"{\"a\":99999999999999999999}", "", "bad JSON"},
        {"{\"a\":0,\"b\":0}", "", "\"a\" and \"b\" have one id, 0"},
        {"{\"a\":0,\"b\":1002}", "",
         "1001 of the ids 0..1002 are missing, more than 1000"},
        {ABC, "a b\na", "m/merges.txt: line 2: \"a\" is not two tokens and one space"},
        {ABC, "#version: 1\na b\n\nb c\n", "line 3: \"\" is not two"},
        {ABC, "a  b\n", "line 1: \"a  b\" is not two"},
        {ABC, " a\n", "line 1: \" a\" is not two"},
        {ABC, "a \n", "line 1: \"a \" is not two"},
        {ABC, "a b c\n", "line 1: \"a b c\" is not two"},
        {ABC, "a\tb\n", "line 1: \"a?b\" is not two"},
        {ABC, "a b\n#version: 1\n", "line 2: \"#version:\" is not in the vocabulary"},
        {ABC, "a b\nx b\n", "line 2: \"x\" is not in the vocabulary"},
        {ABC, "a b\na x\n", "line 2: \"x\" is not in the vocabulary"},
        {ABC, "a b\nb c\n", "line 2: its result \"bc\" is not in the vocabulary"},
        {ABC, "#version\na b\r\na b\r\n", "line 3: \"a b\" was already line 2"},
        {ABC, "<|endoftext|> a\n", "\"<|endoftext|>\" is a special token"},
        {"{\"<|\":0,\"endoftext|>\":1,\"<|endoftext|>\":2}", "<| endoftext|>\n",
         "its result \"<|endoftext|>\" is a special token"},
        {"{\"\\u0120\":0,\"日\":1,\"\\u0120日\":2}", "\u0120 日\n", "spelled unlike"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct runt_err err = {0};
        struct tok_vocab v = {.n_tokens = 77}, before = v;
        int rc =
            tok_vocab_parse(cases[i].vocab, strlen(cases[i].vocab), cases[i].merges,
                            strlen(cases[i].merges), "m", &v, &err);
        expect_err(rc, &err, RUNT_E_FORMAT, cases[i].part);
        assert_memory_equal(&v, &before, sizeof v);
    }
#undef ABC
}

static void test_missing_bytes(void **state)
{
    (void)state;
    struct runt_err err = {0};
    struct strbuf b = small_vocab("", 'q', "");
    struct tok_vocab v;
    struct tok *t;
    int32_t *ids = NULL;
    size_t n = 99;
    if (tok_vocab_parse(b.data, b.len, "", 0, "m", &v, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(tok_create(&v, "m", &t, &err), 0);
    expect_err(tok_encode(t, "abq", 3, false, &ids, &n, &err), &err, RUNT_E_UNSUPPORTED,
               "byte 0x71 at offset 2");
    char text[100];
    memset(text, 'q', sizeof text);
    expect_err(tok_encode(t, text, sizeof text, false, &ids, &n, &err), &err,
               RUNT_E_UNSUPPORTED, "byte 0x71 at offset 0");
    assert_true(!ids && n == 99);
    tok_destroy(t);
    v.tokens['q'] = (struct tok_str){"<unk>", 5};
    v.kinds['q'] = TOK_UNKNOWN;
    assert_int_equal(tok_create(&v, "m", &t, &err), 0);
    expect_pieces(t, "aqqb", true, "a|<unk>|<unk>|b");
    expect_pieces(t, "<unk>", true, "<|u|n|k|>");
    tok_destroy(t);
    tok_vocab_free(&v);
    sb_free(&b);
}

/* ---- tokenizer.json ---- */

#define PRE "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true}"
#define DEC "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}"
#define MODEL                                                                 \
    "{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"                  \
    "\"continuing_subword_prefix\":\"\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2," \
    "\"\\u0120\":3},"                                                         \
    "\"merges\":[\"a b\"]}"
#define FILE_OF(norm, pre, dec, model, added)                              \
    "{\"version\":\"1.0\",\"added_tokens\":" added ",\"normalizer\":" norm \
    ",\"pre_tokenizer\":" pre ",\"decoder\":" dec ",\"model\":" model "}"
#define MODEL_WITH(more) \
    "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[]" more "}"

static void test_json(void **state)
{
    (void)state;
    static const char *const files[] = {
        FILE_OF("null", PRE, DEC, MODEL, "[]"),
        FILE_OF("{\"type\":\"Sequence\",\"normalizers\":[]}",
                "{\"type\":\"Sequence\",\"pretokenizers\":[" PRE "]}",
                "{\"type\":\"Sequence\",\"decoders\":[" DEC "]}", MODEL, "null"),
        FILE_OF("null", PRE, DEC,
                "{\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\\u0120\":3},"
                "\"merges\":[[\"a\",\"b\"]]}",
                "[{\"id\":0,\"content\":\"a\",\"special\":false}]"),
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct runt_err err = {0};
        struct tok_vocab v;
        struct tok *t;
        if (tok_vocab_parse_json(files[i], strlen(files[i]), "t.json", &v, &err))
            fail_msg("%zu: %s", i, err.msg);
        assert_int_equal(v.n_tokens, 4);
        assert_int_equal(v.n_merges, 1);
        assert_true(same_str(v.merges[0], "a b"));
        assert_int_equal(tok_create(&v, "t", &t, &err), 0);
        expect_pieces(t, "ab a", false, "ab| |a");
        tok_destroy(t);
        tok_vocab_free(&v);
    }
}

static void test_json_added_tokens(void **state)
{
    (void)state;
    static const char file[] =
        FILE_OF("null", PRE, DEC,
                "{\"type\":\"BPE\",\"unk_token\":\"?\",\"merges\":[],"
                "\"vocab\":{\"a\":0,\"?\":1,\"<|endoftext|>\":2,\"b\":3}}",
                "[{\"id\":2,\"content\":\"<|endoftext|>\",\"special\":true},"
                "{\"id\":4,\"content\":\"[x y]\",\"special\":true,\"lstrip\":false},"
                "{\"id\":6,\"content\":\"é\",\"special\":false}]");
    struct runt_err err = {0};
    struct tok_vocab v;
    struct tok *t;
    if (tok_vocab_parse_json(file, sizeof file - 1, "t.json", &v, &err))
        fail_msg("%s", err.msg);
    static const int32_t kinds[] = {TOK_NORMAL,  TOK_UNKNOWN, TOK_CONTROL, TOK_NORMAL,
                                    TOK_CONTROL, TOK_UNUSED,  TOK_USER};
    assert_int_equal(v.n_tokens, 7);
    assert_memory_equal(v.kinds, kinds, sizeof kinds);
    assert_int_equal(v.eos, 2);
    assert_int_equal(tok_create(&v, "t", &t, &err), 0);
    expect_pieces(t, "aéb[x y]<|endoftext|>", true, "a|é|b|[x y]|<|endoftext|>");
    expect_pieces(t, "aéb", false, "a|?|?|b");
    tok_destroy(t);
    tok_vocab_free(&v);
}

static void test_json_refuses(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        int code;
        const char *part;
    } cases[] = {
        {"[]", RUNT_E_FORMAT, "t.json: no model"},
        {"{\"model\":3}", RUNT_E_FORMAT, "t.json: no model"},
        {"{\"model\":{\"type\":\"Unigram\"}}", RUNT_E_UNSUPPORTED,
         "model Unigram; only byte-level BPE"},
        {"{\"model\":{\"type\":\"WordPiece\"}}", RUNT_E_UNSUPPORTED, "WordPiece"},
        {FILE_OF("null", "null", "null", MODEL_WITH(",\"byte_fallback\":true"), "[]"),
         RUNT_E_UNSUPPORTED, "byte_fallback is set (SentencePiece style"},
        {FILE_OF("null", PRE, DEC, MODEL_WITH(",\"byte_fallback\":1"), "[]"),
         RUNT_E_FORMAT, "byte_fallback is not true or false"},
        {FILE_OF("null", PRE, DEC, MODEL_WITH(",\"ignore_merges\":true"), "[]"),
         RUNT_E_UNSUPPORTED, "ignore_merges is set"},
        {FILE_OF("null", PRE, DEC, MODEL_WITH(",\"dropout\":0.1"), "[]"),
         RUNT_E_UNSUPPORTED, "dropout 0.1"},
        {FILE_OF("null", PRE, DEC, MODEL_WITH(",\"end_of_word_suffix\":\"</w>\""),
                 "[]"),
         RUNT_E_UNSUPPORTED, "end_of_word_suffix is set"},
        {FILE_OF("null", PRE, DEC, MODEL_WITH(",\"unk_token\":\"a\",\"fuse_unk\":true"),
                 "[]"),
         RUNT_E_UNSUPPORTED, "fuse_unk is set"},
        {FILE_OF("{\"type\":\"NFC\"}", PRE, DEC, MODEL, "[]"), RUNT_E_UNSUPPORTED,
         "normalizer NFC"},
        {FILE_OF("null", "null", DEC, MODEL, "[]"), RUNT_E_UNSUPPORTED,
         "no pre_tokenizer"},
        {FILE_OF("null", PRE, "null", MODEL, "[]"), RUNT_E_UNSUPPORTED, "no decoder"},
        {FILE_OF("null", "{\"type\":\"Metaspace\"}", DEC, MODEL, "[]"),
         RUNT_E_UNSUPPORTED, "pre_tokenizer Metaspace; only GPT-2's ByteLevel"},
        {FILE_OF("null",
                 "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\"}," PRE
                 "]}",
                 DEC, MODEL, "[]"),
         RUNT_E_UNSUPPORTED, "pre_tokenizer Split; only GPT-2's ByteLevel"},
        {FILE_OF("null", "{\"type\":\"Sequence\",\"pretokenizers\":[" PRE "," PRE "]}",
                 DEC, MODEL, "[]"),
         RUNT_E_UNSUPPORTED, "pre_tokenizer has 2 ByteLevel steps"},
        {FILE_OF("null", "{\"type\":\"Sequence\",\"pretokenizers\":[]}", DEC, MODEL,
                 "[]"),
         RUNT_E_UNSUPPORTED, "pre_tokenizer Sequence"},
        {FILE_OF("null", "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}", DEC,
                 MODEL, "[]"),
         RUNT_E_UNSUPPORTED, "add_prefix_space is set"},
        {FILE_OF("null", "{\"type\":\"ByteLevel\",\"use_regex\":false}", DEC, MODEL,
                 "[]"),
         RUNT_E_UNSUPPORTED, "use_regex is false"},
        {FILE_OF("null", PRE, DEC, "{\"type\":\"BPE\"}", "[]"), RUNT_E_FORMAT,
         "model has no object of tokens"},
        {FILE_OF("null", PRE, DEC, "{\"type\":\"BPE\",\"vocab\":{\"a\":0}}", "[]"),
         RUNT_E_FORMAT, "model has no list of merges"},
        {FILE_OF("null", PRE, DEC, "{\"vocab\":{\"a\":0},\"merges\":[3]}", "[]"),
         RUNT_E_FORMAT, "merge 0 is not a pair of strings"},
        {FILE_OF("null", PRE, DEC, "{\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}", "[]"),
         RUNT_E_FORMAT, "merge 0 is not a pair of strings"},
        {FILE_OF("null", PRE, DEC, "{\"vocab\":{\"a\":0},\"merges\":[[\"a \",\"a\"]]}",
                 "[]"),
         RUNT_E_FORMAT, "t.json: merge 0: \"a  a\" is not two"},
        {FILE_OF("null", PRE, DEC, MODEL, "{}"), RUNT_E_FORMAT, "added_tokens is not"},
        {FILE_OF("null", PRE, DEC, MODEL, "[{\"id\":7}]"), RUNT_E_FORMAT,
         "added token 0 has no content"},
        {FILE_OF("null", PRE, DEC, MODEL, "[{\"content\":\"x\"}]"), RUNT_E_FORMAT,
         "the id of \"x\" is not an integer"},
        {FILE_OF("null", PRE, DEC, MODEL, "[{\"id\":0,\"content\":\"x\"}]"),
         RUNT_E_FORMAT, "\"a\" and \"x\" have one id, 0"},
        {FILE_OF("null", PRE, DEC, MODEL, "[{\"id\":7,\"content\":\"a\"}]"),
         RUNT_E_FORMAT, "tokens 0 and 7 are both \"a\""},
        {FILE_OF("null", PRE, DEC, MODEL,
                 "[{\"id\":7,\"content\":\"x\",\"lstrip\":true}]"),
         RUNT_E_UNSUPPORTED, "lstrip is set"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct runt_err err = {0};
        struct tok_vocab v = {.n_tokens = 77}, before = v;
        int rc = tok_vocab_parse_json(cases[i].file, strlen(cases[i].file), "t.json",
                                      &v, &err);
        expect_err(rc, &err, cases[i].code, cases[i].part);
        assert_memory_equal(&v, &before, sizeof v);
    }
}

/* ---- folders ---- */

static void put_file(const char *dir, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

static void drop_file(const char *dir, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(unlink(path), 0);
}

static void test_folder(void **state)
{
    (void)state;
    char dir[] = "/tmp/runt-test-tok-XXXXXX";
    struct runt_err err = {0};
    struct tok_vocab v;
    assert_non_null(mkdtemp(dir));
    expect_err(tok_vocab_load(dir, &v, &err), &err, RUNT_E_NOTFOUND,
               "neither vocab.json");
    put_file(dir, "tokenizer.json", FILE_OF("null", PRE, DEC, MODEL, "[]"));
    assert_int_equal(tok_vocab_load(dir, &v, &err), 0);
    assert_int_equal(v.n_tokens, 4);
    tok_vocab_free(&v);
    put_file(dir, "vocab.json", "{\"a\":0,\"aa\":1}");
    expect_err(tok_vocab_load(dir, &v, &err), &err, RUNT_E_NOTFOUND, "/merges.txt");
    put_file(dir, "merges.txt", "a a\nx y\n");
    expect_err(tok_vocab_load(dir, &v, &err), &err, RUNT_E_FORMAT,
               "/merges.txt: line 2");
    put_file(dir, "merges.txt", "#version: 0.2\na a\n");
    assert_int_equal(tok_vocab_load(dir, &v, &err), 0);
    assert_int_equal(v.n_tokens, 2);
    tok_vocab_free(&v);
    put_file(dir, "added_tokens.json",
             "{\"<|im_start|>\":2,\"  \":4,\"<|endoftext|>\":3,\"[s]\":5,\"<\":6}");
    assert_int_equal(tok_vocab_load(dir, &v, &err), 0);
    static const int32_t kinds[] = {TOK_NORMAL, TOK_NORMAL,  TOK_CONTROL, TOK_CONTROL,
                                    TOK_USER,   TOK_CONTROL, TOK_USER};
    assert_int_equal(v.n_tokens, 7);
    assert_memory_equal(v.kinds, kinds, sizeof kinds);
    assert_int_equal(v.eos, 3);
    tok_vocab_free(&v);
    put_file(dir, "added_tokens.json", "{\"x\":1}");
    expect_err(tok_vocab_load(dir, &v, &err), &err, RUNT_E_FORMAT,
               "/added_tokens.json: \"aa\" and \"x\" have one id, 1");
    drop_file(dir, "added_tokens.json");
    drop_file(dir, "merges.txt");
    drop_file(dir, "vocab.json");
    drop_file(dir, "tokenizer.json");
    rmdir(dir);
    expect_err(tok_vocab_load(dir, &v, &err), &err, RUNT_E_NOTFOUND, dir);
}

static void test_sentencepiece_is_refused(void **state)
{
    (void)state;
    const char *root = getenv("RUNT_TEST_DATA");
    if (!root || !*root)
        skip();
    struct runt_err err = {0};
    struct tok_vocab v;
    char *dir = mem_printf("%s/models/tinystories-656k", root);
    expect_err(tok_vocab_load(dir, &v, &err), &err, RUNT_E_UNSUPPORTED,
               "tokenizer.json: byte_fallback is set (SentencePiece style");
    mem_free(dir);
}

/* ---- arrays, as from a model file ---- */

static int create(struct tok_str *tokens, int32_t *kinds, size_t n,
                  struct tok_str merge, int32_t eos, struct runt_err *err)
{
    struct tok_vocab v = {n,   tokens, kinds, merge.len ? 1 : 0, &merge, -1,
                          eos, NULL,   NULL};
    struct tok *t = NULL;
    int rc = tok_create(&v, "x.gguf", &t, err);
    assert_true(rc ? !t : !!t);
    tok_destroy(t);
    return rc;
}

static void test_arrays(void **state)
{
    (void)state;
    static char long_name[300];
    memset(long_name, 'x', sizeof long_name);
    struct runt_err err = {0};
    const struct tok_str no = {0};
    struct tok_str t[] = {{"a", 1},        {"b", 1}, {NULL, 0}, {"\0\0", 2},
                          {"\xff\xfe", 2}, {"", 0},  {"ab", 2}};
    int32_t k[] = {1, 1, 1, 1, 1, 3, 1};
    enum { N = 7 };
    assert_int_equal(create(t, k, N, no, -1, &err), 0);
    assert_int_equal(create(t, k, N, (struct tok_str){"a b", 3}, N - 1, &err), 0);
    expect_err(create(t, k, 0, no, -1, &err), &err, RUNT_E_FORMAT, "x.gguf: 0 tokens");
    expect_err(create(t, k, 4000001, no, -1, &err), &err, RUNT_E_FORMAT,
               "4000001 tokens");
    expect_err(create(t, k, N, no, N, &err), &err, RUNT_E_FORMAT,
               "token -1 or 7, of 7");
    expect_err(create(t, k, N, no, -2, &err), &err, RUNT_E_FORMAT, "token -1 or -2");
    static const struct {
        const char *merge;
        size_t len;
    } bad[] = {{"ab", 2},   {"a ", 2},   {" b", 2},         {" ", 1},  {"a  b", 4},
               {"a b ", 4}, {"a \0", 3}, {"\xff\xfe a", 4}, {"b a", 3}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_err(
            create(t, k, N, (struct tok_str){bad[i].merge, bad[i].len}, -1, &err), &err,
            RUNT_E_FORMAT, "x.gguf: merge 0: ");
    static const struct {
        int32_t kind;
        int code;
        const char *part;
    } kinds[] = {
        {0, RUNT_E_FORMAT, "token 1 is of unknown kind 0"},
        {7, RUNT_E_FORMAT, "unknown kind 7"},
        {INT32_MIN, RUNT_E_FORMAT, "unknown kind -2147483648"},
        {TOK_BYTE, RUNT_E_UNSUPPORTED, "token 1 is of SentencePiece's byte kind"},
        {TOK_UNUSED, RUNT_E_FORMAT, "\"b\" is not in the vocabulary"},
        {TOK_CONTROL, RUNT_E_FORMAT, "\"b\" is a special token"},
        {TOK_UNKNOWN, RUNT_E_FORMAT, "\"b\" is a special token"}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        k[1] = kinds[i].kind;
        expect_err(create(t, k, N, (struct tok_str){"a b", 3}, -1, &err), &err,
                   kinds[i].code, kinds[i].part);
    }
    k[1] = TOK_USER; /* no harm: spelled alike */
    assert_int_equal(create(t, k, N, (struct tok_str){"a b", 3}, -1, &err), 0);
    t[4] = (struct tok_str){"a", 1};
    expect_err(create(t, k, N, no, -1, &err), &err, RUNT_E_FORMAT,
               "tokens 0 and 4 are both \"a\"");
    t[4] = (struct tok_str){"\u0120x", 3};
    k[4] = TOK_USER; /* "Ġx" in the text, not " x" */
    assert_int_equal(create(t, k, N, no, -1, &err), 0);
    t[4] = (struct tok_str){long_name, sizeof long_name};
    expect_err(create(t, k, N, no, -1, &err), &err, RUNT_E_UNSUPPORTED,
               "special token 4 has 300 bytes, more than 256");
    t[4] = (struct tok_str){"a", (size_t)1 << 40};
    expect_err(create(t, k, N, no, -1, &err), &err, RUNT_E_FORMAT, "in all");
    t[4] = (struct tok_str){"a", SIZE_MAX};
    expect_err(create(t, k, N, no, -1, &err), &err, RUNT_E_FORMAT, "in all");
}

/* Strings that an enemy chose to fall into one slot are refused, not waited for. */
static void test_crowded_hash(void **state)
{
    (void)state;
    enum { N = 600 };
    static char names[N][16];
    static struct tok_str tokens[N];
    static int32_t kinds[N];
    size_t n = 0;
    for (unsigned i = 0; n < N; i++) {
        int len = snprintf(names[n], sizeof *names, "t%u", i);
        if ((tok_hash(names[n], (size_t)len) & 2047) != 7)
            continue;
        tokens[n] = (struct tok_str){names[n], (size_t)len};
        kinds[n++] = TOK_NORMAL;
    }
    struct runt_err err = {0};
    expect_err(create(tokens, kinds, N, (struct tok_str){0}, -1, &err), &err,
               RUNT_E_FORMAT, "x.gguf: token 256: too many tokens hash alike");
    assert_int_equal(create(tokens, kinds, 200, (struct tok_str){0}, -1, &err), 0);
}

static void test_pad(void **state)
{
    (void)state;
    struct runt_err err = {0};
    struct tok_vocab v;
    struct tok *t;
    struct strbuf b = small_vocab("a b\n", -1, "");
    assert_int_equal(tok_vocab_parse(b.data, b.len, "a b\n", 4, "m", &v, &err), 0);
    sb_free(&b);
    assert_int_equal(tok_vocab_pad(&v, 10, &err), 0);
    assert_int_equal(v.n_tokens, 257);
    assert_int_equal(tok_vocab_pad(&v, 259, &err), 0);
    assert_int_equal(tok_vocab_pad(&v, 2000, &err), 0);
    assert_int_equal(v.n_tokens, 2000);
    assert_true(same_str(v.tokens[256], "ab") && same_str(v.merges[0], "a b"));
    assert_true(same_str(v.tokens[257], "[PAD 257]"));
    assert_true(same_str(v.tokens[1999], "[PAD 1999]"));
    assert_int_equal(v.kinds[1999], TOK_UNUSED);
    expect_err(tok_vocab_pad(&v, 4000001, &err), &err, RUNT_E_FORMAT, "4000001");
    assert_int_equal(tok_create(&v, "m", &t, &err), 0);
    assert_int_equal(tok_n_tokens(t), 2000);
    expect_pieces(t, "ab[PAD 1999]", true, "ab|[|P|A|D| |1|9|9|9|]");
    tok_destroy(t);
    tok_vocab_free(&v);
}

/* ---- allocations ---- */

/* Load a folder, a tokenizer.json, pad, build, encode short words, long ones and
 * special tokens.  Returns the first failure. */
static int do_everything(const char *dir, struct runt_err *err)
{
    static const char json[] = FILE_OF("null", PRE, DEC, MODEL, "[]");
    struct tok_vocab v = {.n_tokens = 77}, w = v;
    struct tok *t = NULL;
    int32_t *ids = NULL;
    size_t n_ids = 99;
    char text[400];
    memset(text, 'a', sizeof text);
    memcpy(text, "aa a <|endoftext|> a", 20);
    int rc = tok_vocab_load(dir, &v, err);
    if (rc) {
        assert_int_equal(v.n_tokens, 77);
        return rc;
    }
    rc = tok_vocab_parse_json(json, sizeof json - 1, "t.json", &w, err);
    if (rc)
        assert_int_equal(w.n_tokens, 77);
    else
        tok_vocab_free(&w);
    if (!rc)
        rc = tok_vocab_pad(&v, 300, err);
    assert_int_equal(v.n_tokens, rc ? 4 : 300);
    if (!rc)
        rc = tok_create(&v, "m", &t, err);
    assert_true(rc ? !t : !!t);
    if (!rc)
        rc = tok_encode(t, text, sizeof text, true, &ids, &n_ids, err);
    assert_true(rc ? !ids && n_ids == 99 : n_ids > 100);
    mem_free(ids);
    tok_destroy(t);
    tok_vocab_free(&v);
    return rc;
}

static void test_failing_allocations(void **state)
{
    (void)state;
    char dir[] = "/tmp/runt-test-tok-XXXXXX";
    int rc = RUNT_E_NOMEM;
    long n = 0, live = mem_live();
    assert_non_null(mkdtemp(dir));
    put_file(dir, "vocab.json", "{\"a\":0,\"aa\":1,\"\\u0120\":2}");
    put_file(dir, "merges.txt", "a a\n");
    put_file(dir, "added_tokens.json", "{\"<|endoftext|>\":3}");
    for (; rc; n++) {
        struct runt_err err = {0};
        mem_fail_after(n);
        rc = do_everything(dir, &err);
        mem_fail_after(-1);
        if (rc)
            expect_err(rc, &err, RUNT_E_NOMEM, "out of memory");
        assert_int_equal(mem_live(), live);
    }
    assert_true(n > 60);
    drop_file(dir, "added_tokens.json");
    drop_file(dir, "merges.txt");
    drop_file(dir, "vocab.json");
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_parse_refuses),
        cmocka_unit_test(test_missing_bytes),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_json_added_tokens),
        cmocka_unit_test(test_json_refuses),
        cmocka_unit_test(test_folder),
        cmocka_unit_test(test_sentencepiece_is_refused),
        cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_crowded_hash),
        cmocka_unit_test(test_pad),
        cmocka_unit_test(test_failing_allocations),
    };
    return cmocka_run_group_tests_name("tok vocab", tests, NULL, NULL);
}
