/* Owns the spelling of --lora-adapter. */
#include "cli/cli_adapter.h"

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int cli_adapter_split(const char *item, char **path, float *scale, struct runt_err *err)
{
    const char *colon = strrchr(item, ':');
    size_t n = strlen(item);
    *scale = 1;
    if (colon && colon > item && !file_exists(item)) {
        char *end;
        *scale = strtof(colon + 1, &end);
        if (end == colon + 1 || *end || !isfinite(*scale))
            return err_set(err, RUNT_E_INVALID, "%s: '%s' is no scale", item,
                           colon + 1);
        n = (size_t)(colon - item);
    }
    *path = mem_strndup(item, n);
    return *path ? 0 : err_nomem(err, "a path");
}

void cli_adapter_note(FILE *f, const char *path)
{
    char plain[256];
    fprintf(f, "note: %s was made for another model\n",
            cli_plain(path, plain, sizeof plain));
}

static int add(runt_model *m, const char *item, struct runt_err *err)
{
    char *path = NULL;
    float scale;
    int rc = cli_adapter_split(item, &path, &scale, err);
    if (!rc)
        rc = runt_model_adapter(m, path, scale, err);
    mem_free(path);
    return rc;
}

int cli_model_load(const char *path, const struct cli_list *adapters, FILE *notes,
                   runt_model **out, struct runt_err *err)
{
    runt_model *m = NULL;
    int rc = runt_model_load(path, &m, err);
    for (size_t i = 0; i < adapters->n && !rc; i++)
        rc = add(m, adapters->items[i], err);
    struct runt_adapter_info *info = mem_array(adapters->n, sizeof *info);
    if (!rc && !info)
        rc = err_nomem(err, "adapters");
    for (size_t i = 0; !rc && i < runt_model_adapters(m, info, adapters->n); i++)
        if (notes && info[i].other_base)
            cli_adapter_note(notes, info[i].path);
    mem_free(info);
    if (rc)
        runt_model_free(m);
    else
        *out = m;
    return rc;
}
