/* Owns the emulated device's memory, and what is watched at every access to it: the
 * functions that -fsanitize=thread calls. */
#include "emu_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Two bytes are the smallest that a kernel reads or writes, and most are four: what is
 * known of memory is kept for each four bytes, and for halves that were touched alone.
 */
enum { WORD = 4, HALF = 2 };

/* An access: launch 16 bits, block 19, thread 10, barriers of the block 13, of the warp
 * 6.  0: none. */
typedef uint64_t record;
struct cell {
    record write, read[2]; /* two different readers, of two warps where there are */
};

static const size_t ARENA = (size_t)768 << 20, USUAL_MEMORY = (size_t)320 << 20;
enum { SHARED = 128 << 10, GUARD = 512 };
enum state : uint8_t { NOBODYS, EMPTY, WRITTEN };

struct known {
    struct cell *words;  /* [bytes / WORD] */
    struct cell *halves; /* [bytes / HALF] */
    bool *split;         /* [bytes / WORD]: were halves touched alone? */
};
static unsigned char *arena;
static struct known of_arena;
static enum state *states; /* [ARENA / HALF] */
static size_t used = GUARD, live, live_bytes, memory = USUAL_MEMORY;

extern "C" {
unsigned char block_memory[SHARED] __attribute__((aligned(128)));
}
static struct cell shared_words[SHARED / WORD], shared_halves[SHARED / HALF];
static bool shared_split[SHARED / WORD];
static struct known of_shared = {shared_words, shared_halves, shared_split};
static size_t shared_bytes;

struct emu_who emu_who;
static record now; /* of the thread that is at work */

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
    of_arena.words = (struct cell *)reserve(ARENA / WORD * sizeof(struct cell));
    of_arena.halves = (struct cell *)reserve(ARENA / HALF * sizeof(struct cell));
    of_arena.split = (bool *)reserve(ARENA / WORD);
    states = (enum state *)reserve(ARENA / HALF);
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

