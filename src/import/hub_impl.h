/* What the hub's files share among themselves. */
#ifndef RUNT_IMPORT_HUB_IMPL_H
#define RUNT_IMPORT_HUB_IMPL_H

#include "import/hub.h"

/* ---- hub_cache.c: names and places ---- */

enum { HUB_SHARDS_MAX = 1000 };

struct hub_paths {
    char *cache; /* the root, shared by all models */
    char *repo;  /* CACHE/models--ORG--NAME */
    char *locks; /* CACHE/.locks/models--ORG--NAME */
};

/* RUNT_E_INVALID when `repo` is not hub_repo_ok. */
int hub_paths_init(struct hub_paths *p, const char *repo, struct runt_err *err);
void hub_paths_free(struct hub_paths *p);
int hub_cache_root(char **out, struct runt_err *err);
int hub_home(char **out, struct runt_err *err); /* HF_HOME: the token lives there */
/* Both RUNT_E_NOTFOUND without a home: then there are no conversions. */
int hub_converted_root(char **out, struct runt_err *err);
int hub_converted_path(const char *repo, char **out, struct runt_err *err);

/* A relative path that stays where it is put: no empty, "." or ".." part, no control
 * byte, no backslash.  File names and revisions are held to it. */
bool hub_path_ok(const char *s);
bool hub_commit_ok(const char *s); /* 40 hexadecimal digits */
bool hub_etag_ok(const char *s);   /* fit to be a file's name in blobs/ */

bool hub_offline(const struct hub_options *o);

/* The commit that refs/REVISION names, or REVISION itself when it is one. */
int hub_read_ref(const struct hub_paths *p, const char *revision, char commit[41],
                 struct runt_err *err);
/* Does nothing when REVISION is that commit or already names it. */
int hub_write_ref(const struct hub_paths *p, const char *revision, const char *commit,
                  struct runt_err *err);

/* snapshots/COMMIT/FILE -> ../../blobs/ETAG, replacing what is there. */
int hub_link(const struct hub_paths *p, const char *commit, const char *file,
             const char *etag, struct runt_err *err);
char *hub_snapshot_path(const struct hub_paths *p, const char *commit,
                        const char *file); /* file NULL: the folder; NULL: no memory */

/* Take the lock of one blob; waits, and asks `progress` (may be NULL) every 50 ms.
 * *fd is -1 when the file system has no locks.  Release with hub_unlock. */
int hub_lock(const struct hub_paths *p, const char *etag, const struct hub_options *o,
             int *fd, struct runt_err *err);
void hub_unlock(int fd);

/* The distinct files that a model.safetensors.index.json names; free each and the list
 * with mem_free. */
int hub_index_shards(const char *path, char ***names, size_t *n, struct runt_err *err);
void hub_names_free(char **names, size_t n);

/* hub_pull without a network: every file asked for must be there. */
int hub_pull_cached(const char *repo, const struct hub_options *o, char **snapshot_dir,
                    struct runt_err *err);

/* ---- hub_http.c: one conversation with the hub ---- */

struct hub_net;

struct hub_what { /* names a file of the hub in error lines */
    const char *repo, *revision, *file;
};

struct hub_reply {
    long status;
    bool retry;       /* a failure that may pass */
    bool at_endpoint; /* the endpoint answered, not a host it redirected to */
    char host[256];   /* who answered last */
    char commit[64];  /* X-Repo-Commit */
    char etag[192];   /* X-Linked-Etag, else ETag; unquoted */
    char code[64];    /* X-Error-Code */
    char range[96];   /* Content-Range */
    int64_t size;     /* X-Linked-Size, else Content-Length; -1 unknown */
    int64_t wait_s;   /* Retry-After, 0 none */
};

/* Receives the body of a 200 or 206; a negative RUNT_E_* (err filled) ends the
 * transfer. */
typedef int (*hub_body_fn)(void *ctx, const struct hub_reply *r, const void *bytes,
                           size_t n, struct runt_err *err);

int hub_net_open(const struct hub_options *o, struct hub_net **out,
                 struct runt_err *err);
void hub_net_close(struct hub_net *n); /* NULL is fine */

/* ENDPOINT/ORG/NAME/resolve/REVISION/FILE, escaped; NULL when out of memory. */
char *hub_net_url(const struct hub_net *n, const char *repo, const char *revision,
                  const char *file);

/* HEAD.  Follows redirects; one that leads to another host ends the walk (status 200)
 * once commit and etag are known.  0 for any HTTP status; else an error. */
int hub_net_head(struct hub_net *n, const char *url, struct hub_reply *r,
                 struct runt_err *err);
/* GET from byte `from`, to `body`.  Follows redirects; the token stays with the
 * endpoint.  0 for any HTTP status; else an error, the body's own included. */
int hub_net_get(struct hub_net *n, const char *url, uint64_t from, hub_body_fn body,
                void *ctx, struct hub_reply *r, struct runt_err *err);

/* The line for a status that is neither 200 nor 206; returns its code. */
int hub_net_status(const struct hub_net *n, const struct hub_reply *r,
                   const struct hub_what *w, struct runt_err *err);

/* After a failure (code and line in err): wait and answer 0 when another try makes
 * sense, else err->code.  *n_failed counts the tries. */
int hub_net_again(struct hub_net *n, const struct hub_reply *r, unsigned *n_failed,
                  struct runt_err *err);

/* What the progress callback is told from now on; returns RUNT_E_INTERRUPTED if it asks
 * to stop. */
void hub_net_subject(struct hub_net *n, const char *what, uint64_t total);
int hub_net_tick(struct hub_net *n, uint64_t done, struct runt_err *err);

/* ---- hub_fetch.c: one blob ---- */

struct hub_blob {
    struct hub_what what;
    const char *url;
    const char *etag;
    const char *path; /* blobs/ETAG; the partial is PATH.incomplete */
    uint64_t size;
};

/* Download, continue or merely check the partial file, verify it and give it its name.
 * The caller holds the blob's lock. */
int hub_fetch(struct hub_net *n, const struct hub_blob *b, struct runt_err *err);

#endif
