/* The model file: the layout against bytes written by hand, everything that goes in
 * comes out, and every lie that a file can tell is an error with a line that says
 * which.
 *
 * Hostile bytes are parsed from memory that ends at an unmapped page, so that reading
 * one byte too far kills the test even without a sanitizer. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/err.h"
#include "base/file.h"
#include "base/rng.h"
#include "gguf_raw.h"

#include <dirent.h>
#include <float.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static char dir[256]; /* removed, and checked to be empty, at the end */

static const char *in_dir(const char *name)
{
    static char path[2][512];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
    return path[turn];
}

static int n_files(void)
{
    int n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    closedir(d);
    return n;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- layout ---- */

static const float oracle_t[3] = {1, -2, 0.5f};
static const float oracle_m[6] = {1, -2, 0.5f, 0, 0x1p-24f, INFINITY};

static int write_oracle(const char *path, struct runt_err *err)
{
    uint16_t m[6] = {0x3c00, 0xc000, 0x3800, 0, 1, 0x7c00};
    struct gguf_writer *w = NULL;
    uint64_t size = 0;
    int rc = gguf_writer_create(&w, err);
    if (rc)
        return rc;
    gguf_set_u32(w, "a", 12345);
    gguf_set_str(w, "ss", "xyz", 3);
    gguf_add_tensor(w, "t", fmt_find(FMT_F32), 1, 3, 1);
    gguf_add_tensor(w, "m", fmt_find(FMT_F16), 2, 2, 3);
    rc = gguf_begin(w, path, err);
    if (!rc)
        rc = gguf_write(w, oracle_t, sizeof oracle_t, err);
    if (!rc)
        rc = gguf_write(w, m, 5, err); /* in pieces, cut anywhere */
    if (!rc)
        rc = gguf_write(w, (const char *)m + 5, sizeof m - 5, err);
    if (!rc)
        rc = gguf_finish(w, &size, err);
    gguf_writer_destroy(w);
    if (!rc)
        assert_int_equal(size, sizeof oracle);
    return rc;
}

static void check_oracle(const struct gguf *g)
{
    float x[6];
    uint64_t u = 0;
    struct gguf_str s = {0};
    assert_int_equal(g->version, 3);
    assert_int_equal(g->alignment, 32);
    assert_int_equal(g->file_bytes, sizeof oracle);
    assert_int_equal(gguf_get_uint(g, "a", 12345, &u, NULL), 0);
    assert_int_equal(u, 12345);
    assert_int_equal(gguf_get_str(g, "ss", &s, NULL), 0);
    assert_int_equal(s.len, 3);
    assert_memory_equal(s.data, "xyz", 3);
    const struct gguf_tensor *t = gguf_find_tensor(g, "t"),
                             *m = gguf_find_tensor(g, "m");
    assert_non_null(t);
    assert_non_null(m);
    assert_int_equal(t->desc.n_dims, 1);
    assert_int_equal(t->desc.n_cols, 3);
    assert_int_equal(t->desc.n_rows, 1);
    assert_int_equal(m->desc.n_dims, 2);
    assert_int_equal(m->desc.n_cols, 2);
    assert_int_equal(m->desc.n_rows, 3);
    assert_int_equal(m->bytes, 12);
    const struct tensor_source *src = &g->source;
    assert_int_equal(src->n_tensors, 2);
    assert_string_equal(src->tensors[1].name, "m");
    assert_int_equal(src->rows(src, 0, 0, 1, x, NULL), 0);
    assert_memory_equal(x, oracle_t, sizeof oracle_t);
    assert_int_equal(src->rows(src, 1, 0, 3, x, NULL), 0);
    assert_memory_equal(x, oracle_m, sizeof oracle_m);
    assert_int_equal(src->rows(src, 1, 2, 1, x, NULL), 0);
    assert_memory_equal(x, oracle_m + 4, 8);
}

static void test_layout_read(void **state)
{
    (void)state;
    struct gguf *g = accept(oracle, sizeof oracle);
    check_oracle(g);
    assert_string_equal(g->source.name, "good.gguf");
    gguf_close(g);
    gguf_close(NULL);
}

static bool is_mapped(const char *path)
{
    char *maps = NULL;
    size_t n = 0;
    assert_int_equal(file_read("/proc/self/maps", 1 << 24, &maps, &n, NULL), 0);
    bool is = strstr(maps, path) != NULL;
    mem_free(maps);
    return is;
}

static void test_layout_written(void **state)
{
    (void)state;
    struct runt_err err = {0};
    char path[512], *bytes = NULL;
    size_t n = 0;
    snprintf(path, sizeof path, "%s", in_dir("layout.gguf"));
    assert_int_equal(write_oracle(path, &err), 0);
    assert_int_equal(file_read(path, 1 << 20, &bytes, &n, &err), 0);
    assert_int_equal(n, sizeof oracle);
    assert_memory_equal(bytes, oracle, n);
    mem_free(bytes);
    struct gguf *g = NULL;
    assert_int_equal(gguf_open(path, &g, &err), 0);
    assert_string_equal(g->path, path);
    assert_true(g->path != path);
    check_oracle(g);
    assert_true(is_mapped(path));
    gguf_close(g);
    assert_false(is_mapped(path));
    unlink(path);
}

/* ---- round trip ---- */

static void test_round_trip_values(void **state)
{
    (void)state;
    struct runt_err err = {0};
    struct strbuf zoo = {0};
    put_zoo(&zoo);
    struct gguf *in = accept(zoo.data, zoo.len), *g = NULL;
    read_all(in);
    char path[512];
    snprintf(path, sizeof path, "%s", in_dir("zoo.gguf"));
    struct gguf_str strings[3] = {{"\0x", 2}, {"", 0}, {"vocab", 5}};
    int32_t ints[3] = {INT32_MIN, 0, INT32_MAX};
    struct gguf_writer *w = NULL;
    assert_int_equal(gguf_writer_create(&w, &err), 0);
    gguf_set_u32(w, "u32", 1);
    gguf_set_f32(w, "f32", -0.0f);
    gguf_set_bool(w, "yes", true);
    gguf_set_bool(w, "no", false);
    gguf_set_str(w, "str", "replaced below", 14);
    gguf_set_strings(w, "strings", strings, 3);
    gguf_set_i32s(w, "i32s", ints, 3);
    gguf_set_strings(w, "no strings", NULL, 0);
    for (size_t i = 0; i < in->n_kv; i++)
        gguf_set_kv(w, &in->kv[i]);
    gguf_set_u32(w, "u32", UINT32_MAX);
    gguf_set_u32(w, "general.alignment", 8); /* passed over: ours is 32 */
    gguf_set_str(w, "str", NULL, 0);
    assert_int_equal(gguf_begin(w, path, &err), 0);
    assert_int_equal(gguf_finish(w, NULL, &err), 0);
    gguf_writer_destroy(w);

    assert_int_equal(gguf_open(path, &g, &err), 0);
    read_all(g);
    assert_int_equal(g->n_kv, 8 + in->n_kv);
    assert_memory_equal(g->kv[0].key.data, "u32", 3); /* replaced in place */
    assert_memory_equal(g->kv[4].key.data, "str", 3);
    uint64_t u = 0;
    float f = 1;
    struct gguf_str s = {"", 9}, *ss = NULL;
    int32_t *is = NULL;
    size_t n = 99;
    assert_int_equal(gguf_get_uint(g, "u32", UINT64_MAX, &u, &err), 0);
    assert_int_equal(u, UINT32_MAX);
    assert_int_equal(gguf_get_f32(g, "f32", &f, &err), 0);
    assert_true(f == 0 && signbit(f));
    assert_int_equal(gguf_get_uint(g, "yes", 1, &u, &err), 0);
    assert_int_equal(u, 1);
    assert_int_equal(gguf_get_uint(g, "no", 1, &u, &err), 0);
    assert_int_equal(u, 0);
    assert_int_equal(gguf_get_str(g, "str", &s, &err), 0);
    assert_int_equal(s.len, 0);
    assert_int_equal(gguf_get_strings(g, "strings", &ss, &n, &err), 0);
    assert_int_equal(n, 3);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(ss[i].len, strings[i].len);
        assert_memory_equal(ss[i].data, strings[i].data, strings[i].len);
    }
    mem_free(ss);
    assert_int_equal(gguf_get_strings(g, "no strings", &ss, &n, &err), 0);
    assert_int_equal(n, 0);
    mem_free(ss);
    assert_int_equal(gguf_get_ints(g, "i32s", &is, &n, &err), 0);
    assert_int_equal(n, 3);
    assert_memory_equal(is, ints, sizeof ints);
    mem_free(is);
    for (size_t i = 0; i < in->n_kv; i++) {
        const struct gguf_kv *a = &in->kv[i], *b = &g->kv[8 + i];
        assert_int_equal(a->key.len, b->key.len);
        assert_memory_equal(a->key.data, b->key.data, a->key.len);
        assert_int_equal(a->type, b->type);
        assert_int_equal(a->elem, b->elem);
        assert_int_equal(a->n, b->n);
        assert_int_equal(a->bytes, b->bytes);
        assert_memory_equal(a->value, b->value, a->bytes);
    }
    gguf_close(g);
    gguf_close(in);
    sb_free(&zoo);
    unlink(path);
}

