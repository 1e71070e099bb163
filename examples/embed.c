/* How alike sentences are:  embed MODEL.gguf SENTENCE...
 *
 *     cc embed.c -o embed $(pkg-config --cflags --libs runt) */
#include <runt/runt.h>

#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct runt_err e; /* what went wrong */

static void check(int rc)
{
    if (rc)
        errx(1, "%s", e.msg);
}

int main(int argc, char **argv)
{
    struct runt_model_info info;
    runt_model *model;
    runt_session *session;
    if (argc < 3)
        errx(2, "usage: embed MODEL.gguf SENTENCE...");
    check(runt_model_load(argv[1], &model, &e));
    check(runt_session_open(model, NULL, &session, &e));
    runt_model_info(model, &info);

    size_t n_texts = (size_t)argc - 2, width = info.n_embd;
    float *all = calloc(n_texts * width, sizeof *all); /* [n_texts][width] */
    if (!all)
        return 1;
    for (size_t i = 0; i < n_texts; i++) {
        const char *text = argv[2 + i];
        int32_t *ids;
        size_t n;
        check(runt_tokenize(model, text, strlen(text), false, &ids, &n, &e));
        check(runt_embed(session, 0, ids, n, all + i * width, &e));
        runt_free(ids);
    }
    for (size_t i = 0; i < n_texts; i++) {
        for (size_t k = 0; k < n_texts; k++) {
            double cosine = 0; /* both have length 1 */
            for (size_t j = 0; j < width; j++)
                cosine += (double)all[i * width + j] * (double)all[k * width + j];
            printf("%6.3f ", cosine);
        }
        printf(" %s\n", argv[2 + i]);
    }
    free(all);
    runt_session_close(session);
    runt_model_free(model);
    return 0;
}
