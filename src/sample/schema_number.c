/* Owns the rules for numbers in a range.
 *
 * Decimal digits between two bounds: for every count of digits, cut where the digits
 * part, so that each piece is some fixed digits, then a range for one digit, then
 * digits that are free.  Between whole bounds a fraction may follow every whole part
 * but the last one. */
#include "sample/schema.h"

#include <stdio.h>
#include <string.h>

/* json_int_t has 64 bits. */
#define MOST_WHOLE 999999999999999999 /* 18 digits */
#define USUAL_WHOLE 9999999999999999  /* 16, where no bound says otherwise */
#define MOST_EXACT 9007199254740992   /* 2^53: of a double's whole numbers */
#define USUAL_EXACT 999999999999999

static grammar_item digit(struct schema *c, int lo, int hi)
{
    return builder_byte(c->builder, (uint8_t)lo, (uint8_t)hi);
}

static bool all_are(const char *s, size_t n, char digit)
{
    return strspn(s, (const char[]){digit, 0}) >= n;
}

/* Append the numbers of n digits from lo to hi. */
static void put_between(struct schema *c, struct item_list *l, const char *lo,
                        const char *hi, size_t n)
{
    static const char zeros[] = "000000000000000000", nines[] = "999999999999999999";
    for (; n && *lo == *hi; lo++, hi++, n--)
        item_put(l, digit(c, *lo, *lo));
    if (all_are(lo, n, '0') && all_are(hi, n, '9')) {
        for (size_t i = 0; i < n; i++)
            item_put(l, digit(c, '0', '9'));
        return;
    }
    uint32_t rule = builder_rule(c->builder, 0);
    const struct {
        int first, last;
        const char *lo, *hi;
    } pieces[3] = {{*lo, *lo, lo + 1, nines},
                   {*lo + 1, *hi - 1, zeros, nines},
                   {*hi, *hi, zeros, hi + 1}};
    for (size_t i = 0; i < 3; i++) {
        struct item_list piece = {0};
        if (pieces[i].first > pieces[i].last)
            continue;
        item_put(&piece, digit(c, pieces[i].first, pieces[i].last));
        put_between(c, &piece, pieces[i].lo, pieces[i].hi, n - 1);
        l->failed = l->failed || piece.failed;
        builder_alternative(c->builder, rule, piece.items, piece.n);
        item_list_free(&piece);
    }
    item_put(l, item_of_rule(rule));
}

/* Alternatives for the whole numbers from lo to hi, with what stands before and
 * behind. */
static void add_whole(struct schema *c, uint32_t rule, json_int_t lo, json_int_t hi,
                      bool minus, const grammar_item *behind)
{
    json_int_t first = 0, end = 10; /* of this count of digits */
    for (size_t n = 1; n <= 18 && first <= hi;
         n++, first = end, end *= n < 19 ? 10 : 1) {
        json_int_t from = lo > first ? lo : first, to = hi < end ? hi : end - 1;
        char a[24], b[24];
        struct item_list l = {0};
        if (from > to)
            continue;
        snprintf(a, sizeof a, "%lld", (long long)from);
        snprintf(b, sizeof b, "%lld", (long long)to);
        if (minus)
            item_put(&l, digit(c, '-', '-'));
        put_between(c, &l, a, b, n);
        if (behind)
            item_put(&l, *behind);
        schema_no_memory(c, l.failed);
        builder_alternative(c->builder, rule, l.items, l.n);
        item_list_free(&l);
    }
}

/* The numbers from lo to hi, both 0 or more, or the same below 0. */
static void add_range(struct schema *c, uint32_t rule, json_int_t lo, json_int_t hi,
                      bool minus, bool fractions)
{
    if (!fractions) {
        add_whole(c, rule, lo, hi, minus, NULL);
        return;
    }
    grammar_item fraction =
        builder_repeat(c->builder, schema_rule(c, "fraction"), 0, 1, 0);
    add_whole(c, rule, lo, hi - 1, minus, &fraction);
    add_whole(c, rule, hi, hi, minus, NULL);
}

static json_int_t least(json_int_t a, json_int_t b)
{
    return a < b ? a : b;
}

grammar_item schema_number(struct schema *c, const struct schema_shape *s,
                           unsigned types)
{
    bool fractions = types & T_FRACTION;
    json_int_t most = fractions ? MOST_EXACT : MOST_WHOLE,
               usual = fractions ? USUAL_EXACT : USUAL_WHOLE;
    if (fractions && s->inexact)
        schema_fail(c, RUNT_E_UNSUPPORTED, s->inexact,
                    "'%s' is supported for integers only, except for a whole number as "
                    "'minimum' or 'maximum'",
                    s->inexact_keyword);
    if (fractions && !s->has_min && !s->has_max)
        return schema_rule(c, "number");
    /* where only one side is bounded, the other is far away */
    json_int_t min = s->has_min        ? s->min
                     : s->max < -usual ? -most
                                       : -usual,
               max = s->has_max       ? s->max
                     : s->min > usual ? most
                                      : usual;
    if (c->rc)
        return item_of_rule(0);
    if (min > most || max < -most || (fractions && (min < -most || max > most)))
        schema_fail(c, RUNT_E_UNSUPPORTED, s->parts[0].schema,
                    "numbers from %lld to %lld are not supported: the limit is %lld",
                    (long long)min, (long long)max, (long long)most);
    uint32_t rule = builder_rule(c->builder, 0);
    if (min < 0)
        add_range(c, rule,
                  max < 0     ? -max
                  : fractions ? 0
                              : 1,
                  min < -most ? most : -min, true, fractions);
    if (max >= 0)
        add_range(c, rule, min > 0 ? min : 0, least(max, most), false, fractions);
    return item_of_rule(rule);
}
