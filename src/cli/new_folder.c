/* Owns folders that appear whole or not at all. */
#include "cli/new_folder.h"

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int check_place(const char *dir, struct runt_err *err)
{
    size_t n = 0;
    if (!*dir)
        return err_set(err, RUNT_E_INVALID, "cannot create a folder without a name");
    if (!file_exists(dir))
        return 0;
    DIR *d = opendir(dir);
    if (!d && errno == ENOTDIR)
        return err_set(err, RUNT_E_INVALID, "%s is a file; name a new folder", dir);
    if (!d)
        return err_errno(err, dir, "open");
    while (readdir(d))
        n++;
    closedir(d);
    return n <= 2 /* . and .. */
               ? 0
               : err_set(err, RUNT_E_INVALID, "%s is not empty; name a new folder",
                         dir);
}

int new_folder_check(const char *path, struct new_folder *out, struct runt_err *err)
{
    char *plain = mem_strdup(path);
    for (size_t n = plain ? strlen(plain) : 0; n > 1 && plain[n - 1] == '/'; n--)
        plain[n - 1] = 0;
    int rc = plain ? check_place(plain, err) : err_nomem(err, "a path");
    if (rc)
        mem_free(plain);
    else
        *out = (struct new_folder){.path = plain};
    return rc;
}

/* A name that is nobody else's. */
int new_folder_begin(struct new_folder *f, struct runt_err *err)
{
    const char *dir = f->path, *slash = strrchr(dir, '/');
    int n = slash ? (int)(slash - dir) + 1 : 0;
    for (int k = 0; k < 100; k++) {
        char *tmp =
            mem_printf("%.*s.%s.tmp-%ld-%d", n, dir, dir + n, (long)getpid(), k);
        if (!tmp)
            return err_nomem(err, "a path");
        if (!mkdir(tmp, 0777)) {
            f->tmp = tmp;
            return 0;
        }
        mem_free(tmp);
        if (errno != EEXIST)
            break;
    }
    return err_errno(err, dir, "create");
}

int new_folder_commit(struct new_folder *f, struct runt_err *err)
{
    int rc = file_rename(f->tmp, f->path, err);
    if (rc)
        return rc;
    mem_free(f->tmp);
    f->tmp = NULL;
    return 0;
}

/* It holds files only. */
static void drop(const char *dir)
{
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        char *path = mem_printf("%s/%s", dir, e->d_name);
        if (path)
            unlink(path);
        mem_free(path);
    }
    if (d)
        closedir(d);
    rmdir(dir);
}

void new_folder_end(struct new_folder *f)
{
    if (f->tmp)
        drop(f->tmp);
    mem_free(f->tmp);
    mem_free(f->path);
    *f = (struct new_folder){0};
}
