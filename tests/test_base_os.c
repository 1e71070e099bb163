/* The ground floor where it meets the system: files and threads. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/cpu.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/pool.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[256];

static char *in_dir(const char *name) /* the caller frees it */
{
    char *p = mem_printf("%s/%s", dir, name);
    assert_non_null(p);
    return p;
}

static int n_files(void)
{
    int n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    closedir(d);
    return n;
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void want_file(const char *path, const char *text)
{
    char *s = NULL;
    size_t n = 0;
    assert_int_equal(file_read(path, 1 << 24, &s, &n, NULL), 0);
    assert_int_equal(n, strlen(text));
    assert_string_equal(s, text);
    mem_free(s);
}

/* ---- reading ---- */

static void test_map(void **state)
{
    (void)state;
    struct runt_err err = {0};
    struct file_map m = {.size = 99}, untouched = m;
    char *p = in_dir("map");
    assert_int_equal(file_map_open(p, &m, &err), RUNT_E_NOTFOUND);
    assert_non_null(strstr(err.msg, "map: cannot open"));
    assert_int_equal(file_map_open(dir, &m, &err), RUNT_E_IO);
    assert_int_equal(mkfifo(p, 0600), 0);
    assert_int_equal(file_map_open(p, &m, &err), RUNT_E_IO); /* and does not wait */
    assert_non_null(strstr(err.msg, "map: not a regular file"));
    assert_memory_equal(&m, &untouched, sizeof m);
    unlink(p);
    write_file(p, "");
    assert_int_equal(file_map_open(p, &m, &err), 0);
    assert_true(!m.data && !m.size);
    file_map_close(&m);
    write_file(p, "hello");
    assert_int_equal(file_map_open(p, &m, &err), 0);
    assert_int_equal(m.size, 5);
    assert_memory_equal(m.data, "hello", 5);
    file_map_close(&m);
    assert_true(!m.data && !m.size);
    file_map_close(&m);
    assert_true(file_exists(p) && !file_is_dir(p) && file_is_dir(dir));
    unlink(p);
    assert_false(file_exists(p));
    mem_free(p);
}

static void *feed(void *path)
{
    write_file(path, "through a pipe");
    return NULL;
}

static void test_read(void **state)
{
    (void)state;
    struct runt_err err = {0};
    char *p = in_dir("read"), *s = NULL;
    size_t n = 77;
    long live = mem_live();
    assert_int_equal(file_read(p, 10, &s, &n, &err), RUNT_E_NOTFOUND);
    assert_int_equal(file_read(dir, 10, &s, &n, &err), RUNT_E_IO);
    write_file(p, "hello");
    assert_int_equal(file_read(p, 4, &s, &n, &err), RUNT_E_FORMAT);
    assert_non_null(strstr(err.msg, "read: larger than the limit of 4 bytes"));
    assert_int_equal(file_read(p, 0, &s, &n, &err), RUNT_E_FORMAT);
    assert_true(!s && n == 77);
    assert_int_equal(file_read(p, 5, &s, &n, &err), 0);
    assert_int_equal(n, 5);
    assert_string_equal(s, "hello");
    mem_free(s);
    want_file(p, "hello");
    write_file(p, "");
    want_file(p, "");
    /* a file whose size the system does not tell, and one that takes many reads */
    assert_int_equal(file_read("/proc/self/maps", 1 << 20, &s, &n, &err), 0);
    assert_int_equal(n, strlen(s));
    assert_true(n > 100);
    mem_free(s);
    assert_int_equal(file_read("/dev/zero", 1000000, &s, &n, &err), RUNT_E_FORMAT);
    unlink(p);

    assert_int_equal(mkfifo(p, 0600), 0);
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, feed, p), 0);
    want_file(p, "through a pipe");
    pthread_join(t, NULL);
    int old = dup(0);
    assert_int_equal(pthread_create(&t, NULL, feed, p), 0);
    int fd = open(p, O_RDONLY);
    assert_true(fd > 0 && dup2(fd, 0) == 0);
    close(fd);
    want_file("-", "through a pipe");
    pthread_join(t, NULL);
    dup2(old, 0);
    close(old);
    unlink(p);
    s = NULL;
    for (long k = 0, rc = RUNT_E_NOMEM; rc; k++) {
        assert_in_range(k, 0, 20);
        mem_fail_after(k);
        rc = file_read("/proc/self/maps", 1 << 20, &s, &n, &err);
        mem_fail_after(-1);
        assert_true(rc == 0 || (rc == RUNT_E_NOMEM && !s));
    }
    mem_free(s);
    assert_int_equal(mem_live(), live);
    mem_free(p);
}

