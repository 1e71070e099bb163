/* Owns the look of the figures: a Markdown table, CSV, JSON. */
#include "cli/bench.h"

#include <string.h>

/* ---- what follows from a row ---- */

static double bytes_per_second(const struct bench_row *r)
{
    return r->bytes_per_token * r->tokens_per_second;
}

static double ops_per_second(const struct bench_row *r)
{
    return r->ops_per_token * r->tokens_per_second;
}

static const char *test_name(const struct bench_row *r)
{
    return r->prompt ? "pp" : "tg";
}

/* ---- Markdown ---- */

enum { MAX_CELL = 200, MAX_COLUMNS = 24 };

/* A column: its head, how it is aligned, and its cell of a row. */
struct column {
    const char *head;
    bool left;
    void (*cell)(const struct bench_row *r, char buf[static MAX_CELL]);
};

static void model_cell(const struct bench_row *r, char buf[static MAX_CELL])
{
    char plain[MAX_CELL / 2];
    size_t n = 0;
    cli_plain(r->model, plain, sizeof plain);
    for (const char *p = plain; *p; p++) {
        if (*p == '|') /* would end the cell */
            buf[n++] = '\\';
        buf[n++] = *p;
    }
    buf[n] = 0;
}

#define DEFINE_CELL(name, ...)                                                    \
    static void name##_cell(const struct bench_row *r, char buf[static MAX_CELL]) \
    {                                                                             \
        snprintf(buf, MAX_CELL, __VA_ARGS__);                                     \
    }
DEFINE_CELL(kv, "%s", r->kv)
DEFINE_CELL(test, "%s", test_name(r))
DEFINE_CELL(threads, "%u", r->threads)
DEFINE_CELL(depth, "%u", r->depth)
DEFINE_CELL(batch, "%u", r->batch)
DEFINE_CELL(tokens, "%zu", r->tokens)
DEFINE_CELL(speed, "%.2f", r->tokens_per_second)
DEFINE_CELL(spread, "%.2f", r->spread)
DEFINE_CELL(bytes, "%.3f", r->bytes_per_token / 1e6)
DEFINE_CELL(rate, "%.2f", bytes_per_second(r) / 1e9)
DEFINE_CELL(bandwidth, "%.2f", r->bandwidth / 1e9)
DEFINE_CELL(roofline, "%.1f%%", 100 * bytes_per_second(r) / r->bandwidth)
DEFINE_CELL(ops, "%.2f", ops_per_second(r) / 1e9)
DEFINE_CELL(peak, "%.2f", r->peak / 1e9)
DEFINE_CELL(peak_part, "%.1f%%", 100 * ops_per_second(r) / r->peak)
DEFINE_CELL(file, "%.2f", (double)r->file_bytes / 1e6)
DEFINE_CELL(load, "%.2f", 1e3 * r->load_seconds)
DEFINE_CELL(first, "%.2f", 1e3 * r->first_token_seconds)
DEFINE_CELL(memory, "%.1f", (double)r->peak_bytes / 1e6)

static void pad(const char *text, size_t width, bool left)
{
    printf(left ? " %-*s |" : " %*s |", (int)width, text);
}

/* Every column as wide as its widest cell. */
static void print_table(const struct column *columns, size_t n_columns,
                        const struct bench_row *rows, size_t n)
{
    size_t width[MAX_COLUMNS] = {0};
    char buf[MAX_CELL];
    for (size_t c = 0; c < n_columns; c++) {
        width[c] = strlen(columns[c].head);
        for (size_t i = 0; i < n; i++) {
            columns[c].cell(&rows[i], buf);
            width[c] = strlen(buf) > width[c] ? strlen(buf) : width[c];
        }
    }
    putchar('|');
    for (size_t c = 0; c < n_columns; c++)
        pad(columns[c].head, width[c], columns[c].left);
    printf("\n|");
    for (size_t c = 0; c < n_columns; c++) {
        for (size_t i = 0; i < width[c] + 1; i++)
            putchar('-');
        printf(columns[c].left ? "-|" : ":|");
    }
    for (size_t i = 0; i < n; i++) {
        printf("\n|");
        for (size_t c = 0; c < n_columns; c++) {
            columns[c].cell(&rows[i], buf);
            pad(buf, width[c], columns[c].left);
        }
    }
    putchar('\n');
}

static void print_md(const struct bench_plan *plan, const struct bench_row *rows,
                     size_t n)
{
    static const struct column basic[] = {
        {"model", true, model_cell},
        {"kv", true, kv_cell},
        {"test", true, test_cell},
        {"threads", false, threads_cell},
        {"depth", false, depth_cell},
        {"batch", false, batch_cell},
        {"tokens", false, tokens_cell},
        {"tokens/s", false, speed_cell},
        {"spread", false, spread_cell},
        {"MB/token", false, bytes_cell},
        {"GB/s", false, rate_cell},
        {"GOP/s", false, ops_cell},
        {"file MB", false, file_cell},
        {"load ms", false, load_cell},
        {"first token ms", false, first_cell},
        {"peak MB", false, memory_cell},
    };
    static const struct column roofline[] = {
        {"model", true, model_cell},
        {"test", true, test_cell},
        {"threads", false, threads_cell},
        {"depth", false, depth_cell},
        {"batch", false, batch_cell},
        {"GB/s", false, rate_cell},
        {"machine's GB/s", false, bandwidth_cell},
        {"roofline", false, roofline_cell},
        {"GOP/s", false, ops_cell},
        {"machine's GOP/s", false, peak_cell},
        {"peak", false, peak_part_cell},
    };
    print_table(basic, sizeof basic / sizeof *basic, rows, n);
    printf("\n");
    if (plan->roofline) {
        print_table(roofline, sizeof roofline / sizeof *roofline, rows, n);
        printf("\n");
    }
    for (size_t i = 0; plan->profile && i < n; i++) {
        const struct bench_row *r = &rows[i];
        char name[MAX_CELL], title[MAX_CELL + 100];
        model_cell(r, name);
        snprintf(title, sizeof title, "%s: %s, threads %u, depth %u, batch %u", name,
                 test_name(r), r->threads, r->depth, r->batch);
        cli_profile_print(stdout, title, &r->profile);
        printf("\n");
    }
    printf("(kernels: %s; medians of %zu repetitions)\n", rows[0].level, plan->n_reps);
}

