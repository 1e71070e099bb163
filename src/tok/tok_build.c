/* Owns a tokenizer's tables: from a vocabulary's strings to what encoding looks up.
 *
 * It trusts nothing, because the arrays may come from any model file.  What it refuses:
 * duplicate strings, unknown kinds, a merge that is not "left right" in known tokens,
 * one that comes twice, and one whose result is missing, is a control token, or has
 * other bytes than its two parts.  From that follows what callers rely on: the bytes of
 * an encoded text's ids are that text, and plain text never becomes a control token. */
#include "tok/tok_impl.h"

#include "base/err.h"
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* For "%.*s": enough of a token to recognize it. */
static int shown(struct tok_str s)
{
    return s.len < 40 ? (int)s.len : 40;
}

static int check_counts(const struct tok_vocab *v, const struct tok_origin *from,
                        struct runt_err *err)
{
    if (v->n_tokens == 0 || v->n_tokens > TOK_MAX_TOKENS)
        return err_set(err, RUNT_E_FORMAT, "%s: %zu tokens, outside 1..%d",
                       from->tokens, v->n_tokens, TOK_MAX_TOKENS);
    if (v->n_merges > TOK_MAX_TOKENS)
        return err_set(err, RUNT_E_FORMAT, "%s: %zu merges, more than %d", from->merges,
                       v->n_merges, TOK_MAX_TOKENS);
    int32_t n = (int32_t)v->n_tokens;
    if (v->bos < -1 || v->bos >= n || v->eos < -1 || v->eos >= n)
        return err_set(err, RUNT_E_FORMAT,
                       "%s: begin or end of text is token %d or %d, of %d tokens",
                       from->tokens, v->bos, v->eos, n);
    return 0;
}

/* Whether a token is, by its id, the result of a merge whose parts and result are all
 * normal: then its bytes are those of its parts. */
static bool is_joined(const struct tok_vocab *v, size_t id)
{
    if (!v->pairs || id < 256 || id - 256 >= v->n_merges)
        return false;
    const int32_t *p = v->pairs[id - 256];
    return v->kinds[id] == TOK_NORMAL && v->kinds[p[0]] == TOK_NORMAL &&
           v->kinds[p[1]] == TOK_NORMAL;
}

/* The plain bytes of every token. */
static int spell_tokens(struct tok *t, const struct tok_vocab *v,
                        const struct tok_origin *from, struct runt_err *err)
{
    size_t total = 0;
    for (size_t id = 0; id < v->n_tokens; id++)
        if (!size_add(total, v->tokens[id].len, &total) || total > TOK_MAX_STRINGS)
            return err_set(err, RUNT_E_FORMAT,
                           "%s: tokens of more than %d bytes in all", from->tokens,
                           TOK_MAX_STRINGS);
    t->n_tokens = v->n_tokens;
    t->blob = mem_zalloc(total + TOK_SLACK);
    t->bytes = mem_array(v->n_tokens, sizeof *t->bytes);
    t->kinds = mem_array(v->n_tokens, 1);
    if (!t->blob || !t->bytes || !t->kinds)
        return err_nomem(err, "a vocabulary");
    char *p = t->blob;
    for (size_t id = 0; id < v->n_tokens; id++) {
        struct tok_str s = v->tokens[id];
        int32_t kind = v->kinds[id];
        if (kind == TOK_BYTE)
            return err_set(err, RUNT_E_UNSUPPORTED,
                           "%s: token %zu is of SentencePiece's byte kind; only "
                           "byte-level BPE is supported",
                           from->tokens, id);
        if (kind < TOK_NORMAL || kind > TOK_BYTE)
            return err_set(err, RUNT_E_FORMAT, "%s: token %zu is of unknown kind %d",
                           from->tokens, id, kind);
        size_t n = s.len;
        if (is_joined(v, id)) {
            const int32_t *pair = v->pairs[id - 256];
            char *end = tok_append(tok_append(p, t->bytes[pair[0]]), t->bytes[pair[1]]);
            n = (size_t)(end - p);
        } else if (kind == TOK_UNUSED)
            n = 0;
        else if (n && (kind != TOK_NORMAL || !tok_spell(s.data, s.len, p, &n)))
            memcpy(p, s.data, n); /* stands for its own UTF-8 */
        if (kind == TOK_UNKNOWN && t->unknown < 0)
            t->unknown = (int32_t)id;
        t->bytes[id] = (struct tok_str){p, n};
        t->kinds[id] = (uint8_t)kind;
        p += n;
    }
    return 0;
}

