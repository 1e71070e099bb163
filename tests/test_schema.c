/* JSON schemas: the values that come and that do not, what is refused by name and
 * place, and memory. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "sample/matcher.h"

#include <stdlib.h>
#include <string.h>

static bool takes(const runt_grammar *g, const char *text, size_t n)
{
    bool out = false;
    struct runt_err err;
    if (matcher_test(g, text, n, &out, &err))
        fail_msg("%s", err.msg);
    return out;
}

/* ---- what comes ---- */

static const struct {
    const char *schema, *good, *bad; /* texts, each ended by a line end */
} table[] = {
    {"{}", "null\n1\n\"a\"\n[1,{\"a\":[]}]\n{\"a\":{}}\n-0.5e+12\n",
     "\n01\n1.\n.5\n'a'\n[1,]\n"},
    {"true", "{}\n[ ]\n", " {}\n{} \n"},
    {"{\"type\":\"null\"}", "null\n", "true\n0\nnul\n"},
    {"{\"type\":\"boolean\"}", "true\nfalse\n", "null\ntru\n"},
    {"{\"type\":[\"null\",\"integer\"]}", "null\n0\n-17\n", "-0\n1.5\n\"\"\n00\n"},
    {"{\"type\":\"boolean\",\"nullable\":true}", "true\nnull\n", "0\n"},
    {"{\"type\":\"object\"}", "{}\n{ }\n{\"a\": 1, \"b\":[true]}\n{\n  \"a\":1\n}\n",
     "[]\n{\"a\"}\n"},
    /* strings */
    {"{\"type\":\"string\"}", "\"\"\n\"\xc3\xa9\\n\\\"\\\\\"\n",
     "\"\\/\"\n\"\\u0041\"\n\"a\n\"\t\"\n\"\xff\"\n"},
    {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
     "\"ab\"\n\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"\n\"\\n\\n\\n\"\n",
     "\"\"\n\"a\"\n\"abcd\"\n\"\xc3\xa9\"\n"},
    {"{\"maxLength\":0}", "\"\"\n", "\"a\"\n1\n"},
    {"{\"format\":\"date\"}", "\"2024-02-29\"\n\"2000-02-29\"\n\"1999-12-31\"\n",
     "\"1900-02-29\"\n\"2023-02-29\"\n\"2023-04-31\"\n\"2023-13-01\"\n\"2023-00-"
     "01\"\n\"23-1-1\"\n"},
    {"{\"format\":\"time\"}", "\"23:59:59Z\"\n\"00:00:00.25+14:00\"\n",
     "\"24:00:00Z\"\n\"00:60:00Z\"\n\"00:00:60Z\"\n\"00:00:00\"\n\"00:00:00.Z\"\n"},
    {"{\"format\":\"date-time\"}", "\"2024-02-29T10:20:30-05:30\"\n",
     "\"2024-02-29\"\n"},
    {"{\"format\":\"uuid\"}", "\"01234567-89ab-cdef-ABCD-0123456789ab\"\n",
     "\"01234567-89ab-cdef-ABCD-0123456789a\"\n\"\"\n"},
    /* patterns */
    {"{\"pattern\":\"^a.c$\"}",
     "\"abc\"\n\"a\xe2\x82\xac"
     "c\"\n\"a\\\"c\"\n\"a\\tc\"\n",
     "\"a\\nc\"\n\"xabc\"\n\"ac\"\n"},
    {"{\"pattern\":\"b+\"}", "\"b\"\n\"abbc\"\n", "\"\"\n\"ac\"\n"},
    {"{\"pattern\":\"^x|y$\"}", "\"xa\"\n\"ay\"\n\"x\"\n", "\"ax\"\n\"ya\"\n"},
    {"{\"pattern\":\"^(?:ab|c){2}(?<n>d)?$\"}", "\"abc\"\n\"ccd\"\n",
     "\"ab\"\n\"abcdd\"\n"},
    {"{\"pattern\":\"^[^\\\\w\\\\s]$\"}", "\"-\"\n\"\\u0001\"\n",
     "\"a\"\n\" \"\n\"\xc3\xa9\"\n"},
    {"{\"pattern\":\"^[\\\\]\\\\-a-c]+\\\\.\\\\u00e9\\\\ud83d\\\\ude00{2}$\"}",
     "\"]-b.\xc3\xa9\xf0\x9f\x98\x80\xf0\x9f\x98\x80\"\n", "\"d.\xc3\xa9\"\n"},
    {"{\"pattern\":\"^a{2}{$|^}]{0}b{,$\"}", "\"aa{\"\n\"}b{,\"\n", "\"aa\"\n"},
    {"{\"pattern\":\"\"}", "\"\"\n\"abc\"\n", "1\n"},
    /* numbers */
    {"{\"type\":\"integer\",\"minimum\":-12,\"maximum\":105}",
     "-12\n-1\n0\n9\n10\n99\n100\n105\n", "-13\n106\n-0\n1000\n1.0\n1e1\n"},
    {"{\"type\":\"integer\",\"exclusiveMinimum\":3,\"exclusiveMaximum\":7}", "4\n6\n",
     "3\n7\n"},
    {"{\"type\":\"integer\",\"minimum\":1.5,\"maximum\":3.5}", "2\n3\n", "1\n4\n"},
    {"{\"type\":\"integer\",\"minimum\":2345,\"maximum\":6789}",
     "2345\n2999\n3000\n6789\n5000\n", "2344\n6790\n999\n10000\n7000\n"},
    {"{\"type\":\"integer\",\"minimum\":99999999999999999}",
     "99999999999999999\n100000000000000000\n", "99999999999999998\n"},
    {"{\"type\":\"integer\",\"maximum\":-5}", "-5\n-60\n", "-4\n0\n5\n"},
    {"{\"type\":\"number\",\"minimum\":0}", "0\n0.25\n12\n", "-1\n-0\n1e5\n"},
    {"{\"type\":\"number\",\"minimum\":-2,\"maximum\":3}",
     "-2\n-1.99\n-0.5\n0\n2.999\n3\n", "-2.01\n3.01\n4\n-3\n"},
    {"{\"type\":\"number\",\"maximum\":-7}", "-7\n-7.5\n-123.25\n", "-6.99\n7\n"},
    {"{\"type\":\"number\",\"minimum\":5,\"maximum\":5}", "5\n", "5.1\n4\n"},
    /* arrays */
    {"{\"items\":{\"type\":\"null\"},\"minItems\":1,\"maxItems\":3}",
     "[null]\n[ null, null,null ]\n", "[]\n[null,null,null,null]\n[1]\n"},
    {"{\"prefixItems\":[{\"const\":1},{\"const\":2}]}", "[]\n[1]\n[1,2]\n",
     "[2]\n[1,2,3]\n"},
    {"{\"prefixItems\":[{\"const\":1}],\"items\":{\"const\":2},\"minItems\":2}",
     "[1,2]\n[1,2,2]\n", "[1]\n[2,2]\n"},
    {"{\"prefixItems\":[{\"const\":1}],\"items\":false}", "[]\n[1]\n", "[1,1]\n"},
    {"{\"prefixItems\":[{\"const\":1}],\"minItems\":3}", "[1,null,{}]\n",
     "[1]\n[1,2,3,4]\n"},
    {"{\"prefixItems\":[{\"const\":1},{\"const\":2}],\"minItems\":2}", "[1,2]\n",
     "[1]\n[]\n"},
    {"{\"maxItems\":0}", "[]\n", "[1]\n"},
    {"{\"items\":false}", "[]\n", "[1]\n"},
    /* objects */
    {"{\"properties\":{\"a\":{\"const\":1},\"b\":{\"const\":2},\"c\":{\"const\":3}},"
     "\"required\":[\"b\"]}",
     "{\"b\":2}\n{\"a\":1,\"b\":2}\n{\"b\":2,\"c\":3}\n{\"a\":1, \"b\": 2, \"c\":3}\n",
     "{}\n{\"a\":1}\n{\"b\":2,\"a\":1}\n{\"b\":2,\"d\":4}\n{\"b\":2,}\n{,\"b\":2}\n"},
    {"{\"properties\":{\"a\":{\"const\":1},\"ab\":{\"const\":2}},"
     "\"additionalProperties\":{\"const\":3}}",
     "{}\n{\"\":3}\n{\"abc\":3}\n{\"a\":1,\"b\":3,\"c\":3}\n{\"ab\":2,\"aa\":3}\n",
     "{\"a\":3}\n{\"ab\":3}\n{\"x\":3,\"a\":1}\n{\"x\":1}\n"},
    {"{\"properties\":{\"\\\"\\u00e9\\n\":{\"const\":1}},\"additionalProperties\":"
     "true}",
     "{\"\\\"\xc3\xa9\\n\":1}\n{\"\\\"\xc3\xa9\":2}\n{\"\\\"\xc3\xa8\\n\":2}\n",
     "{\"\\\"\xc3\xa9\\n\":2}\n"},
    {"{\"properties\":{\"a\":false,\"b\":{\"const\":1}}}", "{}\n{\"b\":1}\n",
     "{\"a\":1}\n"},
    {"{\"required\":[\"x\"]}", "{\"x\":1}\n{\"x\":[],\"y\":2}\n",
     "{}\n{\"y\":2,\"x\":1}\n"},
    {"{\"additionalProperties\":false}", "{}\n{ }\n", "{\"a\":1}\n"},
    /* values that are listed */
    {"{\"enum\":[1,\"a\",null,[1, 2],{\"b\": 0.1}]}",
     "1\n\"a\"\nnull\n[1,2]\n{\"b\":0.1}\n", "2\n[1, 2]\n"},
    {"{\"const\":\"\xc3\xa9\\n\"}", "\"\xc3\xa9\\n\"\n", "\"e\"\n"},
    {"{\"enum\":[1,\"a\",\"abc\",-1],\"minimum\":0,\"maxLength\":2}", "1\n\"a\"\n",
     "-1\n\"abc\"\n"},
    {"{\"enum\":[1,2.0,2.5],\"type\":\"integer\"}", "1\n2.0\n", "2.5\n"},
    {"{\"enum\":[\"2024-02-30\",\"2024-02-28\"],\"format\":\"date\"}",
     "\"2024-02-28\"\n", "\"2024-02-30\"\n"},
    {"{\"enum\":[\"ab\",\"b\",\"ca\"],\"pattern\":\"^a|a$\"}", "\"ab\"\n\"ca\"\n",
     "\"b\"\n"},
    {"{\"enum\":[1,2,3],\"allOf\":[{\"enum\":[3,2.0]}],\"oneOf\":[{\"const\":2},{"
     "\"minimum\":2}]}",
     "3\n", "1\n2\n"},
    /* combinations */
    {"{\"anyOf\":[{\"const\":1},{\"type\":\"null\"}]}", "1\nnull\n", "2\n"},
    {"{\"type\":\"integer\",\"anyOf\":[{\"maximum\":1,\"minimum\":0},{\"minimum\":8,"
     "\"maximum\":9}]}",
     "0\n1\n8\n9\n", "2\n7\n10\n"},
    {"{\"allOf\":[{\"minLength\":2},{\"maxLength\":3},{\"type\":\"string\"}]}",
     "\"ab\"\n\"abc\"\n", "\"a\"\n\"abcd\"\n"},
    {"{\"allOf\":[{\"properties\":{\"a\":{\"minimum\":2}},\"additionalProperties\":"
     "false},"
     "{\"properties\":{\"a\":{\"type\":\"integer\",\"maximum\":3},\"b\":{}},"
     "\"required\":[\"a\"]}]}",
     "{\"a\":2}\n{\"a\":3}\n", "{\"a\":1}\n{\"a\":4}\n{}\n{\"a\":2,\"b\":1}\n"},
    {"{\"allOf\":[{\"prefixItems\":[{\"minimum\":1}],\"items\":{\"maximum\":2,\"type\":"
     "\"integer\"}},"
     "{\"items\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":5},\"minItems\":2,"
     "\"maxItems\":2}]}",
     "[1,2]\n[5,0]\n", "[0,0]\n[1,3]\n[1]\n"},
    {"{\"oneOf\":[{\"type\":\"integer\",\"maximum\":3,\"minimum\":0},{\"type\":"
     "\"integer\",\"minimum\":4,"
     "\"maximum\":6},{\"type\":\"string\",\"maxLength\":1},{\"type\":\"string\","
     "\"minLength\":2}]}",
     "0\n6\n\"\"\n\"abc\"\n", "7\n"},
    {"{\"oneOf\":[{\"properties\":{\"a\":{}},\"required\":[\"a\"]},"
     "{\"properties\":{\"b\":{}},\"required\":[\"b\"]}]}",
     "{\"a\":1}\n{\"b\":1}\n", "{}\n{\"a\":1,\"b\":1}\n"},
    {"{\"oneOf\":[{\"type\":\"array\",\"prefixItems\":[{\"const\":0}],\"minItems\":1},"
     "{\"type\":\"array\",\"prefixItems\":[{\"const\":1}],\"minItems\":1}]}",
     "[0]\n[1]\n", "[]\n[2]\n"},
    {"{\"allOf\":[{\"items\":{\"type\":\"integer\",\"minimum\":1}},"
     "{\"prefixItems\":[{\"maximum\":2},{\"maximum\":3}],\"items\":false,\"minItems\":"
     "2}]}",
     "[1,3]\n[2,1]\n", "[0,1]\n[3,1]\n[1]\n[1,1,1]\n"},
    {"{\"enum\":[\"\xc3\xa9\",1],\"oneOf\":[{\"pattern\":\"^\\\\W$\",\"type\":"
     "\"string\"},"
     "{\"const\":\"\xc3\xa9\"},{\"const\":1}]}",
     "1\n", "\"\xc3\xa9\"\n"}, /* is it \W?  some say so */
    {"{\"enum\":[\"a\",\"b\",\"c\"],\"oneOf\":[{\"pattern\":\"[ab]\"},{\"enum\":[\"b\","
     "\"c\"]}]}",
     "\"a\"\n\"c\"\n", "\"b\"\n"},
    {"{\"enum\":[\"\\u0001b\"],\"oneOf\":[{\"pattern\":\"b\"},{\"pattern\":\"c\"}]}",
     "\"\\u0001b\"\n", ""},
    {"{\"oneOf\":[{\"type\":\"array\",\"prefixItems\":[{\"const\":1}],\"items\":false},"
     "{\"type\":\"array\",\"minItems\":2,\"items\":{\"const\":1}}]}",
     "[]\n[1]\n[1,1]\n", "[2]\n"},
    {"{\"$ref\":\"#/$defs/a~1b%25\",\"$defs\":{\"a/b%\":{\"const\":1}}}", "1\n", "2\n"},
    {"{\"$ref\":\"#/$defs/l/anyOf/"
     "1\",\"$defs\":{\"l\":{\"anyOf\":[{},{\"const\":1}]}}}",
     "1\n", "2\n"},
    {"{\"properties\":{\"n\":{\"$ref\":\"#\"},\"v\":{\"const\":1}},\"required\":[\"v\"]"
     "}",
     "{\"v\":1}\n{\"n\":{\"n\":{\"v\":1},\"v\":1},\"v\":1}\n", "{\"n\":{},\"v\":1}\n"},
    {"{\"$ref\":\"#/$defs/"
     "a\",\"maximum\":3,\"$defs\":{\"a\":{\"type\":\"integer\",\"minimum\":2}}}",
     "2\n3\n", "1\n4\n"},
    {"{\"title\":\"t\",\"description\":\"d\",\"default\":1,\"examples\":[1],\"$"
     "schema\":\"s\",\"$id\":\"i\","
     "\"$comment\":\"c\",\"deprecated\":true,\"readOnly\":true,\"writeOnly\":false,"
     "\"const\":1}",
     "1\n", "2\n"},
    {"{\"$defs\":{\"unused\":{\"multipleOf\":3}},\"const\":1}", "1\n", ""},
};

