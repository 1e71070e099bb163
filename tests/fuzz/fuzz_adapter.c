/* Any bytes as an adapter for a model of the shape below: refused in one line, or its
 * numbers are numbers and can be merged.
 * Seeds: corpus/adapter, made by tools/gen_train_corpus.py. */
#include "base/mem.h"
#include "model/adapter.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct gpt2_shape shape = {.n_vocab = 257,
                                        .n_ctx = 8,
                                        .n_embd = 4,
                                        .n_head = 2,
                                        .n_layer = 1,
                                        .n_ff = 8,
                                        .eps = 1e-5f,
                                        .tied = true};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int holds)
{
    if (!holds)
        abort();
}

static void look_at(const struct adapter *a)
{
    size_t n_adapted = 0;
    must(a->n_matrices == 1 + ADAPTER_PARTS);
    for (size_t i = 0; i < a->n_matrices; i++) {
        const struct adapter_matrix *m = &a->matrices[i];
        float w[4 * 257] = {0};
        must(m->rank <= 4 && (m->n_in == 4 || m->n_in == 8));
        must(m->n_out <= 12 || (!i && m->n_out == 257));
        n_adapted += m->rank > 0;
        for (size_t k = 0; k < m->rank * m->n_in; k++)
            must(isfinite(m->a[k]));
        for (size_t k = 0; k < m->rank * m->n_out; k++)
            must(isfinite(m->b[k]));
        must(!m->rank || (isfinite(m->scale) && m->scale > 0));
        if (m->rank)
            adapter_merge(m->n_in, m->n_out, m->rank, m->scale, m->a, m->b, w);
    }
    must(n_adapted > 0);
    must(!a->chat_template || strlen(a->chat_template) < 1u << 30);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct runt_err err = {0};
    struct gguf *g = NULL;
    struct adapter *a = NULL;
    long live = mem_live();
    if (!gguf_parse(data, size, "fuzz.gguf", &g, &err)) {
        if (!adapter_read(g, &shape, &a, &err))
            look_at(a);
        else
            must(!a && !strncmp(err.msg, "fuzz.gguf", 9));
    }
    adapter_close(a);
    gguf_close(g);
    must(mem_live() == live);
    return 0;
}
