/* Owns the names of a net's weights. */
#include "train/net_names.h"

#include <stdio.h>
#include <string.h>

static const char *const names[BLOCK_PARAMS] = {
    "attn_norm.weight",   "attn_norm.bias",   "attn_qkv.weight", "attn_qkv.bias",
    "attn_output.weight", "attn_output.bias", "ffn_norm.weight", "ffn_norm.bias",
    "ffn_up.weight",      "ffn_up.bias",      "ffn_down.weight", "ffn_down.bias"};

const struct net_param *net_named(const struct net *n, const char *name)
{
    for (size_t p = 0; p < n->n_own; p++)
        if (!strcmp(n->params[p].desc.name, name))
            return &n->params[p];
    return NULL;
}

const struct net_param *net_in_block(const struct net *n, uint32_t layer,
                                     enum net_place place)
{
    char name[TENSOR_NAME_MAX];
    snprintf(name, sizeof name, "blk.%u.%s", layer, names[place]);
    return net_named(n, name);
}

const struct net_param *net_table(const struct net *n)
{
    return net_named(n, n->shape.tied ? "token_embd.weight" : "output.weight");
}

uint32_t net_lowest(const struct net *n, bool *embeddings)
{
    size_t from, to;
    uint32_t layer = 0;
    const struct net_param *table = net_named(n, "token_embd.weight");
    *embeddings =
        !table->frozen || table->lora || !net_named(n, "position_embd.weight")->frozen;
    while (!*embeddings && layer < n->shape.n_layer && !net_range(n, layer, &from, &to))
        layer++;
    return layer;
}
