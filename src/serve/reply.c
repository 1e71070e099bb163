/* Owns the shapes of answers.  Members stand in OpenAI's order; `runt` in `usage` is
 * ours: seconds spent on the prompt and on the answer. */
#include "serve/reply.h"

#include "base/mem.h"
#include "serve/engine_impl.h"

#include <math.h>
#include <string.h>

struct reply_choice {
    struct news news;
    bool begun, ended;
    size_t offset; /* characters of text before the next token, for text_offset */
};

static bool is_chat(const struct reply *r)
{
    return r->request->kind == REQUEST_CHAT;
}

int reply_init(struct reply *r, struct engine *engine, const struct request *request,
               struct job *job, const char *id, struct api_error *e)
{
    const char *prefix = request->kind == REQUEST_CHAT ? "chatcmpl" : "cmpl",
               *object = request->kind == REQUEST_CHAT ? "chat.completion"
                                                       : "text_completion",
               *more = request->kind == REQUEST_CHAT && request->stream ? ".chunk" : "";
    *r = (struct reply){.engine = engine, .request = request, .job = job};
    sb_printf(&r->head, "{\"id\":\"%s-%s\",\"object\":\"%s%s\",\"created\":%lld,",
              prefix, id, object, more, (long long)time(NULL));
    sb_str(&r->head, "\"model\":");
    api_put_cstring(&r->head, job->model->name);
    sb_printf(&r->head, ",\"system_fingerprint\":\"runt-%s\",", runt_version());
    r->choices = mem_array(job->n_choices, sizeof *r->choices);
    if (r->choices && !r->head.failed)
        return 0;
    reply_free(r);
    return api_fail(e, 500, NULL, NULL, "out of memory");
}

void reply_free(struct reply *r)
{
    for (size_t i = 0; r->choices && i < r->job->n_choices; i++) {
        sb_free(&r->choices[i].news.text);
        probs_free(&r->choices[i].news.probs);
    }
    mem_free(r->choices);
    sb_free(&r->head);
    r->choices = NULL;
}

/* ---- parts ---- */

static const char *finish_reason(enum job_end end)
{
    return end == JOB_LENGTH ? "length" : "stop";
}

/* Why a choice has no answer: 0 when it has one. */
static int failure(const struct job *j, enum job_end end, struct api_error *e)
{
    switch (end) {
    case JOB_RUNNING:
    case JOB_STOP:
    case JOB_LENGTH:
        return 0;
    case JOB_TIMEOUT:
        return api_fail(e, 504, "timeout", NULL,
                        "the answer took longer than this server allows");
    case JOB_SHUTDOWN:
    case JOB_CANCELLED:
        return api_fail(e, 503, "shutting_down", NULL, "the server is shutting down");
    case JOB_FAILED:
        break;
    }
    /* a grammar or biases that leave no token are the client's */
    bool theirs = j->err.code == RUNT_E_INVALID || j->err.code == RUNT_E_FULL;
    return api_fail(e, theirs ? 400 : 500, NULL, NULL, "%s",
                    *j->err.msg ? j->err.msg : "out of memory");
}

/* A prompt is counted once, however many answers it gets. */
static void count(struct reply *r)
{
    r->n_prompt = r->n_cached = r->n_tokens = 0;
    for (size_t i = 0; i < r->job->n_choices; i++) {
        const struct news *n = &r->choices[i].news;
        bool first = i % r->job->n_each == 0;
        r->n_prompt += first ? n->n_prompt : 0;
        r->n_cached += first ? n->n_cached : 0;
        r->n_tokens += n->n_tokens;
    }
}

