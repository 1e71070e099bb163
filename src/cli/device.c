/* Owns the choice of a device. */
#include "cli/device.h"

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
                struct runt_err *err)
{
    *out = NULL;
    if (choice == DEVICE_CPU)
        return 0;
    int rc = net_cuda_open(type, out, err);
    return choice == DEVICE_AUTO ? 0 : rc;
}

void device_close(struct net_device *d)
{
    if (d)
        d->close(d);
}
