/* runt generate: continue a text. */
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/pool.h"
#include "cli/answer.h"
#include "cli/cli_adapter.h"
#include "cli/cli_session.h"
#include "cli/convert.h"
#include "cli/verbs.h"

#include <string.h>
#include <unistd.h>

static int run(int argc, char **argv);

const struct cli_verb verb_generate = {
    .name = "generate",
    .summary = "continue a text",
    .usage = "generate -m MODEL -p TEXT [options]",
    .example =
        "runt generate -m gpt2-q4.gguf -p \"Once upon a time\" -n 100 -s 1\n"
        "runt generate -m gpt2-q4.gguf -f prompt.txt --temp 0 --stop \"The end\"\n"
        "runt generate -m gpt2-q4.gguf -f prompt.txt --prompt-cache prompt.kv",
    .about = "Continues a text. The same seed gives the same text on every "
             "machine. Tokens that the text itself makes likely are drafted and "
             "checked several at a time (--lookahead) where that is faster; it "
             "changes no text. When the context is full the older half is "
             "forgotten.",
    .run = run,
};

struct request {
    const char *prompt, *model_name, *cache;
    int64_t n_max, n_ctx, n_threads;
    enum runt_kv kv;
    int32_t lookahead;
    bool hide_prompt, ignore_eos, special, profile;
    enum cli_format format;
    struct cli_list stops, adapters;
    struct cli_sampler sampler;
};

static void print_json(const struct strbuf *text, size_t n_prompt,
                       const struct timeline *t, const struct runt_generated *a,
                       double prompt_seconds)
{
    static const char *const ends[] = {"eos", "stop", "length", "interrupted"};
    printf("{\"text\":");
    cli_json_str(stdout, text->data ? text->data : "", text->len);
    printf(",\"dropped_tokens\":%zu,\"cached_tokens\":%zu", t->n_dropped, t->n_reused);
    printf(",\"prompt_tokens\":%zu,\"prompt_seconds\":%.6f,\"tokens\":%zu,"
           "\"seconds\":%.6f,\"tokens_per_second\":%.3f,\"drafted_tokens\":%zu,"
           "\"accepted_tokens\":%zu,\"end\":\"%s\","
           "\"peak_bytes\":%zu}\n",
           n_prompt, prompt_seconds, a->n_tokens, a->seconds,
           a->seconds > 0 ? (double)a->n_tokens / a->seconds : 0, a->n_drafted,
           a->n_accepted, ends[a->end], cli_peak_rss());
}

/* The tokens to start from; an empty prompt starts from the end-of-text token, after
 * which a document begins. */
static int prompt_tokens(const runt_model *m, const struct request *q, size_t n_text,
                         int32_t **ids, size_t *n, struct runt_err *err)
{
    int rc = runt_tokenize(m, q->prompt, n_text, q->special, ids, n, err);
    struct runt_model_info info;
    runt_model_info(m, &info);
    if (rc || *n)
        return rc;
    runt_free(*ids);
    *ids = mem_alloc(sizeof **ids);
    if (!*ids)
        return err_nomem(err, "the prompt");
    (*ids)[0] = info.eos >= 0 ? info.eos : 0;
    *n = 1;
    return 0;
}

static void print_profile(const struct timeline *t, const struct cli_profile *prompt,
                          const struct runt_generated *a)
{
    struct cli_profile drawn;
    char title[96];
    cli_profile_take(t->session, a->n_tokens, a->seconds, "drawing and the rest",
                     &drawn);
    snprintf(title, sizeof title, "tokens of the prompt: %zu", prompt->n_tokens);
    cli_profile_print(stderr, title, prompt);
    snprintf(title, sizeof title, "\ntokens drawn: %zu", a->n_tokens);
    if (a->n_tokens)
        cli_profile_print(stderr, title, &drawn);
    if (t->lookahead)
        fprintf(stderr, "\ntokens drafted: %zu, accepted: %zu\n", a->n_drafted,
                a->n_accepted);
}

