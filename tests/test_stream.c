/* Streaming: valid UTF-8 at every flush, stop texts held back, nothing lost. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "base/strbuf.h"
#include "base/utf8.h"
#include "runt/runt.h"

#include <string.h>

/* Collects what is given, and checks every piece by itself. */
struct sink {
    struct strbuf text;
    size_t n_calls, stop_at; /* 0: never */
};

static void assert_valid(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t len = utf8_len(s + i, n - i);
        assert_true(len > 0);
        i += len;
    }
}

static int take(void *ctx, const char *text, size_t n)
{
    struct sink *s = ctx;
    assert_true(n > 0);
    assert_valid(text, n);
    sb_put(&s->text, text, n);
    return ++s->n_calls == s->stop_at;
}

static runt_stream *open_stream(const char *const *stops, size_t n_stops, bool skip)
{
    runt_stream *s = NULL;
    struct runt_err err;
    if (runt_stream_new(stops, n_stops, skip, &s, &err))
        fail_msg("%s", err.msg);
    return s;
}

/* Puts text `step` bytes at a time; what the last put returned. */
static int put_in_steps(runt_stream *s, const char *text, size_t n, size_t step,
                        struct sink *k)
{
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i += step)
        rc = runt_stream_put(s, text + i, n - i < step ? n - i : step, take, k);
    return rc;
}

static void whole_characters_only(void **state)
{
    (void)state;
    static const char text[] = "na\xc3\xafve \xe6\x97\xa5\xf0\x9f\x99\x82!";
    for (size_t step = 1; step <= 6; step++) {
        runt_stream *s = open_stream(NULL, 0, false);
        struct sink k = {0};
        assert_int_equal(put_in_steps(s, text, sizeof text - 1, step, &k), 0);
        assert_int_equal(runt_stream_end(s, take, &k), 0);
        assert_string_equal(k.text.data, text);
        sb_free(&k.text);
        runt_stream_free(s);
    }
}

static void broken_bytes_become_replacement_characters(void **state)
{
    (void)state;
    runt_stream *s = open_stream(NULL, 0, false);
    struct sink k = {0};
    runt_stream_put(s,
                    "a\xff"
                    "b\xe6\x97",
                    5, take, &k);
    runt_stream_put(s, "c\xf0\x9f", 3, take, &k);
    runt_stream_end(s, take, &k);
    assert_string_equal(k.text.data, "a\xef\xbf\xbd"
                                     "b\xef\xbf\xbd\xef\xbf\xbd"
                                     "c\xef\xbf\xbd\xef\xbf\xbd");
    sb_free(&k.text);
    runt_stream_free(s);
}

/* However the text is cut, output ends right before the first stop text. */
static void stops_at_the_first_stop_text(void **state)
{
    (void)state;
    static const char *const stops[] = {"END", "aab", "\xf0\x9f\x99\x82", "bcd",
                                        "qbcde"};
    static const struct {
        const char *in, *out;
        int stopped;
    } cases[] = {
        {"xxENDyy", "xx", 1},
        {"xxENENDyy", "xxEN", 1},
        {"xaaabEND", "xa", 1},
        {"EN", "EN", 0},
        {"END", "", 1},
        {"smile \xf0\x9f\x99\x82 no", "smile ", 1},
        {"other \xf0\x9f\x99\x83 no", "other \xf0\x9f\x99\x83 no", 0},
        {"the one that ends first: qbcde", "the one that ends first: q", 1},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        for (size_t step = 1; step <= 8; step++) {
            runt_stream *s = open_stream(stops, 5, false);
            struct sink k = {0};
            int stopped = put_in_steps(s, cases[c].in, strlen(cases[c].in), step, &k);
            assert_int_equal(runt_stream_end(s, take, &k), 0);
            assert_int_equal(stopped, cases[c].stopped);
            assert_string_equal(k.text.data ? k.text.data : "", cases[c].out);
            sb_free(&k.text);
            runt_stream_free(s);
        }
    }
}

/* A stop text of half a character holds back no half character that goes on. */
static void a_stop_text_may_begin_inside_a_character(void **state)
{
    (void)state;
    static const char *const stops[] = {"\x99\x82"};
    for (size_t step = 1; step <= 4; step++) {
        runt_stream *s = open_stream(stops, 1, false);
        struct sink k = {0};
        assert_int_equal(
            put_in_steps(s, "\xf0\x9f\x99\x83 \xf0\x9f\x99\x82", 9, step, &k), 1);
        assert_string_equal(k.text.data, "\xf0\x9f\x99\x83 \xef\xbf\xbd\xef\xbf\xbd");
        sb_free(&k.text);
        runt_stream_free(s);
    }
}

/* Against the plain way: all bytes at once, cut before the stop text that ends first.
 */
