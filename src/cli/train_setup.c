/* Owns what `runt train` is told and what it opens for that. */
#include "cli/train_setup.h"

#include "base/err.h"
#include "base/file.h"
#include "cli/convert.h"
#include "model/adapter.h"
#include "model/model_vocab.h"
#include "talk/talk.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* ---- options ---- */

static void defaults(struct train_setup *s)
{
    *s = (struct train_setup){
        .field = "text",
        .schedule = "cosine",
        .precision = "auto",
        .device_name = "auto",
        .prompt = "Once",
        .steps = 1000,
        .batch = 8,
        .accumulate = 1,
        .warmup = -1,
        .save_every = 100,
        .keep = 2,
        .eval_every = 100,
        .eval_tokens = 16384,
        .lr = -1,
        .min_lr = -1,
        .lora_alpha = -1,
        .weight_decay = 0.1,
        .beta1 = 0.9,
        .beta2 = 0.95,
        .clip = 1,
        .val_share = 0.05,
    };
}

/* The table, with s's members as the values; free with mem_free. */
static struct cli_option *table(struct train_setup *s)
{
    const struct cli_option options[] = {
        {"--data", NULL, CLI_LIST, &s->data_files, "FILE[:WEIGHT]",
         "text or .jsonl, may be .xz, .zst or .gz; again for more, weights give their "
         "shares",
         0, 0},
        {"--val", NULL, CLI_LIST, &s->val_files, "FILE",
         "validation data, instead of a share of the documents", 0, 0},
        {"--val-share", NULL, CLI_REAL, &s->val_share, "X", "documents held out", 0,
         0.9},
        {"--field", NULL, CLI_STR, &s->field, "NAME",
         "member of a .jsonl line; without it, its messages", 0, 0},
        {"--mask-prompts", NULL, CLI_FLAG, &s->mask_prompts, NULL,
         "dialogues: only what follows Bot: counts, up to the next User: or the end", 0,
         0},
        {"--init", NULL, CLI_STR, &s->init, "MODEL",
         "where to begin: a model file, a checkpoint folder, ORG/NAME; or gpt2: from "
         "scratch",
         0, 0},
        {"--out", NULL, CLI_STR, &s->out, "DIR", "folder of the run", 0, 0},
        {"--resume", NULL, CLI_FLAG, &s->resume, NULL,
         "go on from the last checkpoint in --out, with its options", 0, 0},
        {"--steps", NULL, CLI_INT, &s->steps, "N", "updates in all", 1, 1e9},
        {"--batch", NULL, CLI_INT, &s->batch, "N", "sequences at a time", 1, 65536},
        {"--accumulate", NULL, CLI_INT, &s->accumulate, "N", "batches a step", 1,
         65536},
        {"--context", NULL, CLI_INT, &s->context, "N",
         "tokens a sequence, 0: the model's (from scratch 256)", 0, 1 << 20},
        {"--lr", NULL, CLI_REAL, &s->lr, "X",
         "learning rate, -1: 0.0003, of adapters 0.003", -1, 1e3},
        {"--min-lr", NULL, CLI_REAL, &s->min_lr, "X", "at the end, -1: a tenth of --lr",
         -1, 1e3},
        {"--warmup", NULL, CLI_INT, &s->warmup, "N",
         "steps up to --lr, -1: a tenth of all, at most 100", -1, 1e9},
        {"--schedule", NULL, CLI_STR, &s->schedule, "NAME cosine linear constant",
         "cosine, linear or constant", 0, 0},
        {"--weight-decay", NULL, CLI_REAL, &s->weight_decay, "X", "of matrices", 0, 10},
        {"--beta1", NULL, CLI_REAL, &s->beta1, "X", "of AdamW", 0, 0.9999999},
        {"--beta2", NULL, CLI_REAL, &s->beta2, "X", "of AdamW", 0, 0.9999999},
        {"--clip", NULL, CLI_REAL, &s->clip, "X",
         "largest norm of the gradient, 0: any", 0, 1e9},
        {"--dropout", NULL, CLI_REAL, &s->dropout, "X", "share of numbers dropped", 0,
         0.9},
        {"--train", NULL, CLI_STR, &s->train, "REGEX",
         "only the weights whose names match; the others are frozen", 0, 0},
        {"--lora", NULL, CLI_INT, &s->lora, "RANK",
         "train adapters of this rank, a small file; the model stays as it is", 0,
         1 << 20},
        {"--lora-alpha", NULL, CLI_REAL, &s->lora_alpha, "X",
         "adapters count X / RANK times, -1: twice the rank", -1, 1e6},
        {"--lora-targets", NULL, CLI_STR, &s->lora_targets, "REGEX",
         "matrices whose names match have adapters, the token table, too; else the "
         "blocks' alone",
         0, 0},
        {"--layers", NULL, CLI_INT, &s->layers, "N", "from scratch: blocks", 0, 1024},
        {"--heads", NULL, CLI_INT, &s->heads, "N", "from scratch: heads", 0, 65536},
        {"--embd", NULL, CLI_INT, &s->embd, "N", "from scratch: width", 0, 65536},
        {"--ff", NULL, CLI_INT, &s->ff, "N",
         "from scratch: feed-forward width, 0: 4 x "
         "width",
         0, 1 << 20},
        {"--tokenizer", NULL, CLI_STR, &s->tokenizer, "DIR",
         "from scratch: vocab.json and merges.txt, or a model file", 0, 0},
        {"--seed", "-s", CLI_INT, &s->seed, "N", "of weights, order and dropout", 0,
         9e18},
        {"--precision", NULL, CLI_STR, &s->precision, "NAME auto f32 bf16",
         "of products: f32, bf16, or auto: bf16 where the processor has it", 0, 0},
        DEVICE_OPTION(s->device_name,
                      "cpu, cuda, or auto: the GPU where there is one that works"),
        {"--recompute", NULL, CLI_FLAG, &s->recompute, NULL,
         "keep less and compute it twice: a quarter slower, far less memory", 0, 0},
        {"--save-every", NULL, CLI_INT, &s->save_every, "N",
         "steps between checkpoints, 0: at the end only", 0, 1e9},
        {"--keep", NULL, CLI_INT, &s->keep, "N", "checkpoints that stay", 1, 1e6},
        {"--eval-every", NULL, CLI_INT, &s->eval_every, "N",
         "steps between validations, 0: none", 0, 1e9},
        {"--eval-tokens", NULL, CLI_INT, &s->eval_tokens, "N", "tokens of a validation",
         1, 1e12},
        {"--sample-every", NULL, CLI_INT, &s->sample_every, "N",
         "steps between samples, 0: none", 0, 1e9},
        {"--sample-prompt", NULL, CLI_STR, &s->prompt, "TEXT", "how a sample begins", 0,
         0},
        {"--log", NULL, CLI_STR, &s->log, "FILE", "instead of DIR/log.jsonl", 0, 0},
        {"--memory", NULL, CLI_FLAG, &s->memory, NULL,
         "print what memory the run needs, and stop", 0, 0},
        {"--profile", NULL, CLI_FLAG, &s->profile, NULL,
         "print where the time went, at the end", 0, 0},
        {"--quiet", "-q", CLI_FLAG, &s->quiet, NULL, "no output but errors", 0, 0},
        {"--threads", "-t", CLI_INT, &s->threads, "N", "threads, 0: one for each core",
         0, POOL_MAX_THREADS},
        {0},
    };
    struct cli_option *out = mem_alloc(sizeof options);
    if (out)
        memcpy(out, options, sizeof options);
    return out;
}

