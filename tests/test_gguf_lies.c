/* The model file, in bad faith: every lie that a file can tell is an error with a line
 * that says which, no damage does more than that, and what is merely unusual is read.
 *
 * Hostile bytes are parsed from memory that ends at an unmapped page, so that reading
 * one byte too far kills the test even without a sanitizer. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "gguf_raw.h"

#include <sys/mman.h>
#include <unistd.h>

static const uint64_t two[4] = {2, 1, 1, 1};

/* ---- parsing from guarded memory ---- */

struct guarded {
    uint8_t *map, *data;
    size_t map_bytes;
};

static struct guarded guard(const void *bytes, size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (n + page - 1) / page * page;
    struct guarded g = {.map_bytes = body + page};
    g.map = mmap(NULL, g.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                 -1, 0);
    assert_true(g.map != MAP_FAILED);
    assert_int_equal(mprotect(g.map + body, page, PROT_NONE), 0);
    g.data = g.map + body - n;
    if (n)
        memcpy(g.data, bytes, n);
    return g;
}

static void unguard(struct guarded *g)
{
    munmap(g->map, g->map_bytes);
}

/* The bytes are refused with this code and a line that names the file and has `needle`.
 */
static void refuse_bytes(const void *bytes, size_t n, int code, const char *needle)
{
    struct guarded m = guard(bytes, n);
    struct gguf *sentinel = (struct gguf *)(uintptr_t)0x5a, *g = sentinel;
    struct runt_err err = {0};
    long live = mem_live();
    int rc = gguf_parse(m.data, n, "lie.gguf", &g, &err);
    if (rc != code || err.code != code || strncmp(err.msg, "lie.gguf: ", 10) ||
        !strstr(err.msg, needle) || strchr(err.msg, '\n'))
        fail_msg("wanted %d and \"%s\", got %d and \"%s\"", code, needle, rc, err.msg);
    assert_ptr_equal(g, sentinel);
    assert_int_equal(mem_live(), live);
    assert_int_equal(gguf_parse(m.data, n, "lie.gguf", &g, NULL), code);
    unguard(&m);
}

static void refuse(struct strbuf *b, int code, const char *needle)
{
    refuse_bytes(b->data, b->len, code, needle);
    sb_free(b);
}

/* ---- lies ---- */

static void test_lies_header(void **state)
{
    (void)state;
    struct strbuf b = {0};
    refuse_bytes("", 0, RUNT_E_FORMAT, "not a GGUF file");
    refuse_bytes("GGML\3\0\0\0", 8, RUNT_E_FORMAT, "not a GGUF file");
    put_head(&b, 1, 0, 0);
    refuse(&b, RUNT_E_UNSUPPORTED, "version 1");
    put_head(&b, 4, 0, 0);
    refuse(&b, RUNT_E_UNSUPPORTED, "version 4");
    put_head(&b, 0, 0, 0);
    refuse(&b, RUNT_E_UNSUPPORTED, "version 0");
    put_head(&b, 0x03000000, 0, 0);
    refuse(&b, RUNT_E_UNSUPPORTED, "big-endian");
    put_head(&b, 3, 0, UINT64_MAX);
    refuse(&b, RUNT_E_FORMAT, "claims 18446744073709551615 keys");
    put_head(&b, 3, UINT64_MAX, 0);
    refuse(&b, RUNT_E_FORMAT, "18446744073709551615 tensors in 24 bytes");
    put_head(&b, 3, 1ull << 40, 0);
    put_zeros(&b, 1000);
    refuse(&b, RUNT_E_FORMAT, "tensors in 1024 bytes");
    /* counts that the file has room for, but no model has */
    put_head(&b, 3, 0, (1 << 20) + 1);
    put_zeros(&b, 40 << 20);
    refuse_bytes(b.data, b.len, RUNT_E_UNSUPPORTED, "1048577 keys and 0 tensors");
    b.len = 0;
    put_head(&b, 3, (1 << 20) + 1, 0);
    b.len += 40 << 20;
    refuse(&b, RUNT_E_UNSUPPORTED, "0 keys and 1048577 tensors");
}

