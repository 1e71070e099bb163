/* Rounding weights: from any tensor source to a model file; with a calibration,
 * matrices whose type has a codec (quant/codec.h) are rounded with feedback
 * (quant/gptq.h).
 *
 * Which type a tensor gets (quant_type_for, the same for `import --type` and
 * `quantize`):
 *  1. the last override whose pattern matches its name;
 *  2. vectors (norms, biases): F32, as other loaders want them;
 *  3. position_embd.weight: Q8_0 when the wanted type is a block format (positions are
 *     added to every token, and are 0.6% of GPT-2), the wanted type when it is a float
 * one;
 *  4. every other matrix: the wanted type.
 * A row that is not whole blocks falls back to F16, a vector that an override wants in
 * R4 to F32, and the report says so.  (In R4 every matrix is whole: it pads.) */
#ifndef RUNT_QUANT_H
#define RUNT_QUANT_H

#include "base/pool.h"
#include "fmt/source.h"
#include "gguf/gguf.h"
#include "quant/calib.h"
#include "quant/prune.h"

struct quant_override {
    const char *pattern; /* POSIX extended regular expression, matched anywhere */
    const struct fmt_info *fmt;
};

struct quant_options {
    const struct fmt_info *fmt; /* NULL: matrices keep the source's float type */
    const struct quant_override *overrides;
    size_t n_overrides;
    const struct calib *calib; /* or NULL: every number to its nearest */
    double damping;            /* of H's mean diagonal; 0: 0.01 */
    const struct prune *prune; /* or NULL: no weight becomes 0 for its own sake */
    bool untie; /* store the token table a second time as output.weight */
    struct pool *pool;
    runt_progress_fn progress; /* may be NULL */
    void *progress_ctx;
};

enum { QUANT_OUTLIER = 6 };

struct quant_tensor_report {
    struct tensor_desc desc; /* fmt: the source's */
    const struct fmt_info *to;
    const struct fmt_info *wanted; /* differs from `to` after a fallback */
    uint64_t bytes;
    double rel_error; /* sqrt(sum (w' - w)^2 / sum w^2), 0 for an all-zero tensor */
    double max_error; /* max |w' - w| */
    /* Where the calibration has the matrix: sqrt(tr(D H D^T) / tr(W H W^T)), D = W' -
     * W, the relative error of the outputs; else -1. */
    double output_error;
    bool zeroed;       /* prune's pattern matches it */
    uint64_t zeros;    /* numbers that are 0 now */
    uint64_t outliers; /* |w| > QUANT_OUTLIER times the root mean square of w */
    double peak;       /* max |w| / root mean square of w */
    double seconds;
};

struct quant_report {
    size_t n_tensors, n_fallbacks;
    struct quant_tensor_report *tensors;
    uint64_t n_weights, file_bytes;
    double bits_per_weight; /* over the whole file: 8 * file_bytes / n_weights */
};

/* Write the tensors of `src` behind the metadata that `w` already holds, setting
 * general.file_type and general.quantization_version, to `path` (atomically).  Errors:
 * RUNT_E_INVALID (a pattern that is malformed or matches nothing; zeroing of what is
 * no float, has no calibration, no exact zero, or rows that N of M does not divide),
 * RUNT_E_FORMAT (a
 * weight that is not finite or does not fit the type; names the tensor), RUNT_E_IO,
 * RUNT_E_INTERRUPTED.  Free the report with quant_report_free. */
int quant_write(const struct tensor_source *src, struct gguf_writer *w,
                const char *path, const struct quant_options *o,
                struct quant_report *report, struct runt_err *err);
/* What quant_write would refuse before it begins, but for a calibration that is yet to
 * come (o->calib NULL). */
int quant_check(const struct tensor_source *src, const struct quant_options *o,
                struct runt_err *err);
void quant_report_free(struct quant_report *r);

#endif
