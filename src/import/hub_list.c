/* Owns what is in the cache as a whole: the list of models and their removal.
 *
 * Both walk folders by descriptor and never follow a link, so that neither a link
 * planted in the cache nor a folder swapped for one during the walk leads out of it. */
#include "import/hub_impl.h"

#include "base/err.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- a tree of files, summed or removed ---- */

enum { DEPTH_MAX = 64 };

struct tree {
    bool remove;
    uint64_t bytes;   /* of regular files */
    size_t n_files;   /* all but folders */
    int64_t modified; /* newest regular file */
    const char *top;  /* for error lines */
    struct runt_err *err;
};

static int tree_fail(const struct tree *t, const char *verb, const char *name)
{
    int no = errno;
    return err_set(t->err, RUNT_E_IO, "%s: cannot %s %s: %s", t->top, verb, name,
                   strerror(no));
}

/* `name` in folder `at` and all below it.  What is not there is no fault: other
 * processes use the cache too. */
static int tree_walk(struct tree *t, int at, const char *name, unsigned depth)
{
    struct stat st;
    if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT || errno == ENOTDIR ? 0 : tree_fail(t, "read", name);
    if (!S_ISDIR(st.st_mode)) {
        if (t->remove && unlinkat(at, name, 0) && errno != ENOENT)
            return tree_fail(t, "remove", name);
        t->n_files++;
        if (S_ISREG(st.st_mode)) {
            t->bytes += (uint64_t)st.st_size;
            if (st.st_mtime > t->modified)
                t->modified = st.st_mtime;
        }
        return 0;
    }
    if (depth >= DEPTH_MAX)
        return err_set(t->err, RUNT_E_IO, "%s: folders nested more than %d deep",
                       t->top, DEPTH_MAX);
    int rc = 0, fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        rc = tree_fail(t, "open", name);
        if (fd >= 0)
            close(fd);
        return rc;
    }
    for (struct dirent *e; !rc && (e = readdir(d));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            rc = tree_walk(t, fd, e->d_name, depth + 1);
    closedir(d);
    if (!rc && t->remove && unlinkat(at, name, AT_REMOVEDIR) && errno != ENOENT)
        rc = tree_fail(t, "remove", name);
    return rc;
}

static int tree_sum(const char *path, struct tree *t, struct runt_err *err)
{
    *t = (struct tree){.top = path, .err = err};
    return path ? tree_walk(t, AT_FDCWD, path, 0) : 0;
}

/* ---- one model's entry ---- */

static void entry_free(struct hub_entry *e)
{
    mem_free(e->repo);
    mem_free(e->revision);
    mem_free(e->path);
    *e = (struct hub_entry){0};
}

/* Any ref of refs/, "main" before others; tags and branches with a '/' are left out. */
static int pick_ref(const struct hub_paths *p, struct hub_entry *e,
                    struct runt_err *err)
{
    char commit[41], best[256] = "";
    char *refs = mem_printf("%s/refs", p->repo);
    if (!refs)
        return err_nomem(err, "a path");
    DIR *d = opendir(refs);
    mem_free(refs);
    for (struct dirent *f; d && (f = readdir(d));) {
        if (f->d_name[0] == '.' || hub_read_ref(p, f->d_name, commit, NULL))
            continue;
        bool better = !best[0] || !strcmp(f->d_name, "main") ||
                      (strcmp(best, "main") && strcmp(f->d_name, best) < 0);
        if (better) {
            snprintf(best, sizeof best, "%s", f->d_name);
            memcpy(e->commit, commit, sizeof e->commit);
        }
    }
    if (d)
        closedir(d);
    e->revision = mem_strdup(best);
    return e->revision ? 0 : err_nomem(err, "a name");
}

/* Counts the snapshots; without a ref the newest one stands for the model. */
static int count_snapshots(const struct hub_paths *p, struct hub_entry *e,
                           struct runt_err *err)
{
    bool has_ref = e->commit[0], ref_there = false;
    time_t newest = 0;
    struct stat st;
    char *dir = mem_printf("%s/snapshots", p->repo);
    if (!dir)
        return err_nomem(err, "a path");
    DIR *d = opendir(dir);
    mem_free(dir);
    for (struct dirent *f; d && (f = readdir(d));) {
        if (!hub_commit_ok(f->d_name) || fstatat(dirfd(d), f->d_name, &st, 0) ||
            !S_ISDIR(st.st_mode))
            continue;
        e->n_snapshots++;
        if (has_ref) {
            ref_there |= !strcmp(e->commit, f->d_name);
        } else if (!e->commit[0] || st.st_mtime > newest) {
            memcpy(e->commit, f->d_name, sizeof e->commit);
            newest = st.st_mtime;
        }
    }
    if (d)
        closedir(d);
    if (has_ref && !ref_there) { /* a ref without its files */
        e->commit[0] = 0;
        e->revision[0] = 0;
    }
    return 0;
}