static int map_tokens(struct tok *t, const struct tok_vocab *v, struct strmap *names,
                      const struct tok_origin *from, struct runt_err *err)
{
    if (strmap_init(names, v->n_tokens))
        return err_nomem(err, "a vocabulary's index");
    for (size_t id = 0; id < v->n_tokens; id++) {
        struct tok_str s = v->tokens[id];
        int32_t i = (int32_t)id, same;
        if (t->bytes[id].len == 0)
            continue;
        if (strmap_put(names, v->tokens, i, &same))
            return err_set(err, RUNT_E_FORMAT,
                           "%s: token %zu: too many tokens hash alike", from->tokens,
                           id);
        if (same != i)
            return err_set(err, RUNT_E_FORMAT, "%s: tokens %d and %d are both \"%.*s\"",
                           from->tokens, same, i, shown(s), s.data);
    }
    return 0;
}

static bool is_plain(const struct tok *t, int32_t id)
{
    return t->kinds[id] == TOK_NORMAL || t->kinds[id] == TOK_USER;
}

static void find_byte_tokens(struct tok *t, const struct tok_vocab *v,
                             const struct strmap *names)
{
    for (unsigned b = 0; b < 256; b++) {
        uint32_t c = tok_byte_to_char((uint8_t)b);
        char s[2] = {(char)c};
        size_t n = 1;
        if (c >= 0x80) {
            s[0] = (char)(0xc0 | c >> 6);
            s[1] = (char)(0x80 | (c & 0x3f));
            n = 2;
        }
        int32_t id =
            strmap_get(names, v->tokens, (struct tok_str){s, n}, (struct tok_str){0});
        bool good = id >= 0 && is_plain(t, id) && t->bytes[id].len == 1 &&
                    (uint8_t)t->bytes[id].data[0] == b;
        t->byte_id[b] = good ? id : t->unknown;
    }
}

