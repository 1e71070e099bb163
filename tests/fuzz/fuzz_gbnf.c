/* Any bytes as GBNF: what is accepted leads nowhere without an end, and its texts are
 * UTF-8 and found again. */
#include "base/utf8.h"
#include "grammar_walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const runt_grammar *g, const struct strbuf *text)
{
    const char *s = text->data ? text->data : "";
    bool taken = false;
    for (size_t i = 0, n; i < text->len; i += n) {
        n = utf8_len(s + i, text->len - i);
        if (!n)
            abort();
    }
    if (!matcher_test(g, s, text->len, &taken, NULL) && !taken)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct runt_err err = {0};
    runt_grammar *g = NULL;
    if (runt_grammar_gbnf((const char *)data, size, &g, &err)) {
        if (!err.code || !*err.msg || g)
            abort();
        return 0;
    }
    for (uint64_t seed = 0; seed < 3; seed++) {
        struct strbuf text = {0};
        if (grammar_walk(g, seed, 60, "", &text))
            check_text(g, &text);
        sb_free(&text);
    }
    runt_grammar_free(g);
    return 0;
}
