/* Owns the step from a checked GGUF file to a model: shape, tokenizer, where each
 * weight lies.  Refuses files of other architectures and tensors that do not fit the
 * shape. */
#include "model/model.h"

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static bool is_arch(struct gguf_str s, const char *name)
{
    return s.len == strlen(name) && !memcmp(s.data, name, s.len);
}

static int read_sizes(const struct gguf *g, struct gpt2_shape *out,
                      struct runt_err *err)
{
    int rc;
    struct gpt2_shape s = {.bos = -1, .eos = -1};
    struct {
        const char *key;
        uint32_t *to, max;
    } keys[] = {
        {"gpt2.context_length", &s.n_ctx, 1u << 20},
        {"gpt2.embedding_length", &s.n_embd, 1u << 16},
        {"gpt2.block_count", &s.n_layer, 1024},
        {"gpt2.feed_forward_length", &s.n_ff, 1u << 20},
        {"gpt2.attention.head_count", &s.n_head, 1u << 16},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        uint64_t v = 0;
        rc = gguf_get_uint(g, keys[i].key, keys[i].max, &v, err);
        if (rc)
            return rc;
        if (!v)
            return err_set(err, RUNT_E_FORMAT, "%s: %s is 0", g->path, keys[i].key);
        *keys[i].to = (uint32_t)v;
    }
    rc = gguf_get_f32(g, "gpt2.attention.layer_norm_epsilon", &s.eps, err);
    if (rc)
        return rc;
    if (!(s.eps >= 0 && s.eps <= 1))
        return err_set(err, RUNT_E_FORMAT, "%s: layer norm epsilon is %g", g->path,
                       (double)s.eps);
    if (s.n_embd % s.n_head)
        return err_set(err, RUNT_E_FORMAT, "%s: width %u is not a multiple of %u heads",
                       g->path, s.n_embd, s.n_head);
    const struct gguf_tensor *t = gguf_find_tensor(g, "token_embd.weight");
    if (!t)
        return err_set(err, RUNT_E_FORMAT, "%s: tensor token_embd.weight is missing",
                       g->path);
    if (t->desc.n_rows > INT32_MAX)
        return err_set(err, RUNT_E_FORMAT, "%s: token_embd.weight has %llu rows",
                       g->path, (unsigned long long)t->desc.n_rows);
    s.n_vocab = (uint32_t)t->desc.n_rows;
    s.tied = !gguf_find_tensor(g, "output.weight");
    *out = s;
    return 0;
}

int model_read_shape(const struct gguf *g, struct gpt2_shape *out, struct runt_err *err)
{
    struct gguf_str arch;
    int rc = gguf_get_str(g, "general.architecture", &arch, err);
    if (rc)
        return rc;
    if (is_arch(arch, MODEL_ARCH_CHECKPOINT))
        return err_set(
            err, RUNT_E_UNSUPPORTED,
            "%s is a checkpoint, which train --resume goes on from; models are "
            "best.gguf and model.gguf beside it",
            g->path);
    struct gguf_str type;
    if (!gguf_get_str(g, "general.type", &type, NULL) && is_arch(type, "adapter"))
        return err_set(err, RUNT_E_INVALID,
                       "%s is an adapter: --lora-adapter takes it, and -m the model "
                       "that it was made for",
                       g->path);
    if (!is_arch(arch, "gpt2"))
        return err_set(err, RUNT_E_UNSUPPORTED,
                       "%s: architecture is '%.*s'; only gpt2 is supported", g->path,
                       (int)(arch.len < 40 ? arch.len : 40), arch.data);
    return read_sizes(g, out, err);
}

int model_read_checkpoint_shape(const struct gguf *g, struct gpt2_shape *out,
                                struct runt_err *err)
{
    struct gguf_str arch;
    int rc = gguf_get_str(g, "general.architecture", &arch, err);
    if (!rc && !is_arch(arch, MODEL_ARCH_CHECKPOINT))
        rc = err_set(err, RUNT_E_FORMAT, "%s is not a checkpoint", g->path);
    return rc ? rc : read_sizes(g, out, err);
}

