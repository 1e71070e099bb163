/* Owns the schedule of the learning rate and the update of weights. */
#include "train/optim.h"

#include "base/err.h"
#include "train/net_device.h"

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

static void cut_parts(struct optim *p)
{
    for (size_t k = 0, n = 0; k < p->n_pieces; k++)
        for (size_t done = 0; done < p->pieces[k].n; done += PART) {
            size_t left = p->pieces[k].n - done;
            p->parts[n++] =
                (struct optim_piece){p->pieces[k].at + done, left < PART ? left : PART};
        }
}

int optim_create(const struct optim_options *o, struct net *net, struct optim **out,
                 struct runt_err *err)
{
    struct optim *p = mem_zalloc(sizeof *p);
    size_t bytes = net->n_trained * sizeof(float);
    struct optim_piece all = {0, net->n_trained};
    const struct optim_piece *pieces = o->pieces ? o->pieces : &all;
    if (p) {
        p->o = *o;
        p->net = net;
        p->n_pieces = o->pieces ? o->n_pieces : 1;
        for (size_t k = 0; k < p->n_pieces; k++)
            p->n_parts += (pieces[k].n + PART - 1) / PART;
        p->m = mem_huge(bytes);
        p->v = mem_huge(bytes);
        p->pieces = mem_array(p->n_pieces, sizeof *p->pieces);
        p->parts = mem_array(p->n_parts, sizeof *p->parts);
        p->squares = mem_array(p->n_parts, sizeof *p->squares);
    }
    if (!p || !p->m || !p->v || !p->pieces || !p->parts || !p->squares) {
        optim_free(p);
        return err_nomem(err, "the optimizer's moments");
    }
    memcpy(p->pieces, pieces, p->n_pieces * sizeof *pieces);
    cut_parts(p);
    for (size_t k = 0; k < p->n_pieces; k++) {
        memset(p->m + pieces[k].at, 0, pieces[k].n * sizeof *p->m);
        memset(p->v + pieces[k].at, 0, pieces[k].n * sizeof *p->v);
    }
    int rc = net->o.device ? net->o.device->optim_create(p, err) : 0;
    if (rc)
        optim_free(p);
    else
        *out = p;
    return rc;
}

int optim_filled(struct optim *o, struct runt_err *err)
{
    const struct net_device *d = o->net->o.device;
    return d ? d->optim_put(o, err) : 0;
}

int optim_fetch(const struct optim *o, struct runt_err *err)
{
    const struct net_device *d = o->net->o.device;
    return d ? d->optim_get(o, err) : 0;
}

void optim_free(struct optim *o)
{
    if (!o)
        return;
    mem_free(o->m);
    mem_free(o->v);
    mem_free(o->pieces);
    mem_free(o->parts);
    mem_free(o->squares);
    mem_free(o);
}

static void norm_thread(void *ctx, unsigned i, unsigned n)
{
    struct optim *o = ctx;
    size_t begin, end;
    pool_range(o->n_parts, 1, i, n, &begin, &end);
    for (size_t p = begin; p < end; p++)
        o->squares[p] =
            o->net->cpu.kern->sum_squares(o->parts[p].n, o->net->g + o->parts[p].at);
}

double optim_squares(struct optim *o)
{
    double sum = 0;
    if (o->net->o.device)
        return o->net->o.device->squares(o);
    pool_run(o->net->o.pool, norm_thread, o);
    for (size_t p = 0; p < o->n_parts; p++)
        sum += o->squares[p];
    return sum;
}

double optim_norm(struct optim *o)
{
    return sqrt(optim_squares(o));
}

struct update {
    struct optim *o;
    struct grad_adamw matrix, vector;
};

static void update_thread(void *ctx, unsigned i, unsigned n_threads)
{
    const struct update *u = ctx;
    struct net *n = u->o->net;
    for (size_t p = 0; p < n->n_params * u->o->n_pieces; p++) {
        const struct net_param *q = &n->params[p / u->o->n_pieces];
        const struct optim_piece *piece = &u->o->pieces[p % u->o->n_pieces];
        size_t from = q->at, to = q->at + q->desc.n_rows * q->desc.n_cols, begin, end;
        from = piece->at > from ? piece->at : from;
        to = piece->at + piece->n < to ? piece->at + piece->n : to;
        if (q->frozen || from >= to)
            continue;
        pool_range(to - from, 1024, i, n_threads, &begin, &end);
        size_t at = from + begin, count = end - begin;
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
    if (o->net->o.device)
        o->net->o.device->update(o, &u.matrix, &u.vector);
    else
        pool_run(o->net->o.pool, update_thread, &u);
}
