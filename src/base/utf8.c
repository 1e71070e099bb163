/* Owns what counts as valid UTF-8 (RFC 3629). */
#include "base/utf8.h"

static size_t expected_len(unsigned char c)
{
    return c < 0x80 ? 1 : c >> 5 == 6 ? 2 : c >> 4 == 14 ? 3 : c >> 3 == 30 ? 4 : 0;
}

/* The bits of a lead byte and of the bytes that continue it. */
uint32_t utf8_code_point(const char *str, size_t len)
{
    const unsigned char *s = (const unsigned char *)str;
    uint32_t c = len > 1 ? s[0] & (0x7fu >> len) : s[0];
    for (size_t i = 1; i < len; i++)
        c = c << 6 | (s[i] & 63);
    return c;
}

size_t utf8_len(const char *s, size_t n)
{
    static const uint32_t min[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t len = expected_len((unsigned char)s[0]);
    if (len <= 1 || len > n)
        return len <= n ? len : 0;
    for (size_t i = 1; i < len; i++)
        if ((unsigned char)s[i] >> 6 != 2)
            return 0;
    uint32_t c = utf8_code_point(s, len);
    return c >= min[len] && c < 0x110000 && (c < 0xd800 || c > 0xdfff) ? len : 0;
}

size_t utf8_partial(const char *str, size_t n)
{
    const unsigned char *s = (const unsigned char *)str;
    for (size_t k = 1; k <= 3 && k <= n; k++) {
        unsigned char c = s[n - k];
        if (c >> 6 == 2)
            continue;
        return expected_len(c) > k ? k : 0;
    }
    return 0;
}

size_t utf8_put(uint32_t c, char out[static 4])
{
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n; --i; c >>= 6)
        out[i] = (char)(0x80 | (c & 63));
    out[0] = (char)(lead[n] | c);
    return n;
}
