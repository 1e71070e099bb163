/* UTF-8 validity, for whoever prints or cuts text. */
#ifndef RUNT_BASE_UTF8_H
#define RUNT_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the valid UTF-8 sequence at s[0..n), n >= 1; 0 when it is not one
 * (surrogates, overlong forms and values above U+10FFFF included). */
size_t utf8_len(const char *s, size_t n);

/* The character of a valid sequence of len bytes. */
uint32_t utf8_code_point(const char *s, size_t len);

/* Bytes at the end of s[0..n) that begin a sequence which more bytes could complete;
 * 0 to 3. */
size_t utf8_partial(const char *s, size_t n);

/* The sequence of a character, which is none of the surrogates; its bytes, 1 to 4. */
size_t utf8_put(uint32_t c, char out[static 4]);

#endif