/* ---- arguments that stay with a run ---- */

/* Options that belong to one call: how many words they are, 0 for others. */
static int of_this_call(const char *arg, bool data_again)
{
    static const char *const with_value[] = {"--threads", "-t", "--device"};
    static const char *const flags[] = {"--resume", "--memory", "--profile", "--quiet",
                                        "-q"};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (!strcmp(arg, flags[i]))
            return 1;
    for (size_t i = 0; i < sizeof with_value / sizeof *with_value; i++)
        if (!strcmp(arg, with_value[i]))
            return 2;
    if (!strncmp(arg, "--threads=", 10) || !strncmp(arg, "--device=", 9))
        return 1;
    if (data_again && (!strcmp(arg, "--data") || !strcmp(arg, "--val")))
        return 2;
    if (data_again && (!strncmp(arg, "--data=", 7) || !strncmp(arg, "--val=", 6)))
        return 1;
    return 0;
}

static bool keep(struct train_setup *s, const char *arg, size_t n)
{
    char **more = mem_resize(s->kept, s->n_kept + 1, sizeof *more);
    if (!more)
        return false;
    s->kept = more;
    s->kept[s->n_kept] = mem_strndup(arg, n);
    return s->kept[s->n_kept] && ++s->n_kept;
}

static bool keep_all(struct train_setup *s, int argc, char **argv)
{
    for (int i = 1, skip; i < argc; i += skip ? skip : 1) {
        skip = of_this_call(argv[i], false);
        if (!skip && !keep(s, argv[i], strlen(argv[i])))
            return false;
    }
    return true;
}

