/* runt merge: a model with adapters made part of its weights. */
#include "base/err.h"
#include "base/mem.h"
#include "cli/cli_adapter.h"
#include "cli/convert.h"
#include "cli/verbs.h"
#include "model/adapter.h"
#include "model/model.h"
#include "model/model_vocab.h"

#include <string.h>

static int run(int argc, char **argv);

const struct cli_verb verb_merge = {
    .name = "merge",
    .summary = "make adapters part of a model's weights",
    .usage = "merge MODEL ADAPTER[:SCALE]... -o OUT.gguf [options]",
    .example = "runt merge gpt2.gguf tuned/adapter.gguf -o tuned.gguf\n"
               "runt merge gpt2.gguf a/best.gguf:0.5 b/best.gguf:0.5 -o both.gguf",
    .about =
        "Adds adapters, as 'runt train --lora' makes them, to the weights that they "
        "were made for: the result is a model by itself, which computes what the "
        "model with its adapters computes, and is rounded as any other.",
    .operands = {"MODEL", "FILE"},
    .run = run,
};

struct merge {
    struct gguf *base;
    struct gpt2_shape shape;
    struct adapter **adapters; /* [n] */
    float *scales;
    size_t n;
    struct adapter_merged *merged;
};

static int open_adapters(struct merge *m, const char **items, size_t n, const char *out,
                         struct runt_err *err)
{
    uint64_t base = 0;
    m->adapters = mem_array(n, sizeof(struct adapter *));
    m->scales = mem_array(n, sizeof *m->scales);
    if (!m->adapters || !m->scales)
        return err_nomem(err, "adapters");
    int rc = adapter_base(&m->base->source, &m->shape, &base, err);
    for (; m->n < n && !rc; m->n++) {
        char *path = NULL;
        rc = cli_adapter_split(items[m->n], &path, &m->scales[m->n], err);
        if (!rc)
            rc = convert_check_out(path, out, err);
        if (!rc)
            rc = adapter_open(path, &m->shape, &m->adapters[m->n], err);
        const struct adapter *a = m->adapters[m->n];
        if (!rc && a->has_base && a->base != base)
            cli_adapter_note(stderr, path);
        mem_free(path);
    }
    return rc;
}

static void merge_close(struct merge *m)
{
    adapter_merged_close(m->merged);
    for (size_t i = 0; i < m->n; i++)
        adapter_close(m->adapters[i]);
    mem_free(m->adapters);
    mem_free(m->scales);
    gguf_close(m->base);
}

/* Matrices in blocks would lose by a second rounding what the adapter has taught:
 * without a type asked for they become halves. */
static const struct fmt_info *type_for(const struct gguf *base)
{
    for (size_t i = 0; i < base->n_tensors; i++)
        if (!base->tensors[i].desc.fmt->is_float)
            return fmt_find(FMT_F16);
    return NULL;
}

static int write_merged(const struct merge *m, const char *out,
                        const struct quant_options *o, struct quant_report *report,
                        struct runt_err *err)
{
    struct gguf_writer *w = NULL;
    int rc = gguf_writer_create(&w, err);
    if (!rc)
        rc = model_copy_meta(w, m->base, o->fmt, err);
    for (size_t i = 0; i < m->n && !rc; i++) {
        const char *t = m->adapters[i]->chat_template;
        if (t)
            gguf_set_str(w, "tokenizer.chat_template", t, strlen(t));
    }
    if (!rc)
        rc = quant_write(adapter_merged_source(m->merged), w, out, o, report, err);
    gguf_writer_destroy(w);
    return rc;
}

/* pos: the model, then adapters. */
static int merge(const struct cli_args *args, const char *out, struct quant_options *o,
                 struct quant_report *report, struct runt_err *err)
{
    struct merge m = {.n = 0};
    char *in = NULL;
    int rc = convert_model_path(args->pos[0], &in, err);
    if (!rc)
        rc = convert_check_out(in, out, err);
    if (!rc)
        rc = gguf_open(in, &m.base, err);
    if (!rc)
        rc = model_read_shape(m.base, &m.shape, err);
    if (!rc)
        rc = open_adapters(&m, args->pos + 1, args->n_pos - 1, out, err);
    if (!rc)
        rc = adapter_merged_open(&m.base->source, m.adapters, m.scales, m.n, &m.merged,
                                 err);
    if (!rc && !o->fmt)
        o->fmt = type_for(m.base);
    if (!rc)
        rc = write_merged(&m, out, o, report, err);
    cli_progress_done();
    merge_close(&m);
    mem_free(in);
    return rc;
}

static int run(int argc, char **argv)
{
    const struct cli_verb *v = &verb_merge;
    const char *out = NULL, *type = NULL;
    int64_t n_threads = 0;
    bool quiet = false;
    struct cli_option options[] = {
        {"--out", "-o", CLI_STR, &out, "FILE", "the model file to write", 0, 0},
        {"--type", NULL, CLI_STR, &type, "TYPE",
         "of its matrices; else floats as the model's are, f16 of one in blocks", 0, 0},
        {"--quiet", "-q", CLI_FLAG, &quiet, NULL, "no report", 0, 0},
        {"--threads", "-t", CLI_INT, &n_threads, "N", "threads, 0: one for each core",
         0, POOL_MAX_THREADS},
        {0},
    };
    struct cli_args args;
    int rc = cli_parse(v, options, argc, argv, 2, SIZE_MAX, &args);
    if (rc)
        return rc;
    struct runt_err err = {0};
    struct quant_options o = {.progress = cli_progress};
    struct quant_report report = {0};
    if (!out)
        rc = cli_misuse(v, "where to? name the file with -o");
    if (!rc && type)
        rc = convert_type(v, type, &o.fmt);
    if (rc)
        goto out;
    cli_catch_interrupt();
    double t0 = cli_seconds();
    rc = pool_create((unsigned)n_threads, &o.pool, &err);
    if (!rc)
        rc = merge(&args, out, &o, &report, &err);
    if (rc)
        rc = cli_fail(v, &err);
    else if (!quiet)
        convert_print_report(stdout, CLI_TEXT, out, &report, cli_seconds() - t0);
out:
    quant_report_free(&report);
    pool_destroy(o.pool);
    cli_free(options, &args);
    return rc;
}
