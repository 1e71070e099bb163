/* Answers in the OpenAI API's shapes: whole, or as the events of a stream. */
#ifndef RUNT_SERVE_REPLY_H
#define RUNT_SERVE_REPLY_H

#include "serve/engine.h"
#include "serve/request.h"

struct reply {
    struct engine *engine;
    const struct request *request;
    struct job *job;
    struct strbuf head; /* {"id":...,"model":..., as every piece begins */
    struct reply_choice *choices;
    size_t n_ended;
    bool over;

    /* for the log: how many tokens, and how the first choice ended */
    size_t n_prompt, n_cached, n_tokens;
    const char *finish;
};

/* `id` names the answer; the request and the job are borrowed.  -1: *e is filled. */
int reply_init(struct reply *r, struct engine *engine, const struct request *request,
               struct job *job, const char *id, struct api_error *e);
void reply_free(struct reply *r);

/* The body for a job that is done; -1: *e says why there is none. */
int reply_whole(struct reply *r, struct strbuf *out, struct api_error *e);

/* Append the events that there is news for.  After the last ones `over` is set. */
void reply_events(struct reply *r, struct strbuf *out);

#endif
