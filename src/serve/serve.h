/* An HTTP server that answers as the OpenAI API does. */
#ifndef RUNT_SERVE_H
#define RUNT_SERVE_H

#include "runt/runt.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct serve_model {
    const char *name;
    runt_model *model; /* the server's from serve_run on */
};

struct serve_options {
    struct serve_model *models; /* [n_models], the first answers where none is named */
    size_t n_models;
    const runt_template *chat;           /* NULL: each file's own */
    struct runt_sampler_options sampler; /* where a request is silent, */
    bool seeded;                         /*   its seed, too */
    uint32_t n_ctx, n_threads, n_seqs;   /* 0: the model's, every core, by memory */
    enum runt_kv kv;

    const char *host;        /* a name or an address */
    uint16_t port;           /* 0: any that is free */
    const char *const *keys; /* [n_keys]; none: everybody may ask */
    size_t n_keys;
    const char *const *origins; /* [n_origins] of pages that may ask; "*": all */
    size_t n_origins;

    size_t max_waiting; /* answers that wait for a place */
    size_t max_body;    /* bytes of a request's body */
    size_t max_connections;
    double request_seconds; /* from a request's last byte to its answer's */
    double read_seconds;    /* from its first byte to its last */
    double idle_seconds;    /* without a request, or without reading an answer */
    double drain_seconds;   /* for what runs when the server is to stop */
    bool log_bodies;        /* the texts of requests go to the log, too */

    /* All called from serve_run's thread. */
    void (*ready)(void *ctx, const char *url); /* it listens */
    void (*log)(void *ctx, const char *line);  /* a JSON object, no newline */
    int (*stopping)(void *ctx); /* 0: go on, 1: finish what runs, 2: end at once */
    void *ctx;
};
struct serve_options serve_defaults(void);

/* Serve until `stopping`.  Errors: RUNT_E_IO (the port), RUNT_E_NOMEM,
 * RUNT_E_UNSUPPORTED (built without libmicrohttpd). */
int serve_run(const struct serve_options *o, struct runt_err *err);

#endif
