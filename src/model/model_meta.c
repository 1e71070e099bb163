/* Owns the metadata that other programs expect of a GPT-2 model file. */
#include "model/model.h"
#include "model/model_vocab.h"

#include <string.h>

void model_write_meta(struct gguf_writer *w, const struct gpt2_shape *s,
                      const struct tok_vocab *v, const char *name)
{
    model_write_meta_for(w, s, v, name, NULL, NULL); /* fails only for R4 */
}

int model_write_meta_for(struct gguf_writer *w, const struct gpt2_shape *s,
                         const struct tok_vocab *v, const char *name,
                         const struct fmt_info *fmt, struct runt_err *err)
{
    gguf_set_str(w, "general.architecture", "gpt2", 4);
    gguf_set_str(w, "general.name", name, strlen(name));
    gguf_set_u32(w, "general.file_type", 0); /* quant_write knows the true one */
    gguf_set_u32(w, "general.quantization_version", 2);
    gguf_set_u32(w, "gpt2.context_length", s->n_ctx);
    gguf_set_u32(w, "gpt2.embedding_length", s->n_embd);
    gguf_set_u32(w, "gpt2.block_count", s->n_layer);
    gguf_set_u32(w, "gpt2.feed_forward_length", s->n_ff);
    gguf_set_u32(w, "gpt2.attention.head_count", s->n_head);
    gguf_set_f32(w, "gpt2.attention.layer_norm_epsilon", s->eps);
    gguf_set_str(w, "tokenizer.ggml.model", "gpt2", 4);
    gguf_set_str(w, "tokenizer.ggml.pre", "gpt-2", 5);
    int rc = model_write_vocab(w, v, fmt, err);
    if (v->bos >= 0)
        gguf_set_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)v->bos);
    if (v->eos >= 0)
        gguf_set_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)v->eos);
    gguf_set_bool(w, "tokenizer.ggml.add_bos_token", false);
    return rc;
}
