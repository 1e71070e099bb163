/* Owns the only calls of oneDNN, a library of C++ with threads of its own (OpenMP):
 * opened when it is first needed, and told to use one thread in each of ours.
 *
 * Float products are its dnnl_sgemm; products of bfloat16 its matmul primitive, made
 * for one shape and layout and kept: making one takes longer than a small product. */
#include "back/gemm_impl.h"

#ifdef HAVE_ONEDNN
#include "base/mem.h"

#include <dlfcn.h>
#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>
#include <string.h>

#define CALLS(X)                        \
    X(dnnl_sgemm)                       \
    X(dnnl_engine_create)               \
    X(dnnl_stream_create)               \
    X(dnnl_memory_desc_init_by_strides) \
    X(dnnl_matmul_desc_init)            \
    X(dnnl_post_ops_create)             \
    X(dnnl_post_ops_append_sum)         \
    X(dnnl_post_ops_destroy)            \
    X(dnnl_primitive_attr_create)       \
    X(dnnl_primitive_attr_set_post_ops) \
    X(dnnl_primitive_attr_destroy)      \
    X(dnnl_primitive_desc_create)       \
    X(dnnl_primitive_desc_destroy)      \
    X(dnnl_primitive_create)            \
    X(dnnl_primitive_execute)           \
    X(dnnl_primitive_destroy)           \
    X(dnnl_memory_create)               \
    X(dnnl_memory_set_data_handle)      \
    X(dnnl_memory_destroy)              \
    X(dnnl_stream_wait)                 \
    X(dnnl_stream_destroy)              \
    X(dnnl_engine_destroy)

struct onednn {
#define MEMBER(name) __typeof__(&name) name;
    CALLS(MEMBER)
#undef MEMBER
    void (*omp_set_num_threads)(int);
};

static struct onednn the_library;
static bool have_library;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static bool find(void *library, const char *name, void *to)
{
    *(void **)to = dlsym(library, name); /* POSIX lets a pointer hold a function */
    return *(void **)to != NULL;
}

static void look(void)
{
    void *library = dlopen("libdnnl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return;
    bool all = true;
#define FIND(name) all = find(library, #name, &the_library.name) && all;
    CALLS(FIND)
#undef FIND
    /* of whichever OpenMP it was built with; built without, it has no threads */
    find(library, "omp_set_num_threads", &the_library.omp_set_num_threads);
    have_library = all;
}

const struct onednn *onednn_get(void)
{
    pthread_once(&once, look);
    return have_library ? &the_library : NULL;
}

/* oneDNN's own rule: bfloat16 wants AVX-512 at least, and is worth having only where
 * the processor multiplies it. */
bool onednn_has_bf16(const struct onednn *d)
{
    (void)d;
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
}

void onednn_f32(const struct onednn *d, enum gemm_form form, size_t m, size_t n,
                size_t k, const float *a, size_t a_step, const float *b, size_t b_step,
                bool add, float *c, size_t c_step)
{
    if (d->omp_set_num_threads)
        d->omp_set_num_threads(1);
    d->dnnl_sgemm(form == GEMM_TN ? 'T' : 'N', form == GEMM_NT ? 'T' : 'N',
                  (dnnl_dim_t)m, (dnnl_dim_t)n, (dnnl_dim_t)k, 1, a, (dnnl_dim_t)a_step,
                  b, (dnnl_dim_t)b_step, add ? 1 : 0, c, (dnnl_dim_t)c_step);
}

/* ---- bfloat16 ---- */

struct shape {
    enum gemm_form form;
    bool add;
    size_t m, n, k, a_step, b_step, c_step;
};

struct product {
    struct shape shape;
    dnnl_primitive_t primitive; /* NULL: the library refused it */
    dnnl_memory_t a, b, c;
};

enum { MAX_PRODUCTS = 256 }; /* shapes of a step: some dozens */

struct onednn_thread {
    const struct onednn *d;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    size_t n;
    struct product products[MAX_PRODUCTS];
};

struct onednn_thread *onednn_thread_open(const struct onednn *d)
{
    struct onednn_thread *t = mem_zalloc(sizeof *t);
    if (!t)
        return NULL;
    t->d = d;
    if (d->dnnl_engine_create(&t->engine, dnnl_cpu, 0) != dnnl_success ||
        d->dnnl_stream_create(&t->stream, t->engine, dnnl_stream_default_flags) !=
            dnnl_success) {
        onednn_thread_close(t);
        return NULL;
    }
    return t;
}

static void free_product(const struct onednn *d, struct product *p)
{
    d->dnnl_memory_destroy(p->a);
    d->dnnl_memory_destroy(p->b);
    d->dnnl_memory_destroy(p->c);
    d->dnnl_primitive_destroy(p->primitive);
}

void onednn_thread_close(struct onednn_thread *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n; i++)
        free_product(t->d, &t->products[i]);
    if (t->stream)
        t->d->dnnl_stream_destroy(t->stream);
    if (t->engine)
        t->d->dnnl_engine_destroy(t->engine);
    mem_free(t);
}

static bool describe(const struct onednn *d, dnnl_memory_desc_t *out, size_t rows,
                     size_t cols, size_t row_step, size_t col_step,
                     dnnl_data_type_t type)
{
    dnnl_dims_t dims = {(dnnl_dim_t)rows, (dnnl_dim_t)cols};
    dnnl_dims_t steps = {(dnnl_dim_t)row_step, (dnnl_dim_t)col_step};
    return d->dnnl_memory_desc_init_by_strides(out, 2, dims, type, steps) ==
           dnnl_success;
}

