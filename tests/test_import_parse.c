/* The two texts of a checkpoint in isolation: safetensors headers and config.json, what
 * is accepted and each refusal with its line. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/strbuf.h"
#include "import/import.h"
#include "import/safetensors.h"

#include <stdlib.h>
#include <string.h>

/* The call failed with this code and one line that holds `part`. */
static void check_refused(int rc, int code, const struct runt_err *err,
                          const char *part)
{
    if (rc != code || err->code != code || !strstr(err->msg, part))
        fail_msg("got %d: \"%s\", expected %d: \"...%s...\"", rc, err->msg, code, part);
    assert_null(strchr(err->msg, '\n'));
}

/* ---- config.json ---- */

static int parse_config(const char *text, struct gpt2_shape *s, struct runt_err *err)
{
    return hf_config_parse(text, strlen(text), "config.json", s, err);
}

#define SIZES                                                                  \
    "\"vocab_size\":50257,\"n_positions\":1024,\"n_embd\":768,\"n_layer\":12," \
    "\"n_head\":12"
#define GPT2 "{\"model_type\":\"gpt2\"," SIZES

static void test_config_accepted(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        struct gpt2_shape want;
    } cases[] = {
        {GPT2 "}", {50257, 1024, 768, 12, 12, 3072, 1e-5f, -1, -1, true}},
        {GPT2 ",\"n_inner\":null,\"bos_token_id\":50256,\"eos_token_id\":0}",
         {50257, 1024, 768, 12, 12, 3072, 1e-5f, 50256, 0, true}},
        {GPT2 ",\"n_inner\":100,\"bos_token_id\":null,\"eos_token_id\":-1,"
              "\"layer_norm_epsilon\":0,\"tie_word_embeddings\":false}",
         {50257, 1024, 768, 12, 12, 100, 0, -1, -1, false}},
        {GPT2 ",\"activation_function\":\"gelu_pytorch_tanh\",\"n_ctx\":5,"
              "\"scale_attn_weights\":true,\"scale_attn_by_inverse_layer_idx\":false,"
              "\"reorder_and_upcast_attn\":true,\"add_cross_attention\":false,"
              "\"layer_norm_epsilon\":1e-06,\"quantization_config\":null}",
         {50257, 1024, 768, 12, 12, 3072, 1e-6f, -1, -1, true}},
        {"{\"architectures\":[\"GPT2LMHeadModel\"],\"vocab_size\":7,\"n_ctx\":64,"
         "\"hidden_size\":16,\"num_hidden_layers\":3,\"num_attention_heads\":4}",
         {7, 64, 16, 4, 3, 64, 1e-5f, -1, -1, true}},
        {"{\"model_type\":null,\"architectures\":[\"GPT2Model\"],\"vocab_size\":7,"
         "\"max_position_embeddings\":64,\"n_embd\":16,\"n_layer\":3,\"n_head\":4,"
         "\"activation_function\":\"gelu_fast\"}",
         {7, 64, 16, 4, 3, 64, 1e-5f, -1, -1, true}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gpt2_shape s;
        struct runt_err err;
        const struct gpt2_shape *w = &cases[i].want;
        if (parse_config(cases[i].text, &s, &err))
            fail_msg("case %zu: %s", i, err.msg);
        if (s.n_vocab != w->n_vocab || s.n_ctx != w->n_ctx || s.n_embd != w->n_embd ||
            s.n_head != w->n_head || s.n_layer != w->n_layer || s.n_ff != w->n_ff ||
            !(s.eps == w->eps) || s.bos != w->bos || s.eos != w->eos ||
            s.tied != w->tied)
            fail_msg("case %zu: another shape", i);
    }
}

