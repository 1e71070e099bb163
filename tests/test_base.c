/* The ground floor: errors, heap, strings, cursor, UTF-8, JSON, random numbers,
 * processor. (Files and threads: test_base_os.c.) */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/cpu.h"
#include "base/cursor.h"
#include "base/err.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/strbuf.h"
#include "base/utf8.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- errors ---- */

static void test_err_set(void **state)
{
    (void)state;
    struct runt_err err = {0};
    assert_int_equal(err_set(&err, RUNT_E_FORMAT, "%s: %d", "a", 5), RUNT_E_FORMAT);
    assert_int_equal(err.code, RUNT_E_FORMAT);
    assert_string_equal(err.msg, "a: 5");
    assert_int_equal(err_set(NULL, RUNT_E_IO, "%d", 1), RUNT_E_IO);
    assert_int_equal(err_nomem(&err, "a thing"), RUNT_E_NOMEM);
    assert_string_equal(err.msg, "out of memory for a thing");
    errno = ENOENT;
    assert_int_equal(err_errno(&err, "p", "open"), RUNT_E_NOTFOUND);
    assert_string_equal(err.msg, "p: cannot open: No such file or directory");
    errno = EACCES;
    assert_int_equal(err_errno(&err, "p", "open"), RUNT_E_IO);
}

/* No byte sequence of a file name reaches the terminal as a control. */
static void test_err_control(void **state)
{
    (void)state;
    struct runt_err err = {0};
    err_set(&err, RUNT_E_IO, "%s", "a\x1b[2J\r\n\t\x7f\x01z");
    assert_string_equal(err.msg, "a?[2J?????z");
    err_set(&err, RUNT_E_IO, "%s",
            "\xc2\x9b"
            "2J \xc2\x80\xc2\x9f");
    assert_string_equal(err.msg, "??2J ????");
    err_set(&err, RUNT_E_IO, "%s", "\xc2");
    assert_string_equal(err.msg, "\xc2");
    err_set(&err, RUNT_E_IO, "%s", "\xc2[");
    assert_string_equal(err.msg, "\xc2[");
    err_set(&err, RUNT_E_IO, "%s", "caf\xc3\xa9 \xc2\xa0 \xe2\x82\xac");
    assert_string_equal(err.msg, "caf\xc3\xa9 \xc2\xa0 \xe2\x82\xac");
    err_set(&err, RUNT_E_IO, "x");
    err_prefix(&err, "a\nb");
    assert_string_equal(err.msg, "a?b: x");
}

static void test_err_long(void **state)
{
    (void)state;
    struct runt_err err;
    char a[1000];
    memset(a, 'a', sizeof a - 1);
    a[sizeof a - 1] = 0;
    memset(&err, 0x5a, sizeof err);
    err_set(&err, RUNT_E_IO, "%s", a);
    assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
    memset(a, 'p', sizeof a - 1);
    err_prefix(&err, "%s", a);
    assert_int_equal(err.code, RUNT_E_IO);
    assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
    assert_int_equal(strspn(err.msg, "p"), 255);
    assert_memory_equal(err.msg + 255, ": aaa", 5);
    err_set(&err, RUNT_E_FULL, "fault");
    err_prefix(&err, "%s:%d", "f", 3);
    assert_int_equal(err.code, RUNT_E_FULL);
    assert_string_equal(err.msg, "f:3: fault");
    /* the longest line that a short prefix leaves whole, and one more */
    for (size_t n = 506; n <= 508; n++) {
        memset(err.msg, 'm', n);
        err.msg[n] = 0;
        err_prefix(&err, "pp");
        assert_int_equal(strlen(err.msg), n + 4 < 512 ? n + 4 : 511);
    }
    err_prefix(NULL, "x");
}

/* ---- heap ---- */

