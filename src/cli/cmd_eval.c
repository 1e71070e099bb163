/* runt eval: perplexity of a model on a text, and its divergence from a base model. */
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/pool.h"
#include "cli/cli_session.h"
#include "cli/convert.h"
#include "cli/verbs.h"
#include "eval/eval.h"

#include <math.h>

static int run(int argc, char **argv);

const struct cli_verb verb_eval = {
    .name = "eval",
    .summary = "measure perplexity, and divergence from a float model",
    .usage = "eval -m MODEL -f TEXT [--base FLOATMODEL] [options]",
    .example = "runt eval -m gpt2-q4.gguf --base gpt2.gguf -f text.txt --window 1024",
    .run = run,
};

static void put(const char *key, double value, double se)
{
    if (isfinite(value) && isfinite(se))
        printf(",\"%s\":%.17g,\"%s_se\":%.17g", key, value, key, se);
    else
        printf(",\"%s\":null,\"%s_se\":null", key, key);
}

static void print_json(const struct eval_result *r, double seconds)
{
    printf("{\"tokens\":%zu,\"stream_tokens\":%zu,\"window\":%zu,\"stride\":%zu",
           r->n_scored, r->n_tokens, r->window, r->stride);
    put("perplexity", r->perplexity, r->perplexity_se);
    put("nll", r->nll.mean, r->nll.se);
    put("bits_per_byte", r->bits_per_byte.mean, r->bits_per_byte.se);
    if (r->has_base) {
        put("kl_mean", r->kl.mean, r->kl.se);
        put("kl_p99", r->kl_p99, r->kl_p99_se);
        put("top1", r->top1.mean, r->top1.se);
        put("base_perplexity", r->base_perplexity, r->base_perplexity_se);
    }
    printf(",\"seconds\":%.3f}\n", seconds);
}

static void print_text(const struct eval_result *r, double seconds)
{
    printf("tokens scored   %zu of %zu (window %zu, stride %zu)\n", r->n_scored,
           r->n_tokens, r->window, r->stride);
    printf("perplexity      %.6f +- %.6f\n", r->perplexity, r->perplexity_se);
    printf("bits per byte   %.6f +- %.6f\n", r->bits_per_byte.mean,
           r->bits_per_byte.se);
    if (r->has_base) {
        printf("base perplexity %.6f +- %.6f (ratio %.6f)\n", r->base_perplexity,
               r->base_perplexity_se, r->perplexity / r->base_perplexity);
        printf("KL mean         %.8f +- %.8f nats\n", r->kl.mean, r->kl.se);
        printf("KL 99%%          %.8f +- %.8f nats\n", r->kl_p99, r->kl_p99_se);
        printf("top-1 agreement %.4f%% +- %.4f%%\n", 100 * r->top1.mean,
               100 * r->top1.se);
    }
    printf("time            %.2f s, %.0f tokens/s\n", seconds,
           (double)r->n_scored / seconds);
}

static int run(int argc, char **argv)
{
    const struct cli_verb *v = &verb_eval;
    const char *model_name = NULL, *base_name = NULL, *text_path = NULL,
               *format_name = "text", *kv_name = "auto";
    int64_t window = 0, stride = 0, max_tokens = 0, n_threads = 0;
    struct cli_option options[] = {
        {"--model", "-m", CLI_STR, &model_name, "MODEL", "model file or ORG/NAME", 0,
         0},
        {"--file", "-f", CLI_STR, &text_path, "TEXT",
         "text file, - for standard input; <|endoftext|> in it is the token", 0, 0},
        {"--base", NULL, CLI_STR, &base_name, "MODEL",
         "compare with this float model: KL divergence, top-1 agreement", 0, 0},
        {"--window", NULL, CLI_INT, &window, "N", "tokens a window, 0: the context", 0,
         1 << 20},
        {"--stride", NULL, CLI_INT, &stride, "N",
         "tokens from window to window, 0: all", 0, 1 << 20},
        {"--max-tokens", NULL, CLI_INT, &max_tokens, "N", "only the first N, 0: all", 0,
         1e15},
        CLI_KV_OPTION(kv_name),
        {"--output", "-o", CLI_STR, &format_name, "FORMAT", "text or json", 0, 0},
        {"--threads", "-t", CLI_INT, &n_threads, "N", "threads, 0: one for each core",
         0, POOL_MAX_THREADS},
        {0},
    };
    struct cli_args args;
    int rc = cli_parse(v, options, argc, argv, 0, 0, &args);
    if (rc)
        return rc;
    struct runt_err err = {0};
    enum cli_format format = CLI_TEXT;
    enum runt_kv kv = RUNT_KV_AUTO;
    runt_model *m = NULL, *base = NULL;
    char *text = NULL;
    size_t n_text = 0;
    rc = cli_format_parse(v, format_name, "text,json", &format);
    if (!rc)
        rc = cli_kv_parse(v, kv_name, &kv);
    if (!rc && (!model_name || !text_path))
        rc = cli_misuse(v, "needs a model (-m) and a text (-f)");
    if (rc)
        goto out;
    cli_catch_interrupt();
    struct eval_options o = {.window = (size_t)window,
                             .stride = (size_t)stride,
                             .max_tokens = (size_t)max_tokens,
                             .n_threads = (unsigned)n_threads,
                             .kv = kv,
                             .progress = cli_progress};
    struct eval_result r;
    double t0 = cli_seconds();
    rc = convert_model_load(model_name, &m, &err);
    if (!rc && base_name)
        rc = convert_model_load(base_name, &base, &err);
    if (!rc)
        rc = file_read(text_path, (size_t)1 << 30, &text, &n_text, &err);
    if (!rc) {
        rc = eval_text(m, base, text, n_text, &o, &r, &err);
        if (rc == RUNT_E_INVALID)
            err_prefix(&err, "%s", text_path);
    }
    cli_progress_done();
    if (rc)
        rc = cli_fail(v, &err);
    else if (format == CLI_JSON)
        print_json(&r, cli_seconds() - t0);
    else
        print_text(&r, cli_seconds() - t0);
out:
    mem_free(text);
    runt_model_free(m);
    runt_model_free(base);
    cli_free(options, &args);
    return rc;
}
