/* Plain rounding into a file: the choice of types, the report, determinism, refusals.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "model_fixture.h"
#include "quant/quant.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void output_path(char *path, size_t n)
{
    snprintf(path, n, "/tmp/runt-test-quant-%ld.gguf", (long)getpid());
}

/* Quantize `in` into a file, with a report; the code of quant_write. */
static int quantize(const struct tensor_source *src, const struct quant_options *o,
                    const char *path, struct quant_report *r, struct runt_err *err)
{
    struct gguf_writer *w = NULL;
    assert_int_equal(gguf_writer_create(&w, err), 0);
    gguf_set_str(w, "general.architecture", "gpt2", 4);
    int rc = quant_write(src, w, path, o, r, err);
    gguf_writer_destroy(w);
    return rc;
}

static const struct quant_tensor_report *entry(const struct quant_report *r,
                                               const char *name)
{
    for (size_t i = 0; i < r->n_tensors; i++)
        if (!strcmp(r->tensors[i].desc.name, name))
            return &r->tensors[i];
    return NULL;
}

static void types_follow_the_rules(void **state)
{
    struct model_random *m = *state;
    char path[256];
    struct runt_err err;
    struct quant_report r;
    output_path(path, sizeof path);
    struct quant_override over[] = {
        {"blk\\..*ffn_up\\.weight$", fmt_by_name("q8_0")},
        {"^blk\\.1\\.ffn_up", fmt_by_name("bf16")},
    };
    struct quant_options o = {
        .fmt = fmt_by_name("q4_0"), .overrides = over, .n_overrides = 2, .untie = true};
    if (quantize(model_random_source(m), &o, path, &r, &err))
        fail_msg("%s", err.msg);
    assert_string_equal(entry(&r, "token_embd.weight")->to->name, "Q4_0");
    assert_string_equal(entry(&r, "position_embd.weight")->to->name, "Q8_0");
    assert_string_equal(entry(&r, "blk.0.attn_qkv.weight")->to->name, "Q4_0");
    assert_string_equal(entry(&r, "blk.0.attn_qkv.bias")->to->name, "F32");
    assert_string_equal(entry(&r, "blk.0.attn_norm.weight")->to->name, "F32");
    assert_string_equal(entry(&r, "blk.0.ffn_up.weight")->to->name, "Q8_0");
    assert_string_equal(entry(&r, "blk.1.ffn_up.weight")->to->name, "BF16");
    assert_string_equal(entry(&r, "blk.1.ffn_up.bias")->to->name, "BF16");
    assert_string_equal(entry(&r, "output.weight")->to->name, "Q4_0");
    assert_int_equal(r.n_fallbacks, 0);
    struct gguf *g = NULL;
    assert_int_equal(gguf_open(path, &g, &err), 0);
    assert_int_equal(g->file_bytes, r.file_bytes);
    assert_int_equal(g->n_tensors, r.n_tensors);
    uint64_t type = 0;
    assert_int_equal(gguf_get_uint(g, "general.file_type", 99, &type, &err), 0);
    assert_int_equal(type, 2);
    const struct gguf_tensor *a = gguf_find_tensor(g, "token_embd.weight"),
                             *b = gguf_find_tensor(g, "output.weight");
    assert_int_equal(a->bytes, b->bytes);
    assert_memory_equal(a->data, b->data, a->bytes);
    gguf_close(g);
    quant_report_free(&r);
    unlink(path);
}

