/* The options of `runt train`, and what they name, opened: data, tokenizer, the weights
 * to begin with, the checkpoint to go on from. */
#ifndef RUNT_CLI_TRAIN_SETUP_H
#define RUNT_CLI_TRAIN_SETUP_H

#include "cli/device.h"
#include "import/import.h"
#include "model/model.h"
#include "train/trainer.h"

enum { TRAIN_MAX_SOURCES = 64 };

struct train_setup {
    /* options */
    struct cli_list data_files, val_files;
    const char *field, *init, *tokenizer, *out, *log, *train, *lora_targets, *schedule,
        *precision, *prompt, *device_name;
    int64_t layers, heads, embd, ff, context, steps, batch, accumulate, warmup, seed,
        lora, save_every, keep, eval_every, eval_tokens, sample_every, threads;
    double lr, min_lr, lora_alpha, weight_decay, beta1, beta2, clip, dropout, val_share;
    bool mask_prompts, resume, recompute, memory, profile, quiet;
    /* the parser's */
    struct cli_option *options;
    struct cli_args args;
    char **kept; /* arguments that a checkpoint keeps */
    size_t n_kept;
    struct comm *comm; /* not owned */
    /* opened */
    struct pool *pool;
    struct net_device *device; /* NULL: the processor */
    char no_gpu[256];          /* why --device auto took that, or empty */
    struct gpt2_shape shape;
    /* One of these and `random`; both where adapters are trained on. */
    struct gguf *model, *checkpoint;
    struct model_random *random;
    struct tok_vocab vocab; /* of a model from scratch */
    const struct tensor_source *source;
    struct tok *tok;
    struct data_source sources[TRAIN_MAX_SOURCES], val_sources[TRAIN_MAX_SOURCES];
    struct data *data;
};

/* Parse; with --resume the checkpoint's own arguments first, then these.  0, CLI_HELP
 * or an exit status, after saying why. */
int train_setup_parse(const struct cli_verb *v, int argc, char **argv,
                      struct train_setup *s);
/* Open all that the options name. */
int train_setup_open(struct train_setup *s, struct runt_err *err);
/* What the trainer wants; borrows from s. */
int train_setup_options(struct train_setup *s, struct trainer_options *out,
                        struct runt_err *err);
void train_setup_free(struct train_setup *s);

#endif
