/* Buffers and inputs for the tests of the kernels; see kern_fixture.h. */
#include "kern_fixture.h"

#include "base/rng.h"
#include "fmt/r4.h"
#include "kern/kern_impl.h"

#include <setjmp.h> /* which cmocka needs before it */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { GAP = 12, POISON_BYTE = 0xa5 };

static char *buffer_end[N_BUFFERS];
static struct rng rng;

/* ---- levels ---- */

struct level levels[CPU_N_LEVELS + 3];
size_t n_levels;

#ifdef KERN_SIMDE
static void add_emulated(const char *name, void (*fill)(struct kern_table *t))
{
    levels[n_levels].name = name;
    levels[n_levels].t = *kern_table_for(CPU_REF);
    fill(&levels[n_levels++].t);
}
#endif

void find_levels(void)
{
    for (enum cpu_level l = CPU_AVX2; l < CPU_N_LEVELS; l++) {
        const struct kern_table *t = kern_table_for(l);
        if (!t || !cpu_has(l)) {
            print_message("# level %s: not on this machine, not tested\n",
                          cpu_level_name(l));
            continue;
        }
        levels[n_levels].name = cpu_level_name(l);
        levels[n_levels++].t = *t;
    }
#ifdef KERN_SIMDE
    if (cpu_has(CPU_AVX2)) {
        add_emulated("avxvnni (emulated)", kern_fill_avxvnni_simde);
        add_emulated("avx512vl (emulated)", kern_fill_avx512vl_simde);
        add_emulated("avx512 (emulated)", kern_fill_avx512_simde);
    }
#else
    print_message("# no SIMDe: VNNI and AVX-512 are not emulated\n");
#endif
}

bool same(float a, float b)
{
    return !memcmp(&a, &b, sizeof a) || (isnan(a) && isnan(b));
}

bool same_act(const struct kern_act *a, const struct kern_act *b)
{
    struct kern_act c = *b;
    c.d = a->d;
    return same(a->d, b->d) && !memcmp(a, &c, sizeof c);
}

/* ---- buffers ---- */

bool make_buffers(void)
{
    rng_seed(&rng, 20);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t size = ((1 << 20) + page - 1) / page * page;
    int behind = PROT_NONE;
#if defined(__x86_64__) /* QEMU 7.2's masked loads fault where the mask is zero */
    if (getenv("RUNT_EMULATED"))
        behind = PROT_READ;
#endif
    for (int i = 0; i < N_BUFFERS; i++) {
        char *p = mmap(NULL, size + page, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED || mprotect(p + size, page, behind))
            return false;
        buffer_end[i] = p + size;
    }
    return true;
}

void *buffer(int i, size_t bytes)
{
    return buffer_end[i] - bytes;
}

float *poisoned(int i, size_t n)
{
    float *p = buffer(i, (n + GUARD) * sizeof *p);
    memset(p, POISON_BYTE, (n + GUARD) * sizeof *p);
    return p + GUARD;
}

bool is_poison(float f)
{
    uint8_t poison[sizeof f];
    memset(poison, POISON_BYTE, sizeof poison);
    return !memcmp(&f, poison, sizeof f);
}

bool guards_hold(const float *p)
{
    for (int i = 1; i <= GUARD; i++)
        if (!is_poison(p[-i]))
            return false;
    return true;
}

/* ---- inputs ---- */

const char *const pattern_names[] = {"normal", "small",  "sinking", "denormal",
                                     "huge",   "any",    "equal",   "zeros",
                                     "-zeros", "special"};

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static float draw(enum pattern p)
{
    uint32_t u = (uint32_t)(rng_u64(&rng) >> 32);
    switch (p) {
    case SMALL:
        return rng_normal(&rng) * 1e-23f;
    case SINKING:
        return 0x1p-24f;
    case DENORMAL:
        return float_of(u & 0x80ffffff);
    case HUGE_:
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
    default:
        return rng_normal(&rng);
    }
}

float *draw_floats(int i, enum pattern p, size_t n)
{
    float *x = buffer(i, n * sizeof *x);
    for (size_t k = 0; k < n; k++)
        x[k] = draw(p);
    return x;
}

/* Half precision with the pattern's meaning. */
static uint16_t draw_f16(enum pattern p)
{
    uint16_t u = (uint16_t)rng_u64(&rng);
    switch (p) {
    case SMALL:
    case DENORMAL:
        return u & 0x83ff;
    case HUGE_:
        return (u & 0x8000) | 0x7bff;
    case ANY:
        return (u & 0x7c00) == 0x7c00 ? u ^ 0x4000 : u;
    case SPECIAL:
        return u % 8 ? fmt_f32_to_f16(rng_normal(&rng)) : u | 0x7c00;
    default:
        return fmt_f32_to_f16(draw(p));
    }
}

