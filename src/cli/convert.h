/* From a checkpoint folder, or the name of a pulled model, to a model file: shared by
 * `import`, `run`, and every verb that takes -m. */
#ifndef RUNT_CLI_CONVERT_H
#define RUNT_CLI_CONVERT_H

#include "cli/cli.h"
#include "quant/quant.h"
#include "runt/runt.h"
#include "tok/tok.h"

/* Import the Hugging Face folder `dir` into `path`; `name` becomes general.name.  Says
 * on `notes` (may be NULL) which tensors of the checkpoint were left out. */
int convert_folder(const char *dir, const char *name, const char *path,
                   const struct quant_options *o, FILE *notes,
                   struct quant_report *report, struct runt_err *err);

/* The model file `in` with its tensors as `o` wants them, into `out`: its metadata, the
 * vocabulary in the type's form.  RUNT_E_INVALID when both are one file. */
int convert_file(const char *in, const char *out, const struct quant_options *o,
                 struct quant_report *report, struct runt_err *err);

/* RUNT_E_INVALID when both are one file: writing one would destroy the other. */
int convert_check_out(const char *in, const char *out, struct runt_err *err);

/* The same errors as far as they show before a calibration. */
int convert_check(const char *in, const char *out, const struct quant_options *o,
                  struct runt_err *err);

/* The model file behind what a user typed after -m: a file; or ORG/NAME, pulled before,
 * which is imported once into runt's own cache (without rounding).  *path is freed with
 * mem_free.  The error of a model that is nowhere says how to get one. */
int convert_model_path(const char *arg, char **path, struct runt_err *err);

/* The one .gguf file of a snapshot that holds no checkpoint; *path untouched when it
 * holds one, or no .gguf file.  RUNT_E_INVALID when there are several. */
int convert_pulled_gguf(const char *dir, char **path, struct runt_err *err);

/* convert_model_path and cli_model_load, with notes on stderr. */
int convert_model_load(const char *arg, const struct cli_list *adapters,
                       runt_model **out, struct runt_err *err);

/* --tensor 'REGEX=TYPE' items -> overrides (mem_array'd, strings mem_strdup'd); misuse
 * is printed and EXIT_USAGE returned. */
int convert_overrides(const struct cli_verb *v, const struct cli_list *items,
                      struct quant_override **out);
void convert_overrides_free(struct quant_override *o, size_t n);

/* A type name in any case; prints what is allowed and returns EXIT_USAGE when unknown.
 */
int convert_type(const struct cli_verb *v, const char *name,
                 const struct fmt_info **out);

/* What did not go as asked: rows that are not whole blocks, weights rounded twice. */
void convert_print_notes(FILE *f, const struct quant_report *r);

/* The report of import and quantize: CLI_TEXT for people, or CLI_JSON. */
void convert_print_report(FILE *f, enum cli_format format, const char *path,
                          const struct quant_report *r, double seconds);

#endif