/* Every format as a vector and as a matrix, random bytes, rows against a plain decode.
 */
static void test_round_trip_tensors(void **state)
{
    (void)state;
    struct runt_err err = {0};
    struct rng rng;
    rng_seed(&rng, 7);
    enum { COLS = 256, ROWS = 5 };
    uint8_t *bytes[64] = {0};
    size_t size = 0, n = 0;
    char path[512], name[TENSOR_NAME_MAX];
    snprintf(path, sizeof path, "%s", in_dir("tensors.gguf"));
    struct gguf_writer *w = NULL;
    assert_int_equal(gguf_writer_create(&w, &err), 0);
    for (size_t i = 0; fmt_at(i); i++)
        for (unsigned dims = 1; dims <= 2; dims++, n++) {
            /* the longest name that fits, in each case */
            snprintf(name, sizeof name, "%zu.%0*u", i, (int)(61 - (i > 9)), dims);
            gguf_add_tensor(w, name, fmt_at(i), dims, COLS, dims == 1 ? 1 : ROWS);
        }
    assert_in_range(n, 2, 64);
    assert_int_equal(gguf_begin(w, path, &err), 0);
    for (size_t i = 0; i < n; i++) {
        assert_true(fmt_tensor_bytes(fmt_at(i / 2), COLS, i % 2 ? ROWS : 1, &size));
        bytes[i] = mem_alloc(size);
        for (size_t k = 0; k < size; k++)
            bytes[i][k] = (uint8_t)rng_u64(&rng);
        for (size_t k = 0; k < size; k += 7)
            assert_int_equal(
                gguf_write(w, bytes[i] + k, size - k < 7 ? size - k : 7, &err), 0);
        assert_int_equal(gguf_write(w, NULL, 0, &err), 0);
    }
    assert_int_equal(gguf_finish(w, NULL, &err), 0);
    gguf_writer_destroy(w);

    struct gguf *g = NULL;
    assert_int_equal(gguf_open(path, &g, &err), 0);
    assert_int_equal(g->n_tensors, n);
    float want[ROWS * COLS], got[ROWS * COLS + 1];
    for (size_t i = 0; i < n; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        assert_int_equal(strlen(t->desc.name), TENSOR_NAME_MAX - 1);
        assert_ptr_equal(gguf_find_tensor(g, t->desc.name), t);
        assert_ptr_equal(t->desc.fmt, fmt_at(i / 2));
        assert_int_equal((uintptr_t)t->data % 32, 0);
        assert_memory_equal(t->data, bytes[i], t->bytes);
        uint64_t rows = t->desc.n_rows;
        for (size_t r = 0; r < rows; r++)
            fmt_decode_row(t->desc.fmt, COLS, bytes[i], r, want + r * COLS);
        for (uint64_t r = 0; r < rows; r++)
            for (uint64_t k = 0; k <= rows - r; k++) {
                memset(got, 0x5a, sizeof got);
                assert_int_equal(g->source.rows(&g->source, i, r, k, got, &err), 0);
                assert_memory_equal(got, want + r * COLS, k * COLS * sizeof *got);
                const uint8_t *past = (const uint8_t *)(got + k * COLS);
                assert_int_equal(past[0] & past[1] & past[2] & past[3], 0x5a);
            }
        assert_int_equal(g->source.rows(&g->source, i, 0, rows + 1, got, &err),
                         RUNT_E_INVALID);
        assert_int_equal(g->source.rows(&g->source, i, rows + 1, 0, got, &err),
                         RUNT_E_INVALID);
        assert_int_equal(g->source.rows(&g->source, i, 1, UINT64_MAX, got, &err),
                         RUNT_E_INVALID);
        assert_non_null(strstr(err.msg, t->desc.name));
    }
    assert_int_equal(g->source.rows(&g->source, n, 0, 1, got, &err), RUNT_E_INVALID);
    gguf_close(g);
    for (size_t i = 0; i < n; i++)
        mem_free(bytes[i]);
    unlink(path);
}

