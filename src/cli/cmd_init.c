/* runt init: a model of random weights, at any GPT-2 shape. */
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/convert.h"
#include "cli/verbs.h"
#include "import/import.h"
#include "model/model.h"
#include "model/model_vocab.h"

#include <string.h>
#include <strings.h>

static int run(int argc, char **argv);

const struct cli_verb verb_init = {
    .name = "init",
    .summary = "make a model of random weights, for tests, benchmarks and training",
    .usage = "init gpt2 -o OUT [--size 124M] [options]",
    .example =
        "runt init gpt2 --size 124M --seed 1 -o random.gguf\n"
        "runt init gpt2 --layers 3 --heads 5 --embd 100 --vocab 300 --context 64 "
        "-o odd.gguf\n"
        "runt init gpt2 --size 355M --format hf -o random-checkpoint",
    .about = "Writes a model with random weights, as training starts from: a "
             "model file, or a checkpoint folder. Without --tokenizer its "
             "vocabulary is made up, which is enough to measure speed.",
    .operands = {"WHAT gpt2"},
    .run = run,
};

/* Radford et al. 2019, table 2; the counts are those of the released models. */
static const struct {
    const char *name;
    uint32_t n_layer, n_head, n_embd;
} sizes[] = {
    {"124M", 12, 12, 768},
    {"355M", 24, 16, 1024},
    {"774M", 36, 20, 1280},
    {"1.5B", 48, 25, 1600},
};

static int write_gguf(const char *path, const struct gpt2_shape *s,
                      const struct tok_vocab *v, const struct tensor_source *src,
                      const struct quant_options *o, struct runt_err *err)
{
    struct gguf_writer *w = NULL;
    struct quant_report report = {0};
    int rc = gguf_writer_create(&w, err);
    if (rc)
        return rc;
    rc = model_write_meta_for(w, s, v, "random", o->fmt, err);
    if (!rc)
        rc = quant_write(src, w, path, o, &report, err);
    cli_progress_done();
    convert_print_notes(stderr, &report);
    quant_report_free(&report);
    gguf_writer_destroy(w);
    return rc;
}

static int write_hf(const char *dir, const struct gpt2_shape *s,
                    const struct tok_vocab *v, const struct tensor_source *src,
                    const struct fmt_info *fmt, struct runt_err *err)
{
    int rc = file_make_dirs(dir, err);
    if (!rc)
        rc = hf_write_dir(dir, s, src, fmt, cli_progress, NULL, err);
    return rc ? rc : tok_vocab_save(v, dir, err);
}

static int find_size(const struct cli_verb *v, const char *name, struct gpt2_shape *s)
{
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (strcasecmp(sizes[i].name, name))
            continue;
        s->n_layer = sizes[i].n_layer;
        s->n_head = sizes[i].n_head;
        s->n_embd = sizes[i].n_embd;
        return 0;
    }
    return cli_misuse(v, "unknown size '%s'; the sizes are 124M, 355M, 774M, 1.5B",
                      name);
}

static int make(const struct gpt2_shape *shape, const char *tokenizer, int64_t seed,
                bool hf, const char *out, const struct quant_options *o,
                struct runt_err *err)
{
    struct gpt2_shape s = *shape;
    struct tok_vocab v = {0};
    struct model_random *r = NULL;
    int rc = tokenizer ? tok_vocab_load(tokenizer, &v, err)
                       : tok_vocab_synthetic(s.n_vocab ? s.n_vocab : 50257, &v, err);
    if (rc)
        goto out;
    if (!s.n_vocab)
        s.n_vocab = (uint32_t)v.n_tokens;
    if (v.n_tokens > s.n_vocab) {
        rc = err_set(err, RUNT_E_INVALID, "%s has %zu tokens, more than --vocab %u",
                     tokenizer, v.n_tokens, s.n_vocab);
        goto out;
    }
    rc = tok_vocab_pad(&v, s.n_vocab, err);
    s.bos = v.bos;
    s.eos = v.eos;
    if (!rc)
        rc = model_random_open(&s, (uint64_t)seed, &r, err);
    if (!rc && hf)
        rc = write_hf(out, &s, &v, model_random_source(r),
                      o->fmt ? o->fmt : fmt_find(FMT_F32), err);
    else if (!rc)
        rc = write_gguf(out, &s, &v, model_random_source(r), o, err);
out:
    model_random_close(r);
    tok_vocab_free(&v);
    return rc;
}

