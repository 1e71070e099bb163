/* Owns what a body may hold: its size in values, the members that we know, their types
 * and ranges.  Every refusal names the member.
 *
 * The caps on nesting and on the number of containers are checked on the bytes, before
 * a tree is made of them: jansson spends up to 250 bytes on "[]". */
#include "serve/request.h"

#include "base/err.h"
#include "base/js.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

/* ---- members ---- */

const json_t *request_member(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_null(v) ? NULL : v;
}

int request_real(const json_t *o, const char *key, double min, double max, double *out,
                 struct api_error *e)
{
    const json_t *v = request_member(o, key);
    if (!v)
        return 0;
    if (!json_is_number(v))
        return api_fail(e, 400, NULL, key, "'%s' must be a number", key);
    double x = json_number_value(v);
    if (!(x >= min && x <= max))
        return api_fail(e, 400, NULL, key, "'%s' must be from %g to %g, not %g", key,
                        min, max, x);
    *out = x;
    return 1;
}

int request_int(const json_t *o, const char *key, int64_t min, int64_t max,
                int64_t *out, struct api_error *e)
{
    const json_t *v = request_member(o, key);
    if (!v)
        return 0;
    if (!json_is_integer(v))
        return api_fail(e, 400, NULL, key, "'%s' must be a whole number", key);
    json_int_t x = json_integer_value(v);
    if (x < min || x > max)
        return api_fail(e, 400, NULL, key, "'%s' must be from %lld to %lld, not %lld",
                        key, (long long)min, (long long)max, (long long)x);
    *out = x;
    return 1;
}

int request_bool(const json_t *o, const char *key, bool *out, struct api_error *e)
{
    const json_t *v = request_member(o, key);
    if (!v)
        return 0;
    if (!json_is_boolean(v))
        return api_fail(e, 400, NULL, key, "'%s' must be true or false", key);
    *out = json_is_true(v);
    return 1;
}

static int no_memory(struct api_error *e)
{
    return api_fail(e, 500, NULL, NULL, "out of memory");
}

/* ---- the whole body ---- */

/* Depth and number of containers, seen before anything is built. */
static int check_nesting(const char *s, size_t n, struct api_error *e)
{
    size_t depth = 0, n_containers = 0;
    bool quoted = false;
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        if (quoted && c == '\\')
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (quoted)
            continue;
        else if (c == '[' || c == '{') {
            n_containers++;
            depth++;
        } else if ((c == ']' || c == '}') && depth)
            depth--;
        if (depth > REQUEST_MAX_DEPTH)
            return api_fail(e, 400, NULL, NULL,
                            "the body nests lists and objects deeper than %d",
                            REQUEST_MAX_DEPTH);
        if (n_containers > REQUEST_MAX_CONTAINERS)
            return api_fail(e, 400, NULL, NULL,
                            "the body has more than %d lists and objects",
                            REQUEST_MAX_CONTAINERS);
    }
    return 0;
}

static int parse_json(const char *body, size_t n, json_t **out, struct api_error *e)
{
    struct runt_err err = {0};
    json_t *root = NULL;
    int rc = check_nesting(body, n, e);
    if (rc)
        return rc;
    if (!n)
        return api_fail(e, 400, NULL, NULL, "the body is empty: JSON is expected");
    if (js_parse(body, n, "body", &root, &err))
        return api_fail(e, 400, NULL, NULL, "%s", err.msg);
    if (!json_is_object(root)) {
        json_decref(root);
        return api_fail(e, 400, NULL, NULL, "the body must be a JSON object");
    }
    *out = root;
    return 0;
}

/* ---- messages ---- */

