/* Grammars inside the room, and building one.
 *
 * A grammar is a set of rules; a rule has alternatives; an alternative is a sequence of
 * items; an item is one byte out of a set, or a rule.  Characters are Unicode's, but
 * tokens are bytes and may end inside of a character: so classes of characters become
 * rules over bytes when they are built, and from then on there are only bytes. */
#ifndef RUNT_SAMPLE_GRAMMAR_H
#define RUNT_SAMPLE_GRAMMAR_H

#include "runt/runt.h"

enum {
    GRAMMAR_MAX_TEXT = 1 << 20,  /* bytes of GBNF, of a schema */
    GRAMMAR_MAX_ITEMS = 1 << 20, /* of all alternatives, and as many of these */
    GRAMMAR_MAX_DEPTH = 128,     /* groups in groups, schemas in schemas */
    MAX_CHAR = 0x10ffff,
};

struct byte_set {
    uint64_t bits[4];
};

static inline bool byte_set_has(const struct byte_set *s, uint8_t b)
{
    return s->bits[b >> 6] >> (b & 63) & 1;
}

/* ---- building (grammar_build.c) ---- */

/* An item: 2 * (index of a byte set), or 2 * (a rule) + 1. */
typedef uint32_t grammar_item;
static inline bool item_is_rule(grammar_item i)
{
    return i & 1;
}
static inline grammar_item item_of_rule(uint32_t rule)
{
    return 2 * rule + 1;
}

/* Items in a row, growing.  Running out of memory sets `failed`, as in a strbuf. */
struct item_list {
    grammar_item *items;
    size_t n, cap;
    bool failed;
};
void item_put(struct item_list *l, grammar_item item);
void item_list_free(struct item_list *l);

/* Characters from lo to hi. */
struct char_range {
    uint32_t lo, hi;
};

/* A set of characters: ranges, in any order until char_set_tidy puts them in order and
 * joins them. */
struct char_set {
    struct char_range *ranges;
    size_t n, cap;
    bool failed;
};
void char_set_add(struct char_set *s, uint32_t lo, uint32_t hi);
void char_set_tidy(struct char_set *s);
/* All other characters (of a tidy set; makes a tidy set). */
void char_set_invert(struct char_set *s);
void char_set_free(struct char_set *s);

/* A grammar that grows.  What does not fit (memory, GRAMMAR_MAX_ITEMS) is dropped and
 * noted, so that a caller may build on and hear of it at the end. */
struct grammar_builder;
int builder_new(struct grammar_builder **out, struct runt_err *err);
void builder_free(struct grammar_builder *b);         /* NULL is fine */
bool builder_failed(const struct grammar_builder *b); /* going on is of no use */

/* A rule without alternatives, which matches nothing.  `where` is given back when
 * something is wrong with the rule. */
uint32_t builder_rule(struct grammar_builder *b, size_t where);
void builder_place(struct grammar_builder *b, uint32_t rule, size_t where);
void builder_alternative(struct grammar_builder *b, uint32_t rule,
                         const grammar_item *items, size_t n);
/* One byte of lo to hi. */
grammar_item builder_byte(struct grammar_builder *b, uint8_t lo, uint8_t hi);
/* Append bytes, one after the other. */
void builder_text(struct grammar_builder *b, struct item_list *to, const char *bytes,
                  size_t n);
/* One character of a tidy set, in UTF-8; of an empty set: nothing matches. */
grammar_item builder_chars(struct grammar_builder *b, const struct char_set *s);
/* `item` from `min` to `max` times, without an end for REPEAT_EVER. */
#define REPEAT_EVER UINT32_MAX
grammar_item builder_repeat(struct grammar_builder *b, grammar_item item, uint32_t min,
                            uint32_t max, size_t where);
/* An item for a sequence; that of a single item is the item. */
grammar_item builder_group(struct grammar_builder *b, const grammar_item *items,
                           size_t n, size_t where);

/* What can be wrong with rules that refer to each other. */
enum grammar_fault_kind {
    FAULT_NONE,
    FAULT_LEFT,    /* a rule begins with itself */
    FAULT_LOOP,    /* what is repeated without end may be empty */
    FAULT_ENDLESS, /* no text of the rule ever ends */
    FAULT_SIZE,    /* more than GRAMMAR_MAX_ITEMS */
};
struct grammar_fault {
    enum grammar_fault_kind kind;
    size_t where; /* of the rule */
};
/* Make a grammar of what can be reached from rule `root`, and leave the builder empty.
 * With `prune`, alternatives that never end are dropped; without, they are a fault, as
 * a root that never ends always is.  0 with *fault: none, or RUNT_E_NOMEM;
 * RUNT_E_FORMAT with a fault and no message. */
int builder_finish(struct grammar_builder *b, uint32_t root, bool prune,
                   struct grammar_fault *fault, runt_grammar **out,
                   struct runt_err *err);

/* ---- GBNF (gbnf.c) ---- */

/* Rules by name; they borrow the text. */
struct gbnf_names;
void gbnf_names_free(struct gbnf_names *names); /* NULL is fine */
/* Read rules into a builder.  Every name that is used must be defined. */
int gbnf_read(struct grammar_builder *b, const char *text, size_t n,
              struct gbnf_names **names, struct runt_err *err);
bool gbnf_find(const struct gbnf_names *names, const char *name, uint32_t *rule);

/* ---- a grammar ---- */

/* Rule r has the alternatives starts[rules[r]] to starts[rules[r + 1]], places in
 * `code`, where items follow each other until ITEM_END. */
#define ITEM_END UINT32_MAX
struct runt_grammar {
    grammar_item *code;
    uint32_t *starts, *rules;
    size_t n_code, n_rules; /* the root is rule 0 */
    struct byte_set *sets;
    /* Bytes that are in the same sets need not be told apart. */
    uint8_t byte_class[256], class_byte[256];
    unsigned n_classes;
};

#endif
