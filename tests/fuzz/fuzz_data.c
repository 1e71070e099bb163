/* Any bytes as training data, as text and as .jsonl: refused with the file's name, or
 * documents that are not empty, whose answers lie in order and inside.
 * Packed data is fuzz_unpack's. */
#include "base/mem.h"
#include "train/data.h"
#include "train/dialogue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int document(void *ctx, const char *text, size_t n, struct runt_err *err)
{
    size_t *count = ctx, end = 0;
    struct dialogue_answer a = {0};
    (void)err;
    if (!n || memchr(text, 0, n))
        abort();
    ++*count;
    for (dialogue_next(text, n, &a); a.from != SIZE_MAX; dialogue_next(text, n, &a)) {
        if (a.from < end || a.to <= a.from || a.to > n + 1)
            abort();
        end = a.to;
    }
    return 0;
}

/* A name under which the bytes are found: .jsonl is told by it. */
static const char *place(const uint8_t *data, size_t size, const char *ending, int *fd,
                         char path[static 64])
{
    char target[64];
    *fd = memfd_create("data", 0);
    if (*fd < 0 || write(*fd, data, size) != (ssize_t)size)
        abort();
    snprintf(target, sizeof target, "/proc/self/fd/%d", *fd);
    snprintf(path, 64, "/tmp/fuzz-data-%d%s", (int)getpid(), ending);
    unlink(path);
    if (symlink(target, path))
        abort();
    return path;
}

static void read_as(const uint8_t *data, size_t size, const char *ending)
{
    struct runt_err err = {0};
    char path[64];
    int fd;
    size_t count = 0;
    long live = mem_live();
    place(data, size, ending, &fd, path);
    int rc = data_read_documents(path, "text", document, &count, &err);
    if (rc && strncmp(err.msg, path, strlen(path)))
        abort();
    unlink(path);
    close(fd);
    if (mem_live() != live)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool packed = (size >= 2 && !memcmp(data, "\x1f\x8b", 2)) ||
                  (size >= 4 && !memcmp(data, "\x28\xb5\x2f\xfd", 4)) ||
                  (size >= 4 && !memcmp(data, "\xfd\x37zX", 4));
    if (packed)
        return 0;
    read_as(data, size, ".txt");
    read_as(data, size, ".jsonl");
    return 0;
}