static void put_usage(struct strbuf *b, struct reply *r)
{
    const struct job *j = r->job;
    bool answers = r->request->kind != REQUEST_EMBEDDING;
    count(r);
    sb_printf(b, "\"usage\":{\"prompt_tokens\":%zu,", r->n_prompt);
    if (answers)
        sb_printf(b, "\"completion_tokens\":%zu,", r->n_tokens);
    sb_printf(b, "\"total_tokens\":%zu,", r->n_prompt + r->n_tokens);
    if (answers)
        sb_printf(b, "\"prompt_tokens_details\":{\"cached_tokens\":%zu},", r->n_cached);
    double first = j->first > 0 ? j->first : j->ended;
    sb_printf(b, "\"runt\":{\"prompt_seconds\":%.6f,\"completion_seconds\":%.6f}}",
              j->started > 0 ? first - j->started : 0, j->ended - first);
}

/* The text that a completion with `echo` begins with. */
static void put_prompt(struct strbuf *b, const struct reply *r, size_t which)
{
    const struct request_input *in = &r->request->inputs[which / r->job->n_each];
    if (in->text)
        sb_put(b, in->text, in->n_text);
    for (size_t i = 0; i < in->n_ids; i++) {
        size_t n;
        const char *bytes = runt_token_bytes(r->job->model->model, in->ids[i], &n);
        sb_put(b, bytes, n);
    }
}

/* ---- probabilities ---- */

static const char *token_text(const struct reply *r, int32_t id, size_t *n)
{
    return runt_token_bytes(r->job->model->model, id, n);
}

static void put_logprob(struct strbuf *b, float x)
{
    if (isnan(x))
        sb_str(b, "null");
    else
        sb_printf(b, "%.6g", x < -9999 ? -9999.0 : (double)x);
}

/* "token":T,"logprob":X,"bytes":[...] */
static void put_token(struct strbuf *b, const struct reply *r,
                      const struct runt_logprob *p)
{
    size_t n;
    const char *bytes = token_text(r, p->token, &n);
    sb_str(b, "{\"token\":");
    api_put_string(b, bytes, n);
    sb_str(b, ",\"logprob\":");
    put_logprob(b, p->logprob);
    sb_str(b, ",\"bytes\":[");
    for (size_t i = 0; i < n; i++)
        sb_printf(b, "%s%u", i ? "," : "", (unsigned char)bytes[i]);
    sb_char(b, ']');
}

static void put_chat_probs(struct strbuf *b, const struct reply *r,
                           const struct prob_list *l)
{
    size_t each = 1 + (size_t)r->job->n_top;
    sb_str(b, "{\"content\":[");
    for (size_t i = 0; i < l->n; i += each) {
        const char *comma = "";
        sb_str(b, i ? "," : "");
        put_token(b, r, &l->at[i]);
        sb_str(b, ",\"top_logprobs\":[");
        for (size_t k = i + 1; k < i + each && l->at[k].token >= 0; k++, comma = ",") {
            sb_str(b, comma);
            put_token(b, r, &l->at[k]);
            sb_char(b, '}');
        }
        sb_str(b, "]}");
    }
    sb_str(b, "],\"refusal\":null}");
}

static size_t n_characters(const char *s, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)s[i] & 0xc0) != 0x80;
    return count;
}

/* {TOKEN: X, ...}: the likeliest after one place. */
static void put_top(struct strbuf *b, const struct reply *r,
                    const struct runt_logprob *top)
{
    const char *comma = "";
    if (isnan(top[0].logprob)) {
        sb_str(b, "null");
        return;
    }
    sb_char(b, '{');
    for (int k = 1; k <= r->job->n_top && top[k].token >= 0; k++, comma = ",") {
        size_t n;
        const char *bytes = token_text(r, top[k].token, &n);
        sb_str(b, comma);
        api_put_string(b, bytes, n);
        sb_char(b, ':');
        put_logprob(b, top[k].logprob);
    }
    sb_char(b, '}');
}

