/* Compressed files: unpacked, damaged, cut short, too large. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/unpack.h"
#include "base/xz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char plain[] = "a goat, a goat, a goat\n";

/* printf 'a goat, a goat, a goat\n' | xz --lzma2=dict=4KiB
 * (With -9 every unpacking clears 64 MB.) */
static const char packed[] =
    "\xfd\x37\x7a\x58\x5a\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01"
    "\x00\x00\x00\x00\x37\x27\x97\xd6\xe0\x00\x16\x00\x0f\x5d\x00\x30"
    "\x88\x08\xe7\x33\x8e\x2b\x58\xb9\x5b\x51\x17\x5e\xc0\x00\x00\x00"
    "\x09\xad\x50\x01\x6c\x38\x93\x75\x00\x01\x2b\x17\x85\xcd\x25\xd5"
    "\x1f\xb6\xf3\x7d\x01\x00\x00\x00\x00\x04\x59\x5a";
enum { N_PACKED = sizeof packed - 1, N_PLAIN = sizeof plain - 1 };

/* Not here at all, when built without liblzma. */
static void need_xz(void)
{
    char *out = NULL;
    size_t n = 0;
    if (xz_unpack(packed, N_PACKED, 100, "a.xz", &out, &n, NULL) == RUNT_E_UNSUPPORTED)
        skip();
    mem_free(out);
}

static void what_was_packed_comes_back(void **state)
{
    (void)state;
    char *out = NULL, twice[2 * N_PACKED];
    size_t n = 0;
    need_xz();
    assert_true(xz_is(packed, N_PACKED) && !xz_is(plain, N_PLAIN) && !xz_is(packed, 5));
    assert_int_equal(xz_unpack(packed, N_PACKED, N_PLAIN, "a.xz", &out, &n, NULL), 0);
    assert_int_equal(n, N_PLAIN);
    assert_memory_equal(out, plain, N_PLAIN + 1);
    mem_free(out);
    memcpy(twice, packed, N_PACKED); /* two streams, as `cat a.xz b.xz` makes them */
    memcpy(twice + N_PACKED, packed, N_PACKED);
    assert_int_equal(xz_unpack(twice, sizeof twice, 100, "a.xz", &out, &n, NULL), 0);
    assert_int_equal(n, 2 * N_PLAIN);
    assert_memory_equal(out + N_PLAIN, plain, N_PLAIN + 1);
    mem_free(out);
}

static void damage_is_refused(void **state)
{
    (void)state;
    struct runt_err err;
    size_t n = 77;
    need_xz();
    for (size_t i = 0; i < N_PACKED; i++) { /* cut short, anywhere */
        char *out = (char *)&err, *exact = malloc(i + 1);
        memcpy(exact, packed, i);
        assert_int_equal(xz_unpack(exact, i, 100, "a.xz", &out, &n, &err),
                         RUNT_E_FORMAT);
        assert_ptr_equal(out, &err);
        assert_non_null(strstr(err.msg, "a.xz"));
        free(exact);
    }
    for (size_t i = 0; i < 8 * N_PACKED; i++) { /* every bit */
        char *out = NULL, bad[N_PACKED];
        memcpy(bad, packed, N_PACKED);
        bad[i / 8] ^= (char)(1 << i % 8);
        int rc = xz_unpack(bad, N_PACKED, 100, "a.xz", &out, &n, &err);
        assert_true(rc == RUNT_E_FORMAT || rc == RUNT_E_UNSUPPORTED);
    }
    assert_int_equal(n, 77);
}

static void there_is_a_limit(void **state)
{
    (void)state;
    struct runt_err err;
    char *out = NULL;
    size_t n = 0;
    need_xz();
    assert_int_equal(xz_unpack(packed, N_PACKED, N_PLAIN - 1, "a.xz", &out, &n, &err),
                     RUNT_E_FORMAT);
    assert_non_null(strstr(err.msg, "limit of 22 bytes"));
}

static void memory_may_run_out(void **state)
{
    (void)state;
    struct runt_err err;
    need_xz();
    long live = mem_live();
    for (long k = 0;; k++) {
        char *out = NULL;
        size_t n = 0;
        mem_fail_after(k);
        int rc = xz_unpack(packed, N_PACKED, 100, "a.xz", &out, &n, &err);
        mem_fail_after(-1);
        mem_free(out);
        assert_int_equal(mem_live(), live);
        if (!rc) {
            assert_true(k > 1);
            break;
        }
        assert_int_equal(rc, RUNT_E_NOMEM);
    }
}

static void files_are_packed_or_not(void **state)
{
    (void)state;
    need_xz();
    for (int i = 0; i < 2; i++) {
        char path[] = "/tmp/runt-xz-XXXXXX", *out = NULL;
        size_t n = 0, want = i ? N_PACKED : N_PLAIN;
        int fd = mkstemp(path);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, i ? packed : plain, want), want);
        close(fd);
        assert_int_equal(unpack_read(path, 100, &out, &n, NULL), 0);
        unlink(path);
        assert_int_equal(n, N_PLAIN);
        assert_memory_equal(out, plain, N_PLAIN + 1);
        mem_free(out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_packed_comes_back),
        cmocka_unit_test(damage_is_refused),
        cmocka_unit_test(there_is_a_limit),
        cmocka_unit_test(memory_may_run_out),
        cmocka_unit_test(files_are_packed_or_not),
    };
    return cmocka_run_group_tests_name("xz", tests, NULL, NULL);
}
