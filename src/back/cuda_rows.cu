/* Owns operations on rows: embeddings, layer norms, GELU, sums over rows.
 *
 * They move bytes and do little else, so each reads what it needs once where it can and
 * does what follows in the same go.  A row of the residual stream belongs to one warp:
 * its sums need no barrier, and what is read again is in the cache. */
#include "back/cuda_impl.h"

enum {
    ROW_WARPS = 8, /* rows of a block */
    ROW_THREADS = ROW_WARPS * WARP,
    SUM_ROWS = 128, /* of a block's part of a sum over rows */
};

static __device__ __forceinline__ size_t row_of_warp()
{
    return (size_t)blockIdx.x * ROW_WARPS + threadIdx.x / WARP;
}

/* A lane's numbers of a row, V at a time. */
#define FOR_LANE(i, n) for (unsigned i = threadIdx.x % WARP * V; i < (n); i += WARP * V)
/* A thread's numbers of a row that a block of any size shares. */
#define FOR_THREAD(i, n) \
    for (unsigned i = threadIdx.x * V; i < (n); i += blockDim.x * V)

/* ---- embeddings ---- */

template <int V>
static __global__ void embed(size_t n_rows, unsigned n, unsigned seq_len,
                             const int32_t *tokens, const float *table,
                             const float *positions, struct dropout drop, float *x)
{
    size_t row = row_of_warp();
    if (row >= n_rows)
        return;
    const float *token = table + (size_t)tokens[row] * n;
    const float *position = positions + row % seq_len * n;
    struct dropout_row key = dropout_row_of(drop, row, n);
    FOR_LANE(i, n)
    {
        float a[V], b[V];
        load<V>(token + i, a);
        load<V>(position + i, b);
#pragma unroll
        for (int k = 0; k < V; k++)
            a[k] = dropped(drop, key.key, key.first + i + k, a[k] + b[k]);
        store<V>(x + row * n + i, a);
    }
}

void cuda_embed(struct cuda *d, size_t n_rows, size_t n, const int32_t *tokens,
                const float *table, const float *positions,
                const struct cuda_drop *drop, float *x)
{
    unsigned blocks = blocks_for(n_rows, ROW_WARPS);
    by_type(d, n, [&](auto, auto width) {
        launch(d, "embeddings", embed<decltype(width)::v>, dim3(blocks), ROW_THREADS, 0,
               n_rows, n, drop->seq_len, tokens, table, positions, dropout_of(drop), x);
    });
}

/* A block sums the rows of one token, in their order. */
template <int V>
static __global__ void embed_back_tokens(unsigned n, const int32_t *ids,
                                         const int32_t *starts, const int32_t *rows,
                                         const float *dx, struct dropout drop,
                                         float *dtable)
{
    float *to = dtable + (size_t)ids[blockIdx.x] * n;
    int begin = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    FOR_THREAD(i, n)
    {
        float sum[V];
        load<V>(to + i, sum);
        for (int r = begin; r < end; r++) {
            size_t row = (size_t)rows[r];
            struct dropout_row key = dropout_row_of(drop, row, n);
            float a[V];
            load<V>(dx + row * n + i, a);
#pragma unroll
            for (int k = 0; k < V; k++)
                sum[k] += dropped(drop, key.key, key.first + i + k, a[k]);
        }
        store<V>(to + i, sum);
    }
}

/* A block sums the rows of one position. */
template <int V>
static __global__ void embed_back_positions(size_t n_rows, unsigned n, unsigned seq_len,
                                            const float *dx, struct dropout drop,
                                            float *dpositions)
{
    float *to = dpositions + (size_t)blockIdx.x * n;
    FOR_THREAD(i, n)
    {
        float sum[V];
        load<V>(to + i, sum);
        for (size_t row = blockIdx.x; row < n_rows; row += seq_len) {
            struct dropout_row key = dropout_row_of(drop, row, n);
            float a[V];
            load<V>(dx + row * n + i, a);
#pragma unroll
            for (int k = 0; k < V; k++)
                sum[k] += dropped(drop, key.key, key.first + i + k, a[k]);
        }
        store<V>(to + i, sum);
    }
}

