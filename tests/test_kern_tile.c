/* Products of tiles: every instruction set against the scalar specification, bit for
 * bit; the specification against plain double arithmetic; the packing against the
 * formats.
 *
 * Outputs start as poison and have guards, inputs end where an unreadable page begins.
 *
 * With --bench [LEVEL...] it is a micro-benchmark instead (kern_bench.h). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "kern_bench.h"
#include "kern_fixture.h"

#include "base/mem.h"
#include "fmt/r4.h"
#include "kern/kern_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct kern_table *ref;

static int setup(void **state)
{
    (void)state;
    ref = kern_table_for(CPU_REF);
    find_levels();
    return make_buffers() ? 0 : -1;
}

/* ---- every level against the specification ---- */

enum { MOST_X = 33, MOST_TILES = 3 };

struct shape {
    enum kern_tile k;
    enum pattern w, x;
    size_t n_cols;
};

static struct {
    uint8_t *w;
    struct kern_act *x;
    float want[MOST_TILES][MOST_X][KERN_TILE_ROWS];
} in;

/* Inputs for as many tiles and vectors as the case has at most, and what each pair of
 * them gives by itself. */
static void make_case(struct shape s, size_t n_tiles, size_t n_x)
{
    size_t bytes = kern_tile_bytes(s.k, s.n_cols), n_groups = kern_n_groups(s.n_cols);
    in.w = buffer(IN_W, n_tiles * bytes);
    in.w -= s.n_cols / 32 % 2 * 2; /* at addresses that are even and no more, too */
    in.x = buffer(IN_X, n_x * n_groups * sizeof *in.x);
    draw_tiles(in.w, s.k, s.w, s.n_cols, n_tiles);
    for (size_t i = 0; i < n_x; i++)
        draw_act(in.x + i * n_groups, s.x, s.n_cols);
    for (size_t t = 0; t < n_tiles; t++)
        for (size_t i = 0; i < n_x; i++)
            ref->tile[s.k](s.n_cols, 1, in.w + t * bytes, in.x + i * n_groups, 1,
                           in.want[t][i], KERN_TILE_ROWS);
}

static void check_case(struct shape s, size_t n_tiles, size_t n_x)
{
    for (size_t l = 0; l <= n_levels; l++) {
        const char *name = l < n_levels ? levels[l].name : "ref";
        kern_tile_fn *fn = (l < n_levels ? &levels[l].t : ref)->tile[s.k];
        size_t width = n_tiles * KERN_TILE_ROWS, stride = width + n_x % 3 * 5,
               n_out = n_x ? (n_x - 1) * stride + width : 0;
        float *out = poisoned(GOT, n_out);
        fn(s.n_cols, n_tiles, in.w, in.x, n_x, out, stride);
        for (size_t i = 0; i < n_out; i++) {
            size_t r = i % stride, v = i / stride;
            float want =
                r < width ? in.want[r / KERN_TILE_ROWS][v][r % KERN_TILE_ROWS] : 0;
            if (r < width ? !same(out[i], want) : !is_poison(out[i]))
                fail_msg("%s %s, weights %s, vectors %s, %zu columns, %zu tiles, %zu "
                         "vectors: row %zu, vector %zu is %a, not %a",
                         name, kern_tiles[s.k].name, pattern_names[s.w],
                         pattern_names[s.x], s.n_cols, n_tiles, n_x, r, v,
                         (double)out[i], (double)want);
        }
        if (!guards_hold(out))
            fail_msg("%s %s: wrote before its output", name, kern_tiles[s.k].name);
    }
}

static void check_shape(struct shape s, size_t n_tiles, size_t n_x)
{
    static const size_t more[] = {16, 33};
    make_case(s, n_tiles, n_x);
    for (size_t t = 1; t <= n_tiles; t++) {
        for (size_t i = 0; i <= 9 && i <= n_x; i++)
            check_case(s, t, i);
        for (size_t i = 0; i < 2; i++)
            if (more[i] <= n_x)
                check_case(s, t, more[i]);
    }
}

