/* Sessions: many sequences in one pass, shared prefixes, files of computed prompts.
 * Whatever is shared, cut or saved, the logits are those of a sequence that was fed
 * alone, token by token, on one thread: to the bit, for every type of weights and every
 * kind of cache. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "model_fixture.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

enum { N_SEQS = 5, N_IDS = 80 };

static const char *const types[] = {"f32", "f16", "q8_0", "q4_0", "q4_1", "r4"};
enum { N_TYPES = sizeof types / sizeof *types };
static const enum runt_kv kinds[] = {RUNT_KV_F16, RUNT_KV_Q8, RUNT_KV_F32};

static int32_t ids[N_SEQS][N_IDS];
static struct gpt2_shape shape;

static runt_session *open_session(const runt_model *m, unsigned threads, unsigned batch,
                                  unsigned n_seqs, enum runt_kv kv)
{
    runt_session *s = NULL;
    struct runt_err err;
    struct runt_session_options o = {.n_threads = threads,
                                     .n_batch = batch,
                                     .n_seqs = n_seqs,
                                     .n_logits = N_SEQS * N_IDS,
                                     .kv = kv};
    if (runt_session_open(m, &o, &s, &err))
        fail_msg("%s", err.msg);
    return s;
}

static void feed(runt_session *s, const int32_t *tokens, size_t n)
{
    struct runt_err err;
    if (runt_session_feed(s, tokens, n, &err))
        fail_msg("%s", err.msg);
}

static void step(runt_session *s, const struct runt_step *steps, size_t n)
{
    struct runt_err err;
    if (runt_session_step(s, steps, n, &err))
        fail_msg("%s", err.msg);
}

/* [seq][n - 1]: logits of sequence `seq` after n tokens, fed alone. */
static float *alone(const runt_model *m, enum runt_kv kv)
{
    float *all = mem_array((size_t)N_SEQS * N_IDS * shape.n_vocab, sizeof *all);
    assert_non_null(all);
    runt_session *s = open_session(m, 1, 1, 1, kv);
    for (size_t q = 0; q < N_SEQS; q++) {
        runt_session_rewind(s, 0);
        for (size_t i = 0; i < N_IDS; i++) {
            feed(s, &ids[q][i], 1);
            memcpy(all + (q * N_IDS + i) * shape.n_vocab, runt_session_logits(s),
                   shape.n_vocab * sizeof *all);
        }
    }
    runt_session_close(s);
    return all;
}

static void expect(const runt_session *s, size_t row, const float *all, size_t seq,
                   size_t n)
{
    const float *want = all + (seq * N_IDS + n - 1) * shape.n_vocab,
                *got = runt_session_logits_at(s, row);
    for (size_t i = 0; i < shape.n_vocab; i++)
        if (memcmp(&got[i], &want[i], sizeof *got))
            fail_msg("sequence %zu after %zu tokens: logit %zu is %a, alone %a", seq, n,
                     i, (double)got[i], (double)want[i]);
}

/* Steps of uneven sizes for changing sets of sequences, with the logits of some of
 * their last tokens. */
static void many_in_one_pass(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_TYPES * 3; k++) {
        runt_model *m = fixture_random(&shape, types[k / 3], 5);
        float *all = alone(m, kinds[k % 3]);
        for (unsigned v = 0; v < 4; v++) {
            runt_session *s =
                open_session(m, 1 + v, v == 3 ? 7 : 64, N_SEQS, kinds[k % 3]);
            for (unsigned round = 0;; round++) {
                struct runt_step steps[N_SEQS];
                size_t n_steps = 0;
                for (uint32_t q = 0; q < N_SEQS; q++) {
                    uint32_t seq = (q + round) % N_SEQS,
                             pos = runt_session_seq_pos(s, seq);
                    size_t n = 1 + (seq * 5 + round * (v + 1)) % 17;
                    if (n > N_IDS - pos)
                        n = N_IDS - pos;
                    if (n && (round + q) % 3)
                        steps[n_steps++] =
                            (struct runt_step){seq, ids[seq] + pos, n,
                                               (round + v) % 4 ? seq % (n + 1) : n};
                }
                if (!n_steps && round > 60)
                    break;
                step(s, steps, n_steps);
                for (size_t i = 0, row = 0; i < n_steps; i++) {
                    size_t pos = runt_session_seq_pos(s, steps[i].seq),
                           rows = steps[i].n_logits ? steps[i].n_logits : 1;
                    for (size_t n = pos - rows + 1; n <= pos; n++)
                        expect(s, row++, all, steps[i].seq, n);
                    if (!i)
                        assert_ptr_equal(runt_session_logits(s),
                                         runt_session_logits_at(s, rows - 1));
                }
            }
            for (uint32_t q = 0; q < N_SEQS; q++) {
                assert_int_equal(runt_session_seq_pos(s, q), N_IDS);
                assert_memory_equal(runt_session_seq_tokens(s, q), ids[q],
                                    sizeof ids[q]);
            }
            runt_session_close(s);
        }
        mem_free(all);
        fixture_close(m);
    }
}

