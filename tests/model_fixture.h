/* Models for tests: the bundled one, and random ones of any shape. */
#ifndef TESTS_MODEL_FIXTURE_H
#define TESTS_MODEL_FIXTURE_H

#include "fmt/shape.h"
#include "model/model.h"
#include "runt/runt.h"

#include <stddef.h>

/* Where the sources are (RUNT_SOURCE_ROOT, else the current folder). */
const char *fixture_root(void);

/* Widths, heads and vocabulary that are no powers of two: width 96 = 3 heads of 32, but
 * feed-forward rows of 160, 203 tokens, context 90. */
struct gpt2_shape fixture_odd_shape(void);

/* An empty file in the temporary folder. */
void fixture_temporary(char *path, size_t n);

/* Write a random model file of a type into the temporary folder. */
void fixture_write_random(const struct gpt2_shape *s, const char *type, uint64_t seed,
                          char *path, size_t n);
/* Write, load, unlink.  Fails the test on any error. */
runt_model *fixture_random(const struct gpt2_shape *s, const char *type, uint64_t seed);
/* The same of any weights of a shape. */
runt_model *fixture_of(const struct gpt2_shape *s, const struct tensor_source *src,
                       const char *type);
/* models/tiny-gpt2 imported as a type. */
runt_model *fixture_tiny(const char *type);
void fixture_write_tiny(const char *type, char *path, size_t n);
void fixture_close(runt_model *m);

/* Logits of random models of every type as hexadecimal text, from this program run
 * again with --logits and RUNT_CPU set; free() it.  NULL when the child failed. */
extern const char *fixture_program;
char *fixture_logits_in_child(const char *cpu);
int fixture_print_logits(void);

#endif
