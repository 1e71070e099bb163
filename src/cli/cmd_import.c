/* runt import: a Hugging Face folder becomes a model file. */
#include "base/err.h"
#include "base/mem.h"
#include "cli/convert.h"
#include "cli/verbs.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static int run(int argc, char **argv);

const struct cli_verb verb_import = {
    .name = "import",
    .summary = "make a model file from a Hugging Face checkpoint folder",
    .usage = "import DIR -o MODEL.gguf [options]",
    .example = "runt import ./gpt2 -o gpt2.gguf\n"
               "runt import ./gpt2 -o gpt2-q4.gguf --type q4_0",
    .about = "Makes a model file of a checkpoint folder as Hugging Face writes "
             "it: config.json, model.safetensors (or its parts) and the "
             "tokenizer. Without --type nothing is lost. With it, the matrices "
             "are rounded on the way, as 'runt quantize' would do it.",
    .operands = {"DIR"},
    .run = run,
};

/* The folder's own name, also when it is given as "." or with a slash at its end. */
static char *folder_name(const char *dir)
{
    char *real = realpath(dir, NULL);
    const char *path = real ? real : dir, *slash = strrchr(path, '/');
    char *name = mem_strdup(slash && slash[1] ? slash + 1 : path);
    free(real);
    return name;
}

static int run(int argc, char **argv)
{
    const struct cli_verb *v = &verb_import;
    const char *out = NULL, *type = NULL, *name = NULL, *format_name = "text";
    struct cli_list tensors = {0};
    int64_t n_threads = 0;
    bool untie = false, quiet = false;
    struct cli_option options[] = {
        {"--output", "-o", CLI_STR, &out, "FILE", "the model file to write", 0, 0},
        {"--type", NULL, CLI_STR, &type, "TYPE",
         "f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl, r4; without it the "
         "checkpoint's own",
         0, 0},
        {"--tensor", NULL, CLI_LIST, &tensors, "REGEX=TYPE",
         "another type for the tensors whose name matches; the last match wins", 0, 0},
        {"--name", NULL, CLI_STR, &name, "NAME",
         "general.name in the file; without it the folder's name", 0, 0},
        {"--untie", NULL, CLI_FLAG, &untie, NULL,
         "store the token table again as output.weight, for old loaders", 0, 0},
        {"--report", NULL, CLI_STR, &format_name, "FORMAT text json",
         "report as text or json", 0, 0},
        {"--quiet", "-q", CLI_FLAG, &quiet, NULL, "no report", 0, 0},
        {"--threads", "-t", CLI_INT, &n_threads, "N", "threads, 0: one for each core",
         0, POOL_MAX_THREADS},
        {0},
    };
    struct cli_args args;
    int rc = cli_parse(v, options, argc, argv, 1, 1, &args);
    if (rc)
        return rc;
    struct runt_err err = {0};
    struct quant_options o = {.untie = untie, .progress = cli_progress};
    struct quant_override *overrides = NULL;
    struct quant_report report = {0};
    enum cli_format format = CLI_TEXT;
    char *own_name = NULL;
    if (!out)
        rc = cli_misuse(v, "where to? name the model file with -o MODEL.gguf");
    if (!rc)
        rc = cli_format_parse(v, format_name, "text,json", &format);
    if (!rc && type)
        rc = convert_type(v, type, &o.fmt);
    if (!rc)
        rc = convert_overrides(v, &tensors, &overrides);
    if (rc)
        goto out;
    o.overrides = overrides;
    o.n_overrides = tensors.n;
    cli_catch_interrupt();
    double t0 = cli_seconds();
    own_name = name ? mem_strdup(name) : folder_name(args.pos[0]);
    rc = own_name ? pool_create((unsigned)n_threads, &o.pool, &err)
                  : err_nomem(&err, "a name");
    if (!rc)
        rc = convert_folder(args.pos[0], own_name, out, &o, stderr, &report, &err);
    cli_progress_done();
    if (rc)
        rc = cli_fail(v, &err);
    else if (!quiet)
        convert_print_report(stdout, format, out, &report, cli_seconds() - t0);
out:
    quant_report_free(&report);
    pool_destroy(o.pool);
    convert_overrides_free(overrides, tensors.n);
    mem_free(own_name);
    cli_free(options, &args);
    return rc;
}
