/* Any bytes as what a client of the server sends.  The first byte chooses: a body for
 * one of the three endpoints, or the headers that are looked at.  What is accepted is
 * in range; what is refused says why in a way that is JSON again. */
#include "base/js.h"
#include "base/mem.h"
#include "serve/access.h"
#include "serve/request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok)
        abort();
}

/* What is written as a JSON string is read as one. */
static void check_string(const char *bytes, size_t n)
{
    struct strbuf b = {0};
    json_t *v = NULL;
    struct runt_err err;
    api_put_string(&b, bytes, n);
    if (b.len < JS_MAX_BYTES)
        check(!js_parse(b.data, b.len, "fuzz", &v, &err) && json_is_string(v));
    json_decref(v);
    sb_free(&b);
}

static void check_refusal(const struct api_error *e)
{
    struct strbuf b = {0};
    json_t *v = NULL;
    struct runt_err err;
    check((e->status == 400 || e->status == 500) && *e->message);
    api_put_error(&b, e);
    check(!js_parse(b.data, b.len, "fuzz", &v, &err));
    json_decref(v);
    sb_free(&b);
}

static void check_request(const struct request *r)
{
    const struct runt_sampler_options *s = &r->sampler;
    check(s->temp >= 0 && s->temp <= 2 && s->top_p >= 0 && s->top_p <= 1);
    check(s->min_p >= 0 && s->min_p <= 1 && s->top_k >= 0);
    check(s->repeat_penalty > 0 && s->repeat_last >= 0);
    check(fabsf(s->frequency_penalty) <= 2 && fabsf(s->presence_penalty) <= 2);
    check(s->n_bias <= REQUEST_MAX_BIAS);
    for (size_t i = 0; i < s->n_bias; i++)
        check(s->bias[i].token >= 0 && s->bias[i].bias <= 100);
    check(r->n >= 1 && r->n <= REQUEST_MAX_CHOICES && r->n_top <= REQUEST_MAX_TOP);
    check(r->n_stops <= REQUEST_MAX_STOPS);
    for (size_t i = 0; i < r->n_stops; i++)
        check(*r->stops[i] && strlen(r->stops[i]) <= REQUEST_MAX_STOP_BYTES);
    for (size_t i = 0; i < r->n_messages; i++) {
        check(r->messages[i].role && r->messages[i].content);
        check_string(r->messages[i].content, r->messages[i].n_content);
    }
    for (size_t i = 0; i < r->n_inputs; i++) {
        const struct request_input *in = &r->inputs[i];
        check(!in->ids == (in->text != NULL) && (!in->ids || in->n_ids));
        for (size_t k = 0; k < in->n_ids; k++)
            check(in->ids[k] >= 0);
    }
    check((r->kind == REQUEST_CHAT) == (r->n_messages > 0));
    check((r->kind == REQUEST_CHAT) == !r->n_inputs);
    check((r->format == FORMAT_SCHEMA || r->format == FORMAT_GBNF) ==
          (r->grammar != NULL));
}

static void try_body(enum request_kind kind, const char *body, size_t n)
{
    struct runt_sampler_options defaults = runt_sampler_defaults();
    struct request r;
    struct api_error e;
    if (request_parse(kind, body, n, &defaults, &r, &e)) {
        check_refusal(&e);
        return;
    }
    check_request(&r);
    request_free(&r);
}

static void try_headers(const char *bytes, size_t n)
{
    static const char *const keys[] = {"one", "another key"};
    static const char *const origins[] = {"https://a.example", "http://localhost:3000"};
    char id[ACCESS_ID_SIZE], *text = mem_strndup(bytes, n);
    const char *read[4];
    check(text != NULL);
    if (access_key_ok(text, keys, 2))
        check(strstr(text, "one") || strstr(text, "another key"));
    check(!access_key_ok(text, keys, 0) == false);
    const char *origin = access_origin(text, origins, 2);
    check(!origin || strlen(origin) == strlen(text));
    access_request_id(text, id);
    check(*id && strlen(id) <= 64 && !strpbrk(id, "\r\n\" "));
    check_string(bytes, n);
    size_t n_keys = access_read_keys(text, read, 4);
    for (size_t i = 0; i < n_keys && i < 4; i++)
        check(*read[i] && *read[i] != '#' && !strpbrk(read[i], "\r\n"));
    mem_free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    const char *rest = (const char *)data + 1;
    if (data[0] % 4 == 3)
        try_headers(rest, size - 1);
    else
        try_body((enum request_kind)(data[0] % 4), rest, size - 1);
    return 0;
}
