/* What a client asks for: from the bytes of a body to a checked request.
 *
 * No model is needed here; what depends on one (tokens, the context, grammars) is
 * prepare.h.  Members that we do not know are ignored, those that we know are checked.
 */
#ifndef RUNT_SERVE_REQUEST_H
#define RUNT_SERVE_REQUEST_H

#include "runt/runt.h"
#include "serve/api.h"

#include <jansson.h>

enum {
    REQUEST_MAX_DEPTH = 64,         /* of nested lists and objects */
    REQUEST_MAX_CONTAINERS = 20000, /* lists and objects in all */
    REQUEST_MAX_CHOICES = 128,      /* n times prompts */
    REQUEST_MAX_INPUTS = 2048,      /* texts to embed */
    REQUEST_MAX_STOPS = 16,
    REQUEST_MAX_STOP_BYTES = 1024,
    REQUEST_MAX_BIAS = 1024,
    REQUEST_MAX_TOP = 20 /* top_logprobs */
};

enum request_kind { REQUEST_CHAT, REQUEST_COMPLETION, REQUEST_EMBEDDING };

enum request_format { FORMAT_TEXT, FORMAT_JSON, FORMAT_SCHEMA, FORMAT_GBNF };

/* A prompt or a text to embed: a text, or tokens where ids is not NULL. */
struct request_input {
    const char *text;
    size_t n_text;
    int32_t *ids;
    size_t n_ids;
};

struct request {
    enum request_kind kind;
    const char *model; /* NULL: not named */
    struct runt_message *messages;
    size_t n_messages;
    struct request_input *inputs;
    size_t n_inputs;
    struct runt_sampler_options sampler;
    bool has_seed;
    size_t n_max; /* tokens of an answer, SIZE_MAX: up to the context's end */
    size_t n;     /* choices of each prompt */
    const char **stops;
    size_t n_stops;
    bool stream, include_usage, echo, ignore_eos;
    int n_top; /* likeliest tokens told with each one drawn; -1: no probabilities */
    enum request_format format;
    char *grammar; /* of FORMAT_SCHEMA and FORMAT_GBNF, [n_grammar] */
    size_t n_grammar;
    bool base64;
    uint64_t dimensions; /* of an embedding, 0: the model's */

    /* what the pointers above point into */
    json_t *root;
    struct strbuf *joined; /* contents that came in parts */
    size_t n_joined;
    struct runt_logit_bias *bias; /* what sampler.bias points to */
};

/* `defaults` are the sampler's where the request is silent.  0, or -1 and *e filled. */
int request_parse(enum request_kind kind, const char *body, size_t n,
                  const struct runt_sampler_options *defaults, struct request *out,
                  struct api_error *e);
void request_free(struct request *r);

/* ---- between request.c and request_sampling.c ---- */

/* Member `key` of `o`, when it is there and not null: 1; 0: it is not; -1: *e filled.
 */
int request_real(const json_t *o, const char *key, double min, double max, double *out,
                 struct api_error *e);
int request_int(const json_t *o, const char *key, int64_t min, int64_t max,
                int64_t *out, struct api_error *e);
int request_bool(const json_t *o, const char *key, bool *out, struct api_error *e);
/* A member that is not null, or NULL. */
const json_t *request_member(const json_t *o, const char *key);
/* Everything about how tokens are drawn. */
int request_sampling(struct request *r, struct api_error *e);

#endif
