/* A conversation at the terminal or through a pipe: shared by `chat` and `run`. */
#ifndef RUNT_CLI_CHAT_H
#define RUNT_CLI_CHAT_H

#include "cli/answer.h"
#include "cli/cli_adapter.h"
#include "cli/cli_session.h"

#include "base/pool.h"

struct chat_options {
    struct cli_sampler sampler;
    struct cli_list adapters;
    const char *template_name; /* auto, or one that runt_template_find knows */
    const char *script;        /* lines as if typed, or NULL */
    const char *system;        /* what the system says first, or NULL */
    bool no_history;           /* do not keep what is typed */
    const char *cache;         /* file that keeps the conversation computed, or NULL */
    const char *kv_name;       /* --kv; chat_check makes kv of it */
    enum runt_kv kv;
    const char *lookahead_name; /* --lookahead; chat_check makes lookahead of it */
    int32_t lookahead;
    int64_t n_max, n_ctx, n_threads;
};
struct chat_options chat_defaults(void);
/* 0, with what the names among the options mean, or EXIT_USAGE after saying what is
 * wrong with them. */
int chat_check(const struct cli_verb *v, struct chat_options *o);

#define CHAT_OPTIONS(c)                                                              \
    {"--n-predict",                                                                  \
     "-n",                                                                           \
     CLI_INT,                                                                        \
     &(c).n_max,                                                                     \
     "N",                                                                            \
     "tokens an answer at most, 0: no "                                              \
     "limit",                                                                        \
     0,                                                                              \
     1e15},                                                                          \
        {"--ctx-size", "-c", CLI_INT, &(c).n_ctx, "N", "context, 0: the model's", 0, \
         1 << 20},                                                                   \
        {"--template",                                                               \
         NULL,                                                                       \
         CLI_STR,                                                                    \
         &(c).template_name,                                                         \
         "NAME auto none turns chatml alpaca human zephyr dialogpt",                 \
         "auto (from the file), "                                                    \
         "none (plain continuation), turns (User:/Bot:), chatml, alpaca, human, "    \
         "zephyr, dialogpt",                                                         \
         0,                                                                          \
         0},                                                                         \
        {"--system",  NULL,   CLI_STR,                                               \
         &(c).system, "TEXT", "what the system says before the first turn",          \
         0,           0},                                                            \
        {"--file", "-f",                                                             \
         CLI_STR,  &(c).script,                                                      \
         "SCRIPT", "the lines of a file as if typed, then leave; - for stdin",       \
         0,        0},                                                               \
        {"--no-history",                                                             \
         NULL,                                                                       \
         CLI_FLAG,                                                                   \
         &(c).no_history,                                                            \
         NULL,                                                                       \
         "do not keep what is typed for later sessions",                             \
         0,                                                                          \
         0},                                                                         \
        {"--prompt-cache",                                                           \
         NULL,                                                                       \
         CLI_STR,                                                                    \
         &(c).cache,                                                                 \
         "FILE",                                                                     \
         "keep the conversation computed in FILE, and "                              \
         "start from what it holds",                                                 \
         0,                                                                          \
         0},                                                                         \
        CLI_ADAPTER_OPTION((c).adapters), CLI_SAMPLER_OPTIONS((c).sampler),          \
        CLI_GRAMMAR_OPTIONS((c).sampler), CLI_LOOKAHEAD_OPTION((c).lookahead_name),  \
        CLI_KV_OPTION((c).kv_name),                                                  \
    {                                                                                \
        "--threads", "-t", CLI_INT, &(c).n_threads, "N",                             \
            "threads, 0: one for each core", 0, POOL_MAX_THREADS                     \
    }

/* Talk until the person leaves; /set changes *o.  0 on /bye and end of input,
 * RUNT_E_INTERRUPTED on Ctrl-C at the prompt. */
int chat_run(const char *path, struct chat_options *o, struct runt_err *err);

#endif
