/* runt eval: what a model is worth.  On a text, perplexity and divergence from a base
 * model; on tasks, accuracy; of its own long answers, how they derail. */
#include "base/err.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/unpack.h"
#include "cli/answer.h"
#include "cli/cli_adapter.h"
#include "cli/cli_session.h"
#include "cli/convert.h"
#include "cli/device.h"
#include "cli/eval_print.h"
#include "cli/verbs.h"
#include "train/net_eval.h"

#include <string.h>

static int run(int argc, char **argv);

const struct cli_verb verb_eval = {
    .name = "eval",
    .summary = "measure perplexity, divergence from a float model, tasks, derailment",
    .usage = "eval -m MODEL -f FILE [--base FLOATMODEL] [--task NAME | --derail] "
             "[options]",
    .example = "runt eval -m gpt2-q4.gguf --base gpt2.gguf -f text.txt --window 1024\n"
               "runt eval -m gpt2-q4.gguf --task lambada -f lambada.jsonl\n"
               "runt eval -m gpt2-q4.gguf --derail --base gpt2.gguf -f prompts.txt",
    .about = "Measures what a model is worth on a text: perplexity, and beside a "
             "float model how far its predictions are (KL divergence). With "
             "--task it scores tasks, with --derail it answers prompts at length "
             "and counts loops.",
    .run = run,
};

enum { MAX_FILE = 1 << 30 };

struct request {
    const char *model_name, *base_name, *path, *task_name;
    enum task_kind task;
    bool derail;
    int64_t window, stride, max_tokens, limit, n_tokens, n_samples, show, n_threads;
    struct cli_sampler sampler;
    struct cli_list adapters;
    enum runt_kv kv;
    enum cli_format format;
    enum device_choice device;
    const struct eval_scorer *scorer; /* the device's, or NULL */
};

/* ---- the three measures: load nothing, print nothing but the report ---- */

static int on_text(const struct request *q, const runt_model *m, const runt_model *base,
                   const char *text, size_t n, double t0, struct runt_err *err)
{
    struct eval_options o = {.window = (size_t)q->window,
                             .stride = (size_t)q->stride,
                             .max_tokens = (size_t)q->max_tokens,
                             .n_threads = (unsigned)q->n_threads,
                             .kv = q->kv,
                             .scorer = q->scorer,
                             .progress = cli_progress};
    struct eval_result r;
    int rc = eval_text(m, base, text, n, &o, &r, err);
    cli_progress_done();
    if (!rc)
        eval_print_text(q->format, &r, cli_seconds() - t0);
    return rc;
}

static int on_task(const struct request *q, const runt_model *m, const char *text,
                   size_t n, double t0, struct runt_err *err)
{
    struct task_options o = {.n_threads = (unsigned)q->n_threads,
                             .kv = q->kv,
                             .scorer = q->scorer,
                             .progress = cli_progress};
    struct task_set set = {0};
    struct task_result r = {0};
    int rc = task_parse(q->task, text, n, q->path, (size_t)q->limit, &set, err);
    if (!rc)
        rc = task_run(m, &set, &o, &r, err);
    cli_progress_done();
    if (!rc)
        eval_print_task(q->format, q->task, &r, cli_seconds() - t0);
    task_result_free(&r);
    task_set_free(&set);
    return rc;
}

static int on_answers(const struct request *q, const runt_model *m,
                      const runt_model *base, const char *text, size_t n, double t0,
                      struct runt_err *err)
{
    struct derail_options o = {.n_tokens = (size_t)q->n_tokens,
                               .n_samples = (size_t)q->n_samples,
                               .n_threads = (unsigned)q->n_threads,
                               .kv = q->kv,
                               .progress = cli_progress};
    struct derail_prompt *prompts = NULL;
    struct derail_result r = {0};
    size_t n_prompts = 0;
    struct cli_sampler_room room;
    int rc = cli_sampler_options(&q->sampler, &room, &o.sampler, err);
    if (!rc)
        rc = derail_prompts(text, n, q->path, &prompts, &n_prompts, err);
    if (!rc)
        rc = derail_run(m, base, prompts, n_prompts, &o, &r, err);
    cli_progress_done();
    if (!rc)
        eval_print_derail(q->format, m, prompts, &o, &r, (size_t)q->show,
                          cli_seconds() - t0);
    derail_result_free(&r);
    runt_free(prompts);
    cli_sampler_room_free(&room);
    return rc;
}

