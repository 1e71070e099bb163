/* runt quantize: a model file with its weights in another type. */
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/convert.h"
#include "cli/verbs.h"
#include "model/model.h"
#include "model/model_vocab.h"

#include <string.h>
#include <sys/stat.h>

enum { MAX_TEXT = 1 << 30 };

static int run(int argc, char **argv);

const struct cli_verb verb_quantize = {
    .name = "quantize",
    .summary = "round a model's weights to fewer bits",
    .usage = "quantize IN.gguf OUT.gguf TYPE [options]",
    .example = "runt quantize gpt2.gguf gpt2-q4.gguf q4_0\n"
               "runt quantize gpt2.gguf mixed.gguf q4_0 --tensor 'token_embd=q8_0'\n"
               "runt quantize gpt2.gguf best.gguf r4 --calib text.txt --save-calib c",
    .run = run,
};

/* The input's metadata, the vocabulary in the type's form; quant_write then corrects
 * the type. */
static int quantize(const char *in, const char *out, const struct quant_options *o,
                    struct quant_report *report, struct runt_err *err)
{
    struct gguf *g = NULL;
    struct gguf_writer *w = NULL;
    struct gpt2_shape shape;
    int rc = gguf_open(in, &g, err);
    if (!rc)
        rc = model_read_shape(g, &shape, err);
    if (!rc)
        rc = gguf_writer_create(&w, err);
    if (rc)
        goto out;
    rc = model_copy_meta(w, g, o->fmt, err);
    if (!rc)
        rc = quant_write(&g->source, w, out, o, report, err);
out:
    gguf_writer_destroy(w);
    gguf_close(g);
    return rc;
}

/* What the command line says about calibration. */
struct request {
    const char *text, *save, *load;
    int64_t n_tokens, window, seed;
};

static bool calibrates(const struct request *q)
{
    return q->text || q->save || q->load || q->n_tokens;
}

/* A kept calibration, if it is whole and this model's. */
static int load_calib(const char *path, const runt_model *m, struct calib *out,
                      struct runt_err *err)
{
    struct calib c;
    int rc = calib_load(path, &c, err);
    if (rc)
        return rc;
    if (c.model != model_fingerprint(m))
        rc = err_set(err, RUNT_E_INVALID, "%s: the calibration of another model", path);
    else if (c.n_tokens < c.n_wanted)
        rc = err_set(err, RUNT_E_INVALID,
                     "%s: interrupted after %zu of %zu tokens; go on with --save-calib",
                     path, c.n_tokens, c.n_wanted);
    if (rc)
        calib_free(&c);
    else
        *out = c;
    return rc;
}

