/* Streaming: valid UTF-8 at every flush, stop texts held back, nothing lost. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rng.h"
#include "base/utf8.h"
#include "cli/stream.h"

#include <string.h>

static void assert_valid(const struct strbuf *b)
{
    for (size_t i = 0; i < b->len;) {
        size_t n = utf8_len(b->data + i, b->len - i);
        assert_true(n > 0);
        i += n;
    }
}

static void whole_characters_only(void **state)
{
    (void)state;
    static const char text[] = "na\xc3\xafve \xe6\x97\xa5\xf0\x9f\x99\x82!";
    for (size_t step = 1; step <= 6; step++) {
        struct stream s = {0};
        for (size_t i = 0; i < sizeof text - 1; i += step) {
            size_t n = sizeof text - 1 - i < step ? sizeof text - 1 - i : step;
            assert_false(stream_put(&s, text + i, n));
            assert_valid(&s.text);
        }
        stream_end(&s);
        assert_string_equal(s.text.data, text);
        stream_free(&s);
    }
}

static void broken_bytes_become_replacement_characters(void **state)
{
    (void)state;
    struct stream s = {0};
    stream_put(&s,
               "a\xff"
               "b\xe6\x97",
               5);
    stream_put(&s, "c\xf0\x9f", 3);
    stream_end(&s);
    assert_string_equal(s.text.data, "a\xef\xbf\xbd"
                                     "b\xef\xbf\xbd\xef\xbf\xbd"
                                     "c\xef\xbf\xbd\xef\xbf\xbd");
    stream_free(&s);
}

/* However the text is cut, output ends right before the first stop text. */
static void stops_at_the_first_stop_text(void **state)
{
    (void)state;
    static const char *const stops[] = {"END", "aab", "\xf0\x9f\x99\x82"};
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
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        for (size_t step = 1; step <= 8; step++) {
            struct stream s = {.stops = stops, .n_stops = 3};
            size_t n = strlen(cases[c].in);
            int stopped = 0;
            for (size_t i = 0; i < n && !stopped; i += step) {
                stopped = stream_put(&s, cases[c].in + i, n - i < step ? n - i : step);
                assert_valid(&s.text);
            }
            if (!stopped)
                stream_end(&s);
            assert_int_equal(s.n_shown, strlen(cases[c].out));
            assert_int_equal(stopped, cases[c].stopped);
            assert_string_equal(s.text.data ? s.text.data : "", cases[c].out);
            stream_free(&s);
        }
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
        struct stream s = {0};
        for (int i = 0; i < 20; i++) {
            char c[3];
            size_t n = 1 + rng_u64(&r) % 3;
            for (size_t k = 0; k < n; k++)
                c[k] = (char)pool[rng_u64(&r) % sizeof pool];
            stream_put(&s, c, n);
            assert_valid(&s.text);
            assert_true(s.held.len <= 3);
        }
        stream_end(&s);
        assert_valid(&s.text);
        stream_free(&s);
    }
}

static void the_first_space_of_an_answer_goes(void **state)
{
    (void)state;
    struct stream s = {.skip_space = true};
    stream_put(&s, " who", 4);
    stream_put(&s, " was", 4);
    assert_string_equal(s.text.data, "who was");
    stream_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_characters_only),
        cmocka_unit_test(broken_bytes_become_replacement_characters),
        cmocka_unit_test(stops_at_the_first_stop_text),
        cmocka_unit_test(random_bytes_stay_valid),
        cmocka_unit_test(the_first_space_of_an_answer_goes),
    };
    return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