/* The newest checkpoint that is whole in its outer form. */
static int newest(const char *folder, struct gguf **out, struct runt_err *err)
{
    uint64_t *steps = NULL;
    size_t n;
    int rc = checkpoint_list(folder, &steps, &n, err);
    if (rc || !n) {
        mem_free(steps);
        return rc;
    }
    char *path = checkpoint_path(folder, steps[n - 1]);
    rc = path ? gguf_open(path, out, err) : err_nomem(err, "a path");
    mem_free(path);
    mem_free(steps);
    return rc;
}

/* argv of the run as it began, then this call's. */
static int merge(const struct cli_verb *v, struct train_setup *s, int argc, char **argv,
                 char ***out, int *n_out, struct runt_err *err)
{
    struct checkpoint_state state;
    struct gguf_str *old = NULL;
    size_t n = 0, count = 1;
    bool data_again = s->data_files.n > 0;
    (void)v;
    int rc = checkpoint_read_state(s->checkpoint, &state, &old, &n, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < n && !rc; i++)
        if (!keep(s, old[i].data, old[i].len))
            rc = err_nomem(err, "arguments");
    char **all = mem_array(n + (size_t)argc + 1, sizeof *all);
    if (!all && !rc)
        rc = err_nomem(err, "arguments");
    if (!rc) {
        all[0] = argv[0];
        for (size_t i = 0, skip; i < s->n_kept; i += skip ? skip : 1) {
            skip = (size_t)of_this_call(s->kept[i], data_again);
            if (!skip)
                all[count++] = s->kept[i];
        }
        for (int i = 1; i < argc; i++)
            all[count++] = argv[i];
        *out = all;
        *n_out = (int)count;
    } else
        mem_free(all);
    mem_free(old);
    return rc;
}

static int parse(const struct cli_verb *v, int argc, char **argv, struct train_setup *s)
{
    s->options = table(s);
    if (!s->options)
        return cli_misuse(v, "out of memory");
    return cli_parse(v, s->options, argc, argv, 0, 0, &s->args);
}

static void forget(struct train_setup *s)
{
    if (s->options)
        cli_free(s->options, &s->args);
    mem_free(s->options);
    s->options = NULL;
}

static bool find_schedule(const char *name, enum optim_schedule *out)
{
    static const char *const names[] = {[OPTIM_CONSTANT] = "constant",
                                        [OPTIM_LINEAR] = "linear",
                                        [OPTIM_COSINE] = "cosine"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(name, names[i])) {
            *out = (enum optim_schedule)i;
            return true;
        }
    return false;
}