static bool make(struct onednn_thread *t, struct product *p)
{
    const struct onednn *d = t->d;
    const struct shape *s = &p->shape;
    bool at = s->form == GEMM_TN, bt = s->form == GEMM_NT, ok;
    dnnl_memory_desc_t a, b, c;
    dnnl_matmul_desc_t desc;
    dnnl_post_ops_t sum = NULL;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    ok = describe(d, &a, s->m, s->k, at ? 1 : s->a_step, at ? s->a_step : 1,
                  dnnl_bf16) &&
         describe(d, &b, s->k, s->n, bt ? 1 : s->b_step, bt ? s->b_step : 1,
                  dnnl_bf16) &&
         describe(d, &c, s->m, s->n, s->c_step, 1, dnnl_f32) &&
         d->dnnl_matmul_desc_init(&desc, &a, &b, NULL, &c) == dnnl_success &&
         d->dnnl_primitive_attr_create(&attr) == dnnl_success;
    if (ok && s->add)
        ok = d->dnnl_post_ops_create(&sum) == dnnl_success &&
             d->dnnl_post_ops_append_sum(sum, 1) == dnnl_success &&
             d->dnnl_primitive_attr_set_post_ops(attr, sum) == dnnl_success;
    ok =
        ok &&
        d->dnnl_primitive_desc_create(&pd, &desc, attr, t->engine, NULL) ==
            dnnl_success &&
        d->dnnl_primitive_create(&p->primitive, pd) == dnnl_success &&
        d->dnnl_memory_create(&p->a, &a, t->engine, DNNL_MEMORY_NONE) == dnnl_success &&
        d->dnnl_memory_create(&p->b, &b, t->engine, DNNL_MEMORY_NONE) == dnnl_success &&
        d->dnnl_memory_create(&p->c, &c, t->engine, DNNL_MEMORY_NONE) == dnnl_success;
    if (pd)
        d->dnnl_primitive_desc_destroy(pd);
    if (attr)
        d->dnnl_primitive_attr_destroy(attr);
    if (sum)
        d->dnnl_post_ops_destroy(sum);
    if (!ok) {
        free_product(d, p);
        *p = (struct product){.shape = *s};
    }
    return ok;
}

static struct product *find_product(struct onednn_thread *t, const struct shape *s)
{
    for (size_t i = 0; i < t->n; i++)
        if (!memcmp(&t->products[i].shape, s, sizeof *s))
            return &t->products[i];
    struct product *p = &t->products[t->n < MAX_PRODUCTS ? t->n++ : 0];
    free_product(t->d, p);
    memset(p, 0, sizeof *p);
    p->shape = *s;
    make(t, p);
    return p;
}

bool onednn_bf16(struct onednn_thread *t, enum gemm_form form, size_t m, size_t n,
                 size_t k, const void *a, size_t a_step, const void *b, size_t b_step,
                 bool add, float *c, size_t c_step)
{
    const struct onednn *d = t->d;
    struct shape s;
    memset(&s, 0, sizeof s); /* compared with its padding */
    s.form = form;
    s.add = add;
    s.m = m, s.n = n, s.k = k, s.a_step = a_step, s.b_step = b_step, s.c_step = c_step;
    struct product *p = find_product(t, &s);
    if (!p->primitive)
        return false;
    if (d->omp_set_num_threads)
        d->omp_set_num_threads(1);
    /* It takes pointers to what may be written, and writes c alone. */
    union {
        const void *from;
        void *to;
    } pa = {.from = a}, pb = {.from = b};
    dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, p->a}, {DNNL_ARG_WEIGHTS, p->b}, {DNNL_ARG_DST, p->c}};
    return d->dnnl_memory_set_data_handle(p->a, pa.to) == dnnl_success &&
           d->dnnl_memory_set_data_handle(p->b, pb.to) == dnnl_success &&
           d->dnnl_memory_set_data_handle(p->c, c) == dnnl_success &&
           d->dnnl_primitive_execute(p->primitive, t->stream, 3, args) ==
               dnnl_success &&
           d->dnnl_stream_wait(t->stream) == dnnl_success;
}

#else /* built without its headers */
const struct onednn *onednn_get(void)
{
    return NULL;
}

bool onednn_has_bf16(const struct onednn *d)
{
    (void)d;
    return false;
}

struct onednn_thread *onednn_thread_open(const struct onednn *d)
{
    (void)d;
    return NULL;
}

void onednn_thread_close(struct onednn_thread *t)
{
    (void)t;
}

void onednn_f32(const struct onednn *d, enum gemm_form form, size_t m, size_t n,
                size_t k, const float *a, size_t a_step, const float *b, size_t b_step,
                bool add, float *c, size_t c_step)
{
    (void)d, (void)form, (void)m, (void)n, (void)k, (void)a, (void)a_step;
    (void)b, (void)b_step, (void)add, (void)c, (void)c_step;
}

bool onednn_bf16(struct onednn_thread *t, enum gemm_form form, size_t m, size_t n,
                 size_t k, const void *a, size_t a_step, const void *b, size_t b_step,
                 bool add, float *c, size_t c_step)
{
    (void)t, (void)form, (void)m, (void)n, (void)k, (void)a, (void)a_step;
    (void)b, (void)b_step, (void)add, (void)c, (void)c_step;
    return false;
}
#endif
