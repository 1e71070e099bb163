/* Owns every byte exchanged with the hub: one request at a time through libcurl.
 *
 * Redirects are walked here and not by libcurl, for three reasons: the token must stay
 * with the endpoint (a download is redirected to a host that signs its own links), what
 * a HEAD asks for stands on the redirect itself, and a redirect to file:// or from
 * https to http is refused.  Headers, redirects, waits and tries are bounded; a peer
 * that stalls is dropped. */
#include "import/hub_impl.h"

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"

#include <curl/curl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum {
    HEADERS_MAX = 64 << 10, /* bytes in one answer; the hub sends about 3 kB */
    URL_MAX = 8192,
    REDIRECTS_MAX = 10,
    CONNECT_S = 10,
    STALL_S = 30, /* this long under STALL_RATE bytes a second: dropped */
    STALL_RATE = 64,
    TRIES = 5,
    WAIT_MS = 200, /* before the second try; doubles */
    RETRY_AFTER_MAX_S = 30,
    TOKEN_MAX = 4096,
};

struct origin {
    char scheme[8], host[256];
    long port;
};

struct hub_net {
    CURL *curl;
    char *endpoint; /* without a final '/' */
    struct origin origin;
    char *token;            /* NULL: none */
    const char *token_from; /* for error lines */
    runt_progress_fn progress;
    void *progress_ctx;
    const char *what;
    uint64_t done, total;
    char errbuf[CURL_ERROR_SIZE];
};

/* ---- opening ---- */

/* Scheme, host and port of an address; false unless it is http or https. */
static bool parse_origin(CURLU *u, struct origin *o)
{
    char *scheme = NULL, *host = NULL, *port = NULL;
    bool ok = !curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) &&
              !curl_url_get(u, CURLUPART_HOST, &host, 0) &&
              !curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) &&
              (!strcasecmp(scheme, "http") || !strcasecmp(scheme, "https")) &&
              strlen(host) < sizeof o->host;
    if (ok) {
        strcpy(o->scheme, strcasecmp(scheme, "http") ? "https" : "http");
        strcpy(o->host, host);
        o->port = strtol(port, NULL, 10);
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    return ok;
}

static bool same_origin(const struct origin *a, const struct origin *b)
{
    return !strcmp(a->scheme, b->scheme) && !strcasecmp(a->host, b->host) &&
           a->port == b->port;
}

static int open_endpoint(struct hub_net *n, struct runt_err *err)
{
    const char *v = getenv("HF_ENDPOINT");
    if (!v || !*v)
        v = "https://huggingface.co";
    size_t len = strlen(v);
    while (len && v[len - 1] == '/')
        len--;
    n->endpoint = mem_strndup(v, len);
    CURLU *u = curl_url();
    int rc = 0;
    if (!n->endpoint || !u)
        rc = err_nomem(err, "an address");
    else if (len > URL_MAX / 2 || curl_url_set(u, CURLUPART_URL, n->endpoint, 0) ||
             !parse_origin(u, &n->origin))
        rc = err_set(err, RUNT_E_INVALID,
                     "HF_ENDPOINT is not an http:// or https:// address");
    curl_url_cleanup(u);
    return rc;
}

/* A token is one word of printable ASCII: anything else could add header lines. */
static int take_token(struct hub_net *n, const char *text, const char *from,
                      struct runt_err *err)
{
    text += strspn(text, " \t\r\n");
    size_t len = strlen(text);
    while (len && strchr(" \t\r\n", text[len - 1]))
        len--;
    if (!len)
        return 0;
    for (size_t i = 0; i < len; i++)
        if (len > TOKEN_MAX || text[i] < 0x21 || text[i] > 0x7e)
            return err_set(err, RUNT_E_INVALID, "%s does not hold a token (one word)",
                           from);
    n->token = mem_strndup(text, len);
    n->token_from = from;
    return n->token ? 0 : err_nomem(err, "the token");
}

static int read_token(struct hub_net *n, struct runt_err *err)
{
    const char *v = getenv("HF_TOKEN");
    int rc = v ? take_token(n, v, "HF_TOKEN", err) : 0;
    char *home = NULL, *path = NULL, *text = NULL;
    size_t size;
    if (rc || n->token || hub_home(&home, NULL))
        return rc;
    path = mem_printf("%s/token", home);
    if (!path)
        rc = err_nomem(err, "a path");
    else if (file_exists(path))
        rc = file_read_regular(path, TOKEN_MAX, &text, &size, err);
    if (!rc && text)
        rc = take_token(n, text, "the token file", err);
    mem_free(text);
    mem_free(path);
    mem_free(home);
    return rc;
}

