/* Owns the search for scales with weights, and where codes and scales go.
 *
 * Candidates are steps that let the largest magnitude be a little more or less than the
 * last code, on either side (4 bits have one more code on the negative one); the best
 * is refined by least squares for the codes that it gave. */
#include "quant/codec.h"

#include "fmt/iq4_nl.h"
#include "fmt/r4.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 32 };

size_t codec_group(const struct fmt_info *f)
{
    switch (f->type) {
    case FMT_R4:
        return R4_GROUP;
    case FMT_Q8_0:
    case FMT_Q5_0:
    case FMT_Q5_1:
    case FMT_Q4_0:
    case FMT_Q4_1:
    case FMT_IQ4_NL:
        return BLOCK;
    default:
        return 0;
    }
}

bool codec_has_zero(const struct fmt_info *f)
{
    return f->is_float || f->type == FMT_R4 || f->type == FMT_Q8_0 ||
           f->type == FMT_Q5_0 || f->type == FMT_Q4_0;
}

uint16_t codec_row(const struct fmt_info *f, const float *w, size_t n_cols)
{
    return f->type == FMT_R4 ? r4_row_scale(w, n_cols) : 0;
}

/* What a code stands for in units of the scale. */
static int level(const struct codec_grid *g, int code)
{
    return g->table ? g->table[code] : code - g->zero;
}

int codec_round(const struct codec_grid *g, float w, float *value)
{
    int code = g->zero;
    if (g->table) {
        code = iq4_nl_nearest(g->scale != 0 ? w / g->scale : 0);
    } else if (g->scale != 0) {
        float v = (w - g->min) / g->scale + (float)g->zero;
        code = !(v > (float)g->lo) ? g->lo : v < (float)g->hi ? (int)rintf(v) : g->hi;
    }
    *value = g->scale * (float)level(g, code) + g->min;
    return code;
}

static double error_of(const struct codec_grid *g, const float *w, const float *h,
                       size_t n)
{
    double e = 0;
    for (size_t i = 0; i < n; i++) {
        float value;
        codec_round(g, w[i], &value);
        double d = (double)value - (double)w[i];
        e += (double)h[i] * d * d;
    }
    return e;
}

/* Where e is less than *least, the candidate becomes the best. */
static void consider(const struct codec_grid *g, const float *w, const float *h,
                     size_t n, double *least, struct codec_grid *best)
{
    if (!isfinite(g->scale) || !isfinite(g->min))
        return;
    double e = error_of(g, w, h, n);
    if (e < *least) {
        *least = e;
        *best = *g;
    }
}

static struct codec_grid with_step(struct codec_grid g, double step, double min)
{
    g.d = fmt_f32_to_f16((float)step);
    g.m = fmt_f32_to_f16((float)min);
    g.scale = fmt_f16_to_f32(g.d);
    g.min = fmt_f16_to_f32(g.m);
    return g;
}

static float extreme(const float *w, size_t n)
{
    float x = 0;
    for (size_t i = 0; i < n; i++)
        x = fabsf(w[i]) > fabsf(x) ? w[i] : x;
    return x;
}

/* An f16 scale: Q4_0, Q5_0, Q8_0, IQ4_NL. */
static void fit_scale(struct codec_grid g, double k_lo, double k_hi, double k_step,
                      const float *w, const float *h, size_t n, struct codec_grid *out)
{
    double x = (double)extreme(w, n), least;
    *out = with_step(g, 0, 0);
    least = error_of(out, w, h, n);
    for (double k = k_lo; k <= k_hi && x != 0; k += k_step)
        for (int sign = -1; sign <= 1; sign += 2) {
            struct codec_grid c = with_step(g, sign * x / k, 0);
            consider(&c, w, h, n, &least, out);
        }
    double wq = 0, qq = 0;
    for (size_t i = 0; i < n; i++) {
        float value;
        double q = level(out, codec_round(out, w[i], &value));
        wq += (double)h[i] * (double)w[i] * q;
        qq += (double)h[i] * q * q;
    }
    if (qq > 0) {
        struct codec_grid c = with_step(g, wq / qq, 0);
        consider(&c, w, h, n, &least, out);
    }
}

/* A scale and a minimum: Q4_1, Q5_1.  The range is cut on either side by up to a
 * quarter. */
