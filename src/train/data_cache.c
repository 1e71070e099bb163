/* Owns the files that tokens are kept in: a header, where documents begin, their
 * hashes, the ids, and with a mask a bit for each that says whether it counts.  A file
 * that is damaged or of another version is made again. */
#include "train/data_impl.h"

#include "base/err.h"
#include "base/fold.h"
#include "base/mem.h"
#include "train/dialogue.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct header {
    char magic[8]; /* with the version */
    uint64_t key[2], n_docs, n_tokens, text_bytes, n_counted, n_unanswered;
    uint64_t wide, masked, messages; /* 0 or 1 */
    uint64_t check;                  /* of all else */
};

static const char magic[8] = {'r', 'u', 'n', 't', 't', 'o', 'k', '3'};
static const uint64_t seeds[2] = {0x72756e74, 0x746f6b73};

/* ---- which file ---- */

static uint64_t of_tokenizer(const struct tok *t, uint64_t h)
{
    for (size_t id = 0; id < tok_n_tokens(t); id++) {
        size_t n;
        const char *s = tok_bytes(t, (int32_t)id, &n);
        h = fold(h, s, n);
    }
    int32_t eos = tok_eos(t);
    return fold(h, &eos, sizeof eos);
}

static int make_key(const char *path, const struct data_options *o, uint64_t key[2],
                    struct runt_err *err)
{
    struct file_map map;
    int rc = file_map_open(path, &map, err);
    if (rc)
        return rc;
    for (int i = 0; i < 2; i++) {
        key[i] = fold(seeds[i], map.data, map.size);
        key[i] = fold(key[i], o->field, strlen(o->field));
        key[i] = of_tokenizer(o->tok, key[i]);
        key[i] = fold(key[i], &o->mask_prompts, sizeof o->mask_prompts);
    }
    file_map_close(&map);
    return 0;
}

static char *cache_folder(const struct data_options *o)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (o->cache_dir)
        return mem_strdup(o->cache_dir);
    return xdg && *xdg ? mem_printf("%s/runt/tokens", xdg)
                       : mem_printf("%s/.cache/runt/tokens", home ? home : ".");
}

/* ---- reading it ---- */

static uint64_t checksum(struct header h, const void *body, size_t n)
{
    h.check = 0;
    return fold(fold(1, &h, sizeof h), body, n);
}

static size_t mask_bytes(uint64_t n_tokens)
{
    return (size_t)((n_tokens + 7) / 8);
}

static bool is_sound(struct data_tokens *t, const uint64_t key[2], size_t n_vocab)
{
    const struct header *h = (const struct header *)t->map.data;
    if (t->map.size < sizeof *h || memcmp(h->magic, magic, sizeof magic) ||
        memcmp(h->key, key, sizeof h->key) || h->wide > 1 || h->masked > 1)
        return false;
    size_t width = h->wide ? 4 : 2, size = sizeof *h, part;
    if (h->n_docs > t->map.size / 16 || h->n_tokens > t->map.size / width ||
        !size_mul(2 * h->n_docs + 1, sizeof(uint64_t), &part) ||
        !size_add(size, part, &size) || !size_mul(h->n_tokens, width, &part) ||
        !size_add(size, part, &size) ||
        !size_add(size, h->masked ? mask_bytes(h->n_tokens) : 0, &size) ||
        size != t->map.size || checksum(*h, h + 1, size - sizeof *h) != h->check)
        return false;
    t->n_docs = h->n_docs;
    t->n_tokens = h->n_tokens;
    t->text_bytes = h->text_bytes;
    t->at = (const uint64_t *)(h + 1);
    t->hashes = t->at + h->n_docs + 1;
    t->ids = t->hashes + h->n_docs;
    t->wide = h->wide;
    t->mask = h->masked ? (const unsigned char *)t->ids + h->n_tokens * width : NULL;
    t->n_counted = h->n_counted;
    t->n_unanswered = h->n_unanswered;
    t->messages = h->messages;
    memcpy(t->key, key, sizeof t->key);
    bool ordered = t->at[0] == 0 && t->at[t->n_docs] == t->n_tokens;
    for (uint64_t i = 0; i < t->n_docs && ordered; i++)
        ordered = t->at[i] < t->at[i + 1];
    for (uint64_t i = 0; i < t->n_tokens && ordered; i++)
        ordered = (uint32_t)data_token(t, i) < n_vocab;
    return ordered;
}

