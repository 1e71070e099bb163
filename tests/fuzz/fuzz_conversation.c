/* Any bytes as a conversation's file: what is accepted has roles and whole contents,
 * and is the same when it is written and read again. */
#include "talk/conversation.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_same(const struct conversation *a, const struct conversation *b)
{
    if (a->n != b->n)
        abort();
    for (size_t i = 0; i < a->n; i++) {
        const struct runt_message *x = &a->messages[i], *y = &b->messages[i];
        if (strcmp(x->role, y->role) || x->n_content != y->n_content ||
            memcmp(x->content, y->content, x->n_content))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conversation c = {0}, back = {0};
    struct strbuf text = {0};
    if (conversation_parse((const char *)data, size, "fuzz", &c, NULL))
        return 0;
    if (conversation_n_system(&c) > c.n ||
        conversation_write(&c, "fuzz", &text, NULL) ||
        conversation_parse(text.data, text.len, "fuzz", &back, NULL))
        abort();
    sb_free(&text);
    check_same(&c, &back);
    if (conversation_set_system(&c, "s", 1, NULL) || conversation_n_system(&c) != 1)
        abort();
    conversation_free(&c);
    conversation_free(&back);
    return 0;
}