/* Rows of 100 and 45 numbers are not whole blocks of 32. */
static void odd_rows_fall_back_and_say_so(void **state)
{
    (void)state;
    struct gpt2_shape shape = {.n_vocab = 60,
                               .n_ctx = 8,
                               .n_embd = 100,
                               .n_head = 4,
                               .n_layer = 1,
                               .n_ff = 64,
                               .eps = 1e-5f,
                               .tied = true};
    struct model_random *m = NULL;
    struct runt_err err;
    struct quant_report r;
    char path[256];
    output_path(path, sizeof path);
    assert_int_equal(model_random_open(&shape, 1, &m, &err), 0);
    struct quant_options o = {.fmt = fmt_by_name("q4_1")};
    assert_int_equal(quantize(model_random_source(m), &o, path, &r, &err), 0);
    const struct quant_tensor_report *t = entry(&r, "token_embd.weight");
    assert_string_equal(t->to->name, "F16");
    assert_string_equal(t->wanted->name, "Q4_1");
    assert_string_equal(entry(&r, "position_embd.weight")->to->name, "F16");
    assert_string_equal(entry(&r, "blk.0.ffn_down.weight")->to->name, "Q4_1");
    assert_int_equal(r.n_fallbacks, 5);
    quant_report_free(&r);
    model_random_close(m);
    unlink(path);
}

/* The report's errors, from the file's bytes and the source, another way. */
static void check_errors(const struct tensor_source *src, const char *type)
{
    char path[256];
    struct runt_err err;
    struct quant_report r;
    output_path(path, sizeof path);
    struct quant_options o = {.fmt = fmt_by_name(type)};
    assert_int_equal(quantize(src, &o, path, &r, &err), 0);
    struct gguf *g = NULL;
    assert_int_equal(gguf_open(path, &g, &err), 0);
    for (size_t i = 0; i < r.n_tensors; i++) {
        size_t n = (size_t)(r.tensors[i].desc.n_cols * r.tensors[i].desc.n_rows);
        float *a = mem_array(n, sizeof *a), *b = mem_array(n, sizeof *b);
        assert_int_equal(src->rows(src, i, 0, r.tensors[i].desc.n_rows, a, &err), 0);
        assert_int_equal(
            g->source.rows(&g->source, i, 0, r.tensors[i].desc.n_rows, b, &err), 0);
        double sq = 0, e = 0, max = 0;
        for (size_t k = 0; k < n; k++) {
            double d = (double)b[k] - (double)a[k];
            sq += (double)a[k] * (double)a[k];
            e += d * d;
            max = fmax(max, fabs(d));
        }
        assert_true(fabs(r.tensors[i].max_error - max) <= 1e-12);
        assert_true(fabs(r.tensors[i].rel_error - (sq > 0 ? sqrt(e / sq) : 0)) <=
                    1e-12);
        mem_free(a);
        mem_free(b);
    }
    gguf_close(g);
    quant_report_free(&r);
    unlink(path);
}

static void reported_errors_are_the_real_ones(void **state)
{
    struct model_random *m = *state;
    check_errors(model_random_source(m), "q4_0");
    check_errors(model_random_source(m), "r4");
}

static void same_bytes(const struct tensor_source *src, const char *type)
{
    char path[256], *want = NULL, *got = NULL;
    size_t n_want = 0, n_got = 0;
    struct runt_err err;
    double errors[64];
    output_path(path, sizeof path);
    for (unsigned threads = 1; threads <= 5; threads++) {
        struct quant_options o = {.fmt = fmt_by_name(type)};
        struct quant_report r;
        assert_int_equal(pool_create(threads, &o.pool, &err), 0);
        assert_int_equal(quantize(src, &o, path, &r, &err), 0);
        assert_int_equal(file_read(path, 1 << 24, &got, &n_got, &err), 0);
        if (want) {
            assert_int_equal(n_got, n_want);
            assert_memory_equal(got, want, n_want);
            mem_free(got);
        } else {
            want = got;
            n_want = n_got;
        }
        assert_true(r.n_tensors <= 64);
        for (size_t i = 0; i < r.n_tensors; i++) {
            assert_true(threads == 1 || r.tensors[i].rel_error == errors[i]);
            errors[i] = r.tensors[i].rel_error;
        }
        quant_report_free(&r);
        pool_destroy(o.pool);
    }
    mem_free(want);
    unlink(path);
}

static void same_bytes_for_any_threads(void **state)
{
    struct model_random *m = *state;
    same_bytes(model_random_source(m), "q4_0");
    same_bytes(model_random_source(m), "r4");
}

