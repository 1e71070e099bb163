/* Owns the way between libmicrohttpd and an exchange: reading a body, suspending while
 * an answer is made, writing it.
 *
 * A request that is refused is read to its end all the same (a client that is still
 * sending would not see the answer), but nothing of it is kept. */
#include "serve/server_impl.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    MAX_SWALLOW = 256 << 20,  /* bytes of a body that is refused by its length */
    MAX_BODY_SHARE = 64 << 20 /* of all bodies that are being read */
};

const char *http_header(const struct exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->connection->mhd, MHD_HEADER_KIND, name);
}

/* ---- connections ---- */

static void set_address(struct connection *c)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c->mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *a = info ? info->client_addr : NULL;
    if (a && a->sa_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)a)->sin_addr,
                  c->address, sizeof c->address);
    else if (a && a->sa_family == AF_INET6)
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr,
                  c->address, sizeof c->address);
}

static void connection_open(struct server *s, struct MHD_Connection *m, void **context)
{
    struct connection *c = mem_zalloc(sizeof *c);
    if (!c)
        return; /* its first request is refused */
    c->mhd = m;
    c->fd = MHD_get_connection_info(m, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    c->since = api_seconds();
    set_address(c);
    c->prev = s->last;
    *(s->last ? &s->last->next : &s->first) = c;
    s->last = c;
    s->n_connections++;
    *context = c;
}

static void connection_close(struct server *s, struct connection *c)
{
    *(c->prev ? &c->prev->next : &s->first) = c->next;
    *(c->next ? &c->next->prev : &s->last) = c->prev;
    s->n_connections--;
    mem_free(c);
}

void http_connection(void *cls, struct MHD_Connection *m, void **context,
                     enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        connection_open(cls, m, context);
    else if (*context)
        connection_close(cls, *context);
}

static struct connection *connection_of(struct MHD_Connection *m)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(m, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

/* ---- exchanges ---- */

void *http_first_line(void *cls, const char *uri, struct MHD_Connection *m)
{
    struct server *s = cls;
    struct connection *c = connection_of(m);
    struct exchange *x = c ? mem_zalloc(sizeof *x) : NULL;
    if (!x)
        return NULL;
    x->cut_path = strstr(uri, "%00") != NULL;
    x->server = s;
    x->connection = c;
    x->route = ROUTE_NONE;
    x->begun = api_seconds();
    c->exchange = x;
    c->n_requests++;
    s->n_exchanges++;
    return x;
}

static void drop_body(struct exchange *x)
{
    x->server->body_bytes -= x->body.len;
    sb_free(&x->body);
}

void http_completed(void *cls, struct MHD_Connection *m, void **exchange,
                    enum MHD_RequestTerminationCode why)
{
    struct server *s = cls;
    struct exchange *x = *exchange;
    (void)m;
    if (!x)
        return;
    x->gone |= why != MHD_REQUEST_TERMINATED_COMPLETED_OK;
    metrics_count(s, x);
    serve_log_request(x);
    if (x->has_reply)
        reply_free(&x->reply);
    if (x->job)
        engine_abandon(s->engine, x->job);
    if (x->has_request)
        request_free(&x->request);
    drop_body(x);
    sb_free(&x->out);
    x->connection->exchange = NULL;
    x->connection->since = api_seconds();
    s->n_exchanges--;
    mem_free(x);
    *exchange = NULL;
}

static void suspend(struct exchange *x)
{
    x->suspended = true;
    MHD_suspend_connection(x->connection->mhd);
}

void http_resume(struct exchange *x)
{
    if (!x->suspended)
        return;
    x->suspended = false;
    MHD_resume_connection(x->connection->mhd);
}

/* ---- reading ---- */

static void begin(struct exchange *x, const char *url, const char *method,
                  const char *version)
{
    x->head_seen = true;
    snprintf(x->method, sizeof x->method, "%s", method);
    snprintf(x->path, sizeof x->path, "%s", url);
    const char *forwarded = http_header(x, "X-Forwarded-For");
    snprintf(x->forwarded, sizeof x->forwarded, "%s", forwarded ? forwarded : "");
    x->old_http = strcmp(version, MHD_HTTP_VERSION_1_1) != 0;
    access_request_id(http_header(x, "X-Request-Id"), x->id);
    route_choose(x);
    const char *length = http_header(x, "Content-Length");
    if (!x->refused.status && length &&
        strtoull(length, NULL, 10) > x->server->o->max_body)
        api_fail(&x->refused, 413, NULL, NULL,
                 "the body has %s bytes: the limit is %zu", length,
                 x->server->o->max_body);
}

/* A refusal that does not wait for the body: the client asks whether it may send it, or
 * it is so long that the connection is worth less than reading it. */
static bool refuse_now(const struct exchange *x)
{
    const char *length = http_header(x, "Content-Length"),
               *expect = http_header(x, "Expect");
    return x->refused.status &&
           (expect || (length && strtoull(length, NULL, 10) > MAX_SWALLOW));
}

static void take_body(struct exchange *x, const char *bytes, size_t n)
{
    struct server *s = x->server;
    size_t share = s->o->max_body > MAX_BODY_SHARE ? s->o->max_body : MAX_BODY_SHARE;
    if (x->refused.status)
        return;
    if (n > s->o->max_body - x->body.len) {
        api_fail(&x->refused, 413, NULL, NULL, "the body has more than %zu bytes",
                 s->o->max_body);
    } else if (n > share - s->body_bytes) {
        api_fail(&x->refused, 503, NULL, NULL, "too many requests are being read");
        x->refused.retry_after = 1;
    } else {
        s->body_bytes += n;
        sb_put(&x->body, bytes, n);
        if (x->body.failed)
            api_fail(&x->refused, 503, NULL, NULL, "out of memory");
    }
    if (x->refused.status)
        drop_body(x);
}

/* ---- writing ---- */

/* The next bytes of a stream. */
static ssize_t read_stream(void *cls, uint64_t pos, char *buf, size_t max)
{
    struct exchange *x = cls;
    (void)pos;
    if (x->gone)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (x->out_at == x->out.len) {
        x->out.len = x->out_at = 0;
        if (!x->reply.over)
            reply_events(&x->reply, &x->out);
    }
    size_t n = x->out.len - x->out_at;
    if (x->out.failed)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (!n && x->reply.over)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (!n) {
        suspend(x);
        return 0;
    }
    n = n < max ? n : max;
    memcpy(buf, x->out.data + x->out_at, n);
    x->out_at += n;
    x->n_sent += n;
    x->sent_at = api_seconds();
    return (ssize_t)n;
}

static void header(struct MHD_Response *r, const char *name, const char *value)
{
    if (value)
        MHD_add_response_header(r, name, value);
}

static void cors_headers(const struct exchange *x, struct MHD_Response *r)
{
    const struct serve_options *o = x->server->o;
    const char *origin =
        access_origin(http_header(x, "Origin"), o->origins, o->n_origins);
    if (o->n_origins)
        header(r, "Vary", "Origin");
    if (!origin)
        return;
    header(r, "Access-Control-Allow-Origin", origin);
    header(r, "Access-Control-Expose-Headers", "x-request-id, retry-after");
    if (strcmp(x->method, "OPTIONS"))
        return;
    header(r, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    header(r, "Access-Control-Allow-Headers",
           http_header(x, "Access-Control-Request-Headers"));
    header(r, "Access-Control-Max-Age", "600");
}

static void headers(const struct exchange *x, struct MHD_Response *r)
{
    char seconds[16];
    header(r, "x-request-id", x->id);
    header(r, "X-Content-Type-Options", "nosniff");
    header(r, "Content-Type", x->type);
    cors_headers(x, r);
    if (x->route == ROUTE_PAGE && x->status == 200) {
        header(r, "Content-Security-Policy",
               "default-src 'none'; style-src 'unsafe-inline'; script-src "
               "'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; "
               "form-action 'none'; frame-ancestors 'none'");
        header(r, "Referrer-Policy", "no-referrer");
        header(r, "Cache-Control", "no-cache");
    } else
        header(r, "Cache-Control", "no-store");
    if (x->status == 401)
        header(r, "WWW-Authenticate", "Bearer");
    if (x->status == 405 || !strcmp(x->method, "OPTIONS"))
        header(r, "Allow", route_allow(x->route));
    if (x->status == 504) /* asking again would take as long */
        header(r, "x-should-retry", "false");
    if (x->refused.retry_after) {
        snprintf(seconds, sizeof seconds, "%u", x->refused.retry_after);
        header(r, "Retry-After", seconds);
    }
    if (x->server->draining)
        header(r, "Connection", "close");
}

static enum MHD_Result queue(struct exchange *x, struct MHD_Response *r)
{
    if (!r)
        return MHD_NO;
    headers(x, r);
    x->queued = true;
    x->sent_at = api_seconds();
    enum MHD_Result ok = MHD_queue_response(x->connection->mhd, x->status, r);
    MHD_destroy_response(r);
    return ok;
}

static enum MHD_Result queue_stream(struct exchange *x)
{
    x->status = 200;
    x->type = "text/event-stream; charset=utf-8";
    struct MHD_Response *r = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, 16 << 10, read_stream, x, NULL);
    if (r) /* nginx: pass it on as it comes */
        header(r, "X-Accel-Buffering", "no");
    return queue(x, r);
}

static enum MHD_Result queue_whole(struct exchange *x)
{
    if (x->refused.status) {
        x->status = (unsigned)x->refused.status;
        x->type = "application/json";
        x->out.len = 0;
        api_put_error(&x->out, &x->refused);
    }
    if (x->out.failed)
        return MHD_NO;
    x->n_sent = x->out.len;
    static char nothing[1];
    return queue(x, MHD_create_response_from_buffer(x->out.len,
                                                    x->out.len ? x->out.data : nothing,
                                                    MHD_RESPMEM_PERSISTENT));
}

/* ---- the callback ---- */

static enum MHD_Result respond(struct exchange *x)
{
    if (x->gone)
        return MHD_NO;
    if (x->job && !x->request.stream) { /* resumed: it is done */
        route_finish(x);
        return queue_whole(x);
    }
    x->read = api_seconds();
    if (!x->refused.status)
        route_answer(x);
    if (!x->server->o->log_bodies)
        drop_body(x);
    if (!x->job || x->refused.status)
        return queue_whole(x);
    if (x->request.stream)
        return queue_stream(x);
    suspend(x);
    return MHD_YES;
}

enum MHD_Result http_handle(void *cls, struct MHD_Connection *m, const char *url,
                            const char *method, const char *version, const char *upload,
                            size_t *n_upload, void **exchange)
{
    struct exchange *x = *exchange;
    (void)cls;
    (void)m;
    if (!x)
        return MHD_NO;
    if (!x->head_seen) {
        begin(x, url, method, version);
        return refuse_now(x) ? queue_whole(x) : MHD_YES;
    }
    if (*n_upload) {
        take_body(x, upload, *n_upload);
        *n_upload = 0;
        return MHD_YES;
    }
    return x->queued ? MHD_YES : respond(x);
}
