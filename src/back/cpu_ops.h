/* The CPU's tensor operations: the row kernels spread over the threads of a pool.
 *
 * A forward pass is one function that every thread runs from beginning to end.  Each
 * operation here is called by all of them with the same arguments (but for struct
 * cpu_thread) and does its own thread's part; cpu_sync stands where one thread needs
 * what another has made, and nowhere else.  Work is split by output row (a product), by
 * token (norms), or by head, so results do not depend on the number of threads, nor on
 * how many tokens share a pass.
 *
 * What a single token's product reads is so small that every thread makes it for
 * itself: that is cheaper than a barrier. */
#ifndef RUNT_BACK_CPU_OPS_H
#define RUNT_BACK_CPU_OPS_H

#include "base/pool.h"
#include "fmt/fmt.h"
#include "kern/kern.h"

/* ---- matrices ---- */

/* What adapters add to a product: y += (x a^T) b, in floats.  Several make one of a
 * higher rank. */
struct cpu_low {
    size_t rank; /* 0: nothing */
    float *a;    /* [rank][n_cols] */
    float *b;    /* [rank][n_rows]: by columns, so that a block of rows is a run */
};

/* n_rows rows of n_cols numbers, as products read them. */
struct cpu_matrix {
    const struct fmt_info *fmt;
    size_t n_rows, n_cols;
    size_t bytes; /* that one pass over it reads, without adapters */
    /* Block formats with kernels of their own: tiles of 16 rows, in the mapped file
     * (R4) or packed.  tile == NULL: plain rows. */
    kern_tile_fn *tile;
    size_t tile_bytes;
    const uint8_t *data; /* [n_tiles][tile_bytes] or [n_rows][row_bytes] */
    size_t row_bytes;
    kern_dot_fn *dot;   /* of plain rows; NULL: rows are decoded, slowly */
    void *packed;       /* owned, or NULL */
    struct cpu_low low; /* owned */
};

/* RUNT_E_FORMAT when a row is not whole blocks, RUNT_E_NOMEM.  `data` outlives the
 * matrix unless it was packed (packed != NULL); packing uses the pool (NULL is fine).
 */
int cpu_matrix_init(const struct kern_table *kern, struct pool *pool,
                    const struct fmt_info *fmt, const uint8_t *data, size_t n_rows,
                    size_t n_cols, struct cpu_matrix *out, struct runt_err *err);
void cpu_matrix_free(struct cpu_matrix *m);

/* A matrix's adapters and one more, a [rank][n_cols] and scale b, b [n_rows][rank].
 * RUNT_E_NOMEM; freed with cpu_low_free. */
int cpu_low_join(const struct cpu_low *old, size_t n_rows, size_t n_cols, size_t rank,
                 const float *a, const float *b, double scale, struct cpu_low *out,
                 struct runt_err *err);
void cpu_low_free(struct cpu_low *l);
/* Bytes and operations of one pass over the matrix, with what adapters add, for n
 * tokens; a multiply-add is two. */
size_t cpu_matrix_bytes(const struct cpu_matrix *m);
uint64_t cpu_matrix_ops(const struct cpu_matrix *m, size_t n);

/* ---- threads ---- */

/* Floats a thread uses for the output of a block of rows of a product. */
enum { CPU_BLOCK_FLOATS = 16384, CPU_QUERIES = 16 };

/* Where a token's time goes: thread 0 notes what each operation took, read and did. */
enum cpu_op {
    CPU_EMBED,
    CPU_NORM,
    CPU_QKV,
    CPU_ATTENTION,
    CPU_ATTN_OUTPUT,
    CPU_FFN_UP,
    CPU_FFN_DOWN,
    CPU_HEAD,
    CPU_WAIT,
    CPU_N_OPS,
};
struct cpu_account {
    bool timed; /* else seconds stay 0 */
    double seconds[CPU_N_OPS];
    uint64_t bytes[CPU_N_OPS], ops[CPU_N_OPS]; /* weights and cache; multiply-add = 2 */
};