/* What no file needs to be opened for. */
static int check(const struct cli_verb *v, const struct train_setup *s)
{
    enum optim_schedule schedule;
    enum device_choice device;
    if (!s->out)
        return cli_misuse(v, "where to? name the folder of the run with --out");
    if (!s->data_files.n)
        return cli_misuse(v, "on what? name a text with --data");
    if (s->data_files.n > TRAIN_MAX_SOURCES || s->val_files.n > TRAIN_MAX_SOURCES)
        return cli_misuse(v, "at most %d files of data", TRAIN_MAX_SOURCES);
    if (!s->init && !s->checkpoint)
        return cli_misuse(
            v, "from what? --init names a model, or gpt2 for random weights");
    if (!find_schedule(s->schedule, &schedule))
        return cli_misuse(v, "unknown schedule '%s'; cosine, linear or constant",
                          s->schedule);
    if (strcmp(s->precision, "auto") && strcmp(s->precision, "f32") &&
        strcmp(s->precision, "bf16"))
        return cli_misuse(v, "unknown precision '%s'; auto, f32 or bf16", s->precision);
    int rc = device_parse(v, s->device_name, &device);
    if (rc)
        return rc;
    if (s->lora && device == DEVICE_CUDA)
        return cli_misuse(v, "adapters are trained on the processor: --lora and "
                             "--device cuda exclude each other");
    bool scratch = s->init && !strcmp(s->init, "gpt2");
    if (!scratch && (s->layers || s->heads || s->embd || s->ff || s->tokenizer))
        return cli_misuse(v, "--layers, --heads, --embd, --ff and --tokenizer are for "
                             "--init gpt2; a model has its own");
    if (scratch && !s->checkpoint &&
        (!s->layers || !s->heads || !s->embd || !s->tokenizer))
        return cli_misuse(v, "from scratch needs --layers, --heads, --embd and "
                             "--tokenizer");
    if (!s->lora && (s->lora_targets || s->lora_alpha >= 0))
        return cli_misuse(v, "--lora-alpha and --lora-targets want a rank: --lora 8");
    if (s->lora && s->train)
        return cli_misuse(v, "--lora trains adapters, --train weights: name one");
    if (s->lora && scratch)
        return cli_misuse(v, "--lora adapts a model that has learnt something: name it "
                             "with --init");
    if (s->lora && s->lora_alpha >= 0 && !(s->lora_alpha > 0))
        return cli_misuse(v, "with --lora-alpha 0 adapters count nothing");
    if (scratch && s->heads && s->embd % s->heads)
        return cli_misuse(v, "a width of %lld is not a multiple of %lld heads",
                          (long long)s->embd, (long long)s->heads);
    return 0;
}

int train_setup_parse(const struct cli_verb *v, int argc, char **argv,
                      struct train_setup *s)
{
    struct runt_err err = {0};
    char **all = NULL;
    int n;
    defaults(s);
    int rc = parse(v, argc, argv, s);
    if (rc)
        goto out;
    if (s->resume && s->out) {
        struct gguf *g = NULL;
        rc = newest(s->out, &g, &err);
        s->checkpoint = g;
        if (!rc && g)
            rc = merge(v, s, argc, argv, &all, &n, &err);
        if (rc) {
            rc = cli_fail(v, &err);
            goto out;
        }
        if (!g && !s->quiet)
            fprintf(stderr, "%s holds no checkpoint yet: the run begins\n", s->out);
    }
    if (all) { /* once more, from the beginning of the run */
        struct train_setup again;
        defaults(&again);
        again.checkpoint = s->checkpoint;
        again.comm = s->comm;
        again.kept = s->kept;
        again.n_kept = s->n_kept;
        forget(s);
        *s = again;
        rc = parse(v, n, all, s);
    } else if (!keep_all(s, argc, argv)) {
        err_nomem(&err, "arguments");
        rc = cli_fail(v, &err);
    }
    if (!rc)
        rc = check(v, s);
out:
    mem_free(all);
    if (rc)
        train_setup_free(s);
    return rc;
}

/* ---- opening ---- */

