/* runt inspect: what is in a model file. */
#include "base/cursor.h"
#include "base/mem.h"
#include "cli/convert.h"
#include "cli/verbs.h"
#include "model/model.h"

#include <math.h>
#include <string.h>

static int run(int argc, char **argv);

const struct cli_verb verb_inspect = {
    .name = "inspect",
    .summary = "show a model file's metadata, sizes and tensors",
    .usage = "inspect MODEL [--tensors] [-o text|json]",
    .example = "runt inspect gpt2-q4.gguf --tensors",
    .about = "Shows what a model file holds: its shape, metadata, sizes and "
             "types.",
    .operands = {"MODEL"},
    .run = run,
};

/* Bytes and weights of each type that occurs. */
struct by_type {
    const struct fmt_info *fmt;
    size_t n_tensors;
    uint64_t n_weights, bytes;
};

enum { MAX_TYPES = 16 };

static size_t count_types(const struct gguf *g, struct by_type types[MAX_TYPES],
                          uint64_t *n_weights)
{
    size_t n = 0;
    *n_weights = 0;
    for (size_t i = 0; i < g->n_tensors; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        size_t k = 0;
        while (k < n && types[k].fmt != t->desc.fmt)
            k++;
        if (k == n && n == MAX_TYPES)
            continue;
        if (k == n)
            types[n++] = (struct by_type){.fmt = t->desc.fmt};
        types[k].n_tensors++;
        types[k].n_weights += t->desc.n_cols * t->desc.n_rows;
        types[k].bytes += t->bytes;
        *n_weights += t->desc.n_cols * t->desc.n_rows;
    }
    return n;
}

static void print_real(double x)
{
    if (isfinite(x))
        printf("%.9g", x);
    else
        printf("null"); /* JSON has no word for it */
}

/* A value of any type, arrays by their length.  Strings are shown as JSON both ways, so
 * that no file can drive a terminal. */
static void print_value(const struct gguf_kv *kv)
{
    struct cursor c = cur_make(kv->value, kv->bytes);
    switch (kv->type) {
    case GGUF_ARR:
        printf("\"%llu values\"", (unsigned long long)kv->n);
        break;
    case GGUF_STR: {
        uint64_t n = cur_u64(&c);
        const uint8_t *s = cur_bytes(&c, n);
        cli_json_str(stdout, (const char *)s, s ? (size_t)n : 0);
        break;
    }
    case GGUF_BOOL:
        printf(cur_u8(&c) ? "true" : "false");
        break;
    case GGUF_F32:
        print_real((double)cur_f32(&c));
        break;
    case GGUF_F64:
        print_real(cur_f64(&c));
        break;
    case GGUF_I8:
        printf("%d", (int8_t)cur_u8(&c));
        break;
    case GGUF_I16:
        printf("%d", (int16_t)cur_u16(&c));
        break;
    case GGUF_I32:
        printf("%d", (int32_t)cur_u32(&c));
        break;
    case GGUF_I64:
        printf("%lld", (long long)cur_u64(&c));
        break;
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
    case GGUF_U64:
        printf("%llu", (unsigned long long)cur_le(&c, (unsigned)kv->bytes));
        break;
    }
}

/* A name from the file, up to `max` bytes; one that is not plain ASCII as JSON. */
static void print_name(const char *s, size_t n, size_t max, int width)
{
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)s[i] < 0x20 || (unsigned char)s[i] > 0x7e) {
            cli_json_str(stdout, s, n < max ? n : max);
            return;
        }
    }
    printf("%-*.*s", width, (int)(n < max ? n : max), s);
}

