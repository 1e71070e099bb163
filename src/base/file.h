/* Files: read-only maps, bounded whole reads, and atomic replacement on write. */
#ifndef RUNT_BASE_FILE_H
#define RUNT_BASE_FILE_H

#include "runt/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A regular file mapped read-only.  An empty file has data == NULL, size == 0. */
struct file_map {
    const uint8_t *data;
    size_t size;
};

/* Errors: RUNT_E_NOTFOUND, RUNT_E_IO (a directory or pipe included). */
int file_map_open(const char *path, struct file_map *out, struct runt_err *err);
void file_map_close(struct file_map *m);
/* A part of a file_map is not needed for now: its pages need not stay in memory.
 * Reading it again is allowed. */
void file_drop_pages(const void *data, size_t n);

/* The whole of a file, pipe or "-" (standard input), NUL-terminated past *size.  The
 * caller frees *out with mem_free.  More than `max` bytes is RUNT_E_FORMAT; a
 * caught signal during a read that waits is RUNT_E_INTERRUPTED. */
int file_read(const char *path, size_t max, char **out, size_t *size,
              struct runt_err *err);

/* The same for a part of a checkpoint or a cache, which must be a regular file: a pipe
 * there is RUNT_E_IO, not something to wait for. */
int file_read_regular(const char *path, size_t max, char **out, size_t *size,
                      struct runt_err *err);

bool file_exists(const char *path);
bool file_is_dir(const char *path);

/* mkdir -p */
int file_make_dirs(const char *path, struct runt_err *err);

/* rename(2), which replaces a file or an empty directory, and outlives a power cut. */
int file_rename(const char *from, const char *to, struct runt_err *err);

/* A file that appears under its name only when complete: bytes go to a temporary file
 * in the same directory; commit flushes, fsyncs, renames; abort removes it. */
struct file_out;
int file_out_open(const char *path, struct file_out **out, struct runt_err *err);
int file_out_write(struct file_out *f, const void *bytes, size_t n,
                   struct runt_err *err);
uint64_t file_out_pos(const struct file_out *f);
int file_out_commit(struct file_out *f, struct runt_err *err); /* frees f either way */
void file_out_abort(struct file_out *f);                       /* NULL is fine */

#endif
