/* Owns a vocabulary's strings: gathering them from vocab.json, merges.txt and
 * added_tokens.json, ordering them by id, and padding.
 *
 * A builder notes tokens and merges as they come; vocab_finish puts them in order,
 * fills a few holes, and proves the result by building a tokenizer from it, so that
 * what parses also works and a bad merge is named by its line.  Ids that are negative,
 * taken twice or leave more than MAX_HOLES holes are refused. */
#include "tok/tok_impl.h"

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

enum {
    MAX_HOLES = 1000,
    MAX_MERGES_BYTES = 64 << 20,
    PAD_ROOM = sizeof "[PAD 4000000]",
};

static const char end_of_text[] = "<|endoftext|>";

/* ---- the builder ---- */

static int list_add(struct vocab_list *l, struct vocab_item item, struct runt_err *err)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 1024;
        struct vocab_item *p = mem_resize(l->items, cap, sizeof *p);
        if (!p)
            return err_nomem(err, "a vocabulary");
        l->items = p;
        l->cap = cap;
    }
    l->items[l->n++] = item;
    return 0;
}

static int shown(size_t n)
{
    return n < 40 ? (int)n : 40;
}

int vocab_add_token(struct vocab_builder *b, const char *s, size_t n, const json_t *id,
                    enum tok_kind kind, struct runt_err *err)
{
    if (!json_is_integer(id))
        return err_set(err, RUNT_E_FORMAT, "%s: the id of \"%.*s\" is not an integer",
                       b->from.tokens, shown(n), s);
    json_int_t i = json_integer_value(id);
    if (i < 0 || i >= TOK_MAX_TOKENS)
        return err_set(err, RUNT_E_FORMAT,
                       "%s: the id of \"%.*s\" is %lld, outside 0..%d", b->from.tokens,
                       shown(n), s, (long long)i, TOK_MAX_TOKENS - 1);
    struct vocab_item item = {b->text.len, n, (int32_t)i, kind};
    sb_put(&b->text, s, n);
    return list_add(&b->tokens, item, err);
}

int vocab_add_merge(struct vocab_builder *b, const char *s, size_t n, size_t line,
                    struct runt_err *err)
{
    if (b->merges.n == TOK_MAX_TOKENS)
        return err_set(err, RUNT_E_FORMAT, "%s: more than %d merges", b->from.merges,
                       TOK_MAX_TOKENS);
    struct vocab_item item = {b->text.len, n, (int32_t)line, 0};
    sb_put(&b->text, s, n);
    return list_add(&b->merges, item, err);
}

void vocab_builder_free(struct vocab_builder *b)
{
    sb_free(&b->text);
    mem_free(b->tokens.items);
    mem_free(b->merges.items);
    *b = (struct vocab_builder){0};
}

static bool is_string(struct tok_str s, const char *z)
{
    return z && s.len == strlen(z) && !memcmp(s.data, z, s.len);
}

static int pad_name(char *p, size_t id)
{
    return snprintf(p, PAD_ROOM, "[PAD %zu]", id);
}

/* Add an unused token for every id of kinds[0..n_tokens) that has none. */
static int fill_holes(struct vocab_builder *b, int32_t *kinds, size_t n_tokens,
                      struct runt_err *err)
{
    int rc = 0;
    for (size_t i = 0; i < b->tokens.n; i++)
        kinds[b->tokens.items[i].number] = TOK_NORMAL;
    for (size_t id = 0; id < n_tokens && !rc; id++) {
        char name[PAD_ROOM];
        if (kinds[id])
            continue;
        size_t n = (size_t)pad_name(name, id);
        struct vocab_item item = {b->text.len, n, (int32_t)id, TOK_UNUSED};
        sb_put(&b->text, name, n);
        rc = list_add(&b->tokens, item, err);
    }
    return rc;
}

/* Every token at its id. */
static int place_tokens(const struct vocab_builder *b, const char *unknown,
                        struct tok_vocab *v, struct runt_err *err)
{
    for (size_t i = 0; i < b->tokens.n; i++) {
        const struct vocab_item *it = &b->tokens.items[i];
        struct tok_str s = {b->text.data + it->pos, it->len};
        struct tok_str *at = &v->tokens[it->number];
        if (at->data && (at->len != s.len || memcmp(at->data, s.data, s.len)))
            return err_set(err, RUNT_E_FORMAT,
                           "%s: \"%.*s\" and \"%.*s\" have one id, %d", b->from.tokens,
                           shown(at->len), at->data, shown(s.len), s.data, it->number);
        *at = s;
        v->kinds[it->number] = it->kind;
        if (is_string(s, end_of_text)) {
            v->kinds[it->number] = TOK_CONTROL;
            v->bos = v->eos = it->number;
        } else if (is_string(s, unknown)) {
            v->kinds[it->number] = TOK_UNKNOWN;
        }
    }
    return 0;
}

