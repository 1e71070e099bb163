/* Owns the way from argv to a verb. */
#include "cli/verbs.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

/* In the order in which a newcomer meets them. */
const struct cli_verb *const cli_verbs[] = {
    &verb_run,       &verb_pull,     &verb_list,    &verb_rm,      &verb_import,
    &verb_init,      &verb_quantize, &verb_prune,   &verb_train,   &verb_merge,
    &verb_export,    &verb_plot,     &verb_eval,    &verb_bench,   &verb_generate,
    &verb_chat,      &verb_serve,    &verb_inspect, &verb_compare, &verb_tokenize,
    &verb_tokenizer, &verb_help,     NULL,
};

/* The one that a name begins, else the nearest by spelling. */
static const struct cli_verb *nearest_verb(const char *name)
{
    const struct cli_verb *best = NULL;
    size_t best_d = 4;
    for (size_t i = 0; cli_verbs[i]; i++)
        if (strlen(name) > 1 && !strncmp(cli_verbs[i]->name, name, strlen(name)))
            return cli_verbs[i];
    for (size_t i = 0; cli_verbs[i]; i++) {
        size_t d = cli_edit_distance(name, cli_verbs[i]->name);
        if (d < best_d && d < strlen(name)) {
            best_d = d;
            best = cli_verbs[i];
        }
    }
    return best;
}

void cli_print_verbs(FILE *f)
{
    fprintf(f,
            "runt %s: GPT-2-class models from checkpoint to 4 bits and below, on a "
            "plain CPU\n\nusage: runt VERB [options]\n\n",
            RUNT_VERSION);
    for (size_t i = 0; cli_verbs[i]; i++)
        fprintf(f, "  %-10s %s\n", cli_verbs[i]->name, cli_verbs[i]->summary);
    fprintf(f, "\n'runt VERB --help' shows a verb's options and an example.\n");
}

const struct cli_verb *cli_find_verb(const char *name)
{
    for (size_t i = 0; cli_verbs[i]; i++)
        if (!strcmp(cli_verbs[i]->name, name))
            return cli_verbs[i];
    return NULL;
}

int cli_unknown_verb(const char *name)
{
    const struct cli_verb *near = nearest_verb(name);
    fprintf(stderr, "runt: unknown verb '%s'", name);
    if (near)
        fprintf(stderr, "; did you mean '%s'?", near->name);
    fprintf(stderr, "\nTry 'runt --help'.\n");
    return EXIT_USAGE;
}

/* A full disk or a closed pipe behind standard output is a failure too. */
static int finish(const char *name, int status)
{
    bool bad = ferror(stdout);
    if ((!fflush(stdout) && !bad) || status != EXIT_OK)
        return status;
    fprintf(stderr, "runt %s: cannot write standard output: %s\n", name,
            strerror(errno));
    return EXIT_FAILED;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        cli_print_verbs(stderr);
        return EXIT_USAGE;
    }
    /* a file size limit is then an error of write(), as a full disk is */
    signal(SIGXFSZ, SIG_IGN);
    const char *name = argv[1];
    if (!strcmp(name, "--help") || !strcmp(name, "-h")) {
        cli_print_verbs(stdout);
        return finish(name, EXIT_OK);
    }
    if (!strcmp(name, "--version")) {
        printf("runt %s\n", RUNT_VERSION);
        return finish(name, EXIT_OK);
    }
    const struct cli_verb *v = cli_find_verb(name);
    if (!v)
        return cli_unknown_verb(name);
    int status = v->run(argc - 1, argv + 1);
    return finish(name, status == CLI_HELP ? EXIT_OK : status);
}
