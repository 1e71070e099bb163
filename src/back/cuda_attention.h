/* What attention's two directions share: which part of the work a block has. */
#ifndef RUNT_CUDA_ATTENTION_H
#define RUNT_CUDA_ATTENTION_H

#include "back/cuda_tile.h"

/* A head of `dim` numbers has `chunks` squares' width of them: one up to 64 numbers.
 * Longer ones are worked on chunk by chunk, and their scores made again for each chunk
 * of the result. */
struct heads {
    unsigned n_seqs, seq_len, n_heads, width, dim, tiles, chunks;
    bool packs;
    float scale;
    const float *bias; /* of qkv [3 width] */
    struct dropout drop;
};

static inline struct heads heads_of(const struct cuda_attention *a)
{
    struct heads h = {};
    h.n_seqs = (unsigned)a->n_seqs;
    h.seq_len = (unsigned)a->seq_len;
    h.n_heads = (unsigned)a->n_heads;
    h.width = (unsigned)a->width;
    h.dim = h.width / h.n_heads;
    h.tiles = blocks_for(h.seq_len, TILE);
    h.chunks = blocks_for(h.dim, TILE);
    h.packs = h.dim % 4 == 0;
    h.scale = 1 / sqrtf((float)h.dim);
    h.bias = a->bias;
    h.drop = dropout_of(&a->drop);
    return h;
}

/* A block for each square's width of queries (or keys) of each head, and for each chunk
 * of the result. */
static inline dim3 head_blocks(const struct heads &h)
{
    return dim3(h.n_seqs * h.n_heads * h.tiles, h.chunks);
}

struct spot {
    unsigned seq, head, first; /* of the block's queries or keys */
    unsigned chunk;            /* of the result */
};

static __device__ __forceinline__ struct spot spot_of(const struct heads &h,
                                                      unsigned block)
{
    struct spot s;
    s.first = block % h.tiles * TILE;
    s.head = block / h.tiles % h.n_heads;
    s.seq = block / h.tiles / h.n_heads;
    s.chunk = blockIdx.y;
    return s;
}

enum { QUERY, KEY, VALUE };

static __device__ __forceinline__ unsigned rows_at(const struct heads &h,
                                                   unsigned first)
{
    return h.seq_len - first < TILE ? h.seq_len - first : (unsigned)TILE;
}

static __device__ __forceinline__ unsigned cols_at(const struct heads &h,
                                                   unsigned chunk)
{
    return h.dim - chunk * TILE < TILE ? h.dim - chunk * TILE : (unsigned)TILE;
}

/* Products go over whole fragments; what is beyond n rows or columns is 0. */
static __device__ __forceinline__ unsigned depth_of(unsigned n)
{
    return (n + 15) / 16 * 16;
}

/* Queries, keys or values first.. of the spot's head. */
template <typename T>
static __device__ __forceinline__ void
load_part(T *to, const struct heads &h, const struct spot &s, const T *qkv,
          unsigned part, unsigned first, unsigned chunk)
{
    unsigned col = part * h.width + s.head * h.dim + chunk * TILE;
    size_t row = (size_t)s.seq * h.seq_len + first, step = 3 * (size_t)h.width;
    tile_load(to, qkv + row * step + col, step, rows_at(h, first), cols_at(h, chunk),
              h.packs, h.bias + col);
}

/* Where the spot's head has its numbers of a matrix [N][width]. */
static __device__ __forceinline__ size_t place_of(const struct heads &h,
                                                  const struct spot &s, unsigned first,
                                                  unsigned chunk)
{
    return ((size_t)s.seq * h.seq_len + first) * h.width + s.head * h.dim +
           chunk * TILE;
}

#endif