static void check_texts(const runt_grammar *g, const char *schema, const char *texts,
                        bool expected)
{
    /* a text with a line end in it is one of indented JSON: "{\n  " */
    for (const char *p = texts; *p;) {
        size_t n = strcspn(p, "\n");
        if (!strncmp(p, "{\n", 2))
            n = strcspn(p + 2, "\n") + 2, n += strcspn(p + n + 1, "\n") + 1;
        if (takes(g, p, n) != expected)
            fail_msg("%s: %.*s", schema, (int)n, p);
        p += n + 1;
    }
}

static void schemas_take_their_values(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct runt_err err;
        runt_grammar *g = NULL;
        if (runt_grammar_json_schema(table[i].schema, strlen(table[i].schema), &g,
                                     &err))
            fail_msg("%s: %s", table[i].schema, err.msg);
        check_texts(g, table[i].schema, table[i].good, true);
        check_texts(g, table[i].schema, table[i].bad, false);
        runt_grammar_free(g);
    }
}

static void any_object_comes(void **state)
{
    runt_grammar *g = NULL;
    (void)state;
    assert_int_equal(runt_grammar_json(&g, NULL), 0);
    check_texts(g, "any object", "{}\n{\"a\":[1,{\"b\":null}]}\n", true);
    check_texts(g, "any object", "[]\n1\nnull\n\n", false);
    runt_grammar_free(g);
}

