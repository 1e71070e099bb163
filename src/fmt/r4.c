/* Owns R4 in memory: the search for scales, rounding, packing and unpacking.
 *
 * A row's scale lets the row's largest number be code 0 or 15 with room to spare.  A
 * group's 8-bit scale is searched among those that can be stored, for the least squared
 * error: a step that clips the largest number a little, or does not need all codes, is
 * often better for the other 63.  The search compares integers (a group as 16-bit
 * multiples of its largest magnitude), which is quick and the same on every machine;
 * the codes are then rounded from the floats themselves.
 *
 * A row with a number that is not finite, or too large for any scale, gets an infinite
 * scale: it decodes to no finite number, which the quantizer refuses.  Numbers below
 * half the smallest step (2^-25) become 0. */
#include "fmt/fmt_impl.h"
#include "fmt/r4.h"

#include <math.h>
#include <string.h>

enum {
    UNIT = 32767, /* the largest magnitude of a group, in the search */
    INFINITE = 0x7c00,
    CODE_ZERO = 8, /* the code whose value is 0 */
};

/* The steps that are tried: the largest magnitude is K_LO to K_HI of them, on the side
 * that has code -8.  On GPT-2's matrices the search takes 5.5% off the error of a step
 * that is always 1/8; a wider range, the other sign, or a search among all real numbers
 * before rounding to 8 bits, would take off 0.05% more together. */
static const double k_lo = 7, k_hi = 9.5, smallest = 0x1p-25;

/* The largest magnitude of n numbers; infinite when one of them is not finite. */
static float largest(const float *x, size_t n)
{
    uint32_t max = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &x[i], sizeof u);
        u &= 0x7fffffff; /* magnitudes order as integers, NaN above infinity */
        max = u > max ? u : max;
    }
    float f;
    if (max > 0x7f800000)
        max = 0x7f800000;
    memcpy(&f, &max, sizeof f);
    return f;
}

uint16_t r4_row_scale(const float *x, size_t n_cols)
{
    float max = largest(x, n_cols);
    double want = (double)max / (7 * 127);
    if ((double)max < smallest)
        return 0;
    uint16_t h = fmt_f32_to_f16((float)want);
    while (h < INFINITE && (double)fmt_f16_to_f32(h) < want)
        h++; /* rounded up, so that 127 reaches; at least 2^-24 */
    return h;
}

/* 2 s sum(x q) - s^2 sum(q q): the squared error that scale s saves against rounding
 * to 0.  x is in units, k the number of steps s in the largest magnitude. */
static double saved(const int16_t x[R4_GROUP], double unit, double s, double k)
{
    int32_t xq = 0, qq = 0;
    int16_t m = (int16_t)(k * (256 * 65536.0 / UNIT)); /* x m / 2^16: 1/256 of a step */
    for (int i = 0; i < R4_GROUP; i++) {
        int16_t q = (int16_t)((x[i] * m) >> 16);
        q = (int16_t)(q + 128);
        q = (int16_t)(q >> 8);
        q = q > -8 ? q : -8;
        q = q < 7 ? q : 7;
        xq += x[i] * q;
        qq += q * q;
    }
    return s * (2 * unit * xq - s * qq);
}

int r4_group_scale(const float *x, size_t n, float row_scale)
{
    int16_t units[R4_GROUP] = {0};
    float max = largest(x, n);
    if (!(row_scale > 0) || !isfinite(row_scale) || (double)max < smallest)
        return 0;
    int sign = 0, best = 0;
    for (size_t i = 0; i < n; i++) {
        if (!sign && fabsf(x[i]) == max)
            sign = x[i] < 0 ? 1 : -1;
        units[i] = (int16_t)((int)(x[i] / max * UNIT + (UNIT + 1.5f)) - (UNIT + 1));
    }
    double steps = (double)max / (double)row_scale, most = 0;
    int lo = (int)(steps / k_hi), hi = (int)(steps / k_lo) + 1;
    lo = lo < 1 ? 1 : lo;
    hi = hi > 127 ? 127 : hi;
    for (int scale = lo; scale <= hi; scale++) {
        double s = sign * scale * (double)row_scale;
        double gain = saved(units, (double)max / UNIT, s, (double)max / s);
        if (gain > most) {
            most = gain;
            best = sign * scale;
        }
    }
    return best;
}

