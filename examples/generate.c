/* Continue a text:  generate MODEL.gguf "Once upon a time"
 *
 *     cc generate.c -o generate $(pkg-config --cflags --libs runt) */
#include <runt/runt.h>

#include <err.h>
#include <stdio.h>
#include <string.h>

/* Called with every piece of text; anything but 0 would stop it. */
static int show(void *file, const char *text, size_t n)
{
    fwrite(text, 1, n, file);
    fflush(file);
    return ferror(file);
}

static struct runt_err e; /* what went wrong */

static void check(int rc)
{
    if (rc)
        errx(1, "%s", e.msg);
}

int main(int argc, char **argv)
{
    runt_model *model;
    runt_session *session;
    runt_sampler *sampler;
    int32_t *ids;
    size_t n;
    if (argc != 3)
        errx(2, "usage: generate MODEL.gguf TEXT");
    check(runt_model_load(argv[1], &model, &e));
    check(runt_session_open(model, NULL, &session, &e));
    struct runt_sampler_options so = runt_sampler_defaults();
    so.seed = 1; /* the same text every time */
    check(runt_sampler_for(model, &so, &sampler, &e));

    check(runt_tokenize(model, argv[2], strlen(argv[2]), false, &ids, &n, &e));
    check(runt_session_feed(session, ids, n, &e));
    runt_free(ids);

    printf("%s", argv[2]);
    struct runt_generate_options go = {.n_max = 64};
    struct runt_generated done;
    check(runt_generate(session, sampler, &go, show, stdout, &done, &e));
    printf("\n(%zu tokens, %.0f a second)\n", done.n_tokens,
           (double)done.n_tokens / done.seconds);

    runt_sampler_free(sampler);
    runt_session_close(session);
    runt_model_free(model);
    return 0;
}
