/* Training steps on an emulated GPU (emu/emu.h) against the oracle and against this
 * processor's; what is kept, cut, frozen, stopped; and what fails. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "emu.h"
#include "net_oracle.h"
#include "train/net_device.h"
#include "train/optim.h"

#include <math.h>
#include <string.h>

static struct net_device *device_of(enum gemm_type type)
{
    struct net_device *d = NULL;
    struct runt_err err;
    if (net_cuda_open(type, &d, &err))
        fail_msg("%s", err.msg);
    return d;
}

static void device_done(struct net_device *d)
{
    d->close(d);
    const char *trouble = emu_trouble();
    if (trouble)
        fail_msg("%s", trouble);
    assert_int_equal(emu_live(), 0);
}

/* ---- the oracle ---- */

static void the_bundled_model(void **state)
{
    (void)state;
    for (int type = GEMM_F32; type <= GEMM_BF16; type++) {
        struct net_device *d = device_of((enum gemm_type)type);
        struct tiny t = tiny_open(
            (struct net_options){.type = (enum gemm_type)type, .device = d}, NULL);
        oracle_step(t.net, &t.tokens, t.oracle, type == GEMM_F32 ? exact : coarse);
        tiny_close(&t);
        device_done(d);
    }
}

static void the_odd_model(void **state)
{
    (void)state;
    for (int type = GEMM_F32; type <= GEMM_BF16; type++) {
        struct net_device *d = device_of((enum gemm_type)type);
        struct odd o = odd_open();
        struct net *n =
            odd_net(&o, (struct net_options){.type = (enum gemm_type)type, .device = d});
        oracle_step(n, &o.tokens, o.oracle, type == GEMM_F32 ? exact : coarse_and_odd);
        net_unmade(n);
        odd_close(&o);
        device_done(d);
    }
}

static void several_batches_add_up(void **state)
{
    (void)state;
    struct net_device *d = device_of(GEMM_F32);
    oracle_several((struct net_options){.type = GEMM_F32, .device = d});
    device_done(d);
}

static void adamw_on_the_odd_model(void **state)
{
    (void)state;
    struct net_device *d = device_of(GEMM_F32);
    struct odd o = odd_open();
    struct net *n = odd_net(&o, (struct net_options){.type = GEMM_F32, .device = d});
    oracle_adamw(n, &o.tokens, json_object_get(o.oracle, "adamw"), 1e-4);
    net_unmade(n);
    odd_close(&o);
    device_done(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bundled_model),
        cmocka_unit_test(the_odd_model),
        cmocka_unit_test(several_batches_add_up),
        cmocka_unit_test(adamw_on_the_odd_model),
    };
    return cmocka_run_group_tests_name("cuda_net", tests, NULL, NULL);
}