void cuda_embed_back(struct cuda *d, size_t n_rows, size_t n,
                     const struct cuda_groups *groups, const float *dx,
                     const struct cuda_drop *drop, float *dtable, float *dpositions)
{
    enum { THREADS = 128 };
    struct dropout o = dropout_of(drop);
    unsigned seq_len = (unsigned)drop->seq_len;
    by_type(d, n, [&](auto, auto width) {
        constexpr int V = decltype(width)::v;
        if (dtable)
            launch(d, "d token embeddings", embed_back_tokens<V>,
                   dim3((unsigned)groups->n), THREADS, 0, n, groups->ids,
                   groups->starts, groups->rows, dx, o, dtable);
        if (dpositions)
            launch(d, "d position embeddings", embed_back_positions<V>,
                   dim3(n_rows < seq_len ? (unsigned)n_rows : seq_len), THREADS, 0,
                   n_rows, n, seq_len, dx, o, dpositions);
    });
}

/* ---- layer norm ---- */

template <typename T> struct branch {
    const T *y;
    const float *bias;
    struct dropout drop;
    float *out;
};

template <typename T, int V>
static __global__ void add_norm(size_t n_rows, unsigned n, struct branch<T> b,
                                const float *residual, struct cuda_norm w, T *y,
                                float *stat)
{
    size_t row = row_of_warp();
    if (row >= n_rows)
        return;
    const float *x = residual + row * n;
    float a[V], sum = 0, squares = 0;
    if (b.y) {
        struct dropout_row key = dropout_row_of(b.drop, row, n);
        FOR_LANE(i, n)
        {
            float add[V], bias[V];
            load<V>(x + i, a);
            load<V>(b.y + row * n + i, add);
            load<V>(b.bias + i, bias);
#pragma unroll
            for (int k = 0; k < V; k++) {
                a[k] += dropped(b.drop, key.key, key.first + i + k, add[k] + bias[k]);
                sum += a[k];
            }
            store<V>(b.out + row * n + i, a);
        }
        x = b.out + row * n;
    } else {
        FOR_LANE(i, n)
        {
            load<V>(x + i, a);
#pragma unroll
            for (int k = 0; k < V; k++)
                sum += a[k];
        }
    }
    float mean = warp_sum(sum) / (float)n;
    FOR_LANE(i, n)
    {
        load<V>(x + i, a);
#pragma unroll
        for (int k = 0; k < V; k++)
            squares += (a[k] - mean) * (a[k] - mean);
    }
    float inv = 1 / sqrtf(warp_sum(squares) / (float)n + w.eps);
    FOR_LANE(i, n)
    {
        float gain[V], bias[V];
        load<V>(x + i, a);
        load<V>(w.gain + i, gain);
        load<V>(w.bias + i, bias);
#pragma unroll
        for (int k = 0; k < V; k++)
            a[k] = (a[k] - mean) * inv * gain[k] + bias[k];
        store<V>(y + row * n + i, a);
    }
    if (threadIdx.x % WARP == 0) {
        stat[row * 2] = mean;
        stat[row * 2 + 1] = inv;
    }
}

void cuda_add_norm(struct cuda *d, size_t n_rows, size_t n,
                   const struct cuda_branch *branch_, const float *residual,
                   const struct cuda_norm *w, void *y, float *stat)
{
    unsigned blocks = blocks_for(n_rows, ROW_WARPS);
    by_type(d, n, [&](auto number, auto width) {
        typedef decltype(number) T;
        struct branch<T> b = {
            (const T *)branch_->y, branch_->bias,
                dropout_of(&branch_->drop), branch_->out
        };
        launch(d, "a norm", add_norm<T, decltype(width)::v>, dim3(blocks), ROW_THREADS,
               0, n_rows, n, b, residual, *w, (T *)y, stat);
    });
}

template <typename T, int V>
static __global__ void norm_again(size_t n_rows, unsigned n, const float *x,
                                  struct cuda_norm w, const float *stat, T *y)
{
    size_t row = row_of_warp();
    if (row >= n_rows)
        return;
    float mean = stat[row * 2], inv = stat[row * 2 + 1];
    FOR_LANE(i, n)
    {
        float a[V], gain[V], bias[V];
        load<V>(x + row * n + i, a);
        load<V>(w.gain + i, gain);
        load<V>(w.bias + i, bias);
#pragma unroll
        for (int k = 0; k < V; k++)
            a[k] = (a[k] - mean) * inv * gain[k] + bias[k];
        store<V>(y + row * n + i, a);
    }
}

void cuda_norm_again(struct cuda *d, size_t n_rows, size_t n, const float *x,
                     const struct cuda_norm *w, const float *stat, void *y)
{
    unsigned blocks = blocks_for(n_rows, ROW_WARPS);
    by_type(d, n, [&](auto number, auto width) {
        typedef decltype(number) T;
        launch(d, "a norm again", norm_again<T, decltype(width)::v>, dim3(blocks),
               ROW_THREADS, 0, n_rows, n, x, *w, stat, (T *)y);
    });
}