/* A content that is a list of parts: their texts, a line each. */
static int join_parts(struct request *r, const json_t *parts, size_t which,
                      struct runt_message *m, struct api_error *e)
{
    struct strbuf *b = &r->joined[r->n_joined++];
    size_t i;
    json_t *part;
    json_array_foreach(parts, i, part)
    {
        const char *type = js_get_str(part, "type");
        const json_t *text = json_object_get(part, "text");
        if (type && strcmp(type, "text"))
            return api_fail(e, 400, NULL, "messages",
                            "message %zu has a part of type '%s': this model reads "
                            "text alone",
                            which, type);
        if (!type || !json_is_string(text))
            return api_fail(e, 400, NULL, "messages",
                            "message %zu: a part of its content is not {\"type\": "
                            "\"text\", \"text\": TEXT}",
                            which);
        if (i)
            sb_char(b, '\n');
        sb_put(b, json_string_value(text), json_string_length(text));
    }
    if (b->failed)
        return no_memory(e);
    m->content = b->data ? b->data : "";
    m->n_content = b->len;
    return 0;
}

static const char *role_of(const char *name)
{
    static const char *const roles[] = {"system", "user", "assistant"};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (!strcmp(name, roles[i]))
            return roles[i];
    return strcmp(name, "developer") ? NULL : roles[0];
}

static int parse_message(struct request *r, const json_t *o, size_t which,
                         struct runt_message *m, struct api_error *e)
{
    const char *role = js_get_str(o, "role");
    const json_t *content = request_member(o, "content");
    if (!role)
        return api_fail(e, 400, NULL, "messages", "message %zu has no role", which);
    m->role = role_of(role);
    if (!m->role)
        return api_fail(e, 400, NULL, "messages",
                        "message %zu has the role '%s', not system, user or assistant",
                        which, role);
    if (json_is_array(content))
        return join_parts(r, content, which, m, e);
    bool silent = !content && !strcmp(role, "assistant");
    if (!json_is_string(content) && !silent)
        return api_fail(e, 400, NULL, "messages",
                        "message %zu: its content must be a string, or a list of "
                        "parts of type text",
                        which);
    m->content = content ? json_string_value(content) : "";
    m->n_content = content ? json_string_length(content) : 0;
    return 0;
}

static int parse_messages(struct request *r, struct api_error *e)
{
    const json_t *list = request_member(r->root, "messages");
    size_t n = json_array_size(list);
    if (!n)
        return api_fail(e, 400, NULL, "messages",
                        "'messages' must be a list of one message or more");
    r->messages = mem_array(n, sizeof *r->messages);
    r->joined = mem_array(n, sizeof *r->joined);
    if (!r->messages || !r->joined)
        return no_memory(e);
    for (size_t i = 0; i < n; i++) {
        int rc = parse_message(r, json_array_get(list, i), i, &r->messages[i], e);
        if (rc)
            return rc;
    }
    r->n_messages = n;
    return 0;
}

/* ---- prompts and texts to embed ---- */

static int parse_ids(const json_t *list, const char *key, struct request_input *in,
                     struct api_error *e)
{
    size_t n = json_array_size(list), i;
    json_t *v;
    in->ids = mem_array(n, sizeof *in->ids);
    if (!in->ids)
        return no_memory(e);
    json_array_foreach(list, i, v)
    {
        json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
        if (id < 0 || id > INT32_MAX)
            return api_fail(e, 400, NULL, key,
                            "'%s' is a list of tokens, but item %zu is no token id",
                            key, i);
        in->ids[i] = (int32_t)id;
    }
    in->n_ids = n;
    return 0;
}

static int parse_input(const json_t *v, const char *key, struct request_input *in,
                       struct api_error *e)
{
    if (json_is_string(v)) {
        in->text = json_string_value(v);
        in->n_text = json_string_length(v);
        return 0;
    }
    if (json_is_array(v) && json_array_size(v))
        return parse_ids(v, key, in, e);
    return api_fail(e, 400, NULL, key,
                    "'%s' must be a string, a list of token ids, or a list of such",
                    key);
}

