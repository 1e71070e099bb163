/* Owns characters: UTF-8, GPT-2's printable alphabet, and the pre-tokenizer that cuts a
 * text into the pieces within which byte pairs merge.
 *
 * The cut is GPT-2's regular expression
 *
 *     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *
 * by hand: no engine, no backtracking, every character looked at twice at most.  A byte
 * that is not part of well-formed UTF-8 counts as one character that is neither letter,
 * number nor space; so any bytes at all are a text. */
#include "tok/tok_impl.h"
#include "tok/unicode_tables.h"

#include "base/utf8.h"

#include <string.h>

/* The character at p, n > 0 bytes left: its length, or 0 when it is not UTF-8. */
static size_t decode(const char *p, size_t n, uint32_t *code_point)
{
    size_t len = utf8_len(p, n);
    uint32_t c = (uint8_t)p[0] & (len > 1 ? 0x7fu >> len : 0x7fu);
    for (size_t i = 1; i < len; i++)
        c = c << 6 | ((uint8_t)p[i] & 0x3fu);
    *code_point = c;
    return len;
}

/* The alphabet: bytes that print in Latin-1 stand for themselves; the other 68, in
 * order (0-32, 127-160, 173), are the characters from U+0100 on. */
uint32_t tok_byte_to_char(uint8_t b)
{
    if (b <= 32)
        return 256u + b;
    if (b >= 127 && b <= 160)
        return 256u + 33 + (b - 127u);
    return b == 173 ? 256u + 67 : b;
}

int tok_char_to_byte(uint32_t c)
{
    if (c < 256)
        return tok_byte_to_char((uint8_t)c) == c ? (int)c : -1;
    if (c < 256 + 33)
        return (int)c - 256;
    if (c < 256 + 67)
        return (int)c - 256 - 33 + 127;
    return c == 256 + 67 ? 173 : -1;
}

bool tok_spell(const char *s, size_t n, char *bytes, size_t *n_bytes)
{
    size_t k = 0;
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t c;
        if (s[i] > 32 && s[i] < 127) { /* most characters of most tokens */
            bytes[k++] = s[i];
            len = 1;
            continue;
        }
        len = decode(s + i, n - i, &c);
        int b = len ? tok_char_to_byte(c) : -1;
        if (b < 0)
            return false;
        bytes[k++] = (char)b;
    }
    *n_bytes = k;
    return true;
}

static enum char_class class_of(uint32_t c)
{
    size_t lo = 0, n = unicode_n_runs;
    while (n > 1) {
        size_t half = n / 2;
        if (unicode_runs[lo + half] >> 2 <= c)
            lo += half;
        n -= half;
    }
    return (enum char_class)(unicode_runs[lo] & 3);
}

/* The class of the character at p (n > 0 bytes left) and its length. */
static inline enum char_class next_char(const char *p, size_t n, size_t *len)
{
    uint8_t ascii = (uint8_t)p[0];
    if (ascii < 0x80) {
        *len = 1;
        return (enum char_class)unicode_ascii_class[ascii];
    }
    uint32_t c;
    *len = decode(p, n, &c);
    if (*len)
        return class_of(c);
    *len = 1;
    return CHAR_OTHER;
}

/* Where a run of `class` that includes everything before `end` ends. */
static size_t run_end(const char *p, size_t n, size_t end, enum char_class class)
{
    size_t len;
    while (end < n && next_char(p + end, n - end, &len) == class)
        end += len;
    return end;
}

/* Length of 's 't 're 've 'm 'll 'd at p, or 0. */
static size_t contraction(const char *p, size_t n)
{
    if (n >= 2 && memchr("stmd", p[1], 4))
        return 2;
    if (n >= 3 &&
        (!memcmp(p + 1, "re", 2) || !memcmp(p + 1, "ve", 2) || !memcmp(p + 1, "ll", 2)))
        return 3;
    return 0;
}

size_t tok_pre_next(const char *p, size_t n)
{
    size_t len, next_len;
    if (p[0] == '\'') {
        len = contraction(p, n);
        if (len)
            return len;
    }
    enum char_class class = next_char(p, n, &len);
    if (p[0] == ' ' && n > 1) {
        enum char_class next = next_char(p + 1, n - 1, &next_len);
        if (next != CHAR_SPACE)
            return run_end(p, n, 1 + next_len, next);
    }
    if (class != CHAR_SPACE)
        return run_end(p, n, len, class);
    /* \s+(?!\S): before a word, the run gives its last space back, unless that is all.
     */
    size_t last = 0, end = len;
    while (end < n && next_char(p + end, n - end, &len) == CHAR_SPACE) {
        last = end;
        end += len;
    }
    return end == n || last == 0 ? end : last;
}
