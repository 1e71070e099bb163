/* `runt list` and `runt rm`: what the model cache holds, and giving it back.
 *
 * Sizes are what `rm` frees: blobs (partial ones too) and runt's own conversions. */
#include "cli/verbs.h"

#include "import/hub.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

/* ---- list ---- */

enum { COMMIT_SHOWN = 8 };

static const char *time_text(int64_t t, const char *format, char buf[static 32])
{
    time_t tt = (time_t)t;
    struct tm tm;
    buf[0] = 0;
    if (t && gmtime_r(&tt, &tm))
        strftime(buf, 32, format, &tm);
    return buf;
}

static void print_text(const struct hub_entry *e, size_t n)
{
    size_t repo_w = strlen("MODEL"), rev_w = strlen("REVISION");
    char size[32], when[32];
    for (size_t i = 0; i < n; i++) {
        if (strlen(e[i].repo) > repo_w)
            repo_w = strlen(e[i].repo);
        if (strlen(e[i].revision) > rev_w)
            rev_w = strlen(e[i].revision);
    }
    printf("%-*s  %-*s  %-*s  %5s  %10s  %s\n", (int)repo_w, "MODEL", (int)rev_w,
           "REVISION", COMMIT_SHOWN, "COMMIT", "FILES", "SIZE", "MODIFIED (UTC)");
    for (size_t i = 0; i < n; i++)
        printf("%-*s  %-*s  %-*.*s  %5zu  %10s  %s\n", (int)repo_w, e[i].repo,
               (int)rev_w, e[i].revision, COMMIT_SHOWN, COMMIT_SHOWN, e[i].commit,
               e[i].n_files, cli_bytes(e[i].size + e[i].converted, size),
               time_text(e[i].modified, "%Y-%m-%d %H:%M", when));
}

static void print_md(const struct hub_entry *e, size_t n)
{
    char when[32];
    printf("| model | revision | commit | files | bytes | modified |\n"
           "|---|---|---|--:|--:|---|\n");
    for (size_t i = 0; i < n; i++) {
        printf("| %s | ", e[i].repo);
        for (const char *s = e[i].revision; *s; s++)
            printf(*s == '|' ? "\\%c" : "%c", *s);
        printf(" | %s | %zu | %" PRIu64 " | %s |\n", e[i].commit, e[i].n_files,
               e[i].size + e[i].converted,
               time_text(e[i].modified, "%Y-%m-%dT%H:%M:%SZ", when));
    }
}

static void print_csv(const struct hub_entry *e, size_t n)
{
    char when[32];
    printf("repo,revision,commit,snapshots,files,size,converted,modified\n");
    for (size_t i = 0; i < n; i++) {
        printf("%s,\"", e[i].repo);
        for (const char *s = e[i].revision; *s; s++)
            printf(*s == '"' ? "\"%c" : "%c", *s);
        printf("\",%s,%zu,%zu,%" PRIu64 ",%" PRIu64 ",%s\n", e[i].commit,
               e[i].n_snapshots, e[i].n_files, e[i].size, e[i].converted,
               time_text(e[i].modified, "%Y-%m-%dT%H:%M:%SZ", when));
    }
}

static void json_member(const char *key, const char *value)
{
    printf("\"%s\": ", key);
    cli_json_str(stdout, value, strlen(value));
    printf(", ");
}

static void print_json(const struct hub_entry *e, size_t n)
{
    char when[32];
    printf("[");
    for (size_t i = 0; i < n; i++) {
        printf("%s\n  {", i ? "," : "");
        json_member("repo", e[i].repo);
        json_member("revision", e[i].revision);
        json_member("commit", e[i].commit);
        json_member("path", e[i].path);
        json_member("modified", time_text(e[i].modified, "%Y-%m-%dT%H:%M:%SZ", when));
        printf("\"snapshots\": %zu, \"files\": %zu, \"size\": %" PRIu64
               ", \"converted\": %" PRIu64 "}",
               e[i].n_snapshots, e[i].n_files, e[i].size, e[i].converted);
    }
    printf("%s]\n", n ? "\n" : "");
}

static int run_list(int argc, char **argv)
{
    const char *format = "text";
    enum cli_format how = CLI_TEXT;
    struct cli_option options[] = {{"--output", "-o", CLI_STR, &format,
                                    "FORMAT text md csv json", "text, md, csv or json",
                                    0, 0},
                                   {0}};
    struct cli_args args;
    int rc = cli_parse(&verb_list, options, argc, argv, 0, 0, &args);
    if (rc)
        return rc;
    cli_free(options, &args);
    rc = cli_format_parse(&verb_list, format, "text,md,csv,json", &how);
    if (rc)
        return rc;
    struct runt_err err = {0};
    struct hub_entry *entries = NULL;
    size_t n = 0;
    if (hub_list(&entries, &n, &err))
        return cli_fail(&verb_list, &err);
    if (how == CLI_JSON)
        print_json(entries, n);
    else if (how == CLI_CSV)
        print_csv(entries, n);
    else if (how == CLI_MD)
        print_md(entries, n);
    else
        print_text(entries, n);
    hub_list_free(entries, n);
    return EXIT_OK;
}

const struct cli_verb verb_list = {
    .name = "list",
    .summary = "show the models in the cache",
    .usage = "list [options]",
    .example = "runt list\nrunt list -o json",
    .about = "Lists the models in the hub's cache: their names, revisions, "
             "sizes, and whether they were converted.",
    .run = run_list,
};

/* ---- rm ---- */

static int run_rm(int argc, char **argv)
{
    struct cli_option options[] = {{0}};
    struct cli_args args;
    int rc = cli_parse(&verb_rm, options, argc, argv, 1, (size_t)argc, &args);
    if (rc)
        return rc;
    for (size_t i = 0; i < args.n_pos && !rc; i++)
        if (!hub_repo_ok(args.pos[i]))
            rc = cli_misuse(&verb_rm, "'%s' is not a model's name (ORG/NAME)",
                            args.pos[i]);
    for (size_t i = 0; i < args.n_pos && !rc; i++) {
        struct runt_err err = {0};
        uint64_t freed = 0;
        char text[32];
        if (hub_remove(args.pos[i], &freed, &err))
            rc = cli_fail(&verb_rm, &err);
        else
            printf("removed %s: %" PRIu64 " bytes (%s) freed\n", args.pos[i], freed,
                   cli_bytes(freed, text));
    }
    cli_free(options, &args);
    return rc;
}

const struct cli_verb verb_rm = {
    .name = "rm",
    .summary = "remove models from the cache, conversions included",
    .usage = "rm ORG/NAME...",
    .example = "runt rm openai-community/gpt2",
    .about = "Removes models from the hub's cache, and what was made of them.",
    .operands = {"MODEL"},
    .run = run_rm,
};