/* A text fed with guesses behind it that come true or not: what is kept of them, and
 * what follows, is as if nobody had guessed. */
static void guesses_that_are_taken_back(void **state)
{
    (void)state;
    enum { TEXT = 8, GUESSED = 12 };
    for (size_t k = 0; k < N_TYPES * 3; k++) {
        runt_model *m = fixture_random(&shape, types[k / 3], 5);
        float *all = alone(m, kinds[k % 3]);
        for (unsigned v = 0; v < 4; v++) {
            runt_session *s =
                open_session(m, 1 + v % 2, v / 2 ? 5 : 64, 2, kinds[k % 3]);
            for (uint32_t pos = 0, right = 0; pos + TEXT + GUESSED <= N_IDS;
                 right += 5) {
                int32_t guess[TEXT + GUESSED];
                right %= GUESSED + 1;
                memcpy(guess, ids[1] + pos, sizeof guess);
                for (size_t i = TEXT + right; i < TEXT + GUESSED; i++)
                    guess[i] = (guess[i] + 1) % (int32_t)shape.n_vocab;
                step(s, &(struct runt_step){1, guess, TEXT + GUESSED, GUESSED + 1}, 1);
                pos += TEXT + right;
                for (size_t i = 0; i <= right; i++)
                    expect(s, i, all, 1, pos - right + i);
                runt_session_seq_rewind(s, 1,
                                        pos + (right < GUESSED)); /* twice is once */
                runt_session_seq_rewind(s, 1, pos);
                assert_ptr_equal(runt_session_logits(s),
                                 runt_session_logits_at(s, right));
            }
            runt_session_close(s);
        }
        mem_free(all);
        fixture_close(m);
    }
}

/* A prefix computed once serves another sequence, which then goes its own way. */
static void a_shared_prefix(void **state)
{
    (void)state;
    for (size_t k = 0; k < 3; k++) {
        runt_model *m = fixture_random(&shape, "q4_0", 6);
        for (uint32_t n = 0; n <= 40; n += 1 + n / 3) {
            memcpy(ids[1], ids[0], n * sizeof **ids);
            float *all = alone(m, kinds[k]);
            runt_session *s = open_session(m, 2, 0, 3, kinds[k]);
            step(s, &(struct runt_step){0, ids[0], 50, 0}, 1);
            step(s, &(struct runt_step){2, ids[2], 60, 0}, 1); /* overwritten below */
            runt_session_copy(s, 0, 2, n);
            assert_int_equal(runt_session_seq_pos(s, 2), n);
            struct runt_step both[2] = {{2, ids[1] + n, N_IDS - n, 0},
                                        {0, ids[0] + 50, N_IDS - 50, 0}};
            step(s, both, 2);
            expect(s, 0, all, 1, N_IDS);
            expect(s, 1, all, 0, N_IDS);
            runt_session_close(s);
            mem_free(all);
        }
        fixture_close(m);
    }
}

static void matching_cuts_at_the_first_difference(void **state)
{
    (void)state;
    runt_model *m = fixture_random(&shape, "q4_0", 7);
    runt_session *s = open_session(m, 2, 0, 2, RUNT_KV_F16);
    int32_t other[N_IDS];
    memcpy(other, ids[0], sizeof other);
    other[30] = (other[30] + 1) % (int32_t)shape.n_vocab;
    step(s, &(struct runt_step){1, ids[0], 50, 0}, 1);
    assert_int_equal(runt_session_match(s, 0, ids[0], 50), 0); /* it holds nothing */
    assert_int_equal(runt_session_match(s, 1, ids[0], N_IDS), 50);
    assert_int_equal(runt_session_match(s, 1, ids[0], 50), 49); /* logits are wanted */
    assert_int_equal(runt_session_seq_pos(s, 1), 49);
    assert_int_equal(runt_session_match(s, 1, other, N_IDS), 30);
    assert_int_equal(runt_session_seq_pos(s, 1), 30);
    assert_int_equal(runt_session_match(s, 1, ids[0], 1), 0);
    runt_session_close(s);
    fixture_close(m);
}

