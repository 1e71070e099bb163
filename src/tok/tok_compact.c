/* Owns a vocabulary's compact form: from strings to pairs of ids and back, exactly.
 *
 * A merge's strings say nothing that the ids of its two parts do not, and in most
 * byte-level vocabularies merge i makes token 256 + i.  Then the pairs, 4 bytes each,
 * are the whole vocabulary but for the order of the bytes and a few control tokens.
 *
 * Going there is refused, with RUNT_E_UNSUPPORTED, for a vocabulary of any other shape,
 * and wherever the way back would not give the same strings.  Coming back trusts
 * nothing: a pair may only name earlier tokens, and because each merge can double a
 * token, the length of each and of all together is capped before memory is asked for.
 */
#include "tok/tok_impl.h"

#include "base/err.h"
#include "base/mem.h"

#include <string.h>

enum {
    N_BYTES = 256,
    MAX_TOKEN = 1024,      /* bytes of a token's string; GPT-2's longest has 256 */
    MAX_STRINGS = 1 << 26, /* bytes of all of them together; GPT-2's have 450,000 */
};

/* A byte's character in UTF-8: the alphabet ends at U+0143, so 2 bytes are enough. */
static size_t byte_string(uint8_t byte, char s[2])
{
    uint32_t c = tok_byte_to_char(byte);
    s[0] = (char)(c < 0x80 ? c : 0xc0 | c >> 6);
    s[1] = (char)(0x80 | (c & 0x3f));
    return c < 0x80 ? 1 : 2;
}

/* ---- strings to pairs ---- */

static bool find_bytes(const struct tok_vocab *v, uint8_t bytes[N_BYTES])
{
    bool seen[256] = {false};
    for (size_t id = 0; id < N_BYTES; id++) {
        char spelled[2];
        size_t n = v->tokens[id].len;
        if (!n || n > sizeof spelled ||
            !tok_spell(v->tokens[id].data, n, spelled, &n) || n != 1 ||
            seen[(uint8_t)spelled[0]])
            return false;
        bytes[id] = (uint8_t)spelled[0];
        seen[bytes[id]] = true;
    }
    return true;
}

/* The two parts of merge `rank`, if they are earlier tokens that make token 256 + rank
 * and the string "left right" is all there is. */
static bool find_pair(const struct tok_vocab *v, const struct strmap *names,
                      size_t rank, int32_t pair[2])
{
    struct tok_str m = v->merges[rank], made = v->tokens[N_BYTES + rank];
    const char *space = m.len ? memchr(m.data, ' ', m.len) : NULL;
    if (!space || made.len > MAX_TOKEN || made.len + 1 != m.len)
        return false;
    struct tok_str left = {m.data, (size_t)(space - m.data)};
    struct tok_str right = {space + 1, m.len - left.len - 1};
    pair[0] = strmap_get(names, v->tokens, left, (struct tok_str){0});
    pair[1] = strmap_get(names, v->tokens, right, (struct tok_str){0});
    for (int i = 0; i < 2; i++)
        if (pair[i] < 0 || (size_t)pair[i] >= N_BYTES + rank)
            return false;
    return left.len && right.len && !memcmp(made.data, left.data, left.len) &&
           !memcmp(made.data + left.len, right.data, right.len);
}

static int map_names(const struct tok_vocab *v, struct strmap *names,
                     struct runt_err *err)
{
    if (strmap_init(names, v->n_tokens))
        return err_nomem(err, "a vocabulary's index");
    for (size_t id = 0; id < v->n_tokens; id++) {
        int32_t same;
        if (strmap_put(names, v->tokens, (int32_t)id, &same))
            return err_set(err, RUNT_E_UNSUPPORTED,
                           "too many tokens hash alike for the compact form");
    }
    return 0;
}

int tok_compact_make(const struct tok_vocab *v, struct tok_compact *out,
                     struct runt_err *err)
{
    struct tok_compact c = {.n_merges = v->n_merges};
    struct strmap names = {0};
    size_t total = 0;
    bool fits = v->n_tokens <= TOK_MAX_TOKENS && v->n_merges <= TOK_MAX_TOKENS &&
                v->n_tokens >= N_BYTES + v->n_merges && find_bytes(v, c.bytes);
    int rc = fits ? map_names(v, &names, err) : 0;
    if (rc)
        goto out;
    c.pairs = mem_array(v->n_merges, sizeof *c.pairs);
    if (!c.pairs) {
        rc = err_nomem(err, "a vocabulary's merges");
        goto out;
    }
    for (size_t rank = 0; fits && rank < v->n_merges; rank++) {
        fits = find_pair(v, &names, rank, c.pairs[rank]);
        total += v->tokens[N_BYTES + rank].len;
        fits = fits && total <= MAX_STRINGS;
    }
    if (!fits) {
        rc = err_set(err, RUNT_E_UNSUPPORTED,
                     "the vocabulary is not 256 bytes, the results of its merges in "
                     "order, and a tail");
        goto out;
    }
    c.tail = v->tokens + N_BYTES + v->n_merges;
    c.n_tail = v->n_tokens - N_BYTES - v->n_merges;
    *out = c;
    c.pairs = NULL;
out:
    strmap_free(&names);
    mem_free(c.pairs);
    return rc;
}

void tok_compact_free(struct tok_compact *c)
{
    mem_free(c->pairs);
    *c = (struct tok_compact){0};
}

/* ---- pairs to strings ---- */