void data_tokens_close(struct data_tokens *t)
{
    file_map_close(&t->map);
    memset(t, 0, sizeof *t);
}

/* ---- making it ---- */

struct making {
    const struct data_options *o;
    const char *path;
    uint64_t *at, *hashes, n_docs, docs_room;
    unsigned char *ids;
    unsigned char *mask; /* [tokens_room], a bit each */
    uint64_t n_tokens, tokens_room, text_bytes, n_counted, n_unanswered;
    bool wide, messages;
    /* of the document in work */
    const char *text;
    size_t n_text, place; /* the next token's first byte; n_text: the end */
    struct dialogue_answer answer;
};

/* A token counts where its first byte is an answer's. */
static void mark(struct making *m, uint64_t token, size_t place)
{
    while (m->answer.to <= place)
        dialogue_next(m->text, m->n_text, &m->answer);
    unsigned bit = place >= m->answer.from;
    if (token % 8 == 0)
        m->mask[token / 8] = 0;
    m->mask[token / 8] = (unsigned char)(m->mask[token / 8] | bit << token % 8);
    m->n_counted += bit;
}

static int put_ids(struct making *m, const int32_t *ids, size_t n, struct runt_err *err)
{
    if (m->n_tokens + n > m->tokens_room) {
        uint64_t room = (m->n_tokens + n) * 2;
        unsigned char *more = mem_resize(m->ids, room, m->wide ? 4 : 2);
        if (!more)
            return err_nomem(err, m->path);
        m->ids = more;
        unsigned char *mask = mem_resize(m->mask, mask_bytes(room), 1);
        if (!mask)
            return err_nomem(err, m->path);
        m->mask = mask;
        m->tokens_room = room;
    }
    for (size_t i = 0; i < n; i++)
        if (m->wide)
            ((uint32_t *)m->ids)[m->n_tokens + i] = (uint32_t)ids[i];
        else
            ((uint16_t *)m->ids)[m->n_tokens + i] = (uint16_t)ids[i];
    for (size_t i = 0, len; i < n && m->o->mask_prompts; i++, m->place += len) {
        mark(m, m->n_tokens + i, m->place);
        tok_bytes(m->o->tok, ids[i], &len);
    }
    m->n_tokens += n;
    return 0;
}

static int put_document(void *ctx, const char *text, size_t n, struct runt_err *err)
{
    enum { PIECE = 1 << 20 };
    struct making *m = ctx;
    int32_t eos = tok_eos(m->o->tok);
    int rc = 0;
    if (m->n_docs + 2 > m->docs_room) {
        uint64_t room = (m->n_docs + 2) * 2;
        uint64_t *at = mem_resize(m->at, room, sizeof *at);
        m->at = at ? at : m->at;
        uint64_t *hashes = mem_resize(m->hashes, room, sizeof *hashes);
        m->hashes = hashes ? hashes : m->hashes;
        if (!at || !hashes)
            return err_nomem(err, m->path);
        m->docs_room = room;
    }
    uint64_t counted = m->n_counted;
    m->text = text;
    m->n_text = n;
    m->answer = (struct dialogue_answer){0};
    m->at[m->n_docs] = m->n_tokens;
    m->hashes[m->n_docs] = fold(fold(2, text, n), &n, sizeof n);
    for (size_t from = 0, len; from < n && !rc; from += len) {
        int32_t *ids = NULL;
        size_t n_ids = 0;
        len = data_piece(text + from, n - from, PIECE);
        m->place = from;
        rc = tok_encode(m->o->tok, text + from, len, false, &ids, &n_ids, err);
        if (!rc)
            rc = put_ids(m, ids, n_ids, err);
        mem_free(ids);
        if (!rc && m->o->mask_prompts && m->place != from + len)
            rc = err_set(err, RUNT_E_UNSUPPORTED,
                         "%s: the vocabulary lacks bytes of the text, so that answers "
                         "cannot be told from prompts",
                         m->path);
        m->text_bytes += len;
        if (!rc && m->o->progress &&
            m->o->progress(m->o->progress_ctx, "tokenizing", m->text_bytes, 0))
            rc = err_set(err, RUNT_E_INTERRUPTED, "interrupted");
    }
    m->place = n;
    if (!rc && eos >= 0)
        rc = put_ids(m, &eos, 1, err);
    if (!rc && m->o->mask_prompts && m->n_counted == counted) {
        m->n_tokens = m->at[m->n_docs]; /* there is nothing to learn from it */
        m->text_bytes -= n;
        m->n_unanswered++;
        return 0;
    }
    m->n_docs++;
    m->at[m->n_docs] = m->n_tokens;
    return rc;
}

