/* Owns completions for bash, zsh and fish.  Each is a script: a beginning, a part for
 * each verb that only lists what its table has, an end.  They complete verbs, options,
 * values that are names, files of the kind that is asked for, and models that were
 * downloaded. */
#include "cli/help.h"

#include <string.h>

/* ---- quoting ---- */

/* Inside single quotes; characters of `special` get a backslash before them. */
static void quoted(const char *s, const char *special)
{
    for (; *s; s++) {
        if (*s == '\'')
            fputs("'\\'", stdout);
        else if (strchr(special, *s))
            putchar('\\');
        putchar(*s);
    }
}

static void quoted_name(const char *arg)
{
    char name[64];
    snprintf(name, sizeof name, "%.*s", cli_arg_len(arg), arg);
    quoted(name, ":[]\\");
}

/* Both spellings of an option, through a format that takes one. */
static void spellings(const struct cli_option *o, const char *format)
{
    if (o->brief)
        printf(format, o->brief);
    printf(format, o->name);
}

/* Files may come many times, a verb or a name once. */
static bool may_repeat(const char *operand)
{
    char names[256];
    return help_kind(operand, names, sizeof names) != HELP_NAMES &&
           strcmp(operand, "VERB") != 0;
}

/* ---- bash ---- */

static const char bash_begin[] =
    "# Completion of runt for bash; made by 'runt help --completion bash'.\n"
    "\n"
    "# A verb's options, what their values are, and what stands beside them.\n"
    "_runt_table() {\n"
    "    options='' values='' operands=''\n"
    "    case $1 in\n";

static const char bash_end[] =
    "    esac\n"
    "}\n"
    "\n"
    "# Words of a kind that begin with $cur.\n"
    "_runt_complete() {\n"
    "    case $1 in\n"
    "    any) ;;\n"
    "    file) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$cur\") "
    ";;\n"
    "    folder) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "
    "\"$cur\") ;;\n"
    "    model)\n"
    "        compopt -o filenames\n"
    "        mapfile -t COMPREPLY < <(\n"
    "            compgen -f -X '!*.gguf' -- \"$cur\"\n"
    "            compgen -d -- \"$cur\"\n"
    "            compgen -W \"$(\"$program\" list -o csv 2>/dev/null | sed "
    "'1d;s/,.*//')\" "
    "-- \"$cur\") ;;\n"
    "    verb) mapfile -t COMPREPLY < <(compgen -W \"$_runt_verbs\" -- \"$cur\") ;;\n"
    "    *) mapfile -t COMPREPLY < <(compgen -W \"${1//,/ }\" -- \"$cur\") ;;\n"
    "    esac\n"
    "}\n"
    "\n"
    "_runt() {\n"
    "    local cur=${COMP_WORDS[COMP_CWORD]} program=${COMP_WORDS[0]} options values "
    "operands\n"
    "    local i word wanted='' n=0\n"
    "    COMPREPLY=()\n"
    "    if ((COMP_CWORD == 1)); then\n"
    "        mapfile -t COMPREPLY < <(compgen -W \"$_runt_verbs --help --version\" -- "
    "\"$cur\")\n"
    "        return\n"
    "    fi\n"
    "    _runt_table \"${COMP_WORDS[1]}\"\n"
    "    # what came before: an option that still wants its value, or how many "
    "operands;\n"
    "    # bash takes --name=value for three words\n"
    "    for ((i = 2; i < COMP_CWORD; i++)); do\n"
    "        word=${COMP_WORDS[i]}\n"
    "        if [[ $word == '=' ]]; then\n"
    "            continue\n"
    "        elif [[ $wanted ]]; then\n"
    "            wanted=''\n"
    "        elif [[ $word == -* ]]; then\n"
    "            [[ \" $values \" == *\" $word=\"* ]] && wanted=${values##*\" "
    "$word=\"} && "
    "wanted=${wanted%% *}\n"
    "        else\n"
    "            n=$((n + 1))\n"
    "        fi\n"
    "    done\n"
    "    [[ $cur == '=' ]] && cur=''\n"
    "    if [[ $wanted ]]; then\n"
    "        _runt_complete \"$wanted\"\n"
    "    elif [[ $cur == -* ]]; then\n"
    "        mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$cur\")\n"
    "    elif [[ $operands ]]; then\n"
    "        local all\n"
    "        read -ra all <<<\"$operands\"\n"
    "        ((n < ${#all[@]})) || n=$((${#all[@]} - 1))\n"
    "        _runt_complete \"${all[n]}\"\n"
    "    fi\n"
    "}\n"
    "complete -F _runt runt\n";

