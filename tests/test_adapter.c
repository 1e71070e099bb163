/* Adapters of a model that answers: their files, merged weights, the same bits however
 * a text is cut, and what belongs to them: templates, caches. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rng.h"
#include "model/adapter.h"
#include "model_fixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct gpt2_shape shape; /* fixture_odd_shape */

static int setup(void **state)
{
    (void)state;
    shape = fixture_odd_shape();
    return 0;
}

/* ---- files ---- */

/* An adapter's file, and what is wrong with it. */
struct file {
    size_t rank;
    float alpha;
    uint64_t seed, base;
    const char *type, *template;
    const char *only;             /* the matrices whose names have this */
    const char *lie, *lie_string; /* a key and what it says instead */
    const char *leave_out;        /* a tensor */
    const char *nan_in;           /* a tensor */
    const char *extra;            /* one more tensor, of 96 x 8 */
    int more_cols, more_rows;     /* of every a */
    int more_b_cols, more_b_rows; /* of every b */
};

struct part {
    char name[TENSOR_NAME_MAX];
    size_t n_rows, n_cols;
};

static bool is_table(const char *name)
{
    return !strncmp(name, "token_embd.weight", 17);
}

/* Of the token table lora_a and lora_b are what b and a turned are of others. */
static size_t parts_of(const struct file *f, struct part parts[static 40])
{
    size_t n = 0;
    for (size_t i = 0; i < model_n_tensors(&shape); i++) {
        char name[64];
        unsigned n_dims;
        uint64_t cols, rows;
        model_tensor_at(&shape, i, name, &n_dims, &cols, &rows);
        if (n_dims < 2 || !strncmp(name, "position", 8) ||
            (f->only && !strstr(name, f->only)))
            continue;
        struct part ab[2] = {{.n_rows = f->rank, .n_cols = (size_t)cols},
                             {.n_rows = (size_t)rows, .n_cols = f->rank}};
        if (is_table(name)) {
            ab[0] = ab[1];
            ab[1] = (struct part){.n_rows = (size_t)cols, .n_cols = f->rank};
        }
        ab[0].n_rows += (size_t)f->more_rows;
        ab[0].n_cols += (size_t)f->more_cols;
        ab[1].n_rows += (size_t)f->more_b_rows;
        ab[1].n_cols += (size_t)f->more_b_cols;
        for (int b = 0; b < 2; b++) {
            snprintf(ab[b].name, sizeof ab[b].name, "%.40s.lora_%c", name, "ab"[b]);
            if (!f->leave_out || strcmp(f->leave_out, ab[b].name))
                parts[n++] = ab[b];
        }
    }
    if (f->extra) {
        parts[n] = (struct part){.n_rows = 8, .n_cols = 96};
        snprintf(parts[n++].name, TENSOR_NAME_MAX, "%s", f->extra);
    }
    return n;
}

/* Normal numbers, of which a product with a norm's output is about 1: b is small. */
static void numbers_of(const struct file *f, const struct part *p, size_t index,
                       float *x)
{
    struct rng rng;
    rng_seed(&rng, f->seed * 1000 + index);
    float size = strstr(p->name, "lora_b") ? 0.05f : 0.1f;
    for (size_t k = 0; k < p->n_rows * p->n_cols; k++)
        x[k] = size * rng_normal(&rng);
    if (f->nan_in && !strcmp(f->nan_in, p->name))
        x[7] = NAN;
}

