/* Owns the emulated device's memory, and what is watched at every access to it: the
 * functions that -fsanitize=thread calls. */
#include "emu_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Two bytes are the smallest that a kernel reads or writes. */
enum { GRAIN = 2 };

/* An access: launch 16 bits, block 19, thread 10, barriers of the block 13, of the warp
 * 6.  0: none. */
typedef uint64_t record;
struct cell {
    record write, read[2]; /* two different readers, of two warps where there are */
};

static const size_t ARENA = (size_t)768 << 20, USUAL_MEMORY = (size_t)320 << 20;
enum { SHARED = 128 << 10, GUARD = 512 };
enum state : uint8_t { NOBODYS, EMPTY, WRITTEN };

static unsigned char *arena;
static struct cell *cells; /* [ARENA / GRAIN] */
static enum state *states; /* [ARENA / GRAIN] */
static size_t used, live, live_bytes, memory = USUAL_MEMORY;

extern "C" {
unsigned char block_memory[SHARED] __attribute__((aligned(128)));
}
static struct cell shared_cells[SHARED / GRAIN];
static size_t shared_bytes;

struct emu_who emu_who;

static void *reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        perror("emulated device memory");
        abort();
    }
    return p;
}

static void open_arena()
{
    if (arena)
        return;
    arena = (unsigned char *)reserve(ARENA);
    cells = (struct cell *)reserve(ARENA / GRAIN * sizeof *cells);
    states = (enum state *)reserve(ARENA / GRAIN);
}

/* ---- allocations ---- */

struct block {
    size_t at, bytes;
    bool live;
};
static struct block blocks[1 << 14];
static size_t n_blocks;

void emu_set_memory(size_t bytes)
{
    memory = bytes ? bytes : USUAL_MEMORY;
}

size_t emu_live(void)
{
    return live;
}

extern "C" cudaError_t cudaMemGetInfo(size_t *is_free, size_t *total)
{
    *is_free = memory - live_bytes;
    *total = memory;
    return emu_lost() ? cudaErrorLaunchFailure : cudaSuccess;
}

extern "C" cudaError_t cudaMalloc(void **p, size_t bytes)
{
    open_arena();
    size_t room = (bytes + GUARD - 1) / GUARD * GUARD + GUARD;
    if (emu_lost())
        return cudaErrorLaunchFailure;
    if (emu_fails(EMU_MALLOC) || live_bytes + bytes > memory || used + room > ARENA ||
        n_blocks == sizeof blocks / sizeof *blocks)
        return cudaErrorMemoryAllocation;
    blocks[n_blocks++] = {used, bytes, true};
    memset(arena + used, 0xff, bytes);
    memset(states + used / GRAIN, EMPTY, (bytes + GRAIN - 1) / GRAIN);
    memset((void *)(cells + used / GRAIN), 0, bytes / GRAIN * sizeof *cells);
    *p = arena + used;
    used += room;
    live++;
    live_bytes += bytes;
    return cudaSuccess;
}

extern "C" cudaError_t cudaFree(void *p)
{
    size_t at = (size_t)((unsigned char *)p - arena), i = 0;
    while (i < n_blocks && !(blocks[i].live && blocks[i].at == at))
        i++;
    if (i == n_blocks) {
        emu_note("memory is freed that was not allocated");
        return cudaErrorInvalidValue;
    }
    memset(states + at / GRAIN, NOBODYS, (blocks[i].bytes + GRAIN - 1) / GRAIN);
    blocks[i].live = false;
    live_bytes -= blocks[i].bytes;
    if (!--live)
        used = n_blocks = 0;
    return emu_lost() ? cudaErrorLaunchFailure : cudaSuccess;
}

bool emu_is_device(const void *p)
{
    return arena && (const unsigned char *)p >= arena &&
           (const unsigned char *)p < arena + ARENA;
}

bool emu_use(const void *p, size_t bytes, bool write, const char *what)
{
    size_t at = (size_t)((const unsigned char *)p - arena);
    if (!bytes)
        return true;
    if (!emu_is_device(p) || at % GRAIN ||
        !emu_is_device((const char *)p + bytes - 1)) {
        emu_note("%s: not the device's memory", what);
        return false;
    }
    for (size_t i = at / GRAIN; i < (at + bytes + GRAIN - 1) / GRAIN; i++) {
        if (states[i] == NOBODYS) {
            emu_note("%s: %zu bytes go beyond what was allocated", what, bytes);
            return false;
        }
        if (write)
            states[i] = WRITTEN;
        else if (states[i] == EMPTY) {
            emu_note("%s: reads what nobody wrote", what);
            return true;
        }
    }
    return true;
}

void emu_new_launch(size_t shared)
{
    shared_bytes = shared;
    if (++emu_who.launch < 1 << 16)
        return;
    emu_who.launch = 1;
    memset((void *)cells, 0, used / GRAIN * sizeof *cells);
    memset((void *)shared_cells, 0, sizeof shared_cells);
}

void emu_new_block(size_t shared)
{
    memset(block_memory, 0xff, shared);
}

/* ---- what is watched ---- */

static inline record now()
{
    uint64_t epoch = emu_who.epoch < 8191 ? emu_who.epoch : 8191;
    uint64_t warp_epoch = emu_who.warp_epoch < 63 ? emu_who.warp_epoch : 63;
    return emu_who.launch << 48 | emu_who.block << 29 | emu_who.thread << 19 |
           epoch << 6 | warp_epoch;
}

