/* Owns the download of one blob: its partial file, resuming, and the check of its
 * bytes.
 *
 * The etag names the content: 64 hexadecimal digits are its SHA-256, 40 are git's blob
 * hash (SHA-1 of "blob SIZE\0" and the content); anything else only lets the size be
 * checked.  A blob gets its name after the check, never before, and a partial file that
 * fails it is deleted: continuing it could only fail again. */
#include "import/hub_impl.h"

#include "base/err.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { HASH_BLOCK = 1 << 20, PROGRESS_MIN = 1 << 20 };

/* ---- checksum ---- */

struct digest {
    EVP_MD_CTX *ctx; /* NULL: the etag is not a checksum that we know */
    const char *kind;
    uint64_t pos; /* bytes taken in so far */
};

static bool all_hex(const char *s)
{
    return strspn(s, "0123456789abcdefABCDEF") == strlen(s);
}

/* Begin anew for content of `size` bytes. */
static int digest_start(struct digest *d, const char *etag, uint64_t size,
                        struct runt_err *err)
{
    size_t n = all_hex(etag) ? strlen(etag) : 0;
    d->pos = 0;
    if (n != 64 && n != 40)
        return 0;
    d->kind = n == 64 ? "SHA-256" : "git blob SHA-1";
    if (!d->ctx)
        d->ctx = EVP_MD_CTX_new();
    if (!d->ctx ||
        !EVP_DigestInit_ex(d->ctx, n == 64 ? EVP_sha256() : EVP_sha1(), NULL))
        return err_nomem(err, "a checksum");
    if (n == 40) {
        char head[32];
        int k = snprintf(head, sizeof head, "blob %llu", (unsigned long long)size);
        EVP_DigestUpdate(d->ctx, head, (size_t)k + 1);
    }
    return 0;
}

static void digest_put(struct digest *d, const void *p, size_t n)
{
    if (d->ctx)
        EVP_DigestUpdate(d->ctx, p, n);
    d->pos += n;
}

/* ---- the transfer ---- */

struct fetch {
    const struct hub_blob *b;
    struct hub_net *net;
    struct digest digest;
    char *part;
    int fd;
    uint64_t have;  /* bytes in the partial file, all taken into the digest */
    uint64_t asked; /* `have` when the request was made */
    uint64_t best;  /* the most it ever was: progress is what exceeds it */
    bool begun;     /* the body of this request began */
    bool misplaced; /* and is not the range asked for */
    bool spoiled;   /* the partial file is worthless */
};

static const char *shown(const struct fetch *f)
{
    return f->b->what.file;
}

static int start_over(struct fetch *f, struct runt_err *err)
{
    f->have = 0;
    if (ftruncate(f->fd, 0))
        return err_errno(err, f->part, "truncate");
    return digest_start(&f->digest, f->b->etag, f->b->size, err);
}

/* Take what an earlier run left into the digest. */
static int take_partial(struct fetch *f, struct runt_err *err)
{
    struct stat st;
    int rc = 0;
    if (fstat(f->fd, &st))
        return err_errno(err, f->part, "stat");
    if (!S_ISREG(st.st_mode))
        return err_set(err, RUNT_E_IO, "%s: not a regular file", f->part);
    if (st.st_size == 0 || (uint64_t)st.st_size > f->b->size)
        return start_over(f, err);
    rc = digest_start(&f->digest, f->b->etag, f->b->size, err);
    char *buf = rc ? NULL : mem_alloc(HASH_BLOCK);
    if (!rc && !buf)
        rc = err_nomem(err, "a checksum");
    while (!rc && f->have < (uint64_t)st.st_size) {
        ssize_t n = pread(f->fd, buf, HASH_BLOCK, (off_t)f->have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            errno = n ? errno : EIO; /* it shrank under our lock */
            rc = err_errno(err, f->part, "read");
            break;
        }
        digest_put(&f->digest, buf, (size_t)n);
        f->have += (uint64_t)n;
        rc = hub_net_tick(f->net, f->have, err);
    }
    mem_free(buf);
    return rc;
}

/* "bytes FIRST-LAST/TOTAL" that continues where we are. */
static bool range_fits(const char *range, uint64_t have, uint64_t size)
{
    unsigned long long first, last, total;
    char unit[8];
    int k =
        sscanf(range, "%7[a-zA-Z] %20llu-%20llu/%20llu", unit, &first, &last, &total);
    return k >= 3 && !strcasecmp(unit, "bytes") && first == have && last < size &&
           (k == 4 ? total == size : range[strlen(range) - 1] == '*');
}

static int begin_body(struct fetch *f, const struct hub_reply *r, struct runt_err *err)
{
    f->begun = true;
    if (r->status == 206 && !range_fits(r->range, f->asked, f->b->size)) {
        f->misplaced = true; /* the next request asks for the whole file */
        int rc = start_over(f, err);
        return rc ? rc
                  : err_set(err, RUNT_E_NETWORK,
                            "%s: %s sends another range than the one asked for",
                            shown(f), r->host);
    }
    if (r->status == 200 && f->have) /* the server ignores ranges */
        return start_over(f, err);
    return 0;
}

