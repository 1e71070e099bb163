/* Checkpoint folders written: what other programs will find in them, the same floats
 * when read again, and refusals that leave nothing behind. */
#include "import_fixture.h"

#include "base/file.h"
#include "import/safetensors.h"

static struct gpt2_shape shape_of(bool tied)
{
    return (struct gpt2_shape){V, T, C, H, L, F, 3e-6f, 9, -1, tied};
}

/* The folder's checkpoint written to DIR/out and opened again. */
static void round_trip(const struct hf_checkpoint *from, const struct gpt2_shape *shape,
                       const struct fmt_info *fmt)
{
    struct runt_err err;
    struct hf_checkpoint *c = NULL;
    char out[128];
    snprintf(out, sizeof out, "%s/out", dir);
    if (hf_write_dir(out, shape, hf_source(from), fmt, NULL, NULL, &err) ||
        hf_open(out, &c, &err))
        fail_msg("%s", err.msg);
    const struct gpt2_shape *s = hf_shape(c);
    assert_int_equal(s->n_vocab, V);
    assert_int_equal(s->n_ctx, T);
    assert_int_equal(s->n_embd, C);
    assert_int_equal(s->n_head, H);
    assert_int_equal(s->n_layer, L);
    assert_int_equal(s->n_ff, F);
    assert_int_equal(s->bos, 9);
    assert_int_equal(s->eos, -1);
    assert_true(s->eps == 3e-6f);
    assert_int_equal(s->tied, shape->tied);
    assert_int_equal(hf_n_ignored(c), 0);
    for (size_t i = 0; i < hf_source(c)->n_tensors; i++)
        assert_ptr_equal(hf_source(c)->tensors[i].fmt, fmt ? fmt : fmt_find(FMT_F16));
    check_model(hf_source(c), 3);
    if (!shape->tied)
        check_tensor(hf_source(c), N_MODEL, &head, 99, 4);
    hf_close(c);
}

/* What other programs will see: places, names, shapes and the metadata. */
static void check_written_header(void)
{
    struct st_file *f = NULL;
    struct runt_err err;
    struct file_map map;
    char path[128];
    snprintf(path, sizeof path, "%s/out/model.safetensors", dir);
    assert_int_equal(file_map_open(path, &map, &err), 0);
    assert_int_equal(map.data[0] % 8, 0);
    assert_memory_equal(map.data + 8, "{\"__metadata__\":{\"format\":\"pt\"},", 32);
    assert_int_equal(st_parse(map.data, map.size, path, &f, &err), 0);
    assert_int_equal(f->n_tensors, N_MODEL);
    const struct st_tensor *t = st_find(f, "transformer.h.1.mlp.c_fc.weight");
    assert_non_null(t);
    assert_int_equal(t->dims[0], C);
    assert_int_equal(t->dims[1], F);
    const struct st_tensor *last = st_find(f, "transformer.ln_f.bias");
    assert_ptr_equal(last->data + last->bytes, map.data + map.size);
    st_close(f);
    file_map_close(&map);

    char *text;
    size_t n;
    snprintf(path, sizeof path, "%s/out/config.json", dir);
    assert_int_equal(file_read(path, 1 << 20, &text, &n, &err), 0);
    static const char *const want[] = {"\"GPT2LMHeadModel\"", "\"gelu_new\"",
                                       "\"eos_token_id\": null", "\"torch_dtype\": \"",
                                       "\"layer_norm_epsilon\": 3e-6"};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        if (!strstr(text, want[i]))
            fail_msg("config.json lacks %s: %s", want[i], text);
    mem_free(text);
}

static void clear_out(void)
{
    char outer[sizeof dir];
    memcpy(outer, dir, sizeof dir);
    strcat(dir, "/out");
    clear_dir();
    assert_int_equal(rmdir(dir), 0);
    memcpy(dir, outer, sizeof dir);
}

static void test_write(void **state)
{
    (void)state;
    static const enum fmt_type types[] = {FMT_F32, FMT_F16, FMT_BF16};
    struct gpt2_shape tied = shape_of(true), untied = shape_of(false);
    for (size_t i = 0; i < 3; i++) {
        struct builder b = {0};
        write_config(",\"tie_word_embeddings\":false");
        add_floats(&b, head.hf, fmt_find(FMT_F32), shape_text(&head), 99, V * C);
        add_model(&b, "", fmt_find(FMT_F16), 0, N_MODEL, NULL);
        finish_file(&b, "model.safetensors");
        struct hf_checkpoint *c = open_ok();
        round_trip(c, &untied, fmt_find(types[i]));
        round_trip(c, &tied, NULL); /* F16, as they are */
        round_trip(c, &tied, fmt_find(types[i]));
        check_written_header();
        clear_out();
        hf_close(c);
    }
}