/* ---- what is refused ---- */

static const struct {
    const char *schema;
    int code;
    const char *words[2];
} refused[] = {
    {"{\"multipleOf\":3}", RUNT_E_UNSUPPORTED, {"#: ", "'multipleOf'"}},
    {"{\"properties\":{\"a/b\":{\"items\":{\"uniqueItems\":true}}}}",
     RUNT_E_UNSUPPORTED,
     {"#/properties/a~1b/items: ", "'uniqueItems'"}},
    {"{\"anyOf\":[{},{\"not\":{}}]}", RUNT_E_UNSUPPORTED, {"#/anyOf/1: ", "'not'"}},
    {"{\"$ref\":\"#/$defs/x\",\"$defs\":{\"x\":{\"if\":true}}}",
     RUNT_E_UNSUPPORTED,
     {"#/$defs/x: ", "'if'"}},
    {"{\"prefixItems\":[{\"patternProperties\":{}}]}",
     RUNT_E_UNSUPPORTED,
     {"#/prefixItems/0: ", "'patternProperties'"}},
    {"{\"additionalProperties\":{\"minProperties\":1}}",
     RUNT_E_UNSUPPORTED,
     {"#/additionalProperties: ", "'minProperties'"}},
    {"{\"items\":{\"$id\":\"x\"}}", RUNT_E_UNSUPPORTED, {"#/items: ", "'$id'"}},
    {"{\"format\":\"email\"}", RUNT_E_UNSUPPORTED, {"#: ", "'email'"}},
    {"{\"$ref\":\"other.json#/a\"}", RUNT_E_UNSUPPORTED, {"#: ", "'other.json#/a'"}},
    {"{\"$ref\":\"#anchor\"}", RUNT_E_UNSUPPORTED, {"#: ", "'#anchor'"}},
    {"{\"type\":\"number\",\"minimum\":0.5}", RUNT_E_UNSUPPORTED, {"#: ", "'minimum'"}},
    {"{\"items\":{\"type\":\"number\",\"exclusiveMaximum\":1}}",
     RUNT_E_UNSUPPORTED,
     {"#/items: ", "'exclusiveMaximum'"}},
    {"{\"minimum\":1e300}", RUNT_E_UNSUPPORTED, {"'minimum'", "limit"}},
    {"{\"type\":\"number\",\"maximum\":9007199254740993}",
     RUNT_E_UNSUPPORTED,
     {"#: ", "limit"}},
    {"{\"pattern\":\"a\",\"minLength\":2}",
     RUNT_E_UNSUPPORTED,
     {"'minLength'", "'pattern'"}},
    {"{\"format\":\"date\",\"maxLength\":2}",
     RUNT_E_UNSUPPORTED,
     {"'maxLength'", "'format'"}},
    {"{\"format\":\"date\",\"pattern\":\"a\"}",
     RUNT_E_UNSUPPORTED,
     {"'format'", "'pattern'"}},
    {"{\"allOf\":[{\"pattern\":\"a\"},{\"pattern\":\"b\"}]}",
     RUNT_E_UNSUPPORTED,
     {"#/allOf/1: ", "'pattern'"}},
    {"{\"minLength\":70000}", RUNT_E_UNSUPPORTED, {"#: ", "'minLength'"}},
    {"{\"minItems\":2000000}", RUNT_E_UNSUPPORTED, {"#: ", "'minItems'"}},
    /* oneOf */
    {"{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]}",
     RUNT_E_UNSUPPORTED,
     {"#/oneOf/1: ", "oneOf"}},
    {"{\"oneOf\":[{\"type\":\"string\"},{\"minimum\":3}]}",
     RUNT_E_UNSUPPORTED,
     {"#/oneOf/1: ", "oneOf"}}, /* "a" is valid for both */
    {"{\"oneOf\":[{\"properties\":{\"a\":{}}},{\"properties\":{\"b\":{}},\"required\":["
     "\"b\"]}]}",
     RUNT_E_UNSUPPORTED,
     {"#/oneOf/0: ", "oneOf"}},
    {"{\"oneOf\":[{\"pattern\":\"a\"},{\"pattern\":\"^b$\"}]}",
     RUNT_E_UNSUPPORTED,
     {"#/oneOf/1: ", "oneOf"}},
    {"{\"oneOf\":[{\"type\":\"number\",\"maximum\":5},{\"type\":\"number\","
     "\"exclusiveMinimum\":4}]}",
     RUNT_E_UNSUPPORTED,
     {"#/oneOf/1: ", "oneOf"}},
    {"{\"oneOf\":[{\"type\":\"array\",\"prefixItems\":[{\"const\":1}]},"
     "{\"type\":\"array\",\"minItems\":1,\"items\":{\"type\":\"string\"}}]}",
     RUNT_E_UNSUPPORTED,
     {"#/oneOf/1: ", "oneOf"}},
    {"{\"oneOf\":[{\"required\":[\"c\"],\"additionalProperties\":true},"
     "{\"required\":[\"b\"],\"properties\":{\"b\":{}}}]}",
     RUNT_E_UNSUPPORTED,
     {"#/oneOf/1: ", "oneOf"}},
    {"{\"enum\":[{\"a\":\"\xc3\xa9\"}],\"properties\":{\"a\":{\"oneOf\":[{\"pattern\":"
     "\"^\\\\W$\"},"
     "{\"const\":\"\xc3\xa9\"}]}}}",
     RUNT_E_FORMAT,
     {"no value", ""}},
    {"{\"type\":\"number\",\"minimum\":1.2,\"maximum\":1.8}",
     RUNT_E_UNSUPPORTED,
     {"#: ", "'minimum'"}},
    /* patterns */
    {"{\"pattern\":\"(?=a)b\"}", RUNT_E_UNSUPPORTED, {"'pattern'", "ahead"}},
    {"{\"pattern\":\"a(?<!b)\"}", RUNT_E_UNSUPPORTED, {"'pattern'", "behind"}},
    {"{\"pattern\":\"(a)\\\\1\"}",
     RUNT_E_UNSUPPORTED,
     {"'pattern'", "escape at character 5"}},
    {"{\"pattern\":\"\\\\bx\"}", RUNT_E_UNSUPPORTED, {"'pattern'", "\\b"}},
    {"{\"pattern\":\"\\\\p{L}\"}", RUNT_E_UNSUPPORTED, {"'pattern'", "escape"}},
    {"{\"pattern\":\"(a*)*\"}", RUNT_E_UNSUPPORTED, {"'pattern'", "empty"}},
    {"{\"pattern\":\"(a|)+\"}", RUNT_E_UNSUPPORTED, {"'pattern'", "empty"}},
    {"{\"pattern\":\"a(^b)\"}", RUNT_E_UNSUPPORTED, {"'pattern'", "^ or $"}},
    {"{\"pattern\":\"a$b\"}", RUNT_E_UNSUPPORTED, {"'pattern'", "$"}},
    {"{\"pattern\":\"*a\"}", RUNT_E_UNSUPPORTED, {"'pattern'", "nothing"}},
    {"{\"pattern\":\"[b-a]\"}", RUNT_E_UNSUPPORTED, {"'pattern'", "range"}},
    {"{\"pattern\":\"[a\"}", RUNT_E_UNSUPPORTED, {"'pattern'", "class"}},
    {"{\"pattern\":\"(a\"}", RUNT_E_UNSUPPORTED, {"'pattern'", "group"}},
    {"{\"pattern\":\"a)\"}", RUNT_E_UNSUPPORTED, {"'pattern'", ")"}},
    {"{\"pattern\":\"\\\\\"}", RUNT_E_UNSUPPORTED, {"'pattern'", "escape"}},
    {"{\"pattern\":\"\\\\ud800\"}", RUNT_E_UNSUPPORTED, {"'pattern'", "escape"}},
    /* no schemas */
    {"", RUNT_E_FORMAT, {"the schema", "JSON"}},
    {"{\"a\"", RUNT_E_FORMAT, {"the schema", "line 1"}},
    {"[]", RUNT_E_FORMAT, {"#: ", "not an object"}},
    {"7", RUNT_E_FORMAT, {"#: ", "not an object"}},
    {"{\"type\":\"real\"}", RUNT_E_FORMAT, {"#: ", "'type'"}},
    {"{\"type\":[]}", RUNT_E_FORMAT, {"#: ", "'type'"}},
    {"{\"items\":[{}]}", RUNT_E_FORMAT, {"#: ", "'items'"}},
    {"{\"properties\":{\"a\":1}}", RUNT_E_FORMAT, {"#: ", "'properties'"}},
    {"{\"properties\":[]}", RUNT_E_FORMAT, {"#: ", "'properties'"}},
    {"{\"required\":\"a\"}", RUNT_E_FORMAT, {"#: ", "'required'"}},
    {"{\"required\":[\"a\\u0000b\"]}", RUNT_E_FORMAT, {"#: ", "'required'"}},
    {"{\"minLength\":-1}", RUNT_E_FORMAT, {"#: ", "'minLength'"}},
    {"{\"maxItems\":1.5}", RUNT_E_FORMAT, {"#: ", "'maxItems'"}},
    {"{\"maximum\":\"1\"}", RUNT_E_FORMAT, {"#: ", "'maximum'"}},
    {"{\"enum\":[]}", RUNT_E_FORMAT, {"#: ", "'enum'"}},
    {"{\"anyOf\":[]}", RUNT_E_FORMAT, {"#: ", "'anyOf'"}},
    {"{\"nullable\":1}", RUNT_E_FORMAT, {"#: ", "'nullable'"}},
    {"{\"pattern\":1}", RUNT_E_FORMAT, {"#: ", "'pattern'"}},
    {"{\"$ref\":\"#/$defs/x\"}", RUNT_E_FORMAT, {"#: ", "#/$defs/x"}},
    {"{\"$ref\":\"#/a/0x1\",\"a\":[1]}", RUNT_E_FORMAT, {"#: ", "nothing is at"}},
    /* nothing is valid, or nothing ends */
    {"false", RUNT_E_FORMAT, {"no value", ""}},
    {"{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}",
     RUNT_E_FORMAT,
     {"no value", ""}},
    {"{\"enum\":[1],\"type\":\"string\"}", RUNT_E_FORMAT, {"no value", ""}},
    {"{\"allOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}",
     RUNT_E_FORMAT,
     {"no value", ""}},
    {"{\"required\":[\"a\"],\"additionalProperties\":false}",
     RUNT_E_FORMAT,
     {"no value", ""}},
    {"{\"items\":false,\"minItems\":1}", RUNT_E_FORMAT, {"no value", ""}},
    {"{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}",
     RUNT_E_FORMAT,
     {"no value", ""}},
    {"{\"$ref\":\"#\"}", RUNT_E_FORMAT, {"#: ", "itself"}},
    {"{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}",
     RUNT_E_FORMAT,
     {"#: ", "itself"}},
    {"{\"allOf\":[{\"$ref\":\"#/$defs/a\"}],\"$defs\":{\"a\":{\"$ref\":\"#/$defs/b\"},"
     "\"b\":{\"$ref\":\"#/$defs/a\"}}}",
     RUNT_E_FORMAT,
     {"#/$defs/a: ", "itself"}},
    {"{\"enum\":[1],\"$ref\":\"#\"}", RUNT_E_FORMAT, {"#: ", "itself"}},
};

