/* A net's weights by their place in the model. */
#ifndef RUNT_TRAIN_NET_NAMES_H
#define RUNT_TRAIN_NET_NAMES_H

#include "train/net.h"

/* Of a block, in this order; a matrix is followed by its bias. */
enum net_place {
    NORM1,
    NORM1_BIAS,
    QKV,
    QKV_BIAS,
    OUT,
    OUT_BIAS,
    NORM2,
    NORM2_BIAS,
    UP,
    UP_BIAS,
    DOWN,
    DOWN_BIAS,
    BLOCK_PARAMS
};

/* NULL where the model has none of that name. */
const struct net_param *net_named(const struct net *n, const char *name);
const struct net_param *net_in_block(const struct net *n, uint32_t layer,
                                     enum net_place place);
/* The matrix that makes logits. */
const struct net_param *net_table(const struct net *n);

/* The lowest block that the backward pass must reach (n_layer: none), and whether it
 * goes on to the embeddings. */
uint32_t net_lowest(const struct net *n, bool *embeddings);

#endif