static void steps_that_are_refused(void **state)
{
    (void)state;
    runt_model *m = fixture_random(&shape, "q4_0", 7);
    runt_session *s = NULL;
    struct runt_session_options o = {.n_threads = 2, .n_seqs = 2};
    struct runt_err err;
    assert_int_equal(runt_session_open(m, &o, &s, &err), 0);
    int32_t bad[2] = {0, (int32_t)shape.n_vocab};
    const struct {
        struct runt_step steps[2];
        size_t n;
        int code;
    } cases[] = {
        {{{2, ids[0], 1, 0}}, 1, RUNT_E_INVALID},
        {{{0, ids[0], 0, 0}}, 1, RUNT_E_INVALID},
        {{{0, bad, 2, 0}}, 1, RUNT_E_INVALID},
        {{{0, ids[0], 3, 0}, {0, ids[1], 3, 0}}, 2, RUNT_E_INVALID},
        {{{0, ids[0], 3, 0}, {1, ids[1], 91, 0}}, 2, RUNT_E_FULL},
        {{{0, ids[0], 3, 4}}, 1, RUNT_E_INVALID},
        {{{0, ids[0], 40, 36}}, 1, RUNT_E_INVALID}, /* 34 rows */
        {{{0, ids[0], 40, 33}, {1, ids[1], 2, 2}}, 2, RUNT_E_INVALID},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(runt_session_step(s, cases[i].steps, cases[i].n, &err),
                         cases[i].code);
        assert_non_null(strstr(err.msg, cases[i].n == 2 ? "step 1" : "step 0"));
        assert_int_equal(runt_session_seq_pos(s, 0), 0);
    }
    assert_int_equal(runt_session_step(s, NULL, 0, &err), 0);
    runt_session_close(s);
    o = (struct runt_session_options){.n_seqs = 5000};
    assert_int_equal(runt_session_open(m, &o, &s, &err), RUNT_E_INVALID);
    o = (struct runt_session_options){.n_logits = 65537};
    assert_int_equal(runt_session_open(m, &o, &s, &err), RUNT_E_INVALID);
    o = (struct runt_session_options){.kv = (enum runt_kv)9};
    assert_int_equal(runt_session_open(m, &o, &s, &err), RUNT_E_INVALID);
    o = (struct runt_session_options){.all_logits = true, .n_threads = 1};
    assert_int_equal(runt_session_open(m, &o, &s, &err), 0);
    assert_int_equal(runt_session_step(s, cases[0].steps, 1, &err), RUNT_E_INVALID);
    runt_session_close(s);
    fixture_close(m);
}

/* ---- embeddings ---- */

/* The head is a matrix: its product with the mean of what it reads is the mean of the
 * logits. */
static void embedding_is_the_mean_of_what_the_head_reads(void **state)
{
    (void)state;
    runt_model *m = fixture_random(&shape, "f32", 11);
    struct runt_session_options o = {.n_threads = 2, .n_batch = 7, .all_logits = true};
    runt_session *s = NULL;
    struct runt_err err;
    double mean[203] = {0}, length = 0, scale = 0;
    float e[96], row[96];
    assert_true(shape.n_vocab <= 203 && shape.n_embd == 96);
    assert_int_equal(runt_session_open(m, &o, &s, &err), 0);
    for (size_t i = 0; i < 70; i++) {
        feed(s, ids[2] + i, 1);
        for (size_t v = 0; v < shape.n_vocab; v++)
            mean[v] += (double)runt_session_logits(s)[v] / 70;
    }
    assert_int_equal(runt_embed(s, 0, ids[2], 70, e, &err), 0);
    for (size_t i = 0; i < 96; i++)
        length += (double)e[i] * (double)e[i];
    assert_true(fabs(length - 1) < 1e-6);
    for (size_t v = 0; v < shape.n_vocab; v++) {
        double y = 0;
        fmt_decode_row(m->token_embd.fmt, 96, m->token_embd.data, v, row);
        for (size_t i = 0; i < 96; i++)
            y += (double)row[i] * (double)e[i];
        if (!v)
            scale = mean[0] / y;
        /* sums of 96 floats below 0.1: their rounding is below 1e-6 */
        assert_true(scale > 0 && fabs(mean[v] - scale * y) < 2e-6 * scale);
    }
    runt_session_close(s);
    fixture_close(m);
}

