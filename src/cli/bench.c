/* Owns the measuring: what is opened when, what is timed, and in which order. */
#include "cli/bench.h"

#include "cli/cli_adapter.h"

#include "back/roofline.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/rng.h"
#include "cli/convert.h"
#include "model/model.h"

#include <string.h>

enum { N_LOADS = 3, DEFAULT_PROMPT = 512, DEFAULT_GEN = 128 };

/* One of the models. */
struct subject {
    const char *name;
    char *path;
    runt_model *model;
    struct runt_model_info info;
    int32_t *tokens; /* [n_ctx] */
    double load_seconds,
        first_token_seconds[BENCH_MAX_ITEMS]; /* by number of threads */
    runt_session *session;
    /* the configuration that is being measured */
    double *speeds; /* [n_reps] tokens a second */
    double seconds; /* of all repetitions */
    size_t pass_bytes;
    double *bandwidth; /* [n_reps + 1], around them */
};

struct config {
    bool prompt;
    uint32_t threads, depth, batch;
    size_t n_steps; /* tokens of each sequence */
};

struct bench {
    const struct bench_plan *plan;
    size_t n_prompt, n_gen;
    struct subject *subjects; /* [n_models] */
    struct runt_step *steps;  /* [greatest batch] */
    const struct kern_table *kern;
    struct pool *pool; /* the roofline's */
    double *peak;      /* [n_reps + 1] */
    struct bench_row *rows;
    size_t n_rows, max_rows;
    size_t n_done, n_all; /* repetitions, for the progress */
};

static uint32_t greatest(const struct bench_list *l)
{
    uint32_t most = 0;
    for (size_t i = 0; i < l->n; i++)
        most = l->at[i] > most ? l->at[i] : most;
    return most;
}

/* ---- before anything is measured ---- */

static int check_room(const struct subject *s, uint32_t depth, size_t n,
                      const char *flag, struct runt_err *err)
{
    if (depth + n <= s->info.n_ctx)
        return 0;
    return err_set(err, RUNT_E_INVALID,
                   "%s: a depth of %u and %zu tokens (%s) make %zu: the context is %u",
                   s->name, depth, n, flag, depth + n, s->info.n_ctx);
}

/* The tokens of a test that the user left open: what fits every model. */
static size_t tokens_of(const struct bench *b, int64_t asked, uint32_t n_default)
{
    uint32_t depth = greatest(&b->plan->depths);
    if (asked >= 0)
        return (size_t)asked;
    size_t n = n_default;
    for (size_t i = 0; i < b->plan->n_models; i++) {
        uint32_t n_ctx = b->subjects[i].info.n_ctx,
                 left = n_ctx > depth ? n_ctx - depth : 1;
        n = left < n ? left : n;
    }
    return n;
}

/* Find and look into every model; its file is warm after that. */
static int meet(struct bench *b, struct runt_err *err)
{
    const struct bench_plan *plan = b->plan;
    int rc = 0;
    for (size_t i = 0; i < plan->n_models && !rc; i++) {
        struct subject *s = &b->subjects[i];
        runt_model *m = NULL;
        s->name = plan->models[i];
        rc = convert_model_path(s->name, &s->path, err);
        if (!rc)
            rc = cli_model_load(s->path, &plan->adapters, stderr, &m, err);
        if (!rc)
            runt_model_info(m, &s->info);
        runt_model_free(m);
        s->info.name = s->info.chat_template = NULL; /* went with the model */
    }
    if (rc)
        return rc;
    b->n_prompt = tokens_of(b, plan->n_prompt, DEFAULT_PROMPT);
    b->n_gen = tokens_of(b, plan->n_gen, DEFAULT_GEN);
    uint32_t depth = greatest(&plan->depths);
    for (size_t i = 0; i < plan->n_models && !rc; i++) {
        if (b->n_prompt)
            rc = check_room(&b->subjects[i], depth, b->n_prompt, "-p", err);
        if (!rc && b->n_gen)
            rc = check_room(&b->subjects[i], depth, b->n_gen, "-n", err);
    }
    return rc;
}

