/* The timeline behind answers: what of a prompt is fed, and what of it is reused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "cli/answer.h"
#include "model_fixture.h"

#include <string.h>

static void open_timeline(struct timeline *t, const runt_model *m, uint32_t n_ctx)
{
    struct runt_session_options so = {.n_ctx = n_ctx};
    struct cli_sampler sa = cli_sampler_defaults();
    struct runt_err err;
    sa.temp = 0;
    if (timeline_open(t, m, &so, &sa, &err))
        fail_msg("%s", err.msg);
}

/* Of a prompt longer than the context its end is kept, and drawing goes on from it. */
static void a_full_context_keeps_the_newest_tokens(void **state)
{
    const runt_model *m = *state;
    struct timeline t, fresh;
    struct runt_generated g;
    struct runt_generate_options o = {.n_max = 40};
    int32_t ids[100];
    for (int i = 0; i < 100; i++)
        ids[i] = (i * 31 + 7) % 4000;
    open_timeline(&t, m, 24);
    assert_int_equal(timeline_prompt(&t, NULL, ids, 100, NULL), 0);
    assert_int_equal(t.n_dropped, 77);
    assert_int_equal(runt_session_pos(t.session), 23);
    open_timeline(&fresh, m, 24);
    assert_int_equal(timeline_prompt(&fresh, NULL, ids + 77, 23, NULL), 0);
    assert_int_equal(fresh.n_dropped, 0);
    assert_memory_equal(runt_session_logits(t.session),
                        runt_session_logits(fresh.session), 4096 * sizeof(float));
    assert_int_equal(timeline_answer(&t, &o, NULL, NULL, &g, NULL), 0);
    assert_true(g.n_tokens == 40 || g.end == RUNT_END_EOS);
    assert_int_equal(t.n_dropped, 77 + g.n_dropped);
    timeline_close(&t);
    timeline_close(&fresh);
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
    assert_int_equal(timeline_prompt(&fresh, NULL, b, 9, NULL), 0);
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
        cmocka_unit_test(a_full_context_keeps_the_newest_tokens),
        cmocka_unit_test(setting_tokens_reuses_the_common_beginning),
    };
    return cmocka_run_group_tests_name("answer", tests, setup, teardown);
}
