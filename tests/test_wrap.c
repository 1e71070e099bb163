/* Wrapping: no line wider than the terminal, no word broken that fits, nothing lost. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rng.h"
#include "base/utf8.h"
#include "cli/wrap.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>

/* The text put in steps of so many characters; freed with free. */
static char *wrapped(const char *text, size_t width, size_t indent, size_t step)
{
    char *out = NULL;
    size_t n_out, n = strlen(text);
    struct wrap w = {.width = width, .indent = indent};
    w.out = open_memstream(&out, &n_out);
    assert_non_null(w.out);
    for (size_t i = 0; i < n;) {
        size_t end = i;
        for (size_t k = 0; k < step && end < n; k++)
            end += utf8_len(text + end, n - end);
        wrap_put(&w, text + i, end - i);
        i = end;
    }
    wrap_end(&w);
    fclose(w.out);
    return out;
}

static void lines_end_between_words(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t width, indent;
        const char *want;
    } cases[] = {
        {"one two three", 80, 0, "one two three"},
        {"one two three", 7, 0, "one two\nthree"},
        {"one two three", 6, 0, "one\ntwo\nthree"},
        {"one  two   three  ", 9, 0, "one  two\nthree"},
        {"one\ntwo three\n\nfour\n", 8, 0, "one\ntwo\nthree\n\nfour\n"},
        {"kept \nblanks", 80, 0, "kept \nblanks"},
        {"  indented words", 10, 0, "  indented\nwords"},
        {"abcdefghijklm", 5, 0, "abcde\nfghij\nklm"},
        {"ab cdefghijklm no", 5, 0, "ab\ncdefg\nhijkl\nm no"},
        {"a hanging paragraph of words", 12, 3, "a hanging\n   paragraph\n   of words"},
        {"crlf\r\nline", 80, 0, "crlf\nline"},
        {"a\tb", 80, 0, "a       b"},
        {"\x1b[2J\a\x7f", 80, 0, "\xef\xbf\xbd[2J\xef\xbf\xbd\xef\xbf\xbd"},
        {"c1 \xc2\x9b!", 80, 0, "c1 \xef\xbf\xbd!"},
        /* na\u00efve caf\u00e9: columns, not bytes */
        {"na\xc3\xafve caf\xc3\xa9", 10, 0, "na\xc3\xafve caf\xc3\xa9"},
        /* the same with combining marks, which take no column */
        {"nai\xcc\x88ve cafe\xcc\x81", 10, 0, "nai\xcc\x88ve cafe\xcc\x81"},
        /* two columns each; a line may end beside any of them */
        {"\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e", 5, 0,
         "\xe6\x97\xa5\xe6\x9c\xac\n\xe8\xaa\x9e"},
        {"ab \xf0\x9f\x99\x82\xf0\x9f\x99\x82"
         "cd",
         5, 0,
         "ab \xf0\x9f\x99\x82\n\xf0\x9f\x99\x82"
         "cd"},
        {"", 10, 0, ""},
        {"wide \xe6\x97\xa5", 1, 0, "w\ni\nd\ne\n\xe6\x97\xa5"},
        {"raw \x1b[0m  \n passes", 0, 0, "raw \x1b[0m  \n passes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t step = 1; step <= 9; step++) {
            char *out = wrapped(cases[i].text, cases[i].width, cases[i].indent, step);
            assert_string_equal(out, cases[i].want);
            free(out);
        }
    }
}

/* Random words: as many on a line as fit, and the same words again. */
static void random_words_fill_lines(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 5);
    for (int round = 0; round < 500; round++) {
        char text[400] = "", want[400] = "";
        size_t width = 8 + rng_u64(&r) % 30, column = 0, n = 0, m = 0;
        for (int i = 0; i < 30; i++) {
            size_t len = 1 + rng_u64(&r) % 8;
            if (i) {
                text[n++] = ' ';
                want[m++] = column + 1 + len > width ? '\n' : ' ';
                column = want[m - 1] == '\n' ? 0 : column + 1;
            }
            for (size_t k = 0; k < len; k++)
                text[n++] = want[m++] = (char)('a' + rng_u64(&r) % 26);
            column += len;
        }
        text[n] = want[m] = 0;
        char *out = wrapped(text, width, 0, 1 + rng_u64(&r) % 12);
        assert_string_equal(out, want);
        free(out);
    }
}

/* Any text, also words that never end and marks that pile up: no line is too wide. */
static void no_line_is_too_wide(void **state)
{
    (void)state;
    static const char *const pool[] = {"a",        "bc",           " ",
                                       "  ",       "\n",           "\xc3\xa9",
                                       "\xcc\x81", "\xe6\x97\xa5", "\xf0\x9f\x99\x82",
                                       "\t",       "\xe2\x80\x8b", "-",
                                       "."};
    struct rng r;
    rng_seed(&r, 6);
    for (int round = 0; round < 400; round++) {
        char text[4000] = "";
        size_t n = 0, width = 2 + rng_u64(&r) % 20, kinds = 1 + rng_u64(&r) % 13;
        while (n + 8 < sizeof text) {
            const char *s = pool[rng_u64(&r) % kinds];
            memcpy(text + n, s, strlen(s) + 1);
            n += strlen(s);
        }
        char *out = wrapped(text, width, 0, 1 + rng_u64(&r) % 50), *line = out;
        for (char *end; line; line = end ? end + 1 : NULL) {
            end = strchr(line, '\n');
            size_t len = end ? (size_t)(end - line) : strlen(line);
            assert_true(wrap_columns(line, len) <= width);
        }
        free(out);
    }
}

static void a_new_width_counts_at_once(void **state)
{
    (void)state;
    char *out = NULL;
    size_t n;
    struct wrap w = {.width = 40};
    w.out = open_memstream(&out, &n);
    wrap_put(&w, "a first line of words ", 22);
    w.width = 10;
    wrap_put(&w, "and then a narrow one ", 22);
    w.width = 40;
    wrap_put(&w, "and it is wide again", 20);
    wrap_end(&w);
    fclose(w.out);
    assert_string_equal(out, "a first line of words\nand then a\nnarrow one and it is "
                             "wide again");
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_end_between_words),
        cmocka_unit_test(random_words_fill_lines),
        cmocka_unit_test(no_line_is_too_wide),
        cmocka_unit_test(a_new_width_counts_at_once),
    };
    if (!setlocale(LC_CTYPE, "C.UTF-8"))
        return 1;
    return cmocka_run_group_tests_name("wrap", tests, NULL, NULL);
}
