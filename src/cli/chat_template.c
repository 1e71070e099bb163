/* Owns the chat templates.  A model without one is never given one silently: "none"
 * feeds a person's words as they are and shows how the model goes on. */
#include "cli/chat_template.h"

#include "base/err.h"
#include "train/dialogue.h"

#include <string.h>

static const struct chat_template templates[] = {
    {.name = "none", .before = "", .after = "", .end = "\n"},
    {.name = "turns",
     .before = DIALOGUE_USER " ",
     .after = "\n" DIALOGUE_BOT,
     .end = "\n",
     .stop = "\n" DIALOGUE_USER,
     .jinja = "{% for message in messages %}"
              "{% if message['role'] == 'user' %}"
              "{{ '" DIALOGUE_USER " ' + message['content'] | trim + '\n' }}"
              "{% elif message['role'] == 'assistant' %}"
              "{{ '" DIALOGUE_BOT " ' + message['content'] | trim + '\n' }}"
              "{% else %}"
              "{{ message['content'] | trim + '\n' }}"
              "{% endif %}"
              "{% endfor %}"
              "{% if add_generation_prompt %}{{ '" DIALOGUE_BOT "' }}{% endif %}"},
    {.name = "chatml",
     .before = "<|im_start|>user\n",
     .after = "<|im_end|>\n<|im_start|>assistant\n",
     .end = "<|im_end|>\n",
     .stop = "<|im_end|>",
     .special = true},
};

const struct chat_template *chat_template_find(const char *name)
{
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++)
        if (!strcmp(templates[i].name, name))
            return &templates[i];
    return NULL;
}

const struct chat_template *chat_template_detect(const char *jinja)
{
    if (strstr(jinja, "<|im_start|>") && strstr(jinja, "<|im_end|>"))
        return chat_template_find("chatml");
    if (strstr(jinja, "User:") && strstr(jinja, "Bot:"))
        return chat_template_find("turns");
    return NULL;
}

static int put(const runt_model *m, const char *text, size_t n, bool special,
               struct token_list *out, struct runt_err *err)
{
    int32_t *ids = NULL;
    size_t n_ids = 0;
    int rc = runt_tokenize(m, text, n, special, &ids, &n_ids, err);
    if (!rc)
        rc = token_list_put(out, ids, n_ids, err);
    runt_free(ids);
    return rc;
}

int chat_template_turn(const struct chat_template *t, const runt_model *m,
                       const char *words, size_t n, struct token_list *out,
                       struct runt_err *err)
{
    if (!t->special) { /* one text, so that tokens may cross the joints as in training
                        */
        struct strbuf b = {0};
        sb_str(&b, t->before);
        sb_put(&b, words, n);
        sb_str(&b, t->after);
        int rc = b.failed ? err_nomem(err, "a turn")
                          : put(m, b.data ? b.data : "", b.len, false, out, err);
        sb_free(&b);
        return rc;
    }
    int rc = put(m, t->before, strlen(t->before), true, out, err);
    if (!rc)
        rc = put(m, words, n, false, out, err);
    return rc ? rc : put(m, t->after, strlen(t->after), true, out, err);
}

int chat_template_end(const struct chat_template *t, const runt_model *m,
                      struct token_list *out, struct runt_err *err)
{
    return put(m, t->end, strlen(t->end), t->special, out, err);
}
