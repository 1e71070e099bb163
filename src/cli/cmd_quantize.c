/* runt quantize: a model file with its weights in another type. */
#include "base/mem.h"
#include "cli/calibrate.h"
#include "cli/convert.h"
#include "cli/verbs.h"

static int run(int argc, char **argv);

const struct cli_verb verb_quantize = {
    .name = "quantize",
    .summary = "round a model's weights to fewer bits",
    .usage = "quantize IN.gguf OUT.gguf TYPE [options]",
    .example = "runt quantize gpt2.gguf gpt2-q4.gguf q4_0\n"
               "runt quantize gpt2.gguf mixed.gguf q4_0 --tensor 'token_embd=q8_0'\n"
               "runt quantize gpt2.gguf best.gguf r4 --calib text.txt --save-calib c",
    .about = "Rounds the matrices of a model to another type. With --calib "
             "rounding goes column after column and takes each error back in the "
             "next ones, for inputs as a text makes them; --calib-tokens alone "
             "does the same with text that the model itself writes.",
    .operands = {"IN.gguf", "OUT.gguf", "TYPE"},
    .run = run,
};

static int run(int argc, char **argv)
{
    const struct cli_verb *v = &verb_quantize;
    const char *format_name = "text";
    struct cli_list tensors = {0};
    int64_t n_threads = 0;
    bool untie = false, quiet = false;
    struct calibrate_request q = {0};
    struct cli_option options[] = {
        {"--tensor", NULL, CLI_LIST, &tensors, "REGEX=TYPE",
         "another type for the tensors whose name matches; the last match wins", 0, 0},
        CLI_CALIB_OPTIONS(q),
        {"--untie", NULL, CLI_FLAG, &untie, NULL,
         "store the token table again as output.weight, for old loaders", 0, 0},
        {"--output", "-o", CLI_STR, &format_name, "FORMAT text json",
         "report as text or json", 0, 0},
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
    struct calib calib = {0};
    enum cli_format format = CLI_TEXT;
    char *in = NULL;
    rc = cli_format_parse(v, format_name, "text,json", &format);
    if (!rc)
        rc = convert_type(v, args.pos[2], &o.fmt);
    if (!rc)
        rc = convert_overrides(v, &tensors, &overrides);
    if (!rc)
        rc = calibrate_check(v, &q);
    if (rc)
        goto out;
    o.overrides = overrides;
    o.n_overrides = tensors.n;
    cli_catch_interrupt();
    double t0 = cli_seconds();
    rc = convert_model_path(args.pos[0], &in, &err);
    if (!rc)
        rc = pool_create((unsigned)n_threads, &o.pool, &err);
    if (!rc) /* what cannot be done is said before the long part */
        rc = convert_check(in, args.pos[1], &o, &err);
    if (!rc && calibrate_wanted(&q)) {
        rc = calibrate(in, &q, (unsigned)n_threads, &calib, &err);
        o.calib = &calib;
    }
    if (!rc)
        rc = convert_file(in, args.pos[1], &o, &report, &err);
    cli_progress_done();
    if (rc)
        rc = cli_fail(v, &err);
    else if (!quiet)
        convert_print_report(stdout, format, args.pos[1], &report, cli_seconds() - t0);
out:
    quant_report_free(&report);
    calib_free(&calib);
    pool_destroy(o.pool);
    convert_overrides_free(overrides, tensors.n);
    mem_free(in);
    cli_free(options, &args);
    return rc;
}