static void test_make_dirs(void **state)
{
    (void)state;
    struct runt_err err = {0};
    char *a = in_dir("a"), *deep = in_dir("a/b//c/d/"), *f = in_dir("a/file"),
         *below = in_dir("a/file/x"), *b = in_dir("a/b"), *c = in_dir("a/b/c"),
         *d = in_dir("a/b/c/d");
    assert_int_equal(file_make_dirs("", &err), RUNT_E_INVALID);
    assert_int_equal(file_make_dirs("/", &err), 0);
    assert_int_equal(file_make_dirs(deep, &err), 0);
    assert_true(file_is_dir(d));
    assert_int_equal(file_make_dirs(deep, &err), 0);
    write_file(f, "");
    assert_int_equal(file_make_dirs(f, &err), RUNT_E_IO);
    assert_non_null(strstr(err.msg, "a/file: not a directory"));
    assert_int_equal(file_make_dirs(below, &err), RUNT_E_IO);
    mem_fail_after(0);
    assert_int_equal(file_make_dirs(deep, &err), RUNT_E_NOMEM);
    unlink(f);
    char *all[] = {d, c, b, a};
    for (int i = 0; i < 4; i++)
        assert_int_equal(rmdir(all[i]), 0);
    char *names[] = {a, deep, f, below, b, c, d};
    for (int i = 0; i < 7; i++)
        mem_free(names[i]);
}

/* ---- writing ---- */

static void test_out(void **state)
{
    (void)state;
    struct runt_err err = {0};
    char *p = in_dir("out");
    struct file_out *f = NULL;
    struct file_map m = {0};
    write_file(p, "old");
    assert_int_equal(file_map_open(p, &m, &err), 0);
    assert_int_equal(file_out_open(p, &f, &err), 0);
    assert_int_equal(n_files(), 2);
    assert_int_equal(file_out_write(f, "new ", 4, &err), 0);
    assert_int_equal(file_out_write(f, NULL, 0, &err), 0);
    assert_int_equal(file_out_write(f, "text", 4, &err), 0);
    assert_int_equal(file_out_pos(f), 8);
    want_file(p, "old");
    assert_int_equal(file_out_commit(f, &err), 0);
    want_file(p, "new text");
    assert_memory_equal(m.data, "old", 3); /* who mapped the old file keeps it */
    file_map_close(&m);
    assert_int_equal(n_files(), 1);

    assert_int_equal(file_out_open(p, &f, &err), 0);
    assert_int_equal(file_out_write(f, "dropped", 7, &err), 0);
    file_out_abort(f);
    file_out_abort(NULL);
    want_file(p, "new text");
    assert_int_equal(n_files(), 1);

    /* two writers of one name: the last to commit wins, both whole */
    struct file_out *g = NULL;
    assert_int_equal(file_out_open(p, &f, &err), 0);
    assert_int_equal(file_out_open(p, &g, &err), 0);
    assert_int_equal(file_out_write(f, "first", 5, &err), 0);
    assert_int_equal(file_out_write(g, "second", 6, &err), 0);
    assert_int_equal(file_out_commit(g, &err), 0);
    want_file(p, "second");
    assert_int_equal(file_out_commit(f, &err), 0);
    want_file(p, "first");
    assert_int_equal(n_files(), 1);
    unlink(p);
    mem_free(p);
}

