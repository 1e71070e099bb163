/* Owns the log file of a run. */
#include "train/train_log.h"

#include "base/err.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/strbuf.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

enum { MAX_LOG = 1 << 30 };

struct train_log {
    char *path;
    int fd;
};

/* Is this a line of a step up to `step`?  Before the first step none is. */
static bool keep(const char *line, size_t n, uint64_t step)
{
    json_t *o = NULL;
    uint64_t of;
    bool yes = step && !js_parse(line, n, "log", &o, NULL) && json_is_object(o) &&
               !js_get_uint(o, "step", UINT64_MAX, "log", &of, NULL) && of <= step;
    json_decref(o);
    return yes;
}

static int cut(const char *path, uint64_t step, struct runt_err *err)
{
    char *text;
    size_t n;
    struct file_out *f;
    int rc = file_read(path, MAX_LOG, &text, &n, err);
    if (rc)
        return rc;
    rc = file_out_open(path, &f, err);
    if (rc) {
        mem_free(text);
        return rc;
    }
    for (const char *p = text, *end; !rc && (end = memchr(p, '\n', text + n - p));
         p = end + 1)
        if (keep(p, (size_t)(end - p), step))
            rc = file_out_write(f, p, (size_t)(end - p) + 1, err);
    mem_free(text);
    if (!rc)
        return file_out_commit(f, err);
    file_out_abort(f);
    return rc;
}

int train_log_open(const char *path, uint64_t step, struct train_log **out,
                   struct runt_err *err)
{
    int rc = file_exists(path) ? cut(path, step, err) : 0;
    if (rc)
        return rc;
    struct train_log *l = mem_zalloc(sizeof *l);
    if (l)
        l->path = mem_strdup(path);
    if (!l || !l->path) {
        mem_free(l);
        return err_nomem(err, "a log");
    }
    l->fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (l->fd < 0) {
        rc = err_errno(err, path, "write");
        train_log_close(l);
        return rc;
    }
    *out = l;
    return 0;
}

void train_log_close(struct train_log *l)
{
    if (!l)
        return;
    if (l->fd >= 0)
        close(l->fd);
    mem_free(l->path);
    mem_free(l);
}

static void member(struct strbuf *b, const char *name, int digits, double v)
{
    if (isfinite(v))
        sb_printf(b, ", \"%s\": %.*g", name, digits, v);
    else if (!isnan(v))
        sb_printf(b, ", \"%s\": null", name);
}

int train_log_put(struct train_log *l, const struct train_log_line *line,
                  struct runt_err *err)
{
    struct strbuf b = {0};
    int rc = 0;
    sb_printf(&b, "{\"step\": %" PRIu64, line->step);
    member(&b, "loss", 9, line->loss);
    member(&b, "lr", 9, line->lr);
    member(&b, "grad_norm", 9, line->grad_norm);
    member(&b, "tokens_per_second", 5, line->tokens_per_second);
    member(&b, "val_loss", 9, line->val_loss);
    sb_str(&b, "}\n");
    if (b.failed)
        rc = err_nomem(err, "a line of the log");
    for (size_t at = 0; !rc && at < b.len;) {
        ssize_t n = write(l->fd, b.data + at, b.len - at);
        if (n >= 0)
            at += (size_t)n;
        else if (errno != EINTR)
            rc = err_errno(err, l->path, "write");
    }
    sb_free(&b);
    return rc;
}
