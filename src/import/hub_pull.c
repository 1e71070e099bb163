/* Owns what "pull a model" means: which files a GPT-2 import needs, one commit for all
 * of them, and the order in which they enter the cache.
 *
 * The first answer fixes the commit; every later request names that commit, so that a
 * push in between cannot mix two versions.  A blob is checked and named before its link
 * is made, and the ref is written last: a ref that we wrote stands for a whole model.
 * What is refused: a commit that is not 40 hexadecimal digits, an etag that is no file
 * name, a file whose size the server does not tell, weights other than safetensors. */
#include "import/hub_impl.h"

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct pull {
    const char *repo, *revision;
    const struct hub_options *o;
    struct hub_paths paths;
    struct hub_net *net;
    char commit[41]; /* "" until the hub has told */
};

/* ---- one file ---- */

/* HEAD with retries.  *missing: this file is not in the model (and `r` says no more).
 */
static int ask(struct pull *p, const char *file, struct hub_reply *r, bool *missing,
               struct runt_err *err)
{
    const struct hub_what what = {p->repo, p->revision, file};
    const char *at = p->commit[0] ? p->commit : p->revision;
    char *url = hub_net_url(p->net, p->repo, at, file);
    unsigned n_failed = 0;
    if (!url)
        return err_nomem(err, "an address");
    int rc;
    hub_net_subject(p->net, file, 0);
    do {
        rc = hub_net_head(p->net, url, r, err);
        if (!rc && r->status != 200)
            rc = hub_net_status(p->net, r, &what, err);
        *missing = rc == RUNT_E_NOTFOUND && strcmp(r->code, "RepoNotFound") &&
                   strcmp(r->code, "RevisionNotFound");
    } while (rc && !(rc = hub_net_again(p->net, r, &n_failed, err)));
    mem_free(url);
    return rc;
}

static int check_reply(const struct pull *p, const char *file,
                       const struct hub_reply *r, struct runt_err *err)
{
    if (!r->commit[0])
        return err_set(err, RUNT_E_FORMAT,
                       "%s: %s does not name the commit of %s "
                       "(X-Repo-Commit): not a model hub?",
                       p->repo, r->host, file);
    if (!hub_commit_ok(r->commit))
        return err_set(err, RUNT_E_FORMAT,
                       "%s: %s names a commit that is not 40 hexadecimal digits: '%s'",
                       p->repo, r->host, r->commit);
    if (p->commit[0] && strcmp(p->commit, r->commit))
        return err_set(err, RUNT_E_FORMAT,
                       "%s: %s was asked for commit %s of %s and answers with %s",
                       p->repo, r->host, p->commit, file, r->commit);
    if (!hub_etag_ok(r->etag))
        return err_set(err, RUNT_E_FORMAT,
                       "%s: %s gives %s an etag that is unfit as a file name: '%.80s'",
                       p->repo, r->host, file, r->etag);
    if (r->size < 0)
        return err_set(err, RUNT_E_FORMAT, "%s: %s does not tell the size of %s",
                       p->repo, r->host, file);
    return 0;
}

static bool blob_there(const char *path, uint64_t size)
{
    struct stat st;
    return !lstat(path, &st) && S_ISREG(st.st_mode) && (uint64_t)st.st_size == size;
}

static int store(struct pull *p, const char *file, const struct hub_reply *r,
                 struct runt_err *err)
{
    int lock = -1, rc;
    char *dir = mem_printf("%s/blobs", p->paths.repo);
    char *path = mem_printf("%s/blobs/%s", p->paths.repo, r->etag);
    char *url = hub_net_url(p->net, p->repo, p->commit, file);
    if (!dir || !path || !url)
        rc = err_nomem(err, "a path");
    else
        rc = file_make_dirs(dir, err);
    if (!rc)
        rc = hub_lock(&p->paths, r->etag, p->o, &lock, err);
    if (rc)
        goto out;
    if (!blob_there(path, (uint64_t)r->size)) {
        const struct hub_blob b = {
            {p->repo, p->revision, file}, url, r->etag, path, (uint64_t)r->size};
        rc = hub_fetch(p->net, &b, err);
    }
    if (!rc)
        rc = hub_link(&p->paths, p->commit, file, r->etag, err);
out:
    hub_unlock(lock);
    mem_free(url);
    mem_free(path);
    mem_free(dir);
    return rc;
}

/* A commit never changes, so what its snapshot has is right. */
static bool is_linked(const struct pull *p, const char *file)
{
    char *path = p->commit[0] ? hub_snapshot_path(&p->paths, p->commit, file) : NULL;
    bool there = path && file_exists(path);
    mem_free(path);
    return there;
}

/* Bring one file into the snapshot.  With `missing`, a model without it is no failure.
 */
