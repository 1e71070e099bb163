/* What the tests of training share: weights from JSON or at random, batches, nets. */
#ifndef TESTS_NET_FIXTURE_H
#define TESTS_NET_FIXTURE_H

#include "train/net.h"

#include <jansson.h>

/* Skips the test, and says why, where no library for products is installed. */
void net_need_library(void);

/* A file under the sources (RUNT_SOURCE_ROOT) or under another folder. */
json_t *net_json(const char *folder, const char *name);
const char *net_source_root(void);

/* ---- weights ---- */

struct net_weights {
    struct tensor_source source; /* first: rows() gets its address */
    struct tensor_desc *descs;
    const json_t *json; /* {NAME: [numbers]}, or NULL: random ones */
};
/* `json` outlives them. */
struct net_weights *net_weights(const struct gpt2_shape *s, const json_t *json);
void net_weights_free(struct net_weights *w);

/* ---- batches ---- */

enum { MAX_TOKENS = 1024, MAX_SEQS = 4 };

struct tokens {
    size_t n_seqs, seq_len, n_targets;
    int32_t inputs[MAX_TOKENS], targets[MAX_TOKENS];
};
struct tokens tokens_of(const json_t *batch); /* {"inputs", "targets"} */
struct tokens tokens_random(size_t n_seqs, size_t seq_len, uint32_t n_vocab);
/* Mean loss and its gradient, no dropout. */
struct net_batch batch_of(const struct tokens *t);

/* ---- nets ---- */

/* With a pool of its own, which lives and dies with it. */
struct net *net_made(const struct net_options *o, unsigned n_threads,
                     const struct tensor_source *weights);
void net_unmade(struct net *n);

/* The gradients as they are, wherever the net works; mem_free'd. */
float *net_gradients(const struct net *n);
const struct net_param *net_find(const struct net *n, const char *name);
size_t net_size(const struct net_param *p);
double net_l2(const float *x, size_t n);
double net_largest(const float *x, size_t n);

#endif
