/* Owns what a sampler learns of a model: its tokens' bytes and, once a grammar asks for
 * it, their tree, which all samplers of the model share. */
#include "model/model.h"

#include "base/err.h"
#include "base/mem.h"

#include <pthread.h>

struct model_tokens {
    pthread_mutex_t lock;
    struct vocab_tree *tree; /* made when first wanted */
};

int model_tokens_new(struct model_tokens **out, struct runt_err *err)
{
    struct model_tokens *t = mem_zalloc(sizeof *t);
    if (!t)
        return err_nomem(err, "the model");
    pthread_mutex_init(&t->lock, NULL);
    *out = t;
    return 0;
}

void model_tokens_free(struct model_tokens *t)
{
    if (!t)
        return;
    pthread_mutex_destroy(&t->lock);
    vocab_tree_free(t->tree);
    mem_free(t);
}

static int tree_of(const runt_model *m, const struct vocab_tree **out,
                   struct runt_err *err)
{
    struct model_tokens *t = m->tokens;
    pthread_mutex_lock(&t->lock);
    int rc = t->tree ? 0 : vocab_tree_new(m->tok, &t->tree, err);
    *out = t->tree;
    pthread_mutex_unlock(&t->lock);
    return rc;
}

int runt_sampler_for(const runt_model *m, const struct runt_sampler_options *o,
                     runt_sampler **out, struct runt_err *err)
{
    struct runt_sampler_options mine = o ? *o : runt_sampler_defaults();
    if (mine.dry_last < 0) /* all of a text is at most a context */
        mine.dry_last = m->shape.n_ctx < 65536 ? (int32_t)m->shape.n_ctx : 65536;
    return sampler_new(&mine, m->shape.n_vocab, m->tok, out, err);
}

int runt_sampler_constrain(runt_sampler *s, const runt_model *m, const runt_grammar *g,
                           struct runt_err *err)
{
    const struct vocab_tree *tree = NULL;
    int rc = g ? tree_of(m, &tree, err) : 0;
    return rc ? rc : sampler_constrain(s, m->tok, tree, g, err);
}
