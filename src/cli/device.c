/* Owns the choice of a device. */
#include "cli/device.h"

#include "base/err.h"

#include <stdio.h>
#include <string.h>

int device_parse(const struct cli_verb *v, const char *name, enum device_choice *out)
{
    static const char *const names[] = {"auto", "cpu", "cuda"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(name, names[i])) {
            *out = (enum device_choice)i;
            return 0;
        }
    return cli_misuse(v, "unknown device '%s'; auto, cpu or cuda", name);
}

int device_open(enum device_choice choice, enum gemm_type type, struct net_device **out,
                char *why, size_t size, struct runt_err *err)
{
    *out = NULL;
    *why = 0;
    if (choice == DEVICE_CPU)
        return 0;
    struct runt_err no_gpu;
    int rc = net_cuda_open(type, out, &no_gpu);
    if (!rc)
        return 0;
    if (choice == DEVICE_CUDA)
        return err_set(err, rc, "--device cuda: %s", no_gpu.msg);
    if (net_cuda_built())
        snprintf(why, size, "%s", no_gpu.msg);
    return 0;
}

void device_close(struct net_device *d)
{
    if (d)
        d->close(d);
}
