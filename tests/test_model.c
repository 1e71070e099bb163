/* The forward pass against oracles: this project's own (tools/gen_oracle.py, double
 * precision, in every checkout) and PyTorch's answers where RUNT_TEST_DATA has them;
 * and against itself: threads, cuts of the prompt, instruction sets, rewinding. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/rng.h"
#include "eval/eval.h"
#include "model_fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static json_t *load_json(const char *path)
{
    json_t *o = NULL;
    struct runt_err err;
    if (js_parse_file(path, &o, &err))
        fail_msg("%s", err.msg);
    return o;
}

static json_t *own_oracle(void)
{
    char path[512];
    snprintf(path, sizeof path, "%s/tests/data/mini_oracle.json", fixture_root());
    return load_json(path);
}

static int32_t *ids_of(const json_t *array, size_t *n)
{
    *n = json_array_size(array);
    int32_t *ids = mem_array(*n, sizeof *ids);
    for (size_t i = 0; i < *n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(array, i));
    return ids;
}

static runt_session *session(const runt_model *m, unsigned threads, unsigned batch,
                             bool all)
{
    runt_session *s = NULL;
    struct runt_err err;
    struct runt_session_options o = {
        .n_threads = threads, .n_batch = batch, .kv = RUNT_KV_F32, .all_logits = all};
    if (runt_session_open(m, &o, &s, &err))
        fail_msg("%s", err.msg);
    return s;
}

static void feed(runt_session *s, const int32_t *ids, size_t n)
{
    struct runt_err err;
    if (runt_session_feed(s, ids, n, &err))
        fail_msg("%s", err.msg);
}

static void check_tokens(const runt_model *m, const char *text, const int32_t *want,
                         size_t n)
{
    int32_t *ids = NULL;
    size_t got = 0;
    assert_int_equal(runt_tokenize(m, text, strlen(text), true, &ids, &got, NULL), 0);
    assert_true(got >= n);
    assert_memory_equal(ids, want, n * sizeof *ids);
    runt_free(ids);
}

static void check_greedy(const runt_model *m, const int32_t *prompt, size_t n_prompt,
                         const int32_t *want, size_t n)
{
    struct runt_model_info info;
    runt_model_info(m, &info);
    runt_session *s = session(m, 2, 0, false);
    feed(s, prompt, n_prompt);
    for (size_t i = 0; i < n; i++) {
        const float *l = runt_session_logits(s);
        int32_t best = 0;
        for (int32_t k = 1; k < (int32_t)info.n_vocab; k++)
            best = l[k] > l[best] ? k : best;
        assert_int_equal(best, want[i]);
        feed(s, &best, 1);
    }
    runt_session_close(s);
}

/* Half precision is exact here (the checkpoint's own type), so only float rounding is
 * left: logits are below 32, 24-bit products and sums of at most 1,024 terms stay
 * within 2e-4.
 */
static const double logit_tol = 2e-4;

static void logits_match_the_projects_oracle(void **state)
{
    runt_model *m = *state;
    json_t *o = own_oracle(), *rows = json_object_get(o, "logits");
    size_t n, n_greedy,
        stride = (size_t)json_integer_value(json_object_get(o, "stride"));
    int32_t *ids = ids_of(json_object_get(o, "tokens"), &n);
    int32_t *greedy = ids_of(json_object_get(o, "greedy"), &n_greedy);
    check_tokens(m, js_get_str(o, "prompt"), ids, n);
    runt_session *s = session(m, 2, 256, true);
    feed(s, ids, n);
    double worst = 0;
    for (size_t t = 0; t < n; t++) {
        const json_t *row = json_array_get(rows, t);
        const float *l = runt_session_logits_at(s, t);
        assert_int_equal(json_array_size(row), (1024 + stride - 1) / stride);
        for (size_t k = 0; k < json_array_size(row); k++) {
            double d =
                fabs((double)l[k * stride] - json_number_value(json_array_get(row, k)));
            assert_true(d <= logit_tol);
            worst = fmax(worst, d);
        }
    }
    print_message("largest difference of a logit: %.2g\n", worst);
    check_greedy(m, ids, n, greedy, n_greedy);
    runt_session_close(s);
    mem_free(ids);
    mem_free(greedy);
    json_decref(o);
}

static void perplexity_matches_the_projects_oracle(void **state)
{
    runt_model *m = *state;
    json_t *o = own_oracle(), *p = json_object_get(o, "perplexity");
    const char *text = js_get_str(p, "text");
    struct eval_options eo = {
        .window = (size_t)json_integer_value(json_object_get(p, "window")),
        .max_tokens = json_array_size(json_object_get(p, "tokens"))};
    struct eval_result r;
    struct runt_err err;
    if (eval_text(m, NULL, text, strlen(text), &eo, &r, &err))
        fail_msg("%s", err.msg);
    double want = json_number_value(json_object_get(p, "perplexity"));
    assert_int_equal(r.n_scored, json_integer_value(json_object_get(p, "scored")));
    assert_true(fabs(r.perplexity / want - 1) <= 1e-5);
    json_decref(o);
}

