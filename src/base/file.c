/* Owns the meeting with the file system.  Output is never half written: a reader sees
 * the old file or the whole new one (write to a temporary, fsync, rename, fsync the
 * directory). */
#include "base/file.h"

#include "base/err.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int file_map_open(const char *path, struct file_map *out, struct runt_err *err)
{
    int rc = 0;
    struct file_map m = {0};
    struct stat st;
    /* O_NONBLOCK: a pipe without a writer must not hang us before it is refused */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_errno(err, path, "open");
    if (fstat(fd, &st)) {
        rc = err_errno(err, path, "stat");
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        rc = err_set(err, RUNT_E_IO, "%s: not a regular file", path);
        goto out;
    }
    if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            rc = err_errno(err, path, "map");
            goto out;
        }
        m = (struct file_map){p, (size_t)st.st_size};
    }
    *out = m;
out:
    close(fd);
    return rc;
}

void file_map_close(struct file_map *m)
{
    if (m->data)
        munmap((void *)(uintptr_t)m->data, m->size);
    *m = (struct file_map){0};
}

void file_drop_pages(const void *data, size_t n)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)data,
              begin = (at + page - 1) / page * page, end = (at + n) / page * page;
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_DONTNEED);
}

int file_read(const char *path, size_t max, char **out, size_t *size,
              struct runt_err *err)
{
    bool is_stdin = !strcmp(path, "-");
    int rc = 0, fd = is_stdin ? 0 : open(path, O_RDONLY | O_CLOEXEC);
    char *buf = NULL;
    size_t len = 0, cap = 0;
    struct stat st;
    if (fd < 0)
        return err_errno(err, path, "open");
    if (!fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size > 0 &&
        (uintmax_t)st.st_size <= max)
        cap = (size_t)st.st_size + 1;
    for (;;) {
        if (len + 1 >= cap || !buf) {
            size_t want = !buf ? (cap ? cap : 65536) : cap * 2;
            char *p = mem_resize(buf, want + 1, 1);
            if (!p) {
                rc = err_nomem(err, path);
                goto out;
            }
            buf = p;
            cap = want + 1;
        }
        ssize_t n = read(fd, buf + len, cap - len - 1);
        if (n < 0 && errno == EINTR) { /* a caught signal, while waiting for a person */
            rc = err_set(err, RUNT_E_INTERRUPTED, "%s: interrupted", path);
            goto out;
        }
        if (n < 0) {
            rc = err_errno(err, path, "read");
            goto out;
        }
        if (n == 0)
            break;
        len += (size_t)n;
        if (len > max) {
            rc = err_set(err, RUNT_E_FORMAT, "%s: larger than the limit of %zu bytes",
                         path, max);
            goto out;
        }
    }
    buf[len] = 0;
    *out = buf;
    *size = len;
    buf = NULL;
out:
    mem_free(buf);
    if (!is_stdin)
        close(fd);
    return rc;
}

int file_read_regular(const char *path, size_t max, char **out, size_t *size,
                      struct runt_err *err)
{
    struct stat st;
    if (stat(path, &st))
        return err_errno(err, path, "open");
    if (!S_ISREG(st.st_mode))
        return err_set(err, RUNT_E_IO, "%s: not a regular file", path);
    return file_read(path, max, out, size, err);
}

bool file_exists(const char *path)
{
    struct stat st;
    return !stat(path, &st);
}

bool file_is_dir(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

int file_make_dirs(const char *path, struct runt_err *err)
{
    int rc = 0;
    if (!*path)
        return err_set(err, RUNT_E_INVALID, "cannot create a directory without a name");
    char *p = mem_strdup(path);
    if (!p)
        return err_nomem(err, "a path");
    for (char *s = p + 1; rc == 0; s++) {
        if (*s != '/' && *s != 0)
            continue;
        char c = *s;
        *s = 0;
        if (mkdir(p, 0777) && errno != EEXIST)
            rc = err_errno(err, p, "create directory");
        else if (!c && !file_is_dir(p))
            rc = err_set(err, RUNT_E_IO, "%s: not a directory", p);
        *s = c;
        if (!c)
            break;
    }
    mem_free(p);
    return rc;
}

/* The rename itself must survive a power cut too.  A file system that cannot fsync a
 * directory is not an error: the data is already safe. */
static void sync_dir(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *dir = slash ? mem_strndup(path, (size_t)(slash - path) + 1) : mem_strdup(".");
    int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        (void)!fsync(fd);
        close(fd);
    }
    mem_free(dir);
}

