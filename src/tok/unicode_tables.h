/* The character classes that GPT-2's pre-tokenizer tells apart, for every code point
 * (tools/gen_unicode.py writes the tables and says the Unicode version). */
#ifndef RUNT_TOK_UNICODE_TABLES_H
#define RUNT_TOK_UNICODE_TABLES_H

#include <stddef.h>
#include <stdint.h>

enum char_class {
    CHAR_OTHER,
    CHAR_LETTER, /* \p{L} */
    CHAR_NUMBER, /* \p{N} */
    CHAR_SPACE,  /* White_Space */
};

extern const uint8_t unicode_ascii_class[128];
/* Ascending (first code point << 2 | class); each run reaches to the next one's start.
 */
extern const uint32_t unicode_runs[];
extern const size_t unicode_n_runs;

#endif