size_t emu_bytes(void)
{
    return live_bytes;
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
    memset(states + used / HALF, EMPTY, (bytes + HALF - 1) / HALF);
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
    memset(states + at / HALF, NOBODYS, (blocks[i].bytes + HALF - 1) / HALF);
    blocks[i].live = false;
    live_bytes -= blocks[i].bytes;
    if (!--live) {
        used = GUARD;
        n_blocks = 0;
    }
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
    if (!emu_is_device(p) || at % HALF || !emu_is_device((const char *)p + bytes - 1)) {
        emu_note("%s: not the device's memory", what);
        return false;
    }
    for (size_t i = at / HALF; i < (at + bytes + HALF - 1) / HALF; i++) {
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
    memset((void *)of_arena.words, 0, used / WORD * sizeof(struct cell));
    memset((void *)of_arena.halves, 0, used / HALF * sizeof(struct cell));
    memset(of_arena.split, 0, used / WORD);
    memset((void *)shared_words, 0, sizeof shared_words);
    memset((void *)shared_halves, 0, sizeof shared_halves);
}

void emu_new_block(size_t shared)
{
    memset(block_memory, 0xff, shared);
    memset(shared_split, 0, sizeof shared_split);
    memset((void *)shared_words, 0, (shared + WORD - 1) / WORD * sizeof *shared_words);
    memset((void *)shared_halves, 0,
           (shared + HALF - 1) / HALF * sizeof *shared_halves);
}

/* ---- what is watched ---- */

void emu_at_work(uint64_t thread, uint64_t epoch, uint64_t warp_epoch)
{
    epoch = epoch < 8191 ? epoch : 8191;
    warp_epoch = warp_epoch < 63 ? warp_epoch : 63;
    now = emu_who.launch << 48 | emu_who.block << 29 | thread << 19 | epoch << 6 |
          warp_epoch;
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

/* Nothing unordered is known of it? */
static inline void compare(const struct cell *c, bool write)
{
    if (__builtin_expect(unordered(c->write, now), 0))
        tell_race(write ? "two threads write" : "one thread reads what another writes",
                  c->write, now);
    for (int i = 0; write && i < 2; i++)
        if (__builtin_expect(unordered(c->read[i], now), 0))
            tell_race("one thread writes what another reads", c->read[i], now);
}

static inline void touch(struct cell *c, bool write)
{
    if (!write && c->read[0] == now)
        return;
    compare(c, write);
    if (write)
        c->write = now;
    else if (thread_of(c->read[0]) == thread_of(now) || !unordered(c->read[0], now))
        c->read[0] = now;
    else if (!unordered(c->read[1], now) ||
             thread_of(c->read[1]) / 32 == thread_of(c->read[0]) / 32)
        c->read[1] = now;
}

static inline void touch_all(const struct known *k, size_t at, size_t n, bool write)
{
    if (n < WORD) {
        compare(&k->words[at / WORD], write);
        touch(&k->halves[at / HALF], write);
        k->split[at / WORD] = true;
        return;
    }
    for (size_t i = at / WORD; i < (at + n + WORD - 1) / WORD; i++) {
        if (k->split[i]) {
            compare(&k->halves[2 * i], write);
            compare(&k->halves[2 * i + 1], write);
        }
        touch(&k->words[i], write);
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

static void not_plain(enum state *s, bool write)
{
    if (*s == NOBODYS)
        emu_note("a kernel %s beyond what was allocated", write ? "writes" : "reads");
    else if (write)
        *s = WRITTEN;
    else if (*s == EMPTY)
        emu_note("a kernel reads what nobody wrote");
}

static inline void on_device(uintptr_t at, size_t n, bool write)
{
    if (!emu_who.in_kernel) {
        emu_note("the host touches the device's memory");
        return;
    }
    if (__builtin_expect(at % n && n <= 16, 0))
        emu_note("%zu bytes that are not aligned", n);
    for (size_t i = at / HALF; i < (at + n + HALF - 1) / HALF; i++)
        if (__builtin_expect(states[i] != WRITTEN, 0))
            not_plain(&states[i], write);
    touch_all(&of_arena, at, n, write);
}

static bool shared_is_written(uintptr_t at, size_t n)
{
    if (n < WORD)
        return shared_words[at / WORD].write || shared_halves[at / HALF].write;
    for (size_t i = at / WORD; i < (at + n + WORD - 1) / WORD; i++)
        if (!shared_words[i].write &&
            !(shared_halves[2 * i].write && shared_halves[2 * i + 1].write))
            return false;
    return true;
}

static inline void in_shared(uintptr_t at, size_t n, bool write)
{
    if (__builtin_expect(at + n > shared_bytes, 0)) {
        emu_note("a kernel %s beyond its shared memory", write ? "writes" : "reads");
        return;
    }
    if (__builtin_expect(at % n && n <= 16, 0))
        emu_note("%zu bytes of shared memory that are not aligned", n);
    if (!write && !shared_is_written(at, n))
        emu_note("a kernel reads shared memory that nobody wrote");
    touch_all(&of_shared, at, n, write);
}

static inline __attribute__((always_inline)) void access(const void *p, size_t n,
                                                         bool write)
{
    uintptr_t a = (uintptr_t)p, at = a - (uintptr_t)arena,
              at_shared = a - (uintptr_t)block_memory;
    if (at_shared < SHARED && emu_who.in_kernel)
        in_shared(at_shared, n, write);
    else if (at < ARENA && arena)
        on_device(at, n, write);
    else if (emu_who.in_kernel)
        elsewhere(a, n, write);
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

/* What -fsanitize=alignment,bounds calls: packs that are not aligned, even where the
 * compiler reads them number by number; indices beyond an array. */
extern "C" {
void __ubsan_handle_type_mismatch_v1(void *, void *p);
void __ubsan_handle_type_mismatch_v1(void *, void *)
{
    emu_note("numbers that are not aligned as a pack of them has to be");
}
void __ubsan_handle_out_of_bounds(void *, void *);
void __ubsan_handle_out_of_bounds(void *, void *)
{
    emu_note("an index beyond its array");
}
}