static void any_cut_gives_the_same_text(void **state)
{
    (void)state;
    static const char *const stops[] = {"abca", "bb", "cacb"};
    struct rng r;
    rng_seed(&r, 3);
    for (int round = 0; round < 2000; round++) {
        char text[200];
        size_t n = 1 + rng_u64(&r) % sizeof text, cut = n, end = n + 1;
        for (size_t i = 0; i < n; i++)
            text[i] = "abcddddddd"[rng_u64(&r) % 10];
        for (size_t i = 0; i < 3; i++) {
            size_t len = strlen(stops[i]);
            const char *at = memmem(text, n, stops[i], len);
            if (at && (size_t)(at - text) + len < end) {
                cut = (size_t)(at - text);
                end = cut + len;
            }
        }
        runt_stream *s = open_stream(stops, 3, false);
        struct sink k = {0};
        int rc = put_in_steps(s, text, n, 1 + rng_u64(&r) % 100, &k);
        runt_stream_end(s, take, &k);
        assert_int_equal(rc, end <= n);
        assert_int_equal(k.text.len, cut);
        if (cut)
            assert_memory_equal(k.text.data, text, cut);
        sb_free(&k.text);
        runt_stream_free(s);
    }
}

static void random_bytes_stay_valid(void **state)
{
    (void)state;
    static const unsigned char pool[] = {'a',  0xc3, 0xaf, 0xe6, 0x97, 0xa5, 0xf0, 0x9f,
                                         0x99, 0x82, 0xed, 0xa0, 0x80, 0xff, 0xc0};
    struct rng r;
    rng_seed(&r, 1);
    for (int round = 0; round < 3000; round++) {
        runt_stream *s = open_stream(NULL, 0, false);
        struct sink k = {0};
        size_t n_put = 0;
        for (int i = 0; i < 20; i++) {
            char c[3];
            size_t n = 1 + rng_u64(&r) % 3;
            for (size_t j = 0; j < n; j++)
                c[j] = (char)pool[rng_u64(&r) % sizeof pool];
            assert_int_equal(runt_stream_put(s, c, n, take, &k), 0);
            n_put += n;
            assert_true(k.text.len + 3 >= n_put); /* at most 3 bytes are held */
        }
        runt_stream_end(s, take, &k);
        assert_true(k.text.len >= n_put);
        sb_free(&k.text);
        runt_stream_free(s);
    }
}

static void the_first_space_of_an_answer_goes(void **state)
{
    (void)state;
    runt_stream *s = open_stream(NULL, 0, true);
    struct sink k = {0};
    runt_stream_put(s, " who", 4, take, &k);
    runt_stream_put(s, " was", 4, take, &k);
    assert_string_equal(k.text.data, "who was");
    sb_free(&k.text);
    runt_stream_free(s);
}

static void the_caller_can_stop_it(void **state)
{
    (void)state;
    runt_stream *s = open_stream(NULL, 0, false);
    struct sink k = {.stop_at = 2};
    assert_int_equal(runt_stream_put(s, "a", 1, take, &k), 0);
    assert_int_equal(runt_stream_put(s, "b", 1, take, &k), 2);
    assert_int_equal(runt_stream_put(s, "\xc3", 1, take, &k), 0);
    k.stop_at = 3;
    assert_int_equal(runt_stream_end(s, take, &k), 2);
    assert_string_equal(k.text.data, "ab\xef\xbf\xbd");
    sb_free(&k.text);
    runt_stream_free(s);
}

static void stop_texts_have_bounds(void **state)
{
    (void)state;
    static char longest[4098];
    const char *stops[2] = {"x", ""};
    runt_stream *s = NULL;
    struct runt_err err;
    assert_int_equal(runt_stream_new(stops, 2, false, &s, &err), RUNT_E_INVALID);
    assert_non_null(strstr(err.msg, "stop text 2 has 0 bytes"));
    memset(longest, 'a', 4097);
    stops[1] = longest;
    assert_int_equal(runt_stream_new(stops, 2, false, &s, &err), RUNT_E_INVALID);
    longest[4096] = 0;
    s = open_stream(stops, 2, false);
    struct sink k = {0};
    assert_int_equal(runt_stream_put(s, longest, 4095, take, &k), 0);
    assert_int_equal(k.n_calls, 0);
    assert_int_equal(runt_stream_put(s, "a", 1, take, &k), 1);
    assert_int_equal(k.n_calls, 0);
    runt_stream_free(s);
}

static void running_out_of_memory_is_told(void **state)
{
    (void)state;
    static const char *const stops[] = {"END", "aab"};
    long live = mem_live();
    for (long i = 0;; i++) {
        runt_stream *s = NULL;
        struct runt_err err;
        mem_fail_after(i);
        int rc = runt_stream_new(stops, 2, false, &s, &err);
        mem_fail_after(-1);
        if (!rc) {
            assert_true(i >= 6);
            runt_stream_free(s);
            break;
        }
        assert_int_equal(rc, RUNT_E_NOMEM);
        assert_null(s);
        assert_int_equal(mem_live(), live);
    }
    assert_int_equal(mem_live(), live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_characters_only),
        cmocka_unit_test(broken_bytes_become_replacement_characters),
        cmocka_unit_test(stops_at_the_first_stop_text),
        cmocka_unit_test(a_stop_text_may_begin_inside_a_character),
        cmocka_unit_test(any_cut_gives_the_same_text),
        cmocka_unit_test(random_bytes_stay_valid),
        cmocka_unit_test(the_first_space_of_an_answer_goes),
        cmocka_unit_test(the_caller_can_stop_it),
        cmocka_unit_test(stop_texts_have_bounds),
        cmocka_unit_test(running_out_of_memory_is_told),
    };
    return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
