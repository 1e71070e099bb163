/* Any bytes as a JSON schema: texts of what is accepted are JSON, and valid. */
#include "grammar_walk.h"
#include "sample/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *schema, size_t n, const struct strbuf *text)
{
    struct schema c = {0};
    json_t *value =
        json_loadb(text->data, text->len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (!value || js_parse(schema, n, "fuzz", &c.root, NULL))
        abort();
    if (!schema_valid(&c, c.root, value, true))
        abort();
    schema_free(&c);
    json_decref(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct runt_err err = {0};
    runt_grammar *g = NULL;
    if (runt_grammar_json_schema((const char *)data, size, &g, &err)) {
        if (!err.code || !*err.msg || g)
            abort();
        return 0;
    }
    for (uint64_t seed = 0; seed < 3; seed++) {
        struct strbuf text = {0};
        if (grammar_walk(g, seed, 200, "]}\"", &text))
            check_text((const char *)data, size, &text);
        sb_free(&text);
    }
    runt_grammar_free(g);
    return 0;
}