/* With z = (x - mean) inv and dz = dy gain: dx = inv (dz - mean(dz) - z mean(dz z)). */
template <typename T, int V>
static __global__ void norm_back(size_t n_rows, unsigned n, const float *x,
                                 const float *gain, const float *stat, const T *dy,
                                 float *dx, struct dropout drop, T *next)
{
    size_t row = row_of_warp(), at = row * n;
    if (row >= n_rows)
        return;
    float mean = stat[row * 2], inv = stat[row * 2 + 1], sum = 0, sum_z = 0;
    float z[V], dz[V], a[V];
    FOR_LANE(i, n)
    {
        load<V>(x + at + i, z);
        load<V>(dy + at + i, dz);
        load<V>(gain + i, a);
#pragma unroll
        for (int k = 0; k < V; k++) {
            sum += dz[k] * a[k];
            sum_z += dz[k] * a[k] * ((z[k] - mean) * inv);
        }
    }
    float m = warp_sum(sum) / (float)n, mz = warp_sum(sum_z) / (float)n;
    struct dropout_row key = dropout_row_of(drop, row, n);
    FOR_LANE(i, n)
    {
        float old[V];
        load<V>(x + at + i, z);
        load<V>(dy + at + i, dz);
        load<V>(gain + i, a);
        load<V>(dx + at + i, old);
#pragma unroll
        for (int k = 0; k < V; k++)
            a[k] = old[k] + (dz[k] * a[k] - m - (z[k] - mean) * inv * mz) * inv;
        store<V>(dx + at + i, a);
        if (next) {
#pragma unroll
            for (int k = 0; k < V; k++)
                a[k] = dropped(drop, key.key, key.first + i + k, a[k]);
            store<V>(next + at + i, a);
        }
    }
}

void cuda_norm_back(struct cuda *d, size_t n_rows, size_t n, const float *x,
                    const float *gain, const float *stat, const void *dy, float *dx,
                    const struct cuda_drop *drop, void *next)
{
    unsigned blocks = blocks_for(n_rows, ROW_WARPS);
    by_type(d, n, [&](auto number, auto width) {
        typedef decltype(number) T;
        launch(d, "a norm, backward", norm_back<T, decltype(width)::v>, dim3(blocks),
               ROW_THREADS, 0, n_rows, n, x, gain, stat, (const T *)dy, dx,
               dropout_of(drop), (T *)next);
    });
}

/* ---- GELU: x / (1 + exp(-2u)), the constants of kern/kern_impl.h ---- */

static constexpr float GELU_C1 = -0x1.988454p+0f, GELU_C3 = -0x1.2444f2p-4f;

/* GELU(x) = x times this. */
static __device__ __forceinline__ float gelu_share(float x)
{
    return 1 / (1 + expf(x * (x * x * GELU_C3 + GELU_C1)));
}

template <typename T, int V>
static __global__ void gelu(unsigned n, const T *x, const float *bias, T *y)
{
    size_t at = (size_t)blockIdx.x * n;
    FOR_THREAD(i, n)
    {
        float a[V], b[V];
        load<V>(x + at + i, a);
        load<V>(bias + i, b);
#pragma unroll
        for (int k = 0; k < V; k++) {
            float v = a[k] + b[k];
            a[k] = v * gelu_share(v);
        }
        store<V>(y + at + i, a);
    }
}

/* s = 1 / (1 + exp(-2u)): d(x s) = s + x s (1 - s) 2u'. */
template <typename T, int V>
static __global__ void gelu_back(unsigned n, const T *x, const float *bias, T *dy, T *y)
{
    size_t at = (size_t)blockIdx.x * n;
    FOR_THREAD(i, n)
    {
        float a[V], b[V], g[V];
        load<V>(x + at + i, a);
        load<V>(bias + i, b);
        load<V>(dy + at + i, g);
#pragma unroll
        for (int k = 0; k < V; k++) {
            float v = a[k] + b[k], s = gelu_share(v);
            float slope = v * v * (3 * GELU_C3) + GELU_C1;
            a[k] = v * s;
            g[k] *= s - v * s * (1 - s) * slope;
        }
        store<V>(dy + at + i, g);
        store<V>(y + at + i, a);
    }
}

static unsigned threads_for(size_t n)
{
    return n >= 1024 ? 256 : 64;
}