/* Matrices of F16; vectors F32, as in a model file, one of which F16 cannot hold. */
static int mixed_rows(const struct tensor_source *s, size_t i, uint64_t row, uint64_t n,
                      float *out, struct runt_err *err)
{
    (void)row;
    (void)err;
    for (uint64_t k = 0; k < n * s->tensors[i].n_cols; k++)
        out[k] = i == 3 ? 0.1f : 0.5f;
    return 0;
}

static void test_keep_all(void **state)
{
    (void)state;
    struct runt_err err;
    struct gpt2_shape s = shape_of(true);
    const struct fmt_info *f32 = fmt_find(FMT_F32), *f16 = fmt_find(FMT_F16);
    char out[128];
    snprintf(out, sizeof out, "%s/out", dir);
    write_model("", f16);
    struct hf_checkpoint *c = open_ok(), *back = NULL;
    struct tensor_desc descs[N_MODEL];
    memcpy(descs, hf_source(c)->tensors, sizeof descs);
    for (size_t i = 0; i < N_MODEL; i++)
        descs[i].fmt = descs[i].n_dims == 1 ? f32 : f16;
    struct tensor_source src = {"mixed", N_MODEL, descs, mixed_rows};
    for (int blocks = 0; blocks < 2; blocks++) {
        if (blocks) /* one matrix that was rounded */
            descs[0].fmt = fmt_find(FMT_Q8_0);
        if (hf_write_dir(out, &s, &src, NULL, NULL, NULL, &err) ||
            hf_open(out, &back, &err))
            fail_msg("%s", err.msg);
        for (size_t i = 0; i < N_MODEL; i++) {
            const struct tensor_desc *d = &hf_source(back)->tensors[i];
            bool wide = i == 3 || (blocks && (i == 0 || d->n_dims == 1));
            assert_ptr_equal(d->fmt, wide ? f32 : f16);
        }
        hf_close(back);
    }
    hf_close(c);
    clear_out();
}

struct stop {
    unsigned long long at, last, total;
};

static int count_bytes(void *ctx, const char *what, unsigned long long done,
                       unsigned long long total)
{
    struct stop *s = ctx;
    assert_string_equal(what, "model.safetensors");
    assert_true(done > s->last && done <= total);
    s->last = done;
    s->total = total;
    return done >= s->at;
}

static int bad_rows(const struct tensor_source *s, size_t i, uint64_t row, uint64_t n,
                    float *out, struct runt_err *err)
{
    (void)row;
    for (uint64_t k = 0; k < n * s->tensors[i].n_cols; k++)
        out[k] = i == 5 ? 70000 : 0;
    if (i == 20) {
        *err = (struct runt_err){RUNT_E_FORMAT, "row 3 is damaged"};
        return RUNT_E_FORMAT;
    }
    return 0;
}

static void test_write_refusals(void **state)
{
    (void)state;
    struct runt_err err = {0};
    struct gpt2_shape s = shape_of(true);
    struct stop stop = {.at = 5000};
    write_model("", fmt_find(FMT_F32));
    struct hf_checkpoint *c = open_ok();
    const struct tensor_source *src = hf_source(c);
    struct tensor_source changed = *src;
    char out[128];
    snprintf(out, sizeof out, "%s/out", dir);
    const struct fmt_info *f32 = fmt_find(FMT_F32), *f16 = fmt_find(FMT_F16);

    check_refused(hf_write_dir(out, &s, src, fmt_find(FMT_Q8_0), NULL, NULL, &err),
                  RUNT_E_INVALID, &err, "holds F32, F16 or BF16, not Q8_0");
    check_refused(hf_write_dir(out, &s, src, f32, count_bytes, &stop, &err),
                  RUNT_E_INTERRUPTED, &err, "writing stopped at tensor blk.0.");
    s.tied = false;
    check_refused(hf_write_dir(out, &s, src, f32, NULL, NULL, &err), RUNT_E_NOTFOUND,
                  &err, "no tensor output.weight");
    s.tied = true;
    s.n_ctx = T + 1;
    check_refused(
        hf_write_dir(out, &s, src, f32, NULL, NULL, &err), RUNT_E_FORMAT, &err,
        "position_embd.weight has 6 rows of 8, the model's sizes ask for 7 of 8");
    s.n_ctx = 0;
    check_refused(hf_write_dir(out, &s, src, f32, NULL, NULL, &err), RUNT_E_INVALID,
                  &err, "size 0");
    s.n_ctx = T;
    struct tensor_desc descs[N_MODEL];
    memcpy(descs, src->tensors, sizeof descs);
    descs[3].n_cols = C - 1;
    changed.tensors = descs;
    check_refused(
        hf_write_dir(out, &s, &changed, f32, NULL, NULL, &err), RUNT_E_FORMAT, &err,
        "blk.0.attn_norm.bias has 1 rows of 7, the model's sizes ask for 1 of 8");
    changed.tensors = src->tensors;
    changed.rows = bad_rows;
    check_refused(hf_write_dir(out, &s, &changed, f16, NULL, NULL, &err),
                  RUNT_E_INVALID, &err,
                  "tensor blk.0.attn_qkv.bias holds 70000, which F16 cannot");
    check_refused(hf_write_dir(out, &s, &changed, f32, NULL, NULL, &err), RUNT_E_FORMAT,
                  &err, "row 3 is damaged");
    char outer[sizeof dir];
    memcpy(outer, dir, sizeof dir);
    strcat(dir, "/out");
    assert_int_equal(clear_dir(), 0); /* no refusal left a file */
    memcpy(dir, outer, sizeof dir);
    check_refused(hf_write_dir(in_dir("config.json"), &s, src, f32, NULL, NULL, &err),
                  RUNT_E_IO, &err, "not a directory");

    stop = (struct stop){.at = ~0ull};
    assert_int_equal(hf_write_dir(out, &s, src, f32, count_bytes, &stop, &err), 0);
    assert_true(stop.last == stop.total && stop.total > 5000);
    clear_out();
    hf_close(c);
}

