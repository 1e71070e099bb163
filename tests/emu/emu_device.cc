/* Owns the emulated device: calls that may fail, copies, events, and kernels' threads.
 */
#include "emu_impl.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

/* ---- what was noticed, and what is to fail ---- */

static char trouble[512], told[512];
static long fail_in[EMU_CALLS] = {-1, -1, -1, -1};
static bool lost;
static enum emu_gpu gpu = EMU_GPU;
static enum emu_order order = EMU_UP;
static size_t n_launches;

void emu_note(const char *format, ...)
{
    va_list args;
    if (*trouble)
        return;
    va_start(args, format);
    vsnprintf(trouble, sizeof trouble, format, args);
    va_end(args);
}

extern "C" void emu_expect(bool ok, const char *what)
{
    if (!ok)
        emu_note("%s", what);
}

const char *emu_trouble(void)
{
    memcpy(told, trouble, sizeof told);
    *trouble = 0;
    return *told ? told : NULL;
}

bool emu_fails(enum emu_call_kind kind)
{
    return fail_in[kind] >= 0 && fail_in[kind]-- == 0;
}

bool emu_lost(void)
{
    return lost;
}

void emu_fail(const char *what, long n)
{
    static const char *const names[EMU_CALLS] = {"malloc", "launch", "copy", "product"};
    lost = false;
    for (int i = 0; i < EMU_CALLS; i++)
        fail_in[i] = strcmp(names[i], what) ? -1 : n;
}

void emu_set_gpu(enum emu_gpu g)
{
    gpu = g;
}

void emu_set_order(enum emu_order o)
{
    order = o;
}

size_t emu_launches(void)
{
    return n_launches;
}

__attribute__((constructor)) static void from_environment(void)
{
    const char *o = getenv("RUNT_EMU_ORDER"), *f = getenv("RUNT_EMU_FAIL"),
               *g = getenv("RUNT_EMU_GPU"), *m = getenv("RUNT_EMU_MEMORY");
    if (o)
        order = (enum emu_order)(atoi(o) % EMU_ORDERS);
    if (m)
        emu_set_memory(strtoul(m, NULL, 10));
    if (g)
        gpu = (enum emu_gpu)atoi(g);
    const char *colon = f ? strchr(f, ':') : NULL;
    if (colon) {
        char what[16] = "";
        snprintf(what, sizeof what, "%.*s", (int)(colon - f), f);
        emu_fail(what, atol(colon + 1));
    }
}

__attribute__((destructor)) static void at_the_end(void)
{
    if (!*trouble)
        return;
    fprintf(stderr, "emulated GPU: %s\n", trouble);
    _exit(99);
}

/* ---- the device ---- */

static cudaError_t state()
{
    return lost ? cudaErrorLaunchFailure : cudaSuccess;
}

extern "C" {

const char *cudaGetErrorString(cudaError_t e)
{
    return e == cudaSuccess                   ? "no error"
           : e == cudaErrorMemoryAllocation   ? "out of memory"
           : e == cudaErrorNoDevice           ? "no CUDA-capable device is detected"
           : e == cudaErrorLaunchFailure      ? "unspecified launch failure"
           : e == cudaErrorInsufficientDriver ? "the driver is too old"
                                              : "invalid argument";
}

cudaError_t cudaGetLastError(void)
{
    return state();
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = gpu == EMU_NO_GPU ? 0 : 1;
    return gpu == EMU_NO_GPU ? cudaErrorNoDevice : cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device)
{
    memset(prop, 0, sizeof *prop);
    snprintf(prop->name, sizeof prop->name, "an emulated GPU");
    prop->major = gpu == EMU_OLD_GPU ? 7 : 9;
    prop->minor = gpu == EMU_OLD_GPU ? 5 : 0;
    return device ? cudaErrorInvalidValue : cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    return device ? cudaErrorInvalidValue : cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes,
                            enum cudaMemcpyKind kind, cudaStream_t)
{
    bool up = kind == cudaMemcpyHostToDevice;
    if (emu_fails(EMU_COPY))
        lost = true;
    if (lost)
        return cudaErrorLaunchFailure;
    if (emu_is_device(up ? from : to)) {
        emu_note("a copy the wrong way round");
        return cudaErrorInvalidValue;
    }
    if (!emu_use(up ? to : from, bytes, up, "a copy"))
        return cudaErrorInvalidValue;
    memcpy(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t)
{
    if (lost || !emu_use(p, bytes, true, "clearing"))
        return lost ? cudaErrorLaunchFailure : cudaErrorInvalidValue;
    memset(p, value, bytes);
    return cudaSuccess;
}

struct emu_stream {
    int nothing;
};

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
    *stream = (cudaStream_t)calloc(1, sizeof **stream);
    return state();
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    free(stream);
    return state();
}

cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    return state();
}

struct emu_event {
    struct timespec at;
};

