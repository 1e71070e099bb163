/* Owns how much JSON a stranger may make us hold. */
#include "base/js.h"

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"

int js_parse(const char *text, size_t n, const char *name, json_t **out,
             struct runt_err *err)
{
    if (n > JS_MAX_BYTES)
        return err_set(err, RUNT_E_FORMAT, "%s: JSON larger than the limit of %d bytes",
                       name, JS_MAX_BYTES);
    size_t n_open = 0;
    for (size_t i = 0; i < n; i++)
        n_open += text[i] == '[' || text[i] == '{';
    if (n_open > JS_MAX_CONTAINERS)
        return err_set(err, RUNT_E_FORMAT,
                       "%s: JSON with more than %d lists and objects", name,
                       JS_MAX_CONTAINERS);
    json_error_t je;
    json_t *v = json_loadb(
        text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &je);
    if (!v)
        return err_set(err, RUNT_E_FORMAT, "%s: bad JSON at line %d column %d: %s",
                       name, je.line, je.column, je.text);
    *out = v;
    return 0;
}

int js_parse_file(const char *path, json_t **out, struct runt_err *err)
{
    char *text = NULL;
    size_t n = 0;
    int rc = file_read_regular(path, JS_MAX_BYTES, &text, &n, err);
    if (rc)
        return rc;
    rc = js_parse(text, n, path, out, err);
    mem_free(text);
    return rc;
}

int js_get_uint(const json_t *o, const char *key, uint64_t max, const char *name,
                uint64_t *out, struct runt_err *err)
{
    const json_t *v = json_object_get(o, key);
    if (!v || json_is_null(v))
        return RUNT_E_NOTFOUND;
    if (!json_is_integer(v))
        return err_set(err, RUNT_E_FORMAT, "%s: %s is not an integer", name, key);
    json_int_t i = json_integer_value(v);
    if (i < 0 || (uint64_t)i > max)
        return err_set(err, RUNT_E_FORMAT, "%s: %s is %lld, outside 0..%llu", name, key,
                       (long long)i, (unsigned long long)max);
    *out = (uint64_t)i;
    return 0;
}

int js_get_double(const json_t *o, const char *key, const char *name, double *out,
                  struct runt_err *err)
{
    const json_t *v = json_object_get(o, key);
    if (!v || json_is_null(v))
        return RUNT_E_NOTFOUND;
    if (!json_is_number(v))
        return err_set(err, RUNT_E_FORMAT, "%s: %s is not a number", name, key);
    *out = json_number_value(v);
    return 0;
}

int js_get_bool(const json_t *o, const char *key, const char *name, bool *out,
                struct runt_err *err)
{
    const json_t *v = json_object_get(o, key);
    if (!v || json_is_null(v))
        return RUNT_E_NOTFOUND;
    if (!json_is_boolean(v))
        return err_set(err, RUNT_E_FORMAT, "%s: %s is not true or false", name, key);
    *out = json_is_true(v);
    return 0;
}

const char *js_get_str(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}
