/* The vocabulary of a model file, in one of two forms.
 *
 * The standard one is llama.cpp's: arrays of strings, tokenizer.ggml.tokens, token_type
 * and merges, 1.8 MB for GPT-2.  A file whose matrices are R4, which only runt reads,
 * has 200 kB instead where the vocabulary allows (tok_compact_make):
 *
 *   runt.tokenizer.bytes   U8 [256]        by id: the byte that the token stands for
 *   runt.tokenizer.merges  U16 or U32 [2n] by rank: left, right; makes token 256 + rank
 *   runt.tokenizer.tail    strings         the tokens after those
 *   runt.tokenizer.kinds   U32 [2k]        id, kind of the tokens that are not normal,
 *                                          ids ascending
 *
 * and tokenizer.ggml.model, pre, bos, eos as ever.  Both forms give the same tokens,
 * kinds and merges, byte for byte. */
#ifndef RUNT_MODEL_VOCAB_H
#define RUNT_MODEL_VOCAB_H

#include "fmt/shape.h"
#include "gguf/gguf.h"
#include "tok/tok.h"

/* The vocabulary in a GGUF file, enough for tok_create (tok_vocab_spell_merges gives
 * the rest).  Strings may be borrowed from the file; free with tok_vocab_free.
 * (Declared in model.h too.) */
int model_read_vocab(const struct gguf *g, struct tok_vocab *out, struct runt_err *err);

/* The vocabulary's keys, in the form for a file whose matrices have type fmt (NULL: any
 * that is not R4), from one that has its merges' strings.  RUNT_E_NOMEM. */
int model_write_vocab(struct gguf_writer *w, const struct tok_vocab *v,
                      const struct fmt_info *fmt, struct runt_err *err);

/* model_write_meta with the vocabulary in that form. */
int model_write_meta_for(struct gguf_writer *w, const struct gpt2_shape *s,
                         const struct tok_vocab *v, const char *name,
                         const struct fmt_info *fmt, struct runt_err *err);

/* All metadata of a file, pair by pair, with the vocabulary in that form: rewritten
 * only where it must be and can be, in the place of its first key.  Errors: those of
 * model_read_vocab for a file of the compact form, RUNT_E_NOMEM. */
int model_copy_meta(struct gguf_writer *w, const struct gguf *g,
                    const struct fmt_info *fmt, struct runt_err *err);

#endif