static void write_adapter(const struct file *f, char *path, size_t n_path)
{
    struct part parts[40];
    struct gguf_writer *w = NULL;
    size_t n = parts_of(f, parts);
    const struct fmt_info *fmt = fmt_by_name(f->type ? f->type : "f32");
    fixture_temporary(path, n_path);
    assert_int_equal(gguf_writer_create(&w, NULL), 0);
    adapter_write_meta(w, f->alpha, f->base, f->template);
    if (f->lie)
        gguf_set_str(w, f->lie, f->lie_string, strlen(f->lie_string));
    for (size_t i = 0; i < n; i++)
        gguf_add_tensor(w, parts[i].name, fmt, 2, parts[i].n_cols, parts[i].n_rows);
    assert_int_equal(gguf_begin(w, path, NULL), 0);
    for (size_t i = 0; i < n; i++) {
        size_t bytes, count = parts[i].n_rows * parts[i].n_cols;
        float *x = mem_array(count, sizeof *x);
        assert_true(fmt_tensor_bytes(fmt, parts[i].n_cols, parts[i].n_rows, &bytes));
        void *encoded = mem_alloc(bytes);
        numbers_of(f, &parts[i], i, x);
        fmt_encode_rows(fmt, parts[i].n_cols, parts[i].n_rows, x, encoded);
        assert_int_equal(gguf_write(w, encoded, bytes, NULL), 0);
        mem_free(x);
        mem_free(encoded);
    }
    assert_int_equal(gguf_finish(w, NULL, NULL), 0);
    gguf_writer_destroy(w);
}

static struct adapter *opened(const struct file *f)
{
    char path[256];
    struct adapter *a = NULL;
    struct runt_err err;
    write_adapter(f, path, sizeof path);
    int rc = adapter_open(path, &shape, &a, &err);
    unlink(path);
    if (rc)
        fail_msg("%s", err.msg);
    return a;
}

static void what_a_file_says(void **state)
{
    (void)state;
    const struct file f = {.rank = 5,
                           .alpha = 20,
                           .seed = 3,
                           .base = 0xfedcba9876543210u,
                           .template = "{{ }}",
                           .only = "ffn"};
    struct adapter *a = opened(&f);
    assert_int_equal(a->n_matrices, 9);
    assert_true(a->has_base && a->base == f.base);
    assert_string_equal(a->chat_template, "{{ }}");
    struct part parts[40];
    size_t n = 0;
    parts_of(&f, parts);
    for (size_t i = 0; i < a->n_matrices; i++) {
        const struct adapter_matrix *m = &a->matrices[i];
        bool adapted = strstr(m->name, "ffn") != NULL;
        assert_int_equal(m->rank, adapted ? 5 : 0);
        if (!adapted)
            continue;
        assert_true(m->scale == 4);
        for (int b = 0; b < 2; b++, n++) {
            float want[160 * 96];
            numbers_of(&f, &parts[n], n, want);
            assert_memory_equal(b ? m->b : m->a, want,
                                parts[n].n_rows * parts[n].n_cols * sizeof *want);
        }
    }
    assert_int_equal(n, 8);
    adapter_close(a);
    /* without an alpha the scale is 1, as llama.cpp has it */
    a = opened(&(struct file){.rank = 5, .alpha = 0, .seed = 3});
    assert_true(a->matrices[0].scale == 1 && !a->chat_template);
    adapter_close(a);
}

/* Its rows are looked up: what they are of is lora_a, as llama.cpp has it. */
static void the_token_table_lies_turned(void **state)
{
    (void)state;
    const struct file f = {.rank = 7, .alpha = 7, .seed = 5, .only = "token"};
    struct adapter *a = opened(&f);
    const struct adapter_matrix *m = &a->matrices[0];
    struct part parts[40];
    float looked_up[203 * 7], turned[96 * 7];
    assert_int_equal(parts_of(&f, parts), 2);
    numbers_of(&f, &parts[0], 0, looked_up);
    numbers_of(&f, &parts[1], 1, turned);
    assert_string_equal(m->name, "token_embd.weight");
    assert_true(m->n_in == 96 && m->n_out == 203 && m->rank == 7);
    assert_memory_equal(m->b, looked_up, sizeof looked_up);
    for (size_t i = 0; i < 96; i++)
        for (size_t k = 0; k < 7; k++)
            assert_true(m->a[k * 96 + i] == turned[i * 7 + k]);
    /* and is written so */
    char path[256];
    struct gguf_writer *w = NULL;
    struct gguf *g = NULL;
    fixture_temporary(path, sizeof path);
    assert_int_equal(gguf_writer_create(&w, NULL), 0);
    adapter_write_meta(w, f.alpha, 0, NULL);
    adapter_add(w, m);
    assert_int_equal(gguf_begin(w, path, NULL), 0);
    assert_int_equal(adapter_write(w, m, NULL), 0);
    assert_int_equal(gguf_finish(w, NULL, NULL), 0);
    gguf_writer_destroy(w);
    assert_int_equal(gguf_open(path, &g, NULL), 0);
    unlink(path);
    for (size_t i = 0; i < 2; i++) {
        const struct gguf_tensor *t = gguf_find_tensor(g, parts[i].name);
        assert_true(t && t->desc.n_rows == parts[i].n_rows && t->desc.n_cols == 7);
        assert_memory_equal(t->data, i ? turned : looked_up, t->bytes);
    }
    gguf_close(g);
    adapter_close(a);
}

