/* runt export: from a model file to a folder as Hugging Face's programs read it. */
#include "base/err.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"
#include "cli/convert.h"
#include "cli/verbs.h"
#include "import/import.h"
#include "model/model.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int run(int argc, char **argv);

const struct cli_verb verb_export = {
    .name = "export",
    .summary = "write a model as a Hugging Face folder",
    .usage = "export MODEL DIR [options]",
    .example = "runt export tuned/model.gguf tuned-hf\n"
               "runt export gpt2-r4.gguf gpt2-hf --type f16",
    .run = run,
};

static const char *const files[] = {"model.safetensors", "config.json", "vocab.json",
                                    "merges.txt", "tokenizer_config.json"};

/* ---- which type ---- */

/* Does every number of tensor i come back from the type? */
static int survives(const struct tensor_source *src, size_t i,
                    const struct fmt_info *fmt, bool *yes, struct runt_err *err)
{
    size_t n = src->tensors[i].n_cols;
    float *x = mem_array(2 * n, sizeof *x);
    uint8_t *bytes = mem_array(n, fmt->block_bytes);
    int rc = x && bytes ? src->rows(src, i, 0, 1, x, err)
                        : err_nomem(err, src->tensors[i].name);
    if (!rc) {
        fmt_encode_rows(fmt, n, 1, x, bytes);
        fmt_decode_row(fmt, n, bytes, 0, x + n);
        *yes = *yes && !memcmp(x, x + n, n * sizeof *x);
    }
    mem_free(bytes);
    mem_free(x);
    return rc;
}

/* The matrices' own float type where nothing is lost in it, else F32. */
static int choose(const struct tensor_source *src, const struct fmt_info **out,
                  struct runt_err *err)
{
    const struct fmt_info *fmt = NULL;
    bool lossless = true;
    int rc = 0;
    for (size_t i = 0; i < src->n_tensors; i++)
        if (src->tensors[i].n_dims == 2) {
            fmt = fmt ? fmt : src->tensors[i].fmt;
            lossless = lossless && fmt == src->tensors[i].fmt && fmt->is_float;
        }
    for (size_t i = 0; i < src->n_tensors && lossless && !rc; i++)
        if (src->tensors[i].n_dims == 1)
            rc = survives(src, i, fmt, &lossless, err);
    *out = lossless ? fmt : fmt_find(FMT_F32);
    return rc;
}

/* ---- the tokenizer's settings ---- */

static json_t *token_text(const struct tok_vocab *v, int32_t id)
{
    return id < 0 ? json_null() : json_stringn(v->tokens[id].data, v->tokens[id].len);
}

static int write_settings(const char *dir, const struct gguf *g,
                          const struct gpt2_shape *s, const struct tok_vocab *v,
                          struct runt_err *err)
{
    struct gguf_str template;
    struct file_out *f = NULL;
    char *path = mem_printf("%s/tokenizer_config.json", dir), *text = NULL;
    json_t *o =
        json_pack("{s:s, s:I, s:b, s:o, s:o, s:o}", "tokenizer_class", "GPT2Tokenizer",
                  "model_max_length", (json_int_t)s->n_ctx, "add_prefix_space", 0,
                  "bos_token", token_text(v, v->bos), "eos_token",
                  token_text(v, v->eos), "unk_token", token_text(v, v->eos));
    if (o && !gguf_get_str(g, "tokenizer.chat_template", &template, NULL))
        json_object_set_new(o, "chat_template",
                            json_stringn(template.data, template.len));
    size_t n = o ? json_dumpb(o, NULL, 0, JSON_INDENT(2)) : 0;
    if (n)
        text = mem_alloc(n);
    int rc = path && text ? file_out_open(path, &f, err) : err_nomem(err, dir);
    if (!rc &&
        (rc = file_out_write(f, text, json_dumpb(o, text, n, JSON_INDENT(2)), err)))
        file_out_abort(f);
    else if (!rc)
        rc = file_out_commit(f, err);
    mem_free(text);
    json_decref(o);
    mem_free(path);
    return rc;
}