/* Pieces around the size of the buffer, in every order. */
static void test_out_sizes(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 700000, 2};
    enum { N = sizeof sizes / sizeof *sizes };
    struct runt_err err = {0};
    char *p = in_dir("sizes"), *want = malloc(1 << 22), *got = NULL;
    assert_non_null(want);
    for (int shift = 0; shift < N; shift++) {
        struct file_out *f = NULL;
        size_t n = 0, n_got = 0;
        assert_int_equal(file_out_open(p, &f, &err), 0);
        for (int i = 0; i < N; i++) {
            size_t k = sizes[(i + shift) % N];
            for (size_t j = 0; j < k; j++)
                want[n + j] = (char)((n + j) * 31 >> 3);
            assert_int_equal(file_out_write(f, want + n, k, &err), 0);
            n += k;
            assert_int_equal(file_out_pos(f), n);
        }
        assert_int_equal(file_out_commit(f, &err), 0);
        assert_int_equal(file_read(p, 1 << 22, &got, &n_got, &err), 0);
        assert_int_equal(n_got, n);
        assert_int_equal(memcmp(got, want, n), 0);
        mem_free(got);
    }
    unlink(p);
    free(want);
    mem_free(p);
}

static void test_out_fails(void **state)
{
    (void)state;
    struct runt_err err = {0};
    struct file_out *sentinel = (struct file_out *)(uintptr_t)0x5a, *f = sentinel;
    char *none = in_dir("none/x"), *slash = in_dir("none/"), *p = in_dir("fail");
    long live = mem_live();
    assert_int_equal(file_out_open(none, &f, &err), RUNT_E_NOTFOUND);
    assert_int_equal(file_out_open(dir, &f, &err), RUNT_E_IO);
    assert_non_null(strstr(err.msg, "is a directory"));
    assert_int_equal(file_out_open(slash, &f, &err), RUNT_E_IO);
    assert_int_equal(file_out_open("", &f, &err), RUNT_E_IO);
    assert_int_equal(file_out_open("/dev/null", &f, &err), RUNT_E_IO);
    assert_non_null(strstr(err.msg, "/dev/null: cannot write: not a regular file"));
    assert_ptr_equal(f, sentinel);

    /* the name became a directory meanwhile */
    assert_int_equal(file_out_open(p, &f, &err), 0);
    assert_int_equal(mkdir(p, 0700), 0);
    assert_int_equal(file_out_commit(f, &err), RUNT_E_IO);
    assert_int_equal(n_files(), 1);
    rmdir(p);

    for (long k = 0, rc = RUNT_E_NOMEM; rc; k++) {
        assert_in_range(k, 0, 10);
        mem_fail_after(k);
        rc = file_out_open(p, &f, &err);
        mem_fail_after(-1);
        assert_true(rc == 0 || rc == RUNT_E_NOMEM);
        assert_int_equal(n_files(), rc ? 0 : 1);
    }
    file_out_abort(f);
    assert_int_equal(n_files(), 0);
    assert_int_equal(mem_live(), live);
    mem_free(none);
    mem_free(slash);
    mem_free(p);
}

/* A write that failed is not forgotten by commit. */
static void test_out_full(void **state)
{
    (void)state;
    struct runt_err err = {0};
    struct rlimit old, small;
    struct file_out *f = NULL;
    char *p = in_dir("full"), *bytes = mem_zalloc(1 << 20);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 1000;
    assert_int_equal(file_out_open(p, &f, &err), 0);
    setrlimit(RLIMIT_FSIZE, &small);
    int wrote = file_out_write(f, bytes, 1 << 20, &err);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(wrote, RUNT_E_IO);
    assert_non_null(strstr(err.msg, "full: cannot write"));
    assert_int_equal(file_out_write(f, "x", 1, &err), 0);
    assert_int_equal(file_out_commit(f, &err), RUNT_E_IO);
    assert_int_equal(n_files(), 0);
    mem_free(bytes);
    mem_free(p);
}

/* A link under the temporary's name, planted in a directory that others may write, is
 * not followed. */
static void test_out_planted(void **state)
{
    (void)state;
    struct runt_err err = {0};
    struct file_out *f = NULL;
    char *p = in_dir("x"), *victim = in_dir("victim"), link[512];
    write_file(victim, "precious");
    snprintf(link, sizeof link, "%s/.x.tmp-%ld-0", dir, (long)getpid());
    assert_int_equal(symlink(victim, link), 0);
    assert_int_equal(file_out_open(p, &f, &err), 0);
    assert_int_equal(file_out_write(f, "mine", 4, &err), 0);
    assert_int_equal(file_out_commit(f, &err), 0);
    want_file(victim, "precious");
    want_file(p, "mine");
    unlink(link);
    unlink(victim);
    unlink(p);
    assert_int_equal(n_files(), 0);
    mem_free(victim);
    mem_free(p);
}

