/* Any bytes as config.json: what is accepted must be a model whose sizes make sense. */
#include "import/import.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gpt2_shape s;
    struct runt_err err;
    if (hf_config_parse((const char *)data, size, "fuzz", &s, &err))
        return 0;
    if (!s.n_vocab || !s.n_ctx || !s.n_embd || !s.n_layer || !s.n_head || !s.n_ff)
        abort();
    if (s.n_embd > 65536 || s.n_layer > 1024 || s.n_embd % s.n_head)
        abort();
    if (s.bos < -1 || s.eos < -1 || !(s.eps >= 0))
        abort();
    if ((s.bos >= 0 && (uint32_t)s.bos >= s.n_vocab) ||
        (s.eos >= 0 && (uint32_t)s.eos >= s.n_vocab))
        abort();
    return 0;
}
