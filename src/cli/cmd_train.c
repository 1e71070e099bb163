/* runt train: from a text and a model (or nothing) to a tuned model. */
#include "cli/train_view.h"
#include "cli/train_setup.h"
#include "cli/verbs.h"

#include "base/err.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static int run(int argc, char **argv);

const struct cli_verb verb_train = {
    .name = "train",
    .summary = "train or fine-tune a model on text",
    .usage = "train --data FILE --init MODEL --out DIR [options]",
    .example = "runt train --data quotes.txt --init gpt2.gguf --out tuned --steps 500\n"
               "runt train --data quotes.txt:2 --data books.txt.xz:1 --init gpt2 "
               "--tokenizer models/pocket --layers 4 --heads 4 --embd 256 --out fresh\n"
               "runt train --resume --out tuned",
    .about = "Trains a model, from scratch or from one that there is, on texts "
             "or dialogues. Checkpoints appear only when complete, so that "
             "--resume goes on from the last one after any interruption, with "
             "the same numbers. The folder of the run has the model, its "
             "checkpoints and a log that 'runt plot' draws.",
    .run = run,
};

static void print_memory(const struct net_memory *m)
{
    const struct {
        const char *what;
        size_t bytes;
    } rows[] = {
        {"weights", m->weights},         {"weights in bf16", m->narrow},
        {"gradients", m->gradients},     {"moments", m->moments},
        {"activations", m->activations}, {"work space", m->work},
        {"together", m->total},
    };
    char buf[32];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        printf("%-16s %12s\n", rows[i].what, cli_bytes(rows[i].bytes, buf));
}

static void print_data(const struct data_stats *s, bool mask_prompts)
{
    char buf[32];
    printf(
        "data: %zu documents, %zu tokens from %s of text%s; %zu documents (%zu tokens) "
        "held out\n",
        (size_t)s->documents, (size_t)s->tokens, cli_bytes(s->text_bytes, buf),
        s->cached ? " (cached)" : "", (size_t)s->val_documents, (size_t)s->val_tokens);
    if (mask_prompts)
        printf("data: %zu tokens count, those of answers; %zu documents without an "
               "answer are left out\n",
               (size_t)s->counted, (size_t)s->unanswered);
    if (s->long_documents)
        printf("data: %zu documents are longer than the context: they lie in several "
               "windows\n",
               (size_t)s->long_documents);
}

static void print_end(const struct trainer_options *o, const struct trainer *t,
                      double seconds)
{
    char buf[32];
    printf("%s/%s: %llu steps in %s\n", o->folder, trainer_result(o),
           (unsigned long long)trainer_done(t), train_view_time(seconds, buf));
}

/* Where the time went, and what the products reached. */
static void print_profile(const struct net *n, double peak)
{
    double all = 0;
    for (int k = 0; k < NET_N_PARTS; k++)
        all += n->seconds[k];
    printf("%-24s %9s %6s %9s %8s\n", "part", "seconds", "share", "GFLOP/s", "of peak");
    for (int k = 0; k < NET_N_PARTS && all > 0; k++) {
        double rate = n->seconds[k] > 0 ? n->flops[k] / n->seconds[k] : 0;
        printf("%-24s %9.3f %5.1f%%", net_part_names[k], n->seconds[k],
               100 * n->seconds[k] / all);
        if (rate > 0)
            printf(" %9.1f", rate / 1e9);
        if (rate > 0 && peak > 0)
            printf(" %7.0f%%", 100 * rate / peak);
        putchar('\n');
    }
}

static void print_begin(const struct train_setup *s, const struct trainer_options *o,
                        const struct net *n, double peak)
{
    char who[320], most[64] = "";
    print_data(data_get_stats(s->data), s->mask_prompts);
    if (*s->no_gpu)
        printf("on the processor: %s\n", s->no_gpu);
    net_describe(n, who, sizeof who);
    if (peak > 0)
        snprintf(most, sizeof most, ", %.0f GFLOP/s at most", peak / 1e9);
    printf("training %zu of %zu numbers in %s (%s)%s; a step is %llu x %zu tokens\n",
           n->n_trained, n->n_weights, n->o.type == GEMM_BF16 ? "bf16" : "float32", who,
           most, (unsigned long long)(o->accumulate * o->net.n_seqs), o->net.seq_len);
    if (s->checkpoint)
        printf("going on from %s\n", s->checkpoint->path);
    fflush(stdout);
}

/* Begin or go on, then train. */
static int train(const struct cli_verb *v, struct train_setup *s, struct runt_err *err)
{
    struct trainer_options o;
    struct trainer *t = NULL;
    struct net_memory memory;
    struct train_view view = {.quiet = s->quiet,
                              .line_every =
                                  s->steps >= 20 ? (uint64_t)s->steps / 20 : 1,
                              .sample_every = (uint64_t)s->sample_every,
                              .prompt = s->prompt,
                              .folder = s->out,
                              .begin = cli_seconds()};
    int rc = train_setup_options(s, &o, err);
    if (rc)
        return rc;
    o.watch = train_view_step;
    o.ctx = &view;
    if (s->memory) {
        rc = trainer_plan(&o, &memory, err);
        if (!rc && !comm_rank(s->comm))
            print_memory(&memory);
        return rc;
    }
    rc = s->checkpoint ? trainer_resume(&o, s->source, s->checkpoint, &t, err)
                       : trainer_begin(&o, s->source, &t, err);
    if (rc)
        return rc;
    const struct net *n = trainer_net(t);
    view.trainer = t;
    view.first = trainer_done(t);
    if (!s->quiet || s->profile || comm_size(s->comm) > 1)
        view.peak = net_peak(n);
    rc = comm_meet(s->comm, &view.peak, 1, 0, err); /* of all processes */
    if (rc) {
        trainer_free(t);
        return rc;
    }
    view.flops = net_flops(n, o.net.seq_len);
    if (!s->quiet)
        print_begin(s, &o, n, view.peak);
    view.begin = cli_seconds();
    rc = trainer_run(t, err);
    train_view_done(&view);
    if (!rc && !s->quiet)
        print_end(&o, t, cli_seconds() - view.begin);
    if (s->profile)
        print_profile(n, view.peak);
    trainer_free(t);
    (void)v;
    return rc;
}

/* The exit status, and the line why.  What all processes know, one of them says. */
static int finish(const struct cli_verb *v, const struct train_setup *s, int rc,
                  const struct runt_err *err)
{
    if (!rc)
        return EXIT_OK;
    if (!comm_rank(s->comm) || comm_lost(s->comm))
        return cli_fail(v, err);
    return err->code == RUNT_E_INTERRUPTED ? EXIT_INTERRUPTED : EXIT_FAILED;
}

static int run(int argc, char **argv)
{
    const struct cli_verb *v = &verb_train;
    struct runt_err err = {0};
    struct train_setup s;
    int rc = train_setup_parse(v, argc, argv, &s);
    if (rc)
        return rc;
    rc = comm_open(&s.comm, &err);
    cli_catch_interrupt();
    if (!rc) {
        s.quiet |= comm_rank(s.comm) > 0;
        s.profile &= comm_rank(s.comm) == 0;
        rc = train_setup_open(&s, &err);
    }
    if (!rc)
        rc = train(v, &s, &err);
    rc = finish(v, &s, rc, &err);
    struct comm *comm = s.comm;
    train_setup_free(&s);
    comm_close(comm, rc != EXIT_OK && rc != EXIT_INTERRUPTED);
    return rc;
}