/* Every length of up to 4 groups that a format allows (R4: those about the edges). */
static void test_lengths(void **state)
{
    (void)state;
    static const size_t r4_lengths[] = {1,  2,  3,  4,  5,   7,   8,   9,   31, 32,
                                        33, 63, 64, 65, 100, 127, 128, 129, 255};
    for (enum kern_tile k = 0; k < KERN_N_TILES; k++) {
        if (k == KERN_TILE_R4)
            for (size_t i = 0; i < sizeof r4_lengths / sizeof *r4_lengths; i++)
                check_shape((struct shape){k, NORMAL, NORMAL, r4_lengths[i]}, 3, 33);
        else
            for (size_t n = 32; n <= 256; n += 32)
                check_shape((struct shape){k, NORMAL, NORMAL, n}, 3, 33);
    }
}

/* Lengths about the pieces that kernels cut rows into, those of GPT-2, and rows so long
 * that vectors are taken in turns. */
static void test_long(void **state)
{
    (void)state;
    static const size_t lengths[] = {512, 544, 768, 1024, 1088, 1600, 2080, 3072};
    for (enum kern_tile k = 0; k < KERN_N_TILES; k++) {
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
            check_shape((struct shape){k, NORMAL, NORMAL, lengths[i]}, i % 2 + 1,
                        i % 3 ? 9 : 16);
        struct shape s = {k, NORMAL, NORMAL, 12288};
        make_case(s, 2, 33);
        check_case(s, 2, 33);
        check_case(s, 1, 17);
    }
    struct shape odd = {KERN_TILE_R4, NORMAL, NORMAL, 3001};
    make_case(odd, 2, 9);
    check_case(odd, 2, 9);
}

/* All pairs of patterns: saturating codes and activations of either sign, scales that
 * are zero, denormal, huge, infinite, NaN. */
static void test_patterns(void **state)
{
    (void)state;
    for (enum kern_tile k = 0; k < KERN_N_TILES; k++)
        for (enum pattern w = 0; w < N_PATTERNS; w++)
            for (enum pattern x = 0; x < N_PATTERNS; x++) {
                check_shape((struct shape){k, w, x, k == KERN_TILE_R4 ? 333 : 352}, 1,
                            9);
                if (w == x)
                    check_shape((struct shape){k, w, x, 768}, 1, 9);
            }
}

/* A sum that underflows to -0, and then a group of -0: the one case where a product
 * that is added to +0 instead of rounded by itself shows. */
static void test_sign_of_zero(void **state)
{
    (void)state;
    for (enum kern_tile k = KERN_TILE_Q4_0; k < KERN_N_TILES; k++) {
        struct shape s = {k, ZEROS, ZEROS, 128};
        size_t group = kern_tile_bytes(k, 64), head = k == KERN_TILE_Q4_1 ? 128 : 64;
        in.w = buffer(IN_W, 2 * group);
        in.x = buffer(IN_X, 2 * sizeof *in.x);
        memset(in.w, 0, 2 * group);
        memset(in.x, 0, 2 * sizeof *in.x);
        for (size_t i = 0; i < 64; i++) { /* scales of -2^-24 */
            in.w[2 * i % 64 + i / 32 * group] = 1;
            in.w[2 * i % 64 + 1 + i / 32 * group] = 0x80;
        }
        /* codes of 0 meet activations of 0, but one product of 1 in group 0 */
        in.w[head] = k == KERN_TILE_Q4_0 ? 9 : 1;
        in.x[0].q[0] = 1, in.x[0].sum[0] = 1;
        in.x[0].minus8[0][0] = in.x[0].minus8_both[0] = -8;
        in.x[0].d = in.x[1].d = 0x1p-126f;
        ref->tile[k](128, 1, in.w, in.x, 1, in.want[0][0], KERN_TILE_ROWS);
        if (k != KERN_TILE_Q4_1) /* whose minima of +0 end the -0 */
            assert_true(in.want[0][0][0] == 0 && signbit(in.want[0][0][0]));
        check_case(s, 1, 1);
    }
}

/* ---- the specification against plain arithmetic ---- */

static double f16_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return (double)fmt_f16_to_f32(h);
}