void r4_round_group(const float *x, size_t n, float scale, uint8_t codes[R4_GROUP])
{
    float inv = scale != 0 ? 1 / scale : 0;
    for (size_t i = 0; i < n; i++) {
        float v = x[i] * inv + (CODE_ZERO + 0.5f);
        codes[i] = !(v > 0) ? 0 : v < 15 ? (uint8_t)v : 15;
    }
    memset(codes + n, CODE_ZERO, R4_GROUP - n);
}

void r4_put_row_scale(void *tile, size_t r, uint16_t scale)
{
    memcpy((uint8_t *)tile + 2 * r, &scale, sizeof scale);
}

void r4_put_group(void *tile, size_t n_cols, size_t r, size_t group, int scale,
                  const uint8_t codes[R4_GROUP])
{
    uint8_t *at = tile;
    int8_t *scales = (int8_t *)at + 2 * R4_ROWS;
    scales[group * R4_ROWS + r] = (int8_t)scale;
    at +=
        r4_head_bytes(n_cols) + group * (R4_GROUP / R4_CHUNK * R4_CHUNK_BYTES) + 4 * r;
    for (int c = 0; c < R4_GROUP; c += R4_CHUNK, at += R4_CHUNK_BYTES)
        for (int j = 0; j < 4; j++)
            at[j] = (uint8_t)(codes[c + j] | codes[c + 4 + j] << 4);
}

static void encode_row(const float *x, size_t n_cols, size_t r, void *tile)
{
    uint16_t half = r4_row_scale(x, n_cols);
    float row_scale = fmt_f16_to_f32(half);
    r4_put_row_scale(tile, r, half);
    for (size_t g = 0; g * R4_GROUP < n_cols; g++) {
        const float *xg = x + g * R4_GROUP;
        size_t n = n_cols - g * R4_GROUP;
        uint8_t codes[R4_GROUP];
        n = n < R4_GROUP ? n : R4_GROUP;
        int scale = r4_group_scale(xg, n, row_scale);
        r4_round_group(xg, n, row_scale * (float)scale, codes);
        r4_put_group(tile, n_cols, r, g, scale, codes);
    }
}

void fmt_r4_encode(size_t n_cols, size_t n_rows, const float *x, void *tiles)
{
    uint8_t *tile = tiles;
    for (size_t row = 0; row < n_rows; row += R4_ROWS, tile += r4_tile_bytes(n_cols)) {
        memset(tile, 0, r4_tile_bytes(n_cols));
        for (size_t r = 0; r < R4_ROWS && row + r < n_rows; r++)
            encode_row(x + (row + r) * n_cols, n_cols, r, tile);
    }
}

void fmt_r4_decode_row(size_t n_cols, const void *tiles, size_t row, float *out)
{
    const uint8_t *tile =
        (const uint8_t *)tiles + row / R4_ROWS * r4_tile_bytes(n_cols);
    size_t r = row % R4_ROWS;
    const int8_t *scales = (const int8_t *)tile + 2 * R4_ROWS + r;
    const uint8_t *codes = tile + r4_head_bytes(n_cols) + 4 * r;
    uint16_t half;
    memcpy(&half, tile + 2 * r, sizeof half);
    float row_scale = fmt_f16_to_f32(half);
    for (size_t c = 0; c < n_cols; c++) {
        size_t in_chunk = c % R4_CHUNK;
        uint8_t b = codes[c / R4_CHUNK * R4_CHUNK_BYTES + in_chunk % 4];
        int code = in_chunk < 4 ? b & 15 : b >> 4;
        float scale = row_scale * scales[c / R4_GROUP * R4_ROWS];
        out[c] = scale * (float)(code - CODE_ZERO);
    }
}
