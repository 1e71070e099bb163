/* Owns the question which files of a folder hold the weights: model.safetensors, or the
 * shards that model.safetensors.index.json lists.
 *
 * The index is a stranger's text: a shard's name must be a plain file name inside the
 * folder.  Pickled checkpoints are refused by design: loading one may run code. */
#include "import/import_impl.h"

#include "base/err.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static const char whole_file[] = "model.safetensors";
static const char index_file[] = "model.safetensors.index.json";

/* The largest GPT-2 that is published (13B) has 6; each may cost tens of MB of names.
 */
enum { MAX_SHARDS = 64 };

char *hf_path(const char *dir, const char *name)
{
    size_t n = strlen(dir);
    return mem_printf("%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
}

static int by_name(const void *a, const void *b)
{
    const struct hf_entry *x = a, *y = b;
    return strcmp(x->tensor->name, y->tensor->name);
}

struct hf_entry *hf_files_find(const struct hf_files *f, const char *name)
{
    struct st_tensor t = {.name = name};
    struct hf_entry key = {.tensor = &t};
    return bsearch(&key, f->entries, f->n_entries, sizeof key, by_name);
}

void hf_files_close(struct hf_files *f)
{
    for (size_t i = 0; i < f->n_files; i++)
        st_close(f->files[i]);
    mem_free(f->files);
    mem_free(f->entries);
    *f = (struct hf_files){0};
}

/* Every tensor of the only file; takes the file over, also on failure. */
static int from_one(struct st_file *file, struct hf_files *out, struct runt_err *err)
{
    struct hf_files f = {.files = mem_array(1, sizeof *f.files),
                         .entries = mem_array(file->n_tensors, sizeof *f.entries)};
    if (!f.files || !f.entries) {
        int rc = err_nomem(err, file->path);
        hf_files_close(&f);
        st_close(file);
        return rc;
    }
    f.files[f.n_files++] = file;
    for (; f.n_entries < file->n_tensors; f.n_entries++) /* sorted already */
        f.entries[f.n_entries] =
            (struct hf_entry){&file->tensors[f.n_entries], file, false};
    *out = f;
    return 0;
}

int hf_files_parse(const void *data, size_t size, const char *name,
                   struct hf_files *out, struct runt_err *err)
{
    struct st_file *file = NULL;
    int rc = st_parse(data, size, name, &file, err);
    return rc ? rc : from_one(file, out, err);
}

/* The shard called `name`, opened when it is the first time. */
static int get_shard(const char *dir, const char *index, const json_t *value,
                     struct hf_files *f, const struct st_file **out,
                     struct runt_err *err)
{
    const char *name = json_string_value(value);
    if (!name || !*name || *name == '.' || strlen(name) != json_string_length(value) ||
        strchr(name, '/'))
        return err_set(
            err, RUNT_E_FORMAT,
            "%s: weight_map: \"%.100s\" is not a file name inside the folder", index,
            name ? name : "");
    for (size_t i = f->n_files; i-- > 0;) {
        if (!strcmp(strrchr(f->files[i]->path, '/') + 1, name)) {
            *out = f->files[i];
            return 0;
        }
    }
    if (f->n_files == MAX_SHARDS)
        return err_set(err, RUNT_E_UNSUPPORTED, "%s: more than %d shards", index,
                       MAX_SHARDS);
    char *path = hf_path(dir, name);
    int rc = path ? st_open(path, &f->files[f->n_files], err) : err_nomem(err, index);
    if (!rc)
        *out = f->files[f->n_files++];
    mem_free(path);
    return rc;
}

static int from_index(const char *dir, const char *index, struct hf_files *out,
                      struct runt_err *err)
{
    struct hf_files f = {0};
    json_t *root = NULL, *value;
    const char *name;
    int rc = js_parse_file(index, &root, err);
    if (rc)
        return rc;
    json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map)) {
        rc = err_set(err, RUNT_E_FORMAT, "%s: no weight_map", index);
        goto out;
    }
    f.files = mem_array(MAX_SHARDS, sizeof *f.files);
    f.entries = mem_array(json_object_size(map), sizeof *f.entries);
    if (!f.files || !f.entries) {
        rc = err_nomem(err, index);
        goto out;
    }
    json_object_foreach(map, name, value)
    {
        const struct st_file *file = NULL;
        rc = get_shard(dir, index, value, &f, &file, err);
        if (rc)
            goto out;
        const struct st_tensor *t = st_find(file, name);
        if (!t) {
            rc = err_set(err, RUNT_E_FORMAT, "%s: no tensor %.100s, which %s promises",
                         file->path, name, index_file);
            goto out;
        }
        f.entries[f.n_entries++] = (struct hf_entry){t, file, false};
    }
    qsort(f.entries, f.n_entries, sizeof *f.entries, by_name);
    *out = f;
    f = (struct hf_files){0};
out:
    hf_files_close(&f);
    json_decref(root);
    return rc;
}

/* 1 when `dir` has `name` (*path is its path, the caller's), 0 when not, or an error.
 */
static int look_for(const char *dir, const char *name, char **path,
                    struct runt_err *err)
{
    char *p = hf_path(dir, name);
    if (!p)
        return err_nomem(err, name);
    if (!file_exists(p)) {
        mem_free(p);
        return 0;
    }
    *path = p;
    return 1;
}

/* Neither safetensors file is there: say what is. */
static int refuse(const char *dir, struct runt_err *err)
{
    static const struct {
        const char *file, *why;
    } others[] = {
        {"pytorch_model.bin", "pickled checkpoints can run code when loaded"},
        {"pytorch_model.bin.index.json",
         "pickled checkpoints can run code when loaded"},
        {"tf_model.h5", "a TensorFlow checkpoint"},
        {"flax_model.msgpack", "a Flax checkpoint"},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char *path = NULL;
        int rc = look_for(dir, others[i].file, &path, err);
        if (rc < 0)
            return rc;
        if (rc) {
            rc =
                err_set(err, RUNT_E_UNSUPPORTED,
                        "%s is not read (%s): download model.safetensors instead, with "
                        "`runt pull ORG/NAME` or from the model's page on the hub",
                        path, others[i].why);
            mem_free(path);
            return rc;
        }
    }
    return err_set(err, RUNT_E_NOTFOUND,
                   "%s: no weights: looked for %s, %s, %s, %s and %s", dir, whole_file,
                   index_file, others[0].file, others[2].file, others[3].file);
}

int hf_files_open(const char *dir, struct hf_files *out, struct runt_err *err)
{
    char *path = NULL;
    int rc = look_for(dir, whole_file, &path, err);
    if (rc > 0) {
        struct st_file *file = NULL;
        rc = st_open(path, &file, err);
        rc = rc ? rc : from_one(file, out, err);
    } else if (rc == 0 && (rc = look_for(dir, index_file, &path, err)) > 0) {
        rc = from_index(dir, path, out, err);
    } else if (rc == 0) {
        rc = refuse(dir, err);
    }
    mem_free(path);
    return rc;
}