static int run(int argc, char **argv)
{
    const struct cli_verb *v = &verb_init;
    const char *size = "124M", *out = NULL, *tokenizer = NULL, *format = "gguf",
               *type = NULL;
    int64_t layers = 0, heads = 0, embd = 0, vocab = 0, context = 1024, ff = 0,
            seed = 0, n_threads = 0;
    bool untied = false;
    struct cli_option options[] = {
        {"--output", "-o", CLI_STR, &out, "OUT",
         "model file, or folder with --format hf", 0, 0},
        {"--size", NULL, CLI_STR, &size, "SIZE 124M 355M 774M 1.5B",
         "124M, 355M, 774M or 1.5B", 0, 0},
        {"--layers", NULL, CLI_INT, &layers, "N", "blocks, 0: the size's", 0, 1024},
        {"--heads", NULL, CLI_INT, &heads, "N", "heads, 0: the size's", 0, 65536},
        {"--embd", NULL, CLI_INT, &embd, "N", "width, 0: the size's", 0, 65536},
        {"--ff", NULL, CLI_INT, &ff, "N", "feed-forward width, 0: 4 x width", 0,
         1 << 20},
        {"--vocab", NULL, CLI_INT, &vocab, "N", "tokens, 0: the tokenizer's, or 50257",
         0, 1 << 22},
        {"--context", NULL, CLI_INT, &context, "N", "positions", 1, 1 << 20},
        {"--untied", NULL, CLI_FLAG, &untied, NULL, "a head of its own", 0, 0},
        {"--tokenizer", NULL, CLI_STR, &tokenizer, "DIR",
         "vocab.json and merges.txt; without it a made-up vocabulary", 0, 0},
        {"--seed", "-s", CLI_INT, &seed, "N", "seed of the weights", 0, 9e18},
        {"--type", NULL, CLI_STR, &type, "TYPE", "type of the matrices; f32 without", 0,
         0},
        {"--format", NULL, CLI_STR, &format, "FORMAT gguf hf", "gguf or hf", 0, 0},
        {"--threads", "-t", CLI_INT, &n_threads, "N", "threads, 0: one for each core",
         0, POOL_MAX_THREADS},
        {0},
    };
    struct cli_args args;
    int rc = cli_parse(v, options, argc, argv, 1, 1, &args);
    if (rc)
        return rc;
    struct runt_err err = {0};
    struct quant_options o = {.progress = cli_progress};
    struct gpt2_shape s = {.n_ctx = (uint32_t)context, .eps = 1e-5f, .tied = !untied};
    bool hf = !strcasecmp(format, "hf");
    if (strcasecmp(args.pos[0], "gpt2"))
        rc = cli_misuse(v, "unknown architecture '%s'; only gpt2", args.pos[0]);
    else if (!out)
        rc = cli_misuse(v, "where to? name the output with -o");
    else if (!hf && strcasecmp(format, "gguf"))
        rc = cli_misuse(v, "--format takes gguf or hf, not '%s'", format);
    else
        rc = find_size(v, size, &s);
    if (!rc && type)
        rc = convert_type(v, type, &o.fmt);
    if (!rc && hf && o.fmt && !o.fmt->is_float)
        rc = cli_misuse(v, "--format hf holds float types only, not %s", o.fmt->name);
    if (rc)
        goto out;
    s.n_layer = layers ? (uint32_t)layers : s.n_layer;
    s.n_head = heads ? (uint32_t)heads : s.n_head;
    s.n_embd = embd ? (uint32_t)embd : s.n_embd;
    s.n_ff = ff ? (uint32_t)ff : 4 * s.n_embd;
    s.n_vocab = (uint32_t)vocab;
    if (s.n_embd % s.n_head) {
        rc = cli_misuse(v, "a width of %u is not a multiple of %u heads", s.n_embd,
                        s.n_head);
        goto out;
    }
    cli_catch_interrupt();
    rc = pool_create((unsigned)n_threads, &o.pool, &err);
    if (!rc)
        rc = make(&s, tokenizer, seed, hf, out, &o, &err);
    cli_progress_done();
    if (!rc && !tokenizer && s.n_vocab && s.n_vocab < 257)
        fprintf(stderr, "note: %u tokens are too few to spell every text\n", s.n_vocab);
    if (rc)
        rc = cli_fail(v, &err);
    else
        fprintf(stderr, "%s: GPT-2 of %u blocks, %u heads, width %u, context %u\n", out,
                s.n_layer, s.n_head, s.n_embd, s.n_ctx);
out:
    pool_destroy(o.pool);
    cli_free(options, &args);
    return rc;
}
