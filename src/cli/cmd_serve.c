/* runt serve: answer over HTTP, as the OpenAI API does. */
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/pool.h"
#include "cli/cli_adapter.h"
#include "cli/cli_sampler.h"
#include "cli/cli_session.h"
#include "cli/convert.h"
#include "cli/verbs.h"
#include "serve/access.h"
#include "serve/serve.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static int run(int argc, char **argv);

const struct cli_verb verb_serve = {
    .name = "serve",
    .summary = "answer over HTTP: the OpenAI API, and a page to chat on",
    .usage = "serve -m MODEL [-m NAME=MODEL ...] [options]",
    .example = "runt serve -m tiny-q4.gguf --template turns --port 8080\n"
               "runt serve -m small=tiny-q4.gguf -m large=tiny-q8.gguf --api-key-file "
               "keys.txt",
    .about = "Answers programs that speak the OpenAI API (chat, completions, "
             "embeddings, models), several at once, and browsers with a page to chat "
             "on. SIGTERM and Ctrl-C let what runs finish; a second one does not.",
    .run = run,
};

enum { MAX_KEYS = 1000, MAX_KEY_FILE = 1 << 20 };

struct setting {
    struct serve_options serve;
    struct cli_list models, adapters, keys, origins;
    struct cli_sampler sampler;
    struct cli_sampler_room room;
    const char *kv, *template, *key_file, *max_body, *log;
    int64_t n_ctx, n_threads, n_seqs, port, max_waiting, max_connections;

    struct serve_model *loaded; /* [models.n] */
    char **names;               /* [models.n] */
    const char **notes;         /* [models.n], about its template */
    char *key_text;
    const char **all_keys; /* [MAX_KEYS] */
    FILE *log_file;        /* NULL: none */
    bool draining;
};

/* ---- what the server calls ---- */

static bool is_local(const char *host)
{
    return !strcmp(host, "localhost") || !strncmp(host, "127.", 4) ||
           !strcmp(host, "::1");
}

static void say_ready(void *ctx, const char *url)
{
    const struct setting *s = ctx;
    for (size_t i = 0; i < s->serve.n_models; i++)
        fprintf(stderr, "runt serve: model %s%s\n", s->names[i], s->notes[i]);
    if (!s->serve.n_keys && !is_local(s->serve.host))
        fprintf(stderr, "runt serve: no API key: whoever reaches %s may ask\n",
                s->serve.host);
    fprintf(stderr, "runt serve: listening at %s\n", url);
}

static void write_log(void *ctx, const char *line)
{
    const struct setting *s = ctx;
    fprintf(s->log_file, "%s\n", line);
    fflush(s->log_file);
}

/* The first signal lets what runs finish, the second does not. */
static int stopping(void *ctx)
{
    struct setting *s = ctx;
    if (!cli_interrupted())
        return s->draining;
    if (s->draining)
        return 2;
    cli_clear_interrupt();
    s->draining = true;
    fprintf(stderr, "runt serve: finishing what runs; a second signal ends it\n");
    return 1;
}

/* ---- models ---- */

/* NAME=MODEL, or MODEL, which is known by its file's name. */
static char *name_of(const char *arg, const char **path)
{
    const char *equals = strchr(arg, '='), *slash = strchr(arg, '/');
    *path = arg;
    if (equals && equals > arg && (!slash || equals < slash)) {
        *path = equals + 1;
        return mem_strndup(arg, (size_t)(equals - arg));
    }
    size_t n = strlen(arg);
    if (n < 6 || strcmp(arg + n - 5, ".gguf"))
        return mem_strdup(arg);
    const char *base = strrchr(arg, '/');
    base = base ? base + 1 : arg;
    return mem_strndup(base, (size_t)(arg + n - 5 - base));
}

/* A base model is never given a template silently. */
static const char *note_template(const struct setting *s, const runt_model *m)
{
    struct runt_model_info info;
    runt_model_info(m, &info);
    if (strcmp(s->template, "auto") || runt_template_of(m))
        return "";
    return info.chat_template
               ? ": its chat template is none that runt knows: chats are plain "
                 "continuations (--template names another)"
               : ": it has no chat template: chats are plain continuations "
                 "(--template names one)";
}

