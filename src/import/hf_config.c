/* Owns config.json: the sizes of a GPT-2 model, and the refusal of everything that
 * would change its arithmetic without changing its tensors (another activation, other
 * attention scales), since such a model would load and then talk nonsense. */
#include "import/import.h"

#include "base/err.h"
#include "base/js.h"

#include <string.h>

/* Far above any GPT-2, far below what overflows. */
enum {
    MAX_VOCAB = 4 << 20,
    MAX_CTX = 1 << 20,
    MAX_EMBD = 1 << 16,
    MAX_LAYERS = 1024,
    MAX_FF = 1 << 20,
};

static int check_type(const json_t *o, const char *name, struct runt_err *err)
{
    const char *type = js_get_str(o, "model_type");
    if (!type) { /* the first releases had only the class */
        const json_t *list = json_object_get(o, "architectures");
        type = json_string_value(json_array_get(list, 0));
        if (type && (!strcmp(type, "GPT2LMHeadModel") || !strcmp(type, "GPT2Model")))
            return 0;
    }
    if (!type)
        return err_set(err, RUNT_E_FORMAT, "%s: neither model_type nor architectures",
                       name);
    if (strcmp(type, "gpt2"))
        return err_set(err, RUNT_E_UNSUPPORTED,
                       "%s: the model is of type %.100s, only gpt2 is read", name,
                       type);
    return 0;
}

static int check_options(const json_t *o, const char *name, struct runt_err *err)
{
    /* The tanh approximation of GELU under all its names: they differ in rounding. */
    static const char *const gelu[] = {"gelu_new", "gelu_pytorch_tanh", "gelu_fast",
                                       "gelu_accurate"};
    static const struct {
        const char *key;
        bool usual;
    } flags[] = {
        {"scale_attn_weights", true},
        {"scale_attn_by_inverse_layer_idx", false},
        {"add_cross_attention", false},
    };
    const json_t *act = json_object_get(o, "activation_function");
    bool known = !act || json_is_null(act);
    for (size_t i = 0; i < sizeof gelu / sizeof *gelu && !known; i++)
        known = json_is_string(act) && !strcmp(json_string_value(act), gelu[i]);
    if (!known)
        return err_set(err, RUNT_E_UNSUPPORTED,
                       "%s: activation_function is %.100s, only gelu_new is computed",
                       name,
                       json_is_string(act) ? json_string_value(act) : "not a name");
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        bool v = flags[i].usual;
        int rc = js_get_bool(o, flags[i].key, name, &v, err);
        if (rc && rc != RUNT_E_NOTFOUND)
            return rc;
        if (v != flags[i].usual)
            return err_set(err, RUNT_E_UNSUPPORTED,
                           "%s: %s is %s, which is not computed", name, flags[i].key,
                           v ? "true" : "false");
    }
    const json_t *q = json_object_get(o, "quantization_config");
    if (q && !json_is_null(q))
        return err_set(err, RUNT_E_UNSUPPORTED,
                       "%s: the checkpoint is quantized already; take the float one",
                       name);
    return 0;
}

/* A size under the first of its two names that is there; `fallback` 0 means that it
 * must be. */
static int get_size(const json_t *o, const char *key, const char *alias, uint32_t max,
                    uint32_t fallback, const char *name, uint32_t *out,
                    struct runt_err *err)
{
    uint64_t v = fallback;
    int rc = js_get_uint(o, key, max, name, &v, err);
    if (rc == RUNT_E_NOTFOUND && alias)
        rc = js_get_uint(o, alias, max, name, &v, err);
    if (rc == RUNT_E_NOTFOUND && !fallback)
        return err_set(err, RUNT_E_FORMAT, "%s: no %s", name, key);
    if (rc && rc != RUNT_E_NOTFOUND)
        return rc;
    if (!v)
        return err_set(err, RUNT_E_FORMAT, "%s: %s is 0", name, key);
    *out = (uint32_t)v;
    return 0;
}

/* Missing, null and -1 all mean that there is no such token. */
static int get_token(const json_t *o, const char *key, uint32_t n_vocab,
                     const char *name, int32_t *out, struct runt_err *err)
{
    const json_t *j = json_object_get(o, key);
    uint64_t v;
    int rc = json_is_integer(j) && json_integer_value(j) == -1
                 ? RUNT_E_NOTFOUND
                 : js_get_uint(o, key, n_vocab - 1, name, &v, err);
    if (rc && rc != RUNT_E_NOTFOUND)
        return rc;
    *out = rc ? -1 : (int32_t)v;
    return 0;
}

static int read_config(const json_t *o, const char *name, struct gpt2_shape *out,
                       struct runt_err *err)
{
    struct gpt2_shape s = {.tied = true};
    double eps = 1e-5;
    int rc;
    if (!json_is_object(o))
        return err_set(err, RUNT_E_FORMAT, "%s: not a JSON object", name);
    if ((rc = check_type(o, name, err)) || (rc = check_options(o, name, err)))
        return rc;
    const char *ctx_alias =
        json_object_get(o, "n_ctx") ? "n_ctx" : "max_position_embeddings";
    if ((rc = get_size(o, "vocab_size", NULL, MAX_VOCAB, 0, name, &s.n_vocab, err)) ||
        (rc = get_size(o, "n_positions", ctx_alias, MAX_CTX, 0, name, &s.n_ctx, err)) ||
        (rc =
             get_size(o, "n_embd", "hidden_size", MAX_EMBD, 0, name, &s.n_embd, err)) ||
        (rc = get_size(o, "n_layer", "num_hidden_layers", MAX_LAYERS, 0, name,
                       &s.n_layer, err)) ||
        (rc = get_size(o, "n_head", "num_attention_heads", MAX_EMBD, 0, name, &s.n_head,
                       err)) ||
        (rc = get_size(o, "n_inner", NULL, MAX_FF, 4 * s.n_embd, name, &s.n_ff, err)) ||
        (rc = get_token(o, "bos_token_id", s.n_vocab, name, &s.bos, err)) ||
        (rc = get_token(o, "eos_token_id", s.n_vocab, name, &s.eos, err)))
        return rc;
    if (s.n_embd % s.n_head)
        return err_set(err, RUNT_E_FORMAT,
                       "%s: n_embd %u is not a multiple of n_head %u", name, s.n_embd,
                       s.n_head);
    rc = js_get_double(o, "layer_norm_epsilon", name, &eps, err);
    if (rc && rc != RUNT_E_NOTFOUND)
        return rc;
    if (!(eps >= 0 && eps <= 1))
        return err_set(err, RUNT_E_FORMAT, "%s: layer_norm_epsilon is %g, outside 0..1",
                       name, eps);
    s.eps = (float)eps;
    rc = js_get_bool(o, "tie_word_embeddings", name, &s.tied, err);
    if (rc && rc != RUNT_E_NOTFOUND)
        return rc;
    *out = s;
    return 0;
}

int hf_config_parse(const char *json, size_t n, const char *name,
                    struct gpt2_shape *out, struct runt_err *err)
{
    json_t *root = NULL;
    int rc = js_parse(json, n, name, &root, err);
    if (!rc)
        rc = read_config(root, name, out, err);
    json_decref(root);
    return rc;
}
