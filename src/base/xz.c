/* Owns the meeting with liblzma: how much a compressed stranger may make us hold. */
#include "base/xz.h"

#include "base/err.h"
#include "base/mem.h"

#include <stdint.h>
#include <string.h>

#ifdef HAVE_LZMA
#include <lzma.h>
#endif

bool xz_is(const char *bytes, size_t n)
{
    return n >= 6 && !memcmp(bytes,
                             "\xFD"
                             "7zXZ\0",
                             6);
}

#ifdef HAVE_LZMA

/* What a decoder itself may take: xz -9 wants 65 MiB. */
static const uint64_t max_decoder = (uint64_t)256 << 20;

static void *take(void *opaque, size_t n, size_t size)
{
    (void)opaque;
    return size_mul(n, size, &n) ? mem_alloc(n) : NULL;
}

static void give(void *opaque, void *p)
{
    (void)opaque;
    mem_free(p);
}

static int worded(lzma_ret r, const char *name, struct runt_err *err)
{
    switch (r) {
    case LZMA_MEM_ERROR:
        return err_nomem(err, name);
    case LZMA_MEMLIMIT_ERROR:
        return err_set(err, RUNT_E_UNSUPPORTED,
                       "%s: its xz dictionary takes more than 256 MiB", name);
    case LZMA_OPTIONS_ERROR:
        return err_set(err, RUNT_E_UNSUPPORTED, "%s: an xz filter that is not known",
                       name);
    case LZMA_BUF_ERROR:
        return err_set(err, RUNT_E_FORMAT, "%s: this xz file is cut short", name);
    default:
        return err_set(err, RUNT_E_FORMAT, "%s: this xz file is damaged", name);
    }
}

int xz_unpack(const char *bytes, size_t n, size_t max, const char *name, char **out,
              size_t *n_out, struct runt_err *err)
{
    const lzma_allocator door = {take, give, NULL};
    lzma_stream s = LZMA_STREAM_INIT;
    s.allocator = &door;
    char *buf = NULL;
    size_t cap = 0, len = 0;
    int rc = 0;
    lzma_ret r = lzma_stream_decoder(&s, max_decoder, LZMA_CONCATENATED);
    s.next_in = (const uint8_t *)bytes;
    s.avail_in = n;
    while (r == LZMA_OK && !rc) {
        if (len == cap) { /* with room for one byte more than is allowed */
            size_t want = cap ? 2 * cap : 4 * n + 4096;
            if (want > max + 1 || want < cap)
                want = max + 1;
            char *p = mem_resize(buf, want + 1, 1);
            if (!p) {
                rc = err_nomem(err, name);
                break;
            }
            buf = p;
            cap = want;
        }
        s.next_out = (uint8_t *)buf + len;
        s.avail_out = cap - len;
        r = lzma_code(&s, LZMA_FINISH);
        len = cap - s.avail_out;
        if (len > max)
            rc = err_set(err, RUNT_E_FORMAT,
                         "%s: larger than the limit of %zu bytes when unpacked", name,
                         max);
        else if (r != LZMA_OK && r != LZMA_STREAM_END)
            rc = worded(r, name, err);
    }
    if (!rc && r != LZMA_STREAM_END)
        rc = worded(r, name, err);
    lzma_end(&s);
    if (rc) {
        mem_free(buf);
        return rc;
    }
    buf[len] = 0;
    *out = buf;
    *n_out = len;
    return 0;
}

#else

int xz_unpack(const char *bytes, size_t n, size_t max, const char *name, char **out,
              size_t *n_out, struct runt_err *err)
{
    (void)bytes, (void)n, (void)max, (void)out, (void)n_out;
    return err_set(err, RUNT_E_UNSUPPORTED,
                   "%s is compressed, and this runt was built without liblzma: xz -dc "
                   "%s | runt ... -f -",
                   name, name);
}

#endif