static int measure(const struct request *q, const runt_model *m, const runt_model *base,
                   const char *text, size_t n, double t0, struct runt_err *err)
{
    int rc;
    if (q->task_name)
        rc = on_task(q, m, text, n, t0, err);
    else if (q->derail)
        rc = on_answers(q, m, base, text, n, t0, err);
    else
        rc = on_text(q, m, base, text, n, t0, err);
    if (rc == RUNT_E_INVALID)
        err_prefix(err, "%s", q->path);
    return rc;
}

/* The same on a GPU, where one was asked for and, with auto, is there. */
static int measure_there(const struct request *q, const runt_model *m,
                         const runt_model *base, const char *text, size_t n, double t0,
                         struct runt_err *err)
{
    struct net_device *d = NULL;
    struct net_eval *e = NULL;
    struct request on = *q;
    char no_gpu[256] = "";
    struct runt_model_info info;
    runt_model_info(m, &info);
    size_t window = (size_t)q->window;
    if (q->task_name)
        window = info.n_ctx + 1; /* the last token is not read */
    else if (!window || window > info.n_ctx)
        window = info.n_ctx; /* beyond that it is refused */
    bool can = !q->derail && !q->adapters.n && q->kv == RUNT_KV_AUTO;
    int rc = can ? device_open(q->device, GEMM_F32, &d, no_gpu, sizeof no_gpu, err) : 0;
    if (!rc && d)
        rc = net_eval_open(d, m, base, window, &e, err);
    if (!rc && e) {
        on.scorer = net_eval_scorer(e);
        if (q->format == CLI_TEXT)
            printf("device          %s, float32\n", d->name);
    }
    if (!rc && *no_gpu && q->format == CLI_TEXT)
        printf("on the processor: %s\n", no_gpu);
    if (!rc)
        rc = measure(&on, m, base, text, n, t0, err);
    net_eval_close(e);
    device_close(d);
    return rc;
}

static int evaluate(const struct request *q, struct runt_err *err)
{
    runt_model *m = NULL, *base = NULL;
    char *text = NULL;
    size_t n = 0;
    double t0 = cli_seconds();
    int rc = convert_model_load(q->model_name, &q->adapters, &m, err);
    if (!rc && q->base_name)
        rc = convert_model_load(q->base_name, &(struct cli_list){0}, &base, err);
    if (!rc)
        rc = unpack_read(q->path, MAX_FILE, &text, &n, err);
    if (!rc)
        rc = measure_there(q, m, base, text, n, t0, err);
    cli_progress_done();
    mem_free(text);
    runt_model_free(m);
    runt_model_free(base);
    return rc;
}

/* ---- the command line ---- */

/* Options of one measure that mean nothing to the one asked for. */
static int check(const struct cli_verb *v, struct request *q)
{
    if (!q->model_name || !q->path)
        return cli_misuse(v, "needs a model (-m) and a file (-f)");
    if (q->task_name && q->derail)
        return cli_misuse(v, "--task and --derail exclude each other");
    if (q->task_name && q->base_name)
        return cli_misuse(v, "--base is not for --task: measure each model alone");
    if (q->task_name && !strcmp(q->task_name, "lambada"))
        q->task = TASK_LAMBADA;
    else if (q->task_name && !strcmp(q->task_name, "hellaswag"))
        q->task = TASK_HELLASWAG;
    else if (q->task_name)
        return cli_misuse(v, "unknown task '%s'; there are lambada and hellaswag",
                          q->task_name);
    if ((q->task_name || q->derail) && (q->window || q->stride || q->max_tokens))
        return cli_misuse(v,
                          "--window, --stride and --max-tokens are for texts, not for "
                          "--task or --derail");
    if (q->limit && !q->task_name)
        return cli_misuse(v, "--limit is for --task");
    if (q->derail && q->device == DEVICE_CUDA)
        return cli_misuse(v, "--derail answers on the processor: --device cuda is for "
                             "texts and --task");
    if (q->adapters.n && q->device == DEVICE_CUDA)
        return cli_misuse(v, "adapters are applied on the processor: merge them first "
                             "(runt merge), or leave --device cuda out");
    if (q->kv != RUNT_KV_AUTO && q->device == DEVICE_CUDA)
        return cli_misuse(v,
                          "--kv is how the processor keeps keys and values: --device "
                          "cuda keeps floats");
    if (q->show && !q->derail)
        return cli_misuse(v, "--show is for --derail");
    return 0;
}

