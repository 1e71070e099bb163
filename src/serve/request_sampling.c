/* Owns how a request says that tokens are drawn: OpenAI's members, and those that
 * llama.cpp's server has beside them (top_k, min_p, repeat_penalty, ...). */
#include "serve/request.h"

#include "base/mem.h"

#include <string.h>

/* A float of the sampler from a member with a range. */
static int real(const struct request *r, const char *key, double min, double max,
                float *out, struct api_error *e)
{
    double x;
    int rc = request_real(r->root, key, min, max, &x, e);
    if (rc > 0)
        *out = (float)x;
    return rc < 0 ? -1 : 0;
}

static int whole(const struct request *r, const char *key, int64_t min, int64_t max,
                 int32_t *out, struct api_error *e)
{
    int64_t x;
    int rc = request_int(r->root, key, min, max, &x, e);
    if (rc > 0)
        *out = (int32_t)x;
    return rc < 0 ? -1 : 0;
}

static int parse_seed(struct request *r, struct api_error *e)
{
    int64_t seed;
    int rc = request_int(r->root, "seed", INT64_MIN, INT64_MAX, &seed, e);
    r->has_seed = rc > 0;
    if (rc > 0)
        r->sampler.seed = (uint64_t)seed;
    return rc < 0 ? -1 : 0;
}

/* A JSON value as text, for a grammar to be made of it. */
static int dump(const json_t *v, struct request *r, struct api_error *e)
{
    size_t n = json_dumpb(v, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY);
    r->grammar = n ? mem_alloc(n) : NULL;
    if (!r->grammar)
        return api_fail(e, 500, NULL, NULL, "out of memory");
    r->n_grammar = json_dumpb(v, r->grammar, n, JSON_COMPACT | JSON_ENCODE_ANY);
    return 0;
}

static int parse_schema(struct request *r, const json_t *format, struct api_error *e)
{
    const json_t *named = json_object_get(format, "json_schema"),
                 *schema = json_object_get(named, "schema");
    if (!json_is_object(schema))
        return api_fail(e, 400, NULL, "response_format",
                        "'response_format' of type json_schema wants {\"json_schema\": "
                        "{\"name\": NAME, \"schema\": OBJECT}}");
    r->format = FORMAT_SCHEMA;
    return dump(schema, r, e);
}

static int parse_format(struct request *r, struct api_error *e)
{
    const json_t *format = request_member(r->root, "response_format"),
                 *gbnf = request_member(r->root, "grammar");
    const char *type = json_string_value(json_object_get(format, "type"));
    if (gbnf && !json_is_string(gbnf))
        return api_fail(e, 400, NULL, "grammar", "'grammar' must be a string");
    if (gbnf) {
        r->format = FORMAT_GBNF;
        r->n_grammar = json_string_length(gbnf);
        r->grammar = mem_strndup(json_string_value(gbnf), r->n_grammar);
        return r->grammar ? 0 : api_fail(e, 500, NULL, NULL, "out of memory");
    }
    if (!format)
        return 0;
    if (type && !strcmp(type, "json_schema"))
        return parse_schema(r, format, e);
    if (type && !strcmp(type, "json_object"))
        r->format = FORMAT_JSON;
    else if (!type || strcmp(type, "text"))
        return api_fail(e, 400, NULL, "response_format",
                        "the type of 'response_format' must be text, json_object or "
                        "json_schema");
    return 0;
}

int request_sampling(struct request *r, struct api_error *e)
{
    struct runt_sampler_options *s = &r->sampler;
    if (real(r, "temperature", 0, 2, &s->temp, e) ||
        real(r, "top_p", 0, 1, &s->top_p, e) || real(r, "min_p", 0, 1, &s->min_p, e) ||
        whole(r, "top_k", 0, INT32_MAX, &s->top_k, e) ||
        real(r, "repeat_penalty", 1e-3, 100, &s->repeat_penalty, e) ||
        whole(r, "repeat_last_n", 0, 4096, &s->repeat_last, e) || parse_seed(r, e) ||
        request_bool(r->root, "ignore_eos", &r->ignore_eos, e) < 0)
        return -1;
    return parse_format(r, e);
}
