/* Owns what a request means for its model: tokens, what fits the context, grammars,
 * where an answer ends. */
#include "serve/prepare.h"

#include "base/err.h"
#include "base/mem.h"

#include <string.h>
#include <sys/random.h>

static int internal(struct api_error *e, const struct runt_err *err)
{
    return api_fail(e, 500, NULL, NULL, "%s", err->msg);
}

/* A fault of the request's, or of ours. */
static int refuse(struct api_error *e, const char *param, const struct runt_err *err)
{
    return err->code == RUNT_E_NOMEM ? internal(e, err)
                                     : api_fail(e, 400, NULL, param, "%s", err->msg);
}

/* ---- tokens ---- */

static int too_long(const struct served *m, const char *param, const char *what,
                    struct api_error *e)
{
    return api_fail(e, 400, "context_length_exceeded", param,
                    "this model's context is %u tokens: the %s has more", m->n_ctx,
                    what);
}

/* A text that cannot fit, whatever its tokens are, is not even cut into tokens. */
static bool hopeless(const struct served *m, size_t n_bytes)
{
    return n_bytes / m->longest_token > m->n_ctx;
}

static int copy_ids(const struct served *m, const struct request_input *in,
                    const char *param, struct prompt *out, struct api_error *e)
{
    if (in->n_ids > m->n_ctx)
        return too_long(m, param, "prompt", e);
    for (size_t i = 0; i < in->n_ids; i++)
        if ((uint32_t)in->ids[i] >= m->info.n_vocab)
            return api_fail(e, 400, NULL, param,
                            "token id %d is outside 0..%u, this model's vocabulary",
                            in->ids[i], m->info.n_vocab - 1);
    out->ids = mem_array(in->n_ids, sizeof *out->ids);
    if (!out->ids)
        return api_fail(e, 500, NULL, NULL, "out of memory");
    memcpy(out->ids, in->ids, in->n_ids * sizeof *out->ids);
    out->n = in->n_ids;
    return 0;
}

/* An empty text begins with the end-of-text token, after which a document begins. */
static int begin_document(const struct served *m, struct prompt *p, struct api_error *e)
{
    runt_free(p->ids);
    p->ids = mem_alloc(sizeof *p->ids);
    if (!p->ids)
        return api_fail(e, 500, NULL, NULL, "out of memory");
    p->ids[0] = m->info.eos >= 0 ? m->info.eos : 0;
    p->n = 1;
    return 0;
}

static int text_prompt(const struct served *m, const struct request_input *in,
                       const char *param, struct prompt *out, struct api_error *e)
{
    struct runt_err err = {0};
    if (in->ids)
        return copy_ids(m, in, param, out, e);
    if (hopeless(m, in->n_text))
        return too_long(m, param, "text", e);
    if (runt_tokenize(m->model, in->text, in->n_text, false, &out->ids, &out->n, &err))
        return refuse(e, param, &err);
    return out->n > m->n_ctx ? too_long(m, param, "text", e) : 0;
}

static int chat_prompt(const struct served *m, const struct request *r,
                       struct prompt *out, struct api_error *e)
{
    struct runt_err err = {0};
    size_t n_bytes = 0;
    for (size_t i = 0; i < r->n_messages; i++)
        n_bytes += r->messages[i].n_content;
    if (hopeless(m, n_bytes))
        return too_long(m, "messages", "conversation", e);
    if (runt_template_apply(m->chat, m->model, r->messages, r->n_messages, true,
                            &out->ids, &out->n, &err))
        return refuse(e, "messages", &err);
    return out->n > m->n_ctx ? too_long(m, "messages", "conversation", e) : 0;
}

static int make_prompts(struct job *j, const struct request *r, struct api_error *e)
{
    const struct served *m = j->model;
    bool chat = r->kind == REQUEST_CHAT, embed = r->kind == REQUEST_EMBEDDING;
    size_t n = chat ? 1 : r->n_inputs;
    int rc = 0;
    j->prompts = mem_array(n, sizeof *j->prompts);
    if (!j->prompts)
        return api_fail(e, 500, NULL, NULL, "out of memory");
    j->n_prompts = n;
    for (size_t i = 0; i < n && !rc; i++) {
        struct prompt *p = &j->prompts[i];
        rc = chat ? chat_prompt(m, r, p, e)
                  : text_prompt(m, &r->inputs[i], embed ? "input" : "prompt", p, e);
        if (!rc && !p->n)
            rc = embed ? api_fail(e, 400, NULL, "input", "'input' has an empty text")
                       : begin_document(m, p, e);
    }
    return rc;
}

