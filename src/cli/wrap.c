/* Owns where the lines of running text end at a terminal. */
#include "cli/wrap.h"

#include "base/utf8.h"

#include <string.h>
#include <wchar.h>

enum { TAB = 8 };

static const char replacement[] = "\xef\xbf\xbd";

static void new_line(struct wrap *w)
{
    putc('\n', w->out);
    w->column = 0;
    w->n_blanks = w->indent;
}

/* The blanks that are held, as far as the line has room for `columns` behind them. */
static void put_blanks(struct wrap *w, size_t columns)
{
    size_t used = w->column + columns, room = w->width > used ? w->width - used : 0;
    size_t n = w->n_blanks < room ? w->n_blanks : room;
    fprintf(w->out, "%*s", (int)n, "");
    w->column += n;
    w->n_blanks = 0;
}

/* The word that is held goes behind its blanks, or to a line of its own without them.
 */
static void put_word(struct wrap *w)
{
    if (!w->n_word)
        return;
    if (w->column && w->column + w->n_blanks + w->word_columns > w->width)
        new_line(w);
    put_blanks(w, w->word_columns);
    fwrite(w->word, 1, w->n_word, w->out);
    w->column += w->word_columns;
    w->word_columns = w->n_word = 0;
    w->wide = false;
}

static size_t columns_of(uint32_t c)
{
    int n = wcwidth((wchar_t)c);
    return n < 0 ? 1 : (size_t)n; /* one that the locale does not know */
}

size_t wrap_columns(const char *text, size_t n)
{
    size_t columns = 0;
    for (size_t i = 0, len; i < n; i += len ? len : 1) {
        len = utf8_len(text + i, n - i);
        columns += len ? columns_of(utf8_code_point(text + i, len)) : 1;
    }
    return columns;
}

static void put_char(struct wrap *w, const char *s, size_t len)
{
    uint32_t c = utf8_code_point(s, len);
    if (c < 0x20 || (c >= 0x7f && c < 0xa0)) {
        s = replacement;
        len = strlen(s);
        c = 0xfffd;
    }
    size_t n = columns_of(c);
    size_t line = w->width > w->indent ? w->width - w->indent : 1;
    if (n == 2 || (n && w->wide) || w->word_columns + n > line ||
        w->n_word + len > sizeof w->word)
        put_word(w);
    memcpy(w->word + w->n_word, s, len);
    w->n_word += len;
    w->word_columns += n;
    w->wide |= n == 2;
}

void wrap_put(struct wrap *w, const char *text, size_t n)
{
    if (!w->width) {
        fwrite(text, 1, n, w->out);
        return;
    }
    for (size_t i = 0, len; i < n; i += len) {
        len = utf8_len(text + i, n - i);
        if (!len) { /* not what was agreed on */
            put_char(w, replacement, strlen(replacement));
            len = 1;
            continue;
        }
        switch (text[i]) {
        case ' ':
            put_word(w);
            w->n_blanks++;
            break;
        case '\t':
            put_word(w);
            w->n_blanks += TAB - (w->column + w->n_blanks) % TAB;
            break;
        case '\r': /* of a text with CR LF */
            break;
        case '\n':
            put_word(w);
            put_blanks(w, 0);
            new_line(w);
            break;
        default:
            put_char(w, text + i, len);
        }
    }
}

void wrap_end(struct wrap *w)
{
    put_word(w);
    w->n_blanks = 0;
}
