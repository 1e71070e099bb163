/* runt bench: how fast a model is, and how near to what the machine can do. */
#include "base/cpu.h"
#include "base/mem.h"
#include "base/pool.h"
#include "cli/bench.h"
#include "cli/cli_adapter.h"
#include "cli/verbs.h"

#include <string.h>

static int run(int argc, char **argv);

const struct cli_verb verb_bench = {
    .name = "bench",
    .summary = "measure speed, and how near it is to what the machine can do",
    .usage = "bench -m MODEL [-m MODEL...] [options]",
    .example = "runt bench -m gpt2-q4.gguf -t 1,2 -d 0,512 --roofline\n"
               "runt bench -m gpt2-q4.gguf -m gpt2-q8.gguf -p 0 -b 1,8 -o json",
    .about = "Measures how fast models read prompts and generate, with many "
             "threads, depths and batches in turns. With --roofline it measures "
             "what the machine could do at best.",
    .run = run,
};

/* "1,2,8": whole numbers from min to max, nothing else. */
static int parse_list(const struct cli_verb *v, const char *flag, const char *text,
                      uint32_t min, uint32_t max, struct bench_list *out)
{
    struct bench_list l = {.n = 0};
    for (const char *p = text;; p++) {
        uint64_t x = 0;
        size_t n = strspn(p, "0123456789");
        for (size_t i = 0; i < n && x <= max; i++)
            x = 10 * x + (uint64_t)(p[i] - '0');
        if (!n || (p[n] && p[n] != ','))
            return cli_misuse(v, "%s wants whole numbers like 1,2,8, not '%s'", flag,
                              text);
        if (x < min || x > max)
            return cli_misuse(v, "%s takes numbers from %u to %u, not %.*s", flag, min,
                              max, (int)(n < 32 ? n : 32), p);
        if (l.n == BENCH_MAX_ITEMS)
            return cli_misuse(v, "%s takes at most %d numbers", flag, BENCH_MAX_ITEMS);
        l.at[l.n++] = (uint32_t)x;
        p += n;
        if (!*p)
            break;
    }
    *out = l;
    return 0;
}

static int run(int argc, char **argv)
{
    const struct cli_verb *v = &verb_bench;
    struct bench_plan plan = {.n_models = 0};
    struct cli_list models = {0};
    /* not given: as INT64_MIN the help says nothing of a default */
    int64_t n_prompt = INT64_MIN, n_gen = INT64_MIN, n_reps = 5;
    const char *threads = NULL, *depths = "0", *batches = "1", *kv = "auto",
               *format_name = "md";
    struct cli_option options[] = {
        {"--model", "-m", CLI_LIST, &models, "MODEL",
         "model file or ORG/NAME; several are compared", 0, 0},
        CLI_ADAPTER_OPTION(plan.adapters),
        {"--n-prompt", "-p", CLI_INT, &n_prompt, "N",
         "tokens of a prompt, 0: no such test (default 512, or what the context holds)",
         0, 1 << 20},
        {"--n-gen", "-n", CLI_INT, &n_gen, "N",
         "tokens to generate, 0: no such test (default 128, or what the context holds)",
         0, 1 << 20},
        {"--repetitions", "-r", CLI_INT, &n_reps, "N",
         "timed repetitions, after one that is not", 1, BENCH_MAX_REPS},
        {"--threads", "-t", CLI_STR, &threads, "LIST",
         "numbers of threads, such as 1,2 (default: one for each core)", 0, 0},
        {"--depth", "-d", CLI_STR, &depths, "LIST",
         "tokens in the cache before a test begins", 0, 0},
        {"--batch", "-b", CLI_STR, &batches, "LIST",
         "sequences that generate in lockstep", 0, 0},
        CLI_KV_OPTION(kv),
        {"--roofline", NULL, CLI_FLAG, &plan.roofline, NULL,
         "measure the machine, too: read bandwidth and 8-bit products", 0, 0},
        {"--profile", NULL, CLI_FLAG, &plan.profile, NULL,
         "show where a token's time goes", 0, 0},
        {"--output", "-o", CLI_STR, &format_name, "FORMAT md csv json",
         "md, csv or json", 0, 0},
        {0},
    };
    struct cli_args args;
    int rc = cli_parse(v, options, argc, argv, 0, 0, &args);
    if (rc)
        return rc;
    struct runt_err err = {0};
    enum cli_format format = CLI_MD;
    struct bench_row *rows = NULL;
    size_t n_rows = 0;
    rc = cli_format_parse(v, format_name, "md,csv,json", &format);
    if (!rc)
        rc = cli_kv_parse(v, kv, &plan.kv);
    if (!rc && threads)
        rc = parse_list(v, "-t", threads, 1, POOL_MAX_THREADS, &plan.threads);
    if (!rc)
        rc = parse_list(v, "-d", depths, 0, 1 << 20, &plan.depths);
    if (!rc)
        rc = parse_list(v, "-b", batches, 1, BENCH_MAX_BATCH, &plan.batches);
    if (!rc && !models.n)
        rc = cli_misuse(v, "which model? name it with -m");
    if (!rc && models.n > BENCH_MAX_ITEMS)
        rc = cli_misuse(v, "-m takes at most %d models", BENCH_MAX_ITEMS);
    if (!rc && !n_prompt && !n_gen)
        rc = cli_misuse(v, "-p 0 and -n 0 leave nothing to measure");
    if (!rc && plan.profile && format == CLI_CSV)
        rc = cli_misuse(v, "--profile is for md and json: csv has no room for it");
    if (rc)
        goto out;
    if (!threads)
        plan.threads = (struct bench_list){.at = {cpu_n_cores()}, .n = 1};
    if (plan.threads.at[0] > POOL_MAX_THREADS)
        plan.threads.at[0] = POOL_MAX_THREADS;
    plan.models = models.items;
    plan.n_models = models.n;
    plan.n_prompt = n_prompt < 0 ? -1 : n_prompt;
    plan.n_gen = n_gen < 0 ? -1 : n_gen;
    plan.n_reps = (size_t)n_reps;
    cli_catch_interrupt();
    rc = bench_run(&plan, &rows, &n_rows, &err);
    if (rc)
        rc = cli_fail(v, &err);
    else
        bench_print(format, &plan, rows, n_rows);
out:
    mem_free(rows);
    cli_free(options, &args);
    return rc;
}