/* ---- the folder ---- */

static void drop_folder(const char *dir)
{
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *path = mem_printf("%s/%s", dir, files[i]);
        if (path)
            unlink(path);
        mem_free(path);
    }
    rmdir(dir);
}

static int fill(const char *dir, const struct gguf *g, const struct fmt_info *fmt,
                struct runt_err *err)
{
    struct gpt2_shape s;
    struct tok_vocab v = {0};
    int rc = model_read_shape(g, &s, err);
    if (!rc)
        rc = model_read_vocab(g, &v, err);
    if (!rc)
        rc = tok_vocab_spell_merges(&v, err);
    if (!rc && !fmt)
        rc = choose(&g->source, &fmt, err);
    s.bos = v.bos;
    s.eos = v.eos;
    if (!rc)
        rc = hf_write_dir(dir, &s, &g->source, fmt, cli_progress, NULL, err);
    cli_progress_done();
    if (!rc)
        rc = tok_vocab_save(&v, dir, err);
    if (!rc)
        rc = write_settings(dir, g, &s, &v, err);
    tok_vocab_free(&v);
    return rc;
}

/* Under another name first: the folder appears whole or not at all.  rename replaces an
 * empty folder only. */
static int export(const char *in, const char *dir, const struct fmt_info *fmt,
                  struct runt_err *err)
{
    struct gguf *g = NULL;
    char *plain = mem_strdup(dir), *tmp = NULL;
    for (size_t n = plain ? strlen(plain) : 0; n > 1 && plain[n - 1] == '/'; n--)
        plain[n - 1] = 0;
    if (plain)
        tmp = mem_printf("%s.tmp-%ld", plain, (long)getpid());
    int rc = tmp ? gguf_open(in, &g, err) : err_nomem(err, "a path");
    if (!rc && file_exists(plain) && (!file_is_dir(plain) || rmdir(plain)))
        rc =
            err_set(err, RUNT_E_INVALID,
                    "%s is there already; name a folder that is not, or is empty", dir);
    if (!rc)
        rc = fill(tmp, g, fmt, err);
    if (!rc && rename(tmp, plain))
        rc = err_errno(err, dir, "write");
    if (rc && tmp)
        drop_folder(tmp);
    gguf_close(g);
    mem_free(plain);
    mem_free(tmp);
    return rc;
}

static int run(int argc, char **argv)
{
    const struct cli_verb *v = &verb_export;
    const char *type = NULL;
    bool quiet = false;
    struct cli_option options[] = {
        {"--type", NULL, CLI_STR, &type, "TYPE",
         "f32, f16 or bf16; without: the model's, f32 for one in blocks", 0, 0},
        {"--quiet", "-q", CLI_FLAG, &quiet, NULL, "no output but errors", 0, 0},
        {0},
    };
    struct cli_args args;
    struct runt_err err = {0};
    const struct fmt_info *fmt = NULL;
    char *in = NULL;
    int rc = cli_parse(v, options, argc, argv, 2, 2, &args);
    if (rc)
        return rc;
    cli_catch_interrupt();
    if (type)
        rc = convert_type(v, type, &fmt);
    if (!rc && fmt && !fmt->is_float)
        rc = cli_misuse(v, "a Hugging Face folder holds f32, f16 or bf16, not %s",
                        fmt->name);
    if (!rc) {
        rc = convert_model_path(args.pos[0], &in, &err);
        if (!rc)
            rc = export(in, args.pos[1], fmt, &err);
        if (rc)
            rc = cli_fail(v, &err);
        else if (!quiet)
            printf("%s: config.json, model.safetensors, vocab.json, merges.txt\n",
                   args.pos[1]);
    }
    mem_free(in);
    cli_free(options, &args);
    return rc;
}
