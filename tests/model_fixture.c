#include "model_fixture.h"

#include "base/err.h"
#include "base/mem.h"
#include "import/import.h"
#include "quant/quant.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *fixture_program;

const char *fixture_root(void)
{
    const char *root = getenv("RUNT_SOURCE_ROOT");
    return root ? root : ".";
}

void fixture_temporary(char *path, size_t n)
{
    const char *dir = getenv("TMPDIR");
    snprintf(path, n, "%s/runt-test-XXXXXX", dir ? dir : "/tmp");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
}

struct gpt2_shape fixture_odd_shape(void)
{
    return (struct gpt2_shape){.n_vocab = 203,
                               .n_ctx = 90,
                               .n_embd = 96,
                               .n_head = 3,
                               .n_layer = 2,
                               .n_ff = 160,
                               .eps = 1e-5f,
                               .tied = true};
}

static int write_file(const struct gpt2_shape *s, const struct tok_vocab *v,
                      const struct tensor_source *src, const char *type,
                      const char *path, struct runt_err *err)
{
    struct gguf_writer *w = NULL;
    struct quant_report report = {0};
    struct quant_options o = {.fmt = fmt_by_name(type)};
    int rc = gguf_writer_create(&w, err);
    if (rc)
        return rc;
    model_write_meta(w, s, v, "test");
    rc = quant_write(src, w, path, &o, &report, err);
    quant_report_free(&report);
    gguf_writer_destroy(w);
    return rc;
}

static int write_source(const struct gpt2_shape *s, const struct tensor_source *src,
                        const char *type, const char *path, struct runt_err *err)
{
    struct tok_vocab v = {0};
    int rc = tok_vocab_synthetic(s->n_vocab, &v, err);
    if (!rc)
        rc = write_file(s, &v, src, type, path, err);
    tok_vocab_free(&v);
    return rc;
}

static int write_random(const struct gpt2_shape *s, const char *type, uint64_t seed,
                        const char *path, struct runt_err *err)
{
    struct model_random *r = NULL;
    int rc = model_random_open(s, seed, &r, err);
    if (!rc)
        rc = write_source(s, model_random_source(r), type, path, err);
    model_random_close(r);
    return rc;
}

void fixture_write_random(const struct gpt2_shape *s, const char *type, uint64_t seed,
                          char *path, size_t n)
{
    struct runt_err err;
    fixture_temporary(path, n);
    if (write_random(s, type, seed, path, &err))
        fail_msg("%s", err.msg);
}

static runt_model *load_and_unlink(const char *path)
{
    runt_model *m = NULL;
    struct runt_err err;
    int rc = runt_model_load(path, &m, &err);
    unlink(path);
    if (rc)
        fail_msg("%s", err.msg);
    return m;
}

runt_model *fixture_random(const struct gpt2_shape *s, const char *type, uint64_t seed)
{
    char path[256];
    fixture_write_random(s, type, seed, path, sizeof path);
    return load_and_unlink(path);
}

runt_model *fixture_of(const struct gpt2_shape *s, const struct tensor_source *src,
                       const char *type)
{
    char path[256];
    struct runt_err err;
    fixture_temporary(path, sizeof path);
    if (write_source(s, src, type, path, &err))
        fail_msg("%s", err.msg);
    return load_and_unlink(path);
}

void fixture_write_tiny(const char *type, char *path, size_t n)
{
    char dir[512];
    struct hf_checkpoint *c = NULL;
    struct tok_vocab v = {0};
    struct runt_err err;
    snprintf(dir, sizeof dir, "%s/models/tiny-gpt2", fixture_root());
    fixture_temporary(path, n);
    int rc = hf_open(dir, &c, &err);
    if (!rc)
        rc = tok_vocab_load(dir, &v, &err);
    if (!rc)
        rc = write_file(hf_shape(c), &v, hf_source(c), type, path, &err);
    tok_vocab_free(&v);
    hf_close(c);
    if (rc)
        fail_msg("%s", err.msg);
}

runt_model *fixture_tiny(const char *type)
{
    char path[256];
    fixture_write_tiny(type, path, sizeof path);
    return load_and_unlink(path);
}

void fixture_close(runt_model *m)
{
    runt_model_free(m);
}

/* ---- the same work in a child with other kernels ---- */

static const char *const types[] = {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "r4"};

int fixture_print_logits(void)
{
    /* every type of weights, with every kind of cache in turn */
    for (size_t k = 0; k < 3 * (sizeof types / sizeof *types); k++) {
        struct gpt2_shape shape = fixture_odd_shape();
        struct runt_err err = {0};
        runt_model *m = NULL;
        runt_session *s = NULL;
        struct runt_session_options o = {.n_threads = 2,
                                         .kv = (enum runt_kv)(RUNT_KV_F16 + k % 3)};
        char path[] = "/tmp/runt-test-XXXXXX";
        int fd = mkstemp(path),
            rc = fd < 0 ? -1 : write_random(&shape, types[k / 3], 9, path, &err);
        if (fd >= 0)
            close(fd);
        if (!rc)
            rc = runt_model_load(path, &m, &err);
        unlink(path);
        if (!rc)
            rc = runt_session_open(m, &o, &s, &err);
        int32_t ids[40];
        for (int i = 0; i < 40; i++)
            ids[i] = (i * 37 + 5) % 203;
        if (!rc)
            rc = runt_session_feed(s, ids, 40, &err);
        if (rc) {
            fprintf(stderr, "%s\n", err.msg);
            return 1;
        }
        for (uint32_t i = 0; i < shape.n_vocab; i++) {
            uint32_t u;
            memcpy(&u, runt_session_logits(s) + i, 4);
            printf("%08x", u);
        }
        putchar('\n');
        runt_session_close(s);
        runt_model_free(m);
    }
    return 0;
}

char *fixture_logits_in_child(const char *cpu)
{
    char command[1024];
    const char *emulator = getenv("MESON_EXE_WRAPPER");
    snprintf(command, sizeof command, "RUNT_CPU=%s %s '%s' --logits", cpu,
             emulator ? emulator : "", fixture_program);
    FILE *f = popen(command, "r");
    if (!f)
        return NULL;
    char *text = NULL;
    size_t n = 0, cap = 0;
    for (int c; (c = getc(f)) != EOF;) {
        if (n + 2 > cap)
            text = realloc(text, cap = cap ? cap * 2 : 4096);
        text[n++] = (char)c;
        text[n] = 0;
    }
    if (pclose(f)) {
        free(text);
        return NULL;
    }
    return text;
}