static inline unsigned thread_of(record r)
{
    return r >> 19 & 1023;
}

/* Two accesses of one launch that nothing orders. */
static inline bool unordered(record a, record b)
{
    record differ = a ^ b;
    if (!a || differ >> 48)
        return false; /* another launch: before this one */
    if (differ >> 29)
        return true; /* blocks have no order */
    if (thread_of(a) == thread_of(b) || (differ >> 6 & 8191))
        return false;
    return thread_of(a) / 32 != thread_of(b) / 32 || !(differ & 63);
}

static void tell_race(const char *what, record a, record b)
{
    emu_note("%s: thread %u of block %u and thread %u of block %u", what, thread_of(a),
             (unsigned)(a >> 29 & 0x7ffff), thread_of(b),
             (unsigned)(b >> 29 & 0x7ffff));
}

static inline void touch(struct cell *c, record r, bool write)
{
    if (unordered(c->write, r))
        tell_race(write ? "two threads write" : "one thread reads what another writes",
                  c->write, r);
    if (write) {
        for (int i = 0; i < 2; i++)
            if (unordered(c->read[i], r))
                tell_race("one thread writes what another reads", c->read[i], r);
        c->write = r;
    } else if (thread_of(c->read[0]) == thread_of(r) || !unordered(c->read[0], r)) {
        c->read[0] = r;
    } else if (!c->read[1] || !unordered(c->read[1], r) ||
               thread_of(c->read[1]) / 32 == thread_of(c->read[0]) / 32) {
        c->read[1] = r;
    }
}

static void elsewhere(uintptr_t a, size_t n, bool write)
{
    const struct dim3 *ids[] = {&threadIdx, &blockIdx, &blockDim, &gridDim};
    for (const struct dim3 *id : ids)
        if (!write && a >= (uintptr_t)id && a + n <= (uintptr_t)(id + 1))
            return;
    if ((a >= emu_who.stack && a + n <= emu_who.stack_end) ||
        (!write && a >= emu_who.args && a + n <= emu_who.args_end))
        return;
    emu_note("a kernel %s %zu bytes of the host's memory", write ? "writes" : "reads",
             n);
}

static inline void access(const void *p, size_t n, bool write)
{
    uintptr_t a = (uintptr_t)p, in = a - (uintptr_t)arena,
              in_block = a - (uintptr_t)block_memory;
    if (arena && in < ARENA) {
        if (!emu_who.in_kernel) {
            emu_note("the host touches the device's memory");
            return;
        }
        if (in % n && n <= 16)
            emu_note("%zu bytes that are not aligned", n);
        for (size_t i = in / GRAIN; i < (in + n + GRAIN - 1) / GRAIN; i++) {
            if (states[i] == NOBODYS)
                emu_note("a kernel %s beyond what was allocated",
                         write ? "writes" : "reads");
            else if (write)
                states[i] = WRITTEN;
            else if (states[i] == EMPTY)
                emu_note("a kernel reads what nobody wrote");
            touch(&cells[i], now(), write);
        }
    } else if (!emu_who.in_kernel) {
        return;
    } else if (in_block < SHARED) {
        if (in_block + n > shared_bytes)
            emu_note("a kernel %s beyond its shared memory",
                     write ? "writes" : "reads");
        if (in_block % n && n <= 16)
            emu_note("%zu bytes of shared memory that are not aligned", n);
        for (size_t i = in_block / GRAIN;
             i < (in_block + n + GRAIN - 1) / GRAIN && i < SHARED / GRAIN; i++) {
            struct cell *c = &shared_cells[i];
            record r = now();
            if (c->write >> 29 != r >> 29) /* of a block before */
                *c = {0, {0, 0}};
            if (!write && !c->write)
                emu_note("a kernel reads shared memory that nobody wrote");
            touch(c, r, write);
        }
    } else {
        elsewhere(a, n, write);
    }
}

extern "C" {
void __tsan_init(void);
void __tsan_init(void)
{
}
void __tsan_func_entry(void *);
void __tsan_func_entry(void *)
{
}
void __tsan_func_exit(void);
void __tsan_func_exit(void)
{
}
void __tsan_vptr_update(void **, void *);
void __tsan_vptr_update(void **, void *)
{
}
#define WATCH(n)                            \
    void __tsan_read##n(void *);            \
    void __tsan_read##n(void *p)            \
    {                                       \
        access(p, n, false);                \
    }                                       \
    void __tsan_write##n(void *);           \
    void __tsan_write##n(void *p)           \
    {                                       \
        access(p, n, true);                 \
    }                                       \
    void __tsan_unaligned_read##n(void *);  \
    void __tsan_unaligned_read##n(void *p)  \
    {                                       \
        access(p, n, false);                \
    }                                       \
    void __tsan_unaligned_write##n(void *); \
    void __tsan_unaligned_write##n(void *p) \
    {                                       \
        access(p, n, true);                 \
    }
WATCH(1)
WATCH(2)
WATCH(4)
WATCH(8)
WATCH(16)
void __tsan_read_range(void *, unsigned long);
void __tsan_read_range(void *p, unsigned long n)
{
    if (n)
        access(p, n, false);
}
void __tsan_write_range(void *, unsigned long);
void __tsan_write_range(void *p, unsigned long n)
{
    if (n)
        access(p, n, true);
}
}
