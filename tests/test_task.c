/* Tasks: their files, the oracle's scores (tools/gen_task_oracle.py, the harness's
 * rules in Python and GPT-2 in double precision), and the same done token by token. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/js.h"
#include "base/mem.h"
#include "eval/task.h"
#include "model_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *oracle(void)
{
    char path[512];
    json_t *o = NULL;
    snprintf(path, sizeof path, "%s/tests/data/task_oracle.json", fixture_root());
    assert_int_equal(js_parse_file(path, &o, NULL), 0);
    return o;
}

static bool span_is(const struct task_set *s, struct task_span at, const char *want)
{
    return at.n == strlen(want) && !memcmp(s->text.data + at.at, want, at.n);
}

/* The oracle's lines of a kind as one file. */
static struct task_set parse_rows(const json_t *rows, enum task_kind kind)
{
    struct strbuf file = {0};
    struct task_set set;
    struct runt_err err;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        sb_str(&file, js_get_str(json_array_get(rows, i), "line"));
        sb_str(&file, i % 2 ? "\r\n" : "\n");
    }
    if (task_parse(kind, file.data, file.len, "oracle", 0, &set, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(set.n, json_array_size(rows));
    sb_free(&file);
    return set;
}

static void check_scores(const runt_model *m, const json_t *rows,
                         const struct task_set *set, unsigned n_threads)
{
    struct task_options o = {.n_threads = n_threads};
    struct task_result r;
    struct runt_err err;
    if (task_run(m, set, &o, &r, &err))
        fail_msg("%s", err.msg);
    for (size_t i = 0; i < set->n; i++) {
        const json_t *want = json_array_get(rows, i),
                     *logp = json_object_get(want, "logp");
        assert_int_equal(json_array_size(logp), set->items[i].n_endings);
        for (size_t e = 0; e < json_array_size(logp); e++) {
            double x = json_real_value(json_array_get(logp, e));
            /* floats against doubles: logits to 2e-5 each, some dozen of them */
            assert_true(fabs(r.rows[i].logp[e] - x) <= 5e-4);
        }
        assert_int_equal(r.rows[i].n_target,
                         json_integer_value(json_object_get(want, "n")));
        if (set->kind == TASK_LAMBADA) {
            assert_int_equal(r.rows[i].greedy,
                             json_is_true(json_object_get(want, "greedy")));
            assert_int_equal(r.rows[i].truncated,
                             json_is_true(json_object_get(want, "cut")));
        } else {
            assert_int_equal(r.rows[i].pick,
                             json_integer_value(json_object_get(want, "pick")));
            assert_int_equal(r.rows[i].pick_norm,
                             json_integer_value(json_object_get(want, "pick_norm")));
        }
    }
    task_result_free(&r);
}

static void last_words_score_as_the_oracle_says(void **state)
{
    runt_model *m = *state;
    json_t *o = oracle();
    const json_t *rows = json_object_get(o, "lambada");
    struct task_set set = parse_rows(rows, TASK_LAMBADA);
    check_scores(m, rows, &set, 1);
    check_scores(m, rows, &set, 3);
    struct task_result r;
    struct task_options to = {0};
    assert_int_equal(task_run(m, &set, &to, &r, NULL), 0);
    const struct {
        const char *key;
        double got;
    } figures[] = {{"acc", r.acc.mean},
                   {"acc_se", r.acc.se},
                   {"perplexity", r.perplexity},
                   {"perplexity_se", r.perplexity_se}};
    for (size_t i = 0; i < 4; i++) {
        double want = json_number_value(json_object_get(o, figures[i].key));
        assert_true(want > 0 && fabs(figures[i].got - want) <= 1e-3 * want);
    }
    assert_int_equal(r.n_truncated, 1);
    task_result_free(&r);
    task_set_free(&set);
    json_decref(o);
}

static void endings_score_as_the_oracle_says(void **state)
{
    runt_model *m = *state;
    json_t *o = oracle();
    const char *const kinds[] = {"hellaswag", "text"};
    for (size_t k = 0; k < 2; k++) {
        const json_t *rows = json_object_get(o, kinds[k]);
        struct task_set set = parse_rows(rows, TASK_HELLASWAG);
        for (size_t i = 0; i < set.n; i++) {
            const json_t *row = json_array_get(rows, i);
            const struct task_item *t = &set.items[i];
            assert_true(span_is(&set, t->context, js_get_str(row, "query")));
            assert_int_equal(t->label,
                             json_integer_value(json_object_get(row, "label")));
            for (size_t e = 0; e < t->n_endings; e++)
                assert_true(span_is(&set, t->endings[e],
                                    json_string_value(json_array_get(
                                        json_object_get(row, "endings"), e))));
        }
        check_scores(m, rows, &set, 2);
        task_set_free(&set);
    }
    json_decref(o);
}

/* ---- the same, one token at a time, on a model whose context is short ---- */

static double slowly(const runt_model *m, const int32_t *ids, size_t n, size_t n_cont,
                     bool *greedy)
{
    struct runt_session_options o = {.n_threads = 1, .n_batch = 1};
    runt_session *s = NULL;
    double sum = 0;
    *greedy = true;
    if (n > (size_t)m->shape.n_ctx + 1) {
        ids += n - m->shape.n_ctx - 1;
        n = (size_t)m->shape.n_ctx + 1;
    }
    assert_int_equal(runt_session_open(m, &o, &s, NULL), 0);
    for (size_t i = 0; i + 1 < n; i++) {
        assert_int_equal(runt_session_feed(s, ids + i, 1, NULL), 0);
        const float *l = runt_session_logits(s);
        if (i + 1 < n - n_cont)
            continue;
        double z = 0, most = (double)l[0];
        for (size_t k = 0; k < m->shape.n_vocab; k++)
            most = fmax(most, (double)l[k]);
        for (size_t k = 0; k < m->shape.n_vocab; k++)
            z += exp((double)l[k] - most);
        sum += (double)l[ids[i + 1]] - most - log(z);
        *greedy = *greedy && (double)l[ids[i + 1]] == most;
    }
    runt_session_close(s);
    return sum;
}

static void scores_are_those_of_single_tokens(void **state)
{
    (void)state;
    struct gpt2_shape shape = fixture_odd_shape();
    shape.n_vocab = 300; /* 256 bytes: a token each */
    static const char file[] =
        "The goat sat on the hill and looked at all that was below it, and then the "
        "goat\n"
        "2\nsat down \nwas there\xc3\xa9\xc3\xa9\xc3\xa9\nwent to sleep until it was "
        "morning again and the sun came up over the hill\n.\n"
        "A fox\n0\nran off\nran away\nran\nr\n";
    const struct {
        const char *context, *ending;
        uint32_t n_chars;
    } want[] = {
        {"The goat sat on the hill and looked at all that was below it, and then "
         "the goat",
         " sat down ", 9},
        {"The goat sat on the hill and looked at all that was below it, and then "
         "the goat",
         " was there\xc3\xa9\xc3\xa9\xc3\xa9", 12},
        {"The goat sat on the hill and looked at all that was below it, and then "
         "the goat",
         " went to sleep until it was morning again and the sun came up over the "
         "hill",
         74},
        {"The goat sat on the hill and looked at all that was below it, and then "
         "the goat",
         " .", 1},
        {"A fox", " ran off", 7},
        {"A fox", " ran away", 8},
        {"A fox", " ran", 3},
        {"A fox", " r", 1}};
    const char *types[] = {"f32", "q8_0"};
    for (size_t k = 0; k < 2; k++) {
        runt_model *m = fixture_random(&shape, types[k], 5);
        struct task_set set;
        struct task_result r[2];
        assert_int_equal(
            task_parse(TASK_HELLASWAG, file, sizeof file - 1, "f", 0, &set, NULL), 0);
        assert_int_equal(set.n, 2);
        for (unsigned t = 0; t < 2; t++) {
            struct task_options o = {.n_threads = 1 + 2 * t};
            assert_int_equal(task_run(m, &set, &o, &r[t], NULL), 0);
        }
        for (size_t i = 0; i < 8; i++) {
            char whole[512];
            int32_t *ids = NULL;
            size_t n = 0;
            bool greedy;
            int n_whole =
                snprintf(whole, sizeof whole, "%s%s", want[i].context, want[i].ending);
            assert_int_equal(
                runt_tokenize(m, whole, (size_t)n_whole, true, &ids, &n, NULL), 0);
            double x = slowly(m, ids, n, strlen(want[i].ending), &greedy);
            const struct task_row *row = &r[0].rows[i / 4];
            assert_true(fabs(row->logp[i % 4] - x) <= 1e-9 * fabs(x));
            assert_int_equal(row->n_chars[i % 4], want[i].n_chars);
            if (i % 4 == 0)
                assert_int_equal(row->greedy, greedy);
            runt_free(ids);
        }
        assert_true(r[0].rows[0].truncated && !r[0].rows[1].truncated);
        assert_int_equal(r[0].n_truncated, 1);
        assert_memory_equal(r[0].rows, r[1].rows, 2 * sizeof *r[0].rows);
        assert_memory_equal(&r[0].acc, &r[1].acc, sizeof r[0].acc);
        task_result_free(&r[0]);
        task_result_free(&r[1]);
        task_set_free(&set);
        fixture_close(m);
    }
}

/* ---- files ---- */

static void forms_of_passages(void **state)
{
    (void)state;
    static const char plain[] = "The goat ate  grass\r\n\n \nalone\nlast one";
    static const char json[] =
        "\n{\"text\": \"The goat ate  grass\"}\n{\"text\":\"alone\", "
        "\"x\": 1}\n\n{\"text\":\"last one\"}";
    for (int i = 0; i < 2; i++) {
        struct task_set s;
        assert_int_equal(task_parse(TASK_LAMBADA, i ? json : plain,
                                    i ? sizeof json - 1 : sizeof plain - 1, "f", 0, &s,
                                    NULL),
                         0);
        assert_int_equal(s.n, 3);
        assert_true(span_is(&s, s.items[0].context, "The goat ate "));
        assert_true(span_is(&s, s.items[0].endings[0], "grass"));
        assert_true(span_is(&s, s.items[1].context, ""));
        assert_true(span_is(&s, s.items[2].endings[0], "one"));
        assert_int_equal(s.items[2].line, 5);
        task_set_free(&s);
        assert_int_equal(task_parse(TASK_LAMBADA, i ? json : plain,
                                    i ? sizeof json - 1 : sizeof plain - 1, "f", 2, &s,
                                    NULL),
                         0);
        assert_int_equal(s.n, 2);
        task_set_free(&s);
    }
}

static void bad_files_are_refused_by_line(void **state)
{
    (void)state;
#define GOOD "{\"ctx\":\"a\",\"activity_label\":\"b\",\"label\":1,\"endings\":"
    const struct {
        enum task_kind kind;
        const char *file, *says;
    } cases[] = {
        {TASK_LAMBADA, "", "f: no tasks"},
        {TASK_LAMBADA, "\n\n", "f: no tasks"},
        {TASK_LAMBADA, "{\"text\":\"a b\"}\n{\"text\":\"a b\"\n",
         "f, line 2: not a JSON"},
        {TASK_LAMBADA, "{\"text\":\"a b\"}\nplain text\n", "line 2: not a JSON"},
        {TASK_LAMBADA, "{\"text\":1}\n", "line 1: no \"text\""},
        {TASK_LAMBADA, "{\"a\":\"b\"}\n", "line 1: no \"text\""},
        {TASK_LAMBADA, "{\"text\":\"\"}\n", "line 1: an empty passage"},
        {TASK_LAMBADA, "{\"text\":\"ends with a space \"}\n",
         "line 1: the passage ends"},
        {TASK_LAMBADA, "fine text\n\xff\xfe\n", "line 2: not a text (not UTF-8)"},
        {TASK_HELLASWAG, "{\"text\":\"a b\"}\n", "line 1: no \"ctx_a\""},
        {TASK_HELLASWAG, GOOD "[\"a\",\"b\",\"c\"]}",
         "\"endings\" that are a list of 4"},
        {TASK_HELLASWAG, GOOD "[\"a\",\"b\",\"c\",4]}", "ending 3 is no string"},
        {TASK_HELLASWAG, GOOD "[\"a\",\"\",\"c\",\"d\"]}", "ending 1 is empty"},
        {TASK_HELLASWAG, GOOD "[\"a\",\"[b]\",\"c\",\"d\"]}", "ending 1 is empty"},
        {TASK_HELLASWAG, "{\"ctx\":\"a\",\"endings\":[\"a\",\"b\",\"c\",\"d\"]}",
         "activity_label"},
        {TASK_HELLASWAG,
         "{\"ctx\":\"a\",\"activity_label\":\"b\",\"label\":4,\"endings\":[\"a\",\"b\","
         "\"c\",\"d\"]}",
         "\"label\" from 0 to 3"},
        {TASK_HELLASWAG,
         "{\"ctx\":\"a\",\"activity_label\":\"b\",\"label\":\"\",\"endings\":[\"a\","
         "\"b\","
         "\"c\",\"d\"]}",
         "\"label\" from 0 to 3"},
        {TASK_HELLASWAG, "ctx\n4\na\nb\nc\nd\n", "line 2: the right ending's index"},
        {TASK_HELLASWAG, "ctx\nx\na\nb\nc\nd\n", "line 2: the right ending's index"},
        {TASK_HELLASWAG, "ctx\n0\na\nb\nc\n", "line 5: the file ends inside a task"},
        {TASK_HELLASWAG, "ctx\n0\na\n\nc\nd\n", "line 4: an empty ending"},
        {TASK_HELLASWAG, "ctx\n0\na\nb\xc3\nc\nd\n", "line 4: not a text"},
    };
    long live = mem_live();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct task_set s;
        struct runt_err err;
        assert_int_equal(task_parse(cases[i].kind, cases[i].file, strlen(cases[i].file),
                                    "f", 0, &s, &err),
                         RUNT_E_FORMAT);
        if (!strstr(err.msg, cases[i].says))
            fail_msg("'%s', not '%s'", err.msg, cases[i].says);
    }
    assert_int_equal(mem_live(), live);
    static const char nul[] = "some\0text\n";
    struct task_set s;
    assert_int_equal(task_parse(TASK_LAMBADA, nul, sizeof nul - 1, "f", 0, &s, NULL),
                     RUNT_E_FORMAT);
}