static void test_lies_keys(void **state)
{
    (void)state;
    struct strbuf b = {0};
    put_head(&b, 3, 0, 1);
    put_kv(&b, "", GGUF_U32, 1, 8);
    refuse(&b, RUNT_E_FORMAT, "bad name of 0 bytes");
    put_head(&b, 3, 0, 1);
    put_kv(&b, "a\nb", GGUF_U32, 1, 4);
    refuse(&b, RUNT_E_FORMAT, "bad name of 3 bytes");
    put_head(&b, 3, 0, 1);
    put_le(&b, 65536, 8);
    for (int i = 0; i < 65536; i++)
        sb_char(&b, 'k');
    put_le(&b, GGUF_U32, 8);
    refuse(&b, RUNT_E_FORMAT, "bad name of 65536 bytes");
    put_head(&b, 3, 0, 1);
    put_kv(&b, "a\x7f", GGUF_U32, 1, 4);
    refuse(&b, RUNT_E_FORMAT, "bad name of 2 bytes");
    put_head(&b, 3, 0, 1);
    put_le(&b, UINT64_MAX, 8);
    put_zeros(&b, 16);
    refuse(&b, RUNT_E_FORMAT, "key 0 (byte 24) runs past");
    put_head(&b, 3, 0, 3);
    put_kv(&b, "twice", GGUF_U32, 1, 4);
    put_kv(&b, "other", GGUF_U32, 1, 4);
    put_kv(&b, "twice", GGUF_U8, 1, 1);
    refuse(&b, RUNT_E_FORMAT, "key twice appears twice (0 and 2)");
    put_head(&b, 3, 0, 1);
    put_kv(&b, "k", 13, 1, 8);
    refuse(&b, RUNT_E_FORMAT, "key k has unknown type 13");
    put_head(&b, 3, 0, 1);
    put_kv(&b, "k", UINT32_MAX, 1, 8);
    refuse(&b, RUNT_E_FORMAT, "unknown type 4294967295");
    put_head(&b, 3, 0, 1);
    put_kv(&b, "k", GGUF_BOOL, 2, 1);
    refuse(&b, RUNT_E_FORMAT, "key k: a truth value");
    put_head(&b, 3, 0, 1);
    put_arr(&b, "k", GGUF_BOOL, 3);
    put_le(&b, 0xff0100, 3);
    refuse(&b, RUNT_E_FORMAT, "key k: a truth value");
    put_head(&b, 3, 0, 1);
    put_kv(&b, "k", GGUF_STR, UINT64_MAX, 8);
    refuse(&b, RUNT_E_FORMAT, "key k: its value");
}

static void test_lies_arrays(void **state)
{
    (void)state;
    static const uint64_t counts[] = {4,          1ull << 29, 1ull << 60,
                                      1ull << 61, 1ull << 62, UINT64_MAX};
    struct strbuf b = {0};
    put_head(&b, 3, 0, 1);
    put_arr(&b, "k", GGUF_ARR, 1);
    put_le(&b, GGUF_U8, 4);
    put_le(&b, 0, 8);
    refuse(&b, RUNT_E_UNSUPPORTED, "key k is an array of arrays");
    put_head(&b, 3, 0, 1);
    put_arr(&b, "k", 14, 0);
    refuse(&b, RUNT_E_FORMAT, "key k has unknown type 14");
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        for (int k = 0; k <= N_SCALARS; k++) { /* the last one: strings */
            put_head(&b, 3, 0, 1);
            put_arr(&b, "k", k < N_SCALARS ? scalars[k] : GGUF_STR, counts[i]);
            put_zeros(&b, k < N_SCALARS ? 3 * (size_t)scalar_bytes[k] : 24);
            refuse(&b, RUNT_E_FORMAT, "key k: its value (byte 49, ");
        }
    put_head(&b, 3, 0, 1);
    put_arr(&b, "k", GGUF_STR, 2);
    put_text(&b, "fine");
    put_le(&b, 5, 8);
    sb_str(&b, "four");
    refuse(&b, RUNT_E_FORMAT, "key k: its value");
}

