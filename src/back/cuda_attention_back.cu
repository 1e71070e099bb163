/* Owns attention, backward.  P = exp(scale Q K^T - lse), O = P V:
 *
 *     dV = P^T dO;  dP = dO V^T;  dS = scale P (dP - delta), delta = rowsum(dO O);
 *     dQ = dS K;    dK = dS^T Q
 *
 * A block has 64 keys and goes over the queries behind them, for dK and dV; in a second
 * kernel it has 64 queries and goes over the keys, for dQ.  Scores are made twice for
 * that, and no block adds to what another made. */
#include "back/cuda_attention.h"

template <typename T> struct alignas(128) back_shared {
    enum { OF = TILE * tile_step<T>::OF };
    alignas(128) T q[OF], dout[OF], k[OF], v[OF], p[OF];
    float lse[TILE], delta[TILE];
};

template <typename T> struct back {
    struct heads h;
    const T *qkv, *dout;
    const float *lse, *delta;
    T *dqkv;
};

/* delta of a head's row: a warp's work. */
template <typename T>
static __global__ void row_sums(size_t n, unsigned dim, const T *out, const T *dout,
                                float *delta)
{
    size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    float sum = 0;
    if (i >= n)
        return;
    for (unsigned c = threadIdx.x % WARP; c < dim; c += WARP)
        sum += to_float(out[i * dim + c]) * to_float(dout[i * dim + c]);
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0)
        delta[i] = sum;
}

/* What a block has of queries and of keys at the moment. */
struct square {
    unsigned query, key; /* the first ones */
};

template <typename T>
static __device__ __forceinline__ void
load_queries(struct back_shared<T> &shared, const struct back<T> &b,
             const struct spot &s, unsigned first, unsigned chunk)
{
    const struct heads &h = b.h;
    load_part(shared.q, h, s, b.qkv, QUERY, first, chunk);
    tile_load(shared.dout, b.dout + place_of(h, s, first, chunk), h.width,
              rows_at(h, first), cols_at(h, chunk), h.packs, (const float *)NULL);
    if (threadIdx.x < TILE) {
        bool is = threadIdx.x < rows_at(h, first);
        size_t at =
            ((size_t)s.seq * h.seq_len + first + threadIdx.x) * h.n_heads + s.head;
        shared.lse[threadIdx.x] = is ? b.lse[at] : 0;
        shared.delta[threadIdx.x] = is ? b.delta[at] : 0;
    }
}

template <typename T>
static __device__ __forceinline__ void
load_keys(struct back_shared<T> &shared, const struct back<T> &b, const struct spot &s,
          unsigned first, unsigned chunk)
{
    load_part(shared.k, b.h, s, b.qkv, KEY, first, chunk);
    load_part(shared.v, b.h, s, b.qkv, VALUE, first, chunk);
}

/* p = P and dp = dP of a square, dropout's factors not in them; what has not changed
 * since the last square stays where it is.  At the end the result's chunk is there. */
template <typename T>
static __device__ __forceinline__ void
scores_again(struct back_shared<T> &shared, const struct back<T> &b,
             const struct spot &s, const struct square &at, bool new_queries,
             bool new_keys, const struct tile_places<T> &places, struct tile_sum<T> &p,
             struct tile_sum<T> &dp)
{
    enum { OF = tile_step<T>::OF };
    const struct heads &h = b.h;
    bool many = h.chunks > 1;
    p.clear();
    dp.clear();
    for (unsigned i = 0; i < h.chunks; i++) {
        unsigned c = (s.chunk + 1 + i) % h.chunks; /* the result's last */
        __syncthreads();
        if (new_queries || many)
            load_queries(shared, b, s, at.query, c);
        if (new_keys || many)
            load_keys(shared, b, s, at.key, c);
        __syncthreads();
        p.template add<GEMM_NT>(shared.q, OF, shared.k, OF, depth_of(cols_at(h, c)));
        dp.template add<GEMM_NT>(shared.dout, OF, shared.v, OF,
                                 depth_of(cols_at(h, c)));
    }
    p.each(places, [&](unsigned r, unsigned c, float &x) {
        bool is = at.key + c <= at.query + r && at.query + r < h.seq_len;
        x = is ? expf(x * h.scale - shared.lse[r]) : 0;
    });
}

/* dS of a square into shared.p. */
template <typename T>
static __device__ __forceinline__ void
score_gradients(struct back_shared<T> &shared, const struct heads &h, uint32_t key,
                const struct square &at, const struct tile_places<T> &places,
                struct tile_sum<T> &p, struct tile_sum<T> &dp)
{
    enum { OF = tile_step<T>::OF };
    p.each_with(places, dp, [&](unsigned r, unsigned c, float x, float g) {
        uint32_t index = (at.query + r) * h.seq_len + at.key + c;
        g = dropped(h.drop, key, index, g);
        shared.p[r * OF + c] = from_float<T>(x * (g - shared.delta[r]) * h.scale);
    });
}