static void an_ending_must_fit_the_context(void **state)
{
    (void)state;
    struct gpt2_shape shape = fixture_odd_shape();
    shape.n_vocab = 300;
    runt_model *m = fixture_random(&shape, "f32", 5);
    char file[256] = "a ";
    memset(file + 2, 'b', 90);
    for (int i = 0; i < 2; i++) { /* " " and 89 of 90, then one more than fits */
        struct task_set s;
        struct task_result r;
        struct runt_err err;
        struct task_options o = {0};
        assert_int_equal(
            task_parse(TASK_LAMBADA, file, (size_t)(91 + i), "f", 0, &s, NULL), 0);
        int rc = task_run(m, &s, &o, &r, &err);
        assert_int_equal(rc, i ? RUNT_E_INVALID : 0);
        if (i)
            assert_non_null(strstr(err.msg, "line 1: ending 0 has 91 tokens"));
        else
            task_result_free(&r);
        task_set_free(&s);
    }
    fixture_close(m);
}

static int setup(void **state)
{
    *state = fixture_mini("f32");
    return 0;
}

static int teardown(void **state)
{
    fixture_close(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(last_words_score_as_the_oracle_says),
        cmocka_unit_test(endings_score_as_the_oracle_says),
        cmocka_unit_test(scores_are_those_of_single_tokens),
        cmocka_unit_test(forms_of_passages),
        cmocka_unit_test(bad_files_are_refused_by_line),
        cmocka_unit_test(an_ending_must_fit_the_context),
    };
    return cmocka_run_group_tests_name("task", tests, setup, teardown);
}
