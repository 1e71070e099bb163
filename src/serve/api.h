/* What every answer of the server shares: how a failure is told, and JSON on its way
 * out. The shapes are the OpenAI API's. */
#ifndef RUNT_SERVE_API_H
#define RUNT_SERVE_API_H

#include "base/strbuf.h"

#include <stddef.h>
#include <stdint.h>

/* Why a request gets no answer. */
struct api_error {
    int status;       /* of HTTP; 0: no error */
    const char *code; /* "model_not_found"; NULL: none */
    char param[64];   /* the member of the request, "" when it is none */
    char message[512];
    unsigned retry_after; /* seconds, 0: not said */
};

/* Fill *e; `code` is a constant, `param` and the message are copied, bytes that are not
 * printable ASCII become '?'.  Answers -1. */
int api_fail(struct api_error *e, int status, const char *code, const char *param,
             const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* {"error": {...}} */
void api_put_error(struct strbuf *b, const struct api_error *e);

/* A JSON string of any bytes; what is not UTF-8 becomes U+FFFD. */
void api_put_string(struct strbuf *b, const char *s, size_t n);
void api_put_cstring(struct strbuf *b, const char *s);
/* A number that JSON can hold: 7 digits, `null` when it is none. */
void api_put_number(struct strbuf *b, double x);
/* n floats as base64 of their little-endian bytes, quoted. */
void api_put_base64(struct strbuf *b, const float *x, size_t n);

double api_seconds(void); /* monotonic clock */

#endif
