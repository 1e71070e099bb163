/* Owns the search for the likeliest token, which is all of a greedy draw: a server
 * makes it for every answer while its other threads wait. */
#include "sample/sample_impl.h"

#include <string.h>

enum { BLOCK = 256 };

/* A whole number that is in the order of the logits, zeros of both signs the same:
 * compilers compare many of them at a time, also where a float may be no number. */
static inline int32_t order_of(float logit, int32_t *broken)
{
    int32_t x;
    memcpy(&x, &logit, sizeof x);
    *broken |= (x & 0x7f800000) == 0x7f800000;
    return x < 0 ? (x ^ 0x7fffffff) + 1 : x;
}

/* The block of the first of the likeliest is known at the end; only there it is looked
 * for. */
static inline __attribute__((always_inline)) int32_t search(const float *logits,
                                                            size_t n)
{
    int32_t most = INT32_MIN, broken = 0;
    size_t at = 0;
    for (size_t block = 0; block < n; block += BLOCK) {
        size_t end = n - block < BLOCK ? n : block + BLOCK;
        int32_t here = INT32_MIN;
        for (size_t i = block; i < end; i++) {
            int32_t x = order_of(logits[i], &broken);
            here = x > here ? x : here;
        }
        if (here > most) {
            most = here;
            at = block;
        }
    }
    if (broken)
        return -1;
    while (order_of(logits[at], &broken) != most)
        at++;
    return (int32_t)at;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static int32_t search_avx2(const float *logits,
                                                           size_t n)
{
    return search(logits, n);
}
#endif

int32_t likeliest(const float *logits, size_t n)
{
#if defined(__x86_64__)
    /* what is asked here is known since the start and costs nothing; CPUID would */
    if (__builtin_cpu_supports("avx2"))
        return search_avx2(logits, n);
#endif
    return search(logits, n);
}