static int write_file(const struct making *m, const char *file, const uint64_t key[2],
                      struct runt_err *err)
{
    struct header h = {.n_docs = m->n_docs,
                       .n_tokens = m->n_tokens,
                       .text_bytes = m->text_bytes,
                       .n_counted = m->n_counted,
                       .n_unanswered = m->n_unanswered,
                       .wide = m->wide,
                       .masked = m->o->mask_prompts,
                       .messages = m->messages};
    size_t table = 2 * m->n_docs + 1, n_ids = m->n_tokens * (m->wide ? 4 : 2);
    size_t n_mask = h.masked ? mask_bytes(m->n_tokens) : 0;
    struct file_out *f;
    memcpy(h.magic, magic, sizeof magic);
    memcpy(h.key, key, sizeof h.key);
    /* as one run of bytes, because a sum of parts would be another */
    char *body = mem_alloc(table * sizeof(uint64_t) + n_ids + n_mask);
    if (!body)
        return err_nomem(err, m->path);
    memcpy(body, m->at, (m->n_docs + 1) * sizeof(uint64_t));
    memcpy(body + (m->n_docs + 1) * sizeof(uint64_t), m->hashes,
           m->n_docs * sizeof(uint64_t));
    memcpy(body + table * sizeof(uint64_t), m->ids, n_ids);
    memcpy(body + table * sizeof(uint64_t) + n_ids, m->mask, n_mask);
    size_t size = table * sizeof(uint64_t) + n_ids + n_mask;
    h.check = checksum(h, body, size);
    int rc = file_out_open(file, &f, err);
    if (!rc) {
        rc = file_out_write(f, &h, sizeof h, err);
        if (!rc)
            rc = file_out_write(f, body, size, err);
        if (rc)
            file_out_abort(f);
        else
            rc = file_out_commit(f, err);
    }
    mem_free(body);
    return rc;
}

static int make(const char *path, const char *file, const struct data_options *o,
                const uint64_t key[2], struct runt_err *err)
{
    struct making m = {.o = o, .path = path, .wide = tok_n_tokens(o->tok) > 65536};
    int rc = data_read_text(path, o->field, put_document, &m, &m.messages, err);
    if (!o->mask_prompts)
        m.n_counted = m.n_tokens;
    if (!rc && !m.n_docs && m.n_unanswered)
        rc = err_set(err, RUNT_E_INVALID,
                     "%s: without prompts nothing is left to learn: no line of its "
                     "%" PRIu64 " documents begins with " TALK_BOT,
                     path, m.n_unanswered);
    else if (!rc && !m.n_docs)
        rc = err_set(err, RUNT_E_FORMAT, "%s holds no document", path);
    if (!rc)
        rc = write_file(&m, file, key, err);
    mem_free(m.at);
    mem_free(m.hashes);
    mem_free(m.ids);
    mem_free(m.mask);
    return rc;
}

int data_tokens_open(const char *path, const struct data_options *o,
                     struct data_tokens *out, bool *cached, struct runt_err *err)
{
    struct data_tokens t = {0};
    uint64_t key[2];
    int rc = make_key(path, o, key, err);
    if (rc)
        return rc;
    char *folder = cache_folder(o), *file = NULL;
    if (folder)
        file = mem_printf("%s/%016" PRIx64 "%016" PRIx64, folder, key[0], key[1]);
    if (!file)
        rc = err_nomem(err, "a path");
    *cached = !rc && !file_map_open(file, &t.map, NULL) &&
              is_sound(&t, key, tok_n_tokens(o->tok));
    if (!rc && !*cached) {
        file_map_close(&t.map);
        rc = file_make_dirs(folder, err);
        if (!rc)
            rc = make(path, file, o, key, err);
        if (!rc)
            rc = file_map_open(file, &t.map, err);
        if (!rc && !is_sound(&t, key, tok_n_tokens(o->tok)))
            rc = err_set(err, RUNT_E_IO, "%s: what was written does not come back",
                         file);
    }
    if (rc)
        file_map_close(&t.map);
    else
        *out = t;
    mem_free(file);
    mem_free(folder);
    return rc;
}