static void files_that_are_refused(void **state)
{
    (void)state;
    static const struct {
        struct file f;
        int code;
        const char *words;
    } cases[] = {
        {{.rank = 4, .lie = "general.type", .lie_string = "model"},
         RUNT_E_INVALID,
         "is not an adapter"},
        {{.rank = 4, .lie = "general.architecture", .lie_string = "llama"},
         RUNT_E_UNSUPPORTED,
         "general.architecture is 'llama', not 'gpt2'"},
        {{.rank = 4, .lie = "adapter.type", .lie_string = "control"},
         RUNT_E_UNSUPPORTED,
         "adapter.type is 'control'"},
        {{.rank = 4, .lie = "runt.adapter.base", .lie_string = "0123456789abcdeg"},
         RUNT_E_FORMAT,
         "runt.adapter.base is damaged"},
        {{.rank = 4, .lie = "runt.adapter.base", .lie_string = ""},
         RUNT_E_FORMAT,
         "runt.adapter.base is damaged"},
        {{.rank = 4, .lie = "adapter.lora.alpha", .lie_string = "8"},
         RUNT_E_FORMAT,
         "adapter.lora.alpha"},
        {{.rank = 4, .alpha = -1}, RUNT_E_FORMAT, "adapter.lora.alpha is -1"},
        {{.rank = 4, .alpha = INFINITY}, RUNT_E_FORMAT, "adapter.lora.alpha"},
        {{.rank = 4, .only = "nothing"}, RUNT_E_FORMAT, "an adapter of nothing"},
        {{.rank = 4, .only = "blk", .more_cols = 1},
         RUNT_E_INVALID,
         "blk.0.attn_qkv.weight.lora_a is 4 x 97, the model's matrix 288 x 96"},
        {{.rank = 4, .only = "blk", .more_b_rows = 1},
         RUNT_E_INVALID,
         "blk.0.attn_qkv.weight.lora_b is 289 x 4, the model's matrix 288 x 96"},
        {{.rank = 4, .only = "blk", .more_rows = 1}, RUNT_E_INVALID, "has rank 5"},
        {{.rank = 4, .only = "blk", .more_b_cols = 1},
         RUNT_E_INVALID,
         "lora_b 5; one from 1 to 96"},
        {{.rank = 97}, RUNT_E_INVALID, "one from 1 to 96 is wanted"},
        {{.rank = 4, .leave_out = "blk.1.ffn_up.weight.lora_b"},
         RUNT_E_FORMAT,
         "there is a blk.1.ffn_up.weight.lora_a, but no blk.1.ffn_up.weight.lora_b"},
        {{.rank = 4, .leave_out = "blk.1.ffn_up.weight.lora_a"},
         RUNT_E_FORMAT,
         "there is a blk.1.ffn_up.weight.lora_b, but no blk.1.ffn_up.weight.lora_a"},
        {{.rank = 4, .nan_in = "blk.1.ffn_down.weight.lora_a"},
         RUNT_E_FORMAT,
         "tensor blk.1.ffn_down.weight.lora_a: number 7 is nan"},
        {{.rank = 4, .extra = "blk.2.ffn_up.weight.lora_a"},
         RUNT_E_UNSUPPORTED,
         "blk.2.ffn_up.weight.lora_a adapts no matrix"},
        {{.rank = 4, .only = "token", .more_rows = 1},
         RUNT_E_INVALID,
         "token_embd.weight.lora_a is 204 x 4, the model's matrix 203 x 96"},
        {{.rank = 4, .only = "token", .more_b_rows = 1},
         RUNT_E_INVALID,
         "token_embd.weight.lora_b is 97 x 4, the model's matrix 203 x 96"},
        {{.rank = 4, .only = "token", .more_cols = 1},
         RUNT_E_INVALID,
         "lora_b has rank 4 and token_embd.weight.lora_a 5; one from 1 to 96"},
        {{.rank = 97, .only = "token"}, RUNT_E_INVALID, "one from 1 to 96 is wanted"},
        {{.rank = 4, .only = "blk", .extra = "token_embd.weight.lora_a"},
         RUNT_E_FORMAT,
         "there is a token_embd.weight.lora_a, but no token_embd.weight.lora_b"},
        {{.rank = 4, .extra = "position_embd.weight.lora_a"},
         RUNT_E_UNSUPPORTED,
         "position_embd.weight.lora_a adapts no matrix"},
        {{.rank = 4, .extra = "output.weight.lora_a"}, /* the head is the table */
         RUNT_E_UNSUPPORTED,
         "output.weight.lora_a adapts no matrix"},
        {{.rank = 4, .extra = "blk.0.attn_qkv.weight.lora_c"},
         RUNT_E_UNSUPPORTED,
         "lora_c"},
        {{.rank = 4, .extra = "blk.0.attn_qkv.weight"}, RUNT_E_UNSUPPORTED, "weight"},
        {{.rank = 4, .extra = ".lora_a"}, RUNT_E_UNSUPPORTED, "tensor .lora_a"},
    };
    runt_model *m = fixture_random(&shape, "q8_0", 7);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[256];
        struct runt_err err;
        struct adapter *a = (struct adapter *)&err;
        write_adapter(&cases[i].f, path, sizeof path);
        if (adapter_open(path, &shape, &a, &err) != cases[i].code ||
            !strstr(err.msg, cases[i].words) || !strstr(err.msg, path))
            fail_msg("%s, not %s", err.msg, cases[i].words);
        assert_ptr_equal(a, &err);
        assert_int_equal(runt_model_adapter(m, path, 1, &err), cases[i].code);
        assert_int_equal(runt_model_adapters(m, NULL, 0), 0);
        unlink(path);
    }
    struct runt_err err;
    assert_int_equal(runt_model_adapter(m, "/nowhere", 1, &err), RUNT_E_NOTFOUND);
    assert_int_equal(runt_model_adapter(m, "/nowhere", NAN, &err), RUNT_E_INVALID);
    fixture_close(m);
}