static int load_models(const struct cli_verb *v, struct setting *s,
                       struct runt_err *err)
{
    size_t n = s->models.n;
    s->loaded = mem_array(n, sizeof *s->loaded);
    s->names = mem_array(n, sizeof *s->names);
    s->notes = mem_array(n, sizeof *s->notes);
    if (!s->loaded || !s->names || !s->notes)
        return err_nomem(err, "models");
    for (size_t i = 0; i < n; i++) {
        const char *path;
        s->names[i] = name_of(s->models.items[i], &path);
        if (!s->names[i])
            return err_nomem(err, "a name");
        for (size_t k = 0; k < i; k++)
            if (!strcmp(s->names[i], s->names[k]))
                return cli_misuse(v, "two models are named '%s'; name one NAME=MODEL",
                                  s->names[i]);
        int rc = convert_model_load(path, &s->adapters, &s->loaded[i].model, err);
        cli_progress_done();
        if (rc)
            return rc;
        s->loaded[i].name = s->names[i];
        s->notes[i] = note_template(s, s->loaded[i].model);
    }
    s->serve.models = s->loaded;
    s->serve.n_models = n;
    return 0;
}

/* ---- keys ---- */

static int add_key(const struct cli_verb *v, struct setting *s, const char *key)
{
    if (!*key)
        return cli_misuse(v, "an API key cannot be empty");
    if (s->serve.n_keys == MAX_KEYS)
        return cli_misuse(v, "more than %d API keys", MAX_KEYS);
    s->all_keys[s->serve.n_keys++] = key;
    return 0;
}

static int read_keys(const struct cli_verb *v, struct setting *s, struct runt_err *err)
{
    const char *env = getenv("RUNT_API_KEY");
    size_t n, n_text;
    s->all_keys = mem_array(MAX_KEYS, sizeof *s->all_keys);
    if (!s->all_keys)
        return err_nomem(err, "keys");
    s->serve.keys = s->all_keys;
    int rc = env ? add_key(v, s, env) : 0;
    for (size_t i = 0; i < s->keys.n && !rc; i++)
        rc = add_key(v, s, s->keys.items[i]);
    if (rc || !s->key_file)
        return rc;
    rc = file_read(s->key_file, MAX_KEY_FILE, &s->key_text, &n_text, err);
    if (rc)
        return rc;
    n = access_read_keys(s->key_text, s->all_keys + s->serve.n_keys,
                         MAX_KEYS - s->serve.n_keys);
    if (!n)
        return err_set(err, RUNT_E_INVALID, "%s: no API key in it", s->key_file);
    if (n > MAX_KEYS - s->serve.n_keys)
        return cli_misuse(v, "more than %d API keys", MAX_KEYS);
    s->serve.n_keys += n;
    return 0;
}

/* ---- everything else ---- */

static int open_log(struct setting *s, struct runt_err *err)
{
    if (!strcmp(s->log, "none"))
        return 0;
    s->log_file = strcmp(s->log, "-") ? fopen(s->log, "ae") : stdout;
    if (!s->log_file)
        return err_errno(err, s->log, "write");
    s->serve.log = write_log;
    return 0;
}

/* As many connections as were asked for want as many descriptors. */
static void raise_limit(const struct setting *s)
{
    struct rlimit r;
    rlim_t want = s->serve.max_connections + 64;
    if (getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur >= want)
        return;
    r.rlim_cur = r.rlim_max < want ? r.rlim_max : want;
    setrlimit(RLIMIT_NOFILE, &r);
}

static int check(const struct cli_verb *v, struct setting *s)
{
    struct serve_options *o = &s->serve;
    uint64_t max_body = 0;
    int rc = cli_kv_parse(v, s->kv, &o->kv);
    if (rc)
        return rc;
    if (!s->models.n)
        return cli_misuse(v, "which model? name it with -m");
    if (strcmp(s->template, "auto")) {
        o->chat = runt_template_find(s->template);
        if (!o->chat)
            return cli_misuse(v, "there is no template '%s'", s->template);
    }
    if (!cli_size_parse(s->max_body, 1 << 30, &max_body) || !max_body)
        return cli_misuse(v, "--max-body wants a size up to 1GB, as 500kB or 1MB");
    o->max_body = max_body;
    o->n_ctx = (uint32_t)s->n_ctx;
    o->n_threads = (uint32_t)s->n_threads;
    o->n_seqs = (uint32_t)s->n_seqs;
    o->port = (uint16_t)s->port;
    o->max_waiting = (size_t)s->max_waiting;
    o->max_connections = (size_t)s->max_connections;
    o->seeded = s->sampler.seed >= 0;
    o->origins = s->origins.items;
    o->n_origins = s->origins.n;
    o->ready = say_ready;
    o->stopping = stopping;
    o->ctx = s;
    return 0;
}

static int serve(const struct cli_verb *v, struct setting *s, struct runt_err *err)
{
    int rc = check(v, s);
    if (!rc)
        rc = cli_sampler_options(&s->sampler, &s->room, &s->serve.sampler, err);
    if (!rc)
        rc = read_keys(v, s, err);
    if (!rc)
        rc = open_log(s, err);
    if (!rc)
        rc = load_models(v, s, err);
    if (rc)
        return rc;
    raise_limit(s);
    signal(SIGPIPE, SIG_IGN);
    cli_catch_interrupt();
    return serve_run(&s->serve, err);
}

