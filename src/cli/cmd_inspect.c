/* runt inspect: what is in a model file. */
#include "base/mem.h"
#include "cli/convert.h"
#include "cli/verbs.h"
#include "model/model.h"

#include <string.h>

static int run(int argc, char **argv);

const struct cli_verb verb_inspect = {
    .name = "inspect",
    .summary = "show a model file's metadata, sizes and tensors",
    .usage = "inspect MODEL [--tensors] [-o text|json]",
    .example = "runt inspect gpt2-q4.gguf --tensors",
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

/* A value of any type, arrays by their length.  Strings are shown as JSON both ways, so
 * that no file can drive a terminal. */
static void print_value(const struct gguf *g, const struct gguf_kv *kv)
{
    char key[256];
    struct gguf_str s;
    uint64_t u;
    float f;
    snprintf(key, sizeof key, "%.*s", (int)(kv->key.len < 255 ? kv->key.len : 255),
             kv->key.data);
    if (kv->type == GGUF_ARR)
        printf("\"%llu values\"", (unsigned long long)kv->n);
    else if (kv->type == GGUF_STR && !gguf_get_str(g, key, &s, NULL))
        cli_json_str(stdout, s.data, s.len);
    else if (kv->type == GGUF_BOOL && !gguf_get_uint(g, key, 1, &u, NULL))
        printf(u ? "true" : "false");
    else if ((kv->type == GGUF_F32 || kv->type == GGUF_F64) &&
             !gguf_get_f32(g, key, &f, NULL))
        printf("%.9g", (double)f);
    else if (!gguf_get_uint(g, key, UINT64_MAX, &u, NULL))
        printf("%llu", (unsigned long long)u);
    else
        printf("null");
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
        print_value(g, &g->kv[i]);
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
        int n = (int)(g->kv[i].key.len < 60 ? g->kv[i].key.len : 60);
        printf("  %-42.*s ", n, g->kv[i].key.data);
        print_value(g, &g->kv[i]);
        putchar('\n');
    }
    if (tensors)
        printf("tensors\n");
    for (size_t i = 0; tensors && i < g->n_tensors; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        printf("  %-30s %-5s %8llu x %-8llu %12zu bytes\n", t->desc.name,
               t->desc.fmt->name, (unsigned long long)t->desc.n_rows,
               (unsigned long long)t->desc.n_cols, t->bytes);
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
        {"--output", "-o", CLI_STR, &format_name, "FORMAT", "text or json", 0, 0},
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