static void print_json(const struct gguf *g, const struct by_type *types,
                       size_t n_types, uint64_t n_weights, bool tensors)
{
    printf("{\"file\":");
    cli_json_str(stdout, g->path, strlen(g->path));
    printf(
        ",\"file_bytes\":%zu,\"version\":%u,\"weights\":%llu,\"bits_per_weight\":%.6f,"
        "\"metadata\":{",
        g->file_bytes, g->version, (unsigned long long)n_weights,
        8 * (double)g->file_bytes / (double)(n_weights ? n_weights : 1));
    for (size_t i = 0; i < g->n_kv; i++) {
        printf("%s\n", i ? "," : "");
        cli_json_str(stdout, g->kv[i].key.data, g->kv[i].key.len);
        putchar(':');
        print_value(&g->kv[i]);
    }
    printf("},\n\"types\":{");
    for (size_t i = 0; i < n_types; i++)
        printf("%s\"%s\":{\"tensors\":%zu,\"weights\":%llu,\"bytes\":%llu}",
               i ? "," : "", types[i].fmt->name, types[i].n_tensors,
               (unsigned long long)types[i].n_weights,
               (unsigned long long)types[i].bytes);
    printf("},\"tensor_count\":%zu", g->n_tensors);
    for (size_t i = 0; tensors && i < g->n_tensors; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        printf("%s\n{\"name\":", i ? "," : ",\"tensors\":[");
        cli_json_str(stdout, t->desc.name, strlen(t->desc.name));
        printf(",\"type\":\"%s\",\"rows\":%llu,\"columns\":%llu,\"bytes\":%zu}",
               t->desc.fmt->name, (unsigned long long)t->desc.n_rows,
               (unsigned long long)t->desc.n_cols, t->bytes);
    }
    printf("%s}\n", tensors && g->n_tensors ? "]" : "");
}

static void print_text(const struct gguf *g, const struct by_type *types,
                       size_t n_types, uint64_t n_weights, bool tensors)
{
    char size[32];
    printf("file             %s\n", g->path);
    printf("size             %s (%zu bytes), GGUF version %u\n",
           cli_bytes(g->file_bytes, size), g->file_bytes, g->version);
    printf("weights          %llu in %zu tensors, %.3f bits each over the whole file\n",
           (unsigned long long)n_weights, g->n_tensors,
           8 * (double)g->file_bytes / (double)(n_weights ? n_weights : 1));
    for (size_t i = 0; i < n_types; i++)
        printf("  %-6s         %zu tensors, %llu weights, %s\n", types[i].fmt->name,
               types[i].n_tensors, (unsigned long long)types[i].n_weights,
               cli_bytes(types[i].bytes, size));
    printf("metadata\n");
    for (size_t i = 0; i < g->n_kv; i++) {
        printf("  ");
        print_name(g->kv[i].key.data, g->kv[i].key.len, 60, 42);
        putchar(' ');
        print_value(&g->kv[i]);
        putchar('\n');
    }
    if (tensors)
        printf("tensors\n");
    for (size_t i = 0; tensors && i < g->n_tensors; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        printf("  ");
        print_name(t->desc.name, strlen(t->desc.name), TENSOR_NAME_MAX, 30);
        printf(" %-5s %8llu x %-8llu %12zu bytes\n", t->desc.fmt->name,
               (unsigned long long)t->desc.n_rows, (unsigned long long)t->desc.n_cols,
               t->bytes);
    }
}

static int run(int argc, char **argv)
{
    const struct cli_verb *v = &verb_inspect;
    const char *model = NULL, *format_name = "text";
    bool tensors = false;
    struct cli_option options[] = {
        {"--model", "-m", CLI_STR, &model, "MODEL", "the same as the argument", 0, 0},
        {"--tensors", NULL, CLI_FLAG, &tensors, NULL, "list the tensors too", 0, 0},
        {"--output", "-o", CLI_STR, &format_name, "FORMAT text json", "text or json", 0,
         0},
        {0},
    };
    struct cli_args args;
    int rc = cli_parse(v, options, argc, argv, 0, 1, &args);
    if (rc)
        return rc;
    struct runt_err err = {0};
    enum cli_format format = CLI_TEXT;
    struct gguf *g = NULL;
    char *path = NULL;
    if (args.n_pos)
        model = args.pos[0];
    rc = cli_format_parse(v, format_name, "text,json", &format);
    if (!rc && !model)
        rc = cli_misuse(v, "which model?");
    if (rc)
        goto out;
    rc = convert_model_path(model, &path, &err);
    if (!rc)
        rc = gguf_open(path, &g, &err);
    if (rc) {
        rc = cli_fail(v, &err);
        goto out;
    }
    struct by_type types[MAX_TYPES];
    uint64_t n_weights;
    size_t n_types = count_types(g, types, &n_weights);
    if (format == CLI_JSON)
        print_json(g, types, n_types, n_weights, tensors);
    else
        print_text(g, types, n_types, n_weights, tensors);
out:
    gguf_close(g);
    mem_free(path);
    cli_free(options, &args);
    return rc;
}
