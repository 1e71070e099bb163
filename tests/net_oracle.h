/* A training step against the project's own oracle (tests/data/train_oracle.json, made
 * by tools/gen_train_oracle.py in double precision), wherever the net works. */
#ifndef TESTS_NET_ORACLE_H
#define TESTS_NET_ORACLE_H

#include "import/import.h"
#include "net_fixture.h"

/* How far from a double's result a float's may be: of the loss, of a gradient's largest
 * element.  Sums of 15 numbers in bfloat16 leave more than those of 128. */
struct tolerance {
    double loss, gradient;
};
extern const struct tolerance exact, coarse, coarse_and_odd;

void oracle_near(const char *what, double got, double want, double tolerance);
double oracle_number(const json_t *o, const char *key);

/* The gradients as they are; the loss and the gradients of a batch; losses, norms and
 * weights of some steps of AdamW. */
void oracle_gradients(const struct net *n, const json_t *want, double tolerance);
void oracle_step(struct net *n, const struct tokens *t, const json_t *want,
                 struct tolerance tolerance);
void oracle_adamw(struct net *n, const struct tokens *t, const json_t *want,
                  double tolerance);

/* tests/data/mini, or tiny-gpt2 in a folder of test data (NULL: the first); `batch`
 * NULL: the oracle's. */
struct bundle {
    json_t *all, *oracle;
    struct hf_checkpoint *checkpoint;
    struct tokens tokens;
    struct net *net;
};

struct bundle bundle_open(struct net_options o, const char *folder,
                          const json_t *batch);
void bundle_close(struct bundle *t);

/* One of odd sizes, its weights are the oracle's. */
struct odd {
    json_t *all, *oracle;
    struct gpt2_shape shape;
    struct net_weights *weights;
    struct tokens tokens;
};

struct odd odd_open(void);
struct net *odd_net(const struct odd *o, struct net_options options);
void odd_close(struct odd *o);
/* On it: batches of different sizes, each with a weight of its own, one after another.
 */
void oracle_several(struct net_options o);

#endif
