/* Owns the threads, how they wait for each other, and how many of them take part.
 *
 * A run is published by giving each worker that takes part a new ticket; a barrier, the
 * same that the function may use, ends it.  Waiting is spinning first, because the next
 * step is usually microseconds away, and then sleeping, because otherwise a machine
 * that is shared pays for it.
 *
 * A thread that has lost its core to another program makes every barrier last as long
 * as the scheduler's time slice: two threads then run slower than one.  The time that
 * is lost in late waits is added up; where it is more than a third of a window, the
 * following runs use a thread less.  (A virtual machine takes a core away now and then;
 * that is not worth giving a thread up for.) */
#include "base/pool.h"

#include "base/cpu.h"
#include "base/err.h"
#include "base/mem.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

/* Pauses before sleeping: at 20 to 40 ns each, longer than what lies between two
 * products of a token (a barrier) or two tokens (a worker without work). */
enum { BARRIER_SPINS = 2000, IDLE_SPINS = 8000 };

/* Nanoseconds.  A wait is late when it is longer than LATE and than the work before it:
 * parts of a run may differ in size, but not by that much. */
enum {
    LATE = 50 * 1000,
    WINDOW = 24 * 1000 * 1000,
    HOLD_MIN = 64 * 1000 * 1000,
    HOLD_MAX = 1024 * 1000 * 1000,
};

struct worker {
    struct pool *pool;
    unsigned index;
    pthread_t thread;
    int64_t left;       /* when it left its last barrier */
    atomic_uint ticket; /* changes when there is a run for this worker */
    atomic_bool sleeping;
    pthread_mutex_t lock;
    pthread_cond_t wake;
};

struct pool {
    unsigned n; /* threads, the caller's included */
    atomic_bool stop;
    pool_fn *fn;
    void *ctx;

    /* the barrier of n_active threads */
    unsigned n_active;
    _Alignas(64) atomic_uint n_arrived;
    _Alignas(64) atomic_uint phase;
    atomic_uint n_sleeping;
    pthread_mutex_t lock;
    pthread_cond_t wake;

    /* how many threads take part */
    _Atomic int64_t lost; /* in this window */
    unsigned n_free;      /* in the next pool_run_free */
    int64_t window, until, hold;

    struct worker workers[];
};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void sleep_until(struct pool *p, unsigned phase)
{
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->n_sleeping, 1);
    while (atomic_load(&p->phase) == phase)
        pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->n_sleeping, 1);
    pthread_mutex_unlock(&p->lock);
}

/* Spin, then sleep, until the phase changes. */
static void wait_for_phase(struct pool *p, unsigned phase)
{
    for (int i = 0; i < BARRIER_SPINS; i++) {
        if (atomic_load_explicit(&p->phase, memory_order_acquire) != phase)
            return;
        relax();
    }
    sleep_until(p, phase);
}

static void wait_for_all(struct pool *p, struct worker *w)
{
    /* the next run may begin, with another n_active, before this thread wakes up */
    unsigned n = p->n_active, phase = atomic_load(&p->phase);
    int64_t start = now();
    if (atomic_fetch_add(&p->n_arrived, 1) + 1 < n) {
        wait_for_phase(p, phase);
        int64_t end = now(), waited = end - start;
        if (waited > LATE && waited > start - w->left)
            atomic_fetch_add(&p->lost, waited / (int64_t)(n - 1));
        w->left = end;
        return;
    }
    atomic_store(&p->n_arrived, 0);
    atomic_store(&p->phase, phase + 1);
    if (atomic_load(&p->n_sleeping)) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
    w->left = start;
}

void pool_barrier(struct pool *p, unsigned i)
{
    if (!p || p->n_active < 2)
        return;
    wait_for_all(p, &p->workers[i]);
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct pool *p = w->pool;
    unsigned seen = 0;
    for (;;) {
        for (int i = 0; i < IDLE_SPINS && atomic_load(&w->ticket) == seen; i++)
            relax();
        if (atomic_load(&w->ticket) == seen) {
            pthread_mutex_lock(&w->lock);
            atomic_store(&w->sleeping, true);
            while (atomic_load(&w->ticket) == seen)
                pthread_cond_wait(&w->wake, &w->lock);
            atomic_store(&w->sleeping, false);
            pthread_mutex_unlock(&w->lock);
        }
        seen = atomic_load(&w->ticket);
        if (atomic_load(&p->stop))
            return NULL;
        w->left = now();
        p->fn(p->ctx, w->index, p->n_active);
        pool_barrier(p, w->index);
    }
}

