/* runt help: of a verb, manual pages, completions. */
#include "cli/help.h"
#include "cli/verbs.h"

#include <string.h>

static int run(int argc, char **argv);

const struct cli_verb verb_help = {
    .name = "help",
    .summary = "what a verb does, manual pages, completion for shells",
    .usage = "help [VERB] [--man] | --completion SHELL",
    .example = "runt help generate\n"
               "runt help --man generate | man -l -\n"
               "runt help --completion bash > "
               "~/.local/share/bash-completion/completions/runt",
    .about = "Prints the help of a verb, or the list of all. With --man it prints the "
             "manual page, with --completion a script for a shell; 'make install' puts "
             "both in place.",
    .operands = {"VERB"},
    .run = run,
};

/* A verb prints its own part: its table lives in its main. */
static int ask(const struct cli_verb *v, const char *form)
{
    char name[32], option[32];
    snprintf(name, sizeof name, "%s", v->name);
    snprintf(option, sizeof option, "--help%s%s", *form ? "=" : "", form);
    return v->run(2, (char *[]){name, option, NULL}) == CLI_HELP ? EXIT_OK : EXIT_USAGE;
}

static int complete(const struct cli_verb *self, const char *shell)
{
    if (!help_shell_begin(shell, cli_verbs))
        return cli_misuse(self, "--completion takes bash, zsh or fish, not '%s'",
                          shell);
    for (size_t i = 0; cli_verbs[i]; i++) {
        int rc = ask(cli_verbs[i], shell);
        if (rc)
            return rc;
    }
    help_shell_end(shell, cli_verbs);
    return EXIT_OK;
}

static int run(int argc, char **argv)
{
    const struct cli_verb *v = &verb_help, *about = NULL;
    const char *shell = NULL;
    bool man = false;
    struct cli_option options[] = {
        {"--man", NULL, CLI_FLAG, &man, NULL, "print the manual page instead", 0, 0},
        {"--completion", NULL, CLI_STR, &shell, "SHELL bash zsh fish",
         "print what makes a shell complete runt's verbs and options", 0, 0},
        {0},
    };
    struct cli_args args;
    int rc = cli_parse(v, options, argc, argv, 0, 1, &args);
    if (rc)
        return rc;
    if (args.n_pos) {
        about = cli_find_verb(args.pos[0]);
        rc = about ? 0 : cli_unknown_verb(args.pos[0]);
    }
    if (!rc && shell && (man || about))
        rc = cli_misuse(v, "--completion is of all verbs, and by itself");
    if (rc) {
    } else if (shell)
        rc = complete(v, shell);
    else if (about)
        rc = ask(about, man ? "man" : "");
    else if (man)
        help_man_runt(cli_verbs);
    else
        cli_print_verbs(stdout);
    cli_free(options, &args);
    return rc;
}
