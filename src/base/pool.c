/* Owns the threads.  One job at a time: the caller publishes a function and a new
 * generation number, works on part 0 itself, then waits until every worker reported. */
#include "base/pool.h"

#include "base/cpu.h"
#include "base/err.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

/* Spins before sleeping: about 20 microseconds, longer than the serial work between two
 * matrix products of a token, shorter than anything a person would notice as load. */
enum { N_SPINS = 2000 };

struct worker {
    struct pool *pool;
    unsigned index;
    pthread_t thread;
};

struct pool {
    unsigned n;
    atomic_uint generation; /* of the job that is published */
    atomic_uint n_left;     /* workers that have not finished it */
    atomic_bool stop;
    void (*fn)(void *ctx, unsigned i, unsigned n);
    void *ctx;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
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

static void *work(void *arg)
{
    struct worker *w = arg;
    struct pool *p = w->pool;
    unsigned seen = 0;
    for (;;) {
        for (int i = 0; i < N_SPINS && atomic_load(&p->generation) == seen; i++)
            relax();
        if (atomic_load(&p->generation) == seen) {
            pthread_mutex_lock(&p->lock);
            while (atomic_load(&p->generation) == seen)
                pthread_cond_wait(&p->wake, &p->lock);
            pthread_mutex_unlock(&p->lock);
        }
        seen = atomic_load(&p->generation);
        if (atomic_load(&p->stop))
            return NULL;
        p->fn(p->ctx, w->index, p->n);
        if (atomic_fetch_sub(&p->n_left, 1) == 1) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

static void publish(struct pool *p)
{
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->generation, 1);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
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
    struct pool *p = mem_zalloc(sizeof *p + n * sizeof p->workers[0]);
    if (!p)
        return err_nomem(err, "the thread pool");
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    for (p->n = 1; p->n < n; p->n++) {
        struct worker *w = &p->workers[p->n];
        *w = (struct worker){.pool = p, .index = p->n};
        int e = pthread_create(&w->thread, NULL, work, w);
        if (e) {
            int rc = err_set(err, RUNT_E_IO, "cannot start thread %u of %u: %s",
                             p->n + 1, n, strerror(e));
            pool_destroy(p);
            return rc;
        }
    }
    *out = p;
    return 0;
}

void pool_destroy(struct pool *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, true);
    publish(p);
    for (unsigned i = 1; i < p->n; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    mem_free(p);
}

unsigned pool_n_threads(const struct pool *p)
{
    return p ? p->n : 1;
}

void pool_run(struct pool *p, void (*fn)(void *ctx, unsigned i, unsigned n), void *ctx)
{
    if (!p || p->n == 1) {
        fn(ctx, 0, 1);
        return;
    }
    p->fn = fn;
    p->ctx = ctx;
    atomic_store(&p->n_left, p->n - 1);
    publish(p);
    fn(ctx, 0, p->n);
    for (int i = 0; i < N_SPINS && atomic_load(&p->n_left); i++)
        relax();
    if (atomic_load(&p->n_left)) {
        pthread_mutex_lock(&p->lock);
        while (atomic_load(&p->n_left))
            pthread_cond_wait(&p->done, &p->lock);
        pthread_mutex_unlock(&p->lock);
    }
}
