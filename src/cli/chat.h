/* A conversation at the terminal or through a pipe: shared by `chat` and `run`. */
#ifndef RUNT_CLI_CHAT_H
#define RUNT_CLI_CHAT_H

#include "cli/answer.h"
#include "cli/cli_session.h"

#include "base/pool.h"

struct chat_options {
    struct cli_sampler sampler;
    const char *template_name; /* auto, or one that runt_template_find knows */
    const char *cache;         /* file that keeps the conversation computed, or NULL */
    const char *kv_name;       /* --kv; chat_check makes kv of it */
    enum runt_kv kv;
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
         "NAME",                                                                     \
         "auto (from the file), "                                                    \
         "none (plain continuation), turns (User:/Bot:), chatml, alpaca, human, "    \
         "zephyr, dialogpt",                                                         \
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
        CLI_SAMPLER_OPTIONS((c).sampler), CLI_KV_OPTION((c).kv_name),                \
    {                                                                                \
        "--threads", "-t", CLI_INT, &(c).n_threads, "N",                             \
            "threads, 0: one for each core", 0, POOL_MAX_THREADS                     \
    }

/* Talk until the user leaves.  0 on /bye and end of input, RUNT_E_INTERRUPTED on Ctrl-C
 * at the prompt. */
int chat_run(const char *path, const struct chat_options *o, struct runt_err *err);

/* ---- line input (chat_line.c) ---- */

struct line_input;
int line_input_open(struct line_input **out, struct runt_err *err);
void line_input_close(struct line_input *in);
bool line_input_is_terminal(const struct line_input *in);
enum line_result { LINE_OK, LINE_END, LINE_INTERRUPTED };
/* One line without its newline, valid until the next call.  At a terminal with editing
 * and history (libedit); otherwise plain. */
enum line_result line_input_read(struct line_input *in, const char **line, size_t *n);

#endif