/* FILE or FILE:WEIGHT.  The file is taken as it is named when there is one. */
static int split_weight(const char *item, struct data_source *out, struct runt_err *err)
{
    const char *colon = strrchr(item, ':');
    char *end;
    *out = (struct data_source){.path = item};
    if (!colon || colon == item || file_exists(item))
        return 0;
    double w = strtod(colon + 1, &end);
    if (end == colon + 1 || *end)
        return 0; /* part of a name */
    if (!(w > 0) || !isfinite(w))
        return err_set(err, RUNT_E_INVALID, "--data %s: a weight is above 0", item);
    out->path = mem_strndup(item, (size_t)(colon - item));
    out->weight = w;
    return out->path ? 0 : err_nomem(err, "a path");
}

static int read_vocab(struct train_setup *s, struct runt_err *err)
{
    struct gguf *g = NULL;
    int rc = file_is_dir(s->tokenizer) ? tok_vocab_load(s->tokenizer, &s->vocab, err)
                                       : gguf_open(s->tokenizer, &g, err);
    if (g) { /* its strings are borrowed, so it stays open */
        s->model = g;
        rc = model_read_vocab(g, &s->vocab, err);
        if (!rc)
            rc = tok_vocab_spell_merges(&s->vocab, err);
    }
    return rc;
}

static int from_scratch(struct train_setup *s, struct runt_err *err)
{
    int rc = read_vocab(s, err);
    if (rc)
        return rc;
    s->shape = (struct gpt2_shape){
        .n_vocab = (uint32_t)s->vocab.n_tokens,
        .n_ctx = s->context ? (uint32_t)s->context : 256,
        .n_embd = (uint32_t)s->embd,
        .n_head = (uint32_t)s->heads,
        .n_layer = (uint32_t)s->layers,
        .n_ff = (uint32_t)(s->ff ? s->ff : 4 * s->embd),
        .eps = 1e-5f,
        .bos = s->vocab.bos,
        .eos = s->vocab.eos,
        .tied = true,
    };
    rc = model_random_open(&s->shape, (uint64_t)s->seed, &s->random, err);
    if (!rc)
        s->source = model_random_source(s->random);
    return rc;
}

/* A folder is imported into a file that nobody sees. */
static int open_model(struct train_setup *s, struct runt_err *err)
{
    char *path = NULL;
    int rc;
    if (file_is_dir(s->init)) {
        struct quant_options o = {.pool = s->pool};
        struct quant_report report = {0};
        rc = file_make_dirs(s->out, err);
        path = mem_printf("%s/.init-%ld.gguf", s->out, (long)getpid());
        if (!rc && !path)
            rc = err_nomem(err, "a path");
        const char *name = strrchr(s->init, '/');
        if (!rc)
            rc = convert_folder(s->init, name && name[1] ? name + 1 : s->init, path, &o,
                                NULL, &report, err);
        quant_report_free(&report);
        if (!rc)
            rc = gguf_open(path, &s->model, err);
        if (path)
            unlink(path);
    } else {
        rc = convert_model_path(s->init, &path, err);
        if (!rc)
            rc = gguf_open(path, &s->model, err);
    }
    mem_free(path);
    if (!rc)
        rc = model_read_shape(s->model, &s->shape, err);
    if (!rc)
        s->source = &s->model->source;
    return rc;
}

/* The file that says what model it is. */
static const struct gguf *described_in(const struct train_setup *s)
{
    return s->model ? s->model : s->checkpoint;
}

static int open_tokenizer(struct train_setup *s, struct runt_err *err)
{
    const struct gguf *g = described_in(s);
    struct tok_vocab v = {0};
    if (s->random)
        return tok_create(&s->vocab, s->tokenizer, &s->tok, err);
    int rc = model_read_vocab(g, &v, err);
    if (!rc)
        rc = tok_create(&v, g->path, &s->tok, err);
    tok_vocab_free(&v);
    if (!rc && tok_n_tokens(s->tok) != s->shape.n_vocab)
        rc = err_set(err, RUNT_E_FORMAT, "%s: %zu tokens for %u embedding rows",
                     g->path, tok_n_tokens(s->tok), s->shape.n_vocab);
    return rc;
}

