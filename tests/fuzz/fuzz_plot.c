/* Any bytes as a training log: what is accepted has ascending steps. */
#include "report/plot.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct plot_run r;
    if (plot_parse((const char *)data, size, "log", &r, NULL))
        return 0;
    for (size_t i = 1; i < r.n; i++)
        if (r.steps[i - 1] >= r.steps[i])
            abort();
    plot_run_free(&r);
    return 0;
}
