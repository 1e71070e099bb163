/* Buffers and inputs for the tests of the kernels; see kern_fixture.h. */
#include "kern_fixture.h"

#include "base/rng.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { GAP = 12, POISON_BYTE = 0xa5 };

static char *buffer_end[N_BUFFERS];
static struct rng rng;

bool make_buffers(void)
{
    rng_seed(&rng, 20);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t size = (MAX_X * (MAX_N * sizeof(float) + GAP) / page + 2) * page;
    for (int i = 0; i < N_BUFFERS; i++) {
        char *p = mmap(NULL, size + page, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED || mprotect(p + size, page, PROT_NONE))
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
    size_t bytes = kern_dots[dot].block_bytes;
    for (size_t i = 0; i < n; i += kern_dots[dot].block_len, w += bytes) {
        uint32_t f = 0;
        uint16_t h[2] = {draw_f16(p), draw_f16(p)};
        float v = draw(p);
        memcpy(&f, &v, sizeof f);
        switch (kern_dots[dot].type) {
        case FMT_F32:
            memcpy(w, &f, 4);
            break;
        case FMT_BF16:
            h[0] = (uint16_t)(f >> 16);
            memcpy(w, h, 2);
            break;
        case FMT_F16:
            memcpy(w, h, 2);
            break;
        default:
            for (size_t j = 2; j < bytes;
                 j++) /* the extremes: -128 and -8, 127 and 15 */
                w[j] = (uint8_t)(p == EQUAL       ? 0x80
                                 : p == ZEROS     ? 0
                                 : p == NEG_ZEROS ? 0xff
                                 : p == HUGE_     ? (rng_u64(&rng) & 1 ? 0x80 : 0x7f)
                                                  : rng_u64(&rng));
            memcpy(w, h, kern_dots[dot].type == FMT_Q4_1 ? 4 : 2);
        }
    }
}

static void draw_act(struct kern_act *x, enum pattern p, size_t n)
{
    for (size_t b = 0; b < n / KERN_ACT_LEN; b++) {
        x[b].d = p == EQUAL ? 0.7f : fabsf(draw(p));
        for (int j = 0; j < KERN_ACT_LEN; j++) {
            int q = (int)(rng_u64(&rng) % 255) - 127;
            x[b].q[j] = (int8_t)(p == EQUAL       ? 127
                                 : p == NEG_ZEROS ? -127
                                 : p == HUGE_     ? (q & 1 ? 127 : -127)
                                                  : q);
        }
    }
}

bool is_block(size_t dot)
{
    return kern_dots[dot].block_len > 1;
}

char *draw_vectors(size_t dot, enum pattern p, size_t n, size_t *stride)
{
    size_t bytes =
        is_block(dot) ? n / KERN_ACT_LEN * sizeof(struct kern_act) : n * sizeof(float);
    *stride = bytes + GAP;
    char *x = buffer(IN_X, MAX_X * *stride - GAP);
    memset(x, 0xff, MAX_X * *stride - GAP);
    for (size_t k = 0; k < MAX_X; k++) {
        void *v = x + k * *stride;
        float *f = v;
        if (is_block(dot))
            draw_act(v, p, n);
        for (size_t i = 0; !is_block(dot) && i < n; i++)
            f[i] = p == SINKING ? -0x1p-140f : draw(p);
    }
    return x;
}
