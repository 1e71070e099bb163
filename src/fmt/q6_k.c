/* Owns reading Q6_K: 256 numbers share an f16 scale, 16 of them an 8-bit one, 6 bits
 * each, 6.56 bits a number.  llama.cpp gives this type to the head of most of its
 * files, so we read it; we do not write it. */
#include "fmt/fmt_impl.h"

/* Element i is in half i / 128, quarter q = i % 128 / 32 of it, at l = i % 32. Quarters
 * 0 and 2 share 32 bytes of low bits, as do 1 and 3; all four share 32 bytes of high
 * bits. */
void fmt_q6_k_decode(const void *blocks, float *x, size_t n)
{
    const struct q6_k *b = blocks;
    for (; n; n -= QK_K, x += QK_K, b++) {
        float d = fmt_f16_to_f32(b->d);
        for (int i = 0; i < QK_K; i++) {
            int half = i / 128, q = i % 128 / 32, l = i % 32;
            int low = b->low[half * 64 + (q & 1) * 32 + l] >> (q / 2 * 4) & 15;
            int high = b->high[half * 32 + l] >> (2 * q) & 3;
            x[i] = d * (float)b->scale[half * 8 + q * 2 + l / 16] *
                   (float)((low | high << 4) - 32);
        }
    }
}
