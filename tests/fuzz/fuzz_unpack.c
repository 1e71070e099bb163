/* Any bytes as a text that may be compressed: refused with the name, or unpacked to at
 * most what was allowed, with a NUL behind it.
 * Seeds: corpus/unpack, a text packed by xz, zstd and gzip, whole, cut and damaged. */
#include "base/mem.h"
#include "base/unpack.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MAX = 1 << 18 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct runt_err err = {0};
    char *text = (char *)&err; /* what a failure must leave alone */
    size_t n = 1234567;
    long live = mem_live();
    if (unpack_bytes((const char *)data, size, MAX, "packed", &text, &n, &err)) {
        if (strncmp(err.msg, "packed: ", 8) || text != (char *)&err || n != 1234567)
            abort();
    } else if (text) {
        if (n > MAX || text[n])
            abort();
        mem_free(text);
    }
    if (mem_live() != live)
        abort();
    return 0;
}
