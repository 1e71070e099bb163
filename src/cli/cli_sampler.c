#include "cli/cli_sampler.h"

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_GRAMMAR = 1 << 20 };

struct cli_sampler cli_sampler_defaults(void)
{
    struct runt_sampler_options o = runt_sampler_defaults();
    /* decimal again: 0.8f shown as a double would be 0.800000011920929 */
    return (struct cli_sampler){.temp = 0.8,
                                .top_p = 0.95,
                                .min_p = 0.05,
                                .typical = 1,
                                .repeat_penalty = 1,
                                .dry_base = 1.75,
                                .mirostat_tau = 5,
                                .mirostat_eta = 0.1,
                                .top_k = o.top_k,
                                .repeat_last = o.repeat_last,
                                .seed = -1,
                                .dry_allowed = o.dry_allowed_length,
                                .dry_last = o.dry_last};
}

/* ---- texts ---- */

/* "13+1.5", "13-inf" */
static int read_bias(const char *text, struct runt_logit_bias *out,
                     struct runt_err *err)
{
    char *sign, *end;
    long token = strtol(text, &sign, 10);
    double bias = strtod(sign, &end);
    bool fits = sign > text && (*sign == '+' || *sign == '-') && end > sign && !*end;
    if (!fits || token < 0 || token > INT32_MAX || isnan(bias))
        return err_set(err, RUNT_E_INVALID,
                       "--logit-bias wants TOKEN+X, TOKEN-X or TOKEN-inf, not '%s'",
                       text);
    *out = (struct runt_logit_bias){(int32_t)token, (float)bias};
    return 0;
}

/* A copy with \n, \r, \t and \\ as what they mean. */
static char *unescape(const char *text)
{
    static const char from[] = "nrt\\", to[] = "\n\r\t\\";
    char *copy = mem_strdup(text), *w = copy;
    for (const char *p = text; copy && *p; p++) {
        const char *at = p[0] == '\\' && p[1] ? strchr(from, p[1]) : NULL;
        *w++ = at ? to[at - from] : *p;
        p += at ? 1 : 0;
    }
    if (w)
        *w = 0;
    return copy;
}

static int read_breakers(const struct cli_list *l, struct cli_sampler_room *room,
                         struct runt_err *err)
{
    room->breakers = mem_array(l->n, sizeof *room->breakers);
    if (!room->breakers)
        return err_nomem(err, "sequence breakers");
    bool none = l->n == 1 && !strcmp(l->items[0], "none");
    for (size_t i = 0; i < l->n && !none; i++) {
        room->breakers[i] = unescape(l->items[i]);
        if (!room->breakers[i])
            return err_nomem(err, "sequence breakers");
        room->n_breakers++;
    }
    return 0;
}

void cli_sampler_room_free(struct cli_sampler_room *room)
{
    for (size_t i = 0; i < room->n_breakers; i++)
        mem_free(room->breakers[i]);
    mem_free(room->breakers);
    mem_free(room->bias);
    *room = (struct cli_sampler_room){0};
}

/* ---- options ---- */

static uint64_t seed_of(const struct cli_sampler *s)
{
    struct timespec t;
    if (s->seed >= 0)
        return (uint64_t)s->seed;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000007u + (uint64_t)t.tv_nsec;
}

int cli_sampler_options(const struct cli_sampler *s, struct cli_sampler_room *room,
                        struct runt_sampler_options *o, struct runt_err *err)
{
    *room = (struct cli_sampler_room){0};
    *o = runt_sampler_defaults();
    o->temp = (float)s->temp;
    o->top_k = (int32_t)s->top_k;
    o->top_p = (float)s->top_p;
    o->min_p = (float)s->min_p;
    o->typical_p = (float)s->typical;
    o->repeat_penalty = (float)s->repeat_penalty;
    o->repeat_last = (int32_t)s->repeat_last;
    o->frequency_penalty = (float)s->frequency;
    o->presence_penalty = (float)s->presence;
    o->dry_multiplier = (float)s->dry_multiplier;
    o->dry_base = (float)s->dry_base;
    o->dry_allowed_length = (int32_t)s->dry_allowed;
    o->dry_last = (int32_t)s->dry_last;
    o->mirostat = (int32_t)s->mirostat;
    o->mirostat_tau = (float)s->mirostat_tau;
    o->mirostat_eta = (float)s->mirostat_eta;
    o->order = s->order;
    o->seed = seed_of(s);
    if (s->breakers.n) {
        int rc = read_breakers(&s->breakers, room, err);
        if (rc)
            return rc;
        o->dry_breakers = (const char *const *)room->breakers;
        o->n_dry_breakers = room->n_breakers;
    }
    if (!s->biases.n)
        return 0;
    room->bias = mem_array(s->biases.n, sizeof *room->bias);
    if (!room->bias)
        return err_nomem(err, "biases");
    o->bias = room->bias;
    for (; o->n_bias < s->biases.n; o->n_bias++) {
        int rc = read_bias(s->biases.items[o->n_bias], &room->bias[o->n_bias], err);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- a sampler ---- */

static int read_grammar(const struct cli_sampler *s, runt_grammar **out,
                        struct runt_err *err)
{
    const char *path = s->grammar ? s->grammar : s->json_schema;
    char *text = NULL;
    size_t n = 0;
    if (s->grammar && s->json_schema)
        return err_set(err, RUNT_E_INVALID,
                       "a grammar and a JSON schema exclude each other");
    int rc = file_read(path, MAX_GRAMMAR, &text, &n, err);
    if (rc)
        return rc;
    rc = s->grammar ? runt_grammar_gbnf(text, n, out, err)
                    : runt_grammar_json_schema(text, n, out, err);
    if (rc)
        err_prefix(err, "%s", path);
    mem_free(text);
    return rc;
}

int cli_sampler_open(const struct cli_sampler *s, const runt_model *m,
                     runt_sampler **out, runt_grammar **grammar, struct runt_err *err)
{
    struct cli_sampler_room room;
    struct runt_sampler_options o;
    runt_sampler *made = NULL;
    runt_grammar *g = NULL;
    int rc = cli_sampler_options(s, &room, &o, err);
    if (!rc)
        rc = runt_sampler_for(m, &o, &made, err);
    cli_sampler_room_free(&room);
    if (!rc && (s->grammar || s->json_schema))
        rc = read_grammar(s, &g, err);
    if (!rc && g)
        rc = runt_sampler_constrain(made, m, g, err);
    if (rc) {
        runt_sampler_free(made);
        runt_grammar_free(g);
        return rc;
    }
    *out = made;
    *grammar = g;
    return 0;
}
