/* Checkpoint folders read back: every dtype, both name styles, shards, tied heads, each
 * refusal with its line, damage, and the real ones. */
#include "import_fixture.h"

#include "import/safetensors.h"

/* ---- reading ---- */

static void test_dtypes_and_names(void **state)
{
    (void)state;
    static const char *const prefixes[] = {"", "transformer."};
    static const enum fmt_type types[] = {FMT_F32, FMT_F16, FMT_BF16};
    for (size_t i = 0; i < 2; i++)
        for (size_t j = 0; j < 3; j++) {
            write_model(prefixes[i], fmt_find(types[j]));
            struct hf_checkpoint *c = open_ok();
            const struct gpt2_shape *s = hf_shape(c);
            assert_int_equal(s->n_vocab, V);
            assert_int_equal(s->n_ctx, T);
            assert_int_equal(s->n_embd, C);
            assert_int_equal(s->n_head, H);
            assert_int_equal(s->n_layer, L);
            assert_int_equal(s->n_ff, F);
            assert_true(s->eps == 1e-5f && s->tied && s->bos == 9 && s->eos == 10);
            assert_int_equal(hf_source(c)->n_tensors, N_MODEL);
            assert_ptr_equal(hf_source(c)->tensors[7].fmt, fmt_find(types[j]));
            assert_string_equal(hf_source(c)->name, dir);
            assert_int_equal(hf_n_ignored(c), 0);
            check_model(hf_source(c), 1000);
            check_model(hf_source(c), 1);
            check_model(hf_source(c), 5);
            hf_close(c);
        }
    hf_close(NULL);
}

static void test_row_range(void **state)
{
    (void)state;
    struct runt_err err = {0};
    float x[V * C];
    write_model("", fmt_find(FMT_F32));
    struct hf_checkpoint *c = open_ok();
    const struct tensor_source *s = hf_source(c);
    check_refused(s->rows(s, 0, V, 1, x, &err), RUNT_E_INVALID, &err, "no rows");
    check_refused(s->rows(s, 0, 3, V - 2, x, &err), RUNT_E_INVALID, &err, "no rows");
    check_refused(s->rows(s, 0, 1, UINT64_MAX, x, &err), RUNT_E_INVALID, &err, "rows");
    check_refused(s->rows(s, 0, UINT64_MAX, 2, x, &err), RUNT_E_INVALID, &err, "rows");
    check_refused(s->rows(s, N_MODEL, 0, 1, x, &err), RUNT_E_INVALID, &err,
                  "tensor 28");
    assert_int_equal(s->rows(s, 0, V, 0, x, &err), 0);
    hf_close(c);
}

static void test_masks_and_strangers(void **state)
{
    (void)state;
    static const uint8_t zeros[4 * T * T];
    static const struct {
        const char *dtype;
        size_t bytes;
    } masks[] = {{"BOOL", 1}, {"U8", 1}, {"F32", 4}};
    for (size_t i = 0; i < 3; i++) {
        struct builder b = {0};
        write_config("");
        add_bytes(&b, "transformer.h.0.attn.bias", masks[i].dtype, "1,1,6,6", zeros,
                  T * T * masks[i].bytes);
        add_bytes(&b, "transformer.h.0.attn.masked_bias", "F32", "", zeros, 4);
        add_bytes(&b, "score.weight", "F64", "2", zeros, 16);
        add_bytes(&b, "odd", "Q9_Z", "2,2,2,2,2", zeros, 5);
        add_model(&b, "transformer.", fmt_find(FMT_F16), 0, N_MODEL, NULL);
        finish_file(&b, "model.safetensors");
        struct hf_checkpoint *c = open_ok();
        check_model(hf_source(c), 1000);
        assert_int_equal(hf_source(c)->n_tensors, N_MODEL);
        assert_int_equal(hf_n_ignored(c), 2);
        assert_string_equal(hf_ignored(c, 0), "odd");
        assert_string_equal(hf_ignored(c, 1), "score.weight");
        hf_close(c);
    }
}

