/* Owns the layout of tiles that are packed when a model is loaded. */
#include "kern/kern_tile.h"

#include "fmt/r4.h"

#include <string.h>

enum { SCALES = 2 * KERN_TILE_ROWS * 2 }; /* bytes of a group's scales or minima */

static size_t group_bytes(enum kern_tile k)
{
    size_t codes = KERN_GROUP * KERN_TILE_ROWS;
    return k == KERN_TILE_Q8_0   ? SCALES + codes
           : k == KERN_TILE_Q4_1 ? 2 * SCALES + codes / 2
                                 : SCALES + codes / 2;
}

bool kern_tile_for(enum fmt_type type, enum kern_tile *out)
{
    switch (type) {
    case FMT_R4:
        *out = KERN_TILE_R4;
        return true;
    case FMT_Q4_0:
        *out = KERN_TILE_Q4_0;
        return true;
    case FMT_Q4_1:
        *out = KERN_TILE_Q4_1;
        return true;
    case FMT_Q8_0:
        *out = KERN_TILE_Q8_0;
        return true;
    default:
        return false;
    }
}

size_t kern_tile_bytes(enum kern_tile k, size_t n_cols)
{
    return k == KERN_TILE_R4 ? r4_tile_bytes(n_cols)
                             : kern_n_groups(n_cols) * group_bytes(k);
}

static uint32_t load4(const uint8_t *p)
{
    uint32_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

static void store4(uint8_t *p, uint32_t u)
{
    memcpy(p, &u, sizeof u);
}

/* Codes of one block of 32: element j low, j + 16 high nibble of byte j.  Columns 8 c +
 * 0..3 and 8 c + 4..7 share the bytes of a chunk; 4 bytes at a time, in which no nibble
 * leaves its byte, so that their order in a word is of no account. */
static inline void pack_nibbles(const uint8_t *q, uint8_t *chunks)
{
    const uint32_t low = 0x0f0f0f0f;
    for (size_t c = 0; c < 2; c++) {
        uint32_t a = load4(q + 8 * c), b = load4(q + 8 * c + 4);
        store4(chunks + 64 * c, (a & low) | (b & low) << 4);
        store4(chunks + 64 * (c + 2), (a >> 4 & low) | (b & ~low));
    }
}

/* k is constant.  A load goes through all of a model's weights here: block by block,
 * the 16 rows of each, so that what is written stays in the first-level cache. */
static inline __attribute__((always_inline)) void pack(enum kern_tile k, size_t n_rows,
                                                       size_t n_cols,
                                                       const uint8_t *rows,
                                                       size_t row_bytes, uint8_t *tile)
{
    size_t n_blocks = n_cols / KERN_HALF, head = k == KERN_TILE_Q4_1 ? 4 : 2,
           block_bytes = head + (k == KERN_TILE_Q8_0 ? KERN_HALF : KERN_HALF / 2);
    if (n_rows < KERN_TILE_ROWS || n_blocks % 2)
        memset(tile, 0, kern_tile_bytes(k, n_cols));
    for (size_t b = 0; b < n_blocks; b++, rows += block_bytes) {
        uint8_t *group = tile + b / 2 * group_bytes(k),
                *scales = group + SCALES / 2 * (b % 2),
                *codes = group + head / 2 * SCALES;
        codes += (k == KERN_TILE_Q8_0 ? 512 : 256) * (b % 2);
        for (size_t r = 0; r < n_rows; r++) {
            const uint8_t *p = rows + r * row_bytes;
            memcpy(scales + 2 * r, p, 2);
            if (k == KERN_TILE_Q4_1)
                memcpy(scales + SCALES + 2 * r, p + 2, 2);
            if (k != KERN_TILE_Q8_0)
                pack_nibbles(p + head, codes + 4 * r);
            for (size_t j = 0; k == KERN_TILE_Q8_0 && j < KERN_HALF; j += 4)
                store4(codes + 16 * j + 4 * r, load4(p + head + j));
        }
    }
}

void kern_tile_pack(enum kern_tile k, size_t n_rows, size_t n_cols, const uint8_t *rows,
                    size_t row_bytes, void *tile)
{
    if (k == KERN_TILE_Q4_0)
        pack(KERN_TILE_Q4_0, n_rows, n_cols, rows, row_bytes, tile);
    else if (k == KERN_TILE_Q4_1)
        pack(KERN_TILE_Q4_1, n_rows, n_cols, rows, row_bytes, tile);
    else
        pack(KERN_TILE_Q8_0, n_rows, n_cols, rows, row_bytes, tile);
}
