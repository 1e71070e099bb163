/* Load for `runt serve`: many clients that stream completions at once, in one thread.
 *
 *     serve_load PORT CLIENTS SECONDS [REQUESTS] <bodies
 *
 * Standard input has a request's body a line: streaming completions with
 * stream_options.include_usage.  First each is asked alone; then CLIENTS ask without a
 * pause for SECONDS (or until REQUESTS are answered), each the next of the bodies, and
 * every answer has to be the same bytes as alone.  Prints one JSON object.  Status 1:
 * an answer differed, or there was an error. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CASES = 1000, MAX_TEXT = 1 << 16, MAX_REPLY = 1 << 20, MAX_TIMES = 1 << 21 };

struct text_case {
    char *request; /* with its header */
    size_t n;
    char *expected; /* NULL: not yet known */
};

/* One client: a connection that is kept, and the answer that is coming. */
struct client {
    int fd;
    const struct text_case *asked;
    size_t n_sent;
    double begun, first;
    char in[1 << 14]; /* bytes that make no whole line yet */
    size_t n_in;
    bool in_body, over;
    size_t chunk;         /* bytes of it that are to come */
    char text[MAX_TEXT];  /* as JSON has it */
    char event[MAX_TEXT]; /* a line of an event that comes in pieces */
    size_t n_text, n_event;
    long n_tokens; /* -1: not said */
    int status;
};

static struct {
    struct text_case cases[MAX_CASES];
    size_t n_cases, next;
    int port;
    double *times; /* to the first token */
    size_t n_times;
    long n_requests, n_tokens, n_errors, n_differ;
    char example[300]; /* of an error */
} load;

static void die(const char *what)
{
    perror(what);
    exit(2);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void read_cases(void)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    while (load.n_cases < MAX_CASES && (n = getline(&line, &cap, stdin)) > 0) {
        struct text_case *c = &load.cases[load.n_cases++];
        size_t size = (size_t)n + 200;
        c->request = malloc(size);
        if (!c->request)
            die("malloc");
        c->n = (size_t)snprintf(c->request, size,
                                "POST /v1/completions HTTP/1.1\r\nHost: load\r\n"
                                "Content-Type: application/json\r\nContent-Length: "
                                "%zd\r\n\r\n%s",
                                n, line);
    }
    free(line);
}

static void connect_client(struct client *c)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)load.port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&a, sizeof a))
        die("connect");
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
}

static void ask(struct client *c, const struct text_case *what)
{
    c->asked = what;
    c->n_sent = c->n_in = c->n_text = c->n_event = c->chunk = 0;
    c->first = 0;
    c->in_body = c->over = false;
    c->n_tokens = -1;
    c->status = 0;
    c->begun = now();
    ssize_t n = send(c->fd, what->request, what->n, MSG_NOSIGNAL);
    if (n != (ssize_t)what->n) /* requests are small */
        die("send");
}

/* ---- what comes back ---- */

static void fault(const char *what, const char *detail)
{
    if (!load.n_errors++)
        snprintf(load.example, sizeof load.example, "%s: %.250s", what, detail);
}

/* The text of an event, escapes and all: they are the same however a text is cut. */
static void take_event(struct client *c, const char *line)
{
    const char *text = strstr(line, "\"text\":\""),
               *tokens = strstr(line, "\"completion_tokens\":");
    if (!strncmp(line, "data: {\"error\"", 14))
        fault("event", line);
    if (tokens)
        c->n_tokens = atol(tokens + strlen("\"completion_tokens\":"));
    if (!text)
        return;
    text += strlen("\"text\":\"");
    size_t n = 0;
    while (text[n] && text[n] != '"')
        n += text[n] == '\\' ? 2 : 1;
    if (n && !c->first)
        c->first = now();
    if (n > sizeof c->text - c->n_text)
        die("an answer too long");
    memcpy(c->text + c->n_text, text, n);
    c->n_text += n;
}

static void take_body(struct client *c, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != '\n') {
            if (c->n_event + 1 == sizeof c->event)
                die("an event too long");
            c->event[c->n_event++] = bytes[i];
            continue;
        }
        c->event[c->n_event] = 0;
        if (c->n_event)
            take_event(c, c->event);
        c->n_event = 0;
    }
}

static void take_head(struct client *c, char *line)
{
    if (!strncmp(line, "HTTP/1.1 ", 9))
        c->status = atoi(line + 9);
    if (!*line)
        c->in_body = true;
}

/* Header lines, then chunks: a line of their size, bytes, an empty line.  Returns how
 * many bytes were used. */