int vocab_finish(struct vocab_builder *b, const char *unknown, struct tok_vocab *out,
                 struct runt_err *err)
{
    int rc = 0;
    struct tok_vocab v = {.n_merges = b->merges.n, .bos = -1, .eos = -1};
    struct tok_origin from = b->from;
    struct tok *t = NULL;
    uint32_t *lines = NULL;
    for (size_t i = 0; i < b->tokens.n; i++)
        if ((size_t)b->tokens.items[i].number >= v.n_tokens)
            v.n_tokens = (size_t)b->tokens.items[i].number + 1;
    if (v.n_tokens > b->tokens.n + MAX_HOLES)
        return err_set(
            err, RUNT_E_FORMAT, "%s: %zu of the ids 0..%zu are missing, more than %d",
            from.tokens, v.n_tokens - b->tokens.n, v.n_tokens - 1, MAX_HOLES);
    v.tokens = mem_array(v.n_tokens, sizeof *v.tokens);
    v.kinds = mem_array(v.n_tokens, sizeof *v.kinds);
    v.merges = mem_array(v.n_merges, sizeof *v.merges);
    lines = mem_array(v.n_merges, sizeof *lines);
    if (!v.tokens || !v.kinds || !v.merges || !lines) {
        rc = err_nomem(err, "a vocabulary");
        goto out;
    }
    rc = fill_holes(b, v.kinds, v.n_tokens, err);
    if (!rc && b->text.failed)
        rc = err_nomem(err, "a vocabulary");
    if (!rc)
        rc = place_tokens(b, unknown, &v, err);
    if (rc)
        goto out;
    for (size_t i = 0; i < v.n_merges; i++) {
        const struct vocab_item *it = &b->merges.items[i];
        v.merges[i] = (struct tok_str){b->text.data + it->pos, it->len};
        lines[i] = (uint32_t)it->number;
    }
    from.lines = b->has_lines ? lines : NULL;
    rc = tok_create_from(&v, &from, &t, err);
    if (rc)
        goto out;
    v.storage = b->text.data;
    b->text = (struct strbuf){0};
    *out = v;
    v = (struct tok_vocab){0};
out:
    tok_destroy(t);
    mem_free(lines);
    tok_vocab_free(&v);
    return rc;
}

/* ---- vocab.json, added_tokens.json, merges.txt ---- */

/* {"token": id, ...}; jansson has refused a key that comes twice. */
static int add_object(struct vocab_builder *b, json_t *o, bool added,
                      struct runt_err *err)
{
    const char *key;
    json_t *id;
    if (!json_is_object(o))
        return err_set(err, RUNT_E_FORMAT, "%s: not an object of tokens and ids",
                       b->from.tokens);
    json_object_foreach(o, key, id)
    {
        size_t n = strlen(key);
        /* The file does not say which of its tokens are special; names in brackets,
         * such as <|im_start|>, are taken to be. */
        bool control = added && n > 2 &&
                       ((key[0] == '<' && key[n - 1] == '>') ||
                        (key[0] == '[' && key[n - 1] == ']'));
        int rc = vocab_add_token(b, key, n, id,
                                 control ? TOK_CONTROL
                                 : added ? TOK_USER
                                         : TOK_NORMAL,
                                 err);
        if (rc)
            return rc;
    }
    return 0;
}

static int add_merge_lines(struct vocab_builder *b, const char *text, size_t n,
                           struct runt_err *err)
{
    size_t line = 0;
    for (size_t pos = 0; pos < n;) {
        const char *s = text + pos, *newline = memchr(s, '\n', n - pos);
        size_t len = newline ? (size_t)(newline - s) : n - pos;
        pos += len + 1;
        line++;
        if (len && s[len - 1] == '\r')
            len--;
        if (line == 1 && len >= 8 && !memcmp(s, "#version", 8))
            continue;
        bool at_end = pos >= n;
        if (len == 0 && at_end)
            break;
        int rc = vocab_add_merge(b, s, len, line, err);
        if (rc)
            return rc;
    }
    return 0;
}

/* The three files, the third where there is one. */
struct folder {
    const char *vocab, *merges, *added;
    size_t n_vocab, n_merges, n_added;
};

static int parse_folder(const struct folder *f, const char *name, struct tok_vocab *out,
                        struct runt_err *err)
{
    struct vocab_builder b = {.has_lines = true};
    json_t *json = NULL;
    char *vocab_name = mem_printf("%s/vocab.json", name);
    char *added_name = mem_printf("%s/added_tokens.json", name);
    char *merges_name = mem_printf("%s/merges.txt", name);
    int rc = 0;
    if (!vocab_name || !added_name || !merges_name) {
        rc = err_nomem(err, name);
        goto out;
    }
    b.from = (struct tok_origin){vocab_name, merges_name, NULL};
    rc = js_parse(f->vocab, f->n_vocab, vocab_name, &json, err);
    if (!rc)
        rc = add_object(&b, json, false, err);
    if (!rc && f->added) {
        json_decref(json);
        json = NULL;
        b.from.tokens = added_name;
        rc = js_parse(f->added, f->n_added, added_name, &json, err);
        if (!rc)
            rc = add_object(&b, json, true, err);
    }
    if (!rc)
        rc = add_merge_lines(&b, f->merges, f->n_merges, err);
    if (!rc)
        rc = vocab_finish(&b, NULL, out, err);
out:
    json_decref(json);
    vocab_builder_free(&b);
    mem_free(vocab_name);
    mem_free(added_name);
    mem_free(merges_name);
    return rc;
}

