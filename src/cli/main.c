/* The list of verbs, in the order in which a newcomer meets them. */
#include "cli/verbs.h"

const struct cli_verb *const cli_verbs[] = {
    &verb_run,     &verb_pull,     &verb_list, &verb_rm,       &verb_import,
    &verb_init,    &verb_quantize, &verb_eval, &verb_generate, &verb_chat,
    &verb_inspect, &verb_tokenize, NULL,
};
