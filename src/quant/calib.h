/* Calibration: what every matrix of a model is multiplied with, as its second moment
 * H = E[x x^T] over many tokens.  The squared error that rounding W to W' makes in the
 * outputs is tr((W' - W) H (W' - W)^T), which is what rounding then minimises.
 *
 * One pass of the float model over a text gathers all of them; they are kept in a file,
 * so that many formats share one pass. */
#ifndef RUNT_QUANT_CALIB_H
#define RUNT_QUANT_CALIB_H

#include "runt/runt.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct calib_moment {
    char name[64]; /* of the matrix: blk.0.attn_qkv.weight; token_embd.weight: the
                    * head's inputs */
    size_t n;      /* columns */
    float *h;      /* [n][n], lower triangle: the sum of x x^T over the tokens */
};

struct calib {
    uint64_t model, text; /* fingerprints of what it was made from */
    size_t n_tokens, n_wanted;
    size_t window; /* tokens that see each other */
    size_t n_moments;
    /* the last is that of the token table's own rows: E^T E, not of any text */
    struct calib_moment *moments;
};

struct calib_options {
    const char *name; /* of the text, for error lines */
    size_t n_tokens;  /* 0: 131072; fewer where the text is shorter */
    size_t window;    /* 0: the model's context, at most 1024 */
    unsigned n_threads;
    const char *save;          /* keep the result, and on the way what there is of it */
    runt_progress_fn progress; /* may be NULL */
    void *progress_ctx;
};

/* Feed tokens [n] through the model, in windows that lie evenly over them.  With
 * o->save an interrupted run leaves what it has there, and the same call goes on from
 * it, to the same bits.  Errors: RUNT_E_INVALID (fewer tokens than a window; a model
 * whose matrices are not floats), RUNT_E_UNSUPPORTED (no BLAS), RUNT_E_IO,
 * RUNT_E_INTERRUPTED.  Free with calib_free. */
int calib_gather(const runt_model *m, const int32_t *tokens, size_t n,
                 const struct calib_options *o, struct calib *out,
                 struct runt_err *err);
/* What the model itself writes: sequences of a window or 256 tokens from its
 * end-of-text token on, drawn at temperature 1 from `seed`, o->n_tokens together.  With
 * o->save an interrupted run goes on, too (calib_text.c).  *tokens is freed with
 * mem_free. */
int calib_sample(const runt_model *m, uint64_t seed, const struct calib_options *o,
                 int32_t **tokens, size_t *n, struct runt_err *err);

/* NULL when there is none of that name and width. */
const struct calib_moment *calib_find(const struct calib *c, const char *name,
                                      size_t n);
/* The moment of the token table's rows, when m is that of its inputs; else NULL. */
const struct calib_moment *calib_find_rows(const struct calib *c,
                                           const struct calib_moment *m);
void calib_free(struct calib *c);

/* ---- files (calib_file.c) ---- */

int calib_save(const struct calib *c, const char *path, struct runt_err *err);
/* RUNT_E_FORMAT when it is no such file or damaged. */
int calib_load(const char *path, struct calib *out, struct runt_err *err);

#endif
