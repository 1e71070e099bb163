/* hub_pull of a build without libcurl or libcrypto: the cache, and a clear refusal. */
#include "import/hub_impl.h"

#include "base/err.h"

int hub_pull(const char *repo, const struct hub_options *o, char **snapshot_dir,
             struct runt_err *err)
{
    if (hub_offline(o))
        return hub_pull_cached(repo, o, snapshot_dir, err);
    return err_set(
        err, RUNT_E_UNSUPPORTED,
        "%s: this runt was built without hub support (libcurl and libcrypto)", repo);
}
