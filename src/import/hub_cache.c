/* Owns the hub's cache as files: where it is, which names may enter it, refs, links and
 * locks, and whether a snapshot is all there.
 *
 * Names come from strangers (a server's etag and commit, a shard list inside a model),
 * so nothing becomes part of a path before hub_repo_ok, hub_path_ok, hub_commit_ok or
 * hub_etag_ok has seen it.  No network here: this file is also all that a build without
 * libcurl has. */
#include "import/hub_impl.h"

#include "base/err.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/strbuf.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- names ---- */

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f');
}

static bool name_ok(const char *s, size_t n)
{
    if (n < 1 || n > 96)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!is_alnum(s[i]) && s[i] != '_' && s[i] != '.' && s[i] != '-')
            return false;
    return s[0] != '.' && s[0] != '-' && s[n - 1] != '.' && s[n - 1] != '-';
}

bool hub_repo_ok(const char *s)
{
    const char *slash = strchr(s, '/');
    return slash && name_ok(s, (size_t)(slash - s)) &&
           name_ok(slash + 1, strlen(slash + 1)) && !strstr(s, "--") &&
           !strstr(s, "..");
}

bool hub_is_repo_id(const char *s)
{
    size_t n = strlen(s), dir = strcspn(s, "/");
    if (!hub_repo_ok(s) || file_exists(s) || (n > 5 && !strcmp(s + n - 5, ".gguf")))
        return false;
    char *folder = mem_strndup(s, dir);
    bool is_path = folder && file_is_dir(folder);
    mem_free(folder);
    return !is_path;
}

bool hub_path_ok(const char *s)
{
    size_t n = strlen(s), n_parts = 0;
    if (n < 1 || n > 1024)
        return false;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i], next = (unsigned char)s[i + 1];
        if (c < 0x20 || c == 0x7f || c == '\\' ||
            (c == 0xc2 && next >= 0x80 && next < 0xa0)) /* U+0080..9F drive terminals */
            return false;
    }
    for (const char *p = s;; p++) {
        size_t k = strcspn(p, "/");
        bool dots = (k == 1 && p[0] == '.') || (k == 2 && !memcmp(p, "..", 2));
        if (k < 1 || k > 255 || dots || ++n_parts > 32)
            return false;
        p += k;
        if (!*p)
            return true;
    }
}

bool hub_commit_ok(const char *s)
{
    for (size_t i = 0; i < 40; i++)
        if (!is_hex(s[i]))
            return false;
    return !s[40];
}

bool hub_etag_ok(const char *s)
{
    size_t n = strlen(s);
    for (size_t i = 0; i < n; i++)
        if (!is_alnum(s[i]) && s[i] != '_' && s[i] != '.' && s[i] != '-')
            return false;
    /* "X.incomplete" would be the partial file of X. */
    return n >= 1 && n <= 128 && s[0] != '.' && !strstr(s, ".incomplete");
}

/* ---- places ---- */

/* The environment's folder NAME + tail; *out stays NULL when it is unset or empty.  A
 * leading "~/" is the home, as it is for other tools that read the same variables. */
static int env_dir(const char *name, const char *tail, char **out, struct runt_err *err)
{
    const char *v = getenv(name), *home = getenv("HOME");
    if (!v || !*v)
        return 0;
    bool tilde = v[0] == '~' && (v[1] == '/' || !v[1]);
    if (tilde && (!home || !*home))
        return err_set(err, RUNT_E_NOTFOUND, "%s is %s, and HOME is not set", name, v);
    *out = mem_printf("%s%s%s", tilde ? home : "", v + tilde, tail);
    return *out ? 0 : err_nomem(err, "a path");
}

struct env_choice {
    const char *name, *tail;
};

static int first_dir(const struct env_choice *c, char **out, struct runt_err *err)
{
    char *dir = NULL;
    int rc = 0;
    for (; c->name && !rc && !dir; c++)
        rc = env_dir(c->name, c->tail, &dir, err);
    if (!rc && !dir)
        rc = err_set(err, RUNT_E_NOTFOUND,
                     "no place for the model cache: set HOME or HF_HOME");
    if (!rc)
        *out = dir;
    return rc;
}

int hub_cache_root(char **out, struct runt_err *err)
{
    static const struct env_choice c[] = {{"HF_HUB_CACHE", ""},
                                          {"HF_HOME", "/hub"},
                                          {"XDG_CACHE_HOME", "/huggingface/hub"},
                                          {"HOME", "/.cache/huggingface/hub"},
                                          {NULL, NULL}};
    return first_dir(c, out, err);
}

int hub_home(char **out, struct runt_err *err)
{
    static const struct env_choice c[] = {{"HF_HOME", ""},
                                          {"XDG_CACHE_HOME", "/huggingface"},
                                          {"HOME", "/.cache/huggingface"},
                                          {NULL, NULL}};
    return first_dir(c, out, err);
}

