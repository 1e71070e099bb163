/* Owns the option tables: parsing, --help, and "did you mean". */
#include "cli/help.h"

#include "base/err.h"
#include "base/mem.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

size_t cli_edit_distance(const char *a, const char *b)
{
    enum { MAX = 63 };
    size_t na = strlen(a), nb = strlen(b), row[MAX + 1];
    if (na > MAX || nb > MAX)
        return MAX;
    for (size_t j = 0; j <= nb; j++)
        row[j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t diag = row[0];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = diag + (a[i - 1] != b[j - 1]);
            diag = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[nb];
}

const struct cli_option help_option = {
    .name = "--help", .brief = "-h", .kind = CLI_FLAG, .help = "show this help"};

int cli_arg_len(const char *arg)
{
    return arg ? (int)strcspn(arg, " ") : 0;
}

const char *cli_default(const struct cli_option *o, char *buf, size_t n)
{
    *buf = 0;
    if (o->kind == CLI_INT && o->value && *(int64_t *)o->value != INT64_MIN)
        snprintf(buf, n, " (default %lld)", (long long)*(int64_t *)o->value);
    else if (o->kind == CLI_REAL && o->value)
        snprintf(buf, n, " (default %g)", *(double *)o->value);
    else if (o->kind == CLI_STR && o->value && *(const char **)o->value)
        snprintf(buf, n, " (default %s)", *(const char **)o->value);
    return buf;
}

static void print_option(const struct cli_option *o)
{
    char head[64], preset[128];
    snprintf(head, sizeof head, "%s%s%s%s%.*s", o->brief ? o->brief : "",
             o->brief ? ", " : (o->name[1] == '-' ? "    " : ""), o->name,
             o->arg ? " " : "", cli_arg_len(o->arg), o->arg ? o->arg : "");
    printf("  %-26s %s%s\n", head, o->help, cli_default(o, preset, sizeof preset));
}

static void print_help(const struct cli_verb *v, const struct cli_option *options)
{
    printf("runt %s: %s\n\nusage: runt %s\n\noptions:\n", v->name, v->summary,
           v->usage);
    for (const struct cli_option *o = options; o->name; o++)
        print_option(o);
    print_option(&help_option);
    printf("\nexample:\n");
    for (const char *s = v->example; *s;) {
        size_t n = strcspn(s, "\n");
        printf("  %.*s\n", (int)n, s);
        s += n + (s[n] == '\n');
    }
}

static int misuse(const struct cli_verb *v, const char *fmt, va_list ap)
{
    fprintf(stderr, "runt %s: ", v->name);
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\nTry 'runt %s --help'.\n", v->name);
    return EXIT_USAGE;
}

int cli_misuse(const struct cli_verb *v, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int rc = misuse(v, fmt, ap);
    va_end(ap);
    return rc;
}

static int unknown_option(const struct cli_verb *v, const struct cli_option *options,
                          const char *name)
{
    const char *best = NULL;
    size_t best_d = 0;
    for (const struct cli_option *o = options; o->name; o++) {
        size_t d = cli_edit_distance(name, o->name);
        if (!best || d < best_d) {
            best = o->name;
            best_d = d;
        }
    }
    size_t d = cli_edit_distance(name, help_option.name);
    if (!best || d < best_d) {
        best = help_option.name;
        best_d = d;
    }
    if (strlen(name) > 2 && best_d <= strlen(name) * 2 / 3)
        return cli_misuse(v, "unknown option '%s'; did you mean '%s'?", name, best);
    return cli_misuse(v, "unknown option '%s'", name);
}

int cli_store(const struct cli_option *o, const char *shown, const char *text,
              struct runt_err *err)
{
    char *end;
    errno = 0;
    switch (o->kind) {
    case CLI_FLAG:
        break;
    case CLI_STR:
        *(const char **)o->value = text;
        break;
    case CLI_LIST: {
        struct cli_list *l = o->value;
        const char **p = mem_resize(l->items, l->n + 1, sizeof *p);
        if (!p)
            return err_nomem(err, shown);
        l->items = p;
        l->items[l->n++] = text;
        break;
    }
    case CLI_INT: {
        long long x = strtoll(text, &end, 10);
        if (end == text || *end || errno == ERANGE)
            return err_set(err, RUNT_E_INVALID, "%s wants a whole number, not '%s'",
                           shown, text);
        if ((double)x < o->min || (double)x > o->max)
            return err_set(err, RUNT_E_INVALID,
                           "%s must be from %.0f to %.0f, not %lld", shown, o->min,
                           o->max, x);
        *(int64_t *)o->value = x;
        break;
    }
    case CLI_REAL: {
        double x = strtod(text, &end);
        if (end == text || *end || isnan(x))
            return err_set(err, RUNT_E_INVALID, "%s wants a number, not '%s'", shown,
                           text);
        if (x < o->min || x > o->max)
            return err_set(err, RUNT_E_INVALID, "%s must be from %g to %g, not %s",
                           shown, o->min, o->max, text);
        *(double *)o->value = x;
        break;
    }
    }
    return 0;
}

bool cli_size_parse(const char *text, uint64_t max, uint64_t *out)
{
    static const char *const units[] = {"", "kB", "MB", "GB", "TB"};
    char *end;
    double x = strtod(text, &end), factor = 1;
    if (end == text || !(x >= 0))
        return false;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++, factor *= 1000) {
        if (strcasecmp(end, units[i]))
            continue;
        if (!(x * factor <= (double)max))
            return false;
        *out = (uint64_t)(x * factor);
        return true;
    }
    return false;
}

