/* Owns the schedule of the learning rate and the update of weights. */
#include "train/optim.h"

#include "base/err.h"

#include <math.h>
#include <string.h>

enum { PART = 1 << 16 };

double optim_rate(const struct optim_options *o, uint64_t step)
{
    if (step < o->warmup)
        return o->lr * (double)(step + 1) / (double)o->warmup;
    if (o->schedule == OPTIM_CONSTANT || o->steps <= o->warmup + 1)
        return o->lr;
    double way = (double)(step - o->warmup) / (double)(o->steps - 1 - o->warmup);
    way = way > 1 ? 1 : way;
    double share = o->schedule == OPTIM_LINEAR ? 1 - way : (1 + cos(M_PI * way)) / 2;
    return o->min_lr + (o->lr - o->min_lr) * share;
}

int optim_create(const struct optim_options *o, struct net *net, struct optim **out,
                 struct runt_err *err)
{
    struct optim *p = mem_zalloc(sizeof *p);
    size_t bytes = net->n_trained * sizeof(float);
    if (p) {
        p->o = *o;
        p->net = net;
        p->n_parts = (net->n_trained + PART - 1) / PART;
        p->m = mem_huge(bytes);
        p->v = mem_huge(bytes);
        p->squares = mem_array(p->n_parts, sizeof *p->squares);
    }
    if (!p || !p->m || !p->v || !p->squares) {
        optim_free(p);
        return err_nomem(err, "the optimizer's moments");
    }
    memset(p->m, 0, bytes);
    memset(p->v, 0, bytes);
    *out = p;
    return 0;
}

void optim_free(struct optim *o)
{
    if (!o)
        return;
    mem_free(o->m);
    mem_free(o->v);
    mem_free(o->squares);
    mem_free(o);
}

static void norm_thread(void *ctx, unsigned i, unsigned n)
{
    struct optim *o = ctx;
    size_t begin, end;
    pool_range(o->n_parts, 1, i, n, &begin, &end);
    for (size_t p = begin; p < end; p++) {
        size_t left = o->net->n_trained - p * PART;
        o->squares[p] = o->net->cpu.kern->sum_squares(left < PART ? left : PART,
                                                      o->net->g + p * PART);
    }
}

double optim_norm(struct optim *o)
{
    double sum = 0;
    pool_run(o->net->o.pool, norm_thread, o);
    for (size_t p = 0; p < o->n_parts; p++)
        sum += o->squares[p];
    return sqrt(sum);
}

struct update {
    struct optim *o;
    struct grad_adamw matrix, vector;
};

static void update_thread(void *ctx, unsigned i, unsigned n_threads)
{
    const struct update *u = ctx;
    struct net *n = u->o->net;
    for (size_t p = 0; p < n->n_params; p++) {
        const struct net_param *q = &n->params[p];
        size_t begin, end;
        if (q->frozen)
            continue;
        pool_range(q->desc.n_rows * q->desc.n_cols, 1024, i, n_threads, &begin, &end);
        size_t at = q->at + begin, count = end - begin;
        n->cpu.kern->adamw(count, q->desc.n_dims == 2 ? &u->matrix : &u->vector,
                           n->g + at, n->w + at, u->o->m + at, u->o->v + at);
        if (n->h)
            n->cpu.kern->to_bf16(count, n->w + at, n->h + at);
        memset(n->g + at, 0, count * sizeof *n->g);
    }
}

void optim_step(struct optim *o, uint64_t step, double norm)
{
    double rate = optim_rate(&o->o, step), t = (double)(step + 1);
    double scale = o->o.clip > 0 ? o->o.clip / (norm + 1e-6) : 1;
    struct update u = {.o = o};
    u.vector = (struct grad_adamw){
        .beta1 = (float)o->o.beta1,
        .beta2 = (float)o->o.beta2,
        .eps = (float)o->o.eps,
        .keep = 1,
        .rate = (float)(rate / (1 - pow(o->o.beta1, t))),
        .inv_root = (float)(1 / sqrt(1 - pow(o->o.beta2, t))),
        .grad_scale = scale < 1 ? (float)scale : 1,
    };
    u.matrix = u.vector;
    u.matrix.keep = (float)(1 - rate * o->o.weight_decay);
    pool_run(o->net->o.pool, update_thread, &u);
}
