/* Owns attention, forward: a block has 64 queries of a head and goes over the keys, 64
 * at a time, with the softmax kept up to date (Milakov and Gimelshein 2018; Dao et al.
 * 2022): the largest score so far, the sum of exponentials, and an output that fades
 * when the largest grows. */
#include "back/cuda_attention.h"

template <typename T> struct alignas(128) attend_shared {
    enum { OF = TILE * tile_step<T>::OF };
    alignas(128) T q[OF], k[OF], v[OF];
    /* a row of probabilities lies where its scores were */
    alignas(128) float scores[TILE * tile_step<T>::SCORES];
    float of_row[TILE];
};

template <typename T>
static __global__ void attend(struct heads h, const T *qkv, T *out, float *lse)
{
    enum { OF = tile_step<T>::OF, SCORES = tile_step<T>::SCORES };
    enum { P_STEP = SCORES * sizeof(float) / sizeof(T), HALF = TILE / 2 };
    struct attend_shared<T> &shared = block_shared<struct attend_shared<T>>();
    T *p = reinterpret_cast<T *>(shared.scores);
    /* the last queries have most keys: they begin first */
    struct spot s = spot_of(h, gridDim.x - 1 - blockIdx.x);
    struct tile_places<T> at;
    struct tile_sum<T> o;
    /* in the softmax two threads have a row, each every other key */
    unsigned row = threadIdx.x / 2, half = threadIdx.x % 2, query = s.first + row;
    uint32_t key = dropout_key(h.drop, s.seq, h.drop.place + s.head);
    float most = -INFINITY, sum = 0;
    at.find(shared.scores);
    o.clear();
    for (unsigned first = 0; first <= s.first; first += TILE) {
        struct tile_sum<T> scores;
        scores.clear();
        for (unsigned c = 0; c < h.chunks; c++) {
            __syncthreads();
            if (!first || h.chunks > 1)
                load_part(shared.q, h, s, qkv, QUERY, s.first, c);
            load_part(shared.k, h, s, qkv, KEY, first, c);
            if (!c)
                load_part(shared.v, h, s, qkv, VALUE, first, s.chunk);
            __syncthreads();
            scores.template add<GEMM_NT>(shared.q, OF, shared.k, OF,
                                         depth_of(cols_at(h, c)));
        }
        scores.each(at, [&](unsigned r, unsigned c, float x) {
            shared.scores[r * SCORES + c] = x;
        });
        __syncthreads();
        float x[HALF], top = most, add = 0;
#pragma unroll
        for (int i = 0; i < HALF; i++) {
            unsigned c = 2 * i + half;
            x[i] = first + c <= query ? shared.scores[row * SCORES + c] * h.scale
                                      : -INFINITY;
            top = fmaxf(top, x[i]);
        }
        top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 1));
        float fade = expf(most - top);
#pragma unroll
        for (int i = 0; i < HALF; i++) {
            x[i] = expf(x[i] - top);
            add += x[i];
        }
        add += __shfl_xor_sync(ALL_LANES, add, 1);
        sum = sum * fade + add;
        most = top;
        __syncwarp(); /* the row's scores are read */
#pragma unroll
        for (int i = 0; i < HALF; i++) {
            unsigned c = 2 * i + half;
            p[row * P_STEP + c] = from_float<T>(
                dropped(h.drop, key, query * h.seq_len + first + c, x[i]));
        }
        if (!half)
            shared.of_row[row] = fade;
        __syncthreads();
        o.each(at, [&](unsigned r, unsigned, float &y) { y *= shared.of_row[r]; });
        o.template add<GEMM_NN>(p, P_STEP, shared.v, OF, depth_of(rows_at(h, first)));
    }
    __syncthreads();
    if (!half) {
        shared.of_row[row] = 1 / sum;
        if (query < h.seq_len && !s.chunk)
            lse[((size_t)s.seq * h.seq_len + query) * h.n_heads + s.head] =
                most + logf(sum);
    }
    __syncthreads();
    o.each(at, [&](unsigned r, unsigned c, float y) {
        shared.q[r * OF + c] = from_float<T>(y * shared.of_row[r]);
    });
    __syncthreads();
    tile_store(out + place_of(h, s, s.first, s.chunk), h.width, rows_at(h, s.first),
               cols_at(h, s.chunk), h.packs, shared.q);
}

void cuda_attend(struct cuda *d, const struct cuda_attention *a, const void *qkv,
                 void *out, float *lse)
{
    struct heads h = heads_of(a);
    by_type(d, 4, [&](auto number, auto) {
        typedef decltype(number) T;
        launch(d, "attention", attend<T>, head_blocks(h), TILE_THREADS,
               sizeof(struct attend_shared<T>), h, (const T *)qkv, (T *)out, lse);
    });
}