/* However passes are cut, on any sequence and number of threads; and what it leaves
 * behind is the text, to be continued. */
static void embeddings_have_the_same_bits(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_TYPES; k++) {
        runt_model *m = fixture_random(&shape, types[k], 12);
        float *all = alone(m, RUNT_KV_AUTO), first[96], e[96];
        for (unsigned v = 0; v < 6; v++) {
            runt_session *s =
                open_session(m, 1 + v % 3, v % 2 ? 64 : 3 + v, 3, RUNT_KV_AUTO);
            struct runt_err err;
            uint32_t seq = v % 3;
            int32_t bad = -1;
            step(s, &(struct runt_step){seq, ids[4], 33, 0}, 1);
            float was = runt_session_logits(s)[7];
            assert_int_equal(runt_embed(s, seq, &bad, 1, e, &err), RUNT_E_INVALID);
            assert_int_equal(runt_embed(s, seq, ids[3], 0, e, &err), RUNT_E_INVALID);
            assert_int_equal(runt_embed(s, seq, ids[3], 91, e, &err), RUNT_E_FULL);
            assert_int_equal(runt_embed(s, 3, ids[3], 9, e, &err), RUNT_E_INVALID);
            assert_int_equal(runt_session_seq_pos(s, seq), 33);
            assert_int_equal(runt_embed(s, seq, ids[3], 41, v ? e : first, &err), 0);
            assert_true(!v || !memcmp(e, first, sizeof e));
            assert_memory_equal(&was, &runt_session_logits(s)[7], sizeof was);
            assert_int_equal(runt_session_seq_pos(s, seq), 41);
            step(s, &(struct runt_step){seq, ids[3] + 41, N_IDS - 41, 0}, 1);
            expect(s, 0, all, 3, N_IDS);
            runt_session_close(s);
        }
        mem_free(all);
        fixture_close(m);
    }
}

/* ---- files ---- */

static void saved_and_restored(void **state)
{
    (void)state;
    char path[256];
    fixture_temporary(path, sizeof path);
    for (size_t k = 0; k < 3; k++) {
        runt_model *m = fixture_random(&shape, "q4_0", 8);
        float *all = alone(m, kinds[k]);
        for (size_t n = 0; n <= 70; n += 1 + n / 2) {
            struct runt_err err;
            runt_session *a = open_session(m, 2, 0, 2, kinds[k]),
                         *b = open_session(m, 1, 0, 2, kinds[k]);
            if (n)
                step(a, &(struct runt_step){1, ids[3], n, 0}, 1);
            step(b, &(struct runt_step){0, ids[2], 33, 0}, 1);
            if (runt_session_save(a, 1, path, &err) ||
                runt_session_restore(b, 0, path, &err))
                fail_msg("%s", err.msg);
            assert_int_equal(runt_session_pos(b), n);
            step(b, &(struct runt_step){0, ids[3] + n, N_IDS - n, 0}, 1);
            expect(b, 0, all, 3, N_IDS);
            runt_session_close(a);
            runt_session_close(b);
        }
        mem_free(all);
        fixture_close(m);
    }
    unlink(path);
}

static void rewrite(const char *path, const char *bytes, size_t n)
{
    struct file_out *f = NULL;
    struct runt_err err;
    if (file_out_open(path, &f, &err) || file_out_write(f, bytes, n, &err) ||
        file_out_commit(f, &err))
        fail_msg("%s", err.msg);
}

/* Another model, another kind, a shorter context; every truncation and every byte
 * changed: an error that names the file, and the sequence as it was. */
