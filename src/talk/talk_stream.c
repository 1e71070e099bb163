/* Owns the holding back of unfinished characters and of beginnings of stop texts.
 *
 * What is held is never longer than the longest stop text, or an unfinished character;
 * bytes are taken in pieces, so that two buffers of a fixed size are enough. */
#include "talk/talk.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <string.h>

enum { PIECE = 64, MAX_STOP = 4096 };

static const char replacement[] = "\xef\xbf\xbd";

struct stop {
    char *text;
    size_t n;
};

struct runt_stream {
    struct stop *stops;
    size_t n_stops;
    bool skip_space;
    char *held; /* bytes not yet given */
    size_t n_held;
    char *text; /* valid UTF-8 made of them: a byte may become three */
};

int runt_stream_new(const char *const *stops, size_t n_stops, bool skip_space,
                    runt_stream **out, struct runt_err *err)
{
    size_t longest = 4;
    for (size_t i = 0; i < n_stops; i++) {
        size_t n = strlen(stops[i]);
        if (!n || n > MAX_STOP)
            return err_set(err, RUNT_E_INVALID,
                           "stop text %zu has %zu bytes; 1 to %d are allowed", i + 1, n,
                           MAX_STOP);
        longest = n > longest ? n : longest;
    }
    runt_stream *s = mem_zalloc(sizeof *s);
    if (!s)
        return err_nomem(err, "a stream");
    s->skip_space = skip_space;
    s->stops = mem_array(n_stops, sizeof *s->stops);
    s->held = mem_array(longest + 4 + PIECE, 1);
    s->text = mem_array(longest + 4 + PIECE, sizeof replacement - 1);
    bool ok = s->stops && s->held && s->text;
    for (; ok && s->n_stops < n_stops; s->n_stops++) {
        const char *stop = stops[s->n_stops];
        s->stops[s->n_stops] =
            (struct stop){.text = mem_strdup(stop), .n = strlen(stop)};
        ok = s->stops[s->n_stops].text;
    }
    if (!ok) {
        runt_stream_free(s);
        return err_nomem(err, "a stream");
    }
    *out = s;
    return 0;
}

void runt_stream_free(runt_stream *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n_stops; i++)
        mem_free(s->stops[i].text);
    mem_free(s->stops);
    mem_free(s->held);
    mem_free(s->text);
    mem_free(s);
}

/* Give the first n held bytes; those that are not UTF-8 become U+FFFD. */
static int give(runt_stream *s, size_t n, runt_text_fn *fn, void *ctx)
{
    size_t len = 0, i = 0;
    if (n && s->skip_space) {
        i = s->held[0] == ' ';
        s->skip_space = false;
    }
    while (i < n) {
        size_t k = utf8_len(s->held + i, n - i);
        const char *from = k ? s->held + i : replacement;
        size_t n_from = k ? k : sizeof replacement - 1;
        memcpy(s->text + len, from, n_from);
        len += n_from;
        i += k ? k : 1;
    }
    memmove(s->held, s->held + n, s->n_held - n);
    s->n_held -= n;
    return len && fn && fn(ctx, s->text, len) ? 2 : 0;
}

/* Bytes at the end of what is held that begin a stop text. */
static size_t beginning(const runt_stream *s, const struct stop *stop)
{
    size_t max = stop->n - 1;
    for (size_t k = s->n_held < max ? s->n_held : max; k; k--)
        if (!memcmp(s->held + s->n_held - k, stop->text, k))
            return k;
    return 0;
}

/* At most PIECE bytes.  Of the stop texts the one that ends first counts, so that it
 * does not matter how the text is cut. */
static int put_piece(runt_stream *s, const char *bytes, size_t n, runt_text_fn *fn,
                     void *ctx)
{
    memcpy(s->held + s->n_held, bytes, n);
    s->n_held += n;
    size_t keep = 0, begin = 0, end = s->n_held + 1;
    for (size_t i = 0; i < s->n_stops; i++) {
        const struct stop *stop = &s->stops[i];
        const char *at = memmem(s->held, s->n_held, stop->text, stop->n);
        size_t from = at ? (size_t)(at - s->held) : end;
        if (from + stop->n < end || (from + stop->n == end && from < begin)) {
            begin = from;
            end = from + stop->n;
        }
        size_t k = beginning(s, stop);
        keep = k > keep ? k : keep;
    }
    if (end > s->n_held) { /* no stop; it need not begin where a character does */
        size_t partial = utf8_partial(s->held, s->n_held);
        keep =
            partial >= keep ? partial : keep + utf8_partial(s->held, s->n_held - keep);
        return give(s, s->n_held - keep, fn, ctx);
    }
    s->n_held = begin;
    int rc = give(s, begin, fn, ctx);
    return rc ? rc : 1;
}

int runt_stream_put(runt_stream *s, const char *bytes, size_t n, runt_text_fn *fn,
                    void *ctx)
{
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i += PIECE)
        rc = put_piece(s, bytes + i, n - i < PIECE ? n - i : PIECE, fn, ctx);
    return rc;
}

int runt_stream_end(runt_stream *s, runt_text_fn *fn, void *ctx)
{
    return give(s, s->n_held, fn, ctx);
}
