/* What the files of a net share. */
#ifndef RUNT_TRAIN_NET_IMPL_H
#define RUNT_TRAIN_NET_IMPL_H

#include "train/net.h"

#include <regex.h>

/* A POSIX extended expression; RUNT_E_INVALID says what is wrong with it. */
int net_pattern(const char *pattern, regex_t *out, struct runt_err *err);

/* ---- adapters (net_lora.c); the last two do nothing without any ---- */

/* Freeze the model's own weights and describe a and b of every matrix that is adapted,
 * behind them.  Errors as of net_create. */
int net_lora_describe(struct net *n, struct runt_err *err);
/* The adapters' first numbers. */
void net_lora_begin(struct net *n);
/* w [n_rows][in], rows from `row` of p, with p's adapter merged in. */
void net_lora_merge(const struct net *n, size_t p, uint64_t row, uint64_t n_rows,
                    float *w);

#endif