static void test_lies_alignment(void **state)
{
    (void)state;
    static const uint32_t bad[] = {0, 1, 4, 12, 33, 1 << 21, 1u << 31, UINT32_MAX};
    struct strbuf b = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_head(&b, 3, 0, 1);
        put_kv(&b, "general.alignment", GGUF_U32, bad[i], 4);
        refuse(&b, RUNT_E_FORMAT, "key general.alignment is ");
    }
    put_head(&b, 3, 0, 1);
    put_kv(&b, "general.alignment", GGUF_I32, 32, 4);
    refuse(&b, RUNT_E_FORMAT, "general.alignment is not a 32-bit count");
    put_head(&b, 3, 1, 1);
    put_kv(&b, "general.alignment", GGUF_U32, 1 << 20, 4);
    put_tensor(&b, "t", 1, two, FMT_F32, 0);
    put_zeros(&b, 64);
    refuse(&b, RUNT_E_FORMAT,
           "tensor t: offset 0 into data that start at byte 1048576");
}

/* One tensor with 64 bytes of data behind it. */
static void refuse_tensor(const char *name, uint32_t n_dims, const uint64_t *dims,
                          uint32_t type, uint64_t offset, int code, const char *needle)
{
    struct strbuf b = {0};
    put_head(&b, 3, 1, 0);
    put_tensor(&b, name, n_dims, dims, type, offset);
    put_pad(&b, 32);
    put_zeros(&b, 64);
    refuse(&b, code, needle);
}

