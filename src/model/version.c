/* Owns what the library says of itself. */
#include "runt/runt.h"

int runt_abi_version(void)
{
    return RUNT_ABI_VERSION;
}

const char *runt_version(void)
{
    return RUNT_VERSION;
}