/* ---- whole models ---- */

enum { N_IDS = 40 };

static const int32_t *ids(void)
{
    static int32_t list[N_IDS];
    for (int i = 0; i < N_IDS; i++)
        list[i] = (i * 37 + 5) % 203;
    return list;
}

static void adapt(runt_model *m, const struct file *f, float scale)
{
    char path[256];
    struct runt_err err;
    write_adapter(f, path, sizeof path);
    int rc = runt_model_adapter(m, path, scale, &err);
    unlink(path);
    if (rc)
        fail_msg("%s", err.msg);
}

/* Logits of every token; n_batch tokens a pass. */
static float *logits_of(const runt_model *m, uint32_t n_batch, uint32_t n_threads)
{
    runt_session *s = NULL;
    struct runt_session_options o = {.n_threads = n_threads,
                                     .n_batch = n_batch,
                                     .all_logits = true,
                                     .kv = RUNT_KV_F32};
    float *all = mem_array((size_t)N_IDS * shape.n_vocab, sizeof *all);
    assert_int_equal(runt_session_open(m, &o, &s, NULL), 0);
    for (size_t from = 0; from < N_IDS; from += n_batch) {
        size_t n = N_IDS - from < n_batch ? N_IDS - from : n_batch;
        assert_int_equal(runt_session_feed(s, ids() + from, n, NULL), 0);
        for (size_t i = 0; i < n; i++)
            memcpy(all + (from + i) * shape.n_vocab, runt_session_logits_at(s, i),
                   shape.n_vocab * sizeof *all);
    }
    runt_session_close(s);
    return all;
}

