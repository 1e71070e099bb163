/* Levels, buffers and inputs for the test and the benchmark of the attention kernels;
 * see attn_fixture.h. */
#include "attn_fixture.h"

#include "base/rng.h"
#include "kern/kern_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

const char *const kv_names[KERN_N_KV] = {"f16", "q8", "f32"};

/* ---- levels ---- */

struct level levels[CPU_N_LEVELS + 1];
size_t n_levels;
const struct kern_table *ref;

static void add_level(const char *name, const struct kern_table *t)
{
    levels[n_levels].name = name;
    levels[n_levels++].t = *t;
}

int find_levels(void)
{
    ref = kern_table_for(CPU_REF);
    for (enum cpu_level l = CPU_REF; l < CPU_N_LEVELS; l++) {
        if (cpu_has(l) && kern_table_for(l))
            add_level(cpu_level_name(l), kern_table_for(l));
        else
            printf("# level %s: not on this machine, not tested\n", cpu_level_name(l));
    }
#ifdef KERN_SIMDE
    if (cpu_has(CPU_AVX2)) {
        struct kern_table t = *ref;
        kern_fill_avx512_attn_simde(&t);
        add_level("avx512 (emulated)", &t);
    }
#else
    printf("# no SIMDe: AVX-512 is not emulated\n");
#endif
    return 0;
}

/* ---- memory ---- */

enum { BUFFER_BYTES = 1 << 16 };

static uint8_t *buffer_end[N_BUFFERS];
static struct rng rng = {{1, 2, 3, 4}};

bool make_rooms(void)
{
    rng_seed(&rng, 21);
    int behind = PROT_NONE;
#if defined(__x86_64__) /* QEMU 7.2's masked loads fault where the mask is zero */
    if (getenv("RUNT_EMULATED"))
        behind = PROT_READ;
#endif
    for (int i = 0; i < N_BUFFERS; i++) {
        uint8_t *p = mmap(NULL, 2 * BUFFER_BYTES, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED || mprotect(p + BUFFER_BYTES, BUFFER_BYTES, behind))
            return false;
        buffer_end[i] = p + BUFFER_BYTES;
    }
    return true;
}

void *room(int i, size_t bytes)
{
    if (bytes + GUARD > BUFFER_BYTES)
        abort();
    memset(buffer_end[i] - bytes - GUARD, POISON, bytes + GUARD);
    return buffer_end[i] - bytes;
}

bool is_poison(const void *p, size_t bytes)
{
    const uint8_t *b = p;
    for (size_t i = 0; i < bytes; i++)
        if (b[i] != POISON)
            return false;
    return true;
}

bool is_guarded(const void *p)
{
    return is_poison((const uint8_t *)p - GUARD, GUARD);
}

/* ---- numbers ---- */

const char *const pattern_names[N_PATTERNS] = {
    "normal", "small", "tiny",   "huge f16", "huge f32", "any",
    "equal",  "zeros", "-zeros", "special",  "one inf"};

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

uint64_t draw_bits(void)
{
    return rng_u64(&rng);
}

double draw_unit(void)
{
    return rng_unit(&rng);
}

void draw_anew(void)
{
    rng_seed(&rng, 21);
}

float draw(enum pattern p)
{
    uint32_t u = (uint32_t)(rng_u64(&rng) >> 32);
    switch (p) {
    case SMALL:
        return rng_normal(&rng) * 0x1p-22f;
    case TINY:
        return float_of(u & 0x80ffffff);
    case HUGE_F16:
        return u % 4 ? rng_normal(&rng) * 4e4f : u & 64 ? 65519.99f : -65520;
    case HUGE_F32:
        return rng_normal(&rng) * 7e37f;
    case ANY:
        return float_of((u & 0x7f800000) == 0x7f800000 ? u ^ 0x40000000 : u);
    case EQUAL:
        return 0.7f;
    case ZEROS:
        return 0;
    case NEG_ZEROS:
        return -0.0f;
    case SPECIAL:
        if (u % 8 == 0)
            return u & 64 ? NAN : u & 128 ? INFINITY : -INFINITY;
        return rng_normal(&rng);
    case ONE_INF:
        return u % 40 == 0 ? (u & 64 ? INFINITY : -INFINITY) : rng_normal(&rng);
    default:
        return rng_normal(&rng);
    }
}

void draw_row(enum pattern p, size_t n, float *x)
{
    for (size_t i = 0; i < n; i++)
        x[i] = draw(p);
}

float *draw_floats(int i, enum pattern p, size_t n)
{
    float *x = room(i, n * sizeof *x);
    draw_row(p, n, x);
    return x;
}

void fill_cache(enum kern_kv kv, bool is_key, enum pattern p, size_t n_dim,
                size_t n_pos, size_t n_stripes, void *stripes)
{
    const struct kern_attn *a = &ref->attn[kv];
    size_t bytes = kern_stripe_bytes(kv, n_dim);
    float x[MAX_DIM];
    memset(stripes, rng_u64(&rng) % 4 ? 0xff : 0x80, n_stripes * bytes);
    for (size_t i = 0; i < n_pos; i++) {
        void *stripe = (char *)stripes + i / STRIPE * bytes;
        draw_row(p, n_dim, x);
        (is_key ? a->store_key : a->store_value)(n_dim, x, stripe, i % STRIPE);
    }
}