static void test_open_fails(void **state)
{
    (void)state;
    struct gguf *g = NULL;
    struct runt_err err = {0};
    assert_int_equal(gguf_open(dir, &g, &err), RUNT_E_IO);
    assert_int_equal(gguf_open(in_dir("none.gguf"), &g, &err), RUNT_E_NOTFOUND);
    assert_non_null(strstr(err.msg, "none.gguf: cannot open"));
    assert_null(g);
}

/* Names that hash alike, or sort badly, must not cost quadratic time: 100,000 tensors
 * and keys parse in well under a second where a quadratic search takes minutes. */
static void test_many_names(void **state)
{
    (void)state;
    enum { N = 100000 };
    struct runt_err err = {0};
    char name[32], path[512];
    double start = seconds();
    snprintf(path, sizeof path, "%s", in_dir("many.gguf"));
    struct gguf_writer *w = NULL;
    assert_int_equal(gguf_writer_create(&w, &err), 0);
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "n%06d", i * 7 % N);
        gguf_set_u32(w, name, (uint32_t)i);
        gguf_add_tensor(w, name, fmt_find(FMT_F32), 1, 1, 1);
    }
    gguf_set_u32(w, "n000007", 99);
    assert_int_equal(gguf_begin(w, path, &err), 0);
    for (int i = 0; i < N; i++) {
        float v = (float)i;
        assert_int_equal(gguf_write(w, &v, sizeof v, &err), 0);
    }
    assert_int_equal(gguf_finish(w, NULL, &err), 0);
    gguf_writer_destroy(w);
    struct gguf *g = NULL;
    assert_int_equal(gguf_open(path, &g, &err), 0);
    assert_int_equal(g->n_kv, N);
    for (int i = 0; i < N; i++) {
        uint64_t u = 0;
        float v = -1;
        snprintf(name, sizeof name, "n%06d", i * 7 % N);
        assert_int_equal(gguf_get_uint(g, name, N, &u, &err), 0);
        assert_int_equal(u, i == 1 ? 99 : i);
        const struct gguf_tensor *t = gguf_find_tensor(g, name);
        assert_ptr_equal(t, &g->tensors[i]);
        assert_int_equal(g->source.rows(&g->source, (size_t)i, 0, 1, &v, &err), 0);
        assert_true(v == (float)i);
    }
    gguf_close(g);
    unlink(path);
    assert_in_range((int)(seconds() - start), 0, 20);
}

