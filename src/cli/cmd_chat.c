/* runt chat: talk with a model. */
#include "base/mem.h"
#include "cli/chat.h"
#include "cli/convert.h"
#include "cli/verbs.h"

static int run(int argc, char **argv);

const struct cli_verb verb_chat = {
    .name = "chat",
    .summary = "talk with a model",
    .usage = "chat -m MODEL [options]",
    .example = "runt chat -m gpt2-q4.gguf\n"
               "echo \"Once upon a time\" | runt chat -m gpt2-q4.gguf --temp 0",
    .about = "A conversation in the terminal, or line by line through pipes. The "
             "way that a model wants to be talked to is read from its file; a "
             "base model, which has none, continues what is typed. /help lists "
             "the commands; Ctrl-C stops an answer, Ctrl-D leaves.",
    .run = run,
};

static int run(int argc, char **argv)
{
    const struct cli_verb *v = &verb_chat;
    const char *model = NULL;
    struct chat_options chat = chat_defaults();
    struct cli_option options[] = {
        {"--model", "-m", CLI_STR, &model, "MODEL", "model file or ORG/NAME", 0, 0},
        CHAT_OPTIONS(chat),
        {0},
    };
    struct cli_args args;
    int rc = cli_parse(v, options, argc, argv, 0, 0, &args);
    if (rc)
        return rc;
    struct runt_err err = {0};
    char *path = NULL;
    if (!model) {
        rc = cli_misuse(v, "which model? name it with -m");
        goto out;
    }
    rc = chat_check(v, &chat);
    if (rc)
        goto out;
    cli_catch_interrupt();
    rc = convert_model_path(model, &path, &err);
    if (!rc)
        rc = chat_run(path, &chat, &err);
    if (rc)
        rc = cli_fail(v, &err);
out:
    mem_free(path);
    cli_free(options, &args);
    return rc;
}
