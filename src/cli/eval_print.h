/* The reports of `runt eval`: for people, or one JSON object. */
#ifndef RUNT_CLI_EVAL_PRINT_H
#define RUNT_CLI_EVAL_PRINT_H

#include "cli/cli.h"
#include "eval/derail.h"
#include "eval/eval.h"
#include "eval/task.h"

void eval_print_text(enum cli_format format, const struct eval_result *r,
                     double seconds);

void eval_print_task(enum cli_format format, enum task_kind kind,
                     const struct task_result *r, double seconds);

/* With the texts of the first `show` answers; JSON has a row for each answer, those
 * with their texts. */
void eval_print_derail(enum cli_format format, const runt_model *m,
                       const struct derail_prompt *prompts,
                       const struct derail_options *o, const struct derail_result *r,
                       size_t show, double seconds);

#endif
