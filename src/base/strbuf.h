/* A growing byte buffer.  An append that runs out of memory sets `failed` and is
 * otherwise ignored, so that a builder may append many times and check once. */
#ifndef RUNT_BASE_STRBUF_H
#define RUNT_BASE_STRBUF_H

#include <stdbool.h>
#include <stddef.h>

struct strbuf {
    char *data; /* always NUL-terminated once anything was appended */
    size_t len, cap;
    bool failed;
};

void sb_put(struct strbuf *b, const void *bytes, size_t n);
void sb_str(struct strbuf *b, const char *s);
void sb_char(struct strbuf *b, char c);
void sb_printf(struct strbuf *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void sb_free(struct strbuf *b);

#endif