cudaError_t cudaEventCreate(cudaEvent_t *e)
{
    *e = (cudaEvent_t)calloc(1, sizeof **e);
    return state();
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    free(e);
    return state();
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t)
{
    clock_gettime(CLOCK_MONOTONIC, &e->at);
    return state();
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    *ms = 1e3f * (float)(to->at.tv_sec - from->at.tv_sec) +
          1e-6f * (float)(to->at.tv_nsec - from->at.tv_nsec);
    return state();
}

} // extern "C"

/* ---- threads ---- */

enum { MAX_THREADS = 1024, STACK = 128 << 10 };
enum wait { READY, AT_BARRIER, AT_EXCHANGE, DONE };

struct thread {
    jmp_buf at;
    enum wait wait;
    uint64_t epoch, warp_epoch;
};

/* What a warp's lanes do together: all of them come before the first goes on.  What
 * they hand over lies in one of two places in turn, since none is more than one ahead.
 */
enum meeting { EXCHANGE, SYNC, PRODUCT };
struct warp {
    unsigned come, alive;
    enum meeting what;
    uint64_t turn;
    uint64_t handed[2][32];
    float a[2][256], b[2][256], product[2][256];
};

struct dim3 threadIdx, blockIdx, blockDim, gridDim;
static struct thread threads[MAX_THREADS];
static struct warp warps[MAX_THREADS / 32];
static char *stacks;
static unsigned n_stacks, n_threads, at_work;
static jmp_buf scheduler;
static const struct emu_launch *launched;

static void yield()
{
    if (!_setjmp(threads[at_work].at))
        _longjmp(scheduler, 1);
}

/* A coroutine runs kernel after kernel, one thread of each. */
static void body()
{
    for (;;) {
        launched->run(launched->args);
        threads[at_work].wait = DONE;
        warps[at_work / 32].alive--;
        yield();
    }
}

static void begin_stacks(unsigned n)
{
    static ucontext_t back, begin;
    if (!stacks)
        stacks = (char *)mmap(NULL, (size_t)MAX_THREADS * STACK, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (; n_stacks < n; n_stacks++) {
        getcontext(&begin);
        begin.uc_stack.ss_sp = stacks + (size_t)n_stacks * STACK;
        begin.uc_stack.ss_size = STACK;
        begin.uc_link = NULL;
        makecontext(
            &begin,
            [] {
                if (!_setjmp(threads[at_work].at)) /* stop where a kernel is to begin */
                    swapcontext(&begin, &back);
                body();
            },
            0);
        at_work = n_stacks;
        swapcontext(&back, &begin);
    }
}

static void run_thread(unsigned t)
{
    at_work = t;
    threadIdx = dim3(t, 0, 0);
    emu_at_work(t, threads[t].epoch, threads[t].warp_epoch);
    emu_who.stack = (uintptr_t)stacks + (size_t)t * STACK;
    emu_who.stack_end = emu_who.stack + STACK;
    emu_who.in_kernel = true;
    if (!_setjmp(scheduler))
        _longjmp(threads[t].at, 1);
    emu_who.in_kernel = false;
}

static void count(unsigned *ready, unsigned *at_barrier, unsigned *done)
{
    *ready = *at_barrier = *done = 0;
    for (unsigned t = 0; t < n_threads; t++) {
        *ready += threads[t].wait == READY;
        *at_barrier += threads[t].wait == AT_BARRIER;
        *done += threads[t].wait == DONE;
    }
}

/* The i-th of n in the order that was asked for. */
static unsigned nth(unsigned i, unsigned n)
{
    if (order == EMU_DOWN)
        return n - 1 - i;
    if (order == EMU_MIXED && n > 2) { /* a step that has no divisor in common with n */
        unsigned step = n / 2 + 1, a = step, b = n;
        while (b) {
            unsigned rest = a % b;
            a = b;
            b = rest;
            if (!b && a != 1) {
                a = ++step;
                b = n;
            }
        }
        return (unsigned)(((uint64_t)i * step + n / 3) % n);
    }
    return i;
}

static bool run_block(size_t shared_bytes)
{
    emu_new_block(shared_bytes);
    for (unsigned t = 0; t < n_threads; t++) {
        threads[t].wait = READY;
        threads[t].epoch = threads[t].warp_epoch = 0;
        warps[t / 32].come = 0;
        warps[t / 32].alive = n_threads - t / 32 * 32 < 32 ? n_threads % 32 : 32;
    }
    for (;;) {
        unsigned ready, at_barrier, done;
        for (unsigned i = 0; i < n_threads; i++)
            if (threads[nth(i, n_threads)].wait == READY)
                run_thread(nth(i, n_threads));
        count(&ready, &at_barrier, &done);
        if (done == n_threads)
            return true;
        if (ready)
            continue;
        if (at_barrier + done < n_threads || done) {
            emu_note(done ? "threads end while others wait for them"
                          : "threads wait at different places for each other");
            n_stacks = 0; /* they never come back */
            return false;
        }
        for (unsigned t = 0; t < n_threads; t++) {
            threads[t].wait = READY;
            threads[t].epoch++;
            threads[t].warp_epoch = 0;
        }
    }
}

static const void *larger[64];
static int larger_bytes[64];
static size_t n_larger;

extern "C" cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute,
                                            int value)
{
    size_t i = 0;
    while (i < n_larger && larger[i] != kernel)
        i++;
    if (i == sizeof larger / sizeof *larger || value > (99 << 10))
        return cudaErrorInvalidValue;
    n_larger += i == n_larger;
    larger[i] = kernel;
    larger_bytes[i] = value;
    return state();
}