int hub_converted_root(char **out, struct runt_err *err)
{
    static const struct env_choice c[] = {{"XDG_CACHE_HOME", "/runt/models"},
                                          {"HOME", "/.cache/runt/models"},
                                          {NULL, NULL}};
    return first_dir(c, out, err);
}

/* PREFIX + "ORG--NAME" */
static char *flat_name(const char *root, const char *prefix, const char *repo)
{
    const char *slash = strchr(repo, '/');
    if (!slash) /* hub_repo_ok saw one */
        return NULL;
    int n = (int)(slash - repo);
    return mem_printf("%s/%s%.*s--%s", root, prefix, n, repo, slash + 1);
}

int hub_converted_path(const char *repo, char **out, struct runt_err *err)
{
    char *root = NULL, *dir;
    int rc = hub_converted_root(&root, err);
    if (rc)
        return rc;
    dir = flat_name(root, "", repo);
    mem_free(root);
    if (!dir)
        return err_nomem(err, "a path");
    *out = dir;
    return 0;
}

char *hub_converted_dir(const char *repo)
{
    char *dir = NULL;
    if (hub_repo_ok(repo))
        (void)hub_converted_path(repo, &dir, NULL);
    return dir;
}

int hub_paths_init(struct hub_paths *out, const char *repo, struct runt_err *err)
{
    struct hub_paths p = {0};
    if (!hub_repo_ok(repo))
        return err_set(err, RUNT_E_INVALID, "'%s' is not a model's name (ORG/NAME)",
                       repo);
    int rc = hub_cache_root(&p.cache, err);
    if (rc)
        return rc;
    char *locks = mem_printf("%s/.locks", p.cache);
    p.repo = flat_name(p.cache, "models--", repo);
    p.locks = locks ? flat_name(locks, "models--", repo) : NULL;
    mem_free(locks);
    if (!p.repo || !p.locks) {
        hub_paths_free(&p);
        return err_nomem(err, "a path");
    }
    *out = p;
    return 0;
}

void hub_paths_free(struct hub_paths *p)
{
    mem_free(p->cache);
    mem_free(p->repo);
    mem_free(p->locks);
    *p = (struct hub_paths){0};
}

bool hub_offline(const struct hub_options *o)
{
    static const char *const yes[] = {"1", "true", "yes", "on"};
    const char *v = getenv("HF_HUB_OFFLINE");
    for (size_t i = 0; v && i < sizeof yes / sizeof *yes; i++)
        if (!strcasecmp(v, yes[i]))
            return true;
    return o->offline;
}

/* ---- refs and links ---- */

int hub_read_ref(const struct hub_paths *p, const char *revision, char commit[41],
                 struct runt_err *err)
{
    if (hub_commit_ok(revision)) {
        memcpy(commit, revision, 41);
        return 0;
    }
    if (!hub_path_ok(revision))
        return err_set(err, RUNT_E_INVALID, "'%s' is not a revision", revision);
    char *text = NULL, *path = mem_printf("%s/refs/%s", p->repo, revision);
    size_t n = 0;
    int rc =
        path ? file_read_regular(path, 256, &text, &n, err) : err_nomem(err, "a path");
    if (!rc) {
        text[strcspn(text, " \t\r\n")] = 0;
        if (hub_commit_ok(text))
            memcpy(commit, text, 41);
        else
            rc = err_set(err, RUNT_E_FORMAT, "%s: does not hold a commit", path);
    }
    mem_free(text);
    mem_free(path);
    return rc;
}

static int make_parent(const char *path, struct runt_err *err)
{
    const char *slash = strrchr(path, '/');
    char *dir = mem_strndup(path, (size_t)(slash - path));
    int rc = dir ? file_make_dirs(dir, err) : err_nomem(err, "a path");
    mem_free(dir);
    return rc;
}

int hub_write_ref(const struct hub_paths *p, const char *revision, const char *commit,
                  struct runt_err *err)
{
    char old[41];
    struct file_out *f = NULL;
    if (!hub_read_ref(p, revision, old, NULL) && !strcmp(old, commit))
        return 0;
    char *path = mem_printf("%s/refs/%s", p->repo, revision);
    int rc = path ? make_parent(path, err) : err_nomem(err, "a path");
    if (!rc)
        rc = file_out_open(path, &f, err);
    if (!rc)
        rc = file_out_write(f, commit, strlen(commit), err);
    if (!rc)
        rc = file_out_commit(f, err);
    else
        file_out_abort(f);
    mem_free(path);
    return rc;
}

