/* What the files of this room share: the table of GPT-2's tensors under both names, and
 * the set of safetensors files that make up a folder. */
#ifndef RUNT_IMPORT_IMPL_H
#define RUNT_IMPORT_IMPL_H

#include "import/import.h"
#include "import/safetensors.h"

/* "DIR/NAME", to be freed with mem_free; NULL when out of memory. */
char *hf_path(const char *dir, const char *name);

/* ---- hf_layout.c ---- */

#define HF_PREFIX "transformer."

struct hf_layout {
    char hf[TENSOR_NAME_MAX];   /* h.0.attn.c_attn.weight, without HF_PREFIX */
    char name[TENSOR_NAME_MAX]; /* blk.0.attn_qkv.weight */
    uint64_t n_rows, n_cols;    /* [out][in], as the model file has it */
    unsigned n_dims;
    bool conv1d; /* Hugging Face keeps it as [in][out] */
};

/* The number of a model's tensors without the output matrix, and the i-th; the one
 * after the last is the output matrix (lm_head.weight, which never has the prefix). */
size_t hf_layout_count(const struct gpt2_shape *s);
void hf_layout_at(const struct gpt2_shape *s, size_t i, struct hf_layout *out);

/* ---- hf_files.c ---- */

struct hf_entry {
    const struct st_tensor *tensor;
    const struct st_file *file;
    bool used;
};

struct hf_files {
    struct st_file **files;
    size_t n_files;
    struct hf_entry *entries; /* sorted by name, which is unique */
    size_t n_entries;
};

/* Open the weights of a folder. */
int hf_files_open(const char *dir, struct hf_files *out, struct runt_err *err);
/* One file in memory. */
int hf_files_parse(const void *data, size_t size, const char *name,
                   struct hf_files *out, struct runt_err *err);
void hf_files_close(struct hf_files *f);
struct hf_entry *hf_files_find(const struct hf_files *f, const char *name);

#endif
