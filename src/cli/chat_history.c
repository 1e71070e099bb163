/* Owns the file of lines that a person typed: a line each, UTF-8 without control
 * characters, the newest at the end.
 *
 * A line is appended when it is typed, so that sessions side by side do not overwrite
 * each other's and nothing is lost when one is killed.  When a session finds the file
 * too long, it replaces it by its newest part. */
#include "cli/chat_line.h"

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_LINE = 4096, MAX_FILE = 1 << 18 };

char *line_history_path(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (state && state[0] == '/')
        return mem_printf("%s/runt/history", state);
    return home && home[0] == '/' ? mem_printf("%s/.local/state/runt/history", home)
                                  : NULL;
}

/* A line that the file may hold. */
static bool is_plain(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t len = utf8_len(s + i, n - i);
        unsigned char c = (unsigned char)s[i];
        if (!len || (c < 0x20 && c != '\t') || c == 0x7f ||
            (c == 0xc2 && (unsigned char)s[i + 1] < 0xa0))
            return false;
        i += len;
    }
    return n > 0 && n <= MAX_LINE;
}

/* Open it to append; what others could read of it is taken from them. */
static int open_private(const char *path, int *out, struct runt_err *err)
{
    struct stat st;
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(err, path, "open");
    int rc = 0;
    if (fstat(fd, &st))
        rc = err_errno(err, path, "stat");
    else if (!S_ISREG(st.st_mode))
        rc = err_set(err, RUNT_E_IO, "%s: not a regular file", path);
    else if ((st.st_mode & 077) && fchmod(fd, 0600))
        rc = err_errno(err, path, "make private");
    if (rc)
        close(fd);
    else
        *out = fd;
    return rc;
}

int line_history_append(const char *path, const char *line, struct runt_err *err)
{
    size_t n = strlen(line);
    if (!is_plain(line, n))
        return 0;
    int fd, rc = open_private(path, &fd, err);
    if (rc)
        return rc;
    char text[MAX_LINE + 1];
    memcpy(text, line, n);
    text[n++] = '\n';
    if (write(fd, text, n) != (ssize_t)n) /* one write: lines of others stay whole */
        rc = err_errno(err, path, "write");
    close(fd);
    return rc;
}

static int make_folder(const char *path, struct runt_err *err)
{
    char *dir = mem_strndup(path, (size_t)(strrchr(path, '/') - path));
    int rc = dir ? file_make_dirs(dir, err) : err_nomem(err, path);
    mem_free(dir);
    return rc;
}

static int replace(const char *path, const char *text, size_t n, struct runt_err *err)
{
    struct file_out *f = NULL;
    int rc = file_out_open(path, &f, err);
    if (!rc)
        rc = file_out_write(f, text, n, err);
    if (!rc)
        return file_out_commit(f, err);
    file_out_abort(f);
    return rc;
}

/* Where the newest LINE_HISTORY lines begin. */
static size_t newest(const char *text, size_t n)
{
    size_t n_lines = 0;
    for (size_t i = n; i > 0; i--)
        if (text[i - 1] == '\n' && i < n && ++n_lines == LINE_HISTORY)
            return i;
    return 0;
}

/* Lines of text [n] that are lines of ours, by way of a buffer of their own. */
static void add_lines(const char *text, size_t n,
                      void (*add)(void *ctx, const char *line), void *ctx)
{
    char line[MAX_LINE + 1];
    for (size_t i = 0, next; i < n; i = next) {
        const char *end = memchr(text + i, '\n', n - i);
        size_t len = end ? (size_t)(end - text) - i : n - i;
        next = i + len + 1;
        if (!is_plain(text + i, len))
            continue;
        memcpy(line, text + i, len);
        line[len] = 0;
        add(ctx, line);
    }
}

int line_history_load(const char *path, void (*add)(void *ctx, const char *line),
                      void *ctx, struct runt_err *err)
{
    struct file_map map = {0};
    int fd = -1;
    mode_t before = umask(077); /* files and folders made here are nobody else's */
    int rc = make_folder(path, err);
    if (!rc)
        rc = open_private(path, &fd, err);
    if (!rc)
        rc = file_map_open(path, &map, err);
    if (rc)
        goto out;
    const char *text = map.data ? (const char *)map.data : "", *line;
    size_t n = map.size, skip = n > MAX_FILE ? n - MAX_FILE : 0;
    if (skip) { /* behind the line that is cut */
        line = memchr(text + skip, '\n', n - skip);
        skip = line ? (size_t)(line - text) + 1 : n;
    }
    skip += n > skip ? newest(text + skip, n - skip) : 0;
    add_lines(text + skip, n - skip, add, ctx);
    if (skip)
        rc = replace(path, text + skip, n - skip, err);
out:
    umask(before);
    file_map_close(&map);
    if (fd >= 0)
        close(fd);
    return rc;
}