static int merge_err(const struct tok_origin *from, size_t rank, struct runt_err *err,
                     const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static int merge_err(const struct tok_origin *from, size_t rank, struct runt_err *err,
                     const char *fmt, ...)
{
    char what[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    if (from->lines)
        return err_set(err, RUNT_E_FORMAT, "%s: line %u: %s", from->merges,
                       from->lines[rank], what);
    return err_set(err, RUNT_E_FORMAT, "%s: merge %zu: %s", from->merges, rank, what);
}

static int check_plain(const struct tok *t, const struct tok_vocab *v,
                       const struct tok_origin *from, size_t rank, const char *what,
                       int32_t id, struct runt_err *err)
{
    struct tok_str s = v->tokens[id];
    return is_plain(t, id) ? 0
                           : merge_err(from, rank, err, "%s\"%.*s\" is a special token",
                                       what, shown(s), s.data ? s.data : "");
}

/* The ids of a merge's two parts and of its result, by their strings. */
static int find_parts(const struct tok *t, const struct tok_vocab *v,
                      const struct strmap *names, const struct tok_origin *from,
                      size_t rank, int32_t pair[2], int32_t *result,
                      struct runt_err *err)
{
    struct tok_str m = v->merges[rank];
    const char *space = m.len ? memchr(m.data, ' ', m.len) : NULL;
    size_t left = space ? (size_t)(space - m.data) : 0;
    if (!space || left == 0 || left + 1 == m.len ||
        memchr(space + 1, ' ', m.len - left - 1))
        return merge_err(from, rank, err, "\"%.*s\" is not two tokens and one space",
                         shown(m), m.data ? m.data : "");
    struct tok_str part[2] = {{m.data, left}, {space + 1, m.len - left - 1}};
    for (int i = 0; i < 2; i++) {
        pair[i] = strmap_get(names, v->tokens, part[i], (struct tok_str){0});
        if (pair[i] < 0)
            return merge_err(from, rank, err, "\"%.*s\" is not in the vocabulary",
                             shown(part[i]), part[i].data);
        int rc = check_plain(t, v, from, rank, "", pair[i], err);
        if (rc)
            return rc;
    }
    *result = strmap_get(names, v->tokens, part[0], part[1]);
    if (*result < 0)
        return merge_err(from, rank, err,
                         "its result \"%.*s%.*s\" is not in the vocabulary",
                         shown(part[0]), part[0].data, shown(part[1]), part[1].data);
    return 0;
}

static int check_merge(const struct tok *t, const struct tok_vocab *v,
                       const struct tok_origin *from, size_t rank,
                       const int32_t pair[2], struct runt_err *err)
{
    int32_t result = t->merged[rank];
    if (is_joined(v, (size_t)result))
        return 0;
    int rc = check_plain(t, v, from, rank, "", pair[0], err);
    rc = rc ? rc : check_plain(t, v, from, rank, "", pair[1], err);
    rc = rc ? rc : check_plain(t, v, from, rank, "its result ", result, err);
    if (rc)
        return rc;
    struct tok_str a = t->bytes[pair[0]], b = t->bytes[pair[1]], ab = t->bytes[result];
    if (ab.len != a.len + b.len || memcmp(ab.data, a.data, a.len) ||
        memcmp(ab.data + a.len, b.data, b.len))
        return merge_err(from, rank, err, "its result is spelled unlike its two parts");
    return 0;
}

/* Stable counting sort of `in` (NULL: 0..n-1) by key.  `row` has n_keys + 2 zeros;
 * after, key k is at out[row[k]] to out[row[k + 1] - 1]. */
static void sort_by(const int32_t (*pairs)[2], int side, const uint32_t *in,
                    uint32_t *out, size_t n, uint32_t *row, size_t n_keys)
{
    for (size_t i = 0; i < n; i++)
        row[pairs[i][side] + 2]++;
    for (size_t k = 1; k < n_keys; k++)
        row[k + 1] += row[k];
    for (size_t i = 0; i < n; i++) {
        uint32_t m = in ? in[i] : (uint32_t)i;
        out[row[pairs[m][side] + 1]++] = m;
    }
}

/* The error of a merge that came before. */
static int twice_err(const struct tok_vocab *v, const struct tok_origin *from,
                     const int32_t pair[2], uint32_t rank, uint32_t before,
                     struct runt_err *err)
{
    struct tok_str a = v->tokens[pair[0]], b = v->tokens[pair[1]];
    return merge_err(from, rank, err, "\"%.*s %.*s\" was already %s %u", shown(a),
                     a.data, shown(b), b.data, from->lines ? "line" : "merge",
                     from->lines ? from->lines[before] : before);
}

static int build_merges(struct tok *t, const struct tok_vocab *v,
                        const struct strmap *names, const struct tok_origin *from,
                        struct runt_err *err)
{
    int rc = 0;
    size_t n = v->n_merges;
    int32_t(*found)[2] = mem_array(v->pairs ? 0 : n, sizeof *found);
    uint32_t *by_right = mem_array(n, sizeof *by_right);
    uint32_t *order = mem_array(n, sizeof *order);
    uint32_t *right_row = mem_array(v->n_tokens + 2, sizeof *right_row);
    t->n_merges = n;
    t->merge_row = mem_array(v->n_tokens + 2, sizeof *t->merge_row);
    t->merges = mem_array(n, sizeof *t->merges);
    t->merged = mem_array(n, sizeof *t->merged);
    if (!found || !by_right || !order || !right_row || !t->merge_row || !t->merges ||
        !t->merged) {
        rc = err_nomem(err, "a vocabulary's merges");
        goto out;
    }
    const int32_t(*p)[2] = (const int32_t(*)[2])(v->pairs ? v->pairs : found);
    for (size_t rank = 0; rank < n && !rc; rank++) {
        if (!v->pairs)
            rc =
                find_parts(t, v, names, from, rank, found[rank], &t->merged[rank], err);
        else
            t->merged[rank] = 256 + (int32_t)rank;
        if (!rc)
            rc = check_merge(t, v, from, rank, p[rank], err);
    }
    if (rc)
        goto out;
    sort_by(p, 1, NULL, by_right, n, right_row, v->n_tokens);
    sort_by(p, 0, by_right, order, n, t->merge_row, v->n_tokens);
    for (size_t i = 0; i < n; i++) {
        uint32_t m = order[i], before = i ? order[i - 1] : m;
        t->merges[i] = (struct tok_merge){p[m][1], m};
        if (before != m && p[before][0] == p[m][0] && p[before][1] == p[m][1]) {
            rc = twice_err(v, from, p[m], m, before, err);
            goto out;
        }
    }
out:
    mem_free(found);
    mem_free(by_right);
    mem_free(order);
    mem_free(right_row);
    return rc;
}

struct special {
    struct tok_str s;
    int32_t id;
};

static int compare_specials(const void *x, const void *y)
{
    const struct tok_str *a = &((const struct special *)x)->s;
    const struct tok_str *b = &((const struct special *)y)->s;
    int c = memcmp(a->data, b->data, a->len < b->len ? a->len : b->len);
    return c ? c : (a->len > b->len) - (a->len < b->len);
}

static bool starts_with(struct tok_str s, struct tok_str head)
{
    return s.len >= head.len && !memcmp(s.data, head.data, head.len);
}

static int build_specials(struct tok *t, const struct tok_origin *from,
                          struct runt_err *err)
{
    int rc = 0;
    size_t n = 0;
    for (size_t id = 0; id < t->n_tokens; id++) {
        if (t->kinds[id] != TOK_CONTROL && t->kinds[id] != TOK_USER)
            continue;
        if (t->bytes[id].len > TOK_MAX_SPECIAL)
            return err_set(err, RUNT_E_UNSUPPORTED,
                           "%s: special token %zu has %zu bytes, more than %d",
                           from->tokens, id, t->bytes[id].len, TOK_MAX_SPECIAL);
        n += t->bytes[id].len > 0;
    }
    struct special *list = mem_array(n, sizeof *list);
    t->specials = mem_array(n, sizeof *t->specials);
    t->special_parent = mem_array(n, sizeof *t->special_parent);
    if (!list || !t->specials || !t->special_parent) {
        rc = err_nomem(err, "a vocabulary's special tokens");
        goto out;
    }
    for (size_t id = 0; id < t->n_tokens; id++)
        if ((t->kinds[id] == TOK_CONTROL || t->kinds[id] == TOK_USER) &&
            t->bytes[id].len)
            list[t->n_specials++] = (struct special){t->bytes[id], (int32_t)id};
    qsort(list, n, sizeof *list, compare_specials);
    for (size_t i = 0; i < n; i++) {
        int32_t parent = (int32_t)i - 1;
        while (parent >= 0 && !starts_with(list[i].s, list[parent].s))
            parent = t->special_parent[parent];
        t->special_parent[i] = parent;
        t->specials[i] = list[i].id;
        t->special_row[(uint8_t)list[i].s.data[0] + 1]++;
    }
    for (size_t b = 0; b < 256; b++)
        t->special_row[b + 1] += t->special_row[b];
out:
    mem_free(list);
    return rc;
}

int tok_create_from(const struct tok_vocab *v, const struct tok_origin *from,
                    struct tok **out, struct runt_err *err)
{
    struct strmap names = {0};
    struct tok *t = NULL;
    int rc = check_counts(v, from, err);
    if (rc)
        return rc;
    t = mem_zalloc(sizeof *t);
    if (!t)
        return err_nomem(err, "a tokenizer");
    t->bos = v->bos;
    t->eos = v->eos;
    t->unknown = -1;
    rc = spell_tokens(t, v, from, err);
    if (!rc)
        rc = map_tokens(t, v, &names, from, err);
    if (rc)
        goto out;
    find_byte_tokens(t, v, &names);
    rc = build_merges(t, v, &names, from, err);
    if (!rc)
        rc = build_specials(t, from, err);
    if (rc)
        goto out;
    *out = t;
    t = NULL;
out:
    strmap_free(&names);
    tok_destroy(t);
    return rc;
}

int tok_create(const struct tok_vocab *v, const char *name, struct tok **out,
               struct runt_err *err)
{
    struct tok_origin from = {name, name, NULL};
    return tok_create_from(v, &from, out, err);
}

void tok_destroy(struct tok *t)
{
    if (!t)
        return;
    mem_free(t->bytes);
    mem_free(t->blob);
    mem_free(t->kinds);
    mem_free(t->merge_row);
    mem_free(t->merges);
    mem_free(t->merged);
    mem_free(t->specials);
    mem_free(t->special_parent);
    mem_free(t);
}

size_t tok_n_tokens(const struct tok *t)
{
    return t->n_tokens;
}

int32_t tok_bos(const struct tok *t)
{
    return t->bos;
}

int32_t tok_eos(const struct tok *t)
{
    return t->eos;
}

int32_t tok_find(const struct tok *t, const char *bytes, size_t n)
{
    for (size_t id = 0; n && id < t->n_tokens; id++)
        if (t->bytes[id].len == n && !memcmp(t->bytes[id].data, bytes, n))
            return (int32_t)id;
    return -1;
}

const char *tok_bytes(const struct tok *t, int32_t id, size_t *n)
{
    bool known = id >= 0 && (size_t)id < t->n_tokens;
    *n = known ? t->bytes[id].len : 0;
    return *n ? t->bytes[id].data : "";
}

bool tok_is_control(const struct tok *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->n_tokens && t->kinds[id] == TOK_CONTROL;
}