static int store(const struct cli_verb *v, const struct cli_option *o,
                 const char *shown, const char *text)
{
    struct runt_err err;
    return cli_store(o, shown, text, &err) ? cli_misuse(v, "%s", err.msg) : 0;
}

/* The option that `arg` names (up to '=' or whole), or NULL. */
static const struct cli_option *find(const struct cli_option *options, const char *arg,
                                     size_t n)
{
    for (const struct cli_option *o = options; o->name; o++)
        if ((strlen(o->name) == n && !memcmp(o->name, arg, n)) ||
            (o->brief && strlen(o->brief) == n && !memcmp(o->brief, arg, n)))
            return o;
    return NULL;
}

int cli_parse(const struct cli_verb *v, struct cli_option *options, int argc,
              char **argv, size_t min_pos, size_t max_pos, struct cli_args *args)
{
    int rc = 0;
    struct cli_args a = {0};
    bool only_pos = false;
    a.pos = mem_array((size_t)argc + 1, sizeof *a.pos);
    if (!a.pos)
        return cli_misuse(v, "out of memory");
    for (int i = 1; i < argc && !rc; i++) {
        const char *arg = argv[i];
        if (only_pos || arg[0] != '-' || !arg[1]) {
            a.pos[a.n_pos++] = arg;
            continue;
        }
        if (!strcmp(arg, "--")) {
            only_pos = true;
            continue;
        }
        if (!strcmp(arg, "--help") || !strcmp(arg, "-h")) {
            print_help(v, options);
            rc = CLI_HELP;
            break;
        }
        if (!strncmp(arg, "--help=", 7)) {
            rc = help_print(v, options, arg + 7)
                     ? CLI_HELP
                     : cli_misuse(v, "--help takes man, bash, zsh or fish, not '%s'",
                                  arg + 7);
            break;
        }
        const char *eq = arg[1] == '-' ? strchr(arg, '=') : NULL;
        size_t n = eq ? (size_t)(eq - arg) : strlen(arg);
        const struct cli_option *o = find(options, arg, n);
        char shown[64];
        snprintf(shown, sizeof shown, "%.*s", (int)n, arg);
        const struct cli_option *joined =
            !o && arg[1] != '-' ? find(options, arg, 2) : NULL; /* -n5 */
        if (joined && joined->kind != CLI_FLAG) {
            snprintf(shown, sizeof shown, "%.2s", arg);
            rc = store(v, joined, shown, arg + 2);
        } else if (!o)
            rc = unknown_option(v, options, shown);
        else if (o->kind == CLI_FLAG && eq)
            rc = cli_misuse(v, "%s takes no value", shown);
        else if (o->kind == CLI_FLAG)
            *(bool *)o->value = true;
        else if (eq)
            rc = store(v, o, shown, eq + 1);
        else if (i + 1 >= argc)
            rc = cli_misuse(v, "%s wants a value (%.*s)", shown, cli_arg_len(o->arg),
                            o->arg);
        else
            rc = store(v, o, shown, argv[++i]);
    }
    if (!rc && a.n_pos < min_pos)
        rc = cli_misuse(v, "too few arguments\nusage: runt %s", v->usage);
    if (!rc && a.n_pos > max_pos)
        rc = cli_misuse(v, "unexpected argument '%s'\nusage: runt %s", a.pos[max_pos],
                        v->usage);
    *args = a;
    if (rc)
        cli_free(options, args);
    return rc;
}

void cli_free(struct cli_option *options, struct cli_args *args)
{
    for (struct cli_option *o = options; o->name; o++) {
        if (o->kind == CLI_LIST) {
            struct cli_list *l = o->value;
            mem_free(l->items);
            *l = (struct cli_list){0};
        }
    }
    mem_free(args->pos);
    *args = (struct cli_args){0};
}
