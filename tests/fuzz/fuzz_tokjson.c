/* Fuzzes tokenizer.json; a text to encode may follow a line "%%". */
#include "tok_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *p = (const char *)data, *end = p + size;
    size_t n;
    const char *text = next_part(p, end, &n);
    struct runt_err err = {0};
    struct tok_vocab v;
    if (!size)
        return 0;
    if (!tok_vocab_parse_json(p, n, "fuzz", &v, &err))
        check_parsed(&v, text, (size_t)(end - text));
    else if (!err.code || !*err.msg)
        abort();
    return 0;
}
