/* Owns how the command line turns checkpoints into model files and names into paths. */
#include "cli/convert.h"

#include "cli/cli_adapter.h"

#include "base/err.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"
#include "import/hub.h"
#include "import/import.h"
#include "model/model.h"
#include "model/model_vocab.h"

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

/* ---- import ---- */

/* chat_template of tokenizer_config.json, when there is a plain one. */
static int copy_template(struct gguf_writer *w, const char *dir, struct runt_err *err)
{
    json_t *o = NULL;
    char *path = mem_printf("%s/tokenizer_config.json", dir);
    int rc = path ? 0 : err_nomem(err, "a path");
    if (!rc && file_exists(path))
        rc = js_parse_file(path, &o, err);
    const json_t *t = rc ? NULL : json_object_get(o, "chat_template");
    if (json_is_string(t))
        gguf_set_str(w, "tokenizer.chat_template", json_string_value(t),
                     json_string_length(t));
    json_decref(o);
    mem_free(path);
    return rc;
}

int convert_folder(const char *dir, const char *name, const char *path,
                   const struct quant_options *o, FILE *notes,
                   struct quant_report *report, struct runt_err *err)
{
    struct hf_checkpoint *c = NULL;
    struct gguf_writer *w = NULL;
    struct tok_vocab v = {0};
    int rc = hf_open(dir, &c, err);
    if (!rc)
        rc = tok_vocab_load(dir, &v, err);
    if (rc)
        goto out;
    const struct gpt2_shape *s = hf_shape(c);
    if (v.n_tokens > s->n_vocab) {
        rc = err_set(err, RUNT_E_FORMAT, "%s: %zu tokens for %u embedding rows", dir,
                     v.n_tokens, s->n_vocab);
        goto out;
    }
    rc = tok_vocab_pad(&v, s->n_vocab, err);
    if (!rc)
        rc = gguf_writer_create(&w, err);
    if (rc)
        goto out;
    if (v.eos < 0 && s->eos >= 0 && (size_t)s->eos < v.n_tokens)
        v.eos = s->eos;
    if (v.bos < 0 && s->bos >= 0 && (size_t)s->bos < v.n_tokens)
        v.bos = s->bos;
    rc = model_write_meta_for(w, s, &v, name, o->fmt, err);
    if (!rc)
        rc = copy_template(w, dir, err);
    if (!rc)
        rc = quant_write(hf_source(c), w, path, o, report, err);
    char plain[128];
    if (!rc && notes && hf_n_ignored(c))
        fprintf(notes, "left out %zu tensors that a GPT-2 has no use for (%s%s)\n",
                hf_n_ignored(c), cli_plain(hf_ignored(c, 0), plain, sizeof plain),
                hf_n_ignored(c) > 1 ? ", ..." : "");
out:
    gguf_writer_destroy(w);
    tok_vocab_free(&v);
    hf_close(c);
    return rc;
}

/* ---- from model file to model file ---- */

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

int convert_check_out(const char *in, const char *out, struct runt_err *err)
{
    if (!same_file(in, out))
        return 0;
    return err_set(err, RUNT_E_INVALID,
                   "%s is the input too; name another file, or its weights are lost",
                   out);
}

int convert_check(const char *in, const char *out, const struct quant_options *o,
                  struct runt_err *err)
{
    struct gguf *g = NULL;
    struct gpt2_shape shape;
    int rc = convert_check_out(in, out, err);
    if (!rc)
        rc = gguf_open(in, &g, err);
    if (!rc)
        rc = model_read_shape(g, &shape, err);
    if (!rc)
        rc = quant_check(&g->source, o, err);
    gguf_close(g);
    return rc;
}

int convert_file(const char *in, const char *out, const struct quant_options *o,
                 struct quant_report *report, struct runt_err *err)
{
    struct gguf *g = NULL;
    struct gguf_writer *w = NULL;
    int rc = convert_check(in, out, o, err);
    if (!rc)
        rc = gguf_open(in, &g, err);
    if (!rc)
        rc = gguf_writer_create(&w, err);
    if (rc)
        goto out;
    rc = model_copy_meta(w, g, o->fmt, err);
    if (!rc)
        rc = quant_write(&g->source, w, out, o, report, err);
out:
    gguf_writer_destroy(w);
    gguf_close(g);
    return rc;
}

/* ---- names ---- */

/* Whether a snapshot holds a checkpoint to import. */
static bool importable(const char *dir)
{
    static const char *const weights[] = {"model.safetensors",
                                          "model.safetensors.index.json"};
    bool found = false;
    for (int i = 0; i < 2 && !found; i++) {
        char *path = mem_printf("%s/%s", dir, weights[i]);
        found = path && file_exists(path);
        mem_free(path);
    }
    return found;
}

