/* Owns which weights become 0, and the walk that makes good for them.
 *
 * A share is chosen over all rows of a block of columns at once, on one thread; the
 * rows are then walked on all of them, in slices whose size does not depend on how
 * many. */
#include "quant/prune.h"

#include "base/err.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

enum { COLUMNS = 128, SLICE = 64, PLAIN_GROUP = 32, HALF = 1 << 16 };

static size_t min(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t round_up(size_t x, size_t step)
{
    return (x + step - 1) / step * step;
}

static size_t common_multiple(size_t a, size_t b)
{
    size_t m = a;
    while (m % b)
        m += a;
    return m;
}

/* ---- the smallest ---- */

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u & 0x7fffffff;
}

/* zero[i] = whether score[i] is among the k smallest of n, the first ones among equals.
 * The bits of numbers without a sign are ordered as they are: two rounds over 16 of
 * them find the k-th; count [HALF] is room. */
static void choose_smallest(const float *score, size_t n, size_t k, size_t *count,
                            uint8_t *zero)
{
    uint32_t high = 0, low = 0;
    size_t left = k; /* of those whose bits begin like the k-th's */
    memset(count, 0, HALF * sizeof *count);
    for (size_t i = 0; i < n; i++)
        count[bits_of(score[i]) / HALF]++;
    for (; high < HALF && count[high] < left; high++)
        left -= count[high];
    memset(count, 0, HALF * sizeof *count);
    for (size_t i = 0; i < n; i++)
        if (bits_of(score[i]) / HALF == high)
            count[bits_of(score[i]) % HALF]++;
    for (; low < HALF && count[low] < left; low++)
        left -= count[low];
    uint32_t kth = high * HALF + low;
    for (size_t i = 0; i < n; i++) {
        uint32_t b = bits_of(score[i]);
        zero[i] = k && (b < kth || (b == kth && left > 0));
        left -= b == kth && left > 0;
    }
}

/* All but the `keep` largest of every `of` scores. */
static void choose_pattern(const struct prune *p, const float *score, size_t n,
                           uint8_t *zero)
{
    for (size_t g = 0; g < n; g += p->of)
        for (size_t i = g; i < g + p->of; i++) {
            unsigned above = 0; /* the first one is the larger among equals */
            for (size_t j = g; j < g + p->of; j++)
                above += bits_of(score[j]) > bits_of(score[i]) ||
                         (bits_of(score[j]) == bits_of(score[i]) && j < i);
            zero[i] = above >= p->keep;
        }
}

/* ---- by magnitude ---- */

static void zero_smallest(const struct prune *p, size_t n_rows, size_t n, size_t *count,
                          uint8_t *zero, float *w)
{
    size_t total = n_rows * n;
    if (p->of)
        choose_pattern(p, w, total, zero);
    else
        choose_smallest(w, total, (size_t)llround(p->sparsity * (double)total), count,
                        zero);
    for (size_t i = 0; i < total; i++)
        w[i] = zero[i] ? 0 : w[i];
}

/* ---- with feedback ---- */

struct walk {
    const struct prune *p;
    const struct gptq *g;
    size_t n_rows, n, group,
        block;           /* columns: that share a grid; of a block, at most */
    size_t begin, end;   /* of this block */
    float *w;            /* [n_rows][n] */
    float *score, *e;    /* [n_rows][end - begin], [n_rows][block] */
    uint8_t *zero;       /* [n_rows][end - begin] */
    uint16_t *row_scale; /* [n_rows] */
    uint8_t *bytes;
};

static void score_rows(void *ctx, unsigned i, unsigned n)
{
    const struct walk *k = ctx;
    size_t begin, end, width = k->end - k->begin;
    pool_range(k->n_rows, SLICE, i, n, &begin, &end);
    for (size_t r = begin; r < end; r++)
        for (size_t j = 0; j < width; j++) {
            float w = k->w[r * k->n + k->begin + j];
            k->score[r * width + j] = w * w * k->g->weight[k->begin + j];
        }
}

/* The groups of a row; those of a pattern that begin in a group are chosen when it
 * comes, from the weights as they are then. */