static int generate(const struct request *q, size_t n_text, struct runt_err *err)
{
    runt_model *m = NULL;
    struct timeline t = {0};
    struct answer_text s = {.out = q->format == CLI_JSON ? NULL : stdout};
    struct runt_generate_options go = {.n_max = (size_t)q->n_max,
                                       .stops = q->stops.items,
                                       .n_stops = q->stops.n,
                                       .ignore_eos = q->ignore_eos};
    int32_t *ids = NULL;
    size_t n = 0;
    struct runt_generated a = {0};
    struct cli_profile prompt;
    struct runt_session_options so = runt_session_defaults();
    so.n_ctx = (uint32_t)q->n_ctx;
    so.n_threads = (uint32_t)q->n_threads;
    so.kv = q->kv;
    so.profile = q->profile;
    int rc = convert_model_load(q->model_name, &q->adapters, &m, err);
    cli_progress_done();
    if (!rc)
        rc = timeline_open(&t, m, &so, &q->sampler, err);
    if (!rc)
        rc = timeline_look_ahead(&t, q->lookahead, err);
    if (!rc)
        rc = prompt_tokens(m, q, n_text, &ids, &n, err);
    if (rc)
        goto out;
    if (s.out && !q->hide_prompt)
        rc = answer_show(stdout, q->prompt, n_text, err);
    if (rc)
        goto out;
    double t0 = cli_seconds();
    rc = timeline_prompt(&t, q->cache, ids, n, err);
    double prompt_seconds = cli_seconds() - t0;
    cli_profile_take(t.session, n - t.n_reused, prompt_seconds, "between passes",
                     &prompt);
    runt_session_profile_reset(t.session);
    if (!rc) {
        rc = timeline_answer(&t, &go, answer_text_put, &s, &a, err);
        if (rc == RUNT_E_FORMAT)
            err_prefix(err, "%s", q->model_name);
    }
    if (!rc && s.text.failed)
        rc = err_nomem(err, "the answer");
    if (!rc && s.out && ferror(s.out))
        rc = err_set(err, RUNT_E_IO, "cannot write the answer: nobody reads it");
    if (s.out && (n_text || s.text.len))
        putchar('\n');
    if (rc)
        goto out;
    if (q->format == CLI_JSON)
        print_json(&s.text, n, &t, &a, prompt_seconds);
    if (q->profile)
        print_profile(&t, &prompt, &a);
    if (t.n_dropped)
        fprintf(stderr, "(the context of %u tokens was full: dropped the oldest)\n",
                runt_session_n_ctx(t.session));
    if (isatty(2) && s.out)
        fprintf(stderr, "(%zu tokens, %.1f tokens/s)\n", a.n_tokens,
                (double)a.n_tokens / a.seconds);
    if (a.end == RUNT_END_CALLER)
        rc = err_set(err, RUNT_E_INTERRUPTED, "interrupted");
out:
    sb_free(&s.text);
    mem_free(ids);
    timeline_close(&t);
    runt_model_free(m);
    return rc;
}

static int run(int argc, char **argv)
{
    const struct cli_verb *v = &verb_generate;
    struct request q = {.n_max = 128, .sampler = cli_sampler_defaults()};
    const char *file = NULL, *format_name = "text", *kv_name = "auto",
               *lookahead = "auto";
    struct cli_option options[] = {
        {"--model", "-m", CLI_STR, &q.model_name, "MODEL", "model file or ORG/NAME", 0,
         0},
        CLI_ADAPTER_OPTION(q.adapters),
        {"--prompt", "-p", CLI_STR, &q.prompt, "TEXT", "the text to continue", 0, 0},
        {"--file", "-f", CLI_STR, &file, "FILE", "the same from a file, - for stdin", 0,
         0},
        {"--n-predict", "-n", CLI_INT, &q.n_max, "N",
         "tokens to draw at most, 0: until the text ends", 0, 1e15},
        {"--ctx-size", "-c", CLI_INT, &q.n_ctx, "N", "context, 0: the model's", 0,
         1 << 20},
        CLI_SAMPLER_OPTIONS(q.sampler),
        CLI_GRAMMAR_OPTIONS(q.sampler),
        {"--stop", NULL, CLI_LIST, &q.stops, "TEXT", "stop before this text", 0, 0},
        {"--ignore-eos", NULL, CLI_FLAG, &q.ignore_eos, NULL,
         "go on after the end-of-text token", 0, 0},
        {"--special", NULL, CLI_FLAG, &q.special, NULL,
         "names of control tokens in the prompt mean those tokens", 0, 0},
        {"--no-display-prompt", NULL, CLI_FLAG, &q.hide_prompt, NULL,
         "print only what is drawn", 0, 0},
        {"--prompt-cache", NULL, CLI_STR, &q.cache, "FILE",
         "keep the prompt computed in FILE, and start from what it holds", 0, 0},
        CLI_LOOKAHEAD_OPTION(lookahead),
        CLI_KV_OPTION(kv_name),
        {"--profile", NULL, CLI_FLAG, &q.profile, NULL,
         "show on stderr where a token's time went", 0, 0},
        {"--output", "-o", CLI_STR, &format_name, "FORMAT text json",
         "text or json (with figures)", 0, 0},
        {"--threads", "-t", CLI_INT, &q.n_threads, "N", "threads, 0: one for each core",
         0, POOL_MAX_THREADS},
        {0},
    };
    struct cli_args args;
    int rc = cli_parse(v, options, argc, argv, 0, 0, &args);
    if (rc)
        return rc;
    struct runt_err err = {0};
    char *text = NULL;
    size_t n_text = q.prompt ? strlen(q.prompt) : 0;
    rc = cli_format_parse(v, format_name, "text,json", &q.format);
    if (!rc)
        rc = cli_kv_parse(v, kv_name, &q.kv);
    if (!rc)
        rc = cli_lookahead_parse(v, lookahead, &q.lookahead);
    if (!rc && !q.model_name)
        rc = cli_misuse(v, "which model? name it with -m");
    if (!rc && q.prompt && file)
        rc = cli_misuse(v, "-p and -f exclude each other");
    if (!rc && q.ignore_eos && (q.sampler.grammar || q.sampler.json_schema))
        rc = cli_misuse(v, "--ignore-eos is not for a grammar, whose texts end");
    for (size_t i = 0; i < q.stops.n && !rc; i++)
        if (!*q.stops.items[i])
            rc = cli_misuse(v, "--stop wants a text that is not empty");
    if (rc)
        goto out;
    cli_catch_interrupt();
    if (file)
        rc = file_read(file, 1 << 26, &text, &n_text, &err);
    if (text)
        q.prompt = text;
    if (!q.prompt)
        q.prompt = "";
    if (!rc)
        rc = generate(&q, n_text, &err);
    if (rc)
        rc = cli_fail(v, &err);
out:
    mem_free(text);
    cli_free(options, &args);
    return rc;
}