static void test_lies_tensors(void **state)
{
    (void)state;
    const int bad = RUNT_E_FORMAT, odd = RUNT_E_UNSUPPORTED;
    char name[66] = "";
    memset(name, 'n', 64);
    refuse_tensor("", 1, two, 0, 0, bad, "tensor 0 (byte 24) has a bad name");
    refuse_tensor(name, 1, two, 0, 0, bad, "bad name of 64 bytes");
    refuse_tensor("a\x1b[2J", 1, two, 0, 0, bad, "bad name of 5 bytes");
    refuse_tensor("t", 0, two, 0, 0, bad, "tensor t: 0 dimensions");
    refuse_tensor("t", 5, (uint64_t[]){1, 1, 1, 1, 1}, 0, 0, bad, "t: 5 dimensions");
    refuse_tensor("t", 3, (uint64_t[]){2, 1, 2}, 0, 0, odd, "tensor t: 3 dimensions");
    refuse_tensor("t", 4, (uint64_t[]){2, 1, 1, 2}, 0, 0, odd, "2 x 1 x 1 x 2");
    refuse_tensor("t", 1, (uint64_t[]){0}, 0, 0, bad, "tensor t: dimension 0 is 0");
    refuse_tensor("t", 3, (uint64_t[]){1, 1, 0}, 0, 0, bad, "t: dimension 2 is 0");
    refuse_tensor("t", 1, two, 4, 0, odd, "tensor t: type number 4 is unknown");
    refuse_tensor("t", 1, two, UINT32_MAX, 0, odd, "type number 4294967295");
    refuse_tensor("t", 1, (uint64_t[]){33}, FMT_Q8_0, 0, bad,
                  "tensor t: rows of 33 numbers are not whole Q8_0 blocks of 32");
    refuse_tensor("t", 2, (uint64_t[]){1ull << 32, 1ull << 32}, 0, 0, bad,
                  "tensor t: 4294967296 x 4294967296 numbers overflow");
    refuse_tensor("t", 1, (uint64_t[]){1ull << 62}, 0, 0, bad, "overflow");
    refuse_tensor("t", 2, (uint64_t[]){1, UINT64_MAX}, 0, 0, bad, "overflow");
    refuse_tensor(
        "t", 2, (uint64_t[]){1, UINT64_MAX / 4}, 0, 0, bad,
        "tensor t: data ends at byte 18446744073709551615, beyond the file's");
    /* R4: 16 rows share a tile, of 576 bytes up to 64 columns, 1088 up to 128 */
    refuse_tensor("t", 2, (uint64_t[]){1, 1}, FMT_R4, 0, bad,
                  "tensor t: data ends at byte 672, beyond the file's 160");
    refuse_tensor("t", 2, (uint64_t[]){65, 16}, FMT_R4, 0, bad, "ends at byte 1184,");
    refuse_tensor("t", 2, (uint64_t[]){64, 17}, FMT_R4, 0, bad, "ends at byte 1248,");
    refuse_tensor("t", 2, (uint64_t[]){1ull << 60, 1}, FMT_R4, 0, bad, "overflow");
    refuse_tensor("t", 2, (uint64_t[]){UINT64_MAX, 1}, FMT_R4, 0, bad, "overflow");
    refuse_tensor("t", 2, (uint64_t[]){64, UINT64_MAX}, FMT_R4, 0, bad, "overflow");
    refuse_tensor("t", 2, (uint64_t[]){1ull << 40, 1ull << 40}, FMT_R4, 0, bad,
                  "tensor t: 1099511627776 x 1099511627776 numbers overflow");
    refuse_tensor("t", 1, (uint64_t[]){17}, 0, 0, bad,
                  "tensor t: data ends at byte 132, beyond the file's 128");
    refuse_tensor("t", 1, (uint64_t[]){9}, 0, 32, bad, "t: data ends at byte 132");
    refuse_tensor("t", 1, two, 0, 16, bad, "t: offset 16 is not a multiple of 32");
    refuse_tensor("t", 1, two, 0, 96, bad, "t: offset 96 into data that start at byte");
    refuse_tensor("t", 1, two, 0, 1ull << 63, bad, "offset 9223372036854775808");
    refuse_tensor("t", 1, two, 0, 0 - 32ull, bad, "offset 18446744073709551584");
}

static void test_lies_overlap(void **state)
{
    (void)state;
    const uint64_t dims[1] = {16}; /* 64 bytes */
    static const uint64_t at[][3] = {{0, 32, 128}, {64, 0, 96}, {64, 0, 64}};
    static const char *const who[] = {"tensors a and b overlap", "a and c", "overlap"};
    struct strbuf b = {0};
    for (int i = 0; i < 3; i++) {
        put_head(&b, 3, 3, 0);
        put_tensor(&b, "a", 1, dims, 0, at[i][0]);
        put_tensor(&b, "b", 1, dims, 0, at[i][1]);
        put_tensor(&b, "c", 1, dims, 0, at[i][2]);
        put_pad(&b, 32);
        put_zeros(&b, 256);
        refuse(&b, RUNT_E_FORMAT, who[i]);
    }
    put_head(&b, 3, 3, 0);
    put_tensor(&b, "same", 1, two, 0, 0);
    put_tensor(&b, "other", 1, two, 0, 32);
    put_tensor(&b, "same", 1, two, 0, 64);
    put_pad(&b, 32);
    put_zeros(&b, 256);
    refuse(&b, RUNT_E_FORMAT, "tensor same appears twice (0 and 2)");
}

/* A path longer than the line leaves room for the fault. */
static void test_long_path(void **state)
{
    (void)state;
    char name[5000];
    struct gguf *g = NULL;
    struct runt_err err = {0};
    memset(name, 'p', sizeof name - 1);
    name[sizeof name - 1] = 0;
    assert_int_equal(gguf_parse("GGML", 4, name, &g, &err), RUNT_E_FORMAT);
    assert_non_null(strstr(err.msg, "ppp: not a GGUF file"));
    assert_null(g);
}

