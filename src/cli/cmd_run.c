/* runt run: pull, import, quantize to 4 bits, chat; the second time it starts at once.
 */
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/chat.h"
#include "cli/convert.h"
#include "cli/verbs.h"
#include "import/hub.h"

#include <ctype.h>
#include <string.h>

static int run(int argc, char **argv);

const struct cli_verb verb_run = {
    .name = "run",
    .summary = "pull a model, make it small, and chat with it",
    .usage = "run ORG/NAME|MODEL.gguf [options]",
    .example = "runt run openai-community/gpt2\n"
               "runt run openai-community/gpt2 --type q8_0",
    .about = "Gets a model of the hub, converts it and talks with it: pull, "
             "import, quantize and chat in one. What was done once is kept; the "
             "second time it starts at once. A model file is talked with as it "
             "is.",
    .operands = {"MODEL"},
    .run = run,
};

/* The converted file of a pulled model: named after commit and type, so that a new
 * revision makes a new one. */
static int converted_path(const char *repo, const char *snapshot,
                          const struct fmt_info *fmt, char **out, struct runt_err *err)
{
    char *dir = hub_converted_dir(repo), type[16];
    const char *commit = strrchr(snapshot, '/');
    snprintf(type, sizeof type, "%s", fmt->name);
    for (char *p = type; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    int rc = dir && commit ? file_make_dirs(dir, err) : err_nomem(err, "a path");
    if (!rc) {
        *out = mem_printf("%s%s-%s.gguf", dir, commit, type);
        rc = *out ? 0 : err_nomem(err, "a path");
    }
    mem_free(dir);
    return rc;
}

/* The model file to chat with, made when it is not there yet. */
static int prepare(const char *repo, const char *revision, const struct fmt_info *fmt,
                   unsigned n_threads, char **path, struct runt_err *err)
{
    char *snapshot = NULL, *out = NULL;
    struct quant_report report = {0};
    struct quant_options o = {.fmt = fmt, .progress = cli_progress};
    /* what the cache has whole needs no question to the hub */
    int rc = hub_find_cached(repo, revision, &snapshot, NULL);
    if (rc) {
        struct hub_options h = {.revision = revision, .progress = cli_progress};
        fprintf(stderr, "pulling %s\n", repo);
        rc = hub_pull(repo, &h, &snapshot, err);
        cli_progress_done();
    }
    if (!rc)
        rc = convert_pulled_gguf(snapshot, &out, err);
    if (rc || out)
        goto out;
    rc = converted_path(repo, snapshot, fmt, &out, err);
    if (rc || file_exists(out))
        goto out;
    fprintf(stderr, "importing as %s\n", fmt->name);
    rc = pool_create(n_threads, &o.pool, err);
    if (!rc)
        rc = convert_folder(snapshot, repo, out, &o, stderr, &report, err);
    cli_progress_done();
    if (!rc) {
        char size[32];
        fprintf(stderr, "%s: %s, %.2f bits per weight\n", out,
                cli_bytes(report.file_bytes, size), report.bits_per_weight);
    }
out:
    if (rc)
        mem_free(out);
    else
        *path = out;
    quant_report_free(&report);
    pool_destroy(o.pool);
    mem_free(snapshot);
    return rc;
}

static int run(int argc, char **argv)
{
    const struct cli_verb *v = &verb_run;
    struct chat_options chat = chat_defaults();
    const char *type = "q4_0", *revision = NULL;
    struct cli_option options[] = {
        {"--type", NULL, CLI_STR, &type, "TYPE", "type of the weights", 0, 0},
        {"--revision", NULL, CLI_STR, &revision, "REV", "branch, tag or commit", 0, 0},
        CHAT_OPTIONS(chat),
        {0},
    };
    struct cli_args args;
    int rc = cli_parse(v, options, argc, argv, 1, 1, &args);
    if (rc)
        return rc;
    struct runt_err err = {0};
    const struct fmt_info *fmt = NULL;
    char *path = NULL;
    rc = convert_type(v, type, &fmt);
    if (!rc)
        rc = chat_check(v, &chat);
    if (rc)
        goto out;
    cli_catch_interrupt();
    if (hub_is_repo_id(args.pos[0]))
        rc = prepare(args.pos[0], revision, fmt, (unsigned)chat.n_threads, &path, &err);
    else
        rc = convert_model_path(args.pos[0], &path, &err);
    if (!rc)
        rc = chat_run(path, &chat, &err);
    if (rc)
        rc = cli_fail(v, &err);
out:
    mem_free(path);
    cli_free(options, &args);
    return rc;
}
