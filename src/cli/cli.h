/* The command line: verbs, option tables, and what every verb shares.
 *
 * A verb is a table of options and a function.  The same table parses, prints --help
 * and suggests the nearest name for a misspelt option.  Only this folder prints or
 * exits. */
#ifndef RUNT_CLI_H
#define RUNT_CLI_H

#include "runt/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

enum cli_kind {
    CLI_FLAG, /* bool *: true when given */
    CLI_STR,  /* const char ** */
    CLI_INT,  /* int64_t *, checked against min..max */
    CLI_REAL, /* double *, checked against min..max; NaN refused */
    CLI_LIST, /* struct cli_list *: may be given many times */
};

struct cli_list {
    const char **items;
    size_t n;
};

struct cli_option {
    const char *name;  /* "--temp", or "-t" alone */
    const char *brief; /* one letter form "-t" or NULL */
    enum cli_kind kind;
    void *value; /* where it goes; holds the default before parsing */
    /* "N" in the help, NULL for a flag; words behind it are the values that it takes:
     * "FORMAT text json".  FILE, OUT, SCRIPT, DIR, MODEL, LOG and TYPE say what is
     * asked for, and shells complete it. */
    const char *arg;
    const char *help;
    double min, max; /* of CLI_INT and CLI_REAL */
};

struct cli_args {
    const char **pos; /* positional arguments */
    size_t n_pos;
};

struct cli_verb {
    const char *name;
    const char *summary; /* one line for `runt --help` */
    const char *usage;   /* "pull ORG/NAME [options]" */
    const char *example; /* one or more whole commands, a line each */
    const char *about;   /* a paragraph or more for the manual page */
    /* What stands beside the options, as `arg` of an option; the last may come again.
     * NULL-terminated. */
    const char *operands[4];
    /* The verb's main: argv[0] is the verb's name.  Returns an exit status. */
    int (*run)(int argc, char **argv);
};

extern const struct cli_verb *const cli_verbs[]; /* NULL-terminated, in main.c */

/* Parse argv[1..] by a table that ends with a NULL name.  Accepts --name VALUE,
 * --name=VALUE, -x VALUE, "--" and negative numbers as values.  Prints help and returns
 * CLI_HELP for -h/--help; prints what is wrong, the nearest known option and returns
 * EXIT_USAGE on misuse; 0 when all is well.  min_pos..max_pos positionals are demanded.
 * Free args and lists with cli_free. */
enum { CLI_HELP = -1 };
int cli_parse(const struct cli_verb *v, struct cli_option *options, int argc,
              char **argv, size_t min_pos, size_t max_pos, struct cli_args *args);
void cli_free(struct cli_option *options, struct cli_args *args);

/* "63MB", "1.5GB", "2000": a number of bytes, of at most max; false when it is none. */
bool cli_size_parse(const char *text, uint64_t max, uint64_t *out);

/* The value that `text` means, checked as the option's kind and range want it; `shown`
 * is the option's name in what is said when it does not fit (RUNT_E_INVALID).  Strings
 * are borrowed.  A flag is left alone. */
int cli_store(const struct cli_option *o, const char *shown, const char *text,
              struct runt_err *err);

/* Bytes of the name that stands for a value: "FORMAT" of "FORMAT text json". */
int cli_arg_len(const char *arg);
/* " (default 3)" or "", into buf. */
const char *cli_default(const struct cli_option *o, char *buf, size_t n);

/* Levenshtein distance of names of at most 63 bytes. */
size_t cli_edit_distance(const char *a, const char *b);

/* "runt VERB: MESSAGE" on stderr; the exit status that fits the code. */
int cli_fail(const struct cli_verb *v, const struct runt_err *err);
/* The same for misuse found after parsing: EXIT_USAGE. */
int cli_misuse(const struct cli_verb *v, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Progress bar on stderr, only when that is a terminal; a runt_progress_fn.  Answers
 * non-zero once SIGINT or SIGTERM came (after cli_catch_interrupt). */
int cli_progress(void *ctx, const char *what, unsigned long long done,
                 unsigned long long total);
void cli_progress_done(void); /* erase the bar */
void cli_catch_interrupt(void);
bool cli_interrupted(void);
bool cli_terminated(void); /* by SIGTERM, SIGHUP or a second SIGINT: all is to end */
void cli_clear_interrupt(void);

/* -o md|csv|json|text */
enum cli_format { CLI_TEXT, CLI_MD, CLI_CSV, CLI_JSON };
/* 0, or EXIT_USAGE after saying what is allowed ("text,json"). */
int cli_format_parse(const struct cli_verb *v, const char *s, const char *allowed,
                     enum cli_format *out);

/* "63 MB": bytes for people, in decimal units; into buf. */
const char *cli_bytes(uint64_t n, char buf[static 32]);

/* Text from a file, for a terminal: control characters become '?'; cut to n bytes. */
const char *cli_plain(const char *s, char *buf, size_t n);

/* JSON string s, quoted and escaped (invalid UTF-8 becomes U+FFFD), to f. */
void cli_json_str(FILE *f, const char *s, size_t n);

bool cli_color(FILE *f);     /* a terminal, NO_COLOR unset, TERM not dumb */
size_t cli_columns(FILE *f); /* of a terminal, 80 when it does not tell; else 0 */
size_t cli_peak_rss(void);   /* bytes, 0 when unknown */
double cli_seconds(void);    /* monotonic clock */

#endif