/* ---- not lies ---- */

/* Two real dimensions at most, whatever the file's count; order and gaps are free; a
 * last tensor needs no padding; version 2 is the same. */
static void test_layout_freedom(void **state)
{
    (void)state;
    uint64_t d4[4] = {2, 3, 1, 1}, d3[3] = {4, 1, 1};
    struct strbuf b = {0};
    put_head(&b, 2, 3, 1);
    put_kv(&b, "general.alignment", GGUF_U32, 64, 4);
    put_tensor(&b, "late", 4, d4, FMT_F32, 192);
    put_tensor(&b, "early", 3, d3, FMT_F32, 64);
    put_tensor(&b, "first", 1, two, FMT_F32, 0);
    put_pad(&b, 64);
    size_t data = b.len;
    put_zeros(&b, 192 + 24);
    struct gguf *g = accept(b.data, b.len);
    assert_int_equal(g->version, 2);
    assert_int_equal(g->alignment, 64);
    const struct gguf_tensor *t = gguf_find_tensor(g, "late");
    assert_int_equal(t->desc.n_dims, 2);
    assert_int_equal(t->desc.n_rows, 3);
    assert_ptr_equal(t->data, b.data + data + 192);
    t = gguf_find_tensor(g, "early");
    assert_int_equal(t->desc.n_dims, 2);
    assert_int_equal(t->desc.n_rows, 1);
    assert_null(gguf_find_tensor(g, "none"));
    assert_null(gguf_find(g, "general.alignmen"));
    read_all(g);
    gguf_close(g);
    refuse_bytes(b.data, b.len - 1, RUNT_E_FORMAT, "tensor late: data ends at byte");
    sb_free(&b);

    put_head(&b, 3, 0, 0);
    g = accept(b.data, b.len);
    assert_int_equal(g->n_kv + g->n_tensors, 0);
    assert_null(gguf_find(g, ""));
    assert_null(gguf_find_tensor(g, "x"));
    gguf_close(g);
    sb_free(&b);
}

/* ---- getters ---- */

static void want_uint(const struct gguf *g, const char *key, int code, uint64_t want)
{
    struct runt_err err = {0};
    uint64_t u = 0xabcd;
    assert_int_equal(gguf_get_uint(g, key, UINT64_MAX, &u, &err), code);
    assert_int_equal(u, code ? 0xabcd : want);
    assert_int_equal(err.code, code);
    if (code) {
        assert_non_null(strstr(err.msg, "good.gguf"));
        assert_non_null(strstr(err.msg, key));
    }
}

static void want_f32(const struct gguf *g, const char *key, int code, float want)
{
    struct runt_err err = {0};
    float f = 77;
    assert_int_equal(gguf_get_f32(g, key, &f, &err), code);
    assert_true(f == (code ? 77 : want));
    assert_int_equal(err.code, code);
}

