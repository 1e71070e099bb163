/* Owns manual pages: one for each verb from its option table, and runt(1) from the
 * table of verbs.  The macros are those of man(7), as groff and mandoc know them. */
#include "cli/help.h"

#include <ctype.h>
#include <string.h>

/* Of these texts, not of a build: the same sources give the same pages. */
static const char date[] = "2026-11-28";

/* Text without meaning to roff: neither escapes, nor hyphens that break, nor a line
 * that begins like a request. */
static void put(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool first = !i || s[i - 1] == '\n';
        if (first && (s[i] == '.' || s[i] == '\''))
            fputs("\\&", stdout);
        if (s[i] == '\\')
            fputs("\\e", stdout);
        else if (s[i] == '-')
            fputs("\\-", stdout);
        else if (s[i] == '\'')
            fputs("\\(aq", stdout);
        else if (s[i] == '^')
            fputs("\\(ha", stdout);
        else if (s[i] == '~')
            fputs("\\(ti", stdout);
        else if (s[i] == '`')
            fputs("\\(ga", stdout);
        else
            putchar(s[i]);
    }
}

static void puts_text(const char *s)
{
    put(s, strlen(s));
}

static void title(const char *name, const char *summary)
{
    printf(".TH ");
    for (const char *s = name; *s; s++)
        putchar(*s == '-' ? *s : toupper((unsigned char)*s));
    printf(" 1 %s \"runt %s\" \"User commands\"\n.SH NAME\n", date, RUNT_VERSION);
    puts_text(name);
    printf(" \\- ");
    puts_text(summary);
    putchar('\n');
}

/* Names of options and verbs are bold, what stands for something else is italic. */
static void usage(const char *s)
{
    printf(".SH SYNOPSIS\n\\fBrunt\\fR ");
    while (*s) {
        size_t n = strcspn(s, " []|"), upper = 0;
        for (size_t i = 0; i < n; i++)
            upper += isupper((unsigned char)s[i]) != 0;
        if (n) {
            fputs(upper ? "\\fI" : strncmp(s, "options", n) ? "\\fB" : "\\fI", stdout);
            put(s, n);
            fputs("\\fR", stdout);
        }
        if (s[n])
            putchar(s[n]);
        s += n + (s[n] != 0);
    }
    putchar('\n');
}

static void option(const struct cli_option *o)
{
    char preset[128], names[256];
    printf(".TP\n");
    if (o->brief) {
        printf("\\fB");
        puts_text(o->brief);
        printf("\\fR, ");
    }
    printf("\\fB");
    puts_text(o->name);
    printf("\\fR");
    if (o->arg) {
        printf(" \\fI");
        put(o->arg, (size_t)cli_arg_len(o->arg));
        printf("\\fR");
    }
    putchar('\n');
    puts_text(o->help);
    puts_text(cli_default(o, preset, sizeof preset));
    putchar('\n');
    if (help_kind(o->arg, names, sizeof names) != HELP_NAMES)
        return;
    printf("Names:");
    for (const char *s = names; *s;) {
        size_t n = strcspn(s, " ");
        printf(" \\fB");
        put(s, n);
        printf("\\fR%s", s[n] ? "," : ".\n");
        s += n + (s[n] != 0);
    }
}

/* Lines as they are. */
static void example(const char *s)
{
    printf(".SH EXAMPLES\n.nf\n");
    puts_text(s);
    printf("\n.fi\n");
}

static void status(void)
{
    printf(".SH EXIT STATUS\n"
           ".TP\n0\nAll is well.\n"
           ".TP\n1\nIt failed; one line on standard error says what and where.\n"
           ".TP\n2\nIt was called the wrong way.\n"
           ".TP\n130\nIt was interrupted.\n");
}

void help_man_verb(const struct cli_verb *v, const struct cli_option *options)
{
    char name[64];
    snprintf(name, sizeof name, "runt-%s", v->name);
    title(name, v->summary);
    usage(v->usage);
    printf(".SH DESCRIPTION\n");
    puts_text(v->about ? v->about : v->summary);
    printf("\n.SH OPTIONS\n");
    for (const struct cli_option *o = options; o->name; o++)
        option(o);
    option(&help_option);
    status();
    example(v->example);
    printf(".SH SEE ALSO\n.BR runt (1)\n");
}

void help_man_runt(const struct cli_verb *const *verbs)
{
    static const struct {
        const char *name, *what;
    } variables[] = {
        {"HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME",
         "where downloaded models are kept, shared with other tools: $HF_HUB_CACHE, "
         "$HF_HOME/hub, $XDG_CACHE_HOME/huggingface/hub, ~/.cache/huggingface/hub"},
        {"HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE",
         "another hub, a token for it (else $HF_HOME/token), and no network at all"},
        {"NO_COLOR", "no colours"},
        {"RUNT_CPU", "the instruction set to use, below what the processor has: ref, "
                     "avx2, avxvnni, avx512vl, avx512, neon, neondot. The results are "
                     "the same bits"},
        {"RUNT_GEMM", "for products of floats in training: openblas or onednn"},
    };
    title("runt", "small GPT-2 models on a plain CPU");
    printf(".SH SYNOPSIS\n\\fBrunt\\fR \\fIverb\\fR [\\fIoptions\\fR]\n"
           ".br\n\\fBrunt help\\fR \\fIverb\\fR\n"
           ".SH DESCRIPTION\n");
    puts_text(
        "runt imports, trains, quantizes, measures, chats with and serves models "
        "of the GPT-2 class. A model is one GGUF file with its tokenizer. Where a "
        "verb takes a MODEL, ORG/NAME means one of the hub: it is downloaded once, "
        "and converted.");
    printf("\n.SH VERBS\n");
    for (size_t i = 0; verbs[i]; i++) {
        printf(".TP\n.BR runt\\-%s (1)\n", verbs[i]->name);
        puts_text(verbs[i]->summary);
        putchar('\n');
    }
    printf(".SH ENVIRONMENT\n");
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
        printf(".TP\n\\fB");
        puts_text(variables[i].name);
        printf("\\fR\n");
        puts_text(variables[i].what);
        putchar('\n');
    }
    status();
    printf(".SH SEE ALSO\n");
    for (size_t i = 0; verbs[i]; i++)
        printf(".BR runt\\-%s (1)%s\n", verbs[i]->name, verbs[i + 1] ? "," : "");
}
