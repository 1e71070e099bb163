/* From a request to a job: what depends on the model. */
#ifndef RUNT_SERVE_PREPARE_H
#define RUNT_SERVE_PREPARE_H

#include "serve/engine.h"
#include "serve/request.h"

/* 0: a job that can be submitted; -1: *e says why there is none. */
int prepare_job(struct engine *engine, const struct request *r, struct job **out,
                struct api_error *e);

#endif
