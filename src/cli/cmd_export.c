/* runt export: from a model file to a folder as Hugging Face's programs read it. */
#include "base/err.h"
#include "base/mem.h"
#include "cli/convert.h"
#include "cli/new_folder.h"
#include "cli/verbs.h"
#include "import/import.h"
#include "model/model.h"

static int run(int argc, char **argv);

const struct cli_verb verb_export = {
    .name = "export",
    .summary = "write a model as a Hugging Face folder",
    .usage = "export MODEL.gguf DIR [options]",
    .example = "runt export tuned/model.gguf tuned-hf\n"
               "runt export gpt2-r4.gguf gpt2-hf --type f16",
    .about = "Writes a model as a checkpoint folder that the transformers "
             "library reads: config.json, model.safetensors and the tokenizer.",
    .operands = {"MODEL", "DIR"},
    .run = run,
};

static int fill(const char *dir, const struct gguf *g, const struct fmt_info *fmt,
                struct gpt2_shape *s, struct runt_err *err)
{
    struct tok_vocab v = {0};
    struct gguf_str template = {0};
    int rc = model_read_shape(g, s, err);
    if (!rc)
        rc = model_read_vocab(g, &v, err);
    if (!rc)
        rc = tok_vocab_spell_merges(&v, err);
    if (!rc && gguf_find(g, "tokenizer.chat_template"))
        rc = gguf_get_str(g, "tokenizer.chat_template", &template, err);
    s->bos = v.bos;
    s->eos = v.eos;
    if (!rc) {
        rc = tok_vocab_save(&v, dir, err);
        if (!rc)
            rc = tok_settings_save(
                &v, s->n_ctx, (struct tok_str){template.data, template.len}, dir, err);
        if (rc)
            err_prefix(err, "%s", g->path);
    }
    if (!rc)
        rc = hf_write_dir(dir, s, &g->source, fmt, cli_progress, NULL, err);
    cli_progress_done();
    tok_vocab_free(&v);
    return rc;
}

static int export_model(const char *in, const char *dir, const struct fmt_info *fmt,
                        struct gpt2_shape *s, struct runt_err *err)
{
    struct gguf *g = NULL;
    struct new_folder f = {0};
    int rc = new_folder_check(dir, &f, err);
    if (!rc)
        rc = gguf_open(in, &g, err);
    if (!rc)
        rc = new_folder_begin(&f, err);
    if (!rc)
        rc = fill(f.tmp, g, fmt, s, err);
    if (!rc)
        rc = new_folder_commit(&f, err);
    new_folder_end(&f);
    gguf_close(g);
    return rc;
}

static int run(int argc, char **argv)
{
    const struct cli_verb *v = &verb_export;
    const char *type = NULL;
    bool quiet = false;
    struct cli_option options[] = {
        {"--type", NULL, CLI_STR, &type, "TYPE f32 f16 bf16",
         "f32, f16 or bf16; without it nothing is lost: f32 for blocks", 0, 0},
        {"--quiet", "-q", CLI_FLAG, &quiet, NULL, "no output but errors", 0, 0},
        {0},
    };
    struct cli_args args;
    struct runt_err err = {0};
    const struct fmt_info *fmt = NULL;
    struct gpt2_shape s;
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
            rc = export_model(in, args.pos[1], fmt, &s, &err);
        if (rc)
            rc = cli_fail(v, &err);
        else if (!quiet)
            printf("%s: GPT-2 of %u blocks, %u heads, width %u, context %u\n",
                   args.pos[1], s.n_layer, s.n_head, s.n_embd, s.n_ctx);
    }
    mem_free(in);
    cli_free(options, &args);
    return rc;
}