void draw_weights(uint8_t *w, size_t dot, enum pattern p, size_t n)
{
    for (size_t i = 0; i < n; i++, w += kern_dots[dot].bytes) {
        uint16_t h = draw_f16(p);
        float f = draw(p);
        uint32_t u;
        memcpy(&u, &f, sizeof u);
        if (kern_dots[dot].type == FMT_BF16)
            h = (uint16_t)(u >> 16);
        if (kern_dots[dot].type == FMT_F32)
            memcpy(w, &u, 4);
        else
            memcpy(w, &h, 2);
    }
}

char *draw_vectors(enum pattern p, size_t n, size_t *stride)
{
    *stride = n * sizeof(float) + GAP;
    char *x = buffer(IN_X, MAX_X * *stride - GAP);
    memset(x, 0xff, MAX_X * *stride - GAP);
    for (size_t k = 0; k < MAX_X; k++) {
        float *f = (void *)(x + k * *stride);
        for (size_t i = 0; i < n; i++)
            f[i] = p == SINKING ? -0x1p-140f : draw(p);
    }
    return x;
}

/* ---- tiles ---- */

/* Bytes of codes: the extremes are codes 0 and 15, -128 and 127. */
static void draw_codes(uint8_t *w, bool is_4, enum pattern p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t u = rng_u64(&rng);
        uint8_t low = is_4 ? 0 : 0x80, high = is_4 ? 0xff : 0x7f;
        w[i] = p == EQUAL || p == ZEROS ? low
               : p == NEG_ZEROS         ? high
               : p == HUGE_ ? (u & 256 ? low : high) ^ (is_4 && u & 512 ? 15 : 0)
                            : (uint8_t)u;
    }
}

static void draw_f16s(uint8_t *w, enum pattern p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h = draw_f16(p);
        memcpy(w + 2 * i, &h, 2);
    }
}

void draw_tiles(uint8_t *w, enum kern_tile k, enum pattern p, size_t n_cols,
                size_t n_tiles)
{
    size_t n_groups = kern_n_groups(n_cols), bytes = kern_tile_bytes(k, n_cols),
           n_scales = k == KERN_TILE_Q4_1 ? 64 : 32,
           n_codes = k == KERN_TILE_Q8_0 ? 1024 : 512;
    for (size_t t = 0; t < n_tiles; t++, w += bytes) {
        uint8_t *group = w;
        draw_codes(w, k != KERN_TILE_Q8_0, p, bytes);
        if (k == KERN_TILE_R4) {
            draw_f16s(w, p, R4_ROWS);
            for (size_t i = 0; i < n_groups * R4_ROWS; i++) /* -128 and 127 too */
                w[2 * R4_ROWS + i] = (uint8_t)(p == EQUAL   ? 0x80
                                               : p == HUGE_ ? 0x7f + (rng_u64(&rng) & 1)
                                                            : rng_u64(&rng));
        }
        for (size_t g = 0; g < n_groups && k != KERN_TILE_R4; g++) {
            draw_f16s(group, p, n_scales);
            group += 2 * n_scales + n_codes;
        }
    }
}

void draw_act(struct kern_act *x, enum pattern p, size_t n_cols)
{
    size_t n_groups = kern_n_groups(n_cols);
    memset(x, 0, n_groups * sizeof *x);
    for (size_t g = 0; g < n_groups; g++)
        x[g].d = p == EQUAL ? 0.7f : fabsf(draw(p));
    for (size_t i = 0; i < n_cols; i++) {
        struct kern_act *a = &x[i / KERN_GROUP];
        size_t j = i % KERN_GROUP;
        int q = (int)(rng_u64(&rng) % 255) - 127;
        q = p == EQUAL       ? 127
            : p == NEG_ZEROS ? -127
            : p == HUGE_     ? (q & 1 ? 127 : -127)
                             : q;
        a->q[j] = (int8_t)q;
        a->sum[j / KERN_HALF] = (int16_t)(a->sum[j / KERN_HALF] + q);
        int16_t *m = &a->minus8[j / KERN_HALF][j % 4 / 2],
                *both = &a->minus8_both[j % 4 / 2];
        *m = (int16_t)(*m - 8 * q);
        *both = (int16_t)(*both - 8 * q);
    }
}

void draw_blocks(uint8_t *w, enum kern_tile k, enum pattern p, size_t n_blocks)
{
    size_t bytes = kern_tiles[k].block_bytes;
    draw_codes(w, k != KERN_TILE_Q8_0, p, n_blocks * bytes);
    for (size_t b = 0; b < n_blocks; b++)
        draw_f16s(w + b * bytes, p, k == KERN_TILE_Q4_1 ? 2 : 1);
}
