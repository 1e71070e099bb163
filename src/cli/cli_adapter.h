/* What the verbs that take --lora-adapter share, and `merge`. */
#ifndef RUNT_CLI_ADAPTER_H
#define RUNT_CLI_ADAPTER_H

#include "cli/cli.h"
#include "runt/runt.h"

/* For a table of options; `list` is a struct cli_list. */
#define CLI_ADAPTER_OPTION(list)                                             \
    {                                                                        \
        "--lora-adapter", NULL, CLI_LIST, &(list), "FILE[:SCALE]",           \
            "compute with this adapter (train --lora); again for more", 0, 0 \
    }

/* FILE or FILE:SCALE, taken as it is named when there is such a file.  *path is freed
 * with mem_free.  RUNT_E_INVALID: a scale that is no number. */
int cli_adapter_split(const char *item, char **path, float *scale,
                      struct runt_err *err);

/* Says that an adapter was made for another model. */
void cli_adapter_note(FILE *f, const char *path);

/* runt_model_load and then every adapter; what is odd about those goes to `notes` (may
 * be NULL). */
int cli_model_load(const char *path, const struct cli_list *adapters, FILE *notes,
                   runt_model **out, struct runt_err *err);

#endif
