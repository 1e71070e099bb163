/* Owns the way back to Hugging Face's files: vocab.json, merges.txt, added_tokens.json,
 * tokenizer_config.json. */
#include "tok/tok.h"

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/utf8.h"

#include <string.h>

/* JSON has no way to write a byte that is not UTF-8; a string that holds one cannot
 * come from a JSON file either. */
static int put_json(struct strbuf *b, struct tok_str s, const char *what,
                    struct runt_err *err)
{
    sb_char(b, '"');
    for (size_t i = 0; i < s.len;) {
        size_t len = utf8_len(s.data + i, s.len - i);
        unsigned char c = (unsigned char)s.data[i];
        if (!len)
            return err_set(err, RUNT_E_UNSUPPORTED,
                           "%s is not valid UTF-8: no JSON file can hold it", what);
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

static size_t count_used(const struct tok_vocab *v)
{
    size_t n = v->n_tokens;
    while (n && v->kinds[n - 1] == TOK_UNUSED)
        n--;
    return n;
}

static bool is_special(const struct tok_vocab *v, size_t id)
{
    return v->kinds[id] == TOK_CONTROL || v->kinds[id] == TOK_USER;
}

/* The one that vocab.json may hold without being said to be special. */
static bool is_end_of_text(struct tok_str s)
{
    static const char name[] = "<|endoftext|>";
    return s.len == sizeof name - 1 && !memcmp(s.data, name, s.len);
}

/* {"token": id, ...} of the first n tokens, or of the added ones among them. */
static int put_ids(struct strbuf *b, const struct tok_vocab *v, size_t n,
                   bool only_added, size_t *n_put, struct runt_err *err)
{
    int rc = 0;
    *n_put = 0;
    sb_char(b, '{');
    for (size_t i = 0; i < n && !rc; i++) {
        if (only_added && (!is_special(v, i) || is_end_of_text(v->tokens[i])))
            continue;
        if ((*n_put)++)
            sb_char(b, ',');
        rc = put_json(b, v->tokens[i], "a token", err);
        sb_printf(b, ":%zu", i);
    }
    sb_char(b, '}');
    return rc;
}

int tok_vocab_save(const struct tok_vocab *v, const char *dir, struct runt_err *err)
{
    struct strbuf vocab = {0}, added = {0}, merges = {0};
    size_t n = count_used(v), n_put, n_added = 0;
    int rc = put_ids(&vocab, v, n, false, &n_put, err);
    if (!rc)
        rc = put_ids(&added, v, n, true, &n_added, err);
    sb_str(&merges, "#version: 0.2\n");
    for (size_t i = 0; i < v->n_merges; i++) {
        sb_put(&merges, v->merges[i].data, v->merges[i].len);
        sb_char(&merges, '\n');
    }
    if (!rc)
        rc = write_file(dir, "vocab.json", &vocab, err);
    if (!rc && n_added)
        rc = write_file(dir, "added_tokens.json", &added, err);
    if (!rc)
        rc = write_file(dir, "merges.txt", &merges, err);
    sb_free(&vocab);
    sb_free(&added);
    sb_free(&merges);
    return rc;
}

/* "key": the name of a token, or null. */
static int put_token(struct strbuf *b, const char *key, const struct tok_vocab *v,
                     int32_t id, struct runt_err *err)
{
    sb_printf(b, ",\n  \"%s\": ", key);
    if (id >= 0)
        return put_json(b, v->tokens[id], "a token", err);
    sb_str(b, "null");
    return 0;
}

/* Which tokens are never spelled out of others. */
static int put_specials(struct strbuf *b, const struct tok_vocab *v,
                        struct runt_err *err)
{
    const char *between = "";
    int rc = 0;
    sb_str(b, ",\n  \"added_tokens_decoder\": {");
    for (size_t i = 0; i < v->n_tokens && !rc; i++) {
        if (!is_special(v, i))
            continue;
        sb_printf(b, "%s\n    \"%zu\": {\"content\": ", between, i);
        rc = put_json(b, v->tokens[i], "a token", err);
        sb_printf(b,
                  ", \"lstrip\": false, \"normalized\": false, \"rstrip\": false, "
                  "\"single_word\": false, \"special\": %s}",
                  v->kinds[i] == TOK_CONTROL ? "true" : "false");
        between = ",";
    }
    sb_str(b, *between ? "\n  }" : "}");
    return rc;
}

int tok_settings_save(const struct tok_vocab *v, uint32_t max_length,
                      struct tok_str chat_template, const char *dir,
                      struct runt_err *err)
{
    struct strbuf b = {0};
    sb_printf(&b,
              "{\n  \"tokenizer_class\": \"GPT2Tokenizer\",\n"
              "  \"model_max_length\": %u,\n  \"add_prefix_space\": false,\n"
              "  \"errors\": \"replace\"",
              max_length);
    int rc = put_token(&b, "bos_token", v, v->bos, err);
    if (!rc)
        rc = put_token(&b, "eos_token", v, v->eos, err);
    if (!rc) /* as GPT-2 has it: there are no unknown bytes */
        rc = put_token(&b, "unk_token", v, v->eos, err);
    if (!rc)
        rc = put_specials(&b, v, err);
    if (!rc && chat_template.data) {
        sb_str(&b, ",\n  \"chat_template\": ");
        rc = put_json(&b, chat_template, "the chat template", err);
    }
    sb_str(&b, "\n}\n");
    if (!rc)
        rc = write_file(dir, "tokenizer_config.json", &b, err);
    sb_free(&b);
    return rc;
}