static int make_room(struct bench *b, struct runt_err *err)
{
    const struct bench_plan *plan = b->plan;
    size_t n_tests = (b->n_prompt > 0) + (b->n_gen ? plan->batches.n : 0), n_groups;
    n_groups = plan->threads.n * plan->depths.n * n_tests; /* at most 33 * 32 * 32 */
    b->n_all = n_groups * plan->n_models * (plan->n_reps + 1);
    b->max_rows = n_groups * plan->n_models;
    b->rows = mem_array(b->max_rows, sizeof *b->rows);
    b->steps = mem_array(greatest(&plan->batches), sizeof *b->steps);
    b->peak = mem_array(plan->n_reps + 1, sizeof *b->peak);
    if (!b->rows || !b->steps || !b->peak)
        return err_nomem(err, "the figures");
    for (size_t i = 0; i < plan->n_models; i++) {
        struct subject *s = &b->subjects[i];
        struct rng rng;
        s->speeds = mem_array(plan->n_reps, sizeof *s->speeds);
        s->bandwidth = mem_array(plan->n_reps + 1, sizeof *s->bandwidth);
        s->tokens = mem_array(s->info.n_ctx, sizeof *s->tokens);
        if (!s->speeds || !s->bandwidth || !s->tokens)
            return err_nomem(err, "the figures");
        rng_seed(&rng, 1);
        for (uint32_t k = 0; k < s->info.n_ctx; k++)
            s->tokens[k] = (int32_t)(rng_u64(&rng) % s->info.n_vocab);
    }
    return 0;
}

/* ---- loading ---- */

/* Load, open, feed one token, N_LOADS times for each number of threads; what is loaded
 * is given back each time, so that memory never holds a model twice. */
static int time_loading(struct bench *b, struct subject *s, struct runt_err *err)
{
    const struct bench_list *threads = &b->plan->threads;
    double loads[N_LOADS * BENCH_MAX_ITEMS], firsts[N_LOADS];
    size_t n = 0;
    for (size_t i = 0; i < threads->n; i++) {
        struct runt_session_options o = {.n_threads = threads->at[i],
                                         .kv = b->plan->kv};
        for (size_t k = 0; k < N_LOADS; k++) {
            runt_model *m = NULL;
            runt_session *session = NULL;
            double start = cli_seconds();
            int rc = cli_model_load(s->path, &b->plan->adapters, NULL, &m, err);
            loads[n++] = cli_seconds() - start;
            if (!rc)
                rc = runt_session_open(m, &o, &session, err);
            if (!rc)
                rc = runt_session_feed(session, s->tokens, 1, err);
            firsts[k] = cli_seconds() - start;
            runt_session_close(session);
            runt_model_free(m);
            if (rc)
                return rc;
            if (cli_interrupted())
                return err_set(err, RUNT_E_INTERRUPTED, "interrupted");
        }
        s->first_token_seconds[i] = roofline_median(firsts, N_LOADS);
    }
    s->load_seconds = roofline_median(loads, n);
    return 0;
}

/* ---- one repetition ---- */

static int generate(const struct bench *b, struct subject *s, const struct config *c,
                    struct runt_err *err)
{
    for (size_t k = 0; k < c->n_steps; k++) {
        /* other sequences read other tokens, so that they read other rows */
        for (uint32_t i = 0; i < c->batch; i++)
            b->steps[i] = (struct runt_step){
                .seq = i,
                .tokens = &s->tokens[(c->depth + k + 7 * (size_t)i) % s->info.n_ctx],
                .n = 1,
            };
        int rc = runt_session_step(s->session, b->steps, c->batch, err);
        if (rc)
            return rc;
        if (cli_interrupted())
            return err_set(err, RUNT_E_INTERRUPTED, "interrupted");
    }
    return 0;
}

