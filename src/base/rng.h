/* Random numbers, the same on every machine: xoshiro256** (Blackman and Vigna 2018)
 * seeded by splitmix64. */
#ifndef RUNT_BASE_RNG_H
#define RUNT_BASE_RNG_H

#include <stdint.h>

struct rng {
    uint64_t s[4];
};

void rng_seed(struct rng *r, uint64_t seed);
uint64_t rng_u64(struct rng *r);
double rng_unit(struct rng *r);  /* uniform in [0, 1), 53 bits */
float rng_normal(struct rng *r); /* mean 0, variance 1 (Irwin-Hall would be cheaper, but
                                    this is exact: polar Box-Muller) */

#endif
