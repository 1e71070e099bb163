/* Formats as rounding with feedback sees them: a group of neighbouring columns of a row
 * gets a grid of values, chosen for the least weighted error; then each number gets the
 * nearest value of it. */
#ifndef RUNT_QUANT_CODEC_H
#define RUNT_QUANT_CODEC_H

#include "fmt/fmt.h"

#include <stdbool.h>

enum { CODEC_MAX_GROUP = 64 };

/* value = scale * (code - zero) + min, codes from lo to hi; or, with a table (IQ4_NL),
 * scale * table[code]; as decoders compute it. */
struct codec_grid {
    const int8_t *table; /* or NULL */
    float scale, min;
    int zero, lo, hi;
    uint16_t d, m;   /* scale and min as stored, f16 */
    int group_scale; /* R4: scale = row scale * group_scale */
};

/* Columns that share a grid; 0 when the format has no codec. */
size_t codec_group(const struct fmt_info *f);
/* Whether 0 is a value of every grid. */
bool codec_has_zero(const struct fmt_info *f);
/* What a whole row shares: R4's f16 scale, 0 for the others. */
uint16_t codec_row(const struct fmt_info *f, const float *w, size_t n_cols);
/* The grid for w [n] with the least sum of h (w' - w)^2; h [n] positive. */
void codec_fit(const struct fmt_info *f, uint16_t row, const float *w, const float *h,
               size_t n, struct codec_grid *out);
/* The code of the value nearest to w; *value is what decoding gives. */
int codec_round(const struct codec_grid *g, float w, float *value);
/* Store codes [n] of group `group` of row `row` into tensor bytes that start with the
 * tile of row 0, zeroed before. */
void codec_store(const struct fmt_info *f, size_t n_cols, size_t row, size_t group,
                 uint16_t row_scale, const struct codec_grid *g, const int *codes,
                 size_t n, uint8_t *bytes);

#endif
