/* Owns the table of GPT-2's tensors: Hugging Face's name, the model file's name, and
 * the shape that follows from the model's sizes.  Reading and writing checkpoints both
 * walk this table, so they cannot disagree. */
#include "import/import_impl.h"

#include <stdio.h>

/* A length in the shape of a tensor. */
enum dim { ONE, N_EMBD, N_QKV, N_FF, N_VOCAB, N_CTX };

struct row {
    const char *hf, *name;
    enum dim n_rows, n_cols; /* n_rows ONE: a vector */
    bool conv1d;
};

static const struct row embeddings[] = {
    {"wte.weight", "token_embd.weight", N_VOCAB, N_EMBD, false},
    {"wpe.weight", "position_embd.weight", N_CTX, N_EMBD, false},
};

/* Of every layer, behind h.N. and blk.N. */
static const struct row layer[] = {
    {"ln_1.weight", "attn_norm.weight", ONE, N_EMBD, false},
    {"ln_1.bias", "attn_norm.bias", ONE, N_EMBD, false},
    {"attn.c_attn.weight", "attn_qkv.weight", N_QKV, N_EMBD, true},
    {"attn.c_attn.bias", "attn_qkv.bias", ONE, N_QKV, false},
    {"attn.c_proj.weight", "attn_output.weight", N_EMBD, N_EMBD, true},
    {"attn.c_proj.bias", "attn_output.bias", ONE, N_EMBD, false},
    {"ln_2.weight", "ffn_norm.weight", ONE, N_EMBD, false},
    {"ln_2.bias", "ffn_norm.bias", ONE, N_EMBD, false},
    {"mlp.c_fc.weight", "ffn_up.weight", N_FF, N_EMBD, true},
    {"mlp.c_fc.bias", "ffn_up.bias", ONE, N_FF, false},
    {"mlp.c_proj.weight", "ffn_down.weight", N_EMBD, N_FF, true},
    {"mlp.c_proj.bias", "ffn_down.bias", ONE, N_EMBD, false},
};

static const struct row head[] = {
    {"ln_f.weight", "output_norm.weight", ONE, N_EMBD, false},
    {"ln_f.bias", "output_norm.bias", ONE, N_EMBD, false},
    {"lm_head.weight", "output.weight", N_VOCAB, N_EMBD, false},
};

enum {
    N_EMBEDDINGS = sizeof embeddings / sizeof *embeddings,
    N_PER_LAYER = sizeof layer / sizeof *layer,
    N_HEAD = sizeof head / sizeof *head,
};

static uint64_t length(const struct gpt2_shape *s, enum dim d)
{
    switch (d) {
    case N_EMBD:
        return s->n_embd;
    case N_QKV:
        return 3 * (uint64_t)s->n_embd;
    case N_FF:
        return s->n_ff;
    case N_VOCAB:
        return s->n_vocab;
    case N_CTX:
        return s->n_ctx;
    case ONE:
        break;
    }
    return 1;
}

size_t hf_layout_count(const struct gpt2_shape *s)
{
    return N_EMBEDDINGS + (size_t)s->n_layer * N_PER_LAYER + N_HEAD - 1;
}

void hf_layout_at(const struct gpt2_shape *s, size_t i, struct hf_layout *out)
{
    size_t n_in_layers = (size_t)s->n_layer * N_PER_LAYER;
    const struct row *r;
    char hf[16] = "", name[16] = "";
    if (i < N_EMBEDDINGS) {
        r = &embeddings[i];
    } else if (i - N_EMBEDDINGS < n_in_layers) {
        uint32_t l = (uint32_t)((i - N_EMBEDDINGS) / N_PER_LAYER);
        r = &layer[(i - N_EMBEDDINGS) % N_PER_LAYER];
        snprintf(hf, sizeof hf, "h.%u.", l);
        snprintf(name, sizeof name, "blk.%u.", l);
    } else {
        r = &head[i - N_EMBEDDINGS - n_in_layers];
    }
    *out = (struct hf_layout){.n_rows = length(s, r->n_rows),
                              .n_cols = length(s, r->n_cols),
                              .n_dims = r->n_rows == ONE ? 1 : 2,
                              .conv1d = r->conv1d};
    snprintf(out->hf, sizeof out->hf, "%s%s", hf, r->hf);
    snprintf(out->name, sizeof out->name, "%s%s", name, r->name);
}