/* Each tensor of an R4 file is its rows encoded in one piece, though threads had blocks
 * of them; the last tile is padded; and passes of many blocks join without a seam. */
static void r4_tensors_are_whole_tiles(void **state)
{
    (void)state;
    struct gpt2_shape shape = {.n_vocab = 2003, /* 125 tiles and 3 rows */
                               .n_ctx = 8,
                               .n_embd = 300,
                               .n_head = 4,
                               .n_layer = 1,
                               .n_ff = 45,
                               .eps = 1e-5f,
                               .tied = true};
    struct model_random *m = NULL;
    struct runt_err err;
    struct quant_report r;
    struct gguf *g = NULL;
    char path[256];
    output_path(path, sizeof path);
    assert_int_equal(model_random_open(&shape, 1, &m, &err), 0);
    const struct tensor_source *src = model_random_source(m);
    struct quant_override over = {"ffn_up", fmt_by_name("r4")};
    struct quant_options o = {
        .fmt = fmt_by_name("r4"), .overrides = &over, .n_overrides = 1};
    assert_int_equal(pool_create(3, &o.pool, &err), 0);
    assert_int_equal(quantize(src, &o, path, &r, &err), 0);
    assert_string_equal(entry(&r, "token_embd.weight")->to->name, "R4");
    assert_string_equal(entry(&r, "blk.0.ffn_down.weight")->to->name, "R4");
    /* 300 is not whole blocks of Q8_0; a vector has no tile of its own */
    assert_string_equal(entry(&r, "position_embd.weight")->to->name, "F16");
    assert_string_equal(entry(&r, "position_embd.weight")->wanted->name, "Q8_0");
    assert_string_equal(entry(&r, "blk.0.ffn_up.bias")->to->name, "F32");
    assert_string_equal(entry(&r, "blk.0.ffn_up.bias")->wanted->name, "R4");
    assert_int_equal(r.n_fallbacks, 2);
    assert_int_equal(gguf_open(path, &g, &err), 0);
    uint64_t type = 0;
    assert_int_equal(gguf_get_uint(g, "general.file_type", 1 << 20, &type, &err), 0);
    assert_int_equal(type, FMT_R4);
    for (size_t i = 0; i < r.n_tensors; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        if (t->desc.fmt->type != FMT_R4)
            continue;
        size_t n_cols = (size_t)t->desc.n_cols, n_rows = (size_t)t->desc.n_rows, size;
        float *x = mem_array(n_rows * n_cols, sizeof *x);
        assert_true(fmt_tensor_bytes(t->desc.fmt, n_cols, n_rows, &size));
        assert_int_equal(t->bytes, size);
        assert_int_equal(r.tensors[i].bytes, size);
        uint8_t *want = mem_alloc(size);
        assert_int_equal(src->rows(src, i, 0, n_rows, x, &err), 0);
        fmt_encode_rows(t->desc.fmt, n_cols, n_rows, x, want);
        assert_memory_equal(t->data, want, size);
        mem_free(x);
        mem_free(want);
    }
    gguf_close(g);
    quant_report_free(&r);
    pool_destroy(o.pool);
    model_random_close(m);
    unlink(path);
}

/* ---- refusals ---- */

/* A source of one tensor whose element `at` is `value`. */
struct one {
    struct tensor_source source;
    struct tensor_desc desc;
    size_t at;
    float value;
};

static int one_rows(const struct tensor_source *s, size_t i, uint64_t row, uint64_t n,
                    float *out, struct runt_err *err)
{
    const struct one *o = (const struct one *)s;
    (void)i;
    (void)err;
    for (uint64_t k = 0; k < n * 64; k++)
        out[k] = row * 64 + k == o->at ? o->value : 0.5f;
    return 0;
}