static void test_head(void **state)
{
    (void)state;
    static const struct {
        const char *config;
        size_t which; /* values of lm_head; 0 those of wte, 99 others */
        bool tied, ignored;
    } cases[] = {
        {"", 0, true, false},
        {",\"tie_word_embeddings\":true", 99, true, true},
        {",\"tie_word_embeddings\":false", 0, true, false},
        {",\"tie_word_embeddings\":false", 99, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct builder b = {0};
        write_config(cases[i].config);
        add_floats(&b, head.hf, fmt_find(FMT_F16), shape_text(&head), cases[i].which,
                   V * C);
        add_model(&b, "transformer.", fmt_find(FMT_F16), 0, N_MODEL, NULL);
        finish_file(&b, "model.safetensors");
        struct hf_checkpoint *c = open_ok();
        assert_int_equal(hf_shape(c)->tied, cases[i].tied);
        assert_int_equal(hf_n_ignored(c), cases[i].ignored);
        assert_int_equal(hf_source(c)->n_tensors, N_MODEL + !cases[i].tied);
        check_model(hf_source(c), 1000);
        if (!cases[i].tied)
            check_tensor(hf_source(c), N_MODEL, &head, cases[i].which, 4);
        hf_close(c);
    }
    write_model("", fmt_find(FMT_F16));
    write_config(",\"tie_word_embeddings\":false");
    open_refused(RUNT_E_FORMAT, "no tensor lm_head.weight, but config.json");
}

static void test_tensor_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *name, *dtype, *shape;
        size_t bytes;
        int code;
        const char *part;
    } cases[] = {
        {"h.1.mlp.c_fc.weight", NULL, NULL, 0, RUNT_E_FORMAT,
         "no tensor h.1.mlp.c_fc.weight (of 28"},
        {"wte.weight", NULL, NULL, 0, RUNT_E_FORMAT,
         "no tensor wte.weight or transformer.wte.weight among 27 (the first is "
         "h.0.attn"},
        {"h.0.attn.c_attn.weight", "F32", "24,8", 768, RUNT_E_FORMAT,
         "tensor h.0.attn.c_attn.weight has shape [24, 8], config.json asks for [8, "
         "24]"},
        {"ln_f.bias", "F32", "8,1", 32, RUNT_E_FORMAT,
         "has shape [8, 1], config.json asks for [8]"},
        {"ln_f.bias", "F32", "", 4, RUNT_E_FORMAT, "has shape [], config"},
        {"wpe.weight", "F32", "6,8,1", 192, RUNT_E_FORMAT,
         "has shape [6, 8, 1], config"},
        {"wpe.weight", "F32", "1,1,1,1,7,8", 224, RUNT_E_FORMAT,
         "has shape [1, 1, 1, 1, ...], config"},
        {"wte.weight", "F64", "11,8", 704, RUNT_E_UNSUPPORTED,
         "wte.weight is of dtype F64, only"},
        {"ln_f.bias", "I8", "8", 8, RUNT_E_UNSUPPORTED, "of dtype I8"},
        {"ln_f.bias", "F8_E4M3", "8", 8, RUNT_E_UNSUPPORTED, "of dtype F8_E4M3"},
        {"ln_f.bias", "Q4_0", "8", 18, RUNT_E_UNSUPPORTED, "of dtype Q4_0"},
        {"ln_f.bias", "f32", "8", 32, RUNT_E_UNSUPPORTED, "of dtype f32"},
    };
    static const uint8_t zeros[1024];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct builder b = {0};
        write_config("");
        add_model(&b, "", fmt_find(FMT_F32), 0, N_MODEL, cases[i].name);
        if (cases[i].dtype)
            add_bytes(&b, cases[i].name, cases[i].dtype, cases[i].shape, zeros,
                      cases[i].bytes);
        finish_file(&b, "model.safetensors");
        open_refused(cases[i].code, cases[i].part);
    }
}

/* ---- folders ---- */

