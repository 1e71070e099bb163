/* Dialogues: which bytes and tokens are answers, messages as text, what counts in a
 * window, and that the loss sees nothing else. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "train/data_impl.h"
#include "train/dialogue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CONTEXT = 8 };

static char folder[] = "/tmp/runt-dialogue-XXXXXX";
static struct tok *tok;
static struct runt_err err;

static const char *file(const char *name, const char *text)
{
    static char path[4][128];
    static int turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    FILE *f = fopen(p, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    fclose(f);
    return p;
}

/* ---- text ---- */

/* Answers in brackets; $ stands for the end of the document. */
static const char *marked(const char *text)
{
    static char out[512];
    size_t n = strlen(text), k = 0;
    struct dialogue_answer a = {0};
    for (size_t i = 0; i <= n; i++) {
        while (a.to <= i) {
            if (a.to && a.to == i && a.from < a.to)
                out[k++] = ']';
            dialogue_next(text, n, &a);
        }
        if (i == a.from)
            out[k++] = '[';
        out[k++] = i < n ? text[i] : '$';
    }
    if (a.to == n + 1)
        out[k++] = ']';
    out[k] = 0;
    return out;
}

static void what_an_answer_is(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"User: a\nBot: b", "User: a\nBot:[ b$]"},
        {"User: a\nBot: b\nUser: c", "User: a\nBot:[ b\nUser:] c$"},
        {"User: a\nBot: b\nmore\n\nUser: c\nBot: d",
         "User: a\nBot:[ b\nmore\n\nUser:] c\nBot:[ d$]"},
        {"Bot: a\nBot: b", "Bot:[ a\n]Bot:[ b$]"},
        {"Bot:", "Bot:[$]"},
        {"Bot: a\nUser:", "Bot:[ a\nUser:]$"},
        {"Bot:\nUser: a", "Bot:[\nUser:] a$"},
        {"preface\nBot: a", "preface\nBot:[ a$]"},
        {"User: say Bot: a\n Bot: b\nBot b", "User: say Bot: a\n Bot: b\nBot b$"},
        {"Bot: no User: here\nUsers: x\nUser", "Bot:[ no User: here\nUsers: x\nUser$]"},
        {"", "$"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(marked(cases[i].text), cases[i].want);
}

/* ---- messages ---- */

#define U(x) "{\"role\":\"user\",\"content\":\"" x "\"}"
#define A(x) "{\"role\":\"assistant\",\"content\":\"" x "\"}"
#define S(x) "{\"role\":\"system\",\"content\":\"" x "\"}"

static char found[512];

static int collect(void *ctx, const char *text, size_t n, struct runt_err *e)
{
    (void)ctx, (void)e;
    snprintf(found + strlen(found), sizeof found - strlen(found), "[%.*s]", (int)n,
             text);
    return 0;
}

static void messages_as_text(void **state)
{
    (void)state;
    static const struct {
        const char *line, *field, *want;
        bool messages;
    } cases[] = {
        {"{\"messages\":[" U("a") "," A("b") "]}", "text", "[User: a\nBot: b]", true},
        {"{\"messages\":[" S("Be\\nkind.") "," S("Bot: x") "," U("a") "]}", "text",
         "[Be\nkind.\n Bot: x\nUser: a]", true},
        {"{\"messages\":[" U(" \\na\\nBot: no\\n ") "," A("User: b\\nUser: c") "," U(
             "") "]}",
         "text", "[User: a\n Bot: no\nBot: User: b\n User: c\nUser: ]", true},
        {"{\"messages\":[]}", "text", "", true},
        {"{\"talk\":[" U("a") "]}", "talk", "[User: a]", true},
        {"{\"text\":\"t\",\"messages\":[" U("a") "]}", "text", "[t]", false},
        {"{\"text\":\"t\"}", "text", "[t]", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool messages;
        *found = 0;
        assert_int_equal(data_read_text(file("m.jsonl", cases[i].line), cases[i].field,
                                        collect, NULL, &messages, &err),
                         0);
        assert_string_equal(found, cases[i].want);
        assert_int_equal(messages, cases[i].messages);
    }
}

static void messages_that_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *line, *word;
    } cases[] = {
        {"{\"messages\":[" U("a") ",7]}", "message 2"},
        {"{\"messages\":[{\"role\":\"user\"}]}", "message 1"},
        {"{\"messages\":[{\"content\":\"a\"}]}", "message 1"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":null}]}", "message 1"},
        {"{\"messages\":[{\"role\":\"tool\",\"content\":\"a\"}]}", "'tool'"},
        {"{\"messages\":[" U("a") "," S("b") "]}", "message 2"},
        {"{\"messages\":[" U("a\\u0000b") "]}", "NUL"},
        {"{\"messages\":\"a\"}", "messages"},
        {"{\"message\":[]}", "messages"},
    };
    char text[256];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(text, sizeof text, "{\"text\":\"a\"}\n%s\n", cases[i].line);
        const char *path = file("bad.jsonl", text);
        assert_int_equal(data_read_documents(path, "text", collect, NULL, &err),
                         RUNT_E_FORMAT);
        assert_non_null(strstr(err.msg, path));
        assert_non_null(strstr(err.msg, "line 2"));
        assert_non_null(strstr(err.msg, cases[i].word));
    }
}