static void test_mem_basics(void **state)
{
    (void)state;
    long live = mem_live();
    char *dirty = mem_alloc(100);
    memset(dirty, 0x5a, 100);
    mem_free(dirty); /* to be handed out again */
    unsigned char *z = mem_zalloc(100), *a = mem_array(10, 10), *e = mem_alloc(0);
    void *al = mem_aligned(1), *al0 = mem_aligned(0);
    assert_true(z && a && e && al && al0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(z[i] | a[i], 0);
    assert_int_equal((uintptr_t)al % 64, 0);
    assert_int_equal(mem_live(), live + 5);
    z[99] = 7;
    unsigned char *r = mem_resize(z, 1000, 10);
    assert_non_null(r);
    assert_int_equal(r[99], 7);
    assert_int_equal(mem_live(), live + 5);
    char *s = mem_strndup("hello", 3), *p = mem_printf("%d-%s", 42, "x"),
         *d = mem_strdup("");
    assert_string_equal(s, "hel");
    assert_string_equal(p, "42-x");
    assert_string_equal(d, "");
    void *fresh = mem_resize(NULL, 0, 8);
    assert_non_null(fresh);
    assert_int_equal(mem_live(), live + 9);
    void *all[] = {r, a, e, al, al0, s, p, d, fresh, NULL};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mem_free(all[i]);
    assert_int_equal(mem_live(), live);
}

static void test_mem_overflow(void **state)
{
    (void)state;
    long live = mem_live();
    volatile size_t huge = SIZE_MAX; /* or the compiler refuses the call */
    size_t out = 5;
    assert_null(mem_array(huge / 2, 3));
    assert_null(mem_aligned(huge));
    assert_null(mem_aligned(huge - 62));
    assert_null(mem_strndup("x", huge));
    char *p = mem_strdup("keep");
    assert_null(mem_resize(p, huge / 2, 3));
    assert_string_equal(p, "keep");
    mem_free(p);
    assert_false(size_mul(huge / 2, 3, &out));
    assert_true(size_mul(huge / 2, 2, &out));
    assert_true(out == huge - 1);
    assert_false(size_add(huge, 1, &out));
    assert_true(size_add(huge, 0, &out));
    assert_int_equal(mem_live(), live);
}

static void *alloc_kind(int kind)
{
    switch (kind) {
    case 0:
        return mem_alloc(1);
    case 1:
        return mem_zalloc(1);
    case 2:
        return mem_array(1, 1);
    case 3:
        return mem_resize(NULL, 1, 1);
    case 4:
        return mem_aligned(1);
    case 5:
        return mem_strdup("x");
    default:
        return mem_printf("x");
    }
}

static void test_mem_fail(void **state)
{
    (void)state;
    long live = mem_live();
    for (int kind = 0; kind < 7; kind++) {
        mem_fail_after(2);
        for (int i = 0; i < 5; i++) {
            void *p = alloc_kind(kind);
            assert_int_equal(p == NULL, i == 2);
            mem_free(p);
        }
    }
    mem_fail_after(0);
    mem_fail_after(-1);
    void *p = mem_alloc(1);
    assert_non_null(p);
    mem_fail_after(0);
    assert_null(mem_resize(p, 2, 1));
    mem_free(p);
    assert_int_equal(mem_live(), live);
}

static void test_arena(void **state)
{
    (void)state;
    volatile size_t huge = SIZE_MAX;
    struct arena a = {0};
    long live = mem_live();
    assert_int_equal(arena_init(&a, huge), RUNT_E_NOMEM);
    assert_int_equal(arena_init(&a, 1000), 0);
    memset(a.base, 0x5a, 1000);
    unsigned char *p = arena_take(&a, 1, 1), *q = arena_take(&a, 3, 43);
    assert_true(p && q);
    assert_int_equal((uintptr_t)p % 64 + (uintptr_t)q % 64, 0);
    assert_int_equal(q - p, 64);
    assert_null(arena_take(&a, huge, 1));
    assert_null(arena_take(&a, huge - 62, 1));
    assert_null(arena_take(&a, huge / 2, 4));
    assert_null(arena_take(&a, huge / 2 + 1, 2));
    assert_null(arena_take(&a, 1000, 1));
    assert_non_null(arena_take(&a, 1000 - 256, 1)); /* the whole rest */
    assert_non_null(arena_take(&a, 0, 8));
    assert_null(arena_take(&a, 1, 1 + 63));
    arena_free(&a);
    assert_null(a.base);
    /* what was asked for fits, multiple of 64 or not */
    for (size_t n = 1; n < 200; n += 13) {
        assert_int_equal(arena_init(&a, n), 0);
        assert_non_null(arena_take(&a, n, 1));
        assert_null(arena_take(&a, 65, 1));
        arena_free(&a);
    }
    mem_fail_after(0);
    assert_int_equal(arena_init(&a, 10), RUNT_E_NOMEM);
    assert_int_equal(mem_live(), live);
}

/* ---- strings and bytes ---- */

static void test_strbuf(void **state)
{
    (void)state;
    struct strbuf b = {0};
    sb_put(&b, NULL, 0);
    sb_str(&b, "ab");
    sb_char(&b, 0);
    sb_printf(&b, "%s-%d", "x", -7);
    assert_int_equal(b.len, 7);
    assert_memory_equal(b.data, "ab\0x--7", 8); /* with the final NUL */
    for (int i = 0; i < 10000; i++)
        sb_printf(&b, "%04d", i);
    assert_int_equal(b.len, 40007);
    assert_memory_equal(b.data + 40003, "9999", 5);
    assert_false(b.failed);
    sb_free(&b);
    assert_true(!b.data && !b.len && !b.cap);
    /* a failure sticks and loses nothing that was there */
    sb_str(&b, "kept");
    mem_fail_after(0);
    for (int i = 0; i < 100; i++)
        sb_str(&b, "0123456789");
    assert_true(b.failed);
    assert_true(b.len < 100);
    assert_int_equal(b.len % 10, 4);
    assert_memory_equal(b.data, "kept0123", 8);
    assert_int_equal(b.data[b.len], 0);
    sb_free(&b);
    assert_false(b.failed);
    sb_put(&b, "x", SIZE_MAX);
    assert_true(b.failed);
    sb_free(&b);
    mem_fail_after(0);
    sb_printf(&b, "x");
    assert_true(b.failed && !b.data);
    sb_free(&b);
}

static void test_cursor(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {1, 2, 3,    0x80, 5,    6,    7,   0x81,
                                    0, 0, 0x80, 0x3f, 0,    0,    0,   0,
                                    0, 0, 0xf0, 0xbf, 0xaa, 0xbb, 0xcc};
    struct cursor c = cur_make(bytes, sizeof bytes);
    assert_true(cur_u64(&c) == 0x8107060580030201u);
    assert_true(cur_f32(&c) == 1.0f);
    assert_true(cur_f64(&c) == -1.0);
    assert_int_equal(cur_left(&c), 3);
    assert_int_equal(cur_u16(&c), 0xbbaa);
    assert_false(c.bad);
    assert_int_equal(cur_u32(&c), 0); /* one byte is left */
    assert_true(c.bad);
    assert_int_equal(cur_left(&c), 1);
    assert_int_equal(cur_u8(&c), 0); /* and stays unread */
    assert_null(cur_bytes(&c, 0));
    assert_true(cur_f32(&c) == 0 && cur_f64(&c) == 0 && cur_u64(&c) == 0);

    c = cur_make(bytes, 4);
    assert_true(cur_u32(&c) == 0x80030201u);
    assert_ptr_equal(cur_bytes(&c, 0), bytes + 4);
    assert_false(c.bad);
    assert_int_equal(cur_u8(&c), 0);
    assert_true(c.bad);
    c = cur_make(bytes, 4);
    c.pos = 2;
    assert_null(cur_bytes(&c, UINT64_MAX));
    assert_true(c.bad);
    c = cur_make(NULL, 0);
    assert_int_equal(cur_u8(&c), 0);
    assert_true(c.bad);
}

static void test_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *s;
        size_t n, len, partial;
    } cases[] = {
        {"a", 1, 1, 0},
        {"\0", 1, 1, 0},
        {"\x7f", 1, 1, 0},
        {"\xc3\xa9", 2, 2, 0},
        {"\xc2\x80", 2, 2, 0},
        {"\xe0\xa0\x80", 3, 3, 0},
        {"\xe2\x82\xac", 3, 3, 0},
        {"\xed\x9f\xbf", 3, 3, 0},
        {"\xee\x80\x80", 3, 3, 0},
        {"\xf0\x90\x80\x80", 4, 4, 0},
        {"\xf4\x8f\xbf\xbf", 4, 4, 0},
        {"\xc1\xbf", 2, 0, 0},         /* overlong */
        {"\xe0\x9f\xbf", 3, 0, 0},     /* overlong */
        {"\xf0\x8f\xbf\xbf", 4, 0, 0}, /* overlong */
        {"\xed\xa0\x80", 3, 0, 0},     /* surrogate */
        {"\xed\xbf\xbf", 3, 0, 0},     /* surrogate */
        {"\xf4\x90\x80\x80", 4, 0, 0}, /* above U+10FFFF */
        {"\xff", 1, 0, 0},
        {"\x80", 1, 0, 0},
        {"\xc3(", 2, 0, 0},
        {"\xe2\x82(", 3, 0, 0},
        {"\xc3", 1, 0, 1},
        {"\xe2\x82", 2, 0, 2},
        {"\xf0\x9f\x98", 3, 0, 3},
        {"a\xe2", 2, 1, 1},
        {"\xc3\xa9\xc3", 3, 2, 1},
        {"\x80\x80\x80\x80", 4, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *s = malloc(cases[i].n); /* exact, for a sanitizer */
        assert_non_null(s);
        memcpy(s, cases[i].s, cases[i].n);
        if (utf8_len(s, cases[i].n) != cases[i].len ||
            utf8_partial(s, cases[i].n) != cases[i].partial)
            fail_msg("case %zu", i);
        free(s);
    }
    assert_int_equal(utf8_partial("", 0), 0);
    /* Every code point: encoded by the rule, one sequence; surrogates none. */
    for (uint32_t c = 0; c < 0x110000; c++) {
        char s[4];
        size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        static const unsigned char lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};
        for (size_t i = n; i-- > 1;)
            s[i] = (char)(0x80 | ((c >> 6 * (n - 1 - i)) & 63));
        s[0] = (char)(lead[n] | c >> 6 * (n - 1));
        if (utf8_len(s, n) != (c >= 0xd800 && c < 0xe000 ? 0 : n))
            fail_msg("U+%04X", c);
    }
}