static int nibble(const uint8_t *codes, size_t row, size_t col)
{
    int byte = codes[col / 8 * 64 + 4 * row + col % 4];
    return col / 4 % 2 ? byte / 16 : byte % 16;
}

/* The weight in a tile, and the sum of the magnitudes that make it up, from the layouts
 * as kern_tile.h and r4.h tell them. */
static double tile_weight(enum kern_tile k, size_t n_cols, const uint8_t *tile,
                          size_t row, size_t col, double *magnitude)
{
    size_t n_groups = (n_cols + 63) / 64, g = col / 64, h = col / 32 % 2;
    double v, min = 0;
    if (k == KERN_TILE_R4) {
        const uint8_t *codes = tile + (32 + 16 * n_groups + 63) / 64 * 64;
        v = f16_at(tile + 2 * row) * (int8_t)tile[32 + 16 * g + row] *
            (nibble(codes, row, col) - 8);
    } else if (k == KERN_TILE_Q8_0) {
        const uint8_t *p = tile + 1088 * g;
        v = f16_at(p + 32 * h + 2 * row) *
            (int8_t)p[64 + col % 64 / 4 * 64 + 4 * row + col % 4];
    } else if (k == KERN_TILE_Q4_0) {
        const uint8_t *p = tile + 576 * g;
        v = f16_at(p + 32 * h + 2 * row) * (nibble(p + 64, row, col % 64) - 8);
    } else {
        const uint8_t *p = tile + 640 * g;
        v = f16_at(p + 32 * h + 2 * row) * nibble(p + 128, row, col % 64);
        min = f16_at(p + 64 + 32 * h + 2 * row);
    }
    *magnitude = fabs(v) + fabs(min);
    return v + min;
}

/* A group rounds at most 5 times (two products, two minima, the sum), and a row's scale
 * once, all relative to the sum of magnitudes. */
static void test_value(void **state)
{
    (void)state;
    for (enum kern_tile k = 0; k < KERN_N_TILES; k++) {
        for (size_t n = 32; n <= 1600; n += k == KERN_TILE_R4 ? 31 : 96) {
            make_case((struct shape){k, NORMAL, NORMAL, n}, 1, 1);
            for (size_t row = 0; row < KERN_TILE_ROWS; row++) {
                double sum = 0, magnitude = 0;
                for (size_t i = 0; i < n; i++) {
                    double m, v = tile_weight(k, n, in.w, row, i, &m),
                              x = (double)in.x[i / 64].d * in.x[i / 64].q[i % 64];
                    sum += v * x;
                    magnitude += m * fabs(x);
                }
                double got = (double)in.want[0][0][row],
                       tol = ((double)kern_n_groups(n) + 6) * 0x1p-24 * magnitude;
                if (!(fabs(got - sum) <= tol))
                    fail_msg(
                        "%s, %zu columns, row %zu: %.9g, not %.9g (tolerance %.3g)",
                        kern_tiles[k].name, n, row, got, sum, tol);
            }
        }
    }
}

/* ---- packing ---- */

static void check_pack(enum kern_tile k, enum pattern p, size_t n_rows, size_t n_cols)
{
    const struct fmt_info *f = fmt_find(kern_tiles[k].type);
    size_t block = kern_tiles[k].block_bytes, n_blocks = n_cols / 32,
           row_bytes = n_blocks * block, row_step = row_bytes + n_rows % 3 * 2,
           tile_bytes = kern_tile_bytes(k, n_cols), floats = tile_bytes / 4;
    assert_int_equal(f->block_bytes, block);
    uint8_t *rows = buffer(IN_W, (n_rows - 1) * row_step + row_bytes);
    for (size_t r = 0; r < n_rows; r++)
        draw_blocks(rows + r * row_step, k, p, n_blocks);
    float *out = poisoned(GOT, floats);
    kern_tile_pack(k, n_rows, n_cols, rows, row_step, out);
    if (!guards_hold(out))
        fail_msg("%s: packing wrote before the tile", kern_tiles[k].name);

    const uint8_t *tile = (const void *)out;
    float *want = buffer(WANT, n_cols * sizeof *want);
    size_t n_set = 0, set_in_rows = 0;
    for (size_t r = 0; r < n_rows; r++) {
        f->decode(rows + r * row_step, want, n_cols);
        for (size_t i = 0; i < n_cols; i++) {
            double m, v = tile_weight(k, n_cols, tile, r, i, &m);
            if (!same((float)v, want[i]) &&
                !(fabs(v - (double)want[i]) <= 0x1p-23 * m)) /* Q4_1 rounds twice */
                fail_msg("%s, %s: row %zu of %zu, column %zu of %zu is %a, not %a",
                         kern_tiles[k].name, pattern_names[p], r, n_rows, i, n_cols, v,
                         (double)want[i]);
        }
        for (size_t i = 0; i < row_bytes; i++)
            set_in_rows += (size_t)__builtin_popcount(rows[r * row_step + i]);
    }
    /* no bit but those of the rows: the rest of the tile is zero */
    for (size_t i = 0; i < tile_bytes; i++)
        n_set += (size_t)__builtin_popcount(tile[i]);
    assert_int_equal(n_set, set_in_rows);
}