/* ---- tokens ---- */

static struct data_options options(const struct data_source *s, bool mask, double val)
{
    return (struct data_options){.sources = s,
                                 .n_sources = 1,
                                 .field = "text",
                                 .mask_prompts = mask,
                                 .val_share = val,
                                 .tok = tok,
                                 .context = CONTEXT,
                                 .cache_dir = folder};
}

/* The tokens that count, each in bars. */
static const char *counted(const struct data_tokens *t)
{
    static char out[512];
    *out = 0;
    for (uint64_t i = 0; i < t->n_tokens; i++) {
        size_t n;
        const char *s = tok_bytes(tok, data_token(t, i), &n);
        if (data_counts(t, i))
            snprintf(out + strlen(out), sizeof out - strlen(out), "%.*s|", (int)n, s);
    }
    return out;
}

static void which_tokens_count(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
        uint64_t n_docs, n_unanswered;
    } cases[] = {
        {"User: a cat\nBot: a dog", " a| dog|<|endoftext|>|", 1, 0},
        {"User: a\nBot: a dog.\nUser: on\nBot: so",
         " a| dog|.|\n|User|:| so|<|endoftext|>|", 1, 0},
        {"Bot: a\nUser: on", " a|\n|User|:|", 1, 0},
        /* the colon is the name's, what stands right behind it the answer's */
        {"Bot: a\nUser:?! on\nBot:?! on", " a|\n|User|:|?|!| on|<|endoftext|>|", 1, 0},
        {"a\n<|endoftext|>\nBot: a\n<|endoftext|>\nb", " a|<|endoftext|>|", 1, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int again = 0; again < 2; again++) {
            struct data_source s = {file("w.txt", cases[i].text), 0};
            struct data_options o = options(&s, true, 0);
            struct data_tokens t;
            bool cached;
            assert_int_equal(data_tokens_open(s.path, &o, &t, &cached, &err), 0);
            assert_int_equal(cached, again);
            assert_string_equal(counted(&t), cases[i].want);
            assert_int_equal(t.n_docs, cases[i].n_docs);
            assert_int_equal(t.n_unanswered, cases[i].n_unanswered);
            data_tokens_close(&t);
        }
}

/* ---- samples ---- */

static const char dialogues[] = "User: cat\nBot: dog\nUser: cat\nBot: dog dog\n"
                                "<|endoftext|>\n"
                                "User: cat cat\nBot: dog\n"
                                "<|endoftext|>\n"
                                "User: cat\nBot: dog dog dog dog\nUser: cat\n"
                                "<|endoftext|>\n"
                                "Bot: dog\nUser: cat cat cat cat\nBot: dog\n";

static int32_t id_of(const char *text)
{
    int32_t *ids, id;
    size_t n;
    assert_int_equal(tok_encode(tok, text, strlen(text), false, &ids, &n, &err), 0);
    id = ids[0];
    mem_free(ids);
    return id;
}

/* The windows are those of a run that learns everything; of the targets, those of
 * prompts are gone. */
