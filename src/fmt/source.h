/* A tensor source: named tensors whose rows are given on demand, as floats.
 *
 * Readers of checkpoints and of model files make one; the quantizer and the writer of
 * model files take one, so neither knows where weights come from.  Names are the model
 * file's (blk.0.attn_qkv.weight). */
#ifndef RUNT_FMT_SOURCE_H
#define RUNT_FMT_SOURCE_H

#include "fmt/fmt.h"

enum { TENSOR_NAME_MAX = 64 }; /* with the final NUL, as GGUF allows */

struct tensor_desc {
    char name[TENSOR_NAME_MAX];
    const struct fmt_info *fmt; /* how the source holds it */
    uint64_t n_cols;            /* length of a row (GGUF's first dimension) */
    uint64_t n_rows;            /* 1 for a vector */
    unsigned n_dims;            /* 1 or 2 */
};

struct tensor_source {
    const char *name; /* file or folder, for error lines */
    size_t n_tensors;
    const struct tensor_desc *tensors;
    /* Rows row .. row + n - 1 of tensor i into out [n][n_cols].  Thread-safe.  Errors:
     * RUNT_E_FORMAT, RUNT_E_NOMEM. */
    int (*rows)(const struct tensor_source *s, size_t i, uint64_t row, uint64_t n,
                float *out, struct runt_err *err);
};

#endif
