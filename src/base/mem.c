/* Owns every heap block of runt. */
#include "base/mem.h"

#include "runt/error.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Below that a huge page would be mostly waste. */
enum { HUGE_PAGE = 2 << 20, HUGE_MIN = 2 * HUGE_PAGE };

static atomic_long fail_countdown = -1;
static atomic_long n_live;

void mem_fail_after(long n)
{
    atomic_store(&fail_countdown, n);
}

long mem_live(void)
{
    return atomic_load(&n_live);
}

static bool should_fail(void)
{
    if (atomic_load_explicit(&fail_countdown, memory_order_relaxed) < 0)
        return false;
    return atomic_fetch_sub(&fail_countdown, 1) == 0;
}

static void *count(void *p)
{
    if (p)
        atomic_fetch_add_explicit(&n_live, 1, memory_order_relaxed);
    return p;
}

void *mem_alloc(size_t size)
{
    return should_fail() ? NULL : count(malloc(size ? size : 1));
}

void *mem_zalloc(size_t size)
{
    return should_fail() ? NULL : count(calloc(1, size ? size : 1));
}

void *mem_array(size_t n, size_t size)
{
    size_t total;
    return size_mul(n, size, &total) ? mem_zalloc(total) : NULL;
}

void *mem_resize(void *p, size_t n, size_t size)
{
    size_t total;
    if (!size_mul(n, size, &total) || should_fail())
        return NULL;
    void *q = realloc(p, total ? total : 1);
    return p ? q : count(q);
}

static void *aligned(size_t alignment, size_t size)
{
    size_t total;
    if (!size_add(size, alignment - 1, &total) || should_fail())
        return NULL;
    total &= ~(alignment - 1);
    return count(aligned_alloc(alignment, total ? total : alignment));
}

void *mem_aligned(size_t size)
{
    return aligned(64, size);
}

void *mem_huge(size_t size)
{
    if (size < HUGE_MIN)
        return mem_aligned(size);
    void *p = aligned(HUGE_PAGE, size);
#ifdef MADV_HUGEPAGE
    if (p)
        madvise(p, size, MADV_HUGEPAGE); /* a refusal costs nothing but speed */
#endif
    return p;
}

char *mem_strndup(const char *s, size_t n)
{
    size_t total;
    char *p = size_add(n, 1, &total) ? mem_alloc(total) : NULL;
    if (p) {
        memcpy(p, s, n);
        p[n] = 0;
    }
    return p;
}

char *mem_strdup(const char *s)
{
    return mem_strndup(s, strlen(s));
}

char *mem_printf(const char *fmt, ...)
{
    va_list ap, ap2;
    va_start(ap, fmt);
    va_copy(ap2, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    char *p = n < 0 ? NULL : mem_alloc((size_t)n + 1);
    if (p)
        vsnprintf(p, (size_t)n + 1, fmt, ap2);
    va_end(ap2);
    va_end(ap);
    return p;
}

void mem_free(void *p)
{
    if (p)
        atomic_fetch_sub_explicit(&n_live, 1, memory_order_relaxed);
    free(p);
}

int arena_init(struct arena *a, size_t size)
{
    unsigned char *base = mem_huge(size);
    if (!base)
        return RUNT_E_NOMEM;
    *a = (struct arena){base, (size + 63) & ~(size_t)63, 0}; /* as mem_huge has it */
    return 0;
}

void *arena_take(struct arena *a, size_t n, size_t size)
{
    size_t bytes, end;
    if (!size_mul(n, size, &bytes) || !size_add(bytes, 63, &bytes))
        return NULL;
    bytes &= ~(size_t)63;
    if (!size_add(a->used, bytes, &end) || end > a->size)
        return NULL;
    void *p = a->base + a->used;
    a->used = end;
    return p;
}

void arena_free(struct arena *a)
{
    mem_free(a->base);
    *a = (struct arena){0};
}