/* ---- the list of tensors ---- */

enum { PER_BLOCK = 12 };

size_t model_n_tensors(const struct gpt2_shape *s)
{
    return 4 + (size_t)s->n_layer * PER_BLOCK + !s->tied;
}

void model_tensor_at(const struct gpt2_shape *s, size_t i, char name[static 64],
                     unsigned *n_dims, uint64_t *n_cols, uint64_t *n_rows)
{
    uint64_t e = s->n_embd, f = s->n_ff;
    const struct {
        const char *name;
        unsigned n_dims;
        uint64_t n_cols, n_rows;
    } block[PER_BLOCK] =
        {
            {"attn_norm.weight", 1, e, 1},    {"attn_norm.bias", 1, e, 1},
            {"attn_qkv.weight", 2, e, 3 * e}, {"attn_qkv.bias", 1, 3 * e, 1},
            {"attn_output.weight", 2, e, e},  {"attn_output.bias", 1, e, 1},
            {"ffn_norm.weight", 1, e, 1},     {"ffn_norm.bias", 1, e, 1},
            {"ffn_up.weight", 2, e, f},       {"ffn_up.bias", 1, f, 1},
            {"ffn_down.weight", 2, f, e},     {"ffn_down.bias", 1, e, 1},
        },
      outer[] = {
          {"token_embd.weight", 2, e, s->n_vocab},
          {"position_embd.weight", 2, e, s->n_ctx},
          {"output_norm.weight", 1, e, 1},
          {"output_norm.bias", 1, e, 1},
          {"output.weight", 2, e, s->n_vocab},
      };
    size_t n_in_blocks = (size_t)s->n_layer * PER_BLOCK;
    if (i >= 2 && i < 2 + n_in_blocks) {
        size_t k = (i - 2) % PER_BLOCK;
        snprintf(name, 64, "blk.%zu.%s", (i - 2) / PER_BLOCK, block[k].name);
        *n_dims = block[k].n_dims;
        *n_cols = block[k].n_cols;
        *n_rows = block[k].n_rows;
        return;
    }
    size_t k = i < 2 ? i : i - n_in_blocks;
    snprintf(name, 64, "%s", outer[k].name);
    *n_dims = outer[k].n_dims;
    *n_cols = outer[k].n_cols;
    *n_rows = outer[k].n_rows;
}

/* ---- weights ---- */

/* Tensor i in the order of model_tensor_at, found in the file and of the right size. */
static int find(const struct runt_model *m, size_t i, const struct gguf_tensor **out,
                struct runt_err *err)
{
    char name[64];
    unsigned n_dims;
    uint64_t n_cols, n_rows;
    model_tensor_at(&m->shape, i, name, &n_dims, &n_cols, &n_rows);
    const struct gguf_tensor *t = gguf_find_tensor(m->file, name);
    if (!t)
        return err_set(err, RUNT_E_FORMAT, "%s: tensor %s is missing", m->file->path,
                       name);
    if (t->desc.n_cols != n_cols || t->desc.n_rows != n_rows)
        return err_set(err, RUNT_E_FORMAT,
                       "%s: tensor %s is %llu x %llu, the shape wants %llu x %llu",
                       m->file->path, name, (unsigned long long)t->desc.n_cols,
                       (unsigned long long)t->desc.n_rows, (unsigned long long)n_cols,
                       (unsigned long long)n_rows);
    *out = t;
    return 0;
}

static int load_matrix(struct runt_model *m, struct pool *pool, size_t i,
                       struct cpu_matrix *out, struct runt_err *err)
{
    const struct gguf_tensor *t = NULL;
    int rc = find(m, i, &t, err);
    if (rc)
        return rc;
    rc = cpu_matrix_init(m->kern, pool, t->desc.fmt, t->data, (size_t)t->desc.n_rows,
                         (size_t)t->desc.n_cols, out, err);
    if (rc)
        err_prefix(err, "%s: tensor %s", m->file->path, t->desc.name);
    else if (out->packed) /* the file's copy is not needed any more */
        file_drop_pages(t->data, t->bytes);
    return rc;
}

