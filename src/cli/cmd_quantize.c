/* runt quantize: a model file with its weights in another type. */
#include "base/err.h"
#include "base/mem.h"
#include "cli/convert.h"
#include "cli/verbs.h"
#include "model/model.h"
#include "model/model_vocab.h"

#include <sys/stat.h>

static int run(int argc, char **argv);

const struct cli_verb verb_quantize = {
    .name = "quantize",
    .summary = "round a model's weights to fewer bits",
    .usage = "quantize IN.gguf OUT.gguf TYPE [options]",
    .example = "runt quantize gpt2.gguf gpt2-q4.gguf q4_0\n"
               "runt quantize gpt2.gguf mixed.gguf q4_0 --tensor 'token_embd=q8_0'",
    .run = run,
};

/* The input's metadata, the vocabulary in the type's form; quant_write then corrects
 * the type. */
static int quantize(const char *in, const char *out, const struct quant_options *o,
                    struct quant_report *report, struct runt_err *err)
{
    struct gguf *g = NULL;
    struct gguf_writer *w = NULL;
    struct gpt2_shape shape;
    int rc = gguf_open(in, &g, err);
    if (!rc)
        rc = model_read_shape(g, &shape, err);
    if (!rc)
        rc = gguf_writer_create(&w, err);
    if (rc)
        goto out;
    rc = model_copy_meta(w, g, o->fmt, err);
    if (!rc)
        rc = quant_write(&g->source, w, out, o, report, err);
out:
    gguf_writer_destroy(w);
    gguf_close(g);
    return rc;
}

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int run(int argc, char **argv)
{
    const struct cli_verb *v = &verb_quantize;
    const char *format_name = "text";
    struct cli_list tensors = {0};
    int64_t n_threads = 0;
    bool untie = false, quiet = false;
    struct cli_option options[] = {
        {"--tensor", NULL, CLI_LIST, &tensors, "REGEX=TYPE",
         "another type for the tensors whose name matches; the last match wins", 0, 0},
        {"--untie", NULL, CLI_FLAG, &untie, NULL,
         "store the token table again as output.weight, for old loaders", 0, 0},
        {"--output", "-o", CLI_STR, &format_name, "FORMAT", "report as text or json", 0,
         0},
        {"--quiet", "-q", CLI_FLAG, &quiet, NULL, "no report", 0, 0},
        {"--threads", "-t", CLI_INT, &n_threads, "N", "threads, 0: one for each core",
         0, POOL_MAX_THREADS},
        {0},
    };
    struct cli_args args;
    int rc = cli_parse(v, options, argc, argv, 3, 3, &args);
    if (rc)
        return rc;
    struct runt_err err = {0};
    struct quant_options o = {.untie = untie, .progress = cli_progress};
    struct quant_override *overrides = NULL;
    struct quant_report report = {0};
    enum cli_format format = CLI_TEXT;
    char *in = NULL;
    rc = cli_format_parse(v, format_name, "text,json", &format);
    if (!rc)
        rc = convert_type(v, args.pos[2], &o.fmt);
    if (!rc)
        rc = convert_overrides(v, &tensors, &overrides);
    if (rc)
        goto out;
    o.overrides = overrides;
    o.n_overrides = tensors.n;
    cli_catch_interrupt();
    double t0 = cli_seconds();
    rc = convert_model_path(args.pos[0], &in, &err);
    if (!rc && same_file(in, args.pos[1]))
        rc = err_set(&err, RUNT_E_INVALID,
                     "%s is the input too; name another file, or its weights are lost",
                     args.pos[1]);
    if (!rc)
        rc = pool_create((unsigned)n_threads, &o.pool, &err);
    if (!rc)
        rc = quantize(in, args.pos[1], &o, &report, &err);
    cli_progress_done();
    if (rc)
        rc = cli_fail(v, &err);
    else if (!quiet)
        convert_print_report(stdout, format, args.pos[1], &report, cli_seconds() - t0);
out:
    quant_report_free(&report);
    pool_destroy(o.pool);
    convert_overrides_free(overrides, tensors.n);
    mem_free(in);
    cli_free(options, &args);
    return rc;
}