static double apart(const float *a, const float *b, double *largest)
{
    double most = 0;
    *largest = 0;
    for (size_t i = 0; i < (size_t)N_IDS * shape.n_vocab; i++) {
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
        *largest = fmax(*largest, fabs((double)a[i]));
    }
    return most;
}

static const char *const types[] = {"f32", "f16", "q8_0", "q4_0", "q5_1", "r4"};
enum { N_TYPES = sizeof types / sizeof *types };

/* However the text is cut, on any number of threads; and not those without it. */
static void check_bits(bool tied)
{
    shape.tied = tied;
    const struct file f = {.rank = 6, .alpha = 12, .seed = 2},
                      g = {.rank = 9, .alpha = 9, .seed = 3, .only = "attn"};
    for (size_t k = 0; k < N_TYPES; k++) {
        runt_model *m = fixture_random(&shape, types[k], 7);
        float *plain = logits_of(m, 40, 1);
        adapt(m, &f, 1);
        adapt(m, &g, -0.5f);
        float *want = logits_of(m, 40, 1);
        double largest, much = apart(plain, want, &largest);
        assert_true(much > 0.02 * largest);
        static const uint32_t cuts[][2] = {{40, 2}, {1, 1}, {1, 2},
                                           {1, 3},  {7, 2}, {33, 3}};
        for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++) {
            float *got = logits_of(m, cuts[c][0], cuts[c][1]);
            assert_memory_equal(got, want, (size_t)N_IDS * shape.n_vocab * sizeof *got);
            mem_free(got);
        }
        mem_free(plain);
        mem_free(want);
        fixture_close(m);
    }
}

static void the_same_bits(void **state)
{
    (void)state;
    check_bits(false);
    check_bits(true);
}

/* Sequences that share a pass with others. */
static void many_in_one_pass(void **state)
{
    (void)state;
    runt_model *m = fixture_random(&shape, "q4_0", 7);
    adapt(m, &(struct file){.rank = 4, .alpha = 8, .seed = 2}, 1);
    float *want = logits_of(m, 40, 1);
    runt_session *s = NULL;
    struct runt_session_options o = {.n_threads = 2, .n_seqs = 3, .kv = RUNT_KV_F32};
    assert_int_equal(runt_session_open(m, &o, &s, NULL), 0);
    for (size_t i = 0; i < N_IDS; i++) {
        struct runt_step steps[3];
        for (uint32_t q = 0; q < 3; q++)
            steps[q] = (struct runt_step){q, ids() + i, 1, 0};
        assert_int_equal(runt_session_step(s, steps, 3, NULL), 0);
        for (size_t q = 0; q < 3; q++)
            assert_memory_equal(runt_session_logits_at(s, q), want + i * shape.n_vocab,
                                shape.n_vocab * sizeof *want);
    }
    runt_session_close(s);
    mem_free(want);
    fixture_close(m);
}

/* A scale of 0 is no adapter, bit for bit: what the blocks are multiplied with does not
 * change because the floats are wanted, too. */