/* A source without memory behind it. */
static int made_up_rows(const struct tensor_source *s, size_t i, uint64_t row,
                        uint64_t n, float *out, struct runt_err *err)
{
    (void)err;
    for (uint64_t k = 0; k < n * s->tensors[i].n_cols; k++)
        out[k] = value(i, row * s->tensors[i].n_cols + k);
    return 0;
}

/* Conv1D matrices so large that they go back band by band, and an epsilon of many
 * digits. */
static void test_write_large(void **state)
{
    (void)state;
    enum { WIDE = 300000, NARROW = 32 };
    static const unsigned lengths[][2] = {
        {7, NARROW},          {5, NARROW},     {1, NARROW},      {1, NARROW},
        {3 * NARROW, NARROW}, {1, 3 * NARROW}, {NARROW, NARROW}, {1, NARROW},
        {1, NARROW},          {1, NARROW},     {WIDE, NARROW},   {1, WIDE},
        {NARROW, WIDE},       {1, NARROW},     {1, NARROW},      {1, NARROW},
    };
    enum { N = sizeof lengths / sizeof *lengths };
    struct tensor_desc descs[N] = {0};
    struct gpt2_shape s = {7, 5, NARROW, 2, 1, WIDE, 1.2345679e-5f, -1, 6, true};
    struct tensor_source src = {"made up", N, descs, made_up_rows};
    struct hf_checkpoint *c = NULL;
    struct runt_err err;
    char out[128];
    for (size_t i = 0; i < N; i++) { /* the two at the end follow the only layer */
        const char *name = model[i < 14 ? i : N_MODEL - N + i].name;
        memcpy(descs[i].name, name, strlen(name) + 1);
        descs[i].n_rows = lengths[i][0];
        descs[i].n_cols = lengths[i][1];
    }
    snprintf(out, sizeof out, "%s/out", dir);
    if (hf_write_dir(out, &s, &src, fmt_find(FMT_F16), NULL, NULL, &err) ||
        hf_open(out, &c, &err))
        fail_msg("%s", err.msg);
    assert_true(hf_shape(c)->eps == s.eps);
    for (size_t i = 0; i < N; i++) {
        const struct line l = {NULL, descs[i].name, lengths[i][0], lengths[i][1],
                               false};
        check_tensor(hf_source(c), i, &l, i, 1000);
    }
    hf_close(c);
    clear_out();
}

static void test_write_no_memory(void **state)
{
    (void)state;
    struct gpt2_shape shape = shape_of(true);
    char out[128];
    snprintf(out, sizeof out, "%s/out", dir);
    write_model("", fmt_find(FMT_F16));
    struct hf_checkpoint *c = open_ok();
    int rc = RUNT_E_NOMEM;
    for (long n = 0; rc; n++) {
        struct runt_err err = {0};
        long live = mem_live();
        mem_fail_after(n);
        rc = hf_write_dir(out, &shape, hf_source(c), NULL, NULL, NULL, &err);
        mem_fail_after(-1);
        if (rc)
            check_refused(rc, RUNT_E_NOMEM, &err, "out of memory for");
        else
            assert_true(n > 30);
        assert_int_equal(mem_live(), live);
    }
    hf_close(c);
    clear_out();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FOLDER_TEST(test_write),           FOLDER_TEST(test_keep_all),
        FOLDER_TEST(test_write_refusals),  FOLDER_TEST(test_write_large),
        FOLDER_TEST(test_write_no_memory),
    };
    return cmocka_run_group_tests_name("import_write", tests, NULL, NULL);
}
