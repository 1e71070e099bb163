/* Owns what a document is: in a .jsonl file the text or the messages of a line,
 * elsewhere what lies between <|endoftext|> marks. */
#include "train/data_impl.h"

#include "base/err.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/unpack.h"
#include "train/dialogue.h"

#include <ctype.h>
#include <string.h>

static const char mark[] = "<|endoftext|>";
enum { MARK = sizeof mark - 1 };
static const size_t max_text = (size_t)8 << 30;

typedef int document_fn(void *ctx, const char *text, size_t n, struct runt_err *err);

static bool ends_with(const char *s, size_t n, const char *end)
{
    size_t k = strlen(end);
    return n >= k && !memcmp(s + n - k, end, k);
}

/* By its name, behind which .xz, .zst or .gz may stand. */
static bool is_jsonl(const char *path)
{
    static const char *const packed[] = {".xz", ".zst", ".gz"};
    size_t n = strlen(path);
    for (int i = 0; i < 3; i++)
        if (ends_with(path, n, packed[i])) {
            n -= strlen(packed[i]);
            break;
        }
    return ends_with(path, n, ".jsonl");
}

/* A mark has a line of its own: the breaks on its sides are its. */
static int read_text(const char *text, size_t n, document_fn *fn, void *ctx,
                     struct runt_err *err)
{
    const char *end = text + n;
    int rc = 0;
    for (const char *p = text; p <= end && !rc;) {
        const char *stop = memmem(p, (size_t)(end - p), mark, MARK);
        const char *last = stop ? stop : end;
        if (last > p && last[-1] == '\n')
            last--;
        if (last > p)
            rc = fn(ctx, p, (size_t)(last - p), err);
        if (!stop)
            break;
        p = stop + MARK;
        p += p < end && *p == '\n';
    }
    return rc;
}

static int read_messages(const json_t *list, const char *where, document_fn *fn,
                         void *ctx, struct runt_err *err)
{
    struct strbuf b = {0};
    int rc = dialogue_render(list, where, &b, err);
    if (!rc && b.len)
        rc = fn(ctx, b.data, b.len, err);
    sb_free(&b);
    return rc;
}

/* The document of a line: its field, else its messages. */
static int read_object(const json_t *o, const char *where, const char *field,
                       document_fn *fn, void *ctx, bool *messages, struct runt_err *err)
{
    const json_t *s = json_object_get(o, field);
    const json_t *list = s ? s : json_object_get(o, "messages");
    if (json_is_array(list)) {
        *messages = true;
        return read_messages(list, where, fn, ctx, err);
    }
    if (!json_is_string(s))
        return err_set(err, RUNT_E_FORMAT, "%s: there is no text '%s', and no messages",
                       where, field);
    if (memchr(json_string_value(s), 0, json_string_length(s)))
        return err_set(err, RUNT_E_FORMAT, "%s: '%s' holds a NUL: not a text", where,
                       field);
    return json_string_length(s)
               ? fn(ctx, json_string_value(s), json_string_length(s), err)
               : 0;
}

static int read_jsonl(const char *path, const char *field, const char *text, size_t n,
                      document_fn *fn, void *ctx, bool *messages, struct runt_err *err)
{
    const char *end = text + n;
    size_t line = 1;
    int rc = 0;
    for (const char *p = text; p < end && !rc; line++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t len = (size_t)((stop ? stop : end) - p), blank = 0;
        while (blank < len && isspace((unsigned char)p[blank]))
            blank++;
        json_t *o = NULL;
        char where[512];
        snprintf(where, sizeof where, "%s, line %zu", path, line);
        if (blank < len && !(rc = js_parse(p, len, where, &o, err))) {
            rc = read_object(o, where, field, fn, ctx, messages, err);
            json_decref(o);
        }
        p += len + 1;
    }
    return rc;
}

int data_read_text(const char *path, const char *field, document_fn *fn, void *ctx,
                   bool *messages, struct runt_err *err)
{
    char *text;
    size_t n;
    int rc = unpack_read(path, max_text, &text, &n, err);
    if (rc)
        return rc;
    const char *nul = memchr(text, 0, n);
    *messages = false;
    if (!n)
        rc = err_set(err, RUNT_E_FORMAT, "%s is empty", path);
    else if (nul)
        rc = err_set(err, RUNT_E_FORMAT, "%s is not a text: byte %zu is NUL", path,
                     (size_t)(nul - text));
    else if (is_jsonl(path))
        rc = read_jsonl(path, field, text, n, fn, ctx, messages, err);
    else
        rc = read_text(text, n, fn, ctx, err);
    mem_free(text);
    return rc;
}

int data_read_documents(const char *path, const char *field, document_fn *fn, void *ctx,
                        struct runt_err *err)
{
    bool messages;
    return data_read_text(path, field, fn, ctx, &messages, err);
}

size_t data_piece(const char *text, size_t n, size_t most)
{
    enum { SEARCH = 1 << 16 };
    if (n <= most)
        return n;
    for (size_t i = most; i > most / 2 && i + SEARCH > most; i--)
        if (text[i] == ' ' && isalpha((unsigned char)text[i - 1]) &&
            isalpha((unsigned char)text[i + 1]))
            return i;
    size_t i = most; /* none: at least between two characters */
    while (i > 1 && ((unsigned char)text[i] & 0xc0) == 0x80)
        i--;
    return i;
}
