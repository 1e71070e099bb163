/* An emulation of what the CUDA backend needs of a GPU, on the processor:
 * src/back/cuda_*.cu are compiled as they are against the headers beside this file.
 *
 * A kernel's threads are coroutines, so barriers and warps' exchanges work; blocks run
 * one after another.  The kernels are compiled with -fsanitize=thread,alignment,bounds,
 * and emu_memory.cc has the functions that this calls, at every access to memory among
 * others, instead of the sanitizers'.  So it is noticed, when it happens first, that
 *
 *   - two threads of a launch touch the same memory, one of them writing, and nothing
 *     orders that: no barrier of their block, no __syncwarp of their warp;
 *   - memory is read that nobody wrote, or touched outside what was allocated, on the
 *     device, in shared memory or by a library's product;
 *   - numbers that are read together are not aligned, an array's index is beyond it;
 *   - a kernel touches the host's memory, or the host the device's;
 *   - threads wait for each other for ever, or end while others wait for them.
 *
 * What it cannot show: speed, and how a GPU rounds where it may choose. */
#ifndef TESTS_EMU_H
#define TESTS_EMU_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* In which order blocks, and a block's threads between barriers, run. */
enum emu_order { EMU_UP, EMU_DOWN, EMU_MIXED, EMU_ORDERS };
void emu_set_order(enum emu_order order);

/* The n-th call from now on (0: the next) of "malloc", "launch", "copy" or "product"
 * fails; n < 0: none does.  After a failed launch all calls fail, as on a lost device.
 */
void emu_fail(const char *what, long n);
/* As a machine without a GPU; with one whose compute capability is 7.5; as usual. */
enum emu_gpu { EMU_GPU, EMU_OLD_GPU, EMU_NO_GPU };
void emu_set_gpu(enum emu_gpu gpu);
void emu_set_memory(size_t bytes); /* of the device; 0: as usual */

/* What was noticed first, or NULL; forgets it. */
const char *emu_trouble(void);
size_t emu_live(void);     /* allocations that were not freed */
size_t emu_bytes(void);    /* of them */
size_t emu_launches(void); /* so far */

/* Of the environment, for a whole program: RUNT_EMU_ORDER (0..2), RUNT_EMU_FAIL
 * (launch:100), RUNT_EMU_GPU (0..2), RUNT_EMU_MEMORY (bytes; few leave no room for
 * cuda_peak's products, which take minutes).  A program that ends with trouble says so
 * on standard error and ends with status 99. */

#ifdef __cplusplus
}
#endif
#endif
