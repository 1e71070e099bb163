/* runt tokenizer: a vocabulary learned from texts. */
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/new_folder.h"
#include "cli/verbs.h"
#include "tok/bpe_train.h"
#include "train/data.h"

#include <stdlib.h>
#include <string.h>

static int run(int argc, char **argv);

const struct cli_verb verb_tokenizer = {
    .name = "tokenizer",
    .summary = "learn a tokenizer from texts",
    .usage = "tokenizer train --data FILE... -o DIR [options]",
    .example =
        "runt tokenizer train --data books.txt --data chats.jsonl --vocab 8192 -o "
        "my-tok\n"
        "runt init gpt2 --layers 4 --heads 4 --embd 256 --tokenizer my-tok -o new.gguf",
    .about = "Learns a byte-level BPE vocabulary from texts, for models that "
             "start from scratch: vocab.json and merges.txt, which 'runt init' "
             "and 'runt train' take.",
    .operands = {"ACTION train"},
    .run = run,
};

struct request {
    struct cli_list data;
    const char *field, *out;
    int64_t n_vocab, min_count, n_threads;
    bool quiet;
};

/* Texts as they are read. */
struct reading {
    struct bpe_train *trainer;
    const struct request *q;
    size_t file;
    uint64_t n_documents;
};

static int add_document(void *ctx, const char *text, size_t n, struct runt_err *err)
{
    struct reading *r = ctx;
    r->n_documents++;
    if (cli_progress(NULL, r->q->data.items[r->file], r->file, r->q->data.n))
        return err_set(err, RUNT_E_INTERRUPTED, "interrupted");
    return bpe_train_add(r->trainer, text, n, err);
}

/* FILE:WEIGHT is what `runt train` takes; a file that is named so is a file. */
static bool has_weight(const char *item)
{
    const char *colon = strrchr(item, ':');
    char *end;
    if (!colon || !colon[1] || file_exists(item))
        return false;
    strtod(colon + 1, &end);
    return !*end;
}

static int read_all(struct reading *r, struct runt_err *err)
{
    int rc = 0;
    for (; r->file < r->q->data.n && !rc; r->file++)
        rc = data_read_documents(r->q->data.items[r->file], r->q->field, add_document,
                                 r, err);
    if (!rc && !r->n_documents)
        rc = err_set(err, RUNT_E_FORMAT, "%s holds no document", r->q->data.items[0]);
    return rc;
}

static void print_result(const struct request *q, const struct tok_vocab *v,
                         const struct bpe_stats *s, double seconds)
{
    char size[32];
    if (v->n_tokens < (size_t)q->n_vocab)
        fprintf(stderr,
                "note: no pair occurs %lld times any more: %zu tokens instead of "
                "%lld\n",
                (long long)q->min_count, v->n_tokens, (long long)q->n_vocab);
    printf("%s: %zu tokens, %zu merges, from %s with %llu words, %llu different; %.3g "
           "bytes a token; %.1f s\n",
           q->out, v->n_tokens, v->n_merges, cli_bytes(s->n_bytes, size),
           (unsigned long long)s->n_words, (unsigned long long)s->n_distinct,
           (double)s->n_bytes / (double)s->n_tokens, seconds);
}

static int train(const struct request *q, struct runt_err *err)
{
    double begin = cli_seconds();
    struct bpe_options o = {.n_vocab = (size_t)q->n_vocab,
                            .min_count = (uint64_t)q->min_count,
                            .progress = cli_progress};
    struct bpe_stats stats;
    struct reading r = {.q = q};
    struct tok_vocab v = {0};
    struct new_folder folder = {0};
    struct pool *pool = NULL;
    int rc = new_folder_check(q->out, &folder, err);
    if (!rc)
        rc = pool_create((unsigned)q->n_threads, &pool, err);
    if (!rc)
        rc = bpe_train_new(pool, &r.trainer, err);
    if (!rc)
        rc = read_all(&r, err);
    if (!rc)
        rc = bpe_train_run(r.trainer, &o, &v, &stats, err);
    if (!rc)
        rc = new_folder_begin(&folder, err);
    if (!rc)
        rc = tok_vocab_save(&v, folder.tmp, err);
    if (!rc)
        rc = new_folder_commit(&folder, err);
    cli_progress_done();
    if (!rc && !q->quiet)
        print_result(q, &v, &stats, cli_seconds() - begin);
    new_folder_end(&folder);
    tok_vocab_free(&v);
    bpe_train_free(r.trainer);
    pool_destroy(pool);
    return rc;
}

static int check(const struct cli_verb *v, const struct request *q, const char *action)
{
    if (strcmp(action, "train"))
        return cli_misuse(v, "unknown action '%s'; only train", action);
    if (!q->out)
        return cli_misuse(v, "where to? name a new folder with -o");
    if (!q->data.n)
        return cli_misuse(v, "from what? name a text with --data");
    for (size_t i = 0; i < q->data.n; i++)
        if (has_weight(q->data.items[i]))
            return cli_misuse(v,
                              "--data %s: texts have no weights here; each counts once",
                              q->data.items[i]);
    return 0;
}

static int run(int argc, char **argv)
{
    const struct cli_verb *v = &verb_tokenizer;
    struct request q = {.field = "text", .n_vocab = 8192, .min_count = 2};
    struct cli_option options[] = {
        {"--data", NULL, CLI_LIST, &q.data, "FILE",
         "text or .jsonl, may be .xz, .zst or .gz; again for more", 0, 0},
        {"--field", NULL, CLI_STR, &q.field, "NAME", "member of a .jsonl line", 0, 0},
        {"--output", "-o", CLI_STR, &q.out, "DIR",
         "new folder for vocab.json and merges.txt", 0, 0},
        {"--vocab", NULL, CLI_INT, &q.n_vocab, "N",
         "tokens: 256 bytes, merges, <|endoftext|>", BPE_MIN_VOCAB, BPE_MAX_VOCAB},
        {"--min-count", NULL, CLI_INT, &q.min_count, "N",
         "pairs that occur less often never merge", 1, 1e15},
        {"--quiet", "-q", CLI_FLAG, &q.quiet, NULL, "no output but errors", 0, 0},
        {"--threads", "-t", CLI_INT, &q.n_threads, "N", "threads, 0: one for each core",
         0, POOL_MAX_THREADS},
        {0},
    };
    struct cli_args args;
    struct runt_err err = {0};
    int rc = cli_parse(v, options, argc, argv, 1, 1, &args);
    if (rc)
        return rc;
    rc = check(v, &q, args.pos[0]);
    if (!rc) {
        cli_catch_interrupt();
        rc = train(&q, &err);
        if (rc)
            rc = cli_fail(v, &err);
    }
    cli_free(options, &args);
    return rc;
}