static void fit_scale_min(struct codec_grid g, const float *w, const float *h, size_t n,
                          struct codec_grid *out)
{
    enum { CUTS = 7 };
    float min = w[0], max = w[0];
    for (size_t i = 1; i < n; i++) {
        min = w[i] < min ? w[i] : min;
        max = w[i] > max ? w[i] : max;
    }
    double lo = (double)min, hi = (double)max, least;
    *out = with_step(g, 0, (lo + hi) / 2);
    least = error_of(out, w, h, n);
    for (int a = 0; a < CUTS; a++)
        for (int b = 0; b < CUTS; b++) {
            double cut = (hi - lo) / 28, from = lo + a * cut, to = hi - b * cut;
            struct codec_grid c = with_step(g, (to - from) / g.hi, from);
            consider(&c, w, h, n, &least, out);
        }
    double s = 0, sq = 0, sqq = 0, sw = 0, swq = 0;
    for (size_t i = 0; i < n; i++) {
        float value;
        double q = codec_round(out, w[i], &value), x = (double)w[i], t = (double)h[i];
        s += t;
        sq += t * q;
        sqq += t * q * q;
        sw += t * x;
        swq += t * x * q;
    }
    double det = s * sqq - sq * sq;
    if (det > 0) {
        double step = (s * swq - sq * sw) / det;
        struct codec_grid c = with_step(g, step, (sw - step * sq) / s);
        consider(&c, w, h, n, &least, out);
    }
}

static void fit_r4(uint16_t row, const float *w, const float *h, size_t n,
                   struct codec_grid *out)
{
    struct codec_grid g = {.zero = 8, .lo = 0, .hi = 15};
    double x = fabs((double)extreme(w, n)), step = (double)fmt_f16_to_f32(row), least;
    *out = g;
    least = error_of(out, w, h, n);
    if (!(step > 0) || x == 0)
        return;
    int lo = (int)(x / step / 10.5), hi = (int)(x / step / 6.75) + 1;
    lo = lo < 1 ? 1 : lo;
    hi = hi > 127 ? 127 : hi;
    for (int s = lo < hi ? lo : hi; s <= hi; s++)
        for (int sign = -1; sign <= 1; sign += 2) {
            g.group_scale = sign * s;
            g.scale = (float)step * (float)g.group_scale;
            consider(&g, w, h, n, &least, out);
        }
}

void codec_fit(const struct fmt_info *f, uint16_t row, const float *w, const float *h,
               size_t n, struct codec_grid *out)
{
    switch (f->type) {
    case FMT_R4:
        fit_r4(row, w, h, n, out);
        break;
    case FMT_Q8_0:
        fit_scale((struct codec_grid){.lo = -127, .hi = 127}, 126, 130, 1, w, h, n,
                  out);
        break;
    case FMT_Q5_0:
        fit_scale((struct codec_grid){.zero = 16, .hi = 31}, 14.5, 18.5, 0.25, w, h, n,
                  out);
        break;
    case FMT_IQ4_NL: /* ends at -127 and 113 */
        fit_scale((struct codec_grid){.table = iq4_nl_values}, 96, 150, 3, w, h, n,
                  out);
        break;
    case FMT_Q5_1:
        fit_scale_min((struct codec_grid){.hi = 31}, w, h, n, out);
        break;
    case FMT_Q4_0:
        fit_scale((struct codec_grid){.zero = 8, .hi = 15}, 6.75, 10.5, 0.25, w, h, n,
                  out);
        break;
    default: /* Q4_1 */
        fit_scale_min((struct codec_grid){.hi = 15}, w, h, n, out);
    }
}

void codec_store(const struct fmt_info *f, size_t n_cols, size_t row, size_t group,
                 uint16_t row_scale, const struct codec_grid *g, const int *codes,
                 size_t n, uint8_t *bytes)
{
    if (f->type == FMT_R4) {
        uint8_t packed[R4_GROUP];
        uint8_t *tile = bytes + row / R4_ROWS * r4_tile_bytes(n_cols);
        for (size_t i = 0; i < R4_GROUP; i++)
            packed[i] = (uint8_t)(i < n ? codes[i] : 8);
        r4_put_row_scale(tile, row % R4_ROWS, row_scale);
        r4_put_group(tile, n_cols, row % R4_ROWS, group, g->group_scale, packed);
        return;
    }
    uint8_t *p = bytes + (row * (n_cols / BLOCK) + group) * f->block_bytes;
    memcpy(p, &g->d, 2);
    p += 2;
    if (f->type == FMT_Q4_1 || f->type == FMT_Q5_1) {
        memcpy(p, &g->m, 2);
        p += 2;
    }
    if (f->type == FMT_Q5_0 || f->type == FMT_Q5_1) { /* the fifth bits come first */
        for (size_t i = 0; i < BLOCK; i++)
            p[i / 8] |= (uint8_t)((codes[i] >> 4) << i % 8);
        p += BLOCK / 8;
    }
    for (size_t i = 0; i < BLOCK / 2; i++) {
        if (f->type == FMT_Q8_0) {
            p[i] = (uint8_t)codes[i];
            p[i + BLOCK / 2] = (uint8_t)codes[i + BLOCK / 2];
        } else {
            p[i] = (uint8_t)((codes[i] & 15) | (codes[i + BLOCK / 2] & 15) << 4);
        }
    }
}
