/* runt prune: a model file with a share of its weights zeroed. */
#include "base/err.h"
#include "base/mem.h"
#include "cli/calibrate.h"
#include "cli/convert.h"
#include "cli/verbs.h"

#include <stdlib.h>
#include <string.h>

static int run(int argc, char **argv);

const struct cli_verb verb_prune = {
    .name = "prune",
    .summary = "zero a share of a model's weights",
    .usage = "prune IN.gguf OUT.gguf --sparsity SHARE | --pattern N:M [options]",
    .example = "runt prune gpt2.gguf sparse.gguf --sparsity 0.3 --calib text.txt\n"
               "runt prune gpt2.gguf article.gguf --sparsity 0.3 --method magnitude\n"
               "runt prune gpt2.gguf small.gguf --pattern 2:4 --then r4",
    .about = "Sets weights to zero: a share of every matrix, or N of every M "
             "neighbours. By the method hessian the others are moved so that the "
             "outputs change least. With --then they are rounded on the same "
             "walk.",
    .operands = {"IN.gguf", "OUT.gguf"},
    .run = run,
};

/* "2:4": at most 2 of 4 are kept. */
static int parse_pattern(const char *s, struct prune *p, struct runt_err *err)
{
    int end = 0;
    unsigned keep, of;
    if (strlen(s) > 5 || sscanf(s, "%2u:%2u%n", &keep, &of, &end) != 2 || s[end] ||
        keep < 1 || of <= keep || of > PRUNE_MAX_PATTERN)
        return err_set(err, RUNT_E_INVALID,
                       "--pattern wants N:M, N of every M kept, 1 <= N < M <= %d, not "
                       "'%s'",
                       PRUNE_MAX_PATTERN, s);
    p->keep = keep;
    p->of = of;
    return 0;
}

static int parse_share(const char *s, struct prune *p, struct runt_err *err)
{
    char *end = NULL;
    double share = strtod(s, &end);
    if (end == s || *end || !(share > 0 && share < 1))
        return err_set(err, RUNT_E_INVALID,
                       "--sparsity is a share above 0 and below 1, not '%s'", s);
    p->sparsity = share;
    return 0;
}

static int parse(const struct cli_verb *v, const char *sparsity, const char *pattern,
                 const char *method, const struct calibrate_request *q, struct prune *p)
{
    struct runt_err err = {0};
    if (!sparsity && !pattern)
        return cli_misuse(v, "needs a share (--sparsity) or a pattern (--pattern)");
    if (sparsity && pattern)
        return cli_misuse(v,
                          "--pattern says how many are zeroed: leave out --sparsity");
    p->feedback = !strcmp(method, "hessian");
    if (!p->feedback && strcmp(method, "magnitude"))
        return cli_misuse(v, "unknown method '%s'; the methods are hessian, magnitude",
                          method);
    if (!p->feedback && calibrate_wanted(q))
        return cli_misuse(v, "--method magnitude looks at no calibration");
    int rc = pattern ? parse_pattern(pattern, p, &err) : parse_share(sparsity, p, &err);
    return rc ? cli_fail(v, &err) : 0;
}

static int run(int argc, char **argv)
{
    const struct cli_verb *v = &verb_prune;
    const char *format_name = "text", *sparsity = NULL, *pattern = NULL,
               *method = "hessian", *then = NULL;
    int64_t n_threads = 0;
    bool quiet = false;
    struct calibrate_request q = {0};
    struct prune p = {.pattern = "^blk\\."};
    struct cli_option options[] = {
        {"--sparsity", NULL, CLI_STR, &sparsity, "SHARE",
         "zeros of every matrix, above 0 and below 1", 0, 0},
        {"--pattern", NULL, CLI_STR, &pattern, "N:M",
         "instead: keep N of every M neighbours in a row", 0, 0},
        {"--method", NULL, CLI_STR, &method, "NAME hessian magnitude",
         "hessian: with feedback; magnitude: the smallest", 0, 0},
        {"--tensors", NULL, CLI_STR, &p.pattern, "REGEX",
         "the matrices (all of the blocks)", 0, 0},
        {"--then", NULL, CLI_STR, &then, "TYPE", "round what is left, on the same walk",
         0, 0},
        CLI_CALIB_OPTIONS(q),
        {"--output", "-o", CLI_STR, &format_name, "FORMAT text json",
         "report as text or json", 0, 0},
        {"--quiet", "-q", CLI_FLAG, &quiet, NULL, "no report", 0, 0},
        {"--threads", "-t", CLI_INT, &n_threads, "N", "threads, 0: one for each core",
         0, POOL_MAX_THREADS},
        {0},
    };
    struct cli_args args;
    int rc = cli_parse(v, options, argc, argv, 2, 2, &args);
    if (rc)
        return rc;
    struct runt_err err = {0};
    struct quant_options o = {.prune = &p, .progress = cli_progress};
    struct quant_report report = {0};
    struct calib calib = {0};
    enum cli_format format = CLI_TEXT;
    char *in = NULL;
    rc = cli_format_parse(v, format_name, "text,json", &format);
    if (!rc && then)
        rc = convert_type(v, then, &o.fmt);
    if (!rc)
        rc = calibrate_check(v, &q);
    if (!rc)
        rc = parse(v, sparsity, pattern, method, &q, &p);
    if (rc)
        goto out;
    cli_catch_interrupt();
    double t0 = cli_seconds();
    rc = convert_model_path(args.pos[0], &in, &err);
    if (!rc)
        rc = pool_create((unsigned)n_threads, &o.pool, &err);
    if (!rc) /* what cannot be done is said before the long part */
        rc = convert_check(in, args.pos[1], &o, &err);
    if (!rc && p.feedback) {
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
    mem_free(in);
    cli_free(options, &args);
    return rc;
}
