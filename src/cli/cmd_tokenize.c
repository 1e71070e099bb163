/* runt tokenize: text to token ids and back. */
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/convert.h"
#include "cli/verbs.h"
#include "model/model.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int run(int argc, char **argv);

const struct cli_verb verb_tokenize = {
    .name = "tokenize",
    .summary = "show a text's tokens, or turn ids back into text",
    .usage =
        "tokenize -m MODEL|DIR [-f FILE | -p TEXT] [--ids|--text|--count|--decode]",
    .example = "runt tokenize -m gpt2.gguf -p \"Hello world\"\n"
               "runt tokenize -m ./gpt2 -f text.txt --ids\n"
               "echo 15496 995 | runt tokenize -m gpt2.gguf --decode",
    .about = "Cuts a text into a model's tokens, or puts tokens together again.",
    .run = run,
};

/* From a checkpoint's folder (pulled ones included) no weights are needed. */
static int load(const char *arg, struct tok **out, struct runt_err *err)
{
    struct tok_vocab v = {0};
    struct gguf *g = NULL;
    char *path = NULL;
    int rc;
    if (file_is_dir(arg)) {
        rc = tok_vocab_load(arg, &v, err);
    } else {
        rc = convert_model_path(arg, &path, err);
        if (!rc)
            rc = gguf_open(path, &g, err);
        if (!rc)
            rc = model_read_vocab(g, &v, err);
    }
    if (!rc)
        rc = tok_create(&v, arg, out, err);
    tok_vocab_free(&v);
    gguf_close(g);
    mem_free(path);
    return rc;
}

static int decode(const struct tok *t, const char *text, size_t n_text,
                  struct runt_err *err)
{
    for (const char *p = text;;) {
        char *end;
        while (isspace((unsigned char)*p) || *p == ',')
            p++;
        if (p == text + n_text)
            return 0;
        errno = 0;
        long long id = strtoll(p, &end, 10);
        if (end == p)
            return err_set(err, RUNT_E_INVALID, "not a token id: '%.20s'", p);
        if (errno || id < 0 || (size_t)id >= tok_n_tokens(t))
            return err_set(err, RUNT_E_INVALID, "token id %.*s is outside 0..%zu",
                           (int)(end - p), p, tok_n_tokens(t) - 1);
        size_t n;
        const char *bytes = tok_bytes(t, (int32_t)id, &n);
        if (n)
            fwrite(bytes, 1, n, stdout);
        p = end;
    }
}

/* One token a line: id and the bytes as a JSON string. */
static void print_pieces(const struct tok *t, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t len;
        const char *bytes = tok_bytes(t, ids[i], &len);
        printf("%6d ", ids[i]);
        cli_json_str(stdout, bytes, len);
        putchar('\n');
    }
}

static void print_ids(const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        printf("%s%d", i ? " " : "", ids[i]);
    putchar('\n');
}

static int run(int argc, char **argv)
{
    const struct cli_verb *v = &verb_tokenize;
    const char *model = NULL, *file = NULL, *prompt = NULL;
    bool special = false, want_ids = false, want_text = false, want_count = false,
         want_decode = false;
    struct cli_option options[] = {
        {"--model", "-m", CLI_STR, &model, "MODEL",
         "model file, checkpoint folder, or ORG/NAME", 0, 0},
        {"--file", "-f", CLI_STR, &file, "FILE", "input, - or none: standard input", 0,
         0},
        {"--prompt", "-p", CLI_STR, &prompt, "TEXT", "input from the command line", 0,
         0},
        {"--special", NULL, CLI_FLAG, &special, NULL,
         "names of control tokens in the text mean those tokens", 0, 0},
        {"--ids", NULL, CLI_FLAG, &want_ids, NULL, "print ids on one line", 0, 0},
        {"--text", NULL, CLI_FLAG, &want_text, NULL,
         "print a token a line, id and text (the default)", 0, 0},
        {"--count", NULL, CLI_FLAG, &want_count, NULL, "print only how many", 0, 0},
        {"--decode", NULL, CLI_FLAG, &want_decode, NULL,
         "the input is ids: print the bytes they stand for", 0, 0},
        {0},
    };
    struct cli_args args;
    int rc = cli_parse(v, options, argc, argv, 0, 0, &args);
    if (rc)
        return rc;
    struct runt_err err = {0};
    struct tok *t = NULL;
    char *text = NULL;
    int32_t *ids = NULL;
    size_t n_text = 0, n = 0;
    if (!model)
        rc = cli_misuse(v, "which tokenizer? name a model file or folder with -m");
    else if (want_ids + want_text + want_count + want_decode > 1)
        rc = cli_misuse(v, "--ids, --text, --count and --decode exclude each other");
    else if (file && prompt)
        rc = cli_misuse(v, "-p and -f exclude each other");
    if (rc)
        goto out;
    cli_catch_interrupt();
    rc = load(model, &t, &err);
    if (!rc && prompt) {
        n_text = strlen(prompt);
        text = mem_strdup(prompt);
        rc = text ? 0 : err_nomem(&err, "the text");
    } else if (!rc) {
        rc = file_read(file ? file : "-", (size_t)1 << 30, &text, &n_text, &err);
    }
    if (!rc && want_decode)
        rc = decode(t, text, n_text, &err);
    else if (!rc)
        rc = tok_encode(t, text, n_text, special, &ids, &n, &err);
    if (rc) {
        rc = cli_fail(v, &err);
        goto out;
    }
    if (want_count)
        printf("%zu\n", n);
    else if (want_ids)
        print_ids(ids, n);
    else if (!want_decode)
        print_pieces(t, ids, n);
out:
    mem_free(ids);
    mem_free(text);
    tok_destroy(t);
    cli_free(options, &args);
    return rc;
}
