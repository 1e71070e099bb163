/* Answers and the timeline behind them: what a stop text leaves, and a full context. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "cli/answer.h"
#include "model_fixture.h"

#include <string.h>

static void open_timeline(struct timeline *t, const runt_model *m, uint32_t n_ctx)
{
    struct runt_session_options so = {.n_ctx = n_ctx};
    struct runt_sampler_options sa = runt_sampler_defaults();
    struct runt_err err;
    sa.temp = 0;
    if (timeline_open(t, m, &so, &sa, &err))
        fail_msg("%s", err.msg);
}

static void start(struct timeline *t, const runt_model *m)
{
    static const char prompt[] = "One day, a little girl named Lily found a";
    int32_t *ids = NULL;
    size_t n = 0;
    open_timeline(t, m, 0);
    assert_int_equal(runt_tokenize(m, prompt, strlen(prompt), false, &ids, &n, NULL),
                     0);
    assert_int_equal(timeline_feed(t, ids, n, NULL), 0);
    runt_free(ids);
}

static void spell(const runt_model *m, const struct token_list *l, struct strbuf *out)
{
    for (size_t i = 0; i < l->n; i++) {
        size_t n;
        const char *bytes = runt_token_bytes(m, l->ids[i], &n);
        sb_put(out, bytes, n);
    }
}

/* Every four bytes of the answer as a stop text: what stays of the tokens is text that
 * was shown, and all of it up to the token that the stop begins in. */
static void a_stop_text_leaves_only_what_was_shown(void **state)
{
    const runt_model *m = *state;
    struct timeline t;
    struct stream whole = {0};
    struct answer a;
    start(&t, m);
    assert_int_equal(timeline_answer(&t, 20, false, &whole, NULL, &a, NULL), 0);
    timeline_close(&t);
    assert_true(whole.text.len > 30);
    for (size_t at = 0; at + 4 <= whole.text.len; at += 3) {
        char stop[5] = "";
        memcpy(stop, whole.text.data + at, 4);
        const char *stops[1] = {stop};
        size_t first = (size_t)(strstr(whole.text.data, stop) - whole.text.data);
        struct stream s = {.stops = stops, .n_stops = 1};
        struct token_list drawn = {0};
        struct strbuf kept = {0};
        start(&t, m);
        assert_int_equal(timeline_answer(&t, 20, false, &s, &drawn, &a, NULL), 0);
        assert_int_equal(a.end, ANSWER_STOP);
        assert_int_equal(s.text.len, first);
        spell(m, &drawn, &kept);
        assert_true(kept.len <= first && kept.len + 16 > first);
        assert_memory_equal(kept.data ? kept.data : "", whole.text.data, kept.len);
        sb_free(&kept);
        mem_free(drawn.ids);
        stream_free(&s);
        timeline_close(&t);
    }
    stream_free(&whole);
}

/* However a long text is fed, the logits are those of the tokens that were kept. */
static void a_full_context_keeps_the_newest_tokens(void **state)
{
    const runt_model *m = *state;
    struct timeline t, fresh;
    int32_t ids[100];
    for (int i = 0; i < 100; i++)
        ids[i] = (i * 31 + 7) % 4000;
    for (size_t piece = 1; piece <= 100; piece += 11) {
        open_timeline(&t, m, 24);
        for (size_t i = 0; i < 100; i += piece)
            assert_int_equal(
                timeline_feed(&t, ids + i, 100 - i < piece ? 100 - i : piece, NULL), 0);
        size_t pos = runt_session_pos(t.session);
        assert_true(pos > 0 && pos <= 24 && t.n_dropped == 100 - pos);
        assert_memory_equal(runt_session_seq_tokens(t.session, 0), ids + 100 - pos,
                            pos * sizeof *ids);
        open_timeline(&fresh, m, 24);
        assert_int_equal(
            timeline_feed(&fresh, ids + 100 - pos, pos - (pos == 24), NULL), 0);
        if (pos < 24)
            assert_memory_equal(runt_session_logits(t.session),
                                runt_session_logits(fresh.session),
                                4096 * sizeof(float));
        timeline_close(&t);
        timeline_close(&fresh);
    }
}

static void setting_tokens_reuses_the_common_beginning(void **state)
{
    const runt_model *m = *state;
    struct timeline t, fresh;
    int32_t a[12], b[9];
    for (int i = 0; i < 12; i++)
        a[i] = 100 + i;
    memcpy(b, a, sizeof b);
    b[5] = 7;
    open_timeline(&t, m, 24);
    assert_int_equal(timeline_set(&t, a, 12, NULL), 0);
    assert_int_equal(timeline_set(&t, b, 9, NULL), 0);
    assert_int_equal(timeline_set(&t, b, 9, NULL),
                     0); /* all the same: logits all the same */
    open_timeline(&fresh, m, 24);
    assert_int_equal(timeline_feed(&fresh, b, 9, NULL), 0);
    assert_int_equal(runt_session_pos(t.session), 9);
    assert_memory_equal(runt_session_logits(t.session),
                        runt_session_logits(fresh.session), 4096 * sizeof(float));
    timeline_close(&t);
    timeline_close(&fresh);
}

static int setup(void **state)
{
    *state = fixture_tiny("q8_0");
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
        cmocka_unit_test(a_stop_text_leaves_only_what_was_shown),
        cmocka_unit_test(a_full_context_keeps_the_newest_tokens),
        cmocka_unit_test(setting_tokens_reuses_the_common_beginning),
    };
    return cmocka_run_group_tests_name("answer", tests, setup, teardown);
}