static void refusals_name_keyword_and_place(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const char *text = refused[i].schema;
        struct runt_err err = {0};
        runt_grammar *g = NULL;
        int rc = runt_grammar_json_schema(text, strlen(text), &g, &err);
        if (rc != refused[i].code || err.code != rc || g ||
            !strstr(err.msg, refused[i].words[0]) ||
            !strstr(err.msg, refused[i].words[1]))
            fail_msg("%s: %d '%s'", text, rc, err.msg);
        assert_int_equal(runt_grammar_json_schema(text, strlen(text), &g, NULL), rc);
    }
}

/* ---- sizes ---- */

static int try(struct strbuf *b, struct runt_err *err)
{
    runt_grammar *g = NULL;
    int rc = runt_grammar_json_schema(b->data, b->len, &g, err);
    runt_grammar_free(g);
    return rc;
}

static void put_many(struct strbuf *b, const char *text, int n)
{
    for (int i = 0; i < n; i++)
        sb_str(b, text);
}

/* Each of these is small, and would be large if it were let; all end soon. */
static void sizes_are_bounded(void **state)
{
    struct strbuf b = {0};
    struct runt_err err;
    (void)state;
    put_many(&b, "{\"items\":", 450); /* deep */
    sb_str(&b, "{}");
    put_many(&b, "}", 450);
    assert_int_equal(try(&b, &err), 0);
    b.len = 0;
    put_many(&b, "{\"items\":", 600);
    sb_str(&b, "{}");
    put_many(&b, "}", 600);
    assert_int_equal(try(&b, &err), RUNT_E_FORMAT);
    assert_non_null(strstr(err.msg, "nested"));
    b.len = 0;
    sb_str(&b, "{\"allOf\":["); /* 2^12 ways */
    for (int i = 0; i < 12; i++)
        sb_printf(&b,
                  "%s{\"anyOf\":[{\"required\":[\"a%d\"]},{\"required\":[\"b%d\"]}]}",
                  i ? "," : "", i, i);
    sb_str(&b, "]}");
    assert_int_equal(try(&b, &err), RUNT_E_FORMAT);
    assert_non_null(strstr(err.msg, "ways"));
    b.len = 0;
    sb_str(&b, "{\"properties\":{");
    for (int i = 0; i < 5000; i++)
        sb_printf(&b, "%s\"p%d\":{}", i ? "," : "", i);
    sb_str(&b, "}}");
    assert_int_equal(try(&b, &err), RUNT_E_FORMAT);
    assert_non_null(strstr(err.msg, "properties"));
    b.len = 0;
    sb_str(&b, "{\"allOf\":[");
    put_many(&b, "{\"type\":\"object\"},", 300);
    sb_str(&b, "{}]}");
    assert_int_equal(try(&b, &err), RUNT_E_FORMAT);
    assert_non_null(strstr(err.msg, "at once"));
    b.len = 0;
    sb_str(&b, "{\"properties\":{"); /* many large repetitions */
    for (int i = 0; i < 300; i++)
        sb_printf(&b, "%s\"p%d\":{\"items\":{\"const\":%d},\"maxItems\":4096}",
                  i ? "," : "", i, i);
    sb_str(&b, "}}");
    assert_int_equal(try(&b, &err), RUNT_E_FORMAT);
    assert_non_null(strstr(err.msg, "more than 1048576 items"));
    b.len = 0;
    sb_str(&b, "{\"pattern\":\"^(a{1000}){1000}$\"}"); /* its rules are few */
    assert_int_equal(try(&b, &err), 0);
    b.len = 0;
    sb_str(&b, "{\"enum\":[");
    for (int i = 0; i < 3000; i++)
        sb_printf(&b, "%s\"%d%d\"", i ? "," : "", i, i);
    sb_str(&b, "],\"pattern\":\"^[0-9]+$\"}");
    assert_int_equal(try(&b, &err), 0);
    b.len = 0;
    put_many(&b, " ", (1 << 20) + 1);
    assert_int_equal(try(&b, &err), RUNT_E_FORMAT);
    sb_free(&b);
}