static int entry_fill(const char *repo, struct hub_entry *out, struct runt_err *err)
{
    struct hub_paths p = {0};
    struct hub_entry e = {0};
    struct tree t;
    int rc = hub_paths_init(&p, repo, err);
    if (rc)
        return rc;
    char *converted = NULL;
    rc = hub_converted_path(repo, &converted, err);
    if (rc && rc != RUNT_E_NOTFOUND)
        goto out;
    e.repo = mem_strdup(repo);
    rc = e.repo ? pick_ref(&p, &e, err) : err_nomem(err, "a name");
    if (!rc)
        rc = count_snapshots(&p, &e, err);
    if (rc)
        goto out;
    e.path = e.commit[0] ? hub_snapshot_path(&p, e.commit, NULL) : mem_strdup(p.repo);
    if (!e.path) {
        rc = err_nomem(err, "a path");
        goto out;
    }
    rc = tree_sum(p.repo, &t, err);
    e.size = t.bytes;
    e.modified = t.modified;
    if (!rc)
        rc = tree_sum(converted, &t, err);
    e.converted = t.bytes;
    if (t.modified > e.modified)
        e.modified = t.modified;
    if (!rc && e.commit[0]) {
        rc = tree_sum(e.path, &t, err);
        e.n_files = t.n_files;
    }
out:
    mem_free(converted);
    hub_paths_free(&p);
    if (rc)
        entry_free(&e);
    else
        *out = e;
    return rc;
}

/* ---- the list ---- */

struct names {
    char **list;
    size_t n, cap;
};

/* Folder names PREFIX + ORG--NAME in `root` that are models, as ORG/NAME. */
static int collect(const char *root, const char *prefix, struct names *names,
                   struct runt_err *err)
{
    int rc = 0;
    size_t skip = strlen(prefix);
    DIR *d = opendir(root);
    if (!d)
        return errno == ENOENT ? 0 : err_errno(err, root, "open");
    for (struct dirent *e; !rc && (e = readdir(d));) {
        const char *name = e->d_name + skip, *sep;
        if (strncmp(e->d_name, prefix, skip) || !(sep = strstr(name, "--")))
            continue;
        char *repo = mem_printf("%.*s/%s", (int)(sep - name), name, sep + 2);
        if (repo && !hub_repo_ok(repo)) {
            mem_free(repo);
            continue;
        }
        if (repo && names->n == names->cap) {
            size_t cap = names->cap ? names->cap * 2 : 32;
            char **list = mem_resize(names->list, cap, sizeof *list);
            if (list) {
                names->list = list;
                names->cap = cap;
            }
        }
        if (!repo || names->n == names->cap) {
            mem_free(repo);
            rc = err_nomem(err, "the list of models");
        } else {
            names->list[names->n++] = repo;
        }
    }
    closedir(d);
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int hub_list(struct hub_entry **out, size_t *n_out, struct runt_err *err)
{
    char *cache = NULL, *converted = NULL;
    struct names names = {0};
    struct hub_entry *list = NULL;
    size_t n = 0;
    int rc = hub_cache_root(&cache, err);
    if (!rc)
        rc = collect(cache, "models--", &names, err);
    if (rc)
        goto out;
    rc = hub_converted_root(&converted, err);
    if (!rc)
        rc = collect(converted, "", &names, err);
    if (rc && rc != RUNT_E_NOTFOUND)
        goto out;
    rc = 0;
    if (names.n)
        qsort(names.list, names.n, sizeof *names.list, by_name);
    list = mem_array(names.n, sizeof *list);
    if (!list) {
        rc = err_nomem(err, "the list of models");
        goto out;
    }
    for (size_t i = 0; i < names.n && !rc; i++) {
        if (i && !strcmp(names.list[i], names.list[i - 1]))
            continue;
        rc = entry_fill(names.list[i], &list[n], err);
        n += !rc;
    }
    if (!rc) {
        *out = list;
        *n_out = n;
        list = NULL;
    }
out:
    if (list)
        hub_list_free(list, n);
    hub_names_free(names.list, names.n);
    mem_free(converted);
    mem_free(cache);
    return rc;
}

void hub_list_free(struct hub_entry *entries, size_t n)
{
    for (size_t i = 0; i < n; i++)
        entry_free(&entries[i]);
    mem_free(entries);
}

/* ---- removal ---- */

/* A download in progress holds one of the model's locks. */
static int check_unlocked(const struct hub_paths *p, const char *repo,
                          struct runt_err *err)
{
    int rc = 0;
    DIR *d = opendir(p->locks);
    for (struct dirent *e; d && !rc && (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        int fd =
            openat(dirfd(d), e->d_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0)
            continue;
        if (flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
            rc = err_set(err, RUNT_E_IO, "%s is being downloaded by another process",
                         repo);
        close(fd);
    }
    if (d)
        closedir(d);
    return rc;
}

static bool is_there(const char *path)
{
    struct stat st;
    return path && !lstat(path, &st);
}

int hub_remove(const char *repo, uint64_t *freed, struct runt_err *err)
{
    struct hub_paths p = {0};
    int rc = hub_paths_init(&p, repo, err);
    if (rc)
        return rc;
    char *converted = NULL;
    rc = hub_converted_path(repo, &converted, err);
    if (rc && rc != RUNT_E_NOTFOUND)
        goto out;
    if (!is_there(p.repo) && !is_there(converted))
        rc = err_set(err, RUNT_E_NOTFOUND, "%s is not in the cache %s", repo, p.cache);
    else
        rc = check_unlocked(&p, repo, err);
    const char *trees[] = {p.repo, converted /* or NULL */, p.locks};
    uint64_t bytes = 0;
    for (size_t i = 0; i < sizeof trees / sizeof *trees && !rc; i++) {
        struct tree t = {.remove = true, .top = trees[i], .err = err};
        rc = trees[i] ? tree_walk(&t, AT_FDCWD, trees[i], 0) : 0;
        bytes += t.bytes;
    }
    if (!rc)
        *freed = bytes;
out:
    mem_free(converted);
    hub_paths_free(&p);
    return rc;
}
