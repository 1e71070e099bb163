/* CUDA's products of 16 x 16 squares by a warp, emulated.  Which lane has which numbers
 * is scrambled: nobody may rely on it. */
#ifndef EMU_MMA_H
#define EMU_MMA_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <type_traits>

/* d = a b + c of a warp's lanes, 8 numbers of each square in every lane. */
extern "C" void emu_mma(float *d, const float *a, const float *b, const float *c);
extern "C" void emu_expect(bool ok, const char *what);

namespace nvcuda
{
namespace wmma
{

struct matrix_a {
};
struct matrix_b {
};
struct accumulator {
};
struct row_major {
};
struct col_major {
};
enum layout_t { mem_row_major, mem_col_major };

/* Of the square's 256 numbers, in rows. */
static inline unsigned emu_place(unsigned e)
{
    return ((threadIdx.x % 32 * 8 + e) * 37 + 11) % 256;
}

template <typename Use, int M, int N, int K, typename T, typename Order = void>
struct fragment {
    static_assert(M == 16 && N == 16 && K == 16, "the size that is emulated");
    enum { num_elements = 8 };
    T x[num_elements];
};

template <typename F> static inline void fill_fragment(F &f, float v)
{
    for (int e = 0; e < 8; e++)
        f.x[e] = v;
}

static inline void emu_check(const void *p, unsigned step, unsigned size)
{
    emu_expect((uintptr_t)p % 32 == 0, "a square that is not aligned to 32 bytes");
    emu_expect(step * size % 16 == 0,
               "a square's step that is not a multiple of 16 bytes");
}

template <typename Use, typename T, typename Order>
static inline void load_matrix_sync(fragment<Use, 16, 16, 16, T, Order> &f, const T *p,
                                    unsigned step)
{
    emu_check(p, step, sizeof *p);
    for (unsigned e = 0; e < 8; e++) {
        unsigned at = emu_place(e), row = at / 16, col = at % 16;
        bool by_rows = std::is_same<Order, row_major>::value;
        f.x[e] = p[by_rows ? row * step + col : col * step + row];
    }
}

static inline void load_matrix_sync(fragment<accumulator, 16, 16, 16, float> &f,
                                    const float *p, unsigned step, layout_t order)
{
    emu_check(p, step, sizeof *p);
    for (unsigned e = 0; e < 8; e++) {
        unsigned at = emu_place(e), row = at / 16, col = at % 16;
        f.x[e] = p[order == mem_row_major ? row * step + col : col * step + row];
    }
}

template <typename A, typename B>
static inline void mma_sync(fragment<accumulator, 16, 16, 16, float> &d,
                            const fragment<matrix_a, 16, 16, 16, __nv_bfloat16, A> &a,
                            const fragment<matrix_b, 16, 16, 16, __nv_bfloat16, B> &b,
                            const fragment<accumulator, 16, 16, 16, float> &c)
{
    float x[8], y[8];
    for (int e = 0; e < 8; e++) {
        x[e] = __bfloat162float(a.x[e]);
        y[e] = __bfloat162float(b.x[e]);
    }
    emu_mma(d.x, x, y, c.x);
}

} // namespace wmma
} // namespace nvcuda

#endif