static void test_getters(void **state)
{
    (void)state;
    struct strbuf b = {0};
    put_head(&b, 3, 0, 23);
    put_kv(&b, "u8", GGUF_U8, 255, 1);
    put_kv(&b, "i8", GGUF_I8, 127, 1);
    put_kv(&b, "i8-", GGUF_I8, 128, 1);
    put_kv(&b, "u16", GGUF_U16, 65535, 2);
    put_kv(&b, "i16-", GGUF_I16, 0x8000, 2);
    put_kv(&b, "u32", GGUF_U32, UINT32_MAX, 4);
    put_kv(&b, "i32-", GGUF_I32, 0xffffffff, 4);
    put_kv(&b, "u64", GGUF_U64, UINT64_MAX, 8);
    put_kv(&b, "i64", GGUF_I64, INT64_MAX, 8);
    put_kv(&b, "i64-", GGUF_I64, 1ull << 63, 8);
    put_kv(&b, "bool", GGUF_BOOL, 1, 1);
    put_kv(&b, "f32", GGUF_F32, 0x3fc00000, 4);
    put_kv(&b, "f64", GGUF_F64, 0xbff8000000000000, 8);
    put_kv(&b, "nan", GGUF_F32, 0x7fc00000, 4);
    put_kv(&b, "inf", GGUF_F32, 0xff800000, 4);
    put_kv(&b, "big", GGUF_F64, 0x7fe0000000000000, 8);
    put_kv(&b, "str", GGUF_STR, 2, 8);
    sb_str(&b, "hi");
    put_arr(&b, "i64s", GGUF_I64, 2);
    put_le(&b, (uint64_t)INT32_MIN, 8);
    put_le(&b, INT32_MAX, 8);
    put_arr(&b, "large", GGUF_I64, 1);
    put_le(&b, (uint64_t)INT32_MAX + 1, 8);
    put_arr(&b, "small", GGUF_I64, 1);
    put_le(&b, (uint64_t)INT32_MIN - 1, 8);
    put_arr(&b, "floats", GGUF_F32, 0);
    put_arr(&b, "bools", GGUF_BOOL, 0);
    put_arr(&b, "long", GGUF_U8, (1 << 24) + 1);
    put_zeros(&b, (1 << 24) + 1);
    struct gguf *g = accept(b.data, b.len);
    want_uint(g, "u8", 0, 255);
    want_uint(g, "i8", 0, 127);
    want_uint(g, "i8-", RUNT_E_FORMAT, 0);
    want_uint(g, "u16", 0, 65535);
    want_uint(g, "i16-", RUNT_E_FORMAT, 0);
    want_uint(g, "u32", 0, UINT32_MAX);
    want_uint(g, "i32-", RUNT_E_FORMAT, 0);
    want_uint(g, "u64", 0, UINT64_MAX);
    want_uint(g, "i64", 0, INT64_MAX);
    want_uint(g, "i64-", RUNT_E_FORMAT, 0);
    want_uint(g, "bool", 0, 1);
    want_uint(g, "f32", RUNT_E_FORMAT, 0);
    want_uint(g, "f64", RUNT_E_FORMAT, 0);
    want_uint(g, "str", RUNT_E_FORMAT, 0);
    want_uint(g, "i64s", RUNT_E_FORMAT, 0);
    want_uint(g, "nothing", RUNT_E_NOTFOUND, 0);
    want_f32(g, "f32", 0, 1.5f);
    want_f32(g, "f64", 0, -1.5f);
    want_f32(g, "nan", RUNT_E_FORMAT, 0);
    want_f32(g, "inf", RUNT_E_FORMAT, 0);
    want_f32(g, "big", RUNT_E_FORMAT, 0);
    want_f32(g, "u8", RUNT_E_FORMAT, 0);
    want_f32(g, "nothing", RUNT_E_NOTFOUND, 0);

    struct runt_err err = {0};
    uint64_t u = 3;
    struct gguf_str s = {"", 5}, *ss = &s;
    int32_t one = 1, *is = &one;
    size_t n = 42;
    assert_int_equal(gguf_get_uint(g, "u8", 254, &u, &err), RUNT_E_FORMAT);
    assert_string_equal(err.msg, "good.gguf: key u8 is 255, above 254");
    assert_int_equal(gguf_get_str(g, "u8", &s, &err), RUNT_E_FORMAT);
    assert_int_equal(gguf_get_str(g, "none", &s, &err), RUNT_E_NOTFOUND);
    assert_string_equal(err.msg, "good.gguf: has no key none");
    assert_int_equal(gguf_get_strings(g, "str", &ss, &n, &err), RUNT_E_FORMAT);
    assert_int_equal(gguf_get_strings(g, "i64s", &ss, &n, &err), RUNT_E_FORMAT);
    assert_int_equal(gguf_get_strings(g, "none", &ss, &n, &err), RUNT_E_NOTFOUND);
    assert_int_equal(gguf_get_ints(g, "floats", &is, &n, &err), RUNT_E_FORMAT);
    assert_int_equal(gguf_get_ints(g, "bools", &is, &n, &err), RUNT_E_FORMAT);
    assert_int_equal(gguf_get_ints(g, "long", &is, &n, &err), RUNT_E_UNSUPPORTED);
    assert_string_equal(err.msg, "good.gguf: key long has 16777217 elements, the limit "
                                 "is 16777216");
    assert_int_equal(gguf_get_ints(g, "u8", &is, &n, &err), RUNT_E_FORMAT);
    assert_int_equal(gguf_get_ints(g, "large", &is, &n, &err), RUNT_E_FORMAT);
    assert_int_equal(gguf_get_ints(g, "small", &is, &n, &err), RUNT_E_FORMAT);
    assert_int_equal(gguf_get_ints(g, "none", &is, &n, &err), RUNT_E_NOTFOUND);
    assert_true(u == 3 && s.len == 5 && ss == &s && is == &one && n == 42);
    assert_int_equal(gguf_get_ints(g, "i64s", &is, &n, &err), 0);
    assert_true(n == 2 && is[0] == INT32_MIN && is[1] == INT32_MAX);
    mem_free(is);
    gguf_close(g);
    sb_free(&b);
}