static void test_shards(void **state)
{
    (void)state;
    write_config("");
    write_shard("a.safetensors", 0, 9);
    write_shard("b.safetensors", 9, N_MODEL);
    write_index("a.safetensors", "");
    struct hf_checkpoint *c = open_ok();
    assert_int_equal(hf_source(c)->n_tensors, N_MODEL);
    check_model(hf_source(c), 1000);
    hf_close(c);

    static const char *const bad[] = {
        "../a.safetensors",    "/etc/passwd", "..", ".", "sub/a.safetensors", "",
        "a\\u0000.safetensors"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_index(bad[i], "");
        open_refused(RUNT_E_FORMAT, "is not a file name inside the folder");
    }
    write_index("none.safetensors", "");
    open_refused(RUNT_E_NOTFOUND, "none.safetensors");
    write_index("a.safetensors", ",\"extra\":\"a.safetensors\"");
    open_refused(RUNT_E_FORMAT, "a.safetensors: no tensor extra, which model.safe");
    write_index("a.safetensors", ",\"extra\":7");
    open_refused(RUNT_E_FORMAT, "is not a file name");
    write_index("a.safetensors", ",\"transformer.wte.weight\":\"b.safetensors\"");
    open_refused(RUNT_E_FORMAT, "duplicate");
    write_text("model.safetensors.index.json", "{\"weight_map\":[]}");
    open_refused(RUNT_E_FORMAT, "no weight_map");
    write_text("model.safetensors.index.json", "{\"weight_map\":{}}");
    open_refused(RUNT_E_FORMAT, "among 0 (the first is none)");
    write_text("model.safetensors.index.json", "[]");
    open_refused(RUNT_E_FORMAT, "no weight_map");

    struct strbuf many = {0};
    sb_str(&many, "{\"weight_map\":{");
    for (int i = 0; i < 65; i++) {
        struct builder b = {0};
        char name[32], tensor[16];
        snprintf(name, sizeof name, "m%d", i);
        snprintf(tensor, sizeof tensor, "t%d", i);
        add_bytes(&b, tensor, "U8", "0", "", 0);
        finish_file(&b, name);
        sb_printf(&many, "%s\"%s\":\"%s\"", i ? "," : "", tensor, name);
    }
    sb_str(&many, "}}");
    write_text("model.safetensors.index.json", many.data);
    open_refused(RUNT_E_UNSUPPORTED, "more than 64 shards");
    sb_free(&many);
}

static void test_folder_refusals(void **state)
{
    (void)state;
    struct hf_checkpoint *c = NULL;
    struct runt_err err = {0};
    check_refused(hf_open(in_dir("nowhere"), &c, &err), RUNT_E_NOTFOUND, &err,
                  "no such folder");
    open_refused(RUNT_E_NOTFOUND, "config.json: cannot open");
    write_config("");
    check_refused(hf_open(in_dir("config.json"), &c, &err), RUNT_E_INVALID, &err,
                  "not a folder");
    open_refused(RUNT_E_NOTFOUND,
                 "looked for model.safetensors, model.safetensors.index"
                 ".json, pytorch_model.bin, ");
    write_text("flax_model.msgpack", "x");
    open_refused(RUNT_E_UNSUPPORTED, "flax_model.msgpack is not read (a Flax");
    write_text("tf_model.h5", "x");
    open_refused(RUNT_E_UNSUPPORTED, "tf_model.h5 is not read (a TensorFlow");
    write_text("pytorch_model.bin.index.json", "{}");
    open_refused(RUNT_E_UNSUPPORTED, "can run code when loaded");
    write_text("pytorch_model.bin", "x");
    open_refused(RUNT_E_UNSUPPORTED,
                 "pytorch_model.bin is not read (pickled checkpoints can run code when "
                 "loaded): download model.safetensors instead, with `runt pull ");
    write_model("", fmt_find(FMT_F32)); /* beside them */
    hf_close(open_ok());
    write_text("model.safetensors", "");
    open_refused(RUNT_E_FORMAT, "not a safetensors file, or cut short: 0 bytes");
}

/* ---- damage ---- */

/* Every prefix of a valid file is refused. */
static void test_truncation(void **state)
{
    (void)state;
    struct builder b = {0};
    struct gpt2_shape s = {V, T, C, H, L, F, 1e-5f, -1, -1, true};
    struct hf_checkpoint *c = NULL;
    struct runt_err err = {0};
    add_model(&b, "", fmt_find(FMT_BF16), 0, N_MODEL, NULL);
    finish(&b, 1);
    for (size_t n = 0; n < b.data.len; n++) {
        char *copy = malloc(n ? n : 1); /* so that a tool sees reads past the end */
        memcpy(copy, b.data.data, n);
        check_refused(hf_parse(&s, copy, n, "cut", &c, &err), RUNT_E_FORMAT, &err,
                      "cut: ");
        free(copy);
    }
    assert_int_equal(hf_parse(&s, b.data.data, b.data.len, "whole", &c, &err), 0);
    check_model(hf_source(c), 1000);
    hf_close(c);
    sb_free(&b.data);
}

/* ---- out of memory, at every place ---- */