static int open_data(struct train_setup *s, struct runt_err *err)
{
    struct data_options o = {
        .sources = s->sources,
        .n_sources = s->data_files.n,
        .val_sources = s->val_sources,
        .n_val_sources = s->val_files.n,
        .field = s->field,
        .mask_prompts = s->mask_prompts,
        .val_share = s->val_share,
        .tok = s->tok,
        .context = s->context ? (size_t)s->context : s->shape.n_ctx,
        .seed = (uint64_t)s->seed,
        .progress = cli_progress,
    };
    int rc = 0;
    for (size_t i = 0; i < s->data_files.n && !rc; i++)
        rc = split_weight(s->data_files.items[i], &s->sources[i], err);
    for (size_t i = 0; i < s->val_files.n; i++)
        s->val_sources[i] = (struct data_source){.path = s->val_files.items[i]};
    if (!rc)
        rc = data_open(&o, &s->data, err);
    cli_progress_done();
    return rc;
}

static int open_all(struct train_setup *s, struct runt_err *err)
{
    int rc = pool_create((unsigned)s->threads, &s->pool, err);
    if (rc)
        return rc;
    if (s->checkpoint && !s->lora)
        rc = model_read_checkpoint_shape(s->checkpoint, &s->shape, err);
    else if (!strcmp(s->init, "gpt2"))
        rc = from_scratch(s, err);
    else
        rc = open_model(s, err);
    if (!rc && s->context > (int64_t)s->shape.n_ctx)
        rc = err_set(err, RUNT_E_INVALID,
                     "--context %" PRId64 " is beyond the model's %u", s->context,
                     s->shape.n_ctx);
    if (!rc)
        rc = open_tokenizer(s, err);
    return rc ? rc : open_data(s, err);
}

/* Process 0 first: the others find the tokens that it cached. */
int train_setup_open(struct train_setup *s, struct runt_err *err)
{
    int rc = comm_rank(s->comm) ? 0 : open_all(s, err);
    rc = comm_meet(s->comm, NULL, 0, rc, err);
    if (rc || comm_size(s->comm) == 1)
        return rc;
    if (comm_rank(s->comm))
        rc = open_all(s, err);
    return comm_meet(s->comm, NULL, 0, rc, err);
}

/* ---- what the trainer wants ---- */

static float lora_alpha(const struct train_setup *s)
{
    return (float)(s->lora_alpha < 0 ? 2 * (double)s->lora : s->lora_alpha);
}

/* How one talks to a model that has learnt dialogues, else NULL. */
static const char *taught_template(const struct train_setup *s)
{
    bool talks = s->mask_prompts || data_get_stats(s->data)->messages;
    return talks ? talk_template_jinja(runt_template_find("turns")) : NULL;
}

static int write_adapter_meta(const struct train_setup *s, struct gguf_writer *w,
                              struct runt_err *err)
{
    uint64_t base = 0;
    int rc = adapter_base(s->source, &s->shape, &base, err);
    if (!rc)
        adapter_write_meta(w, lora_alpha(s), base, taught_template(s));
    return rc;
}

/* The metadata of a model file: the model's own, or made; or of an adapter. */
static int write_meta(void *ctx, bool adapter, struct gguf_writer *w,
                      struct runt_err *err)
{
    const struct train_setup *s = ctx;
    const char *jinja = taught_template(s);
    int rc;
    if (adapter)
        return write_adapter_meta(s, w, err);
    if (s->random) {
        rc = model_write_meta_for(w, &s->shape, &s->vocab, "runt", NULL, err);
    } else {
        rc = model_copy_meta(w, described_in(s), NULL, err);
        gguf_set_str(w, "general.architecture", "gpt2", 4);
    }
    if (jinja)
        gguf_set_str(w, "tokenizer.chat_template", jinja, strlen(jinja));
    return rc;
}

