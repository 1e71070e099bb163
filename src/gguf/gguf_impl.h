/* What the reader and the writer of model files share: the format's numbers and a
 * sorted index of names. */
#ifndef RUNT_GGUF_IMPL_H
#define RUNT_GGUF_IMPL_H

#include "gguf/gguf.h"

enum {
    GGUF_MAGIC = 0x46554747, /* "GGUF", little-endian */
    GGUF_VERSION = 3,
    GGUF_ALIGNMENT = 32, /* unless general.alignment says otherwise */
    GGUF_KEY_MAX = 65535,
    /* Ours, far above any real model (a 70B one has 724 tensors and 40 keys): they
     * bound what a hostile file makes us allocate to about 300 MB. */
    GGUF_MAX_KV = 1 << 20,
    GGUF_MAX_TENSORS = 1 << 20,
};

#define GGUF_KEY_ALIGNMENT "general.alignment"

/* A key's or tensor's name and its place in the list it came from. */
struct gguf_name {
    const char *data;
    uint32_t len, index;
};

/* By length, then bytes, then place: equal names become neighbours in their old order.
 * (Sorted rather than hashed: names chosen to collide cannot slow it down.) */
void gguf_names_sort(struct gguf_name *names, size_t n);
bool gguf_name_equal(const struct gguf_name *a, const struct gguf_name *b);

/* Not empty, at most max_len bytes, no control bytes. */
bool gguf_name_ok(const char *data, uint64_t len, size_t max_len);

/* Round up to a multiple of a power of two.  pos is a file's, so below 2^63. */
uint64_t gguf_align(uint64_t pos, uint32_t alignment);

/* Bytes of one value; 0 for a string, an array, and types that GGUF does not have. */
size_t gguf_scalar_bytes(uint32_t type);

#endif
