/* Owns the way back to Hugging Face's files: vocab.json and merges.txt. */
#include "tok/tok.h"

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/utf8.h"

#include <string.h>

/* JSON has no way to write a byte that is not UTF-8; a token that holds one cannot come
 * from a JSON file either. */
static int put_json(struct strbuf *b, struct tok_str s, struct runt_err *err)
{
    sb_char(b, '"');
    for (size_t i = 0; i < s.len;) {
        size_t len = utf8_len(s.data + i, s.len - i);
        unsigned char c = (unsigned char)s.data[i];
        if (!len)
            return err_set(err, RUNT_E_UNSUPPORTED,
                           "a token is not valid UTF-8: vocab.json cannot hold it");
        if (c == '"' || c == '\\')
            sb_printf(b, "\\%c", c);
        else if (c < 0x20)
            sb_printf(b, "\\u%04x", c);
        else
            sb_put(b, s.data + i, len);
        i += len;
    }
    sb_char(b, '"');
    return 0;
}

static int write_file(const char *dir, const char *name, const struct strbuf *b,
                      struct runt_err *err)
{
    struct file_out *f = NULL;
    char *path = mem_printf("%s/%s", dir, name);
    int rc = path && !b->failed ? file_out_open(path, &f, err) : err_nomem(err, name);
    if (!rc)
        rc = file_out_write(f, b->data, b->len, err);
    if (!rc)
        rc = file_out_commit(f, err);
    else
        file_out_abort(f);
    mem_free(path);
    return rc;
}

int tok_vocab_save(const struct tok_vocab *v, const char *dir, struct runt_err *err)
{
    struct strbuf vocab = {0}, merges = {0};
    int rc = 0;
    for (size_t i = 0; i < v->n_tokens && !rc; i++) {
        sb_str(&vocab, i ? "," : "{");
        rc = put_json(&vocab, v->tokens[i], err);
        sb_printf(&vocab, ":%zu", i);
    }
    sb_str(&vocab, "}");
    sb_str(&merges, "#version: 0.2\n");
    for (size_t i = 0; i < v->n_merges; i++) {
        sb_put(&merges, v->merges[i].data, v->merges[i].len);
        sb_char(&merges, '\n');
    }
    if (!rc)
        rc = write_file(dir, "vocab.json", &vocab, err);
    if (!rc)
        rc = write_file(dir, "merges.txt", &merges, err);
    sb_free(&vocab);
    sb_free(&merges);
    return rc;
}