static void bash_kind(const char *arg)
{
    static const char *const kinds[] = {"any", "file", "folder", "model"};
    char names[256];
    enum help_kind kind = help_kind(arg, names, sizeof names);
    for (char *s = names; *s; s++)
        *s = *s == ' ' ? ',' : *s;
    fputs(kind == HELP_NAMES ? names : kinds[kind], stdout);
}

static void bash_option(const struct cli_option *o)
{
    spellings(o, "%s ");
}

static void bash_verb(const struct cli_verb *v, const struct cli_option *options)
{
    printf("    %s)\n        options='", v->name);
    for (const struct cli_option *o = options; o->name; o++)
        bash_option(o);
    printf("-h --help'\n        values=' ");
    for (const struct cli_option *o = options; o->name; o++) {
        if (!o->arg)
            continue;
        if (o->brief) {
            printf("%s=", o->brief);
            bash_kind(o->arg);
            putchar(' ');
        }
        printf("%s=", o->name);
        bash_kind(o->arg);
        putchar(' ');
    }
    printf("'\n        operands='");
    for (size_t i = 0; v->operands[i]; i++) {
        fputs(i ? " " : "", stdout);
        if (!strcmp(v->operands[i], "VERB"))
            fputs("verb", stdout);
        else
            bash_kind(v->operands[i]);
        if (!v->operands[i + 1] && !may_repeat(v->operands[i]))
            fputs(" any", stdout);
    }
    printf("' ;;\n");
}

/* ---- zsh ---- */

static const char zsh_begin[] =
    "#compdef runt\n"
    "# Completion of runt for zsh; made by 'runt help --completion zsh'.\n"
    "\n"
    "_runt_models() {\n"
    "    local -a names\n"
    "    names=(${(f)\"$(_call_program models runt list -o csv 2>/dev/null | "
    "sed '1d;s/,.*//')\"})\n"
    "    _alternative 'files:model file:_files -g \"*.gguf\"' 'models:model:compadd -a "
    "names'\n"
    "}\n"
    "\n"
    "_runt_verbs() {\n"
    "    local -a verbs\n"
    "    verbs=(\n";

static const char zsh_middle[] = "    )\n"
                                 "    _describe verb verbs\n"
                                 "}\n"
                                 "\n"
                                 "_runt() {\n"
                                 "    if ((CURRENT == 2)); then\n"
                                 "        _runt_verbs\n"
                                 "        return\n"
                                 "    fi\n"
                                 "    local verb=$words[2]\n"
                                 "    shift words\n"
                                 "    ((CURRENT--))\n"
                                 "    case $verb in\n";

static const char zsh_end[] = "    esac\n"
                              "}\n"
                              "\n"
                              "_runt \"$@\"\n";

static void zsh_kind(const char *arg)
{
    static const char *const actions[] = {" ", "_files", "_files -/", "_runt_models"};
    char names[256];
    enum help_kind kind = help_kind(arg, names, sizeof names);
    putchar(':');
    quoted_name(arg);
    putchar(':');
    if (!strcmp(arg, "VERB"))
        printf("_runt_verbs");
    else if (kind == HELP_NAMES)
        printf("(%s)", names);
    else
        fputs(actions[kind], stdout);
}

static void zsh_option(const struct cli_option *o)
{
    printf(" \\\n            ");
    if (o->kind == CLI_LIST)
        printf("'*'");
    else if (o->brief)
        printf("'(%s %s)'", o->brief, o->name);
    if (o->brief)
        printf("{%s%s,%s%s}", o->brief, o->arg ? "+" : "", o->name, o->arg ? "=" : "");
    else
        printf("%s%s", o->name, o->arg ? "=" : "");
    printf("'[");
    quoted(o->help, "[]:\\");
    putchar(']');
    if (o->arg)
        zsh_kind(o->arg);
    putchar('\'');
}

static void zsh_verb(const struct cli_verb *v, const struct cli_option *options)
{
    printf("    %s)\n        _arguments -s", v->name);
    for (const struct cli_option *o = options; o->name; o++)
        zsh_option(o);
    zsh_option(&help_option);
    for (size_t i = 0; v->operands[i]; i++) {
        printf(" \\\n            '");
        if (v->operands[i + 1] || !may_repeat(v->operands[i]))
            printf("%zu", i + 1);
        else
            putchar('*');
        zsh_kind(v->operands[i]);
        putchar('\'');
    }
    printf(" ;;\n");
}

/* ---- fish ---- */

