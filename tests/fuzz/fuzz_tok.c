/* Fuzzes vocabularies.  An even first byte: vocab.json, merges.txt and a text, between
 * lines "%%".  An odd one: the arrays that a model file holds, a line each: a digit and
 * a token of that kind, or 'm' and a merge; the text comes after a line "%%". */
#include "tok_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_files(const char *p, const char *end)
{
    size_t n_vocab, n_merges;
    const char *merges = next_part(p, end, &n_vocab);
    const char *text = next_part(merges, end, &n_merges);
    struct runt_err err = {0};
    struct tok_vocab v;
    if (!tok_vocab_parse(p, n_vocab, merges, n_merges, "fuzz", &v, &err))
        check_parsed(&v, text, (size_t)(end - text));
    else if (!err.code || !*err.msg)
        abort();
}

enum { MAX_LINES = 512 };

static void fuzz_arrays(const char *p, const char *end)
{
    size_t n;
    const char *text = next_part(p, end, &n), *stop = p + n;
    struct tok_str *tokens = mem_array(MAX_LINES, sizeof *tokens);
    struct tok_str *merges = mem_array(MAX_LINES, sizeof *merges);
    int32_t *kinds = mem_array(MAX_LINES, sizeof *kinds);
    struct tok_vocab v = {0, tokens, kinds, 0, merges, -1, -1, NULL, NULL};
    for (int i = 0; i < MAX_LINES && p < stop; i++) {
        const char *newline = memchr(p, '\n', (size_t)(stop - p));
        const char *line_end = newline ? newline : stop;
        if (line_end > p) {
            struct tok_str s = {p + 1, (size_t)(line_end - p) - 1};
            if (*p == 'm') {
                merges[v.n_merges++] = s;
            } else {
                kinds[v.n_tokens] = *p - '0';
                tokens[v.n_tokens++] = s;
            }
        }
        p = line_end + 1;
    }
    v.eos = (int32_t)v.n_tokens - 1;
    check_vocab(&v, text, (size_t)(end - text));
    mem_free(tokens);
    mem_free(merges);
    mem_free(kinds);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *p = (const char *)data;
    if (size == 0)
        return 0;
    if (data[0] % 2 == 0)
        fuzz_files(p + 1, p + size);
    else
        fuzz_arrays(p + 1, p + size);
    return 0;
}