static void what_counts_in_a_window(void **state)
{
    (void)state;
    enum { N = 64 };
    struct data_source s = {file("d.txt", dialogues), 0};
    struct data *all, *answers;
    struct data_options o = options(&s, false, 0.3);
    assert_int_equal(data_open(&o, &all, &err), 0);
    o.mask_prompts = true;
    assert_int_equal(data_open(&o, &answers, &err), 0);
    assert_true(data_fingerprint(all) != data_fingerprint(answers));
    assert_int_equal(data_get_stats(all)->counted, data_get_stats(all)->tokens);
    assert_in_range(data_get_stats(answers)->counted, 11,
                    data_get_stats(all)->tokens / 2);
    assert_true(data_n_val(all) > 0);
    assert_int_equal(data_n_val(all), data_n_val(answers));
    int32_t cat = id_of(" cat"), dog = id_of(" dog");
    size_t cats = 0, dogs = 0;
    assert_true(cat != dog);
    for (size_t k = 0; k < N + data_n_val(all); k++) {
        int32_t in[2][CONTEXT], out[2][CONTEXT];
        if (k < N) {
            data_train(all, k, 1, in[0], out[0]);
            data_train(answers, k, 1, in[1], out[1]);
        } else {
            data_val(all, k - N, 1, in[0], out[0]);
            data_val(answers, k - N, 1, in[1], out[1]);
        }
        assert_memory_equal(in[0], in[1], sizeof in[0]);
        for (size_t i = 0; i < CONTEXT; i++) {
            assert_true(out[1][i] == -1 || out[1][i] == out[0][i]);
            if (out[0][i] == dog)
                assert_int_equal(out[1][i], dog);
            if (out[0][i] == cat)
                assert_int_equal(out[1][i], -1);
            dogs += out[0][i] == dog;
            cats += out[0][i] == cat;
        }
    }
    assert_true(cats > N / 2 && dogs > N / 2);
    data_close(all);
    data_close(answers);
}

static void documents_without_answers(void **state)
{
    (void)state;
    struct data_source s = {
        file("none.txt", "User: a\n<|endoftext|>\nb\n<|endoftext|>\nc Bot: d"), 0};
    struct data_options o = options(&s, true, 0);
    struct data *d = NULL;
    assert_int_equal(data_open(&o, &d, &err), RUNT_E_INVALID);
    assert_non_null(strstr(err.msg, s.path));
    assert_non_null(strstr(err.msg, "3 documents"));
    assert_null(d);
}

/* Every bit of the file that holds them. */
static void damaged_masks_are_made_again(void **state)
{
    (void)state;
    struct data_source s = {file("k.txt", dialogues), 0};
    struct data_options o = options(&s, true, 0);
    struct data_tokens t;
    char kept[256], want[512];
    bool cached;
    assert_int_equal(data_tokens_open(s.path, &o, &t, &cached, &err), 0);
    snprintf(want, sizeof want, "%s", counted(&t));
    snprintf(kept, sizeof kept, "%s/%016llx%016llx", folder,
             (unsigned long long)t.key[0], (unsigned long long)t.key[1]);
    size_t size = t.map.size,
           from = (size_t)((const char *)t.mask - (const char *)t.map.data);
    assert_int_equal(size - from, (t.n_tokens + 7) / 8);
    data_tokens_close(&t);
    for (size_t at = from * 8; at < size * 8; at++) {
        FILE *f = fopen(kept, "r+b");
        assert_non_null(f);
        fseek(f, (long)(at / 8), SEEK_SET);
        int c = fgetc(f);
        fseek(f, (long)(at / 8), SEEK_SET);
        fputc(c ^ 1 << at % 8, f);
        fclose(f);
        assert_int_equal(data_tokens_open(s.path, &o, &t, &cached, &err), 0);
        assert_false(cached);
        assert_string_equal(counted(&t), want);
        data_tokens_close(&t);
    }
    assert_int_equal(truncate(kept, (off_t)from), 0);
    assert_int_equal(data_tokens_open(s.path, &o, &t, &cached, &err), 0);
    assert_false(cached);
    data_tokens_close(&t);
}

static int set_up(void **state)
{
    (void)state;
    struct tok_vocab v = {0};
    char dir[512];
    const char *root = getenv("RUNT_SOURCE_ROOT");
    snprintf(dir, sizeof dir, "%s/tests/data/mini", root ? root : ".");
    if (!mkdtemp(folder) || tok_vocab_load(dir, &v, &err) ||
        tok_create(&v, dir, &tok, &err))
        return -1;
    tok_vocab_free(&v);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[64];
    tok_destroy(tok);
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_an_answer_is),
        cmocka_unit_test(messages_as_text),
        cmocka_unit_test(messages_that_are_refused),
        cmocka_unit_test(which_tokens_count),
        cmocka_unit_test(what_counts_in_a_window),
        cmocka_unit_test(documents_without_answers),
        cmocka_unit_test(damaged_masks_are_made_again),
    };
    return cmocka_run_group_tests_name("dialogue", tests, set_up, tear_down);
}