/* A long path is cut, the keyword stays. */
static void long_paths_are_cut(void **state)
{
    struct strbuf b = {0};
    struct runt_err err;
    (void)state;
    put_many(&b, "{\"items\":{\"properties\":{\"a long name of a property\":", 40);
    sb_str(&b, "{\"multipleOf\":2}");
    put_many(&b, "}}}", 40);
    assert_int_equal(try(&b, &err), RUNT_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "'multipleOf'"));
    assert_int_equal(strncmp(err.msg, "...", 3), 0);
    assert_true(strlen(err.msg) < 300);
    sb_free(&b);
}

/* ---- memory ---- */

static void no_memory_leaks_nothing(void **state)
{
    static const char text[] =
        "{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#/$defs/n\"},"
        "\"b\":{\"type\":\"string\",\"maxLength\":3},\"c\":{\"pattern\":\"^a[b-d]+$\"}}"
        ","
        "\"required\":[\"a\"],\"additionalProperties\":{\"oneOf\":[{\"enum\":[1.5,"
        "\"x\"],"
        "\"pattern\":\"x\"},{\"type\":\"null\"}]},"
        "\"$defs\":{\"n\":{\"type\":\"array\",\"prefixItems\":[{\"minimum\":3}]}}}";
    long live = mem_live();
    int rc = RUNT_E_NOMEM;
    (void)state;
    for (long i = 0; rc; i++) {
        struct runt_err err = {0};
        runt_grammar *g = NULL;
        mem_fail_after(i);
        rc = runt_grammar_json_schema(text, sizeof text - 1, &g, &err);
        mem_fail_after(-1);
        if (rc && (rc != RUNT_E_NOMEM || !strstr(err.msg, "memory")))
            fail_msg("%ld: %d %s", i, rc, err.msg);
        runt_grammar_free(g);
        assert_int_equal(mem_live(), live);
        assert_true(i < 5000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schemas_take_their_values),
        cmocka_unit_test(any_object_comes),
        cmocka_unit_test(refusals_name_keyword_and_place),
        cmocka_unit_test(sizes_are_bounded),
        cmocka_unit_test(long_paths_are_cut),
        cmocka_unit_test(no_memory_leaks_nothing),
    };
    return cmocka_run_group_tests_name("schema", tests, NULL, NULL);
}