/* From a file, from a text, or from what the model itself writes. */
static int calibrate(const char *in, const struct request *q, unsigned n_threads,
                     struct calib *out, struct runt_err *err)
{
    runt_model *m = NULL;
    int32_t *ids = NULL;
    char *text = NULL;
    size_t n = 0, n_text = 0;
    struct calib_options o = {.name = q->text ? q->text : "the model's own text",
                              .n_tokens = (size_t)q->n_tokens,
                              .window = (size_t)q->window,
                              .n_threads = n_threads,
                              .save = q->save,
                              .progress = cli_progress};
    int rc = runt_model_load(in, &m, err);
    if (!rc && q->load) {
        rc = load_calib(q->load, m, out, err);
        goto out;
    }
    if (!rc && q->text)
        rc = file_read(q->text, MAX_TEXT, &text, &n_text, err);
    if (!rc && q->text && n_text && memchr(text, 0, n_text))
        rc =
            err_set(err, RUNT_E_INVALID, "%s: not a text (it has a NUL byte)", q->text);
    if (!rc && q->text)
        rc = runt_tokenize(m, text, n_text, true, &ids, &n, err);
    else if (!rc)
        rc = calib_sample(m, (uint64_t)q->seed, &o, &ids, &n, err);
    if (!rc)
        rc = calib_gather(m, ids, n, &o, out, err);
out:
    mem_free(text);
    runt_free(ids);
    runt_model_free(m);
    return rc;
}

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int run(int argc, char **argv)
{
    const struct cli_verb *v = &verb_quantize;
    const char *format_name = "text";
    struct cli_list tensors = {0};
    int64_t n_threads = 0;
    bool untie = false, quiet = false;
    struct request q = {0};
    struct cli_option options[] = {
        {"--tensor", NULL, CLI_LIST, &tensors, "REGEX=TYPE",
         "another type for the tensors whose name matches; the last match wins", 0, 0},
        {"--calib", NULL, CLI_STR, &q.text, "FILE",
         "round with feedback, for inputs as this text makes them", 0, 0},
        {"--calib-tokens", NULL, CLI_INT, &q.n_tokens, "N",
         "tokens of it (131072); without --calib, of text that the model writes", 0,
         1 << 30},
        {"--calib-window", NULL, CLI_INT, &q.window, "N",
         "tokens that see each other, 0: the model's context", 0, 1 << 20},
        {"--calib-seed", NULL, CLI_INT, &q.seed, "N",
         "of the text that the model writes", 0, 1e15},
        {"--save-calib", NULL, CLI_STR, &q.save, "FILE",
         "keep the calibration, and go on from it after an interruption", 0, 0},
        {"--load-calib", NULL, CLI_STR, &q.load, "FILE", "use a kept one", 0, 0},
        {"--untie", NULL, CLI_FLAG, &untie, NULL,
         "store the token table again as output.weight, for old loaders", 0, 0},
        {"--output", "-o", CLI_STR, &format_name, "FORMAT", "report as text or json", 0,
         0},
        {"--quiet", "-q", CLI_FLAG, &quiet, NULL, "no report", 0, 0},
        {"--threads", "-t", CLI_INT, &n_threads, "N", "threads, 0: one for each core",
         0, POOL_MAX_THREADS},
        {0},
    };
    struct cli_args args;
    int rc = cli_parse(v, options, argc, argv, 3, 3, &args);
    if (rc)
        return rc;
    struct runt_err err = {0};
    struct quant_options o = {.untie = untie, .progress = cli_progress};
    struct quant_override *overrides = NULL;
    struct quant_report report = {0};
    struct calib calib = {0};
    enum cli_format format = CLI_TEXT;
    char *in = NULL;
    rc = cli_format_parse(v, format_name, "text,json", &format);
    if (!rc)
        rc = convert_type(v, args.pos[2], &o.fmt);
    if (!rc)
        rc = convert_overrides(v, &tensors, &overrides);
    if (!rc && q.load && (q.text || q.save || q.n_tokens))
        rc = cli_misuse(v, "--load-calib takes the place of the other --calib options");
    if (rc)
        goto out;
    o.overrides = overrides;
    o.n_overrides = tensors.n;
    cli_catch_interrupt();
    double t0 = cli_seconds();
    rc = convert_model_path(args.pos[0], &in, &err);
    if (!rc && same_file(in, args.pos[1]))
        rc = err_set(&err, RUNT_E_INVALID,
                     "%s is the input too; name another file, or its weights are lost",
                     args.pos[1]);
    if (!rc)
        rc = pool_create((unsigned)n_threads, &o.pool, &err);
    if (!rc && calibrates(&q)) {
        rc = calibrate(in, &q, (unsigned)n_threads, &calib, &err);
        o.calib = &calib;
    }
    if (!rc)
        rc = quantize(in, args.pos[1], &o, &report, &err);
    cli_progress_done();
    if (rc)
        rc = cli_fail(v, &err);
    else if (!quiet)
        convert_print_report(stdout, format, args.pos[1], &report, cli_seconds() - t0);
out:
    quant_report_free(&report);
    calib_free(&calib);
    pool_destroy(o.pool);
    convert_overrides_free(overrides, tensors.n);
    mem_free(in);
    cli_free(options, &args);
    return rc;
}