static void walk_row(const struct walk *k, size_t r)
{
    size_t width = k->end - k->begin, chosen = 0;
    float *w = k->w + r * k->n, *score = k->score + r * width;
    uint8_t *zero = k->zero + r * width;
    for (size_t j = 0; j < width; j += k->group) {
        size_t m = min(k->group, width - j);
        if (k->p->of && chosen < j + m) {
            size_t to = round_up(j + m, k->p->of);
            for (size_t c = chosen; c < to; c++)
                score[c] =
                    w[k->begin + c] * w[k->begin + c] * k->g->weight[k->begin + c];
            choose_pattern(k->p, score + chosen, to - chosen, zero + chosen);
            chosen = to;
        }
        gptq_group(k->g, k->begin + j, m, k->end, r, k->row_scale[r], zero + j, w,
                   k->e + r * k->block + j, k->bytes);
    }
}

static void walk_rows(void *ctx, unsigned i, unsigned n)
{
    const struct walk *k = ctx;
    size_t n_slices = (k->n_rows + SLICE - 1) / SLICE;
    for (size_t s = i; s < n_slices; s += n) {
        size_t begin = s * SLICE, end = min(begin + SLICE, k->n_rows);
        for (size_t r = begin; r < end; r++)
            walk_row(k, r);
        if (k->end < k->n)
            blas_gemm_nn(k->g->blas, end - begin, k->n - k->end, k->end - k->begin, -1,
                         k->e + begin * k->block, k->block,
                         k->g->u + k->begin * k->n + k->end, k->n, 1,
                         k->w + begin * k->n + k->end, k->n);
    }
}

static void walk_all(struct walk *k, struct pool *pool, size_t *count)
{
    for (size_t r = 0; r < k->n_rows; r++)
        k->row_scale[r] = codec_row(k->g->fmt, k->w + r * k->n, k->n);
    size_t zeros = 0;
    for (k->begin = 0; k->begin < k->n; k->begin = k->end) {
        k->end = min(k->begin + k->block, k->n);
        if (!k->p->of) {
            size_t so_far =
                (size_t)llround(k->p->sparsity * (double)(k->end * k->n_rows));
            pool_run(pool, score_rows, k);
            choose_smallest(k->score, k->n_rows * (k->end - k->begin), so_far - zeros,
                            count, k->zero);
            zeros = so_far;
        }
        pool_run(pool, walk_rows, k);
    }
}

int prune_matrix(const struct prune *p, const struct gptq *g, struct pool *pool,
                 size_t n_rows, size_t n, float *w, uint8_t *bytes,
                 struct runt_err *err)
{
    struct walk k = {.p = p, .g = g, .n_rows = n_rows, .n = n, .w = w, .bytes = bytes};
    size_t *count = mem_array(HALF, sizeof *count), size, total;
    int rc = count ? 0 : err_nomem(err, "scores of weights");
    if (g) {
        k.group = codec_group(g->fmt) ? codec_group(g->fmt) : PLAIN_GROUP;
        k.block = round_up(COLUMNS, common_multiple(k.group, p->of ? p->of : 1));
        k.row_scale = mem_array(n_rows, sizeof *k.row_scale);
        if (bytes && fmt_tensor_bytes(g->fmt, n, n_rows, &total))
            memset(bytes, 0, total);
    } else {
        k.block = n;
    }
    if (!rc && size_mul(n_rows, k.block, &size)) {
        k.zero = mem_array(size, sizeof *k.zero);
        k.score = g ? mem_array(size, sizeof *k.score) : NULL;
        k.e = g ? mem_array(size, sizeof *k.e) : NULL;
    }
    if (!rc && (!k.zero || (g && (!k.score || !k.e || !k.row_scale))))
        rc = err_nomem(err, "scores of weights");
    if (!rc && g)
        walk_all(&k, pool, count);
    else if (!rc)
        zero_smallest(p, n_rows, n, count, k.zero, w);
    mem_free(count);
    mem_free(k.zero);
    mem_free(k.score);
    mem_free(k.e);
    mem_free(k.row_scale);
    return rc;
}
