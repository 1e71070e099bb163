/* A conversation, a line a turn:  chat MODEL.gguf TEMPLATE  (turns, chatml, none ...)
 *
 *     cc chat.c -o chat $(pkg-config --cflags --libs runt) */
#include <runt/runt.h>

#include <err.h>
#include <stdio.h>
#include <string.h>

enum { N_TURNS = 32, N_TEXT = 8192 };
static char texts[2 * N_TURNS][N_TEXT];
static struct runt_message said[2 * N_TURNS];
static struct runt_err e;

static int show_and_keep(void *message, const char *text, size_t n)
{
    struct runt_message *m = message;
    if (n > N_TEXT - m->n_content)
        return 1;
    memcpy((char *)m->content + m->n_content, text, n);
    m->n_content += n;
    return fwrite(text, 1, n, stdout) < n || fflush(stdout);
}

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
    size_t n_ids;
    const runt_template *t = argc == 3 ? runt_template_find(argv[2]) : NULL;
    if (!t)
        errx(2, "usage: chat MODEL.gguf TEMPLATE");
    check(runt_model_load(argv[1], &model, &e));
    check(runt_session_open(model, NULL, &session, &e));
    check(runt_sampler_for(model, NULL, &sampler, &e));
    struct runt_generate_options go = {.n_max = 60, .skip_space = true};
    go.stops = runt_template_stops(t, &go.n_stops);
    for (size_t n = 0; n < 2 * N_TURNS && fgets(texts[n], N_TEXT, stdin); n += 2) {
        said[n] = (struct runt_message){"user", texts[n], strcspn(texts[n], "\n")};
        said[n + 1] = (struct runt_message){"assistant", texts[n + 1], 0};
        check(runt_template_apply(t, model, said, n + 1, true, &ids, &n_ids, &e));
        uint32_t same = runt_session_match(session, 0, ids, n_ids); /* is there */
        check(runt_session_feed(session, ids + same, n_ids - same, &e));
        runt_free(ids);
        check(runt_generate(session, sampler, &go, show_and_keep, &said[n + 1], 0, &e));
        putchar('\n');
    }
    runt_sampler_free(sampler);
    runt_session_close(session);
    runt_model_free(model);
    return 0;
}