/* ---- damage ---- */

static void test_truncation(void **state)
{
    (void)state;
    /* The oracle's last 20 bytes are padding, which a writer may leave out. */
    size_t whole = sizeof oracle - 20;
    for (size_t n = 0; n < whole; n++)
        refuse_bytes(oracle, n, RUNT_E_FORMAT, "");
    for (size_t n = whole; n <= sizeof oracle; n++)
        gguf_close(accept(oracle, n));
    struct strbuf zoo = {0};
    put_zoo(&zoo);
    for (size_t n = 0; n < zoo.len; n++)
        refuse_bytes(zoo.data, n, RUNT_E_FORMAT, "");
    sb_free(&zoo);
}

/* Every byte before the data, changed in seven ways: an error or a file that can be
 * read, never a crash. */
static void flip(const uint8_t *bytes, size_t size, size_t n_flipped)
{
    struct guarded m = guard(bytes, size);
    long live = mem_live();
    for (size_t i = 0; i < n_flipped; i++) {
        uint8_t old = m.data[i];
        const uint8_t values[] = {
            0, 0xff, 0x7f, (uint8_t)(old + 1), old ^ 1, old ^ 0x80, (uint8_t)(old - 1)};
        for (size_t k = 0; k < sizeof values; k++) {
            struct gguf *g = NULL;
            struct runt_err err = {0};
            m.data[i] = values[k];
            int rc = gguf_parse(m.data, size, "flip.gguf", &g, &err);
            assert_true(rc == 0 ? g != NULL : g == NULL && rc == err.code);
            assert_true(!rc || rc == RUNT_E_FORMAT || rc == RUNT_E_UNSUPPORTED);
            if (!rc)
                read_all(g);
            gguf_close(g);
        }
        m.data[i] = old;
    }
    assert_int_equal(mem_live(), live);
    unguard(&m);
}

static void test_flips(void **state)
{
    (void)state;
    struct strbuf zoo = {0};
    flip(oracle, sizeof oracle, 160);
    put_zoo(&zoo);
    flip((const uint8_t *)zoo.data, zoo.len, zoo.len);
    sb_free(&zoo);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lies_header),  cmocka_unit_test(test_lies_keys),
        cmocka_unit_test(test_lies_arrays),  cmocka_unit_test(test_lies_alignment),
        cmocka_unit_test(test_lies_tensors), cmocka_unit_test(test_lies_overlap),
        cmocka_unit_test(test_long_path),    cmocka_unit_test(test_layout_freedom),
        cmocka_unit_test(test_getters),      cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_flips),
    };
    return cmocka_run_group_tests_name("gguf_lies", tests, NULL, NULL);
}
