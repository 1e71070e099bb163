/* Any bytes as a model file: refused, or every key and tensor of it can be read.
 * Seeds: corpus/gguf, made by tools/gen_gguf_corpus.py; words: gguf.dict. */
#include "base/mem.h"
#include "gguf/gguf.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_COLS = 1 << 16, MAX_ROWS = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What the header of gguf.h promises, and what breaks it. */
static void must(int holds)
{
    if (!holds)
        abort();
}

static void read_key(const struct gguf *g, const struct gguf_kv *kv)
{
    char *key = mem_strndup(kv->key.data, kv->key.len);
    uint64_t u = 0;
    float f = 0;
    struct gguf_str s = {0}, *strings = NULL;
    int32_t *ints = NULL;
    size_t n = 0, sum = 0;
    must(key && gguf_find(g, key) == kv);
    if (!gguf_get_uint(g, key, 1000, &u, NULL))
        must(u <= 1000);
    if (!gguf_get_f32(g, key, &f, NULL))
        must(f - f == 0);
    if (!gguf_get_str(g, key, &s, NULL))
        for (size_t i = 0; i < s.len; i++)
            sum += (unsigned char)s.data[i];
    if (!gguf_get_strings(g, key, &strings, &n, NULL)) {
        must(n == kv->n);
        for (size_t i = 0; i < n; i++)
            if (strings[i].len)
                sum += (unsigned char)strings[i].data[strings[i].len - 1];
    }
    if (!gguf_get_ints(g, key, &ints, &n, NULL))
        must(n == kv->n);
    must(sum <= 255 * g->file_bytes);
    mem_free(strings);
    mem_free(ints);
    mem_free(key);
}

static void read_tensor(const struct gguf *g, size_t i)
{
    const struct tensor_desc *d = &g->source.tensors[i];
    must(gguf_find_tensor(g, d->name) == &g->tensors[i]);
    must(g->tensors[i].bytes <= g->file_bytes && d->n_cols && d->n_rows);
    if (d->n_cols > MAX_COLS)
        return;
    float *row = malloc((size_t)d->n_cols * sizeof *row);
    must(row != NULL);
    for (uint64_t k = 0; k < d->n_rows && k < MAX_ROWS; k++)
        must(!g->source.rows(&g->source, i, k, 1, row, NULL));
    must(!g->source.rows(&g->source, i, d->n_rows - 1, 1, row, NULL));
    must(g->source.rows(&g->source, i, d->n_rows, 1, row, NULL) == RUNT_E_INVALID);
    free(row);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf *g = NULL;
    struct runt_err err = {0};
    long live = mem_live();
    int rc = gguf_parse(data, size, "fuzz.gguf", &g, &err);
    if (rc) {
        must(rc == RUNT_E_FORMAT || rc == RUNT_E_UNSUPPORTED);
        must(rc == err.code && !strncmp(err.msg, "fuzz.gguf: ", 11) && !g);
    } else {
        for (size_t i = 0; i < g->n_kv; i++)
            read_key(g, &g->kv[i]);
        for (size_t i = 0; i < g->n_tensors; i++)
            read_tensor(g, i);
        gguf_close(g);
    }
    must(mem_live() == live);
    return 0;
}
