/* Owns reading tokenizer.json, Hugging Face's one-file form.
 *
 * The file can describe many tokenizers.  This program runs one pipeline: no
 * normalizer, GPT-2's ByteLevel pre-tokenizer, plain BPE, ByteLevel decoder.  Whatever
 * would make other ids than that is refused with a line that says what it is, rather
 * than ignored. */
#include "tok/tok_impl.h"

#include "base/err.h"

#include <string.h>

/* A step's type, for error lines. */
static const char *type_of(const json_t *step)
{
    const char *type = js_get_str(step, "type");
    return type ? type : "without a type";
}

/* Of the pre-tokenizer or decoder: the ByteLevel step that must be all of it, perhaps
 * as a sequence of one. */
static int find_byte_level(const json_t *root, const char *key, const char *list_key,
                           const char *name, const json_t **out, struct runt_err *err)
{
    const json_t *step = json_object_get(root, key);
    if (!step || json_is_null(step))
        return err_set(err, RUNT_E_UNSUPPORTED,
                       "%s: no %s; only byte-level BPE is supported", name, key);
    if (!strcmp(type_of(step), "Sequence")) {
        const json_t *list = json_object_get(step, list_key);
        for (size_t i = 0; i < json_array_size(list); i++) {
            step = json_array_get(list, i);
            if (strcmp(type_of(step), "ByteLevel"))
                break;
        }
        if (json_array_size(list) != 1 && !strcmp(type_of(step), "ByteLevel"))
            return err_set(err, RUNT_E_UNSUPPORTED, "%s: %s has %zu ByteLevel steps",
                           name, key, json_array_size(list));
    }
    if (strcmp(type_of(step), "ByteLevel"))
        return err_set(err, RUNT_E_UNSUPPORTED,
                       "%s: %s %s; only GPT-2's ByteLevel is supported", name, key,
                       type_of(step));
    *out = step;
    return 0;
}

/* Refuse a flag that is set (and not a boolean at all). */
static int refuse_flag(const json_t *o, const char *key, const char *why,
                       const char *name, struct runt_err *err)
{
    bool on = false;
    int rc = js_get_bool(o, key, name, &on, err);
    if (rc && rc != RUNT_E_NOTFOUND)
        return rc;
    return on ? err_set(err, RUNT_E_UNSUPPORTED, "%s: %s is set (%s)", name, key, why)
              : 0;
}

static int check_pipeline(const json_t *root, const char *name, struct runt_err *err)
{
    const json_t *normalizer = json_object_get(root, "normalizer");
    const json_t *steps = json_object_get(normalizer, "normalizers");
    bool empty = json_is_array(steps) && json_array_size(steps) == 0;
    if (normalizer && !json_is_null(normalizer) && !empty)
        return err_set(err, RUNT_E_UNSUPPORTED,
                       "%s: normalizer %s; text is never normalized here", name,
                       type_of(normalizer));
    const json_t *pre = NULL, *decoder = NULL;
    int rc = find_byte_level(root, "pre_tokenizer", "pretokenizers", name, &pre, err);
    if (!rc)
        rc = find_byte_level(root, "decoder", "decoders", name, &decoder, err);
    if (!rc)
        rc = refuse_flag(pre, "add_prefix_space", "texts begin without a space here",
                         name, err);
    if (rc)
        return rc;
    bool regex = true;
    rc = js_get_bool(pre, "use_regex", name, &regex, err);
    if (rc && rc != RUNT_E_NOTFOUND)
        return rc;
    return regex
               ? 0
               : err_set(err, RUNT_E_UNSUPPORTED,
                         "%s: use_regex is false; only GPT-2's expression is supported",
                         name);
}

static int check_model(const json_t *model, const char *name, struct runt_err *err)
{
    static const char *const affixes[] = {"continuing_subword_prefix",
                                          "end_of_word_suffix"};
    if (!json_is_object(model))
        return err_set(err, RUNT_E_FORMAT, "%s: no model", name);
    const char *type = js_get_str(model, "type");
    if (type && strcmp(type, "BPE"))
        return err_set(err, RUNT_E_UNSUPPORTED,
                       "%s: model %s; only byte-level BPE is supported", name, type);
    int rc =
        refuse_flag(model, "byte_fallback",
                    "SentencePiece style; only byte-level BPE is supported", name, err);
    if (!rc)
        rc = refuse_flag(model, "ignore_merges", "merges are always followed here",
                         name, err);
    if (rc)
        return rc;
    for (int i = 0; i < 2; i++) {
        const json_t *s = json_object_get(model, affixes[i]);
        if (s && !json_is_null(s) && !(json_is_string(s) && !json_string_length(s)))
            return err_set(err, RUNT_E_UNSUPPORTED, "%s: %s is set; not supported",
                           name, affixes[i]);
    }
    double dropout = 0;
    rc = js_get_double(model, "dropout", name, &dropout, err);
    if (rc && rc != RUNT_E_NOTFOUND)
        return rc;
    if (dropout != 0)
        return err_set(err, RUNT_E_UNSUPPORTED, "%s: dropout %g; not supported", name,
                       dropout);
    const char *unknown = js_get_str(model, "unk_token");
    return unknown && *unknown
               ? refuse_flag(model, "fuse_unk", "unknown bytes stay single here", name,
                             err)
               : 0;
}

