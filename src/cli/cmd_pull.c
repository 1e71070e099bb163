/* `runt pull`: a model from the hub into the shared cache; prints where it is. */
#include "cli/verbs.h"

#include "base/mem.h"
#include "import/hub.h"

static int only_interrupts(void *ctx, const char *what, unsigned long long done,
                           unsigned long long total)
{
    (void)ctx, (void)what, (void)done, (void)total;
    return cli_interrupted();
}

static int run(int argc, char **argv)
{
    const char *revision = "main";
    struct cli_list files = {0};
    bool quiet = false;
    struct cli_option options[] = {
        {"--revision", NULL, CLI_STR, &revision, "REV", "branch, tag or commit", 0, 0},
        {"--file", NULL, CLI_LIST, &files, "NAME",
         "only this file of the model; may be repeated", 0, 0},
        {"--quiet", "-q", CLI_FLAG, &quiet, NULL, "no progress bar", 0, 0},
        {0}};
    struct cli_args args;
    int rc = cli_parse(&verb_pull, options, argc, argv, 1, 1, &args);
    if (rc)
        return rc;
    if (!hub_repo_ok(args.pos[0])) {
        rc = cli_misuse(&verb_pull, "'%s' is not a model's name (ORG/NAME)",
                        args.pos[0]);
        goto out;
    }
    cli_catch_interrupt();
    struct runt_err err = {0};
    char *dir = NULL;
    struct hub_options o = {.revision = revision,
                            .files = files.items,
                            .n_files = files.n,
                            .progress = quiet ? only_interrupts : cli_progress};
    rc = hub_pull(args.pos[0], &o, &dir, &err);
    cli_progress_done();
    if (rc)
        rc = cli_fail(&verb_pull, &err);
    else
        printf("%s\n", dir);
    mem_free(dir);
out:
    cli_free(options, &args);
    return rc;
}

const struct cli_verb verb_pull = {
    .name = "pull",
    .summary = "download a model from the hub into the shared cache",
    .usage = "pull ORG/NAME [options]",
    .example = "runt pull openai-community/gpt2\n"
               "runt pull distilbert/distilgpt2 --revision main",
    .about = "Downloads a model into the cache that other tools of the Hugging "
             "Face hub use, too. Files are checked against the hub's checksums; "
             "what an interrupted download left is gone on with. Other verbs do "
             "this by themselves where ORG/NAME is given for a MODEL.",
    .run = run,
};
