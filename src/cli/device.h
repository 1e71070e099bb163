/* --device: where training and evaluation work. */
#ifndef RUNT_CLI_DEVICE_H
#define RUNT_CLI_DEVICE_H

#include "cli/cli.h"
#include "train/net_device.h"

enum device_choice { DEVICE_AUTO, DEVICE_CPU, DEVICE_CUDA };

#define DEVICE_OPTION(name, what)                                            \
    {                                                                        \
        "--device", NULL, CLI_STR, &(name), "NAME cpu cuda auto", what, 0, 0 \
    }

/* Prints what is wrong and returns EXIT_USAGE, or 0. */
int device_parse(const struct cli_verb *v, const char *name, enum device_choice *out);
/* *out: a GPU, or NULL for the processor: with DEVICE_AUTO, where no GPU works, and
 * then why [>= 1] says the reason, or is empty where this build knows of no GPUs.  Free
 * with device_close. */
int device_open(enum device_choice choice, enum gemm_type type, struct net_device **out,
                char *why, size_t size, struct runt_err *err);
void device_close(struct net_device *d); /* NULL is fine */

#endif