/* ---- how an answer is made and ends ---- */

static int make_stops(struct job *j, const struct request *r, struct api_error *e)
{
    size_t n = 0;
    const char *const *own =
        r->kind == REQUEST_CHAT ? runt_template_stops(j->model->chat, &n) : NULL;
    j->stops = mem_array(n + r->n_stops, sizeof *j->stops);
    for (size_t i = 0; j->stops && i < n + r->n_stops; i++) {
        char *copy = mem_strdup(i < n ? own[i] : r->stops[i - n]);
        if (!copy)
            return api_fail(e, 500, NULL, NULL, "out of memory");
        j->stops[j->n_stops++] = copy;
    }
    return j->stops ? 0 : api_fail(e, 500, NULL, NULL, "out of memory");
}

static int make_grammar(struct job *j, const struct request *r, struct api_error *e)
{
    struct runt_err err = {0};
    int rc = 0;
    if (r->format == FORMAT_JSON)
        rc = runt_grammar_json(&j->grammar, &err);
    else if (r->format == FORMAT_SCHEMA)
        rc = runt_grammar_json_schema(r->grammar, r->n_grammar, &j->grammar, &err);
    else if (r->format == FORMAT_GBNF)
        rc = runt_grammar_gbnf(r->grammar, r->n_grammar, &j->grammar, &err);
    if (!rc)
        return 0;
    return refuse(e, r->format == FORMAT_GBNF ? "grammar" : "response_format", &err);
}

static uint64_t random_seed(void)
{
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != sizeof seed)
        seed = (uint64_t)(api_seconds() * 1e9);
    return seed;
}

/* The job outlives the request. */
static int copy_bias(struct job *j, struct api_error *e)
{
    size_t n = j->sampler.n_bias;
    j->bias = mem_array(n, sizeof *j->bias);
    if (!j->bias)
        return api_fail(e, 500, NULL, NULL, "out of memory");
    if (n)
        memcpy(j->bias, j->sampler.bias, n * sizeof *j->bias);
    j->sampler.bias = j->bias;
    return 0;
}

/* What would fail when the answer begins is better refused now. */
static int try_sampler(const struct job *j, struct api_error *e)
{
    struct runt_err err = {0};
    runt_sampler *s = NULL;
    int rc = runt_sampler_for(j->model->model, &j->sampler, &s, &err);
    if (rc)
        return refuse(e, strstr(err.msg, "bias") ? "logit_bias" : NULL, &err);
    if (j->grammar)
        rc = runt_sampler_constrain(s, j->model->model, j->grammar, &err);
    runt_sampler_free(s);
    return rc ? refuse(e, "response_format", &err) : 0;
}

static int fill(struct job *j, const struct request *r, struct api_error *e)
{
    struct runt_err err = {0};
    j->n_each = r->n;
    j->sampler = r->sampler;
    if (!r->has_seed)
        j->sampler.seed = random_seed();
    j->n_max = r->n_max;
    j->n_top = r->n_top;
    j->score_prompt = r->echo && r->n_top >= 0;
    j->skip_space =
        r->kind == REQUEST_CHAT && runt_template_skips_space(j->model->chat);
    j->stream = r->stream;
    j->embed = r->kind == REQUEST_EMBEDDING;
    if (r->dimensions && r->dimensions != j->model->info.n_embd)
        return api_fail(e, 400, NULL, "dimensions",
                        "embeddings of this model have %u numbers",
                        j->model->info.n_embd);
    if (make_prompts(j, r, e) || make_stops(j, r, e) || copy_bias(j, e) ||
        make_grammar(j, r, e) || try_sampler(j, e))
        return -1;
    j->ignore_eos = r->ignore_eos && !j->grammar; /* nothing else may come then */
    return job_prepare(j, &err) ? internal(e, &err) : 0;
}

int prepare_job(struct engine *engine, const struct request *r, struct job **out,
                struct api_error *e)
{
    struct served *m = engine_find(engine, r->model);
    if (!m)
        return api_fail(e, 404, "model_not_found", "model",
                        "the model '%s' does not exist here", r->model);
    struct job *j = mem_zalloc(sizeof *j);
    if (!j)
        return api_fail(e, 500, NULL, NULL, "out of memory");
    j->model = m;
    int rc = fill(j, r, e);
    if (rc)
        job_free(j);
    else
        *out = j;
    return rc;
}