static int check_bytes(const struct tok_compact *c, const char *name,
                       struct runt_err *err)
{
    int at[256];
    memset(at, 0xff, sizeof at);
    for (int id = 0; id < N_BYTES; id++) {
        uint8_t b = c->bytes[id];
        if (at[b] >= 0)
            return err_set(err, RUNT_E_FORMAT, "%s: tokens %d and %d are both byte %u",
                           name, at[b], id, b);
        at[b] = id;
    }
    return 0;
}

/* The length of every token but the tail's, checked; their sum. */
static int measure(const struct tok_compact *c, const char *name,
                   struct tok_str *tokens, size_t *total, struct runt_err *err)
{
    char s[2];
    size_t sum = 0;
    for (size_t id = 0; id < N_BYTES; id++)
        sum += tokens[id].len = byte_string(c->bytes[id], s);
    for (size_t rank = 0; rank < c->n_merges; rank++) {
        const int32_t *p = c->pairs[rank];
        size_t n_before = N_BYTES + rank;
        for (int i = 0; i < 2; i++)
            if (p[i] < 0 || (size_t)p[i] >= n_before)
                return err_set(
                    err, RUNT_E_FORMAT,
                    "%s: merge %zu of tokens %d and %d: only %zu come before", name,
                    rank, p[0], p[1], n_before);
        size_t len = tokens[p[0]].len + tokens[p[1]].len;
        sum += len;
        if (len > MAX_TOKEN || sum > MAX_STRINGS)
            return err_set(err, RUNT_E_FORMAT,
                           "%s: merge %zu makes a token of %zu bytes, %zu with those "
                           "before it: at most %d and %d",
                           name, rank, len, sum, MAX_TOKEN, MAX_STRINGS);
        tokens[n_before].len = len;
    }
    *total = sum;
    return 0;
}

static void spell_tokens(const struct tok_compact *c, struct tok_vocab *v)
{
    char *p = v->storage;
    for (size_t id = 0; id < N_BYTES; id++) {
        char s[2];
        size_t n = byte_string(c->bytes[id], s);
        memcpy(p, s, n);
        v->tokens[id] = (struct tok_str){p, n};
        p += n;
    }
    for (size_t rank = 0; rank < c->n_merges; rank++) {
        struct tok_str left = v->tokens[c->pairs[rank][0]];
        struct tok_str right = v->tokens[c->pairs[rank][1]];
        v->tokens[N_BYTES + rank] = (struct tok_str){p, left.len + right.len};
        p = tok_append(tok_append(p, left), right);
    }
}

int tok_compact_expand(struct tok_compact *c, const char *name, struct tok_vocab *out,
                       struct runt_err *err)
{
    struct tok_vocab v = {.n_merges = c->n_merges, .bos = -1, .eos = -1};
    size_t total = 0;
    int rc = check_bytes(c, name, err);
    if (rc)
        return rc;
    if (c->n_merges > TOK_MAX_TOKENS - N_BYTES ||
        c->n_tail > TOK_MAX_TOKENS - N_BYTES - c->n_merges)
        return err_set(err, RUNT_E_FORMAT,
                       "%s: %zu merges and a tail of %zu make more than %d tokens",
                       name, c->n_merges, c->n_tail, TOK_MAX_TOKENS);
    v.n_tokens = N_BYTES + c->n_merges + c->n_tail;
    v.tokens = mem_array(v.n_tokens, sizeof *v.tokens);
    v.kinds = mem_array(v.n_tokens, sizeof *v.kinds);
    if (!v.tokens || !v.kinds) {
        rc = err_nomem(err, "a vocabulary");
        goto out;
    }
    rc = measure(c, name, v.tokens, &total, err);
    if (rc)
        goto out;
    v.storage = mem_zalloc(total + TOK_SLACK);
    if (!v.storage) {
        rc = err_nomem(err, "a vocabulary");
        goto out;
    }
    spell_tokens(c, &v);
    for (size_t i = 0; i < c->n_tail; i++)
        v.tokens[N_BYTES + c->n_merges + i] = c->tail[i];
    for (size_t id = 0; id < v.n_tokens; id++)
        v.kinds[id] = TOK_NORMAL;
    v.pairs = c->pairs;
    c->pairs = NULL;
out:
    if (rc)
        tok_vocab_free(&v);
    else
        *out = v;
    return rc;
}

int tok_vocab_spell_merges(struct tok_vocab *v, struct runt_err *err)
{
    size_t bytes;
    if (v->merges || !v->pairs)
        return 0;
    if (!size_mul(v->n_merges, sizeof *v->merges, &bytes))
        return err_nomem(err, "a vocabulary's merges");
    size_t at = bytes;
    for (size_t i = 0; i < v->n_merges; i++) /* capped: the tokens were measured */
        bytes += v->tokens[N_BYTES + i].len + 1;
    struct tok_str *merges = mem_alloc(bytes); /* the strings lie behind the array */
    if (!merges)
        return err_nomem(err, "a vocabulary's merges");
    char *p = (char *)merges + at;
    for (size_t i = 0; i < v->n_merges; i++) {
        char *begin = p;
        struct tok_str left = v->tokens[v->pairs[i][0]];
        struct tok_str right = v->tokens[v->pairs[i][1]];
        memcpy(p, left.data, left.len);
        p += left.len;
        *p++ = ' ';
        memcpy(p, right.data, right.len);
        p += right.len;
        merges[i] = (struct tok_str){begin, (size_t)(p - begin)};
    }
    v->merges = merges;
    return 0;
}
