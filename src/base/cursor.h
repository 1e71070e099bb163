/* A bounded reader of little-endian bytes.  Past the end every read gives 0 and `bad`
 * stays set, so a parser may read a whole record and check once. */
#ifndef RUNT_BASE_CURSOR_H
#define RUNT_BASE_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct cursor {
    const uint8_t *data;
    size_t size, pos;
    bool bad;
};

static inline struct cursor cur_make(const void *data, size_t size)
{
    return (struct cursor){data, size, 0, false};
}

static inline size_t cur_left(const struct cursor *c)
{
    return c->size - c->pos;
}

/* The next n bytes, or NULL (and bad) when fewer are left. */
static inline const uint8_t *cur_bytes(struct cursor *c, uint64_t n)
{
    if (c->bad || n > cur_left(c)) {
        c->bad = true;
        return NULL;
    }
    const uint8_t *p = c->data + c->pos;
    c->pos += (size_t)n;
    return p;
}

static inline uint64_t cur_le(struct cursor *c, unsigned n_bytes)
{
    const uint8_t *p = cur_bytes(c, n_bytes);
    uint64_t v = 0;
    for (unsigned i = 0; p && i < n_bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static inline uint8_t cur_u8(struct cursor *c)
{
    return (uint8_t)cur_le(c, 1);
}

static inline uint16_t cur_u16(struct cursor *c)
{
    return (uint16_t)cur_le(c, 2);
}

static inline uint32_t cur_u32(struct cursor *c)
{
    return (uint32_t)cur_le(c, 4);
}

static inline uint64_t cur_u64(struct cursor *c)
{
    return cur_le(c, 8);
}

static inline float cur_f32(struct cursor *c)
{
    uint32_t u = cur_u32(c);
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline double cur_f64(struct cursor *c)
{
    uint64_t u = cur_u64(c);
    double f;
    memcpy(&f, &u, sizeof f);
    return f;
}

#endif
