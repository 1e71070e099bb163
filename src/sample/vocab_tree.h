/* The tokens of a vocabulary by their bytes. */
#ifndef RUNT_SAMPLE_VOCAB_TREE_H
#define RUNT_SAMPLE_VOCAB_TREE_H

#include "sample/sample.h"

/* A byte behind `depth` others; the tokens that end with it. */
struct tree_node {
    uint32_t skip;     /* the first node that is not behind this one */
    uint32_t first_id; /* into ids; up to that of the next node */
    uint32_t depth;
    uint8_t byte;
};

struct vocab_tree {
    size_t n_vocab;
    struct tree_node *nodes; /* [n_nodes + 1], in the order of a walk */
    size_t n_nodes, depth;   /* bytes of the longest token */
    int32_t *ids;
    int32_t *ends; /* tokens that end a text */
    size_t n_ends;
};

#endif
