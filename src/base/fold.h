/* A checksum of bytes: multiply and fold, 8 at a time.  Finds damage, not forgery. */
#ifndef RUNT_BASE_FOLD_H
#define RUNT_BASE_FOLD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t fold(uint64_t h, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i += 8) {
        uint64_t w = 0;
        memcpy(&w, p + i, n - i < 8 ? n - i : 8);
        h = (h ^ w) * 0x9e3779b97f4a7c15u;
        h ^= h >> 32;
    }
    return h ^ n;
}

#endif
