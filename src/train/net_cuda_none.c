/* Stands where a build has no CUDA. */
#include "train/net_device.h"

#include "base/err.h"

bool net_cuda_built(void)
{
    return false;
}

int net_cuda_open(enum gemm_type type, struct net_device **out, struct runt_err *err)
{
    (void)type;
    (void)out;
    return err_set(err, RUNT_E_UNSUPPORTED,
                   "this program was built without CUDA (-Dcuda=enabled)");
}

int net_cuda_gradients(const struct net *n, float *g, struct runt_err *err)
{
    (void)n;
    (void)g;
    return err_set(err, RUNT_E_UNSUPPORTED, "this program was built without CUDA");
}
