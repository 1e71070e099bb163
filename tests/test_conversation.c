/* The messages of a conversation and their file: what is written is read again, what
 * lies is refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "talk/conversation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int add(struct conversation *c, const char *role, const char *text)
{
    return conversation_add(c, role, text, strlen(text), NULL);
}

static void assert_messages(const struct conversation *c, const char *want)
{
    char got[512] = "";
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++)
        n += (size_t)snprintf(got + n, sizeof got - n, "%c=%s;", c->messages[i].role[0],
                              c->messages[i].content);
    assert_string_equal(got, want);
}

static void the_system_speaks_first(void **state)
{
    (void)state;
    struct conversation c = {0};
    assert_int_equal(conversation_set_system(&c, NULL, 0, NULL), 0);
    assert_int_equal(conversation_set_system(&c, "one", 3, NULL), 0);
    assert_messages(&c, "s=one;");
    add(&c, "user", "a");
    add(&c, "assistant", "b");
    assert_int_equal(conversation_set_system(&c, "two", 3, NULL), 0);
    assert_messages(&c, "s=two;u=a;a=b;");
    assert_int_equal(conversation_n_system(&c), 1);
    assert_int_equal(conversation_set_system(&c, NULL, 0, NULL), 0);
    assert_messages(&c, "u=a;a=b;");
    assert_int_equal(conversation_set_system(&c, "three", 5, NULL), 0);
    assert_messages(&c, "s=three;u=a;a=b;");
    conversation_cut(&c, 1);
    assert_messages(&c, "s=three;");
    conversation_free(&c);
    add(&c, "system", "x");
    add(&c, "system", "y");
    add(&c, "user", "a");
    assert_int_equal(conversation_n_system(&c), 2);
    assert_int_equal(conversation_set_system(&c, "z", 1, NULL), 0);
    assert_messages(&c, "s=z;u=a;");
    conversation_free(&c);
}

static void a_file_gives_back_what_was_said(void **state)
{
    (void)state;
    char dir[] = "/tmp/runt-test-XXXXXX", path[64];
    struct conversation c = {0}, back = {0};
    static const char zeros[] = "a\0b \"\\\n\t\x1b \xe6\x97\xa5 \xff";
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/c.json", dir);
    add(&c, "system", "");
    assert_int_equal(conversation_add(&c, "user", zeros, sizeof zeros - 1, NULL), 0);
    add(&c, "assistant", " yes");
    assert_int_equal(conversation_save(&c, "a\xffmodel", path, NULL), 0);
    add(&back, "user", "what was there before goes");
    assert_int_equal(conversation_load(path, &back, NULL), 0);
    assert_int_equal(back.n, 3);
    assert_string_equal(back.messages[0].role, "system");
    assert_int_equal(back.messages[0].n_content, 0);
    assert_string_equal(back.messages[1].role, "user");
    assert_int_equal(back.messages[1].n_content, sizeof zeros - 1 + 2);
    assert_memory_equal(back.messages[1].content, zeros, sizeof zeros - 2);
    assert_string_equal(back.messages[1].content + sizeof zeros - 2, "\xef\xbf\xbd");
    assert_string_equal(back.messages[2].content, " yes");
    conversation_free(&c);
    conversation_free(&back);
    unlink(path);
    rmdir(dir);
}

static void lies_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *json, *says;
    } cases[] = {
        {"", "bad JSON"},
        {"{", "bad JSON"},
        {"[]", "no object with a list 'messages'"},
        {"7", "no object with a list 'messages'"},
        {"{}", "no object with a list 'messages'"},
        {"{\"messages\":{}}", "no object with a list 'messages'"},
        {"{\"messages\":[1]}", "message 1 is no object"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},[]]}",
         "message 2 is no object"},
        {"{\"messages\":[{\"role\":\"user\"}]}", "message 1 is no object"},
        {"{\"messages\":[{\"role\":7,\"content\":\"a\"}]}", "message 1 is no object"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":null}]}",
         "message 1 is no object"},
        {"{\"messages\":[{\"role\":\"tool\",\"content\":\"a\"}]}",
         "message 1 is of role 'tool'"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"content\":\"b\"}]}",
         "bad JSON"},
        {"{\"messages\":[]} {}", "bad JSON"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}", "bad JSON"},
    };
    struct conversation c = {0};
    add(&c, "user", "stays");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct runt_err err;
        assert_int_equal(
            conversation_parse(cases[i].json, strlen(cases[i].json), "FILE", &c, &err),
            RUNT_E_FORMAT);
        assert_memory_equal(err.msg, "FILE: ", 6);
        assert_non_null(strstr(err.msg, cases[i].says));
        assert_messages(&c, "u=stays;");
    }
    static const char fine[] =
        "{\"x\":[],\"messages\":[{\"content\":\"a\",\"role\":\"user\",\"name\":1}]}";
    assert_int_equal(conversation_parse(fine, sizeof fine - 1, "FILE", &c, NULL), 0);
    assert_messages(&c, "u=a;");
    conversation_free(&c);
}

static void without_memory_nothing_changes(void **state)
{
    (void)state;
    static const char json[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},"
                               "{\"role\":\"assistant\",\"content\":\"b\"}]}";
    struct conversation c = {0};
    add(&c, "user", "stays");
    for (long i = 0;; i++) {
        mem_fail_after(i);
        int rc = conversation_parse(json, sizeof json - 1, "FILE", &c, NULL);
        mem_fail_after(-1);
        if (!rc) {
            assert_true(i >= 3);
            break;
        }
        assert_int_equal(rc, RUNT_E_NOMEM);
        assert_messages(&c, "u=stays;");
    }
    mem_fail_after(0);
    assert_int_equal(conversation_set_system(&c, "s", 1, NULL), RUNT_E_NOMEM);
    mem_fail_after(-1);
    assert_messages(&c, "u=a;a=b;");
    conversation_free(&c);
    assert_int_equal(mem_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_system_speaks_first),
        cmocka_unit_test(a_file_gives_back_what_was_said),
        cmocka_unit_test(lies_are_refused),
        cmocka_unit_test(without_memory_nothing_changes),
    };
    return cmocka_run_group_tests_name("conversation", tests, NULL, NULL);
}