static int load_table(struct runt_model *m, size_t i, struct model_table *out,
                      struct runt_err *err)
{
    const struct gguf_tensor *t = NULL;
    int rc = find(m, i, &t, err);
    if (!rc)
        *out = (struct model_table){.fmt = t->desc.fmt,
                                    .data = t->data,
                                    .row_bytes = t->bytes / (size_t)t->desc.n_rows};
    return rc;
}

static int load_vector(struct runt_model *m, size_t i, const float **out,
                       struct runt_err *err)
{
    const struct gguf_tensor *t = NULL;
    int rc = find(m, i, &t, err);
    if (rc)
        return rc;
    float *v = arena_take(&m->vectors, (size_t)t->desc.n_cols, sizeof *v);
    if (!v)
        return err_nomem(err, t->desc.name);
    fmt_decode_row(t->desc.fmt, (size_t)t->desc.n_cols, t->data, 0, v);
    *out = v;
    return 0;
}

static int load_norm(struct runt_model *m, size_t i, struct model_norm *out,
                     struct runt_err *err)
{
    int rc = load_vector(m, i, &out->gain, err);
    return rc ? rc : load_vector(m, i + 1, &out->bias, err);
}

static int load_linear(struct runt_model *m, struct pool *pool, size_t i,
                       struct model_linear *out, struct runt_err *err)
{
    int rc = load_matrix(m, pool, i, &out->weight, err);
    return rc ? rc : load_vector(m, i + 1, &out->bias, err);
}

static int load_weights(struct runt_model *m, struct pool *pool, struct runt_err *err)
{
    const struct gpt2_shape *s = &m->shape;
    /* 64-byte rounding of 8 vectors a block and 2 more is below 16 floats each. */
    size_t floats, per_block = 9 * (size_t)s->n_embd + s->n_ff + 8 * 16;
    if (!size_mul(per_block, s->n_layer, &floats) ||
        !size_add(floats, 2 * (size_t)s->n_embd + 32, &floats) ||
        arena_init(&m->vectors, floats * sizeof(float)))
        return err_nomem(err, "the norms and biases");
    m->blocks = mem_array(s->n_layer, sizeof *m->blocks);
    if (!m->blocks)
        return err_nomem(err, "the model's blocks");
    int rc = load_table(m, 0, &m->token_embd, err);
    if (!rc)
        rc = load_table(m, 1, &m->position_embd, err);
    for (size_t l = 0; !rc && l < s->n_layer; l++) {
        struct model_block *b = &m->blocks[l];
        size_t i = 2 + l * PER_BLOCK;
        rc = load_norm(m, i, &b->attn_norm, err);
        rc = rc ? rc : load_linear(m, pool, i + 2, &b->qkv, err);
        rc = rc ? rc : load_linear(m, pool, i + 4, &b->attn_output, err);
        rc = rc ? rc : load_norm(m, i + 6, &b->ffn_norm, err);
        rc = rc ? rc : load_linear(m, pool, i + 8, &b->ffn_up, err);
        rc = rc ? rc : load_linear(m, pool, i + 10, &b->ffn_down, err);
    }
    size_t last = 2 + (size_t)s->n_layer * PER_BLOCK;
    if (!rc)
        rc = load_norm(m, last, &m->output_norm, err);
    if (!rc)
        rc = load_matrix(m, pool, s->tied ? 0 : last + 2, &m->head, err);
    for (size_t i = 0; i < m->file->n_tensors; i++)
        m->n_weights +=
            m->file->tensors[i].desc.n_cols * m->file->tensors[i].desc.n_rows;
    return rc;
}

/* ---- the public door ---- */