int file_rename(const char *from, const char *to, struct runt_err *err)
{
    if (rename(from, to))
        return err_errno(err, to, "rename into place");
    sync_dir(to);
    return 0;
}

enum { OUT_BUF = 1 << 18 };

struct file_out {
    int fd;
    char *path, *tmp;
    unsigned char *buf;
    size_t n;
    uint64_t pos;
    bool failed; /* bytes are missing: commit must not succeed */
};

static void out_free(struct file_out *f)
{
    if (f->fd >= 0)
        close(f->fd);
    mem_free(f->path);
    mem_free(f->tmp);
    mem_free(f->buf);
    mem_free(f);
}

int file_out_open(const char *path, struct file_out **out, struct runt_err *err)
{
    int rc = 0;
    struct file_out *f = mem_zalloc(sizeof *f);
    if (!f)
        return err_nomem(err, path);
    f->fd = -1;
    struct stat st;
    const char *slash = strrchr(path, '/');
    int dir_len = slash ? (int)(slash - path) + 1 : 0;
    f->path = mem_strdup(path);
    f->buf = mem_alloc(OUT_BUF);
    if (!f->path || !f->buf) {
        rc = err_nomem(err, path);
        goto fail;
    }
    if (!path[dir_len] || file_is_dir(path)) {
        rc = err_set(err, RUNT_E_IO, "%s: cannot write: is a directory", path);
        goto fail;
    }
    if (!stat(path, &st) &&
        !S_ISREG(st.st_mode)) { /* renaming would replace a device */
        rc = err_set(err, RUNT_E_IO, "%s: cannot write: not a regular file", path);
        goto fail;
    }
    /* O_EXCL: never through a link that somebody planted, nor into the temporary of
     * another writer of the same file in this process. */
    for (int k = 0; f->fd < 0 && k < 100; k++) {
        mem_free(f->tmp);
        f->tmp = mem_printf("%.*s.%s.tmp-%ld-%d", dir_len, path, path + dir_len,
                            (long)getpid(), k);
        if (!f->tmp) {
            rc = err_nomem(err, path);
            goto fail;
        }
        f->fd = open(f->tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (f->fd < 0 && errno != EEXIST)
            break;
    }
    if (f->fd < 0) {
        rc = err_errno(err, path, "create");
        goto fail;
    }
    *out = f;
    return 0;
fail:
    out_free(f);
    return rc;
}

static int write_all(struct file_out *f, const unsigned char *p, size_t n,
                     struct runt_err *err)
{
    while (n) {
        ssize_t k = write(f->fd, p, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0) {
            f->failed = true;
            return err_errno(err, f->path, "write");
        }
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

static int flush(struct file_out *f, struct runt_err *err)
{
    int rc = write_all(f, f->buf, f->n, err);
    f->n = 0;
    return rc;
}

int file_out_write(struct file_out *f, const void *bytes, size_t n,
                   struct runt_err *err)
{
    int rc = 0;
    f->pos += n;
    if (f->n + n > OUT_BUF)
        rc = flush(f, err);
    if (rc)
        return rc;
    if (n > OUT_BUF)
        return write_all(f, bytes, n, err);
    if (n)
        memcpy(f->buf + f->n, bytes, n);
    f->n += n;
    return 0;
}

uint64_t file_out_pos(const struct file_out *f)
{
    return f->pos;
}

int file_out_commit(struct file_out *f, struct runt_err *err)
{
    int rc = flush(f, err);
    if (!rc && f->failed)
        rc = err_set(err, RUNT_E_IO, "%s: an earlier write failed", f->path);
    if (!rc && fsync(f->fd) && errno != EINVAL && errno != EROFS)
        rc = err_errno(err, f->path, "sync");
    int fd = f->fd;
    f->fd = -1;
    if (close(fd) && !rc)
        rc = err_errno(err, f->path, "close");
    if (!rc)
        rc = file_rename(f->tmp, f->path, err);
    if (rc)
        unlink(f->tmp);
    out_free(f);
    return rc;
}

void file_out_abort(struct file_out *f)
{
    if (!f)
        return;
    unlink(f->tmp);
    out_free(f);
}
