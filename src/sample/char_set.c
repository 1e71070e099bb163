/* Owns sets of characters: ranges in order, and everything else. */
#include "sample/grammar_impl.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

bool grow(void *array, size_t n, size_t more, size_t *cap, size_t size)
{
    void *p;
    if (more <= *cap - n)
        return true;
    size_t want = *cap * 2 > n + more ? *cap * 2 : n + more + 16;
    memcpy(&p, array, sizeof p);
    p = mem_resize(p, want, size);
    if (!p)
        return false;
    memcpy(array, &p, sizeof p);
    *cap = want;
    return true;
}

void char_set_add(struct char_set *s, uint32_t lo, uint32_t hi)
{
    if (s->failed || !grow(&s->ranges, s->n, 1, &s->cap, sizeof *s->ranges)) {
        s->failed = true;
        return;
    }
    s->ranges[s->n++] = (struct char_range){lo, hi};
}

static int ascending(const void *a, const void *b)
{
    const struct char_range *x = a, *y = b;
    return (x->lo > y->lo) - (x->lo < y->lo);
}

void char_set_tidy(struct char_set *s)
{
    size_t n = 0;
    if (s->n)
        qsort(s->ranges, s->n, sizeof *s->ranges, ascending);
    for (size_t i = 0; i < s->n; i++) {
        struct char_range r = s->ranges[i];
        if (n && r.lo <= s->ranges[n - 1].hi + 1) {
            if (r.hi > s->ranges[n - 1].hi)
                s->ranges[n - 1].hi = r.hi;
        } else {
            s->ranges[n++] = r;
        }
    }
    s->n = n;
}

void char_set_invert(struct char_set *s)
{
    struct char_set out = {.failed = s->failed};
    uint32_t next = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (s->ranges[i].lo > next)
            char_set_add(&out, next, s->ranges[i].lo - 1);
        next = s->ranges[i].hi + 1;
    }
    if (next <= MAX_CHAR)
        char_set_add(&out, next, MAX_CHAR);
    char_set_free(s);
    *s = out;
}

void char_set_free(struct char_set *s)
{
    mem_free(s->ranges);
    *s = (struct char_set){0};
}
