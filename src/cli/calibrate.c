/* Owns where a calibration comes from. */
#include "cli/calibrate.h"

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "model/model.h"

#include <string.h>

enum { MAX_TEXT = 1 << 30 };

bool calibrate_wanted(const struct calibrate_request *q)
{
    return q->text || q->save || q->load || q->n_tokens;
}

int calibrate_check(const struct cli_verb *v, const struct calibrate_request *q)
{
    if (q->load && (q->text || q->save || q->n_tokens))
        return cli_misuse(v, "--load-calib takes the place of the other --calib "
                             "options");
    return 0;
}

/* A kept calibration, if it is whole and this model's. */
static int load_calib(const char *path, const runt_model *m, struct calib *out,
                      struct runt_err *err)
{
    struct calib c;
    int rc = calib_load(path, &c, err);
    if (rc)
        return rc;
    if (c.model != model_fingerprint(m))
        rc = err_set(err, RUNT_E_INVALID, "%s: the calibration of another model", path);
    else if (c.n_tokens < c.n_wanted)
        rc = err_set(err, RUNT_E_INVALID,
                     "%s: interrupted after %zu of %zu tokens; go on with --save-calib",
                     path, c.n_tokens, c.n_wanted);
    if (rc)
        calib_free(&c);
    else
        *out = c;
    return rc;
}

int calibrate(const char *in, const struct calibrate_request *q, unsigned n_threads,
              struct calib *out, struct runt_err *err)
{
    runt_model *m = NULL;
    int32_t *ids = NULL;
    char *text = NULL;
    size_t n = 0, n_text = 0;
    struct calib_options o = {.name = q->text ? q->text : "the model's own text",
                              .n_tokens = (size_t)q->n_tokens,
                              .window = (size_t)q->window,
                              .n_threads = n_threads,
                              .save = q->save,
                              .progress = cli_progress};
    int rc = runt_model_load(in, &m, err);
    if (!rc && q->load) {
        rc = load_calib(q->load, m, out, err);
        goto out;
    }
    if (!rc && q->text)
        rc = file_read(q->text, MAX_TEXT, &text, &n_text, err);
    if (!rc && q->text && n_text && memchr(text, 0, n_text))
        rc =
            err_set(err, RUNT_E_INVALID, "%s: not a text (it has a NUL byte)", q->text);
    if (!rc && q->text)
        rc = runt_tokenize(m, text, n_text, true, &ids, &n, err);
    else if (!rc)
        rc = calib_sample(m, (uint64_t)q->seed, &o, &ids, &n, err);
    if (!rc)
        rc = calib_gather(m, ids, n, &o, out, err);
out:
    mem_free(text);
    runt_free(ids);
    runt_model_free(m);
    return rc;
}