static void call(struct worker *w)
{
    atomic_fetch_add(&w->ticket, 1);
    if (atomic_load(&w->sleeping)) {
        pthread_mutex_lock(&w->lock);
        pthread_cond_signal(&w->wake);
        pthread_mutex_unlock(&w->lock);
    }
}

int pool_create(unsigned n, struct pool **out, struct runt_err *err)
{
    if (!n) {
        n = cpu_n_cores();
        n = n < POOL_MAX_THREADS ? n : POOL_MAX_THREADS;
    }
    if (n > POOL_MAX_THREADS)
        return err_set(err, RUNT_E_INVALID, "%u threads: the limit is %d", n,
                       POOL_MAX_THREADS);
    size_t bytes = sizeof(struct pool) + n * sizeof(struct worker);
    struct pool *p = mem_aligned(bytes);
    if (!p)
        return err_nomem(err, "the thread pool");
    memset(p, 0, bytes);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    sigset_t all, before;
    int e = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* handlers run in the caller only */
    for (p->n = 1; p->n < n && !e; p->n += !e) {
        struct worker *w = &p->workers[p->n];
        w->pool = p;
        w->index = p->n;
        pthread_mutex_init(&w->lock, NULL);
        pthread_cond_init(&w->wake, NULL);
        e = pthread_create(&w->thread, NULL, work, w);
        if (e) {
            pthread_mutex_destroy(&w->lock);
            pthread_cond_destroy(&w->wake);
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (e) {
        int rc = err_set(err, RUNT_E_IO, "cannot start thread %u of %u: %s", p->n + 1,
                         n, strerror(e));
        pool_destroy(p);
        return rc;
    }
    p->n_free = p->n;
    p->hold = HOLD_MIN;
    p->window = now();
    *out = p;
    return 0;
}

void pool_destroy(struct pool *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, true);
    for (unsigned i = 1; i < p->n; i++) {
        struct worker *w = &p->workers[i];
        call(w);
        pthread_join(w->thread, NULL);
        pthread_cond_destroy(&w->wake);
        pthread_mutex_destroy(&w->lock);
    }
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    mem_free(p);
}

unsigned pool_n_threads(const struct pool *p)
{
    return p ? p->n : 1;
}

static void run_on(struct pool *p, unsigned n, pool_fn *fn, void *ctx)
{
    p->fn = fn;
    p->ctx = ctx;
    p->n_active = n;
    for (unsigned i = 1; i < n; i++)
        call(&p->workers[i]);
    p->workers[0].left = n > 1 ? now() : 0;
    fn(ctx, 0, n);
    pool_barrier(p, 0);
}

void pool_run(struct pool *p, pool_fn *fn, void *ctx)
{
    if (p)
        run_on(p, p->n, fn, ctx);
    else
        fn(ctx, 0, 1);
}

/* After a run: fewer threads if too much time was lost, one more when the hold is over.
 * A trial that fails doubles the next hold; a window without loss brings it back. */
static void adapt(struct pool *p)
{
    int64_t t = now(), length = t - p->window;
    if (p->n_free < p->n && t >= p->until) {
        p->n_free++;
        p->until = t + p->hold;
    } else if (length < WINDOW) {
        return;
    } else if (atomic_load(&p->lost) * 3 > length && p->n_free > 1) {
        p->n_free--;
        p->until = t + p->hold;
        p->hold = p->hold < HOLD_MAX ? 2 * p->hold : HOLD_MAX;
    } else if (p->n_free == p->n) {
        p->hold = HOLD_MIN;
    }
    atomic_store(&p->lost, 0);
    p->window = t;
}

void pool_run_free(struct pool *p, pool_fn *fn, void *ctx)
{
    if (!p) {
        fn(ctx, 0, 1);
        return;
    }
    run_on(p, p->n_free, fn, ctx);
    if (p->n > 1)
        adapt(p);
}