static int add_merges(struct vocab_builder *b, const json_t *list, struct runt_err *err)
{
    int rc = 0;
    struct strbuf pair = {0};
    if (!json_is_array(list))
        return err_set(err, RUNT_E_FORMAT, "%s: model has no list of merges",
                       b->from.merges);
    for (size_t i = 0; i < json_array_size(list) && !rc; i++) {
        const json_t *m = json_array_get(list, i);
        const json_t *left = json_array_get(m, 0), *right = json_array_get(m, 1);
        if (json_is_string(m)) {
            rc =
                vocab_add_merge(b, json_string_value(m), json_string_length(m), 0, err);
        } else if (json_array_size(m) == 2 && json_is_string(left) &&
                   json_is_string(right)) {
            pair.len = 0;
            sb_put(&pair, json_string_value(left), json_string_length(left));
            sb_char(&pair, ' ');
            sb_put(&pair, json_string_value(right), json_string_length(right));
            rc = pair.failed ? err_nomem(err, "a merge")
                             : vocab_add_merge(b, pair.data, pair.len, 0, err);
        } else {
            rc = err_set(err, RUNT_E_FORMAT, "%s: merge %zu is not a pair of strings",
                         b->from.merges, i);
        }
    }
    sb_free(&pair);
    return rc;
}

static int add_vocab(struct vocab_builder *b, json_t *vocab, struct runt_err *err)
{
    const char *key;
    json_t *id;
    int rc = 0;
    if (!json_is_object(vocab))
        return err_set(err, RUNT_E_FORMAT, "%s: model has no object of tokens",
                       b->from.tokens);
    json_object_foreach(vocab, key, id)
    {
        rc = vocab_add_token(b, key, strlen(key), id, TOK_NORMAL, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int add_added(struct vocab_builder *b, const json_t *list, struct runt_err *err)
{
    static const char *const flags[] = {"single_word", "lstrip", "rstrip"};
    if (list && !json_is_null(list) && !json_is_array(list))
        return err_set(err, RUNT_E_FORMAT, "%s: added_tokens is not a list",
                       b->from.tokens);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i), *s = json_object_get(o, "content");
        bool special = false;
        if (!json_is_string(s))
            return err_set(err, RUNT_E_FORMAT, "%s: added token %zu has no content",
                           b->from.tokens, i);
        int rc = js_get_bool(o, "special", b->from.tokens, &special, err);
        if (rc && rc != RUNT_E_NOTFOUND)
            return rc;
        rc = 0;
        for (int k = 0; k < 3 && !rc; k++)
            rc = refuse_flag(o, flags[k], "special tokens match exactly here",
                             b->from.tokens, err);
        if (!rc)
            rc = vocab_add_token(b, json_string_value(s), json_string_length(s),
                                 json_object_get(o, "id"),
                                 special ? TOK_CONTROL : TOK_USER, err);
        if (rc)
            return rc;
    }
    return 0;
}

int tok_vocab_parse_json(const char *tokenizer_json, size_t n, const char *name,
                         struct tok_vocab *out, struct runt_err *err)
{
    struct vocab_builder b = {.from = {name, name, NULL}};
    json_t *root = NULL;
    int rc = js_parse(tokenizer_json, n, name, &root, err);
    if (rc)
        return rc;
    json_t *model = json_object_get(root, "model");
    rc = check_model(model, name, err);
    if (!rc)
        rc = check_pipeline(root, name, err);
    if (!rc)
        rc = add_vocab(&b, json_object_get(model, "vocab"), err);
    if (!rc)
        rc = add_added(&b, json_object_get(root, "added_tokens"), err);
    if (!rc)
        rc = add_merges(&b, json_object_get(model, "merges"), err);
    if (!rc)
        rc = vocab_finish(&b, js_get_str(model, "unk_token"), out, err);
    json_decref(root);
    vocab_builder_free(&b);
    return rc;
}
