/* Owns /metrics: Prometheus' text format. */
#include "serve/server_impl.h"

static const unsigned statuses[N_STATUSES] = {200, 204, 400, 401, 403, 404,
                                              405, 408, 413, 415, 429, 431,
                                              499, 500, 501, 503, 504, 0};

static const double bounds[N_BUCKETS] = {0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                         1,    2.5,   5,    10,  30,   60};

static size_t index_of(unsigned status)
{
    size_t i = 0;
    while (statuses[i] && statuses[i] != status)
        i++;
    return i;
}

void metrics_count(struct server *s, const struct exchange *x)
{
    struct metrics *m = &s->metrics;
    unsigned status = x->gone && x->status < 400 ? 499 : x->status;
    m->requests[x->route][index_of(status)]++;
    if (!x->job || !x->reply.over || !(x->job->first > 0))
        return;
    double seconds = x->job->first - x->job->submitted;
    size_t i = 0;
    while (i < N_BUCKETS && seconds > bounds[i])
        i++;
    m->buckets[i]++;
    m->n_first++;
    m->first_seconds += seconds;
}

static void put(struct strbuf *b, const char *name, const char *type, const char *help,
                double value)
{
    sb_printf(b, "# HELP runt_%s %s\n# TYPE runt_%s %s\nrunt_%s %.15g\n", name, help,
              name, type, name, value);
}

static void put_engine(struct strbuf *b, const struct engine_figures *f)
{
    put(b, "prompt_tokens_total", "counter", "Tokens of prompts that were computed.",
        (double)f->n_prompt_tokens);
    put(b, "prompt_seconds_total", "counter", "Seconds spent on them.",
        f->prompt_seconds);
    put(b, "prompt_cached_tokens_total", "counter",
        "Tokens of prompts that were found computed.", (double)f->n_cached_tokens);
    put(b, "tokens_predicted_total", "counter", "Tokens drawn.",
        (double)f->n_drawn_tokens);
    put(b, "tokens_predicted_seconds_total", "counter", "Seconds spent on them.",
        f->drawn_seconds);
    put(b, "requests_processing", "gauge", "Answers that are being made.",
        (double)f->n_running);
    put(b, "requests_deferred", "gauge", "Answers that wait for a place.",
        (double)f->n_waiting);
    put(b, "requests_refused_total", "counter", "Requests that found the queue full.",
        (double)f->n_refused);
}

static void put_requests(struct strbuf *b, const struct metrics *m)
{
    sb_str(b, "# HELP runt_http_requests_total Requests by path and status.\n"
              "# TYPE runt_http_requests_total counter\n");
    for (int r = 0; r < N_ROUTES; r++)
        for (size_t i = 0; i < N_STATUSES; i++)
            if (m->requests[r][i])
                sb_printf(b,
                          "runt_http_requests_total{path=\"%s\",status=\"%u\"} %llu\n",
                          route_path((enum route)r), statuses[i],
                          (unsigned long long)m->requests[r][i]);
}

static void put_first(struct strbuf *b, const struct metrics *m)
{
    uint64_t n = 0;
    sb_str(b, "# HELP runt_time_to_first_token_seconds From a request to its first "
              "token.\n# TYPE runt_time_to_first_token_seconds histogram\n");
    for (size_t i = 0; i < N_BUCKETS; i++) {
        n += m->buckets[i];
        sb_printf(b, "runt_time_to_first_token_seconds_bucket{le=\"%g\"} %llu\n",
                  bounds[i], (unsigned long long)n);
    }
    sb_printf(b,
              "runt_time_to_first_token_seconds_bucket{le=\"+Inf\"} %llu\n"
              "runt_time_to_first_token_seconds_sum %.9g\n"
              "runt_time_to_first_token_seconds_count %llu\n",
              (unsigned long long)m->n_first, m->first_seconds,
              (unsigned long long)m->n_first);
}

void metrics_put(struct server *s, struct strbuf *b)
{
    struct engine_figures f;
    engine_figures(s->engine, &f);
    sb_printf(b,
              "# HELP runt_build_info What is running.\n# TYPE runt_build_info gauge\n"
              "runt_build_info{version=\"%s\",abi=\"%d\"} 1\n",
              runt_version(), runt_abi_version());
    put_engine(b, &f);
    put(b, "connections", "gauge", "Open connections.", (double)s->n_connections);
    put_requests(b, &s->metrics);
    put_first(b, &s->metrics);
}
