/* Owns a run: the loop over steps, validation, when to save and when to stop. */
#include "train/trainer.h"

#include "base/err.h"
#include "base/file.h"
#include "base/fold.h"
#include "train/net_device.h"
#include "train/shard.h"
#include "train/train_log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

struct trainer {
    struct trainer_options o;
    struct net *net;
    struct optim *optim;
    struct shard *shard;   /* NULL: one process */
    size_t first, last;    /* this process's sequences of a micro-batch */
    struct train_log *log; /* of process 0 */
    struct checkpoint_state state;
    int32_t *inputs, *targets; /* [accumulate * n_seqs][seq_len] */
    uint32_t *keys;            /* [n_seqs] */
    int folder;                /* locked while the run is at work; -1: not yet */
};

enum { SMOOTH_STEPS = 20 };

/* ---- memory ---- */

/* What the system could give without swapping; SIZE_MAX where it does not say. */
static size_t available(void)
{
    FILE *f = fopen("/proc/meminfo", "r");
    unsigned long long kib;
    char line[128];
    size_t bytes = SIZE_MAX;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
            bytes = (size_t)kib * 1024;
    if (f)
        fclose(f);
    return bytes;
}

/* Sequences of a micro-batch that the busiest process runs. */
static struct net_options own_net(const struct trainer_options *o)
{
    size_t size = comm_size(o->comm);
    struct net_options net = o->net;
    net.n_seqs = (net.n_seqs + size - 1) / size;
    return net;
}

int trainer_plan(const struct trainer_options *o, struct net_memory *out,
                 struct runt_err *err)
{
    struct net_options net = own_net(o);
    size_t size = comm_size(o->comm);
    int rc = net_plan(&net, out, err);
    if (rc || size == 1)
        return rc;
    size_t share = (out->gradients + size - 1) / size;
    size_t work = comm_sum_bytes(o->comm, share / sizeof(float));
    out->total -= out->moments;
    out->moments = 2 * share;
    out->work += work;
    out->total += out->moments + work;
    return 0;
}

static int enough_memory(const struct trainer_options *o, struct runt_err *err)
{
    struct net_memory m;
    const struct net_device *d = o->net.device;
    size_t have = d ? d->free_bytes(d) : available();
    int rc = trainer_plan(o, &m, err);
    if (rc || m.total <= have)
        return rc;
    return err_set(
        err, RUNT_E_NOMEM,
        "a batch of %zu x %zu tokens needs %zu MB of%s memory, and %zu MB are "
        "there; --memory shows what for, --recompute or a smaller --batch "
        "with --accumulate need less",
        o->net.n_seqs, o->net.seq_len, m.total / 1000000 + 1, d ? " the GPU's" : "",
        have / 1000000);
}

/* ---- beginning ---- */

static uint64_t samples_a_step(const struct trainer_options *o)
{
    return o->accumulate * o->net.n_seqs;
}

/* What must stay as it was for a run to be one run. */
static uint64_t fingerprint(const struct trainer_options *o)
{
    const struct gpt2_shape *s = o->net.shape;
    uint64_t x[] = {s->n_vocab,    s->n_ctx, s->n_embd,     s->n_head,
                    s->n_layer,    s->n_ff,  o->net.n_seqs, o->net.seq_len,
                    o->accumulate, o->seed,  o->net.type,   data_fingerprint(o->data),
                    o->optim.steps};
    double d[] = {(double)o->net.dropout, o->optim.lr,    o->optim.min_lr,
                  o->optim.weight_decay,  o->optim.beta1, o->optim.beta2,
                  o->optim.clip};
    uint64_t h = fold(fold(1, x, sizeof x), d, sizeof d);
    h = fold(h, &o->optim.warmup, sizeof o->optim.warmup);
    h = fold(h, &o->optim.schedule, sizeof o->optim.schedule);
    if (o->net.train)
        h = fold(h, o->net.train, strlen(o->net.train));
    const struct net_lora *l = &o->net.lora;
    if (!l->rank)
        return h;
    double adapters[] = {(double)l->rank, (double)l->alpha};
    h = fold(h, adapters, sizeof adapters);
    return l->targets ? fold(h, l->targets, strlen(l->targets)) : h;
}

