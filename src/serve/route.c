/* Owns what a path answers. */
#include "serve/prepare.h"
#include "serve/server_impl.h"

#include "serve/serve_page.h"

#include <math.h>
#include <string.h>

/* `open`: no key is asked for. */
static const struct {
    const char *path, *allow;
    bool open;
} routes[N_ROUTES] = {
    [ROUTE_PAGE] = {"/", "GET, HEAD, OPTIONS", true},
    [ROUTE_HEALTH] = {"/health", "GET, HEAD, OPTIONS", true},
    [ROUTE_METRICS] = {"/metrics", "GET, HEAD, OPTIONS", false},
    [ROUTE_MODELS] = {"/v1/models", "GET, HEAD, OPTIONS", true},
    [ROUTE_MODEL] = {"/v1/models/", "GET, HEAD, OPTIONS", true}, /* and a name */
    [ROUTE_CHAT] = {"/v1/chat/completions", "POST, OPTIONS", false},
    [ROUTE_COMPLETIONS] = {"/v1/completions", "POST, OPTIONS", false},
    [ROUTE_EMBEDDINGS] = {"/v1/embeddings", "POST, OPTIONS", false},
    [ROUTE_NONE] = {"other", "OPTIONS", true},
};

const char *route_path(enum route r)
{
    return routes[r].path;
}

const char *route_allow(enum route r)
{
    return routes[r].allow;
}

static enum route find(const char *path)
{
    const char *prefix = routes[ROUTE_MODEL].path;
    for (int r = 0; r < ROUTE_NONE; r++)
        if (r != ROUTE_MODEL && !strcmp(path, routes[r].path))
            return (enum route)r;
    if (!strncmp(path, prefix, strlen(prefix)) && path[strlen(prefix)])
        return ROUTE_MODEL;
    return ROUTE_NONE;
}

static bool method_allowed(const struct exchange *x)
{
    const char *at = strstr(routes[x->route].allow, x->method);
    size_t n = strlen(x->method);
    return n && at && (at[n] == ',' || !at[n]);
}

void route_choose(struct exchange *x)
{
    const struct serve_options *o = x->server->o;
    x->route = x->cut_path ? ROUTE_NONE : find(x->path);
    const char *origin = http_header(x, "Origin");
    if (!strcmp(x->method, "OPTIONS")) {
        if (origin && !access_origin(origin, o->origins, o->n_origins))
            api_fail(&x->refused, 403, NULL, NULL, "this origin may not ask here");
    } else if (x->route == ROUTE_NONE)
        api_fail(&x->refused, 404, "not_found", NULL, "there is nothing at %s",
                 x->path);
    else if (!method_allowed(x))
        api_fail(&x->refused, 405, "method_not_allowed", NULL, "%s does not go with %s",
                 x->method, x->path);
    else if (!routes[x->route].open &&
             !access_key_ok(http_header(x, "Authorization"), o->keys, o->n_keys))
        api_fail(&x->refused, 401, "invalid_api_key", NULL,
                 http_header(x, "Authorization")
                     ? "the API key is not one of this server's"
                     : "an API key is needed: Authorization: Bearer KEY");
}

/* ---- models ---- */

/* How tokens are drawn where a request is silent. */
static void put_sampler(struct strbuf *b, const struct runt_sampler_options *o)
{
    const struct {
        const char *name;
        float value;
    } reals[] = {{"temperature", o->temp},
                 {"top_p", o->top_p},
                 {"min_p", o->min_p},
                 {"repeat_penalty", o->repeat_penalty},
                 {"frequency_penalty", o->frequency_penalty},
                 {"presence_penalty", o->presence_penalty}};
    sb_printf(b, "{\"top_k\":%d,\"repeat_last_n\":%d", o->top_k, o->repeat_last);
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        sb_printf(b, ",\"%s\":", reals[i].name);
        api_put_number(b, (double)reals[i].value);
    }
    sb_char(b, '}');
}

static void put_model(struct exchange *x, const struct served *m)
{
    struct strbuf *b = &x->out;
    double rate = engine_tokens_per_second(x->server->engine, m);
    sb_str(b, "{\"id\":");
    api_put_cstring(b, m->name);
    sb_printf(b,
              ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"runt\",\"runt\":{"
              "\"file_bytes\":%llu,\"bits_per_weight\":%.4g,\"n_weights\":%llu,"
              "\"n_ctx\":%u,\"template\":",
              (long long)m->created, (unsigned long long)m->info.file_bytes,
              8 * (double)m->info.file_bytes / (double)m->info.n_weights,
              (unsigned long long)m->info.n_weights, m->n_ctx);
    if (m->has_template)
        api_put_cstring(b, runt_template_name(m->chat));
    else
        sb_str(b, "null");
    sb_str(b, ",\"tokens_per_second\":");
    if (rate > 0)
        sb_printf(b, "%.4g", rate);
    else
        sb_str(b, "null");
    sb_str(b, ",\"sampler\":");
    put_sampler(b, &x->server->o->sampler);
    sb_str(b, "}}");
}

