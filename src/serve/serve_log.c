/* Owns the log: one JSON object a request, and one for what happens to the server.  The
 * texts of requests are not in it, unless whoever runs the server asked for them. */
#include "serve/server_impl.h"

#include <time.h>

static void put_time(struct strbuf *b)
{
    struct timespec t;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &tm);
    sb_printf(b, "{\"time\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ\"",
              tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min,
              tm.tm_sec, t.tv_nsec / 1000000);
}

static void put_member(struct strbuf *b, const char *name, const char *value)
{
    sb_printf(b, ",\"%s\":", name);
    api_put_cstring(b, value);
}

static void write_line(struct server *s, struct strbuf *b)
{
    sb_char(b, '}');
    if (!b->failed)
        s->o->log(s->o->ctx, b->data);
    sb_free(b);
}

static void put_job(struct strbuf *b, const struct exchange *x, double now)
{
    const struct job *j = x->job;
    const struct reply *r = &x->reply;
    put_member(b, "model", j->model->name);
    sb_printf(b, ",\"stream\":%s", x->request.stream ? "true" : "false");
    if (!r->over) /* the job may still be the worker's */
        return;
    sb_printf(b,
              ",\"prompt_tokens\":%zu,\"cached_tokens\":%zu,\"completion_tokens\":%zu",
              r->n_prompt, r->n_cached, r->n_tokens);
    if (r->finish)
        put_member(b, "finish", r->finish);
    if (j->started > 0)
        sb_printf(b, ",\"queue_seconds\":%.6f", j->started - j->submitted);
    if (j->first > 0)
        sb_printf(b, ",\"first_token_seconds\":%.6f", j->first - j->submitted);
    sb_printf(b, ",\"write_seconds\":%.6f", now - (j->ended > 0 ? j->ended : now));
}

void serve_log_request(struct exchange *x)
{
    struct server *s = x->server;
    struct strbuf b = {0};
    double now = api_seconds();
    if (!s->o->log)
        return;
    put_time(&b);
    sb_str(&b, ",\"event\":\"request\"");
    put_member(&b, "id", x->id);
    put_member(&b, "remote", x->connection->address);
    if (*x->forwarded)
        put_member(&b, "forwarded", x->forwarded);
    put_member(&b, "method", x->method);
    put_member(&b, "path", x->path);
    sb_printf(&b, ",\"status\":%u,\"seconds\":%.6f,\"bytes\":%llu",
              x->gone && x->status < 400 ? 499 : x->status, now - x->begun,
              (unsigned long long)x->n_sent);
    if (x->refused.status)
        put_member(&b, "error", x->refused.code ? x->refused.code : "refused");
    if (x->job)
        put_job(&b, x, now);
    if (s->o->log_bodies && x->body.len) {
        sb_str(&b, ",\"body\":");
        api_put_string(&b, x->body.data, x->body.len);
    }
    write_line(s, &b);
}

void serve_log_event(struct server *s, const char *event, const char *detail)
{
    struct strbuf b = {0};
    if (!s->o->log)
        return;
    put_time(&b);
    put_member(&b, "event", event);
    if (detail)
        put_member(&b, "detail", detail);
    write_line(s, &b);
}
