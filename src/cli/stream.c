/* Owns the holding back of unfinished characters and of beginnings of stop texts. */
#include "cli/stream.h"

#include "base/utf8.h"

#include <string.h>

/* Show the first n held bytes; those that are not UTF-8 become U+FFFD. */
static void show(struct stream *s, size_t n)
{
    struct strbuf *h = &s->held;
    size_t before = s->text.len, i = 0;
    s->n_shown += n;
    if (n && s->skip_space) {
        i = h->data[0] == ' ';
        s->skip_space = false;
    }
    while (i < n) {
        size_t len = utf8_len(h->data + i, n - i);
        if (len)
            sb_put(&s->text, h->data + i, len);
        else
            sb_str(&s->text, "\xef\xbf\xbd");
        i += len ? len : 1;
    }
    if (n)
        memmove(h->data, h->data + n, h->len - n);
    h->len -= n;
    if (s->out && s->text.len > before) {
        fwrite(s->text.data + before, 1, s->text.len - before, s->out);
        fflush(s->out);
    }
}

/* Bytes at the end of h that begin a stop text. */
static size_t beginning(const struct strbuf *h, const char *stop)
{
    size_t max = strlen(stop) - 1;
    for (size_t k = h->len < max ? h->len : max; k; k--)
        if (!memcmp(h->data + h->len - k, stop, k))
            return k;
    return 0;
}

bool stream_put(struct stream *s, const char *bytes, size_t n)
{
    struct strbuf *h = &s->held;
    sb_put(h, bytes, n);
    size_t keep = h->len ? utf8_partial(h->data, h->len) : 0, found = h->len + 1;
    for (size_t i = 0; i < s->n_stops; i++) {
        const char *at =
            h->len ? memmem(h->data, h->len, s->stops[i], strlen(s->stops[i])) : NULL;
        if (at && (size_t)(at - h->data) < found)
            found = (size_t)(at - h->data);
        size_t k = beginning(h, s->stops[i]);
        keep = k > keep ? k : keep;
    }
    if (found <= h->len) {
        h->len = found;
        show(s, found);
        return true;
    }
    show(s, h->len - keep);
    return false;
}

void stream_end(struct stream *s)
{
    show(s, s->held.len);
}

void stream_free(struct stream *s)
{
    sb_free(&s->held);
    sb_free(&s->text);
}