static void answer_models(struct exchange *x)
{
    const struct engine *e = x->server->engine;
    sb_str(&x->out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < engine_n_models(e); i++) {
        sb_str(&x->out, i ? "," : "");
        put_model(x, engine_model(e, i));
    }
    sb_str(&x->out, "]}");
}

static void answer_model(struct exchange *x)
{
    const char *name = x->path + strlen(routes[ROUTE_MODEL].path);
    const struct served *m = engine_find(x->server->engine, name);
    if (m)
        put_model(x, m);
    else
        api_fail(&x->refused, 404, "model_not_found", "model",
                 "the model '%s' does not exist here", name);
}

/* ---- what is asked of a model ---- */

static void refuse_full(struct exchange *x, const struct runt_err *err)
{
    struct engine_figures f;
    if (err->code != RUNT_E_FULL) {
        api_fail(&x->refused, 400, NULL, "n", "%s", err->msg);
        return;
    }
    engine_figures(x->server->engine, &f);
    api_fail(&x->refused, 429, "queue_full", NULL, "%s; try again later", err->msg);
    x->refused.retry_after = f.retry_after < 1    ? 1
                             : f.retry_after > 60 ? 60
                                                  : (unsigned)ceil(f.retry_after);
}

static int submit(struct exchange *x)
{
    struct runt_err err = {0};
    const char *id = strncmp(x->id, "req_", 4) ? x->id : x->id + 4;
    if (reply_init(&x->reply, x->server->engine, &x->request, x->job, id, &x->refused))
        return -1;
    x->has_reply = true;
    x->job->owner = x;
    if (!engine_submit(x->server->engine, x->job, &err))
        return 0;
    refuse_full(x, &err);
    return -1;
}

static void ask(struct exchange *x, enum request_kind kind)
{
    if (x->server->draining) {
        api_fail(&x->refused, 503, "shutting_down", NULL,
                 "the server is shutting down");
        x->refused.retry_after = 1;
        return;
    }
    if (request_parse(kind, x->body.data ? x->body.data : "", x->body.len,
                      &x->server->o->sampler, &x->request, &x->refused))
        return;
    x->has_request = true;
    x->request.has_seed |= x->server->o->seeded;
    if (prepare_job(x->server->engine, &x->request, &x->job, &x->refused))
        return;
    if (submit(x)) {
        if (x->has_reply)
            reply_free(&x->reply);
        x->has_reply = false;
        job_free(x->job);
        x->job = NULL;
    }
}

void route_finish(struct exchange *x)
{
    x->status = 200;
    x->type = "application/json";
    reply_whole(&x->reply, &x->out, &x->refused);
}

void route_answer(struct exchange *x)
{
    x->status = 200;
    x->type = "application/json";
    if (!strcmp(x->method, "OPTIONS")) {
        x->status = 204;
        x->type = NULL;
        return;
    }
    switch (x->route) {
    case ROUTE_PAGE:
        x->type = "text/html; charset=utf-8";
        sb_put(&x->out, serve_page, sizeof serve_page - 1);
        break;
    case ROUTE_HEALTH:
        x->status = x->server->draining ? 503 : 200;
        sb_printf(&x->out, "{\"status\":\"%s\"}",
                  x->server->draining ? "draining" : "ok");
        break;
    case ROUTE_METRICS:
        x->type = "text/plain; version=0.0.4; charset=utf-8";
        metrics_put(x->server, &x->out);
        break;
    case ROUTE_MODELS:
        answer_models(x);
        break;
    case ROUTE_MODEL:
        answer_model(x);
        break;
    case ROUTE_CHAT:
        ask(x, REQUEST_CHAT);
        break;
    case ROUTE_COMPLETIONS:
        ask(x, REQUEST_COMPLETION);
        break;
    case ROUTE_EMBEDDINGS:
        ask(x, REQUEST_EMBEDDING);
        break;
    case ROUTE_NONE:
    case N_ROUTES:
        break;
    }
}
