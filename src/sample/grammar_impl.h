/* A grammar that is being built, as its own files see it. */
#ifndef RUNT_SAMPLE_GRAMMAR_IMPL_H
#define RUNT_SAMPLE_GRAMMAR_IMPL_H

#include "sample/grammar.h"

struct alternative {
    uint32_t rule, first, n; /* into the builder's items */
};

/* What stands in a repetition without end. */
struct loop {
    uint32_t rule;
    size_t where;
};

/* A class of characters that has become a rule. */
struct wide_class {
    uint32_t first, n; /* into class_ranges */
    grammar_item item;
};

/* From a hash to an index: open addressing, a power of two of slots, 0 where empty,
 * else the index + 1. */
struct index_map {
    uint32_t *slots;
    size_t mask, n;
};

struct grammar_builder {
    struct alternative *alts;
    size_t n_alts, cap_alts;
    grammar_item *items;
    size_t n_items, cap_items;
    size_t *where; /* [n_rules] */
    size_t n_rules, cap_rules;
    struct loop *loops;
    size_t n_loops, cap_loops;
    struct byte_set *sets;
    size_t n_sets, cap_sets;
    struct index_map set_map;
    struct wide_class *classes;
    size_t n_classes, cap_classes;
    struct char_range *class_ranges;
    size_t n_class_ranges, cap_class_ranges;
    struct index_map class_map;
    bool no_memory, too_large;
};

/* Make room for one more of n elements of `size` bytes in *array; false, with p
 * untouched, without memory. */
bool grow(void *array, size_t n, size_t more, size_t *cap, size_t size);

#endif
