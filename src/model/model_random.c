/* Owns models made of random numbers: for tests, benchmarks, and training from
 * scratch. */
#include "model/model.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/rng.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct model_random {
    struct tensor_source source; /* first: rows() gets its address */
    struct gpt2_shape shape;
    uint64_t seed;
    struct tensor_desc *tensors;
};

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);
    return n >= k && !strcmp(s + n - k, end);
}

/* Every row has a generator of its own, so rows can be read in any order. */
static int random_rows(const struct tensor_source *src, size_t i, uint64_t row,
                       uint64_t n, float *out, struct runt_err *err)
{
    (void)err;
    const struct model_random *m = (const struct model_random *)src;
    const struct tensor_desc *d = &m->tensors[i];
    if (d->n_dims == 1) {
        float v = strstr(d->name, "norm.weight") ? 1 : 0;
        for (uint64_t k = 0; k < d->n_cols; k++)
            out[k] = v;
        return 0;
    }
    float sd = 0.02f;
    if (ends_with(d->name, "attn_output.weight") ||
        ends_with(d->name, "ffn_down.weight"))
        sd /= sqrtf(2 * (float)m->shape.n_layer);
    if (!strcmp(d->name, "position_embd.weight"))
        sd = 0.01f;
    for (uint64_t r = row; r < row + n; r++) {
        struct rng rng;
        rng_seed(&rng, m->seed * 0x9e3779b97f4a7c15u + ((uint64_t)i << 40) + r);
        for (uint64_t k = 0; k < d->n_cols; k++)
            *out++ = sd * rng_normal(&rng);
    }
    return 0;
}

int model_random_open(const struct gpt2_shape *s, uint64_t seed,
                      struct model_random **out, struct runt_err *err)
{
    struct model_random *m = mem_zalloc(sizeof *m);
    size_t n = model_n_tensors(s);
    if (m)
        m->tensors = mem_array(n, sizeof *m->tensors);
    if (!m || !m->tensors) {
        model_random_close(m);
        return err_nomem(err, "a random model");
    }
    m->shape = *s;
    m->seed = seed;
    for (size_t i = 0; i < n; i++) {
        struct tensor_desc *d = &m->tensors[i];
        d->fmt = fmt_find(FMT_F32);
        model_tensor_at(s, i, d->name, &d->n_dims, &d->n_cols, &d->n_rows);
    }
    m->source = (struct tensor_source){"random weights", n, m->tensors, random_rows};
    *out = m;
    return 0;
}

const struct tensor_source *model_random_source(const struct model_random *r)
{
    return &r->source;
}

void model_random_close(struct model_random *r)
{
    if (!r)
        return;
    mem_free(r->tensors);
    mem_free(r);
}
