/* Owns the port, the loop and the end.  One thread (the caller's) does everything that
 * has to do with HTTP; the engine's worker makes the answers, and says by an event that
 * there is news. */
#include "serve/server_impl.h"

#include "base/err.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TICK_MS = 100, QUIET_MS = 1000, CONNECTION_BYTES = 32 << 10 };

/* After the drain's time is over: for the last words to be written. */
static const double LAST_SECONDS = 2;

/* ---- the port ---- */

static int bind_one(const struct addrinfo *a)
{
    int on = 1,
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (!bind(fd, a->ai_addr, a->ai_addrlen) && !listen(fd, SOMAXCONN))
        return fd;
    int e = errno;
    close(fd);
    errno = e;
    return -1;
}

static int open_port(struct server *s, struct runt_err *err)
{
    const struct serve_options *o = s->o;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE},
                    *list = NULL;
    char port[8];
    snprintf(port, sizeof port, "%u", o->port);
    int rc = getaddrinfo(o->host, port, &hints, &list);
    if (rc)
        return err_set(err, RUNT_E_IO, "%s: %s", o->host, gai_strerror(rc));
    /* "localhost" is both: most clients mean the older one */
    for (int other = 0; other < 2; other++)
        for (struct addrinfo *a = list; a && s->listen_fd < 0; a = a->ai_next)
            if ((a->ai_family != AF_INET) == other)
                s->listen_fd = bind_one(a);
    rc = s->listen_fd < 0 ? err_set(err, RUNT_E_IO, "cannot listen at %s port %u: %s",
                                    o->host, o->port, strerror(errno))
                          : 0;
    freeaddrinfo(list);
    return rc;
}

/* http://HOST:PORT, with the port that it became. */
static void say_ready(const struct server *s)
{
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    char host[64], port[8], url[96];
    if (!s->o->ready || getsockname(s->listen_fd, (struct sockaddr *)&a, &n) ||
        getnameinfo((struct sockaddr *)&a, n, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV))
        return;
    bool v6 = a.ss_family == AF_INET6;
    snprintf(url, sizeof url, "http://%s%s%s:%s", v6 ? "[" : "", host, v6 ? "]" : "",
             port);
    s->o->ready(s->o->ctx, url);
}

/* ---- the engine's news ---- */

/* From the worker's thread. */
static void wake(void *ctx)
{
    struct server *s = ctx;
    uint64_t one = 1;
    ssize_t n = write(s->wake_fd, &one, sizeof one);
    (void)n; /* full: it is awake */
}

static void take_news(struct server *s)
{
    uint64_t count;
    struct job *j;
    if (read(s->wake_fd, &count, sizeof count) < 0)
        return;
    while ((j = engine_next(s->engine)))
        http_resume(j->owner);
}

/* ---- setting up ---- */

static int watch_fd(struct server *s, int fd, struct runt_err *err)
{
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    return epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &e)
               ? err_errno(err, "the server", "wait for events")
               : 0;
}

static int start_engine(struct server *s, struct runt_err *err)
{
    const struct serve_options *o = s->o;
    struct engine_options eo = {.n_ctx = o->n_ctx,
                                .n_threads = o->n_threads,
                                .n_seqs = o->n_seqs,
                                .kv = o->kv,
                                .max_waiting = o->max_waiting,
                                .wake = wake,
                                .ctx = s};
    int rc = engine_new(&eo, &s->engine, err);
    for (size_t i = 0; i < o->n_models; i++) {
        struct serve_model *m = &o->models[i];
        if (rc)
            runt_model_free(m->model);
        else
            rc = engine_add(s->engine, m->name, m->model, o->chat, err);
        m->model = NULL;
    }
    return rc ? rc : engine_start(s->engine, err);
}

