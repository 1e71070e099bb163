/* JSON: jansson behind caps on size and on the number of containers, and getters that
 * word their failures.  A value is jansson's json_t; free the root with json_decref. */
#ifndef RUNT_BASE_JS_H
#define RUNT_BASE_JS_H

#include "runt/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    JS_MAX_BYTES = 24 << 20,    /* GPT-2's tokenizer.json has 3.5 MB */
    JS_MAX_CONTAINERS = 1000000 /* jansson spends up to 250 bytes on an empty one */
};

/* Parse one JSON value (the whole text).  `name` (a file) starts the error line.
 * Duplicate keys are an error: two readers must not see two different files. */
int js_parse(const char *text, size_t n, const char *name, json_t **out,
             struct runt_err *err);
int js_parse_file(const char *path, json_t **out, struct runt_err *err);

/* Member `key` of object `o` as an unsigned integer of at most `max`.  A missing or
 * null member leaves *out alone and gives RUNT_E_NOTFOUND without touching err;
 * anything else that does not fit is RUNT_E_FORMAT. */
int js_get_uint(const json_t *o, const char *key, uint64_t max, const char *name,
                uint64_t *out, struct runt_err *err);
int js_get_double(const json_t *o, const char *key, const char *name, double *out,
                  struct runt_err *err);
int js_get_bool(const json_t *o, const char *key, const char *name, bool *out,
                struct runt_err *err);
/* NULL when missing or not a string. */
const char *js_get_str(const json_t *o, const char *key);

#endif