int convert_pulled_gguf(const char *dir, char **path, struct runt_err *err)
{
    char *found = NULL;
    int n_found = 0, rc = 0;
    if (importable(dir))
        return 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        size_t n = strlen(e->d_name);
        if (n < 5 || strcmp(e->d_name + n - 5, ".gguf"))
            continue;
        mem_free(found);
        found = mem_printf("%s/%s", dir, e->d_name);
        n_found++;
    }
    if (d)
        closedir(d);
    if (n_found > 1)
        rc = err_set(err, RUNT_E_INVALID,
                     "%s holds %d .gguf files; name one by its path", dir, n_found);
    if (rc)
        mem_free(found);
    else if (found)
        *path = found;
    return rc;
}

static int repo_path(const char *repo, char **path, struct runt_err *err)
{
    char *snapshot = NULL, *dir = NULL, *out = NULL;
    struct quant_report report = {0};
    int rc = hub_find_cached(repo, NULL, &snapshot, err);
    if (rc == RUNT_E_NOTFOUND) {
        rc = err_set(err, RUNT_E_NOTFOUND,
                     "%s is neither a file nor a model pulled before; get it with: "
                     "runt pull %s",
                     repo, repo);
        goto out;
    }
    if (!rc && !importable(snapshot))
        rc = convert_pulled_gguf(snapshot, &out, err);
    if (rc || out)
        goto out;
    dir = hub_converted_dir(repo);
    const char *commit = strrchr(snapshot, '/');
    out = dir && commit ? mem_printf("%s%s-float.gguf", dir, commit) : NULL;
    if (!out) {
        rc = err_nomem(err, "a path");
        goto out;
    }
    if (file_exists(out))
        goto out;
    rc = file_make_dirs(dir, err);
    struct quant_options o = {.progress = cli_progress};
    if (!rc)
        rc = convert_folder(snapshot, repo, out, &o, NULL, &report, err);
    cli_progress_done();
out:
    if (rc)
        mem_free(out);
    else
        *path = out;
    quant_report_free(&report);
    mem_free(dir);
    mem_free(snapshot);
    return rc;
}

int convert_model_path(const char *arg, char **path, struct runt_err *err)
{
    if (file_is_dir(arg))
        return err_set(
            err, RUNT_E_INVALID,
            "%s is a folder; make a model file of it first: runt import %s -o "
            "model.gguf",
            arg, arg);
    if (!file_exists(arg) && hub_is_repo_id(arg))
        return repo_path(arg, path, err);
    if (!file_exists(arg))
        return err_set(
            err, RUNT_E_NOTFOUND,
            "%s: no such model file; make one with: runt import DIR -o %s (or "
            "runt pull openai-community/gpt2, then -m openai-community/gpt2)",
            arg, arg);
    *path = mem_strdup(arg);
    return *path ? 0 : err_nomem(err, "a path");
}

int convert_model_load(const char *arg, const struct cli_list *adapters,
                       runt_model **out, struct runt_err *err)
{
    char *path = NULL;
    int rc = convert_model_path(arg, &path, err);
    if (!rc)
        rc = cli_model_load(path, adapters, stderr, out, err);
    mem_free(path);
    return rc;
}

/* ---- types ---- */

int convert_type(const struct cli_verb *v, const char *name,
                 const struct fmt_info **out)
{
    *out = fmt_by_name(name);
    if (*out && (*out)->is_written)
        return 0;
    if (*out)
        return cli_misuse(v, "%s is read but not written", (*out)->name);
    char list[256] = "";
    for (size_t i = 0; fmt_at(i); i++)
        if (fmt_at(i)->is_written)
            snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s",
                     i ? ", " : "", fmt_at(i)->name);
    return cli_misuse(v, "unknown type '%s'; the types are %s", name, list);
}

int convert_overrides(const struct cli_verb *v, const struct cli_list *items,
                      struct quant_override **out)
{
    struct quant_override *o = mem_array(items->n, sizeof *o);
    int rc = o ? 0 : cli_misuse(v, "out of memory");
    for (size_t i = 0; i < items->n && !rc; i++) {
        const char *eq = strrchr(items->items[i], '=');
        if (!eq || eq == items->items[i]) {
            rc = cli_misuse(v, "--tensor wants REGEX=TYPE, not '%s'", items->items[i]);
            break;
        }
        rc = convert_type(v, eq + 1, &o[i].fmt);
        if (!rc) {
            o[i].pattern = mem_strndup(items->items[i], (size_t)(eq - items->items[i]));
            if (!o[i].pattern)
                rc = cli_misuse(v, "out of memory");
        }
    }
    if (rc && o)
        convert_overrides_free(o, items->n);
    else
        *out = o;
    return rc;
}

void convert_overrides_free(struct quant_override *o, size_t n)
{
    for (size_t i = 0; o && i < n; i++)
        mem_free((char *)(uintptr_t)o[i].pattern);
    mem_free(o);
}