static void init_curl(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

int hub_net_open(const struct hub_options *o, struct hub_net **out,
                 struct runt_err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_curl);
    struct hub_net *n = mem_zalloc(sizeof *n);
    if (!n)
        return err_nomem(err, "a connection");
    n->progress = o->progress;
    n->progress_ctx = o->progress_ctx;
    n->what = "";
    n->curl = curl_easy_init();
    int rc = n->curl ? open_endpoint(n, err) : err_nomem(err, "a connection");
    if (!rc)
        rc = read_token(n, err);
    if (rc)
        hub_net_close(n);
    else
        *out = n;
    return rc;
}

void hub_net_close(struct hub_net *n)
{
    if (!n)
        return;
    curl_easy_cleanup(n->curl);
    mem_free(n->endpoint);
    mem_free(n->token);
    mem_free(n);
}

static void put_escaped(struct strbuf *b, const char *s, bool keep_slash)
{
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
            (c >= 'a' && c <= 'z') || strchr("-._~", c) || (keep_slash && c == '/'))
            sb_char(b, (char)c);
        else
            sb_printf(b, "%%%02X", c);
    }
}

char *hub_net_url(const struct hub_net *n, const char *repo, const char *revision,
                  const char *file)
{
    struct strbuf b = {0};
    char *url = NULL;
    sb_printf(&b, "%s/", n->endpoint);
    put_escaped(&b, repo, true);
    sb_str(&b, "/resolve/");
    put_escaped(&b, revision, false);
    sb_char(&b, '/');
    put_escaped(&b, file, true);
    if (!b.failed)
        url = mem_strdup(b.data);
    sb_free(&b);
    return url;
}

/* ---- progress ---- */

void hub_net_subject(struct hub_net *n, const char *what, uint64_t total)
{
    n->what = what;
    n->done = 0;
    n->total = total;
}

int hub_net_tick(struct hub_net *n, uint64_t done, struct runt_err *err)
{
    n->done = done;
    if (n->progress && n->progress(n->progress_ctx, n->what, done, n->total))
        return err_set(err, RUNT_E_INTERRUPTED, "interrupted");
    return 0;
}

/* ---- one request, no redirects ---- */

struct headers { /* of the latest answer; text as sent, blanks around it removed */
    char commit[64], linked_etag[192], etag[192], linked_size[24], code[64], range[96];
    char location[URL_MAX];
};

struct call {
    struct hub_net *net;
    struct hub_reply *reply;
    struct headers h;
    size_t header_bytes;
    bool complete; /* all headers came */
    hub_body_fn body;
    void *body_ctx;
    int rc; /* a callback's failure; its line is in err */
    struct runt_err *err;
};

static const struct {
    const char *name;
    size_t offset, size;
} wanted[] = {
#define WANT(name, field)                                                         \
    {                                                                             \
        name, offsetof(struct headers, field), sizeof((struct headers *)0)->field \
    }
    WANT("X-Repo-Commit", commit),
    WANT("X-Linked-Etag", linked_etag),
    WANT("ETag", etag),
    WANT("X-Linked-Size", linked_size),
    WANT("X-Error-Code", code),
    WANT("Content-Range", range),
    WANT("Location", location),
#undef WANT
};

/* Keep header i of `wanted`.  What is too long or not printable ASCII ends the
 * transfer: a name that was cut or doctored must not be used. */
static bool keep_header(struct call *c, size_t i, const char *value, size_t len)
{
    char *field = (char *)&c->h + wanted[i].offset;
    bool plain = true;
    for (size_t k = 0; k < len; k++)
        plain &= value[k] >= 0x20 && value[k] <= 0x7e;
    if (!plain || len >= wanted[i].size) {
        c->rc = err_set(c->err, RUNT_E_FORMAT, "%s sends a bad header %s (%zu bytes)",
                        c->reply->host, wanted[i].name, len);
        return false;
    }
    memcpy(field, value, len);
    field[len] = 0;
    return true;
}

static size_t on_header(char *p, size_t size, size_t n, void *ctx)
{
    struct call *c = ctx;
    (void)size;
    c->header_bytes += n;
    if (c->header_bytes > HEADERS_MAX) {
        c->rc = err_set(c->err, RUNT_E_FORMAT, "%s sends more than %d bytes of headers",
                        c->reply->host, HEADERS_MAX);
        return 0;
    }
    if (n >= 5 && !memcmp(p, "HTTP/", 5)) { /* after a 1xx there is another */
        c->h = (struct headers){0};
        c->complete = false;
        return n;
    }
    size_t len = n;
    while (len && strchr(" \t\r\n", p[len - 1]))
        len--;
    if (!len)
        c->complete = true;
    const char *colon = memchr(p, ':', len);
    if (!colon)
        return n;
    size_t name_len = (size_t)(colon - p), skip = name_len + 1;
    while (skip < len && (p[skip] == ' ' || p[skip] == '\t'))
        skip++;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (strlen(wanted[i].name) == name_len &&
            !strncasecmp(p, wanted[i].name, name_len) &&
            !keep_header(c, i, p + skip, len - skip))
            return 0;
    return n;
}

