/* What the tests of rounding and zeroing with feedback share. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "gptq_fixture.h"

#include "base/mem.h"
#include "base/rng.h"

#include <stdio.h>
#include <string.h>

const struct blas *fixture_blas(void)
{
    const struct blas *b = NULL;
    struct runt_err err;
    if (blas_get(&b, &err)) {
        assert_int_equal(err.code, RUNT_E_UNSUPPORTED);
        assert_non_null(strstr(err.msg, "libopenblas0-pthread"));
        skip(); /* not on emulated processors */
    }
    return b;
}

void *fixture_room(size_t n, size_t size)
{
    void *p = mem_array(n, size);
    assert_non_null(p);
    return p;
}

struct calib_moment fixture_moment(size_t n, size_t n_tokens, uint64_t seed)
{
    enum { DIRECTIONS = 12 };
    struct calib_moment m = {.n = n, .h = fixture_room(n * n, sizeof(float))};
    struct rng rng;
    float *basis = fixture_room(DIRECTIONS * n, sizeof *basis),
          *x = fixture_room(n, sizeof *x);
    rng_seed(&rng, seed);
    for (size_t i = 0; i < DIRECTIONS * n; i++)
        basis[i] = rng_normal(&rng);
    for (size_t t = 0; t < n_tokens; t++) {
        for (size_t i = 0; i < n; i++)
            x[i] = 0.1f * rng_normal(&rng);
        for (size_t d = 0; d < DIRECTIONS; d++) {
            float a = rng_normal(&rng);
            for (size_t i = 0; i < n; i++)
                x[i] += a * basis[d * n + i];
        }
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j <= i; j++)
                m.h[i * n + j] += x[i] * x[j];
    }
    snprintf(m.name, sizeof m.name, "a moment");
    mem_free(basis);
    mem_free(x);
    return m;
}
