/* What the verbs that open a session share at the command line: --kv, the kind of its
 * cache, --lookahead, and --profile, where its time goes. */
#ifndef RUNT_CLI_SESSION_H
#define RUNT_CLI_SESSION_H

#include "cli/cli.h"
#include "runt/runt.h"

/* ---- --kv ---- */

/* For a table of options; `name` is a const char * that starts as "auto". */
#define CLI_KV_OPTION(name)                                               \
    {                                                                     \
        "--kv", NULL, CLI_STR, &(name), "KIND auto f16 q8 f32",           \
            "numbers of the key/value cache: f16, q8, f32, or auto: f32 " \
            "for float models, f16 for others",                           \
            0, 0                                                          \
    }

/* 0, or EXIT_USAGE after saying what is allowed. */
int cli_kv_parse(const struct cli_verb *v, const char *name, enum runt_kv *out);

/* ---- --lookahead ---- */

/* Likewise. */
#define CLI_LOOKAHEAD_OPTION(name)                                                   \
    {                                                                                \
        "--lookahead", NULL, CLI_STR, &(name), "N auto off",                         \
            "tokens drafted from the text itself and checked in one pass, 1 to 31; " \
            "auto: "                                                                 \
            "as many as make it faster; off",                                        \
            0, 0                                                                     \
    }

enum { CLI_LOOKAHEAD_OFF = -1 };
int cli_lookahead_parse(const struct cli_verb *v, const char *text, int32_t *out);

/* ---- --profile ---- */

enum { CLI_PROFILE_ROWS = 24 };

/* A session's account of some work, and how long that took by the clock. */
struct cli_profile {
    struct runt_profile_row rows[CLI_PROFILE_ROWS];
    size_t n_rows, n_tokens;
    double seconds; /* all of it: the rows', and what lies between the passes */
};

/* What the session has done since its last runt_session_profile_reset.  One more row,
 * `rest`, holds the seconds that no operation had, so that all of them together are
 * `seconds`. */
void cli_profile_take(const runt_session *s, size_t n_tokens, double seconds,
                      const char *rest, struct cli_profile *out);
uint64_t cli_profile_bytes(const struct cli_profile *p);
uint64_t cli_profile_ops(const struct cli_profile *p);

/* An aligned table under a line of title; and a list of objects. */
void cli_profile_print(FILE *f, const char *title, const struct cli_profile *p);
void cli_profile_json(FILE *f, const struct cli_profile *p);

#endif