static void test_open_no_memory(void **state)
{
    (void)state;
    write_config("");
    write_shard("a.safetensors", 0, 9);
    write_shard("b.safetensors", 9, N_MODEL);
    write_index("a.safetensors", "");
    for (int sharded = 1; sharded >= 0; sharded--) {
        int rc = RUNT_E_NOMEM;
        for (long n = 0; rc; n++) {
            struct hf_checkpoint *c = NULL;
            struct runt_err err = {0};
            long live = mem_live();
            mem_fail_after(n);
            rc = hf_open(dir, &c, &err);
            mem_fail_after(-1);
            if (rc)
                check_refused(rc, RUNT_E_NOMEM, &err, "out of memory for");
            else
                assert_true(n > 8);
            hf_close(c);
            assert_int_equal(mem_live(), live);
        }
        write_model("", fmt_find(FMT_F16));
    }
}

/* ---- real checkpoints ---- */

static void check_number(const struct tensor_source *s, const char *name, uint64_t row,
                         uint64_t col, float want)
{
    for (size_t i = 0; i < s->n_tensors; i++) {
        if (strcmp(s->tensors[i].name, name))
            continue;
        struct runt_err err;
        float *x = calloc(s->tensors[i].n_cols, sizeof *x);
        assert_int_equal(s->rows(s, i, row, 1, x, &err), 0);
        if (!(x[col] == want))
            fail_msg("%s[%d][%d] is %.9g", name, (int)row, (int)col, (double)x[col]);
        free(x);
        return;
    }
    fail_msg("no tensor %s", name);
}

static void test_a_real_checkpoint(void **state)
{
    (void)state;
    char path[1024];
    struct hf_checkpoint *c = NULL;
    struct runt_err err;
    const char *root = getenv("RUNT_SOURCE_ROOT");
    if (!root)
        skip();
    snprintf(path, sizeof path, "%s/tests/data/mini", root);
    if (hf_open(path, &c, &err))
        fail_msg("%s", err.msg);
    const struct gpt2_shape *s = hf_shape(c);
    const struct tensor_source *src = hf_source(c);
    assert_true(s->n_vocab == 1024 && s->n_ctx == 256 && s->n_embd == 128 &&
                s->n_head == 4 && s->n_layer == 2 && s->n_ff == 512);
    assert_true(s->tied && s->bos == 1023 && s->eos == 1023);
    assert_int_equal(src->n_tensors, 28);
    assert_int_equal(hf_n_ignored(c), 0);
    /* numbers read from the file by other means; [out][in] */
    check_number(src, "token_embd.weight", 0, 2, -0.290771484375f);
    check_number(src, "token_embd.weight", 1023, 127, -0.051544189453125f);
    check_number(src, "blk.0.attn_qkv.weight", 2, 1, 0.09381103515625f);
    check_number(src, "blk.0.attn_qkv.weight", 383, 127, 0.0203094482421875f);
    check_number(src, "blk.1.ffn_down.weight", 7, 500, 0.11676025390625f);
    check_number(src, "output_norm.bias", 0, 127, -0.1407470703125f);
    hf_close(c);
}

static void test_not_gpt2(void **state)
{
    (void)state;
    char path[1024];
    struct hf_checkpoint *c = NULL;
    struct st_file *f = NULL;
    struct runt_err err = {0};
    const char *data = getenv("RUNT_TEST_DATA");
    if (!data)
        skip();
    snprintf(path, sizeof path, "%s/models/tinystories-656k", data);
    check_refused(hf_open(path, &c, &err), RUNT_E_UNSUPPORTED, &err,
                  "the model is of type llama, only gpt2 is read");
    snprintf(path, sizeof path, "%s/models/gpt2-124m-some-tensors.safetensors", data);
    assert_int_equal(st_open(path, &f, &err), 0);
    assert_int_equal(f->n_tensors, 3);
    assert_string_equal(f->tensors[1].name, "h.11.attn.c_proj.weight");
    st_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FOLDER_TEST(test_dtypes_and_names),    FOLDER_TEST(test_row_range),
        FOLDER_TEST(test_masks_and_strangers), FOLDER_TEST(test_head),
        FOLDER_TEST(test_tensor_refusals),     FOLDER_TEST(test_shards),
        FOLDER_TEST(test_folder_refusals),     FOLDER_TEST(test_truncation),
        FOLDER_TEST(test_open_no_memory),      cmocka_unit_test(test_a_real_checkpoint),
        cmocka_unit_test(test_not_gpt2),
    };
    return cmocka_run_group_tests_name("import", tests, NULL, NULL);
}