static void put_completion_probs(struct strbuf *b, const struct reply *r,
                                 struct reply_choice *c)
{
    const struct prob_list *l = &c->news.probs;
    size_t each = 1 + (size_t)r->job->n_top, n;
    const char *bytes;
    sb_str(b, "{\"tokens\":[");
    for (size_t i = 0; i < l->n; i += each) {
        bytes = token_text(r, l->at[i].token, &n);
        sb_str(b, i ? "," : "");
        api_put_string(b, bytes, n);
    }
    sb_str(b, "],\"token_logprobs\":[");
    for (size_t i = 0; i < l->n; i += each) {
        sb_str(b, i ? "," : "");
        put_logprob(b, l->at[i].logprob);
    }
    sb_str(b, "],\"top_logprobs\":");
    for (size_t i = 0; r->job->n_top && i < l->n; i += each) {
        sb_str(b, i ? "," : "[");
        put_top(b, r, &l->at[i]);
    }
    sb_str(b, !r->job->n_top ? "null" : l->n ? "]" : "[]");
    sb_str(b, ",\"text_offset\":[");
    for (size_t i = 0; i < l->n; i += each) {
        bytes = token_text(r, l->at[i].token, &n);
        sb_printf(b, "%s%zu", i ? "," : "", c->offset);
        c->offset += n_characters(bytes, n);
    }
    sb_str(b, "]}");
}

static void put_probs(struct strbuf *b, const struct reply *r, struct reply_choice *c)
{
    sb_str(b, "\"logprobs\":");
    if (r->job->n_top < 0)
        sb_str(b, "null");
    else if (is_chat(r))
        put_chat_probs(b, r, &c->news.probs);
    else
        put_completion_probs(b, r, c);
}

/* ---- the whole ---- */

static void put_choice(struct strbuf *b, struct reply *r, size_t i)
{
    struct reply_choice *c = &r->choices[i];
    const struct news *n = &c->news;
    if (is_chat(r)) {
        sb_printf(b,
                  "{\"index\":%zu,\"message\":{\"role\":\"assistant\",\"content\":", i);
        api_put_string(b, n->text.data, n->text.len);
        sb_str(b, ",\"refusal\":null},");
    } else {
        struct strbuf text = {0};
        if (r->request->echo)
            put_prompt(&text, r, i);
        if (!r->job->score_prompt)
            c->offset = n_characters(text.data, text.len);
        sb_put(&text, n->text.data, n->text.len);
        sb_str(b, "{\"text\":");
        api_put_string(b, text.data, text.len);
        sb_printf(b, ",\"index\":%zu,", i);
        b->failed |= text.failed;
        sb_free(&text);
    }
    put_probs(b, r, c);
    sb_printf(b, ",\"finish_reason\":\"%s\"}", finish_reason(n->end));
}

static void put_vectors(struct strbuf *b, const struct reply *r)
{
    const struct job *j = r->job;
    size_t n_embd = j->model->info.n_embd;
    sb_str(b, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < j->n_choices; i++) {
        const float *x = j->vectors + i * n_embd;
        sb_printf(b, "%s{\"object\":\"embedding\",\"index\":%zu,\"embedding\":",
                  i ? "," : "", i);
        if (r->request->base64)
            api_put_base64(b, x, n_embd);
        for (size_t k = 0; !r->request->base64 && k < n_embd; k++)
            sb_printf(b, "%c%.9g", k ? ',' : '[', (double)x[k]);
        sb_str(b, r->request->base64 ? "}" : "]}");
    }
    sb_str(b, "],\"model\":");
    api_put_cstring(b, j->model->name);
    sb_char(b, ',');
}

int reply_whole(struct reply *r, struct strbuf *out, struct api_error *e)
{
    for (size_t i = 0; i < r->job->n_choices; i++) {
        struct news *n = &r->choices[i].news;
        engine_take(r->engine, r->job, i, n);
        if (failure(r->job, n->end, e))
            return -1;
    }
    r->finish = finish_reason(r->choices[0].news.end);
    if (r->request->kind == REQUEST_EMBEDDING)
        put_vectors(out, r);
    else {
        sb_put(out, r->head.data, r->head.len);
        sb_str(out, "\"choices\":[");
        for (size_t i = 0; i < r->job->n_choices; i++) {
            sb_str(out, i ? "," : "");
            put_choice(out, r, i);
        }
        sb_str(out, "],");
    }
    put_usage(out, r);
    sb_char(out, '}');
    r->over = true;
    return out->failed ? api_fail(e, 500, NULL, NULL, "out of memory") : 0;
}