int tok_vocab_parse(const char *vocab_json, size_t n_vocab, const char *merges_txt,
                    size_t n_merges, const char *name, struct tok_vocab *out,
                    struct runt_err *err)
{
    struct folder f = {vocab_json, merges_txt, NULL, n_vocab, n_merges, 0};
    return parse_folder(&f, name, out, err);
}

/* ---- a folder ---- */

static int load_folder(const char *dir, char *const path[4], struct tok_vocab *out,
                       struct runt_err *err)
{
    char *vocab = NULL, *merges = NULL, *added = NULL;
    struct folder f = {0};
    int rc = file_read_regular(path[0], JS_MAX_BYTES, &vocab, &f.n_vocab, err);
    if (!rc)
        rc = file_read_regular(path[1], MAX_MERGES_BYTES, &merges, &f.n_merges, err);
    if (!rc && file_exists(path[2]))
        rc = file_read_regular(path[2], JS_MAX_BYTES, &added, &f.n_added, err);
    f.vocab = vocab;
    f.merges = merges;
    f.added = added;
    if (!rc)
        rc = parse_folder(&f, dir, out, err);
    mem_free(vocab);
    mem_free(merges);
    mem_free(added);
    return rc;
}

int tok_vocab_load(const char *dir, struct tok_vocab *out, struct runt_err *err)
{
    static const char *const names[4] = {"vocab.json", "merges.txt",
                                         "added_tokens.json", "tokenizer.json"};
    char *path[4] = {0}, *text = NULL;
    size_t n;
    int rc = 0;
    for (int i = 0; i < 4 && !rc; i++) {
        path[i] = mem_printf("%s/%s", dir, names[i]);
        if (!path[i])
            rc = err_nomem(err, dir);
    }
    if (rc)
        goto out;
    if (file_exists(path[0])) {
        rc = load_folder(dir, path, out, err);
    } else if (file_exists(path[3])) {
        rc = file_read_regular(path[3], JS_MAX_BYTES, &text, &n, err);
        if (!rc)
            rc = tok_vocab_parse_json(text, n, path[3], out, err);
    } else {
        rc = err_set(err, RUNT_E_NOTFOUND, "%s: neither vocab.json nor tokenizer.json",
                     dir);
    }
out:
    for (int i = 0; i < 4; i++)
        mem_free(path[i]);
    mem_free(text);
    return rc;
}

/* ---- a vocabulary ---- */

static void copy_strings(struct tok_str *s, size_t n, char **p)
{
    for (size_t i = 0; i < n; i++) {
        if (s[i].len)
            memcpy(*p, s[i].data, s[i].len);
        s[i].data = *p;
        *p += s[i].len;
    }
}

int tok_vocab_pad(struct tok_vocab *v, size_t n_tokens, struct runt_err *err)
{
    size_t old = v->n_tokens, bytes = 0;
    bool fits = true;
    if (n_tokens <= old)
        return 0;
    if (n_tokens > TOK_MAX_TOKENS)
        return err_set(err, RUNT_E_FORMAT,
                       "a vocabulary padded to %zu tokens: at most %d", n_tokens,
                       TOK_MAX_TOKENS);
    struct tok_str *tokens = mem_resize(v->tokens, n_tokens, sizeof *tokens);
    if (!tokens)
        return err_nomem(err, "unused tokens");
    v->tokens = tokens;
    int32_t *kinds = mem_resize(v->kinds, n_tokens, sizeof *kinds);
    if (!kinds)
        return err_nomem(err, "unused tokens");
    v->kinds = kinds;
    for (size_t id = 0; id < old; id++)
        fits = fits && size_add(bytes, tokens[id].len, &bytes);
    for (size_t i = 0; v->merges && i < v->n_merges; i++)
        fits = fits && size_add(bytes, v->merges[i].len, &bytes);
    fits = fits && size_add(bytes, (n_tokens - old) * PAD_ROOM, &bytes);
    /* `storage` is one block: the old strings move to the new one. */
    char *storage = fits ? mem_alloc(bytes) : NULL, *p = storage;
    if (!storage)
        return err_nomem(err, "unused tokens");
    copy_strings(tokens, old, &p);
    if (v->merges)
        copy_strings(v->merges, v->n_merges, &p);
    for (size_t id = old; id < n_tokens; id++) {
        tokens[id] = (struct tok_str){p, (size_t)pad_name(p, id)};
        kinds[id] = TOK_UNUSED;
        p += tokens[id].len;
    }
    mem_free(v->storage);
    v->storage = storage;
    v->n_tokens = n_tokens;
    return 0;
}

void tok_vocab_free(struct tok_vocab *v)
{
    mem_free(v->tokens);
    mem_free(v->kinds);
    mem_free(v->merges);
    mem_free(v->storage);
    mem_free(v->pairs);
    *v = (struct tok_vocab){.bos = -1, .eos = -1};
}
