/* Any bytes as a training log: what is accepted has ascending steps, and becomes a page
 * in which every place is a number. */
#include "report/plot.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The drawings and what the script reads. */
static void check_page(const struct plot_run *r)
{
    struct strbuf b = {0};
    if (plot_page("fuzz", r, 1, &b, NULL))
        abort();
    char *from = strstr(b.data, "<main"), *to = strstr(from, "</main>");
    *to = 0;
    if (strstr(from, "nan") || strstr(from, "inf") || !strstr(from, "<figure"))
        abort();
    sb_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct plot_run r;
    if (plot_parse((const char *)data, size, "log", &r, NULL))
        return 0;
    for (int s = 0; s < PLOT_N_SERIES; s++)
        for (size_t i = 1; i < r.curves[s].n; i++)
            if (r.curves[s].steps[i - 1] >= r.curves[s].steps[i])
                abort();
    check_page(&r);
    plot_run_free(&r);
    return 0;
}