static bool is_body_status(long status)
{
    return status == 200 || status == 206;
}

static size_t on_body(char *p, size_t size, size_t n, void *ctx)
{
    struct call *c = ctx;
    (void)size;
    curl_easy_getinfo(c->net->curl, CURLINFO_RESPONSE_CODE, &c->reply->status);
    if (!c->body || !is_body_status(c->reply->status))
        return 0; /* an error page or a redirect's text: the headers say it all */
    memcpy(c->reply->range, c->h.range, sizeof c->h.range);
    c->rc = c->body(c->body_ctx, c->reply, p, n, c->err);
    return c->rc ? 0 : n;
}

static int on_progress(void *ctx, curl_off_t dl_total, curl_off_t dl,
                       curl_off_t ul_total, curl_off_t ul)
{
    struct call *c = ctx;
    (void)dl_total, (void)dl, (void)ul_total, (void)ul;
    if (!c->rc)
        c->rc = hub_net_tick(c->net, c->net->done, c->err);
    return c->rc != 0;
}

/* Writing to a connection that the peer closed raises SIGPIPE inside the TLS library;
 * a library must not end its program for that. */
static CURLcode perform(CURL *curl)
{
    sigset_t pipe_only, before, pending;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    sigpending(&pending);
    bool had = sigismember(&pending, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
    CURLcode code = curl_easy_perform(curl);
    sigpending(&pending);
    int sig;
    if (!had && sigismember(&pending, SIGPIPE))
        sigwait(&pipe_only, &sig);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

static bool may_pass(CURLcode code)
{
    switch (code) {
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return true;
    default:
        return false;
    }
}

static bool status_may_pass(long s)
{
    return s == 408 || s == 429 || s == 500 || s == 502 || s == 503 || s == 504;
}

static bool add_header(struct curl_slist **list, const char *line)
{
    struct curl_slist *l = line ? curl_slist_append(*list, line) : NULL;
    if (l)
        *list = l;
    return l != NULL;
}

static int make_headers(const struct call *c, uint64_t from, struct curl_slist **out)
{
    struct curl_slist *list = NULL;
    bool ok = add_header(&list, "Accept-Encoding: identity");
    if (ok && from) {
        char line[64];
        snprintf(line, sizeof line, "Range: bytes=%llu-", (unsigned long long)from);
        ok = add_header(&list, line);
    }
    if (ok && c->net->token && c->reply->at_endpoint) {
        char *line = mem_printf("Authorization: Bearer %s", c->net->token);
        ok = add_header(&list, line);
        mem_free(line);
    }
    if (!ok)
        curl_slist_free_all(list);
    else
        *out = list;
    return ok ? 0 : RUNT_E_NOMEM;
}

static void set_options(struct call *c, const char *url, struct curl_slist *headers,
                        bool head)
{
    CURL *h = c->net->curl;
    curl_easy_reset(h); /* keeps the connections */
    curl_easy_setopt(h, CURLOPT_URL, url);
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(h, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
#else
    curl_easy_setopt(h, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
    curl_easy_setopt(h, CURLOPT_REDIR_PROTOCOLS,
                     (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    curl_easy_setopt(h, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(h, CURLOPT_UNRESTRICTED_AUTH, 0L);
    curl_easy_setopt(h, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(h, CURLOPT_USERAGENT, "runt/" RUNT_VERSION);
    curl_easy_setopt(h, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    curl_easy_setopt(h, CURLOPT_LOW_SPEED_TIME, (long)STALL_S);
    curl_easy_setopt(h, CURLOPT_LOW_SPEED_LIMIT, (long)STALL_RATE);
    curl_easy_setopt(h, CURLOPT_ERRORBUFFER, c->net->errbuf);
    curl_easy_setopt(h, CURLOPT_NOBODY, (long)head);
    curl_easy_setopt(h, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(h, CURLOPT_HEADERDATA, c);
    curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(h, CURLOPT_WRITEDATA, c);
    curl_easy_setopt(h, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(h, CURLOPT_XFERINFODATA, c);
    curl_easy_setopt(h, CURLOPT_NOPROGRESS, 0L);
}

static int call_once(struct call *c, const char *url, uint64_t from, bool head)
{
    struct hub_net *n = c->net;
    struct hub_reply *r = c->reply;
    struct curl_slist *headers = NULL;
    curl_off_t wait = 0;
    c->header_bytes = 0;
    c->complete = false;
    c->h = (struct headers){0};
    n->errbuf[0] = 0;
    r->retry = false;
    r->status = 0;
    r->wait_s = 0;
    if (make_headers(c, from, &headers))
        return err_nomem(c->err, "a request");
    set_options(c, url, headers, head);
    CURLcode code = perform(n->curl);
    curl_easy_getinfo(n->curl, CURLINFO_RESPONSE_CODE, &r->status);
    curl_easy_getinfo(n->curl, CURLINFO_RETRY_AFTER, &wait);
    r->wait_s = wait;
    curl_slist_free_all(headers);
    if (c->rc)
        return c->rc;
    /* A whole header that is not followed by a body of ours is an answer, however the
     * rest of the transfer ended. */
    if (c->complete && (code == CURLE_OK || head || !is_body_status(r->status))) {
        r->retry = status_may_pass(r->status);
        return 0;
    }
    if (code == CURLE_OK)
        code = CURLE_GOT_NOTHING;
    r->retry = may_pass(code);
    n->errbuf[strcspn(n->errbuf, "\r\n")] = 0;
    return err_set(c->err, code == CURLE_OUT_OF_MEMORY ? RUNT_E_NOMEM : RUNT_E_NETWORK,
                   "%s: %.200s", r->host,
                   n->errbuf[0] ? n->errbuf : curl_easy_strerror(code));
}

/* ---- redirects ---- */

static int follow(struct call *c, CURLU *u, const struct origin *from,
                  struct origin *to)
{
    CURLUcode code =
        curl_url_set(u, CURLUPART_URL, c->h.location, CURLU_NON_SUPPORT_SCHEME);
    if (code || !parse_origin(u, to)) {
        int n = (int)strcspn(c->h.location, "?"); /* what follows may be a signature */
        return err_set(c->err, RUNT_E_FORMAT,
                       "%s redirects to '%.*s', which is not an http address: refused",
                       from->host, n < 100 ? n : 100, c->h.location);
    }
    if (!strcmp(from->scheme, "https") && strcmp(to->scheme, "https"))
        return err_set(c->err, RUNT_E_FORMAT,
                       "%s redirects from https to http on %s: refused", from->host,
                       to->host);
    return 0;
}

static bool is_redirect(long s)
{
    return s == 301 || s == 302 || s == 303 || s == 307 || s == 308;
}

static void copy_etag(char *to, const char *s)
{
    if (!strncmp(s, "W/", 2))
        s += 2;
    size_t n = strlen(s);
    if (n >= 2 && s[0] == '"' && s[n - 1] == '"') {
        s++;
        n -= 2;
    }
    memcpy(to, s, n);
    to[n] = 0;
}

static int64_t parse_size(const char *s)
{
    int64_t v = 0;
    for (; *s >= '0' && *s <= '9' && v < INT64_MAX / 20; s++)
        v = v * 10 + (*s - '0');
    return *s ? -1 : v;
}

/* What one hop of a HEAD says of the file.  A hop that names the content
 * (X-Linked-Etag) outranks the plain ETag of the next one; on a plain redirect ETag and
 * Content-Length describe the redirect's own text, but then nothing better may follow.
 */
static void merge(struct hub_reply *r, const struct headers *h, CURL *curl,
                  bool *linked)
{
    if (h->commit[0])
        memcpy(r->commit, h->commit, sizeof r->commit);
    if (h->linked_etag[0]) {
        copy_etag(r->etag, h->linked_etag);
        *linked = true;
    } else if (!*linked) {
        copy_etag(r->etag, h->etag);
    }
    curl_off_t length = -1;
    if (h->linked_size[0])
        r->size = parse_size(h->linked_size);
    else if (r->status == 200 && r->size < 0 &&
             !curl_easy_getinfo(curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length))
        r->size = length;
    memcpy(r->code, h->code, sizeof r->code);
}

static int request(struct hub_net *n, const char *url, bool head, uint64_t from,
                   hub_body_fn body, void *ctx, struct hub_reply *out,
                   struct runt_err *err)
{
    struct hub_reply r = {.size = -1};
    struct call *c = mem_zalloc(sizeof *c);
    CURLU *u = curl_url();
    struct origin at = n->origin, next;
    bool linked = false;
    char *where = NULL;
    int rc = 0;
    if (!c || !u || curl_url_set(u, CURLUPART_URL, url, 0)) {
        rc = err_nomem(err, "a request");
        goto out;
    }
    *c =
        (struct call){.net = n, .reply = &r, .body = body, .body_ctx = ctx, .err = err};
    for (unsigned hop = 0;; hop++) {
        r.at_endpoint = same_origin(&at, &n->origin);
        memcpy(r.host, at.host, sizeof r.host);
        curl_free(where);
        where = NULL;
        if (curl_url_get(u, CURLUPART_URL, &where, 0)) {
            rc = err_nomem(err, "a request");
            goto out;
        }
        rc = call_once(c, where, from, head);
        if (rc)
            goto out;
        merge(&r, &c->h, n->curl, &linked);
        if (!is_redirect(r.status) || !c->h.location[0])
            goto out;
        if (hop == REDIRECTS_MAX) {
            rc = err_set(err, RUNT_E_NETWORK, "%s: more than %d redirects", at.host,
                         REDIRECTS_MAX);
            goto out;
        }
        rc = follow(c, u, &at, &next);
        if (rc)
            goto out;
        if (head && !same_origin(&next, &n->origin) && r.commit[0] && r.etag[0]) {
            r.status = 200;
            goto out;
        }
        at = next;
    }
out:
    *out = r;
    curl_free(where);
    curl_url_cleanup(u);
    mem_free(c);
    return rc;
}

int hub_net_head(struct hub_net *n, const char *url, struct hub_reply *r,
                 struct runt_err *err)
{
    return request(n, url, true, 0, NULL, NULL, r, err);
}

int hub_net_get(struct hub_net *n, const char *url, uint64_t from, hub_body_fn body,
                void *ctx, struct hub_reply *r, struct runt_err *err)
{
    return request(n, url, false, from, body, ctx, r, err);
}

/* ---- failures ---- */

int hub_net_status(const struct hub_net *n, const struct hub_reply *r,
                   const struct hub_what *w, struct runt_err *err)
{
    long s = r->status;
    if ((s == 401 || s == 403) && r->at_endpoint) {
        if (n->token)
            return err_set(
                err, RUNT_E_NETWORK,
                "%s: %s refused the token of %s (status %ld): it is wrong, or "
                "may not read this model (private, gated, or not there)",
                w->repo, r->host, n->token_from, s);
        return err_set(
            err, RUNT_E_NETWORK,
            "%s: private or gated, or not there (%s, status %ld); set HF_TOKEN "
            "to a token that may read it",
            w->repo, r->host, s);
    }
    if (s == 404 && r->at_endpoint) {
        if (!strcmp(r->code, "RepoNotFound"))
            return err_set(err, RUNT_E_NOTFOUND, "%s: no such model at %s", w->repo,
                           r->host);
        if (!strcmp(r->code, "RevisionNotFound"))
            return err_set(err, RUNT_E_NOTFOUND, "%s: no revision '%s' at %s", w->repo,
                           w->revision, r->host);
        if (!strcmp(r->code, "EntryNotFound"))
            return err_set(err, RUNT_E_NOTFOUND, "%s: no file '%s' in revision %s",
                           w->repo, w->file, w->revision);
        return err_set(err, RUNT_E_NOTFOUND,
                       "%s: no such model, revision '%s' or file '%s' at %s", w->repo,
                       w->revision, w->file, r->host);
    }
    return err_set(err, RUNT_E_NETWORK, "%s: %s answered status %ld for %s", w->repo,
                   r->host, s, w->file);
}

int hub_net_again(struct hub_net *n, const struct hub_reply *r, unsigned *n_failed,
                  struct runt_err *err)
{
    if (!r->retry || err->code == RUNT_E_INTERRUPTED)
        return err->code;
    struct runt_err old = *err;
    if (++*n_failed >= TRIES)
        return err_set(err, old.code, "%s; gave up after %d tries", old.msg, TRIES);
    if (r->wait_s > RETRY_AFTER_MAX_S)
        return err_set(err, old.code, "%s; it asks to wait %lld s", old.msg,
                       (long long)r->wait_s);
    int64_t ms = (int64_t)WAIT_MS << (*n_failed - 1);
    if (r->wait_s * 1000 > ms)
        ms = r->wait_s * 1000;
    for (; ms > 0; ms -= 50) {
        struct timespec t = {0, 50 * 1000 * 1000};
        int rc = hub_net_tick(n, n->done, err);
        if (rc)
            return rc;
        nanosleep(&t, NULL);
    }
    return 0;
}