void cuda_gelu(struct cuda *d, size_t n_rows, size_t n, const void *x,
               const float *bias, void *y)
{
    by_type(d, n, [&](auto number, auto width) {
        typedef decltype(number) T;
        launch(d, "GELU", gelu<T, decltype(width)::v>, dim3((unsigned)n_rows),
               threads_for(n), 0, n, (const T *)x, bias, (T *)y);
    });
}

void cuda_gelu_back(struct cuda *d, size_t n_rows, size_t n, const void *x,
                    const float *bias, void *dy, void *y)
{
    by_type(d, n, [&](auto number, auto width) {
        typedef decltype(number) T;
        launch(d, "GELU, backward", gelu_back<T, decltype(width)::v>,
               dim3((unsigned)n_rows), threads_for(n), 0, n, (const T *)x, bias,
               (T *)dy, (T *)y);
    });
}

/* ---- sums over rows ---- */

/* A block has 32 V columns of SUM_ROWS rows: each warp sums every eighth row, then the
 * warps' sums are added one after another; a second kernel adds the blocks'. */
template <int V> struct sum_shared {
    float of[2][ROW_WARPS][WARP * V];
};

/* partial [2][n_parts][n]: dy times z (where x is), dy. */
template <typename T, int V>
static __global__ void sum_parts(size_t n_rows, unsigned n, const T *dy, const float *x,
                                 const float *stat, float *partial)
{
    struct sum_shared<V> &shared = block_shared<struct sum_shared<V>>();
    unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP * V;
    unsigned column = blockIdx.x * WARP * V + lane;
    size_t first = (size_t)blockIdx.y * SUM_ROWS, last = first + SUM_ROWS;
    float sum[V] = {}, sum_z[V] = {};
    for (size_t row = first + warp; row < last && row < n_rows && column < n;
         row += ROW_WARPS) {
        float a[V], z[V];
        load<V>(dy + row * n + column, a);
        if (x)
            load<V>(x + row * n + column, z);
#pragma unroll
        for (int k = 0; k < V; k++) {
            sum[k] += a[k];
            if (x)
                sum_z[k] += a[k] * ((z[k] - stat[row * 2]) * stat[row * 2 + 1]);
        }
    }
#pragma unroll
    for (int k = 0; k < V; k++) {
        shared.of[0][warp][lane + k] = sum_z[k];
        shared.of[1][warp][lane + k] = sum[k];
    }
    __syncthreads();
    for (unsigned i = threadIdx.x; i < 2 * WARP * V; i += ROW_THREADS) {
        unsigned which = i / (WARP * V), of = i % (WARP * V);
        float all = shared.of[which][0][of];
#pragma unroll
        for (int w = 1; w < ROW_WARPS; w++)
            all += shared.of[which][w][of];
        if (blockIdx.x * WARP * V + of < n)
            partial[((size_t)which * gridDim.y + blockIdx.y) * n +
                    blockIdx.x * WARP * V + of] = all;
    }
}

static __global__ void add_parts(unsigned n_parts, unsigned n, const float *partial,
                                 float *dgain, float *sum)
{
    unsigned column = blockIdx.x * blockDim.x + threadIdx.x;
    float *to = blockIdx.y ? sum : dgain;
    if (column >= n || !to)
        return;
    const float *from = partial + (size_t)blockIdx.y * n_parts * n + column;
    float all = 0;
#pragma unroll 8
    for (unsigned p = 0; p < n_parts; p++)
        all += from[(size_t)p * n];
    to[column] += all;
}

size_t cuda_sum_floats(size_t n_rows, size_t n)
{
    return 2 * blocks_for(n_rows, SUM_ROWS) * n;
}

void cuda_sum_rows(struct cuda *d, size_t n_rows, size_t n, const void *dy,
                   const float *x, const float *stat, float *partial, float *dgain,
                   float *sum)
{
    enum { THREADS = 64 };
    unsigned parts = blocks_for(n_rows, SUM_ROWS);
    if (!dgain && !sum)
        return;
    by_type(d, n, [&](auto number, auto width) {
        typedef decltype(number) T;
        constexpr int V = decltype(width)::v;
        launch(d, "a sum over rows", sum_parts<T, V>,
               dim3(blocks_for(n, WARP * V), parts), ROW_THREADS,
               sizeof(struct sum_shared<V>), n_rows, n, (const T *)dy, dgain ? x : NULL,
               stat, partial);
    });
    launch(d, "a sum over rows", add_parts, dim3(blocks_for(n, THREADS), 2), THREADS, 0,
           parts, n, (const float *)partial, dgain, sum);
}
