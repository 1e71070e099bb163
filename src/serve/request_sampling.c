/* Owns how a request says that tokens are drawn: OpenAI's members, and those that
 * llama.cpp's server has beside them (top_k, min_p, repeat_penalty, ...). */
#include "serve/request.h"

#include "base/mem.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
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

/* ---- biases ---- */

/* "123": -100 to 100, where the ends mean never and nearly always. */
static int parse_bias(const char *key, const json_t *v, struct runt_logit_bias *out,
                      struct api_error *e)
{
    char *end;
    errno = 0;
    long id = strtol(key, &end, 10);
    if (!isdigit((unsigned char)*key) || *end || errno || id > INT32_MAX)
        return api_fail(e, 400, NULL, "logit_bias",
                        "'logit_bias' names tokens by id: "
                        "'%s' is none",
                        key);
    double x = json_number_value(v);
    if (!json_is_number(v) || !(x >= -100 && x <= 100))
        return api_fail(e, 400, NULL, "logit_bias",
                        "the bias of token %ld must be a number from -100 to 100", id);
    *out = (struct runt_logit_bias){(int32_t)id, x <= -100 ? -INFINITY : (float)x};
    return 0;
}

static int parse_biases(struct request *r, struct api_error *e)
{
    json_t *o = json_object_get(r->root, "logit_bias"), *v;
    const char *key;
    if (!o || json_is_null(o))
        return 0;
    if (!json_is_object(o) || json_object_size(o) > REQUEST_MAX_BIAS)
        return api_fail(e, 400, NULL, "logit_bias",
                        "'logit_bias' must be an object of at most %d tokens",
                        REQUEST_MAX_BIAS);
    r->bias = mem_array(json_object_size(o), sizeof *r->bias);
    if (!r->bias)
        return api_fail(e, 500, NULL, NULL, "out of memory");
    r->sampler.bias = r->bias;
    r->sampler.n_bias = 0;
    json_object_foreach(o, key, v)
    {
        if (parse_bias(key, v, &r->bias[r->sampler.n_bias++], e))
            return -1;
    }
    return 0;
}

/* ---- everything ---- */

/* What the OpenAI API has. */
static int parse_common(struct request *r, struct api_error *e)
{
    struct runt_sampler_options *s = &r->sampler;
    return real(r, "temperature", 0, 2, &s->temp, e) ||
           real(r, "top_p", 0, 1, &s->top_p, e) ||
           real(r, "frequency_penalty", -2, 2, &s->frequency_penalty, e) ||
           real(r, "presence_penalty", -2, 2, &s->presence_penalty, e) ||
           parse_biases(r, e) || parse_seed(r, e);
}

/* What llama.cpp's server has besides. */
static int parse_more(struct request *r, struct api_error *e)
{
    struct runt_sampler_options *s = &r->sampler;
    if (real(r, "min_p", 0, 1, &s->min_p, e) ||
        whole(r, "top_k", 0, INT32_MAX, &s->top_k, e) ||
        real(r, "typical_p", 0, 1, &s->typical_p, e) ||
        real(r, "repeat_penalty", 1e-3, 100, &s->repeat_penalty, e) ||
        whole(r, "repeat_last_n", 0, 4096, &s->repeat_last, e) ||
        real(r, "dry_multiplier", 0, 100, &s->dry_multiplier, e) ||
        real(r, "dry_base", 1, 100, &s->dry_base, e) ||
        whole(r, "dry_allowed_length", 1, 65536, &s->dry_allowed_length, e) ||
        whole(r, "dry_penalty_last_n", -1, 65536, &s->dry_last, e) ||
        whole(r, "mirostat", 0, 2, &s->mirostat, e) ||
        real(r, "mirostat_tau", 0, 100, &s->mirostat_tau, e) ||
        real(r, "mirostat_eta", 0, 1, &s->mirostat_eta, e))
        return -1;
    if (s->mirostat == 1)
        return api_fail(e, 400, NULL, "mirostat", "'mirostat' must be 0 or 2");
    return request_bool(r->root, "ignore_eos", &r->ignore_eos, e) < 0 ? -1 : 0;
}

int request_sampling(struct request *r, struct api_error *e)
{
    return parse_common(r, e) || parse_more(r, e) || parse_format(r, e) ? -1 : 0;
}