/* ---- writing ---- */

static struct gguf_writer *writer(void)
{
    struct gguf_writer *w = NULL;
    assert_int_equal(gguf_writer_create(&w, NULL), 0);
    return w;
}

/* begin fails with this line, and again; nothing appears. */
static void refuse_begin(struct gguf_writer *w, int code, const char *needle)
{
    struct runt_err err = {0};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(gguf_begin(w, in_dir("never.gguf"), &err), code);
        if (!strstr(err.msg, needle) || !strstr(err.msg, "never.gguf"))
            fail_msg("wanted \"%s\", got \"%s\"", needle, err.msg);
    }
    assert_int_equal(gguf_begin(w, in_dir("never.gguf"), NULL), code);
    assert_int_equal(gguf_write(w, "", 1, NULL), code);
    assert_int_equal(gguf_finish(w, NULL, NULL), code);
    gguf_writer_destroy(w);
    assert_int_equal(n_files(), 0);
}

static void test_writer_refuses(void **state)
{
    (void)state;
    const struct fmt_info *f32 = fmt_find(FMT_F32), *q4 = fmt_find(FMT_Q4_0);
    char name[66] = "";
    memset(name, 'n', 64);
    static const struct {
        unsigned n_dims;
        uint64_t n_cols, n_rows;
    } bad[] = {{0, 32, 1}, {3, 32, 1}, {1, 32, 2}, {1, 0, 1},          {2, 32, 0},
               {1, 16, 1}, {2, 48, 2}, {1, 32, 0}, {2, 32, UINT64_MAX}};
    struct gguf_writer *w;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        w = writer();
        gguf_add_tensor(w, "t", q4, bad[i].n_dims, bad[i].n_cols, bad[i].n_rows);
        refuse_begin(w, RUNT_E_INVALID, "tensor t: ");
    }
    w = writer();
    gguf_add_tensor(w, name, f32, 1, 1, 1);
    gguf_set_u32(w, "later calls do nothing", 1);
    refuse_begin(w, RUNT_E_INVALID, "tensor 0 has a bad name of 64 bytes");
    w = writer();
    gguf_add_tensor(w, "", f32, 1, 1, 1);
    refuse_begin(w, RUNT_E_INVALID, "bad name of 0 bytes");
    w = writer();
    gguf_add_tensor(w, "twice", f32, 1, 1, 1);
    gguf_add_tensor(w, "twice", f32, 1, 1, 1);
    refuse_begin(w, RUNT_E_INVALID, "tensor twice is added twice");
    w = writer();
    gguf_add_tensor(w, "a", f32, 2, 1ull << 30, 1ull << 30);
    gguf_add_tensor(w, "b", f32, 2, 1ull << 30, 1ull << 30);
    gguf_add_tensor(w, "c", f32, 2, 1ull << 30, 1ull << 30);
    refuse_begin(w, RUNT_E_NOMEM, "tensor b: the file's size overflows");
    w = writer();
    gguf_set_u32(w, "a\tb", 1);
    refuse_begin(w, RUNT_E_INVALID, "key 0 has a bad name of 3 bytes");
    w = writer();
    gguf_set_u32(w, "", 1);
    refuse_begin(w, RUNT_E_INVALID, "key 0 has a bad name of 0 bytes");
}