static void nothing_times_an_adapter(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_TYPES; k++) {
        runt_model *m = fixture_random(&shape, types[k], 7);
        float *want = logits_of(m, 40, 1);
        adapt(m, &(struct file){.rank = 4, .alpha = 8, .seed = 2}, 0);
        for (uint32_t n = 1; n <= 40; n += 39) {
            float *got = logits_of(m, n, 2);
            assert_memory_equal(got, want, (size_t)N_IDS * shape.n_vocab * sizeof *got);
            mem_free(got);
        }
        mem_free(want);
        fixture_close(m);
    }
}

/* The logits of a model with adapters, and of one of floats that has them in its
 * weights: how far apart, and the largest. */
static double merged_apart(const char *type, const struct file *files, size_t n,
                           double *largest)
{
    static const float scales[] = {1, 0.5f};
    struct adapter *adapters[2];
    struct adapter_merged *merged = NULL;
    runt_model *m = fixture_random(&shape, type, 7);
    for (size_t i = 0; i < n; i++) {
        adapters[i] = opened(&files[i]);
        adapt(m, &files[i], scales[i]);
    }
    assert_int_equal(
        adapter_merged_open(&m->file->source, adapters, scales, n, &merged, NULL), 0);
    runt_model *other = fixture_of(&shape, adapter_merged_source(merged), "f32");
    float *a = logits_of(m, 40, 2), *b = logits_of(other, 40, 2);
    double most = apart(a, b, largest);
    mem_free(a);
    mem_free(b);
    fixture_close(m);
    fixture_close(other);
    adapter_merged_close(merged);
    for (size_t i = 0; i < n; i++)
        adapter_close(adapters[i]);
    return most;
}

/* Floats: as far apart as the products may be, all of them together with the rows that
 * are looked up, where the norms keep a relative error what it is.  Blocks: products
 * that round what they read to 8 bits are as far from floats as without adapters, or
 * twice as far. */
static void merged_models_have_the_same_logits(void **state)
{
    (void)state;
    static const struct file
        files[] = {{.rank = 6, .alpha = 12, .seed = 2},
                   {.rank = 9, .alpha = 9, .seed = 3, .only = "attn"}},
        table[] = {{.rank = 9, .alpha = 36, .seed = 4, .only = "token"},
                   {.rank = 6, .alpha = 12, .seed = 5, .only = "token"}};
    for (int kind = 0; kind < 4; kind++) {
        const struct file *f = kind % 2 ? table : files;
        shape.tied = kind < 2;
        for (size_t k = 0; k < N_TYPES; k++) {
            double largest, plain,
                most = merged_apart(types[k], f, 2, &largest),
                bound = (4 * 2 + 2) * (160 / 8.0 + 15 + 11) * 0x1p-24 * largest;
            if (!fmt_by_name(types[k])->is_float)
                bound += 2 * largest * merged_apart(types[k], f, 0, &plain) / plain;
            print_message("%s: %.2g apart, of %.2g; the bound is %.2g\n", types[k],
                          most, largest, bound);
            assert_true(most <= bound && most > 0);
        }
    }
    shape.tied = true;
}

/* ---- the door ---- */

static void what_a_model_says_of_its_adapters(void **state)
{
    (void)state;
    runt_model *m = fixture_random(&shape, "q8_0", 7);
    uint64_t base;
    struct runt_adapter_info info[3] = {{0}};
    struct runt_model_info model;
    assert_int_equal(adapter_base(&m->file->source, &shape, &base, NULL), 0);
    runt_model_info(m, &model);
    assert_null(model.chat_template);
    adapt(m, &(struct file){.rank = 6, .alpha = 12, .base = base, .template = "one"},
          1);
    adapt(m, &(struct file){.rank = 3, .only = "ffn_up", .base = base + 1}, 0.25f);
    assert_int_equal(runt_model_adapters(m, info, 1), 2);
    assert_null(info[1].path);
    assert_int_equal(runt_model_adapters(m, info, 3), 2);
    assert_non_null(strstr(info[0].path, "runt-test-"));
    assert_true(info[0].scale == 1 && info[1].scale == 0.25f);
    assert_int_equal(info[0].rank, 6);
    assert_int_equal(info[1].rank, 3);
    assert_int_equal(info[1].n_weights, 2 * 3 * (96 + 160));
    assert_true(!info[0].other_base && info[1].other_base);
    runt_model_info(m, &model);
    assert_string_equal(model.chat_template, "one");
    fixture_close(m);
}