static void free_setting(struct setting *s)
{
    for (size_t i = 0; i < s->models.n; i++) {
        if (s->loaded)
            runt_model_free(s->loaded[i].model);
        if (s->names)
            mem_free(s->names[i]);
    }
    if (s->log_file && s->log_file != stdout)
        fclose(s->log_file);
    cli_sampler_room_free(&s->room);
    mem_free(s->loaded);
    mem_free(s->names);
    mem_free(s->notes);
    mem_free(s->all_keys);
    mem_free(s->key_text);
}

static int run(int argc, char **argv)
{
    const struct cli_verb *v = &verb_serve;
    struct setting s = {.serve = serve_defaults(),
                        .sampler = cli_sampler_defaults(),
                        .kv = "auto",
                        .template = "auto",
                        .max_body = "1MB",
                        .log = "-"};
    struct serve_options *o = &s.serve;
    s.port = o->port;
    s.max_waiting = (int64_t)o->max_waiting;
    s.max_connections = (int64_t)o->max_connections;
    struct cli_option options[] = {
        {"--model", "-m", CLI_LIST, &s.models, "[NAME=]MODEL",
         "model file or ORG/NAME, and what clients call it; may be given again", 0, 0},
        CLI_ADAPTER_OPTION(s.adapters),
        {"--host", NULL, CLI_STR, &o->host, "HOST", "name or address to listen at", 0,
         0},
        {"--port", NULL, CLI_INT, &s.port, "N", "port, 0: any that is free", 0, 65535},
        {"--api-key", NULL, CLI_LIST, &s.keys, "KEY",
         "who has it may ask; also from RUNT_API_KEY; may be given again", 0, 0},
        {"--api-key-file", NULL, CLI_STR, &s.key_file, "FILE", "keys, one a line", 0,
         0},
        {"--cors", NULL, CLI_LIST, &s.origins, "ORIGIN",
         "pages of https://HOST that may ask from a browser, *: all; may be given "
         "again",
         0, 0},
        {"--template", NULL, CLI_STR, &s.template, "NAME",
         "auto (from the file), none, turns, chatml", 0, 0},
        {"--ctx-size", "-c", CLI_INT, &s.n_ctx, "N",
         "context of each answer, at most the model's; 0: that", 0, 1 << 20},
        {"--parallel", NULL, CLI_INT, &s.n_seqs, "N",
         "answers at a time, 0: as many as 1 GiB of cache holds, 64 at most", 0, 1024},
        {"--queue", NULL, CLI_INT, &s.max_waiting, "N",
         "answers that may wait; beyond, requests get status 429", 0, 100000},
        {"--max-body", NULL, CLI_STR, &s.max_body, "SIZE", "bytes of a request", 0, 0},
        {"--max-connections", NULL, CLI_INT, &s.max_connections, "N", "open at a time",
         8, 100000},
        {"--request-timeout", NULL, CLI_REAL, &o->request_seconds, "SECONDS",
         "for an answer, waiting included", 0.1, 1e6},
        {"--read-timeout", NULL, CLI_REAL, &o->read_seconds, "SECONDS",
         "for a request to arrive", 0.1, 1e6},
        {"--idle-timeout", NULL, CLI_REAL, &o->idle_seconds, "SECONDS",
         "for a connection on which nothing happens", 0.1, 1e6},
        {"--drain-timeout", NULL, CLI_REAL, &o->drain_seconds, "SECONDS",
         "for what runs when the server is told to end", 0, 1e6},
        {"--log", NULL, CLI_STR, &s.log, "FILE",
         "a line of JSON for each request, -: standard output, or none", 0, 0},
        {"--log-bodies", NULL, CLI_FLAG, &o->log_bodies, NULL,
         "the texts of requests go to the log, too", 0, 0},
        CLI_SAMPLER_OPTIONS(s.sampler),
        CLI_KV_OPTION(s.kv),
        {"--threads", "-t", CLI_INT, &s.n_threads, "N", "threads, 0: one for each core",
         0, POOL_MAX_THREADS},
        {0},
    };
    struct cli_args args;
    int rc = cli_parse(v, options, argc, argv, 0, 0, &args);
    if (rc)
        return rc;
    struct runt_err err = {0};
    rc = serve(v, &s, &err);
    if (rc < 0)
        rc = cli_fail(v, &err);
    free_setting(&s);
    cli_free(options, &args);
    return rc;
}
