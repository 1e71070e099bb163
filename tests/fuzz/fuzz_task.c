/* Any bytes as a file of tasks (the first byte chooses the kind) and as prompts: what
 * is accepted must lie inside the text that was kept. */
#include "eval/derail.h"
#include "eval/task.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct task_set *s, struct task_span at)
{
    if (at.at > s->text.len || at.n > s->text.len - at.at)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct runt_err err;
    struct task_set s;
    struct derail_prompt *prompts;
    size_t n_prompts = 0;
    if (!size)
        return 0;
    const char *text = (const char *)data + 1;
    enum task_kind kind = data[0] % 2 ? TASK_HELLASWAG : TASK_LAMBADA;
    if (!task_parse(kind, text, size - 1, "fuzz", 0, &s, &err)) {
        for (size_t i = 0; i < s.n; i++) {
            const struct task_item *t = &s.items[i];
            check(&s, t->context);
            if (t->label >= t->n_endings || !t->line)
                abort();
            for (size_t e = 0; e < t->n_endings; e++) {
                check(&s, t->endings[e]);
                if (!t->endings[e].n)
                    abort();
            }
        }
        task_set_free(&s);
    }
    if (!derail_prompts(text, size - 1, "fuzz", &prompts, &n_prompts, &err)) {
        for (size_t i = 0; i < n_prompts; i++)
            if (!prompts[i].n || prompts[i].text < text ||
                prompts[i].text + prompts[i].n > text + size - 1)
                abort();
        runt_free(prompts);
    }
    return 0;
}