/* What happens out of turn is refused, and no file comes of it. */
static void test_writer_order(void **state)
{
    (void)state;
    struct runt_err err = {0};
    char path[512];
    snprintf(path, sizeof path, "%s", in_dir("order.gguf"));
    float x[3] = {1, 2, 3};
    struct gguf_writer *w = writer();
    assert_int_equal(gguf_write(w, x, 4, &err), RUNT_E_INVALID);
    assert_int_equal(gguf_finish(w, NULL, &err), RUNT_E_INVALID);
    gguf_writer_destroy(w);
    for (int what = 0; what < 6; what++) {
        static const char *const why[] = {
            "tensor t: 8 of 12 bytes", "tensor t: 8 + 5 bytes written, its size is 12",
            "4 bytes after the last",  "key k set after the file was begun",
            "tensor u added after",    "",
        };
        w = writer();
        gguf_add_tensor(w, "t", fmt_find(FMT_F32), 1, 3, 1);
        assert_int_equal(gguf_begin(w, path, &err), 0);
        assert_int_equal(gguf_begin(w, path, &err), RUNT_E_INVALID);
        assert_int_equal(gguf_write(w, x, 8, &err), 0);
        if (what == 1)
            assert_int_equal(gguf_write(w, x, 5, &err), RUNT_E_INVALID);
        if (what >= 2)
            assert_int_equal(gguf_write(w, x, 4, &err), 0);
        if (what == 2)
            assert_int_equal(gguf_write(w, x, 4, &err), RUNT_E_INVALID);
        if (what == 3)
            gguf_set_u32(w, "k", 1);
        if (what == 4)
            gguf_add_tensor(w, "u", fmt_find(FMT_F32), 1, 1, 1);
        uint64_t size = 5;
        int rc = what == 5 ? 0 : RUNT_E_INVALID;
        assert_int_equal(gguf_finish(w, &size, &err), rc);
        assert_int_equal(size, rc ? 5 : 96);
        if (rc && (!strstr(err.msg, why[what]) || !strstr(err.msg, "order.gguf")))
            fail_msg("wanted \"%s\", got \"%s\"", why[what], err.msg);
        assert_int_equal(n_files(), rc ? 0 : 1);
        assert_int_equal(gguf_finish(w, NULL, &err), RUNT_E_INVALID);
        gguf_writer_destroy(w);
    }
    unlink(path);
}

