/* runt plot: the curves of training runs as a page. */
#include "base/err.h"
#include "cli/verbs.h"
#include "report/plot.h"

#include <sys/stat.h>

static int run(int argc, char **argv);

const struct cli_verb verb_plot = {
    .name = "plot",
    .summary = "draw the curves of training runs as one HTML page",
    .usage = "plot LOG... -o PAGE.html [--title TEXT]",
    .example = "runt plot tuned/log.jsonl -o curves.html\n"
               "runt plot a/log.jsonl b/log.jsonl -o both.html --title 'two rates'",
    .about = "Draws the curves of training logs into one HTML page that needs "
             "nothing else.",
    .operands = {"LOG"},
    .run = run,
};

enum { MAX_RUNS = 64 };

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int run(int argc, char **argv)
{
    const struct cli_verb *v = &verb_plot;
    const char *out = NULL, *title = "Training";
    struct cli_option options[] = {
        {"--output", "-o", CLI_STR, &out, "FILE", "the page", 0, 0},
        {"--title", NULL, CLI_STR, &title, "TEXT", "its heading", 0, 0},
        {0},
    };
    struct cli_args args;
    struct runt_err err = {0};
    struct plot_run runs[MAX_RUNS];
    size_t n = 0;
    int rc = cli_parse(v, options, argc, argv, 1, MAX_RUNS, &args);
    if (rc)
        return rc;
    if (!out)
        rc = cli_misuse(v, "where to? name the page with -o");
    for (size_t i = 0; !rc && i < args.n_pos; i++)
        if (same_file(args.pos[i], out))
            rc = err_set(&err, RUNT_E_INVALID,
                         "%s is a log; name another file for the page", out);
    for (; !rc && n < args.n_pos; n += !rc)
        rc = plot_read(args.pos[n], &runs[n], &err);
    if (!rc)
        rc = plot_write(out, title, runs, n, &err);
    if (rc < 0)
        rc = cli_fail(v, &err);
    for (size_t i = 0; i < n; i++)
        plot_run_free(&runs[i]);
    cli_free(options, &args);
    return rc;
}
