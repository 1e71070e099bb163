/* Fixtures of the checkpoint tests: a temporary folder, and a small GPT-2 written into
 * it byte by byte from a table of its own, so that a mistake in the room's table shows.
 */
#ifndef RUNT_TEST_IMPORT_FIXTURE_H
#define RUNT_TEST_IMPORT_FIXTURE_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "import/import.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { V = 11, T = 6, C = 8, H = 2, L = 2, F = 72 }; /* F: more than one tile */

static char dir[64];

static inline int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/runt-test-import-XXXXXX");
    return !mkdtemp(dir);
}

static inline const char *in_dir(const char *name)
{
    static char path[2][512];
    static int k;
    k = !k;
    snprintf(path[k], sizeof path[k], "%s/%s", dir, name);
    return path[k];
}

/* The folder's files are gone afterwards; how many there were. */
static inline int clear_dir(void)
{
    int n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        assert_int_equal(remove(in_dir(e->d_name)), 0);
        n++;
    }
    closedir(d);
    return n;
}

static inline int tear_down(void **state)
{
    (void)state;
    clear_dir();
    return rmdir(dir);
}

static inline void write_file(const char *name, const void *bytes, size_t n)
{
    FILE *f = fopen(in_dir(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static inline void write_text(const char *name, const char *text)
{
    write_file(name, text, strlen(text));
}

/* The call failed with this code and one line that holds `part`. */
static inline void check_refused(int rc, int code, const struct runt_err *err,
                                 const char *part)
{
    if (rc != code || err->code != code || !strstr(err->msg, part))
        fail_msg("got %d: \"%s\", expected %d: \"...%s...\"", rc, err->msg, code, part);
    assert_null(strchr(err->msg, '\n'));
}

struct builder {
    struct strbuf header, data;
};

static inline void add_bytes(struct builder *b, const char *name, const char *dtype,
                             const char *shape, const void *bytes, size_t n)
{
    sb_printf(&b->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],",
              b->header.len ? "," : "{", name, dtype, shape);
    sb_printf(&b->header, "\"data_offsets\":[%zu,%zu]}", b->data.len, b->data.len + n);
    sb_put(&b->data, bytes, n);
}

/* The number at place i of the file's tensor `which`: exact in every format. */
static inline float value(size_t which, size_t i)
{
    return (float)((int)((which * 37 + i * 11 + i / 13) % 255) - 127) / 8;
}

static inline void add_floats(struct builder *b, const char *name,
                              const struct fmt_info *fmt, const char *shape,
                              size_t which, size_t n)
{
    float x[1024];
    uint8_t bytes[sizeof x];
    assert_true(n <= 1024);
    for (size_t i = 0; i < n; i++)
        x[i] = value(which, i);
    fmt->encode(x, bytes, n);
    add_bytes(b, name, fmt->name, shape, bytes, n * fmt->block_bytes);
}

/* The file so far, in b->data; `pad` spaces end the header. */
static inline void finish(struct builder *b, size_t pad)
{
    struct strbuf all = {0};
    sb_str(&b->header, b->header.len ? "}" : "{}");
    for (size_t i = 0; i < pad; i++)
        sb_char(&b->header, ' ');
    for (int i = 0; i < 8; i++)
        sb_char(&all, (char)(b->header.len >> 8 * i));
    sb_put(&all, b->header.data, b->header.len);
    sb_put(&all, b->data.data ? b->data.data : "", b->data.len);
    assert_false(all.failed || b->header.failed || b->data.failed);
    sb_free(&b->data);
    sb_free(&b->header);
    b->data = all;
}

static inline void finish_file(struct builder *b, const char *name)
{
    finish(b, 3);
    write_file(name, b->data.data, b->data.len);
    sb_free(&b->data);
}

static const struct line {
    const char *hf, *name;
    unsigned n_rows, n_cols; /* as the source has it; n_rows 1: a vector */
    bool conv1d;
} model[] = {
    {"wte.weight", "token_embd.weight", V, C, false},
    {"wpe.weight", "position_embd.weight", T, C, false},
#define LAYER(n)                                                                     \
    {"h." n ".ln_1.weight", "blk." n ".attn_norm.weight", 1, C, false},              \
        {"h." n ".ln_1.bias", "blk." n ".attn_norm.bias", 1, C, false},              \
        {"h." n ".attn.c_attn.weight", "blk." n ".attn_qkv.weight", 3 * C, C, true}, \
        {"h." n ".attn.c_attn.bias", "blk." n ".attn_qkv.bias", 1, 3 * C, false},    \
        {"h." n ".attn.c_proj.weight", "blk." n ".attn_output.weight", C, C, true},  \
        {"h." n ".attn.c_proj.bias", "blk." n ".attn_output.bias", 1, C, false},     \
        {"h." n ".ln_2.weight", "blk." n ".ffn_norm.weight", 1, C, false},           \
        {"h." n ".ln_2.bias", "blk." n ".ffn_norm.bias", 1, C, false},               \
        {"h." n ".mlp.c_fc.weight", "blk." n ".ffn_up.weight", F, C, true},          \
        {"h." n ".mlp.c_fc.bias", "blk." n ".ffn_up.bias", 1, F, false},             \
        {"h." n ".mlp.c_proj.weight", "blk." n ".ffn_down.weight", C, F, true},      \
    {                                                                                \
        "h." n ".mlp.c_proj.bias", "blk." n ".ffn_down.bias", 1, C, false            \
    }
    LAYER("0"),
    LAYER("1"),
    {"ln_f.weight", "output_norm.weight", 1, C, false},
    {"ln_f.bias", "output_norm.bias", 1, C, false},
};
enum { N_MODEL = sizeof model / sizeof *model };

static const struct line head = {"lm_head.weight", "output.weight", V, C, false};

static inline const char *shape_text(const struct line *l)
{
    static char text[32];
    if (l->n_rows == 1)
        snprintf(text, sizeof text, "%u", l->n_cols);
    else
        snprintf(text, sizeof text, "%u,%u", l->conv1d ? l->n_cols : l->n_rows,
                 l->conv1d ? l->n_rows : l->n_cols);
    return text;
}

/* Tensors begin .. end - 1 of the model but `skip`. */
static inline void add_model(struct builder *b, const char *prefix,
                             const struct fmt_info *fmt, size_t begin, size_t end,
                             const char *skip)
{
    for (size_t i = begin; i < end; i++) {
        char name[96];
        snprintf(name, sizeof name, "%s%s", prefix, model[i].hf);
        if (!skip || strcmp(model[i].hf, skip))
            add_floats(b, name, fmt, shape_text(&model[i]), i,
                       (size_t)model[i].n_rows * model[i].n_cols);
    }
}

static const char config_head[] =
    "{\"model_type\":\"gpt2\",\"vocab_size\":11,\"n_positions\":6,\"n_embd\":8,"
    "\"n_layer\":2,\"n_head\":2,\"n_inner\":72,\"bos_token_id\":9,\"eos_token_id\":10";

/* config.json with more members, ",\"key\":value". */
static inline void write_config(const char *more)
{
    char text[1024];
    snprintf(text, sizeof text, "%s%s}", config_head, more);
    write_text("config.json", text);
}

/* A whole folder with one file. */
static inline void write_model(const char *prefix, const struct fmt_info *fmt)
{
    struct builder b = {0};
    write_config("");
    add_model(&b, prefix, fmt, 0, N_MODEL, NULL);
    finish_file(&b, "model.safetensors");
}

static inline struct hf_checkpoint *open_ok(void)
{
    struct hf_checkpoint *c = NULL;
    struct runt_err err = {0};
    if (hf_open(dir, &c, &err))
        fail_msg("%s", err.msg);
    return c;
}

static inline void open_refused(int code, const char *part)
{
    struct hf_checkpoint *c = NULL;
    struct runt_err err = {0};
    long live = mem_live();
    int rc = hf_open(dir, &c, &err);
    check_refused(rc, code, &err, part);
    assert_null(c);
    assert_int_equal(mem_live(), live);
}

/* Tensor i of the source is `l`, with the values of `which`, in steps of `step` rows.
 */
static inline void check_tensor(const struct tensor_source *s, size_t i,
                                const struct line *l, size_t which, unsigned step)
{
    const struct tensor_desc *d = &s->tensors[i];
    struct runt_err err;
    assert_string_equal(d->name, l->name);
    assert_int_equal(d->n_rows, l->n_rows);
    assert_int_equal(d->n_cols, l->n_cols);
    assert_int_equal(d->n_dims, l->n_rows == 1 ? 1 : 2);
    float *x = malloc((size_t)step * l->n_cols * sizeof *x);
    for (unsigned r = 0; r < l->n_rows; r += step) {
        unsigned n = l->n_rows - r < step ? l->n_rows - r : step;
        memset(x, 0xff, (size_t)step * l->n_cols * sizeof *x);
        assert_int_equal(s->rows(s, i, r, n, x, &err), 0);
        for (unsigned k = 0; k < n; k++)
            for (unsigned j = 0; j < l->n_cols; j++) {
                float want = value(which, l->conv1d ? (size_t)j * l->n_rows + r + k
                                                    : (size_t)(r + k) * l->n_cols + j);
                if (!(x[k * l->n_cols + j] == want))
                    fail_msg("%s[%u][%u] is %g, not %g", l->name, r + k, j,
                             (double)x[k * l->n_cols + j], (double)want);
            }
    }
    free(x);
}

static inline void check_model(const struct tensor_source *s, unsigned step)
{
    assert_true(s->n_tensors >= N_MODEL);
    for (size_t i = 0; i < N_MODEL; i++)
        check_tensor(s, i, &model[i], i, step);
}

static inline void write_shard(const char *name, size_t begin, size_t end)
{
    struct builder b = {0};
    add_model(&b, "transformer.", fmt_find(FMT_F16), begin, end, NULL);
    finish_file(&b, name);
}

/* An index of the whole model in two files, then with one more entry. */
static inline void write_index(const char *first, const char *more)
{
    struct strbuf b = {0};
    sb_str(&b, "{\"metadata\":{\"total_size\":1},\"weight_map\":{");
    for (size_t i = 0; i < N_MODEL; i++)
        sb_printf(&b, "%s\"transformer.%s\":\"%s\"", i ? "," : "", model[i].hf,
                  i < 9 ? first : "b.safetensors");
    sb_printf(&b, "%s}}", more);
    write_text("model.safetensors.index.json", b.data);
    sb_free(&b);
}

#define FOLDER_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

#endif