static int on_body(void *ctx, const struct hub_reply *r, const void *bytes, size_t n,
                   struct runt_err *err)
{
    struct fetch *f = ctx;
    const char *p = bytes;
    int rc = f->begun ? 0 : begin_body(f, r, err);
    if (rc)
        return rc;
    if (n > f->b->size - f->have) {
        f->spoiled = true;
        return err_set(err, RUNT_E_FORMAT,
                       "%s: %s sends more than the %llu bytes it announced", shown(f),
                       r->host, (unsigned long long)f->b->size);
    }
    for (size_t left = n; left;) {
        ssize_t k = pwrite(f->fd, p, left, (off_t)f->have);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return err_errno(err, f->part, "write");
        digest_put(&f->digest, p, (size_t)k);
        f->have += (uint64_t)k;
        p += k;
        left -= (size_t)k;
    }
    return hub_net_tick(f->net, f->have, err);
}

/* One request.  0: the file is whole. */
static int fetch_once(struct fetch *f, struct hub_reply *r, struct runt_err *err)
{
    f->begun = f->misplaced = false;
    f->asked = f->have;
    int rc = hub_net_get(f->net, f->b->url, f->have, on_body, f, r, err);
    r->retry |= f->misplaced;
    if (rc)
        return rc;
    if (r->status == 416) { /* our partial file does not suit the server */
        rc = start_over(f, err);
        r->retry = true;
        return rc ? rc
                  : err_set(err, RUNT_E_NETWORK,
                            "%s: %s refuses to continue the download", shown(f),
                            r->host);
    }
    if (r->status != 200 && r->status != 206)
        return hub_net_status(f->net, r, &f->b->what, err);
    if (f->have < f->b->size) {
        r->retry = true;
        return err_set(err, RUNT_E_NETWORK, "%s: %s ends after %llu of %llu bytes",
                       shown(f), r->host, (unsigned long long)f->have,
                       (unsigned long long)f->b->size);
    }
    return 0;
}

static int check_room(const struct fetch *f, struct runt_err *err)
{
    struct statvfs v;
    if (fstatvfs(f->fd, &v) || !v.f_blocks)
        return 0; /* not every file system says */
    unsigned long long room, need = f->b->size - f->have;
    if (__builtin_mul_overflow(v.f_bavail, v.f_frsize, &room) || room >= need)
        return 0;
    return err_set(err, RUNT_E_IO,
                   "%s needs %llu more bytes, and the cache's disk has "
                   "%llu (%s)",
                   shown(f), need, room, f->part);
}

static int download(struct fetch *f, struct runt_err *err)
{
    struct hub_reply r = {0};
    unsigned n_failed = 0;
    f->best = f->have;
    int rc = f->have < f->b->size ? check_room(f, err) : 0;
    while (!rc && f->have < f->b->size) {
        rc = fetch_once(f, &r, err);
        if (f->have >= f->best + PROGRESS_MIN) { /* a bad line, but a live one */
            f->best = f->have;
            n_failed = 0;
        }
        if (rc == RUNT_E_NETWORK)
            rc = hub_net_again(f->net, &r, &n_failed, err);
    }
    return rc;
}

static int verify(struct fetch *f, struct runt_err *err)
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    char hex[2 * EVP_MAX_MD_SIZE + 1] = "";
    if (!f->digest.ctx)
        return 0;
    EVP_DigestFinal_ex(f->digest.ctx, sum, &n);
    for (unsigned i = 0; i < n; i++)
        snprintf(hex + 2 * i, 3, "%02x", sum[i]);
    if (!strcasecmp(hex, f->b->etag))
        return 0;
    f->spoiled = true;
    return err_set(
        err, RUNT_E_FORMAT,
        "%s: wrong checksum: %s is %s, the hub announced %s; the download was "
        "deleted",
        shown(f), f->digest.kind, hex, f->b->etag);
}

static int give_name(const struct fetch *f, struct runt_err *err)
{
    if (fsync(f->fd) && errno != EINVAL && errno != EROFS)
        return err_errno(err, f->part, "sync");
    if (rename(f->part, f->b->path))
        return err_errno(err, f->part, "rename");
    return 0;
}

/* Tell what stays for the next time. */
static void clean_up(const struct fetch *f, struct runt_err *err)
{
    struct stat st;
    if (f->spoiled || fstat(f->fd, &st) || !st.st_size) {
        unlink(f->part);
        return;
    }
    struct runt_err old = *err;
    err_set(err, old.code,
            "%s; %llu of %llu bytes are kept, the next pull continues there", old.msg,
            (unsigned long long)st.st_size, (unsigned long long)f->b->size);
}

int hub_fetch(struct hub_net *n, const struct hub_blob *b, struct runt_err *err)
{
    struct fetch f = {.b = b, .net = n, .fd = -1};
    int rc;
    f.part = mem_printf("%s.incomplete", b->path);
    if (!f.part)
        return err_nomem(err, "a path");
    f.fd = open(f.part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (f.fd < 0) {
        rc = err_errno(err, f.part, "open");
        goto out;
    }
    hub_net_subject(n, b->what.file, b->size);
    rc = take_partial(&f, err);
    if (!rc)
        rc = download(&f, err);
    if (!rc)
        rc = verify(&f, err);
    if (!rc)
        rc = give_name(&f, err);
    if (rc)
        clean_up(&f, err);
out:
    if (f.fd >= 0)
        close(f.fd);
    EVP_MD_CTX_free(f.digest.ctx);
    mem_free(f.part);
    return rc;
}