static size_t take_some(struct client *c)
{
    if (c->chunk) {
        size_t n = c->n_in < c->chunk ? c->n_in : c->chunk;
        take_body(c, c->in, n);
        c->chunk -= n;
        return n;
    }
    char *end = memchr(c->in, '\n', c->n_in);
    if (!end)
        return 0;
    size_t used = (size_t)(end - c->in) + 1;
    *end = 0;
    if (end > c->in && end[-1] == '\r')
        end[-1] = 0;
    if (!c->in_body)
        take_head(c, c->in);
    else if (*c->in == '0')
        c->over = true; /* the empty line behind it is read as part of nothing */
    else if (*c->in)
        c->chunk = strtoul(c->in, NULL, 16);
    return used;
}

static void finish(struct client *c)
{
    load.n_requests++;
    if (c->status != 200 || c->n_tokens < 0)
        fault("answer", c->status == 200 ? "no usage" : c->text);
    else
        load.n_tokens += c->n_tokens;
    if (c->first && load.n_times < MAX_TIMES)
        load.times[load.n_times++] = c->first - c->begun;
    if (c->asked->expected && (strlen(c->asked->expected) != c->n_text ||
                               memcmp(c->asked->expected, c->text, c->n_text)))
        load.n_differ++;
}

/* True: the answer is over. */
static bool receive(struct client *c)
{
    ssize_t n = recv(c->fd, c->in + c->n_in, sizeof c->in - c->n_in, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0)
        die("the server closed a connection");
    c->n_in += (size_t)n;
    for (size_t used = 1; used && !c->over;) {
        used = take_some(c);
        memmove(c->in, c->in + used, c->n_in - used);
        c->n_in -= used;
    }
    if (c->in_body && c->status != 200) {
        fault("status", c->in);
        die("an error's body is not read");
    }
    return c->over;
}

/* ---- the run ---- */

static void ask_alone(void)
{
    static struct client c;
    connect_client(&c);
    for (size_t i = 0; i < load.n_cases; i++) {
        ask(&c, &load.cases[i]);
        while (!receive(&c))
            usleep(200);
        load.cases[i].expected = strndup(c.text, c.n_text);
    }
    close(c.fd);
}

static void run(size_t n_clients, double seconds, long n_requests)
{
    struct client *clients = calloc(n_clients, sizeof *clients);
    int ep = epoll_create1(0);
    if (!clients || ep < 0)
        die("clients");
    double end = now() + seconds;
    size_t n_busy = 0;
    for (size_t i = 0; i < n_clients; i++, n_busy++) {
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = &clients[i]};
        connect_client(&clients[i]);
        epoll_ctl(ep, EPOLL_CTL_ADD, clients[i].fd, &e);
        ask(&clients[i], &load.cases[load.next++ % load.n_cases]);
    }
    while (n_busy) {
        struct epoll_event events[64];
        int n = epoll_wait(ep, events, 64, 30000);
        if (n <= 0)
            die("nothing came for 30 seconds");
        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;
            if (!receive(c))
                continue;
            finish(c);
            if (now() < end &&
                (!n_requests || load.n_requests + (long)n_busy <= n_requests))
                ask(c, &load.cases[load.next++ % load.n_cases]);
            else {
                close(c->fd);
                n_busy--;
            }
        }
    }
    free(clients);
    close(ep);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double cpu_seconds(void)
{
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
           1e-6 * (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: serve_load PORT CLIENTS SECONDS [REQUESTS] <bodies\n");
        return 2;
    }
    load.port = atoi(argv[1]);
    load.times = malloc(MAX_TIMES * sizeof *load.times);
    read_cases();
    if (!load.n_cases || !load.times)
        die("no bodies");
    ask_alone();
    double t0 = now(), cpu0 = cpu_seconds();
    run((size_t)atol(argv[2]), atof(argv[3]), argc > 4 ? atol(argv[4]) : 0);
    double t = now() - t0, cpu = cpu_seconds() - cpu0;
    qsort(load.times, load.n_times, sizeof *load.times, ascending);
    size_t n = load.n_times;
    printf(
        "{\"seconds\":%.3f,\"requests\":%ld,\"tokens\":%ld,\"tokens_per_second\":%.1f,"
        "\"errors\":%ld,\"different\":%ld,\"first_p50\":%.4f,\"first_p95\":%.4f,"
        "\"first_max\":%.4f,\"cores_used\":%.3f}\n",
        t, load.n_requests, load.n_tokens, (double)load.n_tokens / t, load.n_errors,
        load.n_differ, n ? load.times[n / 2] : 0, n ? load.times[n * 95 / 100] : 0,
        n ? load.times[n - 1] : 0, cpu / t);
    if (load.n_errors)
        fprintf(stderr, "serve_load: %s\n", load.example);
    return load.n_errors || load.n_differ;
}
