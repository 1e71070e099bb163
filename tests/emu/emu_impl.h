/* What the emulation's files share. */
#ifndef EMU_IMPL_H
#define EMU_IMPL_H

#include "emu.h"

#include <cuda_runtime.h>

#include <stdarg.h>

/* Keep what was noticed, if it is the first. */
void emu_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The n-th call is to fail? */
enum emu_call_kind { EMU_MALLOC, EMU_LAUNCH, EMU_COPY, EMU_PRODUCT, EMU_CALLS };
bool emu_fails(enum emu_call_kind kind);
bool emu_lost(void); /* the device */

/* ---- memory (emu_memory.cc) ---- */

/* Who is at work: a thread of a kernel; none outside launches. */
struct emu_who {
    bool in_kernel;
    uint64_t launch, block;
    uintptr_t stack, stack_end; /* its own memory */
    uintptr_t args, args_end;
};
extern struct emu_who emu_who;
/* That thread, behind so many barriers of its block, and of its warp since then. */
void emu_at_work(uint64_t thread, uint64_t epoch, uint64_t warp_epoch);

/* The library's own use of device memory: inside one allocation, and written before. */
bool emu_use(const void *p, size_t bytes, bool write, const char *what);
bool emu_is_device(const void *p);
void emu_new_launch(size_t shared_bytes);
void emu_new_block(size_t shared_bytes);

#endif