static void test_pack(void **state)
{
    (void)state;
    for (enum kern_tile k = KERN_TILE_Q4_0; k < KERN_N_TILES; k++) {
        for (size_t n_rows = 1; n_rows <= 16; n_rows++)
            for (size_t n_cols = 32; n_cols <= 224; n_cols += 32)
                check_pack(k, NORMAL, n_rows, n_cols);
        for (enum pattern p = 0; p < N_PATTERNS; p++)
            if (p !=
                SPECIAL) /* an infinite scale times code 0 is NaN in one, not both */
                check_pack(k, p, 16, 768);
        check_pack(k, NORMAL, 13, 3072);
    }
}

static void test_tile_bytes(void **state)
{
    (void)state;
    static const struct {
        enum fmt_type type;
        enum kern_tile tile;
        size_t bytes_32, bytes_768;
    } want[] = {{FMT_R4, KERN_TILE_R4, 64 + 512, 256 + 12 * 512},
                {FMT_Q4_0, KERN_TILE_Q4_0, 576, 12 * 576},
                {FMT_Q4_1, KERN_TILE_Q4_1, 640, 12 * 640},
                {FMT_Q8_0, KERN_TILE_Q8_0, 1088, 12 * 1088}};
    enum kern_tile k = KERN_N_TILES;
    for (size_t i = 0; i < 4; i++) {
        assert_true(kern_tile_for(want[i].type, &k) && k == want[i].tile);
        assert_int_equal(kern_tile_bytes(k, 32), want[i].bytes_32);
        assert_int_equal(kern_tile_bytes(k, 768), want[i].bytes_768);
        assert_true(kern_tile_bytes(k, 1 << 20) < (size_t)1 << 31);
    }
    k = KERN_N_TILES;
    assert_false(kern_tile_for(FMT_F16, &k) || kern_tile_for(FMT_Q6_K, &k));
    assert_int_equal(k, KERN_N_TILES);
}

/* ---- the benchmark ---- */

enum { MATRIX_BYTES = 128 << 20, BENCH_X = 512, HOT_TILES = 16 };

struct job {
    kern_tile_fn *fn;
    enum kern_tile k;
    size_t n_cols, n_tiles, n_x;
    uint8_t *w;
    const struct kern_act *x;
    float *out;
};

/* A tile at a time for one vector (out stays in the cache), all for several. */
static void run_tiles(void *job)
{
    const struct job *j = job;
    size_t bytes = kern_tile_bytes(j->k, j->n_cols);
    if (j->n_x > 1)
        j->fn(j->n_cols, j->n_tiles, j->w, j->x, j->n_x, j->out,
              HOT_TILES * KERN_TILE_ROWS);
    for (size_t t = 0; j->n_x == 1 && t < j->n_tiles; t++)
        j->fn(j->n_cols, 1, j->w + t * bytes, j->x, 1, j->out, KERN_TILE_ROWS);
}