/* A string; a list of strings; a list of ids; a list of lists of ids. */
static int parse_inputs(struct request *r, const char *key, size_t most,
                        struct api_error *e)
{
    const json_t *v = request_member(r->root, key), *first = json_array_get(v, 0);
    bool many = first && !json_is_number(first);
    size_t n = many ? json_array_size(v) : 1;
    if (!v)
        return api_fail(e, 400, NULL, key, "'%s' is missing", key);
    if (n > most)
        return api_fail(e, 400, NULL, key, "'%s' has %zu items: the limit is %zu", key,
                        n, most);
    r->inputs = mem_array(n, sizeof *r->inputs);
    if (!r->inputs)
        return no_memory(e);
    r->n_inputs = n;
    for (size_t i = 0; i < n; i++) {
        int rc = parse_input(many ? json_array_get(v, i) : v, key, &r->inputs[i], e);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- what else there is ---- */

static int parse_stop(struct request *r, const json_t *v, struct api_error *e)
{
    size_t n = json_string_length(v);
    const char *s = json_string_value(v);
    if (!s || !n || n > REQUEST_MAX_STOP_BYTES || memchr(s, 0, n))
        return api_fail(e, 400, NULL, "stop",
                        "'stop' must be a text, or a list of up to %d texts, of 1 to "
                        "%d bytes without NUL",
                        REQUEST_MAX_STOPS, REQUEST_MAX_STOP_BYTES);
    r->stops[r->n_stops++] = s;
    return 0;
}

static int parse_stops(struct request *r, struct api_error *e)
{
    const json_t *v = request_member(r->root, "stop");
    size_t n = json_is_array(v) ? json_array_size(v) : v != NULL;
    if (n > REQUEST_MAX_STOPS)
        return api_fail(e, 400, NULL, "stop", "'stop' has %zu texts: the limit is %d",
                        n, REQUEST_MAX_STOPS);
    r->stops = mem_array(n, sizeof *r->stops);
    if (!r->stops)
        return no_memory(e);
    for (size_t i = 0; i < n; i++) {
        int rc = parse_stop(r, json_is_array(v) ? json_array_get(v, i) : v, e);
        if (rc)
            return rc;
    }
    return 0;
}

static int parse_stream(struct request *r, struct api_error *e)
{
    int rc = request_bool(r->root, "stream", &r->stream, e);
    const json_t *o = request_member(r->root, "stream_options");
    if (rc < 0 || !o)
        return rc;
    if (!json_is_object(o))
        return api_fail(e, 400, NULL, "stream_options",
                        "'stream_options' must be an object");
    return request_bool(o, "include_usage", &r->include_usage, e);
}

static int parse_lengths(struct request *r, struct api_error *e)
{
    bool chat = r->kind == REQUEST_CHAT;
    int64_t n_max = chat ? INT64_MAX : 16, n = 1, best_of = 0;
    /* the newer name wins */
    if (request_int(r->root, "max_tokens", chat, INT64_MAX, &n_max, e) < 0 ||
        request_int(r->root, "max_completion_tokens", chat, INT64_MAX, &n_max, e) < 0 ||
        request_int(r->root, "n", 1, REQUEST_MAX_CHOICES, &n, e) < 0 ||
        request_int(r->root, "best_of", 1, REQUEST_MAX_CHOICES, &best_of, e) < 0)
        return -1;
    size_t n_prompts = chat ? 1 : r->n_inputs;
    if (best_of > n)
        return api_fail(e, 400, NULL, "best_of",
                        "'best_of' is not supported beyond 'n'");
    if ((size_t)n * n_prompts > REQUEST_MAX_CHOICES)
        return api_fail(e, 400, NULL, "n",
                        "%zu prompts times n make %zu: the limit is "
                        "%d",
                        n_prompts, (size_t)n * n_prompts, REQUEST_MAX_CHOICES);
    r->n_max = (size_t)n_max;
    r->n = (size_t)n;
    return 0;
}

/* Chats say whether, and how many more; completions only how many. */
static int parse_logprobs(struct request *r, struct api_error *e)
{
    bool wanted = false;
    int64_t n = 0;
    int rc;
    if (r->kind == REQUEST_COMPLETION) {
        rc = request_int(r->root, "logprobs", 0, REQUEST_MAX_TOP, &n, e);
        wanted = rc > 0;
    } else {
        rc = request_bool(r->root, "logprobs", &wanted, e);
        if (rc >= 0)
            rc = request_int(r->root, "top_logprobs", 0, REQUEST_MAX_TOP, &n, e);
        if (rc > 0 && n && !wanted)
            return api_fail(e, 400, NULL, "top_logprobs",
                            "'top_logprobs' is told only where 'logprobs' is true");
    }
    r->n_top = wanted ? (int)n : -1;
    return rc < 0 ? -1 : 0;
}

static int parse_completion(struct request *r, struct api_error *e)
{
    const json_t *suffix = request_member(r->root, "suffix");
    if (suffix && json_string_length(suffix))
        return api_fail(e, 400, NULL, "suffix", "'suffix' is not supported");
    int rc = parse_inputs(r, "prompt", REQUEST_MAX_CHOICES, e);
    if (!rc && request_bool(r->root, "echo", &r->echo, e) < 0)
        rc = -1;
    return rc;
}

static int parse_embedding(struct request *r, struct api_error *e)
{
    const char *format = "float";
    const json_t *v = request_member(r->root, "encoding_format");
    int64_t dimensions = 0;
    if (v)
        format = json_string_value(v);
    if (!format || (strcmp(format, "float") && strcmp(format, "base64")))
        return api_fail(e, 400, NULL, "encoding_format",
                        "'encoding_format' must be \"float\" or \"base64\"");
    if (request_int(r->root, "dimensions", 1, 1 << 20, &dimensions, e) < 0)
        return -1;
    r->base64 = !strcmp(format, "base64");
    r->dimensions = (uint64_t)dimensions;
    return parse_inputs(r, "input", REQUEST_MAX_INPUTS, e);
}

static int parse_answer(struct request *r, struct api_error *e)
{
    int rc = r->kind == REQUEST_CHAT ? parse_messages(r, e) : parse_completion(r, e);
    if (!rc)
        rc = parse_lengths(r, e);
    if (!rc && parse_stream(r, e) < 0)
        rc = -1;
    if (!rc)
        rc = parse_logprobs(r, e);
    if (!rc)
        rc = parse_stops(r, e);
    return rc ? rc : request_sampling(r, e);
}

int request_parse(enum request_kind kind, const char *body, size_t n,
                  const struct runt_sampler_options *defaults, struct request *out,
                  struct api_error *e)
{
    struct request r = {.kind = kind, .sampler = *defaults, .n = 1, .n_top = -1};
    int rc = parse_json(body, n, &r.root, e);
    if (rc)
        return rc;
    const json_t *model = request_member(r.root, "model");
    if (model && !json_is_string(model))
        rc = api_fail(e, 400, NULL, "model", "'model' must be a string");
    else
        r.model = json_string_value(model);
    if (!rc)
        rc = kind == REQUEST_EMBEDDING ? parse_embedding(&r, e) : parse_answer(&r, e);
    if (rc)
        request_free(&r);
    else
        *out = r;
    return rc;
}

void request_free(struct request *r)
{
    for (size_t i = 0; i < r->n_joined; i++)
        sb_free(&r->joined[i]);
    for (size_t i = 0; i < r->n_inputs; i++)
        mem_free(r->inputs[i].ids);
    mem_free(r->joined);
    mem_free(r->messages);
    mem_free(r->inputs);
    mem_free(r->stops);
    mem_free(r->bias);
    mem_free(r->grammar);
    json_decref(r->root);
    *r = (struct request){0};
}