/* The old file stays until finish; dropping the writer leaves it, and no temporary. */
static void test_writer_replaces(void **state)
{
    (void)state;
    struct runt_err err = {0};
    char path[512], *old = NULL;
    size_t n = 0;
    snprintf(path, sizeof path, "%s", in_dir("replace.gguf"));
    assert_int_equal(write_oracle(path, &err), 0);
    for (int finish = 0; finish < 2; finish++) {
        struct gguf_writer *w = writer();
        assert_int_equal(gguf_begin(w, path, &err), 0);
        assert_int_equal(n_files(), 2);
        assert_int_equal(file_read(path, 1 << 20, &old, &n, &err), 0);
        assert_int_equal(n, sizeof oracle);
        mem_free(old);
        if (finish)
            assert_int_equal(gguf_finish(w, NULL, &err), 0);
        gguf_writer_destroy(w);
        assert_int_equal(n_files(), 1);
    }
    assert_int_equal(file_read(path, 1 << 20, &old, &n, &err), 0);
    assert_int_equal(n, 32);
    mem_free(old);
    unlink(path);
    gguf_writer_destroy(NULL);

    assert_int_equal(write_oracle(in_dir("no/such/dir.gguf"), &err), RUNT_E_NOTFOUND);
    assert_non_null(strstr(err.msg, "no/such/dir.gguf: cannot create"));
    assert_int_equal(write_oracle(dir, &err), RUNT_E_IO);
    assert_int_equal(write_oracle("/dev/null", &err), RUNT_E_IO);
    assert_non_null(strstr(err.msg, "not a regular file"));
}

