/* Between the files of the HTTP side: server.c (the loop), http.c (libmicrohttpd's
 * callbacks), route.c (what a path answers), watch.c (time-outs, clients that left),
 * metrics.c and serve_log.c.  All of it runs in the thread that called serve_run. */
#ifndef RUNT_SERVER_IMPL_H
#define RUNT_SERVER_IMPL_H

#include "serve/access.h"
#include "serve/engine.h"
#include "serve/reply.h"
#include "serve/request.h"
#include "serve/serve.h"

#include <microhttpd.h>

enum route {
    ROUTE_PAGE,
    ROUTE_HEALTH,
    ROUTE_METRICS,
    ROUTE_MODELS,
    ROUTE_MODEL,
    ROUTE_CHAT,
    ROUTE_COMPLETIONS,
    ROUTE_EMBEDDINGS,
    ROUTE_NONE, /* no such path */
    N_ROUTES
};

enum { N_STATUSES = 20, N_BUCKETS = 12 };

/* What /metrics tells beside the engine's figures. */
struct metrics {
    uint64_t requests[N_ROUTES][N_STATUSES];
    uint64_t buckets[N_BUCKETS + 1], n_first; /* times to the first token */
    double first_seconds;
};

struct connection {
    struct connection *prev, *next; /* in the order of their coming */
    struct MHD_Connection *mhd;
    int fd;
    double since; /* it waits for a request */
    size_t n_requests;
    struct exchange *exchange; /* NULL between two requests */
    char address[64];
    bool doomed; /* was told to close */
};

/* A request and what becomes of it. */
struct exchange {
    struct server *server;
    struct connection *connection;
    char id[ACCESS_ID_SIZE], method[12], path[256];
    char forwarded[64]; /* whom a proxy says that it asks for */
    enum route route;
    double begun, read, sent_at; /* its first line; its last byte; when we last wrote */
    bool head_seen, old_http, queued;
    bool cut_path;            /* it holds a NUL: what follows is not seen */
    struct api_error refused; /* status 0: not */
    struct strbuf body;

    struct request request;
    bool has_request, has_reply;
    struct job *job;
    struct reply reply;
    bool suspended, gone, probed;

    /* the answer */
    unsigned status; /* 0: not yet known */
    const char *type;
    struct strbuf out; /* all of it; of a stream, what is not yet written: */
    size_t out_at;     /*   from here on */
    uint64_t n_sent;
};

struct server {
    const struct serve_options *o;
    struct engine *engine;
    struct MHD_Daemon *daemon;
    int listen_fd, wake_fd, epoll_fd;
    struct connection *first, *last;
    size_t n_connections, n_exchanges;
    size_t body_bytes; /* held by all requests that are being read */
    bool draining;
    struct metrics metrics;
};

/* ---- http.c ---- */
enum MHD_Result http_handle(void *cls, struct MHD_Connection *c, const char *url,
                            const char *method, const char *version, const char *upload,
                            size_t *n_upload, void **exchange);
void *http_first_line(void *cls, const char *uri, struct MHD_Connection *c);
void http_completed(void *cls, struct MHD_Connection *c, void **exchange,
                    enum MHD_RequestTerminationCode why);
void http_connection(void *cls, struct MHD_Connection *c, void **context,
                     enum MHD_ConnectionNotificationCode code);
/* A header of the request, or NULL. */
const char *http_header(const struct exchange *x, const char *name);
void http_resume(struct exchange *x);

/* ---- route.c ---- */
/* After the header: which route, and whether it is refused. */
void route_choose(struct exchange *x);
/* After the body: the answer, or a job. */
void route_answer(struct exchange *x);
/* The answer of a job that is done. */
void route_finish(struct exchange *x);
const char *route_path(enum route r);
const char *route_allow(enum route r);

/* ---- watch.c ---- */
/* A few times a second: end what takes too long, notice who left. */
void watch_tick(struct server *s, double now);
/* Close a connection that is between two requests, or in the middle of one. */
void watch_close(struct connection *c, const struct api_error *e);

/* ---- metrics.c, serve_log.c ---- */
void metrics_count(struct server *s, const struct exchange *x);
void metrics_put(struct server *s, struct strbuf *b);
void serve_log_request(struct exchange *x);
void serve_log_event(struct server *s, const char *event, const char *detail);

#endif