static int run(int argc, char **argv)
{
    const struct cli_verb *v = &verb_eval;
    struct request q = {
        .n_tokens = 256, .n_samples = 2, .sampler = cli_sampler_defaults()};
    const char *format_name = "text", *kv_name = "auto", *device_name = "cpu";
    q.sampler.seed = 1; /* a measure is repeatable */
    struct cli_option options[] = {
        {"--model", "-m", CLI_STR, &q.model_name, "MODEL", "model file or ORG/NAME", 0,
         0},
        CLI_ADAPTER_OPTION(q.adapters),
        {"--file", "-f", CLI_STR, &q.path, "FILE",
         "text, tasks or prompts; - for standard input; may be packed by xz", 0, 0},
        {"--base", NULL, CLI_STR, &q.base_name, "MODEL",
         "compare with this float model: KL divergence, top-1 agreement", 0, 0},
        {"--window", NULL, CLI_INT, &q.window, "N", "tokens a window, 0: the context",
         0, 1 << 20},
        {"--stride", NULL, CLI_INT, &q.stride, "N",
         "tokens from window to window, 0: all", 0, 1 << 20},
        {"--max-tokens", NULL, CLI_INT, &q.max_tokens, "N",
         "only the text's first N, 0: all", 0, 1e15},
        {"--task", NULL, CLI_STR, &q.task_name, "NAME lambada hellaswag",
         "score the file's tasks: lambada or hellaswag (jsonl or text)", 0, 0},
        {"--limit", NULL, CLI_INT, &q.limit, "N", "only the first N tasks, 0: all", 0,
         1e15},
        {"--derail", NULL, CLI_FLAG, &q.derail, NULL,
         "answer the file's prompts, one a line, at length: loops, repetition, KL", 0,
         0},
        {"--tokens", "-n", CLI_INT, &q.n_tokens, "N",
         "derail: tokens an answer at most", 1, 1 << 20},
        {"--samples", NULL, CLI_INT, &q.n_samples, "N",
         "derail: sampled answers a prompt, beside the greedy one", 0, 1000},
        {"--show", NULL, CLI_INT, &q.show, "N", "derail: print the first N answers", 0,
         1e9},
        CLI_SAMPLER_OPTIONS(q.sampler),
        CLI_KV_OPTION(kv_name),
        DEVICE_OPTION(device_name,
                      "cpu, or for texts and --task cuda, or auto: the GPU "
                      "where there is one"),
        {"--output", "-o", CLI_STR, &format_name, "FORMAT text json", "text or json", 0,
         0},
        {"--threads", "-t", CLI_INT, &q.n_threads, "N", "threads, 0: one for each core",
         0, POOL_MAX_THREADS},
        {0},
    };
    struct cli_args args;
    int rc = cli_parse(v, options, argc, argv, 0, 0, &args);
    if (rc)
        return rc;
    struct runt_err err = {0};
    rc = cli_format_parse(v, format_name, "text,json", &q.format);
    if (!rc)
        rc = cli_kv_parse(v, kv_name, &q.kv);
    if (!rc)
        rc = device_parse(v, device_name, &q.device);
    if (!rc)
        rc = check(v, &q);
    if (!rc) {
        cli_catch_interrupt();
        rc = evaluate(&q, &err);
        if (rc)
            rc = cli_fail(v, &err);
    }
    cli_free(options, &args);
    return rc;
}
