/* Any bytes as a kept calibration: what is accepted has matrices of finite size that
 * can be read whole. */
#include "quant/calib.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct runt_err err;
    struct calib c;
    char path[64];
    int fd = memfd_create("calib", 0);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (!calib_load(path, &c, &err)) {
        float sum = 0;
        if (!c.n_moments || c.n_tokens > c.n_wanted)
            abort();
        for (size_t i = 0; i < c.n_moments; i++)
            for (size_t r = 0; r < c.moments[i].n; r++)
                for (size_t k = 0; k <= r; k++)
                    sum += c.moments[i].h[r * c.moments[i].n + k];
        float volatile kept = sum; /* so that the reads are not dropped */
        (void)kept;
        calib_free(&c);
    }
    close(fd);
    return 0;
}