/* A result goes through shared memory, so that whole rows are written together. */
template <typename T>
static __device__ __forceinline__ void
put(T *scratch, const struct back<T> &b, const struct spot &s, unsigned part,
    const struct tile_places<T> &places, struct tile_sum<T> &x)
{
    enum { OF = tile_step<T>::OF };
    const struct heads &h = b.h;
    x.each(places, [&](unsigned r, unsigned c, float y) {
        scratch[r * OF + c] = from_float<T>(y);
    });
    __syncthreads();
    size_t step = 3 * (size_t)h.width, row = (size_t)s.seq * h.seq_len + s.first;
    tile_store(b.dqkv + row * step + part * h.width + s.head * h.dim + s.chunk * TILE,
               step, rows_at(h, s.first), cols_at(h, s.chunk), h.packs, scratch);
}

template <typename T> static __global__ void attend_back_keys(struct back<T> b)
{
    enum { OF = tile_step<T>::OF };
    struct back_shared<T> &shared = block_shared<struct back_shared<T>>();
    const struct heads &h = b.h;
    struct spot s = spot_of(h, blockIdx.x); /* the first keys have most queries */
    struct square at = {s.first, s.first};
    struct tile_places<T> places;
    struct tile_sum<T> p, dp, dk, dv;
    uint32_t key = dropout_key(h.drop, s.seq, h.drop.place + s.head);
    places.find(reinterpret_cast<float *>(shared.p));
    dk.clear();
    dv.clear();
    for (; at.query < h.seq_len; at.query += TILE) {
        unsigned depth = depth_of(rows_at(h, at.query));
        scores_again(shared, b, s, at, true, at.query == at.key, places, p, dp);
        p.each(places, [&](unsigned r, unsigned c, float x) {
            uint32_t index = (at.query + r) * h.seq_len + at.key + c;
            shared.p[r * OF + c] = from_float<T>(dropped(h.drop, key, index, x));
        });
        __syncthreads();
        dv.template add<GEMM_TN>(shared.p, OF, shared.dout, OF, depth);
        __syncthreads();
        score_gradients(shared, h, key, at, places, p, dp);
        __syncthreads();
        dk.template add<GEMM_TN>(shared.p, OF, shared.q, OF, depth);
    }
    __syncthreads();
    put(shared.k, b, s, KEY, places, dk);
    put(shared.v, b, s, VALUE, places, dv);
}

template <typename T> static __global__ void attend_back_queries(struct back<T> b)
{
    enum { OF = tile_step<T>::OF };
    struct back_shared<T> &shared = block_shared<struct back_shared<T>>();
    const struct heads &h = b.h;
    struct spot s = spot_of(h, gridDim.x - 1 - blockIdx.x);
    struct square at = {s.first, 0};
    struct tile_places<T> places;
    struct tile_sum<T> p, dp, dq;
    uint32_t key = dropout_key(h.drop, s.seq, h.drop.place + s.head);
    places.find(reinterpret_cast<float *>(shared.p));
    dq.clear();
    for (; at.key <= s.first; at.key += TILE) {
        scores_again(shared, b, s, at, at.key == 0, true, places, p, dp);
        score_gradients(shared, h, key, at, places, p, dp);
        __syncthreads();
        dq.template add<GEMM_NN>(shared.p, OF, shared.k, OF,
                                 depth_of(rows_at(h, at.key)));
    }
    __syncthreads();
    put(shared.q, b, s, QUERY, places, dq);
}

void cuda_attend_back(struct cuda *d, const struct cuda_attention *a, const void *qkv,
                      const void *out, const float *lse, const void *dout, float *delta,
                      void *dqkv)
{
    enum { THREADS = 256 };
    struct heads h = heads_of(a);
    size_t n = a->n_seqs * a->seq_len * a->n_heads;
    by_type(d, 4, [&](auto number, auto) {
        typedef decltype(number) T;
        struct back<T> b = {
            h, (const T *)qkv, (const T *)dout, lse, delta, (T *)dqkv
        };
        size_t shared = sizeof(struct back_shared<T>);
        launch(d, "attention, backward", row_sums<T>,
               dim3(blocks_for(n, THREADS / WARP)), THREADS, 0, n, h.dim,
               (const T *)out, (const T *)dout, delta);
        launch(d, "attention, backward", attend_back_keys<T>, head_blocks(h),
               TILE_THREADS, shared, b);
        launch(d, "attention, backward", attend_back_queries<T>, head_blocks(h),
               TILE_THREADS, shared, b);
    });
}