/* ---- threads ---- */

struct job {
    size_t total, step;
    atomic_uchar *n_seen; /* of each index */
    atomic_uint bad;
    pthread_t thread[8];
};

static void cover(void *ctx, unsigned i, unsigned n)
{
    struct job *j = ctx;
    size_t begin, end;
    pool_range(j->total, j->step, i, n, &begin, &end);
    if (begin > end || end > j->total || (begin % j->step && begin != j->total))
        atomic_fetch_add(&j->bad, 1);
    for (size_t k = begin; k < end; k++)
        atomic_fetch_add(&j->n_seen[k], 1);
    j->thread[i] = pthread_self();
}

static void test_pool_covers(void **state)
{
    (void)state;
    static const size_t totals[] = {0, 1, 2, 7, 8, 9, 63, 64, 65, 768, 1000, 50257};
    static const size_t steps[] = {1, 3, 8, 16, 64};
    struct job j = {.n_seen = malloc(50257)};
    assert_non_null(j.n_seen);
    for (unsigned n = 1; n <= 8; n++) {
        struct pool *p = NULL;
        pthread_t first[8];
        assert_int_equal(pool_create(n, &p, NULL), 0);
        assert_int_equal(pool_n_threads(p), n);
        for (size_t t = 0; t < sizeof totals / sizeof *totals; t++)
            for (size_t s = 0; s < sizeof steps / sizeof *steps; s++) {
                j.total = totals[t];
                j.step = steps[s];
                memset(j.n_seen, 0, j.total);
                pool_run(p, cover, &j);
                for (size_t k = 0; k < j.total; k++)
                    assert_int_equal(j.n_seen[k], 1);
                /* part i always runs on the same thread, part 0 on the caller's */
                if (t + s == 0)
                    memcpy(first, j.thread, sizeof first);
                for (unsigned i = 0; i < n; i++)
                    assert_true(pthread_equal(first[i], j.thread[i]));
                assert_true(pthread_equal(j.thread[0], pthread_self()));
            }
        pool_destroy(p);
    }
    assert_int_equal(j.bad, 0);
    j.total = 100;
    j.step = 1;
    memset(j.n_seen, 0, 100);
    pool_run(NULL, cover, &j);
    for (size_t k = 0; k < 100; k++)
        assert_int_equal(j.n_seen[k], 1);
    free(j.n_seen);
}

struct tiny {
    unsigned long done[8]; /* plain: pool_run itself must order them */
};

static void tick(void *ctx, unsigned i, unsigned n)
{
    (void)n;
    ((struct tiny *)ctx)->done[i]++;
}

/* A lost wakeup hangs here; alarm turns that into a failure.  Pauses now and then let
 * the workers fall asleep, so that both ways of waking are taken. */
static void test_pool_tiny_jobs(void **state)
{
    (void)state;
    alarm(120);
    for (unsigned n = 2; n <= 8; n += 3) {
        struct pool *p = NULL;
        struct tiny t = {0};
        assert_int_equal(pool_create(n, &p, NULL), 0);
        /* more threads than cores take turns, which is slow */
        unsigned long n_jobs = n == 2 ? 20000 : 2000;
        for (unsigned long k = 1; k <= n_jobs; k++) {
            pool_run(p, tick, &t);
            for (unsigned i = 0; i < n; i++)
                assert_int_equal(t.done[i], k);
            if (k % 500 == 0)
                usleep(300);
        }
        pool_destroy(p);
    }
    alarm(0);
}

struct meeting {
    struct pool *pool;
    unsigned n_phases, n, nap; /* nap: microseconds that the last thread takes */
    unsigned phase[8];         /* plain: the barrier itself must order them */
    atomic_uint bad;
};

