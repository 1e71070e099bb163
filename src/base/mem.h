/* The one door to the heap, and checked size arithmetic.
 *
 * All of runt's own allocations pass here so that a test can fail the N-th one and look
 * for leaks.  (Libraries such as jansson and libcurl keep their own.) */
#ifndef RUNT_BASE_MEM_H
#define RUNT_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>

/* NULL when out of memory.  A size of 0 gives a valid pointer.  Free with mem_free. */
void *mem_alloc(size_t size);
void *mem_zalloc(size_t size);
void *mem_array(size_t n, size_t size); /* n * size bytes, zeroed, NULL on overflow */
void *mem_resize(void *p, size_t n,
                 size_t size);  /* realloc to n * size; p lives on NULL */
void *mem_aligned(size_t size); /* 64-byte aligned, not zeroed */
/* Likewise for what is large and read all over: in huge pages where the system gives
 * them (Linux: transparent ones), which spare the address translation. */
void *mem_huge(size_t size);
char *mem_strdup(const char *s);
char *mem_strndup(const char *s, size_t n);
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void mem_free(void *p); /* NULL is fine */

/* True and *out set when the result fits in size_t. */
static inline bool size_mul(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool size_add(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

/* Tests only: the next n allocations succeed, the one after fails, later ones succeed
 * again.  A negative n switches this off.  mem_live() counts blocks not yet freed. */
void mem_fail_after(long n);
long mem_live(void);

/* An arena: one block (mem_huge) sized up front, handed out front to back, freed at
 * once. */
struct arena {
    unsigned char *base;
    size_t size, used;
};

int arena_init(struct arena *a, size_t size); /* 0 or RUNT_E_NOMEM */
/* 64-byte aligned, not zeroed; NULL when it does not fit. */
void *arena_take(struct arena *a, size_t n, size_t size);
void arena_free(struct arena *a);

#endif