static int repeat(struct bench *b, struct subject *s, const struct config *c,
                  double *seconds, struct runt_err *err)
{
    double start = cli_seconds();
    int rc = c->prompt
                 ? runt_session_feed(s->session, s->tokens + c->depth, c->n_steps, err)
                 : generate(b, s, c, err);
    *seconds = cli_seconds() - start;
    for (uint32_t i = 0; i < c->batch; i++)
        runt_session_seq_rewind(s->session, i, c->depth);
    if (rc)
        return rc;
    if (cli_progress(NULL, s->name, ++b->n_done, b->n_all))
        return err_set(err, RUNT_E_INTERRUPTED, "interrupted");
    return 0;
}

/* ---- one configuration ---- */

/* Every sequence holds the first `depth` tokens.  Sequence 0 keeps what it has of them;
 * the others get a copy. */
static int fill(struct subject *s, const struct config *c, struct runt_err *err)
{
    runt_session_rewind(s->session, c->depth);
    uint32_t pos = runt_session_pos(s->session);
    int rc = pos < c->depth
                 ? runt_session_feed(s->session, s->tokens + pos, c->depth - pos, err)
                 : 0;
    for (uint32_t i = 1; i < c->batch && !rc; i++)
        runt_session_copy(s->session, 0, i, c->depth);
    return rc;
}

static int measure_roofline(struct bench *b, size_t when, struct runt_err *err)
{
    int rc = roofline_int8_peak(b->kern, b->pool, &b->peak[when], err);
    for (size_t i = 0; i < b->plan->n_models && !rc; i++) {
        struct subject *s = &b->subjects[i];
        rc = roofline_bandwidth(b->kern, b->pool,
                                s->pass_bytes > ROOFLINE_MIN_BYTES ? s->pass_bytes
                                                                   : ROOFLINE_MIN_BYTES,
                                &s->bandwidth[when], err);
    }
    return rc;
}

static const char *kv_name(const runt_session *s)
{
    return s->kv == KERN_KV_F16 ? "f16" : s->kv == KERN_KV_Q8 ? "q8" : "f32";
}

static void put_row(struct bench *b, struct subject *s, const struct config *c,
                    size_t thread_index)
{
    size_t n_reps = b->plan->n_reps;
    struct bench_row r = {
        .model = s->name,
        .kv = kv_name(s->session),
        .level = cpu_level_name(b->kern->level),
        .prompt = c->prompt,
        .threads = c->threads,
        .depth = c->depth,
        .batch = c->batch,
        .tokens = c->n_steps * c->batch,
        .load_seconds = s->load_seconds,
        .first_token_seconds = s->first_token_seconds[thread_index],
        .file_bytes = s->info.file_bytes,
        .peak_bytes = cli_peak_rss(),
    };
    cli_profile_take(s->session, n_reps * r.tokens, s->seconds, "between passes",
                     &r.profile);
    r.bytes_per_token =
        (double)cli_profile_bytes(&r.profile) / (double)r.profile.n_tokens;
    r.ops_per_token = (double)cli_profile_ops(&r.profile) / (double)r.profile.n_tokens;
    r.tokens_per_second = roofline_median(s->speeds, n_reps); /* and sorted */
    r.spread = s->speeds[n_reps - 1] - s->speeds[0];
    if (b->plan->roofline) {
        r.bandwidth = roofline_median(s->bandwidth, n_reps + 1);
        r.peak = roofline_median(b->peak, n_reps + 1);
    }
    if (b->n_rows < b->max_rows)
        b->rows[b->n_rows++] = r;
}

/* How many passes one repetition is. */
static size_t n_passes(const struct subject *s, const struct config *c)
{
    size_t n_batch = s->session->n_batch;
    return c->prompt ? (c->n_steps + n_batch - 1) / n_batch
                     : c->n_steps * ((c->batch + n_batch - 1) / n_batch);
}

