/* What the test and the benchmark of the attention kernels share: the levels to run,
 * and inputs of every kind in buffers that end where an unreadable page begins. */
#ifndef RUNT_TESTS_ATTN_FIXTURE_H
#define RUNT_TESTS_ATTN_FIXTURE_H

#include "kern/kern.h"

#include <stdbool.h>

enum { BLOCK = KERN_ATTN_BLOCK, STRIPE = KERN_STRIPE, MAX_DIM = 130 };

extern const char *const kv_names[KERN_N_KV];

/* ---- levels ---- */

struct level {
    const char *name;
    struct kern_table t;
};
extern struct level levels[CPU_N_LEVELS + 1]; /* the first is the specification */
extern size_t n_levels;
extern const struct kern_table *ref;

int find_levels(void); /* all that run here, one of them emulated; not 0: failed */

/* ---- memory ---- */

enum { IN_QUERY, IN_CACHE, IN_E, WANT, GOT, N_BUFFERS };
enum { GUARD = 64, POISON = 0xa5 };

bool make_rooms(void);
/* The last `bytes` of buffer i; all of it and GUARD bytes before it poison. */
void *room(int i, size_t bytes);
bool is_poison(const void *p, size_t bytes);
bool is_guarded(const void *p); /* the GUARD bytes before p are poison */

/* ---- numbers ---- */

void draw_anew(void); /* the same numbers again from here on */

enum pattern {
    NORMAL,
    SMALL,    /* denormal as f16 */
    TINY,     /* denormal as float */
    HUGE_F16, /* around 65504 */
    HUGE_F32,
    ANY, /* any finite bits */
    EQUAL,
    ZEROS,
    NEG_ZEROS,
    SPECIAL, /* one in eight is an infinity or NaN */
    ONE_INF, /* one number of 40 is an infinity */
    N_PATTERNS,
};
extern const char *const pattern_names[N_PATTERNS];

uint64_t draw_bits(void);
double draw_unit(void); /* [0, 1) */
float draw(enum pattern p);
void draw_row(enum pattern p, size_t n, float *x);
float *draw_floats(int i, enum pattern p, size_t n); /* room i */

/* Positions 0 to n_pos - 1 stored by the specification, the rest of the stripes 0xff:
 * NaN, or the code -1; now and then 0x80, a code that is never stored. */
void fill_cache(enum kern_kv kv, bool is_key, enum pattern p, size_t n_dim,
                size_t n_pos, size_t n_stripes, void *stripes);

/* ---- benchmark: bench_kern_attn.c ---- */

int bench_attn(int n_names, char **names);

#endif