/* Where to train, and in which precision.  A GPU has bfloat16. */
static int choose(struct train_setup *s, bool *bf16, struct runt_err *err)
{
    struct gemm *gemm = NULL;
    enum device_choice device = DEVICE_AUTO;
    bool any = !strcmp(s->precision, "auto");
    *bf16 = !strcmp(s->precision, "bf16");
    device_parse(NULL, s->device_name, &device);
    if (device == DEVICE_AUTO && (s->lora || comm_size(s->comm) > 1))
        device = DEVICE_CPU; /* neither is made for a GPU */
    int rc = device_open(device, any || *bf16 ? GEMM_BF16 : GEMM_F32, &s->device,
                         s->no_gpu, sizeof s->no_gpu, err);
    if (!rc && !s->device) {
        rc = gemm_open(&gemm, err);
        *bf16 |= !rc && any && gemm_has_bf16(gemm);
        gemm_close(gemm);
    } else if (any)
        *bf16 = true;
    return rc;
}

/* A run goes on in the precision that it began with, wherever that is. */
static int keep_precision(struct train_setup *s, bool bf16, struct runt_err *err)
{
    const char *name = bf16 ? "bf16" : "f32";
    if (strcmp(s->precision, "auto"))
        return 0;
    return keep(s, "--precision", 11) && keep(s, name, strlen(name))
               ? 0
               : err_nomem(err, "arguments");
}

/* Adapters want about ten times the rate of weights (Schulman et al. 2025, "LoRA
 * Without Regret"). */
static double learning_rate(const struct train_setup *s)
{
    return s->lr >= 0 ? s->lr : s->lora ? 3e-3 : 3e-4;
}

int train_setup_options(struct train_setup *s, struct trainer_options *out,
                        struct runt_err *err)
{
    bool bf16;
    int rc = choose(s, &bf16, err);
    if (!rc)
        rc = keep_precision(s, bf16, err);
    if (rc)
        return rc;
    enum optim_schedule schedule = OPTIM_COSINE;
    find_schedule(s->schedule, &schedule);
    int64_t warmup = s->steps / 10 < 100 ? s->steps / 10 : 100;
    double lr = learning_rate(s);
    *out = (struct trainer_options){
        .net = {.shape = &s->shape,
                .n_seqs = (size_t)s->batch,
                .seq_len = s->context ? (size_t)s->context : s->shape.n_ctx,
                .recompute = s->recompute,
                .train = s->train,
                .lora = {.rank = (size_t)s->lora,
                         .alpha = lora_alpha(s),
                         .targets = s->lora_targets,
                         .seed = (uint64_t)s->seed},
                .type = bf16 ? GEMM_BF16 : GEMM_F32,
                .dropout = (float)s->dropout,
                .pool = s->pool,
                .device = s->device,
                .profile = s->profile},
        .optim = {.lr = lr,
                  .min_lr = s->min_lr < 0 ? lr / 10 : s->min_lr,
                  .warmup = (uint64_t)(s->warmup < 0 ? warmup : s->warmup),
                  .steps = (uint64_t)s->steps,
                  .schedule = schedule,
                  .weight_decay = s->weight_decay,
                  .beta1 = s->beta1,
                  .beta2 = s->beta2,
                  .eps = 1e-8,
                  .clip = s->clip},
        .accumulate = (uint64_t)s->accumulate,
        .seed = (uint64_t)s->seed,
        .save_every = (uint64_t)s->save_every,
        .keep = (uint64_t)s->keep,
        .eval_every = (uint64_t)s->eval_every,
        .eval_tokens = (uint64_t)s->eval_tokens,
        .data = s->data,
        .comm = s->comm,
        .folder = s->out,
        .log = s->log,
        .meta = {write_meta, s},
        .args = (const char *const *)s->kept,
        .n_args = s->n_kept,
    };
    return 0;
}

void train_setup_free(struct train_setup *s)
{
    data_close(s->data);
    for (size_t i = 0; i < TRAIN_MAX_SOURCES; i++)
        if (s->sources[i].weight > 0)
            mem_free((char *)s->sources[i].path);
    for (size_t i = 0; i < s->n_kept; i++)
        mem_free(s->kept[i]);
    mem_free(s->kept);
    tok_destroy(s->tok);
    tok_vocab_free(&s->vocab);
    model_random_close(s->random);
    gguf_close(s->model);
    gguf_close(s->checkpoint);
    device_close(s->device);
    pool_destroy(s->pool);
    forget(s);
    *s = (struct train_setup){0};
}