char *hub_snapshot_path(const struct hub_paths *p, const char *commit, const char *file)
{
    return mem_printf("%s/snapshots/%s%s%s", p->repo, commit, file ? "/" : "",
                      file ? file : "");
}

int hub_link(const struct hub_paths *p, const char *commit, const char *file,
             const char *etag, struct runt_err *err)
{
    int rc = 0;
    struct strbuf target = {0};
    char *path = hub_snapshot_path(p, commit, file), *tmp = NULL, old[512];
    sb_str(&target, "../../");
    for (const char *s = file; *s; s++)
        if (*s == '/')
            sb_str(&target, "../");
    sb_printf(&target, "blobs/%s", etag);
    if (!path || target.failed) {
        rc = err_nomem(err, "a path");
        goto out;
    }
    ssize_t n = readlink(path, old, sizeof old);
    if (n >= 0 && (size_t)n == target.len && !memcmp(old, target.data, target.len))
        goto out;
    rc = make_parent(path, err);
    if (rc)
        goto out;
    tmp = mem_printf("%s.tmp-%ld", path, (long)getpid());
    if (!tmp) {
        rc = err_nomem(err, "a path");
        goto out;
    }
    unlink(tmp);
    if (symlink(target.data, tmp)) {
        rc = err_errno(err, tmp, "create a symbolic link");
    } else if (rename(tmp, path)) {
        rc = err_errno(err, path, "replace");
        unlink(tmp);
    }
out:
    mem_free(tmp);
    mem_free(path);
    sb_free(&target);
    return rc;
}

/* ---- locks ---- */

/* Whoever deletes a model deletes its locks too, so a lock counts only while its file
 * still has the name under which others would look for it. */