/* ---- JSON ---- */

static void refuse_json(const char *text, size_t n, const char *needle)
{
    struct runt_err err = {0};
    json_t *v = (json_t *)(uintptr_t)0x5a;
    if (js_parse(text, n, "x.json", &v, &err) != RUNT_E_FORMAT ||
        strncmp(err.msg, "x.json: ", 8) || !strstr(err.msg, needle))
        fail_msg("wanted \"%s\", got %d \"%s\"", needle, err.code, err.msg);
    assert_ptr_equal(v, (void *)(uintptr_t)0x5a);
}

static char *repeat(const char *s, size_t times)
{
    size_t n = strlen(s);
    char *p = malloc(n * times + 1);
    assert_non_null(p);
    for (size_t i = 0; i < times; i++)
        memcpy(p + i * n, s, n);
    p[n * times] = 0;
    return p;
}

static void test_js_refuses(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",          "{",       "[1,]",     "{\"a\":1,}", "{} {}",      "nul",
        "'a'",       "[1 2]",   "\"\xff\"", "[01]",       "[NaN]",      "[1e999]",
        "{\"a\" 1}", "\"\\x\"", "[\"a",     "[1]]",       "[\"a\nb\"]", "{1:2}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refuse_json(bad[i], strlen(bad[i]), "bad JSON at line");
    refuse_json("[1]\0", 4, "bad JSON");
    refuse_json("{\"a\":1,\n \"a\":1}", 15, "line 2");
    refuse_json("99999999999999999999", 20, "bad JSON");

    char *deep = repeat("[", 100000);
    refuse_json(deep, 100000, "bad JSON");
    free(deep);
    deep = repeat("{\"a\":", 100000);
    refuse_json(deep, 500000, "bad JSON");
    free(deep);
    char *wide = repeat("[],", JS_MAX_CONTAINERS + 1);
    refuse_json(wide, strlen(wide), "more than 1000000 lists");
    free(wide);
    char *large = repeat(" ", JS_MAX_BYTES + 1);
    refuse_json(large, JS_MAX_BYTES + 1, "larger than the limit of 25165824 bytes");
    free(large);
}

static void test_js_getters(void **state)
{
    (void)state;
    static const char text[] =
        "{\"u\": 7, \"neg\": -1, \"real\": 2.5, \"whole\": 1.0, \"t\": true, "
        "\"f\": false, \"nul\": null, \"s\": \"str\", \"max\": 9223372036854775807}";
    json_t *o = NULL;
    struct runt_err err = {.code = 1, .msg = "untouched"};
    uint64_t u = 99;
    double d = 99;
    bool b = true;
    assert_int_equal(js_parse(text, sizeof text - 1, "c.json", &o, &err), 0);
    assert_int_equal(js_get_uint(o, "u", 7, "c.json", &u, &err), 0);
    assert_int_equal(u, 7);
    assert_int_equal(js_get_uint(o, "max", UINT64_MAX, "c.json", &u, &err), 0);
    assert_true(u == INT64_MAX);
    u = 99;
    assert_int_equal(js_get_uint(o, "none", 7, "c.json", &u, &err), RUNT_E_NOTFOUND);
    assert_int_equal(js_get_uint(o, "nul", 7, "c.json", &u, &err), RUNT_E_NOTFOUND);
    assert_int_equal(js_get_double(o, "nul", "c.json", &d, &err), RUNT_E_NOTFOUND);
    assert_int_equal(js_get_bool(o, "none", "c.json", &b, &err), RUNT_E_NOTFOUND);
    assert_int_equal(err.code, 1);
    assert_string_equal(err.msg, "untouched");
    assert_int_equal(js_get_uint(o, "u", 6, "c.json", &u, &err), RUNT_E_FORMAT);
    assert_string_equal(err.msg, "c.json: u is 7, outside 0..6");
    static const char *const no_uint[] = {"neg", "real", "whole", "t", "s"};
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(js_get_uint(o, no_uint[i], 100, "c.json", &u, &err),
                         RUNT_E_FORMAT);
    assert_int_equal(js_get_uint(o, "neg", UINT64_MAX, "c.json", &u, &err),
                     RUNT_E_FORMAT);
    assert_int_equal(js_get_double(o, "s", "c.json", &d, &err), RUNT_E_FORMAT);
    assert_string_equal(err.msg, "c.json: s is not a number");
    assert_int_equal(js_get_bool(o, "u", "c.json", &b, &err), RUNT_E_FORMAT);
    assert_true(u == 99 && d == 99 && b);
    assert_int_equal(js_get_double(o, "real", "c.json", &d, &err), 0);
    assert_true(d == 2.5);
    assert_int_equal(js_get_double(o, "neg", "c.json", &d, &err), 0);
    assert_true(d == -1);
    assert_int_equal(js_get_bool(o, "f", "c.json", &b, &err), 0);
    assert_false(b);
    assert_int_equal(js_get_bool(o, "t", "c.json", &b, &err), 0);
    assert_true(b);
    assert_string_equal(js_get_str(o, "s"), "str");
    assert_null(js_get_str(o, "u"));
    assert_null(js_get_str(o, "none"));
    json_decref(o);
    /* any value at the root; getters on what is no object find nothing */
    assert_int_equal(js_parse(" 3 ", 3, "c.json", &o, &err), 0);
    assert_null(js_get_str(o, "s"));
    assert_int_equal(js_get_uint(o, "u", 7, "c.json", &u, &err), RUNT_E_NOTFOUND);
    json_decref(o);
}

/* ---- random numbers ---- */

/* Computed by an independent program from the published definitions. */
static void test_rng_fixed(void **state)
{
    (void)state;
    static const uint64_t want[4] = {0xb3f2af6d0fc710c5, 0x853b559647364cea,
                                     0x92f89756082a4514, 0x642e1c7bc266a3a7};
    struct rng r;
    rng_seed(&r, 1);
    assert_true(r.s[0] == 0x910a2dec89025cc1 && r.s[3] == 0x71c18690ee42c90b);
    for (int i = 0; i < 4; i++)
        assert_true(rng_u64(&r) == want[i]);
    rng_seed(&r, 1);
    assert_true(rng_unit(&r) == (double)(want[0] >> 11) / 9007199254740992.0);
}

/* Sample moments lie within 6 of their standard errors: sd/sqrt(n) of a uniform's mean
 * and variance; of a normal's mean, variance (sqrt(2/n)), third (sqrt(15/n)) and fourth
 * moments (sqrt(96/n)). */
static void test_rng_moments(void **state)
{
    (void)state;
    enum { N = 1000000 };
    struct rng r;
    rng_seed(&r, 42);
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0, root = sqrt(N);
    for (int i = 0; i < N; i++) {
        double u = rng_unit(&r);
        assert_true(u >= 0 && u < 1);
        m1 += u - 0.5;
        m2 += (u - 0.5) * (u - 0.5);
    }
    assert_true(fabs(m1 / N) <= 6 * sqrt(1 / 12.0) / root);
    assert_true(fabs(m2 / N - 1 / 12.0) <= 6 * sqrt(1 / 180.0) / root);
    m1 = m2 = 0;
    for (int i = 0; i < N; i++) {
        double x = (double)rng_normal(&r);
        m1 += x;
        m2 += x * x;
        m3 += x * x * x;
        m4 += x * x * x * x;
    }
    assert_true(fabs(m1 / N) <= 6 / root);
    assert_true(fabs(m2 / N - 1) <= 6 * sqrt(2) / root);
    assert_true(fabs(m3 / N) <= 6 * sqrt(15) / root);
    assert_true(fabs(m4 / N - 3) <= 6 * sqrt(96) / root);
}

/* ---- processor ---- */

static void test_cpu(void **state)
{
    (void)state;
    struct runt_err err = {0};
    enum cpu_level have, l;
    char *old = getenv("RUNT_CPU");
    old = old ? strdup(old) : NULL;
    unsetenv("RUNT_CPU");
    assert_int_equal(cpu_detect(&have, &err), 0);
    setenv("RUNT_CPU", "", 1);
    assert_int_equal(cpu_detect(&l, &err), 0);
    assert_int_equal(l, have);
    assert_true(!cpu_is_chosen() && cpu_has(CPU_REF) && cpu_has(have));
    for (enum cpu_level want = CPU_REF; want < CPU_N_LEVELS; want++) {
        bool can = cpu_has(want);
        assert_true(!can || want <= have);
        setenv("RUNT_CPU", cpu_level_name(want), 1);
        assert_true(cpu_is_chosen());
        l = (enum cpu_level)77;
        assert_int_equal(cpu_detect(&l, &err), can ? 0 : RUNT_E_INVALID);
        assert_int_equal(l, can ? want : 77);
        if (!can)
            assert_non_null(strstr(err.msg, ": this processor has only ref"));
    }
    /* what implies what */
    assert_true(!cpu_has(CPU_NEON) || !cpu_has(CPU_AVX2));
    assert_true(!cpu_has(CPU_NEON_DOT) || cpu_has(CPU_NEON));
    assert_true(cpu_has(CPU_AVX512VL) == cpu_has(CPU_AVX512));
    for (enum cpu_level i = CPU_AVXVNNI; i <= CPU_AVX512; i++)
        assert_true(!cpu_has(i) || cpu_has(CPU_AVX2));
    setenv("RUNT_CPU", "REF", 1);
    assert_int_equal(cpu_detect(&l, &err), 0);
    assert_int_equal(l, CPU_REF);
    setenv("RUNT_CPU", "pentium", 1);
    l = (enum cpu_level)77;
    assert_int_equal(cpu_detect(&l, &err), RUNT_E_INVALID);
    assert_string_equal(err.msg,
                        "RUNT_CPU=pentium: not one of ref, avx2, avxvnni, avx512vl, "
                        "avx512, neon, neondot");
    assert_int_equal(l, 77);
    assert_in_range(cpu_n_cores(), 1, 100000);
    if (old)
        setenv("RUNT_CPU", old, 1);
    else
        unsetenv("RUNT_CPU");
    free(old);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_err_set),      cmocka_unit_test(test_err_control),
        cmocka_unit_test(test_err_long),     cmocka_unit_test(test_mem_basics),
        cmocka_unit_test(test_mem_overflow), cmocka_unit_test(test_mem_fail),
        cmocka_unit_test(test_arena),        cmocka_unit_test(test_strbuf),
        cmocka_unit_test(test_cursor),       cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_js_refuses),   cmocka_unit_test(test_js_getters),
        cmocka_unit_test(test_rng_fixed),    cmocka_unit_test(test_rng_moments),
        cmocka_unit_test(test_cpu),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
