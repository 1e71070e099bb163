/* Owns the clock: what takes too long, and clients that are gone.
 *
 * While an answer is being made, libmicrohttpd does not look at the connection, so this
 * does.  A client that has closed its sending side may still be reading (a half-closed
 * socket), or be gone; the two look alike until something is sent.  So it is sent
 * something that means nothing: a comment in a stream, an interim response "100
 * Continue" before any other (RFC 9110, 15.2: clients ignore those that they did not
 * expect; HTTP/1.0 has none, there the client counts as gone).  One that is gone
 * answers with a reset. */
#include "serve/server_impl.h"

#include "base/mem.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>

/* An answer that is silent for so long says something meaningless, for proxies. */
static const double SILENCE_SECONDS = 15;

/* Straight to the socket: libmicrohttpd writes nothing before a response is queued. */
static void send_raw(const struct connection *c, const char *bytes, size_t n)
{
    ssize_t sent = send(c->fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)sent; /* who is gone does not get it */
}

void watch_close(struct connection *c, const struct api_error *e)
{
    struct exchange *x = c->exchange;
    struct strbuf b = {0}, body = {0};
    if (c->doomed)
        return;
    if (e) {
        api_put_error(&body, e);
        sb_printf(&b,
                  "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: "
                  "application/json\r\nContent-Length: %zu\r\n%s%s%s\r\n%s",
                  e->status, MHD_get_reason_phrase_for((unsigned)e->status), body.len,
                  x ? "x-request-id: " : "", x ? x->id : "", x ? "\r\n" : "",
                  body.data ? body.data : "");
        if (!b.failed)
            send_raw(c, b.data, b.len);
    }
    if (x) {
        x->status = e ? (unsigned)e->status : 0;
        x->gone = true;
    }
    c->doomed = true;
    shutdown(c->fd, SHUT_RDWR); /* libmicrohttpd reads the end, and cleans up */
    sb_free(&body);
    sb_free(&b);
}

/* ---- requests that do not arrive ---- */

static void close_late(struct connection *c)
{
    struct exchange *x = c->exchange;
    struct api_error e;
    if (x && x->refused.status)
        e = x->refused;
    else
        api_fail(&e, 408, "timeout", NULL, "the request took too long to arrive");
    if (x && !*x->id)
        access_request_id(NULL, x->id);
    watch_close(c, &e);
}

static void check_arrival(struct server *s, struct connection *c, double now)
{
    const struct exchange *x = c->exchange;
    if (!x && c->n_requests) { /* kept alive, and quiet */
        if (now - c->since > s->o->idle_seconds || s->draining)
            watch_close(c, NULL);
    } else if (!x || (!x->read && !x->queued)) {
        if (now - (x ? x->begun : c->since) > s->o->read_seconds)
            close_late(c);
    }
}

/* Room for others: when nearly all connections are taken, the oldest that waits for a
 * request, or for the rest of one, goes. */
static void make_room(struct server *s, double now)
{
    size_t most = s->o->max_connections - s->o->max_connections / 8;
    for (struct connection *c = s->first, *next; c && s->n_connections > most;
         c = next) {
        const struct exchange *x = c->exchange;
        next = c->next;
        if ((x && (x->read || x->queued)) || now - c->since < 1 || c->doomed)
            continue;
        if (x || !c->n_requests)
            close_late(c);
        else
            watch_close(c, NULL);
        most++; /* it is still counted */
    }
}

/* ---- answers that are being made ---- */

static void leave(struct exchange *x)
{
    x->gone = true;
    engine_cancel(x->server->engine, x->job, JOB_CANCELLED);
    http_resume(x);
}

/* Something that means nothing, so that a client that is gone shows it. */
static void probe(struct exchange *x)
{
    static const char interim[] = "HTTP/1.1 100 Continue\r\n\r\n", comment[] = ": \n\n";
    if (x->request.stream) {
        sb_str(&x->out, comment);
        http_resume(x);
    } else if (x->old_http)
        leave(x);
    else
        send_raw(x->connection, interim, sizeof interim - 1);
}

/* `events` of a suspended connection. */
static void check_client(struct exchange *x, short events, double now)
{
    if (events & (POLLERR | POLLHUP | POLLNVAL))
        leave(x);
    else if ((events & POLLRDHUP) && !x->probed) {
        x->probed = true;
        probe(x);
    } else if (x->request.stream && now - x->sent_at > SILENCE_SECONDS)
        probe(x);
}

static void check_clients(struct server *s, double now)
{
    struct pollfd *fds = mem_array(s->n_connections + 1, sizeof *fds);
    nfds_t n = 0;
    if (!fds)
        return; /* next time */
    for (struct connection *c = s->first; c; c = c->next)
        fds[n++] = (struct pollfd){
            .fd = c->exchange && c->exchange->suspended ? c->fd : -1,
            .events = POLLRDHUP,
        };
    poll(fds, n, 0);
    n = 0;
    for (struct connection *c = s->first; c; c = c->next, n++)
        if (fds[n].fd >= 0)
            check_client(c->exchange, fds[n].revents, now);
    mem_free(fds);
}

void watch_tick(struct server *s, double now)
{
    check_clients(s, now);
    for (struct connection *c = s->first; c; c = c->next) {
        struct exchange *x = c->exchange;
        check_arrival(s, c, now);
        if (x && x->job && now - x->read > s->o->request_seconds)
            engine_cancel(s->engine, x->job, JOB_TIMEOUT);
    }
    make_room(s, now);
}