static const char fish_begin[] =
    "# Completion of runt for fish; made by 'runt help --completion fish'.\n"
    "\n"
    "function __runt_models\n"
    "    __fish_complete_suffix .gguf\n"
    "    runt list -o csv 2>/dev/null | sed '1d;s/,.*//'\n"
    "end\n"
    "\n"
    "# Whether the command is of this verb.\n"
    "function __runt_verb\n"
    "    set -l words (commandline -opc)\n"
    "    test (count $words) -ge 2; and test $words[2] = $argv[1]\n"
    "end\n"
    "\n"
    "complete -c runt -f\n"
    "complete -c runt -n __fish_is_first_token -l help -d 'list the verbs'\n"
    "complete -c runt -n __fish_is_first_token -l version -d 'print the version'\n";

static void fish_kind(const char *arg)
{
    char names[256];
    switch (help_kind(arg, names, sizeof names)) {
    case HELP_FILE:
        printf(" -r -F");
        break;
    case HELP_FOLDER:
        printf(" -x -a '(__fish_complete_directories)'");
        break;
    case HELP_MODEL:
        printf(" -x -a '(__runt_models)'");
        break;
    case HELP_NAMES:
        printf(" -x -a '%s'", names);
        break;
    case HELP_ANY:
        printf(" -x");
        break;
    }
}

static void fish_verb_condition(const struct cli_verb *v)
{
    printf("complete -c runt -n '__runt_verb %s'", v->name);
}

/* Single quotes of fish: only \ and ' are special. */
static void fish_text(const char *s)
{
    for (putchar('\''); *s; s++)
        printf("%s%c", *s == '\'' || *s == '\\' ? "\\" : "", *s);
    printf("'\n");
}

static void fish_option(const struct cli_verb *v, const struct cli_option *o)
{
    fish_verb_condition(v);
    if (o->name[1] == '-')
        printf(" -l %s", o->name + 2);
    else
        printf(" -s %s", o->name + 1);
    if (o->brief)
        printf(" -s %s", o->brief + 1);
    if (o->arg)
        fish_kind(o->arg);
    printf(" -d ");
    fish_text(o->help);
}

static void fish_verb(const struct cli_verb *v, const struct cli_option *options)
{
    printf("\ncomplete -c runt -n __fish_is_first_token -a %s -d ", v->name);
    fish_text(v->summary);
    for (const struct cli_option *o = options; o->name; o++)
        fish_option(v, o);
    fish_option(v, &help_option);
    for (size_t i = 0; v->operands[i]; i++) {
        char names[256];
        if (help_kind(v->operands[i], names, sizeof names) == HELP_ANY)
            continue;
        fish_verb_condition(v);
        fish_kind(v->operands[i]);
        putchar('\n');
    }
}

static void fish_end(const struct cli_verb *const *verbs)
{
    printf("\ncomplete -c runt -n '__runt_verb help' -a '");
    for (size_t i = 0; verbs[i]; i++)
        printf("%s%s", i ? " " : "", verbs[i]->name);
    printf("'\n");
}

/* ---- all of them ---- */

void help_shell_verb(const struct cli_verb *v, const struct cli_option *options,
                     const char *shell)
{
    if (!strcmp(shell, "bash"))
        bash_verb(v, options);
    else if (!strcmp(shell, "zsh"))
        zsh_verb(v, options);
    else
        fish_verb(v, options);
}

bool help_shell_begin(const char *shell, const struct cli_verb *const *verbs)
{
    if (!strcmp(shell, "bash")) {
        fputs(bash_begin, stdout);
    } else if (!strcmp(shell, "zsh")) {
        fputs(zsh_begin, stdout);
        for (size_t i = 0; verbs[i]; i++) {
            printf("        '%s:", verbs[i]->name);
            quoted(verbs[i]->summary, ":\\");
            printf("'\n");
        }
        fputs(zsh_middle, stdout);
    } else if (!strcmp(shell, "fish")) {
        fputs(fish_begin, stdout);
    } else {
        return false;
    }
    return true;
}

void help_shell_end(const char *shell, const struct cli_verb *const *verbs)
{
    if (!strcmp(shell, "bash")) {
        fputs(bash_end, stdout);
        printf("\n_runt_verbs='");
        for (size_t i = 0; verbs[i]; i++)
            printf("%s%s", i ? " " : "", verbs[i]->name);
        printf("'\n");
    } else if (!strcmp(shell, "zsh")) {
        fputs(zsh_end, stdout);
    } else {
        fish_end(verbs);
    }
}