static int measure(struct bench *b, const struct config *c, size_t thread_index,
                   struct runt_err *err)
{
    size_t n = b->plan->n_models;
    struct cli_profile warm;
    double seconds;
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) { /* not timed: caches, page tables, clocks */
        struct subject *s = &b->subjects[i];
        rc = fill(s, c, err);
        runt_session_profile_reset(s->session);
        if (!rc)
            rc = repeat(b, s, c, &seconds, err);
        cli_profile_take(s->session, 1, 0, "", &warm);
        s->pass_bytes = (size_t)(cli_profile_bytes(&warm) / n_passes(s, c));
        runt_session_profile_reset(s->session);
        s->seconds = 0;
    }
    if (!rc && b->plan->roofline)
        rc = measure_roofline(b, 0, err);
    for (size_t k = 0; k < b->plan->n_reps && !rc; k++) {
        for (size_t i = 0; i < n && !rc; i++) {
            struct subject *s = &b->subjects[i];
            rc = repeat(b, s, c, &seconds, err);
            s->seconds += seconds;
            s->speeds[k] = (double)(c->n_steps * c->batch) / seconds;
        }
        if (!rc && b->plan->roofline)
            rc = measure_roofline(b, k + 1, err);
    }
    for (size_t i = 0; i < n && !rc; i++)
        put_row(b, &b->subjects[i], c, thread_index);
    return rc;
}

/* ---- all of them ---- */

static void close_sessions(struct bench *b)
{
    for (size_t i = 0; i < b->plan->n_models; i++) {
        runt_session_close(b->subjects[i].session);
        b->subjects[i].session = NULL;
    }
    pool_destroy(b->pool);
    b->pool = NULL;
}

static int open_sessions(struct bench *b, uint32_t n_threads, struct runt_err *err)
{
    const struct bench_plan *plan = b->plan;
    struct runt_session_options o = {
        .n_threads = n_threads,
        .n_seqs = b->n_gen ? greatest(&plan->batches) : 1,
        .kv = plan->kv,
        .profile = plan->profile,
    };
    int rc = plan->roofline ? pool_create(n_threads, &b->pool, err) : 0;
    for (size_t i = 0; i < plan->n_models && !rc; i++)
        rc = runt_session_open(b->subjects[i].model, &o, &b->subjects[i].session, err);
    return rc;
}

static int run_threads(struct bench *b, size_t index, struct runt_err *err)
{
    const struct bench_plan *plan = b->plan;
    uint32_t threads = plan->threads.at[index];
    int rc = open_sessions(b, threads, err);
    for (size_t i = 0; i < plan->depths.n && !rc; i++) {
        uint32_t depth = plan->depths.at[i];
        struct config pp = {true, threads, depth, 1, b->n_prompt};
        if (b->n_prompt)
            rc = measure(b, &pp, index, err);
        for (size_t k = 0; b->n_gen && k < plan->batches.n && !rc; k++) {
            struct config tg = {false, threads, depth, plan->batches.at[k], b->n_gen};
            rc = measure(b, &tg, index, err);
        }
    }
    close_sessions(b);
    return rc;
}

int bench_run(const struct bench_plan *plan, struct bench_row **rows, size_t *n,
              struct runt_err *err)
{
    struct bench b = {.plan = plan};
    int rc = kern_table_get(&b.kern, err);
    if (rc)
        return rc;
    b.subjects = mem_array(plan->n_models, sizeof *b.subjects);
    if (!b.subjects)
        return err_nomem(err, "the models");
    rc = meet(&b, err);
    if (!rc)
        rc = make_room(&b, err);
    for (size_t i = 0; i < plan->n_models && !rc; i++)
        rc = time_loading(&b, &b.subjects[i], err);
    for (size_t i = 0; i < plan->n_models && !rc; i++)
        rc = cli_model_load(b.subjects[i].path, &plan->adapters, NULL,
                            &b.subjects[i].model, err);
    for (size_t i = 0; i < plan->threads.n && !rc; i++)
        rc = run_threads(&b, i, err);
    cli_progress_done();
    for (size_t i = 0; i < plan->n_models; i++) {
        struct subject *s = &b.subjects[i];
        runt_model_free(s->model);
        mem_free(s->path);
        mem_free(s->tokens);
        mem_free(s->speeds);
        mem_free(s->bandwidth);
    }
    mem_free(b.subjects);
    mem_free(b.steps);
    mem_free(b.peak);
    if (rc) {
        mem_free(b.rows);
    } else {
        *rows = b.rows;
        *n = b.n_rows;
    }
    return rc;
}