static runt_model *pytorchs_model(const char *data)
{
    char dir[512];
    snprintf(dir, sizeof dir, "%s/models/tiny-gpt2", data);
    return fixture_folder(dir, "f16");
}

static void pytorch_logits_and_greedy(void **state)
{
    (void)state;
    const char *data = getenv("RUNT_TEST_DATA");
    if (!data)
        skip();
    char path[512];
    runt_model *m = pytorchs_model(data);
    struct file_map map;
    struct runt_err err;
    snprintf(path, sizeof path, "%s/oracle/tiny-gpt2.json", data);
    json_t *o = load_json(path), *g = json_object_get(o, "greedy");
    snprintf(path, sizeof path, "%s/oracle/tiny-gpt2-logits.f32", data);
    assert_int_equal(file_map_open(path, &map, &err), 0);
    size_t n, n_prompt, n_greedy;
    int32_t *ids = ids_of(json_object_get(o, "tokens"), &n);
    int32_t *prompt = ids_of(json_object_get(g, "prompt_tokens"), &n_prompt);
    int32_t *greedy = ids_of(json_object_get(g, "continuation"), &n_greedy);
    const float *want = (const float *)(const void *)map.data;
    assert_int_equal(map.size, n * 4096 * sizeof *want);
    check_tokens(m, js_get_str(o, "prompt"), ids, n);
    runt_session *s = session(m, 2, 256, true);
    feed(s, ids, n);
    double worst = 0;
    for (size_t t = 0; t < n; t++) {
        for (size_t k = 0; k < 4096; k++) {
            double d = fabs((double)runt_session_logits_at(s, t)[k] -
                            (double)want[t * 4096 + k]);
            assert_true(d <= logit_tol);
            worst = fmax(worst, d);
        }
    }
    print_message("largest difference of a logit: %.2g\n", worst);
    check_greedy(m, prompt, n_prompt, greedy, n_greedy);
    runt_session_close(s);
    file_map_close(&map);
    mem_free(ids);
    mem_free(prompt);
    mem_free(greedy);
    json_decref(o);
    fixture_close(m);
}

/* Both conventions over the whole text; the sanitizers would take minutes for it. */
static void pytorch_perplexity(void **state)
{
    (void)state;
    const char *data = getenv("RUNT_TEST_DATA");
    if (!data || getenv("RUNT_SANITIZE"))
        skip();
    char path[512], *text = NULL;
    runt_model *m = pytorchs_model(data);
    size_t n = 0;
    struct runt_err err;
    snprintf(path, sizeof path, "%s/oracle/tiny-gpt2.json", data);
    json_t *o = load_json(path), *p = json_object_get(o, "perplexity");
    snprintf(path, sizeof path, "%s/oracle/tiny-gpt2-valid.txt", data);
    assert_int_equal(file_read(path, 1 << 24, &text, &n, &err), 0);
    const struct {
        const char *key;
        struct eval_options o;
        size_t n_scored;
    } cases[] = {
        {"window256_stride256", {.window = 256}, 62475},
        {"first_24577_tokens_window256_stride128",
         {.window = 256, .stride = 128, .max_tokens = 24577},
         24575},
    };
    for (size_t i = 0; i < 2; i++) {
        struct eval_result r;
        if (eval_text(m, NULL, text, n, &cases[i].o, &r, &err))
            fail_msg("%s", err.msg);
        double want = json_number_value(json_object_get(p, cases[i].key));
        assert_int_equal(r.n_scored, cases[i].n_scored);
        assert_true(fabs(r.perplexity / want - 1) <= 1e-4);
        print_message("%s: %.6f, PyTorch %.6f\n", cases[i].key, r.perplexity, want);
    }
    mem_free(text);
    json_decref(o);
    fixture_close(m);
}

/* ---- the same bits ---- */

enum { N_IDS = 70 };

static void some_ids(int32_t ids[N_IDS], uint32_t n_vocab)
{
    for (int i = 0; i < N_IDS; i++)
        ids[i] = (int32_t)((uint32_t)(i * 7919 + 13) % n_vocab);
}

/* Logits of the last token for odd shapes and every format: equal to the byte whatever
 * the threads and the cut of the prompt. */
