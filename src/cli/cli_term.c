/* Owns what verbs share at the terminal: failures, progress, interrupts, figures. */
#include "cli/cli.h"

#include "base/utf8.h"

#include <ctype.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t interrupted, terminated;

static void on_signal(int sig)
{
    if (sig != SIGINT || interrupted)
        terminated = 1;
    interrupted = 1;
}

void cli_catch_interrupt(void)
{
    /* On a stack of its own: oneDNN's generated kernels keep data below the stack
     * pointer, farther than the 128 bytes that the kernel leaves alone, and a handler
     * on their stack would write over it. */
    static char stack[64 * 1024];
    sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL);
    /* no SA_RESTART: reads return */
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGHUP, &sa, NULL);
}

bool cli_interrupted(void)
{
    return interrupted || terminated;
}

bool cli_terminated(void)
{
    return terminated;
}

void cli_clear_interrupt(void)
{
    interrupted = 0;
}

int cli_fail(const struct cli_verb *v, const struct runt_err *err)
{
    cli_progress_done();
    if (err->code == RUNT_E_INTERRUPTED) {
        if (*err->msg)
            fprintf(stderr, "runt %s: interrupted\n", v->name);
        return EXIT_INTERRUPTED;
    }
    fprintf(stderr, "runt %s: %s\n", v->name, err->msg);
    return EXIT_FAILED;
}

/* ---- progress ---- */

static bool bar_shown;
static double bar_last;

double cli_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int cli_progress(void *ctx, const char *what, unsigned long long done,
                 unsigned long long total)
{
    (void)ctx;
    double now = cli_seconds();
    if (isatty(2) && (now - bar_last > 0.1 || !bar_shown)) {
        enum { WIDTH = 24 };
        char bar[WIDTH + 1];
        double part = total ? (double)done / (double)total : 0;
        for (int i = 0; i < WIDTH; i++)
            bar[i] = (i + 1) <= part * WIDTH ? '#' : '.';
        bar[WIDTH] = 0;
        fprintf(stderr, "\r\033[K%-32.32s [%s] %3.0f%%", what, bar, part * 100);
        fflush(stderr);
        bar_shown = true;
        bar_last = now;
    }
    return interrupted;
}

void cli_progress_done(void)
{
    if (bar_shown)
        fprintf(stderr, "\r\033[K");
    bar_shown = false;
}

/* ---- figures ---- */

int cli_format_parse(const struct cli_verb *v, const char *s, const char *allowed,
                     enum cli_format *out)
{
    static const char *const names[] = {"text", "md", "csv", "json"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        if (!strcasecmp(s, names[i]) && strstr(allowed, names[i])) {
            *out = (enum cli_format)i;
            return 0;
        }
    }
    return cli_misuse(v, "-o takes one of %s, not '%s'", allowed, s);
}

const char *cli_bytes(uint64_t n, char buf[static 32])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double x = (double)n;
    unsigned u = 0;
    for (; x >= 999.95 && u < 4; u++)
        x /= 1000;
    snprintf(buf, 32, u ? "%.*f %s" : "%.*f %s", u ? (x < 10 ? 2 : 1) : 0, x, units[u]);
    return buf;
}

const char *cli_plain(const char *s, char *buf, size_t n)
{
    size_t i = 0;
    for (; s[i] && i + 1 < n; i++) {
        unsigned char c = (unsigned char)s[i];
        bool c1 = i && (unsigned char)s[i - 1] == 0xc2 && c >= 0x80 && c < 0xa0;
        buf[i] = c < 0x20 || c == 0x7f || c1 ? '?' : s[i];
    }
    buf[i] = 0;
    return buf;
}

void cli_json_str(FILE *f, const char *s, size_t n)
{
    putc('"', f);
    for (size_t i = 0; i < n;) {
        size_t len = utf8_len(s + i, n - i);
        if (!len) {
            fputs("\\ufffd", f);
            i++;
            continue;
        }
        unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\')
            fprintf(f, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            fprintf(f, "\\u%04x", c);
        else if (c == 0xc2 && (unsigned char)s[i + 1] < 0xa0) /* C1 controls */
            fprintf(f, "\\u%04x", (unsigned char)s[i + 1]);
        else
            fwrite(s + i, 1, len, f);
        i += len;
    }
    putc('"', f);
}

bool cli_color(FILE *f)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(fileno(f)) && (!no || !*no) && term && strcmp(term, "dumb");
}

size_t cli_columns(FILE *f)
{
    struct winsize w;
    if (!isatty(fileno(f)))
        return 0;
    return !ioctl(fileno(f), TIOCGWINSZ, &w) && w.ws_col ? w.ws_col : 80;
}

size_t cli_peak_rss(void)
{
    struct rusage u;
    if (getrusage(RUSAGE_SELF, &u))
        return 0;
#ifdef __APPLE__
    return (size_t)u.ru_maxrss;
#else
    return (size_t)u.ru_maxrss * 1024;
#endif
}
