/* One verb a file: cmd_NAME.c. */
#ifndef RUNT_CLI_VERBS_H
#define RUNT_CLI_VERBS_H

#include "cli/cli.h"

extern const struct cli_verb verb_run, verb_pull, verb_list, verb_rm, verb_import,
    verb_init, verb_quantize, verb_prune, verb_train, verb_export, verb_plot, verb_eval,
    verb_bench, verb_generate, verb_chat, verb_inspect, verb_compare, verb_tokenize,
    verb_tokenizer, verb_merge, verb_serve, verb_help;

/* main.c's. */
const struct cli_verb *cli_find_verb(const char *name); /* NULL when unknown */
int cli_unknown_verb(const char *name); /* says so, and what was meant: EXIT_USAGE */
void cli_print_verbs(FILE *f);

#endif
