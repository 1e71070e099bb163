/* What stands for the server in a runt that was built without libmicrohttpd. */
#include "serve/serve.h"

#include "base/err.h"

int serve_run(const struct serve_options *o, struct runt_err *err)
{
    for (size_t i = 0; i < o->n_models; i++)
        runt_model_free(o->models[i].model);
    return err_set(err, RUNT_E_UNSUPPORTED,
                   "this runt was built without libmicrohttpd, which serves");
}
