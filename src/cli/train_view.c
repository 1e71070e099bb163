/* Owns the live view of `runt train`. */
#include "cli/train_view.h"

#include "base/mem.h"
#include "cli/cli.h"
#include "runt/runt.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

const char *train_view_time(double seconds, char buf[static 32])
{
    uint64_t s = seconds < 1e9 ? (uint64_t)(seconds + 0.5) : 1000000000;
    if (s >= 3600)
        snprintf(buf, 32, "%" PRIu64 " h %" PRIu64 " min", s / 3600, s % 3600 / 60);
    else if (s >= 60)
        snprintf(buf, 32, "%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
    else
        snprintf(buf, 32, "%" PRIu64 " s", s);
    return buf;
}

static bool live(const struct train_view *v)
{
    return !v->quiet && isatty(STDERR_FILENO);
}

void train_view_done(const struct train_view *v)
{
    if (live(v))
        fputs("\r\033[K", stderr);
}

/* The figures of a step; without the loss before the first. */
static void figures(const struct train_view *v, const struct trainer_step *s, FILE *f,
                    bool stays)
{
    char left[32];
    fprintf(f, "step %*" PRIu64 "/%" PRIu64,
            (int)snprintf(NULL, 0, "%" PRIu64, s->steps), s->step, s->steps);
    if (!isnan(s->loss))
        fprintf(f, "  loss %.4f  smooth %.4f", s->loss, s->smooth);
    if (!isnan(s->val_loss))
        fprintf(f, "  validation %.4f%s", s->val_loss,
                s->step && s->val_loss <= s->val_best ? " (best)" : "");
    else if (!stays && isfinite(s->val_best))
        fprintf(f, "  best %.4f", s->val_best);
    if (isnan(s->loss))
        return;
    fprintf(f, "  %.0f tok/s", s->tokens_per_second);
    if (v->peak > 0)
        fprintf(f, "  %.0f%% of peak", 100 * s->tokens_per_second * v->flops / v->peak);
    if (s->step > v->first && s->step < s->steps)
        fprintf(
            f, "  %s left",
            train_view_time((cli_seconds() - v->begin) / (double)(s->step - v->first) *
                                (double)(s->steps - s->step),
                            left));
}

/* On a terminal, in place of the line before: a longer one would wrap, and only its
 * last row could be erased. */
static void live_figures(const struct train_view *v, const struct trainer_step *s)
{
    struct winsize size = {0};
    char *line = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&line, &n);
    if (!f)
        return;
    figures(v, s, f, false);
    fclose(f);
    if (!ioctl(STDERR_FILENO, TIOCGWINSZ, &size) && size.ws_col && n >= size.ws_col)
        n = size.ws_col - 1u;
    fprintf(stderr, "%.*s", (int)n, line);
    free(line);
}

/* What the weights write now: through a file, as every other verb would. */
static void sample(const struct train_view *v, uint64_t step)
{
    enum { TOKENS = 48 };
    runt_model *m = NULL;
    runt_session *s = NULL;
    runt_sampler *sampler = NULL;
    int32_t *ids = NULL, id;
    struct runt_model_info info;
    size_t n;
    struct runt_err err = {0};
    struct runt_sampler_options o = runt_sampler_defaults();
    char *path = mem_printf("%s/.sample.gguf", v->folder);
    o.seed = 1;
    int rc = path ? trainer_write_model(v->trainer, path, &err) : RUNT_E_NOMEM;
    rc = rc ? rc : runt_model_load(path, &m, &err);
    rc = rc ? rc : runt_session_open(m, NULL, &s, &err);
    rc =
        rc ? rc : runt_tokenize(m, v->prompt, strlen(v->prompt), false, &ids, &n, &err);
    rc = rc ? rc : runt_session_feed(s, ids, n, &err);
    if (!rc)
        runt_model_info(m, &info);
    rc = rc ? rc : runt_sampler_new(&o, info.n_vocab, &sampler, &err);
    if (!rc)
        printf("  step %" PRIu64 ": %s", step, v->prompt);
    for (int i = 0; !rc && i < TOKENS; i++) {
        rc = runt_sampler_pick(sampler, runt_session_logits(s), &id, &err);
        if (rc || id == info.eos)
            break;
        size_t len;
        const char *text = runt_token_bytes(m, id, &len);
        for (size_t k = 0; k < len; k++)
            putchar(text[k] == '\n' ? ' ' : text[k]);
        rc = runt_session_feed(s, &id, 1, &err);
    }
    putchar('\n');
    if (rc && rc != RUNT_E_FULL)
        fprintf(stderr, "no sample: %s\n", err.msg);
    if (path)
        unlink(path);
    runt_sampler_free(sampler);
    runt_session_close(s);
    runt_model_free(m);
    runt_free(ids);
    mem_free(path);
}

int train_view_step(void *ctx, const struct trainer_step *s)
{
    struct train_view *v = ctx;
    if (!v->quiet) {
        train_view_done(v);
        bool stays = !isnan(s->val_loss) || s->step == s->steps ||
                     (s->step && s->step % v->line_every == 0);
        if (stays) {
            figures(v, s, stdout, true);
            putchar('\n');
        }
        if (s->step && v->sample_every && s->step % v->sample_every == 0)
            sample(v, s->step);
        fflush(stdout);
        if (live(v) && !stays)
            live_figures(v, s);
    }
    return cli_interrupted();
}
