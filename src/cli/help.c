/* Owns what the values of options are to a shell, and which forms of help there are. */
#include "cli/help.h"

#include "fmt/fmt.h"

#include <ctype.h>
#include <string.h>

/* ---- values ---- */

static bool starts(const char *arg, const char *name)
{
    size_t n = strlen(name);
    return !strncmp(arg, name, n) && !isalnum((unsigned char)arg[n]);
}

/* Types of numbers, as everyone writes them. */
static void list_types(char *names, size_t n)
{
    *names = 0;
    for (size_t i = 0; fmt_at(i); i++)
        if (fmt_at(i)->is_written)
            snprintf(names + strlen(names), n - strlen(names), "%s%s", i ? " " : "",
                     fmt_at(i)->name);
    for (; *names; names++)
        *names = (char)tolower((unsigned char)*names);
}

enum help_kind help_kind(const char *arg, char *names, size_t n)
{
    static const char *const files[] = {"FILE", "OUT", "SCRIPT", "LOG"};
    *names = 0;
    if (!arg)
        return HELP_ANY;
    if (arg[cli_arg_len(arg)]) {
        snprintf(names, n, "%s", arg + cli_arg_len(arg) + 1);
        return HELP_NAMES;
    }
    if (starts(arg, "TYPE")) {
        list_types(names, n);
        return HELP_NAMES;
    }
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (starts(arg, files[i]))
            return HELP_FILE;
    return starts(arg, "DIR")     ? HELP_FOLDER
           : starts(arg, "MODEL") ? HELP_MODEL
                                  : HELP_ANY;
}

/* ---- the forms ---- */

bool help_print(const struct cli_verb *v, const struct cli_option *options,
                const char *form)
{
    static const char *const shells[] = {"bash", "zsh", "fish"};
    if (!strcmp(form, "man")) {
        help_man_verb(v, options);
        return true;
    }
    for (size_t i = 0; i < sizeof shells / sizeof *shells; i++)
        if (!strcmp(form, shells[i])) {
            help_shell_verb(v, options, form);
            return true;
        }
    return false;
}
