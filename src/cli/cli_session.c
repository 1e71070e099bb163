/* Owns the spelling of --kv and --lookahead, and the table of --profile. */
#include "cli/cli_session.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- --kv ---- */

int cli_kv_parse(const struct cli_verb *v, const char *name, enum runt_kv *out)
{
    static const struct {
        const char *name;
        enum runt_kv kv;
    } kinds[] = {{"auto", RUNT_KV_AUTO},
                 {"f16", RUNT_KV_F16},
                 {"q8", RUNT_KV_Q8},
                 {"f32", RUNT_KV_F32}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcasecmp(name, kinds[i].name))
            continue;
        *out = kinds[i].kv;
        return 0;
    }
    return cli_misuse(v, "--kv takes one of f16, q8, f32, auto, not '%s'", name);
}

/* ---- --lookahead ---- */

int cli_lookahead_parse(const struct cli_verb *v, const char *text, int32_t *out)
{
    char *end;
    if (!strcasecmp(text, "auto")) {
        *out = RUNT_LOOKAHEAD_AUTO;
        return 0;
    }
    if (!strcasecmp(text, "off")) {
        *out = CLI_LOOKAHEAD_OFF;
        return 0;
    }
    long n = strtol(text, &end, 10);
    if (end == text || *end || n < 1 || n > RUNT_LOOKAHEAD_MAX)
        return cli_misuse(
            v, "--lookahead takes auto, off, or a number from 1 to %d, not '%s'",
            RUNT_LOOKAHEAD_MAX, text);
    *out = (int32_t)n;
    return 0;
}

/* ---- --profile ---- */

void cli_profile_take(const runt_session *s, size_t n_tokens, double seconds,
                      const char *rest, struct cli_profile *out)
{
    struct cli_profile p = {.n_tokens = n_tokens};
    double known = 0;
    p.n_rows = runt_session_profile(s, p.rows, CLI_PROFILE_ROWS - 1);
    if (p.n_rows > CLI_PROFILE_ROWS - 1)
        p.n_rows = CLI_PROFILE_ROWS - 1;
    for (size_t i = 0; i < p.n_rows; i++)
        known += p.rows[i].seconds;
    /* the clock was read outside of what the rows read it for */
    p.seconds = seconds > known ? seconds : known;
    p.rows[p.n_rows++] =
        (struct runt_profile_row){.name = rest, .seconds = p.seconds - known};
    *out = p;
}

uint64_t cli_profile_bytes(const struct cli_profile *p)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < p->n_rows; i++)
        sum += p->rows[i].bytes;
    return sum;
}

uint64_t cli_profile_ops(const struct cli_profile *p)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < p->n_rows; i++)
        sum += p->rows[i].ops;
    return sum;
}

/* Nothing by nothing is nothing: an operation that took no time, or no tokens. */
static double by(double a, double b)
{
    return b > 0 ? a / b : 0;
}

/* An empty cell for what an operation has none of. */
static void cell(FILE *f, double x, int width, int digits)
{
    if (x > 0)
        fprintf(f, " %*.*f |", width, digits, x);
    else
        fprintf(f, " %*s |", width, "");
}

static void print_row(FILE *f, const char *name, double seconds, uint64_t bytes,
                      uint64_t ops, const struct cli_profile *p)
{
    double n = (double)p->n_tokens;
    fprintf(f, "| %-22s | %8.4f | %6.2f%% |", name, by(1e3 * seconds, n),
            100 * by(seconds, p->seconds));
    cell(f, by((double)bytes, n) / 1e6, 8, 4);
    cell(f, by((double)bytes, seconds) / 1e9, 7, 2);
    cell(f, by((double)ops, n) / 1e6, 9, 3);
    cell(f, by((double)ops, seconds) / 1e9, 7, 2);
    putc('\n', f);
}

void cli_profile_print(FILE *f, const char *title, const struct cli_profile *p)
{
    fprintf(f, "%s\n\n", title);
    fprintf(f, "| %-22s | %8s | %7s | %8s | %7s | %9s | %7s |\n", "operation",
            "ms/token", "share", "MB/token", "GB/s", "Mop/token", "GOP/s");
    fprintf(f, "|------------------------|---------:|--------:|---------:|--------:|"
               "----------:|--------:|\n");
    for (size_t i = 0; i < p->n_rows; i++) {
        const struct runt_profile_row *r = &p->rows[i];
        if (r->seconds > 0 || r->bytes || r->ops)
            print_row(f, r->name, r->seconds, r->bytes, r->ops, p);
    }
    print_row(f, "all", p->seconds, cli_profile_bytes(p), cli_profile_ops(p), p);
}

void cli_profile_json(FILE *f, const struct cli_profile *p)
{
    double n = (double)p->n_tokens;
    putc('[', f);
    for (size_t i = 0; i < p->n_rows; i++) {
        const struct runt_profile_row *r = &p->rows[i];
        fprintf(f, "%s\n  {\"name\":", i ? "," : "");
        cli_json_str(f, r->name, strlen(r->name));
        fprintf(f,
                ",\"ms_per_token\":%.9g,\"share\":%.9g,\"bytes_per_token\":%.15g,"
                "\"bytes_per_second\":%.9g,\"ops_per_token\":%.15g,"
                "\"ops_per_second\":%.9g}",
                by(1e3 * r->seconds, n), by(r->seconds, p->seconds),
                by((double)r->bytes, n), by((double)r->bytes, r->seconds),
                by((double)r->ops, n), by((double)r->ops, r->seconds));
    }
    putc(']', f);
}