/* RLIMIT_FSIZE stands for a full disk: write fails with EFBIG. */
static void test_full_disk(void **state)
{
    (void)state;
    struct runt_err err = {0};
    struct rlimit old, small;
    char path[512], *bytes = mem_zalloc(1 << 20);
    snprintf(path, sizeof path, "%s", in_dir("full.gguf"));
    assert_non_null(bytes);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    /* 64: only the commit's flush fails; 300 kB: a write in the middle does */
    for (int big = 0; big < 2; big++) {
        size_t n = big ? 1 << 20 : 4096;
        struct gguf_writer *w = writer();
        gguf_add_tensor(w, "t", fmt_find(FMT_F32), 1, n / 4, 1);
        small.rlim_cur = big ? 300000 : 64;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        int begun = gguf_begin(w, path, &err), wrote = 0;
        for (size_t i = 0; i < n && !wrote; i += 4096)
            wrote = gguf_write(w, bytes + i, 4096, &err);
        int finished = gguf_finish(w, NULL, &err);
        setrlimit(RLIMIT_FSIZE, &old);
        assert_int_equal(begun, 0);
        assert_int_equal(wrote, big ? RUNT_E_IO : 0);
        assert_int_equal(finished, RUNT_E_IO);
        assert_non_null(strstr(err.msg, "full.gguf: cannot write"));
        gguf_writer_destroy(w);
        assert_int_equal(n_files(), 0);
    }
    signal(SIGXFSZ, SIG_DFL);
    mem_free(bytes);
}

/* ---- out of memory ---- */

static void test_out_of_memory(void **state)
{
    (void)state;
    struct runt_err err = {0};
    char path[512];
    long live = mem_live(), n = 0;
    snprintf(path, sizeof path, "%s", in_dir("oom.gguf"));
    for (int rc = RUNT_E_NOMEM; rc; n++) {
        mem_fail_after(n);
        rc = write_oracle(path, &err);
        mem_fail_after(-1);
        assert_true(rc == 0 || (rc == RUNT_E_NOMEM && err.code == rc));
        assert_int_equal(mem_live(), live);
        assert_int_equal(n_files(), rc ? 0 : 1);
    }
    assert_in_range(n, 10, 100);
    n = 0;
    for (int rc = RUNT_E_NOMEM; rc; n++) {
        struct gguf *g = NULL;
        mem_fail_after(n);
        rc = gguf_open(path, &g, &err);
        mem_fail_after(-1);
        assert_true(rc == 0 ? g != NULL : g == NULL && rc == RUNT_E_NOMEM);
        if (rc)
            assert_non_null(strstr(err.msg, "oom.gguf"));
        gguf_close(g);
        assert_int_equal(mem_live(), live);
    }
    assert_in_range(n, 8, 100);
    struct strbuf zoo = {0};
    put_zoo(&zoo);
    struct gguf *g = accept(zoo.data, zoo.len);
    struct gguf_str *s = NULL;
    int32_t *v = NULL;
    size_t k = 7;
    mem_fail_after(0);
    assert_int_equal(gguf_get_strings(g, "zoo.str.some", &s, &k, &err), RUNT_E_NOMEM);
    mem_fail_after(0);
    assert_int_equal(gguf_get_ints(g, "zoo.1.some", &v, &k, &err), RUNT_E_NOMEM);
    mem_fail_after(-1);
    assert_true(!s && !v && k == 7);
    gguf_close(g);
    sb_free(&zoo);
    unlink(path);
    assert_int_equal(mem_live(), live);
}

static int setup(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/test-gguf-XXXXXX", tmp ? tmp : "/tmp");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return rmdir(dir); /* fails when a test left a file behind */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout_read),
        cmocka_unit_test(test_layout_written),
        cmocka_unit_test(test_round_trip_values),
        cmocka_unit_test(test_round_trip_tensors),
        cmocka_unit_test(test_open_fails),
        cmocka_unit_test(test_many_names),
        cmocka_unit_test(test_writer_refuses),
        cmocka_unit_test(test_writer_order),
        cmocka_unit_test(test_writer_replaces),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests_name("gguf", tests, setup, teardown);
}
