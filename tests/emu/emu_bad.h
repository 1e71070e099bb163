/* Kernels that do what is forbidden, for test_emu.c: what is wrong with each is in its
 * name.  They work on an array of 64 floats in two blocks of 64 threads. */
#ifndef EMU_BAD_H
#define EMU_BAD_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

enum bad {
    BAD_NOTHING,
    BAD_NOTHING_BY_WARPS,
    BAD_BLOCKS_WRITE_THE_SAME,
    BAD_BLOCK_READS_WHAT_ANOTHER_WROTE,
    BAD_NO_BARRIER_BEHIND_WRITES,
    BAD_NO_BARRIER_BEHIND_READS,
    BAD_SYNCWARP_FOR_A_BLOCK,
    BAD_SHUFFLE_FOR_A_BARRIER,
    BAD_HALVES_AND_WHOLE,
    BAD_READS_SHARED_UNWRITTEN,
    BAD_READS_UNWRITTEN,
    BAD_WRITES_BEYOND,
    BAD_READS_BEFORE,
    BAD_BEYOND_SHARED,
    BAD_BEYOND_ITS_ARRAY,
    BAD_NOT_ALIGNED,
    BAD_HOST_MEMORY,
    BAD_ENDS_BEFORE_A_BARRIER,
    BAD_DIFFERENT_PLACES,
    BAD_LANES_MISSING,
    BAD_LAUNCH_TOO_MUCH_SHARED,
    BAD_HOST_READS_DEVICE,
    BAD_COPY_BEYOND,
    BAD_COPY_UNWRITTEN,
    BAD_COPY_WRONG_WAY,
    BAD_FREES_TWICE,
    BAD_TRANSPOSED_STEP,
    BAD_MISALIGNED_SQUARE,
    BAD_KERNELS
};
/* True when the launch went through. */
bool emu_bad(enum bad which);

#ifdef __cplusplus
}
#endif
#endif