static int check(const struct trainer_options *o, struct runt_err *err)
{
    if (o->net.seq_len > o->net.shape->n_ctx)
        return err_set(err, RUNT_E_INVALID,
                       "a context of %zu tokens is beyond the model's %u",
                       o->net.seq_len, o->net.shape->n_ctx);
    if (o->net.n_seqs < comm_size(o->comm))
        return err_set(err, RUNT_E_INVALID,
                       "a batch of %zu sequences is too small for %u processes",
                       o->net.n_seqs, comm_size(o->comm));
    if (o->net.device && comm_size(o->comm) > 1)
        return err_set(err, RUNT_E_UNSUPPORTED,
                       "a GPU trains in one process, and these are %u: --device cpu "
                       "trains in all of them",
                       comm_size(o->comm));
    return enough_memory(o, err);
}

/* The weights, this process's share of the moments. */
static int create_net(struct trainer *t, struct runt_err *err)
{
    struct net_options net = own_net(&t->o);
    int rc = net_create(&net, &t->net, err);
    if (!rc)
        rc = shard_create(t->o.comm, t->net, &t->shard, err);
    if (rc)
        return rc;
    t->o.optim.pieces = shard_pieces(t->shard, &t->o.optim.n_pieces);
    return optim_create(&t->o.optim, t->net, &t->optim, err);
}

static int create(const struct trainer_options *o, struct trainer **out,
                  struct runt_err *err)
{
    int rc = check(o, err);
    if (rc)
        return rc;
    struct trainer *t = mem_zalloc(sizeof *t);
    if (!t)
        return err_nomem(err, "a training run");
    t->folder = -1;
    t->o = *o;
    t->state = (struct checkpoint_state){.seed = o->seed,
                                         .run = fingerprint(o),
                                         .smooth = (double)NAN,
                                         .best = (double)INFINITY};
    size_t n = samples_a_step(o) * o->net.seq_len;
    size_t val = o->net.n_seqs * o->net.seq_len;
    n = n > val ? n : val;
    t->inputs = mem_array(n, sizeof *t->inputs);
    t->targets = mem_array(n, sizeof *t->targets);
    t->keys = mem_array(o->net.n_seqs, sizeof *t->keys);
    if (!t->inputs || !t->targets || !t->keys)
        rc = err_nomem(err, "a step's tokens");
    pool_range(o->net.n_seqs, 1, comm_rank(o->comm), comm_size(o->comm), &t->first,
               &t->last);
    if (!rc)
        rc = create_net(t, err);
    if (rc)
        trainer_free(t);
    else
        *out = t;
    return rc;
}