static bool still_named(int fd, const char *path)
{
    struct stat a, b;
    return !fstat(fd, &a) && !stat(path, &b) && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

static int wait_turn(const struct hub_options *o, struct runt_err *err)
{
    struct timespec t = {0, 50 * 1000 * 1000};
    if (o->progress &&
        o->progress(o->progress_ctx, "waiting for another download", 0, 0))
        return err_set(err, RUNT_E_INTERRUPTED, "interrupted");
    nanosleep(&t, NULL);
    return 0;
}

int hub_lock(const struct hub_paths *p, const char *etag, const struct hub_options *o,
             int *out, struct runt_err *err)
{
    int rc = file_make_dirs(p->locks, err), fd = -1, n_lost = 0;
    char *path = rc ? NULL : mem_printf("%s/%s.lock", p->locks, etag);
    if (!rc && !path)
        rc = err_nomem(err, "a path");
    while (!rc) {
        if (fd < 0)
            fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
        /* Removing a model takes the folder away too, between our two calls. */
        if (fd < 0 && errno == ENOENT && n_lost++ < 100) {
            rc = file_make_dirs(p->locks, err);
            continue;
        }
        if (fd < 0) {
            rc = err_errno(err, path, "open");
            break;
        }
        int no = flock(fd, LOCK_EX | LOCK_NB) ? errno : 0;
        if (no == EWOULDBLOCK || no == EINTR) {
            rc = wait_turn(o, err);
            continue;
        }
        if (no) { /* no locks on this file system: the checksum still guards the blob */
            close(fd);
            fd = -1;
            break;
        }
        if (still_named(fd, path))
            break;
        close(fd);
        fd = -1;
    }
    if (rc && fd >= 0)
        close(fd);
    else if (!rc)
        *out = fd;
    mem_free(path);
    return rc;
}

void hub_unlock(int fd)
{
    if (fd >= 0)
        close(fd);
}

/* ---- is a snapshot all there? ---- */

void hub_names_free(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        mem_free(names[i]);
    mem_free(names);
}

int hub_index_shards(const char *path, char ***out, size_t *n_out, struct runt_err *err)
{
    json_t *root = NULL, *seen = json_object(), *map, *v;
    const char *key;
    char **names = NULL;
    size_t n = 0;
    int rc = seen ? js_parse_file(path, &root, err) : err_nomem(err, path);
    if (rc)
        goto out;
    map = json_object_get(root, "weight_map");
    names = mem_array(HUB_SHARDS_MAX, sizeof *names);
    if (!names) {
        rc = err_nomem(err, path);
        goto out;
    }
    json_object_foreach(map, key, v)
    {
        const char *s = json_string_value(v);
        if (!s || strlen(s) != json_string_length(v) || !hub_path_ok(s)) {
            rc = err_set(err, RUNT_E_FORMAT,
                         "%s: weight_map names a file that is not a "
                         "plain name: '%.80s'",
                         path, s ? s : "(not a string)");
            goto out;
        }
        if (json_object_get(seen, s))
            continue;
        if (n == HUB_SHARDS_MAX) {
            rc = err_set(err, RUNT_E_UNSUPPORTED, "%s: more than %d files", path,
                         HUB_SHARDS_MAX);
            goto out;
        }
        names[n] = mem_strdup(s);
        if (!names[n] || json_object_set_new(seen, s, json_true())) {
            rc = err_nomem(err, path);
            n += names[n] != NULL;
            goto out;
        }
        n++;
    }
    if (!n) {
        rc = err_set(err, RUNT_E_FORMAT, "%s: no weight_map with files", path);
        goto out;
    }
    *out = names;
    *n_out = n;
    names = NULL;
out:
    if (names)
        hub_names_free(names, n);
    json_decref(root);
    json_decref(seen);
    return rc;
}

static bool has_file(int dir, const char *file)
{
    return !faccessat(dir, file, F_OK, 0); /* false for a link to nothing */
}

static bool has_gguf(int dir)
{
    bool found = false;
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    for (struct dirent *e; d && !found && (e = readdir(d));) {
        size_t n = strlen(e->d_name);
        found =
            n > 5 && !strcmp(e->d_name + n - 5, ".gguf") && has_file(dir, e->d_name);
    }
    if (d)
        closedir(d);
    else if (fd >= 0)
        close(fd);
    return found;
}

static int check_files(int dir, const char *const *files, size_t n,
                       struct runt_err *err)
{
    for (size_t i = 0; i < n; i++)
        if (!has_file(dir, files[i]))
            return err_set(err, RUNT_E_NOTFOUND, "%s is not in the cache", files[i]);
    return 0;
}

static int check_shards(int dir, const char *path, const char *index,
                        struct runt_err *err)
{
    char **shards = NULL, *file = mem_printf("%s/%s", path, index);
    size_t n = 0;
    int rc = file ? hub_index_shards(file, &shards, &n, err) : err_nomem(err, "a path");
    if (!rc)
        rc = check_files(dir, (const char *const *)shards, n, err);
    hub_names_free(shards, n);
    mem_free(file);
    return rc;
}

/* What hub_pull fetches when no file is named.  `path` names the folder `dir`. */
static int check_default(int dir, const char *path, struct runt_err *err)
{
    static const char *const config = "config.json";
    static const char *const index = "model.safetensors.index.json";
    if (has_gguf(dir))
        return 0;
    int rc = check_files(dir, &config, 1, err);
    if (rc)
        return rc;
    if (!(has_file(dir, "vocab.json") && has_file(dir, "merges.txt")) &&
        !has_file(dir, "tokenizer.json"))
        return err_set(err, RUNT_E_NOTFOUND, "its tokenizer is not in the cache");
    if (has_file(dir, "model.safetensors"))
        return 0;
    if (!has_file(dir, index))
        return err_set(err, RUNT_E_NOTFOUND, "its weights are not in the cache");
    return check_shards(dir, path, index, err);
}

static int check_snapshot(const char *path, const struct hub_options *o,
                          struct runt_err *err)
{
    int rc = 0, dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return err_errno(err, path, "open");
    for (size_t i = 0; !rc && i < o->n_files; i++)
        if (!hub_path_ok(o->files[i]))
            rc = err_set(err, RUNT_E_INVALID, "'%s' is not a plain file name",
                         o->files[i]);
    if (!rc)
        rc = o->files ? check_files(dir, o->files, o->n_files, err)
                      : check_default(dir, path, err);
    close(dir);
    return rc;
}

int hub_pull_cached(const char *repo, const struct hub_options *o, char **snapshot_dir,
                    struct runt_err *err)
{
    struct hub_paths p = {0};
    const char *revision = o->revision ? o->revision : "main";
    char commit[41], *dir = NULL;
    int rc = hub_paths_init(&p, repo, err);
    if (rc)
        return rc;
    rc = hub_read_ref(&p, revision, commit, err);
    if (!rc) {
        dir = hub_snapshot_path(&p, commit, NULL);
        if (!dir)
            rc = err_nomem(err, "a path");
        else if (!file_is_dir(dir))
            rc = RUNT_E_NOTFOUND;
    }
    if (rc == RUNT_E_NOTFOUND) {
        rc = err_set(err, rc, "%s (revision %s) is not in the cache %s", repo, revision,
                     p.cache);
    } else if (!rc) {
        rc = check_snapshot(dir, o, err);
        if (rc)
            err_prefix(err, "%s", repo);
    }
    if (!rc) {
        *snapshot_dir = dir;
        dir = NULL;
    }
    mem_free(dir);
    hub_paths_free(&p);
    return rc;
}

int hub_find_cached(const char *repo, const char *revision, char **snapshot_dir,
                    struct runt_err *err)
{
    return hub_pull_cached(repo, &(struct hub_options){.revision = revision},
                           snapshot_dir, err);
}