static void meet(void *ctx, unsigned i, unsigned n)
{
    struct meeting *m = ctx;
    if (i == 0)
        m->n = n;
    for (unsigned k = 1; k <= m->n_phases; k++) {
        m->phase[i] = k;
        if (m->nap && i == n - 1 && n > 1)
            usleep(m->nap);
        pool_barrier(m->pool, i);
        for (unsigned j = 0; j < n; j++)
            if (m->phase[j] != k)
                atomic_fetch_add(&m->bad, 1);
        pool_barrier(m->pool, i);
    }
}

/* Nobody passes a barrier before all have come, whether they wait short or long. */
static void test_pool_barrier(void **state)
{
    (void)state;
    alarm(120);
    for (unsigned n = 1; n <= 8; n++) {
        struct meeting m = {.n_phases = 200};
        assert_int_equal(pool_create(n, &m.pool, NULL), 0);
        for (unsigned k = 0; k < 10; k++) {
            m.nap = k % 5 == 4 ? 100 : 0;
            m.n_phases = m.nap ? 20 : 200;
            (k % 2 ? pool_run : pool_run_free)(m.pool, meet, &m);
            assert_true(m.n >= 1 && m.n <= n);
        }
        assert_int_equal(m.bad, 0);
        pool_destroy(m.pool);
    }
    pool_barrier(NULL, 0);
    alarm(0);
}

/* A thread that keeps coming late is left out of pool_run_free, never of pool_run, and
 * gets its chance again. */
static void test_pool_leaves_late_threads_out(void **state)
{
    (void)state;
    alarm(120);
    struct meeting m = {.n_phases = 1, .nap = 3000};
    assert_int_equal(pool_create(2, &m.pool, NULL), 0);
    m.n = 2;
    for (int k = 0; k < 10000 && m.n > 1; k++)
        pool_run_free(m.pool, meet, &m);
    assert_int_equal(m.n, 1);
    pool_run(m.pool, meet, &m);
    assert_int_equal(m.n, 2);
    m.nap = 0;
    m.n = 1;
    while (m.n < 2) { /* a trial, at the latest after a second */
        usleep(1000);
        pool_run_free(m.pool, meet, &m);
    }
    assert_int_equal(m.bad, 0);
    pool_destroy(m.pool);
    alarm(0);
}

static void test_pool_create(void **state)
{
    (void)state;
    struct runt_err err = {0};
    struct pool *sentinel = (struct pool *)(uintptr_t)0x5a, *p = sentinel;
    long live = mem_live();
    assert_int_equal(pool_create(POOL_MAX_THREADS + 1, &p, &err), RUNT_E_INVALID);
    assert_string_equal(err.msg, "257 threads: the limit is 256");
    mem_fail_after(0);
    assert_int_equal(pool_create(2, &p, &err), RUNT_E_NOMEM);
    assert_ptr_equal(p, sentinel);
    assert_int_equal(pool_create(0, &p, &err), 0);
    unsigned cores = cpu_n_cores();
    assert_int_equal(pool_n_threads(p),
                     cores < POOL_MAX_THREADS ? cores : POOL_MAX_THREADS);
    pool_destroy(p);
    for (int i = 0; i < 200; i++) { /* without a job, at once and after a nap */
        assert_int_equal(pool_create(1 + (unsigned)i % 8, &p, &err), 0);
        if (i % 20 == 0)
            usleep(1000);
        pool_destroy(p);
    }
    pool_destroy(NULL);
    assert_int_equal(pool_n_threads(NULL), 1);
    assert_int_equal(mem_live(), live);
}

static int setup(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/test-base-XXXXXX", tmp ? tmp : "/tmp");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return rmdir(dir); /* fails when a test left a file behind */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_map),
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_make_dirs),
        cmocka_unit_test(test_out),
        cmocka_unit_test(test_out_sizes),
        cmocka_unit_test(test_out_fails),
        cmocka_unit_test(test_out_full),
        cmocka_unit_test(test_out_planted),
        cmocka_unit_test(test_pool_covers),
        cmocka_unit_test(test_pool_tiny_jobs),
        cmocka_unit_test(test_pool_barrier),
        cmocka_unit_test(test_pool_leaves_late_threads_out),
        cmocka_unit_test(test_pool_create),
    };
    return cmocka_run_group_tests_name("base_os", tests, setup, teardown);
}
