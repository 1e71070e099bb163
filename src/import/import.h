/* Checkpoints in the layout of Hugging Face: a folder with config.json and
 * model.safetensors (whole or in shards), architecture GPT-2.
 *
 * A reader yields a tensor source and decides nothing about formats: names are the
 * model file's, every matrix is [out][in], numbers come as floats from F32, F16 or
 * BF16. */
#ifndef RUNT_IMPORT_H
#define RUNT_IMPORT_H

#include "fmt/shape.h"
#include "fmt/source.h"
#include "runt/error.h"

/* A config.json.  `name` (a file) starts the error line.  Errors: RUNT_E_FORMAT
 * (damaged, or sizes that no model has), RUNT_E_UNSUPPORTED (another architecture, or
 * an option of GPT-2 that changes its arithmetic). */
int hf_config_parse(const char *json, size_t n, const char *name,
                    struct gpt2_shape *out, struct runt_err *err);

struct hf_checkpoint;

/* Open a folder; its files stay mapped until hf_close.  Errors: those of
 * hf_config_parse; RUNT_E_NOTFOUND (no folder, config.json or weights), RUNT_E_IO,
 * RUNT_E_FORMAT (a tensor missing or of another shape), RUNT_E_UNSUPPORTED (only
 * weights that are not safetensors, or a tensor of another dtype). */
int hf_open(const char *dir, struct hf_checkpoint **out, struct runt_err *err);
/* The same over one safetensors file in memory that outlives the result (tests,
 * fuzzing). */
int hf_parse(const struct gpt2_shape *shape, const void *data, size_t size,
             const char *name, struct hf_checkpoint **out, struct runt_err *err);
void hf_close(struct hf_checkpoint *c); /* NULL is fine */

/* What config.json says; `tied` is also true when lm_head.weight repeats wte.weight. */
const struct gpt2_shape *hf_shape(const struct hf_checkpoint *c);
/* The tensors in the order of the forward pass, output.weight (when not tied) last. */
const struct tensor_source *hf_source(const struct hf_checkpoint *c);
/* Tensors on file that a GPT-2 has no use for (attention masks are not counted), and
 * the name of the i-th. */
size_t hf_n_ignored(const struct hf_checkpoint *c);
const char *hf_ignored(const struct hf_checkpoint *c, size_t i);

/* The reverse: write config.json and model.safetensors into `dir` (made when missing)
 * so that Hugging Face's own programs read them.  Both files appear complete or not at
 * all. `src` has the model file's names and the tensors that `shape` asks for.  `fmt`
 * is F32, F16 or BF16; NULL keeps every number: matrices of floats have their own type,
 * those in blocks F32, vectors the matrices' where that is exact.  `progress` (may be
 * NULL) counts bytes.  Errors: RUNT_E_INVALID (another format, a number beyond F16),
 * RUNT_E_NOTFOUND or RUNT_E_FORMAT (a tensor missing or of another shape), RUNT_E_IO,
 * RUNT_E_NOMEM, RUNT_E_INTERRUPTED, and those of src->rows. */
int hf_write_dir(const char *dir, const struct gpt2_shape *shape,
                 const struct tensor_source *src, const struct fmt_info *fmt,
                 runt_progress_fn progress, void *ctx, struct runt_err *err);

#endif