static void test_config_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int code;
        const char *part;
    } cases[] = {
        {"", RUNT_E_FORMAT, "config.json: bad JSON"},
        {"[]", RUNT_E_FORMAT, "not a JSON object"},
        {"{}", RUNT_E_FORMAT, "neither model_type nor architectures"},
        {"{" SIZES ",\"architectures\":[]}", RUNT_E_FORMAT, "neither model_type"},
        {"{" SIZES ",\"architectures\":[\"OPTForCausalLM\"]}", RUNT_E_UNSUPPORTED,
         "of type OPTForCausalLM, only gpt2"},
        {"{" SIZES ",\"model_type\":\"gpt_neo\"}", RUNT_E_UNSUPPORTED,
         "of type gpt_neo, only gpt2"},
        {GPT2 ",\"activation_function\":\"gelu\"}", RUNT_E_UNSUPPORTED,
         "activation_function is gelu, only gelu_new"},
        {GPT2 ",\"activation_function\":\"relu\"}", RUNT_E_UNSUPPORTED, "is relu"},
        {GPT2 ",\"activation_function\":3}", RUNT_E_UNSUPPORTED, "is not a name"},
        {GPT2 ",\"scale_attn_weights\":false}", RUNT_E_UNSUPPORTED,
         "scale_attn_weights is false, which"},
        {GPT2 ",\"scale_attn_by_inverse_layer_idx\":true}", RUNT_E_UNSUPPORTED,
         "scale_attn_by_inverse_layer_idx is true"},
        {GPT2 ",\"add_cross_attention\":true}", RUNT_E_UNSUPPORTED,
         "add_cross_attention is true"},
        {GPT2 ",\"add_cross_attention\":\"no\"}", RUNT_E_FORMAT, "true or false"},
        {GPT2 ",\"quantization_config\":{}}", RUNT_E_UNSUPPORTED, "quantized already"},
        {GPT2 ",\"n_inner\":0}", RUNT_E_FORMAT, "n_inner is 0"},
        {GPT2 ",\"n_inner\":1048577}", RUNT_E_FORMAT, "outside 0..1048576"},
        {GPT2 ",\"n_inner\":3072.0}", RUNT_E_FORMAT, "n_inner is not an integer"},
        {GPT2 ",\"layer_norm_epsilon\":-1e-5}", RUNT_E_FORMAT,
         "is -1e-05, outside 0..1"},
        {GPT2 ",\"layer_norm_epsilon\":1e200}", RUNT_E_FORMAT, "outside 0..1"},
        {GPT2 ",\"layer_norm_epsilon\":\"x\"}", RUNT_E_FORMAT, "is not a number"},
        {GPT2 ",\"eos_token_id\":50257}", RUNT_E_FORMAT,
         "eos_token_id is 50257, outside"},
        {GPT2 ",\"bos_token_id\":-2}", RUNT_E_FORMAT, "bos_token_id is -2"},
        {GPT2 ",\"eos_token_id\":[1]}", RUNT_E_FORMAT,
         "eos_token_id is not an integer"},
        {GPT2 ",\"tie_word_embeddings\":1}", RUNT_E_FORMAT, "tie_word_embeddings"},
        {"{\"model_type\":\"gpt2\",\"vocab_size\":9,\"n_ctx\":4,\"n_embd\":8,"
         "\"n_layer\":1,\"n_head\":3}",
         RUNT_E_FORMAT, "n_embd 8 is not a multiple of n_head 3"},
        {"{\"model_type\":\"gpt2\",\"n_ctx\":4}", RUNT_E_FORMAT, "no vocab_size"},
        {"{\"model_type\":\"gpt2\",\"vocab_size\":0}", RUNT_E_FORMAT,
         "vocab_size is 0"},
        {"{\"model_type\":\"gpt2\",\"vocab_size\":4194305}", RUNT_E_FORMAT, "4194304"},
        {"{\"model_type\":\"gpt2\",\"vocab_size\":9,\"n_embd\":8}", RUNT_E_FORMAT,
         "no n_positions"},
        {"{\"model_type\":\"gpt2\",\"vocab_size\":9,\"n_positions\":1048577}",
         RUNT_E_FORMAT, "n_positions is 1048577"},
        {"{\"model_type\":\"gpt2\",\"vocab_size\":9,\"n_ctx\":4,\"n_embd\":65537}",
         RUNT_E_FORMAT, "n_embd is 65537"},
        {"{\"model_type\":\"gpt2\",\"vocab_size\":9,\"n_ctx\":4,\"n_embd\":8,"
         "\"n_layer\":1025}",
         RUNT_E_FORMAT, "n_layer is 1025"},
        {"{\"model_type\":\"gpt2\",\"model_type\":\"llama\"}", RUNT_E_FORMAT,
         "duplicate"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gpt2_shape s;
        struct runt_err err = {0};
        memset(&s, 0x5a, sizeof s);
        check_refused(parse_config(cases[i].text, &s, &err), cases[i].code, &err,
                      cases[i].part);
        assert_int_equal(s.n_vocab, 0x5a5a5a5a);
    }
}

/* ---- the container ---- */