/* ---- events ---- */

static void begin_event(struct strbuf *b, const struct reply *r)
{
    sb_str(b, "data: ");
    sb_put(b, r->head.data, r->head.len);
    sb_str(b, "\"choices\":[");
}

static void end_event(struct strbuf *b, const struct reply *r)
{
    sb_str(b, r->request->include_usage ? "],\"usage\":null}\n\n" : "]}\n\n");
}

/* A piece of choice i; the first one of a chat says who speaks. */
static void put_piece(struct strbuf *b, struct reply *r, size_t i)
{
    struct reply_choice *c = &r->choices[i];
    struct news *n = &c->news;
    begin_event(b, r);
    if (is_chat(r)) {
        sb_printf(b, "{\"index\":%zu,\"delta\":{%s\"content\":", i,
                  c->begun ? "" : "\"role\":\"assistant\",");
        api_put_string(b, n->text.data, n->text.len);
        sb_str(b, "},");
    } else {
        sb_str(b, "{\"text\":");
        api_put_string(b, n->text.data, n->text.len);
        sb_printf(b, ",\"index\":%zu,", i);
    }
    put_probs(b, r, c);
    sb_str(b, ",\"finish_reason\":null}");
    end_event(b, r);
    c->begun = true;
    n->text.len = 0;
    n->probs.n = 0;
}

static void put_end(struct strbuf *b, struct reply *r, size_t i)
{
    enum job_end end = r->choices[i].news.end;
    begin_event(b, r);
    if (is_chat(r))
        sb_printf(b, "{\"index\":%zu,\"delta\":{},\"logprobs\":null,", i);
    else
        sb_printf(b, "{\"text\":\"\",\"index\":%zu,\"logprobs\":null,", i);
    sb_printf(b, "\"finish_reason\":\"%s\"}", finish_reason(end));
    end_event(b, r);
    if (!i)
        r->finish = finish_reason(end);
    r->choices[i].ended = true;
    r->n_ended++;
}

static void put_failure(struct strbuf *b, struct reply *r, const struct api_error *e)
{
    sb_str(b, "data: ");
    api_put_error(b, e);
    sb_str(b, "\n\n");
    r->finish = "error";
    r->over = true;
}

/* What an echo puts before the first piece. */
static void echo(struct reply *r, size_t i)
{
    struct reply_choice *c = &r->choices[i];
    struct strbuf text = {0};
    if (c->begun || !r->request->echo)
        return;
    put_prompt(&text, r, i);
    if (!r->job->score_prompt)
        c->offset = n_characters(text.data, text.len);
    sb_put(&text, c->news.text.data, c->news.text.len);
    sb_free(&c->news.text);
    c->news.text = text;
}

static void put_rest(struct strbuf *b, struct reply *r)
{
    if (r->request->include_usage) {
        sb_str(b, "data: ");
        sb_put(b, r->head.data, r->head.len);
        sb_str(b, "\"choices\":[],");
        put_usage(b, r);
        sb_str(b, "}\n\n");
    }
    count(r);
    sb_str(b, "data: [DONE]\n\n");
    r->over = true;
}

void reply_events(struct reply *r, struct strbuf *out)
{
    for (size_t i = 0; i < r->job->n_choices && !r->over; i++) {
        struct reply_choice *c = &r->choices[i];
        struct api_error e;
        if (c->ended)
            continue;
        engine_take(r->engine, r->job, i, &c->news);
        if (failure(r->job, c->news.end, &e)) {
            put_failure(out, r, &e);
            break;
        }
        if (!c->news.n_tokens && !c->news.end)
            continue;
        echo(r, i);
        if (c->news.text.len || c->news.probs.n || !c->begun)
            put_piece(out, r, i);
        if (c->news.end)
            put_end(out, r, i);
    }
    if (!r->over && r->n_ended == r->job->n_choices)
        put_rest(out, r);
}
