/* Owns the meeting with zlib and libzstd (xz.c: liblzma), and which is asked. */
#include "base/unpack.h"

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/xz.h"

#include <stdbool.h>
#include <string.h>

#ifdef HAVE_ZLIB
#include <zlib.h>
#endif
#ifdef HAVE_ZSTD
#include <zstd.h>
#endif

/* Text that grows as it is unpacked, up to max bytes. */
struct text {
    char *data;
    size_t n, room, max;
    const char *name, *what;
};

/* Room for some more, with one byte for the final NUL. */
static int grow(struct text *t, struct runt_err *err)
{
    enum { FIRST = 1 << 16 };
    if (t->n < t->room)
        return 0;
    if (t->n > t->max)
        return err_set(err, RUNT_E_FORMAT, "%s: more than %zu MB when unpacked",
                       t->name, t->max >> 20);
    size_t room = t->room ? t->room * 2 : FIRST;
    room = room > t->max ? t->max + 1 : room;
    char *more = mem_resize(t->data, room + 1, 1);
    if (!more)
        return err_nomem(err, t->name);
    t->data = more;
    t->room = room;
    return 0;
}

#if defined(HAVE_ZLIB) || defined(HAVE_ZSTD)
static int cut_short(const struct text *t, struct runt_err *err)
{
    return err_set(err, RUNT_E_FORMAT, "%s: this %s file is cut short", t->name,
                   t->what);
}

static int damaged(const struct text *t, struct runt_err *err)
{
    return err_set(err, RUNT_E_FORMAT, "%s: this %s file is damaged", t->name, t->what);
}
#endif

#ifdef HAVE_ZLIB
static int gunzip(const char *bytes, size_t n, struct text *t, struct runt_err *err)
{
    enum { PIECE = 1 << 30, GZIP = 15 + 16 };
    z_stream z = {0};
    if (inflateInit2(&z, GZIP) != Z_OK)
        return err_nomem(err, t->name);
    size_t at = 0;
    int rc = 0, got = Z_OK;
    while (!rc) {
        z.next_in = (Bytef *)bytes + at;
        z.avail_in = n - at < PIECE ? (uInt)(n - at) : PIECE;
        if (got == Z_STREAM_END) { /* the next member, or padding to ignore */
            if (z.avail_in < 2 || memcmp(z.next_in, "\x1f\x8b", 2))
                break;
            inflateReset(&z);
        }
        rc = grow(t, err);
        if (rc)
            break;
        size_t room = t->room - t->n;
        z.next_out = (Bytef *)t->data + t->n;
        z.avail_out = room < PIECE ? (uInt)room : PIECE;
        got = inflate(&z, Z_NO_FLUSH);
        at = (size_t)((const char *)z.next_in - bytes);
        t->n = (size_t)((char *)z.next_out - t->data);
        if (got == Z_BUF_ERROR || (got == Z_OK && at == n && z.avail_out))
            rc = cut_short(t, err);
        else if (got != Z_OK && got != Z_STREAM_END)
            rc = got == Z_MEM_ERROR ? err_nomem(err, t->name) : damaged(t, err);
    }
    inflateEnd(&z);
    return rc;
}
#endif

#ifdef HAVE_ZSTD
static int unzstd(const char *bytes, size_t n, struct text *t, struct runt_err *err)
{
    ZSTD_DCtx *z = ZSTD_createDCtx();
    if (!z)
        return err_nomem(err, t->name);
    ZSTD_inBuffer in = {bytes, n, 0};
    size_t left = 1; /* of the frame: 0 at its end */
    int rc = 0;
    while (!rc && !(in.pos == n && !left)) {
        rc = grow(t, err);
        if (rc)
            break;
        ZSTD_outBuffer out = {t->data, t->room, t->n};
        left = ZSTD_decompressStream(z, &out, &in);
        bool stuck = in.pos == n && out.pos < out.size && left;
        t->n = out.pos;
        if (ZSTD_isError(left))
            rc = damaged(t, err);
        else if (stuck)
            rc = cut_short(t, err);
    }
    ZSTD_freeDCtx(z);
    return rc;
}
#endif

typedef int unpack_fn(const char *bytes, size_t n, struct text *t,
                      struct runt_err *err);

int unpack_bytes(const char *bytes, size_t n, size_t max, const char *name, char **out,
                 size_t *n_out, struct runt_err *err)
{
    struct text t = {.max = max, .name = name};
    unpack_fn *fn = NULL;
    if (xz_is(bytes, n))
        return xz_unpack(bytes, n, max, name, out, n_out, err);
    if (n >= 2 && !memcmp(bytes, "\x1f\x8b", 2)) {
        t.what = "gzip";
#ifdef HAVE_ZLIB
        fn = gunzip;
#endif
    } else if (n >= 4 && !memcmp(bytes, "\x28\xb5\x2f\xfd", 4)) {
        t.what = "zstd";
#ifdef HAVE_ZSTD
        fn = unzstd;
#endif
    }
    if (!t.what) {
        *out = NULL;
        return 0;
    }
    int rc =
        fn ? fn(bytes, n, &t, err)
           : err_set(err, RUNT_E_UNSUPPORTED,
                     "%s: this program was built without %s; unpack the file first",
                     name, t.what);
    if (!rc && t.n > max)
        rc = err_set(err, RUNT_E_FORMAT, "%s: more than %zu MB when unpacked", name,
                     max >> 20);
    if (!rc)
        rc = grow(&t, err);
    if (rc) {
        mem_free(t.data);
        return rc;
    }
    t.data[t.n] = 0;
    *out = t.data;
    *n_out = t.n;
    return 0;
}

int unpack_read(const char *path, size_t max, char **out, size_t *n,
                struct runt_err *err)
{
    char *raw, *text;
    size_t n_raw, n_text;
    int rc = file_read(path, max, &raw, &n_raw, err);
    if (rc)
        return rc;
    rc = unpack_bytes(raw, n_raw, max, path, &text, &n_text, err);
    if (!rc && !text) {
        *out = raw;
        *n = n_raw;
        return 0;
    }
    mem_free(raw);
    if (!rc) {
        *out = text;
        *n = n_text;
    }
    return rc;
}