static void test_container_refusals(void **state)
{
    (void)state;
#define A(dtype, shape, range) \
    "{\"a\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" range "}"
    static const struct {
        const char *header, *part; /* part NULL: accepted; 16 bytes of data */
    } cases[] = {
        {"{}", NULL},
        {A("F32", "[]", "[0,4]") "}", NULL},
        {A("F16", "[0,5]", "[16,16]") "}", NULL},
        {A("F6_E2M3", "[4]", "[3,6]") "}  \n", NULL},
        {A("U8", "[8]", "[0,8]") ",\"b\":{\"dtype\":\"I64\",\"shape\":[1],"
                                 "\"data_offsets\":[8,16],\"more\":1}}",
         NULL},
        {A("U8", "[0]", "[4,4]") ",\"b\":{\"dtype\":\"F64\",\"shape\":[2],"
                                 "\"data_offsets\":[0,16]},\"__metadata__\":7}",
         NULL},
        {"", "bad JSON"},
        {"{\"a\":1} x", "bad JSON"},
        {"[]", "not a JSON object"},
        {"{\"a\":1}", "tensor a lacks its dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", "tensor a lacks its"},
        {A("F32", "3", "[0,4]") "}", "lacks its"},
        {A("F32", "[1]", "[0,4,8]") "}", "lacks its"},
        {A("F32", "[1.0]", "[0,4]") "}", "dimension 0 of its shape is not a size"},
        {A("F32", "[1,-1]", "[0,4]") "}", "dimension 1 of its shape is not a size"},
        {A("F32", "[1]", "[0,\"4\"]") "}", "data_offsets are not two sizes"},
        {A("F32", "[1]", "[-4,0]") "}", "data_offsets are not two sizes"},
        {A("F32", "[1]", "[4,0]") "}", "lies at bytes 4..0 of 16"},
        {A("F32", "[1]", "[16,20]") "}", "lies at bytes 16..20 of 16"},
        {A("Z", "[1]", "[0,9223372036854775807]") "}", "lies at bytes 0..9223372036"},
        {A("F32", "[3]", "[0,16]") "}", "has 16 bytes, not those of F32 [3]"},
        {A("F16", "[3]", "[0,4]") "}", "has 4 bytes, not those of F16 [3]"},
        {A("F4", "[3]", "[0,1]") "}", "not those of F4 [3]"},
        {A("F32", "[4611686018427387904,4]", "[0,0]") "}", "has 0 bytes, not those"},
        {A("F32", "[1073741824,1073741824,16,1]", "[0,0]") "}",
         "not those of F32 [1073741824, 1073741824, 16, 1]"},
        {A("U8", "[8]", "[0,8]") ",\"b\":{\"dtype\":\"U8\",\"shape\":[8],"
                                 "\"data_offsets\":[7,15]}}",
         "tensors a and b share bytes"},
        {A("U8", "[8]", "[8,16]") ",\"b\":{\"dtype\":\"U8\",\"shape\":[16],"
                                  "\"data_offsets\":[0,16]}}",
         "tensors b and a share bytes"},
        {A("U8", "[1]", "[0,1]") ",\"a\":{\"dtype\":\"U8\",\"shape\":[1],"
                                 "\"data_offsets\":[1,2]}}",
         "duplicate"},
    };
#undef A
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct strbuf b = {0};
        struct st_file *f = NULL;
        struct runt_err err = {0};
        size_t n = strlen(cases[i].header);
        sb_char(&b, (char)n);
        sb_put(&b, "\0\0\0\0\0\0\0", 7);
        b.data[1] = (char)(n >> 8);
        sb_str(&b, cases[i].header);
        sb_put(&b, "0123456789abcdef", 16);
        int rc = st_parse(b.data, b.len, "x", &f, &err);
        if (cases[i].part)
            check_refused(rc, RUNT_E_FORMAT, &err, cases[i].part);
        else if (rc)
            fail_msg("case %zu: %s", i, err.msg);
        st_close(f);
        sb_free(&b);
    }
    struct st_file *f = NULL;
    struct runt_err err = {0};
    check_refused(st_parse("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10, "x", &f, &err),
                  RUNT_E_FORMAT, &err, "cannot hold a header of 18446744073709551615");
    size_t n = 9 << 20;
    char *big = calloc(1, n);
    memcpy(big, "\1\0\x80\0\0\0\0\0{", 9);
    check_refused(st_parse(big, n, "x", &f, &err), RUNT_E_FORMAT, &err,
                  "a header of 8388609 bytes is above the limit of 8388608");
    free(big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_accepted),
        cmocka_unit_test(test_config_refused),
        cmocka_unit_test(test_container_refusals),
    };
    return cmocka_run_group_tests_name("import_parse", tests, NULL, NULL);
}