static bool shared_is_allowed(const struct emu_launch *l)
{
    for (size_t i = 0; i < n_larger; i++)
        if (larger[i] == l->kernel && l->shared_bytes <= (size_t)larger_bytes[i])
            return true;
    return l->shared_bytes <= 48 << 10;
}

extern "C" cudaError_t emu_run(const struct emu_launch *l)
{
    size_t blocks = (size_t)l->grid.x * l->grid.y;
    if (emu_fails(EMU_LAUNCH))
        lost = true;
    if (lost)
        return cudaErrorLaunchFailure;
    if (!blocks || l->grid.y > 65535 || !l->block.x || l->block.x > MAX_THREADS ||
        !shared_is_allowed(l))
        return cudaErrorInvalidValue;
    emu_expect(blocks < 1 << 19, "more blocks than the emulation can tell apart");
    n_launches++;
    launched = l;
    n_threads = l->block.x;
    begin_stacks(n_threads);
    emu_new_launch(l->shared_bytes);
    emu_who.args = (uintptr_t)l->args;
    emu_who.args_end = emu_who.args + l->args_bytes;
    gridDim = l->grid;
    blockDim = l->block;
    for (size_t i = 0; i < blocks; i++) {
        unsigned b = nth((unsigned)i, (unsigned)blocks);
        blockIdx = dim3(b % l->grid.x, b / l->grid.x, 0);
        emu_who.block = b;
        if (!run_block(l->shared_bytes)) {
            lost = true;
            return cudaErrorLaunchFailure;
        }
    }
    return cudaSuccess;
}

/* ---- meeting others ---- */

extern "C" void __syncthreads(void)
{
    threads[at_work].wait = AT_BARRIER;
    yield();
}

/* Wait until the whole warp is here; the last one does what is to be done for all. */
static void meet(struct warp *w, enum meeting what)
{
    emu_expect(!w->come || w->what == what, "lanes of a warp meet at different places");
    w->what = what;
    if (++w->come < w->alive) {
        threads[at_work].wait = AT_EXCHANGE;
        yield();
        return;
    }
    emu_expect(w->alive == 32, "lanes of a warp meet, but not all of them");
    if (what == PRODUCT) {
        float *c = w->product[w->turn % 2], *a = w->a[w->turn % 2],
              *b = w->b[w->turn % 2];
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 16; j++) {
                float sum = 0;
                for (int k = 0; k < 16; k++)
                    sum += a[i * 16 + k] * b[k * 16 + j];
                c[i * 16 + j] = sum;
            }
    }
    w->come = 0;
    w->turn++;
    for (unsigned t = at_work / 32 * 32; t < at_work / 32 * 32 + 32; t++)
        if (threads[t].wait == AT_EXCHANGE)
            threads[t].wait = READY;
}

extern "C" void __syncwarp(void)
{
    meet(&warps[at_work / 32], SYNC);
    emu_at_work(at_work, threads[at_work].epoch, ++threads[at_work].warp_epoch);
}

extern "C" uint64_t emu_exchange(uint64_t mine, unsigned from)
{
    struct warp *w = &warps[at_work / 32];
    uint64_t turn = w->turn;
    w->handed[turn % 2][at_work % 32] = mine;
    meet(w, EXCHANGE);
    return w->handed[turn % 2][from % 32];
}

/* As mma.h's emu_place. */
static unsigned place(unsigned e)
{
    return ((at_work % 32 * 8 + e) * 37 + 11) % 256;
}

extern "C" void emu_mma(float *d, const float *a, const float *b, const float *c);
void emu_mma(float *d, const float *a, const float *b, const float *c)
{
    struct warp *w = &warps[at_work / 32];
    uint64_t turn = w->turn;
    for (unsigned e = 0; e < 8; e++) {
        w->a[turn % 2][place(e)] = a[e];
        w->b[turn % 2][place(e)] = b[e];
    }
    meet(w, PRODUCT);
    for (unsigned e = 0; e < 8; e++)
        d[e] = w->product[turn % 2][place(e)] + c[e];
}