/* ---- CSV and JSON: the same fields in the same order ---- */

enum field_kind { FIELD_TEXT, FIELD_WHOLE, FIELD_REAL, FIELD_NONE };

/* JSON leaves a field that was not measured null, CSV empty. */
struct field {
    const char *name;
    enum field_kind kind;
    const char *text;
    double value;
};

enum { N_FIELDS = 21 };

static struct field text(const char *name, const char *value)
{
    return (struct field){name, FIELD_TEXT, value, 0};
}

static struct field whole(const char *name, uint64_t value)
{
    return (struct field){name, FIELD_WHOLE, NULL, (double)value};
}

static struct field real(const char *name, double value)
{
    return (struct field){name, FIELD_REAL, NULL, value};
}

static struct field measured(const char *name, double value, bool known)
{
    return (struct field){name, known ? FIELD_REAL : FIELD_NONE, NULL, value};
}

static void fields_of(const struct bench_row *r, struct field f[static N_FIELDS])
{
    bool b = r->bandwidth > 0, p = r->peak > 0;
    const struct field all[N_FIELDS] = {
        text("model", r->model),
        text("test", test_name(r)),
        whole("threads", r->threads),
        whole("depth", r->depth),
        whole("batch", r->batch),
        whole("tokens", r->tokens),
        real("tokens_per_second", r->tokens_per_second),
        real("spread", r->spread),
        real("bytes_per_token", r->bytes_per_token),
        measured("roofline_fraction", b ? bytes_per_second(r) / r->bandwidth : 0, b),
        measured("peak_fraction", p ? ops_per_second(r) / r->peak : 0, p),
        text("kv", r->kv),
        whole("file_bytes", r->file_bytes),
        real("load_seconds", r->load_seconds),
        real("first_token_seconds", r->first_token_seconds),
        whole("peak_bytes", r->peak_bytes),
        measured("bandwidth_bytes_per_second", r->bandwidth, b),
        measured("peak_ops_per_second", r->peak, p),
        real("ops_per_token", r->ops_per_token),
        real("ops_per_second", ops_per_second(r)),
        text("level", r->level),
    };
    memcpy(f, all, sizeof all);
}

static void put_number(const struct field *f)
{
    if (f->kind == FIELD_WHOLE)
        printf("%.0f", f->value);
    else if (f->kind == FIELD_REAL)
        printf("%.12g", f->value);
}

/* RFC 4180: quotes where a comma, a quote or the end of a line stands. */
static void put_csv_text(const char *s)
{
    if (!strpbrk(s, ",\"\r\n")) {
        printf("%s", s);
        return;
    }
    putchar('"');
    for (; *s; s++) {
        if (*s == '"')
            putchar('"');
        putchar(*s);
    }
    putchar('"');
}

static void print_csv(const struct bench_row *rows, size_t n)
{
    struct field f[N_FIELDS];
    fields_of(&rows[0], f);
    for (size_t k = 0; k < N_FIELDS; k++)
        printf("%s%s", k ? "," : "", f[k].name);
    putchar('\n');
    for (size_t i = 0; i < n; i++) {
        fields_of(&rows[i], f);
        for (size_t k = 0; k < N_FIELDS; k++) {
            if (k)
                putchar(',');
            if (f[k].kind == FIELD_TEXT)
                put_csv_text(f[k].text);
            else
                put_number(&f[k]);
        }
        putchar('\n');
    }
}

static void print_json(const struct bench_plan *plan, const struct bench_row *rows,
                       size_t n)
{
    struct field f[N_FIELDS];
    putchar('[');
    for (size_t i = 0; i < n; i++) {
        fields_of(&rows[i], f);
        printf("%s\n{", i ? "," : "");
        for (size_t k = 0; k < N_FIELDS; k++) {
            printf("%s\"%s\":", k ? "," : "", f[k].name);
            if (f[k].kind == FIELD_TEXT)
                cli_json_str(stdout, f[k].text, strlen(f[k].text));
            else if (f[k].kind == FIELD_NONE)
                printf("null");
            else
                put_number(&f[k]);
        }
        if (plan->profile) {
            printf(",\n \"profile\":");
            cli_profile_json(stdout, &rows[i].profile);
        }
        putchar('}');
    }
    printf("\n]\n");
}

void bench_print(enum cli_format format, const struct bench_plan *plan,
                 const struct bench_row *rows, size_t n)
{
    if (format == CLI_JSON)
        print_json(plan, rows, n);
    else if (format == CLI_CSV)
        print_csv(rows, n);
    else
        print_md(plan, rows, n);
}
