/* Any bytes as a checkpoint of a training run: refused in one line, or its state and
 * numbers fill a run of the shape below.
 * Seeds: corpus/checkpoint, made by tools/gen_checkpoint_corpus.py. */
#include "base/mem.h"
#include "train/checkpoint.h"

#include <stdlib.h>
#include <string.h>

static const struct gpt2_shape shape = {.n_vocab = 257,
                                        .n_ctx = 8,
                                        .n_embd = 4,
                                        .n_head = 2,
                                        .n_layer = 1,
                                        .n_ff = 8,
                                        .eps = 1e-5f};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int holds)
{
    if (!holds)
        abort();
}

/* One for all inputs: it only takes numbers. */
static struct optim *a_run(void)
{
    static struct optim *o;
    struct pool *pool;
    struct net *net;
    if (o)
        return o;
    must(!pool_create(1, &pool, NULL));
    struct net_options no = {.shape = &shape, .n_seqs = 1, .seq_len = 4, .pool = pool};
    struct optim_options oo = {.lr = 1e-3, .steps = 10, .beta1 = 0.9, .beta2 = 0.95};
    must(!net_create(&no, &net, NULL) && !optim_create(&oo, net, &o, NULL));
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct optim *o = a_run();
    struct runt_err err = {0};
    struct gguf *g = NULL;
    struct checkpoint_state s;
    struct gguf_str *args = NULL;
    size_t n_args = 0, sum = 0;
    long live = mem_live();
    if (!gguf_parse(data, size, "fuzz.gguf", &g, &err)) {
        if (!checkpoint_read_state(g, &s, &args, &n_args, &err))
            for (size_t i = 0; i < n_args; i++)
                for (size_t k = 0; k < args[i].len; k++)
                    sum += (unsigned char)args[i].data[k];
        else
            must(!args && !strncmp(err.msg, "fuzz.gguf", 9));
        must(sum <= 255 * size);
        if (checkpoint_read(g, o, &err))
            must(!strncmp(err.msg, "fuzz.gguf", 9));
        mem_free(args);
        gguf_close(g);
    }
    must(mem_live() == live);
    return 0;
}
