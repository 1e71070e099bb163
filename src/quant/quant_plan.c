/* Owns what becomes of each tensor: its type (quant.h has the rule), and whether
 * weights of it are zeroed.  What cannot be done is refused here, before a file is
 * begun. */
#include "quant/quant_impl.h"

#include "base/err.h"
#include "base/mem.h"
#include "quant/codec.h"

#include <regex.h>
#include <stdio.h>
#include <string.h>

struct chooser {
    const struct quant_options *o;
    regex_t *regex; /* [n_overrides] */
    bool *used;
    size_t n_compiled;
};

static int compile_pattern(regex_t *regex, const char *pattern, struct runt_err *err)
{
    char why[128];
    int e = regcomp(regex, pattern, REG_EXTENDED | REG_NOSUB);
    if (!e)
        return 0;
    regerror(e, NULL, why, sizeof why);
    return err_set(err, RUNT_E_INVALID, "bad pattern '%s': %s", pattern, why);
}

static int compile(struct chooser *c, struct runt_err *err)
{
    c->regex = mem_array(c->o->n_overrides, sizeof *c->regex);
    c->used = mem_array(c->o->n_overrides, sizeof *c->used);
    if (!c->regex || !c->used)
        return err_nomem(err, "the overrides");
    for (; c->n_compiled < c->o->n_overrides; c->n_compiled++) {
        const char *pattern = c->o->overrides[c->n_compiled].pattern;
        int rc = compile_pattern(&c->regex[c->n_compiled], pattern, err);
        if (rc)
            return rc;
    }
    return 0;
}

static void chooser_free(struct chooser *c)
{
    for (size_t i = 0; i < c->n_compiled; i++)
        regfree(&c->regex[i]);
    mem_free(c->regex);
    mem_free(c->used);
}

static const struct fmt_info *choose(struct chooser *c, const struct tensor_desc *d)
{
    for (size_t i = c->o->n_overrides; i-- > 0;) {
        if (!regexec(&c->regex[i], d->name, 0, NULL, 0)) {
            c->used[i] = true;
            return c->o->overrides[i].fmt;
        }
    }
    if (d->n_dims == 1)
        return fmt_find(FMT_F32);
    const struct fmt_info *fmt = c->o->fmt ? c->o->fmt : d->fmt;
    if (!fmt->is_float && !strcmp(d->name, "position_embd.weight"))
        return fmt_find(FMT_Q8_0);
    return fmt;
}

/* Fill the report's plan (everything but bytes and errors) for source tensor i. */
static void plan_tensor(struct chooser *c, const struct tensor_desc *d,
                        struct quant_tensor_report *r)
{
    r->desc = *d;
    r->wanted = choose(c, d);
    r->to = r->wanted;
    if (d->n_cols % r->wanted->block_len)
        r->to = fmt_find(FMT_F16);
    else if (d->n_dims == 1 && r->wanted->tile_rows > 1)
        r->to = fmt_find(FMT_F32); /* a tile for one row is larger than its floats */
}

size_t quant_source_index(const struct tensor_source *src, size_t i)
{
    if (i < src->n_tensors)
        return i;
    for (size_t k = 0; k < src->n_tensors; k++)
        if (!strcmp(src->tensors[k].name, "token_embd.weight"))
            return k;
    return 0;
}

static bool has_tensor(const struct tensor_source *src, const char *name)
{
    for (size_t i = 0; i < src->n_tensors; i++)
        if (!strcmp(src->tensors[i].name, name))
            return true;
    return false;
}

/* Which matrices lose weights, and that they can. */
static int plan_zeros(const struct tensor_source *src, const struct quant_options *o,
                      struct quant_report *r, struct runt_err *err)
{
    const struct prune *p = o->prune;
    regex_t regex;
    size_t n_zeroed = 0;
    int rc = 0;
    if (!p)
        return 0;
    rc = compile_pattern(&regex, p->pattern, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < r->n_tensors && !rc; i++) {
        struct quant_tensor_report *t = &r->tensors[i];
        const struct tensor_desc *d = &t->desc;
        if (d->n_dims != 2 || regexec(&regex, d->name, 0, NULL, 0))
            continue;
        t->zeroed = true;
        n_zeroed++;
        if (!d->fmt->is_float)
            rc = err_set(err, RUNT_E_INVALID,
                         "%s: %s is %s: zeroing wants a model of floats", src->name,
                         d->name, d->fmt->name);
        else if (p->of && d->n_cols % p->of)
            rc =
                err_set(err, RUNT_E_INVALID,
                        "%s: %s: %u:%u does not divide rows of %llu numbers", src->name,
                        d->name, p->keep, p->of, (unsigned long long)d->n_cols);
        else if (!codec_has_zero(t->to))
            rc = err_set(err, RUNT_E_INVALID, "%s: %s: %s cannot hold an exact zero",
                         src->name, d->name, t->to->name);
        else if (p->feedback && o->calib &&
                 !calib_find(o->calib, d->name, (size_t)d->n_cols))
            rc = err_set(err, RUNT_E_INVALID,
                         "%s: a calibration knows nothing of the inputs of %s; by "
                         "magnitude it can be zeroed",
                         src->name, d->name);
    }
    if (!rc && !n_zeroed)
        rc = err_set(err, RUNT_E_INVALID, "the pattern '%s' matches no matrix of %s",
                     p->pattern, src->name);
    regfree(&regex);
    return rc;
}

int quant_plan(const struct tensor_source *src, const struct quant_options *o,
               struct quant_report *r, struct runt_err *err)
{
    struct chooser c = {.o = o};
    int rc = compile(&c, err);
    if (rc)
        goto out;
    bool extra = o->untie && !has_tensor(src, "output.weight") &&
                 has_tensor(src, "token_embd.weight");
    r->tensors = mem_array(src->n_tensors + 1, sizeof *r->tensors);
    if (!r->tensors) {
        rc = err_nomem(err, "the report");
        goto out;
    }
    r->n_tensors = src->n_tensors + extra;
    for (size_t i = 0; i < r->n_tensors; i++) {
        struct tensor_desc d = src->tensors[quant_source_index(src, i)];
        if (i == src->n_tensors)
            snprintf(d.name, sizeof d.name, "output.weight");
        plan_tensor(&c, &d, &r->tensors[i]);
        r->n_fallbacks += r->tensors[i].to != r->tensors[i].wanted;
        r->n_weights += d.n_cols * d.n_rows;
    }
    for (size_t i = 0; i < o->n_overrides; i++)
        if (!c.used[i] && !rc)
            rc =
                err_set(err, RUNT_E_INVALID, "the pattern '%s' decides no tensor of %s",
                        o->overrides[i].pattern, src->name);
    if (!rc)
        rc = plan_zeros(src, o, r, err);
out:
    chooser_free(&c);
    return rc;
}

int quant_check(const struct tensor_source *src, const struct quant_options *o,
                struct runt_err *err)
{
    struct quant_report r = {0};
    int rc = quant_plan(src, o, &r, err);
    quant_report_free(&r);
    return rc;
}
