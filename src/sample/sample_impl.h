/* The sampler as its own files see it. */
#ifndef RUNT_SAMPLE_IMPL_H
#define RUNT_SAMPLE_IMPL_H

#include "base/rng.h"
#include "runt/runt.h"
#include "sample/sample.h"

struct candidate {
    float logit;
    int32_t id;
};

enum stage {
    STAGE_PENALTIES,
    STAGE_DRY,
    STAGE_TOP_K,
    STAGE_TYPICAL,
    STAGE_TOP_P,
    STAGE_MIN_P,
    STAGE_TEMPERATURE,
    N_STAGES
};

/* Texts that DRY does not look across, and the bytes that the next token may complete
 * one with. */
struct breakers {
    struct breaker {
        char *text;
        size_t len;
    } * list;
    size_t n, max_len;
    char *tail; /* the last n_tail bytes of the text, at most max_len - 1 */
    size_t n_tail;
};

struct runt_sampler {
    struct runt_sampler_options o; /* without its pointers */
    const struct tok *tok;         /* or NULL */
    uint32_t n_vocab;
    struct rng rng;
    enum stage plan[N_STAGES]; /* what is on and has an effect, in order */
    size_t n_plan;
    float *bias; /* [n_vocab], or NULL */
    struct constraint *constraint;
    double mu; /* mirostat's largest surprise, in bits */

    /* the text so far */
    int32_t *recent; /* [n_ring], token i of the text in place i % n_ring */
    uint8_t *breaks; /* [n_ring]: a breaker of DRY ends in that token */
    size_t n_ring, n_recent;
    uint16_t *counts; /* [n_vocab] in the last repeat_last tokens */
    struct breakers breakers;
    uint32_t *dry_match; /* [n_ring], of dry.c */
    uint32_t *dry_reach; /* [n_vocab], of dry.c; zero between picks */

    /* the choice, while a token is picked */
    struct candidate *c; /* [n], of [n_vocab] */
    size_t n;
    bool sorted;     /* by logit, then by id */
    double divisor;  /* the temperature, once its stage is past; 1 before */
    double *weights; /* [n_vocab] */
    struct ranked {
        double distance;
        uint32_t place;
    } * ranked; /* [n_vocab], of typical sampling; or NULL */
};

/* ---- likeliest.c ---- */

/* The first of the likeliest of n tokens; -1 when a logit is no number. */
int32_t likeliest(const float *logits, size_t n);

/* ---- stages.c ---- */

/* Logits that are added to or multiplied stay finite. */
float stage_finite(float x);
/* The candidates in order, and in s->weights their probabilities times the sum that is
 * returned; that of the first is 1. */
double stage_weigh(struct runt_sampler *s);
void stage_run(struct runt_sampler *s, enum stage stage);

/* ---- dry.c ---- */

int breakers_set(struct breakers *b, const char *const *texts, size_t n,
                 struct runt_err *err);
void breakers_free(struct breakers *b);
/* Note a token's bytes; whether a breaker ends in them. */
bool breakers_note(struct breakers *b, const char *bytes, size_t n);
void dry_penalize(struct runt_sampler *s);

/* ---- constrain.c ---- */

struct constraint;
void constraint_free(struct constraint *c); /* NULL is fine */
void constraint_restart(struct constraint *c);
/* The tokens that may come next, in any order; valid until the next call. */
int constraint_filter(struct constraint *c, const int32_t **ids, size_t *n,
                      struct runt_err *err);
int constraint_advance(struct constraint *c, int32_t token, struct runt_err *err);

#endif