static int want(struct pull *p, const char *file, bool *missing, struct runt_err *err)
{
    struct hub_reply r;
    bool absent = false;
    if (missing)
        *missing = false;
    if (!hub_path_ok(file))
        return err_set(err, RUNT_E_INVALID, "'%s' is not a plain file name", file);
    if (is_linked(p, file))
        return 0;
    int rc = ask(p, file, &r, &absent, err);
    if (rc && absent && missing) {
        *missing = true;
        return 0;
    }
    if (!rc)
        rc = check_reply(p, file, &r, err);
    if (rc)
        return rc;
    memcpy(p->commit, r.commit, sizeof p->commit);
    return store(p, file, &r, err);
}

/* ---- one model ---- */

static int want_tokenizer(struct pull *p, struct runt_err *err)
{
    bool no_vocab, no_merges = true, no_json;
    int rc = want(p, "vocab.json", &no_vocab, err);
    if (!rc && !no_vocab)
        rc = want(p, "merges.txt", &no_merges, err);
    if (rc || !no_merges)
        return rc;
    rc = want(p, "tokenizer.json", &no_json, err);
    if (!rc && no_json)
        rc = err_set(
            err, RUNT_E_UNSUPPORTED,
            "%s has no tokenizer (vocab.json and merges.txt, or tokenizer.json)",
            p->repo);
    return rc;
}

static int want_shards(struct pull *p, const char *index, struct runt_err *err)
{
    char **shards = NULL, *path = hub_snapshot_path(&p->paths, p->commit, index);
    size_t n = 0;
    int rc = path ? hub_index_shards(path, &shards, &n, err) : err_nomem(err, "a path");
    for (size_t i = 0; i < n && !rc; i++)
        rc = want(p, shards[i], NULL, err);
    hub_names_free(shards, n);
    mem_free(path);
    return rc;
}

/* Say why there are no weights: pickled ones are common, and code in disguise. */
static int no_weights(struct pull *p, struct runt_err *err)
{
    static const char *const pickled[] = {"pytorch_model.bin",
                                          "pytorch_model.bin.index.json"};
    struct hub_reply r;
    for (size_t i = 0; i < sizeof pickled / sizeof *pickled; i++) {
        bool absent = false;
        int rc = ask(p, pickled[i], &r, &absent, err);
        if (!rc)
            return err_set(
                err, RUNT_E_UNSUPPORTED,
                "%s has only pytorch_model.bin weights; runt needs safetensors "
                "(model.safetensors)",
                p->repo);
        if (!absent)
            return rc;
    }
    return err_set(err, RUNT_E_UNSUPPORTED, "%s has no model.safetensors", p->repo);
}

static int want_weights(struct pull *p, struct runt_err *err)
{
    static const char *const index = "model.safetensors.index.json";
    bool no_single, no_index;
    int rc = want(p, "model.safetensors", &no_single, err);
    if (rc || !no_single)
        return rc;
    rc = want(p, index, &no_index, err);
    if (rc)
        return rc;
    return no_index ? no_weights(p, err) : want_shards(p, index, err);
}

static int want_default(struct pull *p, struct runt_err *err)
{
    static const char *const optional[] = {
        "tokenizer_config.json", "generation_config.json", "added_tokens.json",
        "special_tokens_map.json"};
    bool missing;
    int rc = want(p, "config.json", NULL, err);
    if (!rc)
        rc = want_tokenizer(p, err);
    for (size_t i = 0; i < sizeof optional / sizeof *optional && !rc; i++)
        rc = want(p, optional[i], &missing, err);
    return rc ? rc : want_weights(p, err);
}

static int pull(struct pull *p, char **snapshot_dir, struct runt_err *err)
{
    int rc = hub_net_open(p->o, &p->net, err);
    if (rc)
        return rc;
    if (p->o->files)
        for (size_t i = 0; i < p->o->n_files && !rc; i++)
            rc = want(p, p->o->files[i], NULL, err);
    else
        rc = want_default(p, err);
    hub_net_close(p->net);
    if (!rc)
        rc = hub_write_ref(&p->paths, p->revision, p->commit, err);
    char *dir = rc ? NULL : hub_snapshot_path(&p->paths, p->commit, NULL);
    if (!rc && !dir)
        rc = err_nomem(err, "a path");
    if (!rc)
        *snapshot_dir = dir;
    return rc;
}

int hub_pull(const char *repo, const struct hub_options *o, char **snapshot_dir,
             struct runt_err *err)
{
    struct runt_err own; /* tries are counted by the code in it */
    struct pull p = {.repo = repo, .o = o};
    p.revision = o->revision ? o->revision : "main";
    if (!err)
        err = &own;
    if (!hub_path_ok(p.revision))
        return err_set(err, RUNT_E_INVALID, "'%s' is not a revision", p.revision);
    if (o->files && !o->n_files)
        return err_set(err, RUNT_E_INVALID, "%s: an empty list of files", repo);
    if (hub_offline(o))
        return hub_pull_cached(repo, o, snapshot_dir, err);
    int rc = hub_paths_init(&p.paths, repo, err);
    if (!rc)
        rc = pull(&p, snapshot_dir, err);
    hub_paths_free(&p.paths);
    return rc;
}
