/* Owns the tree of a vocabulary: its tokens by their bytes.
 *
 * The nodes lie in the order in which a walk from left to right meets them, so walking
 * is reading the array: into a node's subtree by going on, past it by its `skip`.  The
 * state after a node's parent is kept by depth.  Control and unused tokens are not in
 * it; those that end a text are a list of their own. */
#include "sample/vocab_tree.h"

#include "base/err.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

struct word {
    const unsigned char *bytes;
    size_t len;
    int32_t id;
};

static int by_bytes(const void *a, const void *b)
{
    const struct word *x = a, *y = b;
    int c = memcmp(x->bytes, y->bytes, x->len < y->len ? x->len : y->len);
    if (c)
        return c;
    if (x->len != y->len)
        return x->len < y->len ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static bool ends_text(const struct tok *tok, int32_t id)
{
    return tok_is_control(tok, id) || id == tok_eos(tok);
}

/* The tokens with bytes, in order; and into t->ends those that end a text. */
static size_t gather(const struct tok *tok, struct vocab_tree *t, struct word *words)
{
    size_t n = 0;
    for (int32_t id = 0; (size_t)id < t->n_vocab; id++) {
        size_t len;
        const char *bytes = tok_bytes(tok, id, &len);
        if (ends_text(tok, id))
            t->ends[t->n_ends++] = id;
        else if (len)
            words[n++] = (struct word){(const unsigned char *)bytes, len, id};
    }
    qsort(words, n, sizeof *words, by_bytes);
    return n;
}

/* Bytes that two words begin with alike. */
static size_t common(const struct word *a, const struct word *b)
{
    size_t n = 0;
    while (n < a->len && n < b->len && a->bytes[n] == b->bytes[n])
        n++;
    return n;
}

/* Nodes that a word adds behind the one before it. */
static size_t new_nodes(const struct word *words, size_t i, size_t *same)
{
    *same = i ? common(&words[i - 1], &words[i]) : 0;
    return words[i].len - *same;
}

static int build(struct vocab_tree *t, const struct word *words, size_t n_words)
{
    size_t n = 0, same;
    uint32_t *open = NULL; /* by depth: the node there */
    for (size_t i = 0; i < n_words; i++) {
        n += new_nodes(words, i, &same);
        t->depth = words[i].len > t->depth ? words[i].len : t->depth;
    }
    if (n >= UINT32_MAX)
        return RUNT_E_NOMEM;
    t->nodes = mem_array(n + 1, sizeof *t->nodes);
    t->ids = mem_array(n_words, sizeof *t->ids);
    open = mem_array(t->depth + 1, sizeof *open);
    if (!t->nodes || !t->ids || !open) {
        mem_free(open);
        return RUNT_E_NOMEM;
    }
    size_t n_open = 0;
    for (size_t i = 0; i < n_words; i++) {
        new_nodes(words, i, &same);
        for (; n_open > same; n_open--)
            t->nodes[open[n_open - 1]].skip = (uint32_t)t->n_nodes;
        for (; n_open < words[i].len; n_open++) {
            open[n_open] = (uint32_t)t->n_nodes;
            t->nodes[t->n_nodes++] = (struct tree_node){.first_id = (uint32_t)i,
                                                        .depth = (uint32_t)n_open,
                                                        .byte = words[i].bytes[n_open]};
        }
        t->ids[i] = words[i].id;
    }
    for (; n_open; n_open--)
        t->nodes[open[n_open - 1]].skip = (uint32_t)t->n_nodes;
    t->nodes[t->n_nodes].first_id = (uint32_t)n_words;
    mem_free(open);
    return 0;
}

int vocab_tree_new(const struct tok *tok, struct vocab_tree **out, struct runt_err *err)
{
    size_t n_vocab = tok_n_tokens(tok);
    struct word *words = mem_array(n_vocab, sizeof *words);
    struct vocab_tree *t = mem_zalloc(sizeof *t);
    int rc = RUNT_E_NOMEM;
    if (!t || !words)
        goto out;
    t->n_vocab = n_vocab;
    t->ends = mem_array(n_vocab, sizeof *t->ends);
    if (!t->ends)
        goto out;
    size_t n_words = gather(tok, t, words);
    rc = build(t, words, n_words);
out:
    mem_free(words);
    if (rc) {
        vocab_tree_free(t);
        return err_nomem(err, "the tree of the vocabulary");
    }
    *out = t;
    return 0;
}

void vocab_tree_free(struct vocab_tree *t)
{
    if (!t)
        return;
    mem_free(t->nodes);
    mem_free(t->ids);
    mem_free(t->ends);
    mem_free(t);
}