static void same_bits_for_any_threads_and_cuts(void **state)
{
    (void)state;
    static const char *const types[] = {"f32",  "f16",    "bf16", "q8_0", "q5_0",
                                        "q5_1", "iq4_nl", "q4_0", "q4_1", "r4"};
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        struct gpt2_shape shape = fixture_odd_shape();
        runt_model *m = fixture_random(&shape, types[k], 5);
        int32_t ids[N_IDS];
        some_ids(ids, shape.n_vocab);
        size_t bytes = shape.n_vocab * sizeof(float);
        runt_session *ref = session(m, 1, 1, false);
        feed(ref, ids, N_IDS);
        for (unsigned threads = 1; threads <= 4; threads++) {
            for (unsigned batch = 2; batch <= N_IDS; batch += 17) {
                runt_session *s = session(m, threads, batch, false);
                feed(s, ids, 5);
                feed(s, ids + 5, N_IDS - 5);
                assert_memory_equal(runt_session_logits(s), runt_session_logits(ref),
                                    bytes);
                runt_session_close(s);
            }
        }
        runt_session_close(ref);
        fixture_close(m);
    }
}

static void rewinding_leaves_no_trace(void **state)
{
    (void)state;
    struct gpt2_shape shape = fixture_odd_shape();
    runt_model *m = fixture_random(&shape, "q4_0", 6);
    int32_t ids[N_IDS], other[3] = {1, 2, 3};
    some_ids(ids, shape.n_vocab);
    runt_session *a = session(m, 2, 16, false), *b = session(m, 2, 16, false);
    feed(a, ids, N_IDS);
    feed(b, ids, 40);
    feed(b, other, 3);
    runt_session_rewind(b, 40);
    assert_int_equal(runt_session_pos(b), 40);
    feed(b, ids + 40, N_IDS - 40);
    assert_memory_equal(runt_session_logits(a), runt_session_logits(b),
                        shape.n_vocab * sizeof(float));
    runt_session_close(a);
    runt_session_close(b);
    fixture_close(m);
}

/* The specification and the vector kernels agree through a whole model.  The table is
 * chosen once a process, so each level runs in a child. */
static void same_bits_on_every_instruction_set(void **state)
{
    (void)state;
    unsetenv("RUNT_CPU");
    char *want = fixture_logits_in_child("ref");
    assert_non_null(want);
    for (enum cpu_level l = CPU_AVX2; l < CPU_N_LEVELS; l++) {
        if (!cpu_has(l))
            continue;
        char *got = fixture_logits_in_child(cpu_level_name(l));
        assert_non_null(got);
        assert_string_equal(got, want);
        free(got);
    }
    free(want);
}

/* ---- a format that is read only ---- */

/* A model whose matrices are random Q6_K blocks, as such or decoded to F32. */
static runt_model *q6_k_model(bool decoded)
{
    struct gpt2_shape shape = {.n_vocab = 300,
                               .n_ctx = 16,
                               .n_embd = 256,
                               .n_head = 4,
                               .n_layer = 1,
                               .n_ff = 512,
                               .eps = 1e-5f,
                               .tied = true};
    const struct fmt_info *q6 = fmt_by_name("q6_k"), *f32 = fmt_by_name("f32");
    struct gguf_writer *w = NULL;
    struct tok_vocab v;
    struct rng r;
    char path[256], name[64];
    unsigned n_dims;
    uint64_t n_cols, n_rows;
    static float row[512];
    uint8_t block[2 * 210];
    runt_model *m = NULL;
    struct runt_err err;
    fixture_temporary(path, sizeof path);
    assert_int_equal(gguf_writer_create(&w, &err), 0);
    assert_int_equal(tok_vocab_synthetic(shape.n_vocab, &v, &err), 0);
    model_write_meta(w, &shape, &v, "q6_k");
    for (size_t i = 0; i < model_n_tensors(&shape); i++) {
        model_tensor_at(&shape, i, name, &n_dims, &n_cols, &n_rows);
        gguf_add_tensor(w, name, n_dims == 2 && !decoded ? q6 : f32, n_dims, n_cols,
                        n_rows);
    }
    assert_int_equal(gguf_begin(w, path, &err), 0);
    rng_seed(&r, 17);
    for (size_t i = 0; i < model_n_tensors(&shape); i++) {
        model_tensor_at(&shape, i, name, &n_dims, &n_cols, &n_rows);
        for (uint64_t k = 0; k < n_rows; k++) {
            size_t n_blocks = n_dims == 2 ? n_cols / 256 : 0;
            for (size_t b = 0; b < n_blocks; b++) {
                for (size_t j = 0; j < 208; j++)
                    block[b * 210 + j] = (uint8_t)rng_u64(&r);
                uint16_t d = fmt_f32_to_f16(0x1p-16f);
                memcpy(block + b * 210 + 208, &d, 2);
            }
            if (n_blocks)
                q6->decode(block, row, n_cols);
            for (size_t j = 0; !n_blocks && j < n_cols && j < 512; j++)
                row[j] = strstr(name, "norm.weight") ? 1 : 0;
            for (size_t j = 0; j < n_cols;
                 j += 256) /* qkv's bias is longer than a row */
                assert_int_equal(n_blocks && !decoded
                                     ? gguf_write(w, block + j / 256 * 210, 210, &err)
                                     : gguf_write(w, row + (n_blocks ? j : 0),
                                                  256 * sizeof *row, &err),
                                 0);
        }
    }
    assert_int_equal(gguf_finish(w, NULL, &err), 0);
    gguf_writer_destroy(w);
    tok_vocab_free(&v);
    if (runt_model_load(path, &m, &err))
        fail_msg("%s", err.msg);
    unlink(path);
    return m;
}

