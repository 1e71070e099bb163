/* runt export: from a model file to a folder as Hugging Face's programs read it. */
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/convert.h"
#include "cli/verbs.h"
#include "import/import.h"
#include "model/model.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int run(int argc, char **argv);

const struct cli_verb verb_export = {
    .name = "export",
    .summary = "write a model as a Hugging Face folder",
    .usage = "export MODEL.gguf DIR [options]",
    .example = "runt export tuned/model.gguf tuned-hf\n"
               "runt export gpt2-r4.gguf gpt2-hf --type f16",
    .run = run,
};

static const char *const files[] = {"model.safetensors", "config.json",
                                    "vocab.json",        "merges.txt",
                                    "added_tokens.json", "tokenizer_config.json"};

/* ---- the place ---- */

/* Nothing is there, or an empty folder. */
static int check_place(const char *dir, struct runt_err *err)
{
    size_t n = 0;
    if (!*dir)
        return err_set(err, RUNT_E_INVALID, "cannot create a folder without a name");
    if (!file_exists(dir))
        return 0;
    DIR *d = opendir(dir);
    if (!d && errno == ENOTDIR)
        return err_set(err, RUNT_E_INVALID, "%s is a file; name a new folder", dir);
    if (!d)
        return err_errno(err, dir, "open");
    while (readdir(d))
        n++;
    closedir(d);
    return n <= 2 /* . and .. */
               ? 0
               : err_set(err, RUNT_E_INVALID, "%s is not empty; name a new folder",
                         dir);
}

/* A new folder beside `dir`, hidden, that is nobody else's. */
static int make_temporary(const char *dir, char **out, struct runt_err *err)
{
    const char *slash = strrchr(dir, '/');
    int n = slash ? (int)(slash - dir) + 1 : 0;
    for (int k = 0; k < 100; k++) {
        char *tmp =
            mem_printf("%.*s.%s.tmp-%ld-%d", n, dir, dir + n, (long)getpid(), k);
        if (!tmp)
            return err_nomem(err, "a path");
        if (!mkdir(tmp, 0777)) {
            *out = tmp;
            return 0;
        }
        mem_free(tmp);
        if (errno != EEXIST)
            break;
    }
    return err_errno(err, dir, "create");
}

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

/* ---- what goes there ---- */

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

/* The folder appears whole or not at all: it is filled under another name. */
static int export_model(const char *in, const char *dir, const struct fmt_info *fmt,
                        struct gpt2_shape *s, struct runt_err *err)
{
    struct gguf *g = NULL;
    char *plain = mem_strdup(dir), *tmp = NULL;
    for (size_t n = plain ? strlen(plain) : 0; n > 1 && plain[n - 1] == '/'; n--)
        plain[n - 1] = 0;
    int rc = plain ? check_place(plain, err) : err_nomem(err, "a path");
    if (!rc)
        rc = gguf_open(in, &g, err);
    if (!rc)
        rc = make_temporary(plain, &tmp, err);
    if (!rc)
        rc = fill(tmp, g, fmt, s, err);
    if (!rc)
        rc = file_rename(tmp, plain, err);
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
