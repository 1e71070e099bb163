/* Owns made-up vocabularies, so that a random model is a whole file of an honest size.
 */
#include "tok/tok_impl.h"

#include "base/err.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

enum { N_BYTES = 256, N_LETTERS = 26, MAX_LEN = 24 };

/* GPT-2's 50,000 merged tokens are 356,304 bytes long together. */
static const double mean_len = 356304.0 / 50000.0;

/* Merged tokens are words over a-z: a token of length L is one of length L - 1 and a
 * letter.  by_len[L] lists those of length L; the next child of each is taken in turn.
 */
struct words {
    size_t *ids[MAX_LEN + 1];
    size_t n[MAX_LEN + 1], next_parent[MAX_LEN + 1];
    unsigned next_letter[MAX_LEN + 1];
};

static char letter(size_t i)
{
    return (char)('a' + i % N_LETTERS);
}

/* The wanted length of the next token: what is left of the byte budget over what is
 * left of the tokens, spread by one up and down; the last ones settle the account. */
static size_t wanted_len(double bytes_left, size_t n_left, size_t i)
{
    double mean = bytes_left / (double)n_left;
    double len = floor(mean + 0.5) + (n_left > 64 ? (double)(i % 3) - 1 : 0);
    return len < 2 ? 2 : len > MAX_LEN ? MAX_LEN : (size_t)len;
}

/* The longest length up to `want` that still has a parent with a free letter. */
static size_t free_len(const struct words *w, size_t want)
{
    for (size_t len = want; len > 1; len--)
        if (w->next_parent[len - 1] < w->n[len - 1])
            return len;
    return 0;
}

static int make_merges(struct tok_vocab *v, char *bytes, struct words *w,
                       struct runt_err *err)
{
    size_t n_merges = v->n_merges;
    double left = floor(mean_len * (double)n_merges + 0.5);
    for (size_t i = 0; i < n_merges; i++) {
        size_t len = free_len(w, wanted_len(left, n_merges - i, i));
        if (!len)
            return err_set(err, RUNT_E_INVALID,
                           "a synthetic vocabulary of %zu tokens is too large",
                           v->n_tokens);
        size_t p = len - 1, parent = w->ids[p][w->next_parent[p]];
        char c = letter(w->next_letter[p]);
        if (++w->next_letter[p] == N_LETTERS) {
            w->next_letter[p] = 0;
            w->next_parent[p]++;
        }
        /* One string serves both: the merge "parent c", the token without the space. */
        char *token = bytes, *merge = bytes + len;
        memcpy(token, v->tokens[parent].data, len - 1);
        token[len - 1] = c;
        memcpy(merge, token, len - 1);
        merge[len - 1] = ' ';
        merge[len] = c;
        bytes += 2 * len + 1;
        v->tokens[N_BYTES + i] = (struct tok_str){token, len};
        v->merges[i] = (struct tok_str){merge, len + 1};
        if (len < MAX_LEN)
            w->ids[len][w->n[len]++] = N_BYTES + i;
        left -= (double)len;
    }
    return 0;
}

int tok_vocab_synthetic(size_t n_tokens, struct tok_vocab *out, struct runt_err *err)
{
    static const char end[] = "<|endoftext|>";
    struct tok_vocab v = {.n_tokens = n_tokens};
    struct words w = {0};
    int rc = 0;
    if (n_tokens < 2 || n_tokens > 1u << 22)
        return err_set(err, RUNT_E_INVALID,
                       "a vocabulary of %zu tokens: 2 to %u can be "
                       "made up",
                       n_tokens, 1u << 22);
    size_t n_bytes = n_tokens - 1 < N_BYTES ? n_tokens - 1 : N_BYTES;
    v.n_merges = n_tokens - 1 - n_bytes;
    v.tokens = mem_array(n_tokens, sizeof *v.tokens);
    v.merges = mem_array(v.n_merges, sizeof *v.merges);
    v.kinds = mem_array(n_tokens, sizeof *v.kinds);
    v.storage = mem_array(v.n_merges + 16, 2 * MAX_LEN + 1);
    for (size_t len = 1; len <= MAX_LEN; len++)
        w.ids[len] = mem_array(len == 1 ? N_LETTERS : v.n_merges, sizeof *w.ids[len]);
    for (size_t len = 1; len <= MAX_LEN; len++)
        if (!w.ids[len])
            rc = RUNT_E_NOMEM;
    if (rc || !v.tokens || !v.merges || !v.kinds || !v.storage) {
        rc = err_nomem(err, "a vocabulary");
        goto out;
    }
    char *bytes = v.storage;
    for (size_t i = 0; i < n_bytes; i++) {
        /* Two bytes of UTF-8 are enough: the alphabet ends at U+0143. */
        uint32_t c = tok_byte_to_char((uint8_t)i);
        size_t len = c < 128 ? 1 : 2;
        bytes[0] = (char)(c < 128 ? c : 0xc0 | c >> 6);
        bytes[1] = (char)(0x80 | (c & 63));
        v.tokens[i] = (struct tok_str){bytes, len};
        bytes += len;
    }
    for (size_t i = 0; i < n_tokens; i++)
        v.kinds[i] = TOK_NORMAL;
    if (n_bytes == N_BYTES)
        for (size_t i = 0; i < N_LETTERS; i++)
            w.ids[1][w.n[1]++] = (unsigned char)letter(i);
    rc = make_merges(&v, bytes, &w, err);
    if (rc)
        goto out;
    v.tokens[n_tokens - 1] = (struct tok_str){end, sizeof end - 1};
    v.kinds[n_tokens - 1] = TOK_CONTROL;
    v.bos = v.eos = (int32_t)n_tokens - 1;
    *out = v;
    v = (struct tok_vocab){0};
out:
    for (size_t len = 1; len <= MAX_LEN; len++)
        mem_free(w.ids[len]);
    tok_vocab_free(&v);
    return rc;
}
