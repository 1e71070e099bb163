/* What an option table says, in other forms than --help's: manual pages and completions
 * for shells.  `runt help` puts those of all verbs together. */
#ifndef RUNT_CLI_HELP_H
#define RUNT_CLI_HELP_H

#include "cli/cli.h"

/* "man": the verb's manual page.  "bash", "zsh", "fish": the verb's part of a
 * completion.  False, and nothing printed, for another form. */
bool help_print(const struct cli_verb *v, const struct cli_option *options,
                const char *form);

/* ---- what a value may be ---- */

enum help_kind { HELP_ANY, HELP_FILE, HELP_FOLDER, HELP_MODEL, HELP_NAMES };

/* Of an `arg` as cli_option has it (NULL: a flag, which has none).  With HELP_NAMES,
 * names is filled with them, a space between. */
enum help_kind help_kind(const char *arg, char *names, size_t n);

/* --help, the option of every verb; in no table. */
extern const struct cli_option help_option;

/* ---- the forms (help_man.c, help_shell.c) ---- */

void help_man_verb(const struct cli_verb *v, const struct cli_option *options);
void help_man_runt(const struct cli_verb *const *verbs);
void help_shell_verb(const struct cli_verb *v, const struct cli_option *options,
                     const char *shell);
/* False for a shell that is not known. */
bool help_shell_begin(const char *shell, const struct cli_verb *const *verbs);
void help_shell_end(const char *shell, const struct cli_verb *const *verbs);

#endif
