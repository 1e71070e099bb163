/* Owns the words of failures, and the writing of JSON.  Answers are written piece by
 * piece into a buffer, without a tree of values: a stream has thousands of them. */
#include "serve/api.h"

#include "base/utf8.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static void plain(char *to, size_t size, const char *from)
{
    size_t n = 0;
    for (; from[n] && n + 1 < size; n++)
        to[n] = from[n] >= ' ' && from[n] <= '~' ? from[n] : '?';
    to[n] = 0;
}

int api_fail(struct api_error *e, int status, const char *code, const char *param,
             const char *fmt, ...)
{
    char message[sizeof e->message];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    *e = (struct api_error){.status = status, .code = code};
    plain(e->message, sizeof e->message, message);
    plain(e->param, sizeof e->param, param ? param : "");
    return -1;
}

/* The kinds of errors that OpenAI's clients know. */
static const char *type_of(int status)
{
    switch (status) {
    case 401:
        return "authentication_error";
    case 429:
        return "rate_limit_error";
    default:
        return status < 500 ? "invalid_request_error" : "server_error";
    }
}

void api_put_error(struct strbuf *b, const struct api_error *e)
{
    sb_str(b, "{\"error\":{\"message\":");
    api_put_cstring(b, e->message);
    sb_printf(b, ",\"type\":\"%s\",\"param\":", type_of(e->status));
    if (*e->param)
        api_put_cstring(b, e->param);
    else
        sb_str(b, "null");
    sb_str(b, ",\"code\":");
    if (e->code)
        api_put_cstring(b, e->code);
    else
        sb_str(b, "null");
    sb_str(b, "}}");
}

/* ---- JSON ---- */

static void put_escaped(struct strbuf *b, unsigned char c)
{
    static const char short_names[] = "btnvfr"; /* of 8 to 13; JSON has no \v */
    if (c == '"' || c == '\\')
        sb_put(b, (char[]){'\\', (char)c}, 2);
    else if (c >= 8 && c <= 13 && c != 11)
        sb_put(b, (char[]){'\\', short_names[c - 8]}, 2);
    else
        sb_printf(b, "\\u%04x", c);
}

void api_put_string(struct strbuf *b, const char *s, size_t n)
{
    size_t from = 0, i = 0;
    if (!n)
        s = ""; /* nothing may be a null pointer, which takes no offset */
    sb_char(b, '"');
    while (i < n) {
        unsigned char c = (unsigned char)s[i];
        size_t len = c < 0x80 ? 1 : utf8_len(s + i, n - i);
        if (len && c >= ' ' && c != '"' && c != '\\' && c != 0x7f) {
            i += len;
            continue;
        }
        sb_put(b, s + from, i - from);
        if (len)
            put_escaped(b, c);
        else
            sb_str(b, "\xef\xbf\xbd");
        from = ++i;
    }
    sb_put(b, s + from, n - from);
    sb_char(b, '"');
}

void api_put_cstring(struct strbuf *b, const char *s)
{
    api_put_string(b, s, strlen(s));
}

void api_put_number(struct strbuf *b, double x)
{
    if (isfinite(x))
        sb_printf(b, "%.7g", x);
    else
        sb_str(b, "null");
}

void api_put_base64(struct strbuf *b, const float *x, size_t n)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n_bytes = 4 * n;
    sb_char(b, '"');
    for (size_t i = 0; i < n_bytes; i += 3) {
        uint32_t group = 0;
        size_t have = n_bytes - i < 3 ? n_bytes - i : 3;
        for (size_t k = 0; k < 3; k++) {
            uint32_t bits = 0;
            if (k < have)
                memcpy(&bits, &x[(i + k) / 4], 4);
            group = group << 8 | (bits >> (8 * ((i + k) % 4)) & 0xff);
        }
        char out[4];
        for (size_t k = 0; k < 4; k++)
            out[k] = k <= have ? digits[group >> (18 - 6 * k) & 63] : '=';
        sb_put(b, out, 4);
    }
    sb_char(b, '"');
}

double api_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
