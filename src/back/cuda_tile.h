/* Squares of 64 x 64 numbers in a block's shared memory, and products of them that stay
 * in its threads' registers: what attention is made of (cuda_attention*.cu).
 *
 * In bfloat16 tensor cores multiply, by the warp-level functions of CUDA's mma.h; which
 * thread has which number of a result is theirs to choose, so it is looked up once
 * (tile_places).  Floats are multiplied by hand, 8 x 4 results a thread. */
#ifndef RUNT_CUDA_TILE_H
#define RUNT_CUDA_TILE_H

#include "back/cuda_impl.h"

#include <mma.h>

enum { TILE = 64, TILE_THREADS = 128 };

/* Numbers from row to row in shared memory: such that a warp's reads meet few banks
 * twice, and tensor cores have their alignment. */
template <typename T> struct tile_step;
template <> struct tile_step<float> {
    enum { OF = TILE + 1, SCORES = TILE + 1 };
};
template <> struct tile_step<bf16> {
    enum { OF = TILE + 8, SCORES = TILE + 4 /* floats */ };
};

/* c += a b over `depth` products a number (a multiple of 16), in the form of gemm.h. */
template <typename T> struct tile_sum;

/* f(row, column, number) for all numbers of a thread. */
template <typename T> struct tile_places;

/* ---- floats ---- */

template <> struct tile_places<float> {
    __device__ __forceinline__ void find(float *)
    {
    }
};

template <> struct tile_sum<float> {
    enum { ROWS = 8, COLS = 4, ACROSS = TILE / COLS, DOWN = TILE / ROWS };
    float c[ROWS][COLS];

    __device__ __forceinline__ void clear()
    {
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < COLS; j++)
                c[i][j] = 0;
    }

    template <enum gemm_form FORM>
    __device__ __forceinline__ void add(const float *a, unsigned a_step, const float *b,
                                        unsigned b_step, unsigned depth)
    {
        unsigned row = threadIdx.x / ACROSS, col = threadIdx.x % ACROSS;
#pragma unroll 4
        for (unsigned k = 0; k < depth; k++) {
            float x[ROWS], y[COLS];
#pragma unroll
            for (int i = 0; i < ROWS; i++)
                x[i] = FORM == GEMM_TN ? a[k * a_step + row + i * DOWN]
                                       : a[(row + i * DOWN) * a_step + k];
#pragma unroll
            for (int j = 0; j < COLS; j++)
                y[j] = FORM == GEMM_NT ? b[(col + j * ACROSS) * b_step + k]
                                       : b[k * b_step + col + j * ACROSS];
#pragma unroll
            for (int i = 0; i < ROWS; i++)
#pragma unroll
                for (int j = 0; j < COLS; j++)
                    c[i][j] += x[i] * y[j];
        }
    }

    template <typename F>
    __device__ __forceinline__ void each(const tile_places<float> &, F f)
    {
        unsigned row = threadIdx.x / ACROSS, col = threadIdx.x % ACROSS;
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < COLS; j++)
                f(row + i * DOWN, col + j * ACROSS, c[i][j]);
    }

    template <typename F>
    __device__ __forceinline__ void each_with(const tile_places<float> &,
                                              tile_sum<float> &other, F f)
    {
        unsigned row = threadIdx.x / ACROSS, col = threadIdx.x % ACROSS;
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < COLS; j++)
                f(row + i * DOWN, col + j * ACROSS, c[i][j], other.c[i][j]);
    }
};

/* ---- bfloat16 ---- */

enum { FRAG = 16, FRAG_NUMBERS = FRAG * FRAG / WARP };
typedef nvcuda::wmma::fragment<nvcuda::wmma::accumulator, FRAG, FRAG, FRAG, float>
    tile_frag;

template <> struct tile_places<bf16> {
    unsigned char row[FRAG_NUMBERS], col[FRAG_NUMBERS];

    /* Load a square whose numbers say where they are.  All threads; scratch [256] is
     * free after the next barrier. */
    __device__ __forceinline__ void find(float *scratch)
    {
        tile_frag f;
        for (unsigned i = threadIdx.x; i < FRAG * FRAG; i += TILE_THREADS)
            scratch[i] = (float)i;
        __syncthreads();
        nvcuda::wmma::load_matrix_sync(f, scratch, FRAG, nvcuda::wmma::mem_row_major);
#pragma unroll
        for (int e = 0; e < FRAG_NUMBERS; e++) {
            row[e] = (unsigned char)((int)f.x[e] / FRAG);
            col[e] = (unsigned char)((int)f.x[e] % FRAG);
        }
    }
};

