/* Any bytes as a safetensors file, and as the weights of a one-layer GPT-2
 * (tools/gen_safetensors_corpus.py writes seeds of that shape). */
#include "import/import.h"
#include "import/safetensors.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct gpt2_shape shape = {.n_vocab = 5,
                                        .n_ctx = 4,
                                        .n_embd = 4,
                                        .n_head = 2,
                                        .n_layer = 1,
                                        .n_ff = 8,
                                        .eps = 1e-5f,
                                        .bos = -1,
                                        .eos = -1};

static volatile unsigned sum; /* so that the reads are not optimised away */

static void check_file(const uint8_t *data, size_t size)
{
    struct st_file *f = NULL;
    struct runt_err err;
    char text[32];
    if (st_parse(data, size, "fuzz", &f, &err))
        return;
    for (size_t i = 0; i < f->n_tensors; i++) {
        const struct st_tensor *t = &f->tensors[i];
        if (st_find(f, t->name) != t)
            abort();
        for (size_t j = 0; j < t->bytes; j++)
            sum += t->data[j];
        st_shape_text(t, text, sizeof text);
    }
    st_close(f);
}

static void check_model(const uint8_t *data, size_t size, bool tied)
{
    struct gpt2_shape s = shape;
    struct hf_checkpoint *c = NULL;
    struct runt_err err;
    float x[5 * 12 * 8];
    s.tied = tied;
    if (hf_parse(&s, data, size, "fuzz", &c, &err))
        return;
    const struct tensor_source *src = hf_source(c);
    for (size_t i = 0; i < src->n_tensors; i++)
        if (src->rows(src, i, 0, src->tensors[i].n_rows, x, &err))
            abort();
    for (size_t i = 0; i < hf_n_ignored(c); i++)
        if (!hf_ignored(c, i))
            abort();
    hf_close(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_file(data, size);
    check_model(data, size, true);
    check_model(data, size, false);
    return 0;
}