/* Types keep it; other norms do not. */
static void the_base_of_an_adapter(void **state)
{
    (void)state;
    uint64_t want = 0, got;
    for (size_t k = 0; k < N_TYPES; k++) {
        runt_model *m = fixture_tiny(types[k]);
        assert_int_equal(
            adapter_base(&m->file->source, &m->shape, k ? &got : &want, NULL), 0);
        assert_true(!k || got == want);
        fixture_close(m);
    }
    runt_model *m = fixture_random(&shape, "f32", 7);
    assert_int_equal(adapter_base(&m->file->source, &shape, &got, NULL), 0);
    assert_true(got != want);
    fixture_close(m);
}

/* What was computed with an adapter is nothing to a model without. */
static void caches_belong_to_an_adapter(void **state)
{
    (void)state;
    const struct file f = {.rank = 4, .alpha = 8, .seed = 2};
    char path[256];
    fixture_temporary(path, sizeof path);
    for (int kind = 0; kind < 5; kind++) {
        runt_model *m = fixture_random(&shape, "q4_0", 7);
        runt_session *s = NULL;
        struct runt_err err;
        struct file own = f;
        own.seed += kind == 3;
        if (kind != 1)
            adapt(m, &own, kind == 2 ? 2 : 1);
        assert_int_equal(runt_session_open(m, NULL, &s, &err), 0);
        if (kind == 0) {
            assert_int_equal(runt_session_feed(s, ids(), N_IDS, &err), 0);
            assert_int_equal(runt_session_save(s, 0, path, &err), 0);
        } else {
            int rc = runt_session_restore(s, 0, path, &err);
            assert_int_equal(rc, kind == 4 ? 0 : RUNT_E_INVALID);
        }
        runt_session_close(s);
        fixture_close(m);
    }
    unlink(path);
}

/* Whichever allocation fails, the model is as it was. */
static void memory_may_run_out(void **state)
{
    (void)state;
    char path[256];
    runt_model *m = fixture_random(&shape, "q4_0", 7);
    float *plain = logits_of(m, 40, 1);
    write_adapter(&(struct file){.rank = 4, .alpha = 8, .template = "x"}, path,
                  sizeof path);
    for (long k = 0;; k++) {
        struct runt_err err;
        long live = mem_live();
        mem_fail_after(k);
        int rc = runt_model_adapter(m, path, 1, &err);
        mem_fail_after(-1);
        if (!rc) {
            assert_true(k > 30);
            break;
        }
        assert_int_equal(rc, RUNT_E_NOMEM);
        assert_int_equal(mem_live(), live);
        assert_int_equal(runt_model_adapters(m, NULL, 0), 0);
    }
    unlink(path);
    float *got = logits_of(m, 40, 1);
    assert_true(memcmp(got, plain, (size_t)N_IDS * shape.n_vocab * sizeof *got) != 0);
    mem_free(plain);
    mem_free(got);
    fixture_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_file_says),
        cmocka_unit_test(the_token_table_lies_turned),
        cmocka_unit_test(files_that_are_refused),
        cmocka_unit_test(the_same_bits),
        cmocka_unit_test(many_in_one_pass),
        cmocka_unit_test(nothing_times_an_adapter),
        cmocka_unit_test(merged_models_have_the_same_logits),
        cmocka_unit_test(what_a_model_says_of_its_adapters),
        cmocka_unit_test(the_base_of_an_adapter),
        cmocka_unit_test(caches_belong_to_an_adapter),
        cmocka_unit_test(memory_may_run_out),
    };
    return cmocka_run_group_tests_name("adapter", tests, setup, NULL);
}