static int start_http(struct server *s, struct runt_err *err)
{
    const struct serve_options *o = s->o;
    s->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_ITC | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL,
        http_handle, s, MHD_OPTION_LISTEN_SOCKET, s->listen_fd,
        MHD_OPTION_URI_LOG_CALLBACK, http_first_line, s, MHD_OPTION_NOTIFY_COMPLETED,
        http_completed, s, MHD_OPTION_NOTIFY_CONNECTION, http_connection, s,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)o->max_connections,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)(o->idle_seconds + 1),
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
        MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_END);
    if (!s->daemon)
        return err_set(err, RUNT_E_IO, "cannot start the HTTP server");
    const union MHD_DaemonInfo *info =
        MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    return watch_fd(s, info->epoll_fd, err);
}

static int set_up(struct server *s, struct runt_err *err)
{
    s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (s->wake_fd < 0 || s->epoll_fd < 0)
        return err_errno(err, "the server", "wait for events");
    int rc = watch_fd(s, s->wake_fd, err);
    if (!rc)
        rc = open_port(s, err);
    if (!rc)
        rc = start_engine(s, err);
    return rc ? rc : start_http(s, err);
}

/* Every suspended connection has to run again before the daemon can stop. */
static void stop_http(struct server *s)
{
    if (!s->daemon)
        return;
    for (struct connection *c = s->first; c; c = c->next)
        if (c->exchange) {
            c->exchange->gone = true;
            http_resume(c->exchange);
        }
    MHD_run(s->daemon);
    MHD_stop_daemon(s->daemon);
}

static void tear_down(struct server *s)
{
    bool mhd_has_port = s->daemon && !s->draining;
    stop_http(s);
    engine_free(s->engine);
    if (s->listen_fd >= 0 && !mhd_has_port)
        close(s->listen_fd);
    if (s->wake_fd >= 0)
        close(s->wake_fd);
    if (s->epoll_fd >= 0)
        close(s->epoll_fd);
}

/* ---- the loop ---- */

static void begin_drain(struct server *s)
{
    s->draining = true;
    MHD_quiesce_daemon(s->daemon);
    close(s->listen_fd);
    s->listen_fd = -1;
    serve_log_event(s, "draining", NULL);
}

static void cancel_all(struct server *s)
{
    for (struct connection *c = s->first; c; c = c->next)
        if (c->exchange && c->exchange->job)
            engine_cancel(s->engine, c->exchange->job, JOB_SHUTDOWN);
}

static int wait_ms(struct server *s)
{
    MHD_UNSIGNED_LONG_LONG ms, most = s->n_connections ? TICK_MS : QUIET_MS;
    if (MHD_get_timeout(s->daemon, &ms) == MHD_YES && ms < most)
        return (int)ms;
    return (int)most;
}

static void loop(struct server *s)
{
    double last_tick = 0, deadline = 0;
    bool cut = false;
    for (;;) {
        struct epoll_event events[4];
        int n = epoll_wait(s->epoll_fd, events, 4, wait_ms(s));
        for (int i = 0; i < n; i++)
            if (events[i].data.fd == s->wake_fd)
                take_news(s);
        MHD_run(s->daemon);
        double now = api_seconds();
        if (now - last_tick >= TICK_MS * 1e-3) {
            watch_tick(s, now);
            last_tick = now;
        }
        int stopping = s->o->stopping ? s->o->stopping(s->o->ctx) : 0;
        if (stopping && !s->draining) {
            begin_drain(s);
            deadline = now + s->o->drain_seconds;
        }
        if (stopping > 1 || (s->draining && !s->n_exchanges))
            return;
        if (s->draining && now > deadline) {
            if (cut)
                return;
            cancel_all(s);
            cut = true;
            deadline = now + LAST_SECONDS;
        }
    }
}

int serve_run(const struct serve_options *o, struct runt_err *err)
{
    struct server s = {.o = o, .listen_fd = -1, .wake_fd = -1, .epoll_fd = -1};
    int rc = set_up(&s, err);
    if (!rc) {
        say_ready(&s);
        serve_log_event(&s, "started", NULL);
        loop(&s);
        serve_log_event(&s, "stopped", NULL);
    }
    tear_down(&s);
    return rc;
}