/* Four warps, each a quarter of 2 x 2 fragments. */
template <> struct tile_sum<bf16> {
    enum { SIDE = 2 };
    tile_frag c[SIDE][SIDE];

    static __device__ __forceinline__ unsigned first_row()
    {
        return threadIdx.x / WARP / 2 * (SIDE * FRAG);
    }

    static __device__ __forceinline__ unsigned first_col()
    {
        return threadIdx.x / WARP % 2 * (SIDE * FRAG);
    }

    __device__ __forceinline__ void clear()
    {
#pragma unroll
        for (int i = 0; i < SIDE; i++)
#pragma unroll
            for (int j = 0; j < SIDE; j++)
                nvcuda::wmma::fill_fragment(c[i][j], 0.0f);
    }

    template <enum gemm_form FORM>
    __device__ __forceinline__ void add(const bf16 *a, unsigned a_step, const bf16 *b,
                                        unsigned b_step, unsigned depth)
    {
        using namespace nvcuda::wmma;
        typedef typename choose<FORM == GEMM_TN, col_major, row_major>::type a_order;
        typedef typename choose<FORM == GEMM_NT, col_major, row_major>::type b_order;
        for (unsigned k = 0; k < depth; k += FRAG) {
            fragment<matrix_a, FRAG, FRAG, FRAG, bf16, a_order> x[SIDE];
            fragment<matrix_b, FRAG, FRAG, FRAG, bf16, b_order> y[SIDE];
#pragma unroll
            for (int i = 0; i < SIDE; i++) {
                unsigned row = first_row() + i * FRAG, col = first_col() + i * FRAG;
                load_matrix_sync(
                    x[i], a + (FORM == GEMM_TN ? k * a_step + row : row * a_step + k),
                    a_step);
                load_matrix_sync(
                    y[i], b + (FORM == GEMM_NT ? col * b_step + k : k * b_step + col),
                    b_step);
            }
#pragma unroll
            for (int i = 0; i < SIDE; i++)
#pragma unroll
                for (int j = 0; j < SIDE; j++)
                    mma_sync(c[i][j], x[i], y[j], c[i][j]);
        }
    }

    template <typename F>
    __device__ __forceinline__ void each(const tile_places<bf16> &at, F f)
    {
#pragma unroll
        for (int i = 0; i < SIDE; i++)
#pragma unroll
            for (int j = 0; j < SIDE; j++)
#pragma unroll
                for (int e = 0; e < FRAG_NUMBERS; e++)
                    f(first_row() + i * FRAG + at.row[e],
                      first_col() + j * FRAG + at.col[e], c[i][j].x[e]);
    }

    template <typename F>
    __device__ __forceinline__ void each_with(const tile_places<bf16> &at,
                                              tile_sum<bf16> &other, F f)
    {
#pragma unroll
        for (int i = 0; i < SIDE; i++)
#pragma unroll
            for (int j = 0; j < SIDE; j++)
#pragma unroll
                for (int e = 0; e < FRAG_NUMBERS; e++)
                    f(first_row() + i * FRAG + at.row[e],
                      first_col() + j * FRAG + at.col[e], c[i][j].x[e],
                      other.c[i][j].x[e]);
    }

  private:
    template <bool FIRST, typename A, typename B> struct choose {
        typedef A type;
    };
    template <typename A, typename B> struct choose<false, A, B> {
        typedef B type;
    };
};

/* ---- between global and shared memory ---- */

/* A square of rows that lie step apart: n_rows and n_cols of it are there (at most 64),
 * the rest is 0; bias [n_cols], or NULL, is added.  packs: what is there can be read by
 * four.  All threads; a barrier comes after. */
template <typename T>
static __device__ __forceinline__ void tile_load(T *to, const T *from, size_t step,
                                                 unsigned n_rows, unsigned n_cols,
                                                 bool packs, const float *bias)
{
    enum { V = 4, OF = tile_step<T>::OF };
    for (unsigned i = threadIdx.x; i < TILE * TILE / V; i += TILE_THREADS) {
        unsigned row = i / (TILE / V), col = i % (TILE / V) * V;
        float x[V] = {};
        if (packs && row < n_rows && col < n_cols)
            load<V>(from + row * step + col, x);
#pragma unroll
        for (unsigned k = 0; k < V; k++) {
            bool is = row < n_rows && col + k < n_cols;
            if (!packs && is)
                x[k] = to_float(from[row * step + col + k]);
            if (bias && is)
                x[k] += bias[col + k];
            to[row * OF + col + k] = from_float<T>(x[k]);
        }
    }
}

/* The other way round. */
template <typename T>
static __device__ __forceinline__ void tile_store(T *to, size_t step, unsigned n_rows,
                                                  unsigned n_cols, bool packs,
                                                  const T *from)
{
    enum { V = 4, OF = tile_step<T>::OF };
    for (unsigned i = threadIdx.x; i < TILE * TILE / V; i += TILE_THREADS) {
        unsigned row = i / (TILE / V), col = i % (TILE / V) * V;
        float x[V];
        if (row >= n_rows || col >= n_cols)
            continue;
#pragma unroll
        for (unsigned k = 0; k < V; k++)
            x[k] = to_float(from[row * OF + col + k]);
        if (packs)
            store<V>(to + row * step + col, x);
        else
            for (unsigned k = 0; k < V && col + k < n_cols; k++)
                to[row * step + col + k] = from_float<T>(x[k]);
    }
}

#endif