static void weights_that_are_not_numbers_are_refused(void **state)
{
    (void)state;
    static const struct {
        float value;
        const char *type, *says;
    } cases[] = {
        {NAN, "q4_0", "is nan"},      {INFINITY, "f16", "is inf"},
        {1e30f, "f16", "too large"},  {3e38f, "q4_0", "too large"},
        {1e30f, "q8_0", "too large"}, {-1e30f, "q4_1", "too large"},
        {6e7f, "r4", "too large"},    {NAN, "r4", "is nan"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[256];
        struct runt_err err;
        struct quant_report r;
        struct one src = {.at = 64 * 2 + 7, .value = cases[i].value};
        src.desc =
            (struct tensor_desc){"token_embd.weight", fmt_by_name("f32"), 64, 3, 2};
        src.source = (struct tensor_source){"broken", 1, &src.desc, one_rows};
        output_path(path, sizeof path);
        struct quant_options o = {.fmt = fmt_by_name(cases[i].type)};
        assert_int_equal(quantize(&src.source, &o, path, &r, &err), RUNT_E_FORMAT);
        assert_non_null(strstr(err.msg, "token_embd.weight"));
        assert_non_null(strstr(err.msg, "row 2"));
        assert_non_null(strstr(err.msg, cases[i].says));
        assert_false(file_exists(path));
    }
}

static int stop(void *ctx, const char *what, unsigned long long done,
                unsigned long long total)
{
    (void)what;
    assert_true(done <= total);
    return ++*(int *)ctx == 3;
}

static void bad_plans_and_interrupts_leave_no_file(void **state)
{
    struct model_random *m = *state;
    char path[256];
    struct runt_err err;
    struct quant_report r;
    int calls = 0;
    output_path(path, sizeof path);
    struct quant_override bad[] = {{"blk.(", fmt_by_name("q8_0")},
                                   {"no_such_tensor", fmt_by_name("q8_0")}};
    for (int i = 0; i < 2; i++) {
        struct quant_options o = {.overrides = &bad[i], .n_overrides = 1};
        assert_int_equal(quantize(model_random_source(m), &o, path, &r, &err),
                         RUNT_E_INVALID);
        assert_non_null(strstr(err.msg, bad[i].pattern));
    }
    struct quant_options o = {.progress = stop, .progress_ctx = &calls};
    assert_int_equal(quantize(model_random_source(m), &o, path, &r, &err),
                     RUNT_E_INTERRUPTED);
    assert_false(file_exists(path));
}

static void every_allocation_may_fail(void **state)
{
    struct model_random *m = *state;
    char path[256];
    int rc = -1;
    output_path(path, sizeof path);
    for (long n = 0; rc; n++) {
        long before = mem_live();
        struct gguf_writer *w = NULL;
        struct runt_err err = {0};
        struct quant_report r = {0};
        struct quant_override over = {"ffn", fmt_by_name("q8_0")};
        struct quant_options o = {
            .fmt = fmt_by_name("q4_0"), .overrides = &over, .n_overrides = 1};
        mem_fail_after(n);
        rc = gguf_writer_create(&w, &err);
        if (!rc)
            rc = quant_write(model_random_source(m), w, path, &o, &r, &err);
        mem_fail_after(-1);
        if (rc) {
            assert_int_equal(err.code, RUNT_E_NOMEM);
            assert_false(file_exists(path));
        }
        quant_report_free(&r);
        gguf_writer_destroy(w);
        assert_int_equal(mem_live(), before);
        assert_true(n < 10000);
    }
    unlink(path);
}

static int setup(void **state)
{
    struct gpt2_shape shape = fixture_odd_shape();
    return model_random_open(&shape, 3, (struct model_random **)state, NULL);
}

static int teardown(void **state)
{
    model_random_close(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_follow_the_rules),
        cmocka_unit_test(odd_rows_fall_back_and_say_so),
        cmocka_unit_test(reported_errors_are_the_real_ones),
        cmocka_unit_test(same_bytes_for_any_threads),
        cmocka_unit_test(r4_tensors_are_whole_tiles),
        cmocka_unit_test(weights_that_are_not_numbers_are_refused),
        cmocka_unit_test(bad_plans_and_interrupts_leave_no_file),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests_name("quant", tests, setup, teardown);
}