/* ---- the report ---- */

void convert_print_notes(FILE *f, const struct quant_report *r)
{
    for (size_t i = 0; i < r->n_tensors; i++) {
        const struct quant_tensor_report *t = &r->tensors[i];
        if (t->to != t->wanted && t->wanted->tile_rows > 1)
            fprintf(f,
                    "note: %s becomes %s: a vector of %llu numbers fills no %s tile\n",
                    t->desc.name, t->to->name, (unsigned long long)t->desc.n_cols,
                    t->wanted->name);
        else if (t->to != t->wanted)
            fprintf(
                f,
                "note: %s becomes %s: rows of %llu numbers are not whole %s blocks of "
                "%u\n",
                t->desc.name, t->to->name, (unsigned long long)t->desc.n_cols,
                t->wanted->name, t->wanted->block_len);
        if (!t->desc.fmt->is_float && t->to != t->desc.fmt)
            fprintf(f,
                    "note: %s was already rounded to %s: start from a float model for "
                    "less error\n",
                    t->desc.name, t->desc.fmt->name);
    }
}

static void print_text(FILE *f, const char *path, const struct quant_report *r,
                       double seconds)
{
    char size[32];
    fprintf(f, "%-28s %14s  %-13s %10s %10s %10s %6s %6s %8s %10s\n", "tensor", "shape",
            "type", "bytes", "rel.error", "max.error", "peak", "zeros", "seconds",
            "out.error");
    for (size_t i = 0; i < r->n_tensors; i++) {
        const struct quant_tensor_report *t = &r->tensors[i];
        char shape[48], type[48];
        if (t->desc.n_dims == 1)
            snprintf(shape, sizeof shape, "%llu", (unsigned long long)t->desc.n_cols);
        else
            snprintf(shape, sizeof shape, "%llu x %llu",
                     (unsigned long long)t->desc.n_rows,
                     (unsigned long long)t->desc.n_cols);
        snprintf(type, sizeof type, "%s -> %s", t->desc.fmt->name, t->to->name);
        double n = (double)t->desc.n_cols * (double)t->desc.n_rows;
        fprintf(f, "%-28s %14s  %-13s %10llu %10.3g %10.3g %6.1f %5.1f%% %8.2f",
                t->desc.name, shape, type, (unsigned long long)t->bytes, t->rel_error,
                t->max_error, t->peak, 100 * (double)t->zeros / n, t->seconds);
        if (t->output_error >= 0)
            fprintf(f, " %10.3g", t->output_error);
        fputc('\n', f);
    }
    convert_print_notes(f, r);
    fprintf(f,
            "%s: %s (%llu bytes), %.3f bits per weight over the whole file, %.2f s\n",
            path, cli_bytes(r->file_bytes, size), (unsigned long long)r->file_bytes,
            r->bits_per_weight, seconds);
}

static void print_json(FILE *f, const char *path, const struct quant_report *r,
                       double seconds)
{
    fprintf(f, "{\"file\":");
    cli_json_str(f, path, strlen(path));
    fprintf(f,
            ",\"file_bytes\":%llu,\"weights\":%llu,\"bits_per_weight\":%.6f,"
            "\"seconds\":%.3f,\"fallbacks\":%zu,\"tensors\":[",
            (unsigned long long)r->file_bytes, (unsigned long long)r->n_weights,
            r->bits_per_weight, seconds, r->n_fallbacks);
    for (size_t i = 0; i < r->n_tensors; i++) {
        const struct quant_tensor_report *t = &r->tensors[i];
        fprintf(f, "%s\n{\"name\":", i ? "," : "");
        cli_json_str(f, t->desc.name, strlen(t->desc.name));
        fprintf(f,
                ",\"rows\":%llu,\"columns\":%llu,\"from\":\"%s\",\"type\":\"%s\","
                "\"wanted\":\"%s\",\"bytes\":%llu,\"rel_error\":%.9g,"
                "\"max_error\":%.9g,\"peak\":%.6g,\"outliers\":%llu,\"zeros\":%llu,"
                "\"seconds\":%.3f,\"output_error\":",
                (unsigned long long)t->desc.n_rows, (unsigned long long)t->desc.n_cols,
                t->desc.fmt->name, t->to->name, t->wanted->name,
                (unsigned long long)t->bytes, t->rel_error, t->max_error, t->peak,
                (unsigned long long)t->outliers, (unsigned long long)t->zeros,
                t->seconds);
        if (t->output_error >= 0)
            fprintf(f, "%.9g}", t->output_error);
        else
            fprintf(f, "null}");
    }
    fprintf(f, "]}\n");
}

void convert_print_report(FILE *f, enum cli_format format, const char *path,
                          const struct quant_report *r, double seconds)
{
    if (format == CLI_JSON)
        print_json(f, path, r, seconds);
    else
        print_text(f, path, r, seconds);
}