static int load_tokenizer(struct runt_model *m, struct runt_err *err)
{
    struct tok_vocab v = {0};
    int rc = model_read_vocab(m->file, &v, err);
    if (!rc)
        rc = tok_create(&v, m->file->path, &m->tok, err);
    if (!rc && tok_n_tokens(m->tok) != m->shape.n_vocab)
        rc = err_set(err, RUNT_E_FORMAT, "%s: %zu tokens for %u embedding rows",
                     m->file->path, tok_n_tokens(m->tok), m->shape.n_vocab);
    m->shape.bos = v.bos;
    m->shape.eos = v.eos;
    tok_vocab_free(&v);
    return rc;
}

/* A string of the metadata as a C string; "" when missing. */
static char *meta_string(const struct gguf *g, const char *key)
{
    struct gguf_str s;
    return gguf_get_str(g, key, &s, NULL) ? mem_strdup("") : mem_strndup(s.data, s.len);
}

int runt_model_load(const char *path, runt_model **out, struct runt_err *err)
{
    struct pool *pool = NULL; /* for packing */
    struct runt_model *m = mem_zalloc(sizeof *m);
    if (!m)
        return err_nomem(err, "the model");
    int rc = kern_table_get(&m->kern, err);
    if (!rc)
        rc = gguf_open(path, &m->file, err);
    if (!rc)
        rc = model_read_shape(m->file, &m->shape, err);
    if (!rc)
        rc = pool_create(0, &pool, err);
    if (!rc)
        rc = load_weights(m, pool, err);
    pool_destroy(pool);
    if (!rc)
        rc = load_tokenizer(m, err);
    if (!rc)
        rc = model_tokens_new(&m->tokens, err);
    if (!rc) {
        m->name = meta_string(m->file, "general.name");
        m->chat_template = meta_string(m->file, "tokenizer.chat_template");
        if (!m->name || !m->chat_template)
            rc = err_nomem(err, "the model's name");
    }
    if (rc)
        runt_model_free(m);
    else
        *out = m;
    return rc;
}

void runt_model_free(runt_model *m)
{
    if (!m)
        return;
    for (size_t l = 0; m->blocks && l < m->shape.n_layer; l++) {
        struct model_block *b = &m->blocks[l];
        cpu_matrix_free(&b->qkv.weight);
        cpu_matrix_free(&b->attn_output.weight);
        cpu_matrix_free(&b->ffn_up.weight);
        cpu_matrix_free(&b->ffn_down.weight);
    }
    cpu_matrix_free(&m->head);
    cpu_low_free(&m->token_embd.low);
    for (size_t i = 0; i < m->n_adapters; i++)
        mem_free(m->adapters[i].path);
    mem_free(m->adapters);
    gguf_close(m->file);
    model_tokens_free(m->tokens);
    tok_destroy(m->tok);
    arena_free(&m->vectors);
    mem_free(m->blocks);
    mem_free(m->name);
    mem_free(m->chat_template);
    mem_free(m);
}

void runt_model_info(const runt_model *m, struct runt_model_info *out)
{
    const struct gpt2_shape *s = &m->shape;
    *out = (struct runt_model_info){
        .name = m->name,
        .n_vocab = s->n_vocab,
        .n_ctx = s->n_ctx,
        .n_embd = s->n_embd,
        .n_head = s->n_head,
        .n_layer = s->n_layer,
        .n_ff = s->n_ff,
        .n_weights = m->n_weights,
        .file_bytes = m->file->file_bytes,
        .bos = s->bos,
        .eos = s->eos,
        .chat_template = m->chat_template[0] ? m->chat_template : NULL,
    };
}

int runt_tokenize(const runt_model *m, const char *text, size_t n, bool special,
                  int32_t **ids, size_t *n_ids, struct runt_err *err)
{
    return tok_encode(m->tok, text, n, special, ids, n_ids, err);
}

const char *runt_token_bytes(const runt_model *m, int32_t id, size_t *n)
{
    return tok_bytes(m->tok, id, n);
}

bool runt_token_is_control(const runt_model *m, int32_t id)
{
    return tok_is_control(m->tok, id);
}

void runt_free(void *p)
{
    mem_free(p);
}
