/* The server without HTTP: what is decided from headers, how JSON is written, and the
 * engine: answers in any company are those of a session alone, to the bit; jobs may be
 * cancelled and abandoned at any moment; memory may run out at any allocation. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "model_fixture.h"
#include "serve/access.h"
#include "serve/prepare.h"
#include "serve/reply.h"

#include <math.h>
#include <semaphore.h>
#include <string.h>
#include <unistd.h>

/* ---- JSON on its way out ---- */

static void check_string(const char *bytes, size_t n, const char *want)
{
    struct strbuf b = {0};
    api_put_string(&b, bytes, n);
    assert_string_equal(b.data, want);
    sb_free(&b);
}

static void strings_are_escaped(void **state)
{
    (void)state;
    check_string("", 0, "\"\"");
    check_string("a\"b\\c/", 6, "\"a\\\"b\\\\c/\"");
    check_string("\b\t\n\v\f\r\0\x1f\x7f", 9,
                 "\"\\b\\t\\n\\u000b\\f\\r\\u0000\\u001f\\u007f\"");
    check_string("h\xc3\xa9\xf0\x9f\x98\x80", 7, "\"h\xc3\xa9\xf0\x9f\x98\x80\"");
    check_string("\xc3", 1, "\"\xef\xbf\xbd\"");
    check_string("a\xff\xfe"
                 "b",
                 4,
                 "\"a\xef\xbf\xbd\xef\xbf\xbd"
                 "b\"");
    check_string("\xed\xa0\x80", 3, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
}

static void floats_become_base64(void **state)
{
    static const float x[] = {1, -2.5f, 0, 3.14159274f};
    static const char *const want[] = {"\"\"", "\"AACAPw==\"", "\"AACAPwAAIMA=\"",
                                       "\"AACAPwAAIMAAAAAA\"",
                                       "\"AACAPwAAIMAAAAAA2w9JQA==\""};
    (void)state;
    for (size_t n = 0; n <= 4; n++) {
        struct strbuf b = {0};
        api_put_base64(&b, x, n);
        assert_string_equal(b.data, want[n]);
        sb_free(&b);
    }
}

static void errors_have_their_shape(void **state)
{
    struct api_error e;
    struct strbuf b = {0};
    (void)state;
    assert_int_equal(api_fail(&e, 429, "full", "n", "a \"line\"\x1b %d", 7), -1);
    api_put_error(&b, &e);
    assert_string_equal(b.data,
                        "{\"error\":{\"message\":\"a \\\"line\\\"? 7\",\"type\":"
                        "\"rate_limit_error\",\"param\":\"n\",\"code\":\"full\"}}");
    b.len = 0;
    api_fail(&e, 500, NULL, NULL, "x");
    api_put_error(&b, &e);
    assert_string_equal(b.data,
                        "{\"error\":{\"message\":\"x\",\"type\":\"server_error\","
                        "\"param\":null,\"code\":null}}");
    sb_free(&b);
}

/* ---- headers ---- */

static void keys_are_compared_whole(void **state)
{
    static const char *const keys[] = {"alpha", "b"};
    (void)state;
    assert_true(access_key_ok(NULL, keys, 0));
    assert_false(access_key_ok(NULL, keys, 2));
    assert_true(access_key_ok("Bearer alpha", keys, 2));
    assert_true(access_key_ok("bearer   b  ", keys, 2));
    const char *const wrong[] = {"Bearer",        "Bearer ",    "Bearer alph",
                                 "Bearer alphaa", "Bearer bb",  "alpha",
                                 "Basic alpha",   "Bearer a b", "Bearer alphaalpha"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(access_key_ok(wrong[i], keys, 2));
}

static void names_of_requests(void **state)
{
    char a[ACCESS_ID_SIZE], b[ACCESS_ID_SIZE], long_one[100];
    (void)state;
    access_request_id("x-1.Y_z", a);
    assert_string_equal(a, "x-1.Y_z");
    access_request_id(NULL, a);
    access_request_id("", b);
    assert_int_equal(strlen(a), 28);
    assert_string_not_equal(a, b);
    memset(long_one, 'a', 99);
    long_one[65] = 0;
    access_request_id(long_one, a);
    assert_memory_equal(a, "req_", 4);
    long_one[64] = 0;
    access_request_id(long_one, a);
    assert_string_equal(a, long_one);
}

/* ---- the engine ---- */

enum { N_TEXTS = 24, MAX_TEXT = 4096 };

static runt_model *model;
static sem_t news;

static void on_news(void *ctx)
{
    (void)ctx;
    sem_post(&news);
}

static struct engine *open_engine(uint32_t n_seqs)
{
    struct engine *e = NULL;
    struct runt_err err;
    runt_model *m = fixture_tiny("q8_0");
    struct engine_options o = {
        .n_seqs = n_seqs, .n_threads = 2, .max_waiting = 200, .wake = on_news};
    if (engine_new(&o, &e, &err) || engine_add(e, "tiny", m, NULL, &err) ||
        engine_start(e, &err))
        fail_msg("%s", err.msg);
    return e;
}

static int parse(const char *body, enum request_kind kind, struct request *r)
{
    struct runt_sampler_options o = runt_sampler_defaults();
    struct api_error e;
    return request_parse(kind, body, strlen(body), &o, r, &e);
}

static struct job *make_job(struct engine *e, const char *body, enum request_kind kind)
{
    struct request r;
    struct job *j = NULL;
    struct api_error error;
    if (parse(body, kind, &r) || prepare_job(e, &r, &j, &error))
        return NULL;
    request_free(&r);
    return j;
}

/* Body i: its prompt begins like those of some others. */
static void body_of(size_t i, char *out, size_t n)
{
    static const char *const begins[] = {"Once upon a time", "The cat sat on",
                                         "\\u00e9"};
    static const char *const ends[] = {"", " there was a", " and then, one day, the"};
    snprintf(out, n,
             "{\"prompt\":\"%s%s\",\"max_tokens\":%zu,\"temperature\":0,"
             "\"ignore_eos\":true%s}",
             begins[i % 3], ends[i / 3 % 3], 5 + i, i % 2 ? "" : ",\"stream\":true");
}

/* The answer by a session that has nothing else to do. */
static void alone(const char *body, char *text)
{
    struct request r;
    runt_session *s = NULL;
    int32_t *ids;
    size_t n_ids, n = 0, len;
    assert_int_equal(parse(body, REQUEST_COMPLETION, &r), 0);
    struct runt_session_options so = {.n_threads = 1};
    assert_int_equal(runt_session_open(model, &so, &s, NULL), 0);
    assert_int_equal(runt_tokenize(model, r.inputs[0].text, r.inputs[0].n_text, false,
                                   &ids, &n_ids, NULL),
                     0);
    for (size_t i = 0; i < n_ids; i++)
        assert_int_equal(runt_session_feed(s, &ids[i], 1, NULL), 0);
    for (size_t i = 0; i < r.n_max; i++) {
        const float *logits = runt_session_logits(s);
        int32_t best = 0;
        for (int32_t k = 1; k < (int32_t)model->shape.n_vocab; k++)
            best = logits[k] > logits[best] ? k : best;
        const char *bytes = runt_token_bytes(model, best, &len);
        memcpy(text + n, bytes, len);
        n += len;
        assert_int_equal(runt_session_feed(s, &best, 1, NULL), 0);
    }
    text[n] = 0;
    runt_free(ids);
    runt_session_close(s);
    request_free(&r);
}

/* Everything that is said of a job until it is done. */
static void wait_for(struct engine *e, struct job *j, struct news *out)
{
    while (!engine_take(e, j, 0, out)) {
        sem_wait(&news);
        while (engine_next(e))
            ;
    }
    engine_take(e, j, 0, out);
}

static void drop_news(struct news *n)
{
    sb_free(&n->text);
    mem_free(n->probs.at);
}

static void answers_are_those_of_a_session_alone(void **state)
{
    static char want[N_TEXTS][MAX_TEXT], body[256];
    (void)state;
    for (size_t i = 0; i < N_TEXTS; i++) {
        body_of(i, body, sizeof body);
        alone(body, want[i]);
    }
    for (uint32_t n_seqs = 1; n_seqs <= 9; n_seqs += 4) {
        struct engine *e = open_engine(n_seqs);
        for (int again = 0; again < 2; again++) {
            struct job *jobs[N_TEXTS];
            for (size_t i = 0; i < N_TEXTS; i++) {
                body_of(i, body, sizeof body);
                jobs[i] = make_job(e, body, REQUEST_COMPLETION);
                assert_int_equal(engine_submit(e, jobs[i], NULL), 0);
            }
            for (size_t i = 0; i < N_TEXTS; i++) {
                struct news n = {0};
                wait_for(e, jobs[i], &n);
                assert_int_equal(n.end, JOB_LENGTH);
                assert_int_equal(n.n_tokens, 5 + i);
                assert_string_equal(n.text.data, want[i]);
                drop_news(&n);
                job_free(jobs[i]);
            }
        }
        engine_free(e);
    }
}

static void embeddings_are_those_of_the_door(void **state)
{
    struct engine *e = open_engine(2);
    float want[256];
    int32_t ids[200];
    struct strbuf body = {0};
    runt_session *s = NULL;
    (void)state;
    sb_str(&body, "{\"input\":[[");
    for (int i = 0; i < 200; i++) {
        ids[i] = i * 7 % 4000;
        sb_printf(&body, "%s%d", i ? "," : "", ids[i]);
    }
    sb_str(&body, "],[1,2,3]]}");
    assert_int_equal(runt_session_open(model, NULL, &s, NULL), 0);
    struct job *j = make_job(e, body.data, REQUEST_EMBEDDING);
    struct news n = {0};
    assert_int_equal(engine_submit(e, j, NULL), 0);
    wait_for(e, j, &n);
    assert_int_equal(runt_embed(s, 0, ids, 200, want, NULL), 0);
    assert_memory_equal(j->vectors, want, sizeof want);
    assert_int_equal(runt_embed(s, 0, (int32_t[]){1, 2, 3}, 3, want, NULL), 0);
    assert_memory_equal(j->vectors + 256, want, sizeof want);
    job_free(j);
    drop_news(&n);
    runt_session_close(s);
    engine_free(e);
    sb_free(&body);
}

static void jobs_end_whenever_they_are_told(void **state)
{
    static char want[MAX_TEXT], body[256];
    struct engine *e = open_engine(3);
    struct rng rng;
    (void)state;
    rng_seed(&rng, 7);
    body_of(20, body, sizeof body);
    alone(body, want);
    for (int round = 0; round < 60; round++) {
        struct job *kept = make_job(e, body, REQUEST_COMPLETION), *others[5];
        for (size_t i = 0; i < 5; i++) {
            char other[256];
            body_of(rng_u64(&rng) % N_TEXTS, other, sizeof other);
            others[i] = make_job(e, other, REQUEST_COMPLETION);
            assert_int_equal(engine_submit(e, others[i], NULL), 0);
        }
        assert_int_equal(engine_submit(e, kept, NULL), 0);
        usleep((useconds_t)(rng_u64(&rng) % 8000));
        for (size_t i = 0; i < 5; i++) {
            struct news n = {0};
            if (i % 2) {
                engine_abandon(e, others[i]);
                continue;
            }
            engine_cancel(e, others[i], JOB_TIMEOUT);
            wait_for(e, others[i], &n);
            assert_true(n.end == JOB_TIMEOUT || n.end == JOB_LENGTH);
            drop_news(&n);
            engine_abandon(e, others[i]);
        }
        struct news n = {0};
        wait_for(e, kept, &n);
        assert_int_equal(n.end, JOB_LENGTH);
        assert_string_equal(n.text.data, want);
        drop_news(&n);
        job_free(kept);
    }
    struct engine_figures f;
    do
        engine_figures(e, &f);
    while (f.n_running || f.n_waiting);
    /* and when the engine ends */
    struct job *last = make_job(e, body, REQUEST_COMPLETION);
    assert_int_equal(engine_submit(e, last, NULL), 0);
    engine_abandon(e, last);
    last = make_job(e, body, REQUEST_COMPLETION);
    assert_int_equal(engine_submit(e, last, NULL), 0);
    engine_free(e);
    assert_true(last->done);
    job_free(last);
}

static void a_queue_has_an_end(void **state)
{
    struct engine *e = NULL;
    struct engine_options o = {.n_seqs = 1, .max_waiting = 2, .wake = on_news};
    struct job *jobs[3], *more;
    (void)state;
    assert_int_equal(engine_new(&o, &e, NULL), 0);
    assert_int_equal(engine_add(e, "tiny", fixture_tiny("q8_0"), NULL, NULL), 0);
    const char *body = "{\"prompt\":\"a\",\"max_tokens\":4}";
    for (size_t i = 0; i < 3; i++) { /* the worker does not run yet */
        jobs[i] = make_job(e, body, REQUEST_COMPLETION);
        assert_int_equal(engine_submit(e, jobs[i], NULL), 0);
    }
    more = make_job(e, body, REQUEST_COMPLETION);
    assert_int_equal(engine_submit(e, more, NULL), RUNT_E_FULL);
    struct engine_figures f;
    engine_figures(e, &f);
    assert_int_equal(f.n_refused, 1);
    assert_int_equal(engine_start(e, NULL), 0);
    for (size_t i = 0; i < 3; i++) {
        struct news n = {0};
        wait_for(e, jobs[i], &n);
        drop_news(&n);
        job_free(jobs[i]);
    }
    assert_int_equal(engine_submit(e, more, NULL), 0);
    engine_abandon(e, more);
    more = make_job(e, "{\"prompt\":\"a\",\"n\":4}", REQUEST_COMPLETION);
    assert_int_equal(engine_submit(e, more, NULL), RUNT_E_INVALID);
    job_free(more);
    engine_free(e);
}

/* ---- memory that runs out ---- */

static const struct {
    enum request_kind kind;
    const char *body;
} kinds[] = {
    {REQUEST_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\","
                   "\"text\":\"Hi\"}]}],\"max_tokens\":3,\"stop\":[\"x\",\"y\"],"
                   "\"logit_bias\":{\"5\":1},\"n\":2,\"logprobs\":true,"
                   "\"top_logprobs\":2}"},
    {REQUEST_COMPLETION,
     "{\"prompt\":[[1,2],[3]],\"max_tokens\":3,\"echo\":true,"
     "\"logprobs\":1,\"response_format\":{\"type\":"
     "\"json_schema\",\"json_schema\":{\"schema\":{\"enum\":[1]}}}}"},
    {REQUEST_EMBEDDING, "{\"input\":[\"a b c\",\"d\"],\"encoding_format\":\"base64\"}"},
};

/* One request from its bytes to its answer; false where memory ran out. */
static bool whole_way(struct engine *e, size_t kind)
{
    struct request r;
    struct job *j = NULL;
    struct api_error error;
    struct reply reply;
    struct strbuf out = {0};
    bool ok = false;
    if (parse(kinds[kind].body, kinds[kind].kind, &r))
        return false;
    if (prepare_job(e, &r, &j, &error)) {
        request_free(&r);
        return false;
    }
    if (reply_init(&reply, e, &r, j, "id", &error)) {
        job_free(j);
        request_free(&r);
        return false;
    }
    assert_int_equal(engine_submit(e, j, NULL), 0);
    while (!engine_next(e))
        sem_wait(&news);
    ok = !reply_whole(&reply, &out, &error);
    assert_true(ok || error.status == 500);
    reply_free(&reply);
    engine_abandon(e, j);
    sb_free(&out);
    request_free(&r);
    return ok;
}

static void memory_may_run_out_anywhere(void **state)
{
    struct engine *e = open_engine(2);
    (void)state;
    for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
        assert_true(whole_way(e, kind)); /* what is made once is there */
        long live = mem_live(), n = 0;
        for (;; n++) {
            mem_fail_after(n);
            bool ok = whole_way(e, kind);
            mem_fail_after(-1);
            for (int i = 0; i < 500 && mem_live() != live; i++)
                usleep(1000); /* the worker frees what was abandoned */
            assert_int_equal(mem_live(), live);
            if (ok && n > 20)
                break;
        }
        assert_true(n > 20 && n < 5000);
    }
    engine_free(e);
}

static int open_all(void **state)
{
    (void)state;
    model = fixture_tiny("q8_0");
    return sem_init(&news, 0, 0);
}

static int close_all(void **state)
{
    (void)state;
    fixture_close(model);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings_are_escaped),
        cmocka_unit_test(floats_become_base64),
        cmocka_unit_test(errors_have_their_shape),
        cmocka_unit_test(keys_are_compared_whole),
        cmocka_unit_test(names_of_requests),
        cmocka_unit_test(answers_are_those_of_a_session_alone),
        cmocka_unit_test(embeddings_are_those_of_the_door),
        cmocka_unit_test(jobs_end_whenever_they_are_told),
        cmocka_unit_test(a_queue_has_an_end),
        cmocka_unit_test(memory_may_run_out_anywhere),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