/* One thread of a forward pass. */
struct cpu_thread {
    const struct kern_table *kern;
    struct pool *pool;
    unsigned i, n;           /* thread i of n */
    struct kern_act *act;    /* this thread's own, for one token */
    float *block;            /* [CPU_BLOCK_FLOATS] */
    float *low;              /* [rank], of one token */
    void *attn;              /* cpu_attn_scratch_bytes */
    struct cpu_account *acc; /* thread 0 only, else NULL */
    double last;             /* when its last operation ended */
};

void cpu_sync(struct cpu_thread *t);
/* Thread 0's account of what was done since the last mark. */
void cpu_mark(struct cpu_thread *t, enum cpu_op op, uint64_t bytes, uint64_t ops);
double cpu_seconds(void);

/* ---- norms and products ---- */

/* What a product reads: 8-bit activations (tiles) or floats (rows); and where the
 * matrix is adapted x a^T, made of the floats by whoever makes the others. */
struct cpu_input {
    const struct kern_act *act; /* [n][kern_n_groups(n_cols)] */
    const float *x;             /* [n][n_cols] */
    const float *low;           /* [n][rank] */
};

/* Room for the above, for passes of several tokens; shared by the threads. */
struct cpu_buffer {
    struct kern_act *act;
    float *x;
    float *low;
};

/* Layer norm of x [n_tokens][n_cols] for the product with w; a barrier inside where
 * threads share the work.  x is complete before the call. */
struct cpu_input cpu_norm(struct cpu_thread *t, const struct cpu_matrix *w,
                          size_t n_tokens, const float *x, const float *gain,
                          const float *bias, float eps, const struct cpu_buffer *to);

/* x [n_tokens][n_cols] as it is, for the product with w; likewise. */
struct cpu_input cpu_prepare(struct cpu_thread *t, const struct cpu_matrix *w,
                             size_t n_tokens, const float *x,
                             const struct cpu_buffer *to);

/* y = matrix row r . token + bias[r] (unless NULL), and then
 *   CPU_STORE  out[token * stride + r] = y
 *   CPU_ADD    out[token * stride + r] += y
 *   CPU_GELU   out[token * stride + r] = GELU(y) */
enum cpu_sink { CPU_STORE, CPU_ADD, CPU_GELU };
void cpu_matmul(struct cpu_thread *t, const struct cpu_matrix *w, struct cpu_input in,
                size_t n_tokens, const float *bias, enum cpu_sink sink, float *out,
                size_t stride);
/* The rows from begin to end - 1 only, by this thread alone; both are multiples of
 * KERN_TILE_ROWS or n_rows. */
void cpu_matmul_rows(struct cpu_thread *t, const struct cpu_matrix *w, size_t begin,
                     size_t end, struct cpu_input in, size_t n_tokens,
                     const float *bias, enum cpu_sink sink, float *out, size_t stride);

/* ---- attention ---- */

/* Consecutive tokens of one sequence in a pass: the first is number `first` of the pass
 * and stands at position `pos`. */
struct cpu_span {
    size_t first, n, pos;
    uint8_t *cache; /* of the sequence */
};

struct cpu_attention {
    enum kern_kv kv;
    size_t n_embd, n_head, n_tokens;
    /* A sequence's cache is blocks of KERN_ATTN_BLOCK positions, block_bytes each; a
     * layer's part of a block begins layer_at bytes into it and is cpu_attn_layer_bytes
     * long: for each head its keys' stripes, then its values'. */
    size_t block_bytes, layer_at;
    const struct cpu_span *spans; /* of all tokens of the pass, in order */
    size_t n_spans;
    const float *qkv; /* [n_tokens][3 * n_embd] */
    float *out;       /* [n_tokens][n_embd] */
};
/* Causal self-attention: keys and values of the pass go to the caches, then every token
 * sees the positions of its sequence up to its own.  qkv is complete before the call;
 * of a single token, the heads that this thread is dealt (pool_range of n_head)
 * suffice.
 */
void cpu_attend(struct cpu_thread *t, const struct cpu_attention *a);

size_t cpu_attn_layer_bytes(enum kern_kv kv, size_t n_head, size_t n_dim);
size_t cpu_attn_scratch_bytes(enum kern_kv kv, size_t n_dim);

#endif