static void bench_tile(struct job *j)
{
    static const size_t n_x[] = {2, 4, 6, 8, 16, 32, 64, 512};
    double bytes = (double)kern_tile_bytes(j->k, j->n_cols),
           ops = 2.0 * KERN_TILE_ROWS * (double)j->n_cols;
    j->n_x = j->n_tiles = 1;
    double hot = bench_best(run_tiles, j);
    j->n_tiles = MATRIX_BYTES / (size_t)bytes;
    double stream = bench_best(run_tiles, j) / (double)j->n_tiles;
    j->n_tiles = HOT_TILES;
    printf("%-10s %5zu %7.1f %7.1f %6.0f", kern_tiles[j->k].name, j->n_cols,
           1e-9 * bytes / hot, 1e-9 * bytes / stream, 1e-9 * ops / hot);
    for (size_t i = 0; i < sizeof n_x / sizeof *n_x; i++) {
        j->n_x = n_x[i];
        double s = bench_best(run_tiles, j) / HOT_TILES / (double)n_x[i];
        printf(" %5.0f", 1e-9 * ops / s);
        fflush(stdout);
    }
    printf("\n");
}

static void run_pack(void *job)
{
    const struct job *j = job;
    size_t bytes = j->n_cols / 32 * kern_tiles[j->k].block_bytes;
    for (size_t t = 0; t < j->n_tiles; t++)
        kern_tile_pack(j->k, 16, j->n_cols, j->w + t * 16 * bytes, bytes, j->out);
}

static int bench(int n_names, char **names)
{
    struct job j = {.w = mem_aligned(MATRIX_BYTES),
                    .out =
                        mem_array(BENCH_X * HOT_TILES * KERN_TILE_ROWS, sizeof(float))};
    struct kern_act *x = mem_array(BENCH_X * 48, sizeof *x);
    float *xf = mem_array(3072, sizeof *xf);
    int rc = !j.w || !j.out || !x || !xf || !make_buffers();
    if (rc) {
        fprintf(stderr, "test_kern_tile: out of memory\n");
        goto out;
    }
    /* Bytes 0x2c.. as every weight: f16 scales that are small normal numbers. */
    memset(j.w, 0x2c, MATRIX_BYTES);
    for (size_t i = 0; i < BENCH_X; i++) {
        memcpy(xf, draw_floats(IN_X, NORMAL, 3072), 3072 * sizeof *xf);
        kern_table_for(CPU_REF)->quantize_act(3072, xf, x + i * 48);
    }
    j.x = x;
    for (enum cpu_level l = CPU_REF; l < CPU_N_LEVELS; l++) {
        if (!bench_wanted(l, n_names, names))
            continue;
        printf("%s: products in registers only, GOP/s: %.0f\n", cpu_level_name(l),
               bench_limit(l));
        printf("kernel      cols  hot GB/s stream  GOP/s, vectors: 1 2 4 6 8 16 32 64 "
               "512\n");
        for (j.k = 0; j.k < KERN_N_TILES; j.k++) {
            for (int wide = 0; wide < 2; wide++) {
                j.fn = kern_table_for(l)->tile[j.k];
                j.n_cols = wide ? 3072 : 768;
                bench_tile(&j);
            }
        }
    }
    for (j.k = KERN_TILE_Q4_0; j.k < KERN_N_TILES && !n_names; j.k++) {
        size_t bytes = 16 * 24 * kern_tiles[j.k].block_bytes;
        j.n_cols = 768;
        j.n_tiles = 1;
        double hot = bench_best(run_pack, &j);
        j.n_tiles = MATRIX_BYTES / bytes;
        double stream = bench_best(run_pack, &j) / (double)j.n_tiles;
        printf("pack %-10s 768: GB/s of rows %.1f in the cache, %.1f from memory\n",
               kern_tiles[j.k].name + 5, 1e-9 * (double)bytes / hot,
               1e-9 * (double)bytes / stream);
    }
out:
    mem_free(xf);
    mem_free(x);
    mem_free(j.out);
    mem_free(j.w);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "--bench"))
        return bench(argc - 2, argv + 2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tile_bytes),   cmocka_unit_test(test_value),
        cmocka_unit_test(test_pack),         cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_long),         cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_sign_of_zero),
    };
    return cmocka_run_group_tests_name("kern_tile", tests, setup, NULL);
}
