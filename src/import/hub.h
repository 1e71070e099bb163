/* Models from the Hugging Face hub, kept in the cache that other tools share.
 *
 * The cache (HF_HUB_CACHE, else $HF_HOME/hub, else $XDG_CACHE_HOME/huggingface/hub,
 * else
 * ~/.cache/huggingface/hub) holds, for every model,
 *
 *   models--ORG--NAME/blobs/ETAG                     the bytes
 *   models--ORG--NAME/snapshots/COMMIT/FILE          a relative link to a blob
 *   models--ORG--NAME/refs/REVISION                  the commit that a name stood for
 *   .locks/models--ORG--NAME/ETAG.lock               flock: one writer a blob
 *
 * Everything but hub_pull works without libcurl and libcrypto; hub_pull then only
 * answers from the cache. */
#ifndef RUNT_IMPORT_HUB_H
#define RUNT_IMPORT_HUB_H

#include "runt/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hub_options {
    const char *revision;     /* branch, tag or commit; NULL: main */
    const char *const *files; /* [n_files] names inside the model; NULL: what a GPT-2 */
    size_t n_files;           /*   import needs */
    bool offline;             /* only the cache; HF_HUB_OFFLINE=1 does the same */
    runt_progress_fn progress; /* bytes of one file; may be NULL */
    void *progress_ctx;
};

/* "ORG/NAME": one '/', letters, digits and ._- only, at most 96 bytes a part, each part
 * beginning and ending with a letter, a digit or '_', no "--" and no "..". */
bool hub_repo_ok(const char *s);
/* hub_repo_ok, and nothing says that it is a path: no such file, no folder ORG, no name
 * that ends in .gguf. */
bool hub_is_repo_id(const char *s);

/* Download what is missing, check it, link it: *snapshot_dir (the caller frees it with
 * mem_free) then holds the files.  Errors: RUNT_E_INVALID (a name), RUNT_E_NOTFOUND
 * (model, revision or file), RUNT_E_UNSUPPORTED (no safetensors weights; built without
 * hub support), RUNT_E_FORMAT (a checksum, a hostile answer), RUNT_E_NETWORK,
 * RUNT_E_IO, RUNT_E_INTERRUPTED.  After the last three the bytes that came are kept and
 * the next call continues there. */
int hub_pull(const char *repo, const struct hub_options *o, char **snapshot_dir,
             struct runt_err *err);

/* The snapshot of `revision` (NULL: main) if the cache has all of a model: the files of
 * a GPT-2 import, or a .gguf file.  RUNT_E_NOTFOUND names what is missing. */
int hub_find_cached(const char *repo, const char *revision, char **snapshot_dir,
                    struct runt_err *err);

/* The folder where `runt` keeps its own conversions of a model:
 * ${XDG_CACHE_HOME:-~/.cache}/runt/models/ORG--NAME.  It need not exist.  NULL when out
 * of memory, without a home, or when `repo` is not hub_repo_ok. */
char *hub_converted_dir(const char *repo);

/* A model in the cache. */
struct hub_entry {
    char *repo;         /* ORG/NAME */
    char *revision;     /* a name for the snapshot ("main" if there is one), or "" */
    char *path;         /* the snapshot, or the model's folder when it has none */
    char commit[41];    /* "" when there is no snapshot */
    size_t n_snapshots; /* that one included */
    size_t n_files;     /* in that snapshot */
    uint64_t size;      /* bytes of all its files, partial blobs included */
    uint64_t converted; /* bytes of runt's own conversions */
    int64_t modified;   /* newest of all those files, seconds since 1970 */
};

/* Every model of the cache and every one that has conversions, by name. */
int hub_list(struct hub_entry **out, size_t *n, struct runt_err *err);
void hub_list_free(struct hub_entry *entries, size_t n);

/* Delete a model's blobs, snapshots, refs, locks and conversions; links are removed,
 * not followed.  *freed is the bytes given back.  RUNT_E_NOTFOUND when there is
 * nothing, RUNT_E_IO when another process is downloading it. */
int hub_remove(const char *repo, uint64_t *freed, struct runt_err *err);

#endif