/* One run at a time; and what killed ones left half written goes. */
static int take_folder(struct trainer *t, struct runt_err *err)
{
    if (comm_rank(t->o.comm))
        return 0;
    t->folder = open(t->o.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (t->folder < 0)
        return err_errno(err, t->o.folder, "open");
    if (flock(t->folder, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
        return err_set(err, RUNT_E_INVALID, "another run is at work in %s",
                       t->o.folder);
    DIR *d = opendir(t->o.folder);
    for (struct dirent *e; d && (e = readdir(d));)
        if (*e->d_name == '.' && strstr(e->d_name, ".tmp-"))
            unlinkat(t->folder, e->d_name, 0);
    if (d)
        closedir(d);
    return 0;
}

static int open_log(struct trainer *t, struct runt_err *err)
{
    if (comm_rank(t->o.comm))
        return 0;
    char *own = mem_printf("%s/log.jsonl", t->o.folder);
    if (!own)
        return err_nomem(err, "a log");
    int rc = train_log_open(t->o.log ? t->o.log : own, t->state.step, &t->log, err);
    mem_free(own);
    return rc;
}

int trainer_begin(const struct trainer_options *o, const struct tensor_source *weights,
                  struct trainer **out, struct runt_err *err)
{
    struct trainer *t = NULL;
    uint64_t *steps = NULL;
    size_t n;
    bool first = comm_rank(o->comm) == 0;
    int rc = first ? file_make_dirs(o->folder, err) : 0;
    if (!rc && first)
        rc = checkpoint_list(o->folder, &steps, &n, err);
    if (!rc && first && n)
        rc = err_set(err, RUNT_E_INVALID,
                     "%s holds a run of %" PRIu64 " steps: --resume goes on with it, "
                     "another --out begins anew",
                     o->folder, steps[n - 1]);
    mem_free(steps);
    if (!rc)
        rc = create(o, &t, err);
    if (!rc)
        rc = take_folder(t, err);
    if (!rc)
        rc = net_load(t->net, weights, err);
    if (!rc)
        rc = open_log(t, err);
    rc = comm_meet(o->comm, NULL, 0, rc, err);
    if (rc)
        trainer_free(t);
    else
        *out = t;
    return rc;
}

int trainer_resume(const struct trainer_options *o, const struct tensor_source *weights,
                   const struct gguf *checkpoint, struct trainer **out,
                   struct runt_err *err)
{
    struct trainer *t = NULL;
    struct checkpoint_state s;
    struct gguf_str *args = NULL;
    size_t n_args;
    int rc = checkpoint_read_state(checkpoint, &s, &args, &n_args, err);
    mem_free(args);
    if (!rc)
        rc = create(o, &t, err);
    if (!rc && s.run != t->state.run)
        rc = err_set(
            err, RUNT_E_INVALID,
            "%s is of a run with other data or options: a run goes on with what "
            "it began with",
            checkpoint->path);
    if (!rc)
        rc = take_folder(t, err);
    if (!rc && weights)
        rc = net_load(t->net, weights, err);
    if (!rc)
        rc = checkpoint_read(checkpoint, t->optim, err);
    if (!rc) {
        t->state = s;
        shard_drop(t->shard, t->optim->m);
        shard_drop(t->shard, t->optim->v);
        rc = open_log(t, err);
    }
    rc = comm_meet(o->comm, NULL, 0, rc, err);
    if (rc)
        trainer_free(t);
    else
        *out = t;
    return rc;
}

void trainer_free(struct trainer *t)
{
    if (!t)
        return;
    train_log_close(t->log);
    if (t->folder >= 0)
        close(t->folder);
    optim_free(t->optim);
    shard_free(t->shard);
    net_free(t->net);
    mem_free(t->inputs);
    mem_free(t->targets);
    mem_free(t->keys);
    mem_free(t);
}

uint64_t trainer_done(const struct trainer *t)
{
    return t->state.step;
}

const struct net *trainer_net(const struct trainer *t)
{
    return t->net;
}

const char *trainer_result(const struct trainer_options *o)
{
    return o->net.lora.rank ? "adapter.gguf" : "model.gguf";
}

int trainer_write_model(const struct trainer *t, const char *path, struct runt_err *err)
{
    return checkpoint_write_model(path, t->net, &t->o.meta, err);
}

/* ---- a step ---- */

static size_t count_targets(const int32_t *targets, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += targets[i] >= 0;
    return count;
}

/* Of a sample, whatever batch it comes in. */
static uint32_t drop_key(uint64_t seed, uint64_t sample)
{
    uint64_t x[] = {seed, sample};
    return (uint32_t)(fold(0x64726f70, x, sizeof x) >> 13);
}

/* Gradients of the next step's samples, summed over all processes; their mean loss over
 * the targets that count, NAN where none does. */
static int gradients(struct trainer *t, double *loss, bool *counted,
                     struct runt_err *err)
{
    const struct trainer_options *o = &t->o;
    size_t seqs = o->net.n_seqs, len = o->net.seq_len, all = samples_a_step(o);
    data_train(o->data, t->state.samples, all, t->inputs, t->targets);
    size_t n_targets = count_targets(t->targets, all * len);
    double sum = 0;
    for (size_t a = 0; a < o->accumulate; a++) {
        size_t own = a * seqs + t->first;
        bool sum_up = t->shard && a + 1 == o->accumulate;
        for (size_t s = 0; s < t->last - t->first; s++)
            t->keys[s] = drop_key(o->seed, t->state.samples + own + s);
        sum += net_run(
            t->net, &(struct net_batch){.inputs = t->inputs + own * len,
                                        .targets = t->targets + own * len,
                                        .n_seqs = t->last - t->first,
                                        .seq_len = len,
                                        .keys = t->keys,
                                        .weight = n_targets ? 1 / (float)n_targets : 0,
                                        .learn = true,
                                        .done = sum_up ? shard_done : NULL,
                                        .poll = sum_up ? shard_poll : NULL,
                                        .ctx = t->shard});
    }
    int rc = net_check(t->net, err);
    if (!rc)
        rc = shard_reduce(t->shard, err);
    if (!rc)
        rc = comm_meet(o->comm, &sum, 1, 0, err);
    *loss = n_targets ? sum / (double)n_targets : (double)NAN;
    *counted = n_targets > 0;
    return rc;
}

/* Mean loss over windows that lie evenly over the validation data; NAN without any. */
static int validate(struct trainer *t, double *loss, struct runt_err *err)
{
    const struct trainer_options *o = &t->o;
    size_t len = o->net.seq_len, all = data_n_val(o->data);
    size_t want = (o->eval_tokens + len - 1) / len, n = want < all ? want : all;
    double sum = 0;
    size_t n_targets = 0;
    for (size_t from = 0; from < n; from += o->net.n_seqs) {
        size_t seqs = n - from < o->net.n_seqs ? n - from : o->net.n_seqs;
        for (size_t s = 0; s < seqs; s++)
            data_val(o->data, (from + s) * all / n, 1, t->inputs + s * len,
                     t->targets + s * len);
        n_targets += count_targets(t->targets, seqs * len);
        size_t last = t->last < seqs ? t->last : seqs;
        if (t->first < last)
            sum += net_run(t->net,
                           &(struct net_batch){.inputs = t->inputs + t->first * len,
                                               .targets = t->targets + t->first * len,
                                               .n_seqs = last - t->first,
                                               .seq_len = len});
    }
    int rc = net_check(t->net, err);
    if (!rc)
        rc = comm_meet(o->comm, &sum, 1, 0, err);
    *loss = n_targets ? sum / (double)n_targets : (double)NAN;
    return rc;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- files ---- */

/* Checkpoints but for the last `keep` go; a step that was done again replaces its own.
 */
static int sweep(struct trainer *t, struct runt_err *err)
{
    uint64_t *steps = NULL;
    size_t n;
    int rc = checkpoint_list(t->o.folder, &steps, &n, err);
    if (rc)
        return rc;
    for (size_t i = 0; i + t->o.keep < n; i++) {
        char *path = checkpoint_path(t->o.folder, steps[i]);
        if (path)
            unlink(path);
        mem_free(path);
    }
    mem_free(steps);
    return 0;
}

static int write_checkpoint(struct trainer *t, struct runt_err *err)
{
    char *path = checkpoint_path(t->o.folder, t->state.step);
    if (!path)
        return err_nomem(err, "a checkpoint");
    int rc = checkpoint_write(path, t->optim, &t->state, &t->o.meta, t->o.args,
                              t->o.n_args, err);
    mem_free(path);
    return rc ? rc : sweep(t, err);
}

/* Process 0 needs all moments for as long as the file is written. */
static int save(struct trainer *t, struct runt_err *err)
{
    int rc = shard_collect(t->shard, t->optim->m, err);
    if (!rc)
        rc = shard_collect(t->shard, t->optim->v, err);
    if (rc)
        return rc;
    if (!comm_rank(t->o.comm))
        rc = write_checkpoint(t, err);
    shard_drop(t->shard, t->optim->m);
    shard_drop(t->shard, t->optim->v);
    return comm_meet(t->o.comm, NULL, 0, rc, err);
}

static int write_result(struct trainer *t, const char *name, struct runt_err *err)
{
    char *path = mem_printf("%s/%s", t->o.folder, name);
    if (!path)
        return err_nomem(err, "a model's name");
    int rc = t->o.net.lora.rank
                 ? checkpoint_write_adapter(path, t->net, &t->o.meta, err)
                 : trainer_write_model(t, path, err);
    mem_free(path);
    return rc;
}

static int save_as(struct trainer *t, const char *name, struct runt_err *err)
{
    int rc = 0;
    if (!comm_rank(t->o.comm))
        rc = write_result(t, name, err);
    return comm_meet(t->o.comm, NULL, 0, rc, err);
}

/* ---- the loop ---- */

static int bad(const struct trainer *t, const char *what, struct runt_err *err)
{
    uint64_t *steps = NULL;
    size_t n = 0;
    char *last = NULL;
    if (!checkpoint_list(t->o.folder, &steps, &n, NULL) && n)
        last = checkpoint_path(t->o.folder, steps[n - 1]);
    int rc = err_set(
        err, RUNT_E_FORMAT, "step %" PRIu64 ": %s; %s%s", t->state.step + 1, what,
        last ? "the last good checkpoint is " : "there is no checkpoint yet",
        last ? last : "");
    mem_free(last);
    mem_free(steps);
    return rc;
}

/* The mean of the first steps, then one that forgets.  A step in which nothing counts
 * has no loss. */
static void smooth(struct checkpoint_state *s, double loss)
{
    double n = (double)(s->step + 1 < SMOOTH_STEPS ? s->step + 1 : SMOOTH_STEPS);
    if (!isnan(loss))
        s->smooth = isnan(s->smooth) ? loss : s->smooth + (loss - s->smooth) / n;
}

static int report(struct trainer *t, struct trainer_step *s, struct runt_err *err)
{
    int rc = 0;
    if (t->log)
        rc = train_log_put(t->log,
                           &(struct train_log_line){s->step, s->loss, s->lr,
                                                    s->grad_norm, s->tokens_per_second,
                                                    s->val_loss},
                           err);
    if (!rc && t->o.watch && t->o.watch(t->o.ctx, s))
        rc = err_set(err, RUNT_E_INTERRUPTED, "interrupted after step %" PRIu64,
                     s->step);
    return comm_meet(t->o.comm, NULL, 0, rc, err);
}

static int look_at_validation(struct trainer *t, struct trainer_step *s,
                              struct runt_err *err)
{
    int rc = validate(t, &s->val_loss, err);
    if (rc)
        return rc;
    if (!(s->val_loss < t->state.best))
        return 0;
    t->state.best = s->val_loss;
    return s->step ? save_as(t, "best.gguf", err) : 0;
}

/* Before the first step: how good is it without? */
static int first_look(struct trainer *t, struct runt_err *err)
{
    struct trainer_step s = {.steps = t->o.optim.steps,
                             .loss = (double)NAN,
                             .smooth = (double)NAN,
                             .lr = (double)NAN,
                             .grad_norm = (double)NAN,
                             .tokens_per_second = (double)NAN};
    if (!t->o.eval_every || !data_n_val(t->o.data))
        return 0;
    int rc = look_at_validation(t, &s, err);
    s.val_best = t->state.best;
    return rc ? rc : report(t, &s, err);
}

static int one_step(struct trainer *t, struct trainer_step *s, struct runt_err *err)
{
    struct checkpoint_state *st = &t->state;
    const struct trainer_options *o = &t->o;
    double begin = seconds(), loss, norm;
    bool counted;
    int rc = gradients(t, &loss, &counted, err);
    if (rc)
        return rc;
    norm = optim_squares(t->optim);
    rc = net_check(t->net, err);
    if (!rc)
        rc = comm_meet(o->comm, &norm, 1, 0, err);
    if (rc)
        return rc;
    norm = sqrt(norm);
    if ((counted && !isfinite(loss)) || !isfinite(norm))
        return bad(t,
                   !counted || isfinite(loss) ? "the gradient is not a number"
                                              : "the loss is not a number",
                   err);
    struct checkpoint_state before = *st;
    smooth(st, loss);
    if (st->smooth > log(o->net.shape->n_vocab) + 1 && st->step >= SMOOTH_STEPS / 2) {
        *st = before;
        return bad(t, "the run diverges: its loss is worse than guessing", err);
    }
    *s = (struct trainer_step){.steps = o->optim.steps,
                               .loss = loss,
                               .smooth = st->smooth,
                               .lr = optim_rate(&o->optim, st->step),
                               .grad_norm = norm,
                               .val_loss = (double)NAN,
                               .tokens = samples_a_step(o) * o->net.seq_len};
    optim_step(t->optim, st->step, norm);
    rc = shard_spread(t->shard, err);
    if (rc)
        return rc;
    st->step++;
    st->samples += samples_a_step(o);
    s->step = st->step;
    s->tokens_per_second = (double)s->tokens / (seconds() - begin);
    return 0;
}

int trainer_run(struct trainer *t, struct runt_err *err)
{
    const struct trainer_options *o = &t->o;
    int rc = t->state.step ? 0 : first_look(t, err);
    while (!rc && t->state.step < o->optim.steps) {
        struct trainer_step s;
        rc = one_step(t, &s, err);
        if (rc)
            return rc;
        bool last = s.step == o->optim.steps;
        if (o->eval_every && (s.step % o->eval_every == 0 || last) &&
            data_n_val(o->data))
            rc = look_at_validation(t, &s, err);
        s.val_best = t->state.best;
        /* The log first: a resumed run drops lines behind its checkpoint, but could not
         * make those before it. */
        int stop = rc ? rc : report(t, &s, err);
        if (stop && stop != RUNT_E_INTERRUPTED)
            return stop;
        struct runt_err why;
        if (last || stop || (o->save_every && s.step % o->save_every == 0))
            if ((rc = save(t, stop ? &why : err))) {
                if (stop && err)
                    *err = why;
                return rc;
            }
        rc = stop;
    }
    return rc ? rc : save_as(t, trainer_result(o), err);
}