static void files_that_are_refused(void **state)
{
    (void)state;
    char path[256], *bytes = NULL;
    size_t n = 0;
    struct runt_err err;
    fixture_temporary(path, sizeof path);
    struct gpt2_shape small = {.n_ctx = 24,
                               .n_embd = 8,
                               .n_head = 2,
                               .n_layer = 1,
                               .n_ff = 8,
                               .n_vocab = 300,
                               .eps = 1e-5f,
                               .tied = true};
    runt_model *m = fixture_random(&small, "f32", 1),
               *other = fixture_random(&small, "f32", 2);
    runt_session *s = open_session(m, 1, 0, 1, RUNT_KV_F16);
    feed(s, ids[0], 20);
    assert_int_equal(runt_session_save(s, 0, path, &err), 0);
    runt_session_rewind(s, 3);
    const struct {
        const runt_model *m;
        struct runt_session_options o;
        int code;
    } cases[] = {
        {other, {.kv = RUNT_KV_F16}, RUNT_E_INVALID},
        {m, {.kv = RUNT_KV_Q8}, RUNT_E_INVALID},
        {m, {.kv = RUNT_KV_F16, .n_ctx = 19}, RUNT_E_FULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        runt_session *t = NULL;
        assert_int_equal(runt_session_open(cases[i].m, &cases[i].o, &t, &err), 0);
        assert_int_equal(runt_session_restore(t, 0, path, &err), cases[i].code);
        assert_non_null(strstr(err.msg, path));
        assert_int_equal(runt_session_pos(t), 0);
        runt_session_close(t);
    }
    assert_int_equal(file_read(path, 1 << 20, &bytes, &n, &err), 0);
    for (size_t k = 0; k <= n; k++) { /* k == n: a byte too many */
        char was = bytes[k];
        rewrite(path, bytes, k == n ? n + 1 : k);
        assert_int_not_equal(runt_session_restore(s, 0, path, &err), 0);
        if (k < n) {
            bytes[k] = (char)(was ^ (1 << k % 8));
            rewrite(path, bytes, n);
            assert_int_not_equal(runt_session_restore(s, 0, path, &err), 0);
            bytes[k] = was;
        }
        assert_non_null(strstr(err.msg, path));
        assert_int_equal(runt_session_pos(s), 3);
        k += k > 200 ? 36 : 0;
    }
    rewrite(path, bytes, n);
    assert_int_equal(runt_session_restore(s, 0, path, &err), 0);
    unlink(path);
    assert_int_equal(runt_session_restore(s, 0, path, &err), RUNT_E_NOTFOUND);
    assert_int_equal(runt_session_pos(s), 20);
    mem_free(bytes);
    runt_session_close(s);
    fixture_close(m);
    fixture_close(other);
}

/* ---- accounts ---- */

/* Bytes and operations against a count of their own. */
static void the_account_adds_up(void **state)
{
    (void)state;
    runt_model *m = fixture_random(&shape, "f16", 9);
    struct runt_session_options o = {.n_threads = 2, .kv = RUNT_KV_Q8, .profile = true};
    runt_session *s = NULL;
    struct runt_err err;
    assert_int_equal(runt_session_open(m, &o, &s, &err), 0);
    feed(s, ids[0], 10);
    runt_session_profile_reset(s);
    feed(s, ids[0] + 10, 1);
    struct runt_profile_row rows[32];
    size_t n = runt_session_profile(s, rows, 32);
    uint64_t bytes = 0, ops = 0, e = shape.n_embd, f = shape.n_ff, v = shape.n_vocab,
             l = shape.n_layer, weights = l * (4 * e * e + 2 * e * f) + v * e;
    double seconds = 0;
    assert_true(n <= 32);
    for (size_t i = 0; i < n; i++) {
        bytes += rows[i].bytes;
        ops += rows[i].ops;
        seconds += rows[i].seconds;
    }
    /* two embedding rows; per head and position, keys and values: 32 codes, a scale */
    uint64_t cache = 2 * l * 11 * (e + 2 * shape.n_head);
    assert_int_equal(bytes, 2 * weights + 4 * e + cache);
    assert_int_equal(ops, 2 * weights + l * 4 * e * 11);
    assert_true(seconds > 0);
    runt_session_close(s);
    fixture_close(m);
}

static int setup(void **state)
{
    (void)state;
    shape = fixture_odd_shape();
    for (uint32_t q = 0; q < N_SEQS; q++)
        for (uint32_t i = 0; i < N_IDS; i++)
            ids[q][i] = (int32_t)((i * 7919 + q * 104729 + 13) % shape.n_vocab);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_in_one_pass),
        cmocka_unit_test(guesses_that_are_taken_back),
        cmocka_unit_test(embedding_is_the_mean_of_what_the_head_reads),
        cmocka_unit_test(embeddings_have_the_same_bits),
        cmocka_unit_test(matching_cuts_at_the_first_difference),
        cmocka_unit_test(steps_that_are_refused),
        cmocka_unit_test(saved_and_restored),
        cmocka_unit_test(files_that_are_refused),
        cmocka_unit_test(the_account_adds_up),
        cmocka_unit_test(a_shared_prefix),
    };
    return cmocka_run_group_tests_name("session", tests, setup, NULL);
}
