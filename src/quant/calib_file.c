/* Owns the file form of a calibration, finished or on its way:
 *
 *   8 bytes  "RUNTCAL1"
 *   u64      fingerprints of the model and of the tokens, n_tokens so far, n_wanted,
 *            window, number of matrices
 *   matrices name[64], u64 n, the rows of the lower triangle as float32
 *   u64      checksum of all of the above
 *
 * Numbers are as the machine has them.  Refuses what is damaged; whose calibration it
 * is the caller checks. */
#include "quant/calib.h"

#include "base/cursor.h"
#include "base/err.h"
#include "base/file.h"
#include "base/fold.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

enum { MAX_MOMENTS = 1 << 16, MAX_COLUMNS = 1 << 16 };

static const char magic[8] = {'R', 'U', 'N', 'T', 'C', 'A', 'L', '1'};

struct out {
    struct file_out *file;
    uint64_t sum;
    int rc;
    struct runt_err *err;
};

static void put(struct out *o, const void *data, size_t n)
{
    if (o->rc)
        return;
    o->sum = fold(o->sum, data, n);
    o->rc = file_out_write(o->file, data, n, o->err);
}

int calib_save(const struct calib *c, const char *path, struct runt_err *err)
{
    struct out o = {.sum = 1, .err = err};
    uint64_t head[6] = {c->model,    c->text,   c->n_tokens,
                        c->n_wanted, c->window, c->n_moments};
    int rc = file_out_open(path, &o.file, err);
    if (rc)
        return rc;
    put(&o, magic, sizeof magic);
    put(&o, head, sizeof head);
    for (size_t i = 0; i < c->n_moments; i++) {
        const struct calib_moment *m = &c->moments[i];
        uint64_t n = m->n;
        put(&o, m->name, sizeof m->name);
        put(&o, &n, sizeof n);
        for (size_t r = 0; r < m->n; r++)
            put(&o, m->h + r * m->n, (r + 1) * sizeof *m->h);
    }
    if (!o.rc)
        o.rc = file_out_write(o.file, &o.sum, sizeof o.sum, err);
    if (o.rc) {
        file_out_abort(o.file);
        return o.rc;
    }
    return file_out_commit(o.file, err);
}

static int bad(struct runt_err *err, const char *path, const char *what)
{
    return err_set(err, RUNT_E_FORMAT, "%s: %s", path, what);
}

static int take_moment(struct cursor *c, uint64_t *sum, struct calib_moment *m,
                       const char *path, struct runt_err *err)
{
    const uint8_t *name = cur_bytes(c, sizeof m->name), *n = cur_bytes(c, 8);
    uint64_t width = 0;
    size_t size;
    if (!name || !n || name[sizeof m->name - 1])
        return bad(err, path, "damaged calibration");
    memcpy(m->name, name, sizeof m->name);
    memcpy(&width, n, 8);
    *sum = fold(fold(*sum, name, sizeof m->name), n, 8);
    if (!width || width > MAX_COLUMNS || width * (width + 1) / 2 * 4 > cur_left(c))
        return bad(err, path, "damaged calibration (a matrix larger than the file)");
    m->n = (size_t)width;
    m->h = size_mul(m->n, m->n, &size) ? mem_array(size, sizeof *m->h) : NULL;
    if (!m->h)
        return err_nomem(err, "second moments");
    for (size_t r = 0; r < m->n; r++) {
        const uint8_t *row = cur_bytes(c, (r + 1) * sizeof *m->h);
        if (!row)
            return bad(err, path, "damaged calibration");
        memcpy(m->h + r * m->n, row, (r + 1) * sizeof *m->h);
        *sum = fold(*sum, row, (r + 1) * sizeof *m->h);
    }
    return 0;
}

int calib_load(const char *path, struct calib *out, struct runt_err *err)
{
    struct file_map f;
    struct calib c = {0};
    uint64_t head[6], sum = 1, want;
    int rc = file_map_open(path, &f, err);
    if (rc)
        return rc;
    struct cursor cur = cur_make(f.data, f.size);
    const uint8_t *m = cur_bytes(&cur, sizeof magic), *h = cur_bytes(&cur, sizeof head);
    if (!m || memcmp(m, magic, sizeof magic) || !h) {
        rc =
            bad(err, path, "not a calibration (runt quantize --save-calib makes them)");
        goto out;
    }
    memcpy(head, h, sizeof head);
    sum = fold(fold(sum, m, sizeof magic), h, sizeof head);
    c.model = head[0];
    c.text = head[1];
    c.n_tokens = (size_t)head[2];
    c.n_wanted = (size_t)head[3];
    c.window = (size_t)head[4];
    if (!c.window || !head[5] || head[5] > MAX_MOMENTS || c.n_tokens > c.n_wanted ||
        c.n_tokens % c.window) {
        rc = bad(err, path, "damaged calibration");
        goto out;
    }
    c.n_moments = (size_t)head[5];
    c.moments = mem_array(c.n_moments, sizeof *c.moments);
    if (!c.moments) {
        rc = err_nomem(err, "second moments");
        goto out;
    }
    for (size_t i = 0; i < c.n_moments && !rc; i++)
        rc = take_moment(&cur, &sum, &c.moments[i], path, err);
    if (rc)
        goto out;
    const uint8_t *end = cur_bytes(&cur, sizeof want);
    if (!end || cur_left(&cur)) {
        rc = bad(err, path, "damaged calibration (of another length)");
        goto out;
    }
    memcpy(&want, end, sizeof want);
    if (want != sum) {
        rc = bad(err, path, "damaged calibration (wrong checksum)");
        goto out;
    }
    *out = c;
    c = (struct calib){0};
out:
    calib_free(&c);
    file_map_close(&f);
    return rc;
}