static void a_format_without_a_kernel_runs(void **state)
{
    (void)state;
    runt_model *a = q6_k_model(false), *b = q6_k_model(true);
    int32_t ids[7] = {5, 17, 250, 3, 99, 200, 41};
    runt_session *sa = session(a, 2, 0, false), *sb = session(b, 1, 3, false);
    feed(sa, ids, 7);
    feed(sb, ids, 7);
    float largest = 0;
    for (int i = 0; i < 300; i++)
        largest = fmaxf(largest, fabsf(runt_session_logits(sb)[i]));
    assert_true(largest > 0.1f);
    for (int i = 0; i < 300; i++) /* the same products, added in another order */
        assert_true(fabsf(runt_session_logits(sa)[i] - runt_session_logits(sb)[i]) <=
                    1e-5f * largest);
    runt_session_close(sa);
    runt_session_close(sb);
    fixture_close(a);
    fixture_close(b);
}

/* ---- misuse ---- */

static void misuse_is_refused(void **state)
{
    runt_model *m = *state;
    struct runt_err err;
    runt_session *s = NULL;
    struct runt_session_options o = {.n_ctx = 257};
    assert_int_equal(runt_session_open(m, &o, &s, &err), RUNT_E_INVALID);
    assert_null(s);
    o.n_ctx = 8;
    assert_int_equal(runt_session_open(m, &o, &s, &err), 0);
    int32_t ids[9] = {0}, bad = 1024, negative = -1;
    assert_int_equal(runt_session_feed(s, ids, 0, &err), RUNT_E_INVALID);
    assert_int_equal(runt_session_feed(s, &bad, 1, &err), RUNT_E_INVALID);
    assert_int_equal(runt_session_feed(s, &negative, 1, &err), RUNT_E_INVALID);
    assert_int_equal(runt_session_feed(s, ids, 9, &err), RUNT_E_FULL);
    assert_int_equal(runt_session_pos(s), 0);
    assert_int_equal(runt_session_feed(s, ids, 8, &err), 0);
    assert_int_equal(runt_session_feed(s, ids, 1, &err), RUNT_E_FULL);
    runt_session_close(s);
    runt_model *none = NULL;
    assert_int_equal(runt_model_load("/nonexistent.gguf", &none, &err),
                     RUNT_E_NOTFOUND);
    assert_non_null(strstr(err.msg, "/nonexistent.gguf"));
    assert_null(none);
}

/* Every allocation may fail: a clear error, nothing leaked. */
static void every_allocation_may_fail(void **state)
{
    (void)state;
    struct gpt2_shape shape = fixture_odd_shape();
    char path[256];
    fixture_write_random(&shape, "q8_0", 1, path, sizeof path);
    int rc = -1;
    for (long n = 0; rc; n++) {
        long before = mem_live();
        runt_model *m = NULL;
        runt_session *s = NULL;
        struct runt_err err = {0};
        struct runt_session_options o = {.n_threads = 2};
        mem_fail_after(n);
        rc = runt_model_load(path, &m, &err);
        if (!rc)
            rc = runt_session_open(m, &o, &s, &err);
        mem_fail_after(-1);
        if (rc)
            assert_int_equal(err.code, RUNT_E_NOMEM);
        runt_session_close(s);
        runt_model_free(m);
        assert_int_equal(mem_live(), before);
        assert_true(n < 10000);
    }
    unlink(path);
}

static int setup(void **state)
{
    *state = fixture_mini("f16");
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    fixture_close(*state);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "--logits"))
        return fixture_print_logits();
    fixture_program = argv[0];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_match_the_projects_oracle),
        cmocka_unit_test(perplexity_matches_the_projects_oracle),
        cmocka_unit_test(pytorch_logits_and_greedy),
        cmocka_unit_test(pytorch_perplexity),
        cmocka_unit_test(same_bits_for_any_threads_and_cuts),
        cmocka_unit_test(rewinding_leaves_no_trace),
        cmocka_unit_test(same_bits_on_every_instruction_set),
        cmocka_unit_test(a_format_without_a_kernel_runs),
        cmocka_unit_test(misuse_is_refused),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests_name("model", tests, setup, teardown);
}
